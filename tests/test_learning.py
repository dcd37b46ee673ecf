"""Learning has two sides: found on a directed chain, not found in noise."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import nextclick
from nextclick import MODELS, Sessions, metrics
from nextclick.ranking import Targets
from synthetic import DAY, chain

N_ITEMS = 50
CHANCE = sum(1 / rank for rank in range(1, 21)) / N_ITEMS  # 0.072: MRR@20 of a random order of 50 items

# MRR@20 on the chain with 10% random steps. An answer that is right whenever the last step and the next
# one followed the chain reaches 0.9; what each bound leaves below that has its reason.
REACHED = {
    "markov": 0.8,  # knows the direction: only the random steps are lost (reaches 0.91)
    "vs-knn": 0.7,  # the last clicks weigh most; after one click before and after look alike (0.84)
    "vmis-knn": 0.7,  # as vs-knn, on a bounded index
    "stan": 0.7,  # as vs-knn, with other weights (0.85)
    "item-knn": 0.6,  # co-occurrence looks both ways, so items of the session itself stand before (0.75)
    "narm": 0.75,  # reads the order; needs more clicks than there are here to know every step for sure
    "stamp": 0.75,  # the last click alone tells the next one
    "gru4rec": 0.8,  # reads the order, and fifty items are soon all sampled (0.91)
    "sml": 0.75,  # reads the order
    "gru4rec-plus": 0.75,  # reads the order (0.91)
    "prnn": 0.75,  # without features: a GRU over the ids against the other lanes alone
    "fpmc": 0.8,  # a first-order chain in factors: as markov (0.91)
    "bpr-mf": 0.25,  # products have no direction: both items read and the one before stand higher (0.30)
    "rrcre": 0.6,  # re-orders item-knn, whose candidates hold the next item; reads the last click
    "blend": 0.6,  # of item-knn and vs-knn
    "sknn": 0.5,  # sets of items: no click of the session says more than another (0.63 to 0.67)
}
TRAINED = {
    "stamp": {
        "epochs": 40,
        "patience": 40,
        "learning_rate": 0.02,
        "decay": 1,
        "dim": 48,
        "batch_size": 128,
    },
    "narm": {
        "epochs": 12,
        "validation": 0,
        "learning_rate": 0.01,
        "decay": 1,
        "dim": 24,
        "hidden": 32,
        "batch_size": 128,
    },
    "sml": {
        **{"epochs": 12, "validation": 0, "learning_rate": 0.01, "decay": 1, "dim": 32, "hidden": 32},
        **{"batch_size": 128, "dropout_items": 0.0, "dropout_session": 0.0},
    },
    "gru4rec": {
        **{"epochs": 12, "learning_rate": 0.1, "hidden": 32, "batch_size": 32, "n_samples": 32},
        **{"dropout_items": 0.0, "dropout_hidden": 0.0},
    },
    "prnn": {
        **{"epochs": 20, "learning_rate": 0.1, "hidden": 32, "batch_size": 32, "dropout_hidden": 0.0},
        "loss": "bpr-max",
    },
    "gru4rec-plus": {
        **{"epochs": 25, "patience": 25, "learning_rate": 0.02, "dim": 32, "hidden": 48, "batch_size": 128},
        **{"dropout_clicks": 0.0, "dropout_hidden": 0.0},
    },
    "rrcre": {"epochs": 12, "learning_rate": 0.01, "dim": 32, "batch_size": 64},
}  # enough to learn fifty items
NO_REMINDER = {"sknn", "vs-knn", "vmis-knn", "stan"}  # what was clicked already is never next on a chain
ORDER_BLIND = {"pop", "s-pop"}


@functools.cache
def split(noise: float) -> tuple[Sessions, Sessions]:
    sessions = chain(N_ITEMS, 700, noise=noise, seed=7)
    return sessions[:500], sessions[500:]


def held_out_mrr(name: str, noise: float, train: Sessions | None = None, **values: Any) -> float:
    fit_on, test = split(noise)
    queries, positions = test.pairs()
    model = nextclick.models.build(name, {**TRAINED.get(name, {}), **values})
    model.fit(fit_on if train is None else train)
    ranks = model.rank(queries, Targets.one_each(test.items[positions]), 20)
    return float(metrics.reciprocal_rank(ranks.better, ranks.ties, 20).mean())


def test_every_model_is_held_to_a_bound() -> None:
    assert REACHED.keys() | ORDER_BLIND == MODELS.keys()


@pytest.mark.parametrize("name", REACHED)
def test_finds_the_next_item_when_there_is_one(name: str) -> None:
    values = {"remind": "none"} if name in NO_REMINDER else {}
    reached = held_out_mrr(name, 0.1, **values)
    assert reached > REACHED[name]


@pytest.mark.parametrize("name", MODELS)
def test_finds_nothing_in_noise(name: str) -> None:
    """An upper bound: a model that sees its target, at fit or at score, fails here."""
    assert held_out_mrr(name, 1.0) < 1.5 * CHANCE


@pytest.mark.parametrize("name", REACHED)
def test_the_noise_bound_catches_a_model_that_saw_its_targets(name: str) -> None:
    """The second side has teeth: the same models, fitted on the test sessions too, exceed its bound.

    From lists that are held out a re-ranker learns that those of noise tell nothing, come what may.
    """
    _, test = split(1.0)
    values = {"held_out": "none"} if name == "rrcre" else {}
    seen = held_out_mrr(name, 1.0, train=test, **values)
    assert seen > 1.5 * CHANCE


def test_the_first_side_catches_transposed_transitions() -> None:
    """A chain that is walked backwards in training leads away from the next item."""
    fit_on, test = split(0.1)
    bounds = itertools.pairwise(fit_on.offsets.tolist())
    backwards = replace(fit_on, items=np.concatenate([fit_on.items[a:b][::-1] for a, b in bounds]))
    model = nextclick.Markov().fit(backwards)
    queries, positions = test.pairs()
    ranks = model.rank(queries, Targets.one_each(test.items[positions]), 20)
    assert metrics.reciprocal_rank(ranks.better, ranks.ties, 20).mean() < REACHED["markov"] / 2


def test_popular_items_are_found_where_popularity_is_all_there_is() -> None:
    """What the order-blind ones can find: half of the clicks on one item of fifty."""
    rng = np.random.default_rng(3)
    lists = [np.where(rng.random(6) < 0.5, 0, rng.integers(1, 50, 6)).tolist() for _ in range(300)]
    sessions = Sessions.from_lists(lists)
    queries, positions = sessions[200:].pairs()
    targets = Targets.one_each(sessions.items[sessions[:200].offsets[-1] :][positions])
    for name in ORDER_BLIND:
        ranks = nextclick.models.build(name).fit(sessions[:200]).rank(queries, targets, 20)
        assert metrics.recall(ranks.better, ranks.ties, 1).mean() > 0.4


def test_session_popularity_finds_repeated_clicks() -> None:
    rng = np.random.default_rng(4)
    lists = [[int(item)] * 5 for item in rng.integers(0, 50, 300)]
    sessions = Sessions.from_lists(lists)
    queries, positions = sessions[200:].pairs()
    targets = Targets.one_each(sessions[200:].items[positions])
    ranks = nextclick.SessionPopularity().fit(sessions[:200]).rank(queries, targets, 20)
    assert metrics.recall(ranks.better, ranks.ties, 1).tolist() == [1.0] * len(queries)


def test_sessions_of_long_ago_vote_when_there_are_no_others() -> None:
    """STAN's docstring of the floor: old sessions stay comparable instead of all zero."""
    train = Sessions.from_lists([["x", "y"], ["x", "y"], ["p", "q"]], [0, 1, 2, 3, 1000 * DAY, 1000 * DAY])
    found = nextclick.STAN(remind="none", lambda_snh=5).fit(train).recommend(["x"], 4)
    assert found[0].item == "y"
    assert found[0].score > found[1].score
