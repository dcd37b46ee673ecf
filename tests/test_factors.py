"""Factor models: the compiled step against its formulas, draws, scores, and what training comes to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import nextclick
from nextclick import BPRMF, FPMC, DataError, Queries, Sessions, TrainingDivergedError
from nextclick.factors import kernels
from synthetic import chain

DIM = 5


def log_likelihood(
    left: np.ndarray, right: np.ndarray, rows: list[int], positive: int, negative: int
) -> float:
    """Rendle et al. 2009: ln sigma(x_i - x_j), written out."""
    session = sum(left[row] for row in rows) / len(rows)
    x = sum(session[f] * (right[positive][f] - right[negative][f]) for f in range(DIM))
    return float(-np.log(1 + np.exp(-x)))


def slope(tables: list[np.ndarray], which: int, of: Any) -> np.ndarray:
    """The gradient of of(tables) in one of the tables, by differences; one table may stand there twice."""
    gradient = np.zeros_like(tables[which])
    for place in np.ndindex(gradient.shape):
        values = []
        for nudge in (1e-5, -1e-5):
            kept = tables[which][place]
            tables[which][place] = kept + nudge
            values.append(of())
            tables[which][place] = kept
        gradient[place] = (values[0] - values[1]) / 2e-5
    return gradient


def stepped(
    left: np.ndarray, right: np.ndarray, rows: list[int], pair: tuple[int, int], rate: float, decay: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Factors after a compiled step, and its x; ``left is right`` is one table there too."""
    after_right = right.astype(np.float32)
    after_left = after_right if left is right else left.astype(np.float32)
    room = np.empty((2, DIM), np.float32)
    codes = np.array([9, *rows, 9], np.int32)
    x = kernels.step(codes, 1, 1 + len(rows), *pair, after_left, after_right, rate, decay, room[0], room[1])
    return after_left, after_right, float(x)


@pytest.mark.parametrize("one_table", [False, True])
@pytest.mark.parametrize("rows", [[0], [0, 4, 6], [4, 0, 4], [1, 2, 5], [2, 2]])
def test_a_step_follows_the_gradient(one_table: bool, rows: list[int]) -> None:
    """Also where the clicked or the drawn item (1, 2) is in the prefix, or an item stands there twice."""
    rng = np.random.default_rng(1)
    right = rng.normal(size=(7, DIM))
    left = right if one_table else rng.normal(size=(7, DIM))
    rate = 0.01
    after_left, after_right, x = stepped(left, right, rows, (1, 2), rate, 0.0)

    def likelihood() -> float:
        return log_likelihood(left, right, rows, 1, 2)

    assert -np.log1p(np.exp(-x)) == pytest.approx(likelihood(), abs=1e-6)
    tables = [left, right]
    for after, which in ((after_left, 0), (after_right, 1)):
        expected = tables[which] + rate * slope(tables, which, likelihood)
        assert np.abs(after - expected).max() < 1e-6


def test_a_step_shrinks_what_it_touches_and_nothing_else() -> None:
    rng = np.random.default_rng(2)
    left, right = rng.normal(size=(7, DIM)), rng.normal(size=(7, DIM))
    rate, regularisation, rows = 0.02, 0.3, [0, 4]
    after_left, after_right, _ = stepped(left, right, rows, (1, 2), rate, regularisation)

    def penalised() -> float:
        touched = [*(left[row] for row in rows), right[1], right[2]]
        penalty = regularisation / 2 * sum(float(vector @ vector) for vector in touched)
        return log_likelihood(left, right, rows, 1, 2) - penalty

    tables = [left, right]
    for after, which, still in ((after_left, 0, [1, 2, 3, 5, 6]), (after_right, 1, [0, 3, 4, 5, 6])):
        assert np.abs(after - tables[which] - rate * slope(tables, which, penalised)).max() < 1e-6
        assert (after[still] == tables[which][still].astype(np.float32)).all()


def test_a_step_into_the_infinite_changes_nothing() -> None:
    table = np.full((3, DIM), 1e30)
    table[2] *= -1
    after, _, x = stepped(table, table, [0], (1, 2), 0.1, 0.0)
    assert not np.isfinite(x)
    assert (after == table.astype(np.float32)).all()


def epoch_by_loops(
    order: np.ndarray, examples: dict[str, Any], rate: float, samples: int, state: np.ndarray
) -> tuple[float, int]:
    """What ``kernels.epoch`` says it does, a plain loop of draws and float64 updates."""
    e, loss, steps = examples, 0.0, 0
    for p in order:
        rows = list(e["rows"][e["lows"][p] : e["highs"][p]])
        for _ in range(samples):
            j = kernels.draw(e["shares"], e["items"], e["firsts"][p], e["lasts"][p], state)
            i = e["items"][p]
            loss -= log_likelihood(e["left"], e["right"], rows, i, j)
            session = sum(e["left"][row] for row in rows) / len(rows)
            apart = e["right"][i] - e["right"][j]
            pull = rate * (1 - 1 / (1 + np.exp(-session @ apart)))
            e["right"][i] += pull * session
            e["right"][j] -= pull * session
            for row in rows:
                e["left"][row] += pull * apart / len(rows)
            steps += 1
    return loss, steps


def test_an_epoch_is_its_steps_one_after_the_other() -> None:
    rng = np.random.default_rng(3)
    sessions = chain(8, 12, noise=0.3, seed=1)
    at = np.arange(len(sessions.items))
    first = sessions.offsets[sessions.session_of]
    found, expected = (
        {
            "rows": sessions.items, "lows": np.maximum(first, at - 2), "highs": at, "items": sessions.items,
            "firsts": at, "lasts": at + 1,
            "left": np.random.default_rng(4).normal(size=(8, DIM)).astype(kind),
            "right": np.random.default_rng(5).normal(size=(8, DIM)).astype(kind),
            "shares": np.cumsum(np.full(8, 1 / 8)),
        }
        for kind in (np.float32, np.float64)
    )  # fmt: skip
    order = rng.permutation(at[at > first])
    loss, steps = kernels.epoch(order, *found.values(), 3, 0.05, 0.0, np.array([7], np.uint64))
    slow_loss, slow_steps = epoch_by_loops(order, expected, 0.05, 3, np.array([7], np.uint64))
    assert steps == slow_steps == 3 * sessions.n_pairs
    assert loss == pytest.approx(slow_loss, rel=1e-5)
    for side in ("left", "right"):
        assert np.abs(found[side] - expected[side]).max() < 1e-5


def test_draws_follow_the_shares_and_leave_out_the_clicked() -> None:
    clicks = np.array([8.0, 4, 2, 1, 1])
    shares, items = np.cumsum(clicks) / 16, np.array([3, 1, 1, 0], np.int32)
    state = np.array([1], np.uint64)
    drawn = np.bincount([kernels.draw(shares, items, 0, 3, state) for _ in range(20_000)], minlength=5)
    assert drawn[[1, 3]].tolist() == [0, 0]
    assert drawn[[0, 2, 4]] / 20_000 == pytest.approx(np.array([8, 2, 1]) / 11, abs=0.015)
    assert kernels.draw(np.array([1.0]), np.zeros(1, np.int32), 0, 1, state) == -1


def by_hand(model: type, factors: dict[str, list[list[float]]], **values: Any) -> nextclick.Recommender:
    sessions = Sessions.from_lists([["a", "b", "c"]] * 2 + [["a", "b"], ["a"]])
    fitted = model(dim=2, epochs=1, **values).fit(sessions)
    return fitted.restore(
        {"support": fitted.support, **{k: np.array(v, np.float32) for k, v in factors.items()}},
        fitted.vocabulary,
    )


def test_scores_by_hand() -> None:
    fpmc = by_hand(FPMC, {"last": [[1, 0], [0, 2], [3, 1]], "next": [[1, 1], [2, 0], [0, 5]]}, last_clicks=2)
    # The last two of a, c, b: the mean of (3, 1) and (0, 2) is (1.5, 1.5).
    assert fpmc.score(Queries.of([[0, 2, 1], [0], []])).tolist() == [[3, 3, 7.5], [1, 2, 0], [4, 3, 2]]
    mf = by_hand(BPRMF, {"items": [[1, 0], [0, 2], [3, 1]]}, last_clicks=None)
    # The mean of all three: (4/3, 1).
    assert mf.score(Queries.of([[0, 2, 1]]))[0] == pytest.approx([4 / 3, 2, 5])


@pytest.mark.parametrize("model", [BPRMF, FPMC])
@pytest.mark.parametrize("last_clicks", [None, 1, 3])
def test_reasons_add_up_to_the_scores(model: type, last_clicks: int | None) -> None:
    fitted = model(epochs=2, last_clicks=last_clicks).fit(chain(20, 60, noise=0.3, seed=1))
    prefix, items = np.array([3, 5, 5, 0, 7], np.int32), np.array([2, 19, 5], np.int32)
    parts = fitted.reasons(prefix, items).parts
    assert parts.shape == (5, 3)
    assert parts.sum(axis=0) == pytest.approx(fitted.score(Queries.of([prefix]))[0, items], abs=1e-5)
    assert (parts[: 5 - (last_clicks or 5)] == 0).all()


LEARN = {"epochs": 200, "dim": 16, "decay": 1, "regularisation": 0.001, "alpha": 0}


def test_fpmc_learns_a_directed_chain_by_heart() -> None:
    sessions = chain(20, 100, noise=0.0, seed=1)
    model = FPMC(**LEARN).fit(sessions)
    top, _ = model.top(Queries.of([[item] for item in range(20)]), 1)
    after = {model.vocabulary.id_of(item): model.vocabulary.id_of(top[item, 0]) for item in range(20)}
    assert after == {f"item {n}": f"item {(n + 1) % 20}" for n in range(20)}


@pytest.mark.parametrize("sessions", ["mean", "own"])
def test_bpr_mf_learns_which_items_go_together(sessions: str) -> None:
    """Ten groups of four items; it has no direction, so the group is all that it can find."""
    rng = np.random.default_rng(1)
    lists = [rng.permutation(np.arange(4) + 4 * (n % 10)).tolist() for n in range(200)]
    model = BPRMF(**{**LEARN, "last_clicks": None, "sessions": sessions}).fit(Sessions.from_lists(lists))
    for group in range(10):
        found = {recommended.item for recommended in model.recommend([4 * group, 4 * group + 1], 4)}
        assert found == set(range(4 * group, 4 * group + 4))


def test_what_is_trained_on() -> None:
    sessions = Sessions.from_lists([["a", "b", "a", "c"], ["d"], ["c", "d"]])
    a, b, c, d = sessions.vocabulary.codes_of("abcd")
    found = {}
    for kind in ("mean", "own"):
        model = BPRMF(epochs=1, sessions=kind, last_clicks=2).fit(sessions)
        e = model._examples(sessions, np.random.default_rng(1))
        found[kind] = [
            (
                sessions.items[p],
                [*e.rows[e.lows[p] : e.highs[p]]],
                [*sessions.items[e.firsts[p] : e.lasts[p]]],
            )
            for p in e.at
        ]
        assert (e.left is model.factors["items"]) == (kind == "mean")
        assert e.left.shape == (len(sessions) if kind == "own" else 4, 100)
    assert found["mean"] == [(b, [a], [b]), (a, [a, b], [a]), (c, [b, a], [c]), (d, [c], [d])]
    first, second, third = [a, b, a, c], [d], [c, d]
    assert found["own"] == [
        *((item, [0], first) for item in first), (d, [1], second), *((item, [2], third) for item in third)
    ]  # fmt: skip


@pytest.mark.parametrize("values", [{}, {"sessions": "own"}])
@pytest.mark.parametrize("model", [BPRMF, FPMC])
def test_the_seed_decides(model: type, values: dict[str, Any]) -> None:
    if model is FPMC:
        values = {"last_clicks": 3} if values else {}
    sessions = chain(20, 60, noise=0.3, seed=1)
    first, again, other = (model(epochs=2, seed=seed, **values).fit(sessions).state() for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert all(not np.array_equal(first[name], other[name]) for name in first if name != "support")


def test_stops_early_and_keeps_the_best_epoch() -> None:
    sessions = chain(60, 300, noise=0.5, seed=1)
    model = FPMC(epochs=60, decay=1, validation=0.1, patience=2).fit(sessions)
    figures = [epoch["figure"] for epoch in model.facts["epochs"]]
    best = figures.index(max(figures)) + 1
    assert len(figures) == best + 2 < 60
    reached = nextclick.evaluate([model], sessions[270:], k=20, n_resamples=2).models[0].metrics["recall@20"]
    assert reached == pytest.approx(max(figures))


def test_without_validation_all_sessions_are_trained_on_to_the_end() -> None:
    sessions = chain(20, 60, noise=0.3, seed=1)
    model = FPMC(epochs=7).fit(sessions)
    assert [epoch["figure"] for epoch in model.facts["epochs"]] == [None] * 7
    last = sessions.items[sessions.offsets[-2] :]  # of the latest session, which validation would keep
    changed = replace(sessions, items=np.r_[sessions.items[: -len(last)], last[::-1]])
    assert not np.array_equal(FPMC(epochs=7).fit(changed).state()["last"], model.state()["last"])


def test_progress_is_told_every_epoch() -> None:
    told: list[tuple[str, int, int]] = []
    FPMC(epochs=3).fit(chain(20, 30, noise=0.3, seed=1), progress=lambda *now: told.append(now))
    assert [done for _, done, _ in told] == [0, 1, 2, 3]
    assert {total for _, _, total in told} == {3}


@pytest.mark.parametrize("model", [BPRMF, FPMC])
def test_divergence_stops_with_the_epoch_and_advice(model: type) -> None:
    with pytest.raises(TrainingDivergedError, match=r"epoch \d+, step .* smaller learning_rate"):
        model(learning_rate=1e30, epochs=3).fit(chain(20, 60, noise=0.3, seed=1))


@pytest.mark.parametrize("values", [{}, {"sessions": "own"}])
def test_nothing_to_learn_is_said(values: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="two clicks"):
        BPRMF(**values).fit(Sessions.from_lists([["a"], ["b"], ["a"]]))


@pytest.mark.parametrize("model", [BPRMF, FPMC])
def test_with_one_item_there_is_nothing_to_draw(model: type) -> None:
    fitted = model().fit(Sessions.from_lists([["a", "a"], ["a"]]))
    assert [recommended.item for recommended in fitted.recommend(["a"], 3)] == ["a"]
    assert fitted.facts["epochs"][0]["loss"] == 0


@pytest.mark.parametrize(
    ("model", "values", "rows"), [(BPRMF, {}, 20), (FPMC, {}, 40), (BPRMF, {"sessions": "own"}, 20 + 60)]
)
def test_too_large_for_the_memory_is_refused_with_the_sum(
    model: type, values: dict[str, Any], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions, weights = chain(20, 60, noise=0.3, seed=1), rows * 7
    fitted = model(dim=7, epochs=1, **values)
    monkeypatch.setattr("nextclick.machine.available_memory", lambda: 4 * weights * 2)
    fitted.fit(sessions)
    monkeypatch.setattr("nextclick.machine.available_memory", lambda: 4 * weights * 2 - 1)
    with pytest.raises(DataError, match=rf"{weights} weights for 20 items; {weights} x 4 bytes x 2 copies"):
        fitted.fit(sessions)
