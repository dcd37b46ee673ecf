"""How a recommender is fitted: what does not change what it becomes, and who is told how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nextclick.sessions import Sessions

Progress = Callable[[int, int], None]
"""Called with (done, total) while a long answer is worked out."""

FitProgress = Callable[[str, int, int], None]
"""Called with (what is going on, done, total) while a long training goes on."""

Norms = Callable[[NDArray[np.float64], NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]]
"""From the occurrences of each item on the left and on the right of a pair, what a count is divided by."""


class NeighbourEngine(Protocol):
    """A database that works out the tables of neighbour models beyond the memory of this process.

    Each method reads the sessions from the shards of the prepared data that it was opened on, and gives what
    the compiled loops give, to the last bit.
    Raises DataError for sessions that are not those of its data from the first one on.
    """

    def item_neighbours(
        self, sessions: Sessions, *, pairs: str, counts: str, norms: Norms, keep: int, tell: FitProgress
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
        """Return (offsets [n_items + 1], items, weights): the ``keep`` strongest neighbours of each item.

        pairs: "session" or "anchor";  counts: "sessions" or "clicks", as in ``ItemKNN``.
        """

    def recent_sessions(
        self, sessions: Sessions, longest: int, tell: FitProgress
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        """Return (numbers, offsets, items, positions) of the sessions among the latest of some item.

        longest: how many sessions of an item count as its latest.  numbers: of these sessions, rising, [n];
        offsets: [n + 1];  items: the distinct ones of each session, latest first;  positions: from 1.
        """


@dataclass(frozen=True)
class Run:
    """How a training is run, none of which changes what a recommender is.

    checkpoints: folder for what a network has been trained to so far, written after every epoch; training
    goes on from what lies there, and reaches the same result as if it had not been interrupted.  tensorboard:
    folder for a network's event files.  device: of a network, "auto" (a GPU where there is one), "cpu",
    "cuda", "cuda:1".  candidates: folder where a re-ranking recommender keeps the candidates of the training
    prefixes for its next training.  engine: the database that ``item-knn`` and ``vmis-knn`` are to be fitted
    by; None: by compiled loops, in memory.  alone: this process trains by itself even where torchrun started
    others.
    """

    checkpoints: Path | None = None
    tensorboard: Path | None = None
    device: str = "auto"
    candidates: Path | None = None
    engine: NeighbourEngine | None = None
    alone: bool = False
