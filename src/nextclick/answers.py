"""What a model answers to the events of an evaluation, measured event by event, and kept in a file."""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nextclick import metrics
from nextclick.events import Events
from nextclick.files import new_file
from nextclick.filters import Effect, Filter
from nextclick.metrics import TieRule
from nextclick.recommender import Recommender
from nextclick.results import Protocol


@dataclass(frozen=True)
class Asked:
    """What is measured of every answer; the fields are those of ``evaluation.evaluate``."""

    ks: tuple[int, ...]
    protocol: Protocol
    candidates: int | None
    ties: TieRule


@dataclass(frozen=True, eq=False)
class Answer:
    """What one model made of the events.

    columns: metric names;  values: float64 [n_events, n_columns];  shown: metrics of the lists themselves;
    seconds: of ranking all events;  filter, effect: the rules, bound to the model, and what they do to its
    events.
    """

    columns: list[str]
    values: NDArray[np.float64]
    shown: Mapping[str, float]
    seconds: float
    filter: Filter | None = None
    effect: Effect | None = None


def answer(
    model: Recommender,
    events: Events,
    asked: Asked,
    filter: Filter | None = None,
    progress: Callable[[int, int], None] | None = None,
    kept: Path | None = None,
) -> Answer:
    """Let one model answer all events, each a prefix with its targets in the model's codes.

    kept: a file for what it answers, which belongs to this model as it is fitted. It is read where it is of
    the same events and measures, and written where it is not; with a filter it is not looked at.
    Raises DataError where it cannot be written.
    """
    if kept is None or filter is not None:
        return _ranked(model, events, asked, filter, progress)
    key = _key(events, asked)
    found = _read(kept, key)
    if found is None:
        found = _ranked(model, events, asked, None, progress)
        _write(kept, key, found)
    return found


def _ranked(
    model: Recommender,
    events: Events,
    asked: Asked,
    filter: Filter | None,
    progress: Callable[[int, int], None] | None,
) -> Answer:
    from nextclick.ranking import Targets

    ks = asked.ks
    targets = Targets(events.targets, events.bounds)
    model.rank(events.queries[:2], targets[:2], ks[-1], filter=filter)  # compiles
    start = time.perf_counter()
    ranks = model.rank(
        events.queries, targets, ks[-1], n_candidates=asked.candidates, filter=filter, progress=progress
    )
    seconds = time.perf_counter() - start
    first = events.bounds[:-1]
    better, ties = metrics.settle(ranks.better[first], ranks.ties[first], asked.ties)
    of_all = metrics.settle(ranks.better, ranks.ties, asked.ties, events.bounds)
    columns: dict[str, NDArray[np.float64]] = {}
    for k in ks:
        columns[f"recall@{k}"] = metrics.recall(better, ties, k)
        columns[f"mrr@{k}"] = metrics.reciprocal_rank(better, ties, k)
        columns[f"ndcg@{k}"] = metrics.ndcg(better, ties, k)
        if asked.protocol == "remaining":
            rest = metrics.remaining(*of_all, events.bounds, k)
            columns[f"precision@{k}"] = rest.precision
            columns[f"remaining_recall@{k}"] = rest.recall
            columns[f"map@{k}"] = rest.average_precision
    k, no_ties = ks[-1], np.zeros_like(first)
    best = metrics.recall(ranks.better[first], no_ties, k)
    worst = metrics.recall(ranks.better[first] + ranks.ties[first], no_ties, k)
    shown = {
        f"coverage@{k}": metrics.coverage(ranks.top, model.n_items),
        f"gini@{k}": metrics.gini(ranks.top, model.n_items),
        f"popularity@{k}": metrics.popularity(ranks.top, model.support),
        f"tie_spread@{k}": float((best - worst).mean()),
    }
    effect = None
    if filter is not None:
        effect = filter.effect(events.queries.known(model.n_items), events.targets[first])
    values = np.stack(list(columns.values()), axis=1)
    return Answer(list(columns), values, shown, seconds, filter, effect)


def _key(events: Events, asked: Asked) -> str:
    """Digest what was asked of a model: its prefixes, targets and measures."""
    digest = hashlib.sha256(repr(asked).encode())
    queries = events.queries
    for part in (queries.items, queries.starts, queries.ends, events.targets, events.bounds):
        digest.update(f"{part.dtype} {part.shape}".encode())
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def _read(kept: Path, key: str) -> Answer | None:
    """Return what is kept, or None where there is nothing, nothing readable, or something else."""
    try:
        with kept.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            about = json.loads(str(arrays["about"]))
            if about["key"] != key:
                return None
            return Answer(about["columns"], arrays["values"], about["shown"], about["seconds"])
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile):
        return None


def _write(kept: Path, key: str, of: Answer) -> None:
    about = {"key": key, "columns": of.columns, "shown": of.shown, "seconds": of.seconds}
    with new_file(kept) as aside, aside.open("wb") as out:
        np.savez(out, values=of.values, about=np.array(json.dumps(about)))
