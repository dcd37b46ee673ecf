"""Compiled loops over lists of candidates."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextclick.compiled import compiled, fast

ABSENT = -1
FLOOR = np.float32(2.0**-60)  # of a candidate's score
LEAST = -12.0  # of a logarithm of a share


@compiled
def clean(items, scores, n_items, seen):
    """Move what cannot be a candidate out of lists [n, k], in place: unknown codes, repeats, -inf scores.

    Lists close up and end in -1 with score -inf. seen: bool [n_items], False before and after.
    Return int64 [3]: lists with fewer than k candidates, unknown codes met, repeats met.
    """
    short = unknown = repeats = 0
    n, k = items.shape
    for i in range(n):
        kept = 0
        for j in range(k):
            item, score = items[i, j], scores[i, j]
            if item < 0 or item >= n_items:
                unknown += item != ABSENT
                continue
            if seen[item]:
                repeats += 1
                continue
            if not score > -np.inf:
                continue
            seen[item] = True
            items[i, kept] = item
            scores[i, kept] = score
            kept += 1
        for j in range(kept):
            seen[items[i, j]] = False
        items[i, kept:] = ABSENT
        scores[i, kept:] = -np.inf
        short += kept < k
    return np.array([short, unknown, repeats])


@compiled
def clicked(clicks, starts, ends, items, scores):
    """Fill lists [n, k] with the items of each prefix, the latest click first, each once, -1 behind the last.

    Their scores are 1 / (1 + clicks since).
    """
    for i in range(len(starts)):
        kept = 0
        for back in range(ends[i] - starts[i]):
            item = clicks[ends[i] - 1 - back]
            if kept == items.shape[1]:
                break
            again = False
            for j in range(kept):
                again = again or items[i, j] == item
            if not again:
                items[i, kept], scores[i, kept] = item, 1.0 / (1.0 + back)
                kept += 1
        items[i, kept:] = ABSENT
        scores[i, kept:] = -np.inf


@compiled
def unite(items, scores, place, union, ranks, features):
    """Unite the lists of several generators, [G, n, k], into candidates [n, C], in order of the generators.

    ranks: int32 [n, C, G], place of a candidate in each list, k where it is not there;  features: float32
    [n, C, G, 3], what its score there says: its distance from the list's mean over the list's deviation; the
    logarithm of its share in the soft-max of the list; and that of its share in the sum of what the scores
    have over the lowest. Where it is not there it has what the lowest has.  place: int32 [n_items], -1 before
    and after.
    Return the largest number of candidates of a prefix.
    """
    n_generators, n, k = items.shape
    most = 0
    for i in range(n):
        filled = 0
        for g in range(n_generators):
            size = 0
            while size < k and items[g, i, size] >= 0:
                size += 1
            mean = square = 0.0
            for j in range(size):
                mean += scores[g, i, j]
            mean /= max(size, 1)
            for j in range(size):
                square += (scores[g, i, j] - mean) ** 2
            spread = np.sqrt(square / max(size, 1)) + 1e-6
            best, lowest = (scores[g, i, 0], scores[g, i, size - 1]) if size else (0.0, 0.0)
            exponents = over = 0.0
            for j in range(size):
                exponents += np.exp(scores[g, i, j] - best)
                over += scores[g, i, j] - lowest
            less, over = np.log(max(exponents, 1.0)), over + 1e-6
            for c in range(union.shape[1]):
                ranks[i, c, g] = k
                features[i, c, g, 0] = (lowest - mean) / spread
                features[i, c, g, 1] = max(lowest - best - less, LEAST)
                features[i, c, g, 2] = LEAST
            for j in range(size):
                item = items[g, i, j]
                c = place[item]
                if c < 0:
                    c = place[item] = filled
                    union[i, c] = item
                    filled += 1
                score = scores[g, i, j]
                ranks[i, c, g], features[i, c, g, 0] = j, (score - mean) / spread
                features[i, c, g, 1] = max(score - best - less, LEAST)
                features[i, c, g, 2] = max(np.log(max((score - lowest) / over, 1e-30)), LEAST)
        for c in range(filled):
            place[union[i, c]] = -1
        union[i, filled:] = ABSENT
        most = max(most, filled)
    return most


def united(
    items: NDArray[Any], scores: NDArray[Any], n_items: int, room: NDArray[np.int32] | None = None
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Return candidates, ranks and features of lists [G, n, k] as ``unite`` fills them.

    room: ``unite``'s place, to use it again; -1 before and after.
    """
    n_generators, n, k = items.shape
    union = np.empty((n, n_generators * k), np.int32)
    ranks = np.empty((*union.shape, n_generators), np.int32)
    features = np.empty((*ranks.shape, 3), np.float32)
    room = np.full(n_items, ABSENT, np.int32) if room is None else room
    most = max(1, unite(items, scores, room, union, ranks, features))
    return tuple(np.ascontiguousarray(part[:, :most]) for part in (union, ranks, features))  # type: ignore[return-value]


@compiled
def place_of(union, targets, places):
    """Fill places [n] with where each target stands among the candidates [n, C], -1 for nowhere."""
    for i in range(len(union)):
        places[i] = ABSENT
        for c in range(union.shape[1]):
            if union[i, c] == targets[i]:
                places[i] = c
                break


@fast
def products(vectors, table, candidates, out):
    """Fill out [n, C] with the products of session vectors [n, D] and their candidates' rows of the table."""
    for i in range(len(vectors)):
        for c in range(candidates.shape[1]):
            item = candidates[i, c]
            total = np.float32(0.0)
            if item >= 0:
                for d in range(vectors.shape[1]):
                    total += vectors[i, d] * table[item, d]
            out[i, c] = total


@fast
def products_back(vectors, table, candidates, gradient, of_vectors, of_table):
    """Add the gradients of ``products`` to those of the vectors, [n, D], and of the table, [N, D]."""
    for i in range(len(vectors)):
        for c in range(candidates.shape[1]):
            item, g = candidates[i, c], gradient[i, c]
            if item >= 0:
                for d in range(vectors.shape[1]):
                    of_vectors[i, d] += g * table[item, d]
                    of_table[item, d] += g * vectors[i, d]


@compiled
def place_above(scores, union, values):
    """Write candidates' positive values over a row's scores, [n, n_items], and bring all others below them.

    union, values: [n, C], a candidate -1 for none. The others keep their order exactly: those above 0 are
    multiplied by a power of two; where some would become too small for that, all get minus the number of
    better scores.
    """
    for i in range(len(scores)):
        row = scores[i]
        largest, smallest = np.float32(0.0), np.float32(np.inf)
        for score in row:
            if score > 0.0 and score < np.inf:
                largest, smallest = max(largest, score), min(smallest, score)
        if largest > 0.0:
            exponent = -61.0 - np.ceil(np.log2(largest))
            if np.log2(smallest) + exponent < -126.0 or exponent < -126.0:
                _by_rank(row)
            else:
                shrink = np.float32(2.0**exponent)
                for j in range(len(row)):
                    if row[j] > 0.0:
                        row[j] *= shrink
        for c in range(union.shape[1]):
            if union[i, c] >= 0:
                row[union[i, c]] = max(values[i, c], FLOOR)


@compiled
def _by_rank(row):
    """Replace finite scores by minus the number of higher ones; infinite ones stay."""
    order = np.argsort(-row)
    place, above = 0, np.float32(np.inf)
    for n in range(len(order)):
        score = row[order[n]]
        if score < above:
            place, above = n, score
        if np.isfinite(score):
            row[order[n]] = -np.float32(place)
