"""The one training loop: batches, loss, step; validation, early stopping, the best weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nextclick.errors import TrainingDivergedError
from nextclick.network.batches import Rows
from nextclick.network.softmax import full_softmax


class Network(nn.Module):
    """Items in, scores of all items out: table, encoder, decoder.

    The encoder's vectors [.., S] are brought to the width of the items by the decoder, a matrix [D, S] (the
    bi-linear decoder of Li et al., CIKM 2017, eq. 10) or nothing; the score of an item is the product with
    its vector. With ``separate`` the items have vectors of their own on the output side, [N, S] and no
    decoder: the fully connected decoder.
    """

    def __init__(
        self, n_items: int, dim: int, encoder: nn.Module, *, bilinear: bool = False, separate: bool = False
    ) -> None:
        super().__init__()
        self.items = nn.Embedding(n_items, dim)
        self.encoder = encoder
        width: int = encoder.width  # type: ignore[assignment]
        self.decoder = nn.Linear(width, dim, bias=False) if bilinear else nn.Identity()
        self.output = nn.Parameter(torch.empty(n_items, width)) if separate else None

    def sessions(self, clicks: Tensor, mask: Tensor) -> Tensor:
        """Vectors of every prefix, [B, T, D], from clicks [B, T] and mask [B, T]."""
        vectors: Tensor = self.decoder(self.encoder(self.items(clicks), mask))
        return vectors

    def table(self) -> Tensor:
        """Vectors of all items on the output side, [N, D]."""
        return self.items.weight if self.output is None else self.output


@dataclass(frozen=True)
class Options:
    """How to train.

    epochs: at most;  pairs: next clicks in a batch;  rate: Adam's learning rate, times ``decay`` after each
    epoch;  patience: epochs without a better figure before stopping;  seed: of order, dropout and start;
    low: type of the large products.
    """

    epochs: int
    pairs: int
    rate: float
    decay: float
    patience: int
    seed: int
    low: torch.dtype = torch.float32


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to: mean loss, and the validation figure (None without validation)."""

    epoch: int
    loss: float
    figure: float | None


def train(
    network: Network,
    rows: Rows,
    options: Options,
    validate: Callable[[], float] | None,
    tell: Callable[[str, int, int], None],
) -> list[Epoch]:
    """Train a network on rows and leave it with the weights of its best epoch; return all epochs.

    validate: the figure to raise, for example recall@20 on validation sessions; without it the last epoch
    counts as best.  tell: called with (what is going on, pairs done, pairs of the epoch).
    Raises TrainingDivergedError at the first loss that is not a number.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr=options.rate, fused=True)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, options.decay)
    history: list[Epoch] = []
    best: dict[str, Any] = {}
    best_epoch, best_figure = 0, 0.0
    with torch.random.fork_rng(devices=[]):
        for epoch in range(1, options.epochs + 1):
            torch.manual_seed(options.seed * 1_000_003 + epoch)
            total, done = 0.0, 0
            network.train()
            for batch in rows.batches(options.pairs, np.random.default_rng([options.seed, epoch])):
                to_predict = batch.targets >= 0
                vectors = network.sessions(batch.clicks, batch.mask)[to_predict]  # [P, D]
                loss = full_softmax(vectors, network.table(), batch.targets[to_predict], low=options.low)
                if not torch.isfinite(loss):
                    raise TrainingDivergedError(epoch, done, float(schedule.get_last_lr()[0]))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total += float(loss.detach()) * len(vectors)
                done += len(vectors)
                mean = f"epoch {epoch}: loss {total / done:.4f}"
                tell(mean, done, rows.n_pairs)
            if not all(torch.isfinite(weights).all() for weights in network.parameters()):
                raise TrainingDivergedError(epoch, done, float(schedule.get_last_lr()[0]))
            schedule.step()
            figure = None
            if validate is not None:
                tell(f"epoch {epoch}: validating", done, rows.n_pairs)
                network.train(False)
                figure = validate()
            history.append(Epoch(epoch, total / max(done, 1), figure))
            if figure is None or not best or figure > best_figure:
                best = {name: tensor.clone() for name, tensor in network.state_dict().items()}
                best_epoch, best_figure = epoch, figure or 0.0
            if epoch - best_epoch >= options.patience:
                break
    network.load_state_dict(best)
    network.train(False)
    return history
