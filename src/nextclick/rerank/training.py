"""What a re-ranker is trained for: the next click, where it is among the candidates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextclick.network.batches import prefixes
from nextclick.network.training import Objective
from nextclick.network.workers import Workers
from nextclick.rerank import kernels
from nextclick.rerank.candidates import Lists, Made, beside, clicked
from nextclick.rerank.network import Reranker
from nextclick.sessions import Queries, Sessions

_BLOCK = 1 << 15  # prefixes whose candidates are looked through together
_POOL = 32  # batches whose prefixes are sorted by length together, so that padding stays small


@dataclass(frozen=True, eq=False)
class Examples:
    """A batch: prefixes (clicks, mask, last as ``batches.prefixes`` gives them), candidates, target's place.

    candidates: int32 [B, C];  places: int64 [B, C, G];  features: float32 [B, C, G, 3];  lengths: clicks of
    the whole prefixes, float32 [B];  earlier: places of their earlier clicks, int64 [B, E, G'], in the lists
    of G' generators, 0 or all;  target: int64 [B].
    """

    prefix: tuple[Tensor, Tensor, Tensor]
    candidates: Tensor
    places: Tensor
    features: Tensor
    lengths: Tensor
    earlier: Tensor
    target: Tensor


def united(lists: Sequence[Lists], n_items: int) -> tuple[Tensor, Tensor, Tensor]:
    """Unite lists [n, k], one for each generator: candidates [n, C], places [n, C, G], features.

    See ``kernels.unite``.
    """
    items, scores = (np.stack(part) for part in zip(*lists, strict=True))
    union, places, features = kernels.united(items, scores, n_items)
    return torch.from_numpy(union), torch.from_numpy(places).long(), torch.from_numpy(features)


def lengths_of(queries: Queries) -> Tensor:
    """Return how many clicks prefixes have, float32 [n]."""
    return torch.from_numpy((queries.ends - queries.starts).astype(np.float32))


class Reordering(Objective):
    """Cross-entropy of the next click among the candidates; other prefixes are left out.

    made: the generators' lists, and the training prefixes that they are of, all others are left out.
    A share of the examples, drawn at random, is kept to choose the weights on: the trainer's "epochs" are the
    stretches of ``every`` steps between two looks at them (RRCRE, sec. 5.2), the last one as long as is left
    of ``epochs`` passes.
    """

    def __init__(
        self, network: Reranker, sessions: Sessions, made: Made, *,
        batch_size: int, longest: int, share: float, epochs: int, every: int, seed: int, workers: Workers,
        weight_decay: float = 0.0, clicked: bool = False,
    ) -> None:  # fmt: skip
        self.network: Reranker = network
        self.weight_decay, self.clicked = weight_decay, clicked
        self.lists, self.earlier, rows = made.lists, made.earlier, made.rows
        self.batch_size, self.longest, self.workers = batch_size, longest, workers
        queries, positions = sessions.pairs()
        self.queries = queries[rows]
        self.targets = np.asarray(sessions.items[positions[rows]])
        self.n_items = sessions.n_items
        found = np.zeros(len(rows), np.bool_)
        for low in range(0, len(rows), _BLOCK):
            block = np.arange(low, min(low + _BLOCK, len(rows)))
            for items, _ in self._lists(block):
                places = np.empty(len(block), np.int64)
                kernels.place_of(items, self.targets[block], places)
                found[block] |= places >= 0
        examples = np.random.default_rng([seed, 0]).permutation(np.flatnonzero(found))
        kept = int(len(examples) * share)
        self.validating, self.examples = np.sort(examples[:kept]), examples[kept:]
        self.n_examples = len(examples)
        self.steps = -(-len(self.examples) // batch_size)  # of an epoch
        self.every = min(every, max(self.steps, 1))
        self.n_pairs = min(self.every * batch_size, len(self.examples))
        self.total = epochs * self.steps
        self.looks = max(1, -(-self.total // self.every))

    def batches(self, seed: int, look: int) -> Iterator[Examples]:
        """Yield the batches of a stretch of ``every`` steps; looks count from 1."""
        for step in range((look - 1) * self.every, min(look * self.every, self.total)):
            epoch, at = divmod(step, self.steps)
            yield self.batch(self._cut(seed, epoch)[at])

    def batch(self, rows: NDArray[np.int64]) -> Examples:
        """Return the given prefixes as a batch."""
        union, places, features = united(self._lists(rows), self.n_items)
        target = np.empty(len(rows), np.int64)
        kernels.place_of(union.numpy(), self.targets[rows], target)
        prefix = prefixes(self.queries[rows], self.longest)
        earlier = beside([of_list[rows] for of_list in self.earlier], len(rows))
        return Examples(
            prefix, union, places, features, lengths_of(self.queries[rows]),
            torch.from_numpy(earlier).long(), torch.from_numpy(target),
        )  # fmt: skip

    def loss(self, batch: Examples) -> tuple[Tensor, int]:
        of = self.workers.share(len(batch.target))
        scores, target = self._scored(batch, of)
        loss = torch.nn.functional.cross_entropy(scores, target, reduction="sum")
        return loss / len(batch.target), len(batch.target)

    def optimizer(self, rate: float) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            self.network.parameters(), lr=rate, weight_decay=self.weight_decay, fused=True
        )

    @torch.inference_mode()
    def measure(self) -> float:
        """Return recall@5 of the kept examples, a tie counted as its expectation."""
        total = 0.0
        for low in range(0, len(self.validating), self.batch_size):
            scores, target = self._scored(
                self.batch(self.validating[low : low + self.batch_size]), slice(None)
            )
            own = scores.gather(1, target[:, None])
            above, ties = (scores > own).sum(1), (scores == own).sum(1)  # ties with itself
            total += float(((5 - above) / ties).clamp(0, 1).sum())
        return total / len(self.validating)

    def _lists(self, rows: NDArray[np.int64]) -> list[Lists]:
        lists = [(np.asarray(items[rows]), np.asarray(scores[rows])) for items, scores in self.lists]
        if self.clicked:
            lists.append(clicked(self.queries[rows], lists[0][0].shape[1]))
        return lists

    def _scored(self, batch: Examples, of: slice) -> tuple[Tensor, Tensor]:
        device = self.network.items.weight.device
        clicks, mask, last = (part[of].to(device) for part in batch.prefix)
        read = (batch.candidates, batch.places, batch.features, batch.lengths, batch.earlier)
        session = self.network.session(clicks, mask, last)
        scores = self.network(session, *(part[of].to(device) for part in read))
        return scores, batch.target[of].to(device)

    def _cut(self, seed: int, epoch: int) -> list[NDArray[np.int64]]:
        """Return the batches of an epoch: examples in random order, of like length side by side."""
        if getattr(self, "_epoch", None) != (seed, epoch):
            rng = np.random.default_rng([seed, 1, epoch])
            order = self.examples[rng.permutation(len(self.examples))]
            lengths = np.minimum(self.queries.ends - self.queries.starts, self.longest)
            size = _POOL * self.batch_size
            parts = [order[low : low + size] for low in range(0, len(order), size)]
            parts = [part[np.argsort(lengths[part], kind="stable")] for part in parts]
            cuts = [part[low : low + self.batch_size] for part in parts
                    for low in range(0, len(part), self.batch_size)]  # fmt: skip
            self._epoch, self._batches = (seed, epoch), [cuts[n] for n in rng.permutation(len(cuts))]
        return self._batches
