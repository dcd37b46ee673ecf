"""GRU4Rec, and its improved form trained on whole prefixes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from nextclick.errors import ConfigError
from nextclick.network.all_items import AllItemsRecommender
from nextclick.network.recommender import NeuralRecommender
from nextclick.sessions import Sessions
from nextclick.settings import about

if TYPE_CHECKING:
    from nextclick.network.scoring import Network
    from nextclick.network.training import Objective
    from nextclick.network.workers import Workers


def check_correction(model: str, logq: float, loss: str, activation: str) -> None:
    """Raise ConfigError for a correction of how often items are drawn where there is no soft-max."""
    if logq > 0 and (loss != "cross-entropy" or activation != "linear"):
        raise ConfigError(
            f"{model}: logq={logq:g} corrects a soft-max: it needs loss=cross-entropy and "
            f"activation=linear, found {loss} and {activation}"
        )


@dataclass(kw_only=True, eq=False)
class GRU4Rec(NeuralRecommender):
    """A GRU over the session, trained session-parallel against sampled items.

    Every lane of a batch is a session; where one ends the next begins, from a state of zero. The negative
    samples of a click are the other lanes' next clicks and ``n_samples`` more, drawn by clicks^alpha.
    Source: Hidasi et al., ICLR 2016; Hidasi & Karatzoglou, CIKM 2018 (additional samples, TOP1-max,
    BPR-max). Adagrad with momentum changes only the item vectors that a step reads.
    ``preset=paper`` is the form of 2016, TOP1 over one-hot input; its learning rate and dropout were chosen
    on validation sessions. The defaults are ``preset=bpr-max``: a fixed number of epochs over all sessions.
    """

    name: ClassVar[str] = "gru4rec"
    summary: ClassVar[str] = "a recurrent network trained against sampled items"
    source: ClassVar[str] = "Hidasi et al., ICLR 2016; Hidasi & Karatzoglou, CIKM 2018"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "cross-entropy": {
            "loss": "cross-entropy", "batch_size": 32, "learning_rate": 0.2, "momentum": 0.2,
            "dropout_hidden": 0.4, "dropout_items": 0.0, "n_samples": 2048, "alpha": 0.5, "logq": 1.0,
            "epochs": 10, "validation": 0.0, "activation": "linear",
        },
        "bpr-max": {
            "loss": "bpr-max", "batch_size": 144, "learning_rate": 0.05, "momentum": 0.2,
            "dropout_hidden": 0.2, "dropout_items": 0.2, "n_samples": 2048, "alpha": 0.3, "logq": 0.0,
            "bpreg": 1.0, "activation": "elu", "elu": 0.5, "epochs": 10, "validation": 0.0,
        },
        "paper": {
            "loss": "top1", "embedding": "one-hot", "batch_size": 50, "learning_rate": 0.05, "momentum": 0.0,
            "dropout_hidden": 0.4, "dropout_items": 0.0, "n_samples": 0, "logq": 0.0, "activation": "tanh",
            "epochs": 10, "validation": 0.0,
        },
    }  # fmt: skip
    copies: ClassVar[int] = 5

    loss: Literal["cross-entropy", "bpr", "top1", "bpr-max", "top1-max"] = field(
        default="bpr-max", metadata=about("what a target has to win against its negative samples in")
    )
    epochs: int = field(default=10, metadata=about("passes over the training sessions at most", low=1))
    batch_size: int = field(default=144, metadata=about("sessions side by side", low=1, search=[32, 64, 144]))
    validation: float = field(
        default=0.0,
        metadata=about("share of the sessions, to choose the epoch on; 0: none", low=0, high=0.9),
    )
    learning_rate: float = field(default=0.05, metadata=about("of Adagrad", low=0, search=("log", 0.02, 0.3)))
    momentum: float = field(default=0.2, metadata=about("of Adagrad", low=0, high=0.99, search=(0.0, 0.8)))
    hidden: int = field(default=100, metadata=about("units of the GRU", low=1))
    layers: int = field(default=1, metadata=about("GRU layers", low=1, high=10))
    embedding: Literal["tied", "separate", "one-hot"] = field(
        default="tied",
        metadata=about(
            "item vectors that the GRU reads: those it predicts with, others of width dim, or none (one-hot)"
        ),
    )
    dim: int = field(default=100, metadata=about("width of the item vectors read; separate only", low=1))
    dropout_items: float = field(
        default=0.2, metadata=about("on the item vectors", low=0, high=0.99, search=(0.0, 0.6))
    )
    dropout_hidden: float = field(
        default=0.2, metadata=about("on the GRU's states", low=0, high=0.99, search=(0.0, 0.6))
    )
    n_samples: int = field(default=2048, metadata=about("additional negative samples of a step", low=0))
    alpha: float = field(
        default=0.3,
        metadata=about("additional samples are drawn by clicks^alpha; 0 uniform", low=0, search=(0.0, 1.0)),
    )
    logq: float = field(
        default=0.0, metadata=about("strength of the correction for how often a candidate is drawn", low=0)
    )
    bpreg: float = field(
        default=1.0, metadata=about("weight of bpr-max's score regularisation", low=0, search=(0.0, 2.0))
    )
    activation: Literal["linear", "tanh", "elu"] = field(
        default="elu", metadata=about("on the scores in training")
    )
    elu: float = field(default=0.5, metadata=about("minus the lowest value of the activation elu", low=0))
    order: Literal["time", "random"] = field(
        default="time", metadata=about("of the sessions in an epoch; time: the latest are learnt last")
    )
    last_clicks: int = field(
        default=50, metadata=about("clicks of the prefix that are read in answering, the last ones", low=1)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_correction(self.name, self.logq, self.loss, self.activation)

    def _network(self, n_items: int) -> Network:
        from nextclick.network.encoders import GruEncoder
        from nextclick.network.scoring import Network

        one_hot = self.embedding == "one-hot"
        dim = {"tied": self.hidden, "separate": self.dim, "one-hot": 3 * self.hidden}[self.embedding]
        encoder = GruEncoder(
            dim, self.hidden, self.layers, one_hot=one_hot,
            dropout_items=self.dropout_items, dropout_hidden=self.dropout_hidden,
        )  # fmt: skip
        network = Network(n_items, dim, encoder, separate=self.embedding != "tied", bias=True)
        start_uniformly(network)
        return network

    def _in_a_step(self, batch: int, n_items: int) -> int:
        from nextclick.network.sampling import in_a_step

        return in_a_step(batch, self.n_samples, self.hidden)

    def _objective(self, network: Network, sessions: Sessions, workers: Workers) -> Objective:
        from nextclick.network.objectives import SampledItems
        from nextclick.network.sampling import Lanes, NegativeSampler

        return SampledItems(
            network, Lanes(sessions, self.batch_size), NegativeSampler(sessions.support(), self.alpha),
            loss=self.loss, n_samples=self.n_samples, momentum=self.momentum, order=self.order,
            activation=self.activation, elu=self.elu, regularisation=self.bpreg, logq=self.logq,
            workers=workers,
        )  # fmt: skip


@dataclass(kw_only=True, eq=False)
class GRU4RecPlus(AllItemsRecommender):
    """A GRU trained on every prefix against all items, then once more on the latest sessions.

    Whole clicks are left out at random in training; the second training, on the latest share of the sessions
    and at a lower learning rate, follows what has changed since. It is kept only where the validation
    sessions gain by it.  Source: Tan et al., DLRS 2016, as the improved GRU4Rec that Li et al., CIKM 2017
    compare with.
    """

    name: ClassVar[str] = "gru4rec-plus"
    summary: ClassVar[str] = "a recurrent network trained on all prefixes, then on the latest sessions"
    source: ClassVar[str] = "Tan et al., DLRS 2016"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}

    dim: int = field(default=50, metadata=about("width of the item vectors", low=1, search=[50, 100]))
    hidden: int = field(default=100, metadata=about("units of the GRU", low=1, search=[100, 200]))
    dropout_clicks: float = field(
        default=0.25,
        metadata=about("share of the clicks left out of the prefix", low=0, high=0.99, search=(0.0, 0.5)),
    )
    dropout_hidden: float = field(
        default=0.25, metadata=about("on the GRU's states", low=0, high=0.99, search=(0.0, 0.6))
    )
    recent: float = field(
        default=0.25, metadata=about("share of the sessions, the latest, to train on again", low=0, high=1)
    )
    recent_rate: float = field(
        default=0.2, metadata=about("learning rate of the second training, as a share of the first", low=0)
    )

    def _network(self, n_items: int) -> Network:
        from torch import nn

        from nextclick.network.encoders import GruEncoder
        from nextclick.network.scoring import Network

        encoder = GruEncoder(
            self.dim, self.hidden, dropout_clicks=self.dropout_clicks, dropout_hidden=self.dropout_hidden
        )
        network = Network(n_items, self.dim, encoder, bilinear=True, temperature=self.temperature)
        for weights in network.parameters():
            nn.init.xavier_normal_(weights) if weights.ndim > 1 else nn.init.zeros_(weights)
        return network

    def _train(self, sessions: Sessions, fitted: Sessions, kept: Sessions, workers: Workers) -> None:
        epochs = self._both(fitted, kept, workers, (None, None), "")
        if self.refit and kept.n_pairs:
            self._both(sessions, kept[:0], workers, epochs, "refit ")

    def _both(
        self, fitted: Sessions, kept: Sessions, workers: Workers, epochs: tuple[int | None, int | None],
        stage: str,
    ) -> tuple[int, int]:  # fmt: skip
        """Train on all, then on the latest; return the best epochs, 0 where the second gains nothing."""
        self.network = self._started()
        first = self._stage(f"{stage}training", fitted, kept, workers, epochs=epochs[0])
        latest = fitted[int(len(fitted) * (1 - self.recent)) :]
        if epochs[1] == 0 or latest.n_pairs == 0:
            return first.epoch, 0
        before = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        rate = self.learning_rate * self.recent_rate
        second = self._stage(f"{stage}latest", latest, kept, workers, epochs=epochs[1], rate=rate)
        if second.figure is not None and first.figure is not None and second.figure <= first.figure:
            self.network.load_state_dict(before)
            return first.epoch, 0
        return first.epoch, second.epoch


def start_uniformly(network: Network) -> None:
    """Start every matrix [n, m] evenly in +-sqrt(6 / (n + m)), each gate of a GRU by itself, and 0 elsewhere.

    Source: Glorot & Bengio, AISTATS 2010, as GRU4Rec has it.
    """
    from torch import nn

    for name, weights in network.named_parameters():
        if weights.ndim < 2 or name == "bias":
            nn.init.zeros_(weights)
        elif "gru" in name:
            for gate in weights.data.chunk(3) if weights.requires_grad else ():  # one-hot input stays as is
                nn.init.xavier_uniform_(gate)
        else:
            nn.init.xavier_uniform_(weights)
