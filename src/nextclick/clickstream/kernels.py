"""Drawing sessions, compiled. Each session has random numbers of its own, so any part can be drawn alone."""

from __future__ import annotations

import numpy as np

from nextclick.compiled import compiled, uniform


@compiled
def _seeded(seed, session):
    """Return the state, uint64 [1], from which the random numbers of one session come."""
    state = np.empty(1, np.uint64)
    z = np.uint64(seed) * np.uint64(0xD1342543DE82EF95) + np.uint64(session) * np.uint64(0x2545F4914F6CDD1D)
    # Mixed twice, so that neighbouring sessions, whose states would else be shifted copies, are strangers.
    for _ in range(2):
        z = (z ^ (z >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    state[0] = z ^ (z >> np.uint64(32))
    return state


@compiled
def _located(cumulative, guide, low, high, value):
    """Return i in [low, high) with cumulative[i] <= value < cumulative[i + 1]; guide: where to start, or [0].

    guide[g] is the answer for value g / (len(guide) - 1), for searches over all.
    """
    if len(guide) > 1:
        g = int(value * (len(guide) - 1))
        low, high = guide[g], min(high, guide[min(g + 1, len(guide) - 1)] + 1)
    while high - low > 1:
        middle = (low + high) // 2
        if cumulative[middle] <= value:
            low = middle
        else:
            high = middle
    return low


@compiled
def lengths(seed, first, count, cumulative, shortest):
    """Return the clicks of sessions first .. first+count-1, int32 [count]."""
    out = np.empty(count, np.int32)
    start = np.zeros(1, np.int64)
    for s in range(count):
        state = _seeded(seed, first + s)
        out[s] = shortest + _located(cumulative, start, 0, len(cumulative) - 1, uniform(state))
    return out


@compiled
def clicks(
    seed, first, offsets, cumulative, guide, aisle, follow, begin, spacing, dwell, out_sessions, out_items,
    out_times,
):  # fmt: skip
    """Fill in the clicks of sessions from ``first`` on, session s at offsets[s] .. offsets[s+1]-1.

    cumulative: float64 [n_items + 1], of the popularity of the items as they stand in a row;  aisle: items
    in a neighbourhood, even;  follow: probability of a step inside it;  begin, spacing, dwell: milliseconds.
    """
    n_items = len(cumulative) - 1
    whole = np.zeros(1, np.int64)
    for s in range(len(offsets) - 1):
        state = _seeded(seed, first + s)
        uniform(state)  # was the length
        time = begin + np.int64(np.floor((first + s + uniform(state)) * spacing))
        item = _located(cumulative, guide, 0, n_items, uniform(state))
        for p in range(offsets[s], offsets[s + 1]):
            if p > offsets[s]:
                time += 1000 + np.int64(-np.log(1.0 - uniform(state)) * dwell)
                if uniform(state) < follow:
                    # One of two rows of neighbourhoods, half of one apart, so that all are joined.
                    shift = (aisle // 2) * (uniform(state) < 0.5)
                    low = max(0, (item + shift) // aisle * aisle - shift)
                    high = min(n_items, (item + shift) // aisle * aisle - shift + aisle)
                    share = cumulative[high] - cumulative[low]
                    value = cumulative[low] + uniform(state) * share
                    item = _located(cumulative, whole, low, high, value)
                else:
                    item = _located(cumulative, guide, 0, n_items, uniform(state))
            out_sessions[p], out_items[p], out_times[p] = first + s + 1, item + 1, time
