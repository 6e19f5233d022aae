"""Initialisers: torch's numbers for the same seed, and the moments that they promise."""

import math

import pytest
import torch
from torch import nn

from mslearn import init

SHAPES = [(30, 50), (50, 30), (8, 6, 3, 5), (1, 40)]


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def large(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, dtype=torch.float64)


class TestAgainstTorch:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("kind", ["xavier_normal_", "xavier_uniform_"])
    def test_xavier_draws_the_same_numbers(self, shape, kind):
        ours = getattr(init, kind)(torch.empty(shape), 1.3, seeded())
        theirs = getattr(nn.init, kind)(torch.empty(shape), 1.3, seeded())
        assert torch.equal(ours, theirs)

    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
    @pytest.mark.parametrize("nonlinearity", ["relu", "linear", "tanh", "leaky_relu"])
    @pytest.mark.parametrize("kind", ["kaiming_normal_", "kaiming_uniform_"])
    def test_kaiming_draws_the_same_numbers(self, shape, mode, nonlinearity, kind):
        ours = getattr(init, kind)(torch.empty(shape), nonlinearity, mode, 0.2, seeded())
        theirs = getattr(nn.init, kind)(torch.empty(shape), 0.2, mode, nonlinearity, seeded())
        assert torch.equal(ours, theirs)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_orthogonal_draws_the_same_numbers(self, shape):
        ours = init.orthogonal_(large(*shape), 1.7, seeded())
        theirs = nn.init.orthogonal_(large(*shape), 1.7, seeded())
        assert torch.allclose(ours, theirs, atol=1e-12)

    @pytest.mark.parametrize("nonlinearity", [*init.GAINS, "leaky_relu"])
    def test_gains(self, nonlinearity):
        theirs = nn.init.calculate_gain(nonlinearity, 0.3 if "leaky" in nonlinearity else None)
        assert init.gain(nonlinearity, 0.3) == pytest.approx(theirs, rel=1e-15)

    def test_pytorchs_default_for_a_linear_layer_is_a_third_of_one_over_the_inputs(self):
        torch.manual_seed(0)
        layer = nn.Linear(700, 600)
        ours = init.kaiming_uniform_(torch.empty(600, 700), "leaky_relu", slope=math.sqrt(5))
        bound = 1 / math.sqrt(700)
        for weight in (layer.weight, ours):
            assert weight.abs().max() <= bound
            assert weight.var().item() == pytest.approx(1 / (3 * 700), rel=0.02)


def moments(weight: torch.Tensor) -> tuple[float, float, float]:
    """Mean in deviations, variance, and fourth moment over the squared second."""
    second = weight.square().mean()
    return (
        (weight.mean() / second.sqrt()).item(),
        second.item(),
        (weight.pow(4).mean() / second**2).item(),
    )


# a million numbers: the mean of each moment is off by less than a hundredth
PROMISES = {
    "xavier_normal_": (lambda w: init.xavier_normal_(w, 1.5, seeded()), 2.25 * 2 / 2500, 3),
    "xavier_uniform_": (lambda w: init.xavier_uniform_(w, 1.5, seeded()), 2.25 * 2 / 2500, 9 / 5),
    "kaiming, fan in": (lambda w: init.kaiming_normal_(w, generator=seeded()), 2 / 500, 3),
    "kaiming, fan out": (
        lambda w: init.kaiming_normal_(w, mode="fan_out", generator=seeded()),
        2 / 2000,
        3,
    ),
    "kaiming, uniform": (
        lambda w: init.kaiming_uniform_(w, "leaky_relu", slope=1.0, generator=seeded()),
        1 / 500,
        9 / 5,
    ),
}


@pytest.mark.parametrize("name", PROMISES)
def test_moments(name):
    fill, variance, kurtosis = PROMISES[name]
    weight = large(2000, 500)
    assert fill(weight) is weight
    mean, second, fourth = moments(weight)
    assert abs(mean) < 0.005
    assert second == pytest.approx(variance, rel=0.01)
    assert fourth == pytest.approx(kurtosis, rel=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonal_has_one_singular_value(shape):
    weight = init.orthogonal_(large(*shape), 1.7, seeded()).flatten(1)
    values = torch.linalg.svdvals(weight)
    assert torch.allclose(values, torch.full_like(values, 1.7), atol=1e-12)


def test_orthogonal_prefers_no_direction():
    draws = torch.stack([init.orthogonal_(large(3, 3), generator=seeded(s)) for s in range(4000)])
    assert draws.mean(0).abs().max() < 0.04  # four deviations of a mean of 4,000 with variance 1/3
    assert draws.square().mean(0).sub(1 / 3).abs().max() < 0.03


class TestResidualOutputs:
    @pytest.mark.parametrize(("how", "variance"), [("plain", 1 / 400), ("scaled", 1 / 3200)])
    def test_variance(self, how, variance):
        weights = [large(300, 400) for _ in range(8)]
        init.residual_outputs_(weights, how, seeded())
        mean, second, fourth = moments(torch.stack(weights))
        assert abs(mean) < 0.005
        assert second == pytest.approx(variance, rel=0.01)
        assert fourth == pytest.approx(3, rel=0.02)
        assert not torch.equal(weights[0], weights[1])

    def test_zero(self):
        weights = [torch.ones(3, 4), torch.full((4, 5), torch.nan)]
        init.residual_outputs_(weights, "zero")
        assert all(torch.equal(w, torch.zeros_like(w)) for w in weights)

    def test_eight_scaled_branches_add_the_variance_of_one(self):
        x = torch.randn(400, generator=seeded(1), dtype=torch.float64)
        weights = [large(3000, 400) for _ in range(8)]
        init.residual_outputs_(weights, "scaled", seeded())
        added = sum(weight @ x for weight in weights)
        assert added.var().item() == pytest.approx(x.square().mean().item(), rel=0.1)


class TestEveryInitialiser:
    def test_leaves_nothing_for_autograd(self):
        layer = nn.Linear(4, 4)
        fills = (init.xavier_normal_, init.kaiming_uniform_, init.orthogonal_)
        for fill in (*fills, lambda w: init.residual_outputs_([w])):
            fill(layer.weight)
            assert layer.weight.is_leaf
            assert layer.weight.grad_fn is None

    def test_a_vector_has_no_fans(self):
        for fill in (init.xavier_uniform_, init.kaiming_normal_, init.orthogonal_):
            with pytest.raises(ValueError, match=r"only a matrix has fans, got shape \(7,\)"):
                fill(torch.empty(7))

    def test_unknown_names_are_answered_with_the_known_ones(self):
        with pytest.raises(ValueError, match="no gain for 'sine': choose one of linear"):
            init.gain("sine")
        with pytest.raises(ValueError, match="mode must be 'fan_in' or 'fan_out', got 'both'"):
            init.kaiming_normal_(torch.empty(2, 2), mode="both")
        with pytest.raises(ValueError, match="no way 'half' to start a branch"):
            init.residual_outputs_([torch.empty(2, 2)], "half")
