"""The losses equal torch's, their hand-written gradients equal autograd's, and misuse is named."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from mslearn import losses

TIGHT = {"rtol": 1e-12, "atol": 1e-12}


def cases(seed: int, *shape: int, spread: float = 3.0) -> torch.Tensor:
    """Logits in float64 that need a gradient."""
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(shape, generator=generator, dtype=torch.float64)
    return logits.requires_grad_()


def classes(seed: int, *shape: int, n: int, ignored: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(n, shape, generator=generator)
    hidden = torch.rand(shape, generator=generator) < ignored
    hidden.view(-1)[0] = False
    return torch.where(hidden, -100, targets)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 6),
    n=st.integers(1, 9),
    spread=st.sampled_from([0.0, 1.0, 30.0, 1000.0]),
)
def test_softmax_family_equals_torch(seed: int, rows: int, n: int, spread: float) -> None:
    logits = cases(seed, 2, rows, n, spread=spread).detach()
    for ours, theirs in [
        (losses.logsumexp(logits), logits.logsumexp(-1)),
        (losses.log_softmax(logits), logits.log_softmax(-1)),
        (losses.softmax(logits), logits.softmax(-1)),
    ]:
        torch.testing.assert_close(ours, theirs, **TIGHT)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), shift=st.floats(-1e4, 1e4))
def test_a_shift_of_all_logits_changes_nothing_but_logsumexp(seed: int, shift: float) -> None:
    logits = cases(seed, 4, 7).detach()
    torch.testing.assert_close(
        losses.softmax(logits + shift), losses.softmax(logits), rtol=1e-9, atol=1e-12
    )
    torch.testing.assert_close(
        losses.logsumexp(logits + shift), losses.logsumexp(logits) + shift, rtol=1e-12, atol=1e-9
    )


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 10**6),
    shape=st.sampled_from([(1,), (5,), (3, 4), (2, 3, 2)]),
    n=st.integers(1, 9),
    smoothing=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    ignored=st.sampled_from([0.0, 0.4]),
    spread=st.sampled_from([1.0, 300.0]),
)
def test_cross_entropy_and_its_gradient_equal_torch(
    seed: int, shape: tuple[int, ...], n: int, smoothing: float, ignored: float, spread: float
) -> None:
    logits = cases(seed, *shape, n, spread=spread)
    targets = classes(seed, *shape, n=n, ignored=ignored)
    theirs = F.cross_entropy(logits.view(-1, n), targets.view(-1), label_smoothing=smoothing)
    ours = losses.cross_entropy(logits, targets, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs, **TIGHT)
    by_hand = losses.cross_entropy_gradient(logits.detach(), targets, label_smoothing=smoothing)
    (expected,) = torch.autograd.grad(theirs, logits)
    (through_ours,) = torch.autograd.grad(ours, logits)
    torch.testing.assert_close(by_hand, expected, **TIGHT)
    torch.testing.assert_close(through_ours, expected, **TIGHT)


def test_another_ignore_index_and_smaller_integers() -> None:
    logits = cases(0, 4, 3)
    targets = torch.tensor([2, 0, 1, 0], dtype=torch.int32)
    expected = F.cross_entropy(logits, targets.long(), ignore_index=0)
    torch.testing.assert_close(losses.cross_entropy(logits, targets, ignore_index=0), expected)


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 10**6),
    shape=st.sampled_from([(), (1,), (5,), (3, 4)]),
    spread=st.sampled_from([0.0, 1.0, 300.0]),
)
def test_binary_cross_entropy_and_mse_equal_torch(
    seed: int, shape: tuple[int, ...], spread: float
) -> None:
    logits = cases(seed, *shape, spread=spread)
    targets = cases(seed + 1, *shape).detach().sigmoid()
    for ours, gradient, theirs in [
        (
            losses.binary_cross_entropy,
            losses.binary_cross_entropy_gradient,
            F.binary_cross_entropy_with_logits,
        ),
        (losses.mse, losses.mse_gradient, F.mse_loss),
    ]:
        expected = theirs(logits, targets)
        torch.testing.assert_close(ours(logits, targets), expected, **TIGHT)
        (slope,) = torch.autograd.grad(expected, logits)
        (through_ours,) = torch.autograd.grad(ours(logits, targets), logits)
        torch.testing.assert_close(gradient(logits.detach(), targets), slope, **TIGHT)
        torch.testing.assert_close(through_ours, slope, **TIGHT)


def test_autograd_through_every_loss_passes_finite_differences() -> None:
    logits, targets = cases(3, 4, 5, spread=1.0), classes(3, 4, n=5, ignored=0.3)
    soft = cases(4, 4, 5).detach().sigmoid()
    for function in (losses.logsumexp, losses.log_softmax, losses.softmax):
        assert gradcheck(function, logits)
    assert gradcheck(lambda z: losses.cross_entropy(z, targets, label_smoothing=0.1), logits)
    assert gradcheck(lambda z: losses.binary_cross_entropy(z, soft), logits)
    assert gradcheck(lambda z: losses.mse(z, soft), logits)


def test_gradients_of_the_softmax_family_equal_autograd() -> None:
    logits, upstream = cases(5, 3, 4), cases(6, 3, 4).detach()
    for function, by_hand in [
        (losses.softmax, losses.softmax_gradient),
        (losses.log_softmax, losses.log_softmax_gradient),
    ]:
        (slope,) = torch.autograd.grad(function(logits), logits, upstream)
        torch.testing.assert_close(by_hand(logits.detach(), upstream), slope, **TIGHT)
    (slope,) = torch.autograd.grad(losses.logsumexp(logits).sum(), logits)
    torch.testing.assert_close(losses.logsumexp_gradient(logits.detach()), slope, **TIGHT)


def test_huge_and_infinite_logits_stay_finite_where_the_loss_is() -> None:
    huge = torch.tensor([[1000.0, 0.0, -1000.0]])
    assert losses.cross_entropy(huge, torch.tensor([0])) == 0
    assert losses.cross_entropy(huge, torch.tensor([2])) == 2000
    masked = torch.tensor([[0.0, 0.0, -math.inf]], requires_grad=True)
    loss = losses.cross_entropy(masked, torch.tensor([1]))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert masked.grad.isfinite().all()
    assert losses.logsumexp(torch.full((2,), -math.inf)) == -math.inf
    assert losses.binary_cross_entropy(torch.tensor([-800.0]), torch.tensor([1.0])) == 800


def test_the_binary_loss_is_the_two_class_case() -> None:
    z = cases(7, 6).detach()
    y = torch.tensor([0, 1, 1, 0, 1, 0])
    pair = torch.stack([torch.zeros_like(z), z], -1)
    torch.testing.assert_close(
        losses.binary_cross_entropy(z, y.double()), losses.cross_entropy(pair, y), **TIGHT
    )


def test_perplexity_and_bits_per_byte() -> None:
    assert losses.perplexity(math.log(50)) == pytest.approx(50)
    assert losses.perplexity(torch.tensor(0.0)) == 1
    assert losses.perplexity(1e4) == math.inf
    assert losses.bits_per_byte(8 * math.log(2), 4) == pytest.approx(2)
    with pytest.raises(ValueError, match="n_bytes must be positive"):
        losses.bits_per_byte(1.0, 0)


@pytest.mark.parametrize("function", [losses.cross_entropy, losses.cross_entropy_gradient])
@pytest.mark.parametrize(
    ("targets", "options", "error", "message"),
    [
        (torch.tensor([0.0, 1.0]), {}, TypeError, r"class numbers, got torch.float32"),
        (torch.tensor([[0, 1]]), {}, ValueError, r"need targets of shape \(2,\), got \(1, 2\)"),
        (torch.tensor([0, 3]), {}, ValueError, r"must lie in 0\.\.2 .* got 3"),
        (torch.tensor([0, -1]), {}, ValueError, r"got -1"),
        (torch.tensor([0, 1]), {"label_smoothing": 1.5}, ValueError, r"\[0, 1\], got 1.5"),
    ],
)
def test_bad_targets_are_named(function, targets, options, error, message) -> None:
    with pytest.raises(error, match=message):
        function(torch.zeros(2, 3), targets, **options)


@pytest.mark.parametrize("function", [losses.mse, losses.binary_cross_entropy])
def test_shapes_that_would_broadcast_are_refused(function) -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\) of the predictions, got \(3, 1\)"):
        function(torch.zeros(3), torch.zeros(3, 1))
