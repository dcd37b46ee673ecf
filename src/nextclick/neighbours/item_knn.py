"""Item-to-item collaborative filtering from co-occurrence in sessions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from nextclick.neighbours.item_table import Decay, ItemTable, ItemToItem
from nextclick.sessions import Sessions
from nextclick.settings import about


@dataclass(kw_only=True, eq=False)
class ItemKNN(ItemToItem):
    """Recommends the items that share the most sessions with the last ones clicked.

    With n_ij the co-occurrences of items i and j in sessions and n_i those of i, the similarity of j to the
    clicked item i is

    - ``narm``: n_ij / sqrt((n_i + r)(n_j + r)), r a regularisation that keeps rarely seen items from
      looking alike by chance (Li et al., CIKM 2017, sec. 4.2, Item-KNN);
    - ``cosine``: n_ij / (n_i^a n_j^(1 - a)), the cosine at a = 1/2. The re-ranking paper's I2I-CF (sec.
      5.1) is "a variant of the cosine" that it does not print; the asymmetric one (Aiolli, RecSys 2013)
      comes within 0.002 of its figures on Diginetica, the plain one stays 0.026 below in recall@20.

    n counts sessions, or clicks (each click on i with each click on j) as the research code behind the
    NARM paper's table does.  An item is no neighbour of itself.

    With ``pairs=anchor`` only a click to predict and the click right before it, its anchor, go together: n_ij
    counts clicks on j after i, n_i anchors i, n_j clicks on j after another item. So the similarity has a
    direction, and on data with a target event it is learnt from the clicks of that event alone.
    """

    name: ClassVar[str] = "item-knn"
    summary: ClassVar[str] = "items that share many sessions with the last one (item-to-item filtering)"
    source: ClassVar[str] = "Li et al. 2017 (NARM), sec. 4.2; I2I-CF of the RRCRE paper, sec. 5.1"

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "narm": {"formula": "narm", "regularisation": 20.0, "counts": "clicks", "last_clicks": 1},
        "i2i-cf": {"formula": "cosine", "asymmetry": 0.8, "counts": "sessions", "last_clicks": 1},
    }

    last_clicks: int = field(
        default=5,
        metadata=about(
            "how many of the last clicks are looked up; 1: the last one only", low=1, search=[1, 2, 3, 5, 10]
        ),
    )
    decay: Decay = field(
        default="div",
        metadata=about(
            "weight of the click n steps back, n from 1: 1, 1/n or 1/n^2", search=["same", "div", "quadratic"]
        ),
    )
    formula: Literal["narm", "cosine"] = field(
        default="cosine",
        metadata=about("narm: regularised; cosine: asymmetric cosine (I2I-CF)", search=["cosine", "narm"]),
    )
    regularisation: float = field(
        default=20.0,
        metadata=about(
            "r, added to the count of each item (formula=narm)", low=0, search=("log", 1.0, 1000.0)
        ),
    )
    asymmetry: float = field(
        default=0.8,
        metadata=about(
            "a: 0.5 is the cosine, 1 does not punish popularity (formula=cosine)",
            low=0,
            high=1,
            search=(0.4, 1.0),
        ),
    )
    counts: Literal["sessions", "clicks"] = field(
        default="sessions",
        metadata=about(
            "what co-occurrence counts: sessions once, or every click", search=["sessions", "clicks"]
        ),
    )
    pairs: Literal["session", "anchor"] = field(
        default="session",
        metadata=about(
            "what goes together: all items of a session, or a click to predict and the one before it",
            search=["session", "anchor"],
        ),
    )
    n_neighbours: int = field(
        default=100, metadata=about("neighbours kept per item", low=1, search=("log", 20, 1000))
    )

    fits_by_engine: ClassVar[bool] = True

    def _table(self, sessions: Sessions) -> ItemTable:
        if self._run.engine is not None:
            return ItemTable.of(
                *self._run.engine.item_neighbours(
                    sessions, pairs=self.pairs, counts=self.counts, norms=self._norms,
                    keep=self.n_neighbours, tell=self._tell,
                )
            )  # fmt: skip
        if self.pairs == "anchor":
            return self._anchored(sessions)
        from nextclick.compiled import in_chunks, ragged
        from nextclick.neighbours import kernels

        offsets, items, _, clicks = kernels.distinct(sessions.items, sessions.offsets)
        item_offsets, item_sessions = kernels.postings(offsets, items, sessions.n_items, len(sessions))
        if self.counts == "clicks":
            n = sessions.support().astype(np.float64)
        else:
            n, clicks = np.diff(item_offsets).astype(np.float64), np.ones_like(clicks)
        rows, columns = self._norms(n, n)
        parts = in_chunks(
            sessions.n_items,
            lambda chunk: kernels.co_occurrence(
                chunk.start, chunk.stop, offsets, items, clicks, item_offsets, item_sessions,
                rows, columns, self.n_neighbours,
            ),
        )  # fmt: skip
        return ItemTable(*ragged(parts))

    def _anchored(self, sessions: Sessions) -> ItemTable:
        """Work out the table from each click to predict and the click right before it."""
        targets = np.flatnonzero(sessions.is_target)
        targets = targets[sessions.items[targets] != sessions.items[targets - 1]]
        anchors, clicked = sessions.items[targets - 1].astype(np.int64), sessions.items[targets]
        pairs = anchors * sessions.n_items + clicked
        if self.counts == "sessions":
            of = sessions.session_of[targets]
            order = np.lexsort((pairs, of))
            again = (np.diff(pairs[order]) == 0) & (np.diff(of[order]) == 0)
            pairs = pairs[order][np.r_[True, ~again][: len(pairs)]]
        rows, columns = pairs // sessions.n_items, pairs % sessions.n_items
        n = [np.bincount(side, minlength=sessions.n_items).astype(np.float64) for side in (rows, columns)]
        of_anchor, of_click = self._norms(*n)
        pairs, counts = np.unique(pairs, return_counts=True)
        rows, columns = pairs // sessions.n_items, pairs % sessions.n_items
        weights = counts / (of_anchor[rows] * of_click[columns])
        return ItemTable.strongest(sessions.n_items, rows, columns, weights, self.n_neighbours)

    def _norms(
        self, rows: NDArray[np.float64], columns: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what n_ij is divided by for its row i and its column j, from n_i and n_j, both [n_items]."""
        rows, columns = np.maximum(rows, 1.0), np.maximum(columns, 1.0)  # without a click: no row, no column
        if self.formula == "narm":
            return np.sqrt(rows + self.regularisation), np.sqrt(columns + self.regularisation)
        return rows**self.asymmetry, columns ** (1.0 - self.asymmetry)
