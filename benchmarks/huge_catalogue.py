"""Lists from ten million item vectors on two cores: results/huge_catalogue.json.

    python benchmarks/huge_catalogue.py
    python benchmarks/huge_catalogue.py 1000000        fewer items, results/huge_catalogue_1000000.json

Vectors and queries are those of benchmarks/index_speed.py (100 wide, N/100 centres, noise of about the
length of a centre, length 1, seed 1), drawn in parts. The index is of cells, a byte a coordinate, built on
all cores allowed, saved, and opened by memory map; it is widened until it finds 95% of the exact 20. A search
is what a list takes: the index, the exact vectors of the candidates it finds, and their order. Searches run
in as many threads as there are cores, each one query at a time, as the workers of a service do; milliseconds
are of the clock and, as other work may take turns on the cores, of the core. The limit on memory is 16 GB,
exact vectors included.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data import write
from index_speed import DIM, NOISE, PER_CENTRE, told, unit
from nextclick import machine
from nextclick.index import GRAPH, Index, ItemSpace, attached

QUERIES, K, RECALL, PART = 400, 20, 0.95, 200_000


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    rng = np.random.default_rng(1)
    centres = unit(rng.standard_normal((n // PER_CENTRE, DIM), np.float32))
    vectors = np.empty((n, DIM), np.float32)
    for low in range(0, n, PART):
        fill(vectors[low : low + PART], centres, rng)
    queries = np.empty((QUERIES, DIM), np.float32)
    fill(queries, centres, rng)
    del centres
    load_before = os.getloadavg()[0]
    start, cpu = time.perf_counter(), time.process_time()
    index = Index.build(ItemSpace(vectors, "product"), kind="cells", progress=told(start))
    build_seconds, build_cpu = time.perf_counter() - start, time.process_time() - cpu
    start, cpu = time.perf_counter(), time.process_time()
    exact = nearest(vectors, queries)
    exact_ms = (time.process_time() - cpu) / QUERIES * 1e3
    reached = index.widen(queries, exact, RECALL)
    with tempfile.TemporaryDirectory() as work:
        index.save(Path(work), "0" * 64)
        size, width = (Path(work) / GRAPH).stat().st_size, index.width
        del index
        checked = attached(Path(work), "0" * 64, n)
        assert checked is not None
        opened = checked.opened()
        opened.measured(queries, exact)  # read into memory once
        clock, core, found = searched(opened, vectors, queries)
    recall = float(np.mean([np.isin(of, row).mean() for of, row in zip(exact, found, strict=True)]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    results = {
        "items": n, "dim": DIM, "kind": "cells", "width": width, "recall@20": round(recall, 4),
        "recall_when_built": round(reached, 4), "build_seconds": round(build_seconds),
        "build_core_seconds": round(build_cpu), "cores_used": machine.cores(), "bytes": size,
        "vectors_bytes": vectors.nbytes, "peak_bytes": peak, "within_16_GB": peak < 16e9,
        "exact_core_ms": round(exact_ms, 1), "clock_ms": percentiles(clock), "core_ms": percentiles(core),
        "p90_under_50_ms": bool(np.percentile(clock, 90) < 50), "queries": QUERIES, "seed": 1,
        "load_average_before": round(load_before, 2),
    }  # fmt: skip
    print(results)
    write("huge_catalogue" if len(sys.argv) == 1 else f"huge_catalogue_{n}", results)


def fill(part: NDArray[np.float32], centres: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Draw vectors of length 1 around centres into an array."""
    noise = rng.standard_normal(part.shape, np.float32) * np.float32(NOISE)
    part[:] = unit(centres[rng.integers(0, len(centres), len(part))] + noise)


def nearest(vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the K items of the largest products of each query, by a look at all items."""
    best = np.zeros((len(queries), 0), np.int64)
    scores = np.zeros((len(queries), 0), np.float32)
    for low in range(0, len(vectors), PART):
        of_part = queries @ vectors[low : low + PART].T
        top = np.argpartition(-of_part, min(K, of_part.shape[1] - 1), axis=1)[:, :K]
        best = np.hstack([best, top + low])
        scores = np.hstack([scores, np.take_along_axis(of_part, top, 1)])
        kept = np.argsort(-scores, axis=1)[:, :K]
        best, scores = np.take_along_axis(best, kept, 1), np.take_along_axis(scores, kept, 1)
    return best


def searched(
    index: Index, vectors: NDArray[np.float32], queries: NDArray[np.float32]
) -> tuple[list[float], list[float], NDArray[np.int64]]:
    """Return milliseconds of the clock and of the core of each search, and what was found."""
    import faiss

    clock, core, found = [0.0] * len(queries), [0.0] * len(queries), np.zeros((len(queries), K), np.int64)
    threads = machine.cores()

    def work(first: int) -> None:
        faiss.omp_set_num_threads(1)
        for at in range(first, len(queries), threads):
            start, cpu = time.perf_counter(), time.thread_time()
            codes = index.search(queries[at : at + 1], K)[0]
            codes = codes[codes >= 0]
            scores = vectors[codes] @ queries[at]
            found[at] = codes[np.lexsort((codes, -scores))[:K]]
            clock[at] = (time.perf_counter() - start) * 1e3
            core[at] = (time.thread_time() - cpu) * 1e3

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return clock, core, found


def percentiles(times: list[float]) -> dict[str, Any]:
    return {f"p{of}": round(float(np.percentile(times, of)), 2) for of in (50, 90, 99)}


if __name__ == "__main__":
    main()
