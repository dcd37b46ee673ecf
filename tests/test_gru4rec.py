"""GRU4Rec: its batches, samples and optimizer, and whole trainings, against slow transcriptions.

Several of these keep what other versions of GRU4Rec are known to have got wrong (Hidasi & Czapp, RecSys
2023): states that outlive their session, samples from another distribution, no tied or one-hot vectors, a
soft-max over the wrong candidates, dropout in the wrong place.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nextclick
import slow
from nextclick import ConfigError, Queries, Sessions
from synthetic import chain, chain_lists, flagged_sessions, with_targets

torch = pytest.importorskip("torch")

from nextclick.network import rowwise, sampling  # noqa: E402 - they import torch
from nextclick.network.encoders import GruEncoder  # noqa: E402
from nextclick.network.objectives import SampledItems  # noqa: E402
from nextclick.network.rowwise import EPSILON, RowAdagrad, RowTable  # noqa: E402
from nextclick.network.sampling import Lanes, NegativeSampler, Step  # noqa: E402
from nextclick.network.scoring import Network  # noqa: E402


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


# -- session-parallel batches


def steps_of(sessions: Sessions, n_lanes: int, order: Any = None, n_samples: int = 0) -> list[Step]:
    lanes = Lanes(sessions, n_lanes)
    order = np.arange(len(lanes.sessions)) if order is None else order
    sampler = NegativeSampler(sessions.support(), 0.0)
    return list(lanes.steps(order, sampler, n_samples, np.random.default_rng(1)))


@given(
    lists=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=9), min_size=1, max_size=20),
    n_lanes=st.integers(1, 25),
    block=st.integers(1, 6),
    data=st.data(),
)
@settings(deadline=None)
def test_lanes_read_every_session_once_side_by_side(
    lists: list[list[int]], n_lanes: int, block: int, data: st.DataObject
) -> None:
    """As the slow lanes do, however few steps are worked out together; more lanes than sessions too."""
    sessions = Sessions.from_lists(lists)
    lengths = sessions.lengths.tolist()
    usable = [n for n, length in enumerate(lengths) if length > 1]
    order = data.draw(st.permutations(range(len(usable))))
    kept, sampling._STEPS = sampling._STEPS, block
    try:
        found = steps_of(sessions, n_lanes, np.array(order, np.int64))
    finally:
        sampling._STEPS = kept
    expected = slow.lanes(lengths, [usable[n] for n in order], n_lanes)
    assert len(found) == len(expected)
    assert Lanes(sessions, n_lanes).n_pairs == sum(map(len, expected)) == sessions.n_pairs
    for step, reads in zip(found, expected, strict=True):
        at = [int(sessions.offsets[read.session]) + read.place for read in reads]
        assert step.clicks.tolist() == sessions.items[at].tolist()
        assert step.targets.tolist() == [int(sessions.items[n + 1]) for n in at]
        assert step.fresh.tolist() == [[read.place == 0] for read in reads]
        assert step.source.tolist() == [read.lane_before for read in reads]


@given(log=flagged_sessions, n_lanes=st.integers(1, 9))
@settings(deadline=None)
def test_lanes_read_all_clicks_and_say_which_next_ones_are_wanted(
    log: tuple[list[list[int]], list[list[bool]]], n_lanes: int
) -> None:
    sessions = with_targets(*log)
    read = [n for n, tips in enumerate(log[1]) if any(tips[1:])]
    expected = slow.lanes(sessions.lengths.tolist(), read, n_lanes)
    found = steps_of(sessions, n_lanes)
    assert len(found) == len(expected)
    for step, reads in zip(found, expected, strict=True):
        ids = [sessions.vocabulary.ids_of(items.tolist()) for items in (step.clicks, step.targets)]
        for n, clicks in enumerate(ids):
            assert clicks == [log[0][one.session][one.place + n] for one in reads]
        assert step.wanted.tolist() == [log[1][one.session][one.place + 1] for one in reads]
    assert sum(int(step.wanted.sum()) for step in found) == Lanes(sessions, n_lanes).n_pairs


def test_a_lane_goes_on_with_the_next_session_and_closes_when_there_is_none() -> None:
    """Written out by hand: three lanes, and sessions of two to four clicks on items of their own."""
    sessions = Sessions.from_lists([[0, 1, 2, 3], [4, 5], [6, 7, 8], [9, 10]])
    codes = {item: int(sessions.vocabulary.code_of(item)) for item in range(11)}
    found = steps_of(sessions, 3)
    clicks = [[0, 4, 6], [1, 9, 7], [2]]
    targets = [[1, 5, 7], [2, 10, 8], [3]]
    assert [step.clicks.tolist() for step in found] == [[codes[item] for item in row] for row in clicks]
    assert [step.targets.tolist() for step in found] == [[codes[item] for item in row] for row in targets]
    fresh = [[True, True, True], [False, True, False], [False]]
    assert [step.fresh[:, 0].tolist() for step in found] == fresh
    assert [step.source.tolist() for step in found] == [[0, 1, 2], [0, 1, 2], [0]]


def test_one_lane_reads_session_after_session() -> None:
    sessions = Sessions.from_lists([[0, 1, 2], [3], [4, 5]])
    found = steps_of(sessions, 1)
    clicks = sessions.vocabulary.ids_of(int(step.clicks[0]) for step in found)
    assert clicks == [0, 1, 4]
    assert [step.fresh.tolist() for step in found] == [[[True]], [[False]], [[True]]]


# -- negative samples


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_alias_table_holds_clicks_to_the_power_of_alpha(alpha: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    support = rng.integers(0, 4, 97) * rng.integers(1, 1000, 97)
    sampler = NegativeSampler(support, alpha)
    wanted = np.array([clicks**alpha if clicks else 0.0 for clicks in support.tolist()])
    wanted /= wanted.sum()
    found = slow.alias_probabilities(*sampler._table)
    assert np.allclose(found, wanted, rtol=0, atol=1e-7)
    assert (found[support == 0] == 0).all()
    assert np.allclose(sampler.probability, wanted, rtol=1e-12)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=30).filter(any), st.floats(0, 1.5))
@settings(deadline=None)
def test_any_clicks_make_an_exact_table(support: list[int], alpha: float) -> None:
    sampler = NegativeSampler(np.array(support, np.int64), alpha)
    found = slow.alias_probabilities(*sampler._table)
    assert np.allclose(found, sampler.probability, rtol=0, atol=2e-7)
    assert all(found[n] == 0 for n, clicks in enumerate(support) if clicks == 0)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_draws_are_as_frequent_as_they_should_be(alpha: float) -> None:
    """Each item's number of draws is binomial: all within five standard deviations."""
    support = np.array([0, 1, 3, 10, 0, 200, 1000, 40], np.int64)
    n = 400_000
    drawn = NegativeSampler(support, alpha).draw((400, n // 400), np.random.default_rng(5))
    assert drawn.shape == (400, n // 400)
    counts = np.bincount(drawn.ravel(), minlength=len(support))
    assert counts[[0, 4]].tolist() == [0, 0]
    for count, clicks in zip(counts.tolist(), support.tolist(), strict=True):
        if clicks:
            p = clicks**alpha / sum(other**alpha for other in support.tolist() if other)
            assert abs(count - n * p) < 5 * math.sqrt(n * p * (1 - p))


def test_the_correction_is_the_log_of_what_draws_are_in_proportion_to() -> None:
    """Of four clicks item 0 has two, the others one: lanes' next clicks by that, samples by its root.

    Half the correction takes off half of each logarithm.
    """
    model = nextclick.GRU4Rec(
        loss="cross-entropy", activation="linear", logq=0.5, alpha=0.5, n_samples=3, batch_size=2, hidden=2
    )
    sessions = Sessions.from_lists([["a", "b"], ["c", "a"]])
    objective = model._objective(model._network(3), sessions, nextclick.network.workers.Workers())
    found = objective._offset(torch.tensor([0, 1, 0, 2, 1]), 2)
    expected = [2, 1, math.sqrt(2), 1, 1]
    assert found.tolist() == pytest.approx([-0.5 * math.log(number) for number in expected], abs=1e-6)


# -- the optimizer of rows


def compiled_or_not(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    if not compiled:
        monkeypatch.setattr(rowwise, "compiles", lambda weight: False)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.4])
@pytest.mark.parametrize("reads", [[[3, 1, 3, 3]], [[0, 2], [2, 2, 5, 1]], [[], [4]], [[6], [6], [6, 6]]])
def test_row_adagrad_equals_the_textbook_on_the_rows_that_were_read(
    compiled: bool, momentum: float, reads: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repeated rows are summed, also over the reads of one step (the tied table has two)."""
    compiled_or_not(monkeypatch, compiled)
    weight = torch.randn(7, 3)
    start = weight.clone()
    table = RowTable(weight)
    optimizer = RowAdagrad([], [table], 0.1, momentum)
    gradients = []
    for _ in range(4):
        optimizer.zero_grad()
        dense, loss = torch.zeros(7, 3), torch.zeros(())
        for read in reads:
            slopes = torch.randn(len(read), 3)
            loss = loss + (table.rows(torch.tensor(read, dtype=torch.int64)) * slopes).sum()
            for row, slope in zip(read, slopes, strict=True):
                dense[row] += slope
        loss.backward()
        optimizer.step()
        gradients.append(dense.numpy())
    touched = sorted({row for read in reads for row in read})
    left = [row for row in range(7) if row not in touched]
    expected = slow.adagrad(start.numpy(), gradients, 0.1, momentum, EPSILON)
    assert np.allclose(weight.numpy()[touched], expected[touched], rtol=0, atol=2e-6)
    assert torch.equal(weight[left], start[left])
    for memory in optimizer.state[weight].values():
        assert len(memory) == 0 or not memory[left].any()


@pytest.mark.parametrize("compiled", [True, False])
def test_rows_not_read_rest_and_take_their_momentum_up_again(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of other rows in between change nothing: the row's own steps are all there is for it."""
    compiled_or_not(monkeypatch, compiled)
    weight = torch.randn(5, 2)
    start = weight.clone()
    table = RowTable(weight)
    optimizer = RowAdagrad([], [table], 0.1, 0.5)
    of_row: dict[int, list[Any]] = {row: [] for row in range(5)}
    for read in ([0, 1], [1, 2], [2, 2], [0, 2], [2, 1, 0]):
        optimizer.zero_grad()
        slopes, before = torch.randn(len(read), 2), weight.clone()
        (table.rows(torch.tensor(read)) * slopes).sum().backward()
        optimizer.step()
        for row in range(5):
            if row in read:
                of_row[row].append(sum(s for r, s in zip(read, slopes, strict=True) if r == row).numpy())
            else:
                assert torch.equal(weight[row], before[row])
    for row, gradients in of_row.items():
        expected = slow.adagrad(start[row].numpy(), gradients, 0.1, 0.5, EPSILON)
        assert np.allclose(weight[row].numpy(), expected, rtol=0, atol=2e-6)


@given(data=st.data(), momentum=st.sampled_from([0.0, 0.3]))
@settings(deadline=None, max_examples=40)
def test_compiled_rows_equal_pytorchs(data: st.DataObject, momentum: float) -> None:
    """The same steps in float32, compiled, and in float64, which goes through PyTorch."""
    n = data.draw(st.integers(1, 9))
    rows = st.lists(st.lists(st.integers(0, n - 1), max_size=12), min_size=1, max_size=3)
    tables = [RowTable(torch.randn(n, 4)) for _ in range(1)]
    tables.append(RowTable(tables[0].weight.double()))
    assert [rowwise.compiles(table.weight) for table in tables] == [True, False]
    optimizers = [RowAdagrad([], [table], 0.05, momentum) for table in tables]
    for reads in data.draw(st.lists(rows, min_size=1, max_size=4)):
        slopes = [torch.randn(len(read), 4) for read in reads]
        for table, optimizer in zip(tables, optimizers, strict=True):
            optimizer.zero_grad()
            parts = [table.rows(torch.tensor(read, dtype=torch.int64)) for read in reads]
            sum((part * slope).sum() for part, slope in zip(parts, slopes, strict=True)).backward()
            optimizer.step()
    assert torch.allclose(tables[0].weight.double(), tables[1].weight, rtol=0, atol=2e-6)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.4])
def test_whole_parameters_take_textbook_steps(
    compiled: bool, momentum: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled_or_not(monkeypatch, compiled)
    weight = torch.nn.Parameter(torch.randn(4, 3))
    start, gradients = weight.detach().clone().numpy(), []
    optimizer = RowAdagrad([weight], [], 0.1, momentum)
    for _ in range(5):
        optimizer.zero_grad()
        slope = torch.randn(3, 4).T  # not contiguous
        (weight * slope).sum().backward()
        optimizer.step()
        gradients.append(slope.numpy())
    expected = slow.adagrad(start, gradients, 0.1, momentum, EPSILON)
    assert np.allclose(weight.detach().numpy(), expected, rtol=0, atol=2e-6)


# -- the encoder


@pytest.mark.parametrize("layers", [1, 3])
def test_steps_equal_one_pass(layers: int) -> None:
    encoder = GruEncoder(4, 5, layers).eval()
    clicks = torch.randn(3, 6, 4)
    states, found = [torch.zeros(3, 5)] * layers, []
    with torch.no_grad():
        for t in range(6):
            states = encoder.step(clicks[:, t], states)
            found.append(states[-1])
        expected = encoder(clicks, torch.ones(3, 6, dtype=torch.bool))
    assert expected.shape == (3, 6, encoder.width)
    assert torch.allclose(torch.stack(found, 1), expected, atol=1e-6)


def test_gates_are_the_grus_of_the_equations() -> None:
    """r, z, n of a GRU written out, an element at a time: its order of gates and biases is PyTorch's."""
    encoder = GruEncoder(2, 3).eval()
    weights = [weight.detach().double() for weight in encoder.gru.all_weights[0]]
    of_click, of_state, click_bias, state_bias = weights
    click, state = torch.randn(2), torch.randn(3)
    a = of_click @ click.double() + click_bias
    b = of_state @ state.double() + state_bias
    reset, update = torch.sigmoid(a[:3] + b[:3]), torch.sigmoid(a[3:6] + b[3:6])
    new = torch.tanh(a[6:] + reset * b[6:])
    expected = (1 - update) * new + update * state.double()
    with torch.no_grad():
        found = encoder.step(click[None], [state[None]])[0][0]
    assert torch.allclose(found.double(), expected, atol=1e-6)


def test_one_hot_vectors_equal_a_gru_that_reads_one_hot_vectors() -> None:
    """The table's row of an item is the column that a one-hot click picks from the GRU's input matrix."""
    n_items, hidden = 7, 4
    model = nextclick.GRU4Rec(embedding="one-hot", hidden=hidden)
    network = model._network(n_items).eval()
    encoder = network.encoder
    read = torch.nn.GRU(n_items, hidden, batch_first=True)
    with torch.no_grad():
        read.weight_ih_l0.copy_(network.items.weight.T)
        read.weight_hh_l0.copy_(encoder.gru.weight_hh_l0)
        read.bias_ih_l0.copy_(encoder.gru.bias_ih_l0)
        read.bias_hh_l0.copy_(encoder.gru.bias_hh_l0)
        clicks = torch.randint(0, n_items, (5, 6))
        expected, _ = read(torch.nn.functional.one_hot(clicks, n_items).float())
        found = network.sessions(clicks, torch.ones(5, 6, dtype=torch.bool))
    assert torch.equal(encoder.gru.weight_ih_l0, torch.eye(3 * hidden))
    assert not encoder.gru.weight_ih_l0.requires_grad
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("answering", [True, False])
def test_dropout_is_on_the_clicks_and_on_every_layers_states(
    layers: int, answering: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training only, and on the states that go on to the next click as well as on those that leave."""
    encoder = GruEncoder(64, 64, layers, dropout_items=0.5, dropout_hidden=0.25).train(not answering)
    plain = GruEncoder(64, 64, layers).eval()
    plain.load_state_dict(encoder.state_dict())
    clicks, states = torch.randn(50, 64), [torch.randn(50, 64)] * layers
    seen: list[Any] = []
    kept = torch.gru_cell
    monkeypatch.setattr(torch, "gru_cell", lambda below, *others: seen.append(below) or kept(below, *others))
    with torch.no_grad():
        after = encoder.step(clicks, states)
    if answering:
        with torch.no_grad():
            expected = plain.step(clicks, states)
        assert all(torch.equal(a, b) for a, b in zip(after, expected, strict=True))
        return
    read = seen[0]
    assert torch.allclose(read, torch.where(read == 0, torch.zeros(()), clicks / 0.5))
    assert abs((read == 0).float().mean().item() - 0.5) < 5 * math.sqrt(0.25 / read.numel())
    for layer, state in enumerate(after):
        below = seen[layer]
        whole = kept(below, states[layer], *plain.gru.all_weights[layer])
        assert torch.allclose(state, torch.where(state == 0, torch.zeros(()), whole / 0.75), atol=1e-6)
        share = (state == 0).float().mean().item()
        assert abs(share - 0.25) < 5 * math.sqrt(0.25 * 0.75 / state.numel())
        if layer + 1 < layers:
            assert torch.equal(seen[layer + 1], state)


def test_one_pass_drops_what_it_gives_and_not_what_it_remembers() -> None:
    """With one layer: each state given is 0 or the plain one made larger, so those before it were whole."""
    encoder, mask = GruEncoder(8, 32, dropout_hidden=0.25), torch.ones(20, 9, dtype=torch.bool)
    clicks = torch.randn(20, 9, 8)
    with torch.no_grad():
        dropped, plain = encoder.train()(clicks, mask), encoder.eval()(clicks, mask)
    assert torch.allclose(dropped, torch.where(dropped == 0, torch.zeros(()), plain / 0.75), atol=1e-6)
    share = (dropped == 0).float().mean().item()
    assert abs(share - 0.25) < 5 * math.sqrt(0.25 * 0.75 / dropped.numel())


def test_dropout_of_clicks_takes_whole_clicks() -> None:
    encoder = GruEncoder(3, 2, dropout_clicks=0.4)
    clicks = torch.ones(40, 50, 3)
    dropped = encoder.train()._dropped(clicks)
    gone = (dropped == 0).all(2)
    assert torch.equal(gone, (dropped == 0).any(2))
    assert torch.allclose(dropped[~gone], torch.tensor(1 / 0.6))
    assert abs(gone.float().mean().item() - 0.4) < 5 * math.sqrt(0.24 / 2000)
    assert torch.equal(encoder.eval()._dropped(clicks), clicks)


@pytest.mark.parametrize("embedding", ["tied", "separate", "one-hot"])
def test_padding_and_other_prefixes_never_change_scores(embedding: str) -> None:
    model = nextclick.GRU4Rec(epochs=1, hidden=6, dim=5, layers=2, n_samples=8, embedding=embedding)
    model.fit(chain(20, 80, noise=0.3, seed=1))
    prefixes = [[1], [2, 3, 4, 5, 6, 7, 8], [9, 1], [3, 3, 3], [1, 2, 3, 4]]
    together = model.score(Queries.of(prefixes))
    for prefix, scores in zip(prefixes, together, strict=True):
        assert np.allclose(model.score(Queries.of([prefix]))[0], scores, atol=1e-5)
    assert np.array_equal(model.score(Queries.of(prefixes)), together)  # nothing is kept, nothing dropped


# -- whole trainings


LISTS = chain_lists(12, 15, noise=0.4, seed=4, shortest=1, longest=6)


def start_of(model: nextclick.GRU4Rec, n_items: int) -> Network:
    """The network as ``fit`` starts it: from the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(model.seed)
        return model._network(n_items)


def train_slowly(model: nextclick.GRU4Rec, sessions: Sessions) -> dict[str, Any]:
    """GRU4Rec on dense matrices in float64: GRUCells, autograd, Adagrad over everything, no momentum.

    Returns the weights by the names they have in the network. Order and samples are those of the seed.
    """
    start = {
        name: weights.double() for name, weights in start_of(model, sessions.n_items).state_dict().items()
    }
    fixed = {"encoder.gru.weight_ih_l0"} if model.embedding == "one-hot" else set()
    weights = {name: w.clone().requires_grad_(name not in fixed) for name, w in start.items()}
    trained = {name: w for name, w in weights.items() if w.requires_grad}
    squares = {name: torch.zeros_like(w) for name, w in trained.items()}
    read = weights["items.weight"]
    predicted = weights.get("output", read)
    support, items, offsets = sessions.support(), sessions.items.tolist(), sessions.offsets.tolist()
    sampler = NegativeSampler(support, model.alpha)
    for epoch in range(1, model.epochs + 1):
        rng = np.random.default_rng([model.seed, epoch])
        wanted = sessions.is_target
        order = np.unique(sessions.session_of[wanted])
        if model.order == "random":
            order = order[rng.permutation(len(order))]
        samples = sampler.draw((sampling._STEPS, model.n_samples), rng)
        steps = slow.lanes(sessions.lengths.tolist(), order.tolist(), model.batch_size)
        assert len(steps) <= sampling._STEPS
        states: list[list[Any]] = [[]] * model.layers
        for reads, drawn in zip(steps, samples, strict=False):
            at = [offsets[one.session] + one.place for one in reads]
            below = read[[items[n] for n in at]]
            for layer in range(model.layers):
                cell = torch.nn.GRUCell(below.shape[1], model.hidden, dtype=torch.float64)
                named = {name: weights[f"encoder.gru.{name}_l{layer}"] for name, _ in cell.named_parameters()}
                zero = torch.zeros(model.hidden, dtype=torch.float64)
                before = [states[layer][one.lane_before] if one.place else zero for one in reads]
                below = torch.func.functional_call(cell, named, (below, torch.stack(before)))
                states[layer] = list(below.detach())
            candidates = [items[n + 1] for n in at] + drawn.tolist()
            scores = below @ predicted[candidates].T + weights["bias"][candidates, 0]
            if model.logq > 0:
                clicks = torch.from_numpy(support).double()
                drawn_by = [clicks[candidates[: len(at)]], clicks[candidates[len(at) :]] ** model.alpha]
                scores = scores - model.logq * torch.cat(drawn_by).log()
            rows = [row for row, n in enumerate(at) if wanted[n + 1]]
            if not rows:
                continue
            loss = slow.ranking_loss(
                model.loss, scores[rows], rows, regularisation=model.bpreg,
                activation=model.activation, elu=model.elu,
            ) / min(model.batch_size, len(order))  # fmt: skip
            gradients = torch.autograd.grad(loss, list(trained.values()))
            with torch.no_grad():
                for (name, weight), gradient in zip(trained.items(), gradients, strict=True):
                    squares[name] += gradient**2
                    weight -= model.learning_rate * gradient / torch.sqrt(squares[name] + EPSILON)
    return {name: w.detach() for name, w in weights.items()}


PLAIN: dict[str, Any] = {
    "epochs": 2, "batch_size": 4, "hidden": 5, "n_samples": 6, "momentum": 0.0, "dropout_items": 0.0,
    "dropout_hidden": 0.0, "validation": 0.0, "learning_rate": 0.1,
}  # fmt: skip
WHOLE: list[dict[str, Any]] = [
    {"embedding": "tied"},
    {"embedding": "tied", "layers": 2, "order": "random", "elu": 1.0, "bpreg": 0.3},
    {"embedding": "separate", "dim": 3, "layers": 2},
    {"embedding": "one-hot", "loss": "top1", "activation": "tanh", "bpreg": 0.0},
    {"embedding": "one-hot", "layers": 2, "loss": "bpr", "activation": "linear"},
    {"embedding": "separate", "loss": "top1-max", "activation": "tanh", "alpha": 1.0, "batch_size": 7},
    {"loss": "cross-entropy", "activation": "linear", "logq": 1.0, "alpha": 0.5},
    {"loss": "cross-entropy", "activation": "linear", "batch_size": 1, "n_samples": 3, "alpha": 0.0},
]


@pytest.mark.parametrize("values", WHOLE, ids=lambda values: " ".join(map(str, values.values())))
def test_training_reaches_the_weights_of_a_slow_transcription(values: dict[str, Any]) -> None:
    assert_trained_as_slowly(values, Sessions.from_lists(LISTS))


@pytest.mark.parametrize("values", WHOLE[:4], ids=lambda values: " ".join(map(str, values.values())))
@pytest.mark.parametrize("lanes", [1, 4])
def test_training_on_targets_alone_reaches_them_too(values: dict[str, Any], lanes: int) -> None:
    """Some steps have no target in any lane, some sessions none at all."""
    rng = np.random.default_rng(9)
    sessions = with_targets(LISTS, [(rng.random(len(session)) < 0.4).tolist() for session in LISTS], 3)
    assert 0 < len(Lanes(sessions, lanes).sessions) < sum(sessions.lengths > 1)
    assert_trained_as_slowly({**values, "batch_size": lanes}, sessions)


def assert_trained_as_slowly(values: dict[str, Any], sessions: Sessions) -> None:
    model = nextclick.GRU4Rec(**{**PLAIN, **values}).fit(sessions)
    begun = start_of(model, sessions.n_items).state_dict()
    expected = train_slowly(model, sessions)
    found = {name: torch.from_numpy(array) for name, array in model.state().items() if name != "support"}
    assert found.keys() == expected.keys()
    moved = 0.0
    for name, weights in expected.items():
        assert torch.allclose(found[name].double(), weights, rtol=0, atol=2e-4), name
        moved = max(moved, (weights - begun[name]).abs().max().item())
    assert moved > 0.1  # far from the start: a training that did nothing would not pass


def test_states_start_from_zero_with_every_session() -> None:
    """One lane reads the same session again and again: its first state is that of the session alone."""
    sessions = Sessions.from_lists([[0, 1, 2], [0, 1, 2], [3, 1, 2], [0, 1, 2]])
    model = nextclick.GRU4Rec(**{**PLAIN, "batch_size": 1})
    network = start_of(model, sessions.n_items)
    objective = model._objective(network, sessions, nextclick.network.workers.Workers())
    assert isinstance(objective, SampledItems)
    states = []
    for step in objective.batches(1, 1):
        objective.loss(step)
        states.append(objective.states._states[0][0])
    expected = []
    for a, b in itertools.pairwise(sessions.offsets.tolist()):
        clicks = torch.from_numpy(sessions.items[a : b - 1].astype(np.int64))[None]
        with torch.no_grad():
            expected += list(network.sessions(clicks, torch.ones_like(clicks, dtype=torch.bool))[0])
    assert len(states) == len(expected) == 8
    assert torch.allclose(torch.stack(states), torch.stack(expected), atol=1e-6)


def test_tied_vectors_are_one_table_and_separate_ones_two() -> None:
    sessions = Sessions.from_lists(LISTS)
    tied, separate = (
        nextclick.GRU4Rec(**PLAIN, embedding=embedding, dim=3).fit(sessions).state()
        for embedding in ("tied", "separate")
    )
    assert "output" not in tied
    assert tied["items.weight"].shape == (12, 5)
    assert separate["items.weight"].shape == (12, 3)
    assert separate["output"].shape == (12, 5)


def test_starting_weights_are_even_within_glorots_bounds() -> None:
    network = nextclick.GRU4Rec(hidden=40, embedding="separate", dim=30)._network(500)
    limits = {
        "items.weight": math.sqrt(6 / (500 + 30)),
        "output": math.sqrt(6 / (500 + 40)),
        "encoder.gru.weight_ih_l0": math.sqrt(6 / (40 + 30)),  # each gate is a matrix [40, 30]
        "encoder.gru.weight_hh_l0": math.sqrt(6 / (40 + 40)),
    }
    for name, weights in network.named_parameters():
        if name in limits:
            assert 0.97 * limits[name] < weights.abs().max() <= limits[name]
            assert weights.std().item() == pytest.approx(limits[name] / math.sqrt(3), rel=0.05)
        else:
            assert not weights.any()


@pytest.mark.parametrize("preset", nextclick.GRU4Rec.presets)
def test_presets_can_be_trained(preset: str) -> None:
    """Down to the last lane, which has no negative sample where there are no additional ones."""
    values = {"epochs": 3, "hidden": 8, "n_samples": min(32, nextclick.GRU4Rec.presets[preset]["n_samples"])}
    model = nextclick.GRU4Rec.preset(preset, **values).fit(chain(20, 60, noise=0.3, seed=1))
    losses = [epoch["loss"] for epoch in model.facts["epochs"]]
    assert len(losses) == 3
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize("wrong", [{"loss": "bpr-max"}, {"loss": "cross-entropy", "activation": "elu"}])
def test_the_correction_without_a_soft_max_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"logq=1 .* loss=cross-entropy"):
        nextclick.GRU4Rec(logq=1.0, **wrong)


OVERFIT: list[dict[str, Any]] = [
    {"loss": "cross-entropy", "activation": "linear"},
    {"loss": "cross-entropy", "activation": "linear", "logq": 1.0, "embedding": "separate", "dim": 24},
    {"loss": "bpr", "activation": "linear", "embedding": "one-hot"},
    {"loss": "top1", "activation": "linear", "n_samples": 0, "hidden": 64, "batch_size": 50, "epochs": 200},
    {"loss": "top1-max", "activation": "tanh", "layers": 2},
    {"loss": "bpr-max", "activation": "elu", "bpreg": 0.5},
]


@pytest.mark.parametrize("values", OVERFIT, ids=lambda values: " ".join(map(str, values.values())))
def test_overfits_fifty_sessions(values: dict[str, Any]) -> None:
    """Walks from a starting item of their own: each loss has to bring every next click to the first place."""
    lists = [[n, (n * 7 + 3) % 50, (n * 11 + 6) % 50, (n * 3 + 1) % 50] for n in range(50)]
    sessions = Sessions.from_lists(lists)
    size = {"epochs": 100, "hidden": 32, "batch_size": 25, "n_samples": 50}
    plain = {**PLAIN, **size, "learning_rate": 0.2, "momentum": 0.1}
    fitted = nextclick.GRU4Rec(**{**plain, **values}).fit(sessions)
    report = nextclick.evaluate([fitted], sessions, k=1, n_resamples=2)
    assert report.models[0].metrics["recall@1"] == 1.0
