"""GRU4Rec, and its improved form trained on whole prefixes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from nextclick.errors import ConfigError
from nextclick.network.recommender import NeuralRecommender
from nextclick.sessions import Sessions
from nextclick.settings import about

if TYPE_CHECKING:
    from nextclick.network.scoring import Network
    from nextclick.network.training import Objective
    from nextclick.network.workers import Workers


@dataclass(kw_only=True, eq=False)
class GRU4Rec(NeuralRecommender):
    """A GRU over the session, trained session-parallel against sampled items.

    Every lane of a batch is a session; where one ends the next begins, from a state of zero. The negative
    samples of a click are the other lanes' next clicks and ``n_samples`` more, drawn by clicks^alpha.
    Source: Hidasi et al., ICLR 2016; Hidasi & Karatzoglou, CIKM 2018 (additional samples, TOP1-max,
    BPR-max). Adagrad with momentum changes only the item vectors that a step reads.
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
            "loss": "top1", "embedding": "one-hot", "batch_size": 50, "learning_rate": 0.01, "momentum": 0.0,
            "dropout_hidden": 0.5, "dropout_items": 0.0, "n_samples": 0, "logq": 0.0, "activation": "tanh",
            "epochs": 10, "validation": 0.0,
        },
    }  # fmt: skip
    copies: ClassVar[int] = 5

    loss: Literal["cross-entropy", "bpr", "top1", "bpr-max", "top1-max"] = field(
        default="bpr-max", metadata=about("what a target has to win against its negative samples in")
    )
    epochs: int = field(default=10, metadata=about("passes over the training sessions at most", low=1))
    batch_size: int = field(default=144, metadata=about("sessions side by side", low=1))
    learning_rate: float = field(default=0.05, metadata=about("of Adagrad", low=0))
    momentum: float = field(default=0.2, metadata=about("of Adagrad", low=0, high=0.99))
    hidden: int = field(default=100, metadata=about("units of the GRU", low=1))
    layers: int = field(default=1, metadata=about("GRU layers", low=1, high=10))
    embedding: Literal["tied", "separate", "one-hot"] = field(
        default="tied",
        metadata=about(
            "item vectors that the GRU reads: those it predicts with, others of width dim, or none (one-hot)"
        ),
    )
    dim: int = field(default=100, metadata=about("width of the item vectors read; separate only", low=1))
    dropout_items: float = field(default=0.2, metadata=about("on the item vectors", low=0, high=0.99))
    dropout_hidden: float = field(default=0.2, metadata=about("on the GRU's states", low=0, high=0.99))
    n_samples: int = field(default=2048, metadata=about("additional negative samples of a step", low=0))
    alpha: float = field(
        default=0.3, metadata=about("additional samples are drawn by clicks^alpha; 0 uniform", low=0)
    )
    logq: float = field(
        default=0.0, metadata=about("strength of the correction for how often a candidate is drawn", low=0)
    )
    bpreg: float = field(default=1.0, metadata=about("weight of bpr-max's score regularisation", low=0))
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
        if self.logq > 0 and (self.loss != "cross-entropy" or self.activation != "linear"):
            raise ConfigError(
                f"gru4rec: logq={self.logq:g} corrects a soft-max: it needs loss=cross-entropy and "
                f"activation=linear, found {self.loss} and {self.activation}"
            )

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

    def _objective(self, network: Network, sessions: Sessions, workers: Workers) -> Objective:
        import torch

        from nextclick.network.objectives import SampledItems
        from nextclick.network.sampling import Lanes, NegativeSampler

        support = sessions.support()
        return SampledItems(
            network, Lanes(sessions, self.batch_size), NegativeSampler(support, self.alpha),
            torch.from_numpy(support / support.sum()).float(),
            loss=self.loss, n_samples=self.n_samples, momentum=self.momentum, order=self.order,
            activation=self.activation, elu=self.elu, regularisation=self.bpreg, logq=self.logq,
            workers=workers,
        )  # fmt: skip


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
