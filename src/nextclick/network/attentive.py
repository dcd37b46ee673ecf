"""What NARM and STAMP share: scores by cosines, and weights of the clicks that can be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import ConfigError, DataError
from nextclick.network.all_items import AllItemsRecommender
from nextclick.reasons import Attention
from nextclick.sessions import UNKNOWN, ItemId, Queries
from nextclick.settings import about

_ROWS = 64  # prefixes weighed at once


@dataclass(kw_only=True, eq=False)
class AttentiveRecommender(AllItemsRecommender):
    """Base of the networks that weigh the clicks of a prefix by attention."""

    temperature: float = field(
        default=0.07,
        metadata=about(
            "scores are cosines divided by it; 0: plain products, of vectors of any length",
            low=0,
            search=("log", 0.04, 0.2),
        ),
    )
    dim: int = field(
        default=100, metadata=about("width of the item vectors", low=1, search=[50, 100, 150, 200])
    )

    def attention(self, session: Sequence[ItemId]) -> NDArray[np.float32]:
        """Return how much each click weighs for every prefix of a session, [T, T].

        session: the users' own item ids, oldest first; T counts those that the model knows, the others are
        skipped.  Entry [t, j] is the weight of click j when the prefix that ends with click t is answered;
        0 for later clicks, and for clicks before the last ``last_clicks``, which are not read. The weights
        do not add up to 1 and may be negative, since no soft-max is taken.
        Source: a_tj of Li et al., CIKM 2017, eqs. 7 and 8, for NARM; Liu et al., KDD 2018, for STAMP.
        Raises ConfigError where the settings leave no attention, and DataError where no item is known.
        """
        self.n_items  # noqa: B018 - refuses before fit
        if isinstance(session, str):
            raise DataError("a session is a list of item ids, found one text: write ['a'] for one item 'a'")
        codes = self.vocabulary.codes_of(session)
        known = codes[codes != UNKNOWN]
        if len(known) == 0:
            raise DataError(f"{self.name}: no item of the session is known, so there is nothing to weigh")
        weights = self._weights(known)
        if weights is None:
            raise ConfigError(
                f"{self.name}: these settings leave no attention to look at; fit it with encoder=hybrid or "
                "local (narm), with attended=true (stamp), or explain it by leaving clicks out"
            )
        return weights

    def reasons(self, prefix: NDArray[np.int32], items: NDArray[np.int32]) -> Attention | None:
        weights = self._weights(prefix)
        return None if weights is None else Attention(weights)

    def _weights(self, prefix: NDArray[np.int32]) -> NDArray[np.float32] | None:
        import torch

        from nextclick.network.batches import prefixes

        encoder: Any = self.network.encoder
        device = self.network.items.weight.device
        size = len(prefix)
        queries = Queries(prefix, np.zeros(size, np.int64), np.arange(1, size + 1))
        weights = np.zeros((size, size), np.float32)
        for low in range(0, size, _ROWS):
            with torch.inference_mode():
                clicks, mask, last = prefixes(queries[low : low + _ROWS], self.last_clicks)
                found = encoder.weigh(self.network.inputs(clicks.to(device)), mask.to(device))  # [B, L, L]
                if found is None:
                    return None
                rows = found[torch.arange(len(last)), last].cpu().numpy()  # [B, L]
            for end, row in enumerate(rows, start=low + 1):
                first = max(0, end - self.last_clicks)
                weights[end - 1, first:end] = row[: end - first]
        return weights
