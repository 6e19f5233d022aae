"""The range test finds the edge where there is one, and says what is wrong where there is none."""

import pytest
import torch
from torch import nn
from toys import CPU, make_run

from mslearn.range_test import RangeTest, range_test
from mslearn.run import Run


class Bowl(nn.Module):
    """A loss of curvature 4: gradient descent is stable below the rate 0.5."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.ones(3, dtype=torch.float64))


def noise(step: int) -> tuple[torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return (0.1 * torch.randn(3, generator=generator, dtype=torch.float64),)


def on_a_bowl(schedule, scale: float = 1.0) -> Run:
    bowl = Bowl()
    optimizer = torch.optim.SGD(bowl.parameters(), lr=1.0)

    def loss(model: nn.Module, batch: tuple) -> torch.Tensor:
        return scale * 2 * (model.place - batch[0]).square().sum() + 1

    return Run(bowl, noise, optimizer, schedule=schedule, loss=loss, device=CPU, clip=0)


def test_on_a_quadratic_the_loss_is_least_below_the_edge_and_breaks_away_above():
    found = range_test(on_a_bowl, low=1e-4, high=10, steps=300)
    assert found.broke_away and found.rates[-1] > 0.5
    assert found.rates[found.least] / 3 == found.suggestion < 0.5
    assert len(found.rates) == len(found.losses) == len(found.smoothed) < 300


def test_the_rates_rise_by_the_same_factor_from_the_lowest():
    found = range_test(on_a_bowl, low=1e-4, high=1e-2, steps=5)
    assert found.rates == pytest.approx([1e-4, 10**-3.5, 1e-3, 10**-2.5, 1e-2])


def test_a_network_is_found_a_rate_between_the_ends():
    found = range_test(lambda schedule: driven(schedule), low=1e-4, high=100, steps=120)
    assert found.broke_away and 1e-3 < found.suggestion < 3


def driven(schedule) -> Run:
    run = make_run()
    run.schedule = schedule
    return run


def test_steps_without_a_finite_gradient_end_the_test():
    found = range_test(lambda s: on_a_bowl(s, 1e200), low=1e-190, high=1e10, steps=60)
    assert found.broke_away and len(found.rates) < 60


def test_no_rise_is_no_suggestion_and_the_error_says_where_to_look():
    found = range_test(on_a_bowl, low=1e-4, high=1e-3, steps=30)
    assert not found.broke_away
    with pytest.raises(ValueError, match=r"not broken away at rate 1.0e-03.*high=1.0e-01"):
        _ = found.suggestion


def test_no_fall_is_no_suggestion_and_the_error_says_where_to_look():
    found = range_test(on_a_bowl, low=0.7, high=10, steps=30)
    with pytest.raises(ValueError, match=r"rose from the first step on, at rate 7.0e-01.*low=7"):
        _ = found.suggestion


def test_noise_at_the_start_is_not_taken_for_the_edge():
    wobble = [2.0, 2.1, 1.95, 2.05, 2.0]

    def wobbling(schedule) -> Run:
        run = on_a_bowl(schedule)
        run.loss = lambda model, batch: wobble[run.step] + 0 * model.place.sum()
        return run

    assert not range_test(wobbling, low=0.1, high=1, steps=5).broke_away


def test_a_run_that_has_been_trained_already_is_refused():
    used = on_a_bowl(lambda step: 0.1)
    list(used.train(2))
    with pytest.raises(ValueError, match="needs a run at step 0, got one at step 2"):
        range_test(lambda schedule: used)


def test_a_suggestion_needs_both_a_fall_and_a_rise():
    falling = RangeTest([0.1, 0.2], [2.0, 1.0], [2.0, 1.5], broke_away=False)
    with pytest.raises(ValueError, match="go higher"):
        _ = falling.suggestion
    risen = RangeTest([0.1, 0.3, 0.9], [2.0, 1.0, 3.0], [2.0, 1.0, 3.0], broke_away=True)
    assert risen.suggestion == pytest.approx(0.1)
