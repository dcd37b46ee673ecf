"""One behavioural contract that every recommender of the table keeps, with default and other settings."""

from __future__ import annotations

import operator
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nextclick
from nextclick import (
    MODELS,
    ConfigError,
    DataError,
    Filter,
    ItemTable,
    NotFittedError,
    Queries,
    Recommender,
    Rules,
    Sessions,
    settings,
)
from nextclick.ranking import MISS, Targets
from synthetic import QUICK, as_text, chain, chain_lists, hourly, random_queries

# One value off its default for every setting there is; the first test says if one is forgotten.
ITEM_TABLE = {"n_neighbours": 7, "last_clicks": 4, "decay": "same"}
NEIGHBOURS = {"k": 9, "sample_size": 40, "last_clicks": 6, "remind": "none"}
VECTOR = {
    **NEIGHBOURS,
    "weighting": "linear",
    "score_weighting": "log",
    "idf": 0.5,
    "idf_similarity": True,
    "day_decay": 0.9,
    "last_days": 4.5,
}
TRAINED = {
    "epochs": 2,
    "batch_size": 32,
    "decay": 0.9,
    "validation": 0.2,
    "validation_by": "random",
    "metric": "mrr",
    "patience": 1,
    "refit": True,
    "last_clicks": 6,
    "seed": 7,
}
ALL_ITEMS = {**TRAINED, "precision": "bfloat16", "temperature": 0.2, "smoothing": 0.1, "weight_decay": 1e-5}
FACTORS = {
    "epochs": 3,
    "learning_rate": 0.03,
    "decay": 0.8,
    "regularisation": 0.02,
    "dim": 5,
    "start": 0.3,
    "samples": 2,
    "alpha": 0.25,
    "last_clicks": None,
    "validation": 0.2,
    "metric": "mrr",
    "patience": 1,
    "refit": True,
    "seed": 7,
}
OTHER_SETTINGS: dict[str, dict[str, Any]] = {
    "pop": {},
    "s-pop": {},
    "markov": ITEM_TABLE,
    "item-knn": {
        **ITEM_TABLE,
        "formula": "narm",
        "regularisation": 2.5,
        "asymmetry": 0.3,
        "counts": "clicks",
        "pairs": "anchor",
    },
    "sknn": {**NEIGHBOURS, "similarity": "jaccard"},
    "vs-knn": VECTOR,
    "vmis-knn": VECTOR,
    "stan": {
        **NEIGHBOURS,
        "lambda_spw": 0.5,
        "lambda_snh": 2.25,
        "lambda_snh_sessions": 30.0,
        "lambda_inh": 1.1,
    },
    "bpr-mf": {**FACTORS, "sessions": "own"},
    "fpmc": FACTORS,
    "stamp": {**ALL_ITEMS, "learning_rate": 0.01, "dim": 5, "attended": False, "released": True},
    "narm": {
        **ALL_ITEMS,
        "dim": 5,
        "hidden": 4,
        "encoder": "local",
        "decoder": "full",
        "dropout_items": 0.1,
        "dropout_session": 0.2,
        "learning_rate": 0.01,
    },
    "gru4rec": {
        **TRAINED,
        "loss": "cross-entropy",
        "learning_rate": 0.1,
        "momentum": 0.1,
        "hidden": 5,
        "layers": 2,
        "embedding": "separate",
        "dim": 4,
        "dropout_items": 0.1,
        "dropout_hidden": 0.1,
        "n_samples": 16,
        "alpha": 0.75,
        "logq": 0.5,
        "bpreg": 0.5,
        "activation": "linear",
        "elu": 1.0,
        "order": "random",
    },
    "prnn": {
        **TRAINED,
        "architecture": "interaction",
        "strategy": "interleaving",
        "weights": "0.5",
        "loss": "cross-entropy",
        "learning_rate": 0.03,
        "momentum": 0.1,
        "hidden": 5,
        "dropout_hidden": 0.1,
        "n_samples": 16,
        "alpha": 0.75,
        "logq": 0.5,
        "bpreg": 0.5,
        "activation": "linear",
        "elu": 1.0,
        "scale": 2.0,
        "embedded": 3,
        "fine_tuned": True,
        "order": "random",
    },
    "gru4rec-plus": {
        **ALL_ITEMS,
        "dim": 5,
        "hidden": 4,
        "dropout_clicks": 0.1,
        "dropout_hidden": 0.1,
        "learning_rate": 0.01,
        "recent": 0.5,
        "recent_rate": 0.5,
    },
    "rrcre": {
        **{name: TRAINED[name] for name in ("batch_size", "decay", "validation", "last_clicks")},
        "epochs": 2,
        "learning_rate": 0.01,
        "seed": 7,
        "k": 6,
        "dim": 5,
        "dropout": 0.1,
        "weight_decay": 1e-5,
        "spread": 0.1,
        "cre": False,
        "temperature": 0.3,
        "clicked": False,
        "scored": False,
        "content": "yes",
        "depth": "no",
        "ranks": "shared",
        "start": "generator",
        "held_out": "session",
        "folds": 4,
        "every": 2,
    },
    "blend": {
        "by": "score",
        "weights": "0.25,0.75",
        "c": 10.0,
        "k": 9,
        "validation": 0.5,
        "metric": "mrr",
        "held_out": "none",
        "folds": 4,
    },
    "sml": {
        **TRAINED,
        "learning_rate": 0.01,
        "gain": 0.01,
        "encoder": "caser",
        "loss": "triplet",
        "distance": "euclidean",
        "normalise": False,
        "temperature": 0.5,
        "margin": 0.2,
        "epsilon": 0.1,
        "swap": True,
        "position_weights": False,
        "sampler": "split",
        "positives": 3,
        "top_up": True,
        "window": 4,
        "precision": "bfloat16",
        "negatives": "own",
        "n_negatives": 3,
        "alpha": 0.5,
        "dim": 5,
        "hidden": 4,
        "layers": 2,
        "item_encoder": "tanh",
        "common": False,
        "dropout_items": 0.1,
        "dropout_session": 0.1,
    },
}
OTHER_GENERATORS: dict[str, dict[str, dict[str, Any]]] = {
    "rrcre": {"vs-knn": {"k": 9}, "stamp": QUICK["stamp"]},
    "blend": {"markov": {}, "sknn": {}},
}
CASES = [
    pytest.param(name, values, id=f"{name}-{label}")
    for name in MODELS
    for label, values in (("default", QUICK.get(name, {})), ("other", OTHER_SETTINGS.get(name, {})))
    if label == "default" or values
]
N_ITEMS = 30
TRAIN = chain(N_ITEMS, 150, noise=0.3, seed=1)
QUERIES = random_queries(90, N_ITEMS, seed=2)

Maker = Callable[[], Recommender]


@pytest.fixture(
    scope="module",
    params=[(case.values[0], case.values[1]) for case in CASES],
    ids=[case.id for case in CASES],
)
def make(request: pytest.FixtureRequest) -> Maker:
    name, values = request.param
    others = OTHER_GENERATORS.get(name, {}) if values is OTHER_SETTINGS[name] else {}
    return lambda: nextclick.models.build(
        name, values, generators=[nextclick.build(other, given) for other, given in others.items()]
    )


@pytest.fixture(scope="module")
def model(make: Maker) -> Recommender:
    """One for all tests that only ask: no answer may depend on what was asked before."""
    return make().fit(TRAIN)


def answers(model: Recommender, queries: Queries = QUERIES, k: int = 7) -> tuple[list[Any], list[Any]]:
    top, scores = model.top(queries, k)
    return top.tolist(), scores.tolist()


def same(found: Any, expected: Any) -> bool:
    """Equal answers; of a network equal up to the rounding of its products, which depends on the batch size.

    Compared are (items, scores) per row, or lists of Recommendations: scores within 1e-4 of the largest, and
    items wherever neighbouring scores lie further apart than that.
    """
    if isinstance(found, tuple):
        rows = list(zip(*found, strict=True)), list(zip(*expected, strict=True))
    else:
        rows = tuple(
            [([r.item for r in one], [r.score for r in one]) for one in side] for side in (found, expected)
        )
    for (items, scores), (other_items, other_scores) in zip(*rows, strict=True):
        if len(items) != len(other_items):
            return False
        if not items:
            continue
        near = 1e-4 * max((abs(score) for score in scores if np.isfinite(score)), default=1.0)
        if not np.allclose(scores, other_scores, rtol=0, atol=near):
            return False
        gaps = np.abs(np.diff(scores)) > 4 * near
        apart = (
            np.r_[True, gaps] & np.r_[gaps, False]
        )  # the last one may change places with what is not listed
        if any(a != b for a, b, tells in zip(items, other_items, apart, strict=True) if tells):
            return False
    return True


def slow_top(scores: np.ndarray, k: int, left_out: Any = ()) -> list[int]:
    """The obvious list: sort all items by (score down, code up)."""
    order = sorted(range(len(scores)), key=lambda item: (-scores[item], item))
    best = [item for item in order if item not in left_out and scores[item] > -np.inf][:k]
    return best + [-1] * (k - len(best))


def test_other_settings_differ_from_every_default() -> None:
    for name, model in MODELS.items():
        default = settings.values_of(model())
        assert default.keys() == OTHER_SETTINGS[name].keys()
        assert [setting for setting, value in OTHER_SETTINGS[name].items() if value == default[setting]] == []


def test_every_model_says_what_it_is() -> None:
    for name, model in MODELS.items():
        assert model.name == name
        assert model.summary
        assert model.source
        for field in settings.settings_of(model):
            assert field.metadata["about"]


# -- lists


@pytest.mark.parametrize("k", [1, 20, N_ITEMS, N_ITEMS + 5])
def test_top_agrees_with_sorting_all_scores(model: Recommender, k: int) -> None:
    top, top_scores = model.top(QUERIES, k)
    scores = model.score(QUERIES)
    assert top.shape == top_scores.shape == (len(QUERIES), k)
    assert top.dtype == np.int32
    assert top_scores.dtype == scores.dtype == np.float32
    assert scores.shape == (len(QUERIES), N_ITEMS)
    assert not np.isnan(scores).any()
    for row, row_scores, of_query in zip(top.tolist(), top_scores, scores, strict=True):
        assert row == slow_top(of_query, k)
        listed = [item for item in row if item != -1]
        assert len(listed) == min(k, N_ITEMS) == len(set(listed))
        assert row_scores[: len(listed)].tolist() == of_query[listed].tolist()
        assert (row_scores[len(listed) :] == -np.inf).all()
        assert (row_scores[:-1] >= row_scores[1:]).all()


@pytest.mark.parametrize("k", [3, N_ITEMS])
def test_exclude_seen_leaves_out_exactly_the_seen(model: Recommender, k: int) -> None:
    top, _ = model.top(QUERIES, k, exclude_seen=True)
    scores, known = model.score(QUERIES), QUERIES.known(N_ITEMS)
    for i, row in enumerate(top.tolist()):
        assert row == slow_top(scores[i], k, left_out=set(known.prefix(i).tolist()))


def test_batch_composition_never_changes_an_answer(model: Recommender) -> None:
    """Alone, in another order, and in a batch large enough to be split over threads."""
    top, scores = answers(model)
    equal = same if model.name in QUICK else operator.eq
    for i in range(0, len(QUERIES), 7):
        assert equal(answers(model, QUERIES[i : i + 1]), ([top[i]], [scores[i]]))
    order = np.random.default_rng(3).permutation(np.tile(np.arange(len(QUERIES)), 4))
    assert equal(answers(model, QUERIES[order]), ([top[i] for i in order], [scores[i] for i in order]))
    if model.name in QUICK:
        assert np.allclose(model.score(QUERIES[order]), model.score(QUERIES)[order], rtol=1e-4, atol=1e-5)
    else:
        assert model.score(QUERIES[order]).tolist() == model.score(QUERIES)[order].tolist()


def test_same_data_same_answers(make: Maker, model: Recommender) -> None:
    assert answers(make().fit(TRAIN)) == answers(model)


def test_second_fit_forgets_the_first(make: Maker, model: Recommender) -> None:
    again = make().fit(chain(41, 60, noise=0.5, seed=9))
    answers(again)  # whatever is kept between answers must be forgotten too
    again.fit(TRAIN)
    assert answers(again) == answers(model)
    assert again.facts == model.facts
    assert again.support.tolist() == model.support.tolist()


def test_zero_queries_have_zero_answers(model: Recommender) -> None:
    top, scores = model.top(Queries.of([]), 4)
    assert top.shape == scores.shape == (0, 4)
    assert model.recommend_many([]) == []


@pytest.mark.parametrize("k", [0, -1])
def test_a_list_holds_at_least_one_item(model: Recommender, k: int) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        model.top(QUERIES, k)
    with pytest.raises(ConfigError, match="at least 1"):
        model.recommend(["item 1"], k)


# -- ranks


@pytest.mark.parametrize("n_candidates", [None, 1, 11, N_ITEMS, N_ITEMS + 9])
@pytest.mark.parametrize("most", [1, 4])
def test_rank_agrees_with_counting_scores(model: Recommender, n_candidates: int | None, most: int) -> None:
    rng = np.random.default_rng(5)
    counts = rng.integers(1, most + 1, len(QUERIES))
    items = rng.integers(-1, N_ITEMS + 3, counts.sum()).astype(np.int32)
    bounds = np.r_[0, np.cumsum(counts)]
    ranks = model.rank(QUERIES, Targets(items, bounds), 6, n_candidates=n_candidates)
    scores = model.score(QUERIES)
    n = min(n_candidates or N_ITEMS, N_ITEMS)
    assert ranks.top.shape == (len(QUERIES), 6)
    for i in range(len(QUERIES)):
        assert ranks.top[i].tolist() == slow_top(scores[i, :n], 6)
        for at in range(bounds[i], bounds[i + 1]):
            target = int(items[at])
            if not 0 <= target < N_ITEMS:
                assert (ranks.better[at], ranks.ties[at]) == (MISS, 0)
                continue
            own = scores[i, target]
            rivals = [scores[i, item] for item in range(n) if item != target]
            assert ranks.better[at] == sum(score > own for score in rivals)
            assert ranks.ties[at] == sum(score == own for score in rivals)


def test_rank_reports_progress_to_the_end(model: Recommender) -> None:
    seen: list[tuple[int, int]] = []
    targets = Targets.one_each(np.zeros(len(QUERIES), np.int32))
    model.rank(QUERIES, targets, 3, progress=lambda done, total: seen.append((done, total)))
    assert max(seen) == (len(QUERIES), len(QUERIES))


def test_candidates_are_at_least_one(model: Recommender) -> None:
    with pytest.raises(ConfigError, match="candidates"):
        model.rank(QUERIES[:1], Targets.one_each(np.zeros(1, np.int32)), 3, n_candidates=0)


# -- rules


DEPARTMENTS = [f"d{item % 3}/c{item % 6}" if item != 7 else None for item in range(N_ITEMS)]
PRICES = [None if item == 4 else float(1 + item % 9) for item in range(N_ITEMS)]
CATALOGUE = ItemTable.of(
    {"id": [f"item {item}" for item in range(N_ITEMS)], "category": DEPARTMENTS, "price": PRICES}
)


def same_department(anchor: int | None, item: int) -> bool:
    if anchor is None or DEPARTMENTS[anchor] is None:
        return True
    return (DEPARTMENTS[item] or "")[:2] == (DEPARTMENTS[anchor] or "")[:2]


def near_in_price(anchor: int | None, item: int) -> bool:
    own, other = None if anchor is None else PRICES[anchor], PRICES[item]
    return own is None or (other is not None and 0.5 * own <= other <= 2 * own)


RULES: dict[str, tuple[list[dict[str, Any]], Callable[[int | None, int], bool]]] = {
    "few": ([{"allow": ["item 3", "item 11", "item 29"]}], lambda anchor, item: item in (3, 11, 29)),
    "by anchor": (
        [
            {"attribute": "category", "same": "anchor", "depth": 1},
            {"attribute": "price", "within": [0.5, 2]},
        ],
        lambda anchor, item: same_department(anchor, item) and near_in_price(anchor, item),
    ),
    "hardly any": (
        [
            {"attribute": "category", "same": "anchor", "depth": 1},
            {"attribute": "category", "in": ["d1"], "separator": "/"},
        ],
        lambda anchor, item: same_department(anchor, item) and (DEPARTMENTS[item] or "")[:2] == "d1",
    ),
}


def number_of(model: Recommender, code: int) -> int:
    return int(str(model.vocabulary.id_of(code)).removeprefix("item "))


def slow_allowed(model: Recommender, prefix: np.ndarray, rule: str) -> list[int]:
    """Item codes that meet the rules after a prefix, one by one."""
    anchor = number_of(model, prefix[-1]) if len(prefix) else None
    return [code for code in range(N_ITEMS) if RULES[rule][1](anchor, number_of(model, code))]


def bound(model: Recommender, rule: str) -> Filter:
    return Rules.of({"rule": RULES[rule][0]}).bind(CATALOGUE, model.vocabulary)


@pytest.mark.parametrize("exclude_seen", [False, True])
@pytest.mark.parametrize("k", [1, 5, N_ITEMS + 2])
def test_lists_under_rules_are_full_and_hold_what_is_allowed(
    model: Recommender, k: int, exclude_seen: bool
) -> None:
    scores, known = model.score(QUERIES), QUERIES.known(N_ITEMS)
    for rule in RULES:
        top, top_scores = model.top(QUERIES, k, exclude_seen=exclude_seen, filter=bound(model, rule))
        for i, row in enumerate(top.tolist()):
            allowed = slow_allowed(model, known.prefix(i), rule)
            forbidden = set(range(N_ITEMS)) - set(allowed)
            seen = set(known.prefix(i).tolist()) if exclude_seen else set()
            assert row == slow_top(scores[i], k, left_out=forbidden | seen)
            listed = [item for item in row if item != -1]
            assert len(listed) == min(k, len(set(allowed) - seen))
            assert top_scores[i].tolist() == scores[i][listed].tolist() + [-np.inf] * (k - len(listed))


@pytest.mark.parametrize("n_candidates", [None, 11])
def test_ranks_under_rules_are_those_among_what_is_allowed(
    model: Recommender, n_candidates: int | None
) -> None:
    rng = np.random.default_rng(15)
    counts = rng.integers(1, 4, len(QUERIES))
    items = rng.integers(-1, N_ITEMS + 2, counts.sum()).astype(np.int32)
    bounds = np.r_[0, np.cumsum(counts)]
    scores, known = model.score(QUERIES), QUERIES.known(N_ITEMS)
    for rule in RULES:
        ranks = model.rank(
            QUERIES, Targets(items, bounds), 6, n_candidates=n_candidates, filter=bound(model, rule)
        )
        for i in range(len(QUERIES)):
            allowed = slow_allowed(model, known.prefix(i), rule)
            inside = [item for item in allowed if item < (n_candidates or N_ITEMS)]
            best = slow_top(scores[i], 6, left_out=set(range(N_ITEMS)) - set(inside))
            assert ranks.top[i].tolist() == best
            assert ranks.scores[i].tolist() == [scores[i, j] if j != -1 else -np.inf for j in best]
            for at in range(bounds[i], bounds[i + 1]):
                target = int(items[at])
                if target not in allowed:
                    assert (ranks.better[at], ranks.ties[at]) == (MISS, 0)
                    continue
                rivals = [scores[i, item] for item in inside if item != target]
                assert ranks.better[at] == sum(score > scores[i, target] for score in rivals)
                assert ranks.ties[at] == sum(score == scores[i, target] for score in rivals)


def test_short_lists_say_why_alone_and_in_a_batch(model: Recommender) -> None:
    """After item 1, of department d1, ten items are left; after item 2 none."""
    filter = bound(model, "hardly any")
    sessions: list[list[Any]] = [["item 1"], ["item 2"], ["item 2", "gone"], [], ["item 7"]]
    together = model.recommend_many(sessions, 12, filter=filter)
    alone = [model.recommend(session, 12, filter=filter) for session in sessions]
    assert same(together, alone) if model.name in QUICK else together == alone
    assert [answer.reason for answer in together] == [answer.reason for answer in alone]
    of_one, of_two, of_gone, of_empty, of_none = (
        model.recommend(session, 10, filter=filter) for session in sessions
    )
    assert len(of_one) == 10 - 1  # item 7 has no department
    assert of_one.reason == (
        "only 9 items satisfy all rules for anchor item 1: 'same category as the anchor (first level)' "
        "leaves 9, 'category is d1' leaves 9"
    )
    assert len(of_two) == len(of_gone) == 0
    assert of_two.reason == of_gone.reason
    assert str(of_two.reason).startswith("no item satisfies all rules for anchor item 2: ")
    assert len(of_empty) == len(of_none) == 9  # no anchor, or one without a department: the other rule holds
    assert model.recommend(["item 1"], 9, filter=filter).reason is None
    assert model.recommend(["item 1"], 40).reason is None


def test_a_filter_of_another_model_is_refused(make: Maker) -> None:
    model = make().fit(TRAIN)
    other = Sessions.from_lists(as_text([[0, 1, 2, 3]]))
    filter = Rules.of({"rule": [{"block": ["item 1"]}]}).bind(None, other.vocabulary)
    for ask in (
        lambda: model.recommend(["item 1"], 3, filter=filter),
        lambda: model.top(QUERIES, 3, filter=filter),
        lambda: model.rank(QUERIES[:1], Targets.one_each(np.zeros(1, np.int32)), 3, filter=filter),
    ):
        with pytest.raises(ConfigError, match="bound to 4 items of another model"):
            ask()


# -- the users' own ids


def test_unknown_items_are_skipped_and_reported(model: Recommender) -> None:
    with_unknown = model.recommend(["no", "item 3", "item -1", "item 4", "no"], k=5)
    without = model.recommend(["item 3", "item 4"], k=5)
    assert with_unknown.items == without.items
    assert with_unknown.unknown == ("no", "item -1", "no")
    assert without.unknown == ()
    assert not with_unknown.fallback
    assert not without.fallback


@pytest.mark.parametrize("session", [[], ["no"], ["no", 7, ""]])
def test_nothing_known_gives_a_full_list_marked_as_fallback(model: Recommender, session: list[Any]) -> None:
    found = model.recommend(session, k=20)
    assert len(found) == 20
    assert found.fallback
    assert list(found.unknown) == session
    assert found.items == model.recommend([], k=20).items
    assert [r.item for r in found] == model.vocabulary.ids_of(range(20))  # the most clicked ones


def test_recommend_many_equals_recommend(model: Recommender) -> None:
    sessions = [
        [f"item {item}" for item in np.random.default_rng(seed).integers(0, 35, seed % 6)]
        for seed in range(80)
    ]
    for exclude_seen in (False, True):
        together = model.recommend_many(sessions, 5, exclude_seen=exclude_seen)
        alone = [model.recommend(session, 5, exclude_seen=exclude_seen) for session in sessions]
        assert same(together, alone) if model.name in QUICK else together == alone


def test_integer_ids_give_the_answers_of_text_ids(make: Maker) -> None:
    """Ids 100 .. 129 sort alike as numbers and as text, so both get the same codes."""
    numbers = [[item + 100 for item in session] for session in chain_lists(30, 80, noise=0.3, seed=4)]
    texts = [[str(item) for item in session] for session in numbers]
    of_numbers = make().fit(Sessions.from_lists(numbers, hourly(numbers)))
    of_texts = make().fit(Sessions.from_lists(texts, hourly(texts)))
    for session in numbers[:20]:
        a = of_numbers.recommend(session, 6)
        assert all(type(r.item) is int for r in a)
        b = of_texts.recommend([str(item) for item in session], 6)
        assert [(str(r.item), r.score) for r in a] == [(r.item, r.score) for r in b]
        assert of_numbers.recommend([str(item) for item in session], 6).items == a.items
        assert of_texts.recommend(session, 6).items == b.items


def test_a_text_is_no_session(model: Recommender) -> None:
    with pytest.raises(DataError, match="list of item ids"):
        model.recommend("item 1")


# -- saved and loaded


def test_save_and_load_keep_answers_and_settings(model: Recommender, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    loaded = nextclick.load(tmp_path / "model")
    assert type(loaded) is type(model)
    assert settings.values_of(loaded) == settings.values_of(model)
    assert list(map(type, settings.values_of(loaded).values())) == list(
        map(type, settings.values_of(model).values())
    )
    assert loaded.facts == model.facts
    assert answers(loaded) == answers(model)
    assert loaded.score(QUERIES).tolist() == model.score(QUERIES).tolist()
    session = ["item 1", "item 2", "gone"]
    assert loaded.recommend(session) == model.recommend(session)
    loaded.save(tmp_path / "again")
    first, second = ((tmp_path / name / "arrays.safetensors").read_bytes() for name in ("model", "again"))
    assert first == second


def test_restoring_replaces_what_was_learnt_and_remembered(make: Maker) -> None:
    """Also where the vocabulary object stays the same, as kept base scores must not."""
    half, model = make().fit(TRAIN[:75]), make().fit(TRAIN)
    answers(model)
    model.restore(half.state(), model.vocabulary)
    assert answers(model) == answers(half)


# -- edges


def test_refused_before_fit(make: Maker, tmp_path: Path) -> None:
    model = make()
    one = Targets.one_each(np.zeros(1, np.int32))
    for ask in (
        lambda: model.n_items,
        lambda: model.score(QUERIES[:1]),
        lambda: model.top(QUERIES[:1], 3),
        lambda: model.rank(QUERIES[:1], one, 3),
        lambda: model.recommend([]),
        lambda: model.recommend_many([]),
        lambda: model.state(),
        lambda: model.save(tmp_path / "model"),
        lambda: nextclick.evaluate([model], TRAIN),
    ):
        with pytest.raises(NotFittedError, match=f"{model.name} is not fitted"):
            ask()
    assert not list(tmp_path.iterdir())


def test_no_clicks_cannot_be_fitted(make: Maker) -> None:
    with pytest.raises(DataError, match="zero clicks"):
        make().fit(TRAIN[:0])


def test_a_failed_second_fit_on_nothing_leaves_the_first(make: Maker, model: Recommender) -> None:
    first = make().fit(TRAIN)
    with pytest.raises(DataError):
        first.fit(TRAIN[:0])
    assert answers(first) == answers(model)


def test_items_beyond_the_known_ones_are_refused_at_fit(make: Maker) -> None:
    """The test part of a data set may hold such; compiled loops would write outside their arrays."""
    with pytest.raises(DataError, match="beyond"):
        make().fit(replace(TRAIN, n_items=12))


def test_a_catalogue_of_one_item(make: Maker) -> None:
    lists = [["a"], ["a", "a"], ["a", "a", "a"]]
    model = make().fit(Sessions.from_lists(lists, hourly(lists)))
    for session in ([], ["a"], ["a"] * 4, ["b"]):
        assert [r.item for r in model.recommend(session, 3)] == ["a"]
    assert len(model.recommend(["a"], 3, exclude_seen=True)) == 0


@pytest.mark.parametrize("lists", [[["a"]], [["a", "b", "c"]], [["a", "b", "a", "b"]], [[], ["a"], []]])
def test_hardly_any_training(make: Maker, lists: list[list[str]]) -> None:
    if make().name in QUICK and max(map(len, lists)) < 2:
        with pytest.raises(DataError, match="nothing to learn"):
            make().fit(Sessions.from_lists(lists))
        return
    model = make().fit(Sessions.from_lists(lists, hourly(lists)))
    items = {item for session in lists for item in session}
    for session in ([], ["a"], ["a", "b"], ["c", "b", "a"]):
        found = model.recommend(session, 5)
        assert {r.item for r in found} == items
        assert len(found) == len(items)
        assert np.isfinite([r.score for r in found]).all()


def test_items_that_training_lists_but_never_saw(make: Maker) -> None:
    """A vocabulary may know more items than were clicked; they come last and break nothing."""
    few = Sessions.from_lists(as_text([[0, 1, 2, 3]] * 2 + [[4, 5]]), [0] * 10)
    model = make().fit(few[:2])
    top, _ = model.top(Queries.of([[0], [4], []]), 6)
    for row in top.tolist():
        assert sorted(row) == list(range(6))


def test_a_very_long_session(model: Recommender) -> None:
    codes = np.random.default_rng(6).integers(0, N_ITEMS, 5000).astype(np.int32)
    queries = Queries.of([codes, codes[:3]])
    top, _ = model.top(queries, 10)
    scores = model.score(queries)
    assert np.isfinite(scores).all()
    assert top.tolist() == [slow_top(row, 10) for row in scores]
    ids = model.vocabulary.ids_of(codes)
    assert [r.item for r in model.recommend(ids, 10)] == model.vocabulary.ids_of(top[0])


def test_a_very_long_training_session(make: Maker) -> None:
    session = chain_lists(200, 1, noise=0.2, seed=8, shortest=1500, longest=1500)
    model = make()
    if hasattr(model, "epochs"):
        model.epochs = 1
    model.fit(Sessions.from_lists(session, hourly(session)))
    assert len(model.recommend(session[0][:50], 20)) == 20


def test_many_threads_get_the_serial_answers(make: Maker, model: Recommender) -> None:
    sessions = [[f"item {item}" for item in s] for s in chain_lists(N_ITEMS + 3, 60, noise=0.5, seed=11)]
    serial = [model.recommend(session, 10) for session in sessions]
    fresh = make().fit(TRAIN)
    with ThreadPoolExecutor(16) as pool:  # the fresh model has nothing prepared yet: all start at once
        assert list(pool.map(lambda s: fresh.recommend(s, 10), sessions * 3)) == serial * 3
        batches = list(pool.map(lambda _: fresh.recommend_many(sessions * 2, 10), range(6)))
    assert batches == [batches[0]] * 6
    assert same(batches[0], serial * 2) if model.name in QUICK else batches[0] == serial * 2


def test_a_failed_fit_leaves_no_half_fitted_model() -> None:
    """New items with old neighbours would send compiled loops outside their arrays."""
    model = nextclick.VSKNN(day_decay=0.5).fit(TRAIN)
    with pytest.raises(ConfigError, match="clock"):
        model.fit(chain(300, 20, noise=0.1, seed=1, clock=False))
    with pytest.raises(NotFittedError):
        model.recommend(["item 1"])


def test_bounded_index_gives_the_same_answers() -> None:
    """As VMIS-kNN's docstring claims, also where the bound bites."""
    for values in ({"sample_size": 5, "k": 3}, {"sample_size": 20, "k": 20}, {**VECTOR, "sample_size": 12}):
        plain, bounded = (nextclick.models.build(name, values).fit(TRAIN) for name in ("vs-knn", "vmis-knn"))
        assert answers(plain) == answers(bounded)


def test_no_item_is_listed_twice_however_small_its_votes() -> None:
    train = Sessions.from_lists([["a", "b", "c"], ["b", "c", "a"], ["d", "e"]])
    model = nextclick.ItemKNN(formula="narm", regularisation=1e300, last_clicks=3).fit(train)
    items = [r.item for r in model.recommend(["a", "b"], 5)]
    assert len(set(items)) == len(items)
