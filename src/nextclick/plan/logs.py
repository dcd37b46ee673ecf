"""Click logs to measure unit costs with: sizes as asked for, popularity and lengths of a stated shape."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from nextclick.plan.costs import Counts
from nextclick.sessions import Sessions, Vocabulary

CLICKS = 5  # mean length of a session
SHAPE = (
    f"sessions of 2 clicks and more, geometric with a mean of {CLICKS}; items drawn by Zipf's law, exponent "
    "1, every second click among the 20 items that follow the one before; seed 1"
)


def sessions(counts: Counts) -> Sessions:
    """Return sessions of about so many clicks, that know so many items whether they are clicked or not."""
    items, offsets = _clicks(counts)
    return Sessions(
        items, offsets, np.arange(len(items), dtype=np.int64) * 1_000_000,
        Vocabulary(np.arange(counts.items, dtype=np.int64)), counts.items,
    )  # fmt: skip


def log(counts: Counts, file: Path) -> None:
    """Write such sessions as a Parquet file with the columns session_id, item_id and timestamp."""
    items, offsets = _clicks(counts)
    arrays = {
        "session_id": np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)),
        "item_id": items.astype(np.int64),
        "timestamp": 1_700_000_000 + np.arange(len(items)) // 20,
    }
    with duckdb.connect() as connection:
        connection.register("clicks", arrays)
        name = str(file).replace("'", "''")
        connection.execute(f"COPY (SELECT * FROM clicks) TO '{name}' (FORMAT parquet)")


def _clicks(counts: Counts) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    rng = np.random.default_rng(1)
    n = max(1, counts.events // CLICKS)
    offsets = np.r_[0, np.cumsum(1 + rng.geometric(1 / (CLICKS - 1), n))].astype(np.int64)
    shares = np.cumsum(1 / np.arange(1, counts.items + 1))
    drawn = np.searchsorted(shares, rng.random(int(offsets[-1])) * shares[-1])
    drawn = np.minimum(drawn, counts.items - 1)
    # Half of the clicks follow the one before closely, so that sessions have something in common.
    near = rng.random(len(drawn)) < 0.5
    near[offsets[:-1]] = False
    step = rng.integers(1, 21, len(drawn))
    starts = np.flatnonzero(~near)
    begun = np.repeat(starts, np.diff(np.r_[starts, len(drawn)]))
    total = np.cumsum(np.where(near, step, 0))
    walked = drawn[begun] + total - total[begun]
    return (walked % counts.items).astype(np.int32), offsets
