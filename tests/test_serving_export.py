"""Exports: networks by ONNX Runtime and any model as a table, with the same answers and without PyTorch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nextclick
from nextclick import Queries
from nextclick.errors import ArtifactError, ConfigError
from nextclick.serving import onnx
from nextclick.serving.engine import Ask, Engine
from nextclick.serving.opening import open_model
from nextclick.serving.table import export_table
from serving import saved
from synthetic import QUICK, chain, random_queries

NETWORKS = {
    "stamp": {}, "stamp plain": {"preset": "paper"}, "narm": {}, "narm global": {"encoder": "global"},
    "narm local": {"encoder": "local", "decoder": "full"}, "gru4rec": {"layers": 2},
    "gru4rec one-hot": {"embedding": "one-hot"}, "gru4rec-plus": {},
    "sml": {}, "sml euclidean": {
        "distance": "euclidean", "normalise": False, "item_encoder": "tanh", "common": False,
    },
    **{f"sml {kind}": {"encoder": kind} for kind in
       ("max-pool", "average", "text-cnn", "tag-space", "caser", "lstm", "rnn")},
    "prnn": {}, "prnn shared": {"architecture": "shared", "weights": "1,0.5,2"},
    "prnn interaction": {"architecture": "interaction", "embedded": 3, "fine_tuned": True},
}  # fmt: skip


def features() -> nextclick.Features:
    pytest.importorskip("sklearn")
    items = nextclick.ItemTable.of({
        "item": [f"item {item}" for item in range(30)],
        "title": [f"{colour} {noun}" for colour in ("red", "blue", "green") for noun in "bcdefghjkl"],
    })  # fmt: skip
    pictures = np.random.default_rng(3).normal(size=(30, 4)).astype(np.float32)
    return nextclick.build_features(items, text_columns=["title"], vectors={"image": pictures})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("torch", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    return tmp_path_factory.mktemp("networks")


def exported(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.exists():
        model = name.partition(" ")[0]
        values = {**QUICK[model], **NETWORKS[name]}
        given = features() if name.startswith("prnn ") else None
        nextclick.build(model, values).fit(chain(30, 120, noise=0.2, seed=1), features=given).save(path)
        onnx.export(path)
    return path


def test_every_network_is_exported() -> None:
    pytest.importorskip("torch")
    from nextclick.network.recommender import NeuralRecommender

    networks = {name for name, model in nextclick.MODELS.items() if issubclass(model, NeuralRecommender)}
    assert networks == {name.partition(" ")[0] for name in NETWORKS}


@pytest.mark.parametrize("name", NETWORKS)
def test_an_export_explains_as_the_network_does(folder: Path, name: str) -> None:
    """By attention where the network has any, of sessions longer than what it reads too."""
    path = exported(folder, name)
    fitted, fast = open_model(path, "model"), open_model(path)
    for length in (1, 3, 70):
        session = [f"item {n % 30}" for n in range(length)]
        wanted, found = (nextclick.explain(model, session) for model in (fitted, fast))
        assert found.by == wanted.by
        assert (found.by == "attention") == (name in ("stamp", "stamp plain", "narm", "narm local"))
        if found.by == "attention":
            told, as_told = (np.array(one.to_json()["weights"][-1]) for one in (found, wanted))
            np.testing.assert_allclose(told, as_told, rtol=1e-4, atol=1e-5)
            assert np.abs(told).max() > 0


def test_an_export_of_before_attention_was_exported_is_still_served(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "old"
    shutil.copytree(exported(folder, "narm"), path)
    (path / onnx.ATTENTION).unlink()
    with pytest.raises(ArtifactError, match="export the model again"):
        open_model(path)
    about = json.loads((path / onnx.ABOUT).read_text())
    del about["attention"]
    (path / onnx.ABOUT).write_text(json.dumps(about))
    assert nextclick.explain(open_model(path), ["item 3"]).by == "leaving out"


@pytest.mark.parametrize("name", NETWORKS)
def test_an_export_answers_as_the_network_does(folder: Path, name: str) -> None:
    path = exported(folder, name)
    queries = random_queries(60, 30, seed=2, longest=70)
    fitted, fast = open_model(path, "model"), open_model(path)
    assert isinstance(fast, onnx.OnnxRecommender)
    for k in (1, 20, 30):
        (top, scores), (wanted, of_wanted) = fast.top(queries, k), fitted.top(queries, k)
        np.testing.assert_allclose(scores, of_wanted, rtol=1e-4, atol=1e-5)
        swapped = top != wanted  # only items whose scores are the same but for rounding
        assert (np.abs(scores - of_wanted)[swapped] <= 1e-5 * np.abs(of_wanted).max()).all()
    alone = [fast.top(queries[n : n + 1], 20)[0][0] for n in range(20)]
    assert np.array_equal(alone, fast.top(queries[:20], 20)[0])


def test_real_prefixes_have_the_same_top_20(folder: Path, shared_data: Path, tmp_path: Path) -> None:
    part = shared_data / "rsc15-100k"
    data = nextclick.prepare(train=part / "train.parquet", test=part / "test.parquet", out=tmp_path / "data")
    nextclick.NARM(epochs=1, dim=20, hidden=20).fit(data.train[:4000]).save(tmp_path / "narm")
    onnx.export(tmp_path / "narm")
    queries, _ = data.test.pairs()
    some = queries[:1000]
    (top, scores), (wanted, of_wanted) = (
        open_model(tmp_path / "narm", runtime).top(some, 20) for runtime in ("onnx", "model")
    )
    np.testing.assert_allclose(scores, of_wanted, rtol=1e-4)
    assert (top == wanted).mean() > 0.999  # the rest: neighbours in the list whose scores agree to 1e-6
    close = np.abs(scores - of_wanted) <= 1e-5 * np.abs(of_wanted)
    assert close[top != wanted].all()


def test_an_export_is_served_without_pytorch(folder: Path) -> None:
    path = exported(folder, "narm")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path; from nextclick.serving.engine import Engine\n"
        f"engine = Engine.open(Path({str(path)!r}), 'm')\n"
        "print(type(engine.model).__name__, engine.kind)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["OnnxRecommender", "narm"], done.stderr


def test_what_is_damaged_or_of_another_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    import shutil

    path = tmp_path / "m"
    shutil.copytree(exported(folder, "stamp"), path)
    graph = (path / onnx.GRAPH).read_bytes()
    (path / onnx.GRAPH).write_bytes(graph[:-20])
    with pytest.raises(ArtifactError, match="changed since"):
        open_model(path)
    (path / onnx.GRAPH).write_bytes(graph)
    about = json.loads((path / onnx.ABOUT).read_text())
    (path / onnx.ABOUT).write_text(json.dumps({**about, "arrays": "0"}))
    with pytest.raises(ArtifactError, match="other weights"):
        open_model(path)
    (path / onnx.ABOUT).write_text("{")
    with pytest.raises(ArtifactError, match="unreadable"):
        open_model(path)
    (path / onnx.ABOUT).unlink()
    with pytest.raises(ArtifactError, match="nextclick export"):
        open_model(path, "onnx")
    with pytest.raises(ConfigError, match="is no network"):
        onnx.export(saved(tmp_path, "markov"))
    with pytest.raises(ConfigError, match="cannot be fitted"):
        onnx.OnnxRecommender().fit(chain(10, 20, noise=0.2, seed=1))


def test_an_export_that_answers_differently_is_not_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "wrong"
    nextclick.build("stamp", QUICK["stamp"]).fit(chain(30, 120, noise=0.2, seed=1)).save(path)
    monkeypatch.setattr(onnx, "_CLOSE", -1.0)
    with pytest.raises(ArtifactError, match="answers differently"):
        onnx.export(path)
    assert sorted(file.name for file in path.iterdir()) == ["arrays.safetensors", "manifest.json"]


@pytest.mark.parametrize(
    ("name", "weights"), [("markov", "1/rank"), ("item-knn", "1/rank"), ("bpr-mf", "1/rank")]
)
def test_a_table_gives_the_list_of_the_last_item_alone(tmp_path: Path, name: str, weights: str) -> None:
    path = saved(tmp_path, name, **QUICK.get(name, {}))
    model = nextclick.load(path)
    table = export_table(path, 8)
    table.save(tmp_path / "table")
    engine = Engine.open(tmp_path / "table", "t")
    assert engine.kind == "item-knn"
    assert engine.model.facts["table"]["of"] == name
    for last in range(30):
        wanted, _ = model.top(Queries.of([np.array([last], np.int32)]), 8, exclude_seen=True)
        codes = wanted[0][wanted[0] >= 0].tolist()
        found = engine.answer([Ask(np.array([5, last], np.int32), len(codes))])[0]
        assert [engine.code_of(item) for item, _ in found] == codes
