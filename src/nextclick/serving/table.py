"""Any recommender as a precomputed table: the list after each item alone, looked up when it is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nextclick import artifact
from nextclick.neighbours.item_knn import ItemKNN
from nextclick.neighbours.item_table import ItemTable
from nextclick.sessions import UNKNOWN, Queries

_TOGETHER = 1024  # items asked about at once


def export_table(path: Path, k: int = 100) -> ItemKNN:
    """Return a recommender that answers by the last click alone, from the lists of a saved model.

    k: items in each list; the item itself is left out.  It is an item-knn whose table was not counted but
    asked for, and is saved and served like one. Its weights are the model's scores where all of them are
    positive, else 1/rank, which puts the items in the same order.
    Raises ArtifactError as ``artifact.load``.
    Source: so was I2I-CF served in the online test of the re-ranking paper (RRCRE), sec. 5.6: "a static table
    stored in memory".
    """
    model = artifact.load(path)
    n = model.n_items
    k = min(k, n)
    items, scores = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    for low in range(0, n, _TOGETHER):
        part = slice(low, min(low + _TOGETHER, n))
        asked = [np.array([code], np.int32) for code in range(part.start, part.stop)]
        items[part], scores[part] = model.top(Queries.of(asked), k, exclude_seen=True)
    listed = items != UNKNOWN
    positive = bool((scores[listed] > 0).all() and np.isfinite(scores[listed]).all())
    if not positive:
        scores = np.broadcast_to(1 / np.arange(1, k + 1, dtype=np.float32), (n, k))
    offsets = np.r_[0, np.cumsum(listed.sum(axis=1))].astype(np.int64)
    table = ItemKNN(last_clicks=1, n_neighbours=k)
    table.vocabulary, table.support = model.vocabulary, model.support
    table.facts = {
        **model.facts,
        "table": {"of": model.name, "k": k, "weights": "scores" if positive else "1/rank"},
    }
    table.table = ItemTable(offsets, items[listed], np.ascontiguousarray(scores[listed]))
    return table
