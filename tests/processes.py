"""Trainings that tests run in processes of their own: one to be killed, and several that train together.

python -m processes killed FOLDER
python -m processes reranking FOLDER
python -m torch.distributed.run --nproc-per-node 2 -m processes together FOLDER
python -m torch.distributed.run --nproc-per-node 2 -m processes stepwise FOLDER
python -m torch.distributed.run --nproc-per-node 2 -m processes lost FOLDER
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

import nextclick
from nextclick.errors import WorkerLostError
from nextclick.features import Dense
from nextclick.recommender import Run
from synthetic import chain

SESSIONS = chain(20, 90, noise=0.3, seed=1)
KILLED: dict[str, Any] = {
    **{"epochs": 5, "patience": 5, "decay": 0.8},
    **{"hidden": 6, "batch_size": 8, "n_samples": 5},
}
# Dropouts are drawn by each process for its own rows, so without them the result is that of one process.
TOGETHER: dict[str, tuple[str, dict[str, Any]]] = {
    "gru4rec": (
        "gru4rec",
        {
            **{"epochs": 3, "hidden": 6, "layers": 2, "batch_size": 7, "n_samples": 5, "order": "random"},
            **{"dropout_items": 0.0, "dropout_hidden": 0.0, "learning_rate": 0.1},
        },
    ),
    "gru4rec separate": (
        "gru4rec",
        {
            **{"epochs": 2, "hidden": 6, "embedding": "separate", "dim": 4, "batch_size": 1, "n_samples": 9},
            **{"loss": "cross-entropy", "activation": "linear", "logq": 1.0, "refit": True},
            **{"dropout_items": 0.0, "dropout_hidden": 0.0, "validation": 0.2},
        },
    ),
    "rrcre": (
        "rrcre",
        {
            **{"epochs": 2, "dim": 5, "batch_size": 7, "every": 9, "k": 8, "learning_rate": 0.01},
            **{"scored": True, "dropout": 0.0, "held_out": "none"},
        },
    ),
    "rrcre over gru4rec": (  # of which the first process trains a copy by itself
        "rrcre",
        {
            **{"epochs": 1, "dim": 5, "batch_size": 7, "k": 8, "learning_rate": 0.01, "dropout": 0.0},
        },
    ),
    "narm": (  # so few next clicks in a batch that some batches have one row for both processes
        "narm",
        {
            **{"epochs": 2, "dim": 5, "hidden": 6, "batch_size": 6, "learning_rate": 0.01, "smoothing": 0.1},
            **{"dropout_items": 0.0, "dropout_session": 0.0},
        },
    ),
    "sml": (
        "sml",
        {
            **{"epochs": 2, "dim": 5, "hidden": 6, "batch_size": 6, "learning_rate": 0.01, "n_negatives": 7},
            **{"negatives": "own", "sampler": "split", "positives": 3, "item_encoder": "tanh"},
            **{"dropout_items": 0.0, "dropout_session": 0.0},
        },
    ),
    "prnn": (
        "prnn",
        {
            **{"epochs": 2, "hidden": 5, "batch_size": 7, "n_samples": 5, "dropout_hidden": 0.0},
            **{"strategy": "interleaving", "architecture": "interaction"},
        },
    ),
}


def fitted(name: str, run: Run | None = None) -> nextclick.Recommender:
    model, values = TOGETHER[name]
    given = features() if model == "prnn" else None
    generators = [generator()] if name.endswith("over gru4rec") else []
    return nextclick.build(model, values, generators=generators).fit(SESSIONS, features=given, run=run)


def generator() -> nextclick.Recommender:
    """A network that every process has fitted by itself."""
    model = nextclick.GRU4Rec(epochs=1, hidden=4, n_samples=5, dropout_items=0.0, dropout_hidden=0.0)
    return model.fit(SESSIONS, run=Run(device="cpu", alone=True))


def features() -> nextclick.Features:
    vectors = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    return nextclick.Features(SESSIONS.vocabulary, {"image": Dense(vectors, np.ones(20, np.bool_))})


def killed(folder: Path) -> None:
    """Train until the third epoch has begun, and die without a chance to clean up."""

    def die(what: str, done: int, total: int) -> None:
        if what.startswith("epoch 3: loss"):
            os.kill(os.getpid(), signal.SIGKILL)

    nextclick.GRU4Rec(**KILLED).fit(SESSIONS, progress=die, run=Run(checkpoints=folder))


def reranker() -> nextclick.RRCRE:
    """A re-ranker that looks at its validation examples several times in an epoch."""
    return nextclick.RRCRE(
        nextclick.VSKNN(), epochs=2, dim=6, batch_size=16, k=8, decay=0.8, dropout=0.2, every=9
    )


def reranking(folder: Path) -> None:
    """Train a re-ranker until its third look has begun, and die."""

    def die(what: str, done: int, total: int) -> None:
        if what.startswith("re-ranking, epoch 3: loss"):
            os.kill(os.getpid(), signal.SIGKILL)

    reranker().fit(SESSIONS, progress=die, run=Run(checkpoints=folder))


def together(folder: Path) -> None:
    """Fit all of TOGETHER and save each model's arrays by this process's number."""
    for name in TOGETHER:
        run = Run(device="cpu", checkpoints=folder / f"checkpoints {name}")
        np.savez(folder / f"{name}.{os.environ['RANK']}.npz", **fitted(name, run).state())


STEPS = 200
# In batches of a size that two processes share unevenly; lanes end at different steps. No dropout, as above.
STEPWISE: dict[str, dict[str, Any]] = {
    "gru4rec": {
        **{"hidden": 8, "batch_size": 7, "n_samples": 11, "epochs": 50, "learning_rate": 0.05},
        **{"dropout_items": 0.0, "dropout_hidden": 0.0},
    },
    "narm": {
        **{"dim": 6, "hidden": 7, "batch_size": 25, "epochs": 50, "learning_rate": 0.01, "validation": 0.0},
        **{"dropout_items": 0.0, "dropout_session": 0.0},
    },
}


class Enough(Exception):
    pass


def losses(name: str) -> list[float]:
    """Train in float64 and return this process's part of the loss of each of the first STEPS steps."""
    import torch

    from nextclick.network import objectives

    kind = {"gru4rec": objectives.SampledItems, "narm": objectives.AllItems}[name]
    original, seen = kind.loss, []

    def recorded(self: Any, batch: Any) -> Any:
        if len(seen) == STEPS:
            raise Enough
        loss, pairs = original(self, batch)
        seen.append(float(loss.detach()))
        return loss, pairs

    kind.loss = recorded
    torch.set_default_dtype(torch.float64)
    try:
        nextclick.build(name, STEPWISE[name]).fit(SESSIONS, run=Run(device="cpu"))
    except Enough:
        return seen
    finally:
        kind.loss = original
        torch.set_default_dtype(torch.float32)
    raise AssertionError(f"{name} took fewer than {STEPS} steps")


def stepwise(folder: Path) -> None:
    """Save the parts of the losses by this process's number, then the models that were not interrupted."""
    parts = {name: np.array(losses(name)) for name in STEPWISE}
    np.savez(folder / f"losses.{os.environ['RANK']}.npz", **parts)
    for name in STEPWISE:
        np.savez(folder / f"{name}.{os.environ['RANK']}.npz", **fitted(name, Run(device="cpu")).state())


def lost(folder: Path, name: str = "gru4rec") -> None:
    """Fit with checkpoints; the second process dies in the second epoch."""
    model, values = TOGETHER[name]

    def die(what: str, done: int, total: int) -> None:
        if os.environ["RANK"] == "1" and what.startswith("epoch 2: loss"):
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        nextclick.build(model, values).fit(
            SESSIONS, progress=die, run=Run(device="cpu", checkpoints=folder / name)
        )
    except WorkerLostError as error:
        (folder / f"{name}.said").write_text(str(error), "utf-8")
        raise


def resumed(folder: Path, name: str = "gru4rec") -> None:
    """Go on from the checkpoints of ``lost``."""
    state = fitted(name, Run(device="cpu", checkpoints=folder / name)).state()
    np.savez(folder / f"{name}.resumed.{os.environ['RANK']}.npz", **state)


if __name__ == "__main__":
    {
        "killed": killed, "reranking": reranking, "together": together, "stepwise": stepwise, "lost": lost,
        "resumed": resumed,
    }[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])  # fmt: skip
