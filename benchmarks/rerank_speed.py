"""What re-ranking adds to one request on one core: results/rerank_speed.json.

    taskset -c 0 python benchmarks/rerank_speed.py

Requests are test prefixes of yoochoose64, asked one by one for 20 items in the users' own ids, each of the
generator and then of the re-ranker over it with k=100, in turn. What a re-ranker has learnt does not change
its speed, so it is trained on few sessions only.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from data import ready, write
from nextclick import build
from nextclick.sessions import Sessions

REQUESTS, WARM = 1000, 50


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        dataset = ready("yoochoose64", Path(work))
        queries, _ = dataset.test.pairs()
        rows = np.linspace(0, len(queries) - 1, REQUESTS + WARM).astype(np.int64)
        requests = [dataset.vocabulary.ids_of(queries.prefix(int(row))) for row in rows]
        few: Sessions = dataset.train[-3000:]
        found = {}
        i2i, paper = {"preset": "i2i-cf"}, {"preset": "paper"}
        for name, over, values in (
            ("i2i-cf", [build("item-knn", i2i)], {}),
            ("vs-knn", [build("vs-knn")], {}),
            ("vs-knn, preset=paper", [build("vs-knn")], paper),
            ("stamp", [build("stamp", {"epochs": 1})], {}),
            ("vs-knn and i2i-cf", [build("vs-knn"), build("item-knn", i2i)], {}),
        ):
            for one in over:
                one.fit(dataset.train)
            settings = {**values, "epochs": 1, "held_out": "none"}  # fitted as little as speed needs
            model = build("rrcre", settings, generators=over).fit(few)
            seconds = np.empty((REQUESTS + WARM, 2))
            for n, request in enumerate(requests):
                start = time.perf_counter()
                for one in over:
                    one.recommend(request, 20)
                between = time.perf_counter()
                model.recommend(request, 20)
                seconds[n] = between - start, time.perf_counter() - between
            taken = 1000 * seconds[WARM:]
            found[name] = {
                "generators_p50_ms": round(float(np.median(taken[:, 0])), 3),
                "reranker_p50_ms": round(float(np.median(taken[:, 1])), 3),
                "added_p50_ms": round(float(np.median(taken[:, 1] - taken[:, 0])), 3),
                "added_p90_ms": round(float(np.percentile(taken[:, 1] - taken[:, 0], 90)), 3),
                "added_p99_ms": round(float(np.percentile(taken[:, 1] - taken[:, 0], 99)), 3),
            }
            print(name, found[name], flush=True)
    content = {"items": dataset.known[0], "k": 100, "requests": REQUESTS, "over": found}
    write("rerank_speed", content)


if __name__ == "__main__":
    main()
