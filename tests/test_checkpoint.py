"""Checkpoints: whole or absent, and no changed bit goes unseen."""

import errno
import json
import random
import shutil

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toys import finish, make_run, same_weights

from mslearn import checkpoint
from mslearn.bpe import BPE
from mslearn.checkpoint import (
    Checkpoints,
    load_model,
    random_state,
    save_model,
    set_random_state,
    verify,
)
from mslearn.transformer import Config, Transformer

FILES = ("model.safetensors", "state.pt", "manifest.json", "manifest.sha256")


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((3, 5), value)}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with the checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("two")
    for step in (1, 2):
        Checkpoints(folder).save(step, weights(step), {"step": step}, {"note": "x"})
    return folder


class TestDamage:
    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(name=st.sampled_from(FILES), place=st.integers(0, 10**9), bit=st.integers(0, 7))
    def test_one_flipped_bit_anywhere_is_named_and_the_one_before_is_used(
        self, two, name, place, bit
    ):
        path = two / "step-00000002" / name
        whole = path.read_bytes()
        place %= len(whole)
        flipped = whole[place] ^ 1 << bit
        try:
            path.write_bytes(whole[:place] + bytes([flipped]) + whole[place + 1 :])
            with pytest.warns(UserWarning, match=r"manifest|" + name):
                found, state = Checkpoints(two).latest()
        finally:
            path.write_bytes(whole)
        assert state["step"] == 1 and torch.equal(found["w"], weights(1)["w"])

    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("damage", ["cut", "emptied", "gone"])
    def test_a_file_that_is_cut_short_or_gone_is_named(self, two, tmp_path, name, damage):
        folder = shutil.copytree(two, tmp_path / "copy")
        path = folder / "step-00000002" / name
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[: -1 if damage == "cut" else 0])
        with pytest.warns(UserWarning, match=f"{name}.*this checkpoint is passed over"):
            _, state = Checkpoints(folder).latest()
        assert state["step"] == 1

    def test_with_nothing_whole_there_is_none(self, tmp_path):
        Checkpoints(tmp_path).save(1, weights(1), {}, {})
        (tmp_path / "step-00000001" / "state.pt").write_bytes(b"")
        with pytest.warns(UserWarning, match=r"state\.pt"):
            assert Checkpoints(tmp_path).latest() is None
        assert Checkpoints(tmp_path / "never").latest() is None

    def test_a_whole_one_loads_without_a_word(self, two, recwarn):
        found, state = Checkpoints(two).latest()
        assert state == {"step": 2} and torch.equal(found["w"], weights(2)["w"])
        assert verify(two / "step-00000002")["note"] == "x"
        assert not recwarn.list


class TestFullDisk:
    @pytest.mark.parametrize("writer", ["save_file", "torch.save", "_seal", "_flush"])
    def test_what_was_there_stays_and_nothing_half_written_does(
        self, tmp_path, monkeypatch, writer
    ):
        Checkpoints(tmp_path).save(1, weights(1), {"step": 1}, {})

        def full(*_, **__):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(f"mslearn.checkpoint.{writer}", full)
        with pytest.raises(OSError, match="No space left"):
            Checkpoints(tmp_path).save(2, weights(2), {"step": 2}, {})
        monkeypatch.undo()
        assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
        assert Checkpoints(tmp_path).latest()[1] == {"step": 1}
        Checkpoints(tmp_path).save(2, weights(2), {"step": 2}, {})
        assert Checkpoints(tmp_path).latest()[1] == {"step": 2}


class TestFolder:
    def test_the_newest_are_kept(self, tmp_path):
        for step in (5, 10, 15, 100):
            Checkpoints(tmp_path, keep=2).save(step, weights(0), {}, {})
        assert [p.name for p in Checkpoints(tmp_path).list()] == ["step-00000100", "step-00000015"]

    def test_what_a_killed_process_left_is_cleared(self, tmp_path):
        left = tmp_path / ".tmp-00000003-1"
        left.mkdir()
        assert Checkpoints(tmp_path).latest() is None
        Checkpoints(tmp_path).save(4, weights(0), {}, {})
        assert not left.exists()

    def test_keeping_none_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="at least one checkpoint, got keep=0"):
            Checkpoints(tmp_path, keep=0)

    def test_a_run_keeps_what_it_saves_every_so_often(self, tmp_path):
        finish(make_run(tmp_path, save_every=3), 10)
        assert [p.name[-2:] for p in Checkpoints(tmp_path).list()] == ["09", "06", "03"]


def test_random_state_comes_back_for_every_generator():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    state = random_state()

    def draw():
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    first, second = draw(), draw()
    set_random_state(state)
    assert draw() == first != second


class TestModel:
    @pytest.fixture
    def tokenizer(self):
        return BPE.train(["the cat sat on the mat"] * 3, 270)

    @pytest.fixture
    def model(self, tokenizer):
        torch.manual_seed(0)
        return Transformer(Config(tokenizer.vocab_size, 16, 1, 2, 16))

    def test_it_comes_back_with_its_tokeniser_and_history(self, tmp_path, model, tokenizer):
        folder = save_model(tmp_path / "m", model, tokenizer, {"x": 1}, extra={"log.txt": "a\n"})
        again, words, about = load_model(folder)
        assert again.config == model.config and words.merges == tokenizer.merges
        assert about["x"] == 1 and (folder / "log.txt").read_text() == "a\n"
        model.bfloat16().float()  # it is kept in bfloat16
        assert same_weights(again, model)
        exact, _, _ = load_model(save_model(tmp_path / "e", model, tokenizer, dtype=torch.float32))
        assert same_weights(exact, model)

    @pytest.mark.parametrize("fails", ["save_file", "_seal", "Path.rename"])
    def test_a_failure_leaves_the_earlier_one_in_place(
        self, tmp_path, model, tokenizer, monkeypatch, fails
    ):
        save_model(tmp_path / "m", model, tokenizer, {"x": 1})
        original, calls = getattr(checkpoint.Path, "rename"), []  # noqa: B009

        def broken(*arguments, **_):
            calls.append(arguments)
            if fails == "Path.rename" and len(calls) != 2:  # the second move fails
                return original(*arguments)
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(f"mslearn.checkpoint.{fails}", broken)
        with pytest.raises(OSError, match="No space left"):
            save_model(tmp_path / "m", model, tokenizer, {"x": 2})
        monkeypatch.undo()
        assert [path.name for path in tmp_path.iterdir()] == ["m"]
        assert load_model(tmp_path / "m")[2]["x"] == 1

    def test_what_a_killed_process_left_is_used_up(self, tmp_path, model, tokenizer):
        for left in (".tmp-m", ".old-m"):
            (tmp_path / left).mkdir()
            (tmp_path / left / "half").write_text("x")
        for _ in range(2):  # with no model there, and with one
            save_model(tmp_path / "m", model, tokenizer)
        assert [path.name for path in tmp_path.iterdir()] == ["m"]

    def test_damage_is_named(self, tmp_path, model, tokenizer):
        folder = save_model(tmp_path / "m", model, tokenizer)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "n_layers": 2}))
        with pytest.raises(ValueError, match=r"config\.json is missing or damaged"):
            load_model(folder)
        with pytest.raises(ValueError, match=r"manifest\.sha256 is missing"):
            load_model(tmp_path / "nothing")
