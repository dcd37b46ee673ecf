"""The item encoder: what the trained weights of an item would be, from its features alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from nextclick.errors import DataError
from nextclick.features import Representation, Sparse

_MOST = 2000  # items to learn from, the most clicked: their weights are trained best
_TRIED = 700  # of them, the most clicked again, to choose the kernel on
_SHARPNESS = (0.25, 1.0, 4.0, 16.0)  # how fast likeness falls with the cosine
_EMPHASIS = 0.7  # what one of several representations weighs where it is tried as the main one
_PENALTIES = tuple(10.0**power for power in range(-4, 3))


class ItemEncoder:
    """Kernel ridge regression from the features of items to what training has made of them, table by table.

    Two items are alike by exp(g (c - 1)), c the mean of their cosines over the representations, all weighing
    the same or one of them most. The kernel is common to all tables, each has a penalty of its own: those are
    taken whose error on items left out of the fit is least, which has a closed form. What features do not
    tell of is left at its mean that way.
    Such a regression shrinks what it is not sure of towards the mean, and items with small weights are hardly
    ever recommended; so ``boldness`` brings what it says from that (0) to the size of what was trained (1).
    """

    def __init__(
        self,
        given: Mapping[str, Representation],
        tables: Mapping[str, NDArray[np.float32]],
        support: NDArray[np.int64],
    ) -> None:
        """Learn from items [n] with features to their rows of tables [n, ..]; support: clicks [n].

        Raises DataError when fewer than two clicked items have features.
        """
        there = np.any([of_items.present for of_items in given.values()], axis=0) & (support > 0)
        best = np.flatnonzero(there)
        best = best[np.argsort(-support[best], kind="stable")][:_MOST]
        if len(best) < 2:
            raise DataError("too few clicked items have features to learn what new ones are like")
        self._given = {name: of_items.take(best) for name, of_items in given.items()}
        products = _products_of(self._given, self._given)
        targets = {name: _Target(table[best]) for name, table in tables.items()}
        tried = {name: _Target(table[best[:_TRIED]]) for name, table in tables.items()}
        some = {name: of[:_TRIED, :_TRIED] for name, of in products.items()}
        least = np.inf
        for weights in _weightings(list(given)):
            for sharpness in _SHARPNESS:
                kernel = _Kernel(_likeness(some, weights, sharpness))
                error = sum(min(kernel.errors(target)) / target.variance for target in tried.values())
                if error < least:
                    least, self._weights, self._sharpness = error, weights, sharpness
        kernel = _Kernel(_likeness(products, self._weights, self._sharpness))
        self.penalties = {
            name: _PENALTIES[int(np.argmin(kernel.errors(target)))] for name, target in targets.items()
        }
        self._means = {name: target.mean for name, target in targets.items()}
        self._shapes = {name: table.shape[1:] for name, table in tables.items()}
        self._told: dict[str, NDArray[np.float64]] = {}
        lost, said = 0.0, 0.0
        for name, target in targets.items():
            self._told[name], left_out = kernel.fitted(target, self.penalties[name])
            lost += float((left_out**2).sum())
            said += float(((target.values - left_out) ** 2).sum())
        all_of_it = sum(float((target.values**2).sum()) for target in targets.values())
        self.explained = 1 - lost / max(all_of_it, 1e-12)
        """Share of the variance of the tables that features tell of items left out."""
        self._shrunk = float(np.sqrt(all_of_it / max(said, 1e-12)))

    def __call__(
        self, given: Mapping[str, Representation], boldness: float
    ) -> dict[str, NDArray[np.float32]]:
        """Return what the rows of other items would be, [m, ..] by table."""
        size = 1 + boldness * (self._shrunk - 1)
        likeness = _likeness(_products_of(given, self._given), self._weights, self._sharpness)
        found = {}
        for name, weights in self._told.items():
            rows = size * (likeness @ weights) + self._means[name]
            found[name] = rows.astype(np.float32).reshape(len(rows), *self._shapes[name])
        return found


class _Target:
    """Rows of a table as they differ from their mean: values [n, W], mean [W]; variance, never 0."""

    def __init__(self, rows: NDArray[np.float32]) -> None:
        values = rows.reshape(len(rows), -1).astype(np.float64)
        self.mean = values.mean(0)
        self.values = values - self.mean
        self.variance = max(float((self.values**2).mean()), 1e-12)


class _Kernel:
    """Ridge regression with a kernel [n, n], at any penalty."""

    def __init__(self, likeness: NDArray[np.float64]) -> None:
        spread, self._vectors = np.linalg.eigh(likeness)
        self._spread = np.maximum(spread, 0)

    def fitted(self, target: _Target, penalty: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the weights of the items, and the errors on each left out of the fit, both [n, W]."""
        return self._solved(self._vectors.T @ target.values, penalty)

    def errors(self, target: _Target) -> list[float]:
        """Return the mean squared error on items left out of the fit, at each penalty."""
        turned = self._vectors.T @ target.values
        return [float((self._solved(turned, penalty)[1] ** 2).mean()) for penalty in _PENALTIES]

    def _solved(
        self, turned: NDArray[np.float64], penalty: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        shrunk = 1 / (self._spread + penalty)
        weights = self._vectors @ (shrunk[:, None] * turned)
        return weights, weights / ((self._vectors**2) @ shrunk)[:, None]


def _weightings(names: list[str]) -> list[dict[str, float]]:
    """Return how much representations may weigh: all the same, and each of several most."""
    n = len(names)
    found = [dict.fromkeys(names, 1 / n)]
    if n > 1:
        rest = (1 - _EMPHASIS) / (n - 1)
        found += [{name: _EMPHASIS if name == main else rest for name in names} for main in names]
    return found


def _likeness(
    products: Mapping[str, NDArray[np.float64]], weights: Mapping[str, float], sharpness: float
) -> NDArray[np.float64]:
    cosine = sum(weights[name] * of for name, of in products.items())
    found: NDArray[np.float64] = np.exp(sharpness * (np.asarray(cosine) - 1))
    return found


def _products_of(
    first: Mapping[str, Representation], second: Mapping[str, Representation]
) -> dict[str, NDArray[np.float64]]:
    """Cosines by representation, [n, m]; 0 where one of two items has no vector."""
    return {name: _products(of, second[name]) for name, of in first.items()}


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
