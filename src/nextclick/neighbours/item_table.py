"""Recommenders that answer from a table of items to items, looked up for the last clicks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import ArtifactError
from nextclick.reasons import ClickParts
from nextclick.sessions import Queries, Sessions
from nextclick.settings import about
from nextclick.voting import Votes, VotingRecommender, check_rows

Decay = Literal["same", "div", "quadratic"]


@dataclass(frozen=True, eq=False)
class ItemTable:
    """The items that go with each item: those of item i are ``items[offsets[i]:offsets[i+1]]``.

    offsets: int64 [n_items + 1];  items: int32;  weights: float32, higher is closer. Best first in a row.
    """

    offsets: NDArray[np.int64]
    items: NDArray[np.int32]
    weights: NDArray[np.float32]

    @classmethod
    def strongest(
        cls, n_items: int, rows: NDArray[Any], columns: NDArray[Any], weights: NDArray[Any], keep: int
    ) -> ItemTable:
        """Build a table from (row, column, weight) triples; keep the strongest of each row.

        Equal weights keep the smaller column.
        """
        order = np.lexsort((columns, -weights, rows))
        rows, columns, weights = rows[order], columns[order], weights[order]
        starts = np.searchsorted(rows, np.arange(n_items + 1))
        kept = np.arange(len(rows)) - starts[rows] < keep
        offsets = np.r_[0, np.cumsum(np.bincount(rows[kept], minlength=n_items))].astype(np.int64)
        return cls.of(offsets, columns[kept].astype(np.int32), weights[kept])

    @classmethod
    def of(
        cls, offsets: NDArray[np.int64], items: NDArray[np.int32], weights: NDArray[np.float64]
    ) -> ItemTable:
        """Build a table from whole rows, without weights that are 0 as float32: they would be no vote."""
        small = weights.astype(np.float32)
        positive = small > 0.0
        if positive.all():
            return cls(offsets, items, small)
        before = np.r_[0, np.cumsum(positive)]
        return cls(before[offsets].astype(np.int64), items[positive], small[positive])


@dataclass(kw_only=True, eq=False)
class ItemToItem(VotingRecommender):
    """Base of recommenders that sum the table rows of the last clicks, weighted by how recent they are."""

    last_clicks: int = field(
        default=1,
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

    @abstractmethod
    def _table(self, sessions: Sessions) -> ItemTable:
        """Work out the table from sessions."""

    def _fit(self, sessions: Sessions) -> None:
        self.table = self._table(sessions)

    def _votes(self, queries: Queries) -> Votes:
        from nextclick.neighbours import kernels

        longest = int(np.max(queries.ends - queries.starts, initial=1))
        return Votes(
            *kernels.item_votes(
                queries.items, queries.starts, queries.ends, self.table.offsets, self.table.items,
                self.table.weights, self._step_weights(longest), self.n_items,
            )
        )  # fmt: skip

    def _step_weights(self, longest: int) -> NDArray[np.float64]:
        """Weight of the last click, of the one before it, and so on, as far as clicks are looked up."""
        steps = np.arange(1, min(self.last_clicks, longest) + 1, dtype=np.float64)
        power = {"same": 0.0, "div": 1.0, "quadratic": 2.0}[self.decay]
        return np.asarray(steps**-power)

    def reasons(self, prefix: NDArray[np.int32], items: NDArray[np.int32]) -> ClickParts:
        parts = np.zeros((len(prefix), len(items)))
        for back, weight in enumerate(self._step_weights(len(prefix)), start=1):
            row = slice(*self.table.offsets[prefix[-back] : prefix[-back] + 2])
            of_item = dict(zip(self.table.items[row].tolist(), self.table.weights[row].tolist(), strict=True))
            parts[-back] = [weight * of_item.get(item, 0.0) for item in items.tolist()]
        return ClickParts(parts)

    def _state(self) -> dict[str, NDArray[Any]]:
        return {"offsets": self.table.offsets, "items": self.table.items, "weights": self.table.weights}

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        columns = {"items": state["items"], "weights": state["weights"]}
        check_rows(self.name, state["offsets"], columns, self.n_items, self.n_items)
        if not (columns["weights"] > 0).all():
            raise ArtifactError(f"{self.name}: a saved weight is not positive; fit the model again")
        self.table = ItemTable(state["offsets"], **columns)
