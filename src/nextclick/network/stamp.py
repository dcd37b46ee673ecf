"""STAMP, the short-term attention/memory priority model, and its variant without attention, STMP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from nextclick.network.attentive import AttentiveRecommender
from nextclick.settings import about

if TYPE_CHECKING:
    from nextclick.network.scoring import Network

_PUBLISHED: Mapping[str, Any] = {
    **{"temperature": 0.0, "learning_rate": 0.003, "decay": 1.0, "epochs": 10, "released": True}
}


@dataclass(kw_only=True, eq=False)
class STAMP(AttentiveRecommender):
    """The attended memory of the session times its last click; no recurrence, so fast.

    The score of item i is the trilinear product <h_s, h_t, x_i>, put through a soft-max over all items.
    Source: Liu et al., KDD 2018. From the program that its authors released ``preset=paper`` takes a rate of
    0.003, ten epochs, a start from N(0, 0.002) for items and N(0, 0.05) for weights, and ``released``,
    which the paper does not have. The defaults score by cosines, which validation sessions prefer by far.
    Differs: the paper puts a sigmoid on the scores inside the soft-max, with which no item's share could rise
    above e/(e + N - 1), and adds log(1 - share) of the other items to the loss; both are left out.
    """

    name: ClassVar[str] = "stamp"
    summary: ClassVar[str] = "attention over the session's clicks, its last click weighing most"
    source: ClassVar[str] = "Liu et al., KDD 2018"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": _PUBLISHED,
        "stmp": {**_PUBLISHED, "attended": False},
    }

    epochs: int = field(default=8, metadata=about("passes over the training sessions at most", low=1))
    learning_rate: float = field(
        default=0.003, metadata=about("of Adam", low=0, search=("log", 0.0005, 0.02))
    )
    decay: float = field(
        default=0.6,
        metadata=about("factor on the learning rate after each epoch", low=0, high=1, search=(0.3, 1.0)),
    )
    attended: bool = field(
        default=True, metadata=about("weigh the clicks by attention; false: STMP, their mean")
    )
    released: bool = field(
        default=False,
        metadata=about(
            "read clicks as the authors' program does: at most 1 long, their mean added to the attended"
        ),
    )

    def _network(self, n_items: int) -> Network:
        from torch import nn

        from nextclick.network.encoders import StampEncoder
        from nextclick.network.scoring import Network

        network = Network(
            n_items,
            self.dim,
            StampEncoder(self.dim, self.attended, self.released),
            temperature=self.temperature,
        )
        for weights in network.parameters():
            nn.init.normal_(weights, std=0.05) if weights.ndim > 1 else nn.init.zeros_(weights)
        nn.init.normal_(network.items.weight, std=0.002)
        return network
