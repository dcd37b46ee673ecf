"""Item features: every kind by hand, safe reading of pictures, the directory, the commands."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
import shutil
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

import nextclick
from nextclick import ArtifactError, ConfigError, DataError, Features, Images, ItemTable, build_features
from nextclick.cli import main
from nextclick.features import Dense, images, own, picture, text
from nextclick.features.store import one_after_the_other
from nextclick.sessions import Vocabulary

pytest.importorskip("sklearn")
pytest.importorskip("PIL")
from PIL import Image


def table(**columns: Any) -> ItemTable:
    n = len(next(iter(columns.values())))
    return ItemTable.of({"item": [f"i{row}" for row in range(n)], **columns})


# -- text


def test_tf_idf_by_hand() -> None:
    """Two of three texts say "red"; "red mug" is a pair that two say; "blue" stands once and is dropped."""
    made, _, counted = text.encode(["Red mug", "the red MUG", "mug, blue"])
    assert counted == {"terms": 3, "dropped_terms": 2}  # mug, red, red mug; not blue, mug blue
    idf = {"mug": math.log(4 / 4) + 1, "red": math.log(4 / 3) + 1}
    length = math.sqrt(idf["mug"] ** 2 + 2 * idf["red"] ** 2)
    expected = np.array([idf["mug"], idf["red"], idf["red"]]) / length
    assert np.allclose(made.dense()[0], expected)
    assert np.allclose(made.dense()[1], expected)
    assert np.allclose(made.dense()[2], [1, 0, 0])


words = st.lists(st.sampled_from(["red", "blue", "mug", "mugs", "der", "die", "scarf"]), max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(words, min_size=2, max_size=6))
def test_text_agrees_with_counting(lists: list[list[str]]) -> None:
    kept = [[word for word in one if word not in ("der", "die")] for one in lists]
    terms = [Counter([*one, *map(" ".join, itertools.pairwise(one))]) for one in kept]
    total = sum(terms, Counter())
    often = sorted(term for term, count in total.items() if count > 1)
    if not often:
        with pytest.raises(DataError, match="no word occurs twice"):
            text.encode([" ".join(one) for one in lists])
        return
    made, encoder, _ = text.encode([" ".join(one) for one in lists])
    assert made.width == len(often)
    n = len(lists)
    for row, counts in enumerate(terms):
        weights = [
            counts[term] * (math.log((1 + n) / (1 + sum(term in other for other in terms))) + 1)
            for term in often
        ]
        length = math.sqrt(sum(weight**2 for weight in weights)) or 1
        assert np.allclose(made.dense()[row], np.array(weights) / length, atol=1e-6)
        assert made.present[row] == any(weights)
    again = text.encode_like([" ".join(one) for one in lists], encoder)
    assert np.array_equal(again.values, made.values)
    assert np.array_equal(again.columns, made.columns)


@pytest.mark.parametrize(
    ("texts", "terms"),
    [
        (["красный шарф", "красный шарф"], {"красный", "шарф", "красный шарф"}),
        (["赤い服", "赤い服"], {"赤", "い", "服", "赤 い", "い 服"}),
        (["लाल दुपट्टा", "लाल दुपट्टा"], {"लाल", "दुपट्टा", "लाल दुपट्टा"}),
        (["Straße STRASSE", ""], {"strasse"}),
        (["ｃａｆé", "cafe\u0301"], {"café"}),
    ],
)
def test_any_script_is_read(texts: list[str], terms: set[str]) -> None:
    made, encoder, _ = text.encode(texts)
    listed = Vocabulary.from_arrays({name[6:]: a for name, a in encoder.items() if name != "idf"})
    assert set(listed.ids_of(range(made.width))) == terms


def test_empty_text_is_no_vector_and_all_empty_is_refused() -> None:
    made, _, _ = text.encode(["red", "", "red", "  ", "the of"])
    assert made.present.tolist() == [True, False, True, False, False]
    with pytest.raises(DataError, match="no word occurs twice"):
        text.encode(["", "   "])


def test_a_title_is_not_repeated() -> None:
    assert text.joined(["Red mug", "RED MUG for tea", ""]) == "Red mug for tea"
    assert text.joined(["Red mug", "A red mug"]) == "Red mug A red mug"
    assert text.joined(["Mug", "Mugs for kids"]) == "Mug Mugs for kids"  # words stay whole
    assert text.joined(["Mug", "mug, red"]) == "Mug , red"
    assert text.joined(["红色", "红色杯子"]) == "红色 杯子"  # no spaces between words
    assert text.joined(["", "tea"]) == "tea"


# -- columns and vectors


def test_columns_by_hand() -> None:
    made = build_features(
        table(brand=["x", "y", "x", None], price=[1.0, 2.0, 3.0, None]),
        categorical=["brand"],
        numeric=["price"],
    )
    found = made.representations["columns"].dense()
    spread = math.sqrt(2 / 3)
    low = -1 / spread / 3
    assert np.allclose(found[0], np.array([1, low]) / math.hypot(1, low))  # y is of one item alone: no column
    assert np.allclose(found[1], [0, 0])
    assert np.allclose(found[2], np.array([1, -low]) / math.hypot(1, low))
    assert made.representations["columns"].present.tolist() == [True, True, True, False]
    new = build_features(
        table(brand=["x", "z"], price=[100.0, 2.0]), categorical=["brand"], numeric=["price"], like=made
    )
    assert np.allclose(new.representations["columns"].dense(), [np.array([1, 1]) / math.sqrt(2), [0, 0]])


def test_vectors_are_taken_as_they_are(tmp_path: Path) -> None:
    items = table(title=["a", "b", "c"])
    np.save(tmp_path / "v.npy", np.array([[1, 2], [3, 4], [0, 0]]))
    made = build_features(items, vectors={"size": tmp_path / "v.npy"}).representations["size"]
    assert made.dense().tolist() == [[1, 2], [3, 4], [0, 0]]
    assert made.present.tolist() == [True, True, False]
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT * FROM (VALUES ('i2', [5.0, 6.0]), ('i0', [1.0, 2.0]), ('other', [9.0, 9.0])) "
            f"t(item, vector)) TO '{tmp_path / 'v.parquet'}'"
        )
    made = build_features(items, vectors={"size": tmp_path / "v.parquet"}).representations["size"]
    assert made.dense().tolist() == [[1, 2], [0, 0], [5, 6]]
    assert made.present.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (np.zeros((2, 3)), "expected one vector for each of the 3 items"),
        (np.zeros(3), "expected one vector"),
        (np.array([[1.0], [np.nan], [0]]), "row 2 holds NaN"),
        (np.array([[1e300], [1], [0]]), "row 1 holds NaN or an infinite"),
        (np.array([["a"], ["b"], ["c"]]), "expected numbers"),
    ],
)
def test_wrong_vectors_are_refused(given: np.ndarray, says: str) -> None:
    with pytest.raises(DataError, match=says):
        build_features(table(title=["a", "b", "c"]), vectors={"size": given})


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("('i0', [1.0]), ('i0', [2.0])", "'i0' stands in two rows"),
        ("('i0', [1.0]), ('i1', [2.0, 3.0])", r"vectors of \[1, 2\] numbers"),
        ("('x', [1.0])", "none of the items"),
        ("('i0', [NULL])", "NaN"),
        ("('i0', ['a'])", "cannot be read as vectors"),
    ],
)
def test_wrong_vectors_in_a_file_are_refused(rows: str, says: str, tmp_path: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT * FROM (VALUES {rows}) t(item, v)) TO '{tmp_path / 'v.parquet'}' (FORMAT parquet)"
        )
    with pytest.raises(DataError, match=says):
        build_features(table(title=["a", "b", "c"]), vectors={"size": tmp_path / "v.parquet"})


def test_a_pickled_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"not a \.npy file of plain numbers"):
        build_features(table(title=["a"]), vectors={"size": tmp_path / "v.npy"})


def test_nothing_asked_for_and_wrong_columns_are_refused() -> None:
    items = table(title=["a a", "b"], price=[1, 2])
    with pytest.raises(ConfigError, match="name at least one"):
        build_features(items)
    with pytest.raises(DataError, match="did you mean 'title'"):
        build_features(items, text_columns=["tittle"])
    with pytest.raises(DataError, match="holds numbers, not text"):
        build_features(items, text_columns=["price"])
    with pytest.raises(DataError, match="is no number"):
        build_features(items, numeric=["title"])
    with pytest.raises(ConfigError, match="the earlier features"):
        build_features(items, numeric=["price"], like=build_features(items, vectors={"v": np.ones((2, 1))}))


# -- pictures


class Mean:
    """An extractor that says the mean colour, and counts how many pictures it was given."""

    name, width, side, identity = "mean", 3, 8, "mean 1"

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        self.seen += len(pixels)
        return pixels.mean(axis=(2, 3))


def bomb(path: Path) -> None:
    """A small file that unpacks to 400 million pixels."""
    Image.new("1", (20_000, 20_000)).save(path, "PNG")


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    Image.new("RGB", (20, 10), (255, 0, 0)).save(tmp_path / "red.jpg", quality=95)
    Image.new("RGBA", (9, 9), (0, 0, 255, 255)).save(tmp_path / "blue.png")
    Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(tmp_path / "clear.webp", lossless=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "other.gif")
    (tmp_path / "broken.png").write_bytes((tmp_path / "blue.png").read_bytes()[:60])
    (tmp_path / "text.jpg").write_text("no picture")
    bomb(tmp_path / "bomb.png")
    return tmp_path


PLACES = [
    "red.jpg",
    "blue.png",
    "clear.webp",
    "other.gif",
    "broken.png",
    "text.jpg",
    "bomb.png",
    "none.png",
    "",
]


def test_pictures_are_read_and_the_others_counted(gallery: Path) -> None:
    vectors, state = images.extract(PLACES, gallery, Mean())
    unreadable = images.UNREADABLE
    assert state.tolist() == [
        *[images.DONE] * 3, *[unreadable] * 3, images.TOO_LARGE, *[images.MISSING] * 2,
    ]  # fmt: skip
    assert np.allclose(vectors[0], [1, 0, 0], atol=0.02)
    assert np.allclose(vectors[1], [0, 0, 1], atol=0.01)
    assert np.allclose(vectors[2], np.full(3, 1 / math.sqrt(3)))  # what is transparent is white
    assert not vectors[3:].any()


def test_a_picture_over_the_limit_is_refused(gallery: Path) -> None:
    assert images.read("red.jpg", gallery, 8, limit=199) == images.TOO_LARGE
    assert not isinstance(images.read("red.jpg", gallery, 8, limit=200), int)


def test_an_address_is_fetched(gallery: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*address: Any, **options: Any) -> Any:
        raise TimeoutError

    raw = (gallery / "blue.png").read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/blue.png" else 404)
            self.end_headers()
            self.wfile.write(raw if self.path == "/blue.png" else b"")

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        found = images.read(f"{base}/blue.png", gallery, 8)
        assert not isinstance(found, int)
        assert found[4, 4].tolist() == [0, 0, 255]
        assert images.read(f"{base}/other.png", gallery, 8) == images.MISSING
        here = [f"{base}/blue.png", "red.jpg", "none.png"]
        monkeypatch.setattr(images, "_SAVED_EVERY", 1)
        with monkeypatch.context() as without_network:
            without_network.setattr(images.urllib.request, "urlopen", gone)
            _, state = images.extract(here, gallery, Mean(), work=gallery / "work")
        assert state.tolist() == [images.MISSING, images.DONE, images.MISSING]
        _, state = images.extract(here, gallery, again := Mean(), work=gallery / "work")
        assert state.tolist() == [images.DONE, images.DONE, images.MISSING]
        assert again.seen == 1  # the network is back: what it could not reach is asked for once more
        server.shutdown()
    assert images.read("file:///etc/hostname", gallery, 8) == images.MISSING
    assert images.read("http://127.0.0.1/a b.png", gallery, 8) == images.MISSING  # no such address
    monkeypatch.setattr(images, "_MAX_BYTES", len(raw) - 1)
    assert images.read("blue.png", gallery, 8) == images.TOO_LARGE


def test_an_interrupted_reading_goes_on(gallery: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_SAVED_EVERY", 1)
    places = ["red.jpg", "blue.png"] * 10

    class StopError(Exception):
        pass

    def stop(what: str, done: int, total: int) -> None:
        if done >= 12:
            raise StopError

    work = gallery / "work"
    with pytest.raises(StopError):
        images.extract(places, gallery, Mean(), work=work, batch=4, progress=stop)
    rest = Mean()
    vectors, state = images.extract(places, gallery, rest, work=work, batch=4)
    assert 0 < rest.seen < 20
    whole, _ = images.extract(places, gallery, Mean())
    assert np.array_equal(vectors, whole)
    assert (state == images.DONE).all()
    Image.new("RGB", (9, 9), (0, 255, 0)).save(gallery / "blue.png")  # a picture has changed: begin anew
    again = Mean()
    images.extract(places, gallery, again, work=work, batch=4)
    assert again.seen == 20


def test_an_extractor_that_returns_nonsense_is_refused(gallery: Path) -> None:
    class Broken(Mean):
        def __call__(self, pixels: np.ndarray) -> np.ndarray:
            return np.full((len(pixels), 3), np.nan)

    with pytest.raises(DataError, match="not finite"):
        images.extract(["red.jpg"], gallery, Broken())


def test_no_picture_at_all_is_refused(gallery: Path) -> None:
    items = table(image=["a.png", "b.png"])
    with pytest.raises(DataError, match="none could be read"):
        build_features(items, pictures=Images("image", gallery, Mean()))


# -- extractors


def test_an_onnx_file_is_an_extractor(tmp_path: Path) -> None:
    """Two averages over the places, the second of the picture doubled; checked against numpy."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from nextclick.features.extractors import OnnxExtractor

    h = onnx.helper
    picture = h.make_tensor_value_info("picture", onnx.TensorProto.FLOAT, ["batch", 3, 16, 16])
    outputs = [h.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("flat", "twice")]
    nodes = [
        h.make_node("GlobalAveragePool", ["picture"], ["pooled"]),
        h.make_node("Flatten", ["pooled"], ["flat"]),
        h.make_node("Add", ["picture", "picture"], ["twice"]),
    ]
    graph = h.make_graph(nodes, "net", [picture], outputs)
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "net.onnx")
    pixels = np.random.default_rng(1).random((2, 3, 16, 16)).astype(np.float32)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (pixels.mean(axis=(2, 3)) - mean) / deviation
    extractor = OnnxExtractor(tmp_path / "net.onnx")
    assert (extractor.width, extractor.side) == (3, 16)
    assert np.allclose(extractor(pixels), expected, atol=1e-5)
    assert np.allclose(OnnxExtractor(tmp_path / "net.onnx", "twice")(pixels), 2 * expected, atol=1e-5)
    with pytest.raises(DataError, match="has no output 'x'"):
        OnnxExtractor(tmp_path / "net.onnx", "x")
    nodes.append(h.make_node("Shape", ["picture"], ["sizes"]))
    outputs.append(h.make_tensor_value_info("sizes", onnx.TensorProto.INT64, [4]))
    odd = h.make_model(h.make_graph(nodes, "net", [picture], outputs), opset_imports=model.opset_import)
    odd.ir_version = 9
    onnx.save(odd, tmp_path / "odd.onnx")
    with pytest.raises(DataError, match=r"odd\.onnx: gives \[4\] for one picture.*flat, twice, sizes"):
        OnnxExtractor(tmp_path / "odd.onnx", "sizes")
    half = h.make_tensor_value_info("picture", onnx.TensorProto.FLOAT16, ["batch", 3, 16, 16])
    flat = h.make_tensor_value_info("flat", onnx.TensorProto.FLOAT16, None)
    small = h.make_model(h.make_graph(nodes[:2], "net", [half], [flat]), opset_imports=model.opset_import)
    small.ir_version = 9
    onnx.save(small, tmp_path / "half.onnx")
    with pytest.raises(DataError, match=r"half\.onnx: fails on a picture of 16 x 16 pixels, float32: "):
        OnnxExtractor(tmp_path / "half.onnx")
    (tmp_path / "net.onnx").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="not a network that onnxruntime can load"):
        OnnxExtractor(tmp_path / "net.onnx")
    with pytest.raises(DataError, match="no such file"):
        OnnxExtractor(tmp_path / "none.onnx")


def test_a_module_with_random_weights_is_refused() -> None:
    torch = pytest.importorskip("torch")
    from nextclick.features.extractors import TorchExtractor

    torch.manual_seed(1)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    with pytest.raises(ConfigError, match="its weights are random"):
        TorchExtractor(module, weights="ours", side=8)
    with pytest.raises(ConfigError, match="say where its weights are from"):
        TorchExtractor(module, weights=" ", side=8)
    module(torch.rand(8, 3, 8, 8))
    extractor = TorchExtractor(module, weights="ours", side=8)
    assert extractor.width == 4
    assert extractor.name == "Sequential (ours)"
    assert extractor(np.zeros((2, 3, 8, 8), np.float32)).shape == (2, 4)


START: dict[str, Any] = {
    "PyTorch's own": lambda init, weights: init.kaiming_uniform_(weights, a=5**0.5),
    "normal": lambda init, weights: init.xavier_normal_(weights),
    "cut off": lambda init, weights: init.trunc_normal_(weights, 0.0, 0.1, -0.2, 0.2),
}


@pytest.mark.parametrize("start", START)
def test_weights_as_they_were_drawn_are_refused_in_modules_and_files(start: str, tmp_path: Path) -> None:
    """And taken after a few steps of training, whose batch normalisation nobody has to have."""
    torch = pytest.importorskip("torch")
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from nextclick.features.extractors import OnnxExtractor, TorchExtractor

    torch.manual_seed(1)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3),
        torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
    )  # fmt: skip
    for layer in module:
        if hasattr(layer, "weight"):
            START[start](torch.nn.init, layer.weight)

    def written() -> Path:
        """The convolutions alone, as a file."""
        h = onnx.helper
        pictures = h.make_tensor_value_info("pictures", onnx.TensorProto.FLOAT, ["batch", 3, 16, 16])
        out = h.make_tensor_value_info("out", onnx.TensorProto.FLOAT, None)
        weights = [
            onnx.numpy_helper.from_array(module[n].weight.detach().numpy(), f"w{n}") for n in (0, 2, 4)
        ]
        nodes = [
            h.make_node("Conv", ["pictures", "w0"], ["a"]), h.make_node("Conv", ["a", "w2"], ["b"]),
            h.make_node("Conv", ["b", "w4"], ["c"]), h.make_node("GlobalAveragePool", ["c"], ["out"]),
        ]  # fmt: skip
        graph = h.make_graph(nodes, "net", [pictures], [out], weights)
        onnx.save(
            h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=9), tmp_path / "net.onnx"
        )
        return tmp_path / "net.onnx"

    with pytest.raises(ConfigError, match=r"extractor Sequential: its weights are random: every matrix"):
        TorchExtractor(module, weights="ours", side=16)
    with pytest.raises(DataError, match=r"net\.onnx: its weights are random: every matrix"):
        OnnxExtractor(written())
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    pictures, kinds = torch.rand(64, 3, 16, 16), torch.arange(64) % 32
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(pictures), kinds).backward()
        optimizer.step()
    assert TorchExtractor(module, weights="ours", side=16).width == 32
    assert OnnxExtractor(written()).width == 32


def shapes(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of four kinds: discs or bars, fine or coarse, of any colour and place."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 4
    y, x = np.mgrid[:64, :64]
    found = np.full((n, 64, 64, 3), 240, np.uint8)
    for row in range(n):
        pitch = (8, 16)[kind[row] % 2]
        dx, dy = rng.uniform(0, 16, 2)
        if kind[row] < 2:
            inside = ((x + dx) % pitch - pitch / 2) ** 2 + ((y + dy) % pitch - pitch / 2) ** 2 < (
                pitch / 3
            ) ** 2
        else:
            inside = (x + dx) % pitch < pitch / 2
        found[row][inside] = rng.integers(0, 200, 3)
    return found, kind


def test_an_extractor_of_ones_own_pictures_tells_kinds_apart() -> None:
    pytest.importorskip("torch")
    pictures, kind = shapes(160, 1)
    extractor = own.trained(pictures, epochs=12)
    unit = extractor(pictures.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    nearest = np.argsort(-(unit @ unit.T) + 9 * np.eye(len(unit)), axis=1)[:, :3]
    assert (kind[nearest] == kind[:, None]).mean() > 0.6  # a quarter by chance
    again = own.OwnExtractor(extractor.weights)
    assert again.identity == extractor.identity
    with pytest.raises(DataError, match="at least 32"):
        own.trained(pictures[:31])


# -- the store


def small(tmp_path: Path | None = None) -> Features:
    return build_features(
        table(title=["red mug", "red scarf", "mug red", ""], brand=["x", "x", "y", "y"]),
        text_columns=["title"], categorical=["brand"], vectors={"size": np.array([[1.0], [2], [3], [0]])},
    )  # fmt: skip


def test_a_saved_directory_is_the_same(tmp_path: Path) -> None:
    features = small()
    features.save(tmp_path / "f")
    loaded = Features.load(tmp_path / "f")
    assert loaded.fingerprint == features.fingerprint
    assert repr(loaded) == repr(features)
    assert loaded.about == features.about
    with pytest.raises(DataError, match="exists already"):
        features.save(tmp_path / "f")


@pytest.mark.parametrize("damage", ["cut", "flip", "manifest", "foreign", "newer", "gone", "about"])
def test_a_damaged_directory_is_refused(damage: str, tmp_path: Path) -> None:
    small().save(tmp_path / "f")
    arrays, manifest = tmp_path / "f" / "features.safetensors", tmp_path / "f" / "manifest.json"
    raw = arrays.read_bytes()
    if damage == "cut":
        arrays.write_bytes(raw[:-10])
    elif damage == "flip":
        arrays.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    elif damage == "gone":
        arrays.unlink()
    elif damage == "manifest":
        manifest.write_text("{")
    else:
        changed = {"foreign": {"format": "x"}, "newer": {"format_version": 99}, "about": {"about": 3}}[damage]
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changed}))
    with pytest.raises(ArtifactError, match=r"features again|upgrade nextclick"):
        Features.load(tmp_path / "f")


def test_items_that_stand_twice_and_unequal_lengths_are_refused() -> None:
    three = Dense(np.ones((3, 1), np.float32), np.ones(3, np.bool_))
    with pytest.raises(DataError, match="stands twice"):
        Features(Vocabulary(["a", "b", "a"]), {"v": three})
    with pytest.raises(DataError, match="3 vectors for 2 items"):
        Features(Vocabulary(["a", "b"]), {"v": three})
    with pytest.raises(DataError, match="cannot name"):
        Features(Vocabulary(["a", "b", "c"]), {"id": three})


def test_vectors_of_other_items_in_their_order() -> None:
    features = small()
    of = features.of(Vocabulary(["i2", "new", "i0"]))
    for name, found in of.items():
        whole = features.representations[name].dense()
        assert np.array_equal(found.dense(), [whole[2], 0 * whole[0], whole[0]])
        joined = one_after_the_other(found, features.representations[name]).dense()
        assert np.array_equal(joined, np.concatenate([found.dense(), whole]))
    assert of["size"].present.tolist() == [True, False, True]


def test_neighbours_are_those_of_the_cosines() -> None:
    features = small()
    for name, found in features.representations.items():
        matrix = found.dense()
        lengths = np.linalg.norm(matrix, axis=1)
        for row in np.flatnonzero(found.present).tolist():
            near = features.neighbours(f"i{row}", name, 2)
            expected = matrix @ matrix[row] / np.maximum(lengths * lengths[row], 1e-12)
            assert f"i{row}" not in [item for item, _ in near]
            for item, cosine in near:
                assert cosine == pytest.approx(expected[int(str(item)[1:])], abs=1e-5)
    with pytest.raises(DataError, match="has no text"):
        features.neighbours("i3", "text")
    with pytest.raises(DataError, match="has no features"):
        features.neighbours("x", "text")
    with pytest.raises(DataError, match="did you mean 'text'"):
        features.neighbours("i0", "texts")


# -- commands


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data of forty items and a table with their titles, brands and pictures."""
    folder = tmp_path_factory.mktemp("desk")
    rng = np.random.default_rng(2)
    rows = ["session,item,time"]
    for session in range(150):
        kind = session % 4
        rows += [f"{session},i{kind + 4 * rng.integers(0, 9)},{session * 4000 + n}" for n in range(5)]
    (folder / "clicks.csv").write_text("\n".join(rows))
    nextclick.prepare(folder / "clicks.csv", out=folder / "data", holdout="0.2")
    pictures, kinds = shapes(40, 3)
    (folder / "pictures").mkdir()
    lines = ["item_id,title,brand,image"]
    for row, kind in enumerate(kinds.tolist()):
        Image.fromarray(pictures[row]).save(folder / "pictures" / f"{row}.png")
        lines.append(
            f"i{row},{('wool', 'silk', 'jute', 'linen')[kind]} scarf {row % 3},b{kind},pictures/{row}.png"
        )
    (folder / "items.csv").write_text("\n".join(lines))
    return folder


def run(*words: Any) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_from_items_to_an_evaluation_with_new_ones(desk: Path) -> None:
    """Features, a p-RNN, an answer to an item that nobody has clicked, and its figures."""
    pytest.importorskip("torch")
    items = ["--items", desk / "items.csv"]
    made = run(
        "features", desk / "data", *items, "--text", "title", "--categorical", "brand", "--out", desk / "f"
    )
    assert made.exit_code == 0, made.output
    told = json.loads(made.stdout)
    assert told["without"] == 0
    assert told["items"] == 40
    quick = ["--set", "epochs=3", "--set", "hidden=8", "--set", "batch_size=10"]
    model, plain = desk / "model", desk / "plain"
    result = run("fit", desk / "data", "prnn", "--features", desk / "f", "--out", model, *quick)
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["representations"] == ["id", "text", "columns"]
    result = run("fit", desk / "data", "prnn", "--out", plain, *quick)
    assert "reads item ids alone" in result.stderr
    new = next(f"i{n}" for n in range(36, 40))
    result = run("recommend", model, new, "-k", 5)
    assert json.loads(result.stdout)["unknown"] == [new]
    result = run("recommend", model, new, "-k", 5, "--features", desk / "f")
    answer = json.loads(result.stdout)
    assert answer["unknown"] == []
    assert not answer["fallback"]
    result = run(
        "evaluate",
        desk / "data",
        model,
        plain,
        "--unseen",
        "features",
        "--features",
        desk / "f",
        "--json",
        "-",
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["unseen"] == "features"
    result = run("evaluate", desk / "data", plain, "--unseen", "features", "--features", desk / "f")
    assert result.exit_code == 1
    assert "none of the models was fitted with item features" in result.stderr
    assert run("evaluate", desk / "data", model, "--unseen", "features").exit_code == 2
    result = run("fit", desk / "data", "pop", "--features", desk / "f", "--out", desk / "pop")
    assert result.exit_code == 1
    assert "pop reads no item features" in result.stderr
    assert not (desk / "pop").exists()
    result = run("features", "add", model, desk / "f", "--out", desk / "wider")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["new_items"] == 4
    result = run("recommend", desk / "wider", new, "-k", 5)
    assert json.loads(result.stdout) == answer
    header, *lines = (desk / "items.csv").read_text().splitlines()
    (desk / "new.csv").write_text("\n".join([header, *lines[36:]]))  # of no item that was clicked
    items = ["--items", desk / "new.csv", "--text", "title", "--categorical", "brand"]
    made = run("features", desk / "data", *items, "--like", desk / "f", "--out", desk / "only-new")
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["clicked"] == 0
    result = run("features", "add", model, desk / "only-new", "--out", desk / "wider-too")
    assert json.loads(result.stdout)["new_items"] == 4
    made = run("features", desk / "data", *items[:4], "--out", desk / "none")
    assert "no item of" in made.stderr
    result = run("features", "add", plain, desk / "f", "--out", desk / "none")
    assert result.exit_code == 1
    assert "fitted without features, so it cannot know new items" in result.stderr
    assert not (desk / "none").exists()
    assert "exists already" in run("features", "add", model, desk / "f", "--out", desk / "wider").stderr


def test_similar_items_as_a_picture(desk: Path) -> None:
    pytest.importorskip("torch")
    made = run(
        "features", desk / "data", "--items", desk / "items.csv", "--image", "image", "--out", desk / "pic"
    )
    assert made.exit_code == 0, made.output
    assert "own (four convolutions" in made.stderr
    assert not (desk / "pic.pictures").exists()
    result = run(
        "features", "neighbours", desk / "pic", "i3", "i5", "--items", desk / "items.csv", "--image", "image",
        "--title", "title", "--png", desk / "near.png",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [len(near) for near in found.values()] == [3, 3]
    with Image.open(io.BytesIO((desk / "near.png").read_bytes())) as drawn:
        assert drawn.size[0] > drawn.size[1] > 300
    items = ["--items", desk / "items.csv", "--image", "image"]
    like = run("features", desk / "data", *items, "--like", desk / "pic", "--out", desk / "pic2")
    assert like.exit_code == 0, like.output
    assert "next: nextclick features add MODEL" in like.stderr
    for words, says in (
        ([*items, "--png", desk / "near.jpg"], r"ends in \.png"),
        (["--png", desk / "bare.png"], r"name --items, and its --title or --image"),
    ):
        result = run("features", "neighbours", desk / "pic", "i3", *words)
        assert result.exit_code != 0
        assert re.search(says, " ".join(result.stderr.split())), result.stderr
    assert not list(desk.glob("bare.png"))
    first, second = (Features.load(desk / name).representations["image"].dense() for name in ("pic", "pic2"))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("known", [True, False])
def test_titles_in_other_scripts_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """With a font of the system's, letters are told apart; without one they are question marks."""
    if not known:
        monkeypatch.setattr(picture, "_FONTS", ())
    features = Features(
        Vocabulary(["a", "b"]), {"image": Dense(np.eye(2, 3, dtype=np.float32), np.ones(2, np.bool_))}
    )
    drawn = []
    for title in ("\u0416\u0435\u043d\u044f", "\u041c\u0430\u0448\u0430"):
        picture.draw_neighbours(features, ["a"], "image", tmp_path / "near.png", k=1, titles={"a": title})
        drawn.append((tmp_path / "near.png").read_bytes())
    assert (drawn[0] != drawn[1]) == (picture._font() is not None)


def test_a_failed_making_leaves_nothing(desk: Path) -> None:
    for words, says in (
        (["--text", "titel"], "did you mean 'title'"),
        (["--image", "title"], "none could be read; paths are taken from"),
        (["--vectors", f"v={desk / 'none.npy'}"], "no such file"),
        ([], "name at least one of"),
    ):
        result = run("features", desk / "data", "--items", desk / "items.csv", *words, "--out", desk / "half")
        assert result.exit_code == 1
        assert any(part in result.stderr for part in says.split("|")), result.stderr
        assert not (desk / "half").exists()
    assert run("features", desk / "data", "--out", desk / "half").exit_code == 2


def test_a_table_of_other_items_is_refused(desk: Path, tmp_path: Path) -> None:
    shutil.copy(desk / "items.csv", tmp_path / "items.csv")
    text_of = (tmp_path / "items.csv").read_text().replace("\ni", "\nother")
    (tmp_path / "items.csv").write_text(text_of)
    result = run(
        "features",
        desk / "data",
        "--items",
        tmp_path / "items.csv",
        "--text",
        "title",
        "--out",
        tmp_path / "f",
    )
    assert result.exit_code == 1
    assert "name the right id column" in result.stderr
    assert not (tmp_path / "f").exists()
