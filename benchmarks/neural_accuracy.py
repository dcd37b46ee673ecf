"""Accuracy of NARM as published beside the published figures: results/neural_DATASET.json.

    python benchmarks/neural_accuracy.py yoochoose64

Fitted on the training part, whose latest tenth of sessions chooses the epoch; tested on every click t >= 2
of every test session, all training items ranked, unseen targets as misses. A row that stands in the result
file already is not run again: delete it there to repeat it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from data import RESULTS, ready, show, write
from nextclick import build, evaluate
from nextclick.models import find
from nextclick.settings import parse

RRCRE = "Sánchez Rodríguez et al. 2019 (RRCRE), table 2"
PUBLISHED: dict[str, dict[str, tuple[float, float, str]]] = {
    "narm": {
        "yoochoose64": (0.6832, 0.2876, "Li et al. 2017, table 3"),
        "diginetica": (0.5015, 0.1599, RRCRE),
    },
}
ROWS: list[tuple[str, str]] = [("narm", "preset=paper validation_by=time")]


def main() -> None:
    name, wanted = sys.argv[1], sys.argv[2:]
    file = RESULTS / f"neural_{name}.json"
    rows = measured(file)
    with tempfile.TemporaryDirectory() as work:
        dataset = ready(name, Path(work))
        for model, settings in ROWS:
            done = any(row["model"] == model and row["settings"] == settings for row in rows)
            if done or (wanted and model not in wanted):
                continue
            start = time.perf_counter()
            given = [] if settings == "defaults" else settings.split()
            fitted = build(model, parse(find(model), given)).fit(dataset.train, progress=show())
            seconds = time.perf_counter() - start
            result = evaluate([fitted], dataset).models[0]
            published = PUBLISHED[model].get(name)
            names = ("recall@20", "mrr@20", "source")
            rows = measured(file)  # others may have measured meanwhile
            rows.append({
                "model": model,
                "settings": settings,
                "dataset": name,
                **{at: round(result.metrics[at], 4) for at in ("recall@20", "mrr@20", "coverage@20")},
                "recall@20_interval": [round(bound, 4) for bound in result.intervals["recall@20"]],
                "mrr@20_interval": [round(bound, 4) for bound in result.intervals["mrr@20"]],
                "published": published and dict(zip(names, published, strict=True)),
                "fit_seconds": round(seconds),
                "predictions_per_second": round(result.predictions_per_second),
                "latency_p50_ms": round(result.latency_p50_ms, 3),
                "epochs": fitted.facts["epochs"],
            })  # fmt: skip
            print({key: value for key, value in rows[-1].items() if key != "epochs"}, flush=True)
            write(f"neural_{name}", {"dataset": name, "pairs": dataset.test.n_pairs, "rows": rows})


def measured(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_text("utf-8"))["rows"] if file.exists() else []


if __name__ == "__main__":
    main()
