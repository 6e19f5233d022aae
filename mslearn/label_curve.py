"""The experiment `labels`: score against number of labels, pre-trained and not, and baselines."""

from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from mslearn.bpe import BPE
from mslearn.checkpoint import WEIGHTS, load_model, verify
from mslearn.device import Device
from mslearn.home import course
from mslearn.labelled import TASKS, Task, TextBatches, Texts, bag_of_words, load_task, majority
from mslearn.run import Run
from mslearn.schedules import warmup_stable_decay
from mslearn.store import Store
from mslearn.tasks import Classifier, Scores, classification_loss, fine_tuner, score
from mslearn.transformer import Transformer

CONTEXT = 64  # tokens read of each text by a network; a bag of words reads it all
PLAN = {"100": (40, 16), "400": (80, 16), "1600": (120, 16), "all": (264, 32)}
"""Steps and texts a batch, by number of labels: with all of them about one pass."""
NETWORKS, WORDS = ("pretrained", "scratch"), ("naive bayes", "regression", "majority")
RATES = (0.005, 0.01, 0.02, 0.04)
SEARCHED_AT = "400"


@dataclass
class Start:
    """What the networks of the experiment start from: the base checkpoint, read once."""

    folder: Path

    @cached_property
    def hashes(self) -> dict[str, str]:
        """The first eight bytes of the SHA-256 of its weights and of its tokeniser."""
        files = verify(self.folder)["files"]
        return {
            "base": files[WEIGHTS]["sha256"][:16],
            "tokenizer": files["tokenizer.json"]["sha256"][:16],
        }

    @cached_property
    def _loaded(self) -> tuple[Transformer, BPE, dict]:
        return load_model(self.folder)

    @property
    def tokenizer(self) -> BPE:
        return self._loaded[1]

    def body(self, pretrained: bool, seed: int) -> Transformer:
        """The checkpoint's network, or one of the same sizes with fresh weights."""
        model = self._loaded[0]
        if pretrained:
            return deepcopy(model)
        torch.manual_seed(seed)
        return Transformer(model.config)


def choose(task: Task, labels: str, seed: int) -> Texts:
    """The training texts of a cell: the first `labels` of an order drawn from the seed, or all."""
    return task.train.take(len(task.train) if labels == "all" else int(labels), seed)


def make_run(
    start: Start, task: Task, method: str, labels: str, seed: int, lr: float, device: Device
) -> Run:
    """The run of one cell, to be trained for `PLAN[labels]` steps and batches."""
    steps, batch_size = PLAN[labels]
    body = start.body(method == "pretrained", seed)
    model = Classifier(body, len(task.train.classes))
    texts = choose(task, labels, seed).encode(start.tokenizer, CONTEXT)
    return Run(
        model,
        TextBatches(texts, batch_size, seed),
        fine_tuner(model, lr, dtype=device.amp_dtype),
        schedule=warmup_stable_decay(lr, steps // 10, steps, 0.6),
        loss=classification_loss,
        device=device,
    )


def network(
    start: Start, task: Task, held_out: Texts, cell: tuple[str, str, int], lr: float, device: Device
) -> dict[str, float]:
    """Train the network of a cell (method, labels, seed) and score it on `held_out`."""
    method, labels, seed = cell
    run = make_run(start, task, method, labels, seed, lr, device)
    for _ in run.train(PLAN[labels][0]):
        pass
    run.model.eval()
    return rounded(Scores(held_out.encode(start.tokenizer, CONTEXT))(run.model, device))


def words(task: Task, method: str, labels: str, seed: int) -> dict[str, float]:
    """Fit the baseline of a cell, its settings chosen on the validation texts; score on test."""
    train = choose(task, labels, seed)
    if method == "majority":
        predicted = majority(train, task.test)
    else:
        predicted = bag_of_words(method, train, task.valid).predict(task.test.texts)
    return rounded(score(predicted, task.test.labels, len(task.test.classes)))


def experiment(store: Store, base: Path | None = None) -> None:
    """Search the rates on validation texts, then score every cell on the test texts once."""
    start = Start(base or course() / "checkpoints" / "base")
    for name in TASKS:
        task = load_task(name)
        for method in NETWORKS:
            _search(store, start, task, method)
            for labels in PLAN:
                _networks(store, start, task, method, labels)
        for method in WORDS:
            for labels in PLAN:
                _words(store, task, method, labels)


def _search(store: Store, start: Start, task: Task, method: str) -> None:
    """The same rates for both ways to start, seed 0, scored on the validation texts."""
    for lr in RATES:
        cell = (method, SEARCHED_AT, 0)
        store.cell(
            f"search/{task.name}/{method}/{lr}",
            {"lr": lr, **settings_of(start, task, method, SEARCHED_AT)},
            lambda lr=lr, cell=cell: network(start, task, task.valid, cell, lr, store.device),
        )


def best_rate(cells: dict[str, dict], task: str, method: str) -> float:
    """The rate of the search with the best accuracy on validation texts."""
    prefix = f"search/{task}/{method}/"
    found = {c["settings"]["lr"]: c["accuracy"] for n, c in cells.items() if n.startswith(prefix)}
    if not found:
        raise ValueError(f"no rate was searched for {task}, {method}: run --only '{prefix}*' first")
    return max(found, key=lambda lr: found[lr])


def _networks(store: Store, start: Start, task: Task, method: str, labels: str) -> None:
    for seed in store.seeds:
        name = f"{task.name}/{labels}/{method}/{seed}"
        if not store.wants(name):
            continue
        lr, cell = best_rate(store.cells(), task.name, method), (method, labels, seed)
        store.cell(
            name,
            {"lr": lr, **settings_of(start, task, method, labels)},
            lambda cell=cell, lr=lr: network(start, task, task.test, cell, lr, store.device),
        )


def _words(store: Store, task: Task, method: str, labels: str) -> None:
    for seed in store.seeds:
        cell = (task, method, labels, seed)
        settings = {"texts": task.source.sha256[:16]}
        store.cell(
            f"{task.name}/{labels}/{method}/{seed}", settings, lambda cell=cell: words(*cell)
        )


def settings_of(start: Start, task: Task, method: str, labels: str) -> dict:
    """What else decides a network's cell: recipe, texts, tokeniser, and weights to start from."""
    settings = {"plan": PLAN[labels], "texts": task.source.sha256[:16], **start.hashes}
    if method == "scratch":
        del settings["base"]
    return settings


def rounded(scores: dict[str, float]) -> dict[str, float]:
    """Scores to four places: more would pretend to a precision that no test set has."""
    return {name: round(value, 4) for name, value in scores.items()}
