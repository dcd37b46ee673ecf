"""Where a target stands among all items, and the first k of them, from dense or sparse scores.

The tie rule is one for all recommenders: for lists, the smaller item code (the more clicked item)
comes first; for targets, how many items tie with it is returned, so that metrics can be exact
expectations over a random order of the tied items.

Where rules forbid items, dense scores of those are -inf already, and the sparse kernels get ``allowed``, bool
[n, n_items]. Without rules it is None, and the compiler leaves out what asks it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nextclick.compiled import compiled

MISS = np.iinfo(np.int64).max // 4  # "items better than the target" of a target that can never be listed


@dataclass(frozen=True, eq=False)
class Targets:
    """The items that were really clicked later: those of query i are ``items[bounds[i]:bounds[i+1]]``.

    items: int32 [n_targets] item codes;  bounds: int64 [n_queries + 1].
    """

    items: NDArray[np.int32]
    bounds: NDArray[np.int64]

    @classmethod
    def one_each(cls, items: NDArray[np.int32]) -> Targets:
        """One target per query."""
        return cls(items, np.arange(len(items) + 1))

    def __getitem__(self, which: slice) -> Targets:
        low, high, _ = which.indices(len(self.bounds) - 1)
        a, b = self.bounds[low], self.bounds[high]
        return Targets(self.items[a:b], self.bounds[low : high + 1] - a)


@dataclass(frozen=True, eq=False)
class Ranks:
    """What a recommender made of targets.

    better: int64 [n_targets], candidates scored higher than the target (MISS if it cannot be listed);
    ties: int64 [n_targets], other candidates of the same score;  top: int32 [n_queries, k], the list
    shown, -1 where fewer than k items can be recommended;  scores: float32 [n_queries, k], those of the
    list, -inf where it has ended.
    """

    better: NDArray[np.int64]
    ties: NDArray[np.int64]
    top: NDArray[np.int32]
    scores: NDArray[np.float32]


@compiled
def dense_ranks(scores, targets, bounds, n_candidates, better, ties):
    """Fill better and ties from scores [n, n_items]; return the number of NaN scores met."""
    nan = 0
    for i in range(scores.shape[0]):
        row = scores[i]
        for n in range(bounds[i], bounds[i + 1]):
            target = targets[n]
            if target < 0 or target >= row.shape[0] or row[target] == -np.inf:
                better[n], ties[n] = MISS, 0
                continue
            own = row[target]
            above, below, equal = np.int32(0), np.int32(0), np.int32(0)  # 32 bits: twice as many at once
            for j in range(n_candidates):
                above = np.int32(above + np.int32(row[j] > own))
                below = np.int32(below + np.int32(row[j] < own))
                equal = np.int32(equal + np.int32(row[j] == own))
            nan += n_candidates - above - below - equal
            nan += own != own and target >= n_candidates
            better[n], ties[n] = above, equal - (target < n_candidates)
    return nan


_TOGETHER = 64  # scores looked at at once


@compiled
def _listed(item, score, row, row_scores, filled):
    """Put an item into its place in a list of at most k; return how many the list holds then."""
    k = len(row)
    if filled == k:
        worst = row_scores[k - 1]
        if score < worst or (score == worst and item > row[k - 1]):
            return filled
    at = min(filled, k - 1)
    while at > 0 and (row_scores[at - 1] < score or (row_scores[at - 1] == score and row[at - 1] > item)):
        row_scores[at], row[at] = row_scores[at - 1], row[at - 1]
        at -= 1
    row_scores[at], row[at] = score, item
    return min(filled + 1, k)


@compiled
def dense_top(scores, n_candidates, top, top_scores):
    """Fill top [n, k] and top_scores from scores [n, n_items]: higher score, then smaller code, first."""
    k = top.shape[1]
    for i in range(scores.shape[0]):
        filled = 0
        row = scores[i]
        for low in range(0, n_candidates, _TOGETHER):
            high = min(low + _TOGETHER, n_candidates)
            worst = top_scores[i, k - 1] if filled == k else np.float32(-np.inf)
            above = np.int32(0)
            for j in range(low, high):
                above = np.int32(above + np.int32(row[j] > worst))
            if above == 0:  # most stretches of the row, once the list is full
                continue
            for j in range(low, high):
                if row[j] > -np.inf and (filled < k or row[j] > top_scores[i, k - 1]):
                    filled = _listed(j, row[j], top[i], top_scores[i], filled)
        top[i, filled:] = -1
        top_scores[i, filled:] = -np.inf


@compiled
def _allowed_above(base, own, allowed, n_candidates):
    """Count the allowed candidates whose base score is higher than a score, and those that equal it."""
    above, equal = np.int32(0), np.int32(0)
    for j in range(n_candidates):
        above = np.int32(above + (np.int32(base[j] > own) & np.int32(allowed[j])))
        equal = np.int32(equal + (np.int32(base[j] == own) & np.int32(allowed[j])))
    return np.int64(above), np.int64(equal)


@compiled
def sparse_ranks(
    offsets, items, scores, base, base_sorted, allowed, targets, bounds, n_candidates, better, ties
):
    """Fill better and ties where item items[v] scores scores[v] and every other item its base score.

    base_sorted: the base scores of the candidates, ascending.
    """
    for i in range(len(bounds) - 1):
        for n in range(bounds[i], bounds[i + 1]):
            target = targets[n]
            if target < 0 or target >= len(base):
                better[n], ties[n] = MISS, 0
                continue
            if allowed is not None and not allowed[i, target]:
                better[n], ties[n] = MISS, 0
                continue
            own = base[target]
            for v in range(offsets[i], offsets[i + 1]):
                if items[v] == target:
                    own = scores[v]
            if own == -np.inf:
                better[n], ties[n] = MISS, 0
                continue
            if allowed is None:
                first = np.searchsorted(base_sorted, own, side="left")
                last = np.searchsorted(base_sorted, own, side="right")
                above, equal = len(base_sorted) - last, last - first
            else:
                above, equal = _allowed_above(base, own, allowed[i], n_candidates)
            for v in range(offsets[i], offsets[i + 1]):
                if allowed is not None and not allowed[i, items[v]]:
                    continue
                if items[v] < n_candidates:  # counted above at its base score
                    above += int(scores[v] > own) - int(base[items[v]] > own)
                    equal += int(scores[v] == own) - int(base[items[v]] == own)
            better[n], ties[n] = above, equal - int(target < n_candidates)


@compiled
def sparse_top(
    offsets, items, scores, base, base_order, allowed, seen, seen_starts, seen_ends, n_candidates, top,
    top_scores,
):  # fmt: skip
    """Fill top [n, k] and top_scores; leave out items[seen_starts[i]:seen_ends[i]] of ``seen``.

    base_order: the items by base score, higher first, then smaller code.
    """
    k = top.shape[1]
    taken = np.zeros(len(base), np.bool_)
    for i in range(len(offsets) - 1):
        for v in range(seen_starts[i], seen_ends[i]):
            taken[seen[v]] = True
        filled = 0
        for v in range(offsets[i], offsets[i + 1]):
            if allowed is not None and not allowed[i, items[v]]:
                continue
            if not taken[items[v]] and items[v] < n_candidates and scores[v] > -np.inf:
                filled = _listed(items[v], scores[v], top[i], top_scores[i], filled)
        for v in range(offsets[i], offsets[i + 1]):
            taken[items[v]] = True
        for item in base_order:  # fills up the list, and passes what was voted below the base
            if filled == k and base[item] < top_scores[i, k - 1]:
                break
            if filled == k and base[item] == top_scores[i, k - 1] and item > top[i, k - 1]:
                break
            if base[item] == -np.inf:
                break
            if allowed is not None and not allowed[i, item]:
                continue
            if not taken[item] and item < n_candidates:
                filled = _listed(item, base[item], top[i], top_scores[i], filled)
        top[i, filled:] = -1
        top_scores[i, filled:] = -np.inf
        for v in range(offsets[i], offsets[i + 1]):
            taken[items[v]] = False
        for v in range(seen_starts[i], seen_ends[i]):
            taken[seen[v]] = False
