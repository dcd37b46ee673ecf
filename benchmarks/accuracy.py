"""Accuracy on the public splits, beside the published figures: results/accuracy.json.

    python benchmarks/accuracy.py

yoochoose64 and diginetica (the splits of Wu et al., AAAI 2019): fitted on the whole training part, tested
on every click t >= 2 of every test session, all training items ranked, unseen targets as misses. Rows
named "defaults" use the settings that the validation search chose (tune_neighbours.py); the others are
published settings, and controlled runs around them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from data import ready, write
from nextclick import build, evaluate

NARM = "Li et al. 2017, table 3"
RRCRE = "Sánchez Rodríguez et al. 2019 (RRCRE), table 2"
RERUN = "session-rec, results on single splits"
GRAPHFINE = "GraphFine, AAAI 2026, table 2"
REFERENCE = "research implementation run on these files"

# model, label, settings, published figures by data set (recall@20, MRR@20, source)
ROWS: list[tuple[str, str, dict[str, Any], dict[str, tuple[float, float, str]]]] = [
    ("pop", "defaults", {}, {"yoochoose64": (0.0671, 0.0165, NARM)}),
    ("s-pop", "defaults", {}, {"yoochoose64": (0.3044, 0.1835, NARM)}),
    ("markov", "defaults", {}, {"yoochoose64": (0.6476, 0.2983, RERUN)}),
    ("item-knn", "defaults", {}, {}),
    ("item-knn", "preset=narm", {"preset": "narm"}, {"yoochoose64": (0.5160, 0.2181, NARM)}),
    ("item-knn", "preset=narm counts=sessions", {"preset": "narm", "counts": "sessions"}, {}),
    ("item-knn", "preset=i2i-cf", {"preset": "i2i-cf"}, {"diginetica": (0.3760, 0.1211, RRCRE)}),
    ("item-knn", "preset=i2i-cf asymmetry=0.5", {"preset": "i2i-cf", "asymmetry": 0.5}, {}),
    ("sknn", "defaults", {}, {}),
    (
        "sknn",
        "preset=paper",
        {"preset": "paper"},
        {"yoochoose64": (0.60, 0.237, REFERENCE), "diginetica": (0.49, 0.173, REFERENCE)},
    ),
    ("sknn", "preset=paper similarity=jaccard", {"preset": "paper", "similarity": "jaccard"}, {}),
    ("vs-knn", "defaults", {}, {}),
    (
        "vs-knn",
        "preset=paper",
        {"preset": "paper"},
        {"yoochoose64": (0.688, 0.281, REFERENCE), "diginetica": (0.513, 0.182, REFERENCE)},
    ),
    ("vmis-knn", "defaults", {}, {}),
    ("stan", "defaults", {}, {"yoochoose64": (0.6945, 0.2874, GRAPHFINE)}),
    ("stan", "preset=paper", {"preset": "paper"}, {"yoochoose64": (0.6945, 0.2874, GRAPHFINE)}),
]


def main() -> None:
    rows, pairs = [], {}
    with tempfile.TemporaryDirectory() as work:
        for name in ("yoochoose64", "diginetica"):
            dataset = ready(name, Path(work))
            models = {
                f"{model}, {label}": build(model, settings).fit(dataset.train)
                for model, label, settings, _ in ROWS
            }
            report = evaluate(models, dataset, protocol="remaining")
            pairs[name] = report.pairs
            for result, (model, label, _, published) in zip(report.models, ROWS, strict=True):
                figures = {
                    key: round(value, 4) for key, value in result.metrics.items() if key.endswith("@20")
                }
                row: dict[str, Any] = {"model": model, "settings": label, "dataset": name, **figures}
                for metric in ("recall@20", "mrr@20"):
                    row[f"{metric}_interval"] = [round(bound, 4) for bound in result.intervals[metric]]
                row["published"] = None
                if name in published:
                    recall, mrr, source = published[name]
                    row["published"] = {"recall@20": recall, "mrr@20": mrr, "source": source}
                row["predictions_per_second"] = round(result.predictions_per_second)
                rows.append(row)
                shown = f"{row['recall@20']:.4f} / {row['mrr@20']:.4f}"
                beside = f"  published {recall:.4f} / {mrr:.4f}" if name in published else ""
                print(f"{name:12} {model:9} {label:32} {shown}{beside}", file=sys.stderr, flush=True)
    write(
        "accuracy",
        {"protocol": "next click, all items, unseen targets as misses", "pairs": pairs, "rows": rows},
    )


if __name__ == "__main__":
    main()
