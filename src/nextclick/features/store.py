"""Features of items as arrays, and the directory they are kept in: JSON and safetensors, nothing that runs.

manifest.json          format, version, what each representation was made of, size and hash of:
features.safetensors   item ids, vectors, and what encodes further items in the same way
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nextclick import __version__
from nextclick.errors import ArtifactError, DataError, nearest
from nextclick.files import new_directory, sha256, write_json
from nextclick.sessions import UNKNOWN, ItemId, Vocabulary

FORMAT = "nextclick-features"
FORMAT_VERSION = 1
_ARRAYS = "features.safetensors"


@dataclass(frozen=True, eq=False)
class Dense:
    """A vector of every item.

    values: float32 [n, width];  present: bool [n], False where an item has none and its row is zero.
    """

    values: NDArray[np.float32]
    present: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.present)

    @property
    def width(self) -> int:
        """Numbers of a vector."""
        return self.values.shape[1]

    def take(self, rows: NDArray[np.int64]) -> Dense:
        """Return the vectors of some rows; a row of -1 is an item without features."""
        there = rows >= 0
        values = np.zeros((len(rows), self.width), np.float32)
        values[there] = self.values[rows[there]]
        present = np.zeros(len(rows), np.bool_)
        present[there] = self.present[rows[there]]
        return Dense(values, present)

    def dense(self) -> NDArray[np.float32]:
        """Return the vectors as a matrix, [n, width]."""
        return self.values

    def cosines(self, row: int) -> NDArray[np.float32]:
        """Return the cosine of every item with one of them, [n]; 0 for items without a vector."""
        lengths = np.linalg.norm(self.values, axis=1)
        found: NDArray[np.float32] = self.values @ self.values[row]
        return found / np.maximum(lengths * lengths[row], 1e-12)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as named arrays; ``representation_of`` is the way back."""
        return {"values": self.values, "present": self.present}

    def check(self, where: str) -> None:
        """Raise DataError where the arrays do not fit together or hold a number that is not finite."""
        if self.values.ndim != 2 or len(self.values) != len(self.present) or self.values.shape[1] == 0:
            raise DataError(
                f"{where}: vectors of shape {self.values.shape} for {len(self.present)} items; give one "
                "vector of at least one number per item"
            )
        broken = ~np.isfinite(self.values).all(axis=1)
        if broken.any():
            raise DataError(
                f"{where}: the vector in row {int(np.argmax(broken)) + 1} holds NaN or an infinite number; "
                "leave the item out, or give it a vector of numbers"
            )


@dataclass(frozen=True, eq=False)
class Sparse:
    """A sparse vector of every item, never made dense.

    Item i has ``values[offsets[i]:offsets[i + 1]]`` in ``columns[offsets[i]:offsets[i + 1]]``, rising, and 0
    elsewhere.  offsets: int64 [n + 1];  columns: int32;  values: float32;  width: columns there are;
    present: bool [n], False where an item has no vector.
    """

    offsets: NDArray[np.int64]
    columns: NDArray[np.int32]
    values: NDArray[np.float32]
    width: int
    present: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.present)

    @classmethod
    def of(cls, matrix: Any) -> Sparse:
        """Take a SciPy matrix [n, width]; a row without an entry is an item without a vector."""
        matrix = matrix.tocsr()
        matrix.sort_indices()
        return cls(
            matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32),
            matrix.data.astype(np.float32), int(matrix.shape[1]), np.diff(matrix.indptr) > 0,
        )  # fmt: skip

    def take(self, rows: NDArray[np.int64]) -> Sparse:
        """Return the vectors of some rows; a row of -1 is an item without features."""
        safe = np.maximum(rows, 0)
        lengths = np.where(rows >= 0, np.diff(self.offsets)[safe], 0)
        offsets = np.r_[0, np.cumsum(lengths)].astype(np.int64)
        at = np.repeat(self.offsets[safe] - offsets[:-1], lengths) + np.arange(offsets[-1])
        present = (rows >= 0) & self.present[safe]
        return Sparse(offsets, self.columns[at], self.values[at], self.width, present)

    def dense(self) -> NDArray[np.float32]:
        """Return the vectors as a matrix, [n, width]; for few items only."""
        matrix = np.zeros((len(self), self.width), np.float32)
        matrix[np.repeat(np.arange(len(self)), np.diff(self.offsets)), self.columns] = self.values
        return matrix

    def cosines(self, row: int) -> NDArray[np.float32]:
        """Return the cosine of every item with one of them, [n]; 0 for items without a vector."""
        item = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        own = np.zeros(self.width, np.float32)
        part = slice(int(self.offsets[row]), int(self.offsets[row + 1]))
        own[self.columns[part]] = self.values[part]
        products = np.bincount(item, self.values * own[self.columns], len(self))
        lengths = np.sqrt(np.bincount(item, self.values.astype(np.float64) ** 2, len(self)))
        return (products / np.maximum(lengths * lengths[row], 1e-12)).astype(np.float32)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as named arrays; ``representation_of`` is the way back."""
        return {
            "offsets": self.offsets, "columns": self.columns, "values": self.values,
            "width": np.array([self.width], np.int64), "present": self.present,
        }  # fmt: skip

    def check(self, where: str) -> None:
        """Raise DataError where the arrays do not fit together or hold a number that is not finite."""
        n = len(self.present)
        fit = (
            len(self.offsets) == n + 1 and self.offsets[0] == 0 and (np.diff(self.offsets) >= 0).all()
            and self.offsets[-1] == len(self.columns) == len(self.values) and self.width >= 1
            and (len(self.columns) == 0 or 0 <= self.columns.min() <= self.columns.max() < self.width)
        )  # fmt: skip
        if not fit:
            raise DataError(f"{where}: its sparse arrays do not fit together; make the features again")
        if not np.isfinite(self.values).all():
            raise DataError(f"{where}: holds NaN or an infinite number; make the features again")


Representation = Dense | Sparse


def one_after_the_other(first: Representation, second: Representation) -> Representation:
    """Return the vectors of two lists of items as those of one. Raises DataError where they do not fit."""
    if type(first) is not type(second) or first.width != second.width:
        raise DataError(
            f"vectors of {second.width:,} columns behind such of {first.width:,}: encode new items like the "
            "earlier ones, with --like FEATURES"
        )
    present = np.r_[first.present, second.present]
    if isinstance(first, Sparse) and isinstance(second, Sparse):
        offsets = np.r_[first.offsets, first.offsets[-1] + second.offsets[1:]]
        columns = np.r_[first.columns, second.columns]
        return Sparse(offsets, columns, np.r_[first.values, second.values], first.width, present)
    assert isinstance(first, Dense)
    assert isinstance(second, Dense)
    return Dense(np.concatenate([first.values, second.values]), present)


def representation_of(arrays: Mapping[str, NDArray[Any]]) -> Representation:
    """Return what ``arrays`` of a representation gave. Raises KeyError or TypeError where they do not fit."""
    present = arrays["present"]
    wanted = {"values": np.float32, "present": np.bool_, "offsets": np.int64, "columns": np.int32}
    for name, kind in wanted.items():
        if name in arrays and arrays[name].dtype != kind:
            raise TypeError(f"{name} is {arrays[name].dtype}, not {np.dtype(kind)}")
    if "offsets" not in arrays:
        return Dense(arrays["values"], present)
    width = int(arrays["width"][0])
    return Sparse(arrays["offsets"], arrays["columns"], arrays["values"], width, present)


@dataclass(frozen=True, eq=False, repr=False)
class Features:
    """Vectors of items by representation, such as "text" and "image".

    items: the users' own ids, a row each;  representations: by name, all with a row per item;  about: what
    each was made of, as JSON;  encoders: named arrays from which further items are encoded in the same way.
    Raises DataError for a representation of another number of rows, for NaN, and for ids that stand twice.
    """

    items: Vocabulary
    representations: Mapping[str, Representation]
    about: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    encoders: Mapping[str, Mapping[str, NDArray[Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.representations:
            raise DataError("features without a representation: name text, image, columns or vectors")
        for name, of_items in self.representations.items():
            if not name or "." in name or "/" in name or name == "id":
                raise DataError(f"{name!r} cannot name a representation; take letters, such as image")
            if len(of_items) != len(self.items):
                raise DataError(
                    f"{name}: found {len(of_items)} vectors for {len(self.items)} items; give one per item"
                )
            of_items.check(name)
        self.items.code_of("")  # refuses ids that stand twice

    def __repr__(self) -> str:
        return f"<Features: {len(self):,} items, {', '.join(map(self.describe, self.representations))}>"

    def __len__(self) -> int:
        return len(self.items)

    def describe(self, name: str) -> str:
        """Say in a line what a representation is."""
        of_items = self.representations[name]
        missing = int((~of_items.present).sum())
        per_item = ""
        if isinstance(of_items, Sparse):
            per_item = f", {len(of_items.columns) / max(1, len(of_items)):.2f} non-zero per item"
        extractor = self.about.get(name, {}).get("extractor")
        by = f", read by {extractor}" if extractor else ""
        none = f", {missing:,} items without" if missing else ""
        return f"{name}: {of_items.width:,} columns{per_item}{by}{none}"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all ids and vectors; a training remembers what it was given."""
        import hashlib

        digest = hashlib.sha256()
        for name, array in sorted(self._arrays().items()):
            digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()

    def of(self, vocabulary: Vocabulary) -> dict[str, Representation]:
        """Return the vectors of the items of a vocabulary, in its order, by representation.

        Items that are not here have no features, and zero for vectors.
        Raises DataError when no item of the vocabulary is here.
        """
        codes = self.items.codes_of(vocabulary.ids_of(range(len(vocabulary)))).astype(np.int64)
        if len(codes) and (codes == UNKNOWN).all():
            raise DataError(
                f"the features are of items such as {self.items.id_of(0)!r}, of which none is among those "
                f"clicked, such as {vocabulary.id_of(0)!r}; name the right id column with --items-id"
            )
        return {name: of_items.take(codes) for name, of_items in self.representations.items()}

    def neighbours(self, item: ItemId, name: str, k: int = 3) -> list[tuple[ItemId, float]]:
        """Return the k items nearest to one by cosine, nearest first, without itself.

        Raises DataError for an unknown item or representation, and for an item without a vector.
        """
        if name not in self.representations:
            there = ", ".join(self.representations)
            raise DataError(
                f"no representation {name!r}{nearest(name, self.representations)}: there are {there}"
            )
        code = self.items.code_of(item)
        if code == UNKNOWN:
            raise DataError(f"item {item!r} has no features; name one such as {self.items.id_of(0)!r}")
        of_items = self.representations[name]
        if not of_items.present[code]:
            raise DataError(f"item {item!r} has no {name}; name one such as {self._some(of_items)!r}")
        cosines = np.where(of_items.present, of_items.cosines(code), -np.inf)
        cosines[code] = -np.inf
        order = np.argsort(-cosines, kind="stable")[:k].tolist()
        return [(self.items.id_of(n), float(cosines[n])) for n in order if np.isfinite(cosines[n])]

    def _some(self, of_items: Representation) -> ItemId:
        return self.items.id_of(int(np.argmax(of_items.present)))

    # -- on disk

    def _arrays(self) -> dict[str, NDArray[Any]]:
        arrays = {f"items.{name}": array for name, array in self.items.to_arrays().items()}
        for name, of_items in self.representations.items():
            arrays |= {f"vectors.{name}.{part}": array for part, array in of_items.arrays().items()}
        for name, of_encoder in self.encoders.items():
            arrays |= {f"encoders.{name}.{part}": array for part, array in of_encoder.items()}
        return arrays

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a new directory, all of it or nothing. Raises DataError when ``path`` exists."""
        from safetensors.numpy import save_file

        with new_directory(Path(path), overwrite=overwrite) as aside:
            arrays = {name: np.ascontiguousarray(array) for name, array in self._arrays().items()}
            save_file(arrays, aside / _ARRAYS)
            written = {"bytes": (aside / _ARRAYS).stat().st_size, "sha256": sha256(aside / _ARRAYS)}
            manifest = {
                "format": FORMAT, "format_version": FORMAT_VERSION, "package_version": __version__,
                "items": len(self), "representations": list(self.representations),
                "about": {name: dict(about) for name, about in self.about.items()},
                "files": {_ARRAYS: written},
            }  # fmt: skip
            write_json(aside / "manifest.json", manifest)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Open a directory that ``save`` wrote. Nothing in it can run code.

        Raises ArtifactError when it is none of ours, damaged (size or hash differ), or of a newer format.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = Path(path)
        again = "make the features again: nextclick features DATA --items ITEMS --out DIR"
        try:
            manifest = json.loads((path / "manifest.json").read_text("utf-8"))
            if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
                raise ArtifactError(f"{path}: holds no features; {again}")
            version = manifest.get("format_version")
            if not isinstance(version, int) or version > FORMAT_VERSION:
                raise ArtifactError(
                    f"{path}: written in format {version}, this version reads up to {FORMAT_VERSION}: "
                    "upgrade nextclick"
                )
            expected = manifest["files"][_ARRAYS]
            if (path / _ARRAYS).stat().st_size != expected["bytes"] or sha256(path / _ARRAYS) != expected[
                "sha256"
            ]:
                raise ArtifactError(f"{path / _ARRAYS}: damaged or changed since it was written; {again}")
            arrays = load_file(path / _ARRAYS)
            return cls._opened(arrays, manifest["representations"], manifest["about"])
        except FileNotFoundError as error:
            missing = Path(str(error.filename)).name
            raise ArtifactError(f"{path}: no features here (no {missing}); {again}") from None
        except (
            SafetensorError,
            DataError,
            KeyError,
            TypeError,
            ValueError,
            OSError,
            RecursionError,
        ) as error:
            raise ArtifactError(f"{path}: unreadable features ({error}); {again}") from error

    @classmethod
    def _opened(cls, arrays: Mapping[str, NDArray[Any]], names: list[str], about: Any) -> Self:
        parts: dict[str, dict[str, dict[str, NDArray[Any]]]] = {"vectors": {}, "encoders": {}}
        ids = {}
        for name, array in arrays.items():
            if name.startswith("items."):
                ids[name.removeprefix("items.")] = array
            else:
                part, of, rest = name.split(".", 2)
                parts[part].setdefault(of, {})[rest] = array
        vectors = {name: representation_of(parts["vectors"][name]) for name in names}
        if not isinstance(about, dict):
            raise TypeError("it does not say what the features were made of")
        return cls(Vocabulary.from_arrays(ids), vectors, about, parts["encoders"])
