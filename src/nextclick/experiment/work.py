"""Doing the rows of an experiment, each once: prepare, fit, evaluate, keep."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nextclick import __version__, artifact, evaluation
from nextclick.dataset import Dataset
from nextclick.errors import DataError, NextclickError
from nextclick.experiment.spec import FILES, Experiment, Row
from nextclick.features import Features
from nextclick.files import new_directory, sha256, write_json
from nextclick.models import build
from nextclick.prepare import prepare
from nextclick.recommender import Recommender, Run
from nextclick.settings import values_of

Progress = Callable[[str, int, int], None]
"""Called with (what is going on, done, total); total 0 where it is not known."""

LENGTHS = tuple(range(1, 21))  # of prefixes, each counted by itself; 20 and more together
BOOTSTRAP_SEED = 0
ANSWERS = "answers.npz"


@dataclass(frozen=True)
class Task:
    """One fit of one row: on a data set, with a seed; ``folder`` keeps what came of it.

    generators: the fits of other rows whose models this one builds on; they have to be done before.
    features: what it reads of the items.
    """

    row: Row
    seed: int | None
    dataset: Dataset
    key: Mapping[str, Any]
    folder: Path
    generators: tuple[Task, ...] = ()
    features: Features | None = None

    def model(self) -> Recommender:
        """Return the recommender, not fitted, over the models of its generators."""
        generators = [artifact.load(one.folder / "model") for one in self.generators]
        return build(
            self.row.model, _with_seed(self.row, self.seed), full=self.row.full, generators=generators
        )

    def done(self) -> dict[str, Any] | None:
        """Return what was measured, if it was. Raises DataError when it cannot be read."""
        file = self.folder / "result.json"
        if not file.exists():
            return None
        try:
            content = json.loads(file.read_text("utf-8"))
            if content["key"] != json.loads(json.dumps(self.key)):
                raise ValueError("it belongs to another row")
            return dict(content["result"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file}: unreadable ({error}); remove {self.folder} to run it again") from error


def datasets_of(experiment: Experiment, out: Path, progress: Progress) -> list[Dataset]:
    """Return the data of an experiment, one per slice, prepared below ``out`` unless they are there already.

    Raises DataError when files are missing, or changed since they were prepared.
    """
    wanted = dict(experiment.data)
    if "prepared" in wanted:
        return [Dataset.load(experiment.folder / wanted["prepared"], verify=True)]
    files = {name: wanted.pop(name) for name in FILES if name in wanted}
    paths = {name: _paths(experiment, given) for name, given in files.items()}
    about = [experiment.data, experiment.folder.resolve().as_posix()]
    target = out / "data" / _digest(about) / experiment.name
    if not target.exists():
        # What the log lacks is found by the preparation, where files lack it is said here.
        for patterns in paths.values():
            for pattern in patterns:
                if not glob.glob(pattern):
                    raise DataError(
                        f"{pattern}: no such file; files of {experiment.name} are looked for in "
                        f"{experiment.folder}, name another folder with --data"
                    )
        prepare(**paths, **wanted, out=target, progress=lambda step: progress(f"prepare: {step}", 0, 0))  # type: ignore[arg-type]
    slices = wanted.get("slices")
    folders = [target / f"slice-{i + 1}" for i in range(slices)] if slices else [target]
    datasets = [Dataset.load(folder, verify=True) for folder in folders]
    for source in datasets[0].info["sources"]:
        file = Path(source["file"])
        if file.exists() and file.stat().st_size != source["bytes"]:
            raise DataError(
                f"{file}: changed since it was prepared in {target}; remove that folder to prepare it again, "
                "or choose another --out"
            )
    return datasets


def features_of(experiment: Experiment, out: Path, progress: Progress) -> dict[str, Features]:
    """Return the features that rows of an experiment read, by name, made below ``out`` if they are not there.

    Raises ArtifactError for a directory that holds none, and what making them raises.
    """
    found = {}
    for name in dict.fromkeys(row.features for row in experiment.rows if row.features is not None):
        given = experiment.features[name]
        if isinstance(given, Path):
            found[name] = Features.load(given)
            continue
        for file in (given.items, *given.vectors.values()):
            if not file.is_file():
                raise DataError(f"{file}: no such file; the features {name!r} are made from it")
        files = [sha256(file) for file in (given.items, *given.vectors.values())]
        folder = out / "features" / f"{name}-{_digest([dataclasses.asdict(given), files, __version__])}"
        if not folder.exists():
            pictures = folder.with_name(f"{folder.name}.pictures")

            def tell(what: str, done: int, total: int, name: str = name) -> None:
                progress(f"features {name}: {what}", done, total)

            given.made(work=pictures, progress=tell).save(folder)
            shutil.rmtree(pictures, ignore_errors=True)
        found[name] = Features.load(folder)
    return found


def _paths(experiment: Experiment, given: str | list[str]) -> list[str]:
    patterns = [given] if isinstance(given, str) else given
    return [str(experiment.folder / pattern) for pattern in patterns]


def tasks_of(
    row: Row,
    datasets: list[Dataset],
    out: Path,
    others: Mapping[str, Sequence[Task]],
    features: Mapping[str, Features],
) -> list[Task]:
    """Return what is to be fitted for a row: every seed on every data set.

    others: the tasks of the rows above, by label. A generator is taken with the same seed where its row has
    it, else with its row's first.  features: by name.
    """
    tasks = []
    read = None if row.features is None else features[row.features]
    for n, dataset in enumerate(datasets, start=1):
        for seed in row.seeds:
            generators = tuple(_with(others[label], dataset, seed) for label in row.generators)
            stand_in = [build("pop") for _ in generators]  # their number is what settings depend on
            key = {
                "model": row.model,
                "settings": values_of(
                    build(row.model, _with_seed(row, seed), full=row.full, generators=stand_in)
                ),
                "full": row.full,
                "data": dataset.fingerprint,
                "nextclick": __version__,
                **({"generators": [one.folder.name for one in generators]} if generators else {}),
                **({"features": read.fingerprint} if read is not None else {}),
            }
            words = [row.model, *[f"slice-{n}"] * (len(datasets) > 1), *[f"seed-{seed}"] * (seed is not None)]
            folder = out / "runs" / "-".join([*words, _digest(key)])
            tasks.append(Task(row, seed, dataset, key, folder, generators, read))
    return tasks


def _with(tasks: Sequence[Task], dataset: Dataset, seed: int | None) -> Task:
    """Return the task of a data set and a seed, or the first of that data set."""
    there = [task for task in tasks if task.dataset is dataset]
    return next((task for task in there if task.seed == seed), there[0])


def do(task: Task, progress: Progress) -> dict[str, Any]:
    """Fit and evaluate, keep model and result, and return the result; stopped, a network goes on later.

    A row that fails gives ``{"error": why}``, and is tried again the next time.
    """
    begun = time.perf_counter()
    checkpoints = task.folder.with_name(f"{task.folder.name}.checkpoints")
    name = f"{task.row.label}{f', seed {task.seed}' if task.seed is not None else ''}"
    try:
        sessions = task.dataset.full if task.row.full else task.dataset.train
        model = task.model().fit(
            sessions,
            features=task.features,
            progress=lambda what, done, total: progress(f"{name}, {what}", done, total),
            run=Run(checkpoints=checkpoints, candidates=task.folder.parent.parent / "candidates"),
        )
        seconds = time.perf_counter() - begun
        kept = task.folder.with_name(f"{task.folder.name}.{ANSWERS}")
        kept.unlink(missing_ok=True)  # of a run that was stopped
        report = evaluation.evaluate(
            {model.name: model}, task.dataset, prefix_lengths=LENGTHS, seed=BOOTSTRAP_SEED,
            kept={model.name: kept},
            progress=lambda _, done, total: progress(f"{name}, evaluating", done, total),
        )  # fmt: skip
    except (NextclickError, MemoryError, RuntimeError) as error:  # a network out of memory: RuntimeError
        return {"error": f"{type(error).__name__}: {error}"}
    of_model = report.to_json()["models"][0]
    result = {
        "pairs": report.pairs,
        "sessions": report.sessions,
        "metrics": dict(report.models[0].metrics),
        "intervals": of_model["intervals"],
        "slices": of_model["slices"],
        "predictions_per_second": of_model["predictions_per_second"],
        "latency_p50_ms": of_model["latency_p50_ms"],
        "latency_p99_ms": of_model["latency_p99_ms"],
        "fit_seconds": seconds,
        "epochs": model.facts.get("epochs", []),
    }
    with new_directory(task.folder) as aside:
        model.save(aside / "model")
        kept.rename(aside / ANSWERS)
        write_json(aside / "result.json", {"key": task.key, "result": result})
    shutil.rmtree(checkpoints, ignore_errors=True)
    return result


def _with_seed(row: Row, seed: int | None) -> dict[str, Any]:
    return {**row.settings, **({} if seed is None else {"seed": seed})}


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:10]
