"""Models that others have trained, through the fetch that is pinned by SHA-256 and from the hub."""

import json
import os
import subprocess
import sys

import pytest
import torch
from fables import closed_port
from test_layouts import TOKENS, answer, apart, reference
from tokenizers import Tokenizer, models

from mslearn import hub
from mslearn.convert import from_hub, load_pretrained
from mslearn.index import FetchError
from mslearn.pretrained import PRETRAINED

SENTENCES = [
    "The heart pumps blood through the body.",
    "Blood is moved by a muscle.",
    "A verdict was reached; the court rose, and everyone went home for the winter.",
]


@pytest.fixture(scope="module")
def minilm():
    """The encoder and its tokeniser; skipped where no index has it, which CI does not accept."""
    try:
        return load_pretrained("minilm")
    except FetchError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI has to reach an index: {error}")
        pytest.skip(str(error))


class TestMiniLM:
    def batch(self, tokenizer) -> tuple[torch.Tensor, torch.Tensor]:
        tokenizer.no_padding()
        encoded = [tokenizer.encode(sentence).ids for sentence in SENTENCES]
        lengths = torch.tensor([len(ids) for ids in encoded])
        ids = torch.zeros(len(encoded), int(lengths.max()), dtype=torch.int64)
        for row, each in zip(ids, encoded, strict=True):
            row[: len(each)] = torch.tensor(each)
        return ids, lengths

    @torch.no_grad()
    def test_gives_what_its_own_library_gives_on_real_sentences(self, minilm, tmp_path):
        from transformers import BertModel

        ours, tokenizer = minilm
        ids, lengths = self.batch(tokenizer)
        for name in ("config.json", "model.safetensors"):
            (tmp_path / name).write_bytes(PRETRAINED["minilm"].read(name))
        theirs = BertModel.from_pretrained(tmp_path).eval()
        real = torch.arange(ids.shape[1]) < lengths[:, None]
        expected = answer(theirs, ids, attention_mask=real.long())
        assert apart(ours(ids, lengths=lengths)[real], expected[real]) <= 1e-5
        expected = answer(theirs.double(), ids, attention_mask=real.long())
        assert apart(ours.double()(ids, lengths=lengths)[real], expected[real]) <= 1e-12
        ours.float()

    @torch.no_grad()
    def test_puts_sentences_of_one_meaning_side_by_side(self, minilm):
        ours, tokenizer = minilm
        ids, lengths = self.batch(tokenizer)
        real = (torch.arange(ids.shape[1]) < lengths[:, None])[..., None]
        means = (ours(ids, lengths=lengths) * real).sum(1) / lengths[:, None]
        heart, muscle, court = torch.nn.functional.normalize(means, dim=-1)
        assert heart @ muscle > heart @ court + 0.2


class TestHub:
    def test_a_model_in_the_librarys_cache_needs_no_connection(self, tmp_path, monkeypatch):
        theirs = reference("gpt2")
        theirs.save_pretrained(tmp_path)
        Tokenizer(models.BPE()).save(str(tmp_path / "tokenizer.json"))
        asked = []
        monkeypatch.setattr(
            "huggingface_hub.snapshot_download",
            lambda name, **how: asked.append((name, how["local_files_only"])) or str(tmp_path),
        )
        monkeypatch.setattr(hub, "answering", lambda *_: pytest.fail("asked for a connection"))
        ours, _ = load_pretrained("openai-community/gpt2")
        assert apart(ours(TOKENS), answer(theirs)) <= 1e-5
        assert asked == [("openai-community/gpt2", True)]

    def test_without_a_connection_it_is_one_sentence_within_a_second(self, tmp_path):
        code = (
            "import json, time\n"
            "import huggingface_hub\n"
            "from mslearn.convert import from_hub\n"
            "started = time.perf_counter()\n"
            "try:\n    from_hub('openai-community/gpt2')\n"
            "except OSError as error:\n"
            "    print(json.dumps([type(error).__name__, str(error), "
            "time.perf_counter() - started]))\n"
        )
        where = f"http://127.0.0.1:{closed_port()}"
        environment = {**os.environ, "HF_ENDPOINT": where, "HF_HOME": str(tmp_path)}
        environment.pop("HF_HUB_OFFLINE", None)
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        name, said, seconds = json.loads(done.stdout)
        assert name == "FetchError" and "\n" not in said
        assert said.startswith("cannot fetch openai-community/gpt2: no answer from 127.0.0.1")
        assert said.endswith("load_folder(...) reads a copy of yours")
        assert seconds < 10.0, "the library's own loaders retry for most of a minute"

    def test_a_name_that_the_hub_does_not_know_is_one_sentence(self, monkeypatch):
        from huggingface_hub.errors import LocalEntryNotFoundError

        def unknown(name, local_files_only=False, **_):
            raise (LocalEntryNotFoundError if local_files_only else OSError)("404\n\nnot found")

        monkeypatch.setattr("huggingface_hub.snapshot_download", unknown)
        monkeypatch.setattr(hub, "answering", lambda *_: None)
        with pytest.raises(FetchError, match="cannot fetch no/such: 404 not found; check its name"):
            from_hub("no/such")


def test_a_pinned_model_says_its_terms():
    said = str(PRETRAINED["minilm"])
    assert "Apache-2.0" in said and "MiniLM" in said
