"""Search the settings of the neighbour models on validation sessions; the best ones are the defaults.

    python benchmarks/tune_neighbours.py

Data: the last tenth of the training sessions of yoochoose64 and diginetica is the validation part; test
sessions are never read. A setting is changed at a time, all its values are tried, the best is kept, until
a whole round changes nothing (coordinate search). Best: the highest mean over both data sets of
recall@20 + MRR@20, a change of less than 0.0002 counting as none.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from data import ready, write
from nextclick import Dataset, build, metrics
from nextclick.ranking import Targets

ALL = ["same", "div", "linear", "log", "quadratic"]
GRIDS: dict[str, dict[str, list[Any]]] = {
    "item-knn": {
        "formula": ["cosine", "narm"],
        "asymmetry": [0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
        "regularisation": [5.0, 20.0, 100.0, 500.0],
        "counts": ["sessions", "clicks"],
        "last_clicks": [1, 2, 3, 5, 10],
        "decay": ["same", "div", "quadratic"],
        "n_neighbours": [50, 100, 200, 500],
    },
    "sknn": {
        "similarity": ["cosine", "jaccard", "dice"],
        "k": [50, 100, 200, 500, 1000],
        "sample_size": [500, 1000, 2500, 5000, 10000],
        "last_clicks": [None, 2, 3, 5, 10],
        "remind": ["all", "earlier"],
    },
    "vs-knn": {
        "weighting": ALL,
        "score_weighting": ALL,
        "idf": [0.0, 0.5, 1.0, 2.0, 5.0],
        "idf_similarity": [False, True],
        "k": [50, 100, 200, 500, 1000, 1500],
        "sample_size": [500, 1000, 2500, 5000, 10000],
        "last_clicks": [None, 2, 3, 5, 10],
        "remind": ["all", "earlier"],
    },
    "stan": {
        "lambda_spw": [0.4, 0.6, 0.8, 1.02, 1.5, 2.0, 3.0, 5.0],
        "lambda_inh": [0.3, 0.5, 0.8, 1.2, 2.05, 3.0, 5.0],
        "lambda_snh_sessions": [None, 20_000.0, 50_000.0, 100_000.0, 200_000.0],
        "k": [50, 100, 200, 500, 1000, 1500],
        "sample_size": [500, 1000, 2500, 5000, 10000],
        "last_clicks": [None, 2, 3, 5, 10],
        "remind": ["all", "earlier"],
    },
}


def measure(name: str, settings: dict[str, Any], dataset: Dataset) -> dict[str, float]:
    validation = dataset.validation
    queries, positions = validation.pairs()
    model = build(name, settings).fit(dataset.train)
    ranks = model.rank(queries, Targets.one_each(validation.items[positions]), 20)
    return {
        "recall@20": float(metrics.recall(ranks.better, ranks.ties, 20).mean()),
        "mrr@20": float(metrics.reciprocal_rank(ranks.better, ranks.ties, 20).mean()),
    }


def search(name: str, datasets: list[Dataset]) -> dict[str, Any]:
    tried: dict[str, dict[str, Any]] = {}

    def goodness(settings: dict[str, Any]) -> float:
        key = repr(sorted(settings.items()))
        if key not in tried:
            figures = {dataset.name: measure(name, settings, dataset) for dataset in datasets}
            tried[key] = {"settings": settings, **figures}
            total = sum(figure["recall@20"] + figure["mrr@20"] for figure in figures.values())
            tried[key]["mean"] = total / len(datasets)
            print(f"{name} {tried[key]['mean']:.4f} {settings}", file=sys.stderr, flush=True)
        return float(tried[key]["mean"])

    best = {setting: getattr(build(name), setting) for setting in GRIDS[name]}
    changed = True
    while changed:
        changed = False
        for setting, values in GRIDS[name].items():
            for value in values:
                if goodness({**best, setting: value}) > goodness(best) + 0.0002:
                    best, changed = {**best, setting: value}, True
    return {"best": best, "tried": sorted(tried.values(), key=lambda row: -row["mean"])}


def main() -> None:
    chosen = sys.argv[1:] or list(GRIDS)
    with tempfile.TemporaryDirectory() as work:
        datasets = [ready(name, Path(work), "0.1") for name in ("yoochoose64", "diginetica")]
        for name in chosen:
            start = time.perf_counter()
            found = search(name, datasets)
            write(f"tune_{name}", {**found, "seconds": round(time.perf_counter() - start, 1)})


if __name__ == "__main__":
    main()
