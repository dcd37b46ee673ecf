"""What the factor models share: settings, training on pairs of items, scores, reasons and saving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextclick import machine
from nextclick.errors import ArtifactError, DataError, TooLargeError, TrainingDivergedError
from nextclick.index import ItemSpace
from nextclick.reasons import ClickParts
from nextclick.recommender import Recommender
from nextclick.sessions import Queries, Sessions
from nextclick.settings import about

Factors = NDArray[np.float32]

_COPIES = 2  # of the factors, in memory during training: they are drawn, and scaled
_MEASURED = 5000  # next clicks that choose the epoch at most: to rank costs more than to train


class Examples(NamedTuple):
    """What is trained on: for the click at ``at``, the session it comes from and what is no negative.

    at: int64 [P], places in ``items`` of the clicks to predict. The session of the click at p is the mean of
    the rows rows[lows[p]:highs[p]] of ``left``; negatives are none of items[firsts[p]:lasts[p]].
    rows: int32 or int64;  lows, highs, firsts, lasts: int64 [n_clicks].
    """

    at: NDArray[np.int64]
    rows: NDArray[Any]
    lows: NDArray[np.int64]
    highs: NDArray[np.int64]
    firsts: NDArray[np.int64]
    lasts: NDArray[np.int64]
    left: Factors


@dataclass(kw_only=True, eq=False)
class FactorRecommender(Recommender):
    """Base of the models whose score is a product of factors: the mean of the prefix with each item.

        score(j | prefix) = <1/n sum of left[i] over the last n clicks i of the prefix, right[j]>

    Training is stochastic gradient ascent on BPR-Opt (Rendle et al., UAI 2009): for a session s, an item i
    clicked in it and a drawn item j, with x = score(i | s) - score(j | s) and a learning rate r,

        maximise  ln sigma(x) - regularisation / 2 * |factors|^2
        factors += r * ((1 - sigma(x)) * dx/dfactors - regularisation * factors)

    one triple after the other, in an order and with draws that the seed decides. An empty prefix is answered
    with the most clicked items. All sessions are trained on, for a fixed number of epochs: the learning rate
    falls so far that the last epoch is the best. Where it falls less, let ``validation`` choose the epoch.
    """

    epochs: int = field(default=20, metadata=about("passes over the training sessions at most", low=1))
    learning_rate: float = field(
        default=0.1, metadata=about("of the first epoch", low=0, search=("log", 0.02, 0.3))
    )
    decay: float = field(
        default=0.9,
        metadata=about("factor on the learning rate after each epoch", low=0, high=1, search=(0.8, 1)),
    )
    regularisation: float = field(
        default=0.005, metadata=about("weight of the squared factors", low=0, search=("log", 0.0003, 0.03))
    )
    dim: int = field(default=100, metadata=about("width of the factors", low=1, search=[50, 100, 200]))
    start: float = field(
        default=0.1, metadata=about("standard deviation of the factors before training", low=0.0001)
    )
    samples: int = field(
        default=4, metadata=about("items drawn for each click, each for a step of its own", low=1)
    )
    alpha: float = field(
        default=0.5,
        metadata=about("items are drawn by clicks^alpha; 0: all alike", low=0, high=1, search=(0, 1)),
    )
    last_clicks: int | None = field(
        default=1, metadata=about("clicks of the prefix that are read, the last ones; none: all", low=1)
    )
    validation: float = field(
        default=0.0,
        metadata=about(
            "share of the sessions, the latest, kept to choose the epoch on; 0: none", low=0, high=0.9
        ),
    )
    metric: Literal["recall", "mrr"] = field(
        default="recall", metadata=about("what is to be best on the validation sessions, at 20")
    )
    patience: int = field(default=3, metadata=about("epochs without improvement before stopping", low=1))
    refit: bool = field(
        default=False,
        metadata=about("train again on all sessions, validation included, for the chosen number of epochs"),
    )
    seed: int = field(default=1, metadata=about("of the start, the order and the draws", low=0))

    _sides: ClassVar[tuple[str, str]]
    """Names of the factors of clicks (left) and of candidates (right); the same name for the same factors."""

    def _examples(self, sessions: Sessions, rng: np.random.Generator) -> Examples:
        """Return what to train on: every click that is to be predicted, after the clicks before it."""
        at, lows = np.arange(len(sessions.items)), sessions.prefix_starts(self.last_clicks)
        return Examples(
            at[sessions.is_target], sessions.items, lows, at, at, at + 1, self.factors[self._sides[0]]
        )

    def _fit(self, sessions: Sessions) -> None:
        held_out = int(len(sessions) * self.validation)
        fitted, kept = sessions[: len(sessions) - held_out], sessions[len(sessions) - held_out :]
        if fitted.n_pairs == 0:
            raise DataError(f"{self.name}: no training session has two clicks, so there is nothing to learn")
        n_weights, there = self._rows(fitted) * self.dim, machine.available_memory()
        copies = _COPIES + bool(kept.n_pairs)  # one more is kept of the best epoch
        if there is not None and 4 * n_weights * copies > there:
            raise TooLargeError(self.name, n_weights, self.n_items, copies, there, "make dim smaller")
        self.facts["epochs"] = []
        best = self._train(fitted, kept, self.epochs)
        if self.refit and kept.n_pairs:
            self._train(sessions, sessions[:0], best)

    def _rows(self, sessions: Sessions) -> int:
        """Return how many vectors are trained."""
        return self.n_items * len(set(self._sides))

    def _train(self, sessions: Sessions, kept: Sessions, epochs: int) -> int:
        """Learn from sessions; keep the factors of the epoch best on ``kept``, of the last one without.

        Returns that epoch.
        """
        from nextclick.factors import kernels

        rng = np.random.default_rng(self.seed)
        self.factors = {side: self._started(self.n_items, rng) for side in dict.fromkeys(self._sides)}
        examples = self._examples(sessions, rng)
        right = self.factors[self._sides[1]]
        shares = np.cumsum(np.maximum(self.support, 1) ** self.alpha)
        shares /= shares[-1]
        state = rng.integers(0, 2**63, 1, np.uint64)
        best, best_figure, best_epoch = self.factors, -1.0, 0
        for epoch in range(1, epochs + 1):
            self._tell(f"epoch {epoch}", epoch - 1, epochs)
            rate = self.learning_rate * self.decay ** (epoch - 1)
            loss, steps = kernels.epoch(
                rng.permutation(examples.at), examples.rows, examples.lows, examples.highs, sessions.items,
                examples.firsts, examples.lasts, examples.left, right, shares, self.samples,
                rate, self.regularisation, state,
            )  # fmt: skip
            finite = all(np.isfinite(side).all() for side in self.factors.values())
            if not (np.isfinite(loss) and finite):
                raise TrainingDivergedError(epoch, steps, steps // self.samples, rate)
            figure = self.measure(kept, at_most=_MEASURED)[f"{self.metric}@20"] if kept.n_pairs else None
            self.facts["epochs"].append({"epoch": epoch, "loss": loss / max(steps, 1), "figure": figure})
            if figure is not None:
                if figure > best_figure:
                    best = {name: side.copy() for name, side in self.factors.items()}
                    best_figure, best_epoch = figure, epoch
                elif epoch - best_epoch >= self.patience:
                    break
        self._tell("trained", epochs, epochs)
        self.factors = best
        return best_epoch or epochs

    def _started(self, rows: int, rng: np.random.Generator) -> Factors:
        return rng.standard_normal((rows, self.dim), np.float32) * np.float32(self.start)

    def _lows(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where the clicks that are read begin, of prefixes from starts to ends."""
        return starts if self.last_clicks is None else np.maximum(starts, ends - self.last_clicks)

    def _scores(self, queries: Queries) -> NDArray[np.float32]:
        from nextclick.factors import kernels

        left, right = (self.factors[side] for side in self._sides)
        empty = queries.ends == queries.starts
        asked = queries[~empty]
        sessions = np.empty((len(asked), self.dim), np.float32)
        kernels.means(asked.items, self._lows(asked.starts, asked.ends), asked.ends, left, sessions)
        scores = np.empty((len(queries), self.n_items), np.float32)
        scores[empty] = self.support
        if len(asked) == len(queries):
            np.matmul(sessions, right.T, out=scores)
        else:
            scores[~empty] = sessions @ right.T
        return scores

    def item_space(self) -> ItemSpace:
        """Return the factors of the items as candidates."""
        self.n_items  # noqa: B018 - refuses before fit
        return ItemSpace(self.factors[self._sides[1]], "product")

    def reasons(self, prefix: NDArray[np.int32], items: NDArray[np.int32]) -> ClickParts:
        left, right = (self.factors[side].astype(np.float64) for side in self._sides)
        read = prefix[-(self.last_clicks or len(prefix)) :]
        parts = np.zeros((len(prefix), len(items)))
        parts[len(prefix) - len(read) :] = left[read] @ right[items].T / len(read)
        return ClickParts(parts)

    def _state(self) -> dict[str, NDArray[Any]]:
        return dict(self.factors)

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        factors = {side: state[side] for side in dict.fromkeys(self._sides)}
        for name, side in factors.items():
            if side.shape != (self.n_items, self.dim) or side.dtype != np.float32:
                raise ArtifactError(f"{self.name}: the saved {name} factors do not fit; fit the model again")
        self.factors = factors
