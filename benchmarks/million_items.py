"""Training against sampled items with up to a million of them: memory, and time per click by their number.

    python benchmarks/million_items.py

Each size runs in a process of its own: sessions of 2 to 10 clicks on items drawn by Zipf's law (exponent 1),
gru4rec with the settings of the preset bpr-max (100 units, 2,048 samples, batch 144), one epoch over 300,000
clicks and no validation. Peak memory is what the operating system reports for the process.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

from data import write
from nextclick import Sessions, Vocabulary, build

SIZES = [10_000, 100_000, 1_000_000]
CLICKS = 300_000
LIMIT = 8 << 30  # bytes


def main() -> None:
    rows = []
    for n_items in SIZES:
        done = subprocess.run(
            [sys.executable, __file__, str(n_items)], check=True, capture_output=True, text=True
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    slower = rows[-1]["microseconds_per_click"] / rows[0]["microseconds_per_click"]
    memory = rows[-1]["peak_bytes"]
    print(
        f"{SIZES[-1]:,} items: {memory / 2**30:.2f} GiB; time per click {slower:.2f} x that at {SIZES[0]:,}"
    )
    write(
        "million_items",
        {"clicks": CLICKS, "rows": rows, "time_ratio": round(slower, 2), "under_8_GiB": memory < LIMIT},
    )


def measure(n_items: int) -> dict[str, Any]:
    """Seconds and peak memory of one epoch."""
    sessions = made(n_items)
    model = build("gru4rec", {"preset": "bpr-max", "epochs": 1})
    model.fit(made(1000)[:2000])  # compiles
    told: list[tuple[float, int]] = []
    model.fit(sessions, progress=lambda what, done, total: told.append((time.perf_counter(), done)))
    (start, first), (end, last) = told[1], told[-1]  # without making the tables, once per training
    return {
        "items": n_items,
        "microseconds_per_click": round((end - start) / (last - first) * 1e6, 1),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
    }


def made(n_items: int) -> Sessions:
    """Return synthetic sessions over n_items items."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(2, 11, CLICKS // 6)
    share = 1 / np.arange(1, n_items + 1)
    items = np.searchsorted(np.cumsum(share / share.sum()), rng.random(lengths.sum())).astype(np.int32)
    return Sessions(
        items=np.minimum(items, n_items - 1).astype(np.int32),
        offsets=np.r_[0, np.cumsum(lengths)].astype(np.int64),
        times=np.arange(len(items)),
        vocabulary=Vocabulary(np.arange(n_items)),
        n_items=n_items,
        clock=False,
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
    else:
        main()
