"""The network that all neural recommenders are: items, session encoder, decoder, scores."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nextclick.network.item_vectors import ItemVectors


class Network(nn.Module):
    """Items in, scores of all items out: table, encoder, decoder.

    The encoder's vectors [.., S] are brought to the width of the items by the decoder, a matrix [D, S] (the
    bi-linear decoder of Li et al., CIKM 2017, eq. 10) or nothing; the score of an item is the product with
    its vector. With ``separate`` the items have vectors of their own on the output side, [N, S] and no
    decoder: the fully connected decoder. With ``bias`` every item has a number of its own on top.
    With ``temperature`` above 0 the vectors of items and sessions are brought to length 1 and the products
    divided by it: cosines, in which a popular item is not longer than others.
    """

    def __init__(
        self,
        n_items: int,
        dim: int,
        encoder: nn.Module,
        *,
        bilinear: bool = False,
        separate: bool = False,
        bias: bool = False,
        temperature: float = 0.0,
    ) -> None:
        super().__init__()
        self.items = ItemVectors(n_items, dim)
        self.encoder = encoder
        width: int = encoder.width  # type: ignore[assignment]
        self.decoder = nn.Linear(width, dim, bias=False) if bilinear else nn.Identity()
        self.output = nn.Parameter(torch.empty(n_items, width)) if separate else None
        self.bias = nn.Parameter(torch.zeros(n_items, 1)) if bias else None
        self.temperature = temperature
        self._fixed: Tensor | None = None

    def sessions(self, clicks: Tensor, mask: Tensor) -> Tensor:
        """Vectors of every prefix, [B, T, D], from clicks [B, T] and mask [B, T]."""
        return self._decoded(self.encoder(self.inputs(clicks), mask))

    def ending(self, clicks: Tensor, mask: Tensor, ends: Tensor) -> Tensor:
        """Vectors of the prefixes that end where ends [B, T] is True, [P, D]: ``sessions`` in less work."""
        return self._decoded(self.encoder.ending(self.inputs(clicks), mask, ends))  # type: ignore[operator]

    def at(self, clicks: Tensor, mask: Tensor, last: Tensor) -> Tensor:
        """Vectors of the prefixes that end at the places last [B], [B, D]: ``sessions`` in less work."""
        return self._decoded(self.encoder.at(self.inputs(clicks), mask, last))  # type: ignore[operator]

    def _decoded(self, vectors: Tensor) -> Tensor:
        decoded: Tensor = self.decoder(vectors)
        if self.temperature > 0:
            decoded = nn.functional.normalize(decoded, dim=-1) / self.temperature
        return decoded

    def inputs(self, clicks: Tensor) -> Tensor:
        """Vectors of clicks as the encoder reads them, [.., D]."""
        vectors: Tensor = self.items(clicks)
        return nn.functional.normalize(vectors, dim=-1) if self.temperature > 0 else vectors

    def table(self) -> Tensor:
        """Vectors of all items on the output side, [N, D]."""
        weights = self.items.all() if self.output is None else self.output
        return nn.functional.normalize(weights, dim=-1) if self.temperature > 0 else weights

    def scores(self, vectors: Tensor) -> Tensor:
        """Scores of all items, [B, N], for session vectors [B, D]; for answering, without gradients."""
        if self._fixed is None:
            self._fixed = self.table().detach().T
        if self.bias is not None:
            return torch.addmm(self.bias[:, 0], vectors, self._fixed)
        return vectors @ self._fixed

    def train(self, mode: bool = True) -> Network:
        """Switch between training and answering; the table may have changed."""
        self._fixed = None
        super().train(mode)
        return self
