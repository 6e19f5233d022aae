"""Masked language modelling: hide tokens, 80/10/10, and ask for them back from both sides."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from mslearn.batches import Batches, Tokens
from mslearn.bpe import BPE
from mslearn.crew import mean_over_targets
from mslearn.device import Device
from mslearn.fused import IGNORED, linear_cross_entropy
from mslearn.transformer import Transformer

MASK = "<|mask|>"


def with_mask(tokenizer: BPE) -> BPE:
    """The same tokeniser with one more id, the last, for `<|mask|>`; no other id changes."""
    if MASK in tokenizer.special:
        return tokenizer
    special = tokenizer.special | {MASK: tokenizer.vocab_size}
    return BPE([*tokenizer.tokens, MASK.encode()], tokenizer.merges, special)


@dataclass(frozen=True)
class Masking:
    """Which share of the tokens is asked for, and what stands there instead of them.

    Of the chosen, a share `hidden` becomes `mask_id`, a share `replaced` some id below `mask_id`,
    each as likely; the rest stays as it is. Source: Devlin et al. 2018, BERT, section 3.1.
    """

    mask_id: int
    rate: float = 0.15
    hidden: float = 0.8
    replaced: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(
                f"the mask rate must lie between 0 and 1, got {self.rate}; 0.15 is usual"
            )
        if min(self.hidden, self.replaced) < 0 or self.hidden + self.replaced > 1 + 1e-9:
            raise ValueError(
                "hidden and replaced are shares of the chosen tokens that add up to at most 1, got "
                f"{self.hidden} and {self.replaced}; 0.8 and 0.1 are usual"
            )

    def count(self, time: int) -> int:
        """How many of `time` tokens are chosen: the rate's share, rounded, but not none or all."""
        if time < 2:
            raise ValueError(
                f"to ask for one token by the others takes 2 tokens or more, got {time}; give a "
                "longer text"
            )
        return min(time - 1, max(1, round(self.rate * time)))

    def __call__(
        self, tokens: Int[Tensor, "batch time"], seed: int, step: int = 0
    ) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]:
        """Inputs with the chosen tokens changed, and targets: the token where chosen, else ignored.

        The same seed and step choose and change alike, always. Raises ValueError for ids that are
        not below `mask_id` and for fewer than two tokens.
        """
        if not 0 <= int(tokens.min()) <= int(tokens.max()) < self.mask_id:
            raise ValueError(
                f"token ids must be 0 to {self.mask_id - 1}, got {int(tokens.min())} to "
                f"{int(tokens.max())}; use the tokeniser that the mask was added to"
            )
        count, generator = self.count(tokens.shape[1]), np.random.default_rng([seed, step])
        order = generator.random(tokens.shape).argsort(1)[:, :count]  # (B, T) -> (B, count)
        chosen = torch.zeros(tokens.shape, dtype=torch.bool)
        chosen.scatter_(1, torch.from_numpy(order), True)
        fate = torch.from_numpy(generator.random(tokens.shape))
        others = torch.from_numpy(generator.integers(self.mask_id, size=tokens.shape))
        instead = torch.where(fate < self.hidden + self.replaced, others, tokens)
        instead = torch.where(fate < self.hidden, self.mask_id, instead)
        inputs = torch.where(chosen, instead, tokens)
        return inputs, torch.where(chosen, tokens, IGNORED)


class MaskedBatches:
    """`batches(step)` gives the windows of `Batches`, masked: a new choice in each pass."""

    def __init__(self, batches: Batches, masking: Masking) -> None:
        self.batches, self.masking = batches, masking

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        tokens, _ = self.batches(step)
        return self.masking(tokens, self.batches.seed, step)

    @property
    def tokens_per_step(self) -> int:
        return self.batches.tokens_per_step


@mean_over_targets
def masked_loss(model: Transformer, batch: tuple[Tensor, ...]) -> Float[Tensor, ""]:
    """Mean cross-entropy of the chosen tokens, in nats; the head works at those alone."""
    inputs, targets = batch
    chosen = targets != IGNORED
    return linear_cross_entropy(model.features(inputs)[chosen], model.head.weight, targets[chosen])


class MaskedHeldOut:
    """How well held-out blanks are filled: bits a blank, and the share of first guesses right.

    Every chosen token is hidden, as blanks are at use, and always the same are chosen.
    """

    def __init__(
        self,
        tokens: Tokens,
        context: int,
        masking: Masking,
        batch_size: int = 16,
        max_tokens: int | None = None,
    ) -> None:
        count = min(len(tokens), max_tokens or len(tokens)) // context
        if count < 1:
            raise ValueError(
                f"held-out text of {len(tokens)} tokens is shorter than one window of {context}"
            )
        windows = torch.from_numpy(tokens.ids[: count * context].astype(np.int64))
        blanks = Masking(masking.mask_id, masking.rate, hidden=1.0, replaced=0.0)
        pairs = blanks(windows.view(count, context), seed=0)
        self.batches = list(zip(*(each.split(batch_size) for each in pairs), strict=True))

    @torch.no_grad()
    def __call__(self, model: Transformer, device: Device) -> dict[str, float]:
        nats, right, total = 0.0, 0, 0
        for inputs, targets in self.batches:
            chosen = targets != IGNORED
            with device.autocast():
                logits = model.head(model.features(device.to(inputs))[device.to(chosen)])
            answers = device.to(targets[chosen])
            nats += float(F.cross_entropy(logits.float(), answers, reduction="sum"))
            right += int((logits.argmax(-1) == answers).sum())
            total += len(answers)
        return {"bits_per_blank": nats / total / np.log(2).item(), "accuracy": right / total}
