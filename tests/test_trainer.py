"""The training loop around the networks: epochs, checkpoints, refit, memory, devices, several processes."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nextclick
import processes
from nextclick import ArtifactError, ConfigError, DataError, Recommender, Sessions, TrainingDivergedError
from nextclick.recommender import Run
from synthetic import QUICK, chain

torch = pytest.importorskip("torch")

from nextclick.network.training import Epoch, Objective, Options, best_of, train  # noqa: E402 - imports torch

TRAIN = processes.SESSIONS
MODELS: dict[str, dict[str, Any]] = {
    "narm": {"epochs": 5, "dim": 5, "hidden": 6, "batch_size": 32, "learning_rate": 0.01, "decay": 0.8},
    "gru4rec": {**processes.KILLED, "momentum": 0.3, "validation": 0.1},
    "gru4rec-plus": {"epochs": 4, "dim": 5, "hidden": 6, "batch_size": 32, "learning_rate": 0.01},
    "sml": {
        "epochs": 5,
        "dim": 5,
        "hidden": 6,
        "batch_size": 32,
        "sampler": "split",
        "negatives": "own",
        "n_negatives": 6,
        "gain": 0.01,
    },
}  # with their dropouts, which have to be drawn again as they were


def same_state(one: Recommender, other: Recommender) -> bool:
    a, b = one.state(), other.state()
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


# -- the loop


class Line(Objective):
    """One weight w, pulled towards the batch's number: loss (w - x)^2 / 2, gradient w - x."""

    n_pairs = 4

    def __init__(self, start: float = 0.0) -> None:
        self.network = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(self.network.weight, start)
        self.rates: list[float] = []
        self.asked: list[tuple[int, int]] = []

    def batches(self, seed: int, epoch: int) -> Iterator[float]:
        self.asked.append((seed, epoch))
        return iter([1.0, 3.0])

    def loss(self, batch: float) -> tuple[Any, int]:
        self.rates.append(self._optimizer.param_groups[0]["lr"])
        return 0.5 * (self.network.weight - batch).square().sum(), 2

    def optimizer(self, rate: float) -> torch.optim.Optimizer:
        self._optimizer = torch.optim.SGD(self.network.parameters(), lr=rate)
        return self._optimizer


def quiet(what: str, done: int, total: int) -> None:
    pass


def test_epochs_are_steps_at_a_rate_that_decays() -> None:
    objective = Line()
    history = train(objective, Options(3, 0.5, 0.1, 9, seed=7), None, quiet)
    weight, expected = 0.0, []
    for rate in (0.5, 0.05, 0.005):
        losses = []
        for batch in (1.0, 3.0):
            losses.append(0.5 * (weight - batch) ** 2)
            weight -= rate * (weight - batch)
        expected.append(sum(losses) / 2)
    assert objective.rates == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005, 0.005])
    assert objective.asked == [(7, 1), (7, 2), (7, 3)]
    assert [epoch.loss for epoch in history] == pytest.approx(expected, rel=1e-6)
    assert objective.network.weight.item() == pytest.approx(weight, rel=1e-6)
    assert not objective.network.training


def test_the_best_epoch_is_kept_and_patience_ends_the_training() -> None:
    objective, figures, seen = Line(), iter([0.2, 0.5, 0.5, 0.4, 0.9]), []

    def validate() -> float:
        seen.append(objective.network.weight.item())
        return next(figures)

    told: list[Any] = []
    history = train(
        objective, Options(9, 0.1, 1.0, 2, 1), validate, quiet, watch=lambda *what: told.append(what)
    )
    assert [epoch.figure for epoch in history] == [0.2, 0.5, 0.5, 0.4]
    assert best_of(history).epoch == 2  # the first of equals
    assert objective.network.weight.item() == seen[1] != seen[3]
    assert [epoch for epoch, _ in told] == history
    assert all(speed > 0 for _, speed in told)


def test_without_validation_the_last_epoch_counts() -> None:
    assert best_of([Epoch(1, 0.1, None), Epoch(2, 5.0, None)]).epoch == 2


@pytest.mark.parametrize(
    ("start", "rate", "says"),
    [
        (math.nan, 0.5, r"epoch 1, step 1, after 2 .* rate 0\.5"),
        (math.inf, 0.5, r"epoch 1, step 1, after 2 .* rate 0\.5"),
        (0.0, 1e30, r"epoch 1, step 2, after 4 .* rate 1e\+30"),
    ],
)
def test_a_loss_that_is_no_number_stops_the_training(start: float, rate: float, says: str) -> None:
    with pytest.raises(TrainingDivergedError, match=says):
        train(Line(start), Options(3, rate, 1.0, 9, 1), None, quiet)


# -- checkpoints


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("last", [1, 3])
@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_an_interrupted_training_goes_on_to_the_same_weights(
    name: str, refit: bool, last: int, tmp_path: Path
) -> None:
    """Interrupted after an epoch, and again in the last stage of the training: bit for bit the same."""
    values = {**MODELS[name], "refit": refit, "patience": 9}
    whole = nextclick.build(name, values).fit(TRAIN)
    stages = list(dict.fromkeys(epoch["stage"] for epoch in whole.facts["epochs"]))
    assert ("refit" in " ".join(stages)) == refit

    def stop_at(stage: str, epoch: int) -> Any:
        begins = f"{'' if stage == 'training' else stage + ', '}epoch {epoch}: loss"

        def tell(what: str, done: int, total: int) -> None:
            if what.startswith(begins):
                raise Interrupted

        return tell

    run = Run(checkpoints=tmp_path / "checkpoints")
    for stage, epoch in [("training", last + 1), (stages[-1], 1 if len(stages) > 1 else last + 2)]:
        with pytest.raises(Interrupted):
            nextclick.build(name, values).fit(TRAIN, progress=stop_at(stage, epoch), run=run)
    epochs: list[str] = []
    resumed = nextclick.build(name, values).fit(TRAIN, progress=lambda what, *_: epochs.append(what), run=run)
    assert not any(what.startswith(f"epoch {last}: ") for what in epochs)  # not trained again
    assert resumed.facts == whole.facts
    assert same_state(resumed, whole)
    again = nextclick.build(name, values).fit(TRAIN, progress=stop_at("training", 1), run=run)
    assert same_state(again, whole)  # nothing is left to train


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "processes", "killed", str(tmp_path)], cwd=Path(__file__).parent, timeout=120
    )
    assert done.returncode == -signal.SIGKILL
    assert [file.name for file in tmp_path.iterdir()] == ["training.safetensors"]
    told: list[str] = []
    resumed = nextclick.GRU4Rec(**processes.KILLED).fit(
        TRAIN, progress=lambda what, *_: told.append(what), run=Run(checkpoints=tmp_path)
    )
    whole = nextclick.GRU4Rec(**processes.KILLED).fit(TRAIN)
    assert {what.split(":")[0] for what in told} == {"epoch 3", "epoch 4", "epoch 5"}
    assert resumed.facts == whole.facts
    assert same_state(resumed, whole)


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    values, run = {**MODELS["gru4rec"], "epochs": 1}, Run(checkpoints=tmp_path)
    nextclick.GRU4Rec(**values).fit(TRAIN, run=run)
    written = (tmp_path / "training.safetensors").read_bytes()
    shuffled = Sessions.from_lists([TRAIN.vocabulary.ids_of(TRAIN.items[::-1])])
    others = [
        ({**values, "epochs": 2}, TRAIN),
        ({**values, "seed": 2}, TRAIN),
        (values, chain(20, 91, noise=0.3, seed=1)),
        (values, chain(20, 90, noise=0.3, seed=2)),
        (values, shuffled),
    ]
    for settings, sessions in others:
        with pytest.raises(ConfigError, match=r"training.safetensors: the checkpoint of another training"):
            nextclick.GRU4Rec(**settings).fit(sessions, run=run)
    assert (tmp_path / "training.safetensors").read_bytes() == written


def test_a_checkpoint_of_other_clicks_in_the_same_number_is_refused(tmp_path: Path) -> None:
    first, second = ([["a", "b", "c"], ["b", "a"], last] for last in (["a", "c"], ["c", "a"]))
    values = {**MODELS["gru4rec"], "validation": 0.0}
    nextclick.GRU4Rec(**values).fit(Sessions.from_lists(first), run=Run(checkpoints=tmp_path))
    with pytest.raises(ConfigError, match="another training"):
        nextclick.GRU4Rec(**values).fit(Sessions.from_lists(second), run=Run(checkpoints=tmp_path))


def test_checkpoints_of_another_training_under_other_names_are_refused(tmp_path: Path) -> None:
    """Those of p-RNN's stages bear the names of its subnets."""
    pytest.importorskip("sklearn")
    items = nextclick.ItemTable.of({"item": TRAIN.vocabulary.ids_of(range(20)), "kind": ["a", "b"] * 10})
    features = nextclick.build_features(items, categorical=["kind"])
    values, run = {**QUICK["prnn"], "strategy": "residual", "epochs": 1}, Run(checkpoints=tmp_path)
    whole = nextclick.build("prnn", values).fit(TRAIN, features=features, run=run)
    kept = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert len(kept) == 2
    for other, given in (({}, None), ({"strategy": "simultaneous"}, features)):
        with pytest.raises(ConfigError, match=r"checkpoint of another training.* --overwrite"):
            nextclick.build("prnn", {**values, **other}).fit(TRAIN, features=given, run=run)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == kept
    max(tmp_path.iterdir(), key=lambda file: file.stat().st_mtime_ns).unlink()  # of the second stage
    again = nextclick.build("prnn", values).fit(TRAIN, features=features, run=run)
    assert same_state(again, whole)


@pytest.mark.parametrize("damage", ["cut", "header", "empty", "foreign", "folder"])
def test_a_damaged_checkpoint_is_refused(damage: str, tmp_path: Path) -> None:
    file, run = tmp_path / "training.safetensors", Run(checkpoints=tmp_path)
    nextclick.NARM(**MODELS["narm"]).fit(TRAIN, run=run)
    written = file.read_bytes()
    if damage == "foreign":
        from safetensors.numpy import save_file

        save_file({"a": np.zeros(3)}, file)
    elif damage == "folder":
        file.unlink()
        file.mkdir()
    else:
        kept = {"cut": written[:-100], "header": b"\xff" * 16 + written[16:], "empty": b""}[damage]
        file.write_bytes(kept)
    with pytest.raises(ArtifactError, match=r"training.safetensors: unreadable checkpoint .*--overwrite"):
        nextclick.NARM(**MODELS["narm"]).fit(TRAIN, run=run)


def test_a_checkpoint_of_other_weights_is_refused(tmp_path: Path) -> None:
    """Its words are right, its weights are not: never half taken over."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    file, run = tmp_path / "training.safetensors", Run(checkpoints=tmp_path)
    nextclick.NARM(**MODELS["narm"]).fit(TRAIN, run=run)
    with safe_open(file, "pt") as opened:
        meta, tensors = opened.metadata(), {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    for name, wrong in [("weights.items.weight", torch.zeros(3, 3)), ("else.weight", torch.zeros(1))]:
        save_file({**tensors, name: wrong}, file, meta)
        with pytest.raises(ArtifactError, match="unreadable checkpoint"):
            nextclick.NARM(**MODELS["narm"]).fit(TRAIN, run=run)


# -- refit


@pytest.mark.parametrize("name", ["narm", "gru4rec", "stamp", "sml", "bpr-mf", "fpmc"])
def test_refit_is_a_fit_on_all_for_the_chosen_epochs(name: str) -> None:
    values = {**MODELS.get(name, {**QUICK[name], "epochs": 5}), "patience": 2, "learning_rate": 0.05}
    model = nextclick.build(name, {**values, "refit": True, "validation": 0.3}).fit(TRAIN)
    plain = nextclick.build(name, {**values, "refit": False, "validation": 0.3}).fit(TRAIN)
    epochs = plain.facts["epochs"]
    chosen = max(epochs, key=lambda epoch: (epoch["figure"], -epoch["epoch"]))["epoch"]
    on_all = nextclick.build(name, {**values, "refit": False, "validation": 0.0, "epochs": chosen}).fit(TRAIN)
    assert same_state(model, on_all)
    assert not same_state(model, plain)


@pytest.mark.parametrize(("by", "latest"), [("time", True), ("random", False)])
def test_the_sessions_that_choose_the_epoch_are_the_latest_or_any(by: str, latest: bool) -> None:
    seen: list[tuple[Sessions, Sessions]] = []

    class Seen(nextclick.NARM):
        def _stage(self, stage: str, sessions: Sessions, kept: Sessions, *args: Any, **more: Any) -> Epoch:
            seen.append((sessions, kept))
            return super()._stage(stage, sessions, kept, *args, **more)

    for seed in (1, 1, 2):
        Seen(**{**MODELS["narm"], "epochs": 1}, validation=0.3, validation_by=by, seed=seed).fit(TRAIN)
    assert [len(kept) for _, kept in seen] == 3 * [int(0.3 * len(TRAIN))]
    for fitted, kept in seen:  # times count up, so that each click has one of its own
        assert np.array_equal(np.sort(np.r_[fitted.times, kept.times]), TRAIN.times)
        assert (fitted.times.max() < kept.times.min()) == latest
        assert (np.diff(fitted.times) > 0).all()
    times = [kept.times.tolist() for _, kept in seen]
    assert times[0] == times[1]
    assert (times[0] == times[2]) == latest


def test_refit_of_two_trainings_is_a_fit_on_all_for_the_epochs_of_each() -> None:
    """Of gru4rec-plus, whose second training is on the latest sessions."""
    values = {**MODELS["gru4rec-plus"], "validation": 0.3, "patience": 1, "learning_rate": 0.03}
    model = nextclick.build("gru4rec-plus", {**values, "refit": True}).fit(TRAIN)
    epochs = model.facts["epochs"]
    chosen = [
        max((e for e in epochs if e["stage"] == stage), key=lambda e: (e["figure"], -e["epoch"]))
        for stage in ("training", "latest")
    ]
    kept = chosen[1]["figure"] > chosen[0]["figure"]
    counts = {stage: sum(e["stage"] == stage for e in epochs) for stage in ("refit training", "refit latest")}
    assert counts == {"refit training": chosen[0]["epoch"], "refit latest": chosen[1]["epoch"] * kept}
    assert all(e["figure"] is None for e in epochs if e["stage"].startswith("refit"))


@pytest.mark.parametrize("strategy", ["residual", "interleaving", "alternating"])
def test_refit_of_prnn_takes_the_epochs_of_each_subnet(strategy: str) -> None:
    rng = np.random.default_rng(1)
    vectors = nextclick.features.Dense(rng.normal(size=(20, 3)).astype(np.float32), np.ones(20, np.bool_))
    given = nextclick.Features(TRAIN.vocabulary, {"image": vectors})
    values = {"epochs": 4, "hidden": 4, "batch_size": 8, "patience": 1, "strategy": strategy}
    model = nextclick.PRNN(**values, validation=0.3, refit=True).fit(TRAIN, features=given)
    epochs = model.facts["epochs"]
    for stage in dict.fromkeys(epoch["stage"] for epoch in epochs):
        if stage.startswith("refit"):
            of_stage = [e for e in epochs if e["stage"] == stage.replace("refit", "training")]
            best = max(of_stage, key=lambda e: (e["figure"], -e["epoch"]))["epoch"]
            assert sum(e["stage"] == stage for e in epochs) == best
    stages = {epoch["stage"] for epoch in epochs}
    assert stages == (
        {"training-id", "training-image", "refit-id", "refit-image"}
        if strategy == "residual"
        else {"training", "refit"}
    )
    plain = nextclick.PRNN(**values, validation=0.3).fit(TRAIN, features=given)
    assert not same_state(model, plain)


# -- TensorBoard, memory, devices


def test_tensorboard_files_hold_every_epoch(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model = nextclick.GRU4Rec(**{**MODELS["gru4rec"], "refit": True, "patience": 9})
    model.fit(TRAIN, run=Run(tensorboard=tmp_path))
    for stage in ("training", "refit"):
        epochs = [epoch for epoch in model.facts["epochs"] if epoch["stage"] == stage]
        events = EventAccumulator(str(tmp_path / stage)).Reload()
        expected = {"loss": [epoch["loss"] for epoch in epochs]}
        if stage == "training":
            expected["recall@20"] = [epoch["figure"] for epoch in epochs]
        assert set(events.Tags()["scalars"]) == {*expected, "clicks per second"}
        for name, values in expected.items():
            read = events.Scalars(name)
            assert [event.step for event in read] == [epoch["epoch"] for epoch in epochs]
            assert [event.value for event in read] == pytest.approx(values, rel=1e-6)
        assert all(event.value > 0 for event in events.Scalars("clicks per second"))


def test_too_many_items_for_the_memory_are_refused_with_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    n, hidden = 1_000_000, 100
    sessions = Sessions(
        np.array([0, n - 1], np.int32), np.array([0, 2]), np.arange(2), nextclick.Vocabulary(np.arange(n)), n
    )
    monkeypatch.setattr("nextclick.machine.available_memory", lambda: 10**9)
    weights = n * hidden + n + 2 * 3 * hidden * hidden + 2 * 3 * hidden
    step = 3 * 1 * (1 + 2048) + 2 * (1 + 2048) * hidden + 4 * 256 * 2048  # of one pair
    said = rf"{weights:,} weights for {n:,} items; {weights:,} x 4 bytes x 5 copies in training"
    with pytest.raises(
        DataError, match=said + rf" \+ {step:,} x 4 bytes in a step = 2\.0 GB, and 1\.0 GB are available"
    ):
        nextclick.GRU4Rec(hidden=hidden).fit(sessions)
    assert weights * 4 * 5 + step * 4 == pytest.approx(2.0e9, rel=0.02)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("gru4rec", {"n_samples": 10**9}),
        ("prnn", {"n_samples": 10**9}),
        ("sml", {"negatives": "own", "n_negatives": 10**8}),
        ("sml", {"negatives": "shared", "n_negatives": 10**9}),
    ],
)
def test_steps_too_large_for_the_memory_are_refused(name: str, values: dict[str, Any]) -> None:
    """The weights of twenty items are few, but not what a step holds."""
    with pytest.raises(DataError, match=r"bytes in a step = .* GB are available\. .*samples smaller"):
        nextclick.build(name, values).fit(TRAIN)


def test_a_batch_counts_as_what_there_is_to_fill_it() -> None:
    values = {"epochs": 1, "batch_size": 10**9, "dim": 4, "hidden": 3}
    for name in ("narm", "sml"):
        assert nextclick.build(name, values).fit(TRAIN).n_items == 20


def test_the_wider_of_clicks_and_states_counts_in_a_step() -> None:
    """Attention holds a state for every click of every pair; the soft-max scores, and the items twice."""
    for dim, hidden in ((64, 4), (4, 64)):
        model = nextclick.NARM(dim=dim, hidden=hidden, last_clicks=7, temperature=0.0)
        assert model._in_a_step(10, 0) == 4 * 10 * 7 * 64
        assert model._in_a_step(10, 2_000_000) == 4 * 10 * 7 * 64 + 2_000_000 * (128 + 2 * 65)


def test_what_fits_in_the_memory_to_the_byte_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nextclick.GRU4Rec(epochs=1, hidden=4, n_samples=4)
    lanes = min(144, TRAIN.n_pairs)
    step = 3 * lanes * (lanes + 4) + 2 * (lanes + 4) * 4 + 4 * 256 * 4
    needed = (20 * 4 + 20 + 2 * 3 * 16 + 2 * 3 * 4) * 4 * 5 + 4 * step
    monkeypatch.setattr("nextclick.machine.available_memory", lambda: needed)
    model.fit(TRAIN)
    monkeypatch.setattr("nextclick.machine.available_memory", lambda: needed - 1)
    with pytest.raises(DataError, match="copies in training"):
        model.fit(TRAIN)
    monkeypatch.setattr("nextclick.machine.available_memory", lambda: None)  # cannot be found out
    model.fit(TRAIN)


def test_the_memory_that_counts_is_that_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    from nextclick.network.workers import memory_of

    monkeypatch.setattr("nextclick.machine.available_memory", lambda: 5)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (7 + device.index, 100))
    assert memory_of(torch.device("cpu")) == 5
    assert memory_of(torch.device("cuda", 1)) == 8


def test_a_device_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="device 'nonsense' cannot be used"):
        nextclick.GRU4Rec(epochs=1, hidden=4).fit(TRAIN, run=Run(device="nonsense"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="device 'cuda' cannot be used"):
        nextclick.GRU4Rec(epochs=1, hidden=4).fit(TRAIN, run=Run(device="cuda"))


# -- several processes


def test_two_processes_reach_the_weights_of_one(tmp_path: Path) -> None:
    """Tied and separate vectors, lanes that change their process, batches of one row, refit, checkpoints."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "processes"]
    done = subprocess.run(
        [sys.executable, *command, "together", str(tmp_path)],
        cwd=Path(__file__).parent,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    for name in processes.TOGETHER:
        alone = processes.fitted(name).state()
        first, second = (np.load(tmp_path / f"{name}.{rank}.npz") for rank in (0, 1))
        assert set(first) == set(second) == set(alone)
        for of, array in alone.items():
            assert np.array_equal(first[of], second[of]), (name, of)
            assert np.allclose(first[of], array, rtol=0, atol=1e-5), (name, of)
        resumed = processes.fitted(name, Run(checkpoints=tmp_path / f"checkpoints {name}")).state()
        assert all(np.array_equal(resumed[of], first[of]) for of in resumed)
