"""What a p-RNN is trained for: the next click against sampled items, its subnets in turn or together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from nextclick.network import losses
from nextclick.network.rowwise import RowAdagrad, RowTable
from nextclick.network.sampling import Lanes, LaneStates, NegativeSampler, Step
from nextclick.network.sources import plain
from nextclick.network.training import Objective
from nextclick.network.workers import Workers
from nextclick.parallel.network import ParallelNetwork

Strategy = Literal["simultaneous", "alternating", "residual", "interleaving"]


@dataclass(frozen=True)
class Phase:
    """Which subnets a step trains, and which take part in it; the others are not there yet.

    first, last: of the phases that a mini-batch goes through.
    """

    trained: tuple[int, ...]
    active: tuple[int, ...]
    first: bool = True
    last: bool = True


def phases(strategy: Strategy, n: int, epoch: int, stage: int) -> list[Phase]:
    """Return the phases of every mini-batch of an epoch (from 1) for n subnets.

    simultaneous: all at once.  alternating: one subnet in each epoch, in turn.  residual: the subnet of this
    stage, on top of those before it.  interleaving: for each mini-batch one subnet after the other, each on
    what the error is after the step of the one before.
    Source: Hidasi et al., RecSys 2016, sec. 3.1.
    """
    every = tuple(range(n))
    if strategy == "simultaneous":
        return [Phase(every, every)]
    if strategy == "alternating":
        return [Phase(((epoch - 1) % n,), every)]
    if strategy == "residual":
        return [Phase((stage,), every[: stage + 1])]
    return [Phase((k,), every, k == 0, k == n - 1) for k in every]


class ParallelItems(Objective):
    """Session-parallel training against sampled items, as GRU4Rec's, of the subnets that a phase names.

    Fixed subnets take part in the forward pass, without dropout, and get no gradient; rows that a step does
    not read stay as they are. The biases of items belong to every phase.  scores are put through
    ``activation`` before the loss.  Every next click has the same weight in the gradients, and logq means
    the same, as in SampledItems.
    """

    def __init__(
        self,
        network: ParallelNetwork,
        lanes: Lanes,
        sampler: NegativeSampler,
        *,
        strategy: Strategy,
        stage: int,
        loss: str,
        n_samples: int,
        momentum: float,
        order: str,
        activation: str,
        elu: float,
        regularisation: float,
        logq: float,
        workers: Workers,
    ) -> None:
        self.network: ParallelNetwork = network
        self.lanes, self.sampler, self.n_samples, self.order = lanes, sampler, n_samples, order
        self.strategy: Strategy = strategy
        self.stage, self.name, self.momentum, self.activation = stage, loss, momentum, activation
        self.elu, self.regularisation, self.logq, self.workers = elu, regularisation, logq, workers
        self.n_pairs = lanes.n_pairs
        self._tables = {id(table): RowTable(table) for table in network.tables()}
        empty = [network.bias.new_zeros(0, subnet.hidden) for subnet in network.subnets]
        self.states = LaneStates(empty, workers)
        self._before: list[Tensor] = []
        self._after: list[Tensor] = []

    def batches(self, seed: int, epoch: int) -> Iterator[tuple[Step, Phase]]:
        # Later stages draw other samples than the first, which draws as a network of the ids alone.
        rng = np.random.default_rng([seed, epoch, *[self.stage] * (self.stage > 0)])
        n = len(self.lanes.sessions)
        order = np.arange(n) if self.order == "time" else rng.permutation(n)
        of_epoch = phases(self.strategy, len(self.network.subnets), epoch, self.stage)
        for step in self.lanes.steps(order, self.sampler, self.n_samples, rng):
            for phase in of_epoch:
                yield step, phase

    def loss(self, batch: tuple[Step, Phase]) -> tuple[Tensor, int]:
        step, phase = batch
        network, device = self.network, self.network.device
        n, of = len(step.clicks), self.workers.share(len(step.clicks))
        if phase.first:
            self._before = self.states.before(step, of)
            self._after = list(self._before)
        vectors = network.merged(self._states(step.clicks.to(device), of, phase))
        candidates = torch.cat([step.targets, step.samples]).to(device)  # [K]
        columns, pairs, wanted = torch.arange(n, device=device)[of], n, None
        if not bool(step.wanted.all()):
            wanted = step.wanted[of].to(device)
            columns, pairs = columns[wanted], int(step.wanted.sum())
        offset = self._read(network.bias, candidates)[:, 0]  # [K]
        if self.logq > 0:
            offset = offset - self.logq * self.sampler.log_drawn(candidates, n)
        scores = offset.expand(len(columns), -1)  # [P, K]
        for k, vector in enumerate(vectors):
            if vector is None:
                continue
            read = self._read if network.merge == "shared" or k in phase.trained else plain
            chosen = vector if wanted is None else vector[wanted]
            scores = torch.addmm(scores, chosen, read(network.output[k], candidates).T)
        loss = losses.ranking_loss(
            self.name, scores, columns, scale=1 / max(pairs, 1), weight=pairs / self.lanes.n_lanes,
            regularisation=self.regularisation, activation=self.activation, elu=self.elu,
        )  # fmt: skip
        if phase.last:
            self.states.keep(self._after)
        return loss, pairs if phase.last else 0

    def _states(self, clicks: Tensor, of: slice, phase: Phase) -> list[Tensor | None]:
        """Return the states of this process's lanes after clicks [L] of all, and keep them.

        Fixed subnets give theirs without gradients. Of trained ones every process reads the rows of all
        lanes, so that their gradients can be added up row by row.
        """
        states: list[Tensor | None] = []
        for k, subnet in enumerate(self.network.subnets):
            if k not in phase.active:
                states.append(None)
                continue
            trained = k in phase.trained
            with torch.set_grad_enabled(trained):
                if trained and self.workers.size > 1:
                    given = subnet.given(clicks, self._read)[of]
                else:
                    given = subnet.given(clicks[of], self._read if trained else plain)
                state = subnet.after(given, self._before[k])
                state = self.network.dropped(state) if trained else state
            if trained or phase.first:
                self._after[k] = state.detach()
            states.append(state)
        return states

    def _read(self, table: Tensor, numbers: Tensor) -> Tensor:
        return self._tables[id(table)].rows(numbers)

    def optimizer(self, rate: float) -> torch.optim.Optimizer:
        dense = [weight for weight in self.network.parameters() if weight.requires_grad]
        return RowAdagrad(dense, list(self._tables.values()), rate, self.momentum)

    def gradients(self) -> list[Tensor]:
        read = [
            rows.grad for table in self._tables.values() for _, rows in table.read if rows.grad is not None
        ]
        return [*super().gradients(), *read]
