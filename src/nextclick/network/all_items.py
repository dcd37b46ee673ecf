"""What the networks that are trained with each next click against all items share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from nextclick.network.recommender import NeuralRecommender
from nextclick.sessions import Sessions
from nextclick.settings import about

if TYPE_CHECKING:
    from nextclick.network.scoring import Network
    from nextclick.network.training import Objective
    from nextclick.network.workers import Workers


@dataclass(kw_only=True, eq=False)
class AllItemsRecommender(NeuralRecommender):
    """Base of the networks that are trained with each next click against all items."""

    precision: Literal["float32", "bfloat16", "auto"] = field(
        default="float32",
        metadata=about(
            "of the large products in training; bfloat16 needs a processor made for it, auto takes it there"
        ),
    )
    temperature: float = field(
        default=0.0,
        metadata=about(
            "scores are cosines divided by it; 0: plain products, of vectors of any length",
            low=0, search=("log", 0.04, 0.2),
        ),
    )  # fmt: skip
    smoothing: float = field(
        default=0.0,
        metadata=about(
            "share of the target's probability spread over all items (label smoothing)",
            low=0, high=0.9, search=(0.0, 0.3),
        ),
    )  # fmt: skip
    weight_decay: float = field(
        default=0.0, metadata=about("of Adam, on all weights (L2)", low=0, search=("log", 1e-7, 1e-4))
    )

    def _in_a_step(self, batch: int, n_items: int) -> int:
        from nextclick.network.softmax import in_a_step

        # Each pair's clicks before it, as attention reads them, and the soft-max; cosines copy the items.
        width = max(int(getattr(self, name, 1)) for name in ("dim", "hidden"))
        cosines = 2 * n_items * width if self.temperature > 0 else 0
        return 4 * batch * self.last_clicks * width + in_a_step(n_items, width) + cosines

    def _objective(self, network: Network, sessions: Sessions, workers: Workers) -> Objective:
        from nextclick.network.batches import Rows
        from nextclick.network.objectives import AllItems
        from nextclick.network.softmax import product_type

        return AllItems(
            network, Rows(sessions, self.last_clicks), self.batch_size,
            smoothing=self.smoothing, weight_decay=self.weight_decay,
            low=product_type(self.precision, self._device), workers=workers,
        )  # fmt: skip
