"""Saved recommenders: a directory of JSON and safetensors, checked when it is opened, never executed.

manifest.json        format, versions, model, settings, data fingerprint, metrics, size and hash of:
arrays.safetensors   what the model learnt, and the item ids
generators/1, ...    the models that a model made of others builds on, whole directories like this one

and, where it was asked for, an approximate index: see ``index``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nextclick import __version__, index, settings
from nextclick.errors import ArtifactError, ConfigError
from nextclick.files import new_directory, sha256, write_json
from nextclick.network.recommender import NeuralRecommender
from nextclick.recommender import Recommender
from nextclick.rerank.composite import generators_of, without_generators
from nextclick.sessions import Vocabulary

FORMAT = "nextclick-model"
FORMAT_VERSION = 1
_ARRAYS = "arrays.safetensors"
_IDS = "vocabulary."
_GENERATORS = "generators"


def save(model: Recommender, path: Path, *, overwrite: bool = False) -> None:
    """Write a fitted model to a new directory, all of it or nothing.

    Raises NotFittedError before fit, and DataError when ``path`` exists or the disk is full.
    """
    with saving(model, path, overwrite=overwrite):
        pass


@contextmanager
def saving(model: Recommender, path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Save as ``save`` does, and yield the folder before it gets its name: more may be written into it."""
    model.n_items  # noqa: B018 - refuses before fit
    with new_directory(path, overwrite=overwrite) as aside:
        _write(model, aside)
        yield aside


def _write(model: Recommender, folder: Path) -> None:
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    arrays = without_generators(model.state())
    arrays |= {_IDS + name: array for name, array in model.vocabulary.to_arrays().items()}
    file = folder / _ARRAYS
    try:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, file)
    except SafetensorError as error:  # a full disk, for example, which is no OSError here
        number = re.search(r"os error (\d+)", str(error))
        raise (OSError(int(number[1]), str(error)) if number else error) from error
    file.chmod(0o644)  # the library keeps it from others, such as the user that a service runs as
    generators = {}
    for n, generator in enumerate(generators_of(model), start=1):
        name = f"{_GENERATORS}/{n}"
        (folder / name).mkdir(parents=True)
        _write(generator, folder / name)
        generators[name] = {
            "model": generator.name,
            "fingerprint": fingerprint_of(read_manifest(folder / name)),
        }
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "package_version": __version__,
        "model": model.name,
        "settings": settings.values_of(model),
        "n_items": model.n_items,
        "facts": model.facts,
        "files": {_ARRAYS: {"bytes": file.stat().st_size, "sha256": sha256(file)}},
    }
    write_json(folder / "manifest.json", {**manifest, "generators": generators} if generators else manifest)


def fingerprint_of(manifest: Mapping[str, Any]) -> str:
    """Return a digest of a saved model: its name, settings, the hashes of its files, and its generators."""
    about = [manifest[name] for name in ("model", "settings", "n_items", "files")]
    generators = manifest.get("generators", {})
    return hashlib.sha256(json.dumps([*about, generators], sort_keys=True).encode()).hexdigest()


def load(path: str | Path, *, with_index: bool = True) -> Recommender:
    """Open a saved model. Nothing in it can run code.

    with_index: answer from the approximate index where one lies beside the model.
    Raises ArtifactError when the directory is none of ours, is damaged (size or hash differ), is of a
    newer format, names a model or setting that this version does not have, or when a model that it builds on
    is missing, damaged, or not the one that it was fitted with.
    newer format, or names a model or setting that this version does not have; or its index does not fit it.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from nextclick import models

    path = Path(path)
    manifest = read_manifest(path)
    for name, expected in manifest["files"].items():
        _check_file(path / name, expected)
    try:
        arrays = load_file(path / _ARRAYS)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:  # some types have no array
        raise ArtifactError(f"{path / _ARRAYS}: unreadable ({error}); fit the model again") from error
    ids = {name.removeprefix(_IDS): array for name, array in arrays.items() if name.startswith(_IDS)}
    state = {name: array for name, array in arrays.items() if not name.startswith(_IDS)}
    generators = [
        _generator(path, name, expected) for name, expected in manifest.get("generators", {}).items()
    ]
    try:
        model = models.build(manifest["model"], manifest["settings"], generators=generators)
        vocabulary = Vocabulary.from_arrays(ids)
    except (ConfigError, KeyError, ValueError) as error:
        raise ArtifactError(
            f"{path}: does not fit this version of nextclick ({error}); fit the model again"
        ) from error
    if len(vocabulary) != manifest["n_items"]:
        raise ArtifactError(
            f"{path}: the manifest counts {manifest['n_items']} items, the arrays hold {len(vocabulary)}; "
            "fit the model again"
        )
    model.facts = manifest["facts"]
    try:
        model.restore(state, vocabulary)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error
    if with_index and isinstance(model, NeuralRecommender):
        model.index = index.attached(path, manifest["files"][_ARRAYS]["sha256"], len(vocabulary))
    return model


def arrays_sha256(path: Path) -> str:
    """Return the SHA-256 of a saved model's arrays, which tells it from every other."""
    return str(read_manifest(path)["files"][_ARRAYS]["sha256"])


def _generator(path: Path, name: str, expected: Mapping[str, Any]) -> Recommender:
    """Open a model that another one builds on, if it is the one that it was fitted with."""
    if fingerprint_of(read_manifest(path / name)) != expected["fingerprint"]:
        raise ArtifactError(
            f"{path / name}: this is not the {expected['model']} that {path} was fitted with, its "
            "fingerprint differs: put that one back, or fit the model again"
        )
    return load(path / name)


def read_manifest(path: Path) -> dict[str, Any]:
    """Read the manifest of a model directory. Raises ArtifactError as ``load`` does."""
    file = path / "manifest.json"
    try:
        manifest = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        hint = f"fit one with: nextclick fit DATA MODEL --out {path}"
        if (path / "prepare.json").exists():
            hint = "these are prepared data; name a directory that nextclick fit wrote"
        raise ArtifactError(f"{path}: no model here (no manifest.json); {hint}") from None
    except (ValueError, OSError, RecursionError) as error:
        raise ArtifactError(f"{file}: unreadable ({error}); fit the model again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ArtifactError(f"{file}: not a model of nextclick; name a directory that nextclick fit wrote")
    version = manifest.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ArtifactError(
            f"{path}: written in format {version}, this version reads up to {FORMAT_VERSION}: "
            "upgrade nextclick"
        )
    wanted = {"model": str, "settings": dict, "n_items": int, "facts": dict, "files": dict}
    for name, kind in wanted.items():
        if not isinstance(manifest.get(name), kind):
            raise ArtifactError(f"{file}: damaged, {name!r} is missing or wrong; fit the model again")
    if set(manifest["files"]) != {_ARRAYS}:
        raise ArtifactError(f"{file}: damaged, it names other files than {_ARRAYS}; fit the model again")
    if not isinstance(manifest["files"][_ARRAYS], dict):
        raise ArtifactError(f"{file}: damaged, it does not describe {_ARRAYS}; fit the model again")
    generators = manifest.get("generators", {})
    whole = isinstance(generators, dict) and list(generators) == [
        f"{_GENERATORS}/{n}" for n in range(1, len(generators) + 1)
    ]
    if not whole or not all(
        isinstance(one, dict) and all(isinstance(one.get(of), str) for of in ("model", "fingerprint"))
        for one in generators.values()
    ):
        raise ArtifactError(f"{file}: damaged, it does not describe its generators; fit the model again")
    return manifest


def record(path: Path, **about: Any) -> None:
    """Add entries to a saved model's manifest, for example its metrics."""
    manifest = read_manifest(path)
    write_json(path / "manifest.json", {**manifest, **about})


def _check_file(file: Path, expected: Mapping[str, Any]) -> None:
    if not file.is_file():
        raise ArtifactError(f"{file}: missing; fit the model again")
    if file.stat().st_size != expected.get("bytes"):
        found = file.stat().st_size
        raise ArtifactError(
            f"{file}: expected {expected.get('bytes')} bytes, found {found}: damaged or truncated; "
            "fit the model again"
        )
    if sha256(file) != expected.get("sha256"):
        raise ArtifactError(
            f"{file}: its content changed since it was saved (SHA-256 differs); fit the model again"
        )
