"""Items that are new: p-RNN on the demo shop, clicks on the products that came after it was fitted.

    python benchmarks/prnn_cold.py

Fitted on all before the last three days with titles, descriptions and thumbnails, it ranks the products of
these days too, by their features; ID only cannot. All items are ranked. Beside it, what a random choice of
20 within the clicked product's category would find: 20 over the number of products in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from data import write
from nextclick import Dataset, Features, Images, ItemTable, Queries, build, build_features, metrics
from nextclick.ranking import Targets
from nextclick.recommender import Recommender
from prnn_grid import SETTINGS, WORK, kept, shop

EPOCHS = 4


def main() -> None:
    folder = WORK / "shop"
    data, _ = shop(folder, 1.0)
    items = ItemTable.read(folder / "shop" / "items.parquet")

    def made() -> Features:
        pictures = Images("image", folder / "shop", "own")
        return build_features(items, text_columns=["title", "description"], pictures=pictures)

    features = kept(WORK / "shop-both", made)
    model = build("prnn", {**SETTINGS, "epochs": EPOCHS}).fit(data.full, features=features)
    wider = model.with_items(features)
    rows = {name: measured(of, model.n_items, data) for name, of in (("known", model), ("new too", wider))}
    category = dict(zip(items.ids.tolist(), items.texts("category")[0].tolist(), strict=True))
    sizes = {name: list(category.values()).count(name) for name in set(category.values())}
    targets = data.test.items[data.test.pairs()[1]]
    new = [data.vocabulary.id_of(code) for code in targets.tolist() if code >= model.n_items]
    chance = float(np.mean([min(1.0, 20 / sizes[category[item]]) for item in new]))
    write("prnn_cold", {
        "settings": {**SETTINGS, "epochs": EPOCHS}, "clicks": len(targets),
        "clicks_on_new_items": len(new),
        "new_items": wider.n_items - model.n_items, "rows": rows,
        "random_within_category": round(chance, 4),
        "times_random": round(rows["new too"]["recall@20_new"] / chance, 2),
    })  # fmt: skip
    print(rows, chance)


def measured(model: Recommender, n_known: int, data: Dataset) -> dict[str, Any]:
    """Recall@20 and MRR@20 of all clicks of the test sessions; recall@20 of new items, with its interval."""
    test = data.test
    codes = model.vocabulary.codes_of(test.vocabulary.ids_of(range(len(test.vocabulary))))
    queries, positions = test.pairs()
    asked = Queries(codes[queries.items], queries.starts, queries.ends)
    ranks = model.rank(asked, Targets.one_each(codes[test.items[positions]]), 20)
    recall, mrr = (of(ranks.better, ranks.ties, 20) for of in (metrics.recall, metrics.reciprocal_rank))
    new = test.items[positions] >= n_known
    of_new = metrics.resampled_means(recall[new, None], test.session_of[positions][new], 1000)
    low, high = metrics.interval(of_new)
    return {
        "recall@20": round(float(recall.mean()), 4), "mrr@20": round(float(mrr.mean()), 4),
        "recall@20_known": round(float(recall[~new].mean()), 4),
        "recall@20_new": round(float(recall[new].mean()), 4),
        "recall@20_new_interval": [round(float(low[0]), 4), round(float(high[0]), 4)],
    }  # fmt: skip


if __name__ == "__main__":
    main()
