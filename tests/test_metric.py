"""Metric learning: losses and samplers against slow loops, encoders by hand, distances, what is refused."""

from __future__ import annotations

import itertools
import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from torch import Tensor

import nextclick
from nextclick import SML, ConfigError, DataError, Queries, Sessions
from nextclick.metric import losses
from nextclick.metric.encoders import KINDS, Caser, Pooling, TagSpace, TextCNN, encoder
from nextclick.metric.network import MetricNetwork
from nextclick.metric.objective import Choices, LossName, MetricObjective, NegativesFrom
from nextclick.metric.samplers import EveryClick, Examples, RandomSplit, Sampler, SlidingWindow, neighbours
from nextclick.network.sampling import NegativeSampler
from nextclick.network.training import Epoch, Options
from nextclick.network.workers import Workers
from synthetic import chain, flagged_sessions, with_targets

SMALL = {"dim": 6, "hidden": 4, "epochs": 1, "batch_size": 16, "n_negatives": 5}
LISTS = [["a", "b", "c", "d"], ["b", "c"], ["d", "a", "c", "b", "e", "a"], ["e"], ["e", "d", "b"]]
SESSIONS = Sessions.from_lists(LISTS)
ALONE = Workers()


# -- losses, by loops over one number at a time


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def slow_pairs(name: str, d_p: float, d_n: float, margin: float) -> float:
    return {
        "contrastive": lambda: d_p + max(0.0, margin - d_n),
        "triplet": lambda: max(0.0, d_p - d_n + margin),
        "bpr": lambda: -math.log(sigmoid(d_n - d_p)),
        "top1": lambda: sigmoid(d_p - d_n) + sigmoid((1 - d_n) ** 2),
    }[name]()


def slow_loss(name: str, row: dict[str, Any], margin: float, epsilon: float) -> float:
    """Of one session: distances of positives and negatives, weights, and which negatives count."""
    far = [d for d, counts in zip(row["negative"], row["there"], strict=True) if counts]
    if name == "ncas":
        pairs = [(d, w) for d, w in zip(row["positive"], row["weight"], strict=True) if w > 0]
        candidates = [d for d, _ in pairs] + far
        shares = [w / sum(w for _, w in pairs) for _, w in pairs] + [0.0] * len(far)
        truth = [(1 - epsilon) * share + epsilon / len(candidates) for share in shares]
        whole = sum(math.exp(-d) for d in candidates)
        predicted = [math.exp(-d) / whole for d in candidates]
        return sum(p * math.log(p / q) for p, q in zip(truth, predicted, strict=True) if p > 0)
    total = 0.0
    for d_p, w in zip(row["positive"], row["weight"], strict=True):
        if w == 0:
            continue
        if not far:  # nothing to compare with; the positive is pulled all the same
            total += w * d_p if name == "contrastive" else 0.0
        else:
            total += w * sum(slow_pairs(name, d_p, d_n, margin) for d_n in far) / len(far)
    return total


def random_rows(seed: int, n: int = 6, p: int = 3, m: int = 5) -> dict[str, Tensor]:
    rng = np.random.default_rng(seed)
    followed = rng.integers(1, p + 1, n)
    weight = np.where(np.arange(p) < followed[:, None], 1 / np.sqrt(1 + np.arange(p)), 0.0)
    there = rng.random((n, m)) < 0.7
    there[0] = False
    return {
        "positive": torch.from_numpy(rng.random((n, p)) * 2),
        "weight": torch.from_numpy(weight),
        "negative": torch.from_numpy(rng.random((n, m)) * 2),
        "there": torch.from_numpy(there),
    }


def fast_loss(name: str, rows: dict[str, Tensor], margin: float, epsilon: float) -> Tensor:
    if name == "ncas":
        return losses.ncas(**rows, epsilon=epsilon)
    if name in ("contrastive", "triplet"):
        return getattr(losses, name)(**rows, margin=margin)
    return getattr(losses, name)(**rows)


@pytest.mark.parametrize("name", get_args(LossName))
@pytest.mark.parametrize("seed", range(3))
def test_losses_agree_with_loops(name: str, seed: int) -> None:
    rows = random_rows(seed)
    found = fast_loss(name, rows, 0.3, 0.2)
    for i, of_row in enumerate(found.tolist()):
        one = {key: tensor[i].tolist() for key, tensor in rows.items()}
        assert of_row == pytest.approx(slow_loss(name, one, 0.3, 0.2), abs=1e-9)


def test_losses_by_hand() -> None:
    """A positive at 0.5 and negatives at 0.6 and 1.5, margin 0.3."""
    rows = {
        "positive": torch.tensor([[0.5]]),
        "weight": torch.tensor([[1.0]]),
        "negative": torch.tensor([[0.6, 1.5]]),
        "there": torch.tensor([[True, True]]),
    }
    assert float(losses.triplet(**rows, margin=0.3)) == pytest.approx((0.2 + 0.0) / 2)
    assert float(losses.contrastive(**rows, margin=1.0)) == pytest.approx(0.5 + (0.4 + 0.0) / 2)
    share = math.exp(-0.5) / (math.exp(-0.5) + math.exp(-0.6) + math.exp(-1.5))
    assert float(losses.ncas(**rows, epsilon=0.0)) == pytest.approx(-math.log(share))
    assert losses.position_weights(3).tolist() == pytest.approx([1.0, math.sqrt(1 / 2), math.sqrt(1 / 3)])


@pytest.mark.parametrize("name", get_args(LossName))
def test_every_loss_pulls_positives_and_pushes_negatives(name: str) -> None:
    """The direction is what the misprinted equations would turn round."""
    rows = {
        "positive": torch.tensor([[0.9]], requires_grad=True),
        "weight": torch.tensor([[1.0]]),
        "negative": torch.tensor([[0.95]], requires_grad=True),
        "there": torch.tensor([[True]]),
    }
    fast_loss(name, rows, 1.0, 0.1).sum().backward()
    assert rows["positive"].grad is not None
    assert rows["negative"].grad is not None
    assert float(rows["positive"].grad) > 0
    assert float(rows["negative"].grad) < 0


def test_ncas_is_least_at_the_smoothed_truth() -> None:
    """Not at equal distances, where the printed equation 10 has it."""
    epsilon = 0.3
    truth = torch.tensor([1 - epsilon + epsilon / 4] + [epsilon / 4] * 3)
    far = -truth.log()
    there, weight = torch.ones(1, 3, dtype=torch.bool), torch.ones(1, 1)
    at_truth = losses.ncas(far[None, :1], weight, far[None, 1:], there, epsilon)
    equal = losses.ncas(torch.ones(1, 1), weight, torch.ones(1, 3), there, epsilon)
    assert float(at_truth) == pytest.approx(0.0, abs=1e-6)
    assert float(equal) > 0.1


def test_swap_takes_the_smaller_distance() -> None:
    apart = torch.tensor([[[0.2, 0.9], [0.7, 0.1]]])
    found = losses.swapped(torch.tensor([[0.5, 0.6]]), apart)
    assert torch.allclose(found, torch.tensor([[[0.2, 0.6], [0.5, 0.1]]]))
    loss = losses.triplet(
        torch.tensor([[0.4, 0.3]]), torch.tensor([[1.0, 0.5]]), found, torch.ones(1, 2, dtype=torch.bool), 0.3
    )
    by_hand = ((0.5 + 0.1) / 2) + 0.5 * ((0.1 + 0.5) / 2)
    assert float(loss) == pytest.approx(by_hand)


# -- encoders


@pytest.mark.parametrize("kind", KINDS)
def test_a_prefix_is_encoded_alike_alone_and_in_a_padded_batch(kind: Any) -> None:
    """Neither later clicks nor padding, whatever stands in it, nor the other rows reach it."""
    torch.manual_seed(1)
    made = encoder(kind, 5, 3, 7)
    clicks = torch.randn(4, 7, 5)
    lengths = [7, 4, 1, 2]
    mask = torch.arange(7) < torch.tensor(lengths)[:, None]
    garbage = torch.where(mask[..., None], clicks, torch.randn(4, 7, 5) * 100)
    together = made(garbage, mask)
    assert together.shape == (4, 7, made.width)
    for row, length in enumerate(lengths):
        for end in range(1, length + 1):
            alone = made(clicks[row : row + 1, :end], mask[row : row + 1, :end])
            assert torch.allclose(alone[0, -1], together[row, end - 1], atol=1e-5)
    last = torch.tensor(lengths) - 1
    assert torch.allclose(made.at(garbage, mask, last), together[torch.arange(4), last], atol=1e-5)


@pytest.mark.parametrize("values", [{}, {"tanh": False}, {"distance": "euclidean", "normalised": False}])
def test_whole_prefixes_are_what_the_last_places_are(values: dict[str, Any]) -> None:
    for kind in KINDS:
        net = network(kind=kind, **values).train(False)
        clicks, last = torch.randint(0, 9, (4, 6)), torch.tensor([5, 0, 3, 1])
        mask = torch.arange(6) <= last[:, None]
        with torch.no_grad():
            expected = net.sessions(clicks, mask)[torch.arange(4), last]
            assert torch.allclose(net.at(clicks, mask, last), expected, atol=1e-6), kind


def test_pooling_by_hand() -> None:
    clicks, mask = torch.tensor([[[1.0, 5.0], [3.0, 2.0], [2.0, 8.0]]]), torch.ones(1, 3, dtype=torch.bool)
    assert Pooling(2, "max-pool")(clicks, mask).tolist() == [[[1.0, 5.0], [3.0, 5.0], [3.0, 8.0]]]
    assert Pooling(2, "average")(clicks, mask).tolist() == [[[1.0, 5.0], [2.0, 3.5], [2.0, 5.0]]]


def slow_windows(weight: Tensor, bias: Tensor, clicks: Tensor, end: int) -> Tensor:
    """What filters [F, D, size] find in the clicks that end at ``end``, with zeros before the first."""
    size = weight.shape[2]
    found = bias.clone()
    for back in range(size):
        if end - back >= 0:
            found += weight[:, :, size - 1 - back] @ clicks[end - back]
    return found


def test_convolutions_agree_with_loops() -> None:
    torch.manual_seed(2)
    clicks, mask = torch.randn(1, 6, 4), torch.ones(1, 6, dtype=torch.bool)
    text, tags, caser = TextCNN(4, 3), TagSpace(4, 3), Caser(4, 2, 6)
    for end in range(6):
        parts = [
            torch.stack(
                [torch.relu(slow_windows(f.weight, f.bias, clicks[0], at)) for at in range(end + 1)]
            ).amax(0)
            for f in text.filters
        ]
        assert torch.allclose(text(clicks, mask)[0, end], torch.cat(parts), atol=1e-5)
        of_tags = [slow_windows(tags.filter.weight, tags.filter.bias, clicks[0], at) for at in range(end + 1)]
        expected = torch.tanh(torch.tanh(torch.stack(of_tags)).amax(0))
        assert torch.allclose(tags(clicks, mask)[0, end], expected, atol=1e-5)
        sums = [sum(row[back] * clicks[0, end - back] for back in range(end + 1)) for row in caser.vertical]
        horizontal = caser.horizontal(clicks, mask)[0, end]
        assert torch.allclose(caser(clicks, mask)[0, end], torch.cat([horizontal, *sums]), atol=1e-5)


# -- samplers


def slow_prefixes(lists: list[list[Any]], longest: int) -> set[tuple[Any, ...]]:
    """(prefix, next click) of all prefixes."""
    return {(tuple(one[max(0, t - longest) : t]), one[t]) for one in lists for t in range(1, len(one))}


def seen(sampler: Sampler, sessions: Sessions, size: int = 3, seed: int = 0) -> list[tuple[Any, list[Any]]]:
    """(prefix, positives) of an epoch, in the users' own ids."""
    found = []
    for batch in sampler.batches(size, np.random.default_rng(seed)):
        assert batch.row.tolist() == sorted(batch.row.tolist())
        for row, place, positives in zip(batch.row, batch.place, batch.positives, strict=True):
            assert batch.mask[row, : place + 1].all()
            prefix = sessions.vocabulary.ids_of(batch.clicks[row, : place + 1].numpy())
            found.append((tuple(prefix), sessions.vocabulary.ids_of(positives[positives >= 0].numpy())))
    return found


@pytest.mark.parametrize("longest", [2, 3, 15])
def test_every_click_is_trained_on_once(longest: int) -> None:
    found = seen(EveryClick(SESSIONS, longest, 1), SESSIONS)
    assert len(found) == SESSIONS.n_pairs
    assert {(prefix, positives[0]) for prefix, positives in found} == slow_prefixes(LISTS, longest)


def test_positives_are_the_clicks_that_follow() -> None:
    for prefix, positives in seen(EveryClick(SESSIONS, 15, 3), SESSIONS):
        one = next(one for one in LISTS if tuple(one[: len(prefix)]) == prefix and len(one) > len(prefix))
        assert positives == one[len(prefix) : len(prefix) + 3]


def test_a_random_split_cuts_each_session_once_and_anew_each_epoch() -> None:
    sampler = RandomSplit(SESSIONS, 4, 2)
    cuts: dict[int, set[int]] = {}
    sessions = [one for one in LISTS if len(one) > 1]
    for seed in range(60):
        found = seen(sampler, SESSIONS, seed=seed)
        assert len(found) == len(sessions) == sampler.n
        for prefix, positives in found:
            fits = [
                (n, t)
                for n, one in enumerate(sessions)
                for t in range(1, len(one))
                if tuple(one[max(0, t - 4) : t]) == prefix and one[t : t + 2] == positives
            ]
            assert len(fits) == 1
            cuts.setdefault(fits[0][0], set()).add(fits[0][1])
    assert cuts == {n: set(range(1, len(one))) for n, one in enumerate(sessions)}


@given(flagged_sessions, st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
@given_settings(max_examples=40, deadline=None)
def test_a_random_split_of_any_sessions_reads_before_and_predicts_targets_after(
    made: tuple[list[list[int]], list[list[bool]]], longest: int, most: int, seed: int
) -> None:
    lists, flags = made
    sessions = with_targets(lists, flags)
    if sessions.n_pairs == 0:
        return
    for prefix, positives in seen(RandomSplit(sessions, longest, most), sessions, seed=seed):
        assert positives
        assert any(
            tuple(one[max(0, t - longest) : t]) == prefix
            and [i for i, f in zip(one[t:], of[t:], strict=True) if f][:most] == positives
            for one, of in zip(lists, flags, strict=True)
            for t in range(1, len(one))
        )


def test_a_sliding_window_leaves_short_prefixes_out() -> None:
    found = seen(SlidingWindow(SESSIONS, 15, 1, 3), SESSIONS)
    assert sorted((prefix, tuple(positives)) for prefix, positives in found) == sorted(
        [
            (("a", "b", "c"), ("d",)),
            (("b",), ("c",)),
            (("d", "a", "c"), ("b",)),
            (("a", "c", "b"), ("e",)),
            (("c", "b", "e"), ("a",)),
            (("e", "d"), ("b",)),
        ]
    )


def test_topping_up_fills_with_items_of_similar_sessions() -> None:
    more = neighbours(SESSIONS, 4)
    assert more.shape == (len(SESSIONS), 4)
    for one, row in zip(LISTS, more, strict=True):
        added = set(SESSIONS.vocabulary.ids_of(row[row >= 0]))
        assert not added & set(one)
    assert (more[1] >= 0).any()
    plain = dict(seen(RandomSplit(SESSIONS, 15, 4), SESSIONS))
    topped = dict(seen(RandomSplit(SESSIONS, 15, 4, more), SESSIONS))
    assert plain.keys() == topped.keys()
    assert all(topped[prefix][: len(of)] == of for prefix, of in plain.items())
    assert sum(map(len, topped.values())) > sum(map(len, plain.values()))


# -- the objective


def objective(
    network: MetricNetwork, sampler: Sampler, workers: Workers = ALONE, **changes: Any
) -> MetricObjective:
    values: dict[str, Any] = {
        "loss": "ncas", "margin": 0.3, "epsilon": 0.1, "swap": False, "weighted": True,
        "temperature": 0.5, "negatives": "own", "n": 6,
    }  # fmt: skip
    chosen = Choices(**{**values, **changes})
    return MetricObjective(network, sampler, 5, chosen, NegativeSampler(np.arange(9, 0, -1), 0.5), workers)


def network(**values: Any) -> MetricNetwork:
    torch.manual_seed(3)
    return MetricNetwork(9, 4, values.pop("kind", "gru"), 3, 15, **values)


WALKS = chain(9, 20, noise=0.4, seed=5)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("negatives", ["own", "shared", "batch", "hard"])
@pytest.mark.parametrize("loss", ["ncas", "triplet", "contrastive", "bpr", "top1"])
def test_a_batch_is_the_mean_of_its_prefixes_worked_out_one_by_one(
    distance: Any, negatives: NegativesFrom, loss: LossName
) -> None:
    swap, temperature = loss != "ncas", 0.5
    net = network(distance=distance, normalised=distance == "cosine")
    net.train(False)
    made = objective(
        net, EveryClick(WALKS, 15, 3), loss=loss, negatives=negatives, n=4, swap=swap, temperature=temperature
    )
    for batch in itertools.islice(made.batches(1, 1), 3):
        examples = batch.examples
        everyone = {int(item) for row in examples.positives for item in row if item >= 0}
        table = net.table().detach().double()

        def apart(a: Tensor, b: Tensor) -> float:
            return float(1 - a @ b) if distance == "cosine" else float((a - b).square().sum())

        expected = []
        for r, (row, place) in enumerate(zip(examples.row, examples.place, strict=True)):
            clicks = examples.clicks[row : row + 1, : place + 1]
            anchor = net.sessions(clicks, torch.ones_like(clicks, dtype=torch.bool))[0, -1].detach().double()
            listed = [int(item) for item in examples.positives[r] if item >= 0]
            weights = {}
            for j, item in enumerate(listed):
                weights.setdefault(item, 1 / math.sqrt(1 + j))
            if batch.drawn is None:
                others = sorted(everyone - set(listed))
            else:
                of_row = batch.drawn if batch.drawn.ndim == 1 else batch.drawn[r]
                others = [int(item) for item in of_row if int(item) not in listed]
            if negatives == "hard":
                others = sorted(others, key=lambda item, anchor=anchor: apart(anchor, table[item]))[:4]
            if loss == "ncas":
                one = {
                    "positive": [apart(anchor, table[i]) / temperature for i in weights],
                    "weight": list(weights.values()),
                    "negative": [apart(anchor, table[i]) / temperature for i in others],
                    "there": [True] * len(others),
                }
                expected.append(slow_loss("ncas", one, 0.3, 0.1))
                continue
            total, scale = 0.0, temperature if loss == "bpr" else 1.0
            for item, weight in weights.items():
                one = {
                    "positive": [apart(anchor, table[item]) / scale],
                    "weight": [weight],
                    "negative": [
                        min(apart(anchor, table[n]), apart(table[item], table[n])) / scale for n in others
                    ],
                    "there": [True] * len(others),
                }
                total += slow_loss(loss, one, 0.3, 0.1)
            expected.append(total)
        found, pairs = made.loss(batch)
        assert pairs == len(expected)
        assert float(found.detach()) == pytest.approx(np.mean(expected), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_against_all_items_is_ncas_with_every_item_once(distance: Any) -> None:
    """Up to the entropy of the truth and the anchors' own squares, which move no weight: same gradients."""
    nets = [network(distance=distance, normalised=distance == "cosine", tanh=False) for _ in range(2)]
    for net in nets:
        net.train(False)
    against_all = objective(nets[0], EveryClick(WALKS, 15, 2), negatives="all")
    one_by_one = objective(nets[1], EveryClick(WALKS, 15, 2), negatives="shared")
    batch = next(iter(against_all.batches(1, 1)))
    against_all.loss(batch)[0].backward()
    every = type(batch)(batch.examples, torch.arange(9))
    one_by_one.loss(every)[0].backward()
    for (name, a), (_, b) in zip(nets[0].named_parameters(), nets[1].named_parameters(), strict=True):
        assert a.grad is not None, name
        assert torch.allclose(a.grad, b.grad, atol=1e-5), name


@pytest.mark.parametrize("negatives", ["all", "own", "shared", "batch", "hard"])
def test_processes_together_make_the_steps_of_one(negatives: NegativesFrom) -> None:
    alone = network()
    alone.train(False)
    whole = objective(alone, EveryClick(WALKS, 15, 2), negatives=negatives)
    batch = next(iter(whole.batches(1, 1)))
    expected, pairs = whole.loss(batch)
    for size in (2, 3, 50):
        parts = [
            objective(alone, EveryClick(WALKS, 15, 2), Workers(rank, size), negatives=negatives).loss(batch)
            for rank in range(size)
        ]
        assert {n for _, n in parts} == {pairs}
        # ncas against all leaves out a constant that is the mean over each part
        assert float(sum(loss.detach() for loss, _ in parts)) == pytest.approx(
            float(expected.detach()), rel=1e-4
        )
        assert all(loss.requires_grad for loss, _ in parts)


@pytest.mark.parametrize("loss", get_args(LossName))
@pytest.mark.parametrize("negatives", ["own", "shared", "batch", "hard"])
def test_a_batch_of_one_session_trains_without_breaking(loss: LossName, negatives: NegativesFrom) -> None:
    """Of one session the batch has no other's positives: no negative at all."""
    model = SML(**{**SMALL, "epochs": 2, "batch_size": 1, "validation": 0.0, "loss": loss,
                   "negatives": negatives, "sampler": "split"})  # fmt: skip
    model.fit(Sessions.from_lists([["a", "b"], ["b", "c"], ["c", "a"]]))
    assert np.isfinite(model.score(Queries.of([np.array([0])]))).all()


def test_examples_stand_in_rows_that_are_read_once() -> None:
    batch = next(EveryClick(SESSIONS, 15, 1).batches(100, np.random.default_rng(0)))
    assert isinstance(batch, Examples)
    assert len(batch.clicks) == sum(len(one) > 1 for one in LISTS)


# -- distances and answers


def test_distances_by_hand() -> None:
    sessions, items = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0], [1.0, 1.0]])
    euclidean = network(distance="euclidean", normalised=False)
    assert euclidean.distances(sessions, items).tolist() == [[9 + 4, 4 + 9]]
    unit = torch.nn.functional.normalize
    cosine = network().distances(unit(sessions, dim=-1), unit(items, dim=-1))
    assert cosine[0].tolist() == pytest.approx([1 - 0.8, 1 - 7 / (5 * math.sqrt(2))], abs=1e-6)
    each = network(distance="euclidean", normalised=False).distances(sessions, items[None])
    assert each.tolist() == [[13, 13]]


@pytest.mark.parametrize("values", [{}, {"distance": "euclidean", "normalise": False}])
def test_scores_rank_items_by_distance(values: dict[str, Any]) -> None:
    model = SML(**SMALL, **values, item_encoder="tanh", common=False).fit(WALKS)
    queries = Queries.of([np.array([1, 2, 3]), np.array([4])])
    scores = model.score(queries)
    for row, clicks in zip(scores, ([1, 2, 3], [4]), strict=True):
        with torch.no_grad():
            read = torch.tensor([clicks])
            anchor = model.network.sessions(read, torch.ones_like(read, dtype=torch.bool))[0, -1]
            far = model.network.distances(anchor, model.network.table())
        order = np.argsort(-row, kind="stable")
        assert np.allclose(row, (1 - far if not values else -far).numpy(), atol=1e-5)
        assert (np.diff(far.numpy()[order]) >= -1e-5).all()


def test_zero_vectors_have_distances_and_gradients() -> None:
    net = network(tanh=False)
    torch.nn.init.zeros_(net.items.weight)
    made = objective(net, EveryClick(WALKS, 15, 2))
    loss, _ = made.loss(next(iter(made.batches(1, 1))))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(w.grad).all() for w in net.parameters() if w.grad is not None)


# -- the rate of the published training


def epochs(*figures: float | None) -> list[Epoch]:
    return [Epoch(n, 1.0, figure) for n, figure in enumerate(figures, start=1)]


def test_the_rate_falls_where_the_figure_does_not_rise_enough() -> None:
    options = Options(150, 0.001, 0.1, 3, 1, gain=0.005)
    assert options.rate_after([]) == pytest.approx(1e-3)
    assert options.rate_after(epochs(0.5, 0.51)) == pytest.approx(1e-3)
    assert options.rate_after(epochs(0.5, 0.502)) == pytest.approx(1e-4)  # +0.4% is too little
    assert options.rate_after(epochs(0.5, 0.502, 0.506)) == pytest.approx(1e-4)
    assert options.rate_after(epochs(0.5, 0.5, 0.5, 0.5)) == pytest.approx(1e-6)
    assert options.rate_after(epochs(0.5, 0.5, 0.5, 0.5, 0.5)) is None
    assert options.rate_after(epochs(None, None, None)) == pytest.approx(1e-3)
    assert Options(2, 0.001, 0.1, 3, 1, gain=0.005).rate_after(epochs(0.1, 0.2)) is None


def test_without_a_gain_the_rate_falls_after_every_epoch() -> None:
    options = Options(10, 0.1, 0.5, 2, 1)
    assert options.rate_after(epochs(0.5, 0.6)) == pytest.approx(0.025)
    assert options.rate_after(epochs(0.5, 0.4)) == pytest.approx(0.025)
    assert options.rate_after(epochs(0.5, 0.4, 0.3)) is None
    assert options.rate_after(epochs(None, None)) == pytest.approx(0.025)


# -- what is refused


@pytest.mark.parametrize(
    ("values", "remedy"),
    [
        ({"normalise": False}, "distance=euclidean"),
        ({"loss": "triplet", "negatives": "all"}, "negatives=shared"),
        ({"swap": True}, "not with loss=ncas"),
        ({"top_up": True}, "sampler=split"),
        ({"encoder": "transformer"}, "max-pool"),
        ({"temperature": 0.0}, "at least 0.001"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(values: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        SML(**values)


@pytest.mark.parametrize("sampler", ["every", "split", "window"])
def test_sessions_without_a_second_click_are_refused(sampler: Any) -> None:
    with pytest.raises(DataError, match="nothing to learn"):
        SML(**SMALL, sampler=sampler).fit(Sessions.from_lists([["a"], ["b"]]))


def test_a_session_of_validation_only_does_not_break_the_split() -> None:
    """Sessions of one click have no positives after any split: they are passed over."""
    model = SML(**SMALL, sampler="split", positives=3, validation=0.0)
    model.fit(Sessions.from_lists([["a"], ["a", "b"], ["c"], ["b", "a"], ["c"]]))
    assert model.facts["epochs"][0]["epoch"] == 1
    assert len(nextclick.MODELS["sml"].preset("paper", epochs=1, dim=3, hidden=3, top_up=True).fit(
        Sessions.from_lists([["a", "b"], ["b", "c", "a"]] * 8)
    ).recommend(["a"], 3)) == 3  # fmt: skip
