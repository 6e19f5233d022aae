"""Batches are a function of seed and step; a corpus is encoded once; held-out bytes all count."""

import math

import numpy as np
import pytest
import torch
from toys import CPU, tokens

from mslearn.batches import Batches, Corpus, HeldOut, Tokens
from mslearn.bpe import BPE

TEXTS = {
    "train": ["the cat sat on the mat", "a dog, too", "naïve café"] * 20,
    "valid": ["the dog sat"] * 9,
    "test": ["a mat on a cat"] * 9,
}


class TestBatches:
    def test_any_order_of_asking_gives_the_same(self):
        forward, backward = (Batches(tokens(), 16, 4, seed=3) for _ in range(2))
        steps = range(150)  # more than two passes
        ahead = [forward(step) for step in steps]
        for step in reversed(steps):
            for ours, theirs in zip(backward(step), ahead[step], strict=True):
                assert torch.equal(ours, theirs)

    def test_another_seed_or_step_gives_another_batch(self):
        batches = Batches(tokens(), 16, 4, seed=3)
        assert not torch.equal(batches(0)[0], batches(1)[0])
        assert not torch.equal(batches(0)[0], Batches(tokens(), 16, 4, seed=4)(0)[0])

    def test_targets_are_the_inputs_one_token_later(self):
        ids = np.arange(2000, dtype=np.uint16)  # each token says where it stands
        inputs, targets = Batches(Tokens(ids, np.ones(2000)), 16, 4)(7)
        assert inputs.shape == (4, 16) and inputs.dtype == torch.int64
        assert torch.equal(targets, inputs + 1)

    def test_in_a_pass_no_window_comes_twice_and_passes_are_cut_elsewhere(self):
        ids = np.arange(2000, dtype=np.uint16)
        batches = Batches(Tokens(ids, np.ones(2000)), 16, 4)
        cuts = []
        for number in range(3):
            steps = range(number * batches.steps_per_pass, (number + 1) * batches.steps_per_pass)
            seen = torch.cat([batches(step)[0].flatten() for step in steps])
            assert len(seen.unique()) == len(seen) > 0.9 * len(ids)
            cuts.append(int(seen[0]) % 16)
        assert len(set(cuts)) > 1

    def test_every_offset_comes_up(self):
        ids = np.arange(300, dtype=np.uint16)
        batches = Batches(Tokens(ids, np.ones(300)), 8, 4)
        passes = (batches(number * batches.steps_per_pass)[0] for number in range(200))
        assert {int(inputs[0, 0]) % 8 for inputs in passes} == set(range(8))

    def test_too_little_text_is_refused_in_words(self):
        with pytest.raises(ValueError, match=r"60 tokens hold 2 windows of 16, fewer than one"):
            Batches(tokens(60), 16, 4)


class TestCorpus:
    @pytest.fixture
    def corpus(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MSLEARN_HOME", str(tmp_path))
        return Corpus.build("toy", TEXTS, BPE.train(TEXTS["train"], 280))

    def test_every_split_is_its_documents_and_nothing_else(self, corpus):
        for split, documents in TEXTS.items():
            ids = getattr(corpus, split).ids
            pieces = corpus.tokenizer.decode([int(i) for i in ids]).split("<|end|>")
            assert pieces == [*documents, ""]

    def test_bytes_are_counted_without_the_marks_between_documents(self, corpus):
        for split, documents in TEXTS.items():
            assert getattr(corpus, split).n_bytes == sum(len(d.encode()) for d in documents)

    def test_a_second_build_reads_what_is_there(self, corpus, monkeypatch):
        monkeypatch.setattr(Corpus, "_write", lambda *_: pytest.fail("encoded again"))
        again = Corpus.build("toy", TEXTS, corpus.tokenizer)
        assert np.array_equal(again.train.ids, corpus.train.ids)

    def test_other_texts_or_another_tokeniser_have_a_folder_of_their_own(self, corpus):
        other = Corpus.build("toy", {**TEXTS, "valid": ["else"]}, corpus.tokenizer)
        words = Corpus.build("toy", TEXTS, BPE.train(TEXTS["train"], 270))
        assert len({corpus.folder, other.folder, words.folder}) == 3

    def test_one_that_was_cut_off_is_encoded_anew(self, corpus, monkeypatch):
        (corpus.folder / "train.bin").unlink()
        encode = BPE.encode

        def interrupted(self, text):
            if "naïve" in text:
                raise KeyboardInterrupt
            return encode(self, text)

        monkeypatch.setattr(BPE, "encode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Corpus.build("toy", TEXTS, corpus.tokenizer)
        monkeypatch.undo()
        assert not list(corpus.folder.glob("train.bin*"))
        again = Corpus.build("toy", TEXTS, corpus.tokenizer)
        assert again.train.n_bytes == sum(len(d.encode()) for d in TEXTS["train"])

    @pytest.mark.parametrize("damage", ["flipped", "cut", "emptied", "no hash"])
    def test_one_that_was_damaged_on_the_disk_is_encoded_anew(self, corpus, damage):
        path = corpus.folder / "train.bin"
        whole = path.read_bytes()
        if damage == "no hash":
            path.with_suffix(".sha256").unlink()
        flipped = bytes([whole[0] ^ 1]) + whole[1:]
        path.write_bytes({"flipped": flipped, "cut": whole[:-2], "emptied": b""}.get(damage, whole))
        again = Corpus.build("toy", TEXTS, corpus.tokenizer)
        assert path.read_bytes() == whole == again.train.ids.tobytes()

    def test_ids_that_do_not_fit_are_refused_in_words(self, corpus, monkeypatch):
        monkeypatch.setattr(BPE, "vocab_size", 65_537)
        with pytest.raises(ValueError, match="16 bits, got a vocabulary of 65537"):
            Corpus.build("toy", TEXTS, corpus.tokenizer)

    def test_a_split_there_is_not_is_named(self, corpus):
        with pytest.raises(AttributeError, match="train, valid and test where built, not 'tset'"):
            corpus.tset  # noqa: B018


class TestHeldOut:
    class Uniform(torch.nn.Module):
        def forward(self, inputs):
            return torch.zeros(*inputs.shape, 40)

    class Sure(torch.nn.Module):
        """Always right on text that counts upwards."""

        def forward(self, inputs):
            return 100.0 * torch.nn.functional.one_hot((inputs + 1) % 40, 40).float()

    def test_a_model_that_knows_nothing_pays_log_v_for_each_token(self):
        sizes = np.arange(40) % 5
        text = Tokens(tokens(1601).ids, sizes)
        expected = math.log2(40) * 1600 / sizes[text.ids[1:]].sum()
        score = HeldOut(text, context=16)(self.Uniform(), CPU)
        assert score["bits_per_byte"] == pytest.approx(expected, rel=1e-6)

    def test_one_that_knows_all_pays_nothing(self):
        text = Tokens((np.arange(321) % 40).astype(np.uint16), np.ones(40))
        assert HeldOut(text, 16)(self.Sure(), CPU)["bits_per_byte"] == pytest.approx(0, abs=1e-6)

    def test_every_token_but_the_first_is_predicted_once(self):
        ids = np.arange(1601, dtype=np.uint16)
        targets = torch.cat([b[1].flatten() for b in HeldOut(Tokens(ids, ids), 16).batches])
        assert targets.tolist() == list(range(1, 1601))

    def test_a_beginning_is_measured_where_that_is_asked_for(self):
        assert len(HeldOut(tokens(4000), 16, max_tokens=320).batches[0][0]) == 16

    def test_too_short_a_text_is_refused_in_words(self):
        with pytest.raises(ValueError, match="16 tokens is shorter than one window of 16"):
            HeldOut(tokens(16), 16)
