"""How language models are trained, from the formula to the running model.

Read the package top to bottom in the order below: a file imports only from files above it.
"""

import os

# Must be set before torch loads its OpenMP: threads that spin while they wait cut the speed of a
# busy two-core machine to a quarter; threads that sleep do not.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("KMP_BLOCKTIME", "0")

ORDER = (
    "home",
    "check",
    "plot",
    "explore",
    "device",
    "index",
    "fetch",
    "documents",
    "sources",
    "hubsets",
    "hub",
    "data",
    "merges",
    "bpe",
    "losses",
    "metrics",
    "norms",
    "optim",
    "schedules",
    "fused",
    "attention",
    "transformer",
    "batches",
    "checkpoint",
    "run",
    "picture",
    "panel",
    "kernel",
    "live",
    "generate",
    "labelled",
    "tasks",
    "store",
    "label_curve",
    "ways",
    "normalizers",
    "recipes",
    "band",
    "experiments",
    "browser",
    "baseline",
    "bench_train",
    "bench_learn",
    "bench_generate",
    "bench_live",
    "bench",
    "grade",
    "build",
    "ledger",
    "doctor",
    "__main__",
)
