"""Item vectors for the benchmarks of the index: drawn, indexed, widened, saved, opened as a service does.

Vectors are of length 1 and 100 wide: N/100 centres, each a direction drawn evenly, and each item at a centre
drawn evenly plus normal noise of standard deviation 0.08 a coordinate, so about as long as the centre
(0.08 x sqrt(100) = 0.8), before it is brought to length 1. Queries are made as items are, from the same
centres. Seed 1. Recall@20 is the share of the 20 items of the largest inner products that a search finds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextclick import machine
from nextclick.files import write_json
from nextclick.index import GRAPH, Index, ItemSpace, Kind, attached

DIM, PER_CENTRE, NOISE, SEED = 100, 100, 0.08, 1
K, RECALL = 20, 0.95
PART = 50_000
_MODEL = "0" * 64  # stands for the hash of the model that an index belongs to

Vectors = NDArray[np.float32]


def drawn(n: int, n_queries: int) -> tuple[Vectors, Vectors]:
    """Return n vectors, and queries from the same centres; in parts, so that memory is that of the result."""
    rng = np.random.default_rng(SEED)
    centres = _unit(rng.standard_normal((max(1, n // PER_CENTRE), DIM), np.float32))
    found = []
    for count in (n, n_queries):
        vectors = np.empty((count, DIM), np.float32)
        for low in range(0, count, PART):
            part = vectors[low : low + PART]
            noise = rng.standard_normal(part.shape, np.float32) * np.float32(NOISE)
            part[:] = _unit(centres[rng.integers(0, len(centres), len(part))] + noise)
        found.append(vectors)
    return found[0], found[1]


def _unit(vectors: Vectors) -> Vectors:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def nearest(vectors: Vectors, queries: Vectors) -> tuple[NDArray[np.int64], float]:
    """Return the K items of the largest products of each query, and milliseconds of the core for one."""
    start = time.process_time()
    best = np.zeros((len(queries), 0), np.int64)
    scores = np.zeros((len(queries), 0), np.float32)
    for low in range(0, len(vectors), PART):
        of_part = queries @ vectors[low : low + PART].T
        top = np.argpartition(-of_part, min(K, of_part.shape[1] - 1), axis=1)[:, :K]
        best = np.hstack([best, top + low])
        scores = np.hstack([scores, np.take_along_axis(of_part, top, 1)])
        kept = np.argsort(-scores, axis=1, kind="stable")[:, :K]
        best, scores = np.take_along_axis(best, kept, 1), np.take_along_axis(scores, kept, 1)
    return best, (time.process_time() - start) / len(queries) * 1e3


@dataclass(frozen=True)
class Opened:
    """An index as a service opens it, and what building it took; figures: for the file of results."""

    index: Index
    figures: dict[str, Any]


@dataclass(frozen=True)
class Case:
    """What a benchmark measures: vectors, queries, their K exact items and the time of finding these."""

    vectors: Vectors
    queries: Vectors
    exact: NDArray[np.int64]
    exact_ms: float
    made: Opened


def case(about: str, items: int, n_queries: int, kind: Kind) -> Case:
    """Read the command line of a benchmark and make what it measures.

    about: its help text;  items: how many unless --items says otherwise.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=items)
    parser.add_argument("--work", type=Path, help="folder for the index; kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = (arguments.work or Path(folder)) / f"{kind}-{arguments.items}"
        work.mkdir(parents=True, exist_ok=True)
        vectors, queries = drawn(arguments.items, n_queries)
        exact, exact_ms = nearest(vectors, queries)
        made = opened(vectors, queries, exact, work, kind)  # an open map outlives the name of its file
        return Case(vectors, queries, exact, exact_ms, made)


def opened(
    vectors: Vectors, queries: Vectors, exact: NDArray[np.int64], work: Path, kind: Kind | None = None
) -> Opened:
    """Build an index, widen it until it finds RECALL of the exact items, save it, and open it by memory map.

    work: a folder; where an earlier run has left the index, it is opened and not built again, with the
    figures of that building beside it.
    """
    kept = work / "figures.json"
    if not kept.exists():
        load_before = os.getloadavg()[0]
        start, cpu = time.perf_counter(), time.process_time()
        index = Index.build(ItemSpace(vectors, "product"), kind=kind, progress=_told(start))
        figures: dict[str, Any] = {
            "build_seconds": round(time.perf_counter() - start),
            "build_core_seconds": round(time.process_time() - cpu),
            "load_average_before": round(load_before, 2),
            "recall_when_built": round(index.widen(queries, exact, RECALL), 4),
        }
        index.save(work, _MODEL)
        figures |= {"kind": index.kind, "width": index.width, "bytes": (work / GRAPH).stat().st_size}
        figures["peak_bytes"] = peak()
        write_json(kept, figures)
        del index
    figures = json.loads(kept.read_text("utf-8"))
    checked = attached(work, _MODEL, len(vectors))
    assert checked is not None
    start = time.perf_counter()
    found = checked.opened()
    figures["open_ms"] = round((time.perf_counter() - start) * 1e3, 1)
    found.measured(queries, exact)  # read into memory once
    common = {
        "items": len(vectors), "dim": DIM, "vectors_bytes": vectors.nbytes, "queries": len(queries),
        "cores_used": machine.cores(), "seed": SEED,
    }  # fmt: skip
    return Opened(found, common | figures)


def percentiles(times: list[float]) -> dict[str, float]:
    """Return the median and high percentiles of milliseconds."""
    return {f"p{of}": round(float(np.percentile(times, of)), 3) for of in (50, 90, 99)}


def recall(found: NDArray[np.int64], exact: NDArray[np.int64]) -> float:
    """Return the share of the exact items that were found."""
    return round(float(np.mean([np.isin(of, row).mean() for of, row in zip(exact, found, strict=True)])), 4)


def peak() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _told(start: float) -> Callable[[int, int], None]:
    def tell(done: int, total: int) -> None:
        print(f"{done:,} of {total:,} after {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)

    return tell
