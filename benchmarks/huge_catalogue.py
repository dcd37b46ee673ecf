"""Lists from ten million item vectors on two cores: results/huge_catalogue.json.

    python benchmarks/huge_catalogue.py
    python benchmarks/huge_catalogue.py --items 1000000      fewer items, results/huge_catalogue_1000000.json
    python benchmarks/huge_catalogue.py --work FOLDER        keeps the index; the next run does not build it

Vectors and queries are those of benchmarks/vectors.py. The index is of cells, a byte a coordinate, built on
all cores allowed, saved, and opened by memory map; it is widened until it finds 95% of the exact 20. A search
is what a list takes: the index, the exact vectors of the candidates it finds, and their order. Searches run
in as many threads as there are cores, each one query at a time, as the workers of a service do; milliseconds
are of the clock and, as other work may take turns on the cores, of the core. The limit on memory is 16 GB,
exact vectors included.
"""

from __future__ import annotations

import threading
import time

import numpy as np
from numpy.typing import NDArray

from data import write
from nextclick import machine
from nextclick.index import Index
from vectors import K, Vectors, case, peak, percentiles, recall

ITEMS, QUERIES = 10_000_000, 400


def main() -> None:
    of = case(__doc__, ITEMS, QUERIES, "cells")
    n, found = len(of.vectors), of.made
    clock, core, lists = searched(found.index, of.vectors, of.queries)
    most = max(peak(), found.figures["peak_bytes"])
    results = found.figures | {
        "recall@20": recall(lists, of.exact), "peak_bytes": most, "within_16_GB": most < 16e9,
        "exact_core_ms": round(of.exact_ms, 1), "clock_ms": percentiles(clock), "core_ms": percentiles(core),
        "p90_under_50_ms": bool(np.percentile(clock, 90) < 50),
    }  # fmt: skip
    print(results)
    name = "huge_catalogue" if n == ITEMS else f"huge_catalogue_{n}"
    command = "python benchmarks/huge_catalogue.py" + f" --items {n}" * (n != ITEMS)
    write(name, {"command": command, **results})


def searched(
    index: Index, vectors: Vectors, queries: Vectors
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
            best = codes[np.lexsort((codes, -scores))[:K]]
            found[at, : len(best)] = best
            clock[at] = (time.perf_counter() - start) * 1e3
            core[at] = (time.thread_time() - cpu) * 1e3

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return clock, core, found


if __name__ == "__main__":
    main()
