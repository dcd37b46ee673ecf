"""The computation that all session neighbours share: find sessions like the current one, let them vote.

Found are the most recent sessions that share an item with the prefix; how alike they are is weighed, and the
k most alike vote. What the weights are, the recommenders in ``session_knn`` say.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import ArtifactError
from nextclick.neighbours.voters import voters
from nextclick.reasons import Neighbours
from nextclick.sessions import Queries, Sessions
from nextclick.settings import Search, about
from nextclick.voting import Votes, VotingRecommender, check_rows

DAY = 86_400_000_000  # microseconds

# Where a search looks: around the published settings and those found best so far.
K_RANGE: Search = ("log", 50, 1500)
SAMPLE_RANGE: Search = ("log", 500, 10_000)
LAST_RANGE: Search = [None, 2, 3, 5, 10]


@dataclass(kw_only=True, eq=False)
class SessionKNN(VotingRecommender):
    """Base of the session neighbours; subclasses say how positions, sessions and items weigh.

    Sessions are numbered by time, so "most recent" is "largest number"; equal similarities go to the
    more recent session, which makes the neighbourhood well defined.
    """

    k: int = field(default=100, metadata=about("neighbouring sessions that vote", low=1, search=K_RANGE))
    sample_size: int = field(
        default=1000,
        metadata=about("most recent sessions sharing an item that are compared", low=1, search=SAMPLE_RANGE),
    )
    last_clicks: int | None = field(
        default=None,
        metadata=about("use only the last clicks of the prefix; none: all of them", low=1, search=LAST_RANGE),
    )
    remind: Literal["all", "earlier", "none"] = field(
        default="all",
        metadata=about(
            "which items of the session are recommended again; earlier: all but the last one",
            search=["all", "earlier"],
        ),
    )

    _bounded: ClassVar[bool] = False  # posting lists cut to what is compared

    # -- the weights that subclasses give

    def _session_weights(self, sessions: Sessions) -> NDArray[np.float64]:
        """Weight of each training session as a neighbour, [n_sessions]."""
        return np.ones(len(sessions))

    def _item_factors(self, sessions: Sessions) -> NDArray[np.float64]:
        """Factor on each item's score, [n_items]."""
        return np.ones(sessions.n_items)

    def _item_weights(self, sessions: Sessions) -> NDArray[np.float64]:
        """Weight of each item in the similarity instead of its position; empty: by position."""
        return np.empty(0)

    def _recipe(self) -> tuple[int, float, int, int, float]:
        """Codes of weighting, its scale, similarity, score weighting; scale inside a neighbour (0: off)."""
        from nextclick.neighbours import kernels

        return kernels.SAME, 1.0, kernels.COSINE, kernels.SAME, 0.0

    # -- the computation they share

    def _fit(self, sessions: Sessions) -> None:
        clicks = self._clicks(sessions)
        kept = clicks["numbers"][:-1] if "numbers" in clicks else slice(None)
        ages = age_in_days(sessions)[kept] if sessions.clock else np.empty(0)
        self._take({
            **clicks,
            "session_weights": self._session_weights(sessions)[kept],
            "item_weights": self._item_weights(sessions),
            "item_factors": self._item_factors(sessions),
            "ages": ages.astype(np.float32),
        })  # fmt: skip

    def _clicks(self, sessions: Sessions) -> dict[str, NDArray[Any]]:
        """Return the distinct items of each session, latest first: offsets, items, positions (from 1).

        Where only some sessions can ever answer, these, and their ``numbers``: the number of each among all,
        and behind the last one how many there are in all.
        """
        from nextclick.neighbours import kernels

        if self._bounded and self._run.engine is not None:
            found = self._run.engine.recent_sessions(sessions, self._longest, self._tell)
            numbers, offsets, items, positions = found
        else:
            offsets, items, positions, _ = kernels.distinct(sessions.items, sessions.offsets)
            if not self._bounded:
                return {"offsets": offsets, "items": items, "positions": positions}
            _, listed = kernels.postings(offsets, items, sessions.n_items, self._longest)
            among = np.zeros(len(sessions), np.bool_)
            among[listed] = True
            of_click = np.repeat(among, np.diff(offsets))
            numbers, items, positions = np.flatnonzero(among), items[of_click], positions[of_click]
            offsets = np.r_[0, np.cumsum(np.diff(offsets)[among])]
        return {
            "numbers": np.r_[numbers, len(sessions)].astype(np.int64),
            "offsets": offsets, "items": items, "positions": positions,
        }  # fmt: skip

    @property
    def _longest(self) -> int:
        """Sessions listed for an item: one more than are compared, as ``top_without`` leaves one out."""
        return self.sample_size + 1

    def _take(self, state: Mapping[str, NDArray[Any]]) -> None:
        from nextclick.neighbours import kernels

        self._learnt = dict(state)
        longest = self._longest if self._bounded else len(state["offsets"])
        self._postings = kernels.postings(state["offsets"], state["items"], self.n_items, longest)
        self._room = threading.local()

    def _votes(self, queries: Queries, own: NDArray[np.int64] | None = None) -> Votes:
        from nextclick.neighbours import kernels

        learnt = self._learnt
        weighting, scale, similarity, score_weighting, neighbour_scale = self._recipe()
        own = np.empty(0, np.int64) if own is None else own
        return Votes(
            *kernels.session_votes(
                queries.items, queries.starts, queries.ends, own, self.last_clicks or np.iinfo(np.int64).max,
                learnt["offsets"], learnt["items"], learnt["positions"], *self._postings,
                learnt["session_weights"], learnt["item_weights"], learnt["item_factors"],
                self.k, self.sample_size, weighting, scale, similarity, score_weighting, neighbour_scale,
                {"none": kernels.NONE, "earlier": kernels.EARLIER, "all": kernels.ALL}[self.remind],
                *self._rooms(),
            )
        )  # fmt: skip

    def top_without(
        self, queries: Queries, own: NDArray[np.int64], k: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Answer queries as ``top`` does, each as if one session had not been fitted on.

        own: int64 [n], the session of each query among those fitted on (by number, in their order). What the
        sessions' clicks decide besides votes, an item's rarity among them, stays as it was fitted.
        """
        from nextclick import ranking
        from nextclick.compiled import in_chunks

        known = queries.known(self.n_items)
        if "numbers" in self._learnt:  # only some sessions are kept; the others have no vote anyway
            numbers = self._learnt["numbers"]
            at = np.searchsorted(numbers[:-1], own)
            own = np.where(numbers[at] == own, at, -1)
        top, top_scores = self._empty_top(len(known), k)
        base, _, best_first = self._sorted_base(self.n_items)

        def answer(chunk: slice) -> None:
            some = known[chunk]
            votes = self._votes(some, own[chunk])
            ranking.sparse_top(
                votes.offsets, votes.items, votes.scores, base, best_first, None, some.items, some.starts,
                some.starts, self.n_items, top[chunk], top_scores[chunk],
            )  # fmt: skip

        in_chunks(len(known), answer)
        return top, top_scores

    def _rooms(self) -> tuple[NDArray[Any], ...]:
        """Return this thread's working arrays; the kernel leaves them zero."""
        if not hasattr(self._room, "arrays"):
            n_sessions = len(self._learnt["offsets"]) - 1
            self._room.arrays = (
                np.zeros(n_sessions), np.zeros(n_sessions, np.int32),
                np.empty(n_sessions, np.int32), np.empty(n_sessions, np.int32), np.empty(n_sessions),
                np.zeros(self.n_items), np.zeros(self.n_items, np.bool_),
            )  # fmt: skip
        arrays: tuple[NDArray[Any], ...] = self._room.arrays
        return arrays

    def reasons(self, prefix: NDArray[np.int32], items: NDArray[np.int32]) -> Neighbours:
        from nextclick.neighbours import kernels

        learnt = self._learnt
        weighting, scale, similarity, score_weighting, neighbour_scale = self._recipe()
        prefix = prefix[-(self.last_clicks or len(prefix)) :]
        similarities, steps, order, spare, spare_f, _, _ = self._rooms()
        found, touched = kernels.nearest_sessions(
            prefix, *self._postings, learnt["offsets"], learnt["session_weights"], learnt["item_weights"],
            self.k, self.sample_size, weighting, scale, similarity, -1,
            similarities, steps, order, spare, spare_f,
        )  # fmt: skip
        nearest = order[:found].copy()
        alike, step = similarities[nearest].copy(), steps[nearest].copy()
        similarities[order[:touched]], steps[order[:touched]] = 0.0, 0  # as the kernel wants them back
        votes = alike * [kernels.step_weight(score_weighting, n) for n in step]
        silent = {"all": prefix[:0], "earlier": prefix[-1:], "none": prefix}[self.remind]
        return voters(learnt, self.vocabulary, prefix, silent, items, nearest, alike, votes, neighbour_scale)

    def _state(self) -> dict[str, NDArray[Any]]:
        return dict(self._learnt)

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        columns = {"items": state["items"], "positions": state["positions"]}
        check_rows(self.name, state["offsets"], columns, None, self.n_items)
        n_sessions = len(state["offsets"]) - 1
        clicks = {"offsets": state["offsets"], **columns}
        if self._bounded:
            clicks["numbers"] = numbers = state["numbers"]
            rising = numbers.dtype == np.int64 and numbers.shape == (n_sessions + 1,)
            if not rising or numbers[0] < 0 or (np.diff(numbers) <= 0).any():
                raise ArtifactError(f"{self.name}: saved numbers do not fit; fit the model again")
        wanted = {
            "session_weights": n_sessions,
            "item_factors": self.n_items,
            "item_weights": self.n_items if len(state["item_weights"]) else 0,
            "ages": n_sessions if len(state["ages"]) else 0,
        }
        for name, size in wanted.items():
            if state[name].shape != (size,):
                raise ArtifactError(f"{self.name}: saved {name} do not fit; fit the model again")
        self._take({**clicks, **{name: state[name] for name in wanted}})


def age_in_days(sessions: Sessions) -> NDArray[np.float64]:
    """Days from the last click of each session to the end of training, [n_sessions]; needs clock time."""
    last = sessions.times[np.maximum(sessions.offsets[1:] - 1, 0)]
    return np.asarray((last.max() - last) / DAY)
