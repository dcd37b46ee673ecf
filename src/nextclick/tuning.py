"""Search for the settings of a model on validation sessions, with Optuna, and the file that keeps them.

A search goes on where it was stopped: everything it has tried lies in a folder beside its result, as a
description (search.json) and a journal of JSON lines that Optuna reads back.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from nextclick import __version__
from nextclick.dataset import Dataset
from nextclick.errors import SETTINGS_AT_FAULT, ConfigError, DataError, MissingExtraError, nearest
from nextclick.files import alone, new_file, read_toml, write_json
from nextclick.models import build, find
from nextclick.recommender import FitProgress, Recommender, Run
from nextclick.rerank.candidates import identity
from nextclick.sessions import Sessions
from nextclick.settings import Search, as_text, of_table, settings_of

if TYPE_CHECKING:
    import optuna

    from nextclick.features import Features

Metric = Literal["recall@20", "mrr@20"]
_RANDOM = 10  # trials drawn at random before the search learns from them


@dataclass(frozen=True)
class Trial:
    """One set of settings that was tried.

    number: from 1, the defaults;  settings: those searched;  metrics: recall@20 and mrr@20 on the
    validation sessions, none where the trial failed;  seconds: of fit and measurement.
    """

    number: int
    settings: Mapping[str, Any]
    metrics: Mapping[str, float]
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    settings: the best ones with those held fixed, as ``build`` takes them;  measured_on: in words.
    """

    model: str
    metric: str
    settings: Mapping[str, Any]
    trials: tuple[Trial, ...]
    measured_on: str

    def ranked(self) -> list[Trial]:
        """Return the trials that did not fail, best first; of equal ones the earlier first."""
        return sorted((t for t in self.trials if not t.error), key=lambda t: -t.metrics[self.metric])

    @property
    def best(self) -> Trial:
        """The best trial."""
        return self.ranked()[0]


TuneProgress = Callable[[str, list[Trial]], None]
"""Called with (what is going on, the trials so far) while a search goes on."""


def tune(
    data: Dataset,
    model: str,
    *,
    trials: int = 30,
    settings: Mapping[str, Any] | None = None,
    metric: Metric = "recall@20",
    seed: int = 0,
    out: str | Path | None = None,
    generators: Sequence[Recommender] = (),
    features: Features | None = None,
    progress: TuneProgress | None = None,
) -> Tuned:
    """Search the settings of a model that say where to look (``about(search=...)``), the defaults first.

    Each trial is fitted on the training part and measured on the validation part of ``data``; without one,
    on the latest tenth of the training sessions, and fitted on the rest. The test part is not looked at.
    trials: how many in all, failed ones included;  settings: held fixed; with a ``preset`` among them the
    search starts from it;  out: a TOML file for the best settings so far, and beside it a folder (best.toml:
    best.tune) from which the same search goes on where it was stopped, as if it never had been.
    generators: fitted on the training part, for a model made of others; then a validation part is needed, as
    they have seen the latest tenth.  features: of the items, for a model that reads them.
    A trial that diverges, does not fit in the memory, or whose settings do not go together, counts as failed.

    Proposals are those of Optuna's TPE sampler, each with a seed of its own made of ``seed`` and its number.
    Raises ConfigError for unknown settings, a model with nothing to search, a folder of another search, and
    where every trial fails; DataError for data without sessions to measure on; MissingExtraError without
    Optuna.
    """
    optuna = _optuna()
    if metric not in get_args(Metric):
        raise ConfigError(f"metric={metric!r}: choose one of {', '.join(get_args(Metric))}")
    if trials < 1:
        raise ConfigError(f"trials={trials}: expected at least 1")
    fixed = dict(settings or {})
    start = build(model, fixed, generators=generators)
    ranges = searched(start, fixed)
    if features is not None and not start.reads_features:
        raise ConfigError(f"{model} reads no item features: leave --features out, or search a network")
    if generators and not data.validation.n_pairs:
        raise DataError(
            f"{data.name} has no validation part, and its training part is what the generators were fitted "
            "on: prepare with --validation, fit the generators again, and tune over them"
        )
    fitted, measured, measured_on = _parts(data)
    search = {
        "model": model,
        "metric": metric,
        "fixed": fixed,
        "seed": seed,
        "data": {"name": data.name, "fingerprint": data.fingerprint, "measured on": measured_on},
        "ranges": {name: list(of_setting) for name, of_setting in ranges.items()},
        "nextclick": __version__,
        **({"generators": [identity(one) for one in generators]} if generators else {}),
        **({"features": features.fingerprint} if features is not None else {}),
    }
    run = Run(candidates=Path(out).with_suffix(".tune") / "candidates" if out and generators else None)
    file = None if out is None else Path(out)
    with _study(optuna, file, search) as study:
        done = _trials(study)

        def tell(what: str = "") -> None:
            if progress is not None:
                progress(what, done)

        spaces = {name: _distribution(optuna, ranges[name], getattr(start, name)) for name in ranges}
        while len(done) < trials:
            # A sampler of its own, so that the proposal depends on the trials before and nothing else.
            own_seed = int(np.random.SeedSequence([seed, len(done)]).generate_state(1)[0])
            study.sampler = optuna.samplers.TPESampler(n_startup_trials=_RANDOM, seed=own_seed)
            if not done and not study.get_trials(states=(optuna.trial.TrialState.WAITING,)):
                study.enqueue_trial({name: getattr(start, name) for name in ranges})
            trial = study.ask(spaces)
            tried = build(model, {**fixed, **trial.params}, generators=generators)
            heard: FitProgress = lambda what, at, total: tell(what)  # noqa: E731
            _try(study, trial, tried, fitted, measured, metric, features, heard, run)
            done = _trials(study)
            found = Tuned(model, metric, {}, tuple(done), measured_on)
            if file is not None and found.ranked() and found.best is done[-1]:
                _write(file, _chosen(found, fixed, generators), search)
            tell()
    found = _chosen(Tuned(model, metric, {}, tuple(done), measured_on), fixed, generators)
    if file is not None:
        _write(file, found, search)
    return found


def read_settings(model: str, path: Path) -> dict[str, Any]:
    """Read a file of settings, as ``tune`` writes it: ``model`` and a table ``[settings]``.

    Raises ConfigError when it is of another model, or names something that is no setting of this one.
    """
    content = read_toml(path)
    for name in content:
        if name not in ("model", "settings"):
            hint = nearest(name, ("model", "settings"))
            raise ConfigError(f"{path}: {name!r} has no place in a file of settings{hint}")
    if content.get("model", model) != model:
        raise ConfigError(f"{path}: these are settings of {content['model']}, not of {model}; name that one")
    table = content.get("settings")
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: it has no table of settings; write them below a line [settings]")
    try:
        return of_table(find(model), table)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


# -- what is searched, and on what


def searched(start: Recommender, fixed: Mapping[str, Any]) -> dict[str, Search]:
    """Return where ``tune`` looks, by name of setting, when it starts from a recommender.

    A setting that starts as none, or at 0 of a logarithmic scale, is off and left so. Raises ConfigError
    where there is nothing to search.
    """
    ranges: dict[str, Search] = {}
    for field in settings_of(start):
        search, value = field.metadata.get("search"), getattr(start, field.name)
        if search is None or field.name in fixed:
            continue
        log = isinstance(search, tuple) and search[0] == "log"
        if isinstance(search, tuple) and (value is None or (log and value <= 0)):
            continue
        ranges[field.name] = search
    if not ranges:
        raise ConfigError(
            f"{start.name}: there is nothing to search, all its settings are fixed or have no range; "
            "leave some of --set out, or choose another model"
        )
    return ranges


def _distribution(optuna: Any, search: Search, start: Any) -> Any:
    """Return Optuna's form of a range, widened where the search starts outside of it."""
    if isinstance(search, list):
        return optuna.distributions.CategoricalDistribution(search if start in search else [*search, start])
    log, (low, high) = search[0] == "log", search[-2:]
    low, high = min(low, start), max(high, start)
    whole = isinstance(start, int)
    kind = optuna.distributions.IntDistribution if whole else optuna.distributions.FloatDistribution
    return kind(low, high, log=log)


def _parts(data: Dataset) -> tuple[Sessions, Sessions, str]:
    """Return the sessions to fit on, those to measure on, and what these are in words."""
    if data.validation.n_pairs:
        fitted, measured, measured_on = data.train, data.validation, "the validation part"
    else:
        held_out = max(1, len(data.train) // 10)
        fitted, measured = data.train[:-held_out], data.train[-held_out:]
        measured_on = "the latest tenth of the training sessions"
    if not fitted.n_pairs or not measured.n_pairs:
        raise DataError(f"{data.name}: too few sessions to search on; prepare more of the log")
    return fitted, measured, measured_on


def _try(
    study: optuna.Study, trial: optuna.Trial, model: Recommender, fitted: Sessions, measured: Sessions,
    metric: Metric, features: Features | None, progress: FitProgress, run: Run,
) -> None:  # fmt: skip
    """Fit a model, measure it, and tell the study."""
    import optuna

    begun = time.perf_counter()
    try:
        model.fit(fitted, features=features, progress=progress, run=run)
        reached = model.measure(measured, progress=lambda done, total: progress("measuring", done, total))
    except (*SETTINGS_AT_FAULT, MemoryError) as error:
        trial.set_user_attr("seconds", time.perf_counter() - begun)
        trial.set_user_attr("error", str(error) or type(error).__name__)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return
    trial.set_user_attr("seconds", time.perf_counter() - begun)
    trial.set_user_attr("metrics", reached)
    study.tell(trial, reached[metric])


def _trials(study: optuna.Study) -> list[Trial]:
    """Return the trials that came to an end, in order; those that were interrupted do not count."""
    ended = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished() and (trial.values or "error" in trial.user_attrs)
    ]
    return [
        Trial(
            number, trial.params, trial.user_attrs.get("metrics", {}), trial.user_attrs["seconds"],
            trial.user_attrs.get("error", ""),
        )
        for number, trial in enumerate(ended, start=1)
    ]  # fmt: skip


def _chosen(found: Tuned, fixed: Mapping[str, Any], generators: Sequence[Recommender]) -> Tuned:
    """Add the best settings. Raises ConfigError when every trial failed."""
    if not found.ranked():
        raise ConfigError(
            f"{found.model}: all {len(found.trials)} trials failed; the last one: {found.trials[-1].error}"
        )
    model = build(found.model, {**fixed, **found.best.settings}, generators=generators)
    named = {*fixed, *found.best.settings}
    values = {
        field.name: getattr(model, field.name)
        for field in settings_of(model)
        if field.name in named or getattr(model, field.name) != field.default
    }
    return Tuned(found.model, found.metric, values, found.trials, found.measured_on)


# -- the folder of a search, and its result


@contextmanager
def _study(optuna: Any, file: Path | None, search: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the study of a search, with the trials made so far; in memory where there is no file."""
    said = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        if file is None:
            yield optuna.create_study(direction="maximize")
            return
        folder = file.with_suffix(".tune")
        if file == folder:
            raise ConfigError(f"{file}: the result is a TOML file; choose a name like best.toml")
        if file.exists() and not folder.exists():
            raise DataError(f"{file} exists already: choose another name with --out, or remove it")
        with alone(folder):
            _same_search(folder / "search.json", search)
            journal = folder / "journal.log"
            _mend(journal)
            storage = optuna.storages.journal.JournalFileBackend(str(journal))
            study = optuna.create_study(
                storage=optuna.storages.JournalStorage(storage),
                study_name="search",
                direction="maximize",
                load_if_exists=True,
            )
            for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # interrupted
            yield study
    finally:
        optuna.logging.set_verbosity(said)


def _same_search(file: Path, search: Mapping[str, Any]) -> None:
    """Write down what is searched, or make sure that it is what was searched here before."""
    if not file.exists():
        write_json(file, search)
        return
    try:
        before = json.loads(file.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"{file}: unreadable ({error}); remove {file.parent} to begin anew") from error
    asked = json.loads(json.dumps(search))
    before = before if isinstance(before, dict) else {}
    for name in {**asked, **before}:
        found, value = before.get(name), asked.get(name)
        if found != value:
            raise ConfigError(
                f"{file.parent} holds a search with another {name}: {_in_words(found)}; now it is "
                f"{_in_words(value)}\n  choose another --out, or remove that folder to begin anew"
            )


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}={_in_words(of)}" for name, of in value.items()) or "nothing"
    return as_text(value)


def _mend(journal: Path) -> None:
    """Take away what a killed process left: half a line at the end, and Optuna's lock."""
    journal.with_name(journal.name + ".lock").unlink(missing_ok=True)
    if journal.exists():
        with journal.open("r+b") as stream:
            content = stream.read()
            stream.truncate(content.rfind(b"\n") + 1)


def _write(file: Path, found: Tuned, search: Mapping[str, Any]) -> None:
    """Write the best settings as TOML, with comments on how they were found."""
    best, first, data = found.best, found.trials[0], search["data"]
    n, failed = len(found.trials), sum(bool(trial.error) for trial in found.trials)
    fixed = ", ".join(f"{name}={as_text(value)}" for name, value in search["fixed"].items())
    given = f" --features DIR, those of fingerprint {search['features']}" if "features" in search else ""
    comments = [
        f"Settings of {found.model}, the best of {n} trial{'s' * (n > 1)} ({failed} failed) by "
        f"{found.metric}; trial {best.number}.",
        f"Measured on {found.measured_on} of {data['name']}: {_figures(best)}"
        + (f"; the first trial: {_figures(first)}." if not first.error else "."),
        f"Data fingerprint {data['fingerprint']}.",
        f"Held fixed: {fixed or 'nothing'}. Seed of the search: {search['seed']}. nextclick {__version__}.",
        f"To use it: nextclick fit DATA {found.model} --settings {file.name} --out DIR{given}",
    ]
    lines = [f"# {''.join(c if c.isprintable() else ' ' for c in comment)}" for comment in comments]
    lines += ["", f'model = "{found.model}"', "", "[settings]"]
    lines += [f"{name} = {_toml(value)}" for name, value in found.settings.items()]
    with new_file(file) as aside:
        aside.write_text("\n".join(lines) + "\n", "utf-8")


def _figures(trial: Trial) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in trial.metrics.items())


def _toml(value: Any) -> str:
    """Return a setting as a TOML value; none, which TOML lacks, as a text that is read back as none."""
    if value is None or isinstance(value, str):
        return json.dumps("none" if value is None else value, ensure_ascii=False)
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise MissingExtraError("the search for settings", "tune") from None
    return optuna
