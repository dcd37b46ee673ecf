"""Accuracy from ranks, exact under ties; diversity of what is recommended; intervals over sessions.

A target with b items scored higher and e other items of equal score stands, if tied items are shuffled,
at each of the ranks b+1 .. b+e+1 with probability 1/(e+1). Every metric here is its exact expectation
over that shuffle, never the metric at the mean rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import DataError

Floats = NDArray[np.float64]
TieRule = Literal["expected", "optimistic", "pessimistic"]


def settle(
    better: NDArray[np.int64], ties: NDArray[np.int64], rule: TieRule, bounds: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (better, ties) as a tie rule sees them: optimistic puts the target first of its equals.

    bounds: where a query has several targets, as in ``remaining``; those that tie with each other then
    take the first (or last) places one after the other. One target per query if left out.
    """
    if rule == "expected":
        return better, ties
    place = np.zeros_like(better)  # of the target among the targets it ties with
    if bounds is not None:
        order, group, size = _tied_targets(better, bounds)
        place[order] = np.arange(len(order)) - np.r_[0, np.cumsum(size)][group]
    return better + (place if rule == "optimistic" else ties - place), np.zeros_like(ties)


def _tied_targets(
    better: NDArray[np.int64], bounds: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return (order, group, size): the targets by query and rank, the tie group of each, its targets."""
    query = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    order = np.lexsort((better, query))
    group = np.cumsum(np.r_[True, (np.diff(query[order]) != 0) | (np.diff(better[order]) != 0)]) - 1
    return order, group[: len(order)], np.bincount(group)


def recall(better: NDArray[np.int64], ties: NDArray[np.int64], k: int) -> Floats:
    """Probability that the target is among the first k, per event; its mean is recall@k = hit rate@k.

    better, ties: [n_events], see ``ranking.Ranks``.  Returns [n_events] in [0, 1].
    Source: Li et al., CIKM 2017, sec. 4.3.1; ties as in McSherry & Najork, ECIR 2008.
    """
    return np.clip(k - better, 0, ties + 1) / (ties + 1)


def reciprocal_rank(better: NDArray[np.int64], ties: NDArray[np.int64], k: int) -> Floats:
    """Expected 1/rank of the target, ranks beyond k counting 0, per event; its mean is MRR@k.

    Source: Voorhees, TREC-8, 1999; the cut at k as in Li et al., CIKM 2017, sec. 4.3.1.
    """
    return _mean_over_ranks(1.0 / np.arange(1, k + 1), better, ties)


def ndcg(better: NDArray[np.int64], ties: NDArray[np.int64], k: int) -> Floats:
    """Expected 1/log2(1 + rank) of the one target within the first k, per event; its mean is NDCG@k.

    Source: Jaervelin & Kekaelaeinen, TOIS 2002; with one relevant item the ideal gain is 1.
    """
    return _mean_over_ranks(1.0 / np.log2(np.arange(2, k + 2)), better, ties)


def _mean_over_ranks(gains: Floats, better: NDArray[np.int64], ties: NDArray[np.int64]) -> Floats:
    """Mean of gains[rank - 1] over the ranks better+1 .. better+ties+1, zero beyond the gains."""
    k, summed = len(gains), np.r_[0.0, np.cumsum(gains)]
    return (summed[np.clip(better + ties + 1, 0, k)] - summed[np.clip(better, 0, k)]) / (ties + 1)


@dataclass(frozen=True, eq=False)
class Remaining:
    """Metrics per query over all items still to come in the session; each [n_queries] in [0, 1]."""

    precision: Floats
    recall: Floats
    average_precision: Floats


def remaining(
    better: NDArray[np.int64], ties: NDArray[np.int64], bounds: NDArray[np.int64], k: int
) -> Remaining:
    """Precision, recall and average precision at k where a query has several targets.

    The targets of query i are rows bounds[i]:bounds[i+1], at least one each. Average precision is the mean,
    over the min(k, targets) best that can be had, of the precision at the rank of each target among the
    first k. All three are exact expectations over the order of tied items; for average precision this
    takes in that tied targets stand before each other in half of the orders.
    Source: Twardowski et al., ECIR 2021, sec. 5 (REC, PREC, MAP).
    """
    n_targets = np.diff(bounds)
    if (n_targets < 1).any():
        raise DataError("a query without a remaining item cannot be measured")
    query = np.repeat(np.arange(len(n_targets)), n_targets)
    hits = np.bincount(query, recall(better, ties, k), len(n_targets))

    # Of each target: relevant items scored higher, and relevant items in its tie group (itself included).
    order, group, size = _tied_targets(better, bounds)
    first = np.r_[0, np.cumsum(size)][group]  # place of the group's first target in the sorted order
    above = np.empty(len(better))
    together = np.empty(len(better))
    above[order] = first - bounds[query[order]]
    together[order] = size[group]

    # With the target j-th of the m tied items: precision (above + 1 + (together-1)(j-1)/(m-1)) / (better+j).
    m, harmonic = ties + 1, np.r_[0.0, np.cumsum(1.0 / np.arange(1, k + 1))]
    places = np.clip(k - better, 0, m)
    inverse = harmonic[np.clip(better + places, 0, k)] - harmonic[np.clip(better, 0, k)]
    slope = (together - 1) / np.maximum(m - 1, 1)
    precision = ((above + 1) * inverse + slope * (places - (better + 1) * inverse)) / m
    found = np.where(places > 0, precision, 0.0)
    best = np.minimum(n_targets, k)
    return Remaining(hits / k, hits / n_targets, np.bincount(query, found, len(n_targets)) / best)


def coverage(top: NDArray[np.int32], n_items: int) -> float:
    """Share of the items that stand in at least one list; top: [n_queries, k], -1 for empty places.

    Source: Twardowski et al., ECIR 2021, sec. 5.5; Ludewig & Jannach 2018.
    """
    return float((_shown(top, n_items) > 0).mean())


def popularity(top: NDArray[np.int32], support: NDArray[np.int64]) -> float:
    """Mean number of training clicks of the recommended items; support: [n_items].

    Source: Ludewig & Jannach 2018 (popularity bias), not rescaled.
    """
    shown = _shown(top, len(support))
    return float((shown * support).sum() / max(shown.sum(), 1))


def gini(top: NDArray[np.int32], n_items: int) -> float:
    """Gini index of how often each item is shown: 0 all alike, towards 1 a few items only.

    Source: Gini 1912; as used for recommendation lists by Fleder & Hosanagar, EC 2007.
    """
    return gini_of(_shown(top, n_items))


def gini_of(counts: NDArray[np.int64]) -> float:
    """Gini index of non-negative counts, [n]: 0 all alike (or all zero), towards 1 one has everything."""
    ordered = np.sort(counts).astype(np.float64)
    n, total = len(ordered), ordered.sum()
    place = np.arange(1, n + 1)
    return float((2 * place - n - 1) @ ordered / (n * total)) if total else 0.0


def _shown(top: NDArray[np.int32], n_items: int) -> NDArray[np.int64]:
    """How often each item stands in the lists, [n_items]."""
    return np.bincount(top[top >= 0], minlength=n_items)


def resampled_means(values: Floats, sessions: NDArray[np.int64], n_resamples: int, seed: int = 0) -> Floats:
    """Means of each column of values under resampling of whole sessions, [n_resamples, n_columns].

    values: [n_events, n_columns];  sessions: [n_events] the session of each event.  A session's events
    are not independent, so sessions are drawn, not events. Weights are Poisson(1), which for many
    sessions is drawing with replacement. The same seed gives the same draws, so columns stay paired.
    Source: Efron & Tibshirani 1993; Poisson weights: Chamandy et al., Google 2012.
    """
    _, group = np.unique(sessions, return_inverse=True)
    n_sessions = int(group.max()) + 1 if len(group) else 0
    sums = np.stack(
        [np.bincount(group, column, n_sessions) for column in [*values.T, np.ones(len(values))]], 1
    )
    rng = np.random.default_rng(seed)
    means = np.empty((n_resamples, values.shape[1]))
    step = max(1, 4_000_000 // max(n_sessions, 1))
    for low in range(0, n_resamples, step):
        weights = rng.poisson(1.0, (min(step, n_resamples - low), n_sessions)).astype(np.float64)
        totals = weights @ sums
        means[low : low + step] = totals[:, :-1] / np.maximum(totals[:, -1:], 1.0)
    return means


def interval(means: Floats, level: float = 0.95) -> tuple[Floats, Floats]:
    """Lower and upper bound of the central ``level`` of resampled means, one per column."""
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def two_sided_p(differences: Floats) -> Floats:
    """Two-sided bootstrap p-value that a difference is zero, one per column; at least 1/(n_resamples + 1).

    differences: [n_resamples, n_columns] resampled differences of two paired means.
    """
    n = len(differences)
    below, above = (differences <= 0).sum(axis=0), (differences >= 0).sum(axis=0)
    return np.minimum(1.0, 2 * (np.minimum(below, above) + 1) / (n + 1))
