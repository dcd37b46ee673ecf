"""Recommenders that score few items per query, and answer without ever making a full row of scores."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import ArtifactError
from nextclick.recommender import Progress, Recommender
from nextclick.sessions import Queries

if TYPE_CHECKING:
    from nextclick.filters import Filter
    from nextclick.ranking import Ranks, Targets

_MASKS = 1 << 22  # allowed or not, of so many items at once in each thread: 4 MiB


def check_rows(
    name: str, offsets: NDArray[Any], columns: Mapping[str, NDArray[Any]], n_rows: int | None, below: int
) -> None:
    """Refuse saved ragged rows that compiled code could not safely walk.

    offsets must rise from 0 to the length of every column, for ``n_rows`` rows if given; the integers of
    the column "items" must lie in [0, below).  Raises ArtifactError.
    """
    sizes = {column.size for column in columns.values()}
    whole = np.issubdtype(offsets.dtype, np.integer) and offsets.ndim == 1 and len(offsets) > 0
    whole = whole and all(column.ndim == 1 for column in columns.values())
    if not whole or offsets[0] != 0 or sizes != {int(offsets[-1])} or (offsets[1:] < offsets[:-1]).any():
        raise ArtifactError(f"{name}: the saved rows do not fit together; fit the model again")
    if n_rows is not None and len(offsets) != n_rows + 1:
        raise ArtifactError(f"{name}: found {len(offsets) - 1} saved rows for {n_rows}; fit the model again")
    items = columns["items"]
    if not np.issubdtype(items.dtype, np.integer) or (
        len(items) and not 0 <= items.min() <= items.max() < below
    ):
        raise ArtifactError(f"{name}: a saved item code is out of range; fit the model again")


@dataclass(frozen=True, eq=False)
class Votes:
    """Scores that differ from the recommender's base scores: few items per query.

    Query i gives ``items[offsets[i]:offsets[i+1]]`` the scores at the same places; an item stands at
    most once per query.  offsets: int64 [n + 1];  items: int32;  scores: float32.
    """

    offsets: NDArray[np.int64]
    items: NDArray[np.int32]
    scores: NDArray[np.float32]


class VotingRecommender(Recommender):
    """A recommender that scores few items per query and leaves all others at a fixed base score.

    The full row of scores is never made. Queries are answered in parallel on all cores.
    """

    _bases: tuple[NDArray[Any], dict[int, tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]] | None = None

    def _base(self) -> NDArray[np.float32]:
        """Scores of the items without a vote, [n_items]: zero unless a subclass says otherwise."""
        return np.zeros(self.n_items, np.float32)

    @abstractmethod
    def _votes(self, queries: Queries) -> Votes:
        """Return the votes of known, possibly empty prefixes; called from several threads."""

    def _scores(self, queries: Queries) -> NDArray[np.float32]:
        votes = self._votes(queries)
        scores = np.tile(self._base(), (len(queries), 1))
        scores[np.repeat(np.arange(len(queries)), np.diff(votes.offsets)), votes.items] = votes.scores
        return scores

    def top(
        self, queries: Queries, k: int, *, exclude_seen: bool = False, filter: Filter | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        from nextclick.compiled import in_chunks

        known = self._known(queries, filter)
        top, top_scores = self._empty_top(len(known), k)
        base = self._sorted_base(self.n_items)

        def answer(chunk: slice) -> None:
            for part, allowed in self._parts(known, chunk, filter):
                self._top_of(
                    known[part], base, allowed, self.n_items, exclude_seen, top[part], top_scores[part]
                )

        in_chunks(len(known), answer)
        return top, top_scores

    def rank(
        self,
        queries: Queries,
        targets: Targets,
        k: int,
        *,
        n_candidates: int | None = None,
        filter: Filter | None = None,
        progress: Progress | None = None,
    ) -> Ranks:
        from nextclick import ranking
        from nextclick.compiled import in_chunks

        known, n_candidates = self._known(queries, filter), self._candidates(n_candidates)
        better, ties = np.empty((2, len(targets.items)), np.int64)
        top, top_scores = self._empty_top(len(known), k)
        base = self._sorted_base(n_candidates)
        done = 0

        def answer(chunk: slice) -> None:
            nonlocal done
            for part, allowed in self._parts(known, chunk, filter):
                votes = self._top_of(
                    known[part], base, allowed, n_candidates, False, top[part], top_scores[part]
                )
                rows = slice(targets.bounds[part.start], targets.bounds[part.stop])
                of_part = targets[part]
                ranking.sparse_ranks(
                    votes.offsets, votes.items, votes.scores, base[0], base[1], allowed,
                    of_part.items, of_part.bounds, n_candidates, better[rows], ties[rows],
                )  # fmt: skip
            done += chunk.stop - chunk.start
            if progress is not None:
                progress(done, len(known))

        in_chunks(len(known), answer)
        return ranking.Ranks(better, ties, top, top_scores)

    def _parts(
        self, queries: Queries, chunk: slice, filter: Filter | None
    ) -> Iterator[tuple[slice, NDArray[np.bool_] | None]]:
        """Cut a chunk of queries where masks of allowed items would take too much memory."""
        if filter is None:
            yield chunk, None
            return
        size = max(1, _MASKS // max(1, self.n_items))
        for low in range(chunk.start, chunk.stop, size):
            part = slice(low, min(low + size, chunk.stop))
            yield part, filter.allowed(queries[part])

    def _sorted_base(self, n_candidates: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return base scores [n_items], those of the candidates ascending, and the items best first."""
        bases = self._bases
        if bases is None or bases[0] is not self.support:  # fitted or restored since
            bases = self._bases = (self.support, {})
        kept = bases[1]
        if n_candidates not in kept:
            base = self._base()
            order = np.argsort(-base, kind="stable").astype(np.int32)
            kept[n_candidates] = base, np.sort(base[:n_candidates]), order
        return kept[n_candidates]

    def _top_of(
        self,
        queries: Queries,
        base: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
        allowed: NDArray[np.bool_] | None,
        n_candidates: int,
        exclude_seen: bool,
        top: NDArray[np.int32],
        top_scores: NDArray[np.float32],
    ) -> Votes:
        from nextclick import ranking

        votes = self._votes(queries)
        ends = queries.ends if exclude_seen else queries.starts
        ranking.sparse_top(
            votes.offsets, votes.items, votes.scores, base[0], base[2], allowed,
            queries.items, queries.starts, ends, n_candidates, top, top_scores,
        )  # fmt: skip
        return votes
