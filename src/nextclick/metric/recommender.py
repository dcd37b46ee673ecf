"""SML: metric learning with any session encoder, distance, loss and sampler."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from nextclick.errors import ConfigError
from nextclick.network.recommender import NeuralRecommender
from nextclick.sessions import Sessions
from nextclick.settings import about

if TYPE_CHECKING:
    from torch import nn

    from nextclick.index import Likeness
    from nextclick.metric.network import MetricNetwork
    from nextclick.metric.samplers import Sampler
    from nextclick.network.training import Objective, Options
    from nextclick.network.workers import Workers

# Secs. 4.1 to 4.5 and 5.2 of the paper; validation measures the 5% there.
_PUBLISHED: Mapping[str, Any] = {
    "encoder": "gru", "hidden": 400, "dim": 400, "layers": 2, "item_encoder": "tanh",
    "loss": "ncas", "epsilon": 0.3, "margin": 0.3, "temperature": 1.0,
    "sampler": "split", "positives": 8, "negatives": "own", "n_negatives": 8, "alpha": 0.0,
    "last_clicks": 15, "dropout_items": 0.0, "dropout_session": 0.0,
    "batch_size": 32, "learning_rate": 0.001, "epochs": 150, "decay": 0.1, "gain": 0.005, "patience": 3,
    "validation": 0.05,
}  # fmt: skip


@dataclass(kw_only=True, eq=False)
class SML(NeuralRecommender):
    """Session-based metric learning: the items nearest to the session in a space of both.

    Source: Twardowski et al. 2021; ``preset=paper`` has the settings published there. The defaults train on
    every prefix against 1,024 drawn items, which costs a third of training against all of them.
    """

    name: ClassVar[str] = "sml"
    summary: ClassVar[str] = "sessions and items in one space, by any encoder and metric loss"
    source: ClassVar[str] = "Twardowski et al. 2021 (SML)"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": _PUBLISHED}

    epochs: int = field(default=6, metadata=about("passes over the training sessions at most", low=1))
    batch_size: int = field(
        default=512, metadata=about("prefixes in one step, about", low=1, search=[128, 256, 512, 1024])
    )
    learning_rate: float = field(
        default=0.003, metadata=about("of Adam", low=0, search=("log", 0.0003, 0.01))
    )
    decay: float = field(
        default=0.6,
        metadata=about("factor on the learning rate after each epoch (see gain)", low=0, high=1),
    )
    gain: float = field(
        default=0.0,
        metadata=about(
            "the rate falls after an epoch only where the figure rose by less than this share, and training "
            "stops when it would fall more than patience times; 0: it falls after every epoch",
            low=0, high=1,
        ),
    )  # fmt: skip
    last_clicks: int = field(
        default=15, metadata=about("clicks of the prefix that are read, the last ones", low=1)
    )
    encoder: Literal["max-pool", "average", "text-cnn", "tag-space", "caser", "gru", "lstm", "rnn"] = field(
        default="gru", metadata=about("what makes a session of its clicks")
    )
    loss: Literal["ncas", "triplet", "contrastive", "bpr", "top1"] = field(
        default="ncas", metadata=about("what distances to positives and negatives are put into")
    )
    distance: Literal["cosine", "euclidean"] = field(
        default="cosine", metadata=about("1 - cosine, or the squared Euclidean distance")
    )
    normalise: bool = field(default=True, metadata=about("sessions and items have length 1; cosine needs it"))
    temperature: float = field(
        default=0.07,
        metadata=about("distances are divided by it, in ncas and bpr", low=0.001, search=("log", 0.04, 0.2)),
    )
    margin: float = field(
        default=0.3,
        metadata=about("of triplet and contrastive, in the unit of the distance", low=0, search=(0.05, 0.6)),
    )
    epsilon: float = field(
        default=0.0,
        metadata=about(
            "share of the truth spread over all candidates, in ncas", low=0, high=0.9, search=(0.0, 0.3)
        ),
    )
    swap: bool = field(
        default=False,
        metadata=about("a negative counts with the smaller of its distances to session and positive"),
    )
    position_weights: bool = field(
        default=True, metadata=about("the j-th click that followed counts sqrt(1 / (1 + j)), j from 0")
    )
    sampler: Literal["every", "split", "window"] = field(
        default="every",
        metadata=about("prefixes trained on: every one, one random split of a session, or a sliding window"),
    )
    positives: int = field(
        default=1, metadata=about("clicks after the prefix that count as positives, at most", low=1)
    )
    top_up: bool = field(
        default=False,
        metadata=about("positives that are lacking are items of similar sessions; sampler split only"),
    )
    window: int = field(default=5, metadata=about("clicks in the sliding window", low=1))
    negatives: Literal["all", "shared", "own", "batch", "hard"] = field(
        default="shared",
        metadata=about(
            "all items (ncas), n_negatives drawn for a step or for each prefix, the positives of the batch's "
            "other prefixes, or the nearest n_negatives of those"
        ),
    )
    precision: Literal["float32", "bfloat16", "auto"] = field(
        default="float32",
        metadata=about(
            "of the products with all items; bfloat16 needs a processor made for it, auto takes it there"
        ),
    )
    n_negatives: int = field(
        default=1024,
        metadata=about("negative samples, where negatives is shared, own or hard", low=1),
    )
    alpha: float = field(
        default=0.0,
        metadata=about("negatives are drawn by clicks^alpha; 0: all alike", low=0, search=(0.0, 1.0)),
    )
    dim: int = field(default=100, metadata=about("width of the space", low=1, search=[50, 100, 150, 200]))
    hidden: int = field(
        default=100,
        metadata=about(
            "units of a recurrent encoder, filters of each size of a convolution", low=1,
            search=[50, 100, 150, 200],
        ),
    )  # fmt: skip
    layers: int = field(
        default=1, metadata=about("fully connected layers behind the session encoder", low=0, high=10)
    )
    item_encoder: Literal["none", "tanh"] = field(
        default="none",
        metadata=about("the item's vector as it is, or through a fully connected layer and tanh"),
    )
    common: bool = field(
        default=True, metadata=about("sessions are read by the item side's vectors; false: by others")
    )
    dropout_items: float = field(
        default=0.25, metadata=about("on the vectors of the clicks", low=0, high=0.99, search=(0.0, 0.6))
    )
    dropout_session: float = field(
        default=0.5, metadata=about("behind the session encoder", low=0, high=0.99, search=(0.0, 0.7))
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distance == "cosine" and not self.normalise:
            raise ConfigError(
                f"{self.name}: normalise=false: cosines are those of vectors of length 1; without it, set "
                "distance=euclidean"
            )
        if self.negatives == "all" and self.loss != "ncas":
            raise ConfigError(
                f"{self.name}: negatives=all goes with loss=ncas; for loss={self.loss}, set negatives=shared"
            )
        if self.swap and self.loss == "ncas":
            raise ConfigError(f"{self.name}: swap=true goes with a loss of pairs, not with loss=ncas")
        if self.top_up and self.sampler != "split":
            raise ConfigError(f"{self.name}: top_up=true goes with sampler=split")

    def _network(self, n_items: int) -> MetricNetwork:  # type: ignore[override]
        from nextclick.metric.network import MetricNetwork

        return MetricNetwork(
            n_items, self.dim, self.encoder, self.hidden, self.last_clicks,
            layers=self.layers, tanh=self.item_encoder == "tanh", common=self.common,
            distance=self.distance, normalised=self.normalise,
            dropout_items=self.dropout_items, dropout_session=self.dropout_session,
        )  # fmt: skip

    def _reader(self) -> nn.Module:
        from nextclick.metric.encoders import as_gru
        from nextclick.network.exported import LastPlaces

        if self.encoder != "rnn":
            return super()._reader()
        network = copy.deepcopy(self.network)
        network.encoder.cells = as_gru(network.encoder.cells)
        return LastPlaces(network)

    @property
    def _likeness(self) -> Likeness:
        return "product" if self.distance == "cosine" else "euclidean"

    def _options(self, epochs: int, rate: float) -> Options:
        return replace(super()._options(epochs, rate), gain=self.gain)

    def _in_a_step(self, batch: int, n_items: int) -> int:
        from nextclick.network.softmax import in_a_step

        n = {"all": 0, "batch": batch * self.positives, "hard": batch * self.positives}
        candidates = n.get(self.negatives, self.n_negatives)
        sets = batch if self.negatives == "own" else 1  # of candidates, each with their vectors
        clicks = batch * self.last_clicks * (self.dim + self.hidden)
        held = 4 * clicks + 3 * batch * candidates + 2 * sets * candidates * self.dim
        return held + (in_a_step(n_items, self.dim) if self.negatives == "all" else 0)

    def _objective(self, network: Any, sessions: Sessions, workers: Workers) -> Objective:
        from nextclick.metric.objective import Choices, MetricObjective
        from nextclick.network.sampling import NegativeSampler
        from nextclick.network.softmax import product_type

        choices = Choices(
            self.loss, self.margin, self.epsilon, self.swap, self.position_weights, self.temperature,
            self.negatives, self.n_negatives,
        )  # fmt: skip
        return MetricObjective(
            network, self._sampler(sessions), self.batch_size, choices,
            NegativeSampler(sessions.support(), self.alpha), workers,
            product_type(self.precision, self._device),
        )  # fmt: skip

    def _sampler(self, sessions: Sessions) -> Sampler:
        from nextclick.metric import samplers

        if self.sampler == "every":
            return samplers.EveryClick(sessions, self.last_clicks, self.positives)
        if self.sampler == "window":
            return samplers.SlidingWindow(sessions, self.last_clicks, self.positives, self.window)
        more = samplers.neighbours(sessions, self.positives) if self.top_up else None
        return samplers.RandomSplit(sessions, self.last_clicks, self.positives, more)
