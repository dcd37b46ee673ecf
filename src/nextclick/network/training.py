"""The one training loop: batches, loss, step; validation, early stopping, the best weights, checkpoints."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nextclick.errors import TrainingDivergedError
from nextclick.network.checkpoints import Checkpoints, State
from nextclick.network.workers import Workers


@dataclass(frozen=True)
class Options:
    """How to train.

    epochs: at most;  rate: learning rate, times ``decay`` after each epoch;  patience: epochs without a
    better figure before stopping;  seed: of order, dropout and samples.
    gain: where above 0, the rate falls only after an epoch that has not raised the best figure by this share
    (never without figures), and training stops where it would fall more than ``patience`` times.
    """

    epochs: int
    rate: float
    decay: float
    patience: int
    seed: int
    gain: float = 0.0

    def rate_after(self, history: list[Epoch]) -> float | None:
        """Return the learning rate of the epoch after these, or None where training is to stop."""
        if len(history) >= self.epochs:
            return None
        falls = len(history)
        if self.gain > 0:
            falls = self._without_gain(history)
            return None if falls > self.patience else self.rate * self.decay**falls
        if history and len(history) - best_of(history).epoch >= self.patience:
            return None
        return self.rate * self.decay**falls

    def _without_gain(self, history: list[Epoch]) -> int:
        """Count the epochs whose figure is not above the best one before it by the share ``gain``."""
        best, falls = -math.inf, 0
        for figure in (epoch.figure for epoch in history if epoch.figure is not None):
            falls += best > -math.inf and figure < best * (1 + self.gain)
            best = max(best, figure)
        return falls


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to: mean loss, the validation figure (None without validation)."""

    epoch: int
    loss: float
    figure: float | None


class Objective(ABC):
    """What is trained: a network, the batches of an epoch, the loss of a batch, and its optimizer.

    n_pairs: next clicks to predict in an epoch;  workers: the processes that share every batch.
    """

    network: nn.Module
    n_pairs: int
    workers: Workers = Workers()

    @abstractmethod
    def batches(self, seed: int, epoch: int) -> Iterator[Any]:
        """Yield the batches of an epoch, the same ones for the same seed and epoch."""

    @abstractmethod
    def loss(self, batch: Any) -> tuple[Tensor, int]:
        """Return this process's part of the batch's mean loss, and the pairs of the whole batch."""

    @abstractmethod
    def optimizer(self, rate: float) -> torch.optim.Optimizer:
        """Return the optimizer of the network's weights."""

    def gradients(self) -> list[Tensor]:
        """Return the gradients that the processes have to add up."""
        return [weight.grad for weight in self.network.parameters() if weight.grad is not None]


def train(
    objective: Objective,
    options: Options,
    validate: Callable[[], float] | None,
    tell: Callable[[str, int, int], None],
    checkpoints: Checkpoints | None = None,
    watch: Callable[[Epoch, float], None] = lambda epoch, rate: None,
) -> list[Epoch]:
    """Train a network and leave it with the weights of its best epoch; return all epochs.

    validate: the figure to raise, for example recall@20 on validation sessions; without it the last epoch
    counts as best.  tell: called with (what is going on, pairs done, pairs of the epoch).  checkpoints:
    written after every epoch; where they hold some, training goes on from there, to the same result.
    watch: called with each epoch and its pairs per second.
    Raises TrainingDivergedError at the first loss that is not a number; on a GPU soon after it.
    """
    network, workers = objective.network, objective.workers
    device = next(network.parameters()).device
    optimizer = objective.optimizer(options.rate)
    state = State(network, optimizer)
    history: list[Epoch] = []
    if checkpoints is not None:
        history = [Epoch(**epoch) for epoch in checkpoints.restore(state)]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        while (rate := options.rate_after(history)) is not None:
            epoch = len(history) + 1
            for group in optimizer.param_groups:
                group["lr"] = rate
            torch.manual_seed((options.seed * 1_000_003 + epoch) * workers.size + workers.rank)
            total = torch.zeros((), dtype=torch.float64, device=device)
            done, step, start = 0, 0, time.perf_counter()
            told = 0.0
            network.train()
            for step, batch in enumerate(objective.batches(options.seed, epoch), start=1):
                optimizer.zero_grad(set_to_none=True)
                loss, pairs = objective.loss(batch)
                loss.backward()  # type: ignore[no-untyped-call]
                workers.add_up(objective.gradients())
                optimizer.step()
                total.add_(loss.detach(), alpha=pairs)
                done += pairs
                now = time.perf_counter()
                due = now - told > _EVERY
                if due or device.type == "cpu":  # a GPU would have to be waited for at every step
                    _check(total, epoch, step, done, rate)
                if due:
                    told = now
                    speed, mean = f"{done / (now - start):,.0f} clicks/s", float(total) / max(done, 1)
                    tell(f"epoch {epoch}: loss {mean:.4f}, {speed}", done, objective.n_pairs)
            workers.add_up([total])
            seconds = time.perf_counter() - start
            _check(total, epoch, step, done, rate)
            if not all(_finite(weights) for weights in network.parameters()):
                raise TrainingDivergedError(epoch, step, done, rate)
            figure = None
            network.train(False)
            if validate is not None:
                tell(f"epoch {epoch}: validating", done, objective.n_pairs)
                figure = validate()
            history.append(Epoch(epoch, float(total) / max(done, 1), figure))
            if figure is not None and best_of(history) is history[-1]:
                state.keep()
            watch(history[-1], done / seconds)
            if checkpoints is not None and workers.rank == 0:
                checkpoints.write(state, [vars(epoch) for epoch in history])
    if state.best:
        state.take_kept()
    network.train(False)
    return history


def best_of(history: list[Epoch]) -> Epoch:
    """Return the epoch with the highest figure, the first of equals; the last one without figures."""
    if history[-1].figure is None:
        return history[-1]
    return max(history, key=lambda epoch: (epoch.figure, -epoch.epoch))


def _finite(weights: Tensor) -> bool:
    """Whether all weights are numbers; by parts, as the test makes copies of what it looks at."""
    parts = torch.split(weights.detach().reshape(-1), _PART)
    return all(bool(torch.isfinite(part).all()) for part in parts)


_PART = 1 << 22
_EVERY = 0.2  # seconds between two words on how far it is


def _check(total: Tensor, epoch: int, step: int, pairs: int, rate: float) -> None:
    if not torch.isfinite(total):
        raise TrainingDivergedError(epoch, step, pairs, rate)
