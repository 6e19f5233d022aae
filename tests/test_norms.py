"""Normalisers equal torch's forward and backward, batch by batch, and misuse is named."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import gradcheck
from torch.nn.utils import parametrizations

from mslearn import norms
from mslearn.norms import BatchNorm1d, LayerNorm, RMSNorm, WeightNormLinear

WIDTH = 5
TIGHT = {"rtol": 1e-10, "atol": 1e-11}
BATCHES = [(8, WIDTH), (8, WIDTH, 6), (1, WIDTH, 6), (2, WIDTH)]
VECTORS = [(WIDTH,), (8, WIDTH), (2, 4, WIDTH)]


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    """Numbers in float64 with a mean and a spread of their own."""
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(shape, generator=generator, dtype=torch.float64) + 2


def unlike_the_start(layer: nn.Module) -> nn.Module:
    """γ and β away from 1 and 0, so that a forgotten one shows."""
    for i, parameter in enumerate(layer.parameters()):
        parameter.data = numbers(*parameter.shape, seed=10 + i)
    return layer


def twins(ours: nn.Module, theirs: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Both in float64 with the same parameters."""
    unlike_the_start(ours.double())
    theirs.double().load_state_dict(ours.state_dict(), strict=False)
    return ours, theirs


def forward_and_backward(layer: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """The output, and the gradients of a loss that weighs each number of it differently."""
    x = x.clone().requires_grad_()
    y = layer(x)
    layer.zero_grad()
    (y * numbers(*y.shape, seed=99)).sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in layer.parameters())]


def assert_same(ours: nn.Module, theirs: nn.Module, x: torch.Tensor) -> None:
    found, expected = forward_and_backward(ours, x), forward_and_backward(theirs, x)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **TIGHT)


class TestBatchNorm:
    @pytest.mark.parametrize("shape", BATCHES)
    @pytest.mark.parametrize("momentum", [0.1, 0.7])
    def test_it_is_torchs_over_many_batches_in_training_and_then_in_evaluation(
        self, shape, momentum
    ):
        ours, theirs = twins(
            BatchNorm1d(WIDTH, momentum=momentum), nn.BatchNorm1d(WIDTH, momentum=momentum)
        )
        for seed in range(6):
            assert_same(ours, theirs, numbers(*shape, seed=seed))
            torch.testing.assert_close(ours.running_mean, theirs.running_mean, **TIGHT)
            torch.testing.assert_close(ours.running_var, theirs.running_var, **TIGHT)
        assert ours.running_mean.abs().min() > 0.1  # it has left its start, 0
        for seed in range(6, 9):
            assert_same(ours.eval(), theirs.eval(), numbers(*shape, seed=seed))

    def test_evaluation_leaves_the_running_statistics_alone(self):
        layer = BatchNorm1d(WIDTH).double().eval()
        before = copy.deepcopy(layer.state_dict())
        layer(numbers(8, WIDTH))
        for name, value in layer.state_dict().items():
            assert torch.equal(value, before[name])

    def test_torch_loads_its_state_and_the_other_way_round(self):
        ours = unlike_the_start(BatchNorm1d(WIDTH).double())
        ours(numbers(8, WIDTH))
        theirs = nn.BatchNorm1d(WIDTH).double()
        theirs.load_state_dict(ours.state_dict() | {"num_batches_tracked": torch.tensor(1)})
        x = numbers(8, WIDTH, seed=1)
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), **TIGHT)

    @pytest.mark.parametrize("shape", [(8, WIDTH), (4, WIDTH, 3)])
    def test_its_hand_written_backward_passes_gradcheck(self, shape):
        x, weight, bias = (
            each.requires_grad_() for each in (numbers(*shape), numbers(WIDTH), numbers(WIDTH))
        )
        assert gradcheck(norms._BatchNorm.apply, (x, weight, bias, 1e-5))

    @pytest.mark.parametrize("shape", [(1, WIDTH), (1, WIDTH, 1)])
    def test_a_batch_of_one_is_refused_in_training_and_welcome_in_evaluation(self, shape):
        layer = BatchNorm1d(WIDTH).double()
        said = r"two or more values of each feature, got shape \(1, 5.*: take a larger batch, or"
        with pytest.raises(ValueError, match=said):
            layer(numbers(*shape))
        assert torch.equal(layer.running_mean, torch.zeros(WIDTH).double())
        assert layer.eval()(numbers(*shape)).shape == shape

    def test_a_constant_feature_becomes_beta_and_sends_nothing_back(self):
        layer = unlike_the_start(BatchNorm1d(WIDTH).double())
        x = numbers(8, WIDTH)
        x[:, 2] = 7.0
        x.requires_grad_()
        y = layer(x)
        (y * numbers(8, WIDTH, seed=1)).sum().backward()
        assert torch.equal(y[:, 2], layer.bias[2].expand(8))
        assert x.grad.isfinite().all() and x.grad[:, 2].sum().abs() < 1e-9


class TestLayerNorm:
    @pytest.mark.parametrize("shape", VECTORS)
    @pytest.mark.parametrize("eps", [1e-5, 0.5])
    def test_it_is_torchs(self, shape, eps):
        ours, theirs = twins(LayerNorm(WIDTH, eps), nn.LayerNorm(WIDTH, eps))
        assert_same(ours, theirs, numbers(*shape))
        assert_same(ours.eval(), theirs.eval(), numbers(*shape, seed=1))

    def test_its_hand_written_backward_passes_gradcheck(self):
        x, weight, bias = (
            each.requires_grad_() for each in (numbers(2, 3, WIDTH), numbers(WIDTH), numbers(WIDTH))
        )
        assert gradcheck(norms._LayerNorm.apply, (x, weight, bias, 1e-5))


class TestRMSNorm:
    @pytest.mark.parametrize("shape", VECTORS)
    @pytest.mark.parametrize("eps", [1e-5, 0.5])
    def test_it_is_torchs(self, shape, eps):
        ours, theirs = twins(RMSNorm(WIDTH, eps), nn.RMSNorm(WIDTH, eps))
        assert_same(ours, theirs, numbers(*shape))
        assert_same(ours.eval(), theirs.eval(), numbers(*shape, seed=1))

    def test_its_hand_written_backward_passes_gradcheck(self):
        x, weight = numbers(2, 3, WIDTH).requires_grad_(), numbers(WIDTH).requires_grad_()
        assert gradcheck(norms._RMSNorm.apply, (x, weight, 1e-5))


class TestWeightNorm:
    def test_it_is_torchs(self):
        torch.manual_seed(0)
        linear = nn.Linear(WIDTH, 3).double()
        theirs = parametrizations.weight_norm(copy.deepcopy(linear))
        ours = WeightNormLinear(linear)
        ours.g.data = numbers(3, seed=4)
        theirs.parametrizations.weight.original0.data = ours.g.data[:, None].clone()
        x = numbers(8, WIDTH)
        found = forward_and_backward(ours, x)
        y, slope, bias, length, direction = forward_and_backward(theirs, x)
        for a, b in zip(found, [y, slope, direction, length[:, 0], bias], strict=True):
            torch.testing.assert_close(a, b, **TIGHT)

    def test_it_starts_as_the_layer_it_was_made_from(self):
        linear = nn.Linear(WIDTH, 3).double()
        x = numbers(8, WIDTH)
        torch.testing.assert_close(WeightNormLinear(linear)(x), linear(x), **TIGHT)

    def test_its_hand_written_backward_passes_gradcheck(self):
        v, g = numbers(3, WIDTH).requires_grad_(), numbers(3, seed=1).requires_grad_()
        assert gradcheck(norms._WeightNorm.apply, (v, g))

    def test_the_gradient_of_the_direction_is_orthogonal_to_it(self):
        v, g, upstream = numbers(3, WIDTH), numbers(3, seed=1), numbers(3, WIDTH, seed=2)
        slope, _ = norms.weight_norm_gradient(v, g, upstream)
        assert (slope * v).sum(-1).abs().max() < 1e-12 < slope.abs().max()


@pytest.mark.parametrize("layer", [BatchNorm1d(1), BatchNorm1d(WIDTH), LayerNorm(1), RMSNorm(1)])
@pytest.mark.parametrize("shape", [(8, 4), (8, 4, 4)])
def test_another_number_of_features_is_refused(layer, shape):
    with pytest.raises(ValueError, match=r"normalises [15] features on axis -?1, got shape \(8, 4"):
        layer(torch.zeros(shape))


def test_a_single_vector_is_no_batch():
    with pytest.raises(ValueError, match=r"features on axis 1, got shape \(5,\)"):
        BatchNorm1d(WIDTH)(torch.zeros(WIDTH))


@pytest.mark.parametrize("kind", [BatchNorm1d, LayerNorm, RMSNorm])
def test_under_autocast_the_gradient_reaches_the_weights_before_it(kind):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(WIDTH, WIDTH), kind(WIDTH), nn.Linear(WIDTH, 3))
    exact = copy.deepcopy(net)
    x, targets = numbers(64, WIDTH).float(), torch.arange(64) % 3
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(net(x).float(), targets)
    loss.backward()
    F.cross_entropy(exact(x), targets).backward()
    for rough, fine in zip(net.parameters(), exact.parameters(), strict=True):
        assert rough.grad.dtype == torch.float32
        assert (rough.grad - fine.grad).norm() < 0.1 * fine.grad.norm() + 1e-3
