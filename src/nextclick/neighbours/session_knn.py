"""Session-based nearest neighbours: past sessions that resemble the current one vote for their items.

SKNN, VS-kNN, VMIS-kNN and STAN are one computation, ``session_votes``, with different weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import ConfigError
from nextclick.neighbours.session_votes import (
    K_RANGE,
    LAST_RANGE,
    SAMPLE_RANGE,
    SessionKNN,
    age_in_days,
)
from nextclick.sessions import Sessions
from nextclick.settings import Search, about

Weighting = Literal["same", "div", "linear", "log", "quadratic"]

_WEIGHTINGS: Search = ["same", "div", "linear", "log", "quadratic"]

_POSITION = "weight of the click at position p of n in the prefix: same 1, div p/n, linear 1-(n-p)/10, log 1/log10(n-p+1.7), quadratic (p/n)^2"  # noqa: E501
_STEP = "weight of a neighbour whose latest shared item lies s clicks back: same 1, div 1/s, linear 1-s/10, log 1/log10(s+1.7), quadratic 1/s^2"  # noqa: E501


@dataclass(kw_only=True, eq=False)
class SKNN(SessionKNN):
    """Session-based kNN: sessions as sets of items.

    score(j) = sum over the k most similar sessions n that hold j of sim(prefix, n).
    Source: Jannach & Ludewig, RecSys 2017; Twardowski et al., ECIR 2021, sec. 5.1.
    """

    name: ClassVar[str] = "sknn"
    summary: ClassVar[str] = "sessions that share items with the current one vote (sets of items)"
    source: ClassVar[str] = "Jannach & Ludewig, RecSys 2017"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"k": 100, "sample_size": 500, "similarity": "cosine", "last_clicks": None},
    }

    k: int = field(default=500, metadata=about("neighbouring sessions that vote", low=1, search=K_RANGE))
    sample_size: int = field(
        default=500,
        metadata=about("most recent sessions sharing an item that are compared", low=1, search=SAMPLE_RANGE),
    )
    last_clicks: int | None = field(
        default=2,
        metadata=about("use only the last clicks of the prefix; none: all of them", low=1, search=LAST_RANGE),
    )
    similarity: Literal["cosine", "jaccard", "dice"] = field(
        default="cosine",
        metadata=about("similarity of two sets of items", search=["cosine", "jaccard", "dice"]),
    )

    def _recipe(self) -> tuple[int, float, int, int, float]:
        from nextclick.neighbours import kernels

        similarity = {"cosine": kernels.COSINE, "jaccard": kernels.JACCARD, "dice": kernels.DICE}
        return kernels.SAME, 1.0, similarity[self.similarity], kernels.SAME, 0.0


@dataclass(kw_only=True, eq=False)
class VSKNN(SessionKNN):
    """Vector-multiplication session-based kNN: later clicks of the prefix weigh more.

    The similarity of a past session is the sum of the weights of the prefix items that it holds, over the
    number of distinct items in the prefix; its vote is scaled by how far back the latest shared item lies
    and, with ``idf``, by 1 + idf * ln(sessions / clicks of the item).
    Source: Ludewig & Jannach, User Modeling and User-Adapted Interaction 28, 2018.
    Differs: the linear weights and the logarithm stop at 0, where research code lets them turn negative.
    """

    name: ClassVar[str] = "vs-knn"
    summary: ClassVar[str] = "sessions like the current one vote, its last clicks weighing most"
    source: ClassVar[str] = "Ludewig & Jannach 2018 (V-SKNN)"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "k": 500, "sample_size": 5000, "weighting": "quadratic", "score_weighting": "div", "idf": 1.0,
            "last_clicks": None,
        },
    }  # fmt: skip

    k: int = field(default=200, metadata=about("neighbouring sessions that vote", low=1, search=K_RANGE))
    sample_size: int = field(
        default=1000,
        metadata=about("most recent sessions sharing an item that are compared", low=1, search=SAMPLE_RANGE),
    )
    last_clicks: int | None = field(
        default=5,
        metadata=about("use only the last clicks of the prefix; none: all of them", low=1, search=LAST_RANGE),
    )
    weighting: Weighting = field(default="log", metadata=about(_POSITION, search=_WEIGHTINGS))
    score_weighting: Weighting = field(default="div", metadata=about(_STEP, search=_WEIGHTINGS))
    idf: float = field(
        default=5.0,
        metadata=about(
            "how much rare items gain: score times 1 + idf * ln(sessions/clicks)", low=0, search=(0.0, 10.0)
        ),
    )
    idf_similarity: bool = field(
        default=False,
        metadata=about(
            "weigh shared items by ln(sessions/clicks) instead of their position", search=[False, True]
        ),
    )
    day_decay: float = field(
        default=1.0,
        metadata=about(
            "factor on a neighbour's similarity per day of age; 1: none (7/8 in research code)",
            low=0.01,
            high=1,
        ),
    )
    last_days: float | None = field(
        default=None, metadata=about("let only sessions of the last days vote; none: all", low=0)
    )

    def _recipe(self) -> tuple[int, float, int, int, float]:
        from nextclick.neighbours import kernels

        codes = {"same": kernels.SAME, "div": kernels.DIV, "linear": kernels.LINEAR, "log": kernels.LOG,
                 "quadratic": kernels.QUADRATIC}  # fmt: skip
        return codes[self.weighting], 1.0, kernels.VECTOR, codes[self.score_weighting], 0.0

    def _idf(self, sessions: Sessions) -> NDArray[np.float64]:
        return np.asarray(np.log(np.maximum(len(sessions) / np.maximum(sessions.support(), 1), 1.0)))

    def _item_factors(self, sessions: Sessions) -> NDArray[np.float64]:
        return np.asarray(1.0 + self.idf * self._idf(sessions))

    def _item_weights(self, sessions: Sessions) -> NDArray[np.float64]:
        return self._idf(sessions) if self.idf_similarity else np.empty(0)

    def _session_weights(self, sessions: Sessions) -> NDArray[np.float64]:
        weights = np.ones(len(sessions))
        if self.day_decay < 1 or self.last_days is not None:
            if not sessions.clock:
                raise ConfigError(
                    f"{self.name}: day_decay and last_days need clock time, and this log only orders its "
                    "clicks; leave them out"
                )
            age = age_in_days(sessions)
            weights = self.day_decay ** np.round(age)
            if self.last_days is not None:
                weights[age > self.last_days] = 0.0
        return weights


@dataclass(kw_only=True, eq=False)
class VMISKNN(VSKNN):
    """VS-kNN on a bounded index: each item keeps its ``sample_size`` most recent sessions only (and one).

    Sessions that no item keeps are dropped whole. Among the ``sample_size`` most recent sessions that share
    any item with the prefix, none can lie beyond the first ``sample_size`` of an item's own list; so the
    answers equal VS-kNN's, from a smaller index.
    Source: Kersbergen et al., SIGMOD 2022 (Serenade).
    """

    name: ClassVar[str] = "vmis-knn"
    summary: ClassVar[str] = "vs-knn's answers from a bounded index, for very large logs"
    source: ClassVar[str] = "Kersbergen et al., SIGMOD 2022"

    fits_by_engine: ClassVar[bool] = True
    _bounded: ClassVar[bool] = True


@dataclass(kw_only=True, eq=False)
class STAN(SessionKNN):
    """Sequence and time aware neighbourhood: three exponential decays on top of the session neighbours.

    The click at position p of n weighs exp((p - n) / lambda_spw) in a cosine similarity; a past session
    weighs exp(-age / lambda_snh); inside it an item weighs exp(-|distance to the last shared item| /
    lambda_inh).  Source: Garg et al., SIGIR 2019.
    Differs: the age counts from the end of training, not from the query, which scales all scores of a
    query by the same factor. On a log without clock ages count sessions (``lambda_snh_sessions``).
    """

    name: ClassVar[str] = "stan"
    summary: ClassVar[str] = "session neighbours with decays over position, age and distance"
    source: ClassVar[str] = "Garg et al., SIGIR 2019"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "k": 500, "sample_size": 5000, "lambda_spw": 1.02, "lambda_snh": 5.0, "lambda_snh_sessions": None,
            "lambda_inh": 2.05, "last_clicks": None,
        },
    }  # fmt: skip

    k: int = field(default=500, metadata=about("neighbouring sessions that vote", low=1, search=K_RANGE))
    sample_size: int = field(
        default=5000,
        metadata=about("most recent sessions sharing an item that are compared", low=1, search=SAMPLE_RANGE),
    )
    lambda_spw: float = field(
        default=1.02,
        metadata=about(
            "clicks over which the weight in the prefix falls to 1/e", low=0.01, search=("log", 0.3, 6.0)
        ),
    )
    lambda_snh: float | None = field(
        default=5.0,
        metadata=about(
            "days over which a neighbour's weight falls to 1/e; none: no decay",
            low=0.01,
            search=("log", 0.5, 200.0),
        ),
    )
    lambda_snh_sessions: float | None = field(
        default=100_000.0,
        metadata=about(
            "the same, in later sessions instead of days, for logs without clock",
            low=1,
            search=("log", 5_000.0, 500_000.0),
        ),
    )
    lambda_inh: float = field(
        default=3.0,
        metadata=about(
            "clicks over which an item's weight in a neighbour falls to 1/e",
            low=0.01,
            search=("log", 0.3, 8.0),
        ),
    )

    def _recipe(self) -> tuple[int, float, int, int, float]:
        from nextclick.neighbours import kernels

        return kernels.EXP, self.lambda_spw, kernels.COSINE, kernels.SAME, self.lambda_inh

    def _session_weights(self, sessions: Sessions) -> NDArray[np.float64]:
        if sessions.clock:
            scale = self.lambda_snh
            age = age_in_days(sessions)
        else:
            scale = self.lambda_snh_sessions
            age = np.arange(len(sessions) - 1, -1, -1, dtype=np.float64)
        # The floor, which float32 can still hold, keeps very old sessions from having no vote at all.
        return np.ones(len(sessions)) if scale is None else np.exp(-np.minimum(age / scale, 60.0))
