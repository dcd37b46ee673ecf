"""FPMC, factorised Markov chains, without its user term."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from nextclick.factors.recommender import FactorRecommender


@dataclass(kw_only=True, eq=False)
class FPMC(FactorRecommender):
    """A Markov chain whose transitions are products of factors: of the item left and of the item reached.

        score(j | prefix) = 1/|B| sum of <v_j^(I,L), v_l^(L,I)> over l in B, the last clicks of the prefix

    The paper's model has one more product, of the user with j, which an anonymous session does not have; its
    baskets are the last clicks here. Trained on each next click i and a drawn item j other than i, with
    x = score(i) - score(j) (S-BPR).

    Source: Rendle et al., WWW 2010; Li et al., CIKM 2017, sec. 4.2 (without the factors of users).
    ``preset=paper`` is their form: after the last click, one item drawn for each click, all items alike, a
    constant learning rate; they give no numbers for it.
    """

    name: ClassVar[str] = "fpmc"
    summary: ClassVar[str] = "a Markov chain in factors: what the last click leads to"
    source: ClassVar[str] = "Rendle et al., WWW 2010; Li et al. 2017 (NARM), sec. 4.2"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "last_clicks": 1, "samples": 1, "alpha": 0.0, "decay": 1.0,
            "learning_rate": 0.05, "regularisation": 0.01, "validation": 0.1,
        },
    }  # fmt: skip
    _sides: ClassVar[tuple[str, str]] = ("last", "next")
