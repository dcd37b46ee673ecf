"""The inner loops of the neighbour models, compiled; plain arrays in, plain arrays out."""

from __future__ import annotations

import numpy as np

from nextclick.compiled import compiled

# Codes of the settings that the inner loop branches on.
SAME, DIV, LINEAR, LOG, QUADRATIC, EXP = range(6)
VECTOR, COSINE, JACCARD, DICE = range(4)
NONE, EARLIER, ALL = range(3)


@compiled
def distinct(items, offsets):
    """Return (offsets, items, positions, clicks): the distinct items of each session, latest first.

    positions: where each item stands last in its session, from 1;  clicks: how often it was clicked there.
    """
    n_sessions = len(offsets) - 1
    out_offsets = np.zeros(n_sessions + 1, np.int64)
    out_items = np.empty(len(items), np.int32)
    out_positions = np.empty(len(items), np.int32)
    out_clicks = np.empty(len(items), np.int32)
    n_items = (items.max() if len(items) else 0) + 1
    last_seen, place = np.full(n_items, -1, np.int64), np.zeros(n_items, np.int64)
    n = 0
    for s in range(n_sessions):
        for p in range(offsets[s + 1] - 1, offsets[s] - 1, -1):
            if last_seen[items[p]] != s:
                last_seen[items[p]] = s
                out_items[n] = items[p]
                out_positions[n] = p - offsets[s] + 1
                out_clicks[n] = 0
                place[items[p]] = n
                n += 1
            out_clicks[place[items[p]]] += 1
        out_offsets[s + 1] = n
    return out_offsets, out_items[:n].copy(), out_positions[:n].copy(), out_clicks[:n].copy()


@compiled
def postings(offsets, items, n_items, longest):
    """Return (offsets, sessions): the sessions of each item, most recent first, at most ``longest``."""
    counts = np.zeros(n_items, np.int64)
    for item in items:
        counts[item] += 1
    out_offsets = np.zeros(n_items + 1, np.int64)
    for item in range(n_items):
        out_offsets[item + 1] = out_offsets[item] + min(counts[item], longest)
    filled = out_offsets[:-1].copy()
    out_sessions = np.empty(out_offsets[-1], np.int32)
    for s in range(len(offsets) - 2, -1, -1):
        for p in range(offsets[s], offsets[s + 1]):
            item = items[p]
            if filled[item] < out_offsets[item + 1]:
                out_sessions[filled[item]] = s
                filled[item] += 1
    return out_offsets, out_sessions


@compiled
def co_occurrence(
    first, last, session_offsets, session_items, session_clicks, item_offsets, item_sessions,
    row_norms, column_norms, keep,
):  # fmt: skip
    """Return (lengths, items, weights): the ``keep`` strongest neighbours of items first .. last-1.

    The weight of j for i is the sum over sessions of clicks on i times clicks on j, over
    row_norms[i] * column_norms[j]; ties go to the smaller code.
    """
    n_items = len(row_norms)
    counts = np.zeros(n_items, np.int64)
    touched = np.empty(n_items, np.int32)
    lengths = np.zeros(last - first, np.int64)
    room = 1024
    out_items, out_weights, n = np.empty(room, np.int32), np.empty(room, np.float32), 0
    for item in range(first, last):
        found = 0
        for q in range(item_offsets[item], item_offsets[item + 1]):
            low, high = session_offsets[item_sessions[q]], session_offsets[item_sessions[q] + 1]
            own = 0
            for p in range(low, high):
                if session_items[p] == item:
                    own = session_clicks[p]
            for p in range(low, high):
                other = session_items[p]
                if counts[other] == 0:
                    touched[found] = other
                    found += 1
                counts[other] += own * session_clicks[p]
        neighbours = np.sort(touched[:found])
        weights = counts[neighbours] / (row_norms[item] * column_norms[neighbours])
        counts[neighbours] = 0
        best = np.argsort(-weights, kind="mergesort")[: keep + 1]
        if n + len(best) > room:
            room = 2 * room + len(best)
            out_items = np.concatenate((out_items, np.empty(room - len(out_items), np.int32)))
            out_weights = np.concatenate((out_weights, np.empty(room - len(out_weights), np.float32)))
        for b in best:
            positive = np.float32(weights[b]) > 0.0  # a weight of 0 would count as no vote
            if neighbours[b] != item and positive and lengths[item - first] < keep:
                out_items[n], out_weights[n] = neighbours[b], weights[b]
                n += 1
                lengths[item - first] += 1
    return lengths, out_items[:n].copy(), out_weights[:n].copy()


@compiled
def item_votes(items, starts, ends, offsets, neighbours, weights, step_weights, n_items):
    """Return (offsets, items, scores): table rows of the last clicks, summed with weights by step back."""
    n = len(starts)
    out_offsets = np.zeros(n + 1, np.int64)
    total = 0
    for i in range(n):
        for p in range(max(starts[i], ends[i] - len(step_weights)), ends[i]):
            total += offsets[items[p] + 1] - offsets[items[p]]
    out_items, out_scores = np.empty(total, np.int32), np.empty(total, np.float32)
    sums = np.zeros(n_items, np.float64)
    at = 0
    for i in range(n):
        begin = at
        for p in range(ends[i] - 1, max(starts[i], ends[i] - len(step_weights)) - 1, -1):
            factor = step_weights[ends[i] - 1 - p]
            for q in range(offsets[items[p]], offsets[items[p] + 1]):
                neighbour = neighbours[q]
                if sums[neighbour] == 0.0:
                    out_items[at] = neighbour
                    at += 1
                sums[neighbour] += factor * weights[q]
        for v in range(begin, at):
            out_scores[v] = sums[out_items[v]]
            sums[out_items[v]] = 0.0
        out_offsets[i + 1] = at
    return out_offsets, out_items[:at], out_scores[:at]


@compiled
def _position_weight(kind, position, length, scale):
    """Weight of the click at ``position`` (from 1) of a prefix of ``length`` clicks."""
    if kind == DIV:
        return position / length
    if kind == LINEAR:
        return max(0.0, 1.0 - 0.1 * (length - position))
    if kind == LOG:
        return 1.0 / np.log10(length - position + 1.7)
    if kind == QUADRATIC:
        return (position / length) ** 2
    if kind == EXP:
        return np.exp((position - length) / scale)
    return 1.0


@compiled
def step_weight(kind, step):
    """Weight of a neighbour whose latest shared item lies ``step`` clicks back (from 1)."""
    if kind == DIV:
        return 1.0 / step
    if kind == LINEAR:
        return max(0.0, 1.0 - 0.1 * step)
    if kind == LOG:
        return 1.0 / np.log10(step + 1.7)
    if kind == QUADRATIC:
        return 1.0 / (step * step)
    return 1.0


@compiled
def _kth_largest(values, n, k):
    """Return the k-th largest of values[:n] (k from 1), reordering them; quickselect."""
    low, high, want = 0, n - 1, k - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if want <= j:
            high = j
        elif want >= i:
            low = i
        else:
            break
    return values[want]


@compiled
def nearest_sessions(
    prefix, item_offsets, item_sessions, session_offsets, session_weights, item_weights,
    k, sample_size, weighting, scale, similarity, own, similarities, steps, order, spare, spare_f,
):  # fmt: skip
    """Find the k nearest sessions of a prefix, but session ``own``: return (how many, how many were touched).

    They stand first in ``order``, with their similarities and the steps back to their latest shared item.
    similarities and steps are zero for all sessions before, and the caller zeroes the touched ones, which
    are the first of ``order``, afterwards.
    """
    length = len(prefix)
    found = 0
    n_distinct = 0
    squares = 0.0
    for back in range(length - 1, -1, -1):
        item = prefix[back]
        repeated = False
        for later in range(back + 1, length):
            if prefix[later] == item:
                repeated = True
                break
        if repeated:
            continue
        n_distinct += 1
        weight = (
            item_weights[item] if len(item_weights) else _position_weight(weighting, back + 1, length, scale)
        )
        squares += weight * weight
        most = sample_size + (own >= 0)  # a session left out has its place taken by the next one
        for q in range(item_offsets[item], min(item_offsets[item + 1], item_offsets[item] + most)):
            s = item_sessions[q]
            if s == own:
                continue
            if steps[s] == 0:
                order[found] = s
                found += 1
                steps[s] = length - back
            similarities[s] += weight
    touched = found
    if found > sample_size:  # the most recent ones; sessions are numbered by time
        spare[:found] = order[:found]
        oldest = _kth_largest(spare, found, sample_size)
        kept = 0
        for n in range(found):
            if order[n] >= oldest:
                order[n], order[kept] = order[kept], order[n]
                kept += 1
        found = kept
    kept = 0
    for n in range(found):
        s = order[n]
        size = session_offsets[s + 1] - session_offsets[s]
        overlap = similarities[s]
        if similarity == VECTOR:
            similarities[s] = overlap / n_distinct
        elif similarity == COSINE:
            similarities[s] = overlap / (np.sqrt(squares) * np.sqrt(size))
        elif similarity == JACCARD:  # of sets: all weights are 1
            similarities[s] = overlap / (n_distinct + size - overlap)
        else:
            similarities[s] = 2.0 * overlap / (n_distinct + size)
        similarities[s] *= session_weights[s]
        if similarities[s] > 0.0:
            order[n], order[kept] = order[kept], order[n]
            kept += 1
    found = kept
    if found > k:
        for n in range(found):
            spare_f[n] = similarities[order[n]]
        least = _kth_largest(spare_f, found, k)
        above = tied = 0
        for n in range(found):
            above += similarities[order[n]] > least
            if similarities[order[n]] == least:
                spare[tied] = order[n]
                tied += 1
        oldest = _kth_largest(spare, tied, k - above)  # ties go to the more recent session
        kept = 0
        for n in range(found):
            s = order[n]
            if similarities[s] > least or (similarities[s] == least and s >= oldest):
                order[n], order[kept] = order[kept], order[n]
                kept += 1
        found = kept
    return found, touched


@compiled
def session_votes(
    items, starts, ends, own, last_clicks,
    session_offsets, session_items, session_positions, item_offsets, item_sessions,
    session_weights, item_weights, item_factors,
    k, sample_size, weighting, scale, similarity, score_weighting, neighbour_scale, remind,
    similarities, steps, order, spare, spare_f, sums, in_prefix,
):  # fmt: skip
    """Return (offsets, items, scores): what the nearest sessions of each prefix vote for.

    own: int64 [n], for each prefix a session that has no vote, or of length 0.
    The last line of arguments is working room, zero before and after: similarities float64 and steps
    int32, [n_sessions]; order and spare int32, spare_f float64, [n_sessions], of any content; sums
    float64 and in_prefix bool, [n_items].
    """
    n = len(starts)
    out_offsets = np.zeros(n + 1, np.int64)
    room = 512 * n
    out_items, out_scores = np.empty(room, np.int32), np.empty(room, np.float32)
    at = 0
    for i in range(n):
        prefix = items[max(starts[i], ends[i] - last_clicks) : ends[i]]
        found, touched = nearest_sessions(
            prefix, item_offsets, item_sessions, session_offsets, session_weights, item_weights,
            k, sample_size, weighting, scale, similarity, own[i] if len(own) else -1,
            similarities, steps, order, spare, spare_f,
        )  # fmt: skip
        for item in prefix:
            in_prefix[item] = True
        begin = at
        for n_neighbour in range(found):
            s = order[n_neighbour]
            vote = similarities[s] * step_weight(score_weighting, steps[s])
            low, high = session_offsets[s], session_offsets[s + 1]
            match = 0  # last position in the neighbour of an item of the prefix
            if neighbour_scale > 0.0:
                for p in range(low, high):
                    if in_prefix[session_items[p]] and session_positions[p] > match:
                        match = session_positions[p]
            if at + high - low > room:
                room = 2 * room + high - low
                out_items = np.concatenate((out_items, np.empty(room - len(out_items), np.int32)))
                out_scores = np.concatenate((out_scores, np.empty(room - len(out_scores), np.float32)))
            for p in range(low, high):
                item = session_items[p]
                if in_prefix[item] and (remind == NONE or (remind == EARLIER and item == prefix[-1])):
                    continue
                part = vote
                if neighbour_scale > 0.0:
                    part *= np.exp(-abs(session_positions[p] - match) / neighbour_scale)
                if sums[item] == 0.0:
                    out_items[at] = item
                    at += 1
                sums[item] += part
        kept = begin
        for v in range(begin, at):
            item = out_items[v]
            score = np.float32(sums[item] * item_factors[item])
            sums[item] = 0.0
            if score > 0.0:
                out_items[kept], out_scores[kept] = item, score
                kept += 1
        at = kept
        for item in prefix:
            in_prefix[item] = False
        for n_touched in range(touched):
            s = order[n_touched]
            similarities[s], steps[s] = 0.0, 0
        out_offsets[i + 1] = at
    return out_offsets, out_items[:at].copy(), out_scores[:at].copy()
