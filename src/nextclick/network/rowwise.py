"""Tables of item vectors of which a step reads and changes a few rows, and the optimizer that does so.

A dense optimizer passes over all items at every step; with a table of a million items that would be all of
the time. Here the rows that a step has read are the only ones it writes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

EPSILON = 1e-6  # added to the sum of squares before the root, as GRU4Rec has it


class RowTable:
    """A parameter [N, D] read by rows; remembers what was read until the optimizer has changed it."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.requires_grad_(False)
        self.read: list[tuple[Tensor, Tensor]] = []

    def rows(self, numbers: Tensor) -> Tensor:
        """Return the given rows, [K, D], numbers [K] int64, as a leaf that gathers their gradient."""
        rows = self.weight.index_select(0, numbers).requires_grad_()
        self.read.append((numbers, rows))
        return rows


class RowAdagrad(torch.optim.Optimizer):
    """Adagrad with momentum, on whole parameters and on the rows that were read from tables.

    G += g^2;  v = momentum v - rate g / sqrt(G + epsilon);  w += v. On a row that a step does not read
    nothing changes, its momentum v included.  Source: Duchi et al. 2011; with momentum as in GRU4Rec.
    """

    def __init__(
        self, parameters: Iterable[Tensor], tables: Iterable[RowTable], rate: float, momentum: float
    ) -> None:
        self.tables = list(tables)
        dense = list(parameters)
        super().__init__([*dense, *(table.weight for table in self.tables)], {"lr": rate})
        self.momentum = momentum
        self.dense = dense
        for weight in (weight for group in self.param_groups for weight in group["params"]):
            self.state[weight]["squares"] = torch.zeros_like(weight)
            kept = weight if momentum > 0 else weight[:0]
            self.state[weight]["velocity"] = torch.zeros_like(kept)
        self._kept: dict[Tensor, tuple[NDArray[Any], ...]] = {}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget gradients, and the rows that were read."""
        super().zero_grad(set_to_none)
        for table in self.tables:
            table.read.clear()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Change the parameters and the rows that were read since the last step."""
        rate = self.param_groups[0]["lr"]
        for weight in self.dense:
            if weight.grad is not None:
                self._change(weight, weight.grad, rate)
        for table in self.tables:
            read = [(rows, gathered.grad) for rows, gathered in table.read if gathered.grad is not None]
            if read and compiles(table.weight):
                self._change_rows_compiled(table.weight, read, rate)
            elif read:
                self._change_rows(table.weight, read, rate)
            table.read.clear()

    def _change(self, weight: Tensor, gradient: Tensor, rate: float) -> None:
        state = self.state[weight]
        if compiles(weight):
            from nextclick.network import kernels

            arrays = (weight.detach(), state["squares"], state["velocity"], gradient.contiguous())
            kernels.adagrad(*(array.view(-1).numpy() for array in arrays), *self._numbers(rate))
            return
        squares = state["squares"].addcmul_(gradient, gradient)
        change = gradient / (squares + EPSILON).sqrt_()
        if self.momentum > 0:
            weight += state["velocity"].mul_(self.momentum).sub_(change, alpha=rate)
        else:
            weight.sub_(change, alpha=rate)

    def _change_rows(self, weight: Tensor, read: list[tuple[Tensor, Tensor]], rate: float) -> None:
        state = self.state[weight]
        rows, slot = torch.unique(torch.cat([rows for rows, _ in read]), return_inverse=True)
        gradient = weight.new_zeros(len(rows), weight.shape[1])
        gradient.index_add_(0, slot, torch.cat([of_rows for _, of_rows in read]))
        squares = state["squares"][rows].addcmul_(gradient, gradient)
        state["squares"][rows] = squares
        change = gradient.div_((squares + EPSILON).sqrt_()).mul_(-rate)
        if self.momentum > 0:
            change.add_(state["velocity"][rows], alpha=self.momentum)
            state["velocity"][rows] = change
        weight[rows] += change

    def _change_rows_compiled(self, weight: Tensor, read: list[tuple[Tensor, Tensor]], rate: float) -> None:
        """The same in one pass over the rows, without an index into the table or a sort."""
        from nextclick.network import kernels

        state = self.state[weight]
        read = sorted(read, key=lambda of: -len(of[0]))
        arrays = [(rows.numpy(), gradient.contiguous().numpy()) for rows, gradient in read]
        slots, unique, places, rest = self._scratch(weight, sum(len(rows) for rows, _ in arrays))
        n, begin, first = 0, 0, arrays[0][1]
        for rows, gradient in arrays:
            n, begin = kernels.add_rows(rows, gradient, begin, unique, places, n, slots, first, rest)
        kernels.adagrad_rows(
            weight.detach().numpy(), state["squares"].numpy(), state["velocity"].numpy(),
            unique[:n], places, first, rest, *self._numbers(rate), slots,
        )  # fmt: skip

    def _numbers(self, rate: float) -> tuple[np.float32, ...]:
        return np.float32(rate), np.float32(self.momentum), np.float32(EPSILON)

    def _scratch(self, weight: Tensor, size: int) -> tuple[NDArray[Any], ...]:
        """Return working arrays for one table, kept from step to step."""
        kept = self._kept.get(weight)
        if kept is None or len(kept[1]) < size:
            slots = np.full(len(weight), -1, np.int32) if kept is None else kept[0]
            rest = np.empty((2 * size, weight.shape[1]), np.float32)
            kept = slots, np.empty(2 * size, np.int64), np.empty(2 * size, np.int64), rest
            self._kept[weight] = kept
        return kept


def compiles(weight: Tensor) -> bool:
    """Whether the compiled loops can work on a table."""
    return weight.device.type == "cpu" and weight.dtype == torch.float32
