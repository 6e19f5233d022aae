"""Chapter 13: each numbered equation holds in float64, and each check refuses a faulty one."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ledger import Property, prove
from sklearn.metrics import f1_score, precision_score, recall_score
from torch import Tensor, nn
from torch.nn import functional as F

from mslearn.home import course
from mslearn.tasks import Classifier, LoRA, fine_tuner
from mslearn.transformer import Config, Transformer

K, D, N = 4, 6, 9  # classes, width, positions


def draw(*shape: int, seed: int = 0, grad: bool = False) -> Tensor:
    """Random numbers in float64, none of them special."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(grad)


def near(ours: Tensor, reference: Tensor, tolerance: float = 1e-10) -> None:
    """Assert that two tensors agree to `tolerance`, relative and absolute."""
    torch.testing.assert_close(
        torch.as_tensor(ours), torch.as_tensor(reference), rtol=tolerance, atol=tolerance
    )


def body(causal: bool = True) -> Transformer:
    """A small network in float64 in which every layer does something."""
    torch.manual_seed(0)
    model = Transformer(Config(30, context=12, n_layers=3, n_heads=2, d_model=8, causal=causal))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model.double()


def pooling(formula: Callable[[Tensor], Tensor]) -> None:
    """(13.1) is what the package's pooling gives for the positions of the text itself."""
    model = Classifier(body(), K).double()
    tokens = torch.randint(30, (1, 12), generator=torch.Generator().manual_seed(1))
    features = model.body.features(tokens)[0, :7]
    near(model.pool(tokens, torch.tensor([7])).double(), formula(features)[None], 1e-6)


def causality(causal: bool) -> None:
    """(13.2) by autograd: no derivative of an earlier position's feature by a later embedding."""
    model, kept = body(causal), []
    hook = model.embedding.register_forward_hook(
        lambda _, __, out: kept.append(out.requires_grad_()) or out
    )
    features = model.features(torch.arange(12)[None])
    hook.remove()
    for t in range(12):
        derivative = torch.autograd.grad(features[0, t].sum(), kept[0], retain_graph=True)[0]
        assert derivative[0, : t + 1].abs().sum() > 0
        assert (derivative[0, t + 1 :] == 0).all()


def head_loss(loss: Callable[[Tensor, Tensor, Tensor, int], Tensor]) -> None:
    """(13.3) is torch's cross-entropy of a linear layer."""
    W, b, h = draw(K, D), draw(K, seed=1), draw(D, seed=2)
    reference = F.cross_entropy(F.linear(h, W, b)[None], torch.tensor([2]))
    near(loss(W, b, h, 2), reference)


def head_gradient(formula: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    """(13.4) by autograd."""
    W, b, h = draw(K, D, grad=True), draw(K, seed=1, grad=True), draw(D, seed=2)
    z = W @ h + b
    reference = torch.autograd.grad(F.cross_entropy(z[None], torch.tensor([2])), (W, b))
    y = F.one_hot(torch.tensor(2), K).double()
    for ours, theirs in zip(formula(z.softmax(0).detach(), y, h), reference, strict=True):
        near(ours, theirs)


def curvature(formula: Callable[[Tensor, Tensor], Tensor]) -> None:
    """(13.5): the second derivative by autograd is the variance, along many directions."""
    z = draw(K)
    hessian = torch.autograd.functional.hessian(
        lambda z: F.cross_entropy(z[None], torch.tensor([1])), z
    )
    for seed in range(20):
        v = draw(K, seed=seed + 5)
        near(formula(z.softmax(0), v), v @ hessian @ v)
        assert v @ hessian @ v >= 0


def gradient_of_a_feature(formula: Callable[[Tensor, Tensor, Tensor, int], Tensor]) -> None:
    """(13.6) by autograd, and that it is nought for a head of zeros, whose loss is log K."""
    features, W, b = draw(N, D, grad=True), draw(K, D, seed=1), draw(K, seed=2)
    z = W @ features.mean(0) + b
    loss = F.cross_entropy(z[None], torch.tensor([3]))
    y = F.one_hot(torch.tensor(3), K).double()
    for row in torch.autograd.grad(loss, features)[0]:
        near(formula(W, z.softmax(0).detach(), y, N), row)
    assert (formula(0 * W, torch.full((K,), 1 / K).double(), y, N) == 0).all()
    near(F.cross_entropy(0 * z[None], torch.tensor([3])), torch.tensor(K).double().log())


def first_order(promise: Callable[[list[float], list[Tensor]], Tensor]) -> None:
    """(13.7): what is left over shrinks with the square of the rates."""
    layers = [draw(5, 5, seed=s, grad=True) for s in range(3)]
    x, shares = draw(5, seed=9), [1.0, 0.5, 0.25]

    def loss(weights: list[Tensor]) -> Tensor:
        h = x
        for weight in weights:
            h = torch.tanh(weight @ h)
        return h.square().sum()

    gradients = torch.autograd.grad(loss(layers), layers)

    def left_over(eta: float) -> float:
        rates = [eta * share for share in shares]
        moved = [w - r * g for w, r, g in zip(layers, rates, gradients, strict=True)]
        left = loss(layers) - loss(moved) - promise(rates, gradients)
        return abs(left.item())

    assert left_over(1e-3) / left_over(5e-4) == pytest.approx(4, rel=0.05)


def rates(formula: Callable[[float, float, int], list[float]]) -> None:
    """(13.8): the package's groups, top down, and the geometric sum."""
    model, eta, xi = Classifier(body(), K), 0.3, 0.7
    ours = formula(eta, xi, 4)[::-1]  # the head, three blocks, the embedding
    assert [g["lr"] for g in model.groups(eta, xi)] == pytest.approx(ours)
    assert sum(ours) == pytest.approx(eta * (1 - xi**5) / (1 - xi))
    muon = [g["lr"] for g in fine_tuner(model, eta, xi).param_groups if g["muon"]]
    assert muon == pytest.approx(ours[:3])


def lora(formula: Callable[[Tensor, Tensor, Tensor, float, int], Tensor]) -> None:
    """(13.9) is the package's layer, merged or not, and has the rank it says."""
    layer = LoRA(nn.Linear(7, 5, bias=False), rank=2, scale=3.0).double()
    nn.init.normal_(layer.up.weight)
    W, A, B = layer.linear.weight, layer.down.weight, layer.up.weight
    merged = formula(W, A, B, 3.0, 2)
    near(merged, layer.merged())
    x = draw(3, 7)
    near(x @ merged.T, layer(x))
    assert torch.linalg.matrix_rank(merged - W) <= 2


def lora_gradients(formula: Callable[..., tuple[Tensor, Tensor]]) -> None:
    """(13.10) by autograd, through the package's layer and a curved loss."""
    layer = LoRA(nn.Linear(7, 5, bias=False), rank=2, scale=3.0).double()
    nn.init.normal_(layer.up.weight)
    A, B, x = layer.down.weight, layer.up.weight, draw(3, 7)
    whole = layer.merged().detach().requires_grad_()
    G = torch.autograd.grad(torch.tanh(x @ whole.T).square().sum(), whole)[0]
    reference = torch.autograd.grad(torch.tanh(layer(x)).square().sum(), (B, A))
    for ours, theirs in zip(formula(G, A, B, 3.0, 2), reference, strict=True):
        near(ours, theirs)


def lora_first_step(formula: Callable[[float, float, int, Tensor, Tensor], Tensor]) -> None:
    """(13.11): a plain gradient step from B = 0 moves the merged matrix by this."""
    layer, eta = LoRA(nn.Linear(7, 5, bias=False), rank=2, scale=3.0).double(), 0.1
    x, before = draw(3, 7), layer.merged().detach().requires_grad_()
    G = torch.autograd.grad(torch.tanh(x @ before.T).square().sum(), before)[0]
    torch.tanh(layer(x)).square().sum().backward()
    expected = formula(eta, 3.0, 2, G, layer.down.weight.detach())
    assert (layer.down.weight.grad == 0).all()
    for parameter in (layer.up.weight, layer.down.weight):
        parameter.data -= eta * parameter.grad
    near(layer.merged() - before, expected)


def lora_count(formula: Callable[[int, int, int], int]) -> None:
    """(13.12) is what trains."""
    for m, n, r in ((5, 7, 2), (12, 4, 3), (768, 3072, 8)):
        layer = LoRA(nn.Linear(n, m, bias=False), rank=r)
        assert sum(p.numel() for p in layer.parameters() if p.requires_grad) == formula(r, m, n)
        assert layer.linear.weight.numel() == m * n


def some_answers() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    true = generator.choice(K, size=200, p=[0.6, 0.2, 0.15, 0.05])
    return np.where(generator.random(200) < 0.6, true, generator.integers(K, size=200)), true


def f1(formula: Callable[[int, int, int], float]) -> None:
    """(13.13) is scikit-learn's, and the harmonic mean of its precision and recall."""
    guess, true = some_answers()
    counted = [
        formula(
            int(((guess == k) & (true == k)).sum()),
            int(((guess == k) & (true != k)).sum()),
            int(((guess != k) & (true == k)).sum()),
        )
        for k in range(K)
    ]
    precision, recall = (s(true, guess, average=None) for s in (precision_score, recall_score))
    assert counted == pytest.approx(2 * precision * recall / (precision + recall))
    assert np.mean(counted) == pytest.approx(f1_score(true, guess, average="macro"))


def majority_f1(formula: Callable[[float, int], float]) -> None:
    """(13.14) is scikit-learn's score of one answer for all."""
    _, true = some_answers()
    reference = f1_score(true, 0 * true, average="macro", zero_division=0)
    assert formula(float((true == 0).mean()), K) == pytest.approx(reference)


def paired_variance(formula: Callable[[float, float, float], float]) -> None:
    """(13.15) on the answers of two classifiers that fail on the same texts."""
    hard = np.random.default_rng(0).random(500)
    a, b = (hard < 0.8).astype(float), (hard < 0.7).astype(float)
    shared = float(np.cov(a, b, ddof=0)[0, 1])
    assert shared > 0
    assert formula(a.var(), b.var(), shared) == pytest.approx((a - b).var(), rel=1e-12)


def nll(W: Tensor, b: Tensor, h: Tensor, y: int) -> Tensor:
    return -(W @ h + b).softmax(0)[y].log()


LEDGER = {
    "13.1": Property(
        pooling,
        lambda h: h.mean(0),
        {"no 1/n": lambda h: h.sum(0), "the last position": lambda h: h[-1]},
    ),
    "13.2": Property(causality, True, {"no causal mask": False}),
    "13.3": Property(
        head_loss,
        nll,
        {
            "minus b": lambda W, b, h, y: nll(W, -b, h, y),
            "the sign": lambda W, b, h, y: -nll(W, b, h, y),
        },
    ),
    "13.4": Property(
        head_gradient,
        lambda p, y, h: (torch.outer(p - y, h), p - y),
        {
            "the sign": lambda p, y, h: (torch.outer(y - p, h), y - p),
            "no y": lambda p, y, h: (torch.outer(p, h), p),
        },
    ),
    "13.5": Property(
        curvature,
        lambda p, v: (p * v**2).sum() - (p * v).sum() ** 2,
        {
            "the mean not squared off": lambda p, v: (p * v**2).sum(),
            "every class as probable": lambda p, v: v.var(),
        },
    ),
    "13.6": Property(
        gradient_of_a_feature,
        lambda W, p, y, n: W.T @ (p - y) / n,
        {
            "no 1/n": lambda W, p, y, n: W.T @ (p - y),
            "the sign": lambda W, p, y, n: W.T @ (y - p) / n,
        },
    ),
    "13.7": Property(
        first_order,
        lambda rates, g: sum(r * x.square().sum() for r, x in zip(rates, g, strict=True)),
        {
            "norm not squared": lambda rates, g: sum(
                r * x.norm() for r, x in zip(rates, g, strict=True)
            ),
            "one rate for all": lambda rates, g: rates[0] * sum(x.square().sum() for x in g),
        },
    ),
    "13.8": Property(
        rates,
        lambda eta, xi, top: [eta * xi ** (top - layer) for layer in range(top + 1)],
        {"bottom up": lambda eta, xi, top: [eta * xi**layer for layer in range(top + 1)]},
    ),
    "13.9": Property(
        lora,
        lambda W, A, B, s, r: W + s / r * B @ A,
        {
            "no 1/r": lambda W, A, B, s, r: W + s * B @ A,
            "W forgotten": lambda W, A, B, s, r: s / r * B @ A,
        },
    ),
    "13.10": Property(
        lora_gradients,
        lambda G, A, B, s, r: (s / r * G @ A.T, s / r * B.T @ G),
        {
            "no s/r": lambda G, A, B, s, r: (G @ A.T, B.T @ G),
            "a sign": lambda G, A, B, s, r: (s / r * G @ A.T, -s / r * B.T @ G),
        },
    ),
    "13.11": Property(
        lora_first_step,
        lambda eta, s, r, G, A: -eta * (s / r) ** 2 * G @ A.T @ A,
        {
            "s/r not squared": lambda eta, s, r, G, A: -eta * s / r * G @ A.T @ A,
            "the full step": lambda eta, s, r, G, A: -eta * G,
        },
    ),
    "13.12": Property(
        lora_count, lambda r, m, n: r * (m + n), {"a product": lambda r, m, n: r * m * n}
    ),
    "13.13": Property(
        f1,
        lambda tp, fp, fn: 2 * tp / (2 * tp + fp + fn),
        {
            "a factor 2": lambda tp, fp, fn: tp / (tp + fp + fn),
            "no misses": lambda tp, fp, fn: 2 * tp / (2 * tp + fp),
        },
    ),
    "13.14": Property(
        majority_f1,
        lambda q, k: 2 * q / (1 + q) / k,
        {"accuracy": lambda q, k: q / k, "no 1/K": lambda q, k: 2 * q / (1 + q)},
    ),
    "13.15": Property(
        paired_variance,
        lambda a, b, c: a + b - 2 * c,
        {"unpaired": lambda a, b, c: a + b, "the sign": lambda a, b, c: a + b + 2 * c},
    ),
}

TestChapter13 = prove(course() / "notebooks" / "13_text_classification.ipynb", LEDGER)
