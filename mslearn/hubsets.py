"""Larger sets of the hub by name: the repository, its terms, and which column holds what."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class HubSet:
    """One set of the hub: its repository and which of its columns hold what.

    `text` and `label` name columns; `extra` maps our names to functions of a row; `limit` is the
    most documents taken of a published split when the caller names no number (None: all of it).
    """

    name: str
    repository: str
    licence: str
    citation: str
    text: str = "text"
    label: str | None = None
    labels: tuple[str, ...] = ()
    extra: Mapping[str, Callable[[Row], Any]] = field(default_factory=dict)
    configuration: str | None = None
    revision: str | None = None
    limit: int | None = None


CONVERTED = "refs/convert/parquet"  # the hub's own copy of sets that came with a loading script
ENTITIES = ("O", *(f"{part}-{kind}" for kind in ("PER", "ORG", "LOC", "MISC") for part in "BI"))

HUB = {
    each.name: each
    for each in (
        HubSet(
            "tinystories",
            "roneneldan/TinyStories",
            "CDLA-Sharing-1.0",
            "R. Eldan and Y. Li, TinyStories, 2023, arXiv:2305.07759.",
            limit=100_000,
        ),
        HubSet(
            "fineweb-edu",
            "HuggingFaceFW/fineweb-edu",
            "ODC-By 1.0",
            "G. Penedo et al., The FineWeb Datasets, 2024, arXiv:2406.17557.",
            configuration="sample-10BT",
            limit=20_000,
        ),
        HubSet(
            "imdb",
            "stanfordnlp/imdb",
            "none stated; third-party reviews: for study, not for passing on",
            "A. L. Maas et al., Learning Word Vectors for Sentiment Analysis, ACL 2011.",
            label="label",
            labels=("negative", "positive"),
        ),
        HubSet(
            "sst2",
            "stanfordnlp/sst2",
            "none stated; third-party reviews: for study, not for passing on",
            "R. Socher et al., Recursive Deep Models for Semantic Compositionality, EMNLP 2013.",
            text="sentence",
            label="label",
            labels=("negative", "positive"),
        ),
        HubSet(
            "squad",
            "rajpurkar/squad",
            "CC BY-SA 4.0",
            "P. Rajpurkar et al., SQuAD: 100,000+ Questions, EMNLP 2016.",
            text="context",
            extra={
                "question": lambda row: row["question"],
                "answer": lambda row: row["answers"]["text"][0],
                "start": lambda row: row["answers"]["answer_start"][0],
            },
        ),
        HubSet(
            "conll2003",
            "eriktks/conll2003",
            "Reuters' text under the terms of its research agreement: for study only",
            "E. F. Tjong Kim Sang and F. De Meulder, CoNLL-2003 Shared Task, 2003.",
            text="tokens",
            labels=ENTITIES,
            extra={
                "tokens": lambda row: list(row["tokens"]),
                "tags": lambda row: [ENTITIES[tag] for tag in row["ner_tags"]],
            },
            revision=CONVERTED,
        ),
        HubSet(
            "xsum",
            "EdinburghNLP/xsum",
            "none stated; the BBC's text: for study, not for passing on",
            "S. Narayan et al., Don't Give Me the Details, Just the Summary!, EMNLP 2018.",
            text="document",
            extra={"summary": lambda row: row["summary"]},
            revision=CONVERTED,
        ),
        HubSet(
            "opus",
            "Helsinki-NLP/opus-100",
            "not stated; many sources with terms of their own",
            "B. Zhang et al., Improving Massively Multilingual NMT, ACL 2020; J. Tiedemann, OPUS, "
            "LREC 2012.",
            text="translation",
            extra={"french": lambda row: row["translation"]["fr"]},
            configuration="en-fr",
            limit=100_000,
        ),
    )
}
