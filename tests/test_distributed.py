"""Training on two processes is training on one; a process that is lost costs an epoch, and no more."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nextclick
import processes
from nextclick.recommender import Run

torch = pytest.importorskip("torch")

from nextclick.errors import WorkerLostError  # noqa: E402
from nextclick.network.workers import Workers  # noqa: E402


def started(what: str, folder: Path, size: int = 2, look: float = 0.1) -> subprocess.CompletedProcess[str]:
    """Start processes; look: seconds between the launcher's looks for lost ones, whereupon it ends all."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size)]
    command += ["--monitor-interval", str(look)]
    return subprocess.run(
        [sys.executable, *command, "-m", "processes", what, str(folder)],
        cwd=Path(__file__).parent,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes came to that were not interrupted: losses in float64, and weights."""
    folder = tmp_path_factory.mktemp("whole")
    done = started("stepwise", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", processes.STEPWISE)
def test_every_loss_of_200_steps_is_that_of_one_process(name: str, whole: Path) -> None:
    """In float64 nothing but the order of sums differs; parts of a batch are not one process's losses."""
    alone = np.array(processes.losses(name))
    parts = [np.load(whole / f"losses.{rank}.npz")[name] for rank in (0, 1)]
    assert len(alone) == processes.STEPS == 200
    assert np.abs(parts[0] + parts[1] - alone).max() < 1e-5
    assert np.abs(parts[0] + parts[1] - alone).max() < 1e-9  # not by chance
    assert (np.abs(parts[0]) > 0.01).mean() > 0.9
    assert (np.abs(parts[1]) > 0.01).mean() > 0.9
    assert alone[-20:].mean() < 0.95 * alone[:20].mean()  # it learns meanwhile


def test_a_lost_process_costs_an_epoch_and_no_more(whole: Path, tmp_path: Path) -> None:
    """One of two is killed, the other says so; both started again, or one alone, come to the same end."""
    done = started("lost", tmp_path, look=5.0)  # time for the other one to speak
    assert done.returncode != 0
    assert (tmp_path / "gru4rec" / "training.safetensors").exists()  # of the first epoch
    said = (tmp_path / "gru4rec.said").read_text("utf-8")
    assert said.startswith("process 0 of 2 cannot reach the others any more")
    assert "again with --resume, on as many processes or on another number" in said
    shutil.copytree(tmp_path / "gru4rec", tmp_path / "for one")
    done = started("resumed", tmp_path)
    assert done.returncode == 0, done.stderr
    told: list[str] = []
    model, values = processes.TOGETHER["gru4rec"]
    run = Run(device="cpu", checkpoints=tmp_path / "for one")
    one = nextclick.build(model, values)
    one.fit(processes.SESSIONS, run=run, progress=lambda what, *_: told.append(what))
    assert not any(what.startswith("epoch 1:") for what in told)  # that one is not trained again
    for rank in (0, 1):
        first = np.load(whole / f"gru4rec.{rank}.npz")
        again = np.load(tmp_path / f"gru4rec.resumed.{rank}.npz")
        assert set(first) == set(again) == set(one.state())
        for of, array in one.state().items():
            assert np.array_equal(first[of], again[of]), of
            assert np.allclose(again[of], array, rtol=0, atol=1e-5), of


def test_a_failed_exchange_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> None:
        raise RuntimeError("[transport/tcp/pair.cc:525]\nConnection closed by peer")

    monkeypatch.setattr("torch.distributed.all_reduce", fail)
    monkeypatch.setattr("torch.distributed.barrier", fail)
    for exchange in (lambda: Workers(1, 3).add_up([torch.zeros(2)]), Workers(1, 3).wait):
        with pytest.raises(WorkerLostError, match=r"process 1 of 3 .* \(Connection closed by peer\)"):
            exchange()
    Workers().add_up([torch.zeros(2)])  # alone there is no exchange
