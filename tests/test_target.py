"""Data with a target event: the clicks on a carousel are predicted, the others are what they follow."""

from __future__ import annotations

import csv
import functools
import importlib.util
import itertools
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import nextclick
from nextclick import ArtifactError, ConfigError, DataError, Dataset, Sessions
from nextclick.cli import main
from nextclick.tuning import tune
from synthetic import flagged_sessions, hourly, quick, with_targets
from test_learning import TRAINED

T0 = 1_400_000_000
# In time order; a third of the sessions each. "tip" is a click on the carousel.
LOG = {
    "s1": "a:view b:view c:tip a:tip",
    "s2": "b:tip a:view b:tip",
    "s3": "c:view d:tip",
    "s4": "a:view d:view",
    "s5": "a:view b:view c:view a:tip d:view c:tip",
    "s6": "d:view b:tip",
}
OPTIONS: dict[str, Any] = {"min_support": 1, "holdout": "1/3", "validation": "1/3"}


def write_log(path: Path, sessions: dict[str, str] = LOG) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["session_id", "item_id", "timestamp", "event"])
        for s, (session, clicks) in enumerate(sessions.items()):
            for n, click in enumerate(clicks.split()):
                item, event = click.split(":")
                writer.writerow([session, item, T0 + 1000 * s + n, event])
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("target")
    log = write_log(folder / "log.csv")
    return nextclick.prepare(log, out=folder / "data", target_event="tip", target_clicks=2, **OPTIONS)


def examples(sessions: Sessions) -> list[tuple[str, str]]:
    """Return (prefix, click to predict) in the log's own letters."""
    queries, positions = sessions.pairs()
    assert len(queries) == sessions.n_pairs
    ids = sessions.vocabulary.ids_of
    return [
        ("".join(map(str, ids(queries.prefix(i)))), str(ids(sessions.items[[at]])[0]))
        for i, at in enumerate(positions)
    ]


def test_from_a_log_to_its_examples_by_hand(data: Dataset) -> None:
    """At most two clicks before each tip; the first click of s2 is a tip that nothing precedes."""
    assert examples(data.train) == [("ab", "c"), ("bc", "a"), ("ba", "b")]
    assert examples(data.validation) == [("c", "d")]
    assert examples(data.full) == examples(data.train) + examples(data.validation)
    assert examples(data.test) == [("bc", "a"), ("ad", "c"), ("d", "b")]
    assert [part["pairs"] for part in data.info["splits"].values()] == [3, 1, 3]
    # All clicks are kept and counted: codes run from the most clicked item, whatever the event.
    assert len(data.train.items) == 7
    assert data.vocabulary.ids_of(range(4)) == ["a", "b", "c", "d"]
    assert data.train.support().tolist() == [3, 3, 1]


def test_what_is_predicted_belongs_to_the_prepared_data(data: Dataset, tmp_path: Path) -> None:
    """Another event or length is another fingerprint; no target at all is what it was before."""
    log = write_log(tmp_path / "log.csv")
    prints = {data.fingerprint}
    for n, chosen in enumerate(
        [{}, {"target_event": "tip"}, {"target_event": "tip", "target_clicks": 3}, {"target_event": "view"}]
    ):
        made = nextclick.prepare(log, out=tmp_path / str(n), **chosen, **OPTIONS)
        prints.add(made.fingerprint)
        assert nextclick.Dataset.load(tmp_path / str(n), verify=True).train.target_name == chosen.get(
            "target_event"
        )
        assert np.array_equal(made.sessions.items, data.sessions.items)
    assert len(prints) == 5
    plain, usual = (nextclick.Dataset.load(tmp_path / name) for name in "01")
    assert plain.train.n_pairs == 3 + 2
    assert usual.train.target_clicks == 12  # as in the paper
    info = json.loads((tmp_path / "1" / "prepare.json").read_text())
    info["target"]["clicks"] = 5
    (tmp_path / "1" / "prepare.json").write_text(json.dumps(info))
    with pytest.raises(ArtifactError, match="changed since they were prepared"):
        nextclick.Dataset.load(tmp_path / "1", verify=True)


def test_data_of_the_first_format_predict_every_click(tmp_path: Path) -> None:
    nextclick.prepare(write_log(tmp_path / "log.csv"), out=tmp_path / "data", **OPTIONS)
    info = json.loads((tmp_path / "data" / "prepare.json").read_text())
    del info["target"]
    (tmp_path / "data" / "prepare.json").write_text(json.dumps({**info, "format_version": 1}))
    loaded = Dataset.load(tmp_path / "data", verify=True)
    assert loaded.train.target_event is None
    assert loaded.train.n_pairs == 5


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"target_event": "tips"}, "--target-event: the log has no event 'tips'; did you mean 'tip'"),
    ({"target_event": "tips"}, "it has tip, view"),
    ({"target_event": "tip", "events": ("view",)}, "'tip' is dropped by --events view"),
    ({"target_event": "tip", "target_clicks": 0}, "--target-clicks 0 is too small: at least 1"),
    ({"target_clicks": 3}, "--target-clicks 3 needs a --target-event"),
]


@pytest.mark.parametrize(("chosen", "said"), REFUSED)
def test_targets_that_cannot_be(chosen: dict[str, Any], said: str, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.csv")
    with pytest.raises(ConfigError, match=said):
        nextclick.prepare(log, out=tmp_path / "data", **chosen, **OPTIONS)
    assert not (tmp_path / "data").exists()


def test_a_target_needs_an_event_column(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text(f"session_id,item_id,timestamp\n1,a,{T0}\n1,b,{T0 + 1}\n")
    with pytest.raises(ConfigError, match="needs an event column, and none is recognised"):
        nextclick.prepare(log, out=tmp_path / "data", target_event="tip")


@pytest.mark.parametrize(
    ("session", "part"), [("s3", "validation"), ("s6", "test")], ids=["validation", "test"]
)
def test_a_part_without_an_example_is_refused(session: str, part: str, tmp_path: Path) -> None:
    """A tip that nothing precedes is no example."""
    changed = {**LOG, "s5": LOG["s4"], session: "c:tip d:view"}
    log = write_log(tmp_path / "log.csv", changed if part == "test" else {**LOG, session: "c:tip d:view"})
    with pytest.raises(DataError, match=f"the {part} part has no click of event 'tip' with a click before"):
        nextclick.prepare(log, out=tmp_path / "data", target_event="tip", **OPTIONS)
    assert not (tmp_path / "data").exists()


def test_sessions_without_events_have_no_target_event() -> None:
    sessions = replace(Sessions.from_lists([["a", "b"]]), event_names=("view",), target_event=0)
    with pytest.raises(DataError, match="the clicks have no events"):
        sessions.pairs()


# -- examples, against loops


def slow_examples(
    lists: list[list[int]], flags: list[list[bool]], clicks: int | None
) -> list[tuple[list[int], int]]:
    found = []
    for session, tips in zip(lists, flags, strict=True):
        for at in range(1, len(session)):
            if tips[at]:
                found.append((session[max(0, at - (clicks or at)) : at], session[at]))
    return found


@given(log=flagged_sessions, clicks=st.none() | st.integers(1, 5), cut=st.integers(0, 12))
@settings(deadline=None)
def test_pairs_are_those_of_a_slow_loop(
    log: tuple[list[list[int]], list[list[bool]]], clicks: int | None, cut: int
) -> None:
    """Of slices of the sessions too."""
    whole = with_targets(*log, clicks)
    for part in (slice(None), slice(cut, None), slice(0, cut)):
        sessions = whole[part]
        queries, positions = sessions.pairs()
        found = [
            (whole.vocabulary.ids_of(queries.prefix(i)), whole.vocabulary.id_of(sessions.items[at]))
            for i, at in enumerate(positions)
        ]
        expected = slow_examples(log[0][part], log[1][part], clicks)
        assert found == expected
        assert sessions.n_pairs == len(expected)


@given(
    log=flagged_sessions,
    clicks=st.none() | st.integers(1, 5),
    longest=st.integers(1, 6),
    pairs=st.integers(1, 9),
)
@settings(deadline=None)
def test_training_rows_hold_every_example_once(
    log: tuple[list[list[int]], list[list[bool]]], clicks: int | None, longest: int, pairs: int
) -> None:
    """With the prefix that is read in answering, and no click behind the last that is predicted."""
    pytest.importorskip("torch")
    from nextclick.network.batches import Rows

    sessions = with_targets(*log, clicks)
    rows = Rows(sessions, longest)
    ids = sessions.vocabulary.ids_of
    found = []
    for batch in rows.batches(pairs, np.random.default_rng(1)):
        for read, mask, targets in zip(batch.clicks, batch.mask, batch.targets, strict=True):
            n = int(mask.sum())
            assert targets[n - 1] >= 0
            assert (targets[n:] == -1).all()
            found += [
                (ids(read[: t + 1].tolist()), sessions.vocabulary.id_of(int(targets[t])))
                for t in range(n)
                if targets[t] >= 0
            ]
    expected = slow_examples(*log, min(longest, clicks or longest))
    assert sorted(found) == sorted(expected)
    assert rows.n_pairs == len(expected)


@given(log=flagged_sessions, clicks=st.none() | st.integers(1, 5))
@settings(deadline=None)
def test_item_tables_count_targets_after_their_anchors(
    log: tuple[list[list[int]], list[list[bool]]], clicks: int | None
) -> None:
    """Markov and the anchored item-knn, every weight by its formula from counts of a slow loop."""
    sessions = with_targets(*log, clicks)
    steps, of_sessions = defaultdict(int), set()
    for s, (session, tips) in enumerate(zip(*log, strict=True)):
        for (before, after), tip in zip(itertools.pairwise(session), tips[1:], strict=True):
            steps[before, after] += tip
            of_sessions |= {(s, before, after)} if tip and before != after else set()

    def total(counts: dict[tuple[int, int], int], side: int, item: int) -> int:
        return sum(n for pair, n in counts.items() if pair[side] == item)

    def weights(model: nextclick.recommender.Recommender, anchor: int) -> dict[Any, float]:
        found = model.fit(sessions).recommend([anchor], len(model.vocabulary))
        return {item: pytest.approx(score, rel=1e-6) for item, score in found if score > 0}

    distinct: dict[tuple[int, int], int] = defaultdict(int)
    for _, before, after in of_sessions:
        distinct[before, after] += 1
    apart = {pair: n for pair, n in steps.items() if pair[0] != pair[1]}
    for anchor in {item for session in log[0] for item in session}:
        out = total(steps, 0, anchor)
        expected = {j: n / out for (i, j), n in steps.items() if i == anchor and n}
        assert weights(nextclick.Markov(), anchor) == expected
        model = nextclick.ItemKNN.preset("i2i-cf", pairs="anchor", asymmetry=0.7)
        assert weights(model, anchor) == {
            j: n / (total(distinct, 0, anchor) ** 0.7 * total(distinct, 1, j) ** 0.3)
            for (i, j), n in distinct.items()
            if i == anchor
        }
        model = nextclick.ItemKNN.preset("narm", pairs="anchor", regularisation=3)
        assert weights(model, anchor) == {
            j: n / ((total(apart, 0, anchor) + 3) * (total(apart, 1, j) + 3)) ** 0.5
            for (i, j), n in apart.items()
            if i == anchor and n
        }


def test_anchors_without_a_target_event_are_directed_co_occurrence() -> None:
    """By hand. Sessions with x then y: two of three with x as the anchor; z is never one."""
    sessions = Sessions.from_lists([["x", "y", "x", "y"], ["x", "z"], ["x", "y"]])
    model = nextclick.ItemKNN.preset("i2i-cf", pairs="anchor", asymmetry=0.5).fit(sessions)
    assert dict(model.recommend(["x"], 2)) == pytest.approx({"y": 2 / 6**0.5, "z": 1 / 3**0.5})
    assert model.recommend(["y"], 3)[0] == ("x", pytest.approx(1.0))
    assert [score for _, score in model.recommend(["z"], 3)] == [0, 0, 0]


# -- evaluation


def test_every_figure_of_a_tiny_log(data: Dataset) -> None:
    """Three examples: b c -> a, a d -> c, d -> b, where training does not know d, and ranks a, b and c.

    pop has a and b at 3 clicks each, c at 1. markov knows b -> c, c -> a, a -> b: a is first; c shares the
    second place with a; b shares the first with both others, as nothing of its prefix is known.
    """
    models = [nextclick.Popularity().fit(data.train), nextclick.Markov().fit(data.train)]
    report = nextclick.evaluate(models, data, k=[1, 3], n_resamples=5)
    assert (report.pairs, report.sessions, report.unseen_pairs) == (3, 2, 0)
    assert (report.target_event, report.target_clicks) == ("tip", 2)
    pop, markov = (result.metrics for result in report.models)
    assert pop["recall@1"] == pytest.approx((1 / 2 + 0 + 1 / 2) / 3)
    assert pop["mrr@3"] == pytest.approx((3 / 4 + 1 / 3 + 3 / 4) / 3)
    assert markov["recall@1"] == pytest.approx((1 + 0 + 1 / 3) / 3)
    assert markov["mrr@3"] == pytest.approx((1 + (1 / 2 + 1 / 3) / 2 + (1 + 1 / 2 + 1 / 3) / 3) / 3)
    assert models[1].measure(data.test)["mrr@20"] == pytest.approx(markov["mrr@3"])
    lengths = {part.label: part.pairs for part in report.models[0].slices["prefix length"]}
    assert lengths == {"1": 1, "2": 2}


def test_what_is_still_to_come_are_targets_too(data: Dataset) -> None:
    """After b c of s5, the tips a and c are to come, not d, which is a view."""
    report = nextclick.evaluate(
        [nextclick.Popularity().fit(data.train)], data, k=2, protocol="remaining", n_resamples=5
    )
    metrics = report.models[0].metrics
    assert metrics["precision@2"] == pytest.approx((1 / 2 + 0 + 1 / 2) / 3)  # a of a, c; none of c; b of b
    assert metrics["remaining_recall@2"] == pytest.approx((1 / 2 + 0 + 1) / 3)


def test_nothing_to_evaluate_names_the_event(data: Dataset) -> None:
    with pytest.raises(DataError, match="no session has a click of event 'tip' to predict"):
        nextclick.evaluate([nextclick.Popularity().fit(data.train)], data.validation[1:])


# -- the whole way, by commands


def run(*words: str | Path) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def long_log(path: Path) -> Path:
    sessions = {
        f"s{s:02}": " ".join(f"i{(s + 3 * n) % 7}:{'tip' if (s + n) % 3 == 0 else 'view'}" for n in range(5))
        for s in range(60)
    }
    return write_log(path, sessions)


def test_commands_predict_the_targets_without_being_told(tmp_path: Path) -> None:
    log = long_log(tmp_path / "log.csv")
    data = tmp_path / "data"
    said = run("prepare", log, "--target-event", "tip", "--target-clicks", "3", "--out", data)
    n = Dataset.load(data).test.n_pairs
    assert f"{n} clicks to predict of event tip, each from the last 3 before it" in said
    run("fit", data, "markov", "--out", tmp_path / "model")
    page = tmp_path / "report.html"
    pictures = importlib.util.find_spec("matplotlib") is not None
    shown = run("evaluate", data, tmp_path / "model", *(["--html", page] if pictures else []))
    assert "each click of event tip is predicted from the last 3 clicks before it" in shown
    if pictures:
        text = " ".join(page.read_text("utf-8").split())
        assert "for each click of event tip, each model sees the last 3 clicks before it" in text
        assert "every click but the first" not in text
    figures = json.loads(run("evaluate", data, tmp_path / "model", "--json", "-"))
    assert (figures["pairs"], figures["target_event"], figures["target_clicks"]) == (n, "tip", 3)


def test_experiments_take_a_target_event(tmp_path: Path) -> None:
    long_log(tmp_path / "log.csv")
    toml = tmp_path / "experiment.toml"
    toml.write_text(
        'name = "tips"\n[data]\nsource = "log.csv"\ntarget_event = "tip"\ntarget_clicks = 3\n'
        '[[rows]]\nmodel = "markov"\n'
    )
    run("run", toml, "--out", tmp_path / "out")
    (prepared,) = (tmp_path / "out" / "data").glob("*/tips")
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    dataset = Dataset.load(prepared)
    assert dataset.test.target_name == "tip"
    assert content["data"][0]["pairs"] == dataset.test.n_pairs
    toml.write_text(toml.read_text().replace("= 3", '= "3"'))
    assert "target_clicks='3'" in CliRunner().invoke(main, ["run", str(toml)]).output


def test_settings_are_searched_on_the_targets(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    data = nextclick.prepare(long_log(tmp_path / "log.csv"), out=tmp_path / "data", target_event="tip")
    found = tune(data, "item-knn", trials=2)
    best = nextclick.build("item-knn", found.settings).fit(data.train)
    assert found.best.metrics == pytest.approx(best.measure(data.validation))
    assert data.validation.n_pairs < replace(data.validation, target_event=None).n_pairs


# -- learning: tips follow another rule than views, and only a model fitted on the targets learns it

N_ITEMS = 50
LEARNERS: dict[str, dict[str, Any]] = {
    "markov": {},
    "item-knn": {"preset": "i2i-cf", "pairs": "anchor"},
    "fpmc": {},
    **{name: TRAINED[name] for name in ("stamp", "narm", "gru4rec", "gru4rec-plus")},
}


@functools.cache
def carousel() -> tuple[Sessions, Sessions]:
    """A view leads one item on; a tip, a quarter of the clicks, eleven."""
    rng = np.random.default_rng(5)
    lists, flags = [], []
    for _ in range(1100):
        session, tips = [int(rng.integers(N_ITEMS))], [False]
        for _ in range(int(rng.integers(2, 8))):
            tips.append(bool(rng.random() < 1 / 4))
            session.append((session[-1] + (11 if tips[-1] else 1)) % N_ITEMS)
        lists.append(session)
        flags.append(tips)
    sessions = with_targets(lists, flags, 12, hourly(lists))
    return sessions[:900], sessions[900:]


@pytest.mark.parametrize("name", LEARNERS)
def test_learns_the_rule_of_the_targets(name: str) -> None:
    train, test = carousel()
    plain = replace(train, target_event=None, target_clicks=None)
    right, wrong = (
        nextclick.evaluate([nextclick.build(name, LEARNERS[name]).fit(fitted)], test, k=1, n_resamples=2)
        .models[0].metrics["recall@1"]
        for fitted in (train, plain)
    )  # fmt: skip
    assert right > 0.8
    assert wrong < 0.3


@pytest.mark.parametrize("name", nextclick.MODELS)
def test_every_model_fits_and_answers(name: str) -> None:
    train, test = carousel()
    model = quick(name).fit(train[:80])
    report = nextclick.evaluate([model], test[:20], k=5, n_resamples=2)
    assert report.pairs == test[:20].n_pairs < sum(np.maximum(test[:20].lengths - 1, 0))
