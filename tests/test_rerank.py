"""Two stages: candidates, their union, the network that orders them, and what is kept of it all."""

from __future__ import annotations

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import nextclick
import processes
from nextclick import RRCRE, ArtifactError, Blend, ConfigError, DataError, Queries, Recommender, Sessions
from nextclick.neighbours.session_votes import SessionKNN
from nextclick.network import batches
from nextclick.recommender import Run
from nextclick.rerank import kernels
from nextclick.rerank.candidates import Made, cleaned, clicked, earlier_places, training_lists
from nextclick.rerank.held_out import Wanted
from nextclick.rerank.network import Reranker, picked, rows_of_places
from nextclick.rerank.scoring import Scorer
from nextclick.rerank.training import Reordering, lengths_of
from nextclick.serving.table import export_table
from synthetic import chain, random_queries

TRAIN = chain(20, 90, noise=0.3, seed=1)
QUERIES = random_queries(40, 20, seed=2)
PLAIN: dict[str, Any] = {**RRCRE.presets["paper"], "held_out": "auto"}
SMALL: dict[str, Any] = {**PLAIN, "epochs": 2, "dim": 6, "batch_size": 32, "k": 8}


def silent(what: str, done: int, total: int) -> None:
    pass


class Fixed(Recommender):
    """A black box whose scores after a prefix are those of its last click, from a table."""

    name: ClassVar[str] = "fixed"
    summary: ClassVar[str] = "a table"
    source: ClassVar[str] = "here"
    rows: np.ndarray

    def _fit(self, sessions: Sessions) -> None:
        n = sessions.n_items
        if not hasattr(self, "rows") or len(self.rows) != n:
            self.rows = np.random.default_rng(n).normal(size=(n, n)).astype(np.float32)

    def _scores(self, queries: Queries) -> np.ndarray:
        last = [queries.prefix(i)[-1] if len(queries.prefix(i)) else 0 for i in range(len(queries))]
        return self.rows[last].copy()

    def _state(self) -> dict[str, np.ndarray]:
        return {"rows": self.rows}

    def _restore(self, state: Any) -> None:
        self.rows = state["rows"]


def fixed(rows: Any, sessions: Sessions = TRAIN) -> Fixed:
    made = Fixed()
    made.rows = np.asarray(rows, np.float32)
    return made.fit(sessions)


# -- equations 3 and 4


def slow_scores(
    network: Reranker, prefix: list[int], candidates: list[int], places: np.ndarray, features: np.ndarray,
    length: int, earlier: np.ndarray,
) -> list[float]:  # fmt: skip
    """Sánchez Rodríguez et al. 2019, equations 3 and 4, one number at a time, in float64.

    Ours: what the places of its earlier clicks tell is added to the session that asks for a place. With a
    temperature item vectors have length 1, and so has what is asked for, before it is divided.
    """
    w = {name: tensor.detach().double().numpy() for name, tensor in network.state_dict().items()}
    temperature = network.temperature or 1.0
    if network.temperature:
        w["items.weight"] /= np.linalg.norm(w["items.weight"], axis=1, keepdims=True)
    x = [w["items.weight"][item] for item in prefix]
    mean = sum(x) / len(x)
    memory = np.zeros_like(mean)
    for click in x:
        inner = (
            w["encoder.of_click.weight"] @ click + w["encoder.of_last.weight"] @ x[-1]
            + w["encoder.of_mean.weight"] @ mean + w["encoder.of_mean.bias"]
        )  # fmt: skip
        memory = memory + (w["encoder.energy.weight"][0] @ (1 / (1 + np.exp(-inner)))) * click
    h_s = np.tanh(w["encoder.memory.weight"] @ memory + w["encoder.memory.bias"])
    h_t = np.tanh(w["encoder.last.weight"] @ x[-1] + w["encoder.last.bias"])
    h_u = h_s * h_t

    deep = h_u.copy()
    for of_click in earlier:
        for g in range(len(network.depths)):
            if of_click[g] >= 0:
                deep += w[f"depths.{g}"][network.rows[of_click[g]]]

    def mlp(name: str, h: np.ndarray) -> np.ndarray:
        inner = np.tanh(w[f"{name}.0.weight"] @ h + w[f"{name}.0.bias"])
        return np.tanh(w[f"{name}.2.weight"] @ inner + w[f"{name}.2.bias"])

    found = []
    asked = mlp("item_projection", h_u)
    asked = asked / np.linalg.norm(asked) if network.temperature else asked
    for c, item in enumerate(candidates):
        score = float(w["items.weight"][item] @ asked) / temperature if network.content else 0.0
        for g in range(len(network.ranks)):
            score += float(w[f"ranks.{g}"][network.rows[places[c, g]]] @ mlp(f"rank_projection.{g}", deep))
        if network.judge is not None:
            k = len(network.rows) - 1
            read = [value for z, soft, share in features[c] for value in (z, soft / 4, share / 4)]
            for place in places[c]:
                listed = float(place < k)
                read += [listed / (1 + place), np.log(1 + place) / np.log(1 + k), listed]
            units = np.array([*read, w["popularity"][item], np.log(length)])
            for layer in (0, 2, 4):
                units = w[f"judge.{layer}.weight"] @ units + w.get(f"judge.{layer}.bias", 0.0)
                units = np.maximum(units, 0) if layer < 4 else units
            score += float(units[0])
        found.append(score)
    return found


@pytest.mark.parametrize(("n_lists", "deep"), [(1, 0), (1, 1), (3, 0), (3, 2)])
@pytest.mark.parametrize("cre", [True, False])
@pytest.mark.parametrize(
    ("shared", "scored", "temperature", "content"),
    [(False, False, 0.0, True), (True, True, 0.0, True), (False, True, 0.2, True), (False, True, 0.2, False)],
)
def test_scores_are_equations_3_and_4(
    n_lists: int, deep: int, cre: bool, shared: bool, scored: bool, temperature: float, content: bool
) -> None:
    rng = np.random.default_rng(3)
    rows = rows_of_places(9, shared)
    network = Reranker(
        15, 6, n_lists, rows, cre=cre, scored=scored, temperature=temperature, content=content, deep=deep
    )
    if scored:
        network.popularity.uniform_(generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        for weights in network.parameters():
            torch.nn.init.normal_(weights, std=0.7, generator=torch.Generator().manual_seed(1))
    prefixes = [[3], [4, 4, 9, 1], [0, 14, 2]]
    candidates = np.array([rng.permutation(15)[:7] for _ in prefixes], np.int32)
    candidates[2, 5:] = -1
    places = rng.integers(0, 10, (3, 7, n_lists))
    features = rng.normal(size=(3, 7, n_lists, 3)).astype(np.float32)
    lengths = [1, 4, 30]  # of the whole prefixes, of which the last clicks are read
    earlier = rng.integers(-1, 10, (3, 5, deep))
    clicks, mask, last = batches.prefixes(Queries.of(prefixes), 19)
    with torch.inference_mode():
        session = network.session(clicks, mask, last)
        found = network(
            session, torch.from_numpy(candidates), torch.from_numpy(places), torch.from_numpy(features),
            torch.tensor(lengths, dtype=torch.float32), torch.from_numpy(earlier),
        )  # fmt: skip
    for i, prefix in enumerate(prefixes):
        n = int((candidates[i] >= 0).sum())
        expected = slow_scores(
            network, prefix, candidates[i, :n].tolist(), places[i], features[i], lengths[i], earlier[i]
        )
        assert found[i, :n].tolist() == pytest.approx(expected, abs=2e-5)
        assert (found[i, n:] == -torch.inf).all()


def test_products_with_candidates_and_their_gradients_are_those_of_rows_side_by_side() -> None:
    generator = torch.Generator().manual_seed(2)
    vectors, table = (torch.randn(n, 5, generator=generator, requires_grad=True) for n in (4, 11))
    candidates = torch.randint(-1, 11, (4, 7), generator=generator, dtype=torch.int32)
    weights = torch.randn(4, 7, generator=generator)
    fast = picked(vectors, table, candidates)
    gathered = (table[candidates.clamp(min=0).long()] * vectors[:, None]).sum(2)
    slow = gathered * (candidates >= 0)
    assert torch.allclose(fast, slow, atol=1e-6)
    of_fast = torch.autograd.grad((fast * weights).sum(), (vectors, table))
    of_slow = torch.autograd.grad((slow * weights).sum(), (vectors, table))
    for ours, theirs in zip(of_fast, of_slow, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("cre", [True, False])
@pytest.mark.parametrize(
    ("scored", "temperature", "content"),
    [(False, 0.0, True), (True, 0.0, True), (True, 0.2, True), (True, 0.2, False), (False, 0.2, True)],
)
def test_the_compiled_scores_are_those_of_the_network(
    cre: bool, scored: bool, temperature: float, content: bool
) -> None:
    """For prefixes of many lengths, longer than is read among them, and as many of them as threads share."""
    rng = np.random.default_rng(5)
    prefixes = [rng.integers(0, 15, 1 + n % 7).tolist() for n in range(150)]
    queries, generator = Queries.of(prefixes), torch.Generator().manual_seed(1)
    network = Reranker(
        15, 6, 2, rows_of_places(9, cre), cre=cre, scored=scored, temperature=temperature, content=content,
        deep=2 * scored,
    )  # fmt: skip
    with torch.no_grad():
        for weights in network.parameters():
            torch.nn.init.normal_(weights, std=0.7, generator=generator)
        network.items.weight[2] = 0.0  # of no length
        if scored:
            network.popularity.uniform_(generator=generator)
    candidates = np.array([rng.permutation(15)[:7] for _ in prefixes], np.int32)
    candidates[rng.random(candidates.shape) < 0.2] = -1
    candidates[4] = -1
    places = rng.integers(0, 10, (150, 7, 2)).astype(np.int32)
    features = rng.normal(size=(150, 7, 2, 3)).astype(np.float32)
    earlier = rng.integers(-1, 10, (150, 3, len(network.depths))).astype(np.int32)
    found = Scorer(network).probabilities(queries, 4, candidates, places, features, earlier)
    with torch.inference_mode():
        slow = network(
            network.session(*batches.prefixes(queries, 4)), torch.from_numpy(candidates),
            torch.from_numpy(places).long(), torch.from_numpy(features), lengths_of(queries),
            torch.from_numpy(earlier).long(),
        ).softmax(1)  # fmt: skip
    np.testing.assert_allclose(found, np.nan_to_num(slow.numpy()), atol=1e-6, rtol=1e-4)
    assert found[4].tolist() == [0.0] * 7


@cache
def over_two(clicked: bool) -> RRCRE:
    return RRCRE([nextclick.Markov(), nextclick.ItemKNN()], **{**SMALL, "clicked": clicked}).fit(TRAIN)


@settings(deadline=None)
@given(st.integers(1, 12), st.booleans(), st.booleans())
def test_short_lists_are_the_beginning_of_all_items_scores(k: int, exclude_seen: bool, clicked: bool) -> None:
    """With ties, empty prefixes and sessions that leave too few candidates."""
    model = over_two(clicked)
    dense = Recommender.top(model, QUERIES, k, exclude_seen=exclude_seen)
    quick = model.top(QUERIES, k, exclude_seen=exclude_seen)
    assert quick[0].tolist() == dense[0].tolist()
    assert quick[1].tolist() == dense[1].tolist()


def test_places_have_their_own_row_or_share_growing_buckets() -> None:
    assert rows_of_places(4, shared=False) == [0, 1, 2, 3, 4]
    # Widths 1, 1.25, 1.56, 1.95, 2.44, 3.05, each rounded down.
    assert rows_of_places(9, shared=True) == [0, 1, 2, 3, 4, 4, 5, 5, 5, 6]
    many = rows_of_places(1000, shared=True)
    assert len(many) == 1001
    assert many == sorted(many)
    assert max(many) < 30


# -- lists of candidates


def test_what_cannot_be_a_candidate_is_left_out_and_counted() -> None:
    inf = np.float32(np.inf)
    items = np.array([[4, 2, 4, 9, 1], [7, -5, 0, -1, -1], [0, 1, 2, 3, 4]])
    scores = np.array([[5, 4, 3, 2, 1], [5, 4, 3, -inf, -inf], [5, -inf, 3, -inf, 1]], np.float32)
    met = np.zeros(3, np.int64)
    found, of_found = cleaned(items, scores, 5, 6, met)
    assert found.tolist() == [[4, 2, 1, -1, -1, -1], [0, -1, -1, -1, -1, -1], [0, 2, 4, -1, -1, -1]]
    assert of_found.tolist() == [[5, 4, 1] + [-inf] * 3, [3] + [-inf] * 5, [5, 3, 1] + [-inf] * 3]
    assert met.tolist() == [3, 3, 1]  # lists with fewer than six, codes 9, 7 and -5, the second 4
    again, _ = cleaned(items[:1], scores[:1], 5, 2)
    assert again.tolist() == [[4, 2]]


def test_lists_are_united_in_the_order_of_their_generators() -> None:
    items = np.array([[[3, 1, 2]], [[5, 3, -1]]], np.int32)
    scores = np.array([[[9, 6, 3]], [[4, 2, -np.inf]]], np.float32)
    union, ranks, features = kernels.united(items, scores, 6)
    assert union.tolist() == [[3, 1, 2, 5]]
    assert ranks[0, :4].tolist() == [[0, 1], [1, 3], [2, 3], [3, 0]]
    spread = np.sqrt(6.0)  # of 9, 6 and 3 around 6
    expected = [[3 / spread, -1.0], [0.0, -1.0], [-3 / spread, -1.0], [-3 / spread, 1.0]]
    assert np.allclose(features[0, :4, :, 0], expected, atol=1e-5)
    soft = np.log(np.exp([9, 6, 3]) / np.exp([9, 6, 3]).sum())  # the first list's shares
    assert np.allclose(features[0, :4, 0, 1], [*soft, soft[2]], atol=1e-5)
    share = np.log([6 / 9, 3 / 9])  # of what is above the lowest, 3
    assert np.allclose(features[0, :4, 0, 2], [*share, -12, -12], atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_union_agrees_with_a_slow_one(data: st.DataObject) -> None:
    n_items, k, n_lists = 9, data.draw(st.integers(1, 5)), data.draw(st.integers(1, 3))
    lists = [
        data.draw(st.lists(st.integers(0, n_items - 1), unique=True, max_size=k)) for _ in range(n_lists)
    ]
    items = np.full((n_lists, 1, k), -1, np.int32)
    scores = np.full(items.shape, -np.inf, np.float32)
    for g, one in enumerate(lists):
        items[g, 0, : len(one)] = one
        scores[g, 0, : len(one)] = sorted(data.draw(
            st.lists(st.integers(-50, 50), min_size=len(one), max_size=len(one))), reverse=True)  # fmt: skip
    union, ranks, features = kernels.united(items, scores, n_items)
    expected = list(dict.fromkeys(item for one in lists for item in one))
    assert union[0].tolist() == (expected or [-1])
    for c, item in enumerate(expected):
        for g, one in enumerate(lists):
            assert ranks[0, c, g] == (one.index(item) if item in one else k)
            own = scores[g, 0, : len(one)].astype(float)
            if len(one):
                at = one.index(item) if item in one else len(one) - 1
                soft = own[at] - own[0] - np.log(np.exp(own - own[0]).sum())
                over = own[at] - own[-1]
                share = np.log(over / (own - own[-1]).sum()) if over else -12.0
                assert features[0, c, g].tolist() == pytest.approx(
                    [(own[at] - own.mean()) / (own.std() + 1e-6), max(soft, -12.0), share], abs=1e-4
                )
            else:
                assert features[0, c, g].tolist() == [0, 0, -12]


@settings(max_examples=100, deadline=None)
@given(
    arrays.arrays(np.float32, 12, elements=st.floats(width=32, allow_nan=False)),
    st.lists(st.integers(0, 11), unique=True, max_size=12),
)
def test_candidates_stand_above_all_others_which_keep_their_order(
    scores: np.ndarray, chosen: list[int]
) -> None:
    scores = np.where(np.isposinf(scores), np.float32(0), scores)
    union = np.array([[*chosen, *[-1] * (12 - len(chosen))]], np.int32)
    values = np.linspace(1, 0.1, 12, dtype=np.float32)[None]
    row = scores[None].copy()
    kernels.place_above(row, union, values)
    others = [item for item in range(12) if item not in chosen]
    for n, item in enumerate(chosen):
        assert row[0, item] == values[0, n]
    for a in others:
        assert row[0, a] < 2.0**-60
        for b in others:
            assert (row[0, a] < row[0, b]) == (scores[a] < scores[b])
            assert (row[0, a] == row[0, b]) == (scores[a] == scores[b])


@pytest.mark.parametrize(
    "model",
    [
        nextclick.SKNN(k=6, sample_size=9),
        nextclick.VSKNN(k=6, sample_size=9, idf=0.0),
        nextclick.VMISKNN(k=6, sample_size=9, idf=0.0),
        nextclick.STAN(k=6, sample_size=9, lambda_snh=None),
    ],
    ids=lambda model: model.name,
)
def test_leaving_a_session_out_is_fitting_without_it(model: SessionKNN) -> None:
    """With so few sessions compared that one left out lets another in."""
    model.fit(TRAIN)
    queries, positions = TRAIN.pairs()
    own = TRAIN.session_of[positions]
    top, scores = model.top_without(queries, own, 10)
    differing = 0
    for session in range(0, len(TRAIN), 7):
        rows = np.flatnonzero(own == session)
        refitted = type(model)(**nextclick.settings.values_of(model))
        refitted.fit(TRAIN.where(np.arange(len(TRAIN)) != session))
        votes = refitted._votes(queries[rows])  # what fills the list behind them goes by popularity
        for row, n in zip(rows, np.diff(votes.offsets), strict=True):
            expected, of_expected = (part[0] for part in refitted.top(queries[row : row + 1], 10))
            assert top[row, :n].tolist() == expected[:n].tolist()
            assert scores[row, :n].tolist() == of_expected[:n].tolist()
            differing += model.top(queries[row : row + 1], 10)[0].tolist() != top[row : row + 1].tolist()
    assert differing > 10


def lists_of(
    generator: Recommender,
    held_out: Any,
    folder: Path | None = None,
    folds: int | None = 3,
    sessions: Any = TRAIN,
) -> tuple[np.ndarray, dict[str, Any]]:
    wanted, run = Wanted(6, held_out, folds), Run(candidates=folder)
    with training_lists([generator], sessions, wanted, silent, run) as (lists, _, about, _):
        return np.array(lists[0][0]), about[0]


def test_generators_answer_as_they_are_without_the_session_or_without_its_part() -> None:
    generator = nextclick.VSKNN().fit(TRAIN)
    queries, positions = TRAIN.pairs()
    own = TRAIN.session_of[positions]
    as_is, _ = lists_of(generator, "none")
    assert as_is.tolist() == generator.top(queries, 6)[0].tolist()
    left_out, about = lists_of(generator, "auto")
    assert left_out.tolist() == generator.top_without(queries, own, 6)[0].tolist()
    assert about["held out"] == "session"
    folds, about = lists_of(generator, "folds")
    assert about["held out"] == "folds"
    part = np.random.default_rng(3).permutation(len(TRAIN)) % 3
    for fold in range(3):
        copy = nextclick.VSKNN().fit(TRAIN.where(part != fold))
        rows = np.flatnonzero(part[own] == fold)
        assert len(rows) > 40
        assert folds[rows].tolist() == copy.top(queries[rows], 6)[0].tolist()
    hits = [(found == TRAIN.items[positions][:, None]).any(1).mean() for found in (as_is, left_out, folds)]
    assert hits[0] > hits[1]  # who has seen the session knows what comes
    assert hits[0] > hits[2]
    _, about = lists_of(nextclick.Markov().fit(TRAIN), "auto")
    assert about["held out"] == "folds"
    _, about = lists_of(nextclick.Popularity().fit(TRAIN), "auto")
    assert about["held out"] == "none"


def test_what_is_trained_in_epochs_answers_a_part_that_its_copy_has_not_seen() -> None:
    """And all other generators answer the same prefixes, so that only these are trained on."""
    factors = nextclick.BPRMF(epochs=2).fit(TRAIN)
    generators = [nextclick.VSKNN().fit(TRAIN), factors, nextclick.Markov().fit(TRAIN)]
    queries, positions = TRAIN.pairs()
    own = TRAIN.session_of[positions]
    with training_lists(generators, TRAIN, Wanted(6, "auto", 3), silent, Run()) as (lists, _, about, rows):
        assert [one["held out"] for one in about] == ["session", "part", "part"]
        part = Wanted(6, "auto", 3).parts(TRAIN)
        assert rows.tolist() == np.flatnonzero(part[own] == 0).tolist()
        copy = nextclick.BPRMF(epochs=2).fit(TRAIN.where(part != 0))
        assert lists[1][0].tolist() == copy.top(queries[rows], 6)[0].tolist()
        assert lists[0][0].tolist() == generators[0].top_without(queries[rows], own[rows], 6)[0].tolist()
    model = RRCRE(generators, **SMALL).fit(TRAIN)
    assert model.facts["prefixes"] == len(rows)
    nested = Blend([RRCRE(factors, **SMALL), nextclick.Markov()], weights="0.5,0.5").fit(TRAIN)
    assert Wanted(6).ways([nested])[0] == "part"
    of_neighbours = Blend([nextclick.VSKNN(), nextclick.Markov()], weights="0.5,0.5").fit(TRAIN)
    assert Wanted(6).ways([of_neighbours])[0] == "part"  # in a blend they do not leave out the session


def test_tables_of_pairs_have_not_counted_what_is_asked_for() -> None:
    """Else they look far better than they are, and a blend of them with neighbours is worse than these."""
    generators = [
        nextclick.VSKNN().fit(TRAIN),
        nextclick.Markov().fit(TRAIN),
        nextclick.Popularity().fit(TRAIN),
    ]
    wanted = Wanted(6)
    assert wanted.ways(generators) == ["session", "folds", "none"]
    assert wanted.ways(generators[1:2]) == ["folds"]
    queries, positions = TRAIN.pairs()
    own = TRAIN.session_of[positions]
    with training_lists(generators, TRAIN, wanted, silent, Run()) as (lists, _, about, rows):
        assert [one["held out"] for one in about] == ["session", "folds", "none"]
        assert len(rows) == len(positions)
        for fold in range(3):
            part = wanted.parts(TRAIN)
            copy = nextclick.Markov().fit(TRAIN.where(part != fold))
            asked = np.flatnonzero(part[own] == fold)
            assert lists[1][0][asked].tolist() == copy.top(queries[asked], 6)[0].tolist()


def test_of_fewer_sessions_than_parts_nothing_is_held_out() -> None:
    few = TRAIN[:2]
    generators = [nextclick.Markov().fit(few), nextclick.BPRMF(epochs=1).fit(few)]
    assert Wanted(6).within(few).ways(generators) == ["none", "none"]
    assert Wanted(6).within(TRAIN).ways(generators) == ["part", "part"]
    assert Wanted(6).within(TRAIN).ways(generators[:1]) == ["folds"]
    assert RRCRE(nextclick.Markov(), **SMALL).fit(few).facts["candidates"][0]["held out"] == "none"


def test_what_cannot_be_held_out_is_refused() -> None:
    markov = nextclick.Markov().fit(TRAIN)
    with pytest.raises(ConfigError, match=r"markov cannot leave a session out.*held_out=folds"):
        lists_of(markov, "session")
    with pytest.raises(ConfigError, match=r"folds=91: there are 90 sessions"):
        lists_of(markov, "folds", folds=91)


def test_an_exported_table_is_taken_as_it_is(tmp_path: Path) -> None:
    """Fitted again it would be another model: counts of pairs in place of another model's lists."""
    nextclick.SKNN().fit(TRAIN).save(tmp_path / "sknn")
    export_table(tmp_path / "sknn").save(tmp_path / "table")
    table = nextclick.load(tmp_path / "table")
    lists, about = lists_of(table, "auto")
    assert about["held out"] == "none"
    assert lists.tolist() == table.top(TRAIN.pairs()[0], 6)[0].tolist()
    assert Wanted(6).ways([table, nextclick.VSKNN().fit(TRAIN)]) == ["none", "session"]
    for way in ("folds", "part"):
        with pytest.raises(ConfigError, match=rf"held_out={way}: item-knn is a table exported from sknn"):
            lists_of(table, way)
    inside = Blend([table, nextclick.BPRMF(epochs=1)], weights="0.5,0.5").fit(TRAIN)
    with pytest.raises(ConfigError, match="blend is a table exported from sknn, or holds one"):
        lists_of(inside, "auto")


def test_candidates_are_made_once_and_refused_when_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = nextclick.Markov().fit(TRAIN)
    first, about = lists_of(generator, "none", tmp_path)
    assert about == {"model": "markov", "held out": "none", "short": 0, "unknown": 0, "again": 0}
    (place,) = (path for path in tmp_path.iterdir() if path.is_dir())

    def never(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("asked again")

    with monkeypatch.context() as patched:
        patched.setattr(nextclick.Markov, "top", never)
        assert lists_of(generator, "none", tmp_path)[0].tolist() == first.tolist()
        with pytest.raises(AssertionError, match="asked again"):  # of other sessions
            lists_of(generator, "none", tmp_path, sessions=TRAIN[:80])
        with pytest.raises(AssertionError, match="asked again"):  # of a generator that has learnt otherwise
            lists_of(nextclick.Markov(decay="same").fit(TRAIN), "none", tmp_path)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [place]  # nothing half made
    later = dataclasses.replace(TRAIN, times=TRAIN.times[::-1].copy())
    with monkeypatch.context() as patched:
        lists_of(generator, "folds", tmp_path)
        patched.setattr(nextclick.Markov, "top", never)
        lists_of(generator, "folds", tmp_path)
        with pytest.raises(AssertionError, match="asked again"):  # copies that learn from other times
            lists_of(generator, "folds", tmp_path, sessions=later)
    items = np.load(place / "items.npy", mmap_mode="r+")
    items[0, 0] = 10**6
    items.flush()
    with pytest.raises(DataError, match=r"items.npy was changed.*remove that folder"):
        lists_of(generator, "none", tmp_path)


class Careless(Fixed):
    """Names one item twice, one that is none, and one item fewer than asked for."""

    def top(self, queries: Queries, k: int, **options: Any) -> Any:
        items, scores = super().top(queries, k, **options)
        items[:, 1] = items[:, 0]
        items[:, 2] = self.n_items + 3
        items[:, -1] = -1
        return items, scores


def test_a_careless_generator_is_cleaned_up_after() -> None:
    rows, about = lists_of(Careless().fit(TRAIN), "none")
    n = TRAIN.n_pairs
    assert about == {"model": "fixed", "held out": "none", "short": n, "unknown": n, "again": n}
    assert (rows[:, :3] >= 0).all()
    assert (rows[:, 3:] == -1).all()
    model = RRCRE(Careless(), **SMALL).fit(TRAIN)
    top, _ = model.top(QUERIES, 20)
    assert all(sorted(row) == list(range(20)) for row in top.tolist())


def test_more_candidates_than_items_are_all_items() -> None:
    model = RRCRE(nextclick.Markov(), **{**SMALL, "k": 500}).fit(TRAIN)
    assert model.facts["candidates"][0]["short"] == TRAIN.n_pairs
    assert model.facts["examples"] == TRAIN.n_pairs
    assert all(sorted(row) == list(range(20)) for row in model.top(QUERIES, 20)[0].tolist())


# -- training


def test_only_prefixes_whose_next_click_is_a_candidate_are_learnt_from() -> None:
    generator = nextclick.Markov().fit(TRAIN)
    queries, positions = TRAIN.pairs()
    found = (generator.top(queries, 3)[0] == TRAIN.items[positions][:, None]).any(1)
    model = RRCRE(generator, **{**SMALL, "k": 3, "held_out": "none"}).fit(TRAIN)
    assert 0 < found.sum() < len(found)
    assert model.facts["examples"] == found.sum()
    assert model.facts["prefixes"] == len(found)


@pytest.mark.parametrize(
    ("generator", "content", "decay"),
    [
        ("item-knn", "auto", 1e-4),
        ("vs-knn", "auto", 0.002),
        ("vs-knn", "yes", 1e-4),
        ("item-knn", "no", 0.002),
    ],
)
def test_the_weight_decay_that_is_not_set_follows_what_is_asked_for(
    generator: str, content: Any, decay: float
) -> None:
    fitted = nextclick.build(generator).fit(TRAIN)
    scores = [
        RRCRE(fitted, k=10, epochs=1, content=content, weight_decay=of).fit(TRAIN).score(QUERIES)
        for of in (None, decay, 0.05)
    ]
    assert np.array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


def test_batches_hold_every_example_once_an_epoch_and_looks_cut_epochs() -> None:
    generator = nextclick.Markov().fit(TRAIN)
    queries, positions = TRAIN.pairs()
    lists = [generator.top(queries, 5)]
    network = Reranker(20, 4, 1, rows_of_places(5, False))
    objective = Reordering(
        network, TRAIN, Made(lists, [], [], np.arange(TRAIN.n_pairs)), batch_size=16, longest=19, share=0.25,
        epochs=3, every=4, seed=3, workers=nextclick_workers(),
    )  # fmt: skip
    found = np.flatnonzero((lists[0][0] == TRAIN.items[positions][:, None]).any(1))
    assert objective.n_examples == len(found)
    assert sorted([*objective.validating, *objective.examples]) == found.tolist()
    assert len(objective.validating) == len(found) // 4
    steps = -(-len(objective.examples) // 16)
    assert steps % 4  # looks that do not end where epochs do
    assert objective.looks == -(-3 * steps // 4)
    seen: list[list[int]] = []
    for look in range(1, objective.looks + 1):
        seen += [batch.target.tolist() for batch in objective.batches(1, look)]
    assert len(seen) == 3 * steps  # and the last look no longer than what is left of them
    places = (lists[0][0] == TRAIN.items[positions][:, None]).argmax(1)
    for epoch in range(3):
        targets = [place for batch in seen[epoch * steps : (epoch + 1) * steps] for place in batch]
        assert sorted(targets) == sorted(places[objective.examples].tolist())


def test_the_rate_falls_by_the_decay_in_an_epoch_however_often_is_looked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[Reordering, Any]] = []
    stage = RRCRE._run_stage

    def watched(self: Any, name: str, objective: Any, options: Any, *rest: Any) -> Any:
        asked.append((objective, options))
        return stage(self, name, objective, options, *rest)

    monkeypatch.setattr(RRCRE, "_run_stage", watched)
    generator = fixed(np.random.default_rng(1).normal(size=(20, 20)))
    for every in (10**6, 2):
        RRCRE(generator, **{**SMALL, "decay": 0.5, "epochs": 3, "every": every}).fit(TRAIN)
    (_, whole), (objective, often) = asked
    assert (whole.epochs, whole.decay) == (3, 0.5)
    assert objective.steps > 2
    assert often.decay ** (objective.steps / 2) == pytest.approx(0.5)


def test_what_leaves_nothing_to_learn_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"nothing to judge candidates by.* content=yes"):
        RRCRE(nextclick.VSKNN().fit(TRAIN), k=5, cre=False, scored=False).fit(TRAIN)
    with pytest.raises(ConfigError, match=r"depth=yes tells the rank embeddings.* take depth=no"):
        RRCRE(nextclick.Markov().fit(TRAIN), k=5, cre=False, depth="yes").fit(TRAIN)
    queries, positions = TRAIN.pairs()
    follows = np.zeros((20, 20), np.bool_)
    for n, target in enumerate(TRAIN.items[positions]):
        follows[queries.prefix(n)[-1], target] = True
    with pytest.raises(DataError, match=r"none has its next click among the 1 candidates of fixed.*raise k"):
        RRCRE(fixed(~follows), **{**SMALL, "k": 1, "held_out": "none"}).fit(TRAIN)


def test_held_out_copies_read_the_features_that_the_generator_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = TRAIN.vocabulary.ids_of(range(20))
    vectors = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)
    features = nextclick.build_features(nextclick.ItemTable.of({"item": ids}), vectors={"image": vectors})
    narm = nextclick.NARM(epochs=1, dim=4, hidden=4, batch_size=64).fit(TRAIN, features=features)
    given: list[Any] = []
    fit = nextclick.NARM.fit

    def watched(self: Any, sessions: Sessions, **rest: Any) -> Any:
        given.append(rest["features"])
        return fit(self, sessions, **rest)

    monkeypatch.setattr(nextclick.NARM, "fit", watched)
    RRCRE(narm, **SMALL).fit(TRAIN)
    assert np.array_equal(given[0].of(TRAIN.vocabulary)["image"].values, vectors)
    RRCRE(narm.fit(TRAIN, features=None), **SMALL).fit(TRAIN)
    assert given[-1] is None


def nextclick_workers() -> Any:
    from nextclick.network.workers import Workers

    return Workers()


def test_recall_at_5_of_the_examples_kept_counts_ties_as_their_expectation() -> None:
    generator = nextclick.Markov().fit(TRAIN)
    queries, _ = TRAIN.pairs()
    network = Reranker(20, 4, 1, rows_of_places(10, False))
    for weights in network.parameters():
        torch.nn.init.zeros_(weights)
    objective = Reordering(
        network, TRAIN, Made([generator.top(queries, 10)], [], [], np.arange(len(queries))), batch_size=16,
        longest=19, share=0.5, epochs=1, every=9, seed=3, workers=nextclick_workers(),
    )  # fmt: skip
    assert objective.measure() == pytest.approx(0.5)  # ten candidates, all equal


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "processes", "reranking", str(tmp_path)],
        cwd=Path(__file__).parent,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL
    told: list[str] = []
    resumed = processes.reranker().fit(
        processes.SESSIONS, progress=lambda what, *_: told.append(what), run=Run(checkpoints=tmp_path)
    )
    whole = processes.reranker().fit(processes.SESSIONS)
    begun = [what.split(":")[0] for what in told if "epoch" in what]
    assert set(begun) == {"re-ranking, epoch 3", "re-ranking, epoch 4", "re-ranking, epoch 5"}
    assert not [what for what in told if what.startswith("candidates")]  # they were kept
    assert resumed.facts == whole.facts
    for name, array in whole.state().items():
        assert (resumed.state()[name] == array).all()


def test_a_checkpoint_over_another_generator_is_refused(tmp_path: Path) -> None:
    run = Run(checkpoints=tmp_path)
    RRCRE(nextclick.Markov().fit(TRAIN), **SMALL).fit(TRAIN, run=run)
    with pytest.raises(ConfigError, match="the checkpoint of another training"):
        RRCRE(nextclick.Markov(decay="same").fit(TRAIN), **SMALL).fit(TRAIN, run=run)


# -- answers


def test_candidates_are_reordered_and_the_rest_stays_as_it_was() -> None:
    generator = nextclick.Markov().fit(TRAIN)
    model = RRCRE(generator, **SMALL).fit(TRAIN)
    first, second = (one.top(QUERIES, 20)[0] for one in (generator, model))
    for i in range(len(QUERIES)):
        assert sorted(second[i, :8].tolist()) == sorted(first[i, :8].tolist())
        assert second[i, 8:].tolist() == first[i, 8:].tolist()
    assert any(first[i, :8].tolist() != second[i, :8].tolist() for i in range(len(QUERIES)))
    scores = model.top(QUERIES, 8)[1][np.diff([*QUERIES.known(20).ends, 0]) != 0]
    asked = [i for i in range(len(QUERIES)) if len(QUERIES.known(20).prefix(i))]
    assert np.allclose(model.top(QUERIES[np.array(asked)], 8)[1].sum(1), 1, atol=1e-5)
    assert len(scores)


def test_with_equal_rank_embeddings_the_order_is_that_without() -> None:
    model = RRCRE(nextclick.Markov(), **SMALL).fit(TRAIN)
    with torch.no_grad():
        model.network.ranks[0][:] = model.network.ranks[0][0].clone()
    own = {name: weights for name, weights in model.network.state_dict().items() if "rank" not in name}
    plain = RRCRE(model.generators, **{**SMALL, "cre": False}).fit(TRAIN)
    plain.network.load_state_dict(own)
    assert model.top(QUERIES, 20)[0].tolist() == plain.top(QUERIES, 20)[0].tolist()


def test_items_of_the_session_are_candidates_by_how_long_ago_they_were_clicked() -> None:
    items, scores = clicked(Queries.of([[4, 2, 4, 9], [7], [0, 1, 2, 3]]), 3)
    assert items.tolist() == [[9, 4, 2], [7, -1, -1], [3, 2, 1]]
    assert scores[0].tolist() == pytest.approx([1, 1 / 2, 1 / 3])
    assert scores[1].tolist() == [1, -np.inf, -np.inf]


def test_with_clicked_a_generator_that_never_repeats_is_repeated_where_sessions_do() -> None:
    """Sessions that go back and forth between two items, over a generator that knows nothing of it."""
    rng = np.random.default_rng(6)
    pairs = np.array([rng.choice(200, 2, replace=False) for _ in range(400)])
    sessions = Sessions.from_lists([[f"{a}", f"{b}", f"{a}", f"{b}"] for a, b in pairs])
    form = {"epochs": 10, "dim": 8, "batch_size": 32, "k": 5, "learning_rate": 0.01}
    reached = {
        asked: RRCRE(Scattered(), clicked=asked, **form).fit(sessions[:300]).measure(sessions[300:])["mrr@20"]
        for asked in (True, False)
    }
    assert reached[True] > 0.6  # two of three next clicks are the item before the last one; 2/3 at most
    assert reached[False] < 0.2


class Scattered(Fixed):
    """Lists in an order that only this black box knows, another one after every prefix."""

    def _scores(self, queries: Queries) -> np.ndarray:
        seeds = [[1, *queries.prefix(i).tolist()] for i in range(len(queries))]
        return np.array([np.random.default_rng(seed).random(self.n_items) for seed in seeds], np.float32)


def planted(place: int | None, n: int = 900, n_items: int = 400) -> Sessions:
    """Three clicks at random, then the candidate at a place of the generator's list, or at any of the ten."""
    rng = np.random.default_rng(8)
    clicks = rng.integers(0, n_items, (n, 4)).astype(np.int32)
    plain = Sessions(
        clicks.reshape(-1), np.arange(0, 4 * n + 1, 4), np.arange(4 * n),
        nextclick.Vocabulary(np.arange(n_items)), n_items, clock=False,
        events=np.tile(np.array([0, 0, 0, 1], np.uint8), n), event_names=("view", "tip"), target_event=1,
    )  # fmt: skip
    top, _ = Scattered().fit(plain).top(plain.pairs()[0], 10)
    at = np.full(n, place) if place is not None else rng.integers(0, 10, n)
    clicks[:, 3] = top[np.arange(n), at]
    return replace(plain, items=clicks.reshape(-1))


def test_on_a_carousel_tables_answer_as_those_who_filled_it_knew_then() -> None:
    """What was shown was made of the clicks before; with later ones the places would be others."""
    sessions = planted(3, n=60)
    tables = [nextclick.ItemKNN.preset("i2i-cf").fit(sessions), nextclick.Markov().fit(sessions)]
    wanted = Wanted(6).within(sessions)
    assert wanted.ways(tables) == ["time", "time"]
    assert wanted.ways([tables[0], nextclick.BPRMF(epochs=1).fit(sessions)]) == ["part", "part"]
    queries, _ = sessions.pairs()
    with training_lists(tables, sessions, wanted, silent, Run()) as (lists, _, about, rows):
        assert [one["held out"] for one in about] == ["time", "time"]
        assert rows.tolist() == list(range(3, 60))  # of the first of 20 parts nothing is known before
        for part in range(1, 20):
            copy = nextclick.Markov().fit(sessions[: 3 * part])
            own = 3 * part + np.arange(3)
            assert lists[1][0][own - 3].tolist() == copy.top(queries[own], 6)[0].tolist()
    model = RRCRE(tables[0], **SMALL).fit(sessions)
    assert model.facts["candidates"][0]["held out"] == "time"
    assert model.facts["prefixes"] == 57
    assert Wanted(6, "folds").within(sessions).ways(tables[:1]) == ["folds"]
    assert Wanted(6).within(sessions[:19]).ways(tables) == ["none", "none"]


def test_parts_one_after_the_other_can_be_asked_for() -> None:
    lists, about = lists_of(nextclick.Markov().fit(TRAIN), "time", folds=2)
    assert about["held out"] == "time"
    queries, positions = TRAIN.pairs()
    later = np.flatnonzero(TRAIN.session_of[positions] >= len(TRAIN) / 2)
    copy = nextclick.Markov().fit(TRAIN[: (len(TRAIN) + 1) // 2])
    assert lists.tolist() == copy.top(queries[later], 6)[0].tolist()
    with pytest.raises(ConfigError, match="folds=20: there are 9 sessions"):
        lists_of(nextclick.Markov().fit(TRAIN[:9]), "time", folds=None, sessions=TRAIN[:9])


def test_places_of_earlier_clicks_are_those_in_the_lists_before_them() -> None:
    """With empty prefixes, those of one click, longer ones than are read, and items that stand nowhere."""
    generator = nextclick.Markov().fit(TRAIN)
    queries = Queries(QUERIES.items, np.r_[QUERIES.starts, 0, 3, 0], np.r_[QUERIES.ends, 0, 4, 30])
    found = earlier_places(queries, 6, 4, lambda of, _, k: generator.top(of, k), generator.n_items)
    for row, places in enumerate(found):
        prefix = queries.prefix(row)
        expected = []
        for end in range(len(prefix) - 1, 0, -1):
            top = generator.top(Queries.of([prefix[:end]]), 6)[0][0].tolist()
            expected.append(top.index(prefix[end]) if prefix[end] in top else 6)
        assert places.tolist() == [*expected, -1, -1, -1, -1][:4]
    assert {-1, 0, 6} < set(found.flat)


def test_places_of_earlier_clicks_come_from_those_who_have_not_seen_them() -> None:
    """In training each session's are of the lists that its own candidates come from, held out as they are."""
    generators = [nextclick.VSKNN().fit(TRAIN), nextclick.Markov().fit(TRAIN)]
    wanted = Wanted(6, "auto", depth=3)
    queries, positions = TRAIN.pairs()
    own = TRAIN.session_of[positions]
    with training_lists(generators, TRAIN, wanted, silent, Run()) as (_, earlier, about, _):
        assert [one["held out"] for one in about] == ["session", "folds"]
        without = earlier_places(
            queries, 6, 3, lambda of, rows, k: generators[0].top_without(of, own[rows], k), TRAIN.n_items
        )
        assert earlier[0].tolist() == without.tolist()
        for fold in range(3):
            part = wanted.parts(TRAIN)
            copy = nextclick.Markov().fit(TRAIN.where(part != fold))
            asked = np.flatnonzero(part[own] == fold)
            of_copy = earlier_places(queries[asked], 6, 3, lambda of, _, k, by=copy: by.top(of, k), 20)
            assert earlier[1][asked].tolist() == of_copy.tolist()


@pytest.mark.parametrize("depth", ["yes", "no"])
def test_how_far_down_a_visitor_looks_is_read_from_the_places_of_earlier_clicks(depth: str) -> None:
    """Half the visitors always click what stands first, half what stands eighth; items tell nothing."""
    rng, n = np.random.default_rng(4), 900
    plain = replace(planted(3, n), events=None, event_names=(), target_event=None)
    table, place = Scattered().fit(plain), np.where(rng.random(n) < 0.5, 0, 7)
    clicks = rng.integers(0, plain.n_items, (n, 4)).astype(np.int32)
    for t in range(1, 4):
        top, _ = table.top(Queries.of(clicks[:, :t].tolist()), 10)
        clicks[:, t] = top[np.arange(n), place]
    sessions = replace(plain, items=clicks.reshape(-1))
    form = {**PLAIN, "epochs": 4, "learning_rate": 0.01, "dim": 16, "batch_size": 64, "k": 10, "depth": depth}
    model = RRCRE(Scattered(), **form, seed=2).fit(sessions[:700])
    queries, positions = sessions[700:].pairs()
    later = queries.ends - queries.starts >= 2  # after one click nothing is known of the visitor
    first = model.top(queries[later], 1)[0][:, 0] == sessions[700:].items[positions[later]]
    assert first.mean() > 0.95 if depth == "yes" else first.mean() < 0.7


@pytest.mark.parametrize(("place", "cre", "found"), [(3, True, True), (3, False, False), (None, True, False)])
def test_a_signal_in_the_places_is_found_by_rank_embeddings_alone(
    place: int | None, cre: bool, found: bool
) -> None:
    sessions = planted(place)
    form = {**PLAIN, "epochs": 6, "learning_rate": 0.01, "dim": 16, "batch_size": 64, "k": 10, "cre": cre}
    model = RRCRE(Scattered(), **form, seed=2)
    reached = model.fit(sessions[:700]).measure(sessions[700:])["mrr@20"]
    by_chance = sum(1 / rank for rank in range(1, 11)) / 10  # 0.29, in a random order of ten candidates
    assert reached > 0.95 if found else abs(reached - by_chance) < 0.08


def test_several_generators_find_what_each_alone_does_not() -> None:
    """Two lists that share no item: the union holds both, and the answer is full of both."""
    n = 20
    low, high = (np.tile(np.where(np.arange(n) < 10, a, b), (n, 1)) for a, b in ((1, 0), (0, 1)))
    noise = np.random.default_rng(5).random((n, n)) / 10
    generators = [fixed(low + noise), fixed(high + noise)]
    model = RRCRE(generators, **{**SMALL, "k": 4, "scored": True}).fit(TRAIN)
    asked = Queries.of([[3], [7, 1], [19]])
    lists = [set(one.top(asked, 4)[0][0].tolist()) for one in generators]
    assert not lists[0] & lists[1]
    assert set(model.top(asked[:1], 8)[0][0].tolist()) == lists[0] | lists[1]
    beyond = [
        item for item in generators[0].top(asked[:1], n)[0][0].tolist() if item not in lists[0] | lists[1]
    ]
    assert model.top(asked[:1], n)[0][0, 8:].tolist() == beyond


def test_vectors_of_a_generator_are_a_start(tmp_path: Path) -> None:
    stamp = nextclick.STAMP(epochs=1, dim=4, batch_size=64).fit(TRAIN)
    model = RRCRE(stamp, **{**SMALL, "start": "generator", "learning_rate": 0.0}).fit(TRAIN)
    theirs, ours = (one.network.items.weight.detach().numpy() for one in (stamp, model))
    assert np.allclose(ours[:, :4], theirs * (0.1 / theirs.std(ddof=1)), atol=1e-6)
    factors = nextclick.BPRMF(epochs=1, dim=4).fit(TRAIN)
    model = RRCRE(factors, **{**SMALL, "start": "generator", "learning_rate": 0.0}).fit(TRAIN)
    theirs, ours = factors.item_space().vectors, model.network.items.weight.detach().numpy()
    assert np.allclose(ours[:, :4], theirs * (0.1 / theirs.std(ddof=1)), atol=1e-6)
    wide = nextclick.STAMP(epochs=1, dim=12, batch_size=64).fit(TRAIN)
    model = RRCRE(wide, **{**SMALL, "dim": 5, "start": "generator", "learning_rate": 0.0}).fit(TRAIN)
    theirs, ours = (one.network.items.weight.detach().double().numpy() for one in (wide, model))
    left, sizes, _ = np.linalg.svd(theirs, full_matrices=False)
    closest = (left[:, :5] * sizes[:5]) @ (left[:, :5] * sizes[:5]).T  # products of the best five coordinates
    products = ours @ ours.T
    assert np.allclose(products / products.max(), closest / closest.max(), atol=1e-4)
    with pytest.raises(ConfigError, match="markov has no item vectors; take start=random"):
        RRCRE(nextclick.Markov(), start="generator").fit(TRAIN)


def test_a_re_ranker_over_a_blend_of_a_re_ranker() -> None:
    """Composites are recommenders like others, down to the last item of their lists."""
    inner = RRCRE(nextclick.Markov(), **SMALL)
    model = RRCRE(Blend([inner, nextclick.VSKNN()], k=8), **SMALL).fit(TRAIN)
    generator = model.generators[0]
    first, second = (one.top(QUERIES, 20)[0] for one in (generator, model))
    assert second[:, 8:].tolist() == first[:, 8:].tolist()


# -- generators that do not fit


def test_generators_are_recommenders_fitted_on_the_same_data() -> None:
    for wrong in ("vs-knn", [], [nextclick.Markov(), "x"], 3):
        with pytest.raises((ConfigError, TypeError)):
            RRCRE(wrong)
    with pytest.raises(DataError, match=r"markov was fitted on other items.*20 against 25"):
        RRCRE(nextclick.Markov().fit(TRAIN)).fit(chain(25, 60, noise=0.2, seed=1)[:50])
    mine, theirs = (
        replace(TRAIN, origin={"name": name, "fingerprint": name * 20, "part": "train"})
        for name in ("a", "b")
    )
    with pytest.raises(DataError, match=r"fitted on other data \(b, fingerprint bbb"):
        RRCRE(nextclick.Markov().fit(theirs)).fit(mine)
    full = replace(mine, origin={**mine.origin, "part": "full"})
    with pytest.raises(DataError, match=r"fitted on the part 'full', and this is 'train'.*--full"):
        RRCRE(nextclick.Markov().fit(full)).fit(mine)
    assert RRCRE(nextclick.Markov().fit(mine), **SMALL).fit(mine).facts["generators"][0]["model"] == "markov"


def test_presets_take_generators() -> None:
    model = RRCRE.preset("rr", nextclick.Markov(), k=7)
    assert (model.cre, model.k, model.held_out) == (False, 7, "none")
    assert model.generators[0].name == "markov"
    assert (
        nextclick.build("rrcre", {"preset": "rr"}, generators=[nextclick.Markov()]).generators[0].name
        == "markov"
    )
    with pytest.raises(ConfigError, match=r"vs-knn takes no generator; rrcre, blend do"):
        nextclick.build("vs-knn", generators=[nextclick.Markov()])


# -- saved


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    generators = [nextclick.Markov().fit(TRAIN), nextclick.STAMP(epochs=1, dim=4).fit(TRAIN)]
    RRCRE(generators, **SMALL).fit(TRAIN).save(folder / "rrcre")
    nextclick.Markov(decay="same").fit(TRAIN).save(folder / "markov")
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved / "rrcre", tmp_path / "model"))


def test_a_saved_re_ranker_holds_its_generators(saved: Path, tmp_path: Path) -> None:
    model = nextclick.load(saved / "rrcre")
    assert isinstance(model, RRCRE)
    assert [one.name for one in model.generators] == ["markov", "stamp"]
    assert [one.facts["sessions"] for one in model.generators] == [90, 90]
    for n in (1, 2):
        alone = nextclick.load(saved / "rrcre" / "generators" / str(n))
        assert alone.top(QUERIES, 9)[0].tolist() == model.generators[n - 1].top(QUERIES, 9)[0].tolist()
    model.save(tmp_path / "again")
    for file in (saved / "rrcre").rglob("*"):
        if file.is_file():
            assert (tmp_path / "again" / file.relative_to(saved / "rrcre")).read_bytes() == file.read_bytes()


def test_another_generator_in_its_place_is_refused(saved: Path, copied: Path) -> None:
    shutil.rmtree(copied / "generators" / "1")
    shutil.copytree(saved / "markov", copied / "generators" / "1")
    with pytest.raises(ArtifactError, match=r"generators/1: this is not the markov .* fingerprint differs"):
        nextclick.load(copied)


def test_a_generator_that_was_evaluated_is_still_the_same(copied: Path) -> None:
    nextclick.artifact.record(copied / "generators" / "1", metrics={"recall@20": 0.5})
    assert nextclick.load(copied).name == "rrcre"


@pytest.mark.parametrize("damage", ["arrays", "missing", "settings", "unnamed", "elsewhere", "number"])
def test_damaged_generators_are_refused(damage: str, copied: Path) -> None:
    inner, manifest = copied / "generators" / "1", json.loads((copied / "manifest.json").read_text("utf-8"))
    of_inner = json.loads((inner / "manifest.json").read_text("utf-8"))
    if damage == "arrays":
        content = bytearray((inner / "arrays.safetensors").read_bytes())
        content[-1] ^= 1
        (inner / "arrays.safetensors").write_bytes(content)
    elif damage == "missing":
        shutil.rmtree(inner)
    elif damage == "settings":
        of_inner["settings"]["decay"] = "same"
        (inner / "manifest.json").write_text(json.dumps(of_inner), "utf-8")
    elif damage == "unnamed":
        del manifest["generators"]
    elif damage == "elsewhere":
        manifest["generators"]["../1"] = manifest["generators"].pop("generators/1")
    else:
        del manifest["generators"]["generators/2"]
    (copied / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(ArtifactError):
        nextclick.load(copied)


# -- blend


def two_tables() -> list[Fixed]:
    """After any click: the first lists items 0, 1, 2 and the second 2, 3, 0, of six."""
    sessions = Sessions.from_lists([[0, 1, 2, 3, 4, 5]] * 3)
    first, second = np.zeros((6, 6)), np.zeros((6, 6))
    first[:, [0, 1, 2]] = [8, 6, 1]
    second[:, [2, 3, 0]] = [3, 2, 1]
    return [fixed(first - 1, sessions), fixed(second - 1, sessions)]


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        # w / (c + r), c = 1: 0 at 1 and 3, 1 at 2, 2 at 3 and 1, 3 at 2.
        ("rank", {0: 0.75 / 2 + 0.25 / 4, 1: 0.75 / 3, 2: 0.75 / 4 + 0.25 / 2, 3: 0.25 / 3}),
        # Shares of exp(7), exp(5), exp(0) and of exp(2), exp(1), exp(0).
        (
            "softmax",
            {
                0: 0.75 * np.exp(7) / (np.exp(7) + np.exp(5) + 1) + 0.25 / (np.exp(2) + np.exp(1) + 1),
                1: 0.75 * np.exp(5) / (np.exp(7) + np.exp(5) + 1),
                2: 0.75 / (np.exp(7) + np.exp(5) + 1) + 0.25 * np.exp(2) / (np.exp(2) + np.exp(1) + 1),
                3: 0.25 * np.exp(1) / (np.exp(2) + np.exp(1) + 1),
            },
        ),
    ],
)
def test_a_blend_by_hand(by: Any, expected: dict[int, float]) -> None:
    tables = two_tables()
    model = Blend(tables, by=by, weights="3,1", c=1.0, k=3)
    model.fit(Sessions.from_lists([[0, 1, 2, 3, 4, 5]] * 3))
    scores = model.score(Queries.of([[4]]))[0]
    for item, score in expected.items():
        assert scores[item] == pytest.approx(score, rel=1e-5)
    assert (scores[[4, 5]] < 2.0**-60).all()


def test_a_blend_of_standardised_scores_by_hand() -> None:
    model = Blend(two_tables(), by="score", weights="3,1", k=3)
    model.fit(Sessions.from_lists([[0, 1, 2, 3, 4, 5]] * 3))
    found = model.score(Queries.of([[4]]))[0]
    a, b = np.array([7, 5, 0.0]), np.array([2, 1, 0.0])
    a, b = (a - a.mean()) / a.std(), (b - b.mean()) / b.std()
    raw = {
        0: 0.75 * a[0] + 0.25 * b[2], 1: 0.75 * a[1] + 0.25 * b[2],
        2: 0.75 * a[2] + 0.25 * b[0], 3: 0.75 * a[2] + 0.25 * b[1],
    }  # fmt: skip
    lowest = min(raw.values())  # which gets the lowest score above those not listed
    for item, score in raw.items():
        assert found[item] == pytest.approx(score - lowest, abs=1e-4)


def test_a_blend_that_weighs_one_list_alone_keeps_its_order() -> None:
    generators = [nextclick.Markov().fit(TRAIN), nextclick.VSKNN().fit(TRAIN)]
    for by in ("rank", "score", "softmax"):
        model = Blend(generators, by=by, weights="1,0", k=20).fit(TRAIN)  # type: ignore[arg-type]
        listed = 3  # beyond, soft-max shares of small votes may be equal
        found, first = (one.top(QUERIES, 20)[0][:, :listed] for one in (model, generators[0]))
        assert found.tolist() == first.tolist()


@pytest.mark.parametrize("metric", ["recall", "mrr"])
def test_weights_are_chosen_for_what_finds_the_next_click(metric: Any) -> None:
    """With so large a c, what stands in both lists comes before the first of one, if both weigh the same."""
    knows, does_not = nextclick.Markov(), nextclick.Popularity()
    for generators, best in (([knows, does_not], 0), ([does_not, knows], 1)):
        model = Blend(generators, metric=metric, k=40, c=1000).fit(chain(80, 500, noise=0.1, seed=2))
        weights = model.facts["weights"]
        assert sum(weights) == pytest.approx(1)
        assert weights[best] > 0.5
    even = Blend([nextclick.Markov(), nextclick.Markov()]).fit(TRAIN)
    assert even.facts["weights"] == [0.5, 0.5]  # all the same: the most even ones
    assert Blend(validation=0).fit(TRAIN).facts["weights"] == [0.5, 0.5]


@pytest.mark.parametrize("weights", ["1", "1,2,3", "a,b", "", "1,-1", "0,0", "nan,1", "inf,1"])
def test_weights_that_are_none_are_refused(weights: str) -> None:
    with pytest.raises(ConfigError, match="weights="):
        Blend(weights=weights)


def test_saved_weights_that_do_not_fit_are_refused() -> None:
    model = Blend().fit(TRAIN)
    state = {**model.state(), "weights": np.ones(3)}
    with pytest.raises(ArtifactError, match="the saved weights do not fit"):
        model.restore(state, model.vocabulary)
