"""Item vectors with features in networks: against dense products, new items, saved, indexed and exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import nextclick
from nextclick import ArtifactError, ConfigError, DataError, Features, Queries, Run, Sessions, Vocabulary
from nextclick.cli import main
from nextclick.features import Dense, Sparse
from nextclick.network.recommender import NeuralRecommender
from synthetic import QUICK, chain, hourly

torch = pytest.importorskip("torch")

from nextclick.network.item_vectors import ItemVectors  # noqa: E402 - it imports torch
from nextclick.network.sources import ItemFeatures  # noqa: E402

NAMES = ["narm", "stamp", "gru4rec", "gru4rec-plus", "sml"]
# Learns within a second that sessions stay among items of one kind.
TRAINED: dict[str, Any] = {"dim": 16, "batch_size": 64, "validation": 0.0, "epochs": 6, "learning_rate": 0.02}
LEARNS: dict[str, dict[str, Any]] = {
    "narm": {**TRAINED, "hidden": 16},
    "stamp": TRAINED,
    "gru4rec": {"hidden": 16, "batch_size": 16, "n_samples": 16, "epochs": 6},
    "gru4rec-plus": {**TRAINED, "hidden": 16},
    "sml": {**TRAINED, "hidden": 16, "n_negatives": 16},
}


def of_text(n: int, width: int, seed: int) -> Sparse:
    """About three entries an item, none at all for the first one."""
    rng = np.random.default_rng(seed)
    matrix = np.where(rng.random((n, width)) < 3 / width, rng.random((n, width)), 0).astype(np.float32)
    matrix[0] = 0
    return as_sparse(matrix)


def as_sparse(matrix: np.ndarray) -> Sparse:
    rows, columns = np.nonzero(matrix)
    offsets = np.r_[0, np.cumsum(np.bincount(rows, minlength=len(matrix)))].astype(np.int64)
    return Sparse(
        offsets, columns.astype(np.int32), matrix[rows, columns], matrix.shape[1], np.diff(offsets) > 0
    )


def of_images(n: int, width: int, seed: int) -> Dense:
    values = np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)
    return Dense(values, np.ones(n, np.bool_))


def kinds(n: int, new: int, sparse: bool) -> tuple[Sessions, Features, np.ndarray]:
    """Sessions that stay within one of four kinds of items, told by features; the last ``new`` unseen."""
    rng = np.random.default_rng(1)
    kind = np.arange(n) % 4
    vectors = np.eye(4, dtype=np.float32)[kind]
    if not sparse:
        vectors += 0.1 * rng.normal(size=(n, 4)).astype(np.float32)
    old = [np.flatnonzero((kind == of) & (np.arange(n) < n - new)) for of in range(4)]
    lists = [[f"item {item}" for item in rng.choice(old[s % 4], 5)] for s in range(400)]
    given: Any = as_sparse(vectors) if sparse else Dense(vectors, kind >= 0)
    names = Vocabulary([f"item {item}" for item in range(n)])
    return Sessions.from_lists(lists, hourly(lists)), Features(names, {"kind": given}), kind


N_ITEMS = 30
TRAIN = chain(N_ITEMS, 60, noise=0.2, seed=3)
BOTH = Features(
    Vocabulary([f"item {item}" for item in range(N_ITEMS)]),
    {"text": of_text(N_ITEMS, 12, 1), "image": of_images(N_ITEMS, 4, 2)},
)


def fitted(name: str, features: Features | None = BOTH, **values: Any) -> NeuralRecommender:
    model = nextclick.build(name, {**QUICK[name], **values})
    assert isinstance(model, NeuralRecommender)
    return model.fit(TRAIN, features=features)


# -- the vectors


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 8), min_size=1, max_size=12), st.booleans())
def test_vectors_and_gradients_are_those_of_dense_products(seed: int, items: list[int], once: bool) -> None:
    """v = e + x_text P + x_image Q, by rows, as a whole table, and both at once within a step."""
    text, image = of_text(9, 5, seed), of_images(9, 3, seed + 1)
    torch.manual_seed(seed)
    ours = ItemVectors(9, 4)
    ours.features = ItemFeatures({"text": text, "image": image}, 4)
    assert all((weights == 0).all() for weights in ours.features.parameters())
    for weights in ours.features.parameters():
        torch.nn.init.normal_(weights)
    leaves = [ours.weight, *ours.features.parameters()]
    copies = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = copies[0] + torch.from_numpy(text.dense()).double() @ copies[1]
    expected = expected + torch.from_numpy(image.values).double() @ copies[2]
    along, over = torch.randn(len(items), 4), torch.randn(9, 4)
    codes = torch.tensor(items)
    if once:
        with ours.once():
            rows, table = ours(codes), ours.all()
    else:
        rows, table = ours(codes), ours.all()
    assert torch.allclose(rows.double(), expected[codes], atol=1e-5)
    assert torch.allclose(table.double(), expected, atol=1e-5)
    ((rows * along).sum() + (table * over).sum()).backward()
    ((expected[codes] * along).sum() + (expected * over).sum()).backward()
    for mine, exact in zip(leaves, copies, strict=True):
        assert torch.allclose(mine.grad.double(), exact.grad, atol=1e-4)
    ours.train(False)
    assert torch.allclose(ours(codes.view(1, -1))[0].double(), expected[codes], atol=1e-5)
    with torch.no_grad():
        ours.weight += 1
    assert torch.allclose(ours.train(False)(codes).double(), expected[codes] + 1, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_sparse_features_train_as_the_same_vectors_made_dense(name: str) -> None:
    text = of_text(N_ITEMS, 12, 1)
    of_dense = Dense(text.dense(), text.present)
    # Rows that a step does not read keep their momentum, a dense matrix as a whole has none.
    values = {"epochs": 2, **({"momentum": 0.0} if name == "gru4rec" else {})}
    models = [fitted(name, Features(BOTH.items, {"text": of}), **values) for of in (text, of_dense)]
    states = [model.network.state_dict() for model in models]
    assert any("features" in key for key in states[0])
    for key, weights in states[0].items():
        assert torch.allclose(weights, states[1][key], atol=2e-4), key
        if "features" in key:
            assert (weights != 0).any()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("narm", {"decoder": "full"}),
        ("gru4rec", {"embedding": "separate"}),
        ("gru4rec", {"embedding": "one-hot"}),
        ("sml", {"common": False}),
        ("sml", {"item_encoder": "tanh", "negatives": "all"}),
        ("narm", {"temperature": 0.0, "smoothing": 0.1}),
    ],
)
def test_scores_are_those_of_vectors_with_features_where_the_table_is_the_same(
    name: str, values: dict[str, Any]
) -> None:
    """A model whose own vectors are made the sums, without features, answers the same."""
    model = fitted(name, **values)
    plain = fitted(name, None, **values)
    state = {key: value for key, value in model.network.state_dict().items() if "features" not in key}
    added = sum(
        model._given[of].dense() @ weights.detach().numpy()
        for of, weights in zip(model._given, model.network.items.features.parameters(), strict=True)
    )
    assert np.abs(added).max() > 1e-4
    state["items.weight"] = state["items.weight"] + torch.from_numpy(np.asarray(added))
    plain.network.load_state_dict(state)
    plain.network.train(False)
    queries = Queries.of([[1, 2, 0], [5], []])
    assert np.allclose(model.score(queries), plain.score(queries), atol=1e-4)


def test_without_features_nothing_is_added() -> None:
    model = fitted("narm", None)
    assert not model.takes_new_items
    assert "features" not in model.facts
    assert not any("features" in name for name in model.state())


# -- new items


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("name", NAMES)
def test_new_items_are_clicked_and_recommended(name: str, sparse: bool, tmp_path: Path) -> None:
    """Items that nobody has clicked stand among those of their kind, and lead to them; nothing else moves."""
    train, features, kind = kinds(40, 8, sparse)
    model = nextclick.build(name, LEARNS[name]).fit(train, features=features)
    wider = model.with_items(features)
    assert (model.n_items, wider.n_items, wider.facts["new_items"]) == (32, 40, 8)
    found = []
    for item in range(32, 40):
        assert model.recommend([f"item {item}"]).fallback
        answer = wider.recommend([f"item {item}"], 10)
        assert not answer.unknown
        found += [kind[int(str(of).split()[1])] == kind[item] for of, _ in answer]
    assert np.mean(found) > 0.8  # a quarter by chance
    listed = [[str(of) for of, _ in wider.recommend([f"item {item}"], 10)] for item in range(8)]
    assert sum(int(of.split()[1]) >= 32 for answer in listed for of in answer) > 8
    old = Queries.of([[1, 2], [3]])
    assert np.allclose(wider.score(old)[:, :32], model.score(old), atol=1e-5)
    wider.save(tmp_path / "wider")
    assert np.array_equal(nextclick.load(tmp_path / "wider").score(old), wider.score(old))


def test_new_items_that_do_not_fit_are_refused() -> None:
    model = fitted("narm")
    names = Vocabulary([f"item {item}" for item in range(40)])
    with pytest.raises(DataError, match="narm reads text, image; the features lack text"):
        model.with_items(Features(names, {"image": of_images(40, 4, 1)}))
    wide = {"text": of_text(40, 12, 1), "image": of_images(40, 5, 1)}
    with pytest.raises(DataError, match="--like FEATURES"):
        model.with_items(Features(names, wide))
    with pytest.raises(ConfigError, match="narm: fitted without features"):
        fitted("narm", None).with_items(BOTH)
    assert model.with_items(BOTH).n_items == N_ITEMS  # none is new


def test_evaluation_ranks_new_items_by_their_features() -> None:
    train, features, kind = kinds(40, 8, sparse=False)
    model = nextclick.build("narm", LEARNS["narm"]).fit(train, features=features)
    lists = [[f"item {a}", f"item {b}"] for a in range(32) for b in range(32, 40) if kind[a] == kind[b]]
    test = Sessions.from_lists(lists, hourly(lists))
    for unseen, known, low, high in (("miss", None, 0.0, 0.0), ("features", features, 0.3, 1.0)):
        report = nextclick.evaluate([model], test, unseen=unseen, features=known, k=10)  # type: ignore[arg-type]
        assert low <= report.models[0].metrics["recall@10"] <= high


# -- new items in the index


@pytest.mark.parametrize(
    ("name", "values"),
    [("sml", {}), ("sml", {"distance": "euclidean", "normalise": False}), ("gru4rec", {}), ("prnn", {})],
)
def test_new_items_are_added_to_the_index_without_a_new_fit(
    name: str, values: dict[str, Any], tmp_path: Path
) -> None:
    """The extended index finds old and new items as a search of all does, and belongs to the new model."""
    pytest.importorskip("faiss")
    from nextclick import nearest
    from nextclick.index import Index

    train, features, _ = kinds(400, 80, sparse=False)
    model = nextclick.build(name, {**QUICK[name], **values}).fit(train, features=features)
    n = model.n_items
    model.save(tmp_path / "old")
    before = nearest.build_index(tmp_path / "old", recall=1.0, threads=1)
    graph = (tmp_path / "old" / "index.faiss").read_bytes()
    built = nearest.extend_index(tmp_path / "old", features, tmp_path / "new", recall=1.0, threads=1)
    assert (before.items, built.items) == (n, n + 80)
    assert (tmp_path / "old" / "index.faiss").read_bytes() == graph
    wider, exact = nextclick.load(tmp_path / "new"), model.with_items(features)
    assert isinstance(wider, NeuralRecommender)
    assert wider.index is not None
    queries = Queries.of([[code] for code in range(0, n + 80, 7)])
    found, _ = wider.top(queries, 10)
    wanted, _ = exact.top(queries, 10)
    shared = [len(set(one) & set(other)) / 10 for one, other in zip(found, wanted, strict=True)]
    assert np.mean(shared) > 0.95
    assert (found >= n).any()
    for one, other in ((Index.open(tmp_path / "old"), n), (Index.open(tmp_path / "new"), n + 80)):
        assert len(one) == other
    (tmp_path / "old" / "index.faiss").write_bytes((tmp_path / "new" / "index.faiss").read_bytes())
    (tmp_path / "old" / "index.json").write_bytes((tmp_path / "new" / "index.json").read_bytes())
    with pytest.raises(ArtifactError, match="does not fit the model beside it"):
        nextclick.load(tmp_path / "old")


def test_an_index_that_cannot_be_extended_says_why(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    from nextclick import nearest

    train, features, _ = kinds(40, 8, sparse=False)
    narm = nextclick.build("narm", QUICK["narm"])
    narm.fit(train).save(tmp_path / "ids")
    nearest.build_index(tmp_path / "ids")
    with pytest.raises(ConfigError, match="fitted without features"):
        nearest.extend_index(tmp_path / "ids", features, tmp_path / "new")
    model = narm.fit(train, features=features)
    model.save(tmp_path / "model")
    with pytest.raises(ConfigError, match="no index to add items to"):
        nearest.extend_index(tmp_path / "model", features, tmp_path / "new")
    features.save(tmp_path / "features")
    invoke = CliRunner().invoke
    assert invoke(main, ["index", str(tmp_path / "model")]).exit_code == 0
    given = ["--features", str(tmp_path / "features")]
    assert invoke(main, ["index", str(tmp_path / "model"), *given]).exit_code == 2
    done = invoke(main, ["index", str(tmp_path / "model"), *given, "--out", str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["items"] == 40
    again = invoke(main, ["index", str(tmp_path / "model"), *given, "--out", str(tmp_path / "new")])
    assert again.exit_code == 1
    assert "exists" in again.output
    with pytest.raises(ConfigError, match="there is none to add"):
        nearest.extend_index(tmp_path / "new", features, tmp_path / "newer")


# -- saved, resumed, exported


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_model_carries_its_features(name: str, tmp_path: Path) -> None:
    model = fitted(name)
    model.save(tmp_path / "model")
    loaded = nextclick.load(tmp_path / "model")
    queries = Queries.of([[1, 2], [5], []])
    assert np.array_equal(loaded.score(queries), model.score(queries))
    assert loaded.facts["representations"] == ["id", "text", "image"]
    assert loaded.takes_new_items


def test_a_training_does_not_go_on_with_other_features(tmp_path: Path) -> None:
    model = nextclick.build("narm", {**QUICK["narm"], "epochs": 2})
    model.fit(TRAIN, features=BOTH, run=Run(tmp_path))
    other = Features(BOTH.items, {"image": of_images(N_ITEMS, 4, 3), "text": of_text(N_ITEMS, 12, 4)})
    again = nextclick.build("narm", {**QUICK["narm"], "epochs": 2})
    with pytest.raises(ConfigError, match="another training"):
        again.fit(TRAIN, features=other, run=Run(tmp_path))


def test_a_network_with_features_is_exported(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from nextclick.serving import onnx

    model = fitted("narm", epochs=2)
    model.save(tmp_path / "model")
    onnx.export(tmp_path / "model")
    queries = Queries.of([[1, 2], [5]])
    assert np.allclose(onnx.load(tmp_path / "model").score(queries), model.score(queries), atol=1e-4)


def test_items_without_features_are_their_own_vectors() -> None:
    """Some have none, some are not in the table at all: nothing is added to them; numbers that are none."""
    some = Vocabulary([f"item {item}" for item in range(0, N_ITEMS, 2)])
    model = fitted("sml", Features(some, {"image": of_images(len(some), 3, 1)}))
    assert model.facts["features"]["items_without"] == {"image": N_ITEMS // 2}
    items = model.network.items
    known = some.codes_of(model.vocabulary.ids_of(range(N_ITEMS))) >= 0
    changed = (items.all() != items.weight).any(1).numpy()
    assert changed.tolist() == known.tolist()
    broken = of_images(len(some), 3, 1)
    broken.values[4, 1] = np.nan
    with pytest.raises(DataError, match="row 5 holds NaN"):
        Features(some, {"image": broken})
