"""The experiment `ways`: full, layer-wise, LoRA and head-only fine-tuning on the same labels."""

from pathlib import Path

from torch.optim import Optimizer

from mslearn.device import Device
from mslearn.home import course
from mslearn.label_curve import (
    CONTEXT,
    PLAN,
    Start,
    best_rate,
    choose,
    rounded,
    settings_of,
)
from mslearn.labelled import Task, TextBatches, Texts, load_task
from mslearn.optim import AdamW
from mslearn.run import Run
from mslearn.schedules import warmup_stable_decay
from mslearn.store import Store
from mslearn.tasks import Classifier, Scores, add_lora, classification_loss, fine_tuner

LABELS, RANK, DECAY = "400", 8, 0.7
RATES = {
    "full": (0.005, 0.01, 0.02),
    "layers": (0.005, 0.01, 0.02),
    "lora": (0.001, 0.003, 0.01),
    "head": (0.003, 0.01, 0.03),
}


def prepare(way: str, model: Classifier, lr: float, device: Device) -> Optimizer:
    """Freeze what `way` leaves alone, in place, and give the optimiser of the rest.

    Muon for whole matrices as in the experiment `labels`; AdamW where no whole matrix trains.
    """
    if way == "full":
        return fine_tuner(model, lr, dtype=device.amp_dtype)
    if way == "layers":
        return fine_tuner(model, lr, decay=DECAY, dtype=device.amp_dtype)
    if way == "lora":
        add_lora(model.body, RANK)
    elif way == "head":
        model.body.requires_grad_(False)
    else:
        raise ValueError(f"no way {way!r} to fine-tune: choose one of {', '.join(RATES)}")
    return AdamW(model.groups(lr), lr=lr)


def make_run(start: Start, task: Task, way: str, seed: int, lr: float, device: Device) -> Run:
    """The run of one cell: the checkpoint, fine-tuned in one way on `LABELS` labels."""
    steps, batch_size = PLAN[LABELS]
    model = Classifier(start.body(True, seed), len(task.train.classes))
    optimizer = prepare(way, model, lr, device)
    texts = choose(task, LABELS, seed).encode(start.tokenizer, CONTEXT)
    return Run(
        model,
        TextBatches(texts, batch_size, seed),
        optimizer,
        schedule=warmup_stable_decay(lr, steps // 10, steps, 0.6),
        loss=classification_loss,
        device=device,
    )


def tune(
    start: Start, task: Task, held_out: Texts, cell: tuple[str, int], lr: float, device: Device
) -> dict[str, float]:
    """Fine-tune as a cell (way, seed) says; scores on `held_out`, and how many numbers trained."""
    run = make_run(start, task, *cell, lr, device)
    for _ in run.train(PLAN[LABELS][0]):
        pass
    run.model.eval()
    scores = rounded(Scores(held_out.encode(start.tokenizer, CONTEXT))(run.model, device))
    groups = run.optimizer.param_groups
    return {**scores, "trained": sum(p.numel() for group in groups for p in group["params"])}


def experiment(store: Store, base: Path | None = None) -> None:
    """Search each way's rate on validation texts with seed 0, then score it on the test texts."""
    start, task = Start(base or course() / "checkpoints" / "base"), load_task("topics")
    for way, rates in RATES.items():
        for lr in rates:
            _cell(store, start, task, f"search/topics/{way}/{lr}", (way, 0), lr)
        for seed in store.seeds:
            name = f"topics/{LABELS}/{way}/{seed}"
            if store.wants(name):
                lr = best_rate(store.cells(), "topics", way)
                _cell(store, start, task, name, (way, seed), lr)


def _cell(
    store: Store, start: Start, task: Task, name: str, cell: tuple[str, int], lr: float
) -> None:
    settings = {"lr": lr, **settings_of(start, task, "pretrained", LABELS)}
    held_out = task.valid if name.startswith("search/") else task.test
    store.cell(name, settings, lambda: tune(start, task, held_out, cell, lr, store.device))
