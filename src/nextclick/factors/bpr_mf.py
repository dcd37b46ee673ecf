"""BPR-MF, matrix factorisation by pairwise ranking, for sessions without a user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from nextclick.factors.recommender import Examples, FactorRecommender
from nextclick.sessions import Sessions
from nextclick.settings import about


@dataclass(kw_only=True, eq=False)
class BPRMF(FactorRecommender):
    """Items and sessions are factors; a new session is the mean of the factors of its items so far.

        score(j | prefix) = 1/n sum of <h_i, h_j> over the last n clicks i of the prefix

    ``sessions=own`` is the published training: each training session s has factors w_s, as a user has in
    matrix factorisation, and x = <w_s, h_i> - <w_s, h_j> for each of its clicks i and an item j that it did
    not click, also where only some clicks are to be predicted; w is given up after training.
    ``sessions=mean`` trains what is asked afterwards: w_s is the
    mean of h over the clicks before i.

    Source: Rendle et al., UAI 2009 (the criterion, its ascent, matrix factorisation); Li et al., CIKM 2017,
    sec. 4.2 (the mean for new sessions). ``preset=paper`` is their form: sessions with factors of their own,
    one item drawn for each click, all items alike, a constant learning rate; they give no numbers for it.
    """

    name: ClassVar[str] = "bpr-mf"
    summary: ClassVar[str] = (
        "factors of items that rank clicked ones first; a session is the mean of its items"
    )
    source: ClassVar[str] = "Rendle et al., UAI 2009; Li et al. 2017 (NARM), sec. 4.2"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "sessions": "own", "last_clicks": None, "samples": 1, "alpha": 0.0, "decay": 1.0,
            "learning_rate": 0.05, "regularisation": 0.01, "validation": 0.1,
        },
    }  # fmt: skip
    _sides: ClassVar[tuple[str, str]] = ("items", "items")

    last_clicks: int | None = field(
        default=2, metadata=about("clicks of the prefix that are read, the last ones; none: all", low=1)
    )
    sessions: Literal["mean", "own"] = field(
        default="mean",
        metadata=about("factors of a training session: the mean of its clicks so far, or its own"),
    )

    def _rows(self, sessions: Sessions) -> int:
        return super()._rows(sessions) + (len(sessions) if self.sessions == "own" else 0)

    def _examples(self, sessions: Sessions, rng: np.random.Generator) -> Examples:
        examples = super()._examples(sessions, rng)
        if self.sessions == "mean":
            return examples
        at, of = np.arange(len(sessions.items)), sessions.session_of
        return Examples(
            at, of, at, at + 1, sessions.offsets[of], sessions.offsets[of + 1],
            self._started(len(sessions), rng),
        )  # fmt: skip
