"""The compiled neighbour models against the straightforward ones, rank by rank, and by hand."""

from __future__ import annotations

from math import log, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import straightforward as slow
from nextclick import SKNN, STAN, VMISKNN, VSKNN, ConfigError, ItemKNN, Markov, Recommender, Sessions, prepare
from nextclick.ranking import Targets

PAIRS: list[tuple[Recommender, Any]] = [
    (Markov(), slow.Markov()),
    (ItemKNN(formula="narm", counts="clicks", last_clicks=1), slow.ItemKNN("narm", "clicks", 20.0)),
    (ItemKNN(formula="narm", regularisation=3.5, last_clicks=1), slow.ItemKNN("narm", "sessions", 3.5)),
    (ItemKNN(asymmetry=0.5, last_clicks=1), slow.ItemKNN("cosine", "sessions", asymmetry=0.5)),
    (ItemKNN(asymmetry=0.8, last_clicks=1), slow.ItemKNN("cosine", "sessions", asymmetry=0.8)),
    *(
        (
            SKNN(k=7, sample_size=20, last_clicks=None, similarity=similarity),
            slow.SessionKNN(7, 20, similarity),
        )
        for similarity in ("cosine", "jaccard", "dice")
    ),
    *(
        (
            VSKNN(
                k=7,
                sample_size=20,
                last_clicks=4,
                weighting=weighting,
                score_weighting=score_weighting,
                idf=idf,
            ),
            slow.SessionKNN(7, 20, "vector", weighting, score_weighting, idf, last_clicks=4),
        )
        for weighting, score_weighting, idf in [
            ("same", "same", 0.0),
            ("div", "quadratic", 0.5),
            ("linear", "log", 1.0),
            ("log", "linear", 2.0),
            ("quadratic", "div", 1.0),
        ]
    ),
    (
        STAN(k=7, sample_size=20, lambda_spw=1.02, lambda_snh_sessions=30.0, lambda_inh=2.05),
        slow.SessionKNN(7, 20, "cosine", lambda_spw=1.02, lambda_snh_sessions=30.0, lambda_inh=2.05),
    ),
]


def assert_same_ranks(fast: Recommender, reference: Any, train: Sessions, test: Sessions) -> None:
    fast.fit(train)
    reference.fit(slow.frame(train))
    queries, positions = test.pairs()
    targets = test.items[positions]
    ranks = fast.rank(queries, Targets.one_each(targets), 5)
    for i, target in enumerate(targets.tolist()):
        expected = slow.rank(reference.scores(queries.prefix(i).tolist()), target, train.n_items)
        assert (ranks.better[i], ranks.ties[i]) == expected, (i, queries.prefix(i), target)


@st.composite
def logs(draw: st.DrawFn) -> tuple[Sessions, Sessions]:
    n_items = draw(st.integers(2, 12))
    one = st.lists(st.integers(0, n_items - 1), min_size=1, max_size=9)
    sessions = Sessions.from_lists(draw(st.lists(one, min_size=3, max_size=40)))
    cut = draw(st.integers(0, len(sessions) - 1))
    return sessions, sessions[cut:]


@pytest.mark.parametrize(
    ("fast", "reference"), PAIRS, ids=lambda one: repr(one) if isinstance(one, Recommender) else ""
)
@given(log=logs())
@settings(max_examples=40, deadline=None)
def test_fast_equals_straightforward(
    fast: Recommender, reference: Any, log: tuple[Sessions, Sessions]
) -> None:
    assert_same_ranks(fast, reference, *log)


@pytest.mark.parametrize(
    ("fast", "reference"),
    [
        (ItemKNN(n_neighbours=3000, last_clicks=1, asymmetry=0.5), slow.ItemKNN("cosine", "sessions")),
        (SKNN.preset("paper"), slow.SessionKNN(100, 500, "cosine")),
        (VSKNN(), slow.SessionKNN(200, 1000, "vector", "log", "div", 5.0, last_clicks=5)),
        (VSKNN.preset("paper"), slow.SessionKNN(500, 5000, "vector", "quadratic", "div", 1.0)),
        (
            STAN(
                k=500, sample_size=5000, lambda_snh=None, lambda_spw=1.02, lambda_inh=2.05, last_clicks=None
            ),
            slow.SessionKNN(500, 5000, "cosine", lambda_spw=1.02, lambda_inh=2.05),
        ),
    ],
    ids=["item-knn", "sknn", "vs-knn", "vs-knn paper", "stan"],
)
def test_fast_equals_straightforward_on_a_real_log(
    fast: Recommender, reference: Any, shared_data: Path, tmp_path: Path
) -> None:
    data = prepare(
        train=shared_data / "rsc15-100k" / "train.parquet",
        test=shared_data / "rsc15-100k" / "test.parquet",
        out=tmp_path / "data",
    )
    assert_same_ranks(fast, reference, data.train, data.test[:60])


def test_vmis_knn_answers_as_vs_knn_from_a_smaller_index() -> None:
    rng = np.random.default_rng(3)
    sessions = Sessions.from_lists([rng.zipf(1.4, rng.integers(1, 9)) % 50 for _ in range(2000)])
    full, bounded = VSKNN(k=20, sample_size=60).fit(sessions), VMISKNN(k=20, sample_size=60).fit(sessions)
    assert len(bounded._postings[1]) < len(full._postings[1]) / 2
    queries, _ = sessions[-300:].pairs()
    for ours, theirs in zip(full.top(queries, 20), bounded.top(queries, 20), strict=True):
        assert np.array_equal(ours, theirs)


# Sessions: abc, ab, bd. n_a = 2, n_b = 3, n_c = 1, n_d = 1; together: ab 2, ac 1, bc 1, bd 1.
HAND = Sessions.from_lists([["a", "b", "c"], ["a", "b"], ["b", "d"]])


def answer(model: Recommender, *session: str) -> dict[str, float]:
    return {str(item): score for item, score in model.fit(HAND).recommend(session, 4)}


def test_markov_by_hand() -> None:
    assert answer(Markov(), "b") == pytest.approx({"c": 1 / 2, "d": 1 / 2, "b": 0, "a": 0})
    assert answer(Markov(), "b", "a") == pytest.approx({"b": 1, "a": 0, "c": 0, "d": 0})


def test_item_knn_by_hand() -> None:
    narm = answer(ItemKNN(formula="narm", regularisation=20, last_clicks=1), "c", "a")
    assert narm == pytest.approx({"b": 2 / sqrt(22 * 23), "c": 1 / sqrt(22 * 21), "a": 0, "d": 0})
    cosine = answer(ItemKNN(formula="cosine", asymmetry=0.5, last_clicks=1), "c", "a")
    assert cosine == pytest.approx({"b": 2 / sqrt(2 * 3), "c": 1 / sqrt(2 * 1), "a": 0, "d": 0})
    # the last click counts fully, the one before it half
    both = answer(ItemKNN(asymmetry=0.5, last_clicks=2, decay="div"), "c", "a")
    assert both["b"] == pytest.approx(2 / sqrt(6) + 1 / sqrt(3) / 2)


def test_item_knn_counts_clicks_or_sessions() -> None:
    sessions = Sessions.from_lists([["a", "b", "a", "b", "b"], ["a"]])
    once = ItemKNN(formula="narm", regularisation=0, last_clicks=1).fit(sessions).recommend(["a"], 1)[0]
    assert once.score == pytest.approx(1 / sqrt(2 * 1))
    clicks = ItemKNN(formula="narm", regularisation=0, last_clicks=1, counts="clicks").fit(sessions)
    assert clicks.recommend(["a"], 1)[0].score == pytest.approx(2 * 3 / sqrt(3 * 3))


def test_sknn_by_hand() -> None:
    # {a}: abc shares 1 of 3 items, ab 1 of 2: cosines 1/sqrt(3) and 1/sqrt(2)
    one, other = 1 / sqrt(3), 1 / sqrt(2)
    assert answer(SKNN(), "a") == pytest.approx({"a": one + other, "b": one + other, "c": one, "d": 0})
    assert answer(SKNN(k=1), "a") == pytest.approx({"a": other, "b": other, "c": 0, "d": 0})
    # the most recent session with an item of {b} is bd
    assert answer(SKNN(sample_size=1), "b") == pytest.approx({"b": other, "d": other, "a": 0, "c": 0})


def test_vs_knn_by_hand() -> None:
    # prefix c, a: weights c 1/2, a 1; abc scores 1.5/2, ab 1/2; both share a, the last click
    plain = VSKNN(weighting="div", score_weighting="div", idf=0)
    assert answer(plain, "c", "a") == pytest.approx({"a": 1.25, "b": 1.25, "c": 0.75, "d": 0})
    rare = VSKNN(weighting="div", score_weighting="div", idf=2)
    assert answer(rare, "c", "a")["c"] == pytest.approx(0.75 * (1 + 2 * log(3 / 1)))
    # prefix d, a: bd shares only d, two clicks back: weight 1/2 over 2 items, vote halved
    assert answer(plain, "d", "a")["d"] == pytest.approx(0.5 / 2 / 2)


@pytest.mark.parametrize(("remind", "again"), [("all", "ab"), ("earlier", "a"), ("none", "")])
def test_reminders_can_be_left_out(remind: str, again: str) -> None:
    scores = answer(VSKNN(remind=remind), "a", "b")
    assert {item for item in "ab" if scores[item] > 0} == set(again)
    assert scores["c"] > 0


def test_ages_need_a_clock() -> None:
    with pytest.raises(ConfigError, match="clock"):
        VSKNN(day_decay=0.9).fit(HAND)
    day = 86_400_000_000
    timed = Sessions.from_lists([["a", "b"], ["a", "c"]], times=[0, 0, 10 * day, 10 * day])
    scores = {str(i): s for i, s in VSKNN(day_decay=0.5, idf=0).fit(timed).recommend(["a"], 3)}
    assert scores["b"] == pytest.approx(scores["c"] * 0.5**10)
    only_new = {str(i): s for i, s in VSKNN(last_days=5, idf=0).fit(timed).recommend(["a"], 3)}
    assert only_new["b"] == 0
    decayed = {str(i): s for i, s in STAN(lambda_snh=5).fit(timed).recommend(["a"], 3)}
    assert decayed["b"] == pytest.approx(decayed["c"] * np.exp(-10 / 5))
