"""Optimisers: AdamW equal to torch's step for step, Muon against singular values."""

import pytest
import torch

from mslearn.optim import AdamW, Muon, muon_and_adamw, orthogonalize
from mslearn.transformer import Config, Transformer


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trajectory(optimizer, parameters, steps):
    """Minimise a curved loss with noise, the same for every optimiser."""
    for step in range(steps):
        noise = numbers(6, 4, seed=step)
        loss = (parameters[0].tanh() @ noise).square().sum() + (parameters[1] - 1).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [p.detach().clone() for p in parameters]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.8, 0.999)])
def test_adamw_is_torchs_over_a_thousand_steps(weight_decay, betas):
    settings = dict(lr=3e-3, betas=betas, weight_decay=weight_decay)
    ends = []
    for kind in (AdamW, torch.optim.AdamW):
        parameters = [numbers(5, 6, seed=1).requires_grad_(), numbers(7, seed=2).requires_grad_()]
        ends.append(trajectory(kind(parameters, **settings), parameters, 1000))
    for ours, theirs in zip(*ends, strict=True):
        assert (ours - theirs).abs().max() <= 1e-12
    assert (ends[0][0] - numbers(5, 6, seed=1)).abs().max() > 0.1  # it went somewhere


@pytest.mark.parametrize("shape", [(8, 8), (20, 7), (7, 20), (3, 9, 5)])
def test_orthogonalize_moves_singular_values_towards_one_and_keeps_their_vectors(shape):
    x = numbers(*shape)
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    s = s.clamp(min=0.1 * s.amax())  # four iterations lift what is not much smaller than the rest
    x = u @ torch.diag_embed(s) @ vt
    y = orthogonalize(x)
    cores = u.mT @ y @ vt.mT
    values = torch.diagonal(cores, dim1=-2, dim2=-1)
    assert (cores - torch.diag_embed(values)).abs().max() < 1e-10
    assert values.min() > 0.6 and values.max() < 1.25
    spread = s.amax() / s.amin()
    assert values.max() / values.min() < spread


def test_a_muon_step_is_the_one_written_out():
    w, gradient = numbers(12, 6, seed=1).float(), numbers(12, 6, seed=2).float()
    parameter = torch.nn.Parameter(w.clone())
    optimizer = Muon([dict(params=[parameter], muon=True)], lr=0.1, weight_decay=0.5)
    parameter.grad = gradient.clone()
    optimizer.step()
    momentum = 0.95 - 0.10 * (1 - 1 / 300)
    average = (1 - momentum) * gradient
    ahead = (1 - momentum) * gradient + momentum * average
    expected = w * (1 - 0.1 * 0.5) - 0.1 * 2**0.5 * orthogonalize(ahead)
    assert torch.allclose(parameter, expected, atol=1e-6)


def test_a_packed_projection_is_three_matrices():
    packed = torch.nn.Parameter(numbers(18, 6).float())
    apart = [torch.nn.Parameter(part.clone()) for part in packed.detach().chunk(3)]
    gradient = numbers(18, 6, seed=1).float()
    for optimizer, parameters in (
        (Muon([dict(params=[packed], muon=True)]), [packed]),
        (Muon([dict(params=apart, muon=True)]), apart),
    ):
        for p, g in zip(parameters, gradient.chunk(len(parameters)), strict=True):
            p.grad = g.clone()
        optimizer.step()
    assert torch.allclose(packed, torch.cat(list(apart)), atol=1e-6)


def test_every_parameter_is_in_one_group_and_the_blocks_matrices_are_muons():
    model = Transformer(Config(40, 16, 2, 2, 16))
    optimizer = muon_and_adamw(model, lr=0.04, adam_lr=0.01, weight_decay=0.1)
    muon, adam = optimizer.param_groups
    ids = [id(p) for group in (muon, adam) for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    assert {id(p) for p in muon["params"]} == {id(p) for p in model.blocks.parameters()}
    assert (muon["lr"], adam["lr"], adam["weight_decay"]) == (0.04, 0.01, 0.1)


def test_bfloat16_work_leaves_weights_and_averages_in_float32():
    model = Transformer(Config(40, 16, 1, 2, 16))
    optimizer = muon_and_adamw(model, dtype=torch.bfloat16)
    model(torch.arange(16)[None]).square().mean().backward()
    optimizer.step()
    kept = [v for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
    assert {v.dtype for v in (*kept, *model.parameters())} == {torch.float32}


@pytest.mark.parametrize("steps", [1, 4])
def test_each_singular_value_goes_through_the_polynomial(steps):
    x = numbers(9, 5)
    expected = torch.linalg.svdvals(x) / x.norm()
    for _ in range(steps):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    found = torch.linalg.svdvals(orthogonalize(x, steps))
    assert torch.allclose(found, expected.sort(descending=True).values, rtol=1e-6)


def test_muon_refuses_what_is_no_matrix():
    bias = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match=r"Muon steps matrices, got a tensor of shape \(3,\)"):
        Muon([dict(params=[bias], muon=True)])


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_that_is_not_positive_is_refused(rate):
    for kind in (AdamW, lambda params, lr: Muon([dict(params=params)], lr=lr)):
        with pytest.raises(ValueError, match="rate must be positive, got"):
            kind([torch.nn.Parameter(torch.ones(2))], lr=rate)
