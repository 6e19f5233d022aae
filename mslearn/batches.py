"""Text to tokens on disk, tokens to batches: the same seed and step give the same batch, always."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from mslearn.bpe import BPE
from mslearn.device import Device
from mslearn.home import home
from mslearn.losses import bits_per_byte


@dataclass(frozen=True)
class Tokens:
    """Token ids in a memory map, and the bytes of text that each id stands for."""

    ids: np.ndarray
    token_bytes: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_bytes(self) -> int:
        """Bytes of text in all; the marks between documents count none."""
        return int(self.token_bytes[self.ids].sum())


class Corpus:
    """The tokens of three splits: `train`, `valid` and `test`."""

    def __init__(self, folder: Path, tokenizer: BPE) -> None:
        if tokenizer.vocab_size > 2**16:
            raise ValueError(
                f"ids are kept in 16 bits, got a vocabulary of {tokenizer.vocab_size}; train the "
                "tokeniser with vocab_size=65536 or less"
            )
        self.folder, self.tokenizer = folder, tokenizer
        lengths = [len(tokenizer.decode_bytes([i])) for i in range(tokenizer.vocab_size)]
        lengths[tokenizer.end] = 0
        self.token_bytes = np.array(lengths)

    @classmethod
    def build(cls, name: str, texts: dict[str, list[str]], tokenizer: BPE) -> "Corpus":
        """Encode every split once and keep it in the learner's folder, keyed by its content.

        Each document ends with the tokenizer's end mark. A second call with the same texts and
        tokenizer maps the files that are there; one that is damaged is written anew.
        """
        key = hashlib.sha256()
        key.update(json.dumps(tokenizer.merges).encode())
        for split in sorted(texts):
            for text in (split, *texts[split]):
                key.update(text.encode() + b"\0")
        corpus = cls(home() / "tokens" / f"{name}-{key.hexdigest()[:16]}", tokenizer)
        for split, documents in texts.items():
            if not corpus._is_whole(split):
                corpus._write(split, documents)
        return corpus

    def _is_whole(self, split: str) -> bool:
        """Whether the ids on the disk are those that were written, by the hash beside them."""
        path = self.folder / f"{split}.bin"
        try:
            return path.with_suffix(".sha256").read_text() == _sha256(path)
        except OSError:
            return False

    def _write(self, split: str, documents: Iterable[str]) -> None:
        """Under another name first, so that a half-written file is never taken for a whole one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{split}.bin.{os.getpid()}.part"
        try:
            with part.open("wb") as file:
                for document in documents:
                    ids = [*self.tokenizer.encode(document), self.tokenizer.end]
                    file.write(np.array(ids, dtype=np.uint16).tobytes())
            digest = _sha256(part)
            part.replace(self.folder / f"{split}.bin")
        finally:
            part.unlink(missing_ok=True)
        (self.folder / f"{split}.sha256").write_text(digest)

    def __getattr__(self, split: str) -> Tokens:
        path = self.__dict__["folder"] / f"{split}.bin"
        if split not in ("train", "valid", "test") or not path.exists():
            raise AttributeError(f"a corpus has train, valid and test where built, not {split!r}")
        return Tokens(np.memmap(path, dtype=np.uint16, mode="r"), self.token_bytes)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Batches:
    """`batches(step)` gives inputs and targets (batch, time): targets are inputs one token later.

    The text is cut into windows of `context` tokens; in each pass every window is read once, in
    an order shuffled by (seed, pass), and the cuts move by a random offset so that no token is
    always the first of its window. Nothing is stored between steps: to resume at a step is to
    ask for it.
    """

    def __init__(self, tokens: Tokens, context: int, batch_size: int, seed: int = 0) -> None:
        self.tokens, self.context, self.batch_size, self.seed = tokens, context, batch_size, seed
        self.n_windows = (len(tokens) - context - 1) // context
        if self.n_windows < batch_size:
            raise ValueError(
                f"{len(tokens)} tokens hold {max(0, self.n_windows)} windows of {context}, fewer "
                f"than one batch of {batch_size}; take more text, a shorter context or a smaller "
                "batch"
            )
        self.steps_per_pass = self.n_windows // batch_size
        self._order: tuple[int, np.ndarray, int] = (-1, np.empty(0), 0)

    def __call__(self, step: int) -> tuple[Int[Tensor, "batch time"], Int[Tensor, "batch time"]]:
        pass_number, position = divmod(step, self.steps_per_pass)
        if self._order[0] != pass_number:
            generator = np.random.default_rng([self.seed, pass_number])
            offset = int(generator.integers(self.context))
            self._order = (pass_number, generator.permutation(self.n_windows), offset)
        _, order, offset = self._order
        chosen = order[position * self.batch_size : (position + 1) * self.batch_size]
        starts = chosen * self.context + offset
        windows = self.tokens.ids[starts[:, None] + np.arange(self.context + 1)]
        pairs = torch.from_numpy(windows.astype(np.int64))
        return pairs[:, :-1], pairs[:, 1:]

    @property
    def tokens_per_step(self) -> int:
        return self.batch_size * self.context


class HeldOut:
    """Bits per byte of a model on tokens it does not train on: `held_out(model, device)`.

    Windows follow one another, each token but the first is predicted once, with up to `context`
    tokens before it; a rest shorter than a window is left out, its bytes too. `max_tokens` measures
    on the beginning only. Comparable between tokenisers, because the text's bytes are counted and
    not its tokens.
    """

    def __init__(
        self, tokens: Tokens, context: int, batch_size: int = 16, max_tokens: int | None = None
    ) -> None:
        count = min(len(tokens) - 1, max_tokens or len(tokens)) // context
        if count < 1:
            raise ValueError(
                f"held-out text of {len(tokens)} tokens is shorter than one window of {context}"
            )
        windows = tokens.ids[np.arange(count)[:, None] * context + np.arange(context + 1)]
        pairs = torch.from_numpy(windows.astype(np.int64))
        self.batches = [(p[:, :-1], p[:, 1:]) for p in pairs.split(batch_size)]
        self.n_bytes = int(tokens.token_bytes[windows[:, 1:]].sum())

    @torch.no_grad()
    def __call__(self, model: torch.nn.Module, device: Device) -> dict[str, float]:
        total = torch.zeros((), dtype=torch.float64)
        for inputs, targets in self.batches:
            with device.autocast():
                logits = model(device.to(inputs))
            nats = F.cross_entropy(
                logits.float().flatten(0, 1), device.to(targets).flatten(), reduction="sum"
            )
            total += nats.double().cpu()
        return {"bits_per_byte": bits_per_byte(float(total), self.n_bytes)}
