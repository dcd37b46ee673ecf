"""Session encoders: what a session is after each of its clicks.

Every encoder is causal: ``forward(clicks [B, T, D], mask [B, T]) -> [B, T, S]`` gives at position t the
vector of the prefix that ends there, from the clicks up to t alone. So one pass over a session trains on
all of its prefixes, and padding on the right cannot reach any real position.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn


class NarmEncoder(nn.Module):
    """What was clicked in order (global), and what for (local): NARM's encoder.

    The GRU's states are h_1 .. h_T. Global: h_t. Local: sum_{j<=t} a_tj h_j with
    a_tj = v . sigmoid(A1 h_t + A2 h_j), not normalised, as the paper has it. Hybrid: both, side by side.
    S is H for global and local, 2H for hybrid.
    Source: Li et al., CIKM 2017, eqs. 5-9; equation 9 prints h_t under the sum where equation 6's h_j is
    meant.  A1, A2, v are query, key, energy here.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        kind: Literal["global", "local", "hybrid"] = "hybrid",
        dropout_items: float = 0.25,
        dropout_session: float = 0.5,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.dropout_items, self.dropout_session = dropout_items, dropout_session
        self.gru = nn.GRU(dim, hidden, batch_first=True)
        if kind != "global":
            self.query = nn.Linear(hidden, hidden, bias=False)
            self.key = nn.Linear(hidden, hidden, bias=False)
            self.energy = nn.Linear(hidden, 1, bias=False)
        self.width = 2 * hidden if kind == "hybrid" else hidden

    def forward(self, clicks: Tensor, mask: Tensor) -> Tensor:
        return self._of_all(self._states(clicks), mask)

    def at(self, clicks: Tensor, mask: Tensor, last: Tensor) -> Tensor:
        """What ``forward`` gives at the places last [B] alone, [B, S], with the attention of one prefix."""
        return self._of_last(self._states(clicks), mask, last)

    def ending(self, clicks: Tensor, mask: Tensor, ends: Tensor) -> Tensor:
        """What ``forward`` gives where ends [B, T] is True, [P, S], row by row."""
        return _ending(self._states(clicks), mask, ends, self._of_all, self._of_last)

    def weigh(self, clicks: Tensor, mask: Tensor) -> Tensor | None:
        """``attention`` from the clicks themselves, to look at; None for global, which has none."""
        return None if self.kind == "global" else self.attention(self._states(clicks), mask)

    def _states(self, clicks: Tensor) -> Tensor:
        states: Tensor = self.gru(dropped(clicks, self.dropout_items, self.training))[0]
        return states  # [B, T, H]

    def _of_all(self, states: Tensor, mask: Tensor) -> Tensor:
        if self.kind == "global":
            return dropped(states, self.dropout_session, self.training)
        local = self.attention(states, mask) @ states  # [B, T, H]
        if self.kind == "local":
            return dropped(local, self.dropout_session, self.training)
        return dropped(torch.cat([states, local], dim=2), self.dropout_session, self.training)

    def _of_last(self, states: Tensor, mask: Tensor, last: Tensor) -> Tensor:
        current = _at(states, last)
        if self.kind == "global":
            return dropped(current, self.dropout_session, self.training)
        weights = self.energy(torch.sigmoid(self.query(current)[:, None] + self.key(states)))  # [B, T, 1]
        seen = mask & (torch.arange(mask.shape[1], device=mask.device) <= last[:, None])
        local = (weights * seen[..., None].to(states.dtype) * states).sum(1)
        both = local if self.kind == "local" else torch.cat([current, local], dim=1)
        return dropped(both, self.dropout_session, self.training)

    def attention(self, states: Tensor, mask: Tensor) -> Tensor:
        """Weights a_tj of click j for the prefix that ends at t, [B, T, T]; 0 for later and padded clicks."""
        asked, given = self.query(states), self.key(states)
        weights = self.energy(torch.sigmoid(asked[:, :, None] + given[:, None]))[..., 0]  # [B, T, T]
        return weights * _seen(mask)


class GruEncoder(nn.Module):
    """The state of a GRU after each click: GRU4Rec's encoder. S = H.

    dropout_clicks leaves out whole clicks, dropout_items and dropout_hidden single units of the clicks'
    vectors and of every layer's states.  one_hot: the clicks' vectors, [.., 3H], are themselves what a click
    adds to the three gates, which is what one-hot input to the GRU comes to.
    Source: Hidasi et al., ICLR 2016; Tan et al., DLRS 2016 (dropout_clicks).
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        layers: int = 1,
        *,
        dropout_clicks: float = 0.0,
        dropout_items: float = 0.0,
        dropout_hidden: float = 0.0,
        one_hot: bool = False,
    ) -> None:
        super().__init__()
        self.gru = nn.GRU(dim, hidden, layers, batch_first=True, dropout=dropout_hidden if layers > 1 else 0)
        if one_hot:
            self.gru.all_weights[0][0].requires_grad_(False).copy_(torch.eye(3 * hidden))
        self.dropout_clicks, self.dropout_items = dropout_clicks, dropout_items
        self.dropout_hidden, self.width = dropout_hidden, hidden

    def forward(self, clicks: Tensor, mask: Tensor) -> Tensor:
        states, _ = self.gru(self._dropped(clicks))
        return dropped(states, self.dropout_hidden, self.training)

    def at(self, clicks: Tensor, mask: Tensor, last: Tensor) -> Tensor:
        """What ``forward`` gives at the places last [B] alone, [B, S]."""
        return _at(self.forward(clicks, mask), last)

    def ending(self, clicks: Tensor, mask: Tensor, ends: Tensor) -> Tensor:
        """What ``forward`` gives where ends [B, T] is True, [P, S], row by row."""
        return self.forward(clicks, mask)[ends]

    def step(self, clicks: Tensor, states: list[Tensor]) -> list[Tensor]:
        """Return the states after one more click, clicks [L, D] and a state [L, H] for each layer."""
        after = []
        below = self._dropped(clicks)
        for layer, state in enumerate(states):
            weights = self.gru.all_weights[layer]
            below = dropped(torch.gru_cell(below, state, *weights), self.dropout_hidden, self.training)
            after.append(below)
        return after

    def _dropped(self, clicks: Tensor) -> Tensor:
        if self.training and self.dropout_clicks > 0:
            kept = torch.empty_like(clicks[..., :1]).bernoulli_(1 - self.dropout_clicks)
            clicks = clicks * (kept / (1 - self.dropout_clicks))
        return dropped(clicks, self.dropout_items, self.training)


class StampEncoder(nn.Module):
    """The attended mean of the clicks times the last one: STAMP's encoder; STMP's is its plain mean.

    With x_1 .. x_t the clicks and m their mean, STAMP weighs a_i = w . sigmoid(W1 x_i + W2 x_t + W3 m + b),
    takes m_a = sum a_i x_i, and gives tanh(Ws m_a + bs) * tanh(Wt x_t + bt); STMP takes m for m_a. S = D.
    Source: Liu et al., KDD 2018.

    released: as in the program its authors gave out, where m is added to m_a, and clicks longer than 1 are
    shortened to that when they are read.
    """

    def __init__(self, dim: int, attended: bool = True, released: bool = False) -> None:
        super().__init__()
        self.attended, self.released = attended, released
        if attended:
            self.of_click = nn.Linear(dim, dim, bias=False)
            self.of_last = nn.Linear(dim, dim, bias=False)
            self.of_mean = nn.Linear(dim, dim, bias=True)
            self.energy = nn.Linear(dim, 1, bias=False)
        self.memory = nn.Linear(dim, dim)
        self.last = nn.Linear(dim, dim)
        self.width = dim

    def forward(self, clicks: Tensor, mask: Tensor) -> Tensor:
        clicks = self._read(clicks)
        mean = memory = self.mean(clicks)  # [B, T, D]
        if self.attended:
            memory = self._attention(clicks, mean, mask) @ clicks
            memory = memory + mean if self.released else memory
        return torch.tanh(self.memory(memory)) * torch.tanh(self.last(clicks))

    def at(self, clicks: Tensor, mask: Tensor, last: Tensor) -> Tensor:
        """What ``forward`` gives at the places last [B] alone, [B, D], for a fraction of its work."""
        clicks = self._read(clicks)
        anchor, seen = _at(clicks, last), mask[..., None].to(clicks.dtype)
        mean = memory = (clicks * seen).sum(1) / (last + 1)[:, None]
        if self.attended:
            asked = self.of_last(anchor) + self.of_mean(mean)  # [B, D]
            weights = self.energy(torch.sigmoid(asked[:, None] + self.of_click(clicks)))  # [B, T, 1]
            memory = (weights * seen * clicks).sum(1)
            memory = memory + mean if self.released else memory
        return torch.tanh(self.memory(memory)) * torch.tanh(self.last(anchor))

    def ending(self, clicks: Tensor, mask: Tensor, ends: Tensor) -> Tensor:
        """What ``forward`` gives where ends [B, T] is True, [P, D], row by row."""
        return _ending(clicks, mask, ends, self.forward, self.at)

    def mean(self, clicks: Tensor) -> Tensor:
        """Mean of the clicks up to each position, [B, T, D]; padding stands right of every real click."""
        count = torch.arange(1, clicks.shape[1] + 1, dtype=clicks.dtype, device=clicks.device)
        return clicks.cumsum(1) / count[:, None]

    def weigh(self, clicks: Tensor, mask: Tensor) -> Tensor | None:
        """``attention``, to look at; None for STMP, which has none."""
        return self.attention(clicks, mask) if self.attended else None

    def attention(self, clicks: Tensor, mask: Tensor) -> Tensor:
        """Weights of click j for the prefix that ends at t, [B, T, T]; 0 for later and padded clicks."""
        clicks = self._read(clicks)
        return self._attention(clicks, self.mean(clicks), mask)

    def _attention(self, clicks: Tensor, mean: Tensor, mask: Tensor) -> Tensor:
        asked = self.of_last(clicks) + self.of_mean(mean)  # [B, T, D]
        weights = self.energy(torch.sigmoid(asked[:, :, None] + self.of_click(clicks)[:, None]))[..., 0]
        return weights * _seen(mask)

    def _read(self, clicks: Tensor) -> Tensor:
        return clicks / clicks.norm(dim=-1, keepdim=True).clamp(min=1) if self.released else clicks


def _at(rows: Tensor, places: Tensor) -> Tensor:
    """Row i of rows [B, T, D] at places[i], [B, D]."""
    return rows.gather(1, places[:, None, None].expand(-1, 1, rows.shape[2]))[:, 0]


def _ending(
    rows: Tensor,
    mask: Tensor,
    ends: Tensor,
    of_all: Callable[[Tensor, Tensor], Tensor],
    of_last: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """Vectors of the prefixes that end where ends [B, T] is True, [P, S], row by row.

    of_all compares every click of a row with every other one, of_last those of one prefix alone. The rows
    of what comes late in long sessions have one prefix each, of full length.
    """
    alone = ends.sum(1) == 1
    if rows.shape[1] == 1 or not alone.any():
        return of_all(rows, mask)[ends]
    last = ends.int().argmax(1)
    if alone.all():
        return of_last(rows, mask, last)
    several = ~alone
    of_several = of_all(rows[several], mask[several])[ends[several]]
    of_alone = of_last(rows[alone], mask[alone], last[alone])
    is_alone = alone[ends.nonzero()[:, 0]]  # [P]
    vectors = of_alone.new_empty(len(is_alone), of_alone.shape[1])
    vectors[is_alone], vectors[~is_alone] = of_alone, of_several
    return vectors


def _seen(mask: Tensor) -> Tensor:
    """Which clicks j a prefix ending at t holds, [B, T, T] bool."""
    size = mask.shape[1]
    return torch.ones(size, size, dtype=torch.bool, device=mask.device).tril() & mask[:, None, :]


def dropped(vectors: Tensor, probability: float, training: bool) -> Tensor:
    """Dropout by uniform numbers, which PyTorch draws several times faster than its own dropout's coins."""
    if not training or probability == 0:
        return vectors
    kept = (torch.rand_like(vectors) >= probability).to(vectors.dtype)
    return vectors * kept.div_(1 - probability)
