"""Session encoders of the common space: pooling, convolutions, recurrent networks.

As all encoders of the package they are causal: ``forward(clicks [B, T, D], mask [B, T]) -> [B, T, S]`` gives
at place t the vector of the prefix that ends there, from the clicks up to t alone. So padding, which stands
on the right, cannot reach any real place, and one pass over a session encodes all of its prefixes.
``at(clicks, mask, last [B]) -> [B, S]`` gives the vectors at the places last alone, which must be those of
the last real clicks, in less work and without a loop over places.

Source: Twardowski et al. 2021 (SML), secs. 4.4 and 5.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

Kind = Literal["max-pool", "average", "text-cnn", "tag-space", "caser", "gru", "lstm", "rnn"]
KINDS: tuple[Kind, ...] = get_args(Kind)

TEXT_FILTERS = (1, 3, 5)  # clicks that a filter of TextCNN sees; SML, sec. 5.2
TAG_FILTER = 5
CASER_FILTERS = (1, 2, 3, 4, 5)


def encoder(kind: Kind, dim: int, hidden: int, longest: int) -> nn.Module:
    """Return a new encoder; its attribute ``width`` is S.

    dim: D, width of the clicks;  hidden: units of a recurrent encoder, filters of each size of TextCNN and
    Caser, all filters of TagSpace;  longest: most clicks of a prefix, which Caser's vertical filters span.
    """
    made: nn.Module
    match kind:
        case "max-pool" | "average":
            made = Pooling(dim, kind)
        case "text-cnn":
            made = TextCNN(dim, hidden)
        case "tag-space":
            made = TagSpace(dim, hidden)
        case "caser":
            made = Caser(dim, hidden, longest)
        case "gru" | "lstm" | "rnn":
            made = Recurrent(dim, hidden, kind)
    return made


class Pooling(nn.Module):
    """The largest or the mean value of each dimension over the clicks of the prefix. S = D."""

    def __init__(self, dim: int, kind: Literal["max-pool", "average"]) -> None:
        super().__init__()
        self.kind, self.width = kind, dim

    def forward(self, clicks: Tensor, mask: Tensor) -> Tensor:
        if self.kind == "max-pool":
            return largest_so_far(clicks)
        count = torch.arange(1, clicks.shape[1] + 1, dtype=clicks.dtype, device=clicks.device)
        return clicks.cumsum(1) / count[:, None]

    def at(self, clicks: Tensor, mask: Tensor, last: Tensor) -> Tensor:
        if self.kind == "max-pool":
            return largest(clicks, mask)
        return (clicks * mask[..., None].to(clicks.dtype)).sum(1) / (last + 1)[:, None]


class TextCNN(nn.Module):
    """Filters over 1, 3 and 5 clicks, rectified, the largest value of each over the prefix. S = 3 F.

    A filter ends at a click and sees those before it; before the first click there are zeros.
    """

    def __init__(self, dim: int, filters: int, sizes: Sequence[int] = TEXT_FILTERS) -> None:
        super().__init__()
        self.filters = nn.ModuleList(nn.Conv1d(dim, filters, size) for size in sizes)
        self.width = filters * len(sizes)

    def forward(self, clicks: Tensor, mask: Tensor) -> Tensor:
        return largest_so_far(self._found(clicks))

    def at(self, clicks: Tensor, mask: Tensor, last: Tensor) -> Tensor:
        return largest(self._found(clicks), mask)

    def _found(self, clicks: Tensor) -> Tensor:
        return torch.cat([torch.relu(ending_here(clicks, filter)) for filter in self.filters], dim=2)


class TagSpace(nn.Module):
    """Filters over 5 clicks, tanh, the largest value of each over the prefix, and tanh again. S = F.

    What SML names [48], as it is usually described; that paper itself was not checked.
    """

    def __init__(self, dim: int, filters: int) -> None:
        super().__init__()
        self.filter = nn.Conv1d(dim, filters, TAG_FILTER)
        self.width = filters

    def forward(self, clicks: Tensor, mask: Tensor) -> Tensor:
        return torch.tanh(largest_so_far(torch.tanh(ending_here(clicks, self.filter))))

    def at(self, clicks: Tensor, mask: Tensor, last: Tensor) -> Tensor:
        return torch.tanh(largest(torch.tanh(ending_here(clicks, self.filter)), mask))


class Caser(nn.Module):
    """Horizontal filters as TextCNN's over 1 to 5 clicks, and vertical ones. S = 5 F + 4 D.

    A vertical filter has a weight for each place counted from the last click, the same in all dimensions,
    and adds the clicks up by them; there are four. What SML names [14], as it is usually described; that
    paper itself was not checked.
    """

    VERTICAL = 4

    def __init__(self, dim: int, filters: int, longest: int) -> None:
        super().__init__()
        self.horizontal = TextCNN(dim, filters, CASER_FILTERS)
        self.vertical = nn.Parameter(torch.empty(self.VERTICAL, longest).normal_(std=longest**-0.5))
        self.width = self.horizontal.width + self.VERTICAL * dim

    def forward(self, clicks: Tensor, mask: Tensor) -> Tensor:
        n, size, _ = clicks.shape
        place = torch.arange(size, device=clicks.device)
        weights = self._weights(place[:, None] - place)  # [V, T, T]
        sums = torch.einsum("vtj,bjd->btvd", weights, clicks).reshape(n, size, -1)
        return torch.cat([self.horizontal(clicks, mask), sums], dim=2)

    def at(self, clicks: Tensor, mask: Tensor, last: Tensor) -> Tensor:
        place = torch.arange(clicks.shape[1], device=clicks.device)
        weights = self._weights(last[:, None] - place)  # [V, B, T]
        sums = (weights.transpose(0, 1) @ clicks).flatten(1)  # [B, V D]
        return torch.cat([self.horizontal.at(clicks, mask, last), sums], dim=1)

    def _weights(self, back: Tensor) -> Tensor:
        """Weights of clicks so many places before the last one, [V, ..]; 0 behind it and too far before."""
        near = (back >= 0) & (back < self.vertical.shape[1])
        return self.vertical[:, back.clamp(0, self.vertical.shape[1] - 1)] * near


class Recurrent(nn.Module):
    """The state of a GRU, an LSTM or a plain recurrent network (tanh) after each click. S = H."""

    def __init__(self, dim: int, hidden: int, kind: Literal["gru", "lstm", "rnn"]) -> None:
        super().__init__()
        made = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}[kind]
        self.cells: nn.RNNBase = made(dim, hidden, batch_first=True)
        self.width = hidden

    def forward(self, clicks: Tensor, mask: Tensor) -> Tensor:
        states: Tensor = self.cells(clicks)[0]
        return states

    def at(self, clicks: Tensor, mask: Tensor, last: Tensor) -> Tensor:
        return self.forward(clicks, mask).gather(1, last[:, None, None].expand(-1, 1, self.width))[:, 0]


def as_gru(cells: nn.RNNBase) -> nn.GRU:
    """Return a GRU that computes what a plain recurrent network does: ONNX files know how to run that one.

    Its reset gate is held at 1 and its update gate at 0, so that h' = n = tanh(W x + b + U h + c).
    """
    size, made = cells.hidden_size, nn.GRU(cells.input_size, cells.hidden_size, batch_first=True)
    for whole, own in zip(made.all_weights[0], cells.all_weights[0], strict=True):
        whole.data.zero_()
        whole.data[2 * size :] = own.data
    of_input = made.all_weights[0][2].data
    of_input[:size], of_input[size : 2 * size] = 1e4, -1e4
    return made


def largest_so_far(values: Tensor) -> Tensor:
    """Return the largest value up to each place, [B, T, S], of values [B, T, S]."""
    found = [values[:, 0]]
    for place in range(1, values.shape[1]):
        found.append(torch.maximum(found[-1], values[:, place]))
    return torch.stack(found, dim=1)


def largest(values: Tensor, mask: Tensor) -> Tensor:
    """Return the largest value at real places, [B, S], of values [B, T, S]."""
    return values.masked_fill(~mask[..., None], -torch.inf).amax(1)


def ending_here(clicks: Tensor, filter: nn.Module) -> Tensor:
    """Return what a convolution finds in the clicks that end at each place, [B, T, F], zeros before them."""
    before: int = filter.kernel_size[0] - 1  # type: ignore[index, assignment]
    found: Tensor = filter(nn.functional.pad(clicks.transpose(1, 2), (before, 0)))
    return found.transpose(1, 2)
