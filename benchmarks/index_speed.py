"""Approximate against exact search among a million item vectors: results/index_speed.json.

    python benchmarks/index_speed.py
    python benchmarks/index_speed.py --items 100000      fewer items, not written
    python benchmarks/index_speed.py --work FOLDER       keeps the index; the next run does not build it

Vectors and queries are those of benchmarks/vectors.py, the index is a graph. The search is widened until it
finds 95% of the exact 20, and each query is timed alone, on one thread, with the index opened by memory map
from the file that was written.
"""

from __future__ import annotations

import time

import numpy as np

from data import write
from vectors import K, case, peak, percentiles

ITEMS, QUERIES = 1_000_000, 1000


def main() -> None:
    of = case(__doc__, ITEMS, QUERIES, "graph")
    n, made, times = len(of.vectors), of.made, []
    for query in of.queries:
        start = time.perf_counter()
        made.index.search(query[None], K)
        times.append((time.perf_counter() - start) * 1e3)
    found = made.figures | {
        "links": 16, "build_width": 100, "recall@20": made.figures["recall_when_built"],
        "mean_ms": round(float(np.mean(times)), 3), "clock_ms": percentiles(times),
        "exact_core_ms": round(of.exact_ms, 2), "peak_bytes": max(peak(), made.figures["peak_bytes"]),
    }  # fmt: skip
    print(found)
    if n == ITEMS:
        write("index_speed", {"command": "python benchmarks/index_speed.py", **found})


if __name__ == "__main__":
    main()
