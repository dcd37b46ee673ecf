"""The losses against sampled items and the soft-max over all of them, each against its plain formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import slow

torch = pytest.importorskip("torch")

from nextclick.network import losses, objectives  # noqa: E402 - they import torch
from nextclick.network.batches import Rows  # noqa: E402
from nextclick.network.encoders import GruEncoder  # noqa: E402
from nextclick.network.losses import LOSSES, ranking_loss  # noqa: E402
from nextclick.network.scoring import Network  # noqa: E402
from nextclick.network.workers import Workers  # noqa: E402
from nextclick.sessions import Sessions  # noqa: E402

ACTIVATIONS = [("linear", 1.0), ("tanh", 1.0), ("elu", 1.0), ("elu", 0.5)]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


def value_and_gradient(scores: Any, loss: Any) -> tuple[Any, Any]:
    leaf = scores.clone().requires_grad_()
    value = loss(leaf)
    value.backward()
    return value.detach(), leaf.grad


def against_formula(name: str, scores: Any, target: list[int], scale: float = 1.0, **how: Any) -> None:
    columns = torch.tensor(target, dtype=torch.int64)
    value, gradient = value_and_gradient(
        scores, lambda leaf: ranking_loss(name, leaf, columns, scale=scale, **how)
    )
    wanted, slope = value_and_gradient(
        scores.double(), lambda leaf: scale * slow.ranking_loss(name, leaf, target, **how)
    )
    exact = scores.dtype == torch.float64
    assert value.item() == pytest.approx(wanted.item(), rel=1e-9 if exact else 1e-5, abs=1e-12)
    assert gradient.dtype == scores.dtype
    near = 1e-10 if exact else 2e-6 * max(1.0, abs(scale))
    assert torch.allclose(gradient.double(), slope, rtol=1e-8 if exact else 1e-4, atol=near)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("activation", "elu"), ACTIVATIONS)
@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients_equal_their_formulas(
    name: str, activation: str, elu: float, dtype: torch.dtype
) -> None:
    for rows, columns, regularisation, scale in [(1, 2, 0.0, 1.0), (4, 7, 1.0, 0.25), (6, 3, 0.3, 2.0)]:
        scores = 2 * torch.randn(rows, columns, dtype=dtype)
        target = torch.randint(0, columns, (rows,)).tolist()
        how = {"activation": activation, "elu": elu, "regularisation": regularisation}
        against_formula(name, scores, target, scale, **how)


@pytest.mark.parametrize("name", LOSSES)
@given(
    scores=arrays.arrays(
        np.float64,
        st.tuples(st.integers(1, 4), st.integers(2, 6)),
        elements=st.floats(-8, 8, allow_subnormal=False),
    ),
    data=st.data(),
)
@settings(deadline=None, max_examples=25)
def test_losses_hold_for_any_scores_and_any_column(name: str, scores: Any, data: st.DataObject) -> None:
    """Ties, zeros and repeats of the target's score included; the target stands in any column."""
    rows, columns = scores.shape
    target = data.draw(st.lists(st.integers(0, columns - 1), min_size=rows, max_size=rows))
    against_formula(name, torch.from_numpy(scores), target, regularisation=0.5)


@pytest.mark.parametrize("activation", ["linear", "elu", "tanh"])
@pytest.mark.parametrize("name", LOSSES)
def test_blocks_of_rows_make_one_whole(name: str, activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows than are worked on together, the last block smaller than the others."""
    scores, target = torch.randn(23, 9, dtype=torch.float64), torch.randint(0, 9, (23,))

    def loss(leaf: Any) -> Any:
        return ranking_loss(name, leaf, target, activation=activation, regularisation=1.0, scale=0.1)

    whole, blocks = value_and_gradient(scores, loss), []
    kept = LOSSES[name]
    monkeypatch.setattr(losses, "_BLOCK", 40)
    monkeypatch.setitem(
        LOSSES, name, lambda scores, *others: blocks.append(len(scores)) or kept(scores, *others)
    )
    cut = value_and_gradient(scores, loss)
    assert len(blocks) > 2
    assert sum(blocks) == 23
    assert blocks[-1] < blocks[0]
    assert cut[0].item() == pytest.approx(whole[0].item(), rel=1e-12)
    assert torch.allclose(cut[1], whole[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("outer", [1.0, 3.0])
@pytest.mark.parametrize("name", LOSSES)
def test_a_weight_is_on_the_gradients_alone(name: str, outer: float) -> None:
    scores, target = torch.randn(4, 9, dtype=torch.float64), torch.randint(0, 9, (4,))
    plain, weighed = (
        value_and_gradient(scores, lambda leaf, of=of: outer * ranking_loss(name, leaf, target, **of))
        for of in ({"scale": 0.5}, {"scale": 0.5, "weight": 0.25})
    )
    assert weighed[0].item() == pytest.approx(plain[0].item(), rel=1e-12)
    assert torch.allclose(weighed[1], 0.25 * plain[1], rtol=1e-12, atol=0)


def test_a_large_table_of_scores_in_blocks() -> None:
    """With the block as it is: 150 rows of 2,000 candidates are several blocks."""
    rows, columns = 150, 2000
    assert rows * columns > 4 * losses._BLOCK
    scores, target = torch.randn(rows, columns), torch.randint(0, columns, (rows,))
    value, gradient = value_and_gradient(scores, lambda leaf: ranking_loss("cross-entropy", leaf, target))
    wanted, slope = value_and_gradient(
        scores.double(), lambda leaf: torch.nn.functional.cross_entropy(leaf, target, reduction="sum")
    )
    assert value.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert torch.allclose(gradient.double(), slope, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("activation", "elu"), ACTIVATIONS)
@pytest.mark.parametrize("name", LOSSES)
def test_extreme_scores_stay_finite(name: str, activation: str, elu: float) -> None:
    """The target far ahead, far behind, and level with a negative sample; all scores huge, all tiny."""
    scores = torch.tensor([[50.0, -50, -50], [-50, 50, 50], [50, 50, -50], [50, 50, 50], [-50, -50, -50]])
    target = torch.zeros(5, dtype=torch.int64)
    value, gradient = value_and_gradient(
        scores,
        lambda leaf: ranking_loss(name, leaf, target, activation=activation, elu=elu, regularisation=1),
    )
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_target_that_wins_costs_less(name: str) -> None:
    won = ranking_loss(name, torch.tensor([[2.0, -1.0, -1.5]]), torch.tensor([0]))
    lost = ranking_loss(name, torch.tensor([[-1.5, -1.0, 2.0]]), torch.tensor([0]))
    assert won < lost


@pytest.mark.parametrize("name", ["top1-max", "bpr-max"])
def test_the_targets_score_has_no_part_in_the_soft_max(name: str) -> None:
    """Two equal negatives share the soft-max half and half, however high the target is."""
    target = torch.tensor([0])
    for own in (-3.0, 0.0, 5.0):
        two = ranking_loss(name, torch.tensor([[own, 1.0, 1.0]]), target, regularisation=1.0)
        one = ranking_loss(name, torch.tensor([[own, 1.0]]), target, regularisation=1.0)
        assert two.item() == pytest.approx(one.item(), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_the_target_is_none_of_its_negatives(name: str) -> None:
    """BPR, TOP1: a mean over K - 1 others; a target among them would add log 2, or 1/2 and its own size."""
    scores, target = torch.tensor([[0.7, -0.2]], dtype=torch.float64), torch.tensor([0])
    own, other = (torch.tensor(x, dtype=torch.float64) for x in (0.7, -0.2))
    ahead, size = torch.sigmoid(other - own), torch.sigmoid(other**2)
    expected = {
        "cross-entropy": -torch.log(torch.sigmoid(own - other)),
        "bpr": -torch.log(torch.sigmoid(own - other)),
        "bpr-max": -torch.log(torch.sigmoid(own - other)),
        "top1": ahead + size,
        "top1-max": ahead + size,
    }
    found = ranking_loss(name, scores, target)
    assert found.item() == pytest.approx(expected[name].item(), rel=1e-9)


def test_only_bpr_max_is_regularised() -> None:
    scores, target = torch.randn(4, 6), torch.tensor([0, 5, 2, 2])
    for name in LOSSES:
        without, regularised = (ranking_loss(name, scores, target, regularisation=x) for x in (0.0, 2.0))
        assert (regularised > without) == (name == "bpr-max")
        assert (regularised == without) == (name != "bpr-max")


@pytest.mark.parametrize("name", LOSSES)
def test_without_a_negative_sample_there_is_nothing_to_win(name: str) -> None:
    """The last lane of an epoch, where there are no additional samples."""
    value, gradient = value_and_gradient(
        torch.tensor([[1.5]]), lambda leaf: ranking_loss(name, leaf, torch.tensor([0]), regularisation=1.0)
    )
    assert value.item() == 0
    assert gradient.tolist() == [[0.0]]


# -- against all items


LISTS = [[0, 1, 2, 3], [4, 2, 0], [1, 5], [3, 3, 1, 0, 2], [5, 4]]


def all_items(network: Network, **how: Any) -> tuple[Any, Any]:
    sessions = Sessions.from_lists(LISTS)
    rows = Rows(sessions, 6)
    return objectives.AllItems(network, rows, 100, **how), rows.batch(np.arange(len(rows)))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("temperature", [0.0, 0.3])
@pytest.mark.parametrize("bias", [False, True])
def test_all_items_is_cross_entropy_with_smoothing_of_cosines(
    bias: bool, temperature: float, smoothing: float
) -> None:
    network = Network(6, 3, GruEncoder(3, 4), bilinear=True, bias=bias, temperature=temperature)
    if network.bias is not None:
        torch.nn.init.normal_(network.bias)
    objective, batch = all_items(network, smoothing=smoothing)
    loss, pairs = objective.loss(batch)
    loss.backward()
    found = {name: weights.grad.clone() for name, weights in network.named_parameters()}
    assert pairs == sum(len(session) - 1 for session in LISTS)

    codes = Sessions.from_lists(LISTS)
    network.zero_grad()
    scores, targets = [], []
    for session in (
        codes.items[a:b].tolist() for a, b in zip(codes.offsets, codes.offsets[1:], strict=False)
    ):
        for end in range(1, len(session)):
            read, known = network.items.weight[session[:end]], network.items.weight
            if temperature > 0:
                read = torch.stack([vector / vector.norm() for vector in read])
                known = torch.stack([vector / vector.norm() for vector in known])
            vector = network.decoder.weight @ network.encoder.gru(read[None])[0][0, -1]
            if temperature > 0:
                vector = vector / vector.norm() / temperature
            scores.append(known @ vector + (0 if network.bias is None else network.bias[:, 0]))
            targets.append(session[end])
    wanted = torch.nn.functional.cross_entropy(
        torch.stack(scores), torch.tensor(targets), label_smoothing=smoothing
    )
    wanted.backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    for name, weights in network.named_parameters():
        assert torch.allclose(found[name], weights.grad, rtol=1e-3, atol=1e-6), name


def test_answers_are_the_scores_that_were_trained() -> None:
    network = Network(6, 3, GruEncoder(3, 4), bilinear=True, bias=True, temperature=0.3).eval()
    torch.nn.init.normal_(network.bias)
    with torch.no_grad():
        vectors = network.sessions(torch.tensor([[0, 3, 5]]), torch.ones(1, 3, dtype=torch.bool))[:, -1]
        lengths = network.items.weight.norm(dim=1)
        assert vectors.norm().item() == pytest.approx(1 / 0.3, rel=1e-5)
        expected = vectors @ network.items.weight.T / lengths + network.bias.T
        assert torch.allclose(network.scores(vectors), expected, atol=1e-5)


def test_processes_without_a_row_add_zeros() -> None:
    """Five rows shared by seven processes: their parts make up the whole, and all name the same weights."""
    network = Network(6, 3, GruEncoder(3, 4), bilinear=True)
    objective, batch = all_items(network, smoothing=0.1)
    whole, pairs = objective.loss(batch)
    whole.backward()
    expected = [gradient.clone() for gradient in objective.gradients()]
    total, summed = 0.0, [torch.zeros_like(gradient) for gradient in expected]
    for rank in range(7):
        network.zero_grad()
        objective, _ = all_items(network, smoothing=0.1, workers=Workers(rank, 7))
        part, of_whole = objective.loss(batch)
        part.backward()
        assert of_whole == pairs
        total += part.item()
        summed = [a + b for a, b in zip(summed, objective.gradients(), strict=True)]
    assert total == pytest.approx(whole.item(), rel=1e-5)
    for found, wanted in zip(summed, expected, strict=True):
        assert torch.allclose(found, wanted, atol=1e-6)
