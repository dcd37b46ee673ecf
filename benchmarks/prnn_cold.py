"""Items that are new: p-RNN on the demo shop, clicks on the products that came after it was fitted.

    python benchmarks/prnn_cold.py                  on the test part: the last three days
    python benchmarks/prnn_cold.py --validation     on two spans before them, by boldness and lift

Fitted on all before these days with titles, descriptions and thumbnails, it ranks the products of these days
too, by their features; ID only cannot. All items are ranked. Beside it, what a random choice of 20 within the
clicked product's category would find: 20 over the number of products in it. The second command is what
``PRNN.boldness`` and ``PRNN.lift`` were chosen by.
"""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from data import write
from nextclick import (
    PRNN,
    Features,
    Images,
    ItemTable,
    Queries,
    Sessions,
    Vocabulary,
    build,
    build_features,
    metrics,
)  # fmt: skip
from nextclick.ranking import Targets
from nextclick.recommender import Recommender
from prnn_grid import SETTINGS, WORK, kept, shop

EPOCHS = 4
DAYS = 3 * 86_400_000_000  # of a span, in microseconds
BOLDNESS, LIFTS = (0.0, 0.7, 1.0), (0.0, 2.5, 5.0)


def main() -> None:
    folder = WORK / "shop"
    data, _ = shop(folder)
    items = ItemTable.read(folder / "shop" / "items.parquet")

    def made() -> Features:
        pictures = Images("image", folder / "shop", "own")
        return build_features(items, text_columns=["title", "description"], pictures=pictures)

    features = kept(WORK / "shop-both", made)
    category = dict(zip(items.ids.tolist(), items.texts("category")[0].tolist(), strict=True))
    if "--validation" not in sys.argv:
        model = fitted(data.full, features)
        rows = {"known": measured(model, data.test, model), "new too": measured(
            model.with_items(features), data.test, model
        )}  # fmt: skip
        found = {"settings": settings(), **told(model, data.test, features, category), "rows": rows}
        ratio = rows["new too"]["recall@20_new"] / found["random_within_category"]
        write("prnn_cold", {**found, "times_random": round(ratio, 2)})
        return
    arrived = dict(zip(items.ids.tolist(), items.numbers("arrived")[0].tolist(), strict=True))
    spans: dict[str, Any] = {}
    for name, before, after in (
        ("validation part", data.train, data.validation),
        ("three days before it", *parted(data.train, data.validation)),
    ):
        model = fitted(before, features)
        there = of_time(features, arrived, int(after.times.max()) // 1000)
        found = told(model, after, there, category)
        found["rows"] = {"known": measured(model, after, model)}
        for PRNN.boldness, PRNN.lift in itertools.product(BOLDNESS, LIFTS):
            row = measured(model.with_items(there), after, model)
            found["rows"][f"boldness {PRNN.boldness:g}, lift {PRNN.lift:g}"] = row
            print(name, PRNN.boldness, PRNN.lift, row, file=sys.stderr, flush=True)
        spans[name] = found
    write("prnn_cold_validation", {"settings": settings(), "spans": spans})


def settings() -> dict[str, Any]:
    return {**SETTINGS, "epochs": EPOCHS}


def fitted(sessions: Sessions, features: Features) -> Recommender:
    return build("prnn", settings()).fit(sessions, features=features)


def parted(train: Sessions, validation: Sessions) -> tuple[Sessions, Sessions]:
    """Return the training sessions before the three days before a validation part, and those of them."""
    ends = train.times[train.offsets[1:] - 1]
    cut = int(np.searchsorted(ends, validation.times.min() - DAYS))
    first = train[:cut]
    ids = train.vocabulary.ids_of(first.items)
    lists = [ids[a:b] for a, b in itertools.pairwise(first.offsets.tolist())]
    return Sessions.from_lists(lists, first.times.tolist()), train[cut:]  # which know their own items only


def of_time(features: Features, arrived: Mapping[Any, float], end: int) -> Features:
    """Return the features of the items that had come by a time, in milliseconds."""
    ids = features.items.ids_of(range(len(features)))
    rows = np.flatnonzero([arrived[item] <= end for item in ids])
    kept = {name: of.take(rows) for name, of in features.representations.items()}
    return Features(Vocabulary([ids[row] for row in rows.tolist()]), kept)


def told(
    model: Recommender, test: Sessions, features: Features, category: Mapping[Any, str]
) -> dict[str, Any]:
    """What is measured on, and what a random choice within the category would find."""
    ids = features.items.ids_of(range(len(features)))
    sizes = Counter(category[item] for item in ids)
    targets = test.vocabulary.ids_of(test.items[test.pairs()[1]])
    new = [item for item, code in zip(targets, model.vocabulary.codes_of(targets), strict=True) if code < 0]
    chance = float(np.mean([min(1.0, 20 / sizes[category[item]]) for item in new]))
    return {
        "clicks": len(targets), "clicks_on_new_items": len(new),
        "new_items": int((model.vocabulary.codes_of(ids) < 0).sum()), "new_items_clicked": len(set(new)),
        "random_within_category": round(chance, 4),
    }  # fmt: skip


def measured(model: Recommender, test: Sessions, before: Recommender) -> dict[str, Any]:
    """Recall@20 and MRR@20 of all clicks of sessions; recall@20 of items new to ``before``, in detail."""
    ids = test.vocabulary.ids_of(range(len(test.vocabulary)))
    codes, of_before = model.vocabulary.codes_of(ids), before.vocabulary.codes_of(ids)
    queries, positions = test.pairs()
    asked = Queries(codes[queries.items], queries.starts, queries.ends)
    targets = codes[test.items[positions]]
    ranks = model.rank(asked, Targets.one_each(targets), 20)
    recall, mrr = (of(ranks.better, ranks.ties, 20) for of in (metrics.recall, metrics.reciprocal_rank))
    new = of_before[test.items[positions]] < 0
    of_new = metrics.resampled_means(recall[new, None], test.session_of[positions][new], 1000)
    low, high = metrics.interval(of_new)
    by_item = [recall[new & (test.items[positions] == item)].mean()
               for item in np.unique(test.items[positions][new])]  # fmt: skip
    return {
        "recall@20": round(float(recall.mean()), 4), "mrr@20": round(float(mrr.mean()), 4),
        "recall@20_known": round(float(recall[~new].mean()), 4),
        "recall@20_new": round(float(recall[new].mean()), 4),
        "recall@20_new_interval": [round(float(low[0]), 4), round(float(high[0]), 4)],
        "recall@20_new_mean_over_items": round(float(np.mean(by_item)), 4),
    }  # fmt: skip


if __name__ == "__main__":
    main()
