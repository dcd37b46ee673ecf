"""Saved models: what is damaged, foreign or newer is refused with one kind of error, and nothing runs."""

from __future__ import annotations

import json
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import nextclick
from nextclick import MODELS, ArtifactError, DataError, Recommender, Sessions, artifact, files
from synthetic import QUICK, chain, quick

TRAIN = chain(12, 40, noise=0.2, seed=1)
ARRAYS, MANIFEST = "arrays.safetensors", "manifest.json"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One saved model of each kind, by name; copy before damaging."""
    folder = tmp_path_factory.mktemp("saved")
    for name in MODELS:
        quick(name).fit(TRAIN).save(folder / name)
    return folder


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved / "vs-knn", tmp_path / "model"))


def edit(path: Path, **changes: Any) -> None:
    manifest = json.loads((path / MANIFEST).read_text("utf-8"))
    (path / MANIFEST).write_text(json.dumps({**manifest, **changes}), "utf-8")


def forge(path: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
    """Change the arrays and make size and hash right again, as only a person would."""
    arrays = load_file(path / ARRAYS)
    change(arrays)
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path / ARRAYS)
    sign(path)


def sign(path: Path) -> None:
    size, digest = (path / ARRAYS).stat().st_size, files.sha256(path / ARRAYS)
    edit(path, files={ARRAYS: {"bytes": size, "sha256": digest}})


def refuse(path: Path, match: str = ".") -> None:
    with pytest.raises(ArtifactError, match=match) as caught:
        nextclick.load(path)
    assert str(path) in str(caught.value)  # of many models, which?


# -- what is written


def test_a_model_is_two_files(model: Path) -> None:
    assert sorted(file.name for file in model.iterdir()) == [ARRAYS, MANIFEST]
    manifest = json.loads((model / MANIFEST).read_text("utf-8"))
    assert manifest["format"] == "nextclick-model"
    assert manifest["format_version"] == 1
    assert manifest["package_version"] == nextclick.__version__
    assert manifest["model"] == "vs-knn"
    assert manifest["n_items"] == 12
    assert manifest["facts"] == {"sessions": 40, "clicks": len(TRAIN.items), "items": 12}
    assert manifest["files"][ARRAYS] == {
        "bytes": (model / ARRAYS).stat().st_size,
        "sha256": files.sha256(model / ARRAYS),
    }


def test_settings_come_back_to_the_last_bit(tmp_path: Path) -> None:
    numbers = [0.1, 1 / 3, 1e-300, 123456789.123456789, 5e-324, 1, 0]
    for n, value in enumerate(numbers):
        model = nextclick.VSKNN(idf=value, k=2**31 - 1, last_days=value, last_clicks=None).fit(TRAIN)
        model.save(tmp_path / str(n))
        loaded = nextclick.load(tmp_path / str(n))
        assert isinstance(loaded, nextclick.VSKNN)
        assert (loaded.idf, loaded.last_days) == (float(value), float(value))
        assert (type(loaded.idf), loaded.k, loaded.last_clicks) == (float, 2**31 - 1, None)


@pytest.mark.parametrize(
    "lists", [[["", "é", "☕", "'\"\\\n\0", "x" * 10_000]], [[-(2**63), 2**63 - 1, 0]], [[""]], [[7]]]
)
@pytest.mark.parametrize("name", MODELS)
def test_any_item_ids_come_back(name: str, lists: list[list[Any]], tmp_path: Path) -> None:
    model = quick(name).fit(Sessions.from_lists([lists[0] * 2], range(2 * len(lists[0]))))
    model.save(tmp_path / "model")
    loaded = nextclick.load(tmp_path / "model")
    assert loaded.recommend(lists[0]) == model.recommend(lists[0])
    assert {r.item for r in loaded.recommend([])} == set(lists[0])


def test_the_data_set_is_remembered_and_figures_can_be_added(tmp_path: Path) -> None:
    data = {"name": "log", "fingerprint": "abc", "part": "train"}
    model = nextclick.Markov().fit(replace(TRAIN, origin=data))
    model.save(tmp_path / "model")
    artifact.record(tmp_path / "model", metrics={"recall@20": 0.25})
    manifest = artifact.read_manifest(tmp_path / "model")
    assert (manifest["facts"]["data"], manifest["metrics"]) == (data, {"recall@20": 0.25})
    assert nextclick.load(tmp_path / "model").facts == model.facts
    assert nextclick.load(tmp_path / "model").recommend([]) == model.recommend([])
    before = (tmp_path / "model" / MANIFEST).read_bytes()
    with pytest.raises(ValueError, match="JSON compliant"):
        artifact.record(tmp_path / "model", metrics={"recall@20": float("nan")})
    assert (tmp_path / "model" / MANIFEST).read_bytes() == before


def test_saving_again_needs_leave_and_replaces_all(tmp_path: Path) -> None:
    path = tmp_path / "model"
    nextclick.Markov().fit(TRAIN).save(path)
    before = (path / MANIFEST).read_bytes()
    with pytest.raises(DataError, match="exists already"):
        nextclick.Popularity().fit(TRAIN).save(path)
    assert (path / MANIFEST).read_bytes() == before
    (path / "notes.txt").write_text("mine")
    nextclick.Popularity().fit(TRAIN).save(path, overwrite=True)
    assert nextclick.load(path).name == "pop"
    assert sorted(file.name for file in path.iterdir()) == [ARRAYS, MANIFEST]
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), ValueError("broken"), OSError(28, "no space")])
@pytest.mark.parametrize("step", ["sha256", "write_json"])
def test_a_failing_save_leaves_the_old_one(
    step: str, failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model"
    nextclick.Markov().fit(TRAIN).save(path)

    def fail(*args: Any) -> None:
        raise failure

    monkeypatch.setattr(artifact, step, fail)
    for target in (path, tmp_path / "new"):
        with pytest.raises(DataError if isinstance(failure, OSError) else type(failure)):
            nextclick.Popularity().fit(TRAIN).save(target, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
    monkeypatch.undo()
    assert nextclick.load(path).name == "markov"


FULL_DISK = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
import nextclick
from synthetic import chain
model = nextclick.SKNN().fit(chain(12, 2000, noise=0.2, seed=1))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    model.save(sys.argv[1])
except OSError as error:
    print(type(error).__name__, error.errno)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs limits of file size")
def test_what_the_system_refuses_reaches_the_caller_as_such(tmp_path: Path) -> None:
    """The library that writes arrays hides the system's error number in a text; here: EFBIG, 27."""
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "model"), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "OSError 27\n"
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.numpy

    def full(*args: Any) -> None:
        raise safetensors.SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        )

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(DataError, match="disk is full"):
        nextclick.Markov().fit(TRAIN).save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


# -- what is refused


def test_no_model_here(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        refuse(path, "no model here.*nextclick fit")
    (tmp_path / "file").write_text("x")
    refuse(tmp_path / "file")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '"text"', "{}", '{"format": "other"}', "\x00", "[" * 100_000, '{"format": null}'],
)
def test_foreign_manifests_are_refused(model: Path, text: str) -> None:
    (model / MANIFEST).write_text(text, "utf-8")
    refuse(model)


def test_a_manifest_that_is_no_text_is_refused(model: Path) -> None:
    (model / MANIFEST).write_bytes(b"\xff\xfe\x00")
    refuse(model, "unreadable")
    (model / MANIFEST).unlink()
    (model / MANIFEST).mkdir()
    refuse(model, "unreadable")


@pytest.mark.parametrize("version", [2, 999, None, "1", 1.5, []])
def test_newer_formats_are_refused(model: Path, version: Any) -> None:
    edit(model, format_version=version)
    refuse(model, "upgrade nextclick")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "vsknn"),
        ("model", "markov"),
        ("model", None),
        ("model", ["vs-knn"]),
        ("settings", None),
        ("settings", {"k": 0}),
        ("settings", {"k": "many"}),
        ("settings", {"unknown": 1}),
        ("settings", {"idf": float("nan")}),
        ("settings", {"idf": 10**400}),
        ("settings", {"weighting": ["linear"]}),
        ("settings", {"preset": []}),
        ("settings", {"preset": "none such"}),
        ("n_items", 11),
        ("n_items", "12"),
        ("n_items", None),
        ("facts", None),
        ("files", {}),
        ("files", []),
        ("files", {ARRAYS: None}),
        ("files", {ARRAYS: {}}),
        ("files", {ARRAYS: []}),
        ("files", {"../" + ARRAYS: {"bytes": 1, "sha256": ""}}),
        ("files", {ARRAYS: {"bytes": "1", "sha256": ""}}),
    ],
)
def test_wrong_entries_of_the_manifest_are_refused(model: Path, name: str, value: Any) -> None:
    edit(model, **{name: value})
    refuse(model)


@pytest.mark.parametrize(
    "name", ["format", "format_version", "model", "settings", "n_items", "facts", "files"]
)
def test_missing_entries_of_the_manifest_are_refused(model: Path, name: str) -> None:
    manifest = json.loads((model / MANIFEST).read_text("utf-8"))
    del manifest[name]
    (model / MANIFEST).write_text(json.dumps(manifest), "utf-8")
    refuse(model)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("file", [ARRAYS, MANIFEST])
def test_cut_files_are_refused(saved: Path, tmp_path: Path, name: str, file: str) -> None:
    content = (saved / name / file).read_bytes()
    path = Path(shutil.copytree(saved / name, tmp_path / "model"))
    for length in (0, 1, 8, len(content) // 2, len(content) - 3):
        (path / file).write_bytes(content[:length])
        refuse(path)
    (path / file).unlink()
    refuse(path, "missing|no model here")


def test_one_changed_byte_of_the_arrays_is_noticed(model: Path) -> None:
    content = (model / ARRAYS).read_bytes()
    for at in random.Random(0).sample(range(len(content)), 60):
        changed = bytearray(content)
        changed[at] ^= 1
        (model / ARRAYS).write_bytes(changed)
        refuse(model, "content changed")


def test_one_appended_byte_is_noticed(model: Path) -> None:
    with (model / ARRAYS).open("ab") as stream:
        stream.write(b"\0")
    refuse(model, "damaged or truncated")


def test_changed_bytes_of_the_manifest_never_crash(saved: Path, tmp_path: Path) -> None:
    """Some changes are harmless or mean other settings; what is refused is refused in one way."""
    rng = random.Random(1)
    refused = 0
    for name in MODELS:
        path = Path(shutil.copytree(saved / name, tmp_path / name))
        content = (path / MANIFEST).read_bytes()
        for _ in range(120):
            changed = bytearray(content)
            for _ in range(rng.randint(1, 3)):
                changed[rng.randrange(len(changed))] = rng.choice([rng.randrange(256), *b'0129-.eE"{}[],:'])
            (path / MANIFEST).write_bytes(changed)
            try:
                nextclick.load(path).recommend(["item 1", "item 2"])
            except ArtifactError:
                refused += 1
    assert refused > 100 * len(MODELS) * 0.5


def test_changed_bytes_of_the_arrays_never_crash_even_if_signed(saved: Path, tmp_path: Path) -> None:
    """With hash and size made right: the header is read by a library, the rest is checked."""
    rng = random.Random(2)
    for name in ("markov", "stan"):
        path = Path(shutil.copytree(saved / name, tmp_path / name))
        content = (path / ARRAYS).read_bytes()
        header = 8 + int.from_bytes(content[:8], "little")
        for _ in range(60):
            changed = bytearray(content)
            changed[rng.randrange(header)] = rng.choice([rng.randrange(256), *b'0123456789"[]{}:,FIU'])
            (path / ARRAYS).write_bytes(changed)
            sign(path)
            try:
                nextclick.load(path).recommend(["item 1", "item 2"])
            except (ArtifactError, DataError):
                continue


class Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (Path.touch, (Path("exploded"),))  # type: ignore[return-value]


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_is_refused_and_never_run(
    model: Path, protocol: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (model / ARRAYS).write_bytes(pickle.dumps(Bomb(), protocol))
    refuse(model)
    sign(model)
    refuse(model, "unreadable")
    assert not (tmp_path / "exploded").exists()


def test_the_package_never_unpickles() -> None:
    words = re.compile(r"\b(pickle\.|cloudpickle|joblib|allow_pickle=True|eval\(|exec\()")
    for file in Path(nextclick.__file__).parent.rglob("*.py"):
        assert not words.search(file.read_text("utf-8")), file


# -- arrays that a person forged


@pytest.mark.parametrize("name", MODELS)
def test_missing_arrays_are_refused(saved: Path, tmp_path: Path, name: str) -> None:
    for array in load_file(saved / name / ARRAYS):
        path = Path(shutil.copytree(saved / name, tmp_path / array))
        forge(path, lambda arrays, array=array: arrays.pop(array))
        refuse(path)


@pytest.mark.parametrize("name", MODELS)
def test_arrays_of_another_shape_or_type_are_refused(saved: Path, tmp_path: Path, name: str) -> None:
    for n, array in enumerate(load_file(saved / name / ARRAYS)):
        for label, change in {
            "longer": lambda a: np.r_[a, a[-1:] if len(a) else np.ones(1, a.dtype)],
            "deeper": lambda a: np.stack([a, a], axis=1),
            "scalar": lambda a: a.sum(),
            "half": lambda a: a.astype(np.float16),
            "tiny": lambda a: a.astype(np.int8),
            "unsigned": lambda a: a.astype(np.uint64),
        }.items():
            path = Path(shutil.copytree(saved / name, tmp_path / f"{n}-{label}"))
            forge(
                path, lambda arrays, array=array, change=change: arrays.update({array: change(arrays[array])})
            )
            if array == "vocabulary.ids_utf8" and label == "tiny":
                continue  # int8 of plain text holds the same bytes
            refuse(path)


TABLES = [name for name in MODELS if name not in ("pop", "s-pop", "blend", *QUICK)]


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("kind", [np.int64, np.uint64, np.int32])
def test_codes_and_offsets_out_of_range_are_refused(
    saved: Path, tmp_path: Path, name: str, kind: type[np.integer[Any]]
) -> None:
    """With a correct hash: compiled loops trust them, so they must be refused at load."""

    def put(array: str, at: int, value: int) -> Callable[[dict[str, np.ndarray]], None]:
        def change(arrays: dict[str, np.ndarray]) -> None:
            arrays[array] = arrays[array].astype(kind if array == "offsets" else np.int32)
            arrays[array][at] = value

        return change

    for n, change in enumerate(
        [
            put("items", 0, 12),
            put("items", -1, 2**31 - 1),
            put("offsets", 0, 1),
            put("offsets", -1, 0),
            put("offsets", -1, 2**31 - 1),
            put("offsets", 3, 2**31 - 1),  # goes down afterwards
            put("offsets", 5, 0),
            *([] if kind is np.uint64 else [put("items", 0, -1), put("offsets", 1, -1)]),
        ]
    ):
        path = Path(shutil.copytree(saved / name, tmp_path / str(n)))
        forge(path, change)
        refuse(path)


@pytest.mark.parametrize(
    "ends",
    [[5, 3, *range(8, 90, 8)], [-1] * 12, [0] * 12, [10**9] * 12],
    ids=["down", "negative", "short", "long"],
)
def test_item_ids_that_do_not_fit_are_refused(model: Path, ends: list[int]) -> None:
    forge(model, lambda arrays: arrays.update({"vocabulary.ids_ends": np.array(ends[:12])}))
    refuse(model, "item ids")


def test_item_ids_that_are_no_text_are_refused(model: Path) -> None:
    forge(model, lambda arrays: arrays["vocabulary.ids_utf8"].fill(255))
    refuse(model)


def test_restoring_something_foreign_leaves_the_model_not_fitted(model: Path) -> None:
    refitted: Recommender = nextclick.VSKNN().fit(TRAIN)
    with pytest.raises(ArtifactError, match="lacks the array"):
        refitted.restore({}, refitted.vocabulary)
    with pytest.raises(nextclick.NotFittedError):
        refitted.recommend([])
