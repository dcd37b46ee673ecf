"""What a network reads of items beside their ids: sources, each of which adds something to a sum.

A source tells of items by numbers, in rows as a step needs them, or of all items at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nextclick.features import Dense, Representation, Sparse

Reader = Callable[[Tensor, Tensor], Tensor]
"""Returns rows [K, D] of a table [N, D], numbers [K]; in training it remembers them for the optimizer."""


def plain(table: Tensor, numbers: Tensor) -> Tensor:
    """Read rows without remembering them."""
    return table.index_select(0, numbers)


class IdSource(nn.Module):
    """One-hot input: what an item adds is a vector of its own.  ``table`` [N, W]."""

    def __init__(self, n_items: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(n_items, width))

    def tables(self) -> list[Tensor]:
        """The parameters of which a step reads rows."""
        return [self.table]

    def forward(self, items: Tensor, read: Reader) -> Tensor:
        """What items [L] add, [L, W]."""
        return read(self.table, items)

    def all(self) -> Tensor:
        """What each item adds, [N, W]."""
        return self.table


class DenseSource(nn.Module):
    """A vector x per item, which adds x @ weight.

    name: of the representation;  fine_tuned: the vectors themselves are trained too.
    """

    def __init__(self, name: str, given: Dense, width: int, fine_tuned: bool) -> None:
        super().__init__()
        values = torch.from_numpy(given.values)
        self.name, self.fine_tuned = name, fine_tuned
        if fine_tuned:
            self.table = nn.Parameter(values.clone())
        else:
            self.register_buffer("table", values, persistent=False)
        self.weight = nn.Parameter(torch.empty(given.width, width))

    def tables(self) -> list[Tensor]:
        """The parameters of which a step reads rows."""
        return [self.table] if self.fine_tuned else []

    def forward(self, items: Tensor, read: Reader) -> Tensor:
        """What items [L] add, [L, W]."""
        vectors = read(self.table, items) if self.fine_tuned else plain(self.table, items)
        return vectors @ self.weight

    def all(self) -> Tensor:
        """What each item adds, [N, W]."""
        added: Tensor = self.table @ self.weight
        return added


class SparseSource(nn.Module):
    """A sparse vector x per item, which adds x @ weight: the sum of the few rows where x is not 0.

    Only these rows are read, and get gradients; no matrix [N, columns] is ever made.
    """

    offsets: Tensor
    columns: Tensor
    values: Tensor

    def __init__(self, given: Sparse, width: int) -> None:
        super().__init__()
        for name in ("offsets", "columns", "values"):
            self.register_buffer(name, torch.from_numpy(getattr(given, name)), persistent=False)
        self.weight = nn.Parameter(torch.empty(given.width, width))
        self._turned: _Turned | None = None

    def tables(self) -> list[Tensor]:
        """The parameters of which a step reads rows."""
        return [self.weight]

    def forward(self, items: Tensor, read: Reader) -> Tensor:
        """What items [L] add, [L, W]."""
        first = self.offsets[items]
        lengths = self.offsets[items + 1] - first
        before = lengths.cumsum(0) - lengths
        at = torch.repeat_interleave(first - before, lengths)
        at += torch.arange(len(at), device=items.device)
        columns, slots = torch.unique(self.columns[at], return_inverse=True)
        rows = read(self.weight, columns.long())
        added: Tensor = nn.functional.embedding_bag(
            slots, rows, before, mode="sum", per_sample_weights=self.values[at]
        )
        return added

    def all(self) -> Tensor:
        """What each item adds, [N, W]; forward and back at the cost of the entries there are."""
        if self._turned is None or self._turned.device != self.weight.device:
            self._turned = _Turned(self)
        added: Tensor = _Product.apply(  # type: ignore[no-untyped-call]
            self.weight, self.columns, self.values, self.offsets[:-1], self._turned
        )
        return added


class _Turned:
    """Sparse vectors by columns: the items of each, which a gradient comes back from."""

    def __init__(self, source: SparseSource) -> None:
        self.device = source.weight.device
        n = len(source.offsets) - 1
        of_entry = torch.repeat_interleave(torch.arange(n, device=self.device), source.offsets.diff())
        order = torch.sort(source.columns, stable=True).indices
        self.items, self.values = of_entry[order], source.values[order]
        counts = torch.bincount(source.columns, minlength=len(source.weight))
        self.offsets = counts.cumsum(0) - counts


class _Product(torch.autograd.Function):
    """The product of a sparse matrix with a dense one, both ways as sums of the few rows that count."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, columns: Tensor, values: Tensor, offsets: Tensor, turned: _Turned
    ) -> Tensor:
        ctx.turned = turned
        return _summed(weight, columns.long(), values, offsets)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None, None, None]:
        turned: _Turned = ctx.turned
        gradient = _summed(outputs[0].contiguous(), turned.items, turned.values, turned.offsets)
        return gradient, None, None, None, None


def _summed(table: Tensor, rows: Tensor, values: Tensor, offsets: Tensor) -> Tensor:
    found: Tensor = nn.functional.embedding_bag(rows, table, offsets, mode="sum", per_sample_weights=values)
    return found


def source_of(
    name: str, given: Representation, width: int, fine_tuned: bool = False, scale: float = 1.0
) -> DenseSource | SparseSource:
    """Return what reads a representation, times ``scale``."""
    scaled = given if scale == 1 else replace(given, values=given.values * np.float32(scale))
    if isinstance(scaled, Sparse):
        return SparseSource(scaled, width)
    return DenseSource(name, scaled, width, fine_tuned)


class ItemFeatures(nn.Module):
    """What the features of items add to vectors of a width: the sum over representations r of x_ir P_r.

    given: the features by name, a row for each item.  The projections P_r start at 0, so that a network
    starts as it would without them.
    """

    def __init__(self, given: Mapping[str, Representation], width: int) -> None:
        super().__init__()
        self._sources = nn.ModuleList([source_of(name, of, width) for name, of in given.items()])
        for weights in self.parameters():
            nn.init.zeros_(weights)

    def tables(self) -> list[Tensor]:
        """The parameters of which a step reads rows."""
        return [table for source in self._sources for table in source.tables()]  # type: ignore[operator]

    def forward(self, items: Tensor, read: Reader = plain) -> Tensor:
        """What items [L] add, [L, W]."""
        added: Tensor = torch.stack([source(items, read) for source in self._sources]).sum(0)
        return added

    def all(self) -> Tensor:
        """What each item adds, [N, W]."""
        return torch.stack([source.all() for source in self._sources]).sum(0)  # type: ignore[operator]
