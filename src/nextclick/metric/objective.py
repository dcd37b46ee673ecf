"""What metric learning trains for: positives of a prefix nearer to it than negative samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from nextclick.metric import losses
from nextclick.metric.network import MetricNetwork
from nextclick.metric.samplers import Examples, Sampler
from nextclick.network.sampling import NegativeSampler
from nextclick.network.softmax import full_softmax
from nextclick.network.training import Objective
from nextclick.network.workers import Workers

LossName = Literal["ncas", "triplet", "contrastive", "bpr", "top1"]
NegativesFrom = Literal["all", "shared", "own", "batch", "hard"]


@dataclass(frozen=True)
class Choices:
    """How the loss is put together.

    loss: its name;  margin: of triplet and contrastive;  epsilon: smoothing of ncas;  swap: a negative counts
    with the smaller of its distances to session and positive (not for ncas);  weighted: positives count by
    their position, else alike;  temperature: distances are divided by it in ncas and bpr;  negatives: every
    item ("all", ncas only), ``n`` drawn for the batch ("shared") or for every prefix ("own"), the positives
    of the batch's other prefixes ("batch"), or the ``n`` of those nearest to each prefix ("hard").
    """

    loss: LossName
    margin: float
    epsilon: float
    swap: bool
    weighted: bool
    temperature: float
    negatives: NegativesFrom
    n: int


@dataclass(frozen=True, eq=False)
class Batch:
    """Examples, and the negative samples drawn for them: [M], [R, M], or None."""

    examples: Examples
    drawn: Tensor | None


class MetricObjective(Objective):
    """A metric loss over the prefixes of a sampler, by Adam; the mean over the prefixes of a batch.

    An item that is a positive of a prefix is no negative of it, and counts once among its positives.
    low: type of the large products with all items.
    """

    def __init__(
        self,
        network: MetricNetwork,
        sampler: Sampler,
        size: int,
        choices: Choices,
        negatives: NegativeSampler,
        workers: Workers = Workers(),  # noqa: B008 - frozen
        low: torch.dtype = torch.float32,
    ) -> None:
        self.network: MetricNetwork = network
        self.low = low
        self.sampler, self.size, self.choices, self.negatives = sampler, size, choices, negatives
        self.workers, self.n_pairs = workers, sampler.n
        self._weights = losses.position_weights(sampler.most)
        if not choices.weighted:
            self._weights = torch.ones_like(self._weights)

    def batches(self, seed: int, epoch: int) -> Iterator[Batch]:
        rng = np.random.default_rng([seed, epoch])
        for examples in self.sampler.batches(self.size, rng):
            drawn, n = None, self.choices.n
            if self.choices.negatives in ("shared", "own"):
                shape = (n,) if self.choices.negatives == "shared" else (len(examples.row), n)
                drawn = torch.from_numpy(self.negatives.draw(shape, rng))
            yield Batch(examples, drawn)

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        examples, n = batch.examples, len(batch.examples.row)
        of = self.workers.share(n)
        mine = of.stop - of.start
        if mine == 0:  # fewer prefixes than processes: this one adds gradients of zero
            weights = [weights for weights in self.network.parameters() if weights.requires_grad]
            return torch.stack([(weight * 0.0).sum() for weight in weights]).sum(), n
        device = self.network.items.weight.device
        row = examples.row[of]
        rows = slice(int(row[0]), int(row[-1]) + 1)
        vectors = self.network.sessions(examples.clicks[rows].to(device), examples.mask[rows].to(device))
        anchors = vectors[row - rows.start, examples.place[of]]  # [R, D]
        positives = _once(examples.positives).to(device)
        weight = self._weights.to(device) * (positives[of] >= 0)  # [R, P]
        if self.choices.negatives == "all":
            return self._against_all(anchors, positives[of], weight) * (mine / n), n
        drawn = None if batch.drawn is None else batch.drawn.to(device)
        if drawn is not None and drawn.ndim == 2:
            drawn = drawn[of]
        return self._sampled(anchors, positives, of, weight, drawn).sum() / n, n

    def optimizer(self, rate: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network.parameters(), lr=rate, fused=True)

    def _against_all(self, anchors: Tensor, positives: Tensor, weight: Tensor) -> Tensor:
        """NCAS with every item in Z, up to the entropy of the truth, which no gradient knows."""
        network, choices = self.network, self.choices
        table = network.table()  # [N, D]
        anchors, smoothed = anchors / choices.temperature, table.mean(0)
        if network.distance == "euclidean":  # -|s - i|^2 is 2 s.i - |i|^2, and what is the same for all items
            squares = table.square().sum(1, keepdim=True) / choices.temperature
            anchors = torch.cat([2 * anchors, anchors.new_ones(len(anchors), 1)], 1)
            table = torch.cat([table, -squares], 1)
            smoothed = table.mean(0)
        first = positives[:, 0]
        shares = weight / weight.sum(1, keepdim=True)
        wanted = (shares[..., None] * table[positives.clamp(min=0)]).sum(1)  # [R, D]
        truth = (1 - choices.epsilon) * wanted + choices.epsilon * smoothed
        # full_softmax takes the score of one target off; the truth's mean score is to be taken off instead.
        return (
            full_softmax(anchors, table, first, low=self.low)
            + (anchors * (table[first] - truth)).sum(1).mean()
        )

    def _sampled(
        self, anchors: Tensor, positives: Tensor, of: slice, weight: Tensor, drawn: Tensor | None
    ) -> Tensor:
        """Losses of the prefixes of this process, [R], against sampled items."""
        network, choices = self.network, self.choices
        own = positives[of]  # [R, P]
        if drawn is None:
            drawn = torch.unique(positives[positives >= 0])  # [M]
        there = ~(drawn[..., None, :] == own[..., None]).any(1)  # [R, M]
        codes = torch.cat([own.clamp(min=0).flatten(), drawn.flatten()])
        both = network.vectors(codes)  # in one: every lookup has a gradient of the size of the table
        nearby = both[: own.numel()].view(*own.shape, -1)  # [R, P, D]
        others = both[own.numel() :].view(*drawn.shape, -1)  # [M, D] or [R, M, D]
        close = network.distances(anchors, nearby)
        far = network.distances(anchors, others)
        if choices.negatives == "hard":
            hardest = far.detach().masked_fill(~there, torch.inf)
            kept = hardest.topk(min(choices.n, far.shape[1]), largest=False).indices  # [R, n]
            far, there, others = far.gather(1, kept), there.gather(1, kept), others[kept]
        if choices.loss == "ncas":
            scale = choices.temperature
            return losses.ncas(close / scale, weight, far / scale, there, choices.epsilon)
        if choices.swap:
            between = others if others.ndim == 2 else others[:, None]
            far = losses.swapped(far, network.distances(nearby, between.expand(*between.shape)))
        match choices.loss:
            case "contrastive":
                return losses.contrastive(close, weight, far, there, choices.margin)
            case "triplet":
                return losses.triplet(close, weight, far, there, choices.margin)
            case "bpr":
                return losses.bpr(close / choices.temperature, weight, far / choices.temperature, there)
            case "top1":
                return losses.top1(close, weight, far, there)


def _once(positives: Tensor) -> Tensor:
    """Return positives [R, P] with -1 where an item stands already further left."""
    same = positives[:, :, None] == positives[:, None, :]  # [R, P, P]
    return positives.masked_fill(same.tril(-1).any(2), -1)
