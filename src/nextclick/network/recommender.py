"""What the neural recommenders share: settings of training, fit, scores, and saving."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import ArtifactError, DataError, MissingExtraError
from nextclick.recommender import Recommender
from nextclick.sessions import Queries, Sessions
from nextclick.settings import about

if TYPE_CHECKING:
    from nextclick.network.training import Network


@dataclass(kw_only=True, eq=False)
class NeuralRecommender(Recommender):
    """Base of the recommenders that are trained: a network scores every item from the prefix.

    The last part of the training sessions, by time, is kept to choose the epoch on. An empty prefix is
    answered with the most clicked items. Raises MissingExtraError where PyTorch is not installed.
    """

    epochs: int = field(default=30, metadata=about("passes over the training sessions at most", low=1))
    batch_size: int = field(
        default=512,
        metadata=about("next clicks predicted in one step, about", low=1, search=[128, 256, 512, 1024]),
    )
    learning_rate: float = field(
        default=0.001, metadata=about("of Adam", low=0, search=("log", 0.0003, 0.01))
    )
    decay: float = field(
        default=1.0,
        metadata=about("factor on the learning rate after each epoch", low=0, high=1, search=(0.5, 1.0)),
    )
    validation: float = field(
        default=0.1,
        metadata=about("share of the sessions, the latest, to choose the epoch on; 0: none", low=0, high=0.9),
    )
    metric: Literal["recall", "mrr"] = field(
        default="recall", metadata=about("what is to be best on the validation sessions, at 20")
    )
    patience: int = field(default=3, metadata=about("epochs without improvement before stopping", low=1))
    last_clicks: int = field(
        default=19, metadata=about("clicks of the prefix that are read, the last ones", low=1)
    )
    precision: Literal["float32", "bfloat16"] = field(
        default="float32",
        metadata=about("of the large products in training; bfloat16 needs a processor made for it"),
    )
    seed: int = field(default=1, metadata=about("of the start, the order and the dropouts", low=0))

    @abstractmethod
    def _network(self, n_items: int) -> Network:
        """Return the network with its starting weights, drawn from PyTorch's current seed."""

    def _fit(self, sessions: Sessions) -> None:
        torch = _torch()
        from nextclick.network.batches import Rows
        from nextclick.network.training import Options, train

        held_out = int(len(sessions) * self.validation)
        fitted, kept = sessions[: len(sessions) - held_out], sessions[len(sessions) - held_out :]
        rows = Rows(fitted, self.last_clicks)
        if len(rows) == 0:
            raise DataError(f"{self.name}: no training session has two clicks, so there is nothing to learn")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.network = self._network(sessions.n_items)
        options = Options(
            self.epochs, self.batch_size, self.learning_rate, self.decay, self.patience, self.seed,
            getattr(torch, self.precision),
        )  # fmt: skip
        validate = (lambda: self._figure(kept)) if kept.n_pairs else None
        history = train(self.network, rows, options, validate, self._tell)
        self.facts["epochs"] = [vars(epoch) for epoch in history]

    def _figure(self, kept: Sessions) -> float:
        from nextclick import metrics
        from nextclick.ranking import Targets

        queries, positions = kept.pairs()
        ranks = self.rank(queries, Targets.one_each(kept.items[positions]), 20)
        measure = metrics.recall if self.metric == "recall" else metrics.reciprocal_rank
        return float(measure(ranks.better, ranks.ties, 20).mean())

    def _scores(self, queries: Queries) -> NDArray[np.float32]:
        torch = _torch()
        from nextclick.network.batches import prefixes

        scores = np.empty((len(queries), self.n_items), np.float32)
        empty = queries.ends == queries.starts
        scores[empty] = self.support
        rows = np.flatnonzero(~empty)
        if len(rows):
            with torch.inference_mode():
                clicks, mask, last = prefixes(queries[rows], self.last_clicks)
                vectors = self.network.sessions(clicks, mask)[torch.arange(len(rows)), last]  # [B, D]
                if len(rows) == len(queries):
                    torch.mm(vectors, self.network.table().T, out=torch.from_numpy(scores))
                else:
                    scores[rows] = (vectors @ self.network.table().T).numpy()
        return scores

    def _state(self) -> dict[str, NDArray[Any]]:
        return {name: tensor.numpy() for name, tensor in self.network.state_dict().items()}

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        torch = _torch()
        with torch.random.fork_rng(devices=[]):
            network = self._network(self.n_items)
        for name, tensor in network.state_dict().items():
            if state[name].shape != tuple(tensor.shape) or state[name].dtype != np.float32:
                raise ArtifactError(f"{self.name}: the saved {name} does not fit; fit the model again")
        network.load_state_dict({name: torch.from_numpy(state[name]) for name in network.state_dict()})
        self.network = network.train(False)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise MissingExtraError("a neural recommender", "neural") from None
    return torch
