"""Named recipes: `mslearn train base` makes the checkpoint that later chapters start from."""

import argparse
import dataclasses
import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from mslearn import data
from mslearn.batches import Batches, Corpus, HeldOut, Tokens
from mslearn.bpe import BPE
from mslearn.checkpoint import Checkpoints, save_model
from mslearn.device import Device, pick
from mslearn.home import course, home
from mslearn.masking import MaskedBatches, MaskedHeldOut, Masking, masked_loss, with_mask
from mslearn.optim import muon_and_adamw
from mslearn.run import Record, Run, next_token_loss
from mslearn.schedules import warmup_stable_decay
from mslearn.transformer import Config, Transformer


@dataclass(frozen=True)
class Recipe:
    """All that decides a pre-training run: sizes, length in steps, rates, seed."""

    steps: int
    vocab_size: int = 4096
    context: int = 256
    n_layers: int = 6
    n_heads: int = 6
    d_model: int = 192
    batch_size: int = 16
    lr: float = 0.03
    adam_lr: float = 0.006
    weight_decay: float = 0.05
    warmup: int = 110
    decay: float = 0.6
    seed: int = 0

    def model(self) -> Transformer:
        """The network at its first step; the same for the same seed."""
        torch.manual_seed(self.seed)
        sizes = (self.context, self.n_layers, self.n_heads, self.d_model)
        return Transformer(Config(self.vocab_size, *sizes))

    loss = staticmethod(next_token_loss)

    def tokenizer(self, tokenizer: BPE) -> BPE:
        """The tokeniser that belongs to the model, from that of the texts."""
        return tokenizer

    def batches(self, tokens: Tokens) -> Batches | MaskedBatches:
        """What the run trains on."""
        return Batches(tokens, self.context, self.batch_size, self.seed)

    def held_out(
        self, tokens: Tokens, max_tokens: int | None = None
    ) -> Callable[[Transformer, Device], dict[str, float]]:
        """What scores the model on text it does not train on."""
        return HeldOut(tokens, self.context, max_tokens=max_tokens)


@dataclass(frozen=True)
class Masked(Recipe):
    """The same text and sizes for an encoder: it sees both sides and fills blanks."""

    rate: float = 0.3

    def model(self) -> Transformer:
        """The network at its first step, with one more token, the mask."""
        torch.manual_seed(self.seed)
        sizes = (self.context, self.n_layers, self.n_heads, self.d_model)
        return Transformer(Config(self.vocab_size + 1, *sizes, causal=False))

    loss = staticmethod(masked_loss)

    def tokenizer(self, tokenizer: BPE) -> BPE:
        return with_mask(tokenizer)

    def masking(self) -> Masking:
        """What is hidden; the mask follows the tokeniser's own ids."""
        return Masking(self.vocab_size, self.rate)

    def batches(self, tokens: Tokens) -> MaskedBatches:
        return MaskedBatches(super().batches(tokens), self.masking())

    def held_out(self, tokens: Tokens, max_tokens: int | None = None) -> MaskedHeldOut:
        few = max_tokens and max_tokens // 4  # the head is asked at few places, the rest costs all
        return MaskedHeldOut(tokens, self.context, self.masking(), max_tokens=few)


RECIPES = {"base": Recipe(steps=4200), "masked": Masked(steps=950, decay=0.45)}


def train(
    name: str, recipe: Recipe, out: Path, device: Device | None = None, save_every: int = 250
) -> Path:
    """Pre-train on all English text of the registry and leave the finished model in `out`.

    A run that was stopped goes on from its last checkpoint. The folder holds weights in
    bfloat16, sizes, tokeniser, `log.jsonl` (one line a step) and a manifest with the recipe, the
    texts' hashes, versions, device, seconds of training over all its parts, and scores on the whole
    of each held-out split. The test split is read once, at the end.
    """
    device = device or pick()
    corpus, hashes = english_corpus(recipe.vocab_size)
    run = make_run(name, recipe, corpus, device, save_every)
    if run.resume():
        print(f"going on from step {run.step:,}")
    print(f"{device}\n{run.model.n_params():,} parameters, {len(corpus.train):,} training tokens")
    for record in tqdm(run.train(recipe.steps), total=recipe.steps, initial=run.step, unit="step"):
        if record.step % 100 == 0 or record.held_out:
            tqdm.write(str(record))
    run.save()
    about = {
        "recipe": dataclasses.asdict(recipe),
        "texts": hashes,
        "tokens": {"train": len(corpus.train), "seen": recipe.steps * run.batches.tokens_per_step},
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "device": str(device),
        "seconds": round(sum(run.batches.tokens_per_step / r.tokens_per_s for r in run.log)),
        "valid": recipe.held_out(corpus.valid)(run.model.eval(), device),
        "test": recipe.held_out(corpus.test)(run.model, device),
    }
    tokenizer = recipe.tokenizer(corpus.tokenizer)
    save_model(out, run.model, tokenizer, about, extra={"log.jsonl": log_lines(run.log)})
    return out


def make_run(name: str, recipe: Recipe, corpus: Corpus, device: Device, save_every: int) -> Run:
    """The run of a recipe, its checkpoints in the learner's folder."""
    model = recipe.model()
    optimizer = muon_and_adamw(
        model, recipe.lr, recipe.adam_lr, recipe.weight_decay, device.amp_dtype
    )
    warmup = min(recipe.warmup, recipe.steps // 2)
    return Run(
        model,
        recipe.batches(corpus.train),
        optimizer,
        schedule=warmup_stable_decay(recipe.lr, warmup, recipe.steps, recipe.decay),
        loss=recipe.loss,
        device=device,
        evaluate=recipe.held_out(corpus.valid, max_tokens=64_000),
        evaluate_every=max(1, recipe.steps // 24),
        checkpoints=Checkpoints(home() / "runs" / name),
        save_every=save_every,
    )


def english_corpus(vocab_size: int) -> tuple[Corpus, dict[str, str]]:
    """All English text as tokens, and the SHA-256 of each archive it came from.

    The tokeniser is trained on the training split alone and kept beside the tokens.
    """
    texts = data.english()
    key = hashlib.sha256("\0".join(texts["train"]).encode()).hexdigest()[:16]
    path = home() / "tokens" / f"english-{vocab_size}-{key}.json"
    if path.exists():
        tokenizer = BPE.load(path)
    else:
        tokenizer = BPE.train(texts["train"], vocab_size)
        path.parent.mkdir(parents=True, exist_ok=True)
        tokenizer.save(path)
    hashes = {name: data.load(name).sha256 for name in data.english_sets()}
    return Corpus.build("english", texts, tokenizer), hashes


def log_lines(log: list[Record]) -> str:
    """One JSON object a line: step, loss, rate, gradient norm and, where measured, the scores."""
    rows = []
    for r in log:
        row = {"step": r.step, "loss": round(r.loss, 4), "lr": round(r.lr, 7)}
        row |= {"grad_norm": round(r.grad_norm, 4)}
        rows.append(json.dumps(row | ({"held_out": r.held_out} if r.held_out else {})))
    return "\n".join(rows) + "\n"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `mslearn train`."""
    parser.add_argument("recipe", choices=sorted(RECIPES))
    parser.add_argument("--steps", type=int, help="another length, for a try")
    parser.add_argument("--threads", type=int, help="CPU threads; all cores unless given")
    parser.add_argument("--out", type=Path, help="folder of the result (default checkpoints/NAME)")


def command(arguments: argparse.Namespace) -> int:
    """Train the named recipe."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    recipe = RECIPES[arguments.recipe]
    name = arguments.recipe
    if arguments.steps:
        recipe = dataclasses.replace(recipe, steps=arguments.steps)
        name = f"{name}-{arguments.steps}"
    out = train(name, recipe, arguments.out or course() / "checkpoints" / name)
    print(f"the model is in {out}")
    return 0
