"""Lists from an approximate index, for networks whose scores are products or distances of vectors."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nextclick.index import Attached, ItemSpace, Likeness
from nextclick.recommender import Recommender
from nextclick.sessions import Queries

if TYPE_CHECKING:
    from torch import Tensor

    from nextclick.filters import Filter


@dataclass(kw_only=True, eq=False)
class IndexedRecommender(Recommender):
    """Base of recommenders that score items by how near they are to the session in a space of both.

    Where an index lies beside the saved model, ``top`` searches it instead of looking at all items; under
    rules, and where the index finds too few, it looks at all of them.
    """

    network: Any = field(init=False, repr=False)

    index: Attached | None = field(init=False, repr=False, default=None)
    """The approximate index that ``top`` searches, where one lies beside the saved model."""
    _points: NDArray[np.float32] | None = field(init=False, repr=False, default=None)

    @property
    def _likeness(self) -> Likeness:
        return "product"

    @property
    def _biased(self) -> bool:
        """Whether every item has a number of its own on top of its product with the session."""
        return getattr(self.network, "bias", None) is not None

    @abstractmethod
    def _session_vectors(self, queries: Queries) -> Tensor:
        """Return the vectors of prefixes that are not empty, [n, D]; without gradients, on the device."""

    def _forget_index(self) -> None:
        self.index = self._points = None

    def item_space(self) -> ItemSpace:
        """Return the items' vectors on the output side; with a bias it is one more coordinate."""
        import torch

        self.n_items  # noqa: B018 - refuses before fit
        with torch.inference_mode():
            table = self.network.table()
            if self._biased:
                table = torch.cat([table, self.network.bias], 1)
            return ItemSpace(table.cpu().numpy(), self._likeness)

    def session_vectors(self, queries: Queries) -> NDArray[np.float32]:
        """Return prefixes that hold a known item as points of the item space, [n, D]."""
        import torch

        with torch.inference_mode():
            vectors = self._session_vectors(queries.known(self.n_items))
            if self._biased:
                vectors = torch.cat([vectors, vectors.new_ones(len(vectors), 1)], 1)
            found: NDArray[np.float32] = vectors.cpu().numpy()
            return found

    def top(
        self, queries: Queries, k: int, *, exclude_seen: bool = False, filter: Filter | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        if self.index is None or filter is not None:
            return super().top(queries, k, exclude_seen=exclude_seen, filter=filter)
        known = self._known(queries, filter)
        top, scores = self._empty_top(len(known), k)
        complete = self._near(known, k, exclude_seen, top, scores)
        rest = np.flatnonzero(~complete)
        if len(rest):
            top[rest], scores[rest] = super().top(known[rest], k, exclude_seen=exclude_seen)
        return top, scores

    def _near(
        self, queries: Queries, k: int, exclude_seen: bool,
        top: NDArray[np.int32], scores: NDArray[np.float32],
    ) -> NDArray[np.bool_]:  # fmt: skip
        """Fill lists from the index; return which are complete, [n]. Scores are exact, of what it found."""
        complete = np.zeros(len(queries), np.bool_)
        lengths = queries.ends - queries.starts
        wanted = k + int(lengths.max(initial=0)) * exclude_seen
        rows = np.flatnonzero(lengths)
        if len(rows) == 0 or wanted > self.n_items // 2:  # nothing to ask with, or as good as all items
            return complete
        assert self.index is not None
        index = self.index.opened()
        if self._points is None:
            self._points = self.item_space().vectors
        vectors = self.session_vectors(queries[rows])
        for row, vector, found in zip(rows.tolist(), vectors, index.search(vectors, wanted), strict=True):
            codes = found[found >= 0]
            if exclude_seen:
                codes = codes[~np.isin(codes, queries.prefix(row))]
            if len(codes) < k:
                continue
            near = self._points[codes]
            of_row = near @ vector if self._likeness == "product" else -np.square(near - vector).sum(1)
            order = np.lexsort((codes, -of_row))[:k]
            top[row], scores[row], complete[row] = codes[order], of_row[order], True
        return complete
