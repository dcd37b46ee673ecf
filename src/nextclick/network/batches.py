"""Sessions as padded batches: every session once, all of its next clicks together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextclick.sessions import Queries, Sessions

_POOL = 64  # batches whose rows are sorted by length together, so that padding stays small


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of clicks, padded on the right.

    clicks: int64 [B, T] item codes, 0 in the padding;  mask: bool [B, T], True on real clicks;  targets:
    int64 [B, T], the click that followed each one, -1 where it is not to be predicted here.
    """

    clicks: Tensor
    mask: Tensor
    targets: Tensor


class Rows:
    """The rows that sessions are trained in: a session's clicks, at most ``longest`` of them.

    The next clicks within the first ``longest`` are predicted from one row. Each later one has a row of its
    own, with the ``longest`` clicks before it, so that a prefix is cut in training exactly as in answering.
    Clicks that are no targets of the sessions are read and not predicted; no row goes on behind its last
    target, and ``longest`` is no more than the sessions' ``target_clicks``.
    """

    def __init__(self, sessions: Sessions, longest: int) -> None:
        longest = min(longest, sessions.target_clicks or longest)
        self.items, self.wanted = np.asarray(sessions.items), sessions.is_target
        targets = np.flatnonzero(self.wanted)
        starts = sessions.offsets[sessions.session_of[targets]]
        near = targets - starts <= longest
        late = targets[~near] - longest
        begin, first, counts = np.unique(starts[near], return_index=True, return_counts=True)
        ends = targets[near][first + counts - 1]  # the last target of each session that its row reaches
        self.starts = np.r_[begin, late]
        self.lengths = np.r_[ends - begin, np.full(len(late), longest)].astype(np.int64)
        self.predicted = np.r_[counts, np.ones(len(late), np.int64)]
        self.first = np.r_[np.zeros(len(begin), np.int64), np.full(len(late), longest - 1)]  # place predicted

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def n_pairs(self) -> int:
        """Next clicks to predict in one pass over all rows."""
        return int(self.predicted.sum())

    def batches(self, n_pairs: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield all rows once in random order, about ``n_pairs`` next clicks to a batch."""
        order = rng.permutation(len(self))
        pool = max(1, _POOL * n_pairs * len(self) // max(self.n_pairs, 1))  # rows of so many batches
        cuts: list[NDArray[np.int64]] = []
        for low in range(0, len(order), pool):
            part = order[low : low + pool]
            part = part[np.argsort(self.lengths[part], kind="stable")]
            filled = np.cumsum(self.predicted[part])
            edges = np.searchsorted(filled, np.arange(n_pairs, filled[-1], n_pairs), side="right")
            cuts += [cut for cut in np.split(part, np.unique(edges)) if len(cut)]
        for n in rng.permutation(len(cuts)):
            yield self.batch(cuts[n])

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """Return the given rows as one batch."""
        lengths = self.lengths[rows, None]
        place = np.arange(int(lengths.max()))
        mask = place < lengths
        at = np.where(mask, self.starts[rows, None] + place, self.starts[rows, None])
        clicks = np.where(mask, self.items[at], 0)
        wanted = mask & (place >= self.first[rows, None]) & self.wanted[at + 1]
        targets = np.where(wanted, self.items[at + 1], -1)
        return Batch(
            *(torch.from_numpy(a) for a in (clicks.astype(np.int64), mask, targets.astype(np.int64)))
        )


def prefixes(queries: Queries, longest: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the last ``longest`` clicks of non-empty prefixes: clicks and mask [B, T], last place [B]."""
    starts = np.maximum(queries.starts, queries.ends - longest)
    lengths = queries.ends - starts
    place = np.arange(int(lengths.max()))
    mask = place < lengths[:, None]
    clicks = np.where(mask, queries.items[np.where(mask, starts[:, None] + place, starts[:, None])], 0)
    return torch.from_numpy(clicks.astype(np.int64)), torch.from_numpy(mask), torch.from_numpy(lengths - 1)
