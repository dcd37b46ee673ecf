"""Blend: the lists of several recommenders added up with weights, by rank or by score."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from nextclick import metrics
from nextclick.errors import ArtifactError, ConfigError
from nextclick.neighbours.item_knn import ItemKNN
from nextclick.neighbours.session_knn import VSKNN
from nextclick.recommender import Recommender
from nextclick.rerank.candidates import Lists, best_of_row, training_lists
from nextclick.rerank.composite import Composite
from nextclick.rerank.held_out import HeldOut, Wanted
from nextclick.sessions import Queries, Sessions
from nextclick.settings import about

_AT_MOST = 20_000  # next clicks that the weights are chosen on
_STEPS = {1: 1, 2: 10, 3: 10, 4: 5}  # parts that a weight of 1 is cut into, by number of generators


@dataclass(kw_only=True, eq=False)
class Blend(Composite):
    """The first k of every generator, put together by a weighted sum. Nothing is trained but the weights.

    With r the place of an item in a list, from 1, and s its score there, a list of weight w gives the item

    - ``rank``: w / (c + r), the weighted reciprocal rank;
    - ``score``: w times (s - mean) / deviation over the list, and an item that is not listed what the last
      one has;
    - ``softmax``: w times exp(s) over the sum of exp(s) of the list, and nothing where it is not listed.

    Items that no generator lists come below, in the order of the first. An empty prefix is answered by the
    first generator. Without weights those are taken, of a grid, that are best on the latest part of the
    training sessions, where session neighbours leave out the session that they answer. Without a generator it
    blends I2I-CF (item-knn, preset i2i-cf) and vs-knn.
    Source: Cormack, Clarke & Büttcher, SIGIR 2009, for the reciprocal rank with c = 60, as it is usually
    given; it was not checked against the paper.
    """

    name: ClassVar[str] = "blend"
    summary: ClassVar[str] = "the lists of other recommenders, added up with weights"
    source: ClassVar[str] = "Cormack et al. 2009 (reciprocal rank fusion)"

    by: Literal["rank", "score", "softmax"] = field(
        default="rank",
        metadata=about(
            "what a list gives: reciprocal ranks, standardised scores, or its soft-max",
            search=["rank", "score", "softmax"],
        ),
    )
    weights: str | None = field(
        default=None,
        metadata=about("numbers, one for each generator, as in 0.7,0.3; none: chosen on training sessions"),
    )
    c: float = field(
        default=60.0,
        metadata=about("added to ranks (by=rank); small: the first places count for much", low=0,
                       search=("log", 1.0, 200.0)),
    )  # fmt: skip
    k: int = field(default=100, metadata=about("items of each generator", low=1, search=[20, 50, 100, 200]))
    validation: float = field(
        default=0.1,
        metadata=about(
            "share of the sessions, the latest, that weights are chosen on; 0: equal weights", low=0, high=1
        ),
    )
    metric: Literal["recall", "mrr"] = field(
        default="recall", metadata=about("what is to be best there, at 20")
    )
    held_out: HeldOut = field(
        default="auto",
        metadata=about("what generators may have seen of the sessions that weights are chosen on: as rrcre"),
    )
    folds: int | None = field(
        default=None,
        metadata=about(
            "parts that the sessions are cut into, for folds, part and time; none: 3, and 20 for time", low=2
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._given = self._read_weights()

    def _read_weights(self) -> NDArray[np.float64] | None:
        if self.weights is None:
            return None
        where = f"{self.name}: weights={self.weights!r}"
        try:
            numbers = np.array([float(part) for part in self.weights.split(",")])
        except ValueError:
            raise ConfigError(f"{where}: expected numbers with commas between, as in 0.7,0.3") from None
        if len(numbers) != len(self.generators):
            raise ConfigError(
                f"{where}: found {len(numbers)} for {len(self.generators)} generators; give one for each"
            )
        if not np.isfinite(numbers).all() or (numbers < 0).any() or numbers.sum() <= 0:
            raise ConfigError(f"{where}: expected numbers of at least 0, one of them above")
        return numbers / numbers.sum()

    @classmethod
    def _default_generators(cls) -> tuple[Recommender, ...]:
        return ItemKNN.preset("i2i-cf"), VSKNN()

    # -- answering

    def _rewrite(self, queries: Queries, dense: Sequence[NDArray[np.float32]]) -> None:
        from nextclick.rerank import kernels

        union, parts = self._parts([best_of_row(scores, self.k) for scores in dense])
        kernels.place_above(dense[0], union, _positive(self._sum(parts, self._learnt), union))

    def _parts(self, lists: list[Lists]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return the candidates [n, C] and what each list gives them, [n, C, G]."""
        from nextclick.rerank import kernels

        items, scores = (np.stack(part) for part in zip(*lists, strict=True))
        if self.by == "softmax":
            top = scores.max(axis=2, keepdims=True, initial=np.finfo(np.float32).min)
            scores = np.exp(scores - top)  # the absent score -inf
            scores /= np.maximum(scores.sum(axis=2, keepdims=True), 1.0)
        union, places, features = kernels.united(items, scores, self.n_items)
        if self.by == "score":
            return union, np.ascontiguousarray(features[..., 0])
        listed = places < self.k
        if self.by == "rank":
            return union, np.where(listed, 1.0 / (self.c + places + 1.0), 0.0).astype(np.float32)
        own = np.take_along_axis(scores.transpose(1, 2, 0), np.minimum(places, self.k - 1), axis=1)
        return union, np.where(listed, own, 0.0).astype(np.float32)

    @staticmethod
    def _sum(parts: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the weighted sums of what lists give, [n, C], summed in the same order for any n."""
        total: NDArray[np.float32] = (parts * weights.astype(np.float32)).sum(axis=2)
        return total

    # -- learning

    def _fit(self, sessions: Sessions) -> None:
        self._ready(sessions)
        self._learnt = self._given if self._given is not None else self._chosen(sessions)
        self.facts["weights"] = [float(weight) for weight in self._learnt]

    def _chosen(self, sessions: Sessions) -> NDArray[np.float64]:
        """Return the weights of the grid that are best on the latest sessions; the most even of equals."""
        equal = np.full(len(self.generators), 1.0 / len(self.generators))
        later = sessions.offsets[len(sessions) - int(len(sessions) * self.validation)]
        _, positions = sessions.pairs()
        rows = np.flatnonzero(positions >= later)
        if len(rows) == 0 or len(self.generators) == 1:
            return equal
        wanted = Wanted(self.k, self.held_out, self.folds).within(sessions)
        rows = np.intersect1d(rows, wanted.rows(self.generators, sessions))
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(_AT_MOST, len(rows))).astype(np.int64))]
        with training_lists(self.generators, sessions, wanted, self._tell, self._run) as made:
            self.facts["candidates"] = made.about
            at = np.searchsorted(made.rows, rows)
            some = [(np.asarray(items[at]), np.asarray(scores[at])) for items, scores in made.lists]
        union, parts = self._parts(some)
        at = union == sessions.items[positions[rows]][:, None]
        best, reached = equal, -1.0
        grid = _grid(len(self.generators))
        for n, weights in enumerate(sorted(grid, key=lambda one: (float(np.square(one).sum()), *one))):
            self._tell("choosing weights", n, len(grid))
            figure = self._figure(_positive(self._sum(parts, np.asarray(weights)), union), at)
            if figure > reached:
                best, reached = np.asarray(weights), figure
        return best

    def _figure(self, values: NDArray[np.float32], at: NDArray[np.bool_]) -> float:
        """Return recall@20 or mrr@20 where ``at``, [n, C], marks the targets among the candidates."""
        own = np.where(at, values, np.inf).min(axis=1, initial=np.inf)
        found = at.any(axis=1)
        better = np.where(found, (values > own[:, None]).sum(axis=1), np.iinfo(np.int32).max)
        ties = np.where(found, (values == own[:, None]).sum(axis=1) - 1, 0)
        of = metrics.recall if self.metric == "recall" else metrics.reciprocal_rank
        return float(of(better.astype(np.int64), ties.astype(np.int64), 20).mean())

    # -- what was learnt

    def _own_state(self) -> dict[str, NDArray[Any]]:
        return {"weights": self._learnt}

    def _restore_own(self, state: Mapping[str, NDArray[Any]]) -> None:
        weights = state["weights"]
        if weights.shape != (len(self.generators),) or weights.dtype != np.float64:
            raise ArtifactError(f"{self.name}: the saved weights do not fit; fit the model again")
        self._learnt = weights


def _positive(values: NDArray[np.float32], union: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the values of candidates [n, C] less the row's lowest, 0 where there is none, [n, C]."""
    there = union >= 0
    lowest = np.where(there, values, np.inf).min(axis=1, keepdims=True, initial=np.inf)
    lowest = np.where(np.isfinite(lowest), np.minimum(lowest, 0.0), 0.0)
    return np.where(there, values - lowest, 0.0).astype(np.float32)


def _grid(n: int) -> list[tuple[float, ...]]:
    """Return weights of n generators that add up to 1: tenths for two and three, coarser for more."""
    steps = _STEPS.get(n, 2)
    parts = itertools.product(range(steps + 1), repeat=n - 1)
    return [
        tuple(part / steps for part in (*some, steps - sum(some))) for some in parts if sum(some) <= steps
    ]
