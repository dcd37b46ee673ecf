"""Why a recommender gives its answer to one prefix, as plain values: what ``Recommender.reasons`` returns.

Arrays have one row per click of the prefix, oldest first (T), and one column per item asked about, in the
order asked (k).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nextclick.sessions import ItemId


@dataclass(frozen=True, eq=False)
class Attention:
    """How much each click weighed, for every prefix of the session: of networks with attention.

    weights: float32 [T, T]; row t is the prefix that ends with click t, column j the click j. 0 where j is
    later than t, or so far back that the network does not read it any more.  The weights are no shares, they
    do not add up to 1 and may be negative; turned all at once they would mean the same, so only the size of
    a weight and whether its sign is that of the others tell something.
    """

    by: ClassVar[str] = "attention"

    weights: NDArray[np.float32]

    def to_json(self) -> dict[str, Any]:
        """Return the weights of the prefixes: row t as a list of t + 1 numbers."""
        return {"weights": [[float(w) for w in row[: t + 1]] for t, row in enumerate(self.weights)]}


@dataclass(frozen=True, eq=False)
class ClickParts:
    """What each click of the prefix adds to the score of each item: of item-to-item recommenders.

    parts: float64 [T, k]; each column adds up to the item's score. 0 for clicks that are not looked up.
    """

    by: ClassVar[str] = "clicks"

    parts: NDArray[np.float64]

    def to_json(self) -> dict[str, Any]:
        """Return what each click adds: for each item in turn, a list of T numbers."""
        return {"parts": self.parts.T.tolist()}


@dataclass(frozen=True, eq=False)
class Neighbour:
    """A session of the training part that voted.

    clicks: its distinct items in the order of their last click;  shared: those among them that the prefix
    holds too;  similarity: to the prefix, with the weight of the session itself;  days: from its last click
    to the end of training, None where the log has no clock;  later: how many training sessions ended after
    it;  parts: what it adds to the score of each item, float64 [k].
    """

    clicks: tuple[ItemId, ...]
    shared: tuple[ItemId, ...]
    similarity: float
    days: float | None
    later: int
    parts: NDArray[np.float64]

    def to_json(self) -> dict[str, Any]:
        """Return the neighbour as JSON-ready values, its parts as a list of k numbers."""
        plain = {"clicks": list(self.clicks), "shared": list(self.shared), "similarity": self.similarity}
        return {**plain, "days": self.days, "later_sessions": self.later, "parts": self.parts.tolist()}


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The sessions that voted, the most similar first: of session neighbour recommenders.

    The parts of an item, over all neighbours, add up to its score.
    """

    by: ClassVar[str] = "neighbours"

    sessions: tuple[Neighbour, ...]

    def parts(self, n_items: int) -> NDArray[np.float64]:
        """What each neighbour adds to each of the ``n_items`` items, [neighbours, k]."""
        return np.array([session.parts for session in self.sessions]).reshape(len(self.sessions), n_items)

    def to_json(self) -> dict[str, Any]:
        """Return all neighbours as JSON-ready values."""
        return {"neighbours": [session.to_json() for session in self.sessions]}


@dataclass(frozen=True, eq=False)
class LeftOut:
    """The score and rank of each item when one click is left out: an explanation for any recommender.

    scores: float32 [T, k], row j without click j alone;  ranks: int64 [T, k] among all items, from 1, ties
    to the more clicked item; 0 where the item would never be recommended (score -inf);  full: float32 [k],
    the scores of the whole prefix.
    """

    by: ClassVar[str] = "leaving out"

    scores: NDArray[np.float32]
    ranks: NDArray[np.int64]
    full: NDArray[np.float32]

    def parts(self) -> NDArray[np.float64]:
        """What each click adds: the score of the whole prefix less that without it, [T, k]; no shares."""
        return self.full.astype(np.float64) - self.scores

    def to_json(self) -> dict[str, Any]:
        """Return scores and ranks without each click: for each item in turn, lists of T; null for never."""
        scores = [[float(s) if np.isfinite(s) else None for s in column] for column in self.scores.T]
        return {
            "scores_without": scores,
            "ranks_without": [[r or None for r in c] for c in self.ranks.T.tolist()],
        }


Reasons = Attention | ClickParts | Neighbours | LeftOut
