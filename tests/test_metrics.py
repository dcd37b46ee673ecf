"""Metrics against fractions worked out by hand, and against brute force over all orders of tied items."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from statistics import mean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextclick import DataError, metrics
from nextclick.ranking import MISS


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


# -- one target: worked out by hand


@pytest.mark.parametrize(
    ("better", "ties", "k", "recall", "reciprocal_rank"),
    [
        (0, 0, 1, Fraction(1), Fraction(1)),
        (2, 0, 3, Fraction(1), Fraction(1, 3)),
        (3, 0, 3, Fraction(0), Fraction(0)),
        # Among two equals, first or second: in a list of 1 half of the time.
        (0, 1, 1, Fraction(1, 2), Fraction(1, 2)),
        (0, 1, 2, Fraction(1), Fraction(3, 4)),  # (1 + 1/2) / 2
        # Ranks 2, 3, 4, 5 alike; a list of 3 holds the first two: (1/2 + 1/3) / 4.
        (1, 3, 3, Fraction(2, 4), Fraction(5, 24)),
        (1, 3, 5, Fraction(1), Fraction(77, 240)),  # (1/2 + 1/3 + 1/4 + 1/5) / 4
        (5, 9, 5, Fraction(0), Fraction(0)),
        (MISS, 0, 20, Fraction(0), Fraction(0)),
    ],
)
def test_recall_and_reciprocal_rank(
    better: int, ties: int, k: int, recall: Fraction, reciprocal_rank: Fraction
) -> None:
    assert metrics.recall(ints(better), ints(ties), k) == pytest.approx(float(recall))
    assert metrics.reciprocal_rank(ints(better), ints(ties), k) == pytest.approx(float(reciprocal_rank))


def test_ndcg() -> None:
    # Rank 1 gains 1, rank 3 gains 1/log2(4) = 1/2, rank 7 gains 1/log2(8) = 1/3.
    better, ties = ints(0, 2, 6, 7, MISS), ints(0, 0, 0, 0, 0)
    assert metrics.ndcg(better, ties, 7).tolist() == pytest.approx([1, 1 / 2, 1 / 3, 0, 0])
    # Ranks 3 and 4 alike, list of 3: (1/2 + 0) / 2.
    assert metrics.ndcg(ints(2), ints(1), 3).tolist() == pytest.approx([1 / 4])


def test_events_are_measured_one_by_one() -> None:
    better, ties = ints(0, 1, MISS), ints(0, 1, 0)
    assert metrics.recall(better, ties, 2).tolist() == [1, 1 / 2, 0]
    assert metrics.reciprocal_rank(better, ties, 3).tolist() == pytest.approx([1, (1 / 2 + 1 / 3) / 2, 0])


# -- brute force: shuffle the items of equal score in every possible way


def orders(scores: list[int]) -> list[tuple[int, ...]]:
    """Every ranking of the items by score in which only items of equal score change places."""
    groups = [
        [item for item in range(len(scores)) if scores[item] == score]
        for score in sorted(set(scores), reverse=True)
    ]
    shuffled = itertools.product(*(list(itertools.permutations(group)) for group in groups))
    return [tuple(itertools.chain(*parts)) for parts in shuffled]


def ranks_of(scores: list[int], targets: list[int]) -> tuple[np.ndarray, np.ndarray]:
    better = [sum(score > scores[t] for score in scores) for t in targets]
    ties = [sum(score == scores[t] for score in scores) - 1 for t in targets]
    return ints(*better), ints(*ties)


def slow_recall(order: tuple[int, ...], targets: list[int], k: int) -> float:
    return sum(item in targets for item in order[:k]) / len(targets)


def slow_precision(order: tuple[int, ...], targets: list[int], k: int) -> float:
    return sum(item in targets for item in order[:k]) / k


def slow_average_precision(order: tuple[int, ...], targets: list[int], k: int) -> float:
    total = 0.0
    for rank, item in enumerate(order[:k], start=1):
        if item in targets:
            total += sum(above in targets for above in order[:rank]) / rank
    return total / min(k, len(targets))


def slow_reciprocal_rank(order: tuple[int, ...], target: int, k: int) -> float:
    rank = order.index(target) + 1
    return 1 / rank if rank <= k else 0.0


def slow_ndcg(order: tuple[int, ...], target: int, k: int) -> float:
    rank = order.index(target) + 1
    return 1 / math.log2(1 + rank) if rank <= k else 0.0


scores_of_items = st.lists(st.integers(0, 2), min_size=1, max_size=6)


@given(scores=scores_of_items, data=st.data(), k=st.integers(1, 8))
@settings(deadline=None, max_examples=150)
def test_one_target_is_the_mean_over_all_orders(scores: list[int], data: st.DataObject, k: int) -> None:
    target = data.draw(st.integers(0, len(scores) - 1))
    better, ties = ranks_of(scores, [target])
    every = orders(scores)
    for metric, slow in (
        (metrics.reciprocal_rank, slow_reciprocal_rank),
        (metrics.ndcg, slow_ndcg),
    ):
        assert metric(better, ties, k)[0] == pytest.approx(mean(slow(order, target, k) for order in every))
    expected = mean(slow_recall(order, [target], k) for order in every)
    assert metrics.recall(better, ties, k)[0] == pytest.approx(expected)


@st.composite
def several_targets(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    scores = draw(scores_of_items)
    targets = draw(st.lists(st.integers(0, len(scores) - 1), min_size=1, unique=True))
    return scores, targets


@given(queries=st.lists(several_targets(), min_size=1, max_size=3), k=st.integers(1, 8))
@settings(deadline=None, max_examples=150)
def test_several_targets_are_the_mean_over_all_orders(
    queries: list[tuple[list[int], list[int]]], k: int
) -> None:
    """Also where several targets tie with each other: one of them then stands before the other."""
    parts = [ranks_of(scores, targets) for scores, targets in queries]
    better, ties = (np.concatenate(column) for column in zip(*parts, strict=True))
    bounds = np.r_[0, np.cumsum([len(targets) for _, targets in queries])]
    found = metrics.remaining(better, ties, bounds, k)
    rules: dict[str, metrics.Remaining] = {
        rule: metrics.remaining(*metrics.settle(better, ties, rule, bounds), bounds, k)
        for rule in ("optimistic", "pessimistic")
    }
    slow: dict[str, Callable[[tuple[int, ...], list[int], int], float]] = {
        "precision": slow_precision,
        "recall": slow_recall,
        "average_precision": slow_average_precision,
    }
    for i, (scores, targets) in enumerate(queries):
        every = orders(scores)
        for name, measure in slow.items():
            reached = [measure(order, targets, k) for order in every]
            assert getattr(found, name)[i] == pytest.approx(mean(reached))
            assert getattr(rules["optimistic"], name)[i] == pytest.approx(max(reached))
            assert getattr(rules["pessimistic"], name)[i] == pytest.approx(min(reached))


def test_several_targets_by_hand() -> None:
    # Query 0: targets at ranks 1 and 3, list of 3: precision 2/3, recall 1, AP (1/1 + 2/3) / 2 = 5/6.
    # Query 1: one target at rank 2 and one that cannot be listed: 1/3, 1/2, AP (1/2) / 2 = 1/4.
    # Query 2: four targets, ranks 1 to 4; a list of 3 can hold three: 1, 3/4, AP (1 + 1 + 1) / 3 = 1.
    better, bounds = ints(2, 0, MISS, 1, 0, 1, 2, 3), ints(0, 2, 4, 8)
    found = metrics.remaining(better, np.zeros_like(better), bounds, 3)
    assert found.precision.tolist() == pytest.approx([2 / 3, 1 / 3, 1])
    assert found.recall.tolist() == pytest.approx([1, 1 / 2, 3 / 4])
    assert found.average_precision.tolist() == pytest.approx([5 / 6, 1 / 4, 1])


def test_two_targets_that_tie_by_hand() -> None:
    # One item above, then two targets of equal score, a list of 3: both orders find them at ranks 2 and 3,
    # so AP = (1/2 + 2/3) / 2 = 7/12 whatever the order; twice the expected 1/rank would give less.
    better, ties, bounds = ints(1, 1), ints(1, 1), ints(0, 2)
    assert metrics.remaining(better, ties, bounds, 3).average_precision.tolist() == pytest.approx([7 / 12])
    for rule in ("optimistic", "pessimistic"):
        settled = metrics.settle(better, ties, rule, bounds)
        assert metrics.remaining(*settled, bounds, 3).average_precision.tolist() == pytest.approx([7 / 12])
        assert metrics.remaining(*settled, bounds, 2).precision.tolist() == pytest.approx([1 / 2])


def test_targets_that_cannot_be_listed_count_nothing() -> None:
    better, ties, bounds = ints(MISS, MISS, 0), ints(0, 0, 0), ints(0, 3)
    for rule in ("expected", "optimistic", "pessimistic"):
        found = metrics.remaining(*metrics.settle(better, ties, rule, bounds), bounds, 2)
        assert found.precision.tolist() == [1 / 2]
        assert found.recall.tolist() == pytest.approx([1 / 3])
        assert found.average_precision.tolist() == [1 / 2]


def test_a_query_without_targets_is_refused() -> None:
    with pytest.raises(DataError, match="without a remaining item"):
        metrics.remaining(ints(0), ints(0), ints(0, 1, 1), 3)


@settings(deadline=None)
@given(better=st.integers(0, 9), ties=st.integers(0, 9), k=st.integers(1, 12))
def test_tie_rules_bracket_the_expectation(better: int, ties: int, k: int) -> None:
    for metric in (metrics.recall, metrics.reciprocal_rank, metrics.ndcg):
        low, expected, high = (
            metric(*metrics.settle(ints(better), ints(ties), rule), k)[0]
            for rule in ("pessimistic", "expected", "optimistic")
        )
        assert low <= expected + 1e-12
        assert expected <= high + 1e-12
        assert metric(ints(better), ints(0), k)[0] == high
        assert metric(ints(better + ties), ints(0), k)[0] == low


# -- what is recommended


def test_diversity_by_hand() -> None:
    top = np.array([[0, 1], [0, 2], [0, -1]], np.int32)
    assert metrics.coverage(top, 4) == 3 / 4
    assert metrics.popularity(top, ints(10, 4, 2, 1)) == pytest.approx((10 * 3 + 4 + 2) / 5)
    # Shown 0, 1, 1, 3 times: sum of (2i - n - 1) x_i = -3*0 - 1*1 + 1*1 + 3*3 = 9, over 4 * 5.
    assert metrics.gini(top, 4) == pytest.approx(9 / 20)


def test_gini_at_its_ends() -> None:
    assert metrics.gini(np.array([[0, 1], [2, 3]], np.int32), 4) == 0
    assert metrics.gini(np.array([[3], [3]], np.int32), 4) == pytest.approx(3 / 4)  # all on one of four
    assert metrics.gini(np.full((2, 2), -1, np.int32), 4) == 0
    assert metrics.popularity(np.full((2, 2), -1, np.int32), ints(1, 2)) == 0
    assert metrics.coverage(np.full((2, 2), -1, np.int32), 4) == 0


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(-1, 5), min_size=3, max_size=3), min_size=1, max_size=6))
def test_diversity_against_obvious_code(lists: list[list[int]]) -> None:
    top, support = np.array(lists, np.int32), [7, 5, 5, 2, 1, 0]
    shown = [sum(row.count(item) for row in lists) for item in range(6)]
    assert metrics.coverage(top, 6) == pytest.approx(sum(n > 0 for n in shown) / 6)
    if sum(shown):
        # Gini: mean absolute difference of all pairs, over twice the mean.
        gaps = mean(abs(a - b) for a in shown for b in shown)
        assert metrics.gini(top, 6) == pytest.approx(gaps / (2 * mean(shown)))
        listed = [support[item] for row in lists for item in row if item >= 0]
        assert metrics.popularity(top, ints(*support)) == pytest.approx(mean(listed))


# -- the bootstrap over sessions


def clustered(rng: np.random.Generator, n_sessions: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Events whose values share a part within their session; the true mean is 0.4."""
    sizes = rng.integers(1, 12, n_sessions)
    sessions = np.repeat(np.arange(n_sessions), sizes)
    shared = rng.normal(0.4, 0.3, n_sessions)
    return shared[sessions] + rng.normal(0, 0.1, len(sessions)), sessions


def test_intervals_cover_the_true_mean_as_often_as_they_say() -> None:
    """95% of 200 repetitions, give or take; intervals that resampled events would cover far less."""
    rng = np.random.default_rng(0)
    covered = covered_by_events = 0
    for _ in range(200):
        values, sessions = clustered(rng)
        low, high = metrics.interval(metrics.resampled_means(values[:, None], sessions, 300))
        covered += low[0] <= 0.4 <= high[0]
        low, high = metrics.interval(metrics.resampled_means(values[:, None], np.arange(len(values)), 300))
        covered_by_events += low[0] <= 0.4 <= high[0]
    assert 0.90 <= covered / 200 <= 0.985
    assert covered_by_events / 200 < 0.80


def test_columns_stay_paired() -> None:
    """The same draws for every column and every call: differences of equal columns are exactly zero."""
    rng = np.random.default_rng(1)
    values, sessions = clustered(rng)
    together = metrics.resampled_means(np.stack([values, values, values + 1], axis=1), sessions, 50, seed=3)
    assert together[:, 0].tolist() == together[:, 1].tolist()
    assert (together[:, 2] - together[:, 0]).tolist() == pytest.approx([1] * 50)
    alone = metrics.resampled_means(values[:, None], sessions, 50, seed=3)
    assert alone[:, 0].tolist() == pytest.approx(together[:, 0].tolist(), rel=1e-12)
    other = metrics.resampled_means(values[:, None], sessions, 50, seed=4)
    assert alone.tolist() != other.tolist()


def test_resampling_does_not_depend_on_how_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    sessions = np.repeat(np.arange(3000), 2)
    values = rng.random((6000, 1))
    means = metrics.resampled_means(values, sessions, 1500)  # two steps of 1333 at most
    assert means[:1333].tolist() == metrics.resampled_means(values, sessions, 1333).tolist()
    assert means.shape == (1500, 1)


def test_resampled_means_centre_on_the_mean() -> None:
    values, sessions = clustered(np.random.default_rng(2))
    means = metrics.resampled_means(values[:, None], sessions, 2000)
    by_session = [values[sessions == s] for s in range(120)]
    # Variance of a ratio of sums over sessions: sum of (sum of the session - its size * mean)^2 / n^2.
    spread = sum((len(v) * (v.mean() - values.mean())) ** 2 for v in by_session) ** 0.5 / len(values)
    assert means.mean() == pytest.approx(values.mean(), abs=0.1 * spread)
    assert means.std() == pytest.approx(spread, rel=0.1)


def test_session_numbers_may_have_any_gaps() -> None:
    values, sessions = clustered(np.random.default_rng(6))
    a = metrics.resampled_means(values[:, None], sessions, 20)
    assert a.tolist() == metrics.resampled_means(values[:, None], sessions * 1000 + 7, 20).tolist()


def test_interval_by_hand() -> None:
    low, high = metrics.interval(np.arange(101.0)[:, None], level=0.9)
    assert (low.tolist(), high.tolist()) == (pytest.approx([5]), pytest.approx([95]))


def test_p_values() -> None:
    """Small for a real difference, about even for none, one for no difference at all."""
    rng = np.random.default_rng(7)
    real, null = [], []
    for _ in range(60):
        values, sessions = clustered(rng)
        noise = rng.normal(0, 0.05, len(values))
        pair = np.stack([values, values + 0.05 + noise, values + noise], axis=1)
        means = metrics.resampled_means(pair, sessions, 400)
        real.append(float(metrics.two_sided_p(means[:, 1] - means[:, 0])))
        null.append(float(metrics.two_sided_p(means[:, 2] - means[:, 0])))
    assert max(real) < 0.01
    assert sum(p < 0.05 for p in null) <= 8  # 3 expected of 60
    assert 0.3 < mean(null) < 0.7
    assert metrics.two_sided_p(np.zeros(99)) == 1
    # 99 resamples, all on one side: 2 * (0 + 1) / 100.
    assert metrics.two_sided_p(np.full(99, -0.1)) == pytest.approx(2 / 100)
    assert metrics.two_sided_p(np.full((99, 2), 0.1)).tolist() == pytest.approx([2 / 100] * 2)
