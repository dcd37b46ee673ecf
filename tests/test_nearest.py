"""Items near to each other: lists against sorting, the index against exact search, its refusals, the map."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import nextclick
from nextclick import (
    ArtifactError,
    ConfigError,
    DataError,
    ItemTable,
    Queries,
    artifact,
    index,
    item_map,
    nearest,
)
from nextclick.cli import main
from nextclick.index import Index, ItemSpace
from synthetic import QUICK, chain, quick, random_queries

faiss = pytest.importorskip("faiss")

N = 60
TRAIN = chain(N, 150, noise=0.3, seed=1)
WITH_VECTORS = ["sml", "narm", "stamp", "gru4rec", "gru4rec-plus", "prnn", "bpr-mf", "fpmc"]
EUCLIDEAN = {**QUICK["sml"], "distance": "euclidean", "normalise": False}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "sml"
    quick("sml").fit(TRAIN).save(path)
    return path


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


# -- neighbours


@pytest.mark.parametrize("name", WITH_VECTORS)
def test_neighbours_are_the_items_of_the_largest_cosine(name: str) -> None:
    fitted = quick(name).fit(TRAIN)
    vectors = nearest.space_of(fitted).vectors.astype(np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for code in (0, 7, N - 1):
        item = fitted.vocabulary.id_of(code)
        found = nearest.neighbours(fitted, item, k=5)
        cosines = unit @ unit[code]
        cosines[code] = -np.inf
        best = np.sort(cosines)[::-1][:5]
        assert np.allclose([near for _, near in found], best, atol=1e-5)
        assert item not in [other for other, _ in found]
        for other, near in found:
            assert cosines[fitted.vocabulary.codes_of([other])[0]] == pytest.approx(near, abs=1e-5)


def test_neighbours_by_distance_where_distance_was_learnt() -> None:
    fitted = nextclick.build("sml", EUCLIDEAN).fit(TRAIN)
    vectors = nearest.space_of(fitted).vectors
    found = nearest.neighbours(fitted, fitted.vocabulary.id_of(3), k=N)
    assert len(found) == N - 1
    for other, near in found:
        code = fitted.vocabulary.codes_of([other])[0]
        assert near == pytest.approx(-float(np.square(vectors[code] - vectors[3]).sum()), abs=1e-4)
    assert [near for _, near in found] == sorted((near for _, near in found), reverse=True)


def test_items_that_follow_alike_items_are_near() -> None:
    """a1 and a2 are each clicked between the same items, b1 and b2 between others."""
    rng = np.random.default_rng(1)
    lists = [
        [f"{kind}x{rng.integers(3)}", f"{kind}{rng.integers(1, 3)}", f"{kind}y{rng.integers(3)}"]
        for kind in rng.choice(["a", "b"], 400)
    ]
    values = {
        **{"epochs": 30, "dim": 16, "hidden": 16, "batch_size": 32, "learning_rate": 0.01, "decay": 0.95},
        **{"dropout_items": 0.0, "dropout_session": 0.0, "temperature": 0.2, "validation": 0.0},
    }
    fitted = nextclick.build("sml", values).fit(nextclick.Sessions.from_lists(lists))
    assert nearest.neighbours(fitted, "a1", k=1)[0].item == "a2"
    assert nearest.neighbours(fitted, "b2", k=1)[0].item == "b1"


def test_what_has_no_neighbours_says_why() -> None:
    with pytest.raises(ConfigError, match="markov has no item vectors"):
        nearest.neighbours(nextclick.Markov().fit(TRAIN), "item 1")
    fitted = quick("sml").fit(TRAIN)
    with pytest.raises(DataError, match=r"'item 01' is not one of the 60 .*did you mean 'item 1'"):
        nearest.neighbours(fitted, "item 01")
    with pytest.raises(ConfigError, match="k=0"):
        nearest.neighbours(fitted, "item 1", k=0)
    assert isinstance(fitted, nextclick.SML)
    fitted.network.items.weight.data[2] = np.nan
    with pytest.raises(DataError, match="not numbers"):
        nearest.neighbours(fitted, "item 1")


def test_the_command_lists_neighbours(model: Path) -> None:
    done = call("neighbours", model, "item 3", "-k", "4")
    assert done.exit_code == 0, done.output
    expected = nearest.neighbours(nextclick.load(model), "item 3", 4)
    assert json.loads(done.stdout) == [
        {"item": item, "nearness": pytest.approx(near)} for item, near in expected
    ]
    table = call("neighbours", model, "item 3", "-k", "4", "--format", "table")
    assert [line.split()[1:3] for line in table.stdout.splitlines()[1:]] == [
        item.split() for item, _ in expected
    ]
    wrong = call("neighbours", model, "item x")
    assert wrong.exit_code == 1
    assert "is not one of the 60" in wrong.output
    assert call("neighbours", model).exit_code == 2
    assert call("neighbours", model, "item 3", "--items", "x.csv").exit_code == 2


# -- the index


def clustered(n: int, dim: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((n // 20, dim))
    vectors = centres[rng.integers(0, len(centres), n)] + 0.5 * rng.standard_normal((n, dim))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def test_an_index_is_opened_by_memory_map_or_to_be_added_to(tmp_path: Path) -> None:
    vectors = clustered(500, 8)
    Index.build(ItemSpace(vectors[:400], "product"), threads=1).save(tmp_path, "model")
    mapped, own = Index.open(tmp_path), Index.open(tmp_path, mapped=False)
    if Path("/proc/self/maps").exists():
        assert str(tmp_path / index.GRAPH) in Path("/proc/self/maps").read_text("utf-8")
    with pytest.raises(ConfigError, match="takes no items"):
        mapped.add(vectors[400:])
    with pytest.raises(DataError, match="takes no vectors of shape"):
        own.add(vectors[400:, :5])
    with pytest.raises(DataError, match="item code 402"):
        own.add(np.where(np.arange(100)[:, None] == 2, np.nan, vectors[400:]).astype(np.float32))
    own.add(vectors[400:], threads=1)
    whole = Index.build(ItemSpace(vectors, "product"), threads=1)
    assert (len(mapped), len(own)) == (400, 500)
    assert np.array_equal(own.search(vectors, 5)[:, 0], np.arange(500))
    assert np.array_equal(own.search(vectors, 5), whole.search(vectors, 5))


@pytest.mark.parametrize("likeness", ["product", "euclidean"])
def test_the_index_finds_what_exact_search_finds(likeness: Any, tmp_path: Path) -> None:
    vectors = clustered(3000, 24)
    if likeness == "euclidean":
        vectors *= np.random.default_rng(2).uniform(0.5, 2, (3000, 1)).astype(np.float32)
    queries = clustered(100, 24, seed=9)
    built = Index.build(ItemSpace(vectors, likeness), threads=1)
    far = -queries @ vectors.T if likeness == "product" else np.square(queries[:, None] - vectors).sum(2)
    exact = np.argsort(far, axis=1)[:, :20]
    reached = built.widen(queries, exact, 0.97)
    assert reached >= 0.97
    assert reached == built.recall
    found = built.search(queries, 20)
    by_hand = np.mean(
        [len(set(a) & set(b)) / 20 for a, b in zip(found.tolist(), exact.tolist(), strict=True)]
    )
    assert reached == pytest.approx(by_hand)
    built.save(tmp_path, "0" * 64)
    opened = index.attached(tmp_path, "0" * 64, 3000)
    assert opened is not None
    assert opened.opened().search(queries, 20).tolist() == found.tolist()
    assert opened.opened().recall == reached
    again = Index.build(ItemSpace(vectors, likeness), threads=1, width=built.width)
    assert again.search(queries, 20).tolist() == found.tolist()


@pytest.mark.parametrize("likeness", ["product", "euclidean"])
def test_cells_find_what_exact_search_finds(likeness: Any, tmp_path: Path) -> None:
    """At a byte a coordinate; what is found is put in order by exact vectors."""
    vectors = clustered(3000, 24)
    if likeness == "euclidean":
        vectors *= np.random.default_rng(2).uniform(0.5, 2, (3000, 1)).astype(np.float32)
    queries = clustered(100, 24, seed=9)
    built = Index.build(ItemSpace(vectors, likeness), kind="cells", cells=60, threads=1)
    far = -queries @ vectors.T if likeness == "product" else np.square(queries[:, None] - vectors).sum(2)
    exact = np.argsort(far, axis=1)[:, :20]
    assert built.widen(queries, exact, 0.97) == built.recall
    assert built.recall is not None
    assert built.recall >= 0.97
    assert 4 < built.width <= 60
    wide = built.width
    built.width -= max(2, wide // 8 + 1)  # no wider than it takes, to within an eighth
    assert built.measured(queries, exact) < 0.97
    built.width = wide
    candidates = built.search(queries, 20)
    assert candidates.shape == (100, 60)
    lists = []
    for of_query, row in zip(far, candidates, strict=True):
        codes = row[row >= 0]
        lists.append(codes[np.argsort(of_query[codes], kind="stable")][:20])
    by_hand = np.mean([len(set(a) & set(b)) / 20 for a, b in zip(lists, exact, strict=True)])
    assert built.recall == pytest.approx(by_hand)
    built.save(tmp_path, "0" * 64)
    graph = tmp_path / "graph"
    graph.mkdir()
    Index.build(ItemSpace(vectors, likeness), kind="graph", threads=1).save(graph, "0" * 64)
    assert (tmp_path / index.GRAPH).stat().st_size < 0.4 * (graph / index.GRAPH).stat().st_size
    opened = index.attached(tmp_path, "0" * 64, 3000)
    assert opened is not None
    assert opened.opened().kind == "cells"
    assert opened.opened().search(queries, 20).tolist() == candidates.tolist()
    again = Index.build(ItemSpace(vectors, likeness), kind="cells", cells=60, threads=1, width=built.width)
    assert again.search(queries, 20).tolist() == candidates.tolist()


def test_the_kind_follows_the_size_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    space = ItemSpace(clustered(300, 8), "product")
    assert Index.build(space, threads=1).kind == "graph"
    assert Index.build(space, kind="cells", threads=1).kind == "cells"
    monkeypatch.setattr(index, "LARGE", 300)
    built = Index.build(space, threads=1)
    assert built.kind == "cells"
    assert built._graph.nlist == int(8 * 300**0.5)
    assert Index.build(space, kind="graph", threads=1).kind == "graph"
    few = Index.build(ItemSpace(clustered(40, 8)[:5], "product"), kind="cells", cells=99, threads=1)
    found = few.search(clustered(40, 8), 4)
    assert all({*range(5)} == set(row.tolist()) for row in found)


@pytest.mark.parametrize("kind", ["graph", "cells"])
@pytest.mark.parametrize(
    ("name", "values"),
    [("sml", QUICK["sml"]), ("sml", EUCLIDEAN), ("narm", QUICK["narm"]), ("gru4rec", QUICK["gru4rec"]),
     ("stamp", {**QUICK["stamp"], "temperature": 0.0})],
)  # fmt: skip
def test_lists_from_the_index_are_those_of_all_items(
    name: str, values: dict[str, Any], kind: Any, tmp_path: Path
) -> None:
    """So few items are found for certain; scores, what was seen and empty sessions are as without it."""
    nextclick.build(name, values).fit(TRAIN).save(tmp_path / "model")
    built = nearest.build_index(tmp_path / "model", kind=kind, recall=1.0)
    assert built.recall == 1.0
    assert built.kind == kind
    exact, indexed = (
        artifact.load(tmp_path / "model", with_index=with_index) for with_index in (False, True)
    )
    queries = random_queries(60, N, seed=3)
    for exclude_seen in (False, True):
        for k in (1, 7, N):
            top, scores = exact.top(queries, k, exclude_seen=exclude_seen)
            found, found_scores = indexed.top(queries, k, exclude_seen=exclude_seen)
            assert np.allclose(found_scores, scores, atol=1e-4)
            assert (found == top).mean() > 0.97  # items of nearly equal scores may change places
    session = ["item 3", "gone", "item 4"]
    assert [r.item for r in indexed.recommend(session, 5)] == [r.item for r in exact.recommend(session, 5)]
    assert indexed.recommend([], 5) == exact.recommend([], 5)


def test_lists_do_come_from_the_index(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nearest.build_index(model)
    loaded = nextclick.load(model)
    asked: list[int] = []
    search = Index.search
    monkeypatch.setattr(Index, "search", lambda self, q, k: (asked.append(len(q)), search(self, q, k))[1])
    loaded.top(Queries.of([[1], [2, 3], []]), 5)
    assert asked == [2]
    rules = nextclick.Rules.of({"rule": [{"block": ["item 1"]}]}).bind(None, loaded.vocabulary)
    loaded.top(Queries.of([[1]]), 5, filter=rules)
    loaded.measure(TRAIN[:5])
    assert asked == [2]
    loaded.fit(TRAIN)  # another model: its old index is gone
    loaded.top(Queries.of([[1]]), 5)
    assert asked == [2]


def test_an_index_that_does_not_fit_is_refused(model: Path, tmp_path: Path) -> None:
    assert call("index", model).exit_code == 0
    whole = (model / index.GRAPH).read_bytes()
    (model / index.GRAPH).write_bytes(whole[:-7] + b"1234567")
    with pytest.raises(ArtifactError, match=r"index\.faiss: it is missing, damaged.*--remove"):
        nextclick.load(model)
    (model / index.GRAPH).unlink()
    with pytest.raises(ArtifactError, match="missing"):
        nextclick.load(model)
    (model / index.GRAPH).write_bytes(whole)
    nextclick.load(model)
    quick("sml", {"seed": 5}).fit(TRAIN).save(tmp_path / "other")
    for name in (index.GRAPH, index.ABOUT):
        shutil.copy(model / name, tmp_path / "other" / name)
    with pytest.raises(ArtifactError, match="does not fit the model beside it"):
        nextclick.load(tmp_path / "other")
    done = call("recommend", tmp_path / "other", "item 1")
    assert done.exit_code == 1
    assert "nextclick index" in done.output
    assert call("index", tmp_path / "other").exit_code == 0  # the remedy
    nextclick.load(tmp_path / "other")
    assert call("index", tmp_path / "other", "--remove").exit_code == 0
    assert sorted(file.name for file in (tmp_path / "other").iterdir()) == [
        "arrays.safetensors",
        "manifest.json",
    ]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format": "other"}, "not that of an index"),
        ({"format_version": 99}, "upgrade nextclick"),
        ({"width": "wide"}, "lacks 'width'"),
        ({"likeness": "taste"}, "is wrong"),
        ({"kind": "tree"}, "is wrong"),
        ({"width": 0}, "is wrong"),
        (None, "cannot be read"),
    ],
)
def test_a_damaged_description_is_refused(model: Path, change: dict[str, Any] | None, match: str) -> None:
    nearest.build_index(model)
    about = json.loads((model / index.ABOUT).read_text())
    (model / index.ABOUT).write_text("{" if change is None else json.dumps({**about, **change}))
    with pytest.raises(ArtifactError, match=match):
        nextclick.load(model)


def test_an_index_of_the_first_format_still_opens(model: Path) -> None:
    nearest.build_index(model)
    about = json.loads((model / index.ABOUT).read_text())
    del about["kind"]
    (model / index.ABOUT).write_text(json.dumps({**about, "format_version": 1}))
    loaded = nextclick.load(model)
    assert len(loaded.recommend(["item 1"], 5)) == 5


def test_a_graph_that_calls_itself_cells_is_refused(model: Path) -> None:
    nearest.build_index(model)
    about = json.loads((model / index.ABOUT).read_text())
    (model / index.ABOUT).write_text(json.dumps({**about, "kind": "cells"}))
    with pytest.raises(ArtifactError, match="no index of these items"):
        nextclick.load(model).recommend(["item 1"])


def test_a_file_that_is_no_graph_is_refused_when_it_is_used(model: Path) -> None:
    """Signed anew, as only a person would: the size and hash are right, the content is not."""
    nearest.build_index(model)
    about = json.loads((model / index.ABOUT).read_text())
    for content in (b"no graph", _flat(N, 4)):
        (model / index.GRAPH).write_bytes(content)
        signed = {"bytes": len(content), "sha256": nextclick.files.sha256(model / index.GRAPH)}
        (model / index.ABOUT).write_text(json.dumps({**about, **signed}))
        with pytest.raises(ArtifactError, match=r"cannot be read|no index of these items"):
            nextclick.load(model).recommend(["item 1"])


def _flat(n: int, dim: int) -> bytes:
    made = faiss.IndexFlatIP(dim)
    made.add(np.zeros((n, dim), np.float32))
    return bytes(faiss.serialize_index(made))


def test_the_index_says_what_it_cannot_do(model: Path, tmp_path: Path) -> None:
    nextclick.VSKNN().fit(TRAIN).save(tmp_path / "knn")
    done = call("index", tmp_path / "knn")
    assert done.exit_code == 1
    assert "vs-knn does not search a space of vectors" in done.output
    with pytest.raises(ConfigError, match="recall"):
        nearest.build_index(model, recall=0.0)
    vectors = clustered(40, 4)
    vectors[17] = np.nan
    with pytest.raises(DataError, match=r"1 of 40 item vectors .* item code 17"):
        Index.build(ItemSpace(vectors, "product"))
    with pytest.raises(DataError, match="shape"):
        Index.build(ItemSpace(np.empty((0, 3), np.float32), "product"))
    with pytest.raises(ConfigError, match="links=1"):
        Index.build(ItemSpace(clustered(40, 4), "product"), links=1)


def test_zero_vectors_are_indexed_and_compared() -> None:
    vectors = clustered(40, 4)
    vectors[[0, 5]] = 0
    built = Index.build(ItemSpace(vectors, "product"), threads=1)
    assert set(built.search(vectors[1:2], 40)[0].tolist()) >= set(range(1, 40)) - {5}
    near = nearest.likeness_to(ItemSpace(vectors, "product"), vectors[0])
    assert near.tolist() == [0.0] * 40


def test_the_command_reports_what_it_built(model: Path) -> None:
    done = call("index", model, "--recall", "0.9")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["items"], told["dim"], told["asked"]) == (N, 4, N)
    assert told["recall"] >= 0.9
    assert json.loads((model / index.ABOUT).read_text())["recall"] == told["recall"]
    assert "of the 20 nearest items" in done.stderr


def test_recall_is_told_of_sessions_that_the_width_was_not_chosen_with(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[list[float]]] = []
    widen, measured = Index.widen, Index.measured

    def widened(self: Index, queries: Any, *given: Any) -> float:
        asked.append(queries.tolist())
        reached = widen(self, queries, *given)
        asked[1:] = []  # what it asks itself
        return reached

    def told_of(self: Index, queries: Any, exact: Any) -> float:
        asked.append(queries.tolist())
        return measured(self, queries, exact)

    monkeypatch.setattr(nearest, "_ASKED", N // 4)
    monkeypatch.setattr(Index, "widen", widened)
    monkeypatch.setattr(Index, "measured", told_of)
    built = nearest.build_index(model)
    chosen, told = asked
    assert len(chosen) == len(told) == built.asked == N // 4
    assert not any(vector in chosen for vector in told)


# -- the map


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


CATEGORIES = ["<b>shoes</b>" if n % 2 else "hats" for n in range(N)]


def test_the_map_shows_every_item_once_and_needs_nothing_else(model: Path, tmp_path: Path) -> None:
    table = ItemTable.of({"id": [f"item {n}" for n in range(N - 1)], "kind": CATEGORIES[:-1]})
    loaded = nextclick.load(model)
    content = item_map.page(loaded, items=table, colour="kind", around="item 7")
    page = Page()
    page.feed(content)
    dots = [attributes for tag, attributes in page.tags if tag == "circle" and "cx" in attributes]
    titles = re.findall(r"<circle[^>]*><title>([^<]*)</title>", content)
    assert len(titles) == N
    assert sorted(title.split(":")[0] for title in titles) == sorted(f"item {n}" for n in range(N))
    assert "item 1: &lt;b&gt;shoes&lt;/b&gt;" in titles
    assert sum("around" in (dot.get("class") or "") for dot in dots) == 1
    assert titles[-1].startswith("item 7")
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "img", "b")]
    assert not re.search(r"https?:|url\(|@import", content)
    assert "hats (30)" in content
    assert "others, or none (1)" in content
    for dot in dots[:N]:
        assert 0 <= float(dot["cx"] or -1) <= 960
        assert 0 <= float(dot["cy"] or -1) <= 640
    assert content == item_map.page(loaded, items=table, colour="kind", around="item 7")


def test_the_principal_axes_are_those_of_the_largest_variance() -> None:
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((400, 5)) @ np.diag([5.0, 0.1, 3.0, 0.2, 0.1])
    places, share = item_map.principal(vectors)
    centred = vectors - vectors.mean(axis=0)
    left, strengths, _ = np.linalg.svd(centred, full_matrices=False)
    assert np.allclose(np.abs(places), np.abs(left[:, :2] * strengths[:2]), atol=1e-8)
    assert share == pytest.approx((strengths[:2] ** 2).sum() / (strengths**2).sum())


def test_a_map_by_tsne_keeps_clusters_together() -> None:
    pytest.importorskip("sklearn")
    fitted = quick("sml", {"dim": 8}).fit(TRAIN)
    rng = np.random.default_rng(4)
    of = np.arange(N) % 3
    fitted.network.items.weight.data[:] = nextclick_tensor(np.eye(8)[of] + 0.05 * rng.standard_normal((N, 8)))
    fitted.network.train(False)
    content = item_map.page(fitted, projection="tsne")
    at = np.array(
        [[float(x), float(y)] for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', content)]
    )
    centres = np.stack([at[of == kind].mean(axis=0) for kind in range(3)])
    assert (np.linalg.norm(at[:, None] - centres, axis=2).argmin(axis=1) == of).all()


def nextclick_tensor(values: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(values.astype(np.float32))


def test_the_command_writes_the_map(model: Path, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id,kind\nitem 1,a\nitem 2,b\n")
    done = call(
        "neighbours", model, "item 1", "--map", tmp_path / "map.html", "--items", tmp_path / "items.csv",
        "--colour", "kind", "--most", "10",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert len(re.findall("<title>item ", (tmp_path / "map.html").read_text())) in (10, 11)
    wrong = call(
        "neighbours", model, "--map", tmp_path / "no.html", "--items", tmp_path / "items.csv", "--colour", "x"
    )
    assert wrong.exit_code == 1
    assert "no column 'x'" in wrong.output
    assert not (tmp_path / "no.html").exists()
    wrong = call("neighbours", model, "--map", tmp_path / "map.png")
    assert "the page is HTML; write to a file that ends in .html" in " ".join(wrong.output.split())
    assert not (tmp_path / "map.png").exists()
    with pytest.raises(DataError, match="'item 999' is not one of"):
        item_map.page(nextclick.load(model), around="item 999")
    with pytest.raises(ConfigError, match="pca, tsne"):
        item_map.page(nextclick.load(model), projection="umap")
    small = quick("sml").fit(nextclick.Sessions.from_lists([["a", "b"]] * 9))
    with pytest.raises(ConfigError, match="at least 3"):
        item_map.page(small)
