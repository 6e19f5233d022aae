"""Checkpoints that survive a kill, a full disk and a flipped bit; and finished models on disk."""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mslearn.bpe import BPE
from mslearn.transformer import Config, Transformer

WEIGHTS, STATE, MANIFEST, SEAL = "model.safetensors", "state.pt", "manifest.json", "manifest.sha256"


class Checkpoints:
    """Numbered checkpoints in a folder, newest `keep` kept, each whole or absent.

    A checkpoint is written under a temporary name, flushed to the disk, and renamed; older ones
    go only when the new one is safe. A manifest holds the SHA-256 of every file and a seal that
    of the manifest, because no format of weights notices a flipped bit by itself.
    """

    def __init__(self, folder: Path | str, keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"keep at least one checkpoint, got keep={keep}")
        self.folder, self.keep = Path(folder), keep

    def save(self, step: int, weights: dict[str, Tensor], state: dict, about: dict) -> Path:
        """Write the checkpoint of `step`; `state` holds tensors and plain values only."""
        final = self.folder / f"step-{step:08d}"
        write_state(final, weights, state, {"step": step, **about})
        self._prune()
        return final

    def forget(self, after: int) -> None:
        """Remove the checkpoints of later steps, which a run that went back has left."""
        for path in self.list():
            if int(path.name.removeprefix("step-")) > after:
                shutil.rmtree(path, ignore_errors=True)

    def _prune(self) -> None:
        for old in self.list()[self.keep :]:
            shutil.rmtree(old, ignore_errors=True)
        for left in self.folder.glob(".tmp-*"):  # what a killed process left behind
            shutil.rmtree(left, ignore_errors=True)

    def list(self) -> list[Path]:
        """The checkpoints there are, newest first."""
        if not self.folder.is_dir():
            return []
        found = [p for p in self.folder.iterdir() if re.fullmatch(r"step-\d{8}", p.name)]
        return sorted(found, reverse=True)

    def latest(self) -> tuple[dict[str, Tensor], dict] | None:
        """Weights and state of the newest checkpoint that is whole; None where there is none.

        A damaged one is named in a warning and passed over.
        """
        for path in self.list():
            try:
                return read_state(path)
            except (OSError, ValueError) as error:
                warnings.warn(f"{error}; this checkpoint is passed over", stacklevel=2)
        return None


def write_state(final: Path, weights: dict[str, Tensor], state: dict, about: dict) -> None:
    """Write weights and state as the folder `final`, sealed: whole or not at all."""
    partial = final.parent / f".tmp-{final.name.removeprefix('step-')}-{os.getpid()}"
    final.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        save_file({k: v.contiguous().cpu() for k, v in weights.items()}, partial / WEIGHTS)
        torch.save(state, partial / STATE)
        _seal(partial, about)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        _flush(final.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def read_state(folder: Path) -> tuple[dict[str, Tensor], dict]:
    """Weights and state of a folder of `write_state`. Raises ValueError or OSError if damaged."""
    verify(folder)
    return load_file(folder / WEIGHTS), torch.load(folder / STATE, weights_only=True)


def _seal(folder: Path, about: dict) -> None:
    """Write the manifest of every file in `folder` and its own hash beside it; flush them all."""
    files = {
        p.name: {"sha256": sha256(p), "bytes": p.stat().st_size} for p in sorted(folder.iterdir())
    }
    (folder / MANIFEST).write_text(json.dumps({**about, "files": files}, indent=1))
    (folder / SEAL).write_text(sha256(folder / MANIFEST))
    for path in (*folder.iterdir(), folder):
        _flush(path)


def verify(folder: Path) -> dict:
    """The manifest of a sealed folder whose every byte is as it was written.

    Raises ValueError that names the file which is not.
    """
    try:
        sealed = (folder / SEAL).read_bytes() == sha256(folder / MANIFEST).encode()
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename} is missing") from error
    if not sealed:
        raise ValueError(f"{folder / MANIFEST} or its seal {SEAL} is damaged")
    manifest = json.loads((folder / MANIFEST).read_text())
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.exists() or sha256(path) != expected["sha256"]:
            raise ValueError(f"{path} is missing or damaged (its SHA-256 is not the manifest's)")
    return manifest


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Have the operating system put a file, or a folder's list of names, on the disk itself."""
    if path.is_dir() and os.name == "nt":
        return  # Windows has no handle to flush a folder with
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def random_state() -> dict:
    """The state of every generator, as plain values and tensors that load without code."""
    version, numbers, gauss = random.getstate()
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002, the global one a task may use
    state = {"python": [version, list(numbers), gauss], "torch": torch.get_rng_state()}
    state["numpy"] = [kind, torch.from_numpy(keys.astype(np.int64)), *rest]
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict) -> None:
    """Put every generator back to where `random_state` saw it."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def save_model(
    folder: Path | str,
    model: Transformer,
    tokenizer: BPE,
    about: dict | None = None,
    dtype: torch.dtype = torch.bfloat16,
    extra: dict[str, str] | None = None,
) -> Path:
    """A finished model for others to start from: weights in `dtype`, sizes, tokeniser, history.

    `extra` holds further text files by name. The folder appears whole or not at all, and takes the
    place of an earlier one only then.
    """
    folder = Path(folder)
    partial, former = (folder.with_name(f".{name}-{folder.name}") for name in ("tmp", "old"))
    shutil.rmtree(partial, ignore_errors=True)  # what a killed process left behind
    if folder.exists():
        shutil.rmtree(former, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        weights = {k: v.to(dtype).contiguous().cpu() for k, v in model.state_dict().items()}
        save_file(weights, partial / WEIGHTS)
        (partial / "config.json").write_text(json.dumps(asdict(model.config), indent=1))
        tokenizer.save(partial / "tokenizer.json")
        for name, text in (extra or {}).items():
            (partial / name).write_text(text, encoding="utf-8")
        _seal(partial, about or {})
        with contextlib.suppress(FileNotFoundError):
            folder.rename(former)  # a folder cannot be replaced in one move
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        if former.exists() and not folder.exists():
            former.rename(folder)
        raise
    shutil.rmtree(former, ignore_errors=True)
    return folder


def load_model(folder: Path | str) -> tuple[Transformer, BPE, dict]:
    """Model in float32, tokeniser and manifest from a folder of `save_model`.

    Raises ValueError naming what is missing or damaged.
    """
    folder = Path(folder)
    about = verify(folder)
    model = Transformer(Config(**json.loads((folder / "config.json").read_text())))
    weights = load_file(folder / WEIGHTS)
    model.load_state_dict({name: weight.float() for name, weight in weights.items()})
    return model, BPE.load(folder / "tokenizer.json"), about
