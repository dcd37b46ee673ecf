"""The search for settings: what it measures, that it can be stopped anywhere, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from click.testing import CliRunner, Result

import nextclick
from nextclick import MODELS, VSKNN, ConfigError, DataError, Dataset, MissingExtraError, Popularity, tuning
from nextclick.cli import main
from nextclick.errors import TrainingDivergedError
from nextclick.features import Dense
from nextclick.files import alone
from nextclick.models import build
from nextclick.sessions import Sessions
from nextclick.settings import about, settings_of
from nextclick.tuning import Trial, read_settings, tune
from synthetic import QUICK, chain_lists


@dataclass(kw_only=True, eq=False)
class Fragile(Popularity):
    """A model of no cost that can fail as a training does, with a setting of each kind."""

    name: ClassVar[str] = "fragile"
    rate: float = field(default=0.1, metadata=about("too high: diverges", low=0, search=("log", 0.01, 1.0)))
    size: int = field(default=5, metadata=about("of no effect", low=1, search=(1, 9)))
    last: int | None = field(default=None, metadata=about("of no effect", low=1, search=[None, 2, 3]))
    switch: bool = field(default=False, metadata=about("of no effect", search=[False, True]))
    way: Literal['a"b', "c"] = field(default="c", metadata=about("of no effect", search=['a"b', "c"]))
    apart: int = field(default=1, metadata=about("not searched", low=1))

    limit: ClassVar[float] = 0.3

    def _fit(self, sessions: Sessions) -> None:
        if self.rate > self.limit:
            raise TrainingDivergedError(1, 1, 10, self.rate)


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "fragile", Fragile)


def write_log(path: Path, *, seed: int = 1, sessions: int = 400) -> Path:
    with path.open("w", encoding="utf-8") as file:
        file.write("session_id,item_id,timestamp\n")
        for s, session in enumerate(chain_lists(60, sessions, noise=0.3, seed=seed)):
            for c, item in enumerate(session):
                file.write(f"{s},item {item},{1_700_000_000 + s * 3600 + c}\n")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tuning")
    nextclick.prepare(write_log(made / "log.csv"), out=made / "data")
    nextclick.prepare(write_log(made / "other.csv", seed=2), out=made / "other")
    nextclick.prepare(made / "log.csv", out=made / "without", validation="0")
    return made


@pytest.fixture
def data(folder: Path) -> Dataset:
    return Dataset.load(folder / "data")


def plain(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    return [{**vars(trial), "seconds": 0} for trial in trials]


# -- what is measured


def test_the_first_trial_is_the_defaults_measured_as_evaluate_does(data: Dataset) -> None:
    first = tune(data, "vs-knn", trials=1).trials[0]
    assert all(getattr(VSKNN(), name) == value for name, value in first.settings.items())
    report = nextclick.evaluate([VSKNN().fit(data.train)], data.validation, k=20)
    for name, value in first.metrics.items():
        assert value == pytest.approx(report.models[0].metrics[name])


def test_every_trial_is_what_its_settings_give(data: Dataset) -> None:
    found = tune(data, "markov", trials=6, settings={"decay": "same"}, metric="mrr@20", seed=3)
    assert len({repr(trial.settings) for trial in found.trials}) > 2
    for trial in found.trials:
        assert "decay" not in trial.settings
        model = nextclick.build("markov", {"decay": "same", **trial.settings}).fit(data.train)
        reached = nextclick.evaluate([model], data.validation, k=20).models[0].metrics
        assert trial.metrics["mrr@20"] == pytest.approx(reached["mrr@20"])
    assert found.best.metrics["mrr@20"] == max(trial.metrics["mrr@20"] for trial in found.trials)
    assert found.settings == {**found.best.settings, "decay": "same"}


def test_without_validation_the_latest_tenth_of_training_is_held_out(folder: Path) -> None:
    data = Dataset.load(folder / "without")
    found = tune(data, "markov", trials=1)
    assert found.measured_on == "the latest tenth of the training sessions"
    n = len(data.train) - len(data.train) // 10
    model = nextclick.Markov().fit(data.train[:n])
    reached = nextclick.evaluate([model], data.train[n:], k=20).models[0].metrics
    assert found.best.metrics["recall@20"] == pytest.approx(reached["recall@20"])


@pytest.mark.parametrize("which", ["data", "without"])
def test_the_test_part_does_not_matter(folder: Path, which: str) -> None:
    data = Dataset.load(folder / which)
    items, times = np.array(data.sessions.items), np.array(data.sessions.times)
    first = data.sessions.offsets[data.bounds[1]]
    items[first:], times[first:] = 1_000_000, -1  # whoever looks at this falls out of every array
    poisoned = dataclasses.replace(
        data, sessions=dataclasses.replace(data.sessions, items=items, times=times)
    )
    with pytest.raises(IndexError):
        nextclick.evaluate([VSKNN().fit(poisoned.train)], poisoned.test)
    settings = {"day_decay": 0.9}
    clean = tune(data, "vs-knn", trials=4, settings=settings)
    assert plain(tune(poisoned, "vs-knn", trials=4, settings=settings).trials) == plain(clean.trials)


def test_a_preset_is_where_the_search_starts(data: Dataset) -> None:
    found = tune(data, "stan", trials=2, settings={"preset": "paper", "k": 70})
    first = found.trials[0].settings
    assert first["lambda_inh"] == MODELS["stan"].presets["paper"]["lambda_inh"]
    assert "lambda_snh_sessions" not in first  # none there, and no number that a range could hold
    assert found.settings["k"] == 70
    assert found.settings["lambda_snh_sessions"] is None


def test_a_network_is_searched_too(data: Dataset) -> None:
    pytest.importorskip("torch")
    fixed = {"epochs": 1, "dim": 4, "hidden": 3, "batch_size": 64}
    heard: list[str] = []
    found = tune(data, "narm", trials=2, settings=fixed, progress=lambda what, done: heard.append(what))
    assert [sorted(trial.metrics) for trial in found.trials] == [["mrr@20", "recall@20"]] * 2
    assert any(what.startswith("epoch 1") for what in heard)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_sensible_ranges(name: str, data: Dataset, tmp_path: Path) -> None:
    """The defaults and settings drawn from the ranges are fitted and measured; ``fit`` takes the best."""
    if not searched_settings(name):
        with pytest.raises(ConfigError, match="nothing to search"):
            tune(data, name)
        assert name in ("pop", "s-pop", "blend")
        return
    if name in QUICK:
        pytest.importorskip("torch")
    generators = [nextclick.build("markov").fit(data.train)] if name == "rrcre" else []
    found = tune(
        data, name, trials=2, settings=QUICK.get(name), generators=generators, out=tmp_path / "best.toml"
    )
    assert not [trial.error for trial in found.trials if trial.error]
    first, second = (trial.settings for trial in found.trials)
    default = build(name)
    assert first == {of: getattr(default, of) for of in first}
    assert first != second
    best = read_settings(name, tmp_path / "best.toml")
    assert {**best, **found.best.settings} == best
    build(name, best)


def searched_settings(name: str) -> bool:
    """Whether a model has a setting with a range that QUICK leaves free."""
    fields = settings_of(MODELS[name])
    return any("search" in field.metadata and field.name not in QUICK.get(name, {}) for field in fields)


# -- failures


def test_a_failed_trial_is_recorded_and_the_search_goes_on(
    fragile: None, data: Dataset, tmp_path: Path
) -> None:
    found = tune(data, "fragile", trials=12, seed=1, out=tmp_path / "best.toml")
    failed = [trial for trial in found.trials if trial.error]
    assert len(found.trials) == 12
    assert 0 < len(failed) < 12
    assert all(trial.settings["rate"] > Fragile.limit for trial in failed)
    assert "diverged" in failed[0].error
    assert not found.best.error
    assert f"12 trials ({len(failed)} failed)" in (tmp_path / "best.toml").read_text("utf-8")


def test_settings_too_large_for_the_memory_are_a_failed_trial(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the end of the search: the narrow ones of the same model fit."""
    monkeypatch.setattr("nextclick.machine.available_memory", lambda: 4 * 60 * 2 * 100 * 2)
    found = tune(data, "fpmc", trials=12, settings={"epochs": 1, "samples": 1})
    failed = [trial for trial in found.trials if trial.error]
    assert failed
    assert {trial.settings["dim"] for trial in failed} == {200}
    assert all("4 bytes x 2 copies in training" in trial.error for trial in failed)
    assert {trial.settings["dim"] for trial in found.ranked()} <= {50, 100}


def test_when_every_trial_fails_the_last_reason_is_said(
    fragile: None, data: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Fragile, "limit", 0.0)
    with pytest.raises(ConfigError, match="all 2 trials failed; the last one: training diverged"):
        tune(data, "fragile", trials=2, out=tmp_path / "best.toml")
    assert not (tmp_path / "best.toml").exists()


# -- stopped and gone on


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(
    fragile: None, data: Dataset, tmp_path: Path
) -> None:
    whole = tune(data, "fragile", trials=25, seed=5)
    for trials in (1, 9, 9, 14, 25):
        part = tune(data, "fragile", trials=trials, seed=5, out=tmp_path / "best.toml")
        assert plain(part.trials) == plain(whole.trials[:trials])
    assert part.settings == whole.settings
    assert plain(tune(data, "fragile", trials=5, seed=6).trials)[1:] != plain(whole.trials[1:5])


_KILLED = """
    import os, signal, sys
    from nextclick import Dataset, tune

    def progress(what, done):
        if len(done) == int(sys.argv[3]) and what:
            os.kill(os.getpid(), signal.SIGKILL)

    tune(Dataset.load(sys.argv[1]), "markov", trials=14, out=sys.argv[2], progress=progress)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL on Windows")
def test_killed_in_a_trial_only_that_trial_is_lost(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "best.toml"
    for killed_at in (0, 12):
        command = [sys.executable, "-c", textwrap.dedent(_KILLED), folder / "data", out, str(killed_at)]
        assert subprocess.run(command, check=False).returncode == -9
    data = Dataset.load(folder / "data")
    assert out.exists()  # the best so far
    with (tmp_path / "best.tune" / "journal.log").open("a") as journal:
        journal.write('{"op_code": 4, "worker_')  # killed while writing a line
    (tmp_path / "best.tune" / "journal.log.lock").symlink_to("gone")  # and while holding Optuna's lock
    resumed = tune(data, "markov", trials=14, out=out)
    assert plain(resumed.trials) == plain(tune(data, "markov", trials=14).trials)
    seconds = [trial.seconds for trial in resumed.trials]
    again = tune(data, "markov", trials=14, out=out)
    assert [trial.seconds for trial in again.trials] == seconds  # nothing was run once more


def test_another_search_in_the_same_place_is_refused(folder: Path, data: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "best.toml"
    tune(data, "markov", trials=1, out=out, settings={"decay": "div"})
    before = out.read_bytes()
    changes: list[tuple[str, dict[str, Any]]] = [
        ("another model: markov; now it is item-knn", {"model": "item-knn"}),
        ("another metric: recall@20; now it is mrr@20", {"metric": "mrr@20"}),
        ("another fixed: decay=div; now it is nothing", {"settings": {}}),
        ("another seed: 0; now it is 1", {"seed": 1}),
        ("another data: name=data, fingerprint=", {"data": Dataset.load(folder / "other")}),
        ("another data: .*the validation part", {"data": Dataset.load(folder / "without")}),
    ]
    usual = {"data": data, "model": "markov", "settings": {"decay": "div"}}
    for message, change in changes:
        with pytest.raises(ConfigError, match=message):
            tune(**{**usual, **change}, trials=1, out=out)  # type: ignore[arg-type]
    assert out.read_bytes() == before
    (tmp_path / "best.tune" / "search.json").write_text("{")
    with pytest.raises(DataError, match="unreadable"):
        tune(data, "markov", trials=1, out=out)


def test_two_at_once_are_refused_and_so_is_a_file_of_others(data: Dataset, tmp_path: Path) -> None:
    with alone(tmp_path / "best.tune"), pytest.raises(DataError, match="another process is at work"):
        tune(data, "markov", trials=1, out=tmp_path / "best.toml")
    (tmp_path / "mine.toml").write_text("mine = true")
    with pytest.raises(DataError, match="exists already"):
        tune(data, "markov", trials=1, out=tmp_path / "mine.toml")
    with pytest.raises(ConfigError, match=r"name like best\.toml"):
        tune(data, "markov", trials=1, out=tmp_path / "best.tune")


def test_what_cannot_be_searched_is_refused(
    fragile: None, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="pop: there is nothing to search"):
        tune(data, "pop")
    with pytest.raises(ConfigError, match="did you mean 'decay'"):
        tune(data, "markov", settings={"decai": "div"})
    with pytest.raises(ConfigError, match="trials=0"):
        tune(data, "markov", trials=0)
    with pytest.raises(ConfigError, match="metric='ndcg'"):
        tune(data, "markov", metric="ndcg")  # type: ignore[arg-type]
    few = Sessions.from_lists([["a"], ["b"], ["a"]])
    tiny = dataclasses.replace(data, sessions=few, bounds=(3, 3, 3), known=(2, 2))
    with pytest.raises(DataError, match="too few sessions"):
        tune(tiny, "markov")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"nextclick\[tune\]"):
        tune(data, "markov")


# -- the file of settings


def test_the_file_holds_every_kind_of_value(fragile: None, data: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "best.toml"
    found = tune(data, "fragile", trials=1, settings={"last": None, "way": 'a"b', "rate": 0.1}, out=file)
    assert tuning.read_settings("fragile", file) == found.settings
    assert found.settings["last"] is None
    assert tomllib.loads(file.read_text("utf-8"))["settings"]["last"] == "none"
    for line in (
        "the best of 1 trial (0 failed) by recall@20",
        data.fingerprint,
        "the validation part of data: recall@20",
    ):
        assert line in file.read_text("utf-8")


def test_a_file_of_settings_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "best.toml"
    for content, message in (
        ('model = "stan"\n[settings]\n', "settings of stan, not of vs-knn"),
        ("[setings]\nk = 3\n", "did you mean 'settings'"),
        ('model = "vs-knn"\n', "no table of settings"),
        ("[settings]\nkk = 3\n", "did you mean 'k'"),
        ("[settings\n", "cannot be read as TOML .*line 1"),
    ):
        file.write_text(content)
        with pytest.raises(ConfigError, match=message):
            read_settings("vs-knn", file)
    with pytest.raises(ConfigError, match="no such file"):
        read_settings("vs-knn", tmp_path / "none.toml")


# -- the commands


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


def test_tune_and_fit_on_the_command_line(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "best.toml"
    shown = command("tune", folder / "data", "vs-knn", "--trials", "3", "--set", "idf=2.5", "--out", out)
    assert shown.exit_code == 0, shown.output
    content = json.loads(shown.stdout)
    assert len(content["trials"]) == 3
    assert content["settings"]["idf"] == 2.5
    assert "(first)" in shown.stderr
    assert f"--settings {out}" in shown.stderr
    fitted = command("fit", folder / "data", "vs-knn", "--settings", out, "--set", "k=33", "--out",
                     tmp_path / "model")  # fmt: skip
    assert fitted.exit_code == 0, fitted.output
    used = json.loads(fitted.stdout)["settings"]
    assert used["k"] == 33
    assert all(used[name] == value for name, value in content["settings"].items() if name != "k")
    refused = command("fit", folder / "data", "stan", "--settings", out, "--out", tmp_path / "stan")
    assert refused.exit_code == 1
    assert "settings of vs-knn" in refused.stderr


def test_the_command_says_when_it_holds_sessions_out(folder: Path, tmp_path: Path) -> None:
    shown = command("tune", folder / "without", "markov", "--trials", "1", "--out", tmp_path / "b.toml")
    assert shown.exit_code == 0, shown.output
    assert "no validation part: the latest tenth" in shown.stderr


def test_a_search_over_generators(folder: Path, tmp_path: Path) -> None:
    data = Dataset.load(folder / "data")
    generators = [nextclick.Markov().fit(data.train), nextclick.Popularity().fit(data.train)]
    search: dict[str, Any] = {"settings": {"k": 5}, "out": tmp_path / "best.toml"}
    found = tune(data, "blend", trials=3, generators=generators, **search)
    assert not [trial.error for trial in found.trials if trial.error]
    again = nextclick.build("blend", found.settings, generators=generators).fit(data.train)
    assert again.measure(data.validation) == dict(found.best.metrics)
    with pytest.raises(ConfigError, match="another generators"):
        tune(data, "blend", trials=4, generators=generators[::-1], **search)
    with pytest.raises(DataError, match="what the generators were fitted on: prepare with --validation"):
        tune(Dataset.load(folder / "without"), "blend", trials=1, generators=generators)


def test_a_search_with_features(folder: Path, data: Dataset, tmp_path: Path) -> None:
    """The trials read them, the search remembers which, and a search without goes elsewhere."""
    values = np.random.default_rng(1).normal(size=(60, 3)).astype(np.float32)
    names = nextclick.Vocabulary([f"item {item}" for item in range(60)])
    features = nextclick.Features(names, {"image": Dense(values, np.ones(60, np.bool_))})
    features.save(tmp_path / "features")
    fixed = {"epochs": 1, "dim": 4, "hidden": 4, "dropout_items": 0.0, "dropout_session": 0.0}
    best = tmp_path / "best.toml"
    given: dict[str, Any] = {"trials": 1, "settings": {**fixed, "batch_size": 64}, "out": best}
    first = tune(data, "narm", features=features, **given).trials[0]
    model = nextclick.build("narm", {**given["settings"], **first.settings})
    model.fit(data.train, features=features)
    assert model.measure(data.validation) == pytest.approx(dict(first.metrics))
    assert f"--features DIR, those of fingerprint {features.fingerprint}" in best.read_text("utf-8")
    with pytest.raises(ConfigError, match="a search with another features"):
        tune(data, "narm", **given)
    with pytest.raises(ConfigError, match="markov reads no item features"):
        tune(data, "markov", features=features)
    words = ["tune", str(folder / "data"), "narm", "--trials", "1", "--features", str(tmp_path / "features")]
    words += [word for name, value in fixed.items() for word in ("--set", f"{name}={value}")]
    done = CliRunner().invoke(main, [*words, "--out", str(tmp_path / "cli.toml")])
    assert done.exit_code == 0, done.output
    assert f"narm --features {tmp_path / 'features'} --settings" in done.output
