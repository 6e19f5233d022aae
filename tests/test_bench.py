"""The measurements are fair and say what they are; how fast they come out is no test's business."""

import itertools
import json
import math
import os
import signal
import statistics
import threading
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from mslearn import bench, bench_generate, bench_learn, bench_train, live_cost
from mslearn.__main__ import main
from mslearn.band import SMALL
from mslearn.baseline import Baseline, Characters, plain_adamw, plain_step
from mslearn.bench_learn import learn
from mslearn.bench_train import SHAPES, Shape
from mslearn.contenders import Budget
from mslearn.device import Device
from mslearn.pairs import Paired, Worker, measure_pairs
from mslearn.recipes import Recipe
from mslearn.schedules import constant, warmup_cosine
from mslearn.transformer import Config, Transformer

TINY = Config(vocab_size=40, context=16, n_layers=2, n_heads=2, d_model=16)
RECIPE = Recipe(1, 300, context=16, n_layers=1, n_heads=2, d_model=16, batch_size=2, lr=0.04)
CPU = Device("cpu", "test", None)


@pytest.fixture(autouse=True)
def plain_device(monkeypatch):
    """No probe of the processor's speed: it takes time and differs from machine to machine."""
    for module in (bench_train, bench_learn, bench_generate):
        monkeypatch.setattr(module, "pick", lambda name=None: CPU)


class TestBaseline:
    def test_no_position_sees_what_comes_after_it(self):
        torch.manual_seed(0)
        model = Baseline(TINY)
        tokens = torch.randint(40, (2, 16))
        changed = tokens.clone()
        changed[:, 9:] = (changed[:, 9:] + 1) % 40
        before, after = model(tokens), model(changed)
        assert torch.equal(before[:, :9], after[:, :9])
        assert not torch.allclose(before[:, 9:], after[:, 9:])

    def test_knows_where_a_token_stands(self):
        logits = Baseline(TINY)(torch.full((1, 16), 7))
        assert not torch.allclose(logits[0, 0], logits[0, 1])

    def test_starts_at_the_loss_of_knowing_nothing(self):
        torch.manual_seed(0)
        config = Config(500, context=32, n_layers=2, n_heads=2, d_model=64)
        tokens = torch.randint(500, (8, 33))
        logits = Baseline(config)(tokens[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        assert loss.item() == pytest.approx(math.log(500), rel=0.02)

    @pytest.mark.parametrize("name", SHAPES)
    def test_has_as_many_parameters_as_ours(self, name):
        with torch.device("meta"):
            ours, plain = Transformer(SHAPES[name].config), Baseline(SHAPES[name].config)
        assert plain.n_params() == pytest.approx(ours.n_params(), rel=0.1)

    def test_learns(self):
        torch.manual_seed(0)
        model = Baseline(TINY)
        optimizer = plain_adamw(model, lr=1e-2)
        tokens = torch.randint(40, (4, 17))
        batch = tokens[:, :-1], tokens[:, 1:]
        losses = [plain_step(model, batch, optimizer) for _ in range(40)]
        assert losses[-1] < 0.5 * losses[0]

    def test_says_when_a_text_is_too_long(self):
        with pytest.raises(ValueError, match="at most 16 tokens, got 17"):
            Baseline(TINY)(torch.zeros(1, 17, dtype=torch.int64))

    def test_decay_spares_what_is_no_matrix(self):
        matrices, vectors = plain_adamw(Baseline(TINY)).param_groups
        assert matrices["weight_decay"] > 0 == vectors["weight_decay"]
        assert {p.ndim for p in vectors["params"]} == {1}


class TestCharacters:
    def test_rare_characters_are_bytes_and_nothing_is_lost(self):
        characters = Characters(["aaab"] * 20, often=20)
        assert characters.known == ["a", "b"]
        assert characters.encode("abz") == [0, 1, 2 + ord("z")]
        assert characters.encode("é") == [2 + byte for byte in "é".encode()]

    def test_counts_the_bytes_of_its_text_and_none_for_the_end(self):
        texts = ["naïve ☃", "x"]
        tokens = Characters(["ï" * 30]).tokens(texts)
        assert tokens.n_bytes == sum(len(text.encode()) for text in texts)
        assert list(tokens.ids).count(tokens.ids.max()) == 2


class Clocked:
    """A clock that moves only when work is done, and slows down halfway: a busy machine."""

    def __init__(self) -> None:
        self.now, self.slow, self.done = 0.0, 1.0, []

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, seconds: float):
        def work() -> None:
            self.done.append(name)
            self.now += seconds * self.slow
            if len(self.done) == 8:
                self.slow = 5.0

        return work


class TestPairs:
    def test_a_machine_that_slows_down_changes_no_ratio(self):
        clock = Clocked()
        paired = measure_pairs(clock.work("a", 3.0), clock.work("b", 2.0), 7, clock)
        assert paired.ratio == pytest.approx(1.5)
        assert paired.spread == pytest.approx((1.5, 1.5))
        assert max(paired.first) == pytest.approx(5 * min(paired.first))

    def test_each_goes_first_in_every_other_pair_after_a_round_to_warm_up(self):
        clock = Clocked()
        measure_pairs(clock.work("a", 1.0), clock.work("b", 1.0), 4, clock)
        assert "".join(clock.done) == "ab" + "ab" + "ba" + "ab" + "ba"

    def test_the_ratio_is_the_median_of_ratios_and_not_the_ratio_of_medians(self):
        paired = Paired([1.0, 10.0, 2.0], [1.0, 2.0, 4.0])
        assert paired.ratios == [1.0, 5.0, 0.5]
        assert paired.ratio == 1.0

    def test_no_pairs_are_refused(self):
        with pytest.raises(ValueError, match="at least 1 pair, got 0"):
            measure_pairs(print, print, 0)


def counted(start: int, device: Device):
    """Steps that say nothing, of which the fourth fails: a module's own function, for a worker."""
    assert torch.get_num_threads() == 1 and device == CPU
    for number in range(start, start + 4):
        if number == 3:
            raise ValueError("the fourth step failed")
        yield number


def leaves(device: Device):
    """A process that is ended from outside."""
    os.kill(os.getpid(), signal.SIGKILL)
    yield


class TestWorker:
    def test_works_in_a_process_of_its_own_until_a_step_fails(self):
        with Worker(counted, 0, device=CPU, threads=1) as worker:
            assert [worker() >= 0 for _ in range(3)] == [True] * 3
            with pytest.raises(ValueError, match="the fourth step failed"):
                worker()

    def test_counts_the_time_of_several_steps_by_its_clock(self):
        with Worker(counted, 4, device=CPU, count=4, threads=1, clock=ticking) as worker:
            assert worker() == 1.0, "the clock is looked at before and after"

    @pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
    def test_a_process_that_was_ended_is_told_of(self):
        with (
            Worker(leaves, device=CPU, threads=1) as worker,
            pytest.raises(RuntimeError, match="ended with code -9"),
        ):
            worker()

    def test_two_threads_are_measured_beside_a_busy_neighbour(self, monkeypatch):
        monkeypatch.setattr(bench_train.os, "cpu_count", lambda: 1)
        assert bench_train.busy(Shape(TINY, 2), CPU, pairs=1, steps=1) is None
        monkeypatch.setattr(bench_train.os, "cpu_count", lambda: 2)
        assert bench_train.busy(Shape(TINY, 2), CPU, pairs=1, steps=1) > 0


class TestTrain:
    def test_says_what_was_measured(self):
        found = bench_train.train(shape=Shape(TINY, 2), pairs=3, steps=1)
        assert found.keys() >= {"shape", "fp32_ratio", "bf16_ratio", "peak_share", "device", "runs"}
        assert found["fp32_ratio"] > 0 and found["peak_share"] > 0
        assert found["bf16_ratio"] is None, "the device here has no use for bfloat16"
        assert "process of its own" in found["runs"]
        assert "3" in found["runs"]

    def test_an_unknown_shape_is_named(self):
        with pytest.raises(ValueError, match="no shape 'D': choose one of A, B, C"):
            bench_train.train("D")

    def test_the_shapes_are_those_that_the_bars_name(self):
        sizes = {
            name: (c.n_layers, c.n_heads, c.d_model, c.context, shape.batch_size)
            for name, shape in SHAPES.items()
            for c in (shape.config,)
        }
        assert sizes == {
            "A": (6, 6, 192, 256, 16),
            "B": (6, 6, 384, 256, 8),
            "C": (4, 4, 128, 128, 32),
        }


class TestBudget:
    def test_the_schedule_follows_the_clock_and_not_the_steps(self):
        times = iter([100.0, 100.0, 105.0, 110.0, 117.0])
        budget = Budget(10, warmup_cosine(1.0, 0, 1000, floor=0.0), lambda: next(times))
        assert budget.share == 0.0, "the clock has not been asked"
        rates = [budget(step) for step in range(4)]
        assert rates == pytest.approx([1.0, 0.5, 0.0, 0.0], abs=0.01)

    def test_it_is_spent_when_its_seconds_are(self):
        times = iter([0.0, 0.0, 5.0, 10.0])
        budget = Budget(10, constant(1.0), lambda: next(times))
        budget(0)
        assert [budget.share, budget.share] == [0.5, 1.0]


class Texts(dict):
    """Texts by split that remember in which order they were asked for."""

    def __init__(self) -> None:
        words = ("the cat", "a dog", "sees", "the moon", "and", "sleeps")
        text = " ".join(itertools.islice(itertools.cycle(words), 120))
        super().__init__(train=[text] * 8, valid=[text[:600]], test=[text[100:700]])
        self.asked = []

    def __getitem__(self, split: str) -> list[str]:
        self.asked.append(split)
        return super().__getitem__(split)


def ticking() -> float:
    """A clock of one second a look."""
    return float(next(ticking.seconds))


ticking.seconds = itertools.count()


@pytest.fixture
def learnt(monkeypatch) -> tuple[Texts, dict, list]:
    """A short measurement on its own clock; what it asked for, gave and trained."""
    texts, trained = Texts(), []
    train_for = bench_learn.train_for

    def remember(side, rate, seed, seconds):
        trained.append((rate, seed, texts.asked.count("test")))
        return train_for(side, rate, seed, seconds)

    monkeypatch.setattr(bench_learn, "train_for", remember)
    rates = {side: (0.001, 0.01, 0.1, 1e-6) for side in bench_learn.RATES}
    return texts, learn(12.0, rates, (0, 1), texts, RECIPE, RECIPE, ticking), trained


class TestLearn:
    def test_the_test_split_is_read_once_after_all_training(self, learnt):
        texts, _, trained = learnt
        assert texts.asked.count("test") == 1
        assert texts.asked[-1] == "test"
        assert {asked for _, _, asked in trained} == {0}

    def test_every_side_gets_the_best_of_its_rates_with_every_seed(self, learnt):
        _, found, trained = learnt
        for side in ("baseline", "adamw", "muon"):
            scores = found["valid_by_rate"][side]
            assert len(scores) == 4
            assert scores[f"{found['rates'][side]:g}"] == min(scores.values())
        assert len(trained) == 3 * (4 + 1), "four rates and one more seed, three times"
        assert [rate for rate, seed, _ in trained if seed == 1] == list(found["rates"].values())

    def test_says_what_was_measured(self, learnt):
        _, found, _ = learnt
        assert found["seconds"] == 12.0 and found["seeds"] == 2
        assert found["gain"] == pytest.approx(found["baseline_bpb"] - found["bpb"])
        assert found["spread"][0] <= found["gain"] <= found["spread"][1]
        assert {len(scores) for scores in found["by_seed"].values()} == {2}
        assert "2 seeds" in found["runs"] and "test" in found["device"]
        json.dumps(found)

    def test_ours_is_the_optimiser_that_did_better_on_the_validation_split(self, learnt):
        _, found, _ = learnt
        valid = {side: min(scores.values()) for side, scores in found["valid_by_rate"].items()}
        assert valid[found["optimizer"]] == min(valid["adamw"], valid["muon"])
        assert found["bpb"] == pytest.approx(statistics.mean(found["by_seed"][found["optimizer"]]))

    def test_each_run_ends_when_its_seconds_are_spent(self, learnt):
        _, found, _ = learnt
        assert all(1 <= n <= 12 for steps in found["steps"].values() for n in steps)

    def test_a_vocabulary_that_takes_all_the_time_is_refused(self):
        with pytest.raises(ValueError, match="left none to train; give more seconds"):
            learn(0.5, bench_learn.RATES, (0,), Texts(), RECIPE, RECIPE, ticking)

    def test_no_rates_are_refused(self):
        with pytest.raises(ValueError, match="a seed and rates for baseline, adamw, muon"):
            learn(rates={**bench_learn.RATES, "adamw": ()}, texts=Texts())

    def test_a_set_is_cut_after_a_whole_document(self, monkeypatch):
        texts = {"train": ["ab", "cdé", "f", "g"], "valid": ["h"], "test": ["i"]}
        documents = SimpleNamespace(split=lambda s: [SimpleNamespace(text=t) for t in texts[s]])
        monkeypatch.setattr(bench_learn.data, "load", lambda name: documents)
        assert bench_learn.texts_of("any") == texts
        for n_bytes, kept in ((1, 1), (2, 1), (3, 2), (6, 2), (7, 3), (99, 4)):
            cut = bench_learn.texts_of("any", n_bytes)
            assert cut == {**texts, "train": texts["train"][:kept]}
        with pytest.raises(ValueError, match="at least 1 byte, got 0"):
            bench_learn.texts_of("any", 0)

    def test_by_default_four_rates_two_seeds_and_the_sizes_the_bar_names(self):
        assert {len(rates) for rates in bench_learn.RATES.values()} == {4}
        assert len(bench_learn.SEEDS) == 2
        for recipe in (SMALL, bench_learn.PLAIN):
            assert (recipe.n_layers, recipe.n_heads, recipe.d_model) == (4, 4, 128)


class TestGenerate:
    def test_says_what_was_measured(self):
        config = Config(40, context=32, n_layers=1, n_heads=2, d_model=16)
        found = bench_generate.generate(pairs=2, new=4, config=config)
        assert found["cached_ratio"] > 0 and found["transformers_ratio"] > 0
        assert found["new_tokens"] == 4
        assert "2 pairs" in found["runs"] and "test" in found["device"]
        assert "vocabulary 40" in found["model"]

    def test_the_library_writes_the_same_text_with_our_weights(self):
        model = bench_generate.random_model(TINY)
        theirs = bench_generate.their_way(model, [1, 2, 3], 12)()
        assert len(theirs) == 12
        for cache in (True, False):
            assert bench_generate.our_way(model, [1, 2, 3], 12, cache)() == theirs

    def test_texts_agree_up_to_where_they_part(self):
        assert bench_generate.agreement([1, 2, 3, 4], [1, 2, 9, 4]) == 0.5
        assert bench_generate.agreement([1, 2], [1, 2]) == 1.0
        assert bench_generate.agreement([1, 2], [3, 2]) == 0.0

    def test_a_text_longer_than_the_context_is_refused(self):
        with pytest.raises(ValueError, match="ask for 1 to 240 new tokens"):
            bench_generate.generate(new=241)


RESULT = {"cached_ratio": 9.5, "spread": (9.0, 10.0), "runs": "median of 2 pairs", "none": None}


class TestCommand:
    def test_prints_a_table_and_one_json_object_last(self, monkeypatch, capsys):
        monkeypatch.setattr(bench, "generate", lambda **_: RESULT)
        assert main(["bench", "generate", "--json"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert json.loads(lines[-1]) == json.loads(json.dumps(RESULT))
        assert lines[0] == "mslearn bench generate" and "9.5" in lines[1]
        assert not any(line.startswith("{") for line in lines[:-1])

    def test_results_are_kept_beside_one_another(self, monkeypatch, tmp_path):
        file = tmp_path / "kept.json"
        for seconds in (60.0, 180.0):
            monkeypatch.setattr(bench, "learn", lambda seconds=seconds, **_: {"seconds": seconds})
            assert main(["bench", "learn", "--keep", str(file), "--seconds", str(seconds)]) == 0
        assert json.loads(file.read_text()) == {
            "learn/60": {"seconds": 60.0},
            "learn/180": {"seconds": 180.0},
        }

    def test_without_json_people_read_the_table_alone(self, monkeypatch, capsys):
        monkeypatch.setattr(bench, "generate", lambda **_: RESULT)
        assert main(["bench", "generate"]) == 0
        assert "{" not in capsys.readouterr().out

    @pytest.mark.parametrize("name", bench.NAMES)
    def test_quick_asks_for_less(self, monkeypatch, name):
        asked = []
        monkeypatch.setattr(bench, name, lambda *_, **settings: asked.append(settings) or {})
        bench.measurement(name)()
        bench.measurement(name, quick=True)()
        assert asked[1] and asked[1] != asked[0]

    def test_the_shape_reaches_the_measurement(self, monkeypatch, capsys):
        monkeypatch.setattr(bench, "train", lambda shape, **_: {"shape": shape})
        assert main(["bench", "train", "--shape", "B"]) == 0
        assert "B" in capsys.readouterr().out

    def test_the_text_reaches_the_measurement(self, monkeypatch, tmp_path):
        monkeypatch.setattr(bench, "learn", lambda **settings: settings)
        file = tmp_path / "kept.json"
        words = ["--text", "bible", "--bytes", "1000", "--seconds", "5", "--keep", str(file)]
        assert main(["bench", "learn", *words]) == 0
        asked = {"seconds": 5.0, "text": "bible", "n_bytes": 1000}
        assert json.loads(file.read_text()) == {"learn/bible/5/1000": asked}

    def test_same_names_in_two_places_keep_both_values(self):
        text = bench.table("learn", {"by_seed": {"ours": [1.0]}, "steps": {"ours": [2]}})
        assert [line.split() for line in text.splitlines()[2::2]] == [["ours", "1"], ["ours", "2"]]

    @pytest.mark.parametrize("words", [["fly"], ["train", "--shape", "D"]])
    def test_what_cannot_be_measured_is_refused(self, words, capsys):
        with pytest.raises(SystemExit):
            main(["bench", *words])
        assert "invalid choice" in capsys.readouterr().err

    def test_no_threads_are_refused(self, capsys):
        assert main(["bench", "train", "--threads", "0"]) == 1
        assert "--threads must be at least 1, got 0" in capsys.readouterr().err

    def test_an_unknown_measurement_is_named(self):
        with pytest.raises(ValueError, match="no measurement 'fly'"):
            bench.measurement("fly")


def test_two_runs_train_in_turn_stretch_by_stretch(monkeypatch):
    for name, value in {"BEFORE": 10, "SETTLE": 2, "STRETCH": 3}.items():
        monkeypatch.setattr(live_cost, name, value)
    turns, made = live_cost.Turns(pairs=3), []

    def steps(side):
        batches = made_of(side)
        taken = turns.batches(side, batches)
        for step in range(10, 10 + 2 + 3 * 3 + 1):
            taken(step)

    def made_of(side):
        def batches(step):
            made.append((side, step))
            return ()

        batches.tokens_per_step = 1
        return batches

    other = threading.Thread(target=steps, args=[1])
    other.start()
    steps(0)
    other.join()
    counted = [side for side, step in made if 12 <= step < 21]
    assert counted == [side for side in [0, 1, 1, 0, 0, 1] for _ in range(3)]
    assert [len(seconds) for seconds in turns.seconds] == [3, 3]
    assert turns.may_work(0) and turns.may_work(1)  # all is over
