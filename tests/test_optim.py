"""Optimisers: equal to torch's step for step, Muon also against singular values."""

import pytest
import torch

from mslearn import optim
from mslearn.optim import SGD, Adam, AdamW, Muon, RMSProp, muon_and_adamw, orthogonalize
from mslearn.transformer import Config, Transformer


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def start():
    """Parameters of several shapes: a number, a vector, a matrix, a stack of matrices."""
    shapes = enumerate([(), (7,), (5, 6), (3, 9, 2)])
    return [torch.nn.Parameter(numbers(*shape, seed=i)) for i, shape in shapes]


def difference_over_a_thousand_steps(ours, theirs, parameters=start):
    """Largest distance at any of 1,000 steps of a curved loss with noise, and the way gone."""
    pairs = [(make(p), p) for make, p in ((ours, parameters()), (theirs, parameters()))]
    largest = 0.0
    for step in range(1000):
        noise = [numbers(*p.shape, seed=1000 * i + step) for i, p in enumerate(pairs[0][1])]
        for optimizer, each in pairs:
            optimizer.zero_grad()
            tilted = [(p - 1) * n for p, n in zip(each, noise, strict=True)]
            sum(each.tanh().square().sum() for each in tilted).backward()
            optimizer.step()
        both = zip(*(each for _, each in pairs), strict=True)
        largest = max(largest, *((a - b).abs().max().item() for a, b in both))
    return largest, (pairs[0][1][1] - parameters()[1]).abs().max().item()


class TestEachIsTorchsOverAThousandSteps:
    @pytest.mark.parametrize("weight_decay", [0.0, 0.1])
    @pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
    def test_sgd(self, momentum, nesterov, weight_decay):
        settings = dict(lr=0.01, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
        self.check(SGD, torch.optim.SGD, settings)

    @pytest.mark.parametrize("weight_decay", [0.0, 0.1])
    @pytest.mark.parametrize(("alpha", "eps"), [(0.99, 1e-8), (0.9, 1e-3)])
    def test_rmsprop(self, alpha, eps, weight_decay):
        settings = dict(lr=3e-3, alpha=alpha, eps=eps, weight_decay=weight_decay)
        self.check(RMSProp, torch.optim.RMSprop, settings)

    @pytest.mark.parametrize("weight_decay", [0.0, 0.1])
    @pytest.mark.parametrize(("betas", "eps"), [((0.9, 0.95), 1e-8), ((0.8, 0.999), 1e-3)])
    @pytest.mark.parametrize("kind", ["Adam", "AdamW"])
    def test_adam_and_adamw(self, kind, betas, eps, weight_decay):
        settings = dict(lr=3e-3, betas=betas, eps=eps, weight_decay=weight_decay)
        self.check(getattr(optim, kind), getattr(torch.optim, kind), settings)

    @pytest.mark.parametrize("weight_decay", [0.0, 0.1])
    def test_muon(self, weight_decay, monkeypatch):
        """Torch's rounds to bfloat16 inside; with that taken out, the two are one.

        A step ten times as long would reach the goal, where its direction is noise and rounding
        grows at every step.
        """
        monkeypatch.setattr(torch.Tensor, "bfloat16", lambda x: x.clone())
        settings = dict(lr=0.002, weight_decay=weight_decay)
        largest, way = difference_over_a_thousand_steps(
            lambda p: Muon(
                [dict(params=p, muon=True)],
                momentum=0.9,
                newton_steps=5,
                warmup=0,
                dtype=torch.float64,
                **settings,
            ),
            lambda p: torch.optim.Muon(p, momentum=0.9, ns_steps=5, **settings),
            lambda: [torch.nn.Parameter(numbers(*shape)) for shape in [(5, 6), (9, 4), (4, 4)]],
        )
        assert largest <= 1e-12 and way > 0.1

    def check(self, ours, theirs, settings):
        largest, way = difference_over_a_thousand_steps(
            lambda p: ours(p, **settings), lambda p: theirs(p, **settings)
        )
        assert largest <= 1e-12
        assert way > 0.1  # it went somewhere


def test_muon_in_bfloat16_is_torchs_but_for_rounding():
    gradient, ends = numbers(12, 8, seed=3).float(), []
    for kind in (
        lambda p: Muon([dict(params=[p], muon=True)], lr=1.0, newton_steps=5, dtype=torch.bfloat16),
        lambda p: torch.optim.Muon([p], lr=1.0, weight_decay=0.0),
    ):
        parameter = torch.nn.Parameter(torch.zeros(12, 8))
        optimizer = kind(parameter)
        parameter.grad = gradient.clone()
        optimizer.step()
        ends.append(parameter.detach())
    assert torch.linalg.matrix_norm(ends[0] - ends[1], 2) < 0.15
    assert torch.linalg.matrix_norm(ends[0], 2) > 0.7


@pytest.mark.parametrize("kind", [SGD, RMSProp, Adam, AdamW])
def test_a_parameter_without_a_gradient_stays_where_it_is(kind):
    used, unused = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    optimizer = kind([used, unused], lr=0.1, weight_decay=0.1)
    used.square().sum().backward()
    optimizer.step()
    assert (used != 1).all() and (unused == 1).all() and unused not in optimizer.state


@pytest.mark.parametrize("kind", [RMSProp, Adam, AdamW, Muon])
def test_a_gradient_of_zeros_moves_nothing(kind):
    parameter = torch.nn.Parameter(torch.ones(3, 3))
    optimizer = kind([dict(params=[parameter], muon=True)], lr=0.1)
    parameter.grad = torch.zeros(3, 3)
    optimizer.step()
    assert (parameter == 1).all()


@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
def test_scaling_the_loss_scales_away_l2_but_not_decoupled_decay(kind):
    ends = []
    for scale in (1.0, 100.0):
        parameter = torch.nn.Parameter(numbers(20))
        optimizer = getattr(optim, kind)([parameter], lr=0.01, eps=0.0, weight_decay=1.0)
        for step in range(50):
            parameter.grad = scale * numbers(20, seed=step)
            optimizer.step()
        ends.append(parameter.detach())
    same = torch.allclose(*ends, rtol=1e-9)
    assert same == (kind == "AdamW")


@pytest.mark.parametrize("shape", [(8, 8), (20, 7), (7, 20), (3, 9, 5)])
@pytest.mark.parametrize("steps", [3, 4, 5])
def test_orthogonalize_keeps_singular_vectors_and_brings_the_values_into_the_interval(shape, steps):
    """The interval's floor is the least value that the polynomial gives back once it is inside."""
    least = {3: 0.01786, 4: 0.00519, 5: 0.00151}[steps]
    u, s, vt = torch.linalg.svd(numbers(*shape), full_matrices=False)
    s = torch.logspace(0, -4, s.shape[-1], dtype=torch.float64).expand_as(s)
    y = orthogonalize(u @ torch.diag_embed(s) @ vt, steps)
    cores = u.mT @ y @ vt.mT
    values = torch.diagonal(cores, dim1=-2, dim2=-1)
    assert (cores - torch.diag_embed(values)).abs().max() < 1e-12
    assert (u @ cores @ vt - y).abs().max() < 1e-12
    promised = s / s.norm(dim=-1, keepdim=True) >= least
    assert promised.any() and not promised.all()
    assert values[promised].min() > 0.6818 and values[promised].max() < 1.2024
    assert values[~promised].max() < 0.6819 and (values > 0).all()


@pytest.mark.parametrize(("steps", "least"), [(1, 0.21067), (4, 0.00519), (5, 0.00151)])
def test_the_promised_interval_is_as_narrow_as_it_can_be(steps, least):
    x = torch.linspace(least, 1, 100_000, dtype=torch.float64)
    pairs = torch.stack([x, (1 - x**2).sqrt()], dim=-1)  # of Frobenius norm 1
    values = orthogonalize(torch.diag_embed(pairs), steps)[:, 0, 0]
    assert values.min() == pytest.approx(0.68183, abs=1e-4)
    assert values.max() == pytest.approx(1.20237, abs=1e-4)


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
    with pytest.raises(ValueError, match=r"Muon steps matrices, got shape \(3,\); put it in"):
        Muon([dict(params=[bias], muon=True)])


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_that_is_not_positive_is_refused(rate):
    kinds = (SGD, RMSProp, Adam, AdamW, lambda params, lr: Muon([dict(params=params)], lr=lr))
    for kind in kinds:
        with pytest.raises(ValueError, match="rate must be positive, got"):
            kind([torch.nn.Parameter(torch.ones(2))], lr=rate)


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(ValueError, match="Nesterov looks ahead along the momentum, got 0"):
        SGD([torch.nn.Parameter(torch.ones(2))], nesterov=True)
