"""The plain baseline of every measurement: a GPT in ordinary PyTorch, written as most people do.

Learned positions, LayerNorm with a scale, GELU, `torch.optim.AdamW` as it comes. Nothing is made
slower on purpose: queries, keys and values come from one product, attention is PyTorch's own fused
kernel, and layers have no biases, which makes the model a little faster.
"""

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mslearn.batches import Tokens
from mslearn.transformer import Config


class BaselineBlock(nn.Module):
    """LayerNorm, attention, add; LayerNorm, feed-forward of four times the width, add."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.d_model
        self.n_heads = config.n_heads
        self.norm_attention = nn.LayerNorm(width, bias=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm_feed_forward = nn.LayerNorm(width, bias=False)
        self.up = nn.Linear(width, config.mlp_ratio * width, bias=False)
        self.down = nn.Linear(config.mlp_ratio * width, width, bias=False)

    def forward(self, x: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        batch, time, width = x.shape
        qkv = self.qkv(self.norm_attention(x)).split(width, dim=2)
        q, k, v = (part.view(batch, time, self.n_heads, -1).transpose(1, 2) for part in qkv)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, H, T, D)
        x = x + self.out(y.transpose(1, 2).reshape(batch, time, width))
        return x + self.down(F.gelu(self.up(self.norm_feed_forward(x))))


class Baseline(nn.Module):
    """A decoder-only language model of the sizes in `config`; `model(tokens)` gives logits.

    Source: Radford et al. 2019, GPT-2, with its initialisation: normal with deviation 0.02, and
    the projections back into the stream smaller by √(2·layers).
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.positions = nn.Embedding(config.context, config.d_model)
        self.blocks = nn.ModuleList(BaselineBlock(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model, bias=False)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                into_stream = name.endswith(("out.weight", "down.weight"))
                shrink = math.sqrt(2 * config.n_layers) if into_stream else 1.0
                nn.init.normal_(parameter, std=0.02 / shrink)

    def forward(self, tokens: Int[Tensor, "batch time"]) -> Float[Tensor, "batch time vocab"]:
        """Raises ValueError past the context: there is no position to add."""
        time = tokens.shape[1]
        if time > self.config.context:
            raise ValueError(
                f"the baseline reads at most {self.config.context} tokens, got {time}; shorten "
                "the text or build it with a longer context"
            )
        x = self.embedding(tokens) + self.positions.weight[:time]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def n_params(self) -> int:
        return sum(p.numel() for p in self.parameters())


def plain_adamw(model: nn.Module, lr: float = 1e-3) -> torch.optim.AdamW:
    """`torch.optim.AdamW` with the usual settings of a GPT: decay on matrices alone."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [dict(params=matrices), dict(params=vectors, weight_decay=0.0)]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99), weight_decay=0.1)


def plain_step(
    model: nn.Module, batch: tuple[Tensor, Tensor], optimizer: torch.optim.Optimizer
) -> float:
    """One training step as in any tutorial; gives the loss in nats per token."""
    inputs, targets = batch
    optimizer.zero_grad(set_to_none=True)
    loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


class Characters:
    """A vocabulary of the characters that some texts hold at least `often` times, one id each.

    Any other character is written as its UTF-8 bytes: nothing is lost, bits per byte stay
    comparable, and the output layer is not slowed down by hundreds of letters hardly ever used.
    The last id ends a document and stands for no bytes.
    """

    def __init__(self, texts: Iterable[str], often: int = 20) -> None:
        counts = Counter(character for text in texts for character in text)
        self.known = sorted(character for character, n in counts.items() if n >= often)
        self._ids = {character: [i] for i, character in enumerate(self.known)}
        self.end = len(self.known) + 256
        self.vocab_size = self.end + 1
        sizes = [len(character.encode()) for character in self.known]
        self.token_bytes = np.array([*sizes, *[1] * 256, 0])

    def encode(self, text: str) -> list[int]:
        """One id a character; one a byte of a character that is not known."""
        return [i for character in text for i in self._ids.get(character) or self._bytes(character)]

    def _bytes(self, character: str) -> list[int]:
        return [len(self.known) + byte for byte in character.encode()]

    def tokens(self, texts: Iterable[str]) -> Tokens:
        """All texts as ids in memory, each with its end mark."""
        ids = [i for text in texts for i in (*self.encode(text), self.end)]
        return Tokens(np.array(ids, dtype=np.uint16), self.token_bytes)
