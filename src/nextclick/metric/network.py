"""The network of metric learning: a session encoder and an item encoder into one space, and its distance."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from nextclick.metric.encoders import Kind, encoder
from nextclick.network.encoders import dropped
from nextclick.network.item_vectors import ItemVectors

Distance = Literal["cosine", "euclidean"]


class MetricNetwork(nn.Module):
    """phi(session) and omega(item) in one space of width D, where distance means dissimilarity.

    phi is an encoder over the vectors of the clicks and ``layers`` fully connected layers behind it, with
    tanh in between; one is added where the encoder's width is not D.  omega is the item's vector, put
    through a fully connected layer and tanh with ``tanh``.  With ``common`` both sides read the same
    vectors, else the item side has its own.
    ``normalised`` brings both sides to length 1, and the vectors of the clicks too where they are those of
    the item side (common, without tanh); zero vectors stay zero.
    Distances are 1 - cosine, or the squared Euclidean one.
    Source: Twardowski et al. 2021 (SML), secs. 4 and 5.2.
    """

    def __init__(
        self,
        n_items: int,
        dim: int,
        kind: Kind,
        hidden: int,
        longest: int,
        *,
        layers: int = 0,
        tanh: bool = True,
        common: bool = True,
        distance: Distance = "cosine",
        normalised: bool = True,
        dropout_items: float = 0.0,
        dropout_session: float = 0.0,
    ) -> None:
        super().__init__()
        self.distance, self.normalised = distance, normalised
        self._same = common and not tanh
        self.dropout_items, self.dropout_session = dropout_items, dropout_session
        self.items = ItemVectors(n_items, dim)
        self.own = None if common else ItemVectors(n_items, dim)
        self.encoder = encoder(kind, dim, hidden, longest)
        width: int = self.encoder.width  # type: ignore[assignment]
        dense: list[nn.Module] = []
        for layer in range(max(layers, int(width != dim))):
            dense += [*([nn.Tanh()] if layer else []), nn.Linear(dim if layer else width, dim)]
        self.dense = nn.Sequential(*dense)
        self.item_encoder = nn.Sequential(nn.Linear(dim, dim), nn.Tanh()) if tanh else nn.Identity()
        for name, weights in self.named_parameters():
            if name in ("items.weight", "own.weight"):
                nn.init.normal_(weights, std=dim**-0.5)
            elif "encoder.cells" not in name and not name.endswith("vertical"):
                nn.init.xavier_uniform_(weights) if weights.ndim > 1 else nn.init.zeros_(weights)
        self._fixed: tuple[Tensor, Tensor] | None = None

    def sessions(self, clicks: Tensor, mask: Tensor) -> Tensor:
        """phi of every prefix, [B, T, D], from clicks [B, T] and mask [B, T]."""
        vectors = self.items(clicks)
        if self._same:
            vectors = self._brought(vectors)
        vectors = dropped(vectors, self.dropout_items, self.training)
        vectors = dropped(self.encoder(vectors, mask), self.dropout_session, self.training)
        return self._brought(self.dense(vectors))

    def at(self, clicks: Tensor, mask: Tensor, last: Tensor) -> Tensor:
        """phi of the whole prefixes alone, [B, D], whose last clicks stand at last [B]; for answering."""
        vectors = self.items(clicks)
        if self._same:
            vectors = self._brought(vectors)
        found: Tensor = self.encoder.at(vectors, mask, last)  # type: ignore[operator]
        return self._brought(self.dense(found))

    def vectors(self, items: Tensor) -> Tensor:
        """omega of items [..], [.., D]."""
        table = self.items if self.own is None else self.own
        return self._brought(self.item_encoder(table(items)))

    def table(self) -> Tensor:
        """omega of all items, [N, D]."""
        table = self.items if self.own is None else self.own
        return self._brought(self.item_encoder(table.all()))

    def distances(self, anchors: Tensor, items: Tensor) -> Tensor:
        """Distances of vectors to vectors that stand in the last but one dimension of ``items``.

        anchors: [.., D];  items: [.., M, D] of the same leading dimensions, or [M, D] for all.
        Returns [.., M].
        """
        products = anchors @ items.mT if items.ndim == 2 else (items @ anchors[..., None])[..., 0]
        if self.distance == "cosine":
            return 1 - products
        squares = anchors.square().sum(-1, keepdim=True) + items.square().sum(-1)
        return (squares - 2 * products).clamp(min=0.0)

    def scores(self, vectors: Tensor) -> Tensor:
        """Scores of all items, [B, N], for session vectors [B, D]: cosines, or minus squared distances."""
        if self._fixed is None:
            table = self.table().detach()
            self._fixed = table.T.contiguous(), table.square().sum(1)
        transposed, squares = self._fixed
        if self.distance == "cosine":
            return vectors @ transposed
        return torch.addmm(squares, vectors, transposed, alpha=2.0, beta=-1.0).sub_(
            vectors.square().sum(1, keepdim=True)
        )

    def train(self, mode: bool = True) -> MetricNetwork:
        """Switch between training and answering; the table may have changed."""
        self._fixed = None
        super().train(mode)
        return self

    def _brought(self, vectors: Tensor) -> Tensor:
        return nn.functional.normalize(vectors, dim=-1) if self.normalised else vectors
