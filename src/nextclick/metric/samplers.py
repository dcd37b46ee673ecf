"""Which prefixes a pass trains on, which items followed them, and which items did not.

Positives are codes [R, P], the next click first, -1 where there is none; every prefix has at least one.
Source: Twardowski et al. 2021 (SML), secs. 4.5 and 5.6.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextclick.network.batches import Rows
from nextclick.sessions import Queries, Sessions


@dataclass(frozen=True, eq=False)
class Examples:
    """A batch: R prefixes that end at places of B rows of clicks, padded on the right.

    clicks: int64 [B, T], 0 in the padding;  mask: bool [B, T];  row, place: int64 [R], rows in order, each
    with one prefix or more;  positives: int64 [R, P].
    """

    clicks: Tensor
    mask: Tensor
    row: Tensor
    place: Tensor
    positives: Tensor


class Sampler(ABC):
    """The prefixes of an epoch. n: how many;  most: P, positives of a prefix at most."""

    n: int
    most: int

    @abstractmethod
    def batches(self, size: int, rng: np.random.Generator) -> Iterator[Examples]:
        """Yield the batches of an epoch, about ``size`` prefixes each."""


class EveryClick(Sampler):
    """Every prefix of every session once, and the next clicks behind it, P at most.

    Where a session is longer than ``longest`` the later clicks have the next one only.
    """

    def __init__(self, sessions: Sessions, longest: int, most: int) -> None:
        self.rows, self.most = Rows(sessions, longest), most
        self.n = self.rows.n_pairs

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[Examples]:
        for batch in self.rows.batches(size, rng):
            row, place = (batch.targets >= 0).nonzero(as_tuple=True)
            padded = torch.nn.functional.pad(batch.targets, (0, self.most - 1), value=-1)
            positives = padded.unfold(1, self.most, 1)[row, place]  # [R, P]
            yield Examples(batch.clicks, batch.mask, row, place, positives)


class _OnePrefix(Sampler):
    """Base of the samplers whose rows have one prefix each, drawn or cut before an epoch."""

    def __init__(self, sessions: Sessions, longest: int, most: int, more: NDArray[np.int64] | None) -> None:
        self.items, self.most = np.asarray(sessions.items), most
        self.longest = min(longest, sessions.target_clicks or longest)
        self.more = more
        self.targets = np.flatnonzero(sessions.is_target)  # positions of clicks to predict
        owner = sessions.session_of[self.targets]
        self.session, first, counts = np.unique(owner, return_index=True, return_counts=True)
        self.bounds = np.r_[first, first[-1:] + counts[-1:]].astype(np.int64)  # of each one's targets
        self.begin = np.asarray(sessions.offsets)[self.session]
        self.n = len(self.session)

    @abstractmethod
    def cuts(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], ...]:
        """Return for each prefix of an epoch its session, first click and end (positions), [n] each."""

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[Examples]:
        of, starts, ends = self.cuts(rng)
        order = rng.permutation(len(of))
        for low in range(0, len(order), size):
            yield self._examples(*(array[order[low : low + size]] for array in (of, starts, ends)))

    def _examples(
        self, of: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> Examples:
        lengths = (ends - starts)[:, None]
        place = np.arange(int(lengths.max()))
        mask = place < lengths
        clicks = np.where(mask, self.items[np.where(mask, starts[:, None] + place, starts[:, None])], 0)
        at = np.searchsorted(self.targets, ends)[:, None] + np.arange(self.most)  # numbers of targets
        there = at < self.bounds[of + 1][:, None]
        followed = self.items[self.targets[np.where(there, at, 0)]]
        positives = np.where(there, followed, -1).astype(np.int64)
        if self.more is not None:
            positives = _topped_up(positives, self.more[self.session[of]])
        return Examples(
            torch.from_numpy(clicks.astype(np.int64)),
            torch.from_numpy(mask),
            torch.arange(len(of)),
            torch.from_numpy(lengths[:, 0] - 1),
            torch.from_numpy(positives),
        )


class RandomSplit(_OnePrefix):
    """Every session once, split at random: what comes before is read, up to P next clicks are positives.

    The split is drawn anew each epoch, each place before a click to predict as likely as another.
    more: codes [n_sessions, M], -1 for none, that top up the positives of a session when it has too few.
    Source: sec. 4.5.
    """

    def __init__(
        self, sessions: Sessions, longest: int, most: int, more: NDArray[np.int64] | None = None
    ) -> None:
        super().__init__(sessions, longest, most, more)

    def cuts(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], ...]:
        last = self.targets[self.bounds[1:] - 1]
        ends = self.begin + 1 + (rng.random(self.n) * (last - self.begin)).astype(np.int64)
        return np.arange(self.n), np.maximum(self.begin, ends - self.longest), ends


class SlidingWindow(_OnePrefix):
    """Every run of ``width`` clicks that a click to predict follows; one shorter run of shorter sessions.

    Prefixes shorter than the window are not trained on, unless a session has no longer ones: what the paper
    tried first, and found bad for that reason. Source: sec. 5.6.
    """

    def __init__(self, sessions: Sessions, longest: int, most: int, width: int) -> None:
        super().__init__(sessions, min(longest, width), most, None)
        of = np.repeat(np.arange(self.n), np.diff(self.bounds))
        before = self.targets - self.begin[of]  # clicks before each target
        last = np.zeros(len(of), np.bool_)
        last[self.bounds[1:] - 1] = True
        chosen = (before >= self.longest) | (last & (before < self.longest))
        self._ends, self._of = self.targets[chosen], of[chosen]
        self.n = len(self._of)

    def cuts(self, rng: np.random.Generator) -> tuple[NDArray[np.int64], ...]:
        return self._of, np.maximum(self.begin[self._of], self._ends - self.longest), self._ends


def neighbours(sessions: Sessions, n: int) -> NDArray[np.int64]:
    """Return the n items that sessions like it clicked most, and it did not, for each session; -1: no more.

    Codes [n_sessions, n] int64. Likeness is that of ``sknn`` with its published settings; each session is
    asked for as a whole. Source: sec. 4.5, which does not say more than "KNN method".
    """
    from nextclick.neighbours.session_knn import SKNN

    model = SKNN.preset("paper", remind="none").fit(sessions)
    queries = Queries(sessions.items, sessions.offsets[:-1], sessions.offsets[1:])
    top, scores = model.top(queries, n, exclude_seen=True)
    return np.where(scores > 0, top, -1).astype(np.int64)


def _topped_up(positives: NDArray[np.int64], more: NDArray[np.int64]) -> NDArray[np.int64]:
    """Fill the places of positives that are -1, all on the right, with ``more`` in its order."""
    both = np.concatenate([positives, more], axis=1)
    order = np.argsort(both < 0, axis=1, kind="stable")
    return np.take_along_axis(both, order, axis=1)[:, : positives.shape[1]]
