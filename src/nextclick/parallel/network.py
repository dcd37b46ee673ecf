"""The network of a p-RNN: a GRU for each subnet over what its sources tell of items, and the scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nextclick.network.encoders import dropped
from nextclick.network.sources import DenseSource, Reader, plain


class Subnet(nn.Module):
    """A GRU over one or several sources, whose contributions to the three gates are added up.

    embedded: width of a layer between the sources and the gates; 0: none, as the paper has it.
    """

    def __init__(self, name: str, sources: Sequence[nn.Module], hidden: int, embedded: int = 0) -> None:
        super().__init__()
        self.name, self.hidden = name, hidden
        self.sources = nn.ModuleList(sources)
        self.up = nn.Parameter(torch.empty(embedded, 3 * hidden)) if embedded else None
        self.recurrent = nn.Parameter(torch.empty(3 * hidden, hidden))
        self.bias = nn.Parameter(torch.empty(2, 3 * hidden))  # of input and recurrence

    def step(self, items: Tensor, state: Tensor, read: Reader = plain) -> Tensor:
        """Return the state after one more click on items [L], from the state [L, H] before it."""
        return self.after(self.given(items, read), state)

    def given(self, items: Tensor, read: Reader = plain) -> Tensor:
        """What clicks on items [L] add to the gates, [L, 3H]."""
        given: Tensor = self.sources[0](items, read)
        for source in self.sources[1:]:
            given = given + source(items, read)
        return given if self.up is None else given @ self.up

    def after(self, given: Tensor, state: Tensor) -> Tensor:
        """Return the state [L, H] after clicks that add ``given`` [L, 3H] to the gates."""
        after: Tensor = _GruStep.apply(  # type: ignore[no-untyped-call]
            given, state, self.recurrent, self.bias
        )
        return after

    def gates(self) -> Tensor:
        """What a click on each item adds to the gates, [N, 3H]."""
        added: Tensor = torch.stack([source.all() for source in self.sources]).sum(0)  # type: ignore[operator]
        return added if self.up is None else added @ self.up

    def tables(self) -> list[Tensor]:
        """The parameters of which a step reads rows."""
        return [table for source in self.sources for table in source.tables()]  # type: ignore[operator]


class _GruStep(torch.autograd.Function):
    """PyTorch's GRU cell on gates that are given, without a gradient for the state before.

    r, z = sigmoid(x + U h);  n = tanh(x + r * U h);  h' = (1 - z) n + z h, each with its biases.
    """

    @staticmethod
    def forward(ctx: Any, given: Tensor, state: Tensor, recurrent: Tensor, bias: Tensor) -> Tensor:
        hidden = state.shape[1]
        inner = torch.addmm(bias[1], state, recurrent.T)  # [L, 3H]
        given = given + bias[0]
        gates = (given[:, : 2 * hidden] + inner[:, : 2 * hidden]).sigmoid_()
        reset, update = gates[:, :hidden], gates[:, hidden:]
        inner_new = inner[:, 2 * hidden :]
        new = torch.addcmul(given[:, 2 * hidden :], reset, inner_new).tanh_()
        ctx.save_for_backward(state, gates, inner_new, new)
        return torch.lerp(new, state, update)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        state, gates, inner_new, new = ctx.saved_tensors
        hidden = state.shape[1]
        reset, update = gates[:, :hidden], gates[:, hidden:]
        of_given = torch.empty(len(state), 3 * hidden, dtype=state.dtype, device=state.device)
        of_new = of_given[:, 2 * hidden :]
        torch.mul(outputs[0], 1 - update, out=of_new)
        of_new.mul_(1 - new * new)
        torch.mul(of_new, inner_new, out=of_given[:, :hidden])
        torch.mul(outputs[0], state - new, out=of_given[:, hidden : 2 * hidden])
        of_given[:, : 2 * hidden].mul_(gates * (1 - gates))
        of_inner = of_given.clone()
        of_inner[:, 2 * hidden :].mul_(reset)
        of_bias = torch.stack([of_given.sum(0), of_inner.sum(0)])
        return of_given, None, of_inner.T @ state, of_bias


Merge = Literal["parallel", "shared", "interaction"]


class ParallelNetwork(nn.Module):
    """Subnets side by side, and the scores of items from their states h_k, weighed by w_k.

    parallel: sum_k w_k h_k . W_k, which is the product of the states side by side with one matrix;  shared:
    (sum_k w_k h_k) . W;  interaction: w_0 h_0 . W_0 + sum_k w_k (h_0 * h_k) . W_k.  Every item has a bias.
    Source: Hidasi et al., RecSys 2016, sec. 3 and figure 1.
    """

    def __init__(
        self, n_items: int, subnets: Sequence[Subnet], merge: Merge, weights: Sequence[float], dropout: float
    ) -> None:
        super().__init__()
        self._subnets = nn.ModuleList(subnets)
        self.merge, self.weights, self.dropout = merge, list(weights), dropout
        matrices = 1 if merge == "shared" else len(subnets)
        self.output = nn.ParameterList(
            [nn.Parameter(torch.empty(n_items, subnets[0].hidden)) for _ in range(matrices)]
        )
        self.bias = nn.Parameter(torch.empty(n_items, 1))
        self.active = len(subnets)
        """Subnets that take part, the first ones: fewer while later ones still wait for their training."""
        self._fixed: Tensor | None = None

    @property
    def subnets(self) -> list[Subnet]:
        """The subnets in their order; in training a state of each is handed on."""
        return [subnet for subnet in self._subnets if isinstance(subnet, Subnet)]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.bias.device

    def tables(self) -> list[Tensor]:
        """The parameters of which a step reads rows."""
        of_subnets = [table for subnet in self.subnets for table in subnet.tables()]
        return [*of_subnets, *self.output, self.bias]

    def dropped(self, state: Tensor) -> Tensor:
        """A state in training, units of it left out at random."""
        return dropped(state, self.dropout, self.training)

    def merged(self, states: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return the vector [L, H] that meets each output matrix; None where no active subnet gives one.

        states: [L, H] of each subnet, None for one that takes no part yet.
        """
        weighed = [None if h is None else w * h for w, h in zip(self.weights, states, strict=False)]
        if self.merge == "shared":
            there = [vector for vector in weighed if vector is not None]
            return [torch.stack(there).sum(0) if len(there) > 1 else there[0]]
        first = states[0]
        if self.merge == "interaction" and first is not None:
            return [weighed[0], *(None if vector is None else first * vector for vector in weighed[1:])]
        return weighed

    def last(self, clicks: Tensor, lengths: Tensor) -> Tensor:
        """Return the vectors of prefixes, [B, S], for ``scores``.

        clicks: [B, T] item codes, oldest first;  lengths: [B], 1 at least.
        """
        order = torch.argsort(lengths, descending=True, stable=True)
        clicks, lengths = clicks[order], lengths[order]
        going = [int(n) for n in (lengths[None, :] > torch.arange(clicks.shape[1])[:, None]).sum(1)]
        states: list[Tensor] = []
        for subnet in self.subnets[: self.active]:
            state = self.bias.new_zeros(len(clicks), subnet.hidden)
            for place, n in enumerate(going):
                items = clicks[:n, place].to(self.device)
                state[:n] = subnet.step(items, state[:n])
            states.append(state)
        back = torch.argsort(order).to(self.device)
        return torch.cat([vector for vector in self.merged(states) if vector is not None], 1)[back]

    def table(self) -> Tensor:
        """Vectors of all items on the output side, which those of ``last`` meet, [N, K H] or [N, H]."""
        return torch.cat(list(self.output)[: self.active], 1)

    def scores(self, vectors: Tensor) -> Tensor:
        """Scores of all items, [B, N], for the vectors of ``last``; without gradients."""
        if self._fixed is None:
            self._fixed = self.table().detach().T
        return torch.addmm(self.bias[:, 0], vectors, self._fixed)

    def train(self, mode: bool = True) -> ParallelNetwork:
        """Switch between training and answering; the output matrices may have changed."""
        self._fixed = None
        super().train(mode)
        return self


class WholeRows(nn.Module):
    """``ParallelNetwork.last`` without loops over places, for export.

    PyTorch's GRUs over what items add to the gates, worked out once for all of them: [N, 3H] for each subnet.
    """

    def __init__(self, network: ParallelNetwork) -> None:
        super().__init__()
        self.network = network
        self.cells = nn.ModuleList()
        for k, subnet in enumerate(network.subnets[: network.active]):
            hidden = subnet.hidden
            cell = nn.GRU(3 * hidden, hidden, batch_first=True)
            given = (torch.eye(3 * hidden), subnet.recurrent, *subnet.bias)
            for weights, of in zip(cell.all_weights[0], given, strict=True):
                weights.data.copy_(of)
            self.cells.append(cell)
            self.register_buffer(f"gates{k}", subnet.gates().detach())

    def forward(self, clicks: Tensor, lengths: Tensor) -> Tensor:
        """Return the vectors of prefixes, [B, S], as ``last`` does; clicks are padded on the right."""
        states: list[Tensor | None] = []
        for k, cell in enumerate(self.cells):
            rows = cell(nn.functional.embedding(clicks, self.get_buffer(f"gates{k}")))[0]  # [B, T, H]
            at = (lengths - 1)[:, None, None].expand(-1, 1, rows.shape[2])
            states.append(rows.gather(1, at)[:, 0])
        return torch.cat([vector for vector in self.network.merged(states) if vector is not None], 1)


def start(network: ParallelNetwork) -> None:
    """Start as GRU4Rec does: evenly in +-sqrt(6 / (n + m)), a recurrence gate by gate, biases at 0.

    A subnet is drawn with its output matrix before the next one, so that the first starts as it would alone.
    """
    for k, subnet in enumerate(network.subnets):
        for name, weights in subnet.named_parameters():
            if name == "recurrent":
                for gate in weights.data.chunk(3):
                    nn.init.xavier_uniform_(gate)
            elif name != "bias" and not _is_given(network, weights):
                nn.init.xavier_uniform_(weights)
        nn.init.zeros_(subnet.bias)
        if k < len(network.output):
            nn.init.xavier_uniform_(network.output[k])
    nn.init.zeros_(network.bias)


def _is_given(network: ParallelNetwork, weights: Tensor) -> bool:
    """Whether a parameter is the features of items themselves."""
    return any(isinstance(of, DenseSource) and of.table is weights for of in network.modules())
