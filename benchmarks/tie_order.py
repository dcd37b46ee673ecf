"""What the order of equally similar sessions is worth: results/tie_order.json.

    python benchmarks/tie_order.py

Many past sessions are equally similar to a short prefix, so which of them are among the k neighbours
depends on how ties are broken. nextclick takes the more recent session; research code takes whichever
comes first when a Python set of session numbers is walked, which favours old ones. Everything else is
equal here: the same straightforward implementation, settings (preset=paper) and sample of test prefixes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import straightforward as slow
from data import ready, write

from nextclick import metrics

SETTINGS = {
    "sknn": {"k": 100, "sample_size": 500, "similarity": "cosine"},
    "vs-knn": {
        "k": 500, "sample_size": 5000, "similarity": "vector", "weighting": "quadratic",
        "score_weighting": "div", "idf": 1.0,
    },
}  # fmt: skip
EVENTS = {"sknn": 20_000, "vs-knn": 6_000}


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for name in ("yoochoose64", "diginetica"):
            dataset = ready(name, Path(work))
            clicks, n_items = slow.frame(dataset.train), dataset.train.n_items
            queries, positions = dataset.test.pairs()
            targets = dataset.test.items[positions]
            for model, settings in SETTINGS.items():
                sample = np.linspace(0, len(queries) - 1, EVENTS[model]).astype(np.int64).tolist()
                for newest_first in (True, False):
                    plain = slow.SessionKNN(**settings, newest_first=newest_first).fit(clicks)
                    ranks = [
                        slow.rank(plain.scores(queries.prefix(i).tolist()), int(targets[i]), n_items)
                        for i in sample
                    ]
                    better, ties = np.array(ranks, np.int64).T
                    row = {
                        "model": model,
                        "dataset": name,
                        "events": len(sample),
                        "ties": "newest first" if newest_first else "as a set is walked",
                        "recall@20": round(float(metrics.recall(better, ties, 20).mean()), 4),
                        "mrr@20": round(float(metrics.reciprocal_rank(better, ties, 20).mean()), 4),
                    }
                    rows.append(row)
                    print(row, file=sys.stderr, flush=True)
    write("tie_order", {"rows": rows})


if __name__ == "__main__":
    main()
