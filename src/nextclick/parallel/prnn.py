"""p-RNN: parallel recurrent networks over item ids and item features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import ConfigError, DataError
from nextclick.network.given import NewItems
from nextclick.network.gru4rec import check_correction
from nextclick.network.recommender import NeuralRecommender
from nextclick.sessions import Queries, Sessions
from nextclick.settings import about

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nextclick.network.training import Objective
    from nextclick.network.workers import Workers
    from nextclick.parallel.network import ParallelNetwork, Subnet

ONE_GRU = ("feature", "concatenated", "id")
"""Architectures without subnets side by side."""


@dataclass(kw_only=True, eq=False)
class PRNN(NeuralRecommender):
    """A recurrent network for each representation of the items, ids and features, scored together.

    ``fit(sessions, features=features)``; without features there is one subnet, that of the ids. The ids come
    first, then the features in their order. Every lane of a batch is a session, as in gru4rec, and the
    negative samples are the other lanes' next clicks and ``n_samples`` more.
    architecture: ``id``, ``feature`` and ``concatenated`` are one GRU over the ids, the features, or both;
    ``parallel`` has a GRU and an output matrix for each;  ``shared`` one output matrix for all;
    ``interaction`` multiplies the state of each feature with that of the ids.
    strategy: train the subnets together (simultaneous), one in each epoch in turn (alternating), one after
    the other on what those before it leave (residual), or in turn for each mini-batch (interleaving).
    Every subnet is trained for ``epochs`` passes, so alternating and residual make that many for each.
    Source: Hidasi et al., RecSys 2016 (parallel recurrent networks), sec. 3. Differs: items have a bias.
    """

    name: ClassVar[str] = "prnn"
    summary: ClassVar[str] = "recurrent networks side by side over item ids, texts, pictures, columns"
    source: ClassVar[str] = "Hidasi et al., RecSys 2016 (p-RNN)"
    copies: ClassVar[int] = 4
    wants_features: ClassVar[bool] = True
    boldness: ClassVar[float] = 1.0
    lift: ClassVar[float] = 2.5
    """Features tell little of how popular an item is, so a new one would get the bias of a typical item; but
    clicks fall on the popular ones, and on items while they are new. On two spans of validation sessions of
    the demo shop these two find a third of the clicks on new items for a twentieth of the recall of the
    others (docs/features.md)."""

    architecture: Literal["parallel", "shared", "interaction", "concatenated", "feature", "id"] = field(
        default="parallel", metadata=about("how ids and features are put together")
    )
    strategy: Literal["residual", "interleaving", "alternating", "simultaneous"] = field(
        default="residual", metadata=about("in which turn the subnets are trained")
    )
    weights: str = field(default="", metadata=about("of the subnets, ids first, such as 1,0.5; empty: all 1"))
    loss: Literal["top1", "top1-max", "bpr", "bpr-max", "cross-entropy"] = field(
        default="top1", metadata=about("what a target has to win against its negative samples in")
    )
    epochs: int = field(
        default=10, metadata=about("passes over the training sessions for each subnet", low=1)
    )
    batch_size: int = field(default=50, metadata=about("sessions side by side", low=1, search=[32, 50, 100]))
    validation: float = field(
        default=0.0,
        metadata=about("share of the sessions, to choose the epoch on; 0: none", low=0, high=0.9),
    )
    learning_rate: float = field(default=0.1, metadata=about("of Adagrad", low=0, search=("log", 0.01, 0.3)))
    momentum: float = field(default=0.0, metadata=about("of Adagrad", low=0, high=0.99))
    hidden: int = field(default=100, metadata=about("units of each GRU", low=1))
    dropout_hidden: float = field(
        default=0.2, metadata=about("on the GRUs' states", low=0, high=0.99, search=(0.0, 0.6))
    )
    n_samples: int = field(default=0, metadata=about("additional negative samples of a step", low=0))
    alpha: float = field(
        default=0.5,
        metadata=about("additional samples are drawn by clicks^alpha; 0 uniform", low=0),
    )
    logq: float = field(
        default=0.0, metadata=about("strength of the correction for how often a candidate is drawn", low=0)
    )
    bpreg: float = field(default=1.0, metadata=about("weight of bpr-max's score regularisation", low=0))
    activation: Literal["tanh", "linear", "elu"] = field(
        default="tanh", metadata=about("on the scores in training")
    )
    elu: float = field(default=0.5, metadata=about("minus the lowest value of the activation elu", low=0))
    scale: float = field(
        default=10.0,
        metadata=about(
            "what feature vectors are multiplied by; at 1, as published, those of length 1 are learnt "
            "from much slower than ids",
            low=0.001, search=("log", 3, 30),
        ),
    )  # fmt: skip
    embedded: int = field(
        default=0, metadata=about("width of a layer between features and GRU; 0: none, as published", low=0)
    )
    fine_tuned: bool = field(
        default=False, metadata=about("train the dense feature vectors too; false, as published")
    )
    order: Literal["time", "random"] = field(
        default="time", metadata=about("of the sessions in an epoch; time: the latest are learnt last")
    )
    last_clicks: int = field(
        default=50, metadata=about("clicks of the prefix that are read in answering, the last ones", low=1)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._weights(None)
        if self.weights.strip() and self.architecture in ONE_GRU:
            raise ConfigError(
                f"prnn: weights={self.weights!r} weigh subnets, and architecture={self.architecture} is one "
                "GRU; leave weights out, or choose parallel, shared or interaction"
            )
        if self.embedded and self.architecture in ("id", "concatenated"):
            raise ConfigError(
                f"prnn: embedded={self.embedded} is a layer before the GRU of features alone, and "
                f"architecture={self.architecture} has none; leave it out, or choose another architecture"
            )
        check_correction(self.name, self.logq, self.loss, self.activation)

    @property
    def representations(self) -> list[str]:
        """What the items are read by: "id", and the features by name."""
        of_features = [] if self.architecture == "id" else list(self._given)
        return of_features if self.architecture == "feature" else ["id", *of_features]

    # -- training

    def _fit(self, sessions: Sessions) -> None:
        if self._features is not None and self.architecture == "id":
            raise ConfigError("prnn: architecture=id reads no features; choose another one, or give none")
        if self._features is None and self.architecture == "feature":
            raise DataError(
                "prnn: architecture=feature needs item features: --features DIR (features in Python)"
            )
        super()._fit(sessions)

    def _learn(self, sessions: Sessions, workers: Workers) -> None:
        self.facts["representations"] = self.representations
        super()._learn(sessions, workers)

    def _whole_network(self, n_items: int) -> nn.Module:
        network: nn.Module = self._network(n_items)  # its subnets read the features
        return network

    def _train(self, sessions: Sessions, fitted: Sessions, kept: Sessions, workers: Workers) -> None:
        epochs = self._stages("training", fitted, kept, workers, [])
        if self.refit and kept.n_pairs:
            self._stages("refit", sessions, sessions[:0], workers, epochs)

    def _stages(
        self, stage: str, sessions: Sessions, kept: Sessions, workers: Workers, epochs: list[int]
    ) -> list[int]:
        """Train a new network, in as many stages as the strategy has; return the best epoch of each."""
        self.network = self._started()
        n = len(self.network.subnets)
        if self.strategy != "residual":
            passes = self.epochs * (n if self.strategy == "alternating" else 1)
            self._trained_subnet = 0
            return [self._stage(stage, sessions, kept, workers, epochs=[*epochs, passes][0]).epoch]
        best = []
        for k, subnet in enumerate(self.network.subnets):
            self._trained_subnet, self.network.active = k, k + 1
            chosen = epochs[k] if epochs else None
            name = stage if n == 1 else f"{stage}-{subnet.name}"
            best.append(self._stage(name, sessions, kept, workers, epochs=chosen).epoch)
        return best

    def _in_a_step(self, batch: int, n_items: int) -> int:
        from nextclick.network.sampling import in_a_step

        return in_a_step(batch, self.n_samples, self.hidden * len(self.representations))

    def _objective(self, network: Any, sessions: Sessions, workers: Workers) -> Objective:
        from nextclick.network.sampling import Lanes, NegativeSampler
        from nextclick.parallel.objective import ParallelItems

        return ParallelItems(
            network, Lanes(sessions, self.batch_size), NegativeSampler(sessions.support(), self.alpha),
            strategy=self.strategy, stage=self._trained_subnet, loss=self.loss, n_samples=self.n_samples,
            momentum=self.momentum, order=self.order, activation=self.activation, elu=self.elu,
            regularisation=self.bpreg, logq=self.logq, workers=workers,
        )  # fmt: skip

    def _network(self, n_items: int) -> Any:
        from nextclick.network.sources import IdSource
        from nextclick.parallel.network import ParallelNetwork, Subnet, start

        self._check_fine_tuned()
        wide = 3 * self.hidden
        if self.architecture in ONE_GRU:
            network = ParallelNetwork(n_items, [self._whole(n_items)], "parallel", [1.0], self.dropout_hidden)
        else:
            merge: Any = self.architecture
            subnets = [Subnet("id", [IdSource(n_items, wide)], self.hidden)]
            subnets += [
                Subnet(name, [self._source(name)], self.hidden, self.embedded) for name in self._given
            ]
            network = ParallelNetwork(
                n_items, subnets, merge, self._weights(len(subnets)), self.dropout_hidden
            )
        start(network)
        return network

    def _check_fine_tuned(self) -> None:
        from nextclick.features import Dense

        if self.fine_tuned and self._given and not any(isinstance(of, Dense) for of in self._given.values()):
            raise ConfigError(
                f"prnn: fine_tuned=true trains dense feature vectors, such as those of pictures, and these "
                f"features are sparse ones alone: {', '.join(self._given)}; leave it out"
            )

    def _whole(self, n_items: int) -> Subnet:
        """The one GRU of an architecture without parallel ones."""
        from nextclick.network.sources import IdSource
        from nextclick.parallel.network import Subnet

        wide = 3 * self.hidden
        sources: list[Any] = [] if self.architecture == "feature" else [IdSource(n_items, wide)]
        if self.architecture != "id":
            sources += [self._source(name) for name in self._given]
        return Subnet("+".join(self.representations), sources, self.hidden, self.embedded)

    def _source(self, name: str) -> Any:
        from nextclick.network.sources import source_of

        wide = self.embedded or 3 * self.hidden
        return source_of(name, self._given[name], wide, self.fine_tuned, self.scale)

    def _weights(self, n: int | None) -> list[float]:
        """Read the setting ``weights``, for n subnets if that is known."""
        texts = [text for text in self.weights.split(",") if text.strip()]
        try:
            found = [float(text) for text in texts]
        except ValueError:
            found = [float("nan")]
        if not all(np.isfinite(found)):
            raise ConfigError(f"prnn: weights={self.weights!r}: write numbers, ids first, such as 1,0.5")
        if n is not None and found and len(found) != n:
            raise ConfigError(
                f"prnn: weights={self.weights!r} are {len(found)}, but there are {n} subnets: id"
                f"{''.join(f', {name}' for name in self._given)}"
            )
        return found or [1.0] * (n or 0)

    def _session_vectors(self, queries: Queries) -> Tensor:
        from nextclick.network.batches import prefixes

        clicks, _, last = prefixes(queries, self.last_clicks)
        found: Tensor = self.network.last(clicks, last + 1)
        return found

    def _reader(self) -> nn.Module:
        from nextclick.parallel.network import WholeRows

        return WholeRows(self.network)

    # -- new items

    def _by_item(self) -> list[str]:
        from nextclick.network.sources import IdSource

        network: ParallelNetwork = self.network
        tables = {id(of.table) for of in network.modules() if isinstance(of, IdSource)}
        tables |= {id(weights) for weights in (*network.output, network.bias)}
        return [name for name, weights in network.named_parameters() if id(weights) in tables]

    def _of_new(self, state: Mapping[str, NDArray[Any]], new: NewItems) -> Mapping[str, NDArray[Any]]:
        from nextclick.network.sources import DenseSource

        return {
            f"{name}.table": np.concatenate([state[f"{name}.table"], self.scale * new.own[of.name].dense()])
            for name, of in self.network.named_modules()
            if isinstance(of, DenseSource) and of.fine_tuned
        }
