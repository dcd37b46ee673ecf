"""The scores of candidates in one compiled loop: ``network.Reranker`` without PyTorch between its steps.

A request has a few hundred candidates, and each step of PyTorch takes longer to start than to finish then.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nextclick.compiled import compiled, fast, in_chunks
from nextclick.sessions import Queries

if TYPE_CHECKING:
    from nextclick.rerank.network import Reranker


class Scorer:
    """Scores as a trained network on the CPU would give them, to rounding; it sees changes of the weights."""

    def __init__(self, network: Reranker) -> None:
        encoder, judge = network.encoder, network.judge
        self._temperature, self._content = network.temperature, network.content
        self._items = _array(network.items.weight)
        self._encoder = tuple(
            _array(of.weight) for of in (encoder.of_click, encoder.of_last, encoder.of_mean,
                                         encoder.energy, encoder.memory, encoder.last)
        )  # fmt: skip
        self._biases = tuple(_array(of.bias) for of in (encoder.of_mean, encoder.memory, encoder.last))
        self._asked = _layers(network.item_projection)
        self._places = [_layers(of) for of in network.rank_projection]
        self._ranks = tuple(_array(table) for table in network.ranks)
        self._depths = tuple(_array(table) for table in network.depths)
        self._rows = np.array(network.rows, np.int32)
        self._judge: tuple[NDArray[np.float32], ...] = ()
        if judge is not None:
            first, second, third = (judge[n] for n in (0, 2, 4))
            self._judge = tuple(map(_array, (first.weight, first.bias, second.weight, third.weight)))
            self._popularity = _array(network.popularity)

    def probabilities(
        self, queries: Queries, longest: int, union: NDArray[np.int32], places: NDArray[np.int32],
        features: NDArray[np.float32], earlier: NDArray[np.int32],
    ) -> NDArray[np.float32]:  # fmt: skip
        """Return those of candidates [n, C] of non-empty prefixes, 0 for none.

        longest: clicks of a prefix that are read;  places, features: as ``kernels.united`` gives them;
        earlier: as ``Reranker`` takes it.
        """
        scores = np.zeros(union.shape, np.float32)

        def fill(rows: slice) -> None:
            self._fill(
                queries[rows], longest, union[rows], places[rows], features[rows], earlier[rows], scores[rows]
            )

        in_chunks(len(queries), fill)
        return scores

    def _fill(
        self, queries: Queries, longest: int, union: NDArray[np.int32], places: NDArray[np.int32],
        features: NDArray[np.float32], earlier: NDArray[np.int32], scores: NDArray[np.float32],
    ) -> None:  # fmt: skip
        vectors = np.empty((len(queries), self._items.shape[1]), np.float32)
        encode(
            queries.items, queries.starts, queries.ends, longest, self._items, self._temperature > 0,
            self._encoder, self._biases, vectors,
        )  # fmt: skip
        if self._content:
            add_items(vectors, self._asked, self._items, self._temperature, union, scores)
        for g, table in enumerate(self._depths):
            add_depth(earlier, g, table, self._rows, vectors)
        for g, table in enumerate(self._ranks):
            add_places(vectors, self._places[g], table, self._rows, places, g, scores)
        if self._judge:
            lengths, k = np.log((queries.ends - queries.starts).astype(np.float32)), len(self._rows) - 1
            add_judged(union, places, features, lengths, self._popularity, k, self._judge, scores)
        softmax(union, scores)


def _array(weights: Any) -> NDArray[np.float32]:
    array: NDArray[np.float32] = weights.detach().numpy()
    return array


def _layers(projection: Any) -> tuple[NDArray[np.float32], ...]:
    """Weights and biases of the two layers of MLP(h) = tanh(W1 tanh(W2 h + b2) + b1): W2, b2, W1, b1."""
    return tuple(_array(part) for n in (0, 2) for part in (projection[n].weight, projection[n].bias))


@fast
def _times(matrix, vector, out):
    """Add matrix @ vector to out."""
    for i in range(matrix.shape[0]):
        total = np.float32(0.0)
        for j in range(matrix.shape[1]):
            total += matrix[i, j] * vector[j]
        out[i] += total


@fast
def _length(vector):
    square = np.float32(0.0)
    for value in vector:
        square += value * value
    return max(np.sqrt(square), np.float32(1e-12))


@fast
def encode(items, starts, ends, longest, table, brought, weights, biases, out):
    """Fill out [n, D] with the session vectors of prefixes: ``StampEncoder.at`` of their last clicks.

    brought: clicks are read as vectors of length 1.
    """
    of_click, of_last, of_mean, energy, of_memory, last = weights
    bias_mean, bias_memory, bias_last = biases
    width = table.shape[1]
    clicks = np.empty((longest, width), np.float32)
    for i in range(len(starts)):
        start = max(starts[i], ends[i] - longest)
        n = ends[i] - start
        mean = np.zeros(width, np.float32)
        for t in range(n):
            row = table[items[start + t]]
            over = np.float32(1.0) / _length(row) if brought else np.float32(1.0)
            for d in range(width):
                clicks[t, d] = row[d] * over
                mean[d] += clicks[t, d] / np.float32(n)
        asked = bias_mean.copy()
        _times(of_last, clicks[n - 1], asked)
        _times(of_mean, mean, asked)
        memory = np.zeros(width, np.float32)
        for t in range(n):
            hidden = asked.copy()
            _times(of_click, clicks[t], hidden)
            weight = np.float32(0.0)
            for d in range(width):
                weight += energy[0, d] / (np.float32(1.0) + np.exp(-hidden[d]))
            for d in range(width):
                memory[d] += weight * clicks[t, d]
        left, right = bias_memory.copy(), bias_last.copy()
        _times(of_memory, memory, left)
        _times(last, clicks[n - 1], right)
        for d in range(width):
            out[i, d] = np.tanh(left[d]) * np.tanh(right[d])


@fast
def _projected(layers, vector):
    inner, bias_inner, outer, bias_outer = layers
    hidden, result = bias_inner.copy(), bias_outer.copy()
    _times(inner, vector, hidden)
    _times(outer, np.tanh(hidden), result)
    return np.tanh(result)


@fast
def add_items(vectors, layers, table, temperature, union, scores):
    """Add <V_c, MLP1(h)> to the scores of candidates, or its cosine over a temperature above 0."""
    for i in range(len(vectors)):
        asked = _projected(layers, vectors[i])
        over = np.float32(1.0)
        if temperature > 0:
            over = np.float32(1.0 / temperature) / _length(asked)
        for c in range(union.shape[1]):
            item = union[i, c]
            if item >= 0:
                total, square = np.float32(0.0), np.float32(0.0)
                for d in range(table.shape[1]):
                    total += asked[d] * table[item, d]
                    square += table[item, d] * table[item, d]
                if temperature > 0:
                    total /= max(np.sqrt(square), np.float32(1e-12))
                scores[i, c] += total * over


@fast
def add_depth(earlier, g, table, rows, vectors):
    """Add to session vectors [n, D] those of the places of their earlier clicks in list g, [n, E, G]."""
    for i in range(len(vectors)):
        for e in range(earlier.shape[1]):
            if earlier[i, e, g] >= 0:
                row = rows[earlier[i, e, g]]
                for d in range(vectors.shape[1]):
                    vectors[i, d] += table[row, d]


@fast
def add_places(vectors, layers, table, rows, places, g, scores):
    """Add <W_r, MLP2(h)> of the places r in the list g."""
    for i in range(len(vectors)):
        of_rows = np.zeros(len(table), np.float32)
        _times(table, _projected(layers, vectors[i]), of_rows)
        for c in range(places.shape[1]):
            scores[i, c] += of_rows[rows[places[i, c, g]]]


@fast
def add_judged(union, places, features, lengths, popularity, k, layers, scores):
    """Add what the small network makes of what ``Reranker._evidence`` tells; lengths: logarithms."""
    first, bias, second, third = layers
    units, n_lists = first.shape[0], places.shape[2]
    read = np.empty(first.shape[1], np.float32)
    logarithms = np.log(np.arange(1, k + 2)) / np.log(k + 1.0)
    for i in range(len(union)):
        for c in range(union.shape[1]):
            item = union[i, c]
            if item < 0:
                continue
            for g in range(n_lists):
                place, own, of_rank = places[i, c, g], 3 * g, 3 * (n_lists + g)
                listed = np.float32(place < k)
                read[own] = features[i, c, g, 0]
                read[own + 1] = features[i, c, g, 1] * np.float32(0.25)
                read[own + 2] = features[i, c, g, 2] * np.float32(0.25)
                read[of_rank] = listed / np.float32(1 + place)
                read[of_rank + 1] = logarithms[place]
                read[of_rank + 2] = listed
            read[6 * n_lists] = popularity[item]
            read[6 * n_lists + 1] = lengths[i]
            hidden = bias.copy()
            _times(first, read, hidden)
            deeper = np.zeros(units, np.float32)
            _times(second, np.maximum(hidden, np.float32(0.0)), deeper)
            total = np.float32(0.0)
            for u in range(units):
                total += third[0, u] * max(deeper[u], np.float32(0.0))
            scores[i, c] += total


@compiled
def softmax(union, scores):
    """Turn the scores of candidates [n, C] into probabilities in place, 0 where the candidate is -1."""
    for i in range(len(union)):
        best = np.float32(-np.inf)
        for c in range(union.shape[1]):
            if union[i, c] >= 0:
                best = max(best, scores[i, c])
        total = np.float32(0.0)
        for c in range(union.shape[1]):
            scores[i, c] = np.exp(scores[i, c] - best) if union[i, c] >= 0 else np.float32(0.0)
            total += scores[i, c]
        for c in range(union.shape[1]):
            scores[i, c] /= max(total, np.float32(1e-30))


@compiled
def best(union, values, items, exclude_seen, starts, ends, top, top_scores):
    """Fill rows of top [n, k] with the candidates of highest values, the smaller code first among equals.

    items, starts, ends: the clicks of the prefixes, which are left out where ``exclude_seen``.
    Rows with fewer end in -1 with -inf. Return how many each row had, int64 [n].
    """
    found = np.zeros(len(union), np.int64)
    for i in range(len(union)):
        free = union[i] >= 0
        if exclude_seen:
            for c in range(union.shape[1]):
                for j in range(starts[i], ends[i]):
                    free[c] = free[c] and union[i, c] != items[j]
        found[i] = free.sum()
        for place in range(min(top.shape[1], found[i])):
            first = -1
            for c in range(union.shape[1]):
                if free[c] and (
                    first < 0
                    or values[i, c] > values[i, first]
                    or (values[i, c] == values[i, first] and union[i, c] < union[i, first])
                ):
                    first = c
            free[first] = False
            top[i, place], top_scores[i, place] = union[i, first], values[i, first]
        top[i, found[i] :], top_scores[i, found[i] :] = -1, -np.inf
    return found
