"""The network that scores candidates: what the session asks for, and what the places of candidates tell."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nextclick.network.encoders import StampEncoder, dropped

_UNITS = 32  # of the network that reads the generators' scores


class Reranker(nn.Module):
    """Scores of candidates from the session and from their places in the generators' lists.

    With h the session by STAMP's encoder, he = MLP1(h), hr = MLP2(h), MLP(h) = tanh(W1 tanh(W2 h + b2) + b1):
    the score of a candidate c at place r is <V_c, he> + <W_r, hr>, and with several generators the sum of the
    second part over them. ``scored`` adds what a small network makes of the candidate's scores and places in
    the lists, of how often it was clicked in training and of how long the prefix is (``_evidence``).
    ``depth`` adds to h, in MLP2(h), a vector for each place where an earlier click of the session stood in
    the lists before it: whoever has clicked far down looks far down.
    Source: Sánchez Rodríguez et al. 2019 (RRCRE), eqs. 3 and 4; the sum over generators, the scores and the
    depth are ours.

    n_items, dim: of the item vectors;  n_lists: generators;  rows: the row of the rank tables that each place
    uses, k + 1 numbers, the last for items that are not in the list;  cre: without it only the
    first part is left (RR);  scored: use the generators' scores;  content: false leaves <V_c, he> out;
    deep: of so many lists, the first, the places of earlier clicks are read;
    temperature: <V_c, he> becomes their cosine divided by it, and clicks are read as vectors of length 1; 0:
    as published.
    """

    popularity: Tensor  # of items, from 0 to 1: the logarithm of their clicks in training; where scored

    def __init__(
        self, n_items: int, dim: int, n_lists: int, rows: list[int], *, cre: bool = True,
        scored: bool = False, dropout: float = 0.0, temperature: float = 0.0, content: bool = True,
        deep: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.items = nn.Embedding(n_items, dim)
        self.encoder = StampEncoder(dim)
        self.item_projection = _projection(dim)
        self.rows, self.dropout, self.temperature = rows, dropout, temperature
        tables = range(n_lists if cre else 0)
        self.rank_projection = nn.ModuleList([_projection(dim) for _ in tables])
        self.ranks = nn.ParameterList([nn.Parameter(torch.empty(max(rows) + 1, dim)) for _ in tables])
        self.depths = nn.ParameterList(
            [nn.Parameter(torch.empty(max(rows) + 1, dim)) for _ in range(deep if cre else 0)]
        )
        self.content, self.judge = content, _judge(n_lists) if scored else None
        if scored:
            self.register_buffer("popularity", torch.zeros(n_items))

    def session(self, clicks: Tensor, mask: Tensor, last: Tensor) -> Tensor:
        """Vectors h of prefixes, [B, D]; clicks [B, T], mask [B, T], last place [B]."""
        inputs = dropped(self._brought(self.items(clicks)), self.dropout, self.training)
        vectors: Tensor = self.encoder.at(inputs, mask, last)
        return vectors

    def forward(
        self, session: Tensor, candidates: Tensor, places: Tensor, features: Tensor, lengths: Tensor,
        earlier: Tensor,
    ) -> Tensor:  # fmt: skip
        """Scores [B, C] of candidates [B, C], -1 for none, which scores -inf.

        session: [B, D];  places: [B, C, G];  features: [B, C, G, 3], see ``kernels.unite``;  lengths: clicks
        of the prefixes, [B];  earlier: places of earlier clicks in the first lists, -1 for none, [B, E, G'].
        """
        scores = features.new_zeros(candidates.shape)
        if self.content:
            asked = dropped(self.item_projection(session), self.dropout, self.training)
            if self.temperature > 0:
                asked = self._brought(asked) / self.temperature
            scores = scores + picked(asked, self._brought(self.items.weight), candidates)
        session = self._deepened(session, earlier)
        for g, (project, table) in enumerate(zip(self.rank_projection, self.ranks, strict=True)):
            of_place = (project(session) @ table.T)[:, self.rows]  # [B, k + 1]
            scores = scores + of_place.gather(1, places[..., g])
        if self.judge is not None:
            scores = scores + self.judge(self._evidence(candidates, places, features, lengths)).squeeze(2)
        return scores.masked_fill(candidates < 0, -torch.inf)

    def _deepened(self, session: Tensor, earlier: Tensor) -> Tensor:
        """Add to sessions what the places of their earlier clicks tell, [B, D]."""
        rows = torch.tensor(self.rows, device=earlier.device)
        for g, table in enumerate(self.depths):
            there = earlier[..., g] >= 0  # [B, E]
            # Not table[...], whose gradient is added up in another order each time where threads share it.
            vectors = nn.functional.embedding(rows[earlier[..., g].clamp(min=0)], table)
            session = session + (vectors * there[..., None]).sum(1)
        return session

    def _evidence(self, candidates: Tensor, places: Tensor, features: Tensor, lengths: Tensor) -> Tensor:
        """What ``judge`` reads, all of about one size, [B, C, 6 G + 2].

        Of each list the three features, the reciprocal and the logarithm of the rank, and whether the
        candidate is listed; then the logarithms of its clicks in training and of the prefix's length.
        """
        k = len(self.rows) - 1
        listed = (places < k).to(features.dtype)
        ranks = 1.0 + places
        of_lists = [
            features * features.new_tensor([1.0, 0.25, 0.25]),
            torch.stack([listed / ranks, ranks.log() / math.log(k + 1.0), listed], -1),
        ]
        others = torch.stack(
            [self.popularity[candidates.clamp(min=0)], lengths.log()[:, None].expand(candidates.shape)], -1
        )
        return torch.cat([*(part.flatten(2) for part in of_lists), others], 2)

    def _brought(self, vectors: Tensor) -> Tensor:
        return nn.functional.normalize(vectors, dim=-1) if self.temperature > 0 else vectors


def _judge(n_lists: int) -> nn.Sequential:
    """Two layers without biases behind the first: what all candidates get alike changes no order."""
    return nn.Sequential(
        nn.Linear(6 * n_lists + 2, _UNITS), nn.ReLU(), nn.Linear(_UNITS, _UNITS, bias=False), nn.ReLU(),
        nn.Linear(_UNITS, 1, bias=False),
    )  # fmt: skip


def _projection(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, dim), nn.Tanh())


def picked(vectors: Tensor, table: Tensor, candidates: Tensor) -> Tensor:
    """Products of each vector [B, D] with its own candidates' rows of the table [N, D], [B, C]."""
    if vectors.device.type == "cpu" and vectors.dtype == torch.float32:  # compiled loops can read it
        scores: Tensor = _Picked.apply(vectors, table, candidates)  # type: ignore[no-untyped-call]
        return scores
    return (table[candidates.clamp(min=0)] * vectors[:, None]).sum(2)


class _Picked(torch.autograd.Function):
    """The products without the rows ever standing side by side, which would be C times the vectors."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, table: Tensor, candidates: Tensor) -> Tensor:
        from nextclick.rerank import kernels

        ctx.save_for_backward(vectors, table, candidates)
        out = np.empty(tuple(candidates.shape), np.float32)
        kernels.products(
            vectors.detach().contiguous().numpy(), table.detach().numpy(), candidates.numpy(), out
        )
        return torch.from_numpy(out)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Any, ...]:
        from nextclick.rerank import kernels

        vectors, table, candidates = ctx.saved_tensors
        of_vectors, of_table = torch.zeros_like(vectors), torch.zeros_like(table)
        kernels.products_back(
            vectors.contiguous().numpy(), table.detach().numpy(), candidates.numpy(),
            outputs[0].contiguous().numpy(), of_vectors.numpy(), of_table.numpy(),
        )  # fmt: skip
        return of_vectors, of_table, None


def rows_of_places(k: int, shared: bool) -> list[int]:
    """Return which row of the rank table each place 0 .. k - 1 uses, and in entry k, "not in the list".

    shared: places in buckets that grow by a quarter each, so that rare places learn together; otherwise each
    has its own row.
    """
    rows: list[int] = []
    bucket, width = 0, 1.0
    while len(rows) < k:
        rows += [bucket] * min(int(width) if shared else 1, k - len(rows))
        bucket, width = bucket + 1, width * 1.25
    return [*rows, bucket]
