"""Training on several processes against one: results/distributed.json.

    python benchmarks/distributed.py

gru4rec (session-parallel, its negatives those of all processes) and narm (against all items) on 4,000
synthetic sessions of 1,000 items, without dropout, which each process draws for its own rows:

steps     every loss of 200 steps in float64 on one, two and three processes, at the same batch of all
          together: the largest difference from one process.
restart   two processes in float32, the second killed in the second of three epochs; started again on two
          processes from the checkpoint, and on one and on three: the largest difference of any weight from
          the training on two that was not interrupted.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import nextclick
from nextclick.errors import WorkerLostError
from nextclick.plan import logs
from nextclick.plan.costs import Counts
from nextclick.recommender import Run

STEPS = 200
MODELS: dict[str, dict[str, Any]] = {
    "gru4rec": {
        "epochs": 3, "batch_size": 50, "n_samples": 256, "hidden": 32, "dropout_items": 0.0,
        "dropout_hidden": 0.0,
    },
    "narm": {
        "epochs": 3, "batch_size": 64, "dim": 24, "hidden": 32, "validation": 0.0, "dropout_items": 0.0,
        "dropout_session": 0.0,
    },
}  # fmt: skip


class Enough(Exception):
    pass


def main() -> None:
    from data import write

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for size in (1, 2, 3):
            started("steps", work, size)
        for name in MODELS:
            parts = {size: np.load(work / f"steps.{size}.0.npz")[name] for size in (1,)}
            for size in (2, 3):
                parts[size] = sum(np.load(work / f"steps.{size}.{rank}.npz")[name] for rank in range(size))
            row: dict[str, Any] = {"model": name, "steps": STEPS}
            row |= {"first_loss": float(parts[1][0]), "last_loss": float(parts[1][-1])}
            for size in (2, 3):
                row[f"largest_difference_on_{size}"] = float(np.abs(parts[size] - parts[1]).max())
            rows.append(row)
        started("whole", work, 2)
        for row in rows:
            row |= restarted(row["model"], work)
            print(row, flush=True)
    write("distributed", {"settings": MODELS, "sessions": 4000, "items": 1000, "rows": rows})


def restarted(name: str, work: Path) -> dict[str, Any]:
    """Kill one of two, go on with two, one and three, and compare."""
    start = time.perf_counter()
    killed = started(f"lost {name}", work, 2, check=False)
    said = (work / f"{name}.said").read_text("utf-8")
    whole = np.load(work / f"{name}.whole.npz")
    found: dict[str, Any] = {"exit_code": killed, "said": said.split("(")[0].strip()}
    for size in (2, 1, 3):
        shutil.copytree(work / f"{name} lost", work / f"{name} {size}")
        started(f"again {name}", work, size)
        again = np.load(work / f"{name}.again.{size}.npz")
        found[f"restart_on_{size}"] = float(max(np.abs(again[of] - whole[of]).max() for of in whole))
    return {**found, "seconds": round(time.perf_counter() - start)}


def started(what: str, work: Path, size: int, *, check: bool = True) -> int:
    """Run a part of this file on a number of processes; return the exit code."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    done = subprocess.run(
        [*command, __file__, *what.split(), str(work)], env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    if check and done.returncode:
        sys.exit(done.stderr)
    return done.returncode


# -- in the processes


def sessions() -> nextclick.Sessions:
    return logs.sessions(Counts(4000 * logs.CLICKS, 1000))


def rank() -> int:
    return int(os.environ["RANK"])


def steps(work: Path) -> None:
    """Save this process's part of the first losses, in float64."""
    import torch

    from nextclick.network import objectives

    kinds: dict[str, Any] = {"gru4rec": objectives.SampledItems, "narm": objectives.AllItems}
    torch.set_default_dtype(torch.float64)
    found = {}
    for name, values in MODELS.items():
        original, seen = kinds[name].loss, []

        def recorded(self: Any, batch: Any, original: Any = original, seen: Any = seen) -> Any:
            if len(seen) == STEPS:
                raise Enough
            loss, pairs = original(self, batch)
            seen.append(float(loss.detach()))
            return loss, pairs

        kinds[name].loss = recorded
        try:
            nextclick.build(name, values).fit(sessions(), run=Run(device="cpu"))
        except Enough:
            found[name] = np.array(seen)
        kinds[name].loss = original
    np.savez(work / f"steps.{os.environ['WORLD_SIZE']}.{rank()}.npz", **found)


def whole(work: Path) -> None:
    for name, values in MODELS.items():
        model = nextclick.build(name, values).fit(sessions(), run=Run(device="cpu"))
        if rank() == 0:
            np.savez(work / f"{name}.whole.npz", **model.state())


def lost(work: Path, name: str) -> None:
    def die(what: str, done: int, total: int) -> None:
        if rank() == 1 and what.startswith("epoch 2: loss"):
            os.kill(os.getpid(), signal.SIGKILL)

    run = Run(device="cpu", checkpoints=work / f"{name} lost")
    try:
        nextclick.build(name, MODELS[name]).fit(sessions(), run=run, progress=die)
    except WorkerLostError as error:
        (work / f"{name}.said").write_text(str(error), "utf-8")
        raise


def again(work: Path, name: str) -> None:
    size = os.environ["WORLD_SIZE"]
    run = Run(device="cpu", checkpoints=work / f"{name} {size}")
    model = nextclick.build(name, MODELS[name]).fit(sessions(), run=run)
    if rank() == 0:
        np.savez(work / f"{name}.again.{size}.npz", **model.state())


if __name__ == "__main__":
    parts = {"steps": steps, "whole": whole, "lost": lost, "again": again}
    if len(sys.argv) > 1:
        parts[sys.argv[1]](Path(sys.argv[-1]), *sys.argv[2:-1])
    else:
        main()
