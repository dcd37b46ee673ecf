"""The parts of the neural recommenders, each against a slow obvious computation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nextclick
from nextclick import DataError, Sessions, TrainingDivergedError
from synthetic import QUICK, chain

torch = pytest.importorskip("torch")

from nextclick.network.batches import Rows, prefixes  # noqa: E402 - they import torch
from nextclick.network.encoders import GruEncoder, NarmEncoder, StampEncoder  # noqa: E402
from nextclick.network.softmax import TILE, full_softmax, product_type  # noqa: E402


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


@pytest.mark.parametrize(
    ("pairs", "n_items", "scale"),
    [
        (1, 411, 1.0),
        (7, 411, 1.0),
        (1100, 411, 0.1),
        (1100, 411, 40.0),
        (150, TILE + 9, 1.0),
        (600, TILE + 9, 2.2),
        (600, TILE + 9, 4.0),
        (20, 3 * TILE, 40.0),
    ],
)
def test_full_softmax_is_cross_entropy_with_its_gradients(pairs: int, n_items: int, scale: float) -> None:
    """Against PyTorch's own in float64; at the larger scales exp overflows unless scores are shifted."""
    sessions, items = torch.randn(pairs, 9) * scale, torch.randn(n_items, 9)
    targets = torch.randint(0, n_items, (pairs,))
    exact = [sessions.double().requires_grad_(), items.double().requires_grad_()]
    expected = torch.nn.functional.cross_entropy(exact[0] @ exact[1].T, targets)
    (3 * expected).backward()
    fused = [sessions.clone().requires_grad_(), items.clone().requires_grad_()]
    loss = full_softmax(*fused, targets)
    (3 * loss).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in zip(fused, exact, strict=True):
        assert torch.allclose(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-6 * scale)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False}, torch.float32),
        ({"architecture": "aarch64"}, torch.float32),
    ],
)
def test_products_are_in_bfloat16_where_the_processor_has_it(
    told: dict[str, object], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told)
    assert product_type("auto", "cpu") == expected
    assert product_type("bfloat16", "cpu") == torch.bfloat16
    assert product_type("float32", "cpu") == torch.float32


def test_products_are_in_single_precision_on_an_unknown_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert product_type("auto", "cpu") == torch.float32


@pytest.mark.parametrize("scale", [0.3, 8.0])
def test_full_softmax_in_bfloat16_is_near(scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    sessions = torch.randn(300, 16, generator=generator) * scale
    items, targets = torch.randn(TILE + 9, 16, generator=generator), torch.arange(300)
    found = []
    for low in (torch.float32, torch.bfloat16):
        ours = [sessions.clone().requires_grad_(), items.clone().requires_grad_()]
        loss = full_softmax(*ours, targets, low=low)
        loss.backward()
        found.append((loss.item(), *(tensor.grad for tensor in ours)))
    exact, near = found
    assert near[0] == pytest.approx(exact[0], rel=0.01)
    for ours, theirs in zip(near[1:], exact[1:], strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 0.05


def narm_by_loops(encoder: NarmEncoder, clicks: list[list[float]]) -> list[list[float]]:
    """Equations 5 to 9 of Li et al. 2017, a click at a time; torch's GRU is taken as equation 5."""
    states = encoder.gru(torch.tensor([clicks]))[0][0]
    vectors = []
    for t in range(len(states)):
        local = torch.zeros(states.shape[1])
        for j in range(t + 1):
            inner = torch.sigmoid(encoder.query.weight @ states[t] + encoder.key.weight @ states[j])
            local = local + (encoder.energy.weight[0] @ inner) * states[j]
        vectors.append(torch.cat([states[t], local]).tolist())
    return vectors


def stamp_by_loops(encoder: StampEncoder, clicks: list[list[float]]) -> list[list[float]]:
    """The encoder of Liu et al. 2018, a click at a time; released, by its authors' program."""
    x = torch.tensor(clicks)
    if encoder.released:
        x = torch.stack([one if one.norm() <= 1 else one / one.norm() for one in x])
    vectors = []
    for t in range(len(x)):
        mean, memory = sum(x[: t + 1]) / (t + 1), torch.zeros(x.shape[1])
        for i in range(t + 1):
            inner = encoder.of_click.weight @ x[i] + encoder.of_last.weight @ x[t]
            inner = torch.sigmoid(inner + encoder.of_mean.weight @ mean + encoder.of_mean.bias)
            memory = memory + (encoder.energy.weight[0] @ inner) * x[i]
        memory = memory + mean if encoder.released else memory
        of_session = torch.tanh(encoder.memory.weight @ memory + encoder.memory.bias)
        of_last = torch.tanh(encoder.last.weight @ x[t] + encoder.last.bias)
        vectors.append((of_session * of_last).tolist())
    return vectors


ENCODERS = {
    "narm": (NarmEncoder(4, 3).eval(), narm_by_loops),
    "stamp": (StampEncoder(4).eval(), stamp_by_loops),
    "stamp released": (StampEncoder(4, released=True).eval(), stamp_by_loops),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_equal_their_equations_at_every_position(name: str) -> None:
    encoder, by_loops = ENCODERS[name]
    clicks = torch.randn(1, 6, 4)
    with torch.no_grad():
        found = encoder(clicks, torch.ones(1, 6, dtype=torch.bool))[0]
        assert found.shape == (6, encoder.width)
        assert torch.allclose(found, torch.tensor(by_loops(encoder, clicks[0].tolist())), atol=1e-5)


@pytest.mark.parametrize(
    "encoder",
    [
        *(NarmEncoder(4, 3, kind).eval() for kind in ("global", "local", "hybrid")),
        StampEncoder(4),
        StampEncoder(4, False),
        StampEncoder(4, released=True),
    ],
    ids=["global", "local", "hybrid", "stamp", "stmp", "released"],
)
def test_padding_and_later_clicks_never_reach_a_prefix(encoder: torch.nn.Module) -> None:
    clicks, mask = torch.randn(3, 7, 4), torch.ones(3, 7, dtype=torch.bool)
    mask[:, 4:] = False
    with torch.no_grad():
        found = encoder(clicks, mask)
        assert torch.allclose(found[:, :4], encoder(clicks[:, :4], mask[:, :4]), atol=1e-6)
        alone = torch.cat([encoder(clicks[i : i + 1, :4], mask[i : i + 1, :4]) for i in range(3)])
        assert torch.allclose(found[:, :4], alone, atol=1e-6)
        clicks[:, 3] += 1
        assert torch.allclose(found[:, :3], encoder(clicks, mask)[:, :3], atol=1e-6)


@pytest.mark.parametrize(
    "encoder",
    [*(NarmEncoder(4, 3, kind).eval() for kind in ("global", "local", "hybrid")), StampEncoder(4)],
    ids=["global", "local", "hybrid", "stamp"],
)
def test_the_last_place_alone_is_what_all_places_give_there(encoder: torch.nn.Module) -> None:
    clicks, last = torch.randn(4, 6, 4), torch.tensor([0, 5, 2, 3])
    mask = torch.arange(6) <= last[:, None]
    with torch.no_grad():
        expected = encoder(clicks, mask)[torch.arange(4), last]
        assert torch.allclose(encoder.at(clicks, mask, last), expected, atol=1e-6)


@pytest.mark.parametrize(
    "encoder",
    [
        NarmEncoder(4, 3, "local").eval(),
        NarmEncoder(4, 3).eval(),
        StampEncoder(4),
        StampEncoder(4, released=True),
        GruEncoder(4, 3),
    ],
    ids=["local", "hybrid", "stamp", "released", "gru"],
)
@pytest.mark.parametrize(
    "ends",
    [[[5], [2], [3]], [[1, 2, 5], [0, 2], [0]], [[0, 5], [1], [3]]],
    ids=["one prefix a row", "several", "mixed"],
)
def test_chosen_prefixes_are_what_all_places_give_there(
    encoder: torch.nn.Module, ends: list[list[int]]
) -> None:
    """With the same gradients, whichever rows are worked out for one prefix alone."""
    mask = torch.arange(6) <= torch.tensor([max(places) for places in ends])[:, None]
    wanted = torch.zeros(3, 6, dtype=torch.bool)
    for row, places in enumerate(ends):
        wanted[row, places] = True
    given = torch.randn(3, 6, 4)
    found = []
    for ending in (False, True):
        clicks = given.clone().requires_grad_()
        vectors = encoder.ending(clicks, mask, wanted) if ending else encoder(clicks, mask)[wanted]
        encoder.zero_grad()
        (vectors * torch.arange(1.0, vectors.numel() + 1).view(vectors.shape)).sum().backward()
        found.append([vectors.detach(), clicks.grad, *(weight.grad for weight in encoder.parameters())])
    for whole, chosen in zip(*found, strict=True):
        assert torch.allclose(whole, chosen, atol=1e-4)
    assert found[0][0].shape == (sum(map(len, ends)), encoder.width)


@given(
    lists=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), min_size=1, max_size=15),
    longest=st.integers(1, 6),
    pairs=st.integers(1, 40),
)
@settings(deadline=None)
def test_batches_hold_every_pair_once_with_its_cut_prefix(
    lists: list[list[int]], longest: int, pairs: int
) -> None:
    sessions = Sessions.from_lists(lists)
    rows = Rows(sessions, longest)
    found = []
    for batch in rows.batches(pairs, np.random.default_rng(1)):
        assert batch.clicks.shape == batch.mask.shape == batch.targets.shape
        for clicks, mask, targets in zip(batch.clicks, batch.mask, batch.targets, strict=True):
            for t in range(int(mask.sum())):
                if targets[t] >= 0:
                    found.append((clicks[: t + 1].tolist(), int(targets[t])))
    queries, positions = sessions.pairs()
    expected = [
        (queries.prefix(i)[-longest:].tolist(), int(sessions.items[positions[i]]))
        for i in range(len(queries))
    ]
    assert sorted(found) == sorted(expected)
    assert rows.n_pairs == len(expected)
    if expected:
        clicks, mask, last = prefixes(queries, longest)
        for i, (prefix, _) in enumerate(expected):
            assert clicks[i][mask[i]].tolist() == prefix
            assert last[i] == len(prefix) - 1


NO_DROPOUT = {"dropout_items": 0.0, "dropout_session": 0.0}
OVERFIT: dict[str, dict[str, Any]] = {
    "narm": NO_DROPOUT, "stamp": {}, "gru4rec-plus": {"dropout_clicks": 0.0, "dropout_hidden": 0.0},
    "sml": NO_DROPOUT,
    "sml triplet": {**NO_DROPOUT, "loss": "triplet", "negatives": "hard", "n_negatives": 8},
}  # fmt: skip


@pytest.mark.parametrize("name", OVERFIT)
def test_overfits_fifty_sessions(name: str) -> None:
    """Walks from a starting item of their own: the network has to learn each by heart."""
    lists = [[n, (n * 7 + 3) % 50, (n * 11 + 6) % 50, (n * 3 + 1) % 50] for n in range(50)]
    sessions = Sessions.from_lists(lists)
    size = {"epochs": 300, "learning_rate": 0.01, "decay": 1, "validation": 0, "dim": 32, "batch_size": 50}
    fitted = nextclick.build(name.partition(" ")[0], {**size, "patience": 300, **OVERFIT[name]})
    fitted.fit(sessions)
    report = nextclick.evaluate([fitted], sessions, k=1, n_resamples=2)
    assert report.models[0].metrics["recall@1"] == 1.0


def test_the_same_seed_gives_the_same_model_and_leaves_pytorchs_alone() -> None:
    sessions = chain(20, 60, noise=0.3, seed=1)
    before = torch.random.get_rng_state()
    first, again, other = (
        nextclick.NARM(epochs=2, dim=5, hidden=5, seed=seed).fit(sessions).state() for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["items.weight"], other["items.weight"])


def test_stops_early_and_keeps_the_best_epoch() -> None:
    sessions = chain(60, 200, noise=0.5, seed=1)
    model = nextclick.STAMP(epochs=40, patience=2, dim=8, learning_rate=0.05, batch_size=64).fit(sessions)
    figures = [epoch["figure"] for epoch in model.facts["epochs"]]
    assert len(figures) < 40
    assert len(figures) - 1 - figures.index(max(figures)) == 2
    kept = sessions[180:]
    reached = nextclick.evaluate([model], kept, k=20, n_resamples=2).models[0].metrics["recall@20"]
    assert reached == pytest.approx(max(figures))


@pytest.mark.parametrize("name", ["narm", "stamp", "gru4rec", "gru4rec-plus", "sml", "prnn"])
def test_divergence_stops_with_the_step_and_advice(name: str) -> None:
    model = nextclick.build(name, {**QUICK[name], "learning_rate": 3e38, "epochs": 3})
    with pytest.raises(
        TrainingDivergedError,
        match=r"epoch \d+, step [\d,]+, after [\d,]+ predicted .* rate 3e\+38.* smaller learning_rate",
    ):
        model.fit(chain(20, 60, noise=0.3, seed=1))


def test_nothing_to_learn_is_said() -> None:
    with pytest.raises(DataError, match="two clicks"):
        nextclick.NARM().fit(Sessions.from_lists([["a"], ["b"], ["a"]]))
