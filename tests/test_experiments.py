"""A stored result can be stopped, resumed, invalidated and reproduced."""

import json

import pytest

from mslearn.__main__ import main
from mslearn.device import Device
from mslearn.experiments import EXPERIMENTS, load_result, origin
from mslearn.home import course
from mslearn.label_curve import (
    NETWORKS,
    PLAN,
    WORDS,
    Start,
    best_rate,
    load_task,
    network,
    words,
)
from mslearn.store import Store

# Another CPU rounds bfloat16 products otherwise, and 40 steps of training carry that along. Among
# about a thousand test texts some 30 near the border may then fall on its other side.
OTHER_CPU = 0.03


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "result.json", device=Device("cpu", "test", None))


class TestStore:
    def test_a_cell_that_is_there_is_not_run_again(self, store):
        store.cell("a/1", {"lr": 0.1}, lambda: {"accuracy": 0.5})
        store.cell("a/1", {"lr": 0.1}, lambda: pytest.fail("ran again"))
        assert store.cells()["a/1"]["accuracy"] == 0.5

    def test_other_settings_run_it_again(self, store):
        store.cell("a/1", {"lr": 0.1}, lambda: {"accuracy": 0.5})
        store.cell("a/1", {"lr": 0.2}, lambda: {"accuracy": 0.6})
        assert store.cells()["a/1"]["accuracy"] == 0.6

    def test_a_run_that_was_killed_keeps_what_was_done(self, store):
        store.cell("a/1", {}, lambda: {"accuracy": 0.5})
        with pytest.raises(KeyboardInterrupt):
            store.cell("a/2", {}, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
        assert list(Store(store.path, store.device).cells()) == ["a/1"]
        assert [p.name for p in store.path.parent.iterdir()] == ["result.json"]

    def test_only_chooses_cells(self, store):
        store.only = "a/*"
        for name in ("a/1", "b/1"):
            store.cell(name, {}, lambda: {"accuracy": 0.5})
        assert list(store.cells()) == ["a/1"]

    def test_cells_are_in_order_of_their_numbers_and_say_how_they_were_made(self, store):
        for name in ("a/1600/0", "a/100/0", "a/all/0"):
            store.cell(name, {}, lambda: {"accuracy": 0.5})
        result = json.loads(store.path.read_text())
        assert list(result["cells"]) == ["a/100/0", "a/1600/0", "a/all/0"]
        assert result["made"][result["cells"]["a/100/0"]["made"]].keys() >= {"device", "torch"}

    def test_the_rate_chosen_is_the_best_on_validation_texts(self, store):
        for lr, accuracy in ((0.01, 0.7), (0.02, 0.8), (0.04, 0.6)):
            store.cell(f"search/t/m/{lr}", {"lr": lr}, lambda a=accuracy: {"accuracy": a})
        assert best_rate(store.cells(), "t", "m") == 0.02
        with pytest.raises(ValueError, match="no rate was searched for t, other"):
            best_rate(store.cells(), "t", "other")


def test_a_missing_result_names_the_command_that_makes_it():
    with pytest.raises(FileNotFoundError, match="mslearn experiment nothing"):
        load_result("nothing")


def test_an_unknown_experiment_names_those_there_are(capsys):
    with pytest.raises(SystemExit):
        main(["experiment", "nothing"])
    said = capsys.readouterr().err
    assert all(name in said for name in EXPERIMENTS)


class TestLabels:
    def test_every_cell_is_stored_with_three_seeds(self):
        cells = load_result("labels")["cells"]
        for task in ("topics", "sentiment"):
            for labels in PLAN:
                for method in (*NETWORKS, *WORDS):
                    assert all(f"{task}/{labels}/{method}/{seed}" in cells for seed in (0, 1, 2))
        assert "labels.json" in origin("labels")

    def test_it_was_made_from_the_checkpoint_and_the_texts_that_are_here(self):
        start = Start(course() / "checkpoints" / "base")
        for name, cell in load_result("labels")["cells"].items():
            task = load_task(next(t for t in ("topics", "sentiment") if t in name))
            assert cell["settings"]["texts"] == task.source.sha256[:16]
            made_from = cell["settings"].keys() & start.hashes.keys()
            assert all(cell["settings"][part] == start.hashes[part] for part in made_from)
            assert ("tokenizer" in made_from) == ("lr" in cell["settings"])  # a network's cell

    @pytest.mark.parametrize("method", NETWORKS)
    def test_a_network_cell_run_again_gives_what_is_stored(self, method):
        stored = load_result("labels")["cells"][f"sentiment/100/{method}/0"]
        start, task = Start(course() / "checkpoints" / "base"), load_task("sentiment")
        lr, cell = stored["settings"]["lr"], (method, "100", 0)
        again = network(start, task, task.test, cell, lr, Store(course()).device)
        assert again["accuracy"] == pytest.approx(stored["accuracy"], abs=OTHER_CPU)

    @pytest.mark.parametrize("method", WORDS)
    def test_a_baseline_cell_run_again_gives_what_is_stored(self, method):
        stored = load_result("labels")["cells"][f"topics/100/{method}/1"]
        again = words(load_task("topics"), method, "100", 1)
        assert again["accuracy"] == pytest.approx(stored["accuracy"], abs=0.003)
        assert again["macro_f1"] == pytest.approx(stored["macro_f1"], abs=0.003)
