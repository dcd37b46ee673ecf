"""Speed of the neighbour models against the straightforward pandas/dict ones, measured in the same run.

    python benchmarks/neighbours_speed.py

Compiled code is warm (run once before the clock starts). The straightforward models answer a sample of the
same prefixes, one after the other, on one core, as they are written. Settings are equal on both sides:
item-knn preset=narm, vs-knn preset=paper (k=500, sample 5000, quadratic, idf).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import straightforward as slow
from data import ready, write
from nextclick import VSKNN, ItemKNN, Recommender, build, evaluate
from nextclick.ranking import Targets

SIX = ["pop", "s-pop", "markov", "item-knn", "sknn", "vs-knn"]


def timed(work: Callable[[], Any], repeat: int = 1) -> tuple[float, Any]:
    """Return the median of the seconds that ``work`` takes, and its last result."""
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), result


def main() -> None:
    with tempfile.TemporaryDirectory() as work:
        found = {name: measure(name, Path(work)) for name in ("yoochoose64", "diginetica")}
    targets = {
        "item-knn fit on yoochoose64 under 1 s": found["yoochoose64"]["item-knn fit"]["seconds"] < 1,
        "vs-knn over 10,000 predictions/s on yoochoose64": found["yoochoose64"]["vs-knn"][
            "predictions_per_second"
        ]
        > 10_000,
        "vs-knn request under 0.5 ms": found["yoochoose64"]["vs-knn"]["request_p50_ms"] < 0.5,
        "vs-knn fit on diginetica under 1 s": found["diginetica"]["vs-knn fit"]["seconds"] < 1,
        "six models evaluated on diginetica under 60 s": found["diginetica"]["evaluate six models"]["seconds"]
        < 60,
    }
    for target, reached in targets.items():
        print(f"{'reached' if reached else 'MISSED '}  {target}")
    write("neighbours_speed", {**found, "targets": targets})


def measure(name: str, work: Path) -> dict[str, Any]:
    dataset = ready(name, work)
    train, test = dataset.train, dataset.test
    clicks = slow.frame(train)
    queries, positions = test.pairs()
    targets = Targets.one_each(test.items[positions])
    result: dict[str, Any] = {}

    def compare_fit(label: str, fast: Recommender, plain: Any) -> None:
        fast.fit(train[:100])
        seconds, _ = timed(lambda: fast.fit(train), 5)
        slow_seconds, _ = timed(lambda: plain.fit(clicks))
        result[label] = {
            "seconds": seconds,
            "straightforward_seconds": slow_seconds,
            "ratio": slow_seconds / seconds,
        }

    item_knn, plain_item_knn = ItemKNN.preset("narm"), slow.ItemKNN("narm", "clicks", 20.0)
    compare_fit("item-knn fit", item_knn, plain_item_knn)
    vs_knn = VSKNN.preset("paper")
    plain = slow.SessionKNN(500, 5000, "vector", "quadratic", "div", 1.0)
    compare_fit("vs-knn fit", vs_knn, plain)

    vs_knn.rank(queries[:100], targets[:100], 20)
    seconds, _ = timed(lambda: vs_knn.rank(queries, targets, 20), 3)
    sample = np.linspace(0, len(queries) - 1, 300).astype(np.int64).tolist()
    slow_seconds, _ = timed(
        lambda: [
            sorted(plain.scores(queries.prefix(i).tolist()).items(), key=lambda one: -one[1])[:20]
            for i in sample
        ]
    )
    ids = [dataset.vocabulary.ids_of(queries.prefix(i)) for i in sample]
    requests = [timed(lambda prefix=prefix: vs_knn.recommend(prefix, 20))[0] * 1000 for prefix in ids]
    rate, slow_rate = len(queries) / seconds, len(sample) / slow_seconds
    result["vs-knn"] = {
        "predictions_per_second": rate,
        "straightforward_predictions_per_second": slow_rate,
        "ratio": rate / slow_rate,
        "request_p50_ms": float(np.percentile(requests, 50)),
        "request_p99_ms": float(np.percentile(requests, 99)),
    }
    models = [build(model).fit(train) for model in SIX]
    seconds, _ = timed(lambda: evaluate(models, dataset))
    result["evaluate six models"] = {"models": SIX, "pairs": len(queries), "seconds": seconds}
    for label, figures in result.items():
        shown = ", ".join(f"{key} {value:,.4g}" for key, value in figures.items() if isinstance(value, float))
        print(f"{name}: {label}: {shown}", flush=True)
    return result


if __name__ == "__main__":
    main()
