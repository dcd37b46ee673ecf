"""p-RNN: its network, training strategies and new items, against slow and obvious computations."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nextclick
from nextclick import ArtifactError, ConfigError, DataError, Features, Queries, Run, Sessions, Vocabulary
from nextclick.features import Dense, Sparse
from synthetic import chain, hourly, with_targets

torch = pytest.importorskip("torch")

from nextclick.network.item_encoder import ItemEncoder  # noqa: E402
from nextclick.network.sampling import Lanes, NegativeSampler  # noqa: E402 - they import torch
from nextclick.network.workers import Workers  # noqa: E402
from nextclick.parallel.network import Subnet, _GruStep  # noqa: E402
from nextclick.parallel.objective import ParallelItems, phases  # noqa: E402

N_ITEMS = 30
TRAIN = chain(N_ITEMS, 60, noise=0.2, seed=3)
SMALL: dict[str, Any] = {
    "hidden": 5,
    "epochs": 2,
    "batch_size": 8,
    "dropout_hidden": 0.0,
    "learning_rate": 0.1,
}


def dense_of(n: int, width: int, seed: int) -> Dense:
    values = np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)
    return Dense(values, np.ones(n, np.bool_))


def sparse_of(n: int, width: int, seed: int) -> Sparse:
    """About three entries an item, none at all for the first one."""
    rng = np.random.default_rng(seed)
    matrix = np.where(rng.random((n, width)) < 3 / width, rng.random((n, width)), 0).astype(np.float32)
    matrix[0] = 0
    rows, columns = np.nonzero(matrix)
    offsets = np.r_[0, np.cumsum(np.bincount(rows, minlength=n))].astype(np.int64)
    present = np.diff(offsets) > 0
    return Sparse(offsets, columns.astype(np.int32), matrix[rows, columns], width, present)


def features_of(**representations: Any) -> Features:
    n = len(next(iter(representations.values())))
    return Features(Vocabulary([f"item {item}" for item in range(n)]), representations)


BOTH = features_of(text=sparse_of(N_ITEMS, 12, 1), image=dense_of(N_ITEMS, 4, 2))


TEXTS = features_of(text=sparse_of(N_ITEMS, 12, 1))


def fitted(features: Features | None = BOTH, train: Sessions = TRAIN, **values: Any) -> nextclick.PRNN:
    return nextclick.PRNN(**{**SMALL, **values}).fit(train, features=features)


def weights_of(model: nextclick.PRNN) -> dict[str, np.ndarray]:
    return {name: tensor.clone().numpy() for name, tensor in model.network.state_dict().items()}


# -- the network


def test_a_step_is_pytorchs_gru_cell_with_its_gradients() -> None:
    torch.manual_seed(1)
    given, state = torch.randn(7, 12), torch.randn(7, 4)
    recurrent, bias = torch.randn(12, 4), torch.randn(2, 12)
    ours = [tensor.clone().requires_grad_() for tensor in (given, recurrent, bias)]
    theirs = [tensor.clone().double().requires_grad_() for tensor in (given, recurrent, bias)]
    found = _GruStep.apply(ours[0], state, ours[1], ours[2])
    expected = torch.gru_cell(theirs[0], state.double(), torch.eye(12).double(), theirs[1], *theirs[2])
    assert torch.allclose(found.double(), expected, atol=1e-6)
    along = torch.randn(7, 4)
    (found * along).sum().backward()
    (expected * along).sum().backward()
    for mine, exact in zip(ours, theirs, strict=True):
        assert torch.allclose(mine.grad.double(), exact.grad, atol=1e-5)


def test_ids_alone_are_gru4rec_over_one_hot_input() -> None:
    """From the same weights, the same steps: gru4rec's are held against a slow transcription."""
    values = {
        "hidden": 5,
        "epochs": 3,
        "batch_size": 8,
        "dropout_hidden": 0.0,
        "n_samples": 6,
        "momentum": 0.3,
    }
    common = {**values, "loss": "top1", "activation": "tanh", "learning_rate": 0.1, "seed": 4, "alpha": 0.5}
    ours = nextclick.PRNN(**common, architecture="id")
    theirs = nextclick.GRU4Rec(**common, embedding="one-hot", dropout_items=0.0)
    ours.fit(TRAIN)
    start = nextclick.PRNN(**common, architecture="id")
    start._given, start.vocabulary, start._device = {}, ours.vocabulary, torch.device("cpu")
    begun = start._started().state_dict()
    plain = theirs._network

    def from_the_same(n_items: int) -> Any:
        network = plain(n_items)
        network.items.weight.data.copy_(begun["_subnets.0.sources.0.table"])
        network.encoder.gru.weight_hh_l0.data.copy_(begun["_subnets.0.recurrent"])
        network.output.data.copy_(begun["output.0"])
        return network

    theirs._network = from_the_same  # type: ignore[method-assign]
    theirs.fit(TRAIN)
    mine, other = weights_of(ours), theirs.network.state_dict()
    for name, theirs_name in {
        "_subnets.0.sources.0.table": "items.weight",
        "_subnets.0.recurrent": "encoder.gru.weight_hh_l0",
        "output.0": "output",
        "bias": "bias",
    }.items():
        assert not np.allclose(mine[name], begun[name].numpy(), atol=1e-3)
        assert np.allclose(mine[name], other[theirs_name].numpy(), atol=1e-4)


@pytest.mark.parametrize("strategy", ["simultaneous", "alternating", "residual", "interleaving"])
def test_sparse_input_trains_as_the_same_vectors_made_dense(strategy: str) -> None:
    sparse = sparse_of(N_ITEMS, 12, 1)
    dense = Dense(sparse.dense(), sparse.present)
    ours, theirs = (fitted(features_of(text=of), strategy=strategy) for of in (sparse, dense))
    for name, weights in weights_of(ours).items():
        assert np.allclose(weights, weights_of(theirs)[name], atol=1e-4), name


def slow_scores(model: nextclick.PRNN, prefix: list[int], features: dict[str, np.ndarray]) -> np.ndarray:
    """The scores of all items after a prefix, an equation at a time."""
    network, states = model.network, []
    for subnet in network.subnets:
        parts = subnet.name.split("+")
        state = np.zeros(subnet.hidden)
        hidden = subnet.hidden
        recurrent, bias = subnet.recurrent.detach().numpy(), subnet.bias.detach().numpy()
        for item in prefix:
            given = np.zeros(3 * hidden)
            for part, source in zip(parts, subnet.sources, strict=True):
                if part == "id":
                    given = given + source.table.detach().numpy()[item]
                else:
                    given = given + features[part][item] @ source.weight.detach().numpy()
            inner = recurrent @ state + bias[1]
            given = given + bias[0]
            sums = given[: 2 * hidden] + inner[: 2 * hidden]
            reset, update = np.split(1 / (1 + np.exp(-sums)), 2)
            new = np.tanh(given[2 * hidden :] + reset * inner[2 * hidden :])
            state = (1 - update) * new + update * state
        states.append(state)
    output = [matrix.detach().numpy() for matrix in network.output]
    weights = [float(text) for text in model.weights.split(",")] if model.weights else [1.0] * len(states)
    if model.architecture == "shared":
        vectors = [sum(w * h for w, h in zip(weights, states, strict=True))]
    elif model.architecture == "interaction":
        vectors = [weights[0] * states[0]]
        vectors += [w * h * states[0] for w, h in zip(weights[1:], states[1:], strict=True)]
    else:
        vectors = [w * h for w, h in zip(weights, states, strict=True)]
    scores = sum(matrix @ vector for matrix, vector in zip(output, vectors, strict=True))
    return np.asarray(scores + network.bias.detach().numpy()[:, 0])


@pytest.mark.parametrize(
    "values",
    [
        {"architecture": "parallel", "weights": "1,0.5,2"},
        {"architecture": "shared", "weights": "1,0.5,2"},
        {"architecture": "interaction", "weights": "1,0.5,2"},
        {"architecture": "concatenated"},
        {"architecture": "feature"},
        {"architecture": "id"},
    ],
    ids=lambda values: values["architecture"],
)
def test_scores_are_those_of_the_equations(values: dict[str, Any]) -> None:
    model = fitted(None if values["architecture"] == "id" else BOTH, **values)
    given = {name: 10 * of.dense() for name, of in model._given.items()}
    prefixes = [[3], [1, 2, 3, 3], [7, 0, 9], [4, 5]]  # mixed lengths: the batch is sorted inside
    found = model.score(Queries.of(prefixes))
    for row, prefix in zip(found, prefixes, strict=True):
        assert np.allclose(row, slow_scores(model, prefix, given), atol=1e-4)


# -- strategies


def test_phases_by_hand() -> None:
    def named(*args: Any) -> list[tuple[Any, ...]]:
        return [(of.trained, of.active, of.first, of.last) for of in phases(*args)]

    every = (0, 1, 2)
    assert named("simultaneous", 3, 5, 0) == [(every, every, True, True)]
    assert [named("alternating", 3, epoch, 0)[0][0] for epoch in range(1, 6)] == [
        (0,),
        (1,),
        (2,),
        (0,),
        (1,),
    ]
    assert [named("residual", 3, 1, stage)[0][:2] for stage in range(3)] == [
        ((0,), (0,)),
        ((1,), (0, 1)),
        ((2,), every),
    ]
    assert named("interleaving", 3, 1, 0) == [
        ((0,), every, True, False),
        ((1,), every, False, False),
        ((2,), every, False, True),
    ]


def objective(model: nextclick.PRNN, sessions: Sessions, **values: Any) -> ParallelItems:
    given: dict[str, Any] = {
        "strategy": "simultaneous", "stage": 0, "loss": "top1", "n_samples": 4, "momentum": 0.0,
        "order": "time", "activation": "tanh", "elu": 0.5, "regularisation": 1.0, "logq": 0.0,
        "workers": Workers(),
    }  # fmt: skip
    sampler = NegativeSampler(sessions.support(), 0.5)
    return ParallelItems(model.network, Lanes(sessions, 8), sampler, **{**given, **values})


@pytest.mark.parametrize("architecture", ["parallel", "shared", "interaction"])
@pytest.mark.parametrize("strategy", ["alternating", "residual", "interleaving"])
def test_fixed_subnets_take_part_and_do_not_change(architecture: str, strategy: str) -> None:
    """Each step of one subnet leaves the weights of the others as they are, and depends on them."""
    model = fitted(architecture=architecture)
    network = model.network.train()
    of_strategy = objective(model, TRAIN, strategy=strategy, stage=2)
    optimizer = of_strategy.optimizer(0.1)
    for (_, phase), batch in itertools.islice(((of, of) for of in of_strategy.batches(1, 2)), 6):
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        optimizer.zero_grad()
        loss, _ = of_strategy.loss((_, phase) if batch is None else batch)
        loss.backward()
        optimizer.step()
        changed = {
            name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])
        }
        subnets = {int(name.split(".")[1]) for name in changed if name.startswith("_subnets")}
        assert subnets == set(phase.trained)
        matrices = {int(name.split(".")[1]) for name in changed if name.startswith("output")}
        assert matrices == ({0} if architecture == "shared" else set(phase.trained))
        assert "bias" in changed


def test_residual_training_begins_as_the_ids_alone_and_leaves_them_fixed() -> None:
    alone, both = fitted(None, architecture="id"), fitted(strategy="residual")
    mine, other = weights_of(both), weights_of(alone)
    for name in ("_subnets.0.sources.0.table", "_subnets.0.recurrent", "output.0"):
        assert np.array_equal(mine[name], other[name])
    stages = [epoch["stage"] for epoch in both.facts["epochs"]]
    assert stages == ["training-id"] * 2 + ["training-text"] * 2 + ["training-image"] * 2


def test_each_stage_draws_samples_of_its_own() -> None:
    model = fitted()
    drawn = [
        next(iter(objective(model, TRAIN, strategy="residual", stage=stage).batches(1, 1)))[0].samples
        for stage in (0, 1, 1, 2)
    ]
    assert torch.equal(drawn[1], drawn[2])
    assert not any(torch.equal(drawn[a], drawn[b]) for a, b in ((0, 1), (0, 3), (1, 3)))


def test_the_loss_falls_with_each_subnet_that_is_added() -> None:
    model = fitted(strategy="residual", epochs=6)
    losses = [epoch["loss"] for epoch in model.facts["epochs"]]
    assert losses[5] > losses[11] > losses[17]


@pytest.mark.parametrize("strategy", ["residual", "interleaving", "alternating", "simultaneous"])
def test_overfits_fifty_sessions(strategy: str) -> None:
    """Walks from a starting item of their own: each strategy has to learn all of them by heart."""
    lists = [[n, (n * 7 + 3) % 50, (n * 11 + 6) % 50, (n * 3 + 1) % 50] for n in range(50)]
    sessions = Sessions.from_lists(lists)
    given = Features(sessions.vocabulary, {"image": dense_of(50, 8, 1)})
    model = nextclick.PRNN(
        epochs=60, hidden=32, batch_size=25, n_samples=50, dropout_hidden=0.0, learning_rate=0.2,
        loss="cross-entropy", activation="linear", strategy=strategy,
    ).fit(sessions, features=given)  # fmt: skip
    report = nextclick.evaluate([model], sessions, k=1, n_resamples=2)
    assert report.models[0].metrics["recall@1"] == 1.0


def test_epochs_are_passes_for_each_subnet() -> None:
    counts = {
        strategy: len(fitted(strategy=strategy, epochs=2).facts["epochs"])
        for strategy in ("simultaneous", "interleaving", "alternating", "residual")
    }
    assert counts == {"simultaneous": 2, "interleaving": 2, "alternating": 6, "residual": 6}


def test_interleaving_starts_each_subnet_from_the_step_of_the_one_before() -> None:
    """One mini-batch by hand: the second phase's loss is that of the network as the first has left it."""
    model = fitted(features_of(image=dense_of(N_ITEMS, 4, 2)), strategy="interleaving")
    network = model.network.train()
    ours = objective(model, TRAIN, strategy="interleaving")
    optimizer = ours.optimizer(0.1)
    (step, one), (_, two) = itertools.islice(ours.batches(1, 1), 2)
    optimizer.zero_grad()
    ours.loss((step, one))[0].backward()
    optimizer.step()
    found, pairs = ours.loss((step, two))
    states = [subnet.step(step.clicks, torch.zeros(len(step.clicks), 5)) for subnet in network.subnets]
    candidates = torch.cat([step.targets, step.samples])
    scores = sum(h @ w[candidates].T for h, w in zip(states, network.output, strict=True))
    active = torch.tanh(scores + network.bias[candidates, 0])
    own = active[torch.arange(pairs), torch.arange(pairs)][:, None]
    each = torch.sigmoid(active - own) + torch.sigmoid(active**2)
    left = torch.ones_like(each).scatter_(1, torch.arange(pairs)[:, None], 0.0)
    expected = (each * left).sum() / (each.shape[1] - 1) / pairs
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_correction_takes_the_log_of_how_often_a_candidate_is_drawn_off_its_score() -> None:
    """By clicks for the lanes' next clicks, by clicks^alpha (here 0.5) for the samples; one mini-batch."""
    model = fitted(features_of(image=dense_of(N_ITEMS, 4, 2)))
    network = model.network.train()
    ours = objective(model, TRAIN, loss="cross-entropy", activation="linear", logq=0.7)
    step, phase = next(iter(ours.batches(1, 1)))
    found, pairs = ours.loss((step, phase))
    states = [subnet.step(step.clicks, torch.zeros(len(step.clicks), 5)) for subnet in network.subnets]
    candidates = torch.cat([step.targets, step.samples])
    scores = sum(h @ w[candidates].T for h, w in zip(states, network.output, strict=True))
    clicks = torch.from_numpy(TRAIN.support()).double().clamp(min=1)
    drawn = torch.cat([clicks[step.targets], clicks[step.samples].sqrt()])
    scores = scores + network.bias[candidates, 0] - 0.7 * drawn.log()
    expected = torch.nn.functional.cross_entropy(scores, torch.arange(pairs))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    with pytest.raises(nextclick.ConfigError, match=r"logq=1 .* loss=cross-entropy"):
        nextclick.PRNN(logq=1.0)


def test_a_weight_of_zero_leaves_a_subnet_without_a_say() -> None:
    alone, both = fitted(None, architecture="id"), fitted(strategy="residual", weights="1,0,0")
    queries = Queries.of([[1, 2], [5]])
    gap = both.score(queries) - alone.score(queries)
    assert np.allclose(gap, gap[:1], atol=1e-5)  # the biases alone went on


def test_only_the_rows_of_a_step_are_read_and_changed() -> None:
    """Columns of text that no clicked item has stay as they were drawn."""
    sparse = sparse_of(N_ITEMS, 12, 1)
    wide = Sparse(sparse.offsets, sparse.columns * 1000, sparse.values, 12_000, sparse.present)
    model = nextclick.PRNN(**SMALL)
    model.fit(TRAIN, features=features_of(text=wide))
    start = nextclick.PRNN(**SMALL)
    start._given, start.vocabulary, start._device = model._given, model.vocabulary, torch.device("cpu")
    begun, weights = start._started().state_dict(), weights_of(model)
    name = "_subnets.1.sources.0.weight"
    changed = np.flatnonzero((weights[name] != begun[name].numpy()).any(axis=1))
    assert set(changed.tolist()) <= set(wide.columns.tolist())
    assert len(changed) > 5


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_targets_alone_are_predicted_where_there_are_some(data: st.DataObject) -> None:
    lists = [[1, 2, 3, 4], [2, 3, 1], [4, 1, 2, 2], [3, 4]]
    flags = [[data.draw(st.booleans()) for _ in one] for one in lists]
    sessions = with_targets(lists, flags, 3, hourly(lists))
    if sessions.n_pairs == 0:
        return
    given = Features(sessions.vocabulary, {"image": dense_of(4, 3, 1)})
    model = nextclick.PRNN(**SMALL).fit(sessions, features=given)
    ours = objective(model, sessions, strategy="interleaving")
    assert sum(ours.loss(batch)[1] for batch in ours.batches(1, 1)) == sessions.n_pairs


# -- saved, resumed, refused


@pytest.mark.parametrize("architecture", ["parallel", "concatenated", "feature"])
def test_a_saved_model_carries_its_features(architecture: str, tmp_path: Path) -> None:
    model = fitted(architecture=architecture, fine_tuned=True)
    model.save(tmp_path / "model")
    loaded = nextclick.load(tmp_path / "model")
    queries = Queries.of([[1, 2], [5], []])
    assert np.array_equal(loaded.score(queries), model.score(queries))
    assert loaded.representations == model.representations


def test_a_residual_training_goes_on_from_its_second_stage(tmp_path: Path) -> None:
    whole = fitted(dropout_hidden=0.2)

    class StopError(Exception):
        pass

    def stop(what: str, done: int, total: int) -> None:
        if (tmp_path / "training-text.safetensors").exists():
            raise StopError

    with pytest.raises(StopError):
        nextclick.PRNN(**{**SMALL, "dropout_hidden": 0.2}).fit(
            TRAIN, features=BOTH, run=Run(tmp_path), progress=stop
        )
    again = nextclick.PRNN(**{**SMALL, "dropout_hidden": 0.2}).fit(TRAIN, features=BOTH, run=Run(tmp_path))
    for name, weights in weights_of(whole).items():
        assert np.array_equal(weights, weights_of(again)[name]), name


@pytest.mark.parametrize(
    ("values", "features", "error", "says"),
    [
        ({"architecture": "feature"}, None, DataError, "needs item features"),
        ({"architecture": "id"}, BOTH, ConfigError, "reads no features"),
        ({"weights": "1,x"}, BOTH, ConfigError, "write numbers"),
        ({"weights": "1,nan,2"}, BOTH, ConfigError, "write numbers"),
        ({"weights": "1,2"}, BOTH, ConfigError, "3 subnets: id, text, image"),
        ({"weights": "1,2", "architecture": "concatenated"}, BOTH, ConfigError, "is one GRU; leave weights"),
        ({"embedded": 4, "architecture": "concatenated"}, BOTH, ConfigError, "concatenated has none"),
        ({"fine_tuned": True}, TEXTS, ConfigError, "trains dense feature vectors.*sparse ones alone: text"),
        ({}, Features(Vocabulary(["x"]), {"image": dense_of(1, 2, 1)}), DataError, "none is among those"),
    ],
)
def test_what_makes_no_sense_is_refused(
    values: dict[str, Any], features: Features | None, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        fitted(features, **values)


def test_models_that_read_no_features_refuse_them() -> None:
    with pytest.raises(ConfigError, match="item-knn reads no item features"):
        nextclick.ItemKNN().fit(TRAIN, features=BOTH)
    with pytest.raises(ConfigError, match="by their ids alone"):
        nextclick.ItemKNN().fit(TRAIN).with_items(BOTH)


def test_damaged_features_in_a_model_are_refused(tmp_path: Path) -> None:
    model = fitted()
    state = model.state()
    state["features.text.columns"] = state["features.text.columns"] + 100
    fresh = nextclick.PRNN(**SMALL)
    fresh.facts = model.facts
    with pytest.raises(ArtifactError, match="saved features do not fit"):
        fresh.restore(state, model.vocabulary)


# -- new items


def two_kinds(n: int, seed: int) -> tuple[Sessions, Features, np.ndarray]:
    """Sessions that stay within one of four kinds of items, told by their features; half of the items new."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 4
    vectors = np.eye(4, dtype=np.float32)[kind] + 0.1 * rng.normal(size=(n, 4)).astype(np.float32)
    old = [np.flatnonzero((kind == of) & (np.arange(n) < n - 8)) for of in range(4)]
    lists = [[f"item {item}" for item in rng.choice(old[s % 4], 5)] for s in range(400)]
    names = Vocabulary([f"item {item}" for item in range(n)])
    return (
        Sessions.from_lists(lists, hourly(lists)),
        Features(names, {"image": Dense(vectors, kind >= 0)}),
        kind,
    )


@pytest.mark.parametrize("values", [{}, {"architecture": "feature"}, {"fine_tuned": True}])
def test_new_items_are_clicked_and_recommended(values: dict[str, Any], tmp_path: Path) -> None:
    """Items that nobody has clicked stand among those of their kind, and lead to them."""
    train, features, kind = two_kinds(40, 1)
    values = {**SMALL, "hidden": 16, "epochs": 8, "batch_size": 20, **values}
    model = nextclick.PRNN(**values).fit(train, features=features)
    assert model.n_items == 32
    wider = model.with_items(features)
    assert (wider.n_items, model.n_items) == (40, 32)
    found = []
    for item in range(32, 40):
        assert model.recommend([f"item {item}"]).fallback
        answer = [r.item for r in wider.recommend([f"item {item}"], 10)]
        found += [kind[int(of.split()[1])] == kind[item] for of in answer]
        assert not wider.recommend([f"item {item}"]).unknown
    assert np.mean(found) > 0.8  # a quarter by chance
    of_old = [[r.item for r in wider.recommend([f"item {item}"], 10)] for item in range(8)]
    assert sum(int(item.split()[1]) >= 32 for answer in of_old for item in answer) > 8
    old = Queries.of([[1, 2], [3]])
    assert np.allclose(wider.score(old)[:, :32], model.score(old), atol=1e-5)
    wider.save(tmp_path / "wider")
    loaded = nextclick.load(tmp_path / "wider")
    assert np.array_equal(loaded.score(old), wider.score(old))


def test_new_items_are_raised_in_their_biases_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    train, features, _ = two_kinds(40, 1)
    model = nextclick.PRNN(**{**SMALL, "hidden": 16}).fit(train, features=features)
    states = []
    for lift in (0.0, 2.0):
        monkeypatch.setattr(nextclick.PRNN, "lift", lift)
        states.append(weights_of(model.with_items(features)))
    low, high = states
    raised = high["bias"] - low["bias"]
    assert not raised[:32].any()
    assert np.allclose(raised[32:], 2 * model.network.bias.detach().numpy().std(), atol=1e-6)
    assert all(np.array_equal(low[name], high[name]) for name in low if name != "bias")


def test_new_items_that_do_not_fit_are_refused() -> None:
    model = fitted()
    with pytest.raises(DataError, match="lack text"):
        model.with_items(features_of(image=dense_of(40, 4, 1)))
    with pytest.raises(DataError, match="--like FEATURES"):
        model.with_items(features_of(text=sparse_of(40, 12, 1), image=dense_of(40, 5, 1)))
    with pytest.raises(ConfigError, match="fitted without features"):
        fitted(None).with_items(BOTH)
    assert model.with_items(BOTH).n_items == N_ITEMS  # none is new


def test_the_item_encoders_errors_are_those_of_leaving_items_out() -> None:
    """The closed form against fitting again without each item."""
    rng = np.random.default_rng(5)
    drawn = dense_of(25, 3, 6).values
    of_items = Dense(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.ones(25, np.bool_))
    values = (of_items.values @ rng.normal(size=(3, 2)) + 0.1 * rng.normal(size=(25, 2))).astype(np.float32)
    encoder = ItemEncoder({"image": of_items}, values, np.ones(25, np.int64))
    unit = of_items.values
    likeness = np.exp(encoder._sharpness * (unit.astype(np.float64) @ unit.T - 1))
    target = values - values.mean(0, dtype=np.float64)
    errors = []
    for out in range(25):
        rest = np.arange(25) != out
        inverse = np.linalg.inv(likeness[np.ix_(rest, rest)] + encoder.penalty * np.eye(24))
        errors.append(target[out] - likeness[out, rest] @ inverse @ target[rest])
    explained = 1 - np.mean(np.square(errors)) / np.mean(target**2)
    assert encoder.explained == pytest.approx(explained, abs=1e-6)
    assert encoder.explained > 0.5
    shrunk, bold = (encoder({"image": of_items}, boldness) - target.mean(0) for boldness in (0.0, 1.0))
    ratio = np.sqrt(np.mean(target**2) / np.mean((target - np.array(errors)) ** 2))
    centre = values.mean(0)
    assert np.allclose(bold - centre, ratio * (shrunk - centre), atol=1e-4)


def test_cosines_of_sparse_vectors_are_those_of_dense_ones() -> None:
    from nextclick.network.item_encoder import _products

    first, second = sparse_of(300, 20, 1), sparse_of(290, 20, 2)
    dense = [Dense(of.dense(), of.present) for of in (first, second)]
    assert np.allclose(_products(first, second), _products(*dense), atol=1e-6)


def test_a_subnet_knows_what_it_reads() -> None:
    model = fitted(architecture="parallel")
    assert [subnet.name for subnet in model.network.subnets] == ["id", "text", "image"]
    assert all(isinstance(subnet, Subnet) for subnet in model.network.subnets)
    assert model.facts["features"]["items_without"] == {"text": 1, "image": 0}


def test_a_representation_may_have_any_name() -> None:
    model = fitted(features_of(**{"a+id": dense_of(N_ITEMS, 4, 2)}), embedded=3)
    assert np.isfinite(model.score(Queries.of([[1, 2]]))).all()
