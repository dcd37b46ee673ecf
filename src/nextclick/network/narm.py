"""NARM, the neural attentive recommendation machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from nextclick.network.attentive import AttentiveRecommender
from nextclick.settings import about

if TYPE_CHECKING:
    from nextclick.network.scoring import Network


@dataclass(kw_only=True, eq=False)
class NARM(AttentiveRecommender):
    """A GRU over the session with attention on what it was for; all items scored by a bi-linear decoder.

    Source: Li et al., CIKM 2017; ``preset=paper`` is sec. 4.3.2 there, with a tenth of the sessions drawn at
    random to choose the epoch on, as their program does. The defaults score by cosines instead
    of plain products, which validation sessions prefer: fewer epochs, and more recall.
    """

    name: ClassVar[str] = "narm"
    summary: ClassVar[str] = "a recurrent network with attention on the purpose of the session"
    source: ClassVar[str] = "Li et al., CIKM 2017"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            **{"dim": 50, "temperature": 0.0, "learning_rate": 0.001, "decay": 1.0, "epochs": 30},
            "validation_by": "random",
        }
    }

    epochs: int = field(default=10, metadata=about("passes over the training sessions at most", low=1))
    learning_rate: float = field(
        default=0.003, metadata=about("of Adam", low=0, search=("log", 0.0003, 0.01))
    )
    decay: float = field(
        default=0.6,
        metadata=about("factor on the learning rate after each epoch", low=0, high=1, search=(0.4, 1.0)),
    )
    hidden: int = field(default=100, metadata=about("units of the GRU", low=1, search=[50, 100, 150, 200]))
    encoder: Literal["hybrid", "global", "local"] = field(
        default="hybrid", metadata=about("order of the clicks (global), their purpose (local), or both")
    )
    decoder: Literal["bilinear", "full"] = field(
        default="bilinear", metadata=about("one matrix between session and items, or a vector per item")
    )
    dropout_items: float = field(
        default=0.25, metadata=about("on the item vectors", low=0, high=0.99, search=(0.0, 0.6))
    )
    dropout_session: float = field(
        default=0.5, metadata=about("on the session vector", low=0, high=0.99, search=(0.0, 0.7))
    )

    def _network(self, n_items: int) -> Network:
        from torch import nn

        from nextclick.network.encoders import NarmEncoder
        from nextclick.network.scoring import Network

        encoder = NarmEncoder(self.dim, self.hidden, self.encoder, self.dropout_items, self.dropout_session)
        full = self.decoder == "full"
        network = Network(
            n_items, self.dim, encoder, bilinear=not full, separate=full, temperature=self.temperature
        )
        for name, weights in network.named_parameters():
            if weights.ndim > 1:
                nn.init.xavier_normal_(weights)
            elif "gru" in name:
                nn.init.zeros_(weights)
        return network
