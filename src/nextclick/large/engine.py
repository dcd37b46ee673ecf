"""A database over the shards of prepared data, which works out what neighbour models learn."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextclick import machine
from nextclick.dataset import Dataset
from nextclick.errors import ArtifactError, ConfigError, DataError
from nextclick.files import room
from nextclick.fitting import FitProgress, NeighbourEngine, Norms
from nextclick.large import steps
from nextclick.large.shards import checked_shards
from nextclick.prepare.engines import DuckDB, Engine
from nextclick.sessions import Sessions

ENGINES = ("duckdb", "spark")
_PAIR_BYTES = 64  # of one pair of items while it is counted and ranked, about
_BUCKET_PAIRS = 16_000_000  # more are slower to count: they fall out of the processor's caches
_BLOCK = 1 << 21  # sessions that are collected at once


@contextmanager
def open_engine(
    name: str, dataset: Dataset, *, beside: Path | None = None, memory: int | None = None
) -> Iterator[NeighbourEngine]:
    """Open DuckDB or Spark over the shards of prepared data, to be given to ``fit`` in its ``Run``.

    name: "duckdb" or "spark", the session that runs in this process or one of its own;  beside: temporary
    files lie in a folder next to this path, removed at the end; beside the data, if not given;  memory: bytes
    that DuckDB works in before it spills to them, 60% of the machine's if not given; of a Spark that is
    started here, 4 GiB if not given.

    Raises ConfigError for another name, ArtifactError for a shard that is missing or damaged,
    MissingExtraError without pyspark, and DataError without Java or when the disk is full.
    """
    if name not in ENGINES:
        raise ConfigError(f"no engine {name!r}: choose one of {', '.join(ENGINES)}")
    files = checked_shards(dataset)
    beside = (beside or dataset.path or Path()).absolute()
    with room(beside):
        beside.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{beside.name}.", dir=beside.parent))
    try:
        work = folder / "work"
        work.mkdir()
        with room(beside), _opened(name, work, files, memory) as engine:
            engine.read("events", files)
            yield Counting(engine, dataset, memory or machine.memory() * 6 // 10)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _opened(name: str, work: Path, files: list[Path], memory: int | None) -> Engine:
    if name == "spark":
        from nextclick.prepare.spark import Spark

        return Spark(work, memory)
    return DuckDB(work, files, memory)


class Counting:
    """See ``fitting.NeighbourEngine``. What leaves the engine are sizes and pruned lists, never all pairs.

    memory: bytes; the pairs are counted in so many buckets of items that those of one fit in half of it.
    """

    def __init__(self, engine: Engine, dataset: Dataset, memory: int) -> None:
        self.engine, self.dataset, self.memory = engine, dataset, memory

    def item_neighbours(
        self, sessions: Sessions, *, pairs: str, counts: str, norms: Norms, keep: int, tell: FitProgress
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
        self._check(sessions)
        engine, n_items = self.engine, sessions.n_items
        engine.drop("held", "followed", "wanted", "sizes", "norms")  # of a fit that was interrupted
        tell("reading sessions", 0, 1)
        if pairs == "anchor":
            (size, counted), count = self._followed(sessions, counts), "COUNT(*)"
        else:
            how = "COUNT(*)" if counts == "clicks" else "1"
            engine.table("held", steps.HELD.format(n=how, n_sessions=len(sessions)))
            of_item = self._sizes(steps.HELD_SIZES, n_items)
            size, counted = (of_item, of_item), steps.HELD_COUNTS
            count = "CAST(SUM(a.n * b.n) AS BIGINT)" if counts == "clicks" else "COUNT(*)"
        of_row, of_column = norms(*size)
        codes = np.arange(n_items, dtype=np.int32)
        engine.give("norms", item=codes, of_row=of_row, of_column=of_column)
        found = engine.rows(steps.FOLLOWED_PAIRS if pairs == "anchor" else steps.HELD_PAIRS)[0][0]
        at_once = min(_BUCKET_PAIRS, max(1, self.memory // (2 * _PAIR_BYTES)))
        buckets = max(1, min(n_items, -(-int(found or 0) // at_once)))
        parts = []
        for bucket in range(buckets):
            tell("counting pairs", bucket, buckets)
            engine.drop(f"nearest_{bucket}")
            by_bucket = counted.format(buckets=buckets, bucket=bucket, count=count)
            parts.append(self._collected(f"nearest_{bucket}", steps.NEAREST, counts=by_bucket, keep=keep))
        tell("counting pairs", buckets, buckets)
        engine.drop("held", "followed", "wanted", "norms")
        lengths = sum(np.bincount(part["i"], minlength=n_items) for part in parts)
        offsets = np.r_[0, np.cumsum(lengths)].astype(np.int64)
        items, weights = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.float64)
        for part in parts:
            at = offsets[part["i"]] + part["place"] - 1
            items[at], weights[at] = part["j"], part["weight"]
        return offsets, items, weights

    def _followed(
        self, sessions: Sessions, counts: str
    ) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], str]:
        """Make the table of clicks to predict and the ones before; return its sizes, and how to count it."""
        event = wanted = ""
        if sessions.target_name is not None:
            self.engine.give("wanted", event=np.array([sessions.target_name], dtype=object))
            event, wanted = ", event", "JOIN wanted AS w ON w.event = s.event"
        distinct = "DISTINCT" if counts == "sessions" else ""
        self.engine.table(
            "followed",
            steps.FOLLOWED.format(n_sessions=len(sessions), distinct=distinct, event=event, wanted=wanted),
        )
        of_row, of_column = (
            self._sizes(steps.FOLLOWED_SIZES.format(side=side), sessions.n_items) for side in ("i", "j")
        )
        return (of_row, of_column), steps.FOLLOWED_COUNTS

    def _sizes(self, sql: str, n_items: int) -> NDArray[np.float64]:
        """Return the occurrences of each item, [n_items]."""
        self.engine.table("sizes", sql)
        found = self.engine.deliver(["sizes"]).columns("SELECT item, n FROM sizes")
        self.engine.drop("sizes")
        sizes = np.zeros(n_items)
        sizes[found["item"]] = found["n"]
        return sizes

    def _collected(self, name: str, sql: str, **values: int | str) -> dict[str, NDArray[Any]]:
        """Compute pruned lists, and return them, in any order."""
        self.engine.table(name, sql.format(**values))
        found = self.engine.deliver([name]).columns(f"SELECT i, j, weight, place FROM {name}")
        self.engine.drop(name)
        return found

    def recent_sessions(
        self, sessions: Sessions, longest: int, tell: FitProgress
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        self._check(sessions)
        engine = self.engine
        engine.drop("latest", "recent", "recent_clicks")  # of a fit that was interrupted
        tell("reading sessions", 0, 3)
        engine.table("latest", steps.LATEST.format(n_sessions=len(sessions)))
        tell("choosing recent sessions", 1, 3)
        engine.table("recent", steps.RECENT.format(longest=longest))
        engine.table("recent_clicks", steps.RECENT_CLICKS)
        engine.drop("latest", "recent")
        delivered = engine.deliver(["recent_clicks"])
        n_recent, n_clicks = (int(n) for n in delivered.rows(steps.RECENT_SIZES)[0])
        numbers, lengths = np.empty(n_recent, np.int64), np.empty(n_recent, np.int64)
        items, positions = np.empty(n_clicks, np.int32), np.empty(n_clicks, np.int32)
        at = click = 0
        for low in range(0, len(sessions), _BLOCK):
            tell("collecting sessions", low, len(sessions))
            sql = steps.RECENT_BLOCK.format(low=low, high=min(low + _BLOCK, len(sessions)))
            found = delivered.columns(sql)
            some, counts = np.unique(found["session"], return_counts=True)
            numbers[at : at + len(some)], lengths[at : at + len(some)] = some, counts
            items[click : click + len(found["item"])] = found["item"]
            positions[click : click + len(found["item"])] = found["position"]
            at, click = at + len(some), click + len(found["item"])
        engine.drop("recent_clicks")
        return numbers, np.r_[0, np.cumsum(lengths)].astype(np.int64), items, positions

    def _check(self, sessions: Sessions) -> None:
        """Refuse sessions that the shards do not begin with, and shards that are not of the same clicks."""
        whole = self.dataset.sessions
        here = sessions.items.__array_interface__["data"][0] == whole.items.__array_interface__["data"][0]
        if not here or len(sessions) > len(whole) or sessions.offsets[-1] != whole.offsets[len(sessions)]:
            raise DataError(
                "the engine reads the sessions of a prepared data set from its first one on: fit on the "
                "train, full or sessions of the data that it was opened on, or without the engine"
            )
        found = self.engine.rows(steps.SUMS.format(n_sessions=len(sessions)))[0]
        wanted = (len(sessions.items), int(sessions.items.sum(dtype=np.int64)))
        if (int(found[0]), int(found[1] or 0)) != wanted or int(found[2] or 0) >= len(sessions):
            raise ArtifactError(
                f"{self.dataset.path}: its Parquet files hold {found[0]:,} clicks with item codes of sum "
                f"{found[1]}, its arrays {wanted[0]:,} of sum {wanted[1]}: they are not of one preparation; "
                "prepare the data again"
            )
