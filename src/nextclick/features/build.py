"""From a table of items to features: text, images, columns and ready-made vectors, together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import ConfigError, DataError
from nextclick.features import columns as attributes
from nextclick.features import images, own, text
from nextclick.features.store import Features, Representation
from nextclick.features.vectors import read_vectors
from nextclick.filters import ItemTable
from nextclick.sessions import Vocabulary

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Images:
    """Which pictures, and what turns them into vectors.

    column: of the table, with paths (from ``folder``) or addresses;  extractor: "own" trains a small network
    on the pictures themselves, else an ``images.Extractor``;  work: a folder where what is done is kept;
    max_pixels: larger pictures are refused;  epochs, seed: of the training of "own".
    """

    column: str
    folder: Path
    extractor: Any
    work: Path | None = None
    batch: int = 32
    max_pixels: int = images.MAX_PIXELS
    epochs: int = 20
    seed: int = 1


def build_features(
    items: ItemTable,
    *,
    text_columns: Sequence[str] = (),
    pictures: Images | None = None,
    categorical: Sequence[str] = (),
    numeric: Sequence[str] = (),
    vectors: Mapping[str, str | Path | NDArray[Any]] | None = None,
    like: Features | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Features:
    """Return the features of the items of a table, a representation for each kind that is asked for.

    text_columns: joined and weighted by TF-IDF, as "text";  pictures: as "image";  categorical, numeric:
    attributes, as "columns";  vectors: ready-made ones by name, a Parquet or .npy file or an array with a row
    per item of the table.  like: features of earlier items; the vectors will be in the same columns, from
    the same words, values and extractor, so that a model fitted with those reads these.
    Raises DataError for a column that is not there or of a wrong type, for vectors of a wrong number or
    width or with NaN, and ConfigError when nothing is asked for or ``like`` was made otherwise.
    """
    representations: dict[str, Representation] = {}
    about: dict[str, Any] = {}
    encoders: dict[str, Mapping[str, NDArray[Any]]] = {}

    def earlier(name: str, asked: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return what ``like`` says of a representation. Raises ConfigError where it was made otherwise."""
        if like is None:
            return None
        made = like.about.get(name)
        for of, value in asked.items():
            if made is None or made.get(of) != value:
                was = "has none" if made is None else f"was made with {of}={made.get(of)!r}"
                raise ConfigError(f"{name}: the earlier features {was}, asked for is {of}={value!r}")
        return made

    if text_columns:
        asked: dict[str, Any] = {"kind": "text", "columns": list(text_columns)}
        before = earlier("text", asked)
        texts = _texts(items, text_columns)
        if before is None or like is None:
            representations["text"], encoders["text"], counted = text.encode(texts)
        else:
            representations["text"] = text.encode_like(texts, like.encoders["text"])
            encoders["text"], counted = like.encoders["text"], {}
        about["text"] = asked | counted | {"without": _without(representations["text"])}
    if pictures is not None:
        before = earlier("image", {"kind": "image"})
        extractor = _extractor(items, pictures, like, progress)
        if before is not None and before.get("identity") != extractor.identity:
            raise ConfigError(
                f"image: the earlier features are from {before.get('extractor')}, which differs from "
                f"{extractor.name}; give the same file"
            )
        found, state = images.extract(
            _places(items, pictures.column), pictures.folder, extractor, work=pictures.work,
            batch=pictures.batch, limit=pictures.max_pixels, progress=progress,
        )  # fmt: skip
        if not (state == images.DONE).any():
            raise _none_read(items, pictures, int((state == images.MISSING).sum()))
        from nextclick.features.store import Dense

        representations["image"] = Dense(found, state == images.DONE)
        if isinstance(extractor, own.OwnExtractor):
            encoders["image"] = extractor.weights
        about["image"] = {
            "kind": "image", "column": pictures.column, "extractor": extractor.name,
            "identity": extractor.identity, "missing": int((state == images.MISSING).sum()),
            "unreadable": int((state == images.UNREADABLE).sum()),
            "too_large": int((state == images.TOO_LARGE).sum()),
        }  # fmt: skip
    if categorical or numeric:
        asked = {"kind": "columns", "categorical": list(categorical), "numeric": list(numeric)}
        before = earlier("columns", asked)
        known = None if before is None else before["encoder"]
        representations["columns"], encoder = attributes.encode(items, categorical, numeric, known)
        about["columns"] = asked | {"encoder": encoder, "without": _without(representations["columns"])}
    for name, given in (vectors or {}).items():
        if name in representations:
            raise ConfigError(f"vectors {name!r}: there is a representation of that name already")
        asked = {"kind": "vectors"}
        read = read_vectors(given, items, name)
        if (before := earlier(name, asked)) is not None and before["width"] != read.width:
            raise DataError(f"{name}: found vectors of {read.width} numbers, expected {before['width']}")
        representations[name] = read
        about[name] = asked | {"width": read.width, "without": _without(read)}
    if not representations:
        raise ConfigError("name at least one of --text, --image, --categorical, --numeric, --vectors")
    ids = items.ids
    vocabulary = Vocabulary(ids if ids.dtype == np.int64 else [str(item) for item in ids.tolist()])
    return Features(vocabulary, representations, about, encoders)


@dataclass(frozen=True)
class Recipe:
    """What to make features from, as the command line and experiment files say it.

    items: Parquet or CSV, a row per item; pictures are looked for from its folder;  items_id: its id column,
    found if empty;  text, image, categorical, numeric: its columns;  image_model: "own", "googlenet" or an
    ONNX file, of which image_output is taken;  vectors: ready-made ones by name, as files;  max_pixels:
    larger pictures are refused;  seed: of the training of "own".
    """

    items: Path
    items_id: str = ""
    text: tuple[str, ...] = ()
    image: str = ""
    image_model: str = "own"
    image_output: str = ""
    max_pixels: int = images.MAX_PIXELS
    categorical: tuple[str, ...] = ()
    numeric: tuple[str, ...] = ()
    vectors: Mapping[str, Path] = field(default_factory=dict)
    seed: int = 1

    def made(
        self,
        *,
        like: Features | None = None,
        work: Path | None = None,
        progress: Progress = lambda what, done, total: None,
    ) -> Features:
        """Return the features; like, progress: as in ``build_features``;  work: as in ``Images``.

        Raises as ``build_features`` and ``ItemTable.read`` do.
        """
        columns = {*self.text, *self.categorical, *self.numeric, *([self.image] if self.image else [])}
        table = ItemTable.read(self.items, id_column=self.items_id or None, columns=columns)
        pictures = None
        if self.image:
            pictures = Images(
                self.image, self.items.parent, self._extractor(), work,
                max_pixels=self.max_pixels, seed=self.seed,
            )  # fmt: skip
        return build_features(
            table, text_columns=self.text, pictures=pictures, categorical=self.categorical,
            numeric=self.numeric, vectors=self.vectors, like=like, progress=progress,
        )  # fmt: skip

    def _extractor(self) -> Any:
        from nextclick.features.extractors import OnnxExtractor, googlenet

        if self.image_model == "own":
            return "own"
        if self.image_model == "googlenet":
            return googlenet()
        return OnnxExtractor(Path(self.image_model), self.image_output or None)


def _texts(items: ItemTable, names: Sequence[str]) -> list[str]:
    read = [items.texts(name) for name in names]
    return [
        text.joined([values[row] if present[row] else "" for values, present in read])
        for row in range(len(items))
    ]


def _places(items: ItemTable, name: str) -> list[str]:
    values, present = items.texts(name)
    return [value if there else "" for value, there in zip(values.tolist(), present.tolist(), strict=True)]


def _extractor(
    items: ItemTable, pictures: Images, like: Features | None, progress: Progress
) -> images.Extractor:
    if pictures.extractor != "own":
        found: images.Extractor = pictures.extractor
        return found
    if like is not None:
        if "image" not in like.encoders:
            raise ConfigError("image: the earlier features were not made by an extractor of their own")
        return own.OwnExtractor(like.encoders["image"])
    images.require_pillow()
    places = _places(items, pictures.column)
    read, missing = [], 0
    for number, place in enumerate(places, start=1):
        picture = images.read(place, pictures.folder, own.SIDE, pictures.max_pixels)
        if isinstance(picture, int):
            missing += picture == images.MISSING
        else:
            read.append(picture)
        if number % 100 == 0:
            progress("reading pictures", number, len(places))
    if not read:
        raise _none_read(items, pictures, missing)
    return own.trained(np.stack(read), epochs=pictures.epochs, seed=pictures.seed, progress=progress)


def _none_read(items: ItemTable, pictures: Images, missing: int) -> DataError:
    return DataError(
        f"{items.where}: of {len(items):,} pictures in column {pictures.column!r}, {missing:,} are missing "
        f"and none could be read; paths are taken from {pictures.folder}"
    )


def _without(of_items: Representation) -> int:
    return int((~of_items.present).sum())
