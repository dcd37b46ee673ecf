"""The vectors of items: one of their own for each, and what their features add."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.functional import embedding

from nextclick.network.sources import ItemFeatures


class ItemVectors(nn.Embedding):
    """v_i = e_i, and with ``features`` v_i = e_i + sum_r x_ir P_r.

    ``forward`` gives the vectors of some items, ``all`` the whole table [N, D]; a gradient reaches e and P
    through both. An answering network works the table out once, a training one where it is asked for.
    Read by rows, only those rows of P are looked at that the items have entries in.
    """

    def __init__(self, n_items: int, dim: int) -> None:
        super().__init__(n_items, dim)
        self.features: ItemFeatures | None = None
        self._table: Tensor | None = None

    def forward(self, items: Tensor) -> Tensor:
        """Vectors of items [..], [.., D]."""
        if self.features is None:
            return super().forward(items)
        if not self.training or self._table is not None:
            return embedding(items, self.all())
        added = self.features(items.reshape(-1))
        return super().forward(items) + added.view(*items.shape, -1)

    def all(self) -> Tensor:
        """Vectors of all items, [N, D]."""
        if self.features is None:
            return self.weight
        if self._table is not None:
            return self._table
        table = self.weight + self.features.all()
        if not self.training:
            self._table = table.detach()
        return table

    @contextmanager
    def once(self) -> Iterator[None]:
        """Work the table out once for all that is read within the block, for a step that needs it anyway."""
        if self.features is None or self._table is not None:
            yield
            return
        self._table = self.weight + self.features.all()
        try:
            yield
        finally:
            self._table = None

    def train(self, mode: bool = True) -> ItemVectors:
        """Switch between training and answering; the vectors may have changed."""
        self._table = None
        super().train(mode)
        return self
