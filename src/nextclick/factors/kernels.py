"""The inner loops of the factor models, compiled: steps of ascent on BPR-Opt, and means of vectors."""

from __future__ import annotations

import numpy as np

from nextclick.compiled import compiled, uniform


@compiled
def mean_of(rows, low, high, table, mean):
    """Write the mean of the rows rows[low:high] of ``table`` into ``mean``, [D]; low < high."""
    share = np.float32(1.0 / (high - low))
    for f in range(len(mean)):
        mean[f] = table[rows[low], f] * share
    for p in range(low + 1, high):
        row = table[rows[p]]
        for f in range(len(mean)):
            mean[f] += row[f] * share


@compiled
def means(rows, lows, highs, table, out):
    """Write the mean of the rows rows[lows[n]:highs[n]] of ``table`` into out[n], for every n."""
    for n in range(len(lows)):
        mean_of(rows, lows[n], highs[n], table, out[n])


@compiled
def step(rows, low, high, positive, negative, left, right, rate, regularisation, session, apart):
    """Take one step of ascent on ln sigma(x) for one pair of items; return x, as it was before.

    x = <session, right[positive] - right[negative]>, where session is the mean of the rows rows[low:high] of
    ``left``. The gradients are those before the step, also where ``left`` and ``right`` are one table;
    ``rate * regularisation`` of each vector is taken off, for every time that it stands in the step.
    Nothing is changed where x is no finite number.

    left: float32 [M, D];  right: float32 [N, D];  session, apart: working room, float32 [D].
    """
    mean_of(rows, low, high, left, session)
    liked, other = right[positive], right[negative]
    x = np.float32(0.0)
    for f in range(len(session)):
        apart[f] = liked[f] - other[f]
        x += session[f] * apart[f]
    if not np.isfinite(x):
        return x
    surprise = 1.0 / (1.0 + np.exp(np.float64(x)))  # 1 - sigma(x), the derivative of ln sigma
    pull, keep = np.float32(rate * surprise), np.float32(1.0 - rate * regularisation)
    for f in range(len(session)):
        liked[f] = keep * liked[f] + pull * session[f]
    for f in range(len(session)):
        other[f] = keep * other[f] - pull * session[f]
    pull /= np.float32(high - low)
    for p in range(low, high):
        row = left[rows[p]]
        for f in range(len(session)):
            row[f] = keep * row[f] + pull * apart[f]
    return x


@compiled
def draw(shares, items, low, high, state):
    """Draw an item that is not among items[low:high], or -1 where 100 draws found none.

    shares: cumulated probabilities of the items, float64 [N], the last one 1;  state: of the generator,
    uint64 [1].
    """
    for _ in range(100):
        item = np.searchsorted(shares, uniform(state), side="right")
        taken = False
        for p in range(low, high):
            taken = taken or items[p] == item
        if not taken:
            return item
    return -1


@compiled
def epoch(
    order, rows, lows, highs, items, firsts, lasts, left, right, shares, samples, rate, regularisation, state,
):  # fmt: skip
    """Take ``samples`` steps for every click of ``order``; return (summed loss, steps).

    The click at p is the positive item items[p] of the session rows[lows[p]:highs[p]]; a negative is drawn
    for each step, from the items that are not among items[firsts[p]:lasts[p]]. The loss of a step is
    -ln sigma(x). At the first x that is no finite number the epoch ends, with the loss NaN.
    """
    session, apart = np.empty(right.shape[1], np.float32), np.empty(right.shape[1], np.float32)
    loss, steps = 0.0, 0
    for p in order:
        for _ in range(samples):
            negative = draw(shares, items, firsts[p], lasts[p], state)
            if negative < 0:
                continue
            x = step(
                rows, lows[p], highs[p], items[p], negative, left, right, rate, regularisation, session, apart
            )
            if not np.isfinite(x):
                return np.nan, steps
            loss += max(-x, 0.0) + np.log1p(np.exp(-abs(x)))
            steps += 1
    return loss, steps
