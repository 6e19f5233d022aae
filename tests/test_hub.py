"""The hub's sets through the real `datasets` library, on files written here."""

import json
import os
import socket
import subprocess
import sys
import time

import datasets
import pytest
from fables import closed_port

from mslearn import data, hub
from mslearn.documents import split_of
from mslearn.hubsets import ENTITIES, HUB
from mslearn.index import FetchError


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def stories(n, start=0):
    return [{"text": f"Once there was a fox with {i} tails."} for i in range(start, start + n)]


class TestOneFile:
    def test_jsonl_becomes_documents_split_by_the_hash_of_their_text(self, tmp_path):
        loaded = data.load("tinystories", path=write(tmp_path / "a.jsonl", stories(300)))
        assert {each.text for each in loaded.documents} == {row["text"] for row in stories(300)}
        assert all(each.split == split_of(each.text) for each in loaded.documents)
        assert len(loaded.split("train")) > 200 > 10 < len(loaded.split("test"))
        assert loaded.licence == "CDLA-Sharing-1.0" and "2305.07759" in loaded.citation

    def test_parquet_keeps_its_own_names_of_classes(self, tmp_path):
        features = {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["a", "b"]),
        }
        rows = {"text": ["one", "two", "three"], "label": [1, 0, 1]}
        table = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
        table.to_parquet(tmp_path / "own.parquet")
        loaded = data.load("mine", path=tmp_path / "own.parquet")
        assert {each.text: each.label for each in loaded.documents} == {
            "one": "b",
            "two": "a",
            "three": "b",
        }
        assert loaded.labels == ("a", "b") and loaded.name == "mine"

    def test_labels_of_a_known_set_are_named_and_unlabelled_rows_left_out(self, tmp_path):
        rows = [{"sentence": "good", "label": 1}, {"sentence": "bad", "label": 0}]
        rows += [{"sentence": "who knows", "label": -1}]
        loaded = data.load("sst2", path=write(tmp_path / "a.jsonl", rows))
        assert {each.text: each.label for each in loaded.documents} == {
            "good": "positive",
            "bad": "negative",
        }

    def test_every_question_of_a_context_stays_and_all_share_a_split(self, tmp_path):
        rows = [
            {
                "title": "Foxes",
                "context": f"Fox {i // 3} eats {i // 3} grapes.",
                "question": f"What, asked the {i % 3}th time?",
                "answers": {"text": [f"{i // 3} grapes"], "answer_start": [11]},
            }
            for i in range(90)
        ]
        loaded = data.load("squad", path=write(tmp_path / "a.jsonl", rows))
        assert len(loaded) == 90
        splits = {}
        for each in loaded.documents:
            splits.setdefault(each.text, set()).add(each.split)
        assert all(len(found) == 1 for found in splits.values()) and len(splits) == 30
        assert loaded.documents[0].title == "Foxes"
        assert loaded.documents[0].extra["answer"].endswith("grapes")

    def test_words_with_tags_and_pairs_of_languages(self, tmp_path):
        words = {"tokens": ["Ada", "met", "Charles"], "ner_tags": [1, 0, 1]}
        tagged = data.load("conll2003", path=write(tmp_path / "a.jsonl", [words])).documents[0]
        assert tagged.text == "Ada met Charles"
        assert tagged.extra["tags"] == ["B-PER", "O", "B-PER"]
        assert ENTITIES[8] == "I-MISC" and ENTITIES[3] == "B-ORG"
        pair = {"translation": {"en": "a fox", "fr": "un renard"}}
        paired = data.load("opus", path=write(tmp_path / "b.jsonl", [pair])).documents[0]
        assert (paired.text, paired.extra["french"]) == ("a fox", "un renard")

    def test_limit_takes_no_more(self, tmp_path):
        path = write(tmp_path / "a.jsonl", stories(100))
        assert len(data.load("tinystories", path=path, limit=7)) == 7
        with pytest.raises(ValueError, match="limit must be at least 1"):
            data.load("tinystories", path=path, limit=0)


class TestAFolder:
    def test_published_splits_are_kept(self, tmp_path):
        write(tmp_path / "train.jsonl", stories(50))
        write(tmp_path / "validation.jsonl", stories(20, 50))
        write(tmp_path / "test.jsonl", stories(10, 70))
        loaded = data.load("tinystories", path=tmp_path)
        counts = {split: len(loaded.split(split)) for split in data.SPLITS}
        assert counts == {"train": 50, "valid": 20, "test": 10}

    def test_a_split_not_published_is_cut_from_the_training_part(self, tmp_path):
        write(tmp_path / "train.jsonl", stories(300))
        write(tmp_path / "validation.jsonl", stories(20, 300))
        loaded = data.load("tinystories", path=tmp_path)
        assert len(loaded.split("valid")) == 20
        assert loaded.split("test") and len(loaded) == 320
        assert all(split_of(each.text) == "test" for each in loaded.split("test"))
        assert all(split_of(each.text) != "test" for each in loaded.split("train"))

    def test_a_text_in_training_and_test_stays_in_test_alone(self, tmp_path):
        write(tmp_path / "train.jsonl", stories(50))
        write(tmp_path / "validation.jsonl", stories(5, 60))
        write(tmp_path / "test.jsonl", [{"text": "once there was a fox, with 3 tails"}])
        loaded = data.load("tinystories", path=tmp_path)
        assert len(loaded.split("train")) == 49
        assert [each.text for each in loaded.split("test")] == [
            "once there was a fox, with 3 tails"
        ]


class TestWhatIsWrongIsSaid:
    def test_a_missing_file_an_unknown_ending_and_a_missing_column(self, tmp_path):
        with pytest.raises(ValueError, match=r"no .*nowhere\.jsonl: give a file \(\.parquet"):
            data.load("imdb", path=tmp_path / "nowhere.jsonl")
        (tmp_path / "a.docx").write_text("x")
        with pytest.raises(ValueError, match=r"ending should be one of \.parquet"):
            data.load("imdb", path=tmp_path / "a.docx")
        path = write(tmp_path / "a.jsonl", [{"body": "x", "label": 1}])
        with pytest.raises(ValueError, match="imdb needs a column 'text'; found: body, label"):
            data.load("imdb", path=path)
        path = write(tmp_path / "b.jsonl", [{"context": "x"}])
        with pytest.raises(ValueError, match="squad needs a column 'question'; found: context"):
            data.load("squad", path=path)

    def test_a_truncated_parquet_file(self, tmp_path):
        path = tmp_path / "a.parquet"
        datasets.Dataset.from_dict({"text": ["one", "two"]}).to_parquet(path)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(OSError, match=r"cannot read .*a\.parquet: .*whole file") as caught:
            data.load("tinystories", path=path)
        assert "\n" not in str(caught.value)

    def test_a_file_without_text(self, tmp_path):
        path = write(tmp_path / "a.jsonl", [{"text": ""}])
        with pytest.raises(ValueError, match=r"no document in .*expected a column 'text'"):
            data.load("tinystories", path=path)


class TestNoConnection:
    @pytest.mark.parametrize("name", HUB)
    def test_says_so_within_a_second(self, name, monkeypatch):
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed_port()}")
        monkeypatch.setattr(hub, "getproxies", dict)
        start = time.perf_counter()
        with pytest.raises(FetchError, match=f"cannot fetch {name} .*no answer from 127.0.0.1"):
            data.load(name)
        assert time.perf_counter() - start < 1

    def test_a_network_that_swallows_everything_is_given_up_too(self, monkeypatch):
        monkeypatch.setattr(hub, "getproxies", dict)
        monkeypatch.setattr(socket, "create_connection", lambda *_, **__: time.sleep(5))
        start = time.perf_counter()
        with pytest.raises(FetchError, match=r"nothing within 0\.7 s.*set HF_ENDPOINT"):
            data.load("imdb")
        assert time.perf_counter() - start < 1

    def test_the_proxy_is_asked_where_there_is_one(self, monkeypatch):
        monkeypatch.delenv("HF_ENDPOINT", raising=False)
        port = closed_port()
        monkeypatch.setattr(hub, "getproxies", lambda: {"https": f"http://127.0.0.1:{port}"})
        with pytest.raises(FetchError, match=r"no answer from 127\.0\.0\.1"):
            data.load("imdb")

    def test_the_command_fails_with_one_line_and_without_the_library(self):
        code = (
            "import sys; from mslearn.__main__ import main; rc = main(['data', 'sst2'])\n"
            "print(rc, 'datasets' in sys.modules)"
        )
        environment = os.environ | {
            "HF_ENDPOINT": f"http://127.0.0.1:{closed_port()}",
            "no_proxy": "*",
        }
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment
        )
        assert done.stdout.split() == ["1", "False"]
        assert done.stderr.startswith("mslearn: cannot fetch sst2 (stanfordnlp/sst2)")
        assert len(done.stderr.splitlines()) == 1


def test_a_set_fetched_in_part_is_streamed_and_a_whole_one_cached(monkeypatch):
    asked = []

    def load_dataset(repository, configuration, **options):
        asked.append((repository, configuration, options["revision"], options["streaming"]))
        return {"train": [{"text": "a fox"}, {"document": "x", "text": "b"}]}

    monkeypatch.setattr(hub, "check_connection", lambda source: "somewhere")
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(data.load("fineweb-edu")) == 2
    data.load("tinystories", limit=1)
    with pytest.raises(ValueError, match=r"no document in stanfordnlp/imdb: .*'label'"):
        data.load("imdb")
    assert asked == [
        ("HuggingFaceFW/fineweb-edu", "sample-10BT", None, True),
        ("roneneldan/TinyStories", None, None, True),
        ("stanfordnlp/imdb", None, None, False),
    ]


def test_a_connection_lost_on_the_way_is_said(monkeypatch):
    def rows():
        yield {"text": "a fox"}
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(hub, "check_connection", lambda source: "somewhere")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: {"train": rows()})
    message = r"cannot fetch roneneldan/TinyStories from somewhere: reset by peer; check the"
    with pytest.raises(FetchError, match=message):
        data.load("tinystories")
