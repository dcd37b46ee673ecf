"""The item encoder: what the trained weights of an item would be, from its features alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from nextclick.errors import DataError
from nextclick.features import Representation, Sparse

_MOST = 2000  # items to learn from, the most clicked: their weights are trained best
_SHARPNESS = (1.0, 4.0, 16.0)  # how fast likeness falls with the cosine
_PENALTIES = tuple(10.0**power for power in range(-4, 3))


class ItemEncoder:
    """Kernel ridge regression from the features of items to what training has made of them.

    Two items are alike by exp(g (c - 1)), c the mean of their cosines over the representations. The sharpness
    g and the penalty are those whose error on an item left out of the fit is least, which has a closed form.
    Such a regression shrinks what it is not sure of towards the mean, and items with small weights are hardly
    ever recommended; so ``boldness`` brings what it says from that (0) to the size of what was trained (1).
    """

    def __init__(
        self, given: Mapping[str, Representation], values: NDArray[np.float32], support: NDArray[np.int64]
    ) -> None:
        """Learn from items [n] with features to rows of values [n, W]; support: clicks [n].

        Raises DataError when fewer than two clicked items have features.
        """
        there = np.any([of_items.present for of_items in given.values()], axis=0) & (support > 0)
        best = np.flatnonzero(there)
        best = best[np.argsort(-support[best], kind="stable")][:_MOST]
        if len(best) < 2:
            raise DataError("too few clicked items have features to learn what new ones are like")
        self._given = {name: of_items.take(best) for name, of_items in given.items()}
        cosines = _cosines(self._given, self._given)
        target = values[best].astype(np.float64)
        self._mean = target.mean(0)
        target -= self._mean
        least, told = np.inf, target
        for sharpness in _SHARPNESS:
            spread, vectors = np.linalg.eigh(np.exp(sharpness * (cosines - 1)))
            turned = vectors.T @ target
            for penalty in _PENALTIES:
                shrunk = 1 / (np.maximum(spread, 0) + penalty)
                weights = vectors @ (shrunk[:, None] * turned)
                left_out = weights / ((vectors**2) @ shrunk)[:, None]  # errors on items left out of the fit
                error = float((left_out**2).mean())
                if error < least:
                    least, told = error, target - left_out
                    self._sharpness, self.penalty, self._weights = sharpness, penalty, weights
        self.explained = 1 - least / float((target**2).mean())
        """Share of the variance of the values that features tell of items left out."""
        self._shrunk = float(np.sqrt((target**2).mean() / max(float((told**2).mean()), 1e-12)))

    def __call__(self, given: Mapping[str, Representation], boldness: float) -> NDArray[np.float32]:
        """Return what the values of other items would be, [m, W]."""
        size = 1 + boldness * (self._shrunk - 1)
        likeness = np.exp(self._sharpness * (_cosines(given, self._given) - 1))
        found: NDArray[np.float32] = (size * (likeness @ self._weights) + self._mean).astype(np.float32)
        return found


def _cosines(
    first: Mapping[str, Representation], second: Mapping[str, Representation]
) -> NDArray[np.float64]:
    """Mean cosines over the representations, [n, m]; 0 where one of two items has no vector."""
    products = [_products(first[name], second[name]) for name in first]
    return np.mean(products, axis=0)


def _products(first: Representation, second: Representation) -> NDArray[np.float64]:
    n, m = len(first), len(second)
    if isinstance(first, Sparse) and isinstance(second, Sparse):
        # Only the columns that occur: a text has a million of them, two hundred items a few hundred.
        used, columns = np.unique(second.columns, return_inverse=True)
        kept = np.isin(first.columns, used)
        row = np.repeat(np.arange(n), np.diff(first.offsets))[kept]
        at = torch.from_numpy(np.stack([row, np.searchsorted(used, first.columns[kept])]))
        left = torch.sparse_coo_tensor(
            at,
            torch.from_numpy(first.values[kept]).double(),
            (n, len(used)),
            check_invariants=True,
        )
        found = np.empty((n, m))
        for low in range(0, m, _BLOCK):
            part = slice(int(second.offsets[low]), int(second.offsets[min(low + _BLOCK, m)]))
            of_item = np.repeat(np.arange(m), np.diff(second.offsets))[part] - low
            right = torch.zeros(len(used), min(_BLOCK, m - low), dtype=torch.float64)
            right[torch.from_numpy(columns[part]), torch.from_numpy(of_item)] = torch.from_numpy(
                second.values[part]
            ).double()
            found[:, low : low + _BLOCK] = torch.sparse.mm(left, right).numpy()
        lengths = [np.sqrt(np.bincount(np.repeat(np.arange(len(of)), np.diff(of.offsets)),
                                       of.values.astype(np.float64) ** 2, len(of)))
                   for of in (first, second)]  # fmt: skip
    else:
        found = first.dense().astype(np.float64) @ second.dense().T.astype(np.float64)
        lengths = [np.linalg.norm(of.dense(), axis=1) for of in (first, second)]
    return found / np.maximum(np.outer(*lengths), 1e-12)


_BLOCK = 256
