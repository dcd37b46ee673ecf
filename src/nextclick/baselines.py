"""The simplest recommenders, which every other one has to beat: popularity and first-order transitions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nextclick.neighbours.item_table import ItemTable, ItemToItem
from nextclick.sessions import Queries, Sessions
from nextclick.settings import about
from nextclick.voting import Votes, VotingRecommender


@dataclass(kw_only=True, eq=False)
class Popularity(VotingRecommender):
    """Recommends the most clicked items, whatever the session (POP).

    All clicks count, also where only those of one event are to be predicted.
    Source: Li et al., CIKM 2017, sec. 4.2.
    """

    name: ClassVar[str] = "pop"
    summary: ClassVar[str] = "the most clicked items, the same for everyone"
    source: ClassVar[str] = "Li et al. 2017 (NARM), sec. 4.2"

    def _fit(self, sessions: Sessions) -> None:
        pass  # every recommender keeps the clicks per item

    def _base(self) -> NDArray[np.float32]:
        return self.support.astype(np.float32)

    def _votes(self, queries: Queries) -> Votes:
        return _no_votes(len(queries))

    def _state(self) -> dict[str, NDArray[Any]]:
        return {}

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        pass


@dataclass(kw_only=True, eq=False)
class SessionPopularity(Popularity):
    """Recommends the items clicked most in the session so far, then the most popular ones.

    The score of an item is its clicks in the session plus its popularity as a fraction below 1, so equal
    counts are ordered by popularity.  Source: Li et al., CIKM 2017, sec. 4.2 (S-POP); Twardowski et al.,
    ECIR 2021, sec. 5.1 (SPOP).
    """

    name: ClassVar[str] = "s-pop"
    summary: ClassVar[str] = "the items of the session by clicks so far, then the most popular"
    source: ClassVar[str] = "Li et al. 2017 (NARM), sec. 4.2; Twardowski et al. 2021 (SML), sec. 5.1"

    def _base(self) -> NDArray[np.float32]:
        # Ranks rather than counts: a float32 could not tell large counts apart beside a whole number.
        _, place = np.unique(self.support, return_inverse=True)
        return (place / (place.max() + 1.0)).astype(np.float32)

    def _votes(self, queries: Queries) -> Votes:
        base = self._sorted_base(self.n_items)[0]
        rows = []
        for i in range(len(queries)):
            items, counts = np.unique(queries.prefix(i), return_counts=True)
            rows.append((items, counts + base[items]))
        if not rows:
            return _no_votes(0)
        offsets = np.r_[0, np.cumsum([len(items) for items, _ in rows])].astype(np.int64)
        items, scores = (np.concatenate(column) for column in zip(*rows, strict=True))
        return Votes(offsets, items.astype(np.int32), scores.astype(np.float32))


@dataclass(kw_only=True, eq=False)
class Markov(ItemToItem):
    """First-order Markov chain: the share of clicks on j among those that directly followed a click on i.

    Of data with a target event only the clicks of that event are counted, after the click before them.
    Source: Twardowski et al., ECIR 2021, sec. 5.1 (MARKOV-1).
    """

    name: ClassVar[str] = "markov"
    summary: ClassVar[str] = "what was clicked right after the last item (first-order Markov chain)"
    source: ClassVar[str] = "Twardowski et al. 2021 (SML), sec. 5.1 (MARKOV-1)"

    n_neighbours: int = field(
        default=1000,
        metadata=about("successors kept per item, the most frequent ones", low=1, search=("log", 20, 2000)),
    )

    def _table(self, sessions: Sessions) -> ItemTable:
        targets = np.flatnonzero(sessions.is_target)
        before, after = sessions.items[targets - 1], sessions.items[targets]
        pairs, counts = np.unique(before.astype(np.int64) * sessions.n_items + after, return_counts=True)
        rows, columns = pairs // sessions.n_items, pairs % sessions.n_items
        clicks_after = np.bincount(before, minlength=sessions.n_items)
        return ItemTable.strongest(
            sessions.n_items, rows, columns, counts / clicks_after[rows], self.n_neighbours
        )


def _no_votes(n: int) -> Votes:
    return Votes(np.zeros(n + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
