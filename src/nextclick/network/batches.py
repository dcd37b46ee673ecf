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
    """

    def __init__(self, sessions: Sessions, longest: int) -> None:
        starts, ends = sessions.offsets[:-1], sessions.offsets[1:]
        whole = np.flatnonzero(sessions.lengths > 1)
        late = [
            np.arange(starts[s] + longest + 1, ends[s])
            for s in np.flatnonzero(sessions.lengths > longest + 1)
        ]
        targets = np.concatenate([*late, np.empty(0, np.int64)]).astype(np.int64)
        self.items = np.asarray(sessions.items)
        self.starts = np.r_[starts[whole], targets - longest]
        self.lengths = np.r_[np.minimum(sessions.lengths[whole] - 1, longest), np.full(len(targets), longest)]
        self.predicted = np.r_[self.lengths[: len(whole)], np.ones(len(targets), np.int64)]  # from the end

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
        lengths, predicted = self.lengths[rows, None], self.predicted[rows, None]
        place = np.arange(int(lengths.max()))
        mask = place < lengths
        at = np.where(mask, self.starts[rows, None] + place, self.starts[rows, None])
        clicks = np.where(mask, self.items[at], 0)
        targets = np.where(mask & (place >= lengths - predicted), self.items[at + 1], -1)
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
