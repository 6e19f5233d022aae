"""Text classification on the decoder: pooling and head, rates by layer, LoRA, loss and scores."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mslearn.crew import mean_over_targets, texts_apart
from mslearn.device import Device
from mslearn.labelled import Encoded
from mslearn.metrics import accuracy, macro_f1
from mslearn.optim import Muon
from mslearn.transformer import Transformer


@texts_apart
class Classifier(nn.Module):
    """The mean of a text's features, then one linear layer: `classifier(tokens, lengths)`.

    The head starts at zero, so that the first loss is the logarithm of the number of classes.
    """

    def __init__(self, body: Transformer, n_classes: int) -> None:
        super().__init__()
        if n_classes < 2:
            raise ValueError(f"a classifier needs two classes or more, got {n_classes}")
        self.body = body
        self.head = nn.Linear(body.config.d_model, n_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def pool(
        self, tokens: Int[Tensor, "batch time"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch d_model"]:
        """Mean over each text's own positions; what fills up the batch weighs nothing."""
        own = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]  # (B, T)
        weights = own / lengths[:, None]
        return torch.einsum("bt,btc->bc", weights, self.body.features(tokens).float())

    def forward(
        self, tokens: Int[Tensor, "batch time"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch classes"]:
        return self.head(self.pool(tokens, lengths))

    def groups(self, lr: float, decay: float = 1.0) -> list[dict]:
        """Parameters that train, with their rates: the head at `lr`, each layer below at `decay`
        times the rate of the one above, the embedding last. The head of words is left out.
        """
        layers = [self.head, *reversed(self.body.blocks), self.body.embedding]
        groups = [
            {"params": [p for p in layer.parameters() if p.requires_grad], "lr": lr * decay**depth}
            for depth, layer in enumerate(layers)
        ]
        return [group for group in groups if group["params"]]


def fine_tuner(
    model: Classifier, lr: float, decay: float = 1.0, dtype: torch.dtype | None = None
) -> Muon:
    """Muon on the matrices of the blocks, AdamW at 0.3 of its rate on head and embedding.

    `decay` as in `Classifier.groups`: the top block has the rate `lr`, each below it less.
    """
    depth = len(model.body.blocks)
    groups = [
        {
            "params": list(block.parameters()),
            "lr": lr * decay**level,
            "muon": True,
            "name": f"block {depth - 1 - level}",
        }
        for level, block in enumerate(reversed(model.body.blocks))
    ]
    groups.append({"params": list(model.head.parameters()), "lr": 0.3 * lr, "name": "head"})
    embedding = list(model.body.embedding.parameters())
    groups.append({"params": embedding, "lr": 0.3 * lr * decay**depth, "name": "embedding"})
    return Muon(groups, lr=lr, dtype=dtype)


@texts_apart
class LoRA(nn.Module):
    """A frozen linear layer plus a trainable update of low rank: Wx + (scale/rank)·B(Ax).

    B starts at zero, so that nothing changes at first. Source: Hu et al. 2021, section 4.1.
    """

    def __init__(self, linear: nn.Linear, rank: int, scale: float = 16.0) -> None:
        super().__init__()
        if not 1 <= rank <= min(linear.weight.shape):
            raise ValueError(f"rank must lie in 1 to {min(linear.weight.shape)}, got {rank}")
        self.linear, self.scale = linear.requires_grad_(False), scale / rank
        self.down = nn.Linear(linear.in_features, rank, bias=False)
        self.up = nn.Linear(rank, linear.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Float[Tensor, "... inputs"]) -> Float[Tensor, "... outputs"]:
        return self.linear(x) + self.scale * self.up(self.down(x))

    def merged(self) -> Float[Tensor, "outputs inputs"]:
        """The one matrix that does the same, for use after training at no extra cost."""
        return self.linear.weight + self.scale * self.up.weight @ self.down.weight


def add_lora(body: Transformer, rank: int, scale: float = 16.0) -> None:
    """Freeze `body` and give every linear layer of its blocks an update of `rank`, in place."""
    body.requires_grad_(False)
    for block in body.blocks:
        for part in (block.attention, block.feed_forward):
            for name, linear in list(part.named_children()):
                setattr(part, name, LoRA(linear, rank, scale))


@mean_over_targets
def classification_loss(model: Classifier, batch: tuple[Tensor, ...]) -> Tensor:
    """Mean cross-entropy of the right classes, in nats."""
    tokens, lengths, labels = batch
    return F.cross_entropy(model(tokens, lengths).float(), labels)


@torch.no_grad()
def predict(model: Classifier, encoded: Encoded, device: Device) -> Float[np.ndarray, "n classes"]:
    """Logits of every text, in the order of the texts."""
    order = np.argsort([len(ids) for ids in encoded.ids], kind="stable")
    logits = np.empty((len(order), encoded.n_classes), dtype=np.float32)
    for chosen in np.array_split(order, -(-len(order) // 64)):
        tokens, lengths, _ = (device.to(tensor) for tensor in encoded.batch(chosen))
        with device.autocast():
            logits[chosen] = model(tokens, lengths).float().cpu().numpy()
    return logits


@dataclass(frozen=True)
class Scores:
    """Accuracy and macro-F1 on held-out texts: `scores(model, device)`, for a `Run`."""

    encoded: Encoded

    def __call__(self, model: Classifier, device: Device) -> dict[str, float]:
        predicted = predict(model, self.encoded, device).argmax(1)
        return score(predicted, self.encoded.labels, self.encoded.n_classes)


def score(predicted: np.ndarray, true: np.ndarray, n_classes: int) -> dict[str, float]:
    """Accuracy and macro-F1, a class that is never met counting 0."""
    return {
        "accuracy": accuracy(predicted, true),
        "macro_f1": macro_f1(predicted, true, n_classes),
    }
