"""Explanations: parts add up to scores, attention equals its equations, leaving out equals asking again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

import nextclick
from nextclick import (
    MODELS,
    NARM,
    SKNN,
    STAMP,
    STAN,
    VMISKNN,
    VSKNN,
    ConfigError,
    DataError,
    Explanation,
    ItemKNN,
    Markov,
    NotFittedError,
    Popularity,
    Queries,
    Recommender,
    Sessions,
    explain,
)
from nextclick.cli import main
from nextclick.reasons import Attention, ClickParts, LeftOut, Neighbours
from synthetic import DAY, chain, quick

N_ITEMS = 30
TRAIN = chain(N_ITEMS, 150, noise=0.3, seed=1)
ADDING_UP: list[Recommender] = [
    SKNN(),
    SKNN(similarity="jaccard", remind="none", last_clicks=None, k=9),
    VSKNN(),
    VSKNN(idf_similarity=True, remind="earlier", day_decay=0.9, last_days=4.5, score_weighting="log", k=20),
    VMISKNN(sample_size=15, k=9),
    STAN(),
    STAN(remind="none", k=12, lambda_inh=0.7, last_clicks=3),
    ItemKNN(),
    ItemKNN(last_clicks=3, decay="quadratic", n_neighbours=7),
    Markov(),
    Markov(last_clicks=9, decay="same"),
]


def random_sessions(n: int, seed: int) -> list[list[str]]:
    """Sessions with repeated items and some unknown ones, each with a known item."""
    rng = np.random.default_rng(seed)
    return [
        ["item 0", *(f"item {item}" for item in rng.integers(-1, N_ITEMS + 2, size))]
        for size in rng.integers(0, 12, n)
    ]


def parts_of(found: Explanation) -> NDArray[np.float64]:
    reasons = found.reasons
    assert isinstance(reasons, ClickParts | Neighbours)
    return reasons.parts if isinstance(reasons, ClickParts) else reasons.parts(len(found.items))


# -- parts


@pytest.mark.parametrize("model", ADDING_UP, ids=repr)
def test_parts_add_up_to_the_scores_of_top(model: Recommender) -> None:
    model.fit(TRAIN)
    voted = 0
    for session in random_sessions(40, seed=3):
        codes = [code for code in model.vocabulary.codes_of(session) if code >= 0]
        top, scores = model.top(Queries.of([codes]), N_ITEMS)
        found = explain(model, session, k=N_ITEMS)
        assert [item for item, _ in found.items] == model.vocabulary.ids_of(top[0])
        assert [score for _, score in found.items] == scores[0].tolist()
        parts = parts_of(found)
        assert (parts >= 0).all()
        assert np.allclose(parts.sum(axis=0), scores[0], rtol=1e-6, atol=0)
        voted += np.count_nonzero(scores)
    assert voted > 100  # most of what was compared is no zero


@pytest.mark.parametrize("model", ADDING_UP[:1] + ADDING_UP[5:6], ids=repr)
def test_explaining_leaves_later_answers_alone(model: Recommender) -> None:
    """The kernel's working arrays are lent for an explanation, and must come back zero."""
    model.fit(TRAIN)
    queries = Queries.of([model.vocabulary.codes_of(session) for session in random_sessions(20, seed=5)])
    before = model.top(queries, 9)
    explain(model, ["item 1", "item 2"])
    for ours, theirs in zip(model.top(queries, 9), before, strict=True):
        assert np.array_equal(ours, theirs)


# Sessions: abc, ab, bd, and c last; a day lies between two of them.
HAND = Sessions.from_lists(
    [["a", "b", "c"], ["a", "b"], ["b", "d", "b"], ["c"]],
    [0, 1, 2, DAY, DAY + 1, 2 * DAY, 2 * DAY + 1, 2 * DAY + 2, 3 * DAY + 2],
)


def test_neighbours_by_hand() -> None:
    """Cosine of {a, b} with {a, b, c}: 2 / sqrt(2 * 3); with {a, b}: 1; with {b, d}: 1 / sqrt(2 * 2)."""
    found = explain(SKNN(last_clicks=None).fit(HAND), ["a", "x", "b"], k=4)
    assert isinstance(found.reasons, Neighbours)
    first, second, third = found.reasons.sessions
    assert (first.clicks, first.shared) == (("a", "b"), ("a", "b"))
    assert (second.clicks, second.shared) == (("a", "b", "c"), ("a", "b"))
    assert (third.clicks, third.shared) == (("d", "b"), ("b",))  # in the order of the last click
    alike = [1.0, 2 / 6**0.5, 0.5]
    assert [one.similarity for one in (first, second, third)] == pytest.approx(alike)
    assert [one.later for one in (first, second, third)] == [2, 3, 1]
    assert [one.days for one in (first, second, third)] == pytest.approx([2, 3, 1], abs=1e-6)
    assert [item for item, _ in found.items] == ["b", "a", "c", "d"]
    assert found.reasons.parts(4) == pytest.approx(
        np.array([[alike[0], alike[0], 0, 0], [alike[1]] * 3 + [0], [alike[2], 0, 0, alike[2]]])
    )
    assert found.unknown == ("x",)
    assert found.session == ("a", "b")


def test_markov_by_hand() -> None:
    """After b: c in one of two, d in one of two; after a: always b. The click before counts half."""
    found = explain(Markov(last_clicks=2).fit(HAND), ["a", "b"], k=4)
    assert isinstance(found.reasons, ClickParts)
    parts = dict(zip([item for item, _ in found.items], found.reasons.parts.T.tolist(), strict=True))
    assert parts == {"b": [0.5, 0], "c": [0, 0.5], "d": [0, 0.5], "a": [0, 0]}
    assert any("No vote at all" in note and note.endswith(": a.") for note in found.notes)


def test_a_log_without_clock_gives_ages_in_sessions() -> None:
    model = VSKNN().fit(Sessions.from_lists([["a", "b"], ["a", "c"], ["a", "d"]]))
    found = explain(model, ["a"])
    assert isinstance(found.reasons, Neighbours)
    assert {one.days for one in found.reasons.sessions} == {None}
    assert sorted(one.later for one in found.reasons.sessions) == [0, 1, 2]
    assert "2 later" in str(found)


# -- attention


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-x))


def weights_of(model: Recommender) -> dict[str, NDArray[np.float64]]:
    return {name: array.astype(np.float64) for name, array in model.state().items()}


def inputs_of(w: dict[str, NDArray[np.float64]], prefix: list[int]) -> NDArray[np.float64]:
    x = w["items.weight"][prefix]
    return x / np.linalg.norm(x, axis=1, keepdims=True)  # temperature > 0: cosines


def narm_weights(model: Recommender, prefix: list[int]) -> list[float]:
    """a_tj of one prefix, Li et al. 2017, eqs. 5 to 8, with the gates of PyTorch's GRU for eqs. 1 to 4."""
    w = weights_of(model)
    size = w["encoder.gru.weight_hh_l0"].shape[1]
    h, states = np.zeros(size), []
    for x in inputs_of(w, prefix):
        of_x = w["encoder.gru.weight_ih_l0"] @ x + w["encoder.gru.bias_ih_l0"]
        of_h = w["encoder.gru.weight_hh_l0"] @ h + w["encoder.gru.bias_hh_l0"]
        reset, update = sigmoid(of_x[:size] + of_h[:size]), sigmoid(of_x[size:-size] + of_h[size:-size])
        candidate = np.tanh(of_x[-size:] + reset * of_h[-size:])
        h = (1 - update) * candidate + update * h
        states.append(h)  # eq. 5: the state at t
    a1, a2, v = (w[f"encoder.{name}.weight"] for name in ("query", "key", "energy"))
    return [float(v[0] @ sigmoid(a1 @ states[-1] + a2 @ h_j)) for h_j in states]  # eqs. 7 and 8


def stamp_weights(model: Recommender, prefix: list[int]) -> list[float]:
    """a_i = w . sigmoid(W1 x_i + W2 x_t + W3 m + b), with m the mean of the clicks."""
    w = weights_of(model)
    x = inputs_of(w, prefix)
    of_all = w["encoder.of_last.weight"] @ x[-1] + w["encoder.of_mean.weight"] @ x.mean(axis=0)
    of_all = of_all + w["encoder.of_mean.bias"]
    return [
        float(w["encoder.energy.weight"][0] @ sigmoid(w["encoder.of_click.weight"] @ x_i + of_all))
        for x_i in x
    ]


@pytest.fixture(scope="module")
def narm() -> NARM:
    model = quick("narm", {"last_clicks": 6, "learning_rate": 0.05})
    assert isinstance(model, NARM)
    return model.fit(TRAIN)


@pytest.fixture(scope="module")
def stamp() -> STAMP:
    model = quick("stamp", {"last_clicks": 6, "learning_rate": 0.05})
    assert isinstance(model, STAMP)
    return model.fit(TRAIN)


@pytest.mark.parametrize("size", [1, 4, 6, 7, 90])
@pytest.mark.parametrize("name", ["narm", "stamp"])
def test_attention_equals_its_equations(name: str, size: int, request: pytest.FixtureRequest) -> None:
    model, slow = request.getfixturevalue(name), {"narm": narm_weights, "stamp": stamp_weights}[name]
    items = np.random.default_rng(size).integers(0, N_ITEMS, size)
    weights = model.attention([f"item {item}" for item in items])
    assert weights.shape == (size, size)
    assert weights.dtype == np.float32
    codes = model.vocabulary.codes_of(f"item {item}" for item in items).tolist()
    for t in range(size):
        first = max(0, t - 5)  # last_clicks=6
        assert weights[t, first : t + 1] == pytest.approx(
            slow(model, codes[first : t + 1]), rel=1e-4, abs=1e-6
        )
        assert not weights[t, :first].any()
        assert not weights[t, t + 1 :].any()
    assert np.ptp(weights[-1, max(0, size - 6) :]) > 0 or size == 1


def test_local_attention_is_that_of_the_local_encoder() -> None:
    model = quick("narm", {"encoder": "local"}).fit(TRAIN)
    assert isinstance(model, NARM)
    codes = model.vocabulary.codes_of(["item 3", "item 5"]).tolist()
    assert model.attention(["item 3", "item 5"])[1] == pytest.approx(narm_weights(model, codes), rel=1e-4)


def test_explained_by_attention(narm: NARM) -> None:
    session = ["item 1", "no", "item 2", "item 3"]
    found = explain(narm, session, k=3)
    assert found.by == "attention"
    assert isinstance(found.reasons, Attention)
    assert np.array_equal(found.reasons.weights, narm.attention(session))
    assert found.unknown == ("no",)
    rows = found.to_json()["weights"]
    assert [len(row) for row in rows] == [1, 2, 3]
    assert rows[2] == narm.attention(session)[2].tolist()
    long = explain(narm, [f"item {item}" for item in range(9)])
    assert "Only the last 6 clicks of a prefix are read." in long.notes
    assert "not read" in str(long)
    assert "not read" not in str(found)


@pytest.mark.parametrize(
    ("name", "values"), [("narm", {"encoder": "global"}), ("stamp", {"attended": False})]
)
def test_without_attention_there_is_a_message_and_another_way(name: str, values: dict[str, Any]) -> None:
    model = quick(name, values).fit(TRAIN)
    assert isinstance(model, NARM | STAMP)
    with pytest.raises(ConfigError, match="leave no attention"):
        model.attention(["item 1"])
    found = explain(model, ["item 1", "item 2"])
    assert found.by == "leaving out"
    assert "no reasons of its own" in found.notes[0]


def test_attention_refuses_what_it_cannot_weigh(narm: NARM) -> None:
    with pytest.raises(NotFittedError):
        NARM().attention(["item 1"])
    with pytest.raises(DataError, match="no item of the session is known"):
        narm.attention(["no"])
    with pytest.raises(DataError, match="one text"):
        narm.attention("item 1")


# -- leaving out


@pytest.mark.parametrize("name", ["pop", "s-pop", "vs-knn", "markov", "narm"])
def test_leaving_out_equals_asking_again(name: str) -> None:
    """Ranks are compared with the place in a list of all items, ties included."""
    model = quick(name).fit(TRAIN)
    session = ["item 4", "item 5", "no", "item 4", "item 9"]
    found = explain(model, session, k=6, leave_out=True)
    assert isinstance(found.reasons, LeftOut)
    assert found.reasons.full.tolist() == [score for _, score in found.items]
    known = [item for item in session if item != "no"]
    for j in range(4):
        again = list(model.recommend([*known[:j], *known[j + 1 :]], k=N_ITEMS))
        places = {item: place for place, (item, _) in enumerate(again, start=1)}
        scores = dict(again)
        for n, (item, score) in enumerate(found.items):
            assert found.reasons.scores[j, n] == pytest.approx(scores[item], rel=1e-4, abs=1e-5)
            assert found.reasons.parts()[j, n] == pytest.approx(score - scores[item], rel=1e-3, abs=1e-5)
            if name != "narm":  # whose scores differ by rounding in a batch of another size
                assert found.reasons.ranks[j, n] == places[item]


def test_leaving_out_is_marked_and_says_what_it_means() -> None:
    pop = explain(Popularity().fit(TRAIN), ["item 1", "item 2"])
    assert "no reasons of its own" in pop.notes[0]
    assert any("No click makes a difference" in note for note in pop.notes)
    asked = explain(Markov().fit(TRAIN), ["item 1"], leave_out=True)
    assert not any("no reasons of its own" in note for note in asked.notes)
    assert any("empty session" in note for note in asked.notes)
    assert isinstance(asked.reasons, LeftOut)
    # An empty session is answered by clicks, which no score can be compared with.
    assert asked.reasons.parts()[0].tolist() == [score for _, score in asked.items]
    empty = [item for item, _ in Markov().fit(TRAIN).recommend([], k=N_ITEMS)]
    assert asked.reasons.ranks[0].tolist() == [1 + empty.index(item) for item, _ in asked.items]


class Choosy(Popularity):
    """Recommends an item of the session never again, and nothing but the rest."""

    def _scores(self, queries: Queries) -> NDArray[np.float32]:
        scores = super()._scores(queries)
        for i in range(len(queries)):
            scores[i, queries.prefix(i)] = -np.inf
        return scores

    top = Recommender.top


def test_what_is_never_recommended_without_a_click_is_said_so() -> None:
    """An item that is in the session itself has no score, unless its click is the one left out."""
    choosy = Choosy().fit(Sessions.from_lists([["a", "b", "c"]]))
    found = explain(choosy, ["a"], k=3)
    assert [item for item, _ in found.items] == ["b", "c"]
    reasons = LeftOut(np.array([[-np.inf, 1]], np.float32), np.array([[0, 1]]), np.array([1, 1], np.float32))
    text = str(Explanation("m", ("a",), found.items, reasons))
    assert "1 → never" in text
    assert reasons.to_json() == {"scores_without": [[None], [1.0]], "ranks_without": [[None], [1]]}
    with pytest.raises(DataError, match="nothing to recommend"):
        explain(choosy, ["a", "b", "c"])


# -- every model


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_explained(name: str, tmp_path: Path) -> None:
    model = quick(name).fit(TRAIN)
    session = [f"item {item}" for item in (1, 2, 3, 2)]
    for leave_out in (False, True):
        found = explain(model, session, k=3, leave_out=leave_out)
        assert len(found.items) == 3
        said = json.loads(json.dumps(found.to_json(), allow_nan=False))
        assert said["by"] == found.by
        assert said["model"] == name
        assert said["session"] == session
        shown = str(found)
        assert all(str(item) in shown for item, _ in found.items)
        assert name in repr(found)
        found.save_png(tmp_path / "one.png")
        assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert found.by == "leaving out"


def test_exclude_seen_explains_only_new_items() -> None:
    model = VSKNN().fit(TRAIN)
    found = explain(model, ["item 1", "item 2"], k=9, exclude_seen=True)
    assert found.items == model.recommend(["item 1", "item 2"], 9, exclude_seen=True).items
    assert not {"item 1", "item 2"} & {item for item, _ in found.items}


def test_bad_input_is_refused() -> None:
    model = Markov().fit(TRAIN)
    for session in ([], ["no", "neither"]):
        with pytest.raises(DataError, match="knows no item of the session"):
            explain(model, session)
    with pytest.raises(DataError, match="one text"):
        explain(model, "item 1")
    with pytest.raises(ConfigError, match="at least 1"):
        explain(model, ["item 1"], k=0)
    with pytest.raises(NotFittedError):
        explain(Markov(), ["item 1"])


# -- text and picture


def test_text_shows_the_strongest_and_sums_up_the_others() -> None:
    found = explain(SKNN(last_clicks=None).fit(HAND), ["a", "b"], k=1)
    assert "1.816" not in str(found)
    assert ["1", "b", "2.316", "1", "43%", "1", "2.0", "d", "a*,", "b*"] in [
        row.split() for row in str(found).splitlines()
    ]
    many = Sessions.from_lists([["a", f"b{n}", "c"] for n in range(40)])
    row = next(row for row in str(explain(SKNN().fit(many), ["a"], k=1)).splitlines() if "others" in row)
    assert row.split()[1:] == ["92%", "37", "others"]


def test_text_shades_by_size_and_leaves_later_clicks_blank() -> None:
    weights = np.array([[2, 0, 0], [-4, 2.8, 0], [0.2, 1, 10]], np.float32)
    found = Explanation("m", ("a", "b", "c"), (), Attention(weights))
    rows = [row.split() for row in str(found).splitlines()[2:5]]
    assert rows == [["1", "a", "0.2", "██"], ["2", "b", "1", "██▓▓"], ["3", "c", "10", "··░░██"]]


def test_picture_of_attention_scales_each_row_by_its_largest() -> None:
    from nextclick.explain import picture
    from nextclick.report.drawing import canvas

    weights = np.array([[2, 0, 0], [-4, 2, 0], [0, 1, -8]], np.float32)
    found = Explanation("m", ("a", "b", "c" * 300), (), Attention(weights))
    with canvas(4, 4) as figure:
        picture._heat_map(found, figure)
        shown = figure.axes[0].images[0].get_array()
        assert shown.filled(9).tolist() == [[-1, 9, 9], [1, -0.5, 9], [9, -0.125, 1]]
        assert [label.get_text() for label in figure.axes[0].get_yticklabels()][:2] == ["a  1", "b  2"]


def test_picture_of_parts_draws_them() -> None:
    from nextclick.explain import picture
    from nextclick.report.drawing import canvas

    found = explain(SKNN(last_clicks=None).fit(HAND), ["a", "b"], k=2)
    with canvas(8, 4) as figure:
        picture._bars(found, figure)
        widths = [[bar.get_width() for bar in axes.patches] for axes in figure.axes]
    assert widths[0] == pytest.approx([1, 2 / 6**0.5, 0.5])
    assert widths[1] == pytest.approx([1, 2 / 6**0.5])


def test_pictures_of_odd_sessions(narm: NARM, tmp_path: Path) -> None:
    ids = [f"a very long id of an item, number {n:03d}, $x$ [b] 商品" for n in range(40)]
    model = VSKNN().fit(Sessions.from_lists([ids[n : n + 8] for n in range(30)]))
    for n, one in enumerate(
        (
            explain(model, ids, k=12),
            explain(model, ids[:1], leave_out=True),
            explain(narm, [f"item {n % N_ITEMS}" for n in range(130)]),
            explain(narm, ["item 1"], k=30),
        )
    ):
        one.save_png(tmp_path / f"{n}.png")
        assert (tmp_path / f"{n}.png").stat().st_size > 3000
    with pytest.raises(ConfigError, match=r"ends in \.png"):
        explain(model, ids).save_png(tmp_path / "picture.svg")
    assert len(list(tmp_path.iterdir())) == 4


def test_the_same_picture_twice(narm: NARM, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        explain(narm, ["item 1", "item 2"]).save_png(tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


# -- the command


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["explain", *map(str, arguments)])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    rows = ["session,item,time"]
    for s in range(120):
        rows += [
            f"visit {s},product {(s * 7 + n) % 11},{1_700_000_000 + 3600 * s + n}" for n in range(2 + s % 4)
        ]
    (folder / "clicks.csv").write_text("\n".join(rows) + "\n", "utf-8")
    data = nextclick.prepare(folder / "clicks.csv", out=folder / "data", holdout="1d")
    Markov().fit(data.train).save(folder / "markov")
    VSKNN().fit(data.train).save(folder / "vs-knn")
    return folder


def test_command_prints_json_in_a_pipe_and_draws(saved: Path, tmp_path: Path) -> None:
    result = run(saved / "vs-knn", "product 1", "no", "product 2", "-k", 2, "--png", tmp_path / "p.png")
    assert result.exit_code == 0, result.output
    found = explain(nextclick.load(saved / "vs-knn"), ["product 1", "no", "product 2"], k=2)
    assert json.loads(result.stdout) == found.to_json()
    assert "unknown items skipped: no" in result.stderr
    assert str(tmp_path / "p.png") in result.stderr
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_command_prints_a_table(saved: Path) -> None:
    result = run(saved / "markov", "product 1", "--format", "table", "-k", 1, "--exclude-seen", "--leave-out")
    assert result.exit_code == 0, result.output
    assert "click left out" in result.stdout
    assert "1  product 1" in result.stdout


def test_command_takes_a_session_of_the_test_part(saved: Path) -> None:
    data = nextclick.Dataset.load(saved / "data")
    first = 120 - len(data.test)
    clicks = data.vocabulary.ids_of(data.test.items[: data.test.offsets[1]])
    result = run(saved / "markov", "--from-data", saved / "data", "--session", f"visit {first}")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["session"] == clicks[:-1]
    assert f"{len(clicks) - 1} clicks, then {clicks[-1]}" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["no"], "knows no item of the session", 1),
        (["product 1", "--png", "a.svg"], "ends in .png", 1),
        (["--from-data", "DATA", "--session", "visit 0"], "it is of the train part", 1),
        (["--from-data", "DATA", "--session", "visit"], "there is no session of that id", 1),
        ([], "give the ITEMs of one session", 2),
        (["product 1", "--session", "3"], "go together", 2),
        (["product 1", "-k", "0"], "x>=1", 2),
    ],
)
def test_command_refuses(saved: Path, arguments: list[str], message: str, code: int) -> None:
    result = run(saved / "markov", *(str(saved / "data") if word == "DATA" else word for word in arguments))
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in " ".join(result.stderr.split())
