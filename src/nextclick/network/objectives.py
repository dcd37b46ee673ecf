"""What networks are trained for: the next click against all items, or against sampled ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from nextclick.network import losses
from nextclick.network.batches import Batch, Rows
from nextclick.network.encoders import GruEncoder
from nextclick.network.rowwise import RowAdagrad, RowTable
from nextclick.network.sampling import Lanes, LaneStates, NegativeSampler, Step
from nextclick.network.scoring import Network
from nextclick.network.softmax import full_softmax
from nextclick.network.training import Objective
from nextclick.network.workers import Workers


class AllItems(Objective):
    """Cross-entropy of every next click against all items, whole sessions at a time.

    pairs: next clicks in a batch, about;  smoothing: share of the target's probability that is spread over
    all items (label smoothing);  weight_decay: Adam's;  low: type of the large products.
    """

    def __init__(
        self,
        network: Network,
        rows: Rows,
        pairs: int,
        *,
        smoothing: float = 0.0,
        weight_decay: float = 0.0,
        low: torch.dtype = torch.float32,
        workers: Workers = Workers(),  # noqa: B008 - frozen
    ) -> None:
        self.network: Network = network
        self.rows, self.pairs, self.low, self.workers = rows, pairs, low, workers
        self.smoothing, self.weight_decay = smoothing, weight_decay
        self.n_pairs = rows.n_pairs

    def batches(self, seed: int, epoch: int) -> Iterator[Batch]:
        return self.rows.batches(self.pairs, np.random.default_rng([seed, epoch]))

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        network, of = self.network, self.workers.share(len(batch.clicks))
        device = network.items.weight.device
        clicks, mask, targets = (a[of].to(device) for a in (batch.clicks, batch.mask, batch.targets))
        wanted = targets >= 0
        targets = targets[wanted]
        pairs = int((batch.targets >= 0).sum())
        if len(targets) == 0:  # fewer rows than processes: this one adds gradients of zero
            changed = [weights for weights in network.parameters() if weights.requires_grad]
            return torch.stack([(weights * 0.0).sum() for weights in changed]).sum(), pairs
        with network.items.once():
            table = network.table()
            vectors = network.ending(clicks, mask, wanted)  # [P, D]
        if network.bias is not None:  # one more coordinate, which is 1 for every session
            vectors = torch.cat([vectors, vectors.new_ones(len(vectors), 1)], 1)
            table = torch.cat([table, network.bias], 1)
        loss = full_softmax(vectors, table, targets, low=self.low)
        if self.smoothing > 0:
            loss = loss + self.smoothing * (vectors * (table[targets] - table.mean(0))).sum(1).mean()
        return loss * (len(targets) / pairs), pairs

    def optimizer(self, rate: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            self.network.parameters(), lr=rate, weight_decay=self.weight_decay, fused=True
        )


class SampledItems(Objective):
    """The next click against the other lanes' next clicks and additional samples; session-parallel.

    The state of a lane goes on from step to step, from zero at the start of a session, and no gradient flows
    back through it. The rows of items that a step needs are the only ones it reads and changes. Where only
    some clicks are to be predicted, every lane reads on, the loss is the mean over those lanes whose next
    click is one of them, and the next clicks of the others are negative samples still. Every next click has
    the same weight in the gradients, one over the lanes that an epoch begins with: at its end few lanes are
    left, and a mean over them would let the longest of the last sessions count for many.
    Source: Hidasi et al., ICLR 2016; Hidasi & Karatzoglou, CIKM 2018.

    order: "time", the sessions as they are, or "random";  activation: on the scores, "linear", "tanh" or
    "elu" with ``elu``;  logq: strength of the correction for how often a candidate is drawn: the log of what
    that is in proportion to is taken off its score, the item's clicks for a lane's target and clicks^alpha
    for a sample, as the authors have it. (The logs of the expected numbers in a step differ from these by a
    constant for each kind.)
    """

    def __init__(
        self,
        network: Network,
        lanes: Lanes,
        sampler: NegativeSampler,
        *,
        loss: str,
        n_samples: int,
        momentum: float = 0.0,
        order: str = "time",
        activation: str = "linear",
        elu: float = 1.0,
        regularisation: float = 0.0,
        logq: float = 0.0,
        workers: Workers = Workers(),  # noqa: B008 - frozen
    ) -> None:
        if not isinstance(network.encoder, GruEncoder):
            raise TypeError("session-parallel training steps through a GruEncoder")
        self.network: Network = network
        self.lanes, self.sampler, self.n_samples, self.order = lanes, sampler, n_samples, order
        self.name, self.momentum, self.activation, self.elu = loss, momentum, activation, elu
        self.regularisation, self.logq, self.workers = regularisation, logq, workers
        self.encoder: GruEncoder = network.encoder
        self.n_pairs = lanes.n_pairs
        self.input = RowTable(network.items.weight)
        self.output = self.input if network.output is None else RowTable(network.output)
        self.bias = None if network.bias is None else RowTable(network.bias)
        features = network.items.features
        self._of_features = {id(table): RowTable(table) for table in features.tables()} if features else {}
        zero = network.items.weight.new_zeros(0, self.encoder.width)
        self.states = LaneStates([zero] * self.encoder.gru.num_layers, workers)

    def batches(self, seed: int, epoch: int) -> Iterator[Step]:
        rng = np.random.default_rng([seed, epoch])
        n = len(self.lanes.sessions)
        order = np.arange(n) if self.order == "time" else rng.permutation(n)
        return self.lanes.steps(order, self.sampler, self.n_samples, rng)

    def loss(self, step: Step) -> tuple[Tensor, int]:
        device = self.network.items.weight.device
        n, of = len(step.clicks), self.workers.share(len(step.clicks))
        clicks = self._rows(self.input, step.clicks.to(device))[of]
        states = self.encoder.step(clicks, self.states.before(step, of))
        self.states.keep([state.detach() for state in states])
        candidates = torch.cat([step.targets, step.samples]).to(device)  # [K]
        offset = self._offset(candidates, n)  # [K]
        output = self._rows(self.output, candidates).T
        sessions, columns, pairs = states[-1], torch.arange(n, device=device)[of], n
        if not bool(step.wanted.all()):
            wanted = step.wanted[of].to(device)
            sessions, columns, pairs = sessions[wanted], columns[wanted], int(step.wanted.sum())
        scores = sessions @ output if offset is None else torch.addmm(offset, sessions, output)  # [P, K]
        loss = losses.ranking_loss(
            self.name, scores, columns, scale=1 / max(pairs, 1), weight=pairs / self.lanes.n_lanes,
            regularisation=self.regularisation, activation=self.activation, elu=self.elu,
        )  # fmt: skip
        return loss, pairs

    def optimizer(self, rate: float) -> torch.optim.Optimizer:
        given = (self.input, self.output, self.bias, *self._of_features.values())
        tables = [table for table in given if table is not None]
        tables = list({id(table): table for table in tables}.values())  # tied: one and the same
        self._tables = tables
        dense = [weight for weight in self.network.parameters() if weight.requires_grad]
        return RowAdagrad(dense, tables, rate, self.momentum)

    def gradients(self) -> list[Tensor]:
        of_rows = [rows.grad for table in self._tables for _, rows in table.read if rows.grad is not None]
        return [*super().gradients(), *of_rows]

    def _rows(self, table: RowTable, numbers: Tensor) -> Tensor:
        """Vectors of items, [K, D]; those of the input with what their features add."""
        rows, features = table.rows(numbers), self.network.items.features
        if table is not self.input or features is None:
            return rows
        return rows + features(numbers, lambda weight, of: self._of_features[id(weight)].rows(of))

    def _offset(self, candidates: Tensor, n: int) -> Tensor | None:
        """Return what is added to the candidates' scores, [K]: biases, and the correction, if any."""
        offset = None if self.bias is None else self.bias.rows(candidates)[:, 0]
        if self.logq == 0:
            return offset
        correction = -self.logq * self.sampler.log_drawn(candidates, n)
        return correction if offset is None else offset + correction
