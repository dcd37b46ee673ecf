"""The last stage, the same for all engines: sorted clicks to arrays, and the readable Parquet files."""

from __future__ import annotations

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


def write_dataset(engine: DuckDB, made: Delivered, folder: Path) -> dict[str, Any]:
    """Write the arrays and Parquet files of one data set; return what ``prepare.json`` says of them.

    Same tables, same arrays: nothing here depends on the order in which an engine delivers rows. The key
    ``tied`` is the share of clicks that have session and time in common with a neighbour.
    """
    folder.mkdir(exist_ok=True)
    clicks, used = _clicks(engine, made)
    lengths = engine.columns(f"SELECT n FROM {made.sessions} ORDER BY rank")["n"].astype(np.int64)
    clicks["offsets"] = np.r_[0, np.cumsum(lengths)].astype(np.int64)
    if clicks["offsets"][-1] != len(clicks["items"]):
        raise AssertionError("sessions and clicks do not agree")
    rank = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    _write_events(engine, made, clicks, rank, used, folder / "events.parquet")
    same = (rank[1:] == rank[:-1]) & (clicks["times"][1:] == clicks["times"][:-1])
    tied = int(np.count_nonzero(np.r_[same, False] | np.r_[False, same]))
    del rank
    splits = _splits(clicks, made, used)
    ids = engine.columns(f"SELECT id FROM {made.items} ORDER BY code")["id"]
    vocabulary = Vocabulary(ids.tolist() if ids.dtype == object else ids.astype(np.int64))
    arrays = clicks | vocabulary.to_arrays()
    sizes = _write_arrays(arrays, folder / "arrays")
    _write_tables(engine, made, folder)
    by_part = dict(engine.rows(f"SELECT part, COUNT(*) FROM {made.items} GROUP BY part"))
    known = np.cumsum([int(by_part.get(part, 0)) for part in range(3)]).tolist()
    return {
        "splits": splits,
        "n_items": dict(zip(("train", "full", "all"), known, strict=True)),
        "event_names": used,
        "target": None if made.target is None else dict(made.target),
        "arrays": sizes,
        "fingerprint": fingerprint_of(arrays, made.target),
        "tied": tied / max(1, len(clicks["items"])),
    }


def _clicks(engine: DuckDB, made: Delivered) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Return the arrays items, times and events in their final order, and the names of the events."""
    extra, order = (", e", ", e") if made.event_names is not None else ("", "")
    ranking = f"rank, time{', ord' * made.order}, item{order}"
    found = engine.columns(f"SELECT code, time{extra} FROM {made.clicks} ORDER BY {ranking}")
    arrays: dict[str, NDArray[Any]] = {
        "items": found["code"].astype(np.int32, copy=False),
        "times": found["time"].astype(np.int64, copy=False),
    }
    if made.event_names is None:
        return arrays, []
    present, events = np.unique(found["e"], return_inverse=True)
    if len(present) > MAX_EVENTS:
        raise DataError(
            f"the event column has {len(present)} different values, more than {MAX_EVENTS}: is it the right "
            "one? Name it with --event, or choose some with --events"
        )
    arrays["events"] = events.astype(np.uint8)
    return arrays, [made.event_names[code] for code in present]


def _write_arrays(arrays: dict[str, NDArray[Any]], folder: Path) -> dict[str, int]:
    """Write each array to its file; return their sizes in bytes."""
    folder.mkdir()
    sizes = {}
    for name, array in sorted(arrays.items()):
        file = folder / f"{name}.npy"
        np.save(file, array, allow_pickle=False)
        sizes[file.name] = file.stat().st_size
    return sizes


def _write_events(
    engine: DuckDB,
    made: Delivered,
    clicks: dict[str, NDArray[Any]],
    rank: NDArray[np.int32],
    names: list[str],
    path: Path,
) -> None:
    position = np.arange(len(rank), dtype=np.int64)
    position -= np.repeat(clicks["offsets"][:-1], np.diff(clicks["offsets"]))
    arrays: dict[str, NDArray[Any]] = {"session": rank, "position": position.astype(np.int32)}
    arrays |= {"item": clicks["items"], "time": clicks["times"]}
    chosen = f"session, position, item, {_time('time', made.clock)}"
    if "events" in clicks:
        arrays["event"] = clicks["events"]
        listed = ", ".join("'" + name.replace("'", "''") + "'" for name in names)
        chosen += f", [{listed}][event + 1] AS event"
    engine.write_parquet(f"SELECT {chosen} FROM given", path, **arrays)


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
