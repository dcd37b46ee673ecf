"""What each neighbouring session adds to the scores, one by one: the votes that the kernel sums."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextclick.reasons import Neighbour, Neighbours
from nextclick.sessions import Vocabulary


def voters(
    learnt: Mapping[str, NDArray[Any]],
    vocabulary: Vocabulary,
    prefix: NDArray[np.int32],
    silent: NDArray[np.int32],
    items: NDArray[np.int32],
    nearest: NDArray[np.int32],
    similarities: NDArray[np.float64],
    votes: NDArray[np.float64],
    scale: float,
) -> Neighbours:
    """Return the nearest sessions and what each adds to the scores of ``items``, the most similar first.

    learnt: the fitted arrays;  silent: items that get no vote;  nearest: numbers of the sessions, with their
    similarities and votes, all [n];  scale: clicks over which a vote falls to 1/e inside a session, 0: none.
    """
    found = []
    numbers = learnt.get("numbers", np.arange(len(learnt["offsets"])))
    for n in np.lexsort((-nearest, -similarities)):
        row = slice(*learnt["offsets"][nearest[n] : nearest[n] + 2])
        own, positions = learnt["items"][row], learnt["positions"][row]  # latest first
        shared = np.isin(own, prefix)
        parts = np.where(np.isin(own, silent), 0.0, votes[n] * learnt["item_factors"][own])
        if scale > 0:
            parts = parts * np.exp(-np.abs(positions - positions[shared].max()) / scale)
        of_item = dict(zip(own.tolist(), parts.tolist(), strict=True))
        found.append(
            Neighbour(
                clicks=tuple(vocabulary.ids_of(own[::-1])),
                shared=tuple(vocabulary.ids_of(own[::-1][shared[::-1]])),
                similarity=float(similarities[n]),
                days=float(learnt["ages"][nearest[n]]) if len(learnt["ages"]) else None,
                later=int(numbers[-1] - 1 - numbers[nearest[n]]),
                parts=np.array([of_item.get(item, 0.0) for item in items.tolist()]),
            )
        )
    return Neighbours(tuple(found))
