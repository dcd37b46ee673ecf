"""Approximate against exact search among a million item vectors: results/index_speed.json.

    python benchmarks/index_speed.py
    python benchmarks/index_speed.py 100000        fewer items, not written

The vectors are of length 1 and 100 wide: N/100 centres, each a direction drawn evenly, and each item at a
centre drawn evenly plus normal noise of standard deviation 0.08 a coordinate, so about as long as the centre
(0.08 x sqrt(100) = 0.8), before it is brought to length 1. Queries are made as items are, from the same
centres. Seed 1. Recall@20 is the share of the 20 items of the largest inner products that a search finds. The
search is widened until it finds 95%, and each query is timed alone, on one thread, with the index opened by
memory map from the file that was written.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data import write
from nextclick import machine
from nextclick.index import GRAPH, Index, ItemSpace, attached

DIM, PER_CENTRE, NOISE = 100, 100, 0.08
QUERIES, K, RECALL = 1000, 20, 0.95


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    rng = np.random.default_rng(1)
    centres = unit(rng.standard_normal((n // PER_CENTRE, DIM), np.float32))
    vectors, queries = drawn(centres, n, rng), drawn(centres, QUERIES, rng)
    start, cpu = time.perf_counter(), sum(os.times()[:2])
    index = Index.build(ItemSpace(vectors, "product"), progress=told(start))
    build_seconds, build_cpu = time.perf_counter() - start, sum(os.times()[:2]) - cpu
    start = time.perf_counter()
    exact = np.stack([best(vectors @ query) for query in queries])
    exact_ms = (time.perf_counter() - start) / QUERIES * 1e3
    reached = index.widen(queries, exact, RECALL)
    with tempfile.TemporaryDirectory() as work:
        index.save(Path(work), "0" * 64)
        size, width = (Path(work) / GRAPH).stat().st_size, index.width
        del index
        checked = attached(Path(work), "0" * 64, n)
        assert checked is not None
        start = time.perf_counter()
        opened = checked.opened()
        open_ms = (time.perf_counter() - start) * 1e3
        opened.measured(queries, exact)  # read into memory once
        times = []
        for query in queries:
            start = time.perf_counter()
            opened.search(query[None], K)
            times.append((time.perf_counter() - start) * 1e3)
    p50, p99 = np.percentile(times, [50, 99])
    found = {
        "items": n,
        "dim": DIM,
        "links": 16,
        "build_width": 100,
        "width": width,
        "recall@20": round(reached, 4),
        "build_seconds": round(build_seconds),
        "build_cpu_seconds": round(build_cpu),
        "threads": machine.cores(),
        "open_ms": round(open_ms, 1),
        "bytes": size,
        "mean_ms": round(float(np.mean(times)), 3),
        "p50_ms": round(float(p50), 3),
        "p99_ms": round(float(p99), 3),
        "exact_ms": round(exact_ms, 2),
        "queries": QUERIES,
        "seed": 1,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
    }
    print(found)
    if len(sys.argv) == 1:
        write("index_speed", found)


def drawn(centres: NDArray[np.float32], n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return n vectors of length 1 around centres."""
    noise = rng.standard_normal((n, DIM), np.float32) * np.float32(NOISE)
    return unit(centres[rng.integers(0, len(centres), n)] + noise)


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def best(scores: NDArray[np.float32]) -> NDArray[np.intp]:
    return np.argpartition(-scores, K)[:K]


def told(start: float) -> Callable[[int, int], None]:
    def tell(done: int, total: int) -> None:
        print(f"{done:,} of {total:,} after {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)

    return tell


if __name__ == "__main__":
    main()
