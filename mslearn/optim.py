"""Optimisers: how a gradient becomes a step. AdamW for any tensor, Muon for matrices."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn


class AdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay, equal to `torch.optim.AdamW`.

    Source: Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        check_rate(lr)
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    adamw_step(parameter, self.state[parameter], group)


def adamw_step(parameter: Tensor, state: dict, group: dict) -> None:
    """One AdamW step of one tensor, in place; `state` keeps both averages and the step count."""
    if not state:
        state.update(step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
    gradient, mean, square = parameter.grad, state["mean"], state["square"]
    beta1, beta2 = group["betas"]
    state["step"] += 1
    mean.lerp_(gradient, 1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    # Both averages start at zero and are too small by 1 - beta^t until they have filled up.
    mean_scale = 1 - beta1 ** state["step"]
    square_scale = 1 - beta2 ** state["step"]
    parameter.mul_(1 - group["lr"] * group["weight_decay"])
    denominator = square.sqrt().div_(square_scale**0.5).add_(group["eps"])
    parameter.addcdiv_(mean, denominator, value=-group["lr"] / mean_scale)


def orthogonalize(matrices: Float[Tensor, "*batch rows cols"], steps: int = 4) -> Tensor:
    """Push every singular value of each matrix towards 1, keeping its singular vectors.

    Newton–Schulz iteration of degree five: X ← aX + b(XXᵀ)X + c(XXᵀ)²X. The coefficients trade
    exactness for speed: singular values end between about 0.7 and 1.2. Source: Jordan et al.
    2024, "Muon: an optimizer for hidden layers".
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices  # the small Gram matrix is the cheap one
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal, for matrices; AdamW for every other group.

    A group with `muon=True` holds matrices (rows, columns); the others are stepped by AdamW.
    Momentum rises from 0.85 to `momentum` over the first 300 steps. A packed projection of
    queries, keys and values (3 width, width) is orthogonalised as the three matrices it is.
    `dtype` is the format of that work: bfloat16 is exact enough, and faster where it is fast.
    Source: as `orthogonalize`.
    """

    def __init__(
        self,
        params: Iterable[dict],
        lr: float = 0.04,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        newton_steps: int = 4,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_rate(lr)
        self.dtype = dtype or torch.float32
        defaults = dict(lr=lr, muon=False, momentum=momentum, newton_steps=newton_steps)
        defaults |= dict(betas=betas, eps=eps, weight_decay=weight_decay)
        super().__init__(params, defaults)
        shapes = [tuple(p.shape) for g in self.param_groups if g["muon"] for p in g["params"]]
        if wrong := [shape for shape in shapes if len(shape) != 2]:
            raise ValueError(
                f"Muon steps matrices, got a tensor of shape {wrong[0]}; put it in a group without "
                "muon=True"
            )

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not group["muon"]:
                for parameter in parameters:
                    adamw_step(parameter, self.state[parameter], group)
                continue
            for shape in sorted({p.shape for p in parameters}):
                self._step_shape([p for p in parameters if p.shape == shape], group)

    def _step_shape(self, parameters: list[Tensor], group: dict) -> None:
        """Matrices of one shape are stepped as one batch: fewer, larger products."""
        directions = torch.stack([self._momentum(p, group) for p in parameters])
        count, rows, cols = directions.shape
        if rows == 3 * cols:
            directions = directions.view(3 * count, cols, cols)
        size = max(1.0, directions.shape[-2] / cols) ** 0.5  # a tall matrix may move further
        directions = orthogonalize(directions.to(self.dtype), group["newton_steps"])
        directions = directions.to(parameters[0].dtype).reshape(count, rows, cols)
        for parameter, direction in zip(parameters, directions, strict=True):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(direction, alpha=-group["lr"] * size)

    def _momentum(self, parameter: Tensor, group: dict) -> Tensor:
        """Nesterov's look-ahead average of the gradients."""
        state = self.state[parameter]
        if not state:
            state.update(step=0, average=torch.zeros_like(parameter))
        state["step"] += 1
        momentum = group["momentum"] - 0.10 * max(0.0, 1 - state["step"] / 300)
        state["average"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(state["average"], momentum)


def muon_and_adamw(
    model: nn.Module,
    lr: float = 0.04,
    adam_lr: float = 0.01,
    weight_decay: float = 0.0,
    dtype: torch.dtype | None = None,
) -> Muon:
    """Muon on the matrices of `model.blocks`, AdamW on embeddings, head and everything else.

    The two rates keep their ratio under one schedule: the first group's is the run's rate.
    """
    hidden = [p for p in model.blocks.parameters() if p.ndim == 2]
    chosen = {id(p) for p in hidden}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    groups = [dict(params=hidden, muon=True), dict(params=rest, lr=adam_lr)]
    return Muon(groups, lr=lr, weight_decay=weight_decay, dtype=dtype)


def check_rate(rate: float) -> None:
    """Raise ValueError unless the rate is positive."""
    if not rate > 0:
        raise ValueError(f"rate must be positive, got {rate}; pass for example lr=3e-4")
