"""The evaluation protocol: a tiny log worked out by hand, slow loops, and what must not change a figure."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nextclick
from nextclick import (
    MODELS,
    ConfigError,
    DataError,
    Dataset,
    Markov,
    NotFittedError,
    Popularity,
    Report,
    Sessions,
    Vocabulary,
    evaluate,
)
from nextclick.metrics import settle
from synthetic import as_text, chain, chain_lists, hourly, quick


def within(lists: Sequence[Sequence[Any]], vocabulary: Vocabulary, n_items: int) -> Sessions:
    """Sessions in the codes of a given vocabulary, as a data set hands out its test part."""
    codes = vocabulary.codes_of(item for session in lists for item in session)
    offsets = np.r_[0, np.cumsum([len(session) for session in lists])].astype(np.int64)
    return Sessions(codes, offsets, np.arange(len(codes)), vocabulary, n_items)


# Training clicks: a 4, b 2, c 1, d 1; x is clicked in the test part only.
TRAIN = Sessions.from_lists([["a", "b"], ["a", "b"], ["a", "c"], ["a", "d"]])
TEST = within([["a", "b", "x", "c"], ["d", "a"], ["b"], []], Vocabulary(["a", "b", "c", "d", "x"]), 4)
# What popularity makes of the four pairs, all items ranked a > b > c = d:
#   1  a -> b         b is second
#   2  a b -> x       x cannot be listed: a miss
#   3  a b x -> c     c is third or fourth
#   4  d -> a         a is first
POP = {
    "recall@1": 1 / 4,  # 0 + 0 + 0 + 1
    "recall@3": 5 / 8,  # 1 + 0 + 1/2 + 1
    "mrr@1": 1 / 4,
    "mrr@3": 5 / 12,  # 1/2 + 0 + (1/3 + 0)/2 + 1
    "ndcg@1": 1 / 4,
    "ndcg@3": (1 / math.log2(3) + 0 + 1 / 4 + 1) / 4,
    "coverage@3": 3 / 4,  # the list is always a b c
    "gini@3": 1 / 4,  # shown 0, 4, 4, 4 times: (-3*0 - 1*4 + 1*4 + 3*4) / (4 * 12)
    "popularity@3": 7 / 3,  # (4 + 2 + 1) / 3
    "tie_spread@3": 1 / 4,  # pair 3 of four
}


def figures(report: Report, name: str = "pop") -> dict[str, float]:
    return dict(next(result for result in report.models if result.name == name).metrics)


def test_every_figure_of_a_tiny_log() -> None:
    report = evaluate([Popularity().fit(TRAIN)], TEST, k=[3, 1, 3])
    assert (report.pairs, report.sessions, report.unseen_pairs, report.n_items) == (4, 2, 1, 4)
    assert (report.k, report.protocol, report.unseen, report.ties) == ((1, 3), "next", "miss", "expected")
    assert figures(report) == pytest.approx(POP)
    (result,) = report.models
    assert (result.model, result.settings, result.path) == ("pop", {}, "")
    assert result.predictions_per_second > 0
    assert 0 < result.latency_p50_ms <= result.latency_p99_ms
    for name, (low, high) in result.intervals.items():
        assert 0 <= low <= high <= 1, name
    assert result.intervals.keys() | {"coverage@3", "gini@3", "popularity@3", "tie_spread@3"} == POP.keys()
    assert report.comparisons == ()
    assert any(
        "1 of 4 clicks went to items unknown to every model; they are counted as misses" in n
        for n in report.notes
    )
    assert any("Many ties" in note and "pop " in note for note in report.notes)


def test_a_second_model_and_their_difference() -> None:
    # Markov knows a -> b 1/2, c 1/4, d 1/4 and nothing after b and d, where all four items tie at 0:
    #   1  b first;  2  miss;  3  after b (x is skipped): anywhere in four;  4  after d: anywhere in four
    report = evaluate([Popularity().fit(TRAIN), Markov().fit(TRAIN)], TEST, k=[1, 3])
    found = figures(report, "markov")
    assert found["recall@1"] == pytest.approx((1 + 0 + 1 / 4 + 1 / 4) / 4)
    assert found["recall@3"] == pytest.approx((1 + 0 + 3 / 4 + 3 / 4) / 4)
    anywhere = (1 + 1 / 2 + 1 / 3) / 4
    assert found["mrr@3"] == pytest.approx((1 + 0 + 2 * anywhere) / 4)
    assert found["tie_spread@3"] == pytest.approx((0 + 0 + 1 + 1) / 4)
    recall, mrr = report.comparisons
    assert (recall.first, recall.second, recall.metric) == ("pop", "markov", "recall@3")
    assert recall.difference == pytest.approx(0)
    assert (mrr.metric, mrr.difference) == ("mrr@3", pytest.approx(POP["mrr@3"] - found["mrr@3"]))
    assert mrr.low <= mrr.high
    assert 0 < mrr.p <= 1


def test_dropping_the_unseen() -> None:
    report = evaluate([Popularity().fit(TRAIN)], TEST, k=[1, 3], unseen="drop")
    assert (report.pairs, report.unseen_pairs, report.sessions) == (3, 1, 2)
    for metric in ("recall@1", "recall@3", "mrr@3", "ndcg@3", "tie_spread@3"):
        assert figures(report)[metric] == pytest.approx(POP[metric] * 4 / 3)
    assert any("1 of 4 clicks" in note and "left out" in note for note in report.notes)


def test_ranking_against_the_most_clicked_only() -> None:
    # Against a and b (and the target): b second, x a miss, c third, a first.
    found = figures(report := evaluate([Popularity().fit(TRAIN)], TEST, k=[1, 3], candidates=2))
    assert found["recall@3"] == pytest.approx(3 / 4)
    assert found["mrr@3"] == pytest.approx((1 / 2 + 0 + 1 / 3 + 1) / 4)
    assert found["coverage@3"] == pytest.approx(2 / 4)
    assert any("2 most clicked items only: these figures overestimate" in note for note in report.notes)


def test_best_and_worst_order_of_equals() -> None:
    best, worst = (
        figures(evaluate([Popularity().fit(TRAIN)], TEST, k=[1, 3], ties=rule))  # type: ignore[arg-type]
        for rule in ("optimistic", "pessimistic")
    )
    assert (best["recall@3"], worst["recall@3"]) == pytest.approx((3 / 4, 2 / 4))
    assert best["mrr@3"] == pytest.approx((1 / 2 + 0 + 1 / 3 + 1) / 4)
    assert worst["mrr@3"] == pytest.approx((1 / 2 + 0 + 0 + 1) / 4)
    assert best["tie_spread@3"] == worst["tie_spread@3"] == pytest.approx(1 / 4)


def test_all_items_still_to_come() -> None:
    # Still to come, and the places of a list of 3 they take (c: third, half of the time):
    #   1  b x c:  hits 1 + 0 + 1/2;  AP (1/2 + 0 + 1/2 * 2/3) / 3 = 5/18
    #   2  x c:    hits 0 + 1/2;      AP (0 + 1/2 * 1/3) / 2 = 1/12
    #   3  c:      hits 1/2;          AP 1/2 * 1/3 = 1/6
    #   4  a:      hits 1;            AP 1
    report = evaluate([Popularity().fit(TRAIN)], TEST, k=[1, 3], protocol="remaining")
    found = figures(report)
    assert found["precision@3"] == pytest.approx((3 / 2 + 1 / 2 + 1 / 2 + 1) / 3 / 4)
    assert found["remaining_recall@3"] == pytest.approx((1 / 2 + 1 / 4 + 1 / 2 + 1) / 4)
    assert found["map@3"] == pytest.approx((5 / 18 + 1 / 12 + 1 / 6 + 1) / 4)
    assert POP.items() <= {name: pytest.approx(value) for name, value in found.items()}.items()
    # Without x: pair 2 is gone; pair 1 has b and c to come.
    dropped = figures(evaluate([Popularity().fit(TRAIN)], TEST, k=[3], protocol="remaining", unseen="drop"))
    assert dropped["precision@3"] == pytest.approx((3 / 2 + 1 / 2 + 1) / 3 / 3)
    assert dropped["remaining_recall@3"] == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
    assert dropped["map@3"] == pytest.approx(((1 / 2 + 1 / 2 * 2 / 3) / 2 + 1 / 6 + 1) / 3)


def test_slices_by_hand() -> None:
    (result,) = evaluate([Popularity().fit(TRAIN)], TEST, k=[3]).models
    found = {
        kind: [(part.label, part.pairs, part.metrics["recall@3"]) for part in parts]
        for kind, parts in result.slices.items()
    }
    assert found == {
        "prefix length": [("1", 2, 1), ("2", 1, 0), ("3", 1, 0.5)],
        # of four items a stands at 0, b at 1/4, c at 1/2
        "target popularity": [("top 1%", 1, 1), ("10-50%", 1, 1), ("50-100%", 1, 0.5), ("unseen", 1, 0)],
        "target": [("new", 4, 0.625)],
    }


# -- larger logs

N_ITEMS = 30
LISTS = as_text(chain_lists(N_ITEMS, 260, noise=0.3, seed=1))
WHOLE = Sessions.from_lists(LISTS, hourly(LISTS))
LARGE_TRAIN, LARGE_TEST = WHOLE[:200], WHOLE[200:]
NAMES = ["pop", "s-pop", "markov", "item-knn", "vs-knn"]
FITTED = {name: quick(name).fit(LARGE_TRAIN) for name in NAMES}


def same(a: Report, b: Report, *names: str) -> None:
    """Equal figures: metrics, intervals and slices; not the speed."""
    for name in names:
        x, y = (next(r for r in report.models if r.name == name) for report in (a, b))
        assert x.metrics == pytest.approx(y.metrics, abs=1e-9)
        assert {m: pytest.approx(bounds, abs=1e-9) for m, bounds in x.intervals.items()} == y.intervals
        assert x.slices.keys() == y.slices.keys()
        for kind in x.slices:
            for p, q in zip(x.slices[kind], y.slices[kind], strict=True):
                assert (p.label, p.pairs) == (q.label, q.pairs)
                assert p.metrics == pytest.approx(q.metrics, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_metrics_agree_with_a_slow_loop(name: str) -> None:
    """Both protocols: every pair, its scores and its rest of the session, one after the other."""
    k, model = 7, FITTED[name]
    found = figures(evaluate([model], LARGE_TEST, k=[k], protocol="remaining"), name)
    sums: dict[str, list[float]] = {}
    for session in LISTS[200:]:
        for n in range(1, len(session)):
            codes = model.vocabulary.codes_of(session[:n])
            scores = model.score(nextclick.Queries.of([codes]))[0]
            rest = list(dict.fromkeys(session[n:]))  # distinct, in order
            targets = model.vocabulary.codes_of(rest)
            better = [int((scores > scores[t]).sum()) for t in targets]
            ties = [int((scores == scores[t]).sum()) - 1 for t in targets]
            chances = [min(max(k - b, 0), e + 1) / (e + 1) for b, e in zip(better, ties, strict=True)]
            ranks = range(better[0] + 1, better[0] + ties[0] + 2)
            values = {
                "recall": chances[0],
                "mrr": sum(1 / rank for rank in ranks if rank <= k) / len(ranks),
                "ndcg": sum(1 / math.log2(1 + rank) for rank in ranks if rank <= k) / len(ranks),
                "precision": sum(chances) / k,
                "remaining_recall": sum(chances) / len(rest),
            }
            for metric, value in values.items():
                sums.setdefault(metric, []).append(value)
    for metric, of_all in sums.items():
        assert found[f"{metric}@{k}"] == pytest.approx(sum(of_all) / len(of_all)), metric


def test_the_order_of_test_sessions_changes_nothing() -> None:
    order = np.random.default_rng(0).permutation(60)
    shuffled = within([LISTS[200 + s] for s in order], WHOLE.vocabulary, N_ITEMS)
    for protocol in ("next", "remaining"):
        a, b = (evaluate(FITTED, part, protocol=protocol) for part in (LARGE_TEST, shuffled))  # type: ignore[arg-type]
        for name in NAMES:
            assert figures(a, name) == pytest.approx(figures(b, name))


def test_a_model_has_the_same_figures_alone_and_among_others() -> None:
    together = evaluate(FITTED, LARGE_TEST)
    for name, model in FITTED.items():
        same(evaluate([model], LARGE_TEST), together, name)


def test_answers_that_are_kept_are_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, kept = FITTED["vs-knn"], {"vs-knn": tmp_path / "answers.npz"}
    asked: list[int] = []
    rank = type(model).rank

    def counted(self: Any, queries: Any, *given: Any, **options: Any) -> Any:
        asked.append(len(queries))
        return rank(self, queries, *given, **options)

    def times(test: Sessions, **options: Any) -> int:
        asked.clear()
        found = evaluate([model], test, kept=kept, **options)
        n = sum(n > 2 for n in asked)  # the two are asked so that everything is compiled
        same(found, evaluate([model], test, **options), "vs-knn")
        return n

    monkeypatch.setattr(type(model), "rank", counted)
    assert times(LARGE_TEST) == 1
    assert times(LARGE_TEST) == 0
    assert times(LARGE_TEST, prefix_lengths=[1, 3], seed=5) == 0  # the same answers, cut otherwise
    for other in ({"k": [3]}, {"protocol": "remaining"}, {"ties": "optimistic"}, {"candidates": 20}):
        assert times(LARGE_TEST, **other) == 1
    assert times(LARGE_TEST[1:]) == 1
    assert times(LARGE_TEST[1:]) == 0
    content = kept["vs-knn"].read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"PK" + content[2:][::-1]):
        kept["vs-knn"].write_bytes(damaged)
        assert times(LARGE_TEST[1:]) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["answers.npz"]


def test_the_same_evaluation_twice() -> None:
    first, second = evaluate(FITTED, LARGE_TEST, seed=3), evaluate(FITTED, LARGE_TEST, seed=3)
    same(first, second, *NAMES)
    assert first.comparisons == second.comparisons
    other = evaluate(FITTED, LARGE_TEST, seed=4)
    assert other.models[2].intervals != first.models[2].intervals
    assert figures(other, "markov") == figures(first, "markov")


@pytest.mark.parametrize("protocol", ["next", "remaining"])
@pytest.mark.parametrize("unseen", ["miss", "drop"])
def test_other_vocabularies_give_the_same_figures(protocol: Any, unseen: Any) -> None:
    """Codes in another order, numbers for text: ids alone say what is the same item."""
    numbers = [[item + 100 for item in session] for session in chain_lists(40, 260, noise=0.3, seed=2)]
    numbers = [
        [i for i in session if s >= 200 or i < 130] for s, session in enumerate(numbers)
    ]  # 130.. are new
    texts = [[str(item) for item in session] for session in numbers]
    clock = hourly(numbers)
    cut = sum(map(len, numbers[:200]))
    of_numbers, of_texts = (Sessions.from_lists(lists[:200], clock[:cut]) for lists in (numbers, texts))
    assert of_numbers.n_items == 30
    # The test part in the codes of training first, as a data set has it; then in codes of its own.
    everything = Vocabulary([*of_texts.vocabulary.ids_of(range(30)), *(str(n) for n in range(130, 140))])
    reference = within(texts[200:], everything, 30)
    own = {"numbers": numbers[200:], "texts": texts[200:], "backwards": texts[200:][::-1]}
    tests = {name: Sessions.from_lists(lists) for name, lists in own.items()}
    for name in NAMES:
        expected = evaluate([quick(name).fit(of_texts)], reference, protocol=protocol, unseen=unseen)
        assert expected.unseen_pairs > 0
        for train in (of_numbers, of_texts):
            for test in tests.values():
                found = evaluate([quick(name).fit(train)], test, protocol=protocol, unseen=unseen)
                assert (found.pairs, found.unseen_pairs) == (expected.pairs, expected.unseen_pairs)
                assert figures(found, name) == pytest.approx(figures(expected, name))


def test_unseen_is_what_no_model_knows() -> None:
    small, large = Popularity().fit(Sessions.from_lists([["a", "b"]] * 2)), Popularity().fit(TRAIN)
    report = evaluate({"small": small, "large": large}, TEST, k=[4], unseen="drop")
    assert (report.pairs, report.unseen_pairs, report.n_items) == (3, 1, 4)
    assert figures(report, "small")["recall@4"] == pytest.approx(2 / 3)  # c is a miss for it alone
    assert figures(report, "large")["recall@4"] == 1


@pytest.mark.parametrize("protocol", ["next", "remaining"])
@pytest.mark.parametrize("unseen", ["miss", "drop"])
def test_slices_add_up_to_all_pairs(protocol: Any, unseen: Any) -> None:
    """Also for a model fitted on more than the training part, whose new items stand beyond n_items."""
    test = dataclasses.replace(LARGE_TEST, n_items=20)
    models = {"full": FITTED["markov"], "small": Markov().fit(LARGE_TRAIN[:8])}
    report = evaluate(models, test, protocol=protocol, unseen=unseen)
    for result in report.models:
        for parts in result.slices.values():
            assert sum(part.pairs for part in parts) == report.pairs
            for metric in result.intervals:
                whole = sum(part.pairs * part.metrics[metric] for part in parts) / report.pairs
                assert whole == pytest.approx(result.metrics[metric])


@pytest.mark.parametrize("rule", ["expected", "optimistic", "pessimistic"])
@pytest.mark.parametrize("name", NAMES)
def test_figures_stay_in_their_ranges(name: str, rule: Any) -> None:
    found = evaluate([FITTED[name]], LARGE_TEST, k=[1, 3, 50], protocol="remaining", ties=rule).models[0]
    for metric, value in found.metrics.items():
        assert 0 <= value <= (math.inf if metric.startswith("popularity") else 1), metric
    for metric in ("recall", "mrr", "ndcg", "remaining_recall"):
        assert found.metrics[f"{metric}@1"] <= found.metrics[f"{metric}@3"] <= found.metrics[f"{metric}@50"]
    assert found.metrics["recall@50"] == found.metrics["remaining_recall@50"] == pytest.approx(1)
    for metric, (low, high) in found.intervals.items():
        assert low <= found.metrics[metric] <= high


def test_tie_rules_bracket_the_expectation() -> None:
    for name in NAMES:
        low, expected, high = (
            figures(evaluate([FITTED[name]], LARGE_TEST, protocol="remaining", ties=rule), name)  # type: ignore[arg-type]
            for rule in ("pessimistic", "expected", "optimistic")
        )
        for metric in expected:
            if not metric.startswith(("coverage", "gini", "popularity", "tie_spread")):
                assert low[metric] - 1e-12 <= expected[metric] <= high[metric] + 1e-12, (name, metric)


def test_real_differences_are_found_and_equal_models_do_not_differ() -> None:
    report = evaluate({"a": FITTED["markov"], "pop": FITTED["pop"], "b": FITTED["markov"]}, LARGE_TEST)
    by_pair = {(c.first, c.second, c.metric): c for c in report.comparisons}
    assert len(by_pair) == 6
    real, none = by_pair["a", "pop", "mrr@20"], by_pair["a", "b", "mrr@20"]
    assert real.low > 0
    assert real.p < 0.01
    assert (none.difference, none.low, none.high, none.p) == (0, 0, 0, 1)


# -- what comes out, and what is refused


def test_names_are_made_unique() -> None:
    model = FITTED["pop"]
    report = evaluate([model, FITTED["markov"], model, model], LARGE_TEST)
    assert [result.name for result in report.models] == ["pop", "markov", "pop (2)", "pop (3)"]
    assert [result.model for result in report.models] == ["pop", "markov", "pop", "pop"]
    named = evaluate({"mine": model}, LARGE_TEST, paths={"mine": "models/mine"})
    assert (named.models[0].name, named.models[0].path) == ("mine", "models/mine")


def test_json_without_the_unseen_holds_no_nan() -> None:
    report = evaluate([Popularity().fit(TRAIN)], TEST, unseen="drop")
    json.dumps(report.to_json(), allow_nan=False)
    labels = [part.label for part in report.models[0].slices["target popularity"]]
    assert labels == ["top 1%", "10-50%", "50-100%"]


@pytest.mark.parametrize("protocol", ["next", "remaining"])
def test_json_holds_every_figure_and_no_nan(protocol: Any) -> None:
    report = evaluate(FITTED, LARGE_TEST, dataset="chain", protocol=protocol, paths={"pop": "a/b"})
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["dataset"] == "chain"
    assert document["pairs"] == LARGE_TEST.n_pairs
    assert document["k"] == [1, 5, 10, 20]
    assert [model["name"] for model in document["models"]] == NAMES
    assert [model["path"] for model in document["models"]] == ["a/b", "", "", "", ""]
    for model, result in zip(document["models"], report.models, strict=True):
        for k in (1, 5, 10, 20):
            for metric in ("recall", "mrr", "ndcg"):
                assert model[f"{metric}@{k}"] == result.metrics[f"{metric}@{k}"]
        assert model["predictions_per_second"] > 0
        assert model["intervals"].keys() == result.intervals.keys()
        assert model["settings"] == dict(result.settings)
    assert len(document["comparisons"]) == 2 * math.comb(len(NAMES), 2)
    assert document["comparisons"][0].keys() >= {
        "first",
        "second",
        "metric",
        "difference",
        "low",
        "high",
        "p",
    }


def test_a_data_set_lends_its_test_part_and_name() -> None:
    info: dict[str, Any] = {"fingerprint": "0"}
    dataset = Dataset("shop", WHOLE, (200, 200, 260), (N_ITEMS, N_ITEMS), info)
    report = evaluate([FITTED["markov"]], dataset)
    assert report.dataset == "shop"
    same(report, evaluate([FITTED["markov"]], LARGE_TEST), "markov")
    assert evaluate([FITTED["markov"]], dataset, dataset="mine").dataset == "mine"


def test_progress_names_the_model() -> None:
    seen: list[tuple[str, int, int]] = []
    evaluate(FITTED, LARGE_TEST, progress=lambda *done: seen.append(done))
    for name in NAMES:
        assert max(done for of, done, _ in seen if of == name) == LARGE_TEST.n_pairs
    assert {total for _, _, total in seen} == {LARGE_TEST.n_pairs}


def test_nothing_to_evaluate() -> None:
    model = FITTED["pop"]
    with pytest.raises(DataError, match="no test session has two clicks"):
        evaluate([model], LARGE_TEST[:0])
    with pytest.raises(DataError, match="no test session has two clicks"):
        evaluate([model], Sessions.from_lists([["a"], ["b"]]))
    foreign = Sessions.from_lists([["x", "y", "z"]])
    with pytest.raises(DataError, match="no model knows any of the items"):
        evaluate([model], foreign, unseen="drop")
    assert figures(evaluate([model], foreign))["recall@20"] == 0
    with pytest.raises(ConfigError, match="no model"):
        evaluate([], LARGE_TEST)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": []}, "list lengths of at least 1"),
        ({"k": [0]}, "list lengths of at least 1"),
        ({"k": [5, -1]}, "list lengths of at least 1"),
        ({"candidates": 0}, "candidates: expected at least 1"),
        ({"candidates": 5, "protocol": "remaining"}, "only with protocol 'next'"),
        ({"n_resamples": 0}, "n_resamples=0"),
        ({"protocol": "remainig"}, "did you mean 'remaining'"),
        ({"unseen": "dorp"}, "did you mean 'drop'"),
        ({"ties": "best"}, "choose one of expected, optimistic, pessimistic"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate([FITTED["pop"]], LARGE_TEST, **options)


def test_models_must_be_fitted() -> None:
    with pytest.raises(NotFittedError, match="markov is not fitted"):
        evaluate([FITTED["pop"], Markov()], LARGE_TEST)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_can_be_evaluated(name: str) -> None:
    train = chain(15, 60, noise=0.2, seed=3)
    report = evaluate([quick(name).fit(train[:40])], train[40:], k=[20], n_resamples=20)
    assert figures(report, name)["recall@20"] == pytest.approx(1)  # all fifteen items fit in


def test_expected_figures_need_no_settling() -> None:
    better, ties = np.array([3]), np.array([2])
    assert settle(better, ties, "expected") == (better, ties)


def test_a_report_shows_itself_in_a_few_lines() -> None:
    shown = repr(evaluate([Popularity().fit(TRAIN), Markov().fit(TRAIN)], TEST, k=[1, 3])).splitlines()
    assert len(shown) == 3
    assert "recall@3" in shown[1]
    assert shown[2].startswith("  markov")


def test_recommendations_show_items_and_what_was_unusual() -> None:
    known = TRAIN.vocabulary.id_of(0)
    model = Popularity().fit(TRAIN)
    assert repr(model.recommend([known], k=2)).count("\n") == 2
    shown = repr(model.recommend(["nowhere"], k=1))
    assert "unknown: 'nowhere'" in shown
    assert "fallback" in shown
