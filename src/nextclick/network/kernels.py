"""Compiled loops of the training: session-parallel lanes, drawing of negative samples, row-wise steps."""

from __future__ import annotations

import numpy as np

from nextclick.compiled import compiled, fast


@compiled
def walk_lanes(offsets, order, lane_session, lane_place, n_lanes, taken, places, fresh, source):
    """Take every lane a click further, step by step, until the buffers are full or the sessions are used up.

    offsets [S + 1]: of the sessions;  order: those that are taken, in turn, each of two clicks at least;
    lane_session, lane_place [L]: where each lane stands (session -1: none yet), changed in place;  n_lanes,
    taken: lanes in use and sessions handed out so far.
    Fills places (of the clicks read, counted over all sessions), fresh (the lane begins a session) and source
    (the lane's number one step before), all [steps, L]. Returns the lanes of each step, n_lanes and taken. A
    lane without a session is closed and those behind it move up.
    """
    n_steps = len(places)
    sizes = np.zeros(n_steps, np.int64)
    for step in range(n_steps):
        kept = 0
        for lane in range(n_lanes):
            session, place = lane_session[lane], lane_place[lane]
            begins = session < 0 or offsets[session] + place + 1 >= offsets[session + 1]
            if begins:
                if taken == len(order):
                    continue
                session, place = order[taken], 0
                taken += 1
            places[step, kept] = offsets[session] + place
            fresh[step, kept], source[step, kept] = begins, lane
            lane_session[kept], lane_place[kept] = session, place + 1
            kept += 1
        n_lanes = kept
        if kept == 0:
            break
        sizes[step] = kept
    return sizes, n_lanes, taken


@compiled
def alias_table(weights):
    """Return (share [N] float32, other [N] int32) of Vose's alias method for weights [N] float64 > 0 in all.

    Item n is drawn by taking a place n at random and leaving it for other[n] with probability 1 - share[n].
    """
    n = len(weights)
    scaled = weights * (n / weights.sum())
    share, other = np.ones(n, np.float32), np.arange(n).astype(np.int32)
    small, large = np.empty(n, np.int64), np.empty(n, np.int64)
    n_small = n_large = 0
    for i in range(n):
        if scaled[i] < 1:
            small[n_small] = i
            n_small += 1
        else:
            large[n_large] = i
            n_large += 1
    while n_small and n_large:
        n_small -= 1
        low, high = small[n_small], large[n_large - 1]
        share[low], other[low] = scaled[low], high
        scaled[high] -= 1 - scaled[low]
        if scaled[high] < 1:
            n_large -= 1
            small[n_small] = high
            n_small += 1
    return share, other


@compiled
def draw(share, other, random, samples):
    """Fill samples [M] int64 from uniform numbers random [M] in [0, 1): place and fraction of one number."""
    n = len(share)
    for m in range(len(random)):
        scaled = random[m] * n
        place = min(int(scaled), n - 1)
        samples[m] = place if scaled - place < share[place] else other[place]


@compiled
def add_rows(rows, gradients, begin, unique, places, n, slots, first, rest):
    """Add up gradients [K, D] of rows [K] int64, repeats allowed.

    first [F, D] is the gradients of the first call, changed in place; of later calls, those of rows that are
    new go to rest [.., D]. unique [n] lists the rows, places [n] where the sum of each stands: below F in
    first, else from F on in rest, of which the first ``begin`` are taken.  slots [N] int32: the place of a
    row of the table, -1 for none yet. Returns the new n and begin.
    """
    n_first = len(first)
    in_place = n == 0
    for k in range(len(rows)):
        row = rows[k]
        place = slots[row]
        if place < 0:
            if in_place:
                place = k
            else:
                place = n_first + begin
                rest[begin] = gradients[k]
                begin += 1
            slots[row], unique[n], places[n] = place, row, place
            n += 1
        else:
            total = first[place] if place < n_first else rest[place - n_first]
            for d in range(gradients.shape[1]):
                total[d] += gradients[k, d]
    return n, begin


@fast
def adagrad_rows(weights, squares, velocity, unique, places, first, rest, rate, momentum, epsilon, slots):
    """One step of Adagrad with momentum on the rows ``unique`` [n] of a table; the others are not touched.

    weights, squares, velocity: [N, D] float32 (velocity [0, D] without momentum);  places, first, rest: the
    gradients, as ``add_rows`` left them;  slots: [N] int32, set to -1 for these rows.
    """
    n_first = len(first)
    for n in range(len(unique)):
        row, place = unique[n], places[n]
        slots[row] = -1
        total = first[place] if place < n_first else rest[place - n_first]
        if momentum > 0:
            for d in range(len(total)):
                square = squares[row, d] + total[d] * total[d]
                change = momentum * velocity[row, d] - rate * total[d] * (
                    np.float32(1) / np.sqrt(square + epsilon)
                )
                squares[row, d], velocity[row, d] = square, change
                weights[row, d] += change
        else:
            for d in range(len(total)):
                square = squares[row, d] + total[d] * total[d]
                squares[row, d] = square
                weights[row, d] -= rate * total[d] * (np.float32(1) / np.sqrt(square + epsilon))


@fast
def adagrad(weights, squares, velocity, gradients, rate, momentum, epsilon):
    """One step of Adagrad with momentum on a whole parameter; all [N] float32, velocity perhaps [0]."""
    for n in range(len(weights)):
        square = squares[n] + gradients[n] * gradients[n]
        squares[n] = square
        change = -rate * gradients[n] * (np.float32(1) / np.sqrt(square + epsilon))
        if momentum > 0:
            change += momentum * velocity[n]
            velocity[n] = change
        weights[n] += change
