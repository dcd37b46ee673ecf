"""Approximate against exact search among a million item vectors: results/index_speed.json.

    python benchmarks/index_speed.py
    python benchmarks/index_speed.py --items 100000      fewer items, not written
    python benchmarks/index_speed.py --work FOLDER       keeps the index; the next run does not build it

Vectors and queries are those of benchmarks/vectors.py, the index is a graph. The search is widened until it
finds 95% of the exact 20, and each query is timed alone, on one thread, with the index opened by memory map
from the file that was written.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from data import write
from vectors import K, drawn, nearest, opened, peak, percentiles

ITEMS, QUERIES = 1_000_000, 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--work", type=Path, help="folder for the index; kept")
    arguments = parser.parse_args()
    n = arguments.items
    with tempfile.TemporaryDirectory() as folder:
        work = (arguments.work or Path(folder)) / f"graph-{n}"
        work.mkdir(parents=True, exist_ok=True)
        vectors, queries = drawn(n, QUERIES)
        exact, exact_ms = nearest(vectors, queries)
        made = opened(vectors, queries, exact, work, "graph")
        times = []
        for query in queries:
            start = time.perf_counter()
            made.index.search(query[None], K)
            times.append((time.perf_counter() - start) * 1e3)
    found = made.figures | {
        "links": 16, "build_width": 100, "recall@20": made.figures["recall_when_built"],
        "mean_ms": round(float(np.mean(times)), 3), "clock_ms": percentiles(times),
        "exact_core_ms": round(exact_ms, 2), "peak_bytes": max(peak(), made.figures["peak_bytes"]),
    }  # fmt: skip
    print(found)
    if n == ITEMS:
        write("index_speed", {"command": "python benchmarks/index_speed.py", **found})


if __name__ == "__main__":
    main()
