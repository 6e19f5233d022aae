"""Gradients by hand: each piece equal to PyTorch's own, forwards and backwards."""

import pytest
import torch
from torch.nn import functional as F

from mslearn import fused
from mslearn.attention import rotary_table
from mslearn.device import Device


def numbers(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()


def plain_rotate(x, table):
    half = x.shape[-1] // 2
    cos, sin = table[0, None, :, None, :half], table[1, None, :, None, half:]
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


TABLE = rotary_table(8, 5).double()
PIECES = {
    "squared_relu": (fused.squared_relu, lambda x: F.relu(x).square()),
    "normalize": (fused.normalize, lambda x: F.rms_norm(x, (8,))),
    "rotate": (lambda x: fused.rotate(x, TABLE), lambda x: plain_rotate(x, TABLE)),
}


@pytest.mark.parametrize("name", PIECES)
def test_value_and_gradient_are_those_of_pytorch_and_of_finite_differences(name):
    ours, reference = PIECES[name]
    x, upstream = numbers(2, 5, 3, 8), numbers(2, 5, 3, 8, seed=1).detach()
    results = []
    for function in (ours, reference):
        y = function(x)
        results.append((y, *torch.autograd.grad(y, x, upstream)))
    for a, b in zip(*results, strict=True):
        assert (a - b).abs().max() < 1e-12
    assert torch.autograd.gradcheck(ours, numbers(1, 5, 1, 8, seed=2))
    with torch.no_grad():
        assert (ours(x) - results[0][0]).abs().max() < 1e-12


def test_a_vector_of_zeros_stays_one():
    x = torch.zeros(2, 8, dtype=torch.float64, requires_grad=True)
    y = fused.normalize(x)
    y.sum().backward()
    assert not y.any() and x.grad.isfinite().all()


@pytest.mark.parametrize("n_ignored", [0, 3])
@pytest.mark.parametrize(("count", "vocab"), [(23, 40), (50, 2**17)])  # the second in four pieces
def test_the_loss_and_its_gradients_are_those_of_pytorch(count, vocab, n_ignored):
    x, weight = numbers(count, 6), numbers(vocab, 6, seed=1)
    targets = torch.arange(count) % vocab
    targets[:n_ignored] = fused.IGNORED
    ours = 3 * fused.linear_cross_entropy(x, weight, targets)
    reference = 3 * F.cross_entropy(x @ weight.T, targets)
    assert ours.item() == pytest.approx(reference.item(), rel=1e-13)
    gradients = (torch.autograd.grad(loss, (x, weight)) for loss in (ours, reference))
    for a, b in zip(*gradients, strict=True):
        assert (a - b).abs().max() < 1e-13
    with torch.no_grad():
        quiet = fused.linear_cross_entropy(x, weight, targets)
    assert 3 * quiet.item() == pytest.approx(reference.item(), rel=1e-6)  # scores are in float32


def test_under_autocast_weights_keep_float32_gradients_near_the_exact_ones():
    x, weight = (numbers(*s, dtype=torch.float32) for s in ((64, 16), (40, 16)))
    targets = torch.arange(64) % 40
    with Device("cpu", "test", torch.bfloat16).autocast():
        ours = fused.linear_cross_entropy(x, weight, targets)
    reference = F.cross_entropy(x @ weight.T, targets)
    gradients = (torch.autograd.grad(loss, (x, weight)) for loss in (ours, reference))
    for a, b in zip(*gradients, strict=True):
        assert a.dtype == torch.float32
        assert 0 < (a - b).norm() / b.norm() < 0.02


@pytest.mark.parametrize("autocast", [False, True])
def test_attention_on_a_cpu_works_in_float32_even_under_autocast(autocast):
    q, k, v = (numbers(2, 3, 7, 8, seed=seed, dtype=torch.float32) for seed in range(3))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        y = fused.attend(q, k, v, is_causal=True)
    assert y.dtype == torch.float32
    assert torch.equal(y, F.scaled_dot_product_attention(q, k, v, is_causal=True))
    halves = [part.bfloat16() for part in (q, k, v)]
    wide = F.scaled_dot_product_attention(*(part.float() for part in halves))
    assert torch.equal(fused.attend(*halves), wide)
    exact = [part.double() for part in (q, k, v)]
    assert fused.attend(*exact).dtype == torch.float64


def test_only_bfloat16_is_widened():
    for dtype in (torch.float32, torch.float64, torch.float16):
        x = torch.ones(2, dtype=dtype)
        assert fused.widen(x) is x
    assert fused.widen(torch.ones(2, dtype=torch.bfloat16)).dtype == torch.float32
