"""A trained network as one module of plain operations, which is what an ONNX file is made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nextclick.index import ItemSpace


class Answers(nn.Module):
    """Clicks in, scores of all items out: [B, T] int64, padded on the right, and lengths [B] to [B, N].

    reader: a module from clicks and lengths to the vectors of the prefixes, [B, D];  space: the items as
    points;  biased: whether the points have one more coordinate, which is 1 for every session.
    """

    points: Tensor
    added: Tensor

    def __init__(self, reader: nn.Module, space: ItemSpace, biased: bool) -> None:
        super().__init__()
        self.reader, self.euclidean = reader, space.likeness == "euclidean"
        points = torch.from_numpy(space.vectors)
        added = points[:, -1] if biased else torch.zeros(len(points))
        points = points[:, :-1] if biased else points
        if self.euclidean:  # -|s - i|^2 is 2 s.i - |i|^2 - |s|^2
            added, points = added - points.square().sum(1), 2 * points
        self.register_buffer("points", points.T.contiguous())
        self.register_buffer("added", added.contiguous())

    def forward(self, clicks: Tensor, lengths: Tensor) -> Tensor:
        vectors = self.reader(clicks, lengths)
        scores = vectors @ self.points + self.added
        return scores - vectors.square().sum(1, keepdim=True) if self.euclidean else scores


class LastPlaces(nn.Module):
    """The vectors of whole prefixes by a network's own ``at``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, clicks: Tensor, lengths: Tensor) -> Tensor:
        mask = torch.arange(clicks.shape[1])[None] < lengths[:, None]
        vectors: Tensor = self.network.at(clicks, mask, lengths - 1)  # type: ignore[operator]
        return vectors
