"""The transformer: embed, mix, think, predict. Sizes in `Config`, everything else below."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn

from mslearn.attention import Attention, Cache, rotary_table
from mslearn.crew import texts_apart
from mslearn.fused import linear_cross_entropy, normalize, squared_relu
from mslearn.init import kaiming_uniform_, residual_outputs_


@dataclass(frozen=True)
class Config:
    """Sizes of a model: `context` in tokens, `d_model` in numbers per position."""

    vocab_size: int
    context: int = 256
    n_layers: int = 6
    n_heads: int = 6
    d_model: int = 192
    mlp_ratio: int = 4
    causal: bool = True

    def __post_init__(self) -> None:
        sizes = (self.vocab_size, self.context, self.n_layers, self.n_heads, self.d_model)
        if min(*sizes, self.mlp_ratio) < 1:
            raise ValueError(f"every size of a model must be at least 1, got {self}")
        if self.d_model % self.n_heads:
            raise ValueError(
                f"d_model must be a multiple of n_heads, got {self.d_model} and {self.n_heads}"
            )


@texts_apart
class FeedForward(nn.Module):
    """Widen, keep the positive part squared, narrow (ReLU²: So et al. 2021, Primer)."""

    def __init__(self, d_model: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(d_model, hidden, bias=False)
        self.down = nn.Linear(hidden, d_model, bias=False)

    def forward(self, x: Float[Tensor, "batch time d_model"]) -> Tensor:
        return self.down(squared_relu(self.up(x)))


@texts_apart
class Block(nn.Module):
    """Attention mixes positions, the feed-forward layer works on each; both add to the stream."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention = Attention(config.d_model, config.n_heads, config.causal)
        self.feed_forward = FeedForward(config.d_model, config.mlp_ratio * config.d_model)

    def forward(self, x: Tensor, table: Tensor, cache: Cache | None, layer: int) -> Tensor:
        x = x + self.attention(normalize(x), table, cache, layer)
        return x + self.feed_forward(normalize(x))


@texts_apart
class Transformer(nn.Module):
    """A decoder-only language model; `model(tokens)` gives the logits of each next token."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        table = rotary_table(config.d_model // config.n_heads, config.context)
        self.register_buffer("table", table, persistent=False)
        self.initialize()

    def initialize(self) -> None:
        """Every block starts as the identity: what it would add to the stream is zero."""
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.001)  # nearly uniform: the first loss is ln V
        for block in self.blocks:
            for layer in (block.attention.qkv, block.feed_forward.up):
                kaiming_uniform_(layer.weight, "linear")
            residual_outputs_([block.attention.out.weight, block.feed_forward.down.weight], "zero")

    def features(
        self, tokens: Int[Tensor, "batch time"], cache: Cache | None = None
    ) -> Float[Tensor, "batch time d_model"]:
        """The last hidden state of each position, normalised: what heads are put on.

        With a `cache`, `tokens` follow what it holds. Raises ValueError past the context and, on a
        CPU, for an id outside the vocabulary; a GPU would have to wait to say so.
        """
        start = cache.length if cache else 0
        stop = start + tokens.shape[1]
        check_context(stop, self.config.context)
        mend = "use the tokeniser the model was made for"
        x = normalize(looked_up(self.embedding, tokens, "token ids", mend))
        for layer, block in enumerate(self.blocks):
            x = block(x, self.table[:, start:stop], cache, layer)
        if cache:
            cache.length = stop
        return normalize(x)

    def forward(
        self, tokens: Int[Tensor, "batch time"], cache: Cache | None = None
    ) -> Float[Tensor, "batch time vocab"]:
        return self.head(self.features(tokens, cache))

    def loss(
        self, tokens: Int[Tensor, "batch time"], targets: Int[Tensor, "batch time"]
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy of the targets, in nats; as from `forward`, but faster."""
        x = self.features(tokens).flatten(0, 1)  # (B·T, d_model)
        return linear_cross_entropy(x, self.head.weight, targets.flatten())

    def new_cache(self, batch: int = 1) -> Cache:
        """An empty cache for `batch` sequences of the full context."""
        c = self.config
        width = c.d_model // c.n_heads
        return Cache(c.n_layers, batch, c.n_heads, c.context, width, self.embedding.weight)

    def n_params(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def flops_per_token(self) -> int:
        """Training FLOPs for one token: 6 per matrix weight, 12 layers·width·context attention.

        Source: Chowdhery et al. 2022, PaLM, appendix B, halved attention not assumed.
        """
        matrices = sum(p.numel() for p in self.blocks.parameters()) + self.head.weight.numel()
        c = self.config
        return 6 * matrices + 12 * c.n_layers * c.d_model * c.context


def check_context(length: int, context: int) -> None:
    """Raise ValueError for a text that the model cannot read to its end."""
    if length > context:
        raise ValueError(
            f"the model reads at most {context} tokens, got {length}; shorten the text or build "
            "the model with a longer context"
        )


def looked_up(
    table: nn.Embedding, ids: Int[Tensor, "batch time"], what: str, mend: str
) -> Float[Tensor, "batch time width"]:
    """The rows of `ids`. Raises ValueError, on a CPU, for one that the table does not have."""
    try:
        return table(ids)
    except IndexError as error:
        raise ValueError(
            f"{what} must be 0 to {table.num_embeddings - 1}, got {int(ids.min())} to "
            f"{int(ids.max())}; {mend}"
        ) from error
