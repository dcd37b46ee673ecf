"""The last stage, the same for all engines: sorted clicks to arrays, and the readable Parquet files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextclick.dataset import fingerprint_of
from nextclick.errors import DataError
from nextclick.prepare.engines import DuckDB
from nextclick.sessions import Vocabulary, targets_of

PARTS = ("train", "validation", "test")
MAX_EVENTS = 256
SHARD_CLICKS = 8_000_000


@dataclass(frozen=True)
class Delivered:
    """The tables of one data set, by name, and what they hold.

    bounds: sessions before validation, before test, and in all;  order: do clicks carry an order within
    their session?  event_names: the name of each event code, or None where the log has no events;  target:
    the event whose clicks are to be predicted and the longest prefix, or None where it is every click.
    """

    sessions: str
    items: str
    clicks: str
    bounds: tuple[int, int, int]
    clock: bool
    order: bool
    event_names: tuple[str, ...] | None
    target: Mapping[str, Any] | None = None


def write_dataset(engine: DuckDB, made: Delivered, folder: Path, shard_clicks: int) -> dict[str, Any]:
    """Write the arrays and Parquet files of one data set; return what ``prepare.json`` says of them.

    Same tables, same arrays: nothing here depends on the order in which an engine delivers rows. Clicks are
    fetched and written shard by shard, whole sessions of about ``shard_clicks`` clicks each, so that only the
    bounds of the sessions are in memory all at once. The key ``tied`` is the share of clicks that have
    session and time in common with a neighbour.
    """
    folder.mkdir(exist_ok=True)
    lengths = engine.columns(f"SELECT n FROM {made.sessions} ORDER BY rank")["n"].astype(np.int64)
    offsets = np.r_[0, np.cumsum(lengths)].astype(np.int64)
    del lengths
    codes, used = _event_codes(engine, made)
    clicks = _Clicks(folder / "arrays", int(offsets[-1]), codes is not None)
    shards, tied = [], 0
    for name, low, high in _shards(offsets, shard_clicks):
        tied += _write_shard(engine, made, clicks, offsets[low : high + 1], low, codes, used, folder / name)
        shards.append({"file": name, "sessions": [low, high], "clicks": int(offsets[high] - offsets[low])})
    arrays: dict[str, NDArray[Any]] = {**clicks.finished(), "offsets": offsets}
    splits = _splits(arrays, made, used)
    ids = engine.columns(f"SELECT id FROM {made.items} ORDER BY code")["id"]
    vocabulary = Vocabulary(ids.tolist() if ids.dtype == object else ids.astype(np.int64))
    others = {"offsets": offsets, **vocabulary.to_arrays()}
    for name, array in others.items():
        np.save(folder / "arrays" / f"{name}.npy", array, allow_pickle=False)
    arrays |= others
    _write_tables(engine, made, folder)
    by_part = dict(engine.rows(f"SELECT part, COUNT(*) FROM {made.items} GROUP BY part"))
    known = np.cumsum([int(by_part.get(part, 0)) for part in range(3)]).tolist()
    return {
        "splits": splits,
        "n_items": dict(zip(("train", "full", "all"), known, strict=True)),
        "event_names": used,
        "target": None if made.target is None else dict(made.target),
        "shards": shards,
        "arrays": {file.name: file.stat().st_size for file in sorted((folder / "arrays").iterdir())},
        "fingerprint": fingerprint_of(arrays, made.target),
        "tied": tied / max(1, int(offsets[-1])),
    }


def _event_codes(engine: DuckDB, made: Delivered) -> tuple[NDArray[np.int64] | None, list[str]]:
    """Return the codes of the events that occur, rising, and their names; None and none without events."""
    if made.event_names is None:
        return None, []
    found = engine.columns(f"SELECT DISTINCT e FROM {made.clicks} ORDER BY e")["e"].astype(np.int64)
    if len(found) > MAX_EVENTS:
        raise DataError(
            f"the event column has {len(found)} different values, more than {MAX_EVENTS}: is it the right "
            "one? Name it with --event, or choose some with --events"
        )
    return found, [made.event_names[code] for code in found]


def _shards(offsets: NDArray[np.int64], clicks: int) -> list[tuple[str, int, int]]:
    """Return name, first session and the one after the last of each shard.

    One shard is the file events.parquet, several are files in a folder of that name.
    """
    cuts = [0]
    while cuts[-1] < len(offsets) - 1:
        fit = int(np.searchsorted(offsets, offsets[cuts[-1]] + clicks, side="right")) - 1
        cuts.append(max(cuts[-1] + 1, fit))
    names = ["events.parquet"] if len(cuts) == 2 else [
        f"events.parquet/part-{n:05d}.parquet" for n in range(len(cuts) - 1)
    ]  # fmt: skip
    return list(zip(names, cuts, cuts[1:], strict=False))


class _Clicks:
    """The arrays of the clicks as files that are filled shard by shard, through memory maps."""

    def __init__(self, folder: Path, n: int, events: bool) -> None:
        folder.mkdir()
        kinds: dict[str, Any] = {"items": np.int32, "times": np.int64}
        if events:
            kinds["events"] = np.uint8
        self.arrays = {}
        for name, kind in kinds.items():
            file = folder / f"{name}.npy"
            self.arrays[name] = np.lib.format.open_memmap(file, "w+", kind, (n,))
            # A file with holes would end the process, not the call, where the disk becomes full.
            if n and hasattr(os, "posix_fallocate"):
                with file.open("r+b") as stream:
                    os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)

    def finished(self) -> dict[str, NDArray[Any]]:
        """Return the arrays, written out."""
        for array in self.arrays.values():
            array.flush()
        return dict(self.arrays)


def _write_shard(
    engine: DuckDB,
    made: Delivered,
    clicks: _Clicks,
    offsets: NDArray[np.int64],
    first: int,
    codes: NDArray[np.int64] | None,
    names: list[str],
    path: Path,
) -> int:
    """Write the clicks of some sessions, from number ``first`` on; return how many are tied in time.

    offsets: bounds of these sessions among all clicks.
    """
    extra, order = (", e", ", e") if codes is not None else ("", "")
    ranking = f"rank, time{', ord' * made.order}, item{order}"
    found = engine.columns(
        f"SELECT code, time{extra} FROM {made.clicks} WHERE rank >= {first} "
        f"AND rank < {first + len(offsets) - 1} ORDER BY {ranking}"
    )
    low, high = int(offsets[0]), int(offsets[-1])
    if len(found["code"]) != high - low:
        raise AssertionError("sessions and clicks do not agree")
    arrays = clicks.arrays
    arrays["items"][low:high] = found["code"]
    arrays["times"][low:high] = found["time"]
    if codes is not None:
        arrays["events"][low:high] = np.searchsorted(codes, found["e"])
    rank = np.repeat(np.arange(first, first + len(offsets) - 1, dtype=np.int32), np.diff(offsets))
    position = np.arange(low, high, dtype=np.int64) - np.repeat(offsets[:-1], np.diff(offsets))
    columns: dict[str, NDArray[Any]] = {"session": rank, "position": position.astype(np.int32)}
    columns |= {"item": arrays["items"][low:high], "time": arrays["times"][low:high]}
    chosen = f"session, position, item, {_time('time', made.clock)}"
    if codes is not None:
        columns["event"] = arrays["events"][low:high]
        listed = ", ".join("'" + name.replace("'", "''") + "'" for name in names)
        chosen += f", [{listed}][event + 1] AS event"
    path.parent.mkdir(exist_ok=True)
    engine.write_parquet(f"SELECT {chosen} FROM given", path, **columns)
    times = arrays["times"][low:high]
    same = (rank[1:] == rank[:-1]) & (times[1:] == times[:-1])
    return int(np.count_nonzero(np.r_[same, False] | np.r_[False, same]))


def _write_tables(engine: DuckDB, made: Delivered, folder: Path) -> None:
    a, b, _ = made.bounds
    times = f"{_time('first_time', made.clock)}, {_time('last_time', made.clock)}"
    engine.write_parquet(
        f"SELECT rank AS session, id, CASE WHEN rank < {a} THEN 'train' WHEN rank < {b} THEN 'validation' "
        f"ELSE 'test' END AS split, {times}, n AS clicks FROM {made.sessions} ORDER BY rank",
        folder / "sessions.parquet",
    )
    engine.write_parquet(
        "SELECT code AS item, id, train_clicks, ['train', 'validation', 'test'][part + 1] AS first_split "
        f"FROM {made.items} ORDER BY code",
        folder / "items.parquet",
    )


def _time(column: str, clock: bool) -> str:
    return f"make_timestamp({column}) AS {column}" if clock else column


def _splits(clicks: dict[str, NDArray[Any]], made: Delivered, events: list[str]) -> dict[str, Any]:
    """Return sessions, clicks, pairs, first and last time of each part; times in UTC, or as they count.

    events: the name of each event code.  Raises DataError for a part without a click to predict.
    """
    splits: dict[str, Any] = {}
    offsets, times = clicks["offsets"], clicks["times"]
    name = None if made.target is None else made.target["event"]
    code = None if name is None else events.index(name) if name in events else len(events)
    wanted = targets_of(offsets, clicks.get("events"), code)
    for part, low, high in zip(PARTS, (0, *made.bounds), made.bounds, strict=False):
        inside = times[offsets[low] : offsets[high]]
        pairs = int(np.count_nonzero(wanted[offsets[low] : offsets[high]]))
        if name is not None and len(inside) and not pairs:
            raise DataError(
                f"the {part} part has no click of event {name!r} with a click before it, so nothing is to be "
                f"predicted in its {high - low:,} sessions: change --holdout or --validation, lower "
                "--min-support, or name another --target-event"
            )
        splits[part] = {
            "sessions": [low, high],
            "clicks": len(inside),
            "pairs": pairs,
            "first_time": _shown(int(inside.min()), made.clock) if len(inside) else None,
            "last_time": _shown(int(inside.max()), made.clock) if len(inside) else None,
        }
    return splits


def _shown(time: int, clock: bool) -> str | int:
    if not clock:
        return time
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time)).isoformat()
