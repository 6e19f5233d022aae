"""Skill or luck: a driven schedule over seeds, beside the planned one, pair by pair."""

import math

import pytest
from toys import finish, tiny_run

from mslearn.luck import over_seeds
from mslearn.schedules import constant

STEPS = 60


def size(model):
    return float(model[3].bias.detach().sum())


def run_of(seed, **more):
    return tiny_run(seed, schedule=constant(1e-4), **more)


def test_the_planned_schedule_driven_again_makes_no_difference_at_all():
    luck = over_seeds(run_of, constant(1e-4), STEPS, seeds=range(3))
    assert luck.driven == luck.planned and luck.difference.estimate == 0
    assert luck.verdict == "luck cannot be ruled out"


def test_a_rate_that_is_far_better_is_skill_and_each_score_is_the_end_of_its_run():
    driven = run_of(0)
    driven.follow([(10, "lr", 0.02)])
    luck = over_seeds(run_of, finish(driven, STEPS), STEPS)
    assert luck.seeds == (0, 1, 2, 3, 4) and luck.difference.excludes(0)
    assert luck.driven[0] == driven.log.recent(20)
    assert luck.planned[3] == finish(run_of(3), STEPS).log.recent(20)
    assert "over 5 seeds: driven" in str(luck) and str(luck).endswith("; skill")


def test_one_that_is_far_worse_is_said_to_be():
    luck = over_seeds(lambda seed: tiny_run(seed), constant(1e-5), STEPS, seeds=range(3))
    assert luck.verdict == "the plan was better" and luck.difference.estimate > 0


def test_held_out_scores_come_first():
    def make(seed):
        return run_of(seed, evaluate=lambda model, _: {"size": size(model), "x": 1.0})

    luck = over_seeds(make, constant(0.01), 10, seeds=(3, 4))
    assert luck.score == "size" and luck.driven != luck.planned
    assert over_seeds(make, constant(0.01), 10, seeds=(3, 4), score="x").driven == (1.0, 1.0)


def test_a_run_that_diverges_is_counted_and_nothing_is_averaged():
    def make(seed):
        def loss(model, batch):
            value = (model(batch[0]) - batch[1]).square().mean()
            return value * math.nan if seed == 1 and run.schedule(0) > 0.5 else value

        run = run_of(seed, loss=loss)
        return run

    luck = over_seeds(make, constant(1.0), 10, seeds=range(3))
    assert luck.driven[1] == math.inf and luck.difference is None
    assert "diverged: 1 driven, 0 planned" in str(luck)
    assert luck.verdict == "luck cannot be ruled out"


def test_the_interval_is_of_the_differences_of_pairs():
    luck = over_seeds(run_of, constant(3e-4), 30, seeds=range(4))
    pairs = [a - b for a, b in zip(luck.driven, luck.planned, strict=True)]
    assert luck.difference.estimate == pytest.approx(sum(pairs) / 4)
