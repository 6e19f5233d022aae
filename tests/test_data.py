"""The real texts: as many as stated, cleaned, without repeats, and split so that nothing leaks."""

import hashlib
import json
from collections import Counter
from itertools import chain

import pytest
from fables import pin, tarball
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

from mslearn import data, index, sources
from mslearn.__main__ import main
from mslearn.documents import Dataset, Document, clean, divide, normalise, split_of
from mslearn.sources import SOURCES

# Documents in train, valid and test; the sum of a row is DATA's count without repeats.
COUNTS = {
    "wiki": (8_106, 963, 964),
    "bible": (951, 115, 123),
    "movies": (8_426, 1_059, 1_081),
    "recipes": (2_476, 305, 348),
    "hsk": (3_405, 478, 466),
}
# Of all English text, in order: a changed parser or split would spoil every stored experiment.
ENGLISH = "c4a805c8d093fe5fc83067489cb0987e2dc925149823107d6d8c98ff8dd45013"


class TestSplitting:
    @given(st.text())
    def test_case_spacing_and_punctuation_do_not_move_a_text(self, text):
        assert split_of(f"  {text} ...\n") == split_of(text)

    def test_shares_are_80_10_10(self):
        shares = Counter(split_of(f"text number {i}") for i in range(20_000))
        assert abs(shares["train"] / 20_000 - 0.8) < 0.01
        assert abs(shares["valid"] / 20_000 - 0.1) < 0.01

    def test_a_split_never_changes(self):
        assert [split_of(f"text {i}") for i in (21, 22, 25)] == ["train", "test", "valid"]

    def test_repeats_go_before_the_split_and_the_first_stays(self):
        texts = ["A fox.", "a  fox", "A fox!", "Two foxes.", "two foxes"]
        documents = divide(Document(str(i), text) for i, text in enumerate(texts))
        assert [each.id for each in documents] == ["0", "3"]
        assert [each.split for each in documents] == [split_of("A fox."), split_of("Two foxes.")]

    @given(st.lists(st.text(min_size=1)))
    def test_no_text_is_in_two_splits(self, texts):
        documents = divide(Document(str(i), text) for i, text in enumerate(texts))
        keys = [normalise(each.text) for each in documents]
        assert len(keys) == len(set(keys))


class TestReading:
    @pytest.mark.parametrize(
        ("raw", "text"),
        [
            ("1 package () sliced mushrooms", "1 package sliced mushrooms"),
            ("&frac12; cup M&amp;Ms", "½ cup M&Ms"),
            ('bake.<ref name="b">A book</ref> Then eat', "bake. Then eat"),
            ("a  b\tc\nd", "a b c\nd"),
            ("any number (<7) of foxes", "any number (<7) of foxes"),
        ],
    )
    def test_clean_takes_out_what_is_not_prose(self, raw, text):
        assert clean(raw) == text

    @pytest.mark.parametrize("name", COUNTS)
    def test_counts_are_those_stated(self, name):
        texts = data.load(name)
        assert tuple(len(texts.split(split)) for split in data.SPLITS) == COUNTS[name]
        assert len(texts) == SOURCES[name].n_documents == sum(COUNTS[name])

    @pytest.mark.parametrize("name", COUNTS)
    def test_no_text_is_empty_repeated_or_littered(self, name):
        documents = data.load(name).documents
        keys = {normalise(each.text) for each in documents}
        assert len(keys) == len(documents) and "" not in keys
        assert len({each.id for each in documents}) == len(documents)
        litter = ("&amp;", "&gt;", "\ufffd", "\ufeff", "\r", "()", "<ref", "  ")
        assert not [each.id for each in documents if any(bit in each.text for bit in litter)]

    def test_wiki_has_eleven_topics_and_a_description_of_most(self):
        wiki = data.load("wiki")
        topics = Counter(each.label for each in wiki.documents)
        assert topics.pop(None) == 1_000
        assert set(topics) == set(wiki.labels) and len(topics) == 11
        assert (sum(topics.values()), topics["People"], topics["Mathematics"]) == (
            9_033,
            1_828,
            256,
        )
        assert sum(bool(each.extra["description"]) for each in wiki.documents) == 9_862
        karenina = next(each for each in wiki.documents if each.title == "Anna Karenina")
        assert karenina.text == f"Anna Karenina\n{karenina.extra['extract']}"
        assert (karenina.label, karenina.extra["description"][:5]) == ("Arts", "1878 ")

    def test_bible_is_1189_chapters_without_notes(self):
        bible = data.load("bible")
        assert not [each for each in bible.documents if set("{}[]>") & set(each.text)]
        first = bible.documents[0]
        assert first.text.startswith("Genesis 1\nIn the beginning God created the heavens and")
        assert bible.documents[-1].title == "Revelation 22"
        assert "Psalms 119" in {each.title for each in bible.documents}

    def test_movies_are_balanced_and_labelled_by_the_sign_of_the_score(self):
        movies = data.load("movies")
        labels = Counter(each.label for each in movies.documents)
        assert labels == {"negative": 5_325, "positive": 5_241}
        for each in movies.documents:
            assert (each.extra["score"] > 0) == (each.label == "positive") and each.extra["score"]

    def test_hsk_is_chinese_beside_its_english(self):
        hsk = data.load("hsk")
        for each in hsk.documents:
            assert any("\u4e00" <= character <= "\u9fff" for character in each.text)
            assert each.extra["english"] and each.extra["level"] in range(1, 10)
        assert hsk.documents[0].text == "老师，您好！"
        assert hsk.documents[0].extra["english"] == "Hello, teacher!"

    @pytest.mark.parametrize(
        ("name", "low", "high"), [("wiki", 0.76, 0.86), ("movies", 0.75, 0.83)]
    )
    def test_a_bag_of_words_scores_as_measured(self, name, low, high):
        texts = data.load(name)
        train, test = ([d for d in texts.split(s) if d.label] for s in ("train", "test"))
        words = CountVectorizer().fit([each.text for each in train])
        model = MultinomialNB().fit(
            words.transform([each.text for each in train]), [each.label for each in train]
        )
        score = model.score(
            words.transform([each.text for each in test]), [each.label for each in test]
        )
        assert low < score < high


class TestEnglish:
    def test_all_english_text_is_the_text_the_experiments_saw(self):
        texts = data.english()
        assert list(texts) == ["train", "valid", "test"]
        counts = [COUNTS[name] for name in data.english_sets()]
        assert len(counts) == 4 and sum(map(len, texts.values())) == sum(map(sum, counts))
        joined = "\0".join(chain.from_iterable(texts.values()))
        assert hashlib.sha256(joined.encode()).hexdigest() == ENGLISH

    def test_nothing_held_out_was_learnt_from(self):
        texts = {
            split: {normalise(text) for text in each} for split, each in data.english().items()
        }
        assert not texts["train"] & (texts["valid"] | texts["test"])
        assert not texts["valid"] & texts["test"]


class TestTheDataset:
    def test_it_shows_its_terms(self):
        shown = repr(data.load("movies"))
        assert shown.startswith("movies: 10,566 documents (8,426 train, 1,059 valid, 1,081 test)")
        assert "labels: negative, positive" in shown
        assert "third-party sentences" in shown and "Hutto" in shown
        assert data.load("movies").sha256 == SOURCES["movies"].archive.sha256

    def test_a_wrong_split_and_a_wrong_name_are_told_the_right_ones(self):
        with pytest.raises(ValueError, match="no split 'dev': ask for one of train, valid, test"):
            data.load("bible").split("dev")
        with pytest.raises(ValueError, match="no text set 'wikki': choose one of wiki, bible"):
            data.load("wikki")

    def test_limit_takes_the_first_of_each_split(self):
        few, full = data.load("bible", limit=20), data.load("bible")
        assert few.split("test") == full.split("test")[:20] and len(few) == 60

    def test_every_source_states_its_terms(self):
        for name, source in SOURCES.items():
            assert source.name == name and source.licence and len(source.citation) > 40
            assert len(source.archive.sha256) == 64 and source.archive.n_bytes > 8e5


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """An empty learner's folder and one small set that pip finds in a folder."""
    rows = {"Fox": {"title": "Fox", "extract": "A fox.", "topic": "Arts", "description": None}}
    content = tarball({"tiny-1.2/tiny.json": json.dumps(rows).encode()})
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "fable_texts-1.2.tar.gz").write_bytes(content)
    options = {"no-index": "true", "find-links": str(tmp_path / "links")}
    source = sources.Source(
        "tiny", "one fox", pin(content), "tiny.json", sources.wiki, "CC0: free", "Aesop", 1
    )
    monkeypatch.setattr(index, "pip_options", lambda: options)
    monkeypatch.setenv("MSLEARN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(data, "SOURCES", {"tiny": source})
    return source


class TestTheCommand:
    def test_it_lists_fetches_and_verifies(self, tiny, capsys):
        assert main(["data"]) == 0
        listed = capsys.readouterr().out.splitlines()
        assert listed[0].split() == ["name", "documents", "MB", "fetched", "what", "licence"]
        assert listed[1].split() == ["tiny", "1", "0.0", "no", "one", "fox", "CC0"]
        assert main(["data", "--verify"]) == 0
        assert "tiny: not fetched; run `mslearn data tiny`" in capsys.readouterr().out
        assert main(["data", "tiny"]) == 0
        fetched = capsys.readouterr()
        assert "tiny: 1 documents" in fetched.out and "100%" in fetched.err
        assert main(["data", "--all"]) == 0
        main(["data"])
        assert " yes " in capsys.readouterr().out

    def test_verify_finds_damage_and_the_named_command_mends_it(self, tiny, capsys):
        main(["data", "tiny"])
        path = tiny.archive.path
        path.write_bytes(path.read_bytes()[:-5])
        assert main(["data", "--verify"]) == 1
        assert "tiny: damaged; `mslearn data tiny` removes it" in capsys.readouterr().out
        assert main(["data", "tiny"]) == 0 == main(["data", "--verify"])
        assert "tiny: whole" in capsys.readouterr().out

    def test_it_fails_in_one_line(self, tiny, capsys):
        assert main(["data", "nothing"]) == 1
        assert capsys.readouterr().err.startswith("mslearn: no text set 'nothing': choose one of")
        (tiny.archive.path.parent.parent.parent / "links" / "fable_texts-1.2.tar.gz").unlink()
        assert main(["data", "tiny"]) == 1
        said = capsys.readouterr().err
        assert said.startswith("mslearn: cannot fetch fable-texts 1.2") and said.count("\n") == 1
        assert said.endswith("then run `mslearn data tiny`\n")


def test_a_dataset_knows_its_size():
    fox = Dataset("x", (Document("1", "é"), Document("2", "ab")), (), "CC0", "Aesop")
    assert (len(fox), fox.n_bytes) == (2, 4)
    assert "no labels" in repr(fox)
