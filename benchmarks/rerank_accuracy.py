"""What re-ranking adds to fitted generators: results/rerank_DATASET.json, row by row.

    python benchmarks/rerank_accuracy.py yoochoose64 i2i-cf=DIR vs-knn=DIR stamp=DIR narm=DIR
    python benchmarks/rerank_accuracy.py diginetica vs-knn=DIR narm=DIR --only "RRCRE over vs-knn"

DIR are models that nextclick fit saved, fitted on the training part of the same data; the data are prepared
in a temporary folder, and candidates are kept in CANDIDATES (an environment variable) if it is set. Each row
is tested as in accuracy.py, and compared with its generators by resampling whole sessions. A row that stands
in the result file already is not run again: delete it there to repeat it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from data import RESULTS, ready, write
from neural_accuracy import measured, show
from nextclick import Recommender, build, evaluate, load
from nextclick.artifact import fingerprint_of, read_manifest
from nextclick.recommender import Run

SINGLE = {"RRCRE": {}, "RR": {"cre": False}}
TOGETHER: dict[str, tuple[str, dict[str, Any]]] = {
    "blend by rank": ("blend", {}),
    "blend by score": ("blend", {"by": "score"}),
    "RRCRE": ("rrcre", {}),
    "RRCRE with scores": ("rrcre", {"scored": True}),
}
FIGURES = ("recall@20", "mrr@20", "recall@5", "coverage@20")


def rows_of(names: list[str]) -> list[tuple[str, str, dict[str, Any], list[str]]]:
    """The rows: label, model, settings, and the names of the generators."""
    rows = [
        (f"{kind} over {name}", "rrcre", values, [name]) for kind, values in SINGLE.items() for name in names
    ]
    both = [name for name in ("vs-knn", "narm") if name in names]
    if len(both) == 2:
        rows += [
            (f"{label} over {' and '.join(both)}", model, values, both)
            for label, (model, values) in TOGETHER.items()
        ]
    return rows


def main() -> None:
    name, *arguments = sys.argv[1:]
    only = arguments[arguments.index("--only") + 1 :] if "--only" in arguments else []
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    generators = {label: load(folder) for label, folder in given.items()}
    prints = {label: fingerprint_of(read_manifest(Path(folder))) for label, folder in given.items()}
    file = RESULTS / f"rerank_{name}.json"
    rows = measured(file)
    with tempfile.TemporaryDirectory() as work:
        dataset = ready(name, Path(work))
        keep = Path(os.environ.get("CANDIDATES", f"{work}/candidates"))
        for label, model, values, over in rows_of(list(generators)):
            if any(row["row"] == label for row in rows) or (only and label not in only):
                continue
            start = time.perf_counter()
            fitted = build(model, values, generators=[generators[one] for one in over])
            fitted.fit(dataset.train, progress=show(), run=Run(candidates=keep))
            seconds = time.perf_counter() - start
            compared: dict[str, Recommender] = {label: fitted, **{one: generators[one] for one in over}}
            report = evaluate(compared, dataset)
            results = {result.name: result for result in report.models}
            rows = measured(file)
            rows.append({
                "row": label,
                "model": model,
                "settings": values,
                "generators": {one: prints[one] for one in over},
                **{metric: round(results[label].metrics[metric], 4) for metric in FIGURES},
                "intervals": {
                    metric: [round(bound, 4) for bound in results[label].intervals[metric]]
                    for metric in ("recall@20", "mrr@20")
                },
                "of the generators": {
                    one: {metric: round(results[one].metrics[metric], 4) for metric in FIGURES}
                    for one in over
                },
                "differences": differences(report, label),
                "facts": {key: fitted.facts[key] for key in ("candidates", "examples", "prefixes", "weights")
                          if key in fitted.facts},
                "fit_seconds": round(seconds),
                "latency_p50_ms": round(results[label].latency_p50_ms, 3),
                "looks": [epoch["figure"] for epoch in fitted.facts.get("epochs", [])],
            })  # fmt: skip
            print({key: rows[-1][key] for key in ("row", *FIGURES, "differences", "fit_seconds")}, flush=True)
            write(f"rerank_{name}", {"dataset": name, "pairs": dataset.test.n_pairs, "rows": rows})


def differences(report: Any, label: str) -> list[dict[str, Any]]:
    """What a model has more than each other one: paired over sessions, with 95% interval and p-value."""
    found = []
    for one in report.comparisons:
        if label not in (one.first, one.second) or one.metric not in ("recall@20", "mrr@20"):
            continue
        sign = 1 if one.first == label else -1
        low, high = sorted((sign * one.low, sign * one.high))
        found.append({
            "over": one.second if sign == 1 else one.first,
            "metric": one.metric,
            "difference": round(sign * one.difference, 4),
            "interval": [round(low, 4), round(high, 4)],
            "p": one.p,
        })  # fmt: skip
    return found


if __name__ == "__main__":
    main()
