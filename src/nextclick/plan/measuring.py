"""Measures what preparing, fitting, evaluating and serving take, each subject in a process of its own.

Seconds are core seconds: what one core would take, and what several share where a step runs on several.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import gc
import importlib.util
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from nextclick import __version__, machine
from nextclick.artifact import load
from nextclick.errors import ConfigError, NextclickError
from nextclick.files import directory_size
from nextclick.models import MODELS, build, find
from nextclick.network.all_items import AllItemsRecommender
from nextclick.network.recommender import NeuralRecommender, TrainedRecommender
from nextclick.plan import logs
from nextclick.plan.costs import Cost, Counts, UnitCosts, fitted
from nextclick.recommender import Recommender, Run
from nextclick.rerank.composite import Composite
from nextclick.settings import settings_of

Progress = Callable[[str, int, int], None]
"""Called with (what is measured, subjects done, of all)."""

Grid = Sequence[tuple[int, int]]
"""Sizes to measure at: (events, items)."""

_LINEAR = ("fixed", "events", "items")
_EVERY_ITEM = ("fixed", "events", "events*items")
_ASKED = 300  # lists timed one by one, and predictions timed together, at most
_SECONDS = 4.0  # for them, at most


def grid_of(subject: str, *, quick: bool) -> Grid:
    """Return the sizes that an engine or a model is measured at; fewer clicks for what takes long."""
    if subject == "spark":
        return ((50_000, 5_000), (200_000, 20_000)) if quick else ((200_000, 20_000), (1_000_000, 100_000))
    if subject == "duckdb":
        sizes = (100_000, 400_000) if quick else (1_000_000, 4_000_000)
        return tuple((events, items) for events in sizes for items in (sizes[0] // 20, sizes[0] // 2))
    if issubclass(find(subject), TrainedRecommender | Composite):
        sizes = (4_000, 16_000) if quick else (6_000, 24_000)
        ratio = (2_000, 10_000) if quick else (10_000, 30_000)
    else:
        sizes = (30_000, 120_000) if quick else (400_000, 1_600_000)
        ratio = (3_000, 30_000) if quick else (20_000, 200_000)
    return tuple((events, items) for events in sizes for items in ratio)


def measure(
    subjects: Sequence[str], *, quick: bool = True, command: str = "", progress: Progress | None = None
) -> UnitCosts:
    """Measure engines ("duckdb", "spark") and models, and return their unit costs on this machine.

    quick: at small sizes, which take some seconds for each, and times only: at such sizes memory is mostly
    buffers, and bytes are the same on other machines, so those are taken from the costs that are shipped.
    Raises ConfigError for an unknown subject, or where the measuring of one ends early.
    """
    for subject in subjects:
        if subject not in ("duckdb", "spark"):
            find(subject)
    tell = progress or (lambda what, done, total: None)
    costs: list[Cost] = []
    for number, subject in enumerate(subjects):
        tell(subject, number, len(subjects))
        rows = _in_own_process(subject, grid_of(subject, quick=quick))
        if quick:
            rows = [row for row in rows if row[1] == "seconds"]
            shipped = UnitCosts.shipped().costs
            costs += (cost for cost in shipped if cost.subject == subject and cost.quantity != "seconds")
        costs += _costs(subject, rows)
    tell("measured", len(subjects), len(subjects))
    about = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": machine.cores(),
        "memory": machine.memory(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "nextclick": __version__,
        "python": platform.python_version(),
        "command": command,
        "logs": logs.SHAPE,
    }
    return UnitCosts(about, tuple(costs))


def subjects_here(models: Sequence[str] = ()) -> list[str]:
    """Return what can be measured here: the engines and models whose extras are installed."""
    found = ["duckdb"]
    if importlib.util.find_spec("pyspark") and (os.environ.get("JAVA_HOME") or shutil.which("java")):
        found.append("spark")
    has_torch = importlib.util.find_spec("torch") is not None
    for name in models or MODELS:
        trained = issubclass(find(name), TrainedRecommender | Composite)
        if has_torch or not trained:
            found.append(name)
    return found


def processor() -> str:
    """Return the name of the processor, as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


Row = tuple[str, str, int, int, float]
"""Step, quantity, events, items, value."""


def _costs(subject: str, rows: Sequence[Row]) -> Iterator[Cost]:
    for step, quantity in dict.fromkeys((row[0], row[1]) for row in rows):
        measured = [(Counts(row[2], row[3]), row[4]) for row in rows if row[:2] == (step, quantity)]
        terms: tuple[str, ...] = _LINEAR
        if step == "process":
            terms = ("fixed",)
        elif step == "fit" and quantity == "seconds" and subject in MODELS:
            terms = _EVERY_ITEM if issubclass(MODELS[subject], AllItemsRecommender) else _LINEAR
        elif step in ("evaluate", "serve") and quantity == "seconds":
            terms = ("fixed", "items")
        elif step == "serve" and issubclass(find(subject), NeuralRecommender):
            terms = ("fixed", "items")  # a network holds no clicks
        elif subject == "spark":
            terms = ("fixed", "events")
        yield fitted(step, subject, quantity, terms, measured)


def _in_own_process(subject: str, grid: Grid) -> list[Row]:
    """Measure one subject in a fresh process, so that no memory of another one is counted."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(theirs, subject, tuple(grid)), daemon=False)
    process.start()
    theirs.close()
    try:
        outcome = ours.recv()
    except EOFError:
        process.join()
        raise ConfigError(
            f"measuring {subject}: the process ended with {process.exitcode} (-9: most likely the memory "
            "did not suffice); measure fewer models with --model, or on a larger machine"
        ) from None
    finally:
        if process.is_alive() and sys.exc_info()[0] is not None:
            process.terminate()
        process.join()
        ours.close()
    if isinstance(outcome, str):
        raise ConfigError(f"measuring {subject}: {outcome}")
    return outcome


def _work(pipe: Connection, subject: str, grid: Grid) -> None:
    try:
        with tempfile.TemporaryDirectory(prefix="nextclick-plan-") as folder:
            measured = _prepare if subject in ("duckdb", "spark") else _model
            pipe.send(list(measured(subject, grid, Path(folder))))
    except (NextclickError, OSError) as error:
        pipe.send(str(error))


def _prepare(engine: str, grid: Grid, folder: Path) -> Iterator[Row]:
    from nextclick.prepare import prepare

    warm = folder / "warm.parquet"
    logs.log(Counts(2_000, 100), warm)
    prepare(warm, out=folder / "warm", engine=engine)
    yield "process", "memory", 0, 0, float(_resident(trimmed=True))
    for number, (events, items) in enumerate(grid):
        file, out = folder / f"{number}.parquet", folder / f"{number}"
        logs.log(Counts(events, items), file)
        with _watched(_with_started if engine == "spark" else time.process_time) as taken:
            prepare(file, out=out, engine=engine)
        yield "prepare", "seconds", events, items, taken["seconds"]
        if engine == "duckdb":  # Spark's memory is that of its Java machine, as it is told
            yield "prepare", "memory", events, items, taken["memory"]
        yield "prepare", "disk", events, items, float(directory_size(out))
        shutil.rmtree(out)
        file.unlink()


def _model(name: str, grid: Grid, folder: Path) -> Iterator[Row]:
    small = logs.sessions(Counts(2_000, 300))
    warm = _once(name).fit(small)  # compiles
    warm.measure(small[:50])
    warm.recommend([1, 2])
    del warm
    yield "process", "memory", 0, 0, float(_resident(trimmed=True))
    for number, (events, items) in enumerate(grid):
        made, path = logs.sessions(Counts(events, items)), folder / str(number)
        model = _once(name)
        with _watched() as taken:
            model.fit(made, run=Run(device="cpu"))
        yield "fit", "seconds", events, items, taken["seconds"]
        yield "fit", "memory", events, items, taken["memory"]
        model.save(path)
        del model
        yield "fit", "disk", events, items, float(directory_size(path))
        before = _resident(trimmed=True)
        model = load(path)
        seconds = [_timed(model, made.vocabulary.ids_of(made.items[at : at + 3])) for at in range(20)]
        deadline = time.perf_counter() + _SECONDS
        for at in range(20, _ASKED):
            seconds.append(_timed(model, made.vocabulary.ids_of(made.items[3 * at : 3 * at + 3])))
            if time.perf_counter() > deadline:
                break
        yield "serve", "memory", events, items, max(0.0, float(_resident() - before))
        yield "serve", "seconds", events, items, float(np.median(seconds[10:]))
        asked = int(np.clip(_SECONDS / np.median(seconds[10:]), 20, 20 * _ASKED))
        start = time.process_time()
        model.measure(made, at_most=asked)
        yield "evaluate", "seconds", events, items, (time.process_time() - start) / min(asked, made.n_pairs)
        del model
    if issubclass(find(name), NeuralRecommender):
        yield from _of_many_clicks(name, 50 * max(events for events, _ in grid))


class _Begun(Exception):
    """A training has made its first step."""


def _of_many_clicks(name: str, most: int) -> Iterator[Row]:
    """Measure what a network's training holds for the clicks: more of them than could be trained on here.

    It holds that from its first step on, at which it is stopped; in a few clicks it would not be seen beside
    the memory of a step.
    """

    def stop(what: str, done: int, total: int) -> None:
        raise _Begun

    for events in (most // 4, most):
        made = logs.sessions(Counts(events, 1000))
        with _watched() as taken, contextlib.suppress(_Begun):
            _once(name).fit(made, run=Run(device="cpu"), progress=stop)
        yield "fit", "memory", events, 1000, taken["memory"]


def _once(name: str) -> Recommender:
    """Return a model that is trained for one epoch, if for any, and not validated; all else by default.

    The scores of a validation take as much memory as they are given, which on logs as small as these would
    look like memory for each click.
    """
    trained = {"epochs": 1, "validation": 0.0}
    names = {of.name for of in settings_of(find(name))}
    return build(name, {of: value for of, value in trained.items() if of in names})


def epochs_of(name: str) -> int | None:
    """Return how many epochs a model trains for by default, at most; None where it knows none."""
    return getattr(find(name), "epochs", None)


def _timed(model: Recommender, session: Sequence[Any]) -> float:
    start = time.process_time()
    model.recommend(session)
    return time.process_time() - start


def _with_started() -> float:
    """Return the seconds that the cores have worked for this process and those that it started (Linux)."""
    parents: dict[int, list[tuple[int, int]]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        worked = sum(map(int, fields[11:15]))  # of its own, and of its children that have ended
        parents.setdefault(int(fields[1]), []).append((int(folder.name), worked))
    below = list(parents.get(os.getpid(), ()))
    for child, _ in below:
        below += parents.get(child, ())
    return time.process_time() + sum(worked for _, worked in below) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _watched(clock: Callable[[], float] = time.process_time) -> Iterator[dict[str, float]]:
    """Yield a mapping that gets the core seconds of the block and the bytes it took beyond those before.

    Core seconds, not those of a clock: on a machine that does other things too, that would measure those.
    """
    taken: dict[str, float] = {}
    before = _resident(trimmed=True)
    _forget_peak()
    start = clock()
    yield taken
    taken["seconds"] = clock() - start
    taken["memory"] = float(max(0, _peak() - before))


def _resident(*, trimmed: bool = False) -> int:
    """Return the resident bytes of this process; trimmed: after what is free was given back."""
    if trimmed:
        gc.collect()
        if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
            ctypes.CDLL("libc.so.6").malloc_trim(0)
    return _status("VmRSS")


def _forget_peak() -> None:
    """Let the system count the peak from here on."""
    try:
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    except OSError:  # not Linux, or not allowed: the peak is that of the whole process, which is more
        return


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(name))
    except (OSError, StopIteration):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
