"""A model of any design: embed, pass through the blocks, predict."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mslearn.attention import Cache, rotary_table
from mslearn.blocks import ACTIVATIONS, Block, Design, may_look, new_norm
from mslearn.init import kaiming_uniform_
from mslearn.transformer import check_context, looked_up


class MaskedHead(nn.Module):
    """BERT's head: one more layer, bent and normed, then a product with every word and a bias."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(design.d_model, design.d_model), new_norm(design)
        self.bend = ACTIVATIONS[design.activation]
        self.words = nn.Linear(design.d_model, design.vocab_size)

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
        return self.words(self.norm(self.bend(self.dense(x))))


class Model(nn.Module):
    """Decoder, encoder or prefix model, as its `Design` says; `model(tokens)` gives logits.

    Without a head it gives the last stream instead.
    """

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.config = self.design = design
        self.embedding = nn.Embedding(design.vocab_size, design.d_model)
        if design.positions == "learned":
            self.position = nn.Embedding(design.context, design.d_model)
        if design.n_types:
            self.segment = nn.Embedding(design.n_types, design.d_model)
        self.embed_norm = new_norm(design) if design.embed_norm else nn.Identity()
        self.blocks = nn.ModuleList(Block(design) for _ in range(design.n_layers))
        self.final_norm = new_norm(design) if design.final_norm else nn.Identity()
        self.head = self._new_head()
        self.initialize()

    def _new_head(self) -> nn.Module:
        design = self.design
        if design.head == "none":
            return nn.Identity()
        if design.head == "masked":
            head = MaskedHead(design)
            words = head.words
        else:
            head = words = nn.Linear(design.d_model, design.vocab_size, bias=False)
        if design.tied:
            words.weight = self.embedding.weight
        return head

    def initialize(self) -> None:
        """Matrices keep the variance of what comes in; embeddings and words 0.02, as in GPT-2."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                kaiming_uniform_(module.weight, "linear")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():  # last, for a tied matrix is an embedding
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def features(
        self,
        tokens: Int[Tensor, "batch time"],
        cache: Cache | None = None,
        *,
        types: Int[Tensor, "batch time"] | None = None,
        lengths: Int[Tensor, " batch"] | None = None,
        prefix: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch time d_model"]:
        """The last stream of each position: what heads are put on.

        `types` says which of several segments a token belongs to, `lengths` how many tokens of each
        text are no padding, `prefix` how many are seen whole. With a `cache`, `tokens` follow what
        it holds. Raises ValueError past the context and for ids out of range.
        """
        start = cache.length if cache else 0
        stop = start + tokens.shape[1]
        check_context(stop, self.design.context)
        x = self.embed_norm(self._embed(tokens, types, start))
        table, look = self._table(start, stop, x), self._look(start, stop, prefix, lengths, x)
        for layer, block in enumerate(self.blocks):
            x = block(x, table, look, cache, layer)
        if cache:
            cache.length = stop
        return self.final_norm(x)

    def forward(
        self, tokens: Int[Tensor, "batch time"], cache: Cache | None = None, **more: Tensor | None
    ) -> Float[Tensor, "batch time vocab"]:
        return self.head(self.features(tokens, cache, **more))

    def loss(
        self, tokens: Int[Tensor, "batch time"], targets: Int[Tensor, "batch time"]
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy of the targets, in nats; a target of -100 counts for nothing."""
        return F.cross_entropy(self(tokens).flatten(0, 1).float(), targets.flatten())

    def _embed(self, tokens: Tensor, types: Tensor | None, start: int) -> Tensor:
        x = looked_up(self.embedding, tokens, "token ids", "use the tokeniser of this model")
        if self.design.n_types:
            types = torch.zeros_like(tokens) if types is None else types
            x = x + looked_up(self.segment, types, "types", "number the segments from 0")
        if self.design.positions == "learned":
            x = x + self.position.weight[start : start + tokens.shape[1]]
        return x

    def _table(self, start: int, stop: int, x: Tensor) -> Tensor | None:
        if not self.design.rotary:
            return None
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        table = rotary_table(self.design.head_width, stop, self.design.base, dtype)
        return table[:, start:].to(x.device)

    def _look(
        self, start: int, stop: int, prefix: Tensor | None, lengths: Tensor | None, x: Tensor
    ) -> dict:
        """The mask, as arguments of PyTorch's attention."""
        kind, time = self.design.mask, stop - start
        if start and kind != "none":  # all that is cached may be seen
            allowed = torch.ones(time, stop, dtype=torch.bool, device=x.device).tril(start)
            return {} if time == 1 else {"attn_mask": allowed}
        if kind == "causal" and lengths is None:
            return {"is_causal": True}
        allowed = may_look(kind, time, prefix, lengths)
        # one mask for all heads
        return {} if allowed is None else {"attn_mask": allowed[:, None].to(x.device)}

    def new_cache(self, batch: int = 1) -> Cache:
        """An empty cache for `batch` sequences of the full context."""
        c = self.design
        sizes = (c.n_layers, batch, c.n_kv_heads, c.context, c.head_width)
        return Cache(*sizes, self.embedding.weight)

    def n_params(self) -> int:
        """Numbers that are learned; a tied matrix counts once."""
        return sum(p.numel() for p in self.parameters())
