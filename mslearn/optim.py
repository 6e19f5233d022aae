"""Optimisers: how a gradient becomes a step. Five for any tensor, and Muon for matrices."""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Optimizer(torch.optim.Optimizer):
    """Steps each parameter by itself: `move(parameter, state, group)`, in place.

    `state` is the parameter's own and starts empty; `group` holds the settings. A parameter
    without a gradient stays where it is.
    """

    def __init__(self, params: Iterable, **settings: Any) -> None:
        check_rate(settings["lr"])
        super().__init__(params, settings)

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.move(parameter, self.state[parameter], group)

    def move(self, parameter: Tensor, state: dict, group: dict) -> None:
        raise NotImplementedError


class SGD(Optimizer):
    """Gradient descent, with momentum or Nesterov's look-ahead; equal to `torch.optim.SGD`.

    The velocity is a sum, not an average: under a constant gradient the rate in effect is
    lr / (1 - momentum). Source: Polyak 1964; Nesterov 1983, in the form of Sutskever et al. 2013.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 0.1,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        if nesterov and not momentum > 0:
            raise ValueError(f"Nesterov looks ahead along the momentum, got {momentum}; pass 0.9")
        settings = dict(lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
        super().__init__(params, **settings)

    def move(self, parameter: Tensor, state: dict, group: dict) -> None:
        direction, momentum = penalized(parameter, group), group["momentum"]
        if momentum:
            if not state:
                state["velocity"] = torch.zeros_like(parameter)
            velocity = state["velocity"].mul_(momentum).add_(direction)
            ahead = group["nesterov"]
            direction = direction.add(velocity, alpha=momentum) if ahead else velocity
        parameter.add_(direction, alpha=-group["lr"])


class RMSProp(Optimizer):
    """Each gradient over the root of its running mean square; equal to `torch.optim.RMSprop`.

    `alpha` is the share of the mean square kept at each step. Source: Tieleman and Hinton 2012,
    lecture 6.5.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay)

    def move(self, parameter: Tensor, state: dict, group: dict) -> None:
        if not state:
            state["square"] = torch.zeros_like(parameter)
        gradient, alpha = penalized(parameter, group), group["alpha"]
        square = state["square"].mul_(alpha).addcmul_(gradient, gradient, value=1 - alpha)
        parameter.addcdiv_(gradient, square.sqrt().add_(group["eps"]), value=-group["lr"])


class Adam(Optimizer):
    """Averages of gradient and square, both corrected for their start; as `torch.optim.Adam`.

    `weight_decay` is an L2 penalty here: it goes through the averages with the gradient, which
    all but cancels it where gradients are large. Source: Kingma and Ba 2015, algorithm 1.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def move(self, parameter: Tensor, state: dict, group: dict) -> None:
        adam_step(parameter, penalized(parameter, group), state, group)


class AdamW(Adam):
    """Adam with decoupled weight decay, equal to `torch.optim.AdamW`.

    Source: Loshchilov and Hutter 2019, algorithm 2.
    """

    def move(self, parameter: Tensor, state: dict, group: dict) -> None:
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        adam_step(parameter, parameter.grad, state, group)


def penalized(parameter: Tensor, group: dict) -> Tensor:
    """The gradient of the loss plus weight_decay / 2 · ‖parameter‖², an L2 penalty."""
    return parameter.grad.add(parameter, alpha=group["weight_decay"])


def adam_step(parameter: Tensor, gradient: Tensor, state: dict, group: dict) -> None:
    """One Adam step of one tensor, in place; `state` keeps both averages and the step count."""
    if not state:
        state.update(step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
    mean, square = state["mean"], state["square"]
    beta1, beta2 = group["betas"]
    state["step"] += 1
    mean.lerp_(gradient, 1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    # Both averages start at zero and are too small by 1 - beta^t until they have filled up.
    mean_scale = 1 - beta1 ** state["step"]
    square_scale = 1 - beta2 ** state["step"]
    denominator = square.sqrt().div_(square_scale**0.5).add_(group["eps"])
    parameter.addcdiv_(mean, denominator, value=-group["lr"] / mean_scale)


def orthogonalize(matrices: Float[Tensor, "*batch rows cols"], steps: int = 4) -> Tensor:
    """Push every singular value of each matrix towards 1, keeping its singular vectors.

    Newton–Schulz iteration of degree five: X ← aX + b(XXᵀ)X + c(XXᵀ)²X. The coefficients trade
    exactness for speed: after four steps a singular value of at least 0.0052 of the Frobenius
    norm lies between 0.68 and 1.21. Source: Jordan et al. 2024, "Muon: an optimizer for hidden
    layers in neural networks".
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices  # the small Gram matrix is the cheap one
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(Optimizer):
    """Momentum whose step is made orthogonal, for matrices; AdamW for every other group.

    A group with `muon=True` holds matrices (rows, columns); the others are stepped by AdamW.
    Momentum starts 0.10 lower and rises over `warmup` steps. A packed projection of queries, keys
    and values (3 width, width) is orthogonalised as the three matrices it is. `dtype` is the
    format of that work: bfloat16 is exact enough, and faster where it is fast. For other matrices,
    and without warm-up, equal to `torch.optim.Muon`. Source: as `orthogonalize`.
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
        warmup: int = 300,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.dtype, self.warmup = dtype or torch.float32, max(1, warmup)
        settings = dict(muon=False, momentum=momentum, newton_steps=newton_steps)
        settings |= dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        super().__init__(params, **settings)
        shapes = [tuple(p.shape) for g in self.param_groups if g["muon"] for p in g["params"]]
        if wrong := [shape for shape in shapes if len(shape) != 2]:
            raise ValueError(
                f"Muon steps matrices, got shape {wrong[0]}; put it in a group without muon=True"
            )

    move = AdamW.move

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not group["muon"]:
                for parameter in parameters:
                    self.move(parameter, self.state[parameter], group)
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
        momentum = group["momentum"] - 0.10 * max(0.0, 1 - state["step"] / self.warmup)
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
    rest = [p for p in model.parameters() if not any(p is each for each in hidden)]
    matrices = dict(params=hidden, muon=True, name="matrices")
    others = dict(params=rest, lr=adam_lr, name="the rest")
    return Muon([matrices, others], lr=lr, weight_decay=weight_decay, dtype=dtype)


def check_rate(rate: float) -> None:
    """Raise ValueError unless the rate is positive."""
    if not rate > 0:
        raise ValueError(f"rate must be positive, got {rate}; pass for example lr=3e-4")
