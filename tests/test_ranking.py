"""Ranks and lists from dense and from sparse scores, against counting and sorting one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import nextclick
from nextclick import DataError, Queries, Recommender, Sessions
from nextclick.ranking import MISS, Ranks, Targets
from nextclick.voting import Votes, VotingRecommender

INF = float("inf")


class _Given:
    """A recommender whose scores are written into the test; query i is told by its only click, item i."""

    source: ClassVar[str] = "this test"
    summary: ClassVar[str] = "answers what it was given"
    presets: ClassVar[dict[str, Any]] = {}
    rows: NDArray[np.float32]
    base: NDArray[np.float32]

    def _fit(self, sessions: Sessions) -> None: ...

    def _state(self) -> dict[str, NDArray[Any]]:
        return {}

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None: ...


@dataclass(kw_only=True, eq=False)
class Dense(_Given, Recommender):
    name: ClassVar[str] = "dense"

    def _scores(self, queries: Queries) -> NDArray[np.float32]:
        return self.rows[[queries.prefix(i)[0] for i in range(len(queries))]].copy()


@dataclass(kw_only=True, eq=False)
class Sparse(_Given, VotingRecommender):
    """The same scores, of which those that differ from the base are votes."""

    name: ClassVar[str] = "sparse"

    def _base(self) -> NDArray[np.float32]:
        return self.base

    def _votes(self, queries: Queries) -> Votes:
        rows = [self.rows[queries.prefix(i)[0]] for i in range(len(queries))]
        voted = [np.flatnonzero(row != self.base)[::-1].astype(np.int32) for row in rows]
        offsets = np.r_[0, np.cumsum([len(items) for items in voted])].astype(np.int64)
        scores = [row[items] for row, items in zip(rows, voted, strict=True)]
        return Votes(offsets, np.concatenate(voted), np.concatenate(scores))


def fitted(cls: type[Any], rows: Any, base: Any = None) -> Any:
    rows = np.array(rows, np.float32)
    n = rows.shape[1]
    model = cls().fit(Sessions.from_lists([[item] for item in range(n)]))
    model.rows, model.base = rows, np.zeros(n, np.float32) if base is None else np.array(base, np.float32)
    return model


def ask(n: int) -> Queries:
    return Queries.of([[i] for i in range(n)])


class Masks:
    """A filter whose answers are written into the test, told like the scores by the only click."""

    def __init__(self, masks: Any) -> None:
        self.masks = np.array(masks, np.bool_)

    def check(self, vocabulary: nextclick.Vocabulary) -> None:
        assert len(vocabulary) == self.masks.shape[1]

    def allowed(self, queries: Queries) -> NDArray[np.bool_]:
        return self.masks[[queries.prefix(i)[0] for i in range(len(queries))]]


values = st.sampled_from([-INF, -2.0, -1.0, 0.0, 0.5, 1.0, 3.0])


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[float]], list[float], int, int]:
    n_items, n_queries = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    n_queries = min(n_queries, n_items)
    row = st.lists(values, min_size=n_items, max_size=n_items)
    rows = draw(st.lists(row, min_size=n_queries, max_size=n_queries))
    return rows, draw(row), draw(st.integers(1, 9)), draw(st.integers(1, 8))


def draw_masks(data: st.DataObject, rows: list[list[float]]) -> list[list[bool]] | None:
    """Which items each query may list; None: no filter."""
    row = st.lists(st.booleans(), min_size=len(rows[0]), max_size=len(rows[0]))
    drawn = data.draw(st.none() | st.lists(row, min_size=len(rows), max_size=len(rows)))
    return drawn


@pytest.mark.parametrize("cls", [Dense, Sparse])
@given(table=tables(), exclude_seen=st.booleans(), data=st.data())
@settings(deadline=None, max_examples=100)
def test_top_is_the_sorted_scores(
    cls: type[Any], table: Any, exclude_seen: bool, data: st.DataObject
) -> None:
    rows, base, k, _ = table
    model, masks = fitted(cls, rows, base), draw_masks(data, rows)
    filter = None if masks is None else Masks(masks)
    top, scores = model.top(ask(len(rows)), k, exclude_seen=exclude_seen, filter=filter)
    for i, row in enumerate(rows):
        left = [j for j in range(len(row)) if row[j] > -INF and not (exclude_seen and j == i)]
        left = [j for j in left if masks is None or masks[i][j]]
        best = sorted(left, key=lambda j: (-row[j], j))[:k]
        assert top[i].tolist() == best + [-1] * (k - len(best))
        assert scores[i].tolist() == [row[j] for j in best] + [-INF] * (k - len(best))


@pytest.mark.parametrize("cls", [Dense, Sparse])
@given(table=tables(), data=st.data())
@settings(deadline=None, max_examples=100)
def test_rank_is_the_count_of_higher_and_equal_scores(
    cls: type[Any], table: Any, data: st.DataObject
) -> None:
    rows, base, k, n_candidates = table
    n_items = len(rows[0])
    targets = [data.draw(st.lists(st.integers(-1, n_items), min_size=1, max_size=4)) for _ in rows]
    bounds = np.r_[0, np.cumsum([len(of_query) for of_query in targets])]
    flat = np.array([item for of_query in targets for item in of_query], np.int32)
    model, masks = fitted(cls, rows, base), draw_masks(data, rows)
    ranks: Ranks = model.rank(
        ask(len(rows)), Targets(flat, bounds), k,
        n_candidates=n_candidates, filter=None if masks is None else Masks(masks),
    )  # fmt: skip
    at = 0
    for i, (row, of_query, top) in enumerate(zip(rows, targets, ranks.top.tolist(), strict=True)):
        allowed = [j for j in range(n_items) if masks is None or masks[i][j]]
        inside = [j for j in allowed if j < n_candidates]
        best = sorted((j for j in inside if row[j] > -INF), key=lambda j: (-row[j], j))[:k]
        assert top == best + [-1] * (k - len(best))
        assert ranks.scores[i].tolist() == [row[j] for j in best] + [-INF] * (k - len(best))
        for target in of_query:
            if target not in allowed or row[target] == -INF:
                expected = (MISS, 0)
            else:
                rivals = [row[j] for j in inside if j != target]
                expected = (sum(r > row[target] for r in rivals), sum(r == row[target] for r in rivals))
            assert (ranks.better[at], ranks.ties[at]) == expected
            at += 1


def test_written_out() -> None:
    for cls in (Dense, Sparse):
        model = fitted(cls, [[1.0, 3.0, 1.0, -INF, 1.0]])
        top, scores = model.top(ask(1), 5)
        assert top.tolist() == [[1, 0, 2, 4, -1]]  # the smaller code first among equals, 3 never
        assert scores.tolist() == [[3.0, 1.0, 1.0, 1.0, -INF]]
        ranks = model.rank(ask(1), Targets(np.array([1, 2, 3, -1, 5], np.int32), np.array([0, 5])), 2)
        assert ranks.better.tolist() == [0, 1, MISS, MISS, MISS]
        assert ranks.ties.tolist() == [0, 2, 0, 0, 0]


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_a_score_that_is_no_number_is_an_error(broken: int) -> None:
    """Also where the target itself has a number: one that beats NaN would look like rank 1."""
    row = [0.0, 1.0, 2.0]
    row[broken] = float("nan")
    model = fitted(Dense, [row])
    for n_candidates in (None, 1):
        if n_candidates is None or broken in (0, 1):
            with pytest.raises(DataError, match="not a number"):
                model.rank(ask(1), Targets.one_each(np.array([1], np.int32)), 1, n_candidates=n_candidates)


def test_dense_scores_are_worked_out_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of any size give the same answers, lists, ranks and progress."""
    rng = np.random.default_rng(0)
    model = fitted(Dense, rng.integers(0, 4, (20, 20)))
    targets = Targets(
        rng.integers(0, 20, 50).astype(np.int32), np.r_[0, np.cumsum(rng.multinomial(30, [0.05] * 20) + 1)]
    )
    whole, top = model.rank(ask(20), targets, 5), model.top(ask(20), 5)
    monkeypatch.setattr("nextclick.recommender._BLOCK", 60)  # three queries at a time
    seen: list[tuple[int, int]] = []
    parts = model.rank(ask(20), targets, 5, progress=lambda *done: seen.append(done))
    assert parts.better.tolist() == whole.better.tolist()
    assert parts.ties.tolist() == whole.ties.tolist()
    assert parts.top.tolist() == whole.top.tolist() == top[0].tolist() == model.top(ask(20), 5)[0].tolist()
    assert seen == [(3, 20), (6, 20), (9, 20), (12, 20), (15, 20), (18, 20), (20, 20)]


def test_masks_of_sparse_answers_are_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of any size give the same answers; a filter is asked for no more than fits."""
    rng = np.random.default_rng(2)
    model, masks = fitted(Sparse, rng.integers(0, 4, (20, 20))), Masks(rng.random((20, 20)) < 0.4)
    targets = Targets.one_each(rng.integers(0, 20, 20).astype(np.int32))
    whole, top = model.rank(ask(20), targets, 5, filter=masks), model.top(ask(20), 5, filter=masks)
    monkeypatch.setattr("nextclick.voting._MASKS", 60)  # three queries at a time
    asked: list[int] = []
    allowed = masks.allowed
    monkeypatch.setattr(masks, "allowed", lambda queries: asked.append(len(queries)) or allowed(queries))
    parts = model.rank(ask(20), targets, 5, filter=masks)
    assert asked == [3, 3, 3, 3, 3, 3, 2]
    assert parts.better.tolist() == whole.better.tolist()
    assert parts.ties.tolist() == whole.ties.tolist()
    assert parts.top.tolist() == whole.top.tolist() == top[0].tolist()
    assert model.top(ask(20), 5, filter=masks)[0].tolist() == top[0].tolist()


def test_targets_are_sliced_like_queries() -> None:
    targets = Targets(np.array([4, 5, 6, 7], np.int32), np.array([0, 1, 3, 4]))
    part = targets[1:3]
    assert part.items.tolist() == [5, 6, 7]
    assert part.bounds.tolist() == [0, 2, 3]
    assert targets[5:9].items.tolist() == []


def test_votes_below_the_base_come_after_it() -> None:
    model = fitted(Sparse, [[-1.0, 0.0, 2.0, 0.0]])
    assert model.top(ask(1), 4)[0].tolist() == [[2, 1, 3, 0]]
    assert model.top(ask(1), 2)[0].tolist() == [[2, 1]]


def test_voting_scores_equal_the_tiled_base_with_votes() -> None:
    rows = np.random.default_rng(1).integers(-2, 3, (10, 10))
    model = fitted(Sparse, rows, base=[1] * 10)
    assert model.score(ask(10)).tolist() == rows.tolist()
