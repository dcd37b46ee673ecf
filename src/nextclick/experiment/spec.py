"""Experiment files: which data, which models with which settings, and what was published for them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nextclick.errors import ConfigError, nearest
from nextclick.features import Recipe
from nextclick.files import read_toml
from nextclick.models import build, find, takes_generators
from nextclick.prepare import PrepareOptions
from nextclick.settings import as_text, of_table, settings_of
from nextclick.tuning import read_settings

FILES = ("source", "train", "test")
_OPTIONS = [option.name for option in dataclasses.fields(PrepareOptions) if option.name != "ready"]
_WHOLE = ("min_length", "max_length", "min_support", "slices", "target_clicks")
_METRIC = re.compile(r"(recall|mrr|ndcg)@(1|5|10|20)")


@dataclass(frozen=True)
class Published:
    """Figures that somebody published for a row: metrics between 0 and 1, and where they stand.

    hits: predictions with the target among the first 20, by number of clicks in the prefix.
    """

    metrics: Mapping[str, float]
    source: str
    hits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One line of an experiment: a model with settings, fitted once per seed.

    settings: as ``build`` takes them;  seeds: (None,) for a model without chance;  full: fit on training and
    validation together;  generators: labels of the rows whose models this one builds on;  features: the
    name of those that it reads.
    """

    label: str
    model: str
    settings: Mapping[str, Any]
    seeds: tuple[int | None, ...]
    full: bool
    published: Published | None
    generators: tuple[str, ...] = ()
    features: str | None = None

    @property
    def written(self) -> str:
        """The settings as they are typed, "defaults" where there are none; what it reads and builds on."""
        typed = " ".join(f"{name}={as_text(value)}" for name, value in self.settings.items()) or "defaults"
        typed += f"; features {self.features}" if self.features else ""
        return f"{typed}; over {' + '.join(self.generators)}" if self.generators else typed


@dataclass(frozen=True)
class Experiment:
    """An experiment file, checked.

    data: ``prepared``, or files and options of ``prepare``;  folder: where its paths begin;  features: by
    name, a directory that ``nextclick features`` wrote, or what to make them from.
    """

    name: str
    data: Mapping[str, Any]
    rows: tuple[Row, ...]
    folder: Path
    features: Mapping[str, Path | Recipe] = field(default_factory=dict)

    def row(self, label: str) -> Row:
        """Return the row of a label. Raises ConfigError that names the nearest."""
        labels = [row.label for row in self.rows]
        if label not in labels:
            there_are = "; ".join(labels)
            raise ConfigError(
                f"{self.name} has no row {label!r}{nearest(label, labels)}\n  it has: {there_are}"
            )
        return self.rows[labels.index(label)]


def read(path: str | Path, data: str | Path | None = None) -> Experiment:
    """Read an experiment file and check all that can be checked without its data.

    data: the folder that paths in it are relative to; that of the file if left out.
    Raises ConfigError, naming the file and the row, for keys or models that do not exist, settings that a
    model refuses, rows of one label, and figures that are none.
    """
    path = Path(path)
    content = read_toml(path)
    try:
        return _experiment(content, Path(data) if data is not None else path.parent, path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _experiment(content: Mapping[str, Any], folder: Path, beside: Path) -> Experiment:
    _only(content, ("name", "data", "features", "defaults", "rows"), "the experiment")
    name = content.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
        raise ConfigError('name: expected letters, digits, "-", "_" or ".", for example name = "diginetica"')
    defaults = _table(content.get("defaults", {}), "[defaults]")
    _only(defaults, ("settings", "seeds", "full"), "[defaults]")
    rows = content.get("rows")
    if not isinstance(rows, list) or not rows:
        raise ConfigError("there is no row; write at least one, as [[rows]]")
    read_rows = [_row(_table(row, f"row {n}"), defaults, n, beside) for n, row in enumerate(rows, start=1)]
    labels = [row.label for row in read_rows]
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"{labels.count(label)} rows have the label {label!r}; give each its own")
    _check_generators(read_rows)
    features = _features(_table(content.get("features", {}), "[features]"), folder)
    for row in read_rows:
        if row.features is not None and row.features not in features:
            there_are = ", ".join(features) or "none"
            hint = nearest(row.features, features)
            raise ConfigError(
                f"row {row.label!r}: no [features] {row.features!r}{hint}; there are: {there_are}"
            )
    return Experiment(name, _data(content.get("data")), tuple(read_rows), folder, features)


def _features(given: Mapping[str, Any], folder: Path) -> dict[str, Path | Recipe]:
    """Return what the table [features] says, with paths from the folder of the data."""
    found: dict[str, Path | Recipe] = {}
    for name, said in given.items():
        if isinstance(said, str):
            found[name] = folder / said
            continue
        where = f"[features] {name}"
        table = dict(_table(said, f"{where}: a directory of features, or what to make them from"))
        _only(table, [option.name for option in dataclasses.fields(Recipe)], where)
        for option, value in table.items():
            kinds: dict[str, Any] = {"vectors": dict, "max_pixels": int, "seed": int}
            kind = kinds.get(option, list if option in ("text", "categorical", "numeric") else str)
            texts = value if kind is list else value.values() if kind is dict else ()
            if type(value) is not kind or not all(isinstance(text, str) for text in texts):
                words = {list: "a list of columns", dict: "files by name", int: "a whole number", str: "text"}
                raise ConfigError(f"{where}: {option}={value!r}: expected {words[kind]}")
        for option in ("text", "categorical", "numeric"):
            table[option] = tuple(table.get(option, ()))
        if "items" not in table:
            raise ConfigError(f'{where}: which table of items? Write for example items = "items.parquet"')
        table["items"] = folder / table["items"]
        table["vectors"] = {of: folder / file for of, file in table.get("vectors", {}).items()}
        if table.get("image_model", "own") not in ("own", "googlenet"):
            table["image_model"] = str(folder / table["image_model"])
        found[name] = Recipe(**table)
    return found


def _check_generators(rows: Sequence[Row]) -> None:
    """Refuse generators that are no row above, or were fitted on another part."""
    above: dict[str, Row] = {}
    for row in rows:
        for label in row.generators:
            if label not in above:
                there_are = "; ".join(above) or "none"
                raise ConfigError(
                    f"row {row.label!r}: no row above it has the label {label!r}{nearest(label, above)}\n"
                    f"  there are: {there_are}"
                )
            if above[label].full != row.full:
                raise ConfigError(f"row {row.label!r}: full={row.full}, but not in its generator {label!r}")
        above[row.label] = row


def _data(table: Any) -> dict[str, Any]:
    data = dict(_table({} if table is None else table, "[data]"))
    _only(data, ("prepared", *FILES, *_OPTIONS), "[data]")
    if "prepared" in data:
        if len(data) > 1 or not isinstance(data["prepared"], str):
            raise ConfigError("[data]: prepared is the directory of prepared data, and stands alone")
        return data
    for name in FILES:
        files = data.get(name, "")
        if not isinstance(files, str) and not (
            isinstance(files, list) and all(isinstance(file, str) for file in files)
        ):
            raise ConfigError(f"[data]: {name}: expected a file or pattern, or a list of them")
    if ("source" in data) == ("train" in data) or ("train" in data) != ("test" in data):
        raise ConfigError("[data]: give prepared, or source, or train and test")
    options = {name: value for name, value in data.items() if name not in FILES}
    for name, value in options.items():
        kinds = {"events": list, "collapse_repeats": bool, "max_bad": (float, int, str)}
        kind = kinds.get(name, int if name in _WHOLE else str)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):  # type: ignore[arg-type]
            raise ConfigError(f"[data]: {name}={value!r}: expected {'text' if kind is str else kind}")
    try:
        PrepareOptions(**options, ready="train" in data)
    except TypeError as error:
        raise ConfigError(f"[data]: {error}") from error
    return data


def _row(row: Mapping[str, Any], defaults: Mapping[str, Any], n: int, beside: Path) -> Row:
    where = f"row {n}" + (f" ({row['label']})" if isinstance(row.get("label"), str) else "")
    known = ("model", "settings", "features", "label", "seeds", "published", "full", "generators")
    _only(row, known, where)
    model = row.get("model")
    if not isinstance(model, str):
        raise ConfigError(f'{where}: which model? Write for example model = "vs-knn"')
    try:
        settings = _settings(model, defaults.get("settings", {}), beside)
        settings |= _settings(model, row.get("settings", {}), beside)
        if "seed" in settings:
            raise ConfigError("the seed belongs into seeds = [1, 2, 3]")
        generators = _generators(row.get("generators", []), model)
        # What stands for the generators here is never fitted; their number is what settings depend on.
        build(model, settings, generators=[build("pop") for _ in generators])
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    full = row.get("full", defaults.get("full", False))
    if not isinstance(full, bool):
        raise ConfigError(f"{where}: full={full!r}: expected true or false")
    seeds = _seeds(row.get("seeds", defaults.get("seeds")), model, where)
    published = _published(row.get("published"), where)
    features = row.get("features")
    if features is not None and not (isinstance(features, str) and find(model).reads_features):
        wrong = "expected the name of a table" if not isinstance(features, str) else f"{model} reads none"
        raise ConfigError(f"{where}: features={features!r}: {wrong}")
    made = Row("", model, settings, seeds, full, published, generators, features)
    label = row.get("label", f"{model}, {made.written}")
    if not isinstance(label, str) or not label.strip():
        raise ConfigError(f"{where}: label={label!r}: expected text")
    return dataclasses.replace(made, label=label)


def _generators(given: Any, model: str) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(label, str) for label in given):
        raise ConfigError(f'generators={given!r}: expected labels of rows, like ["vs-knn", "narm"]')
    if not given and takes_generators(model):
        raise ConfigError(f'{model} builds on other rows; name them, like generators = ["vs-knn"]')
    return tuple(given)


def _settings(model: str, given: Any, beside: Path) -> dict[str, Any]:
    if isinstance(given, str):
        return read_settings(model, beside / given)
    return of_table(find(model), _table(given, "settings"))


def _seeds(given: Any, model: str, where: str) -> tuple[int | None, ...]:
    defaults: dict[str, Any] = {field.name: field.default for field in settings_of(find(model))}
    if given is not None and (
        not isinstance(given, list)
        or not given
        or not all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in given)
        or len(set(given)) < len(given)
    ):
        raise ConfigError(f"{where}: seeds={given!r}: expected different whole numbers, like [1, 2, 3]")
    if "seed" not in defaults:
        return (None,)
    return tuple(given or [defaults["seed"]])


def _published(given: Any, where: str) -> Published | None:
    if given is None:
        return None
    table = _table(given, f"{where}: published")
    metrics = {name: value for name, value in table.items() if name not in ("source", "hits")}
    for name, value in metrics.items():
        if not _METRIC.fullmatch(name):
            known = ("recall@20", "mrr@20", "ndcg@20", "source", "hits")
            raise ConfigError(f"{where}: published: no figure {name!r}{nearest(name, known)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ConfigError(f"{where}: published: {name}={value!r}: expected a number from 0 to 1")
    hits = _table(table.get("hits", {}), f"{where}: published: hits")
    if not all(
        key.isdigit() and isinstance(value, int) and not isinstance(value, bool)
        for key, value in hits.items()
    ):
        raise ConfigError(f"{where}: published: hits: expected counts by length of the prefix, 1 = 8747")
    source = table.get("source")
    if not isinstance(source, str) or not source.strip():
        raise ConfigError(f"{where}: published: where? Write source = ...")
    return Published({name: float(value) for name, value in metrics.items()}, source, hits)


def _table(given: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise ConfigError(f"{where}: expected a table, found {given!r}")
    return given


def _only(table: Iterable[str], known: Sequence[str], where: str) -> None:
    for name in table:
        if name not in known:
            there_are = ", ".join(known)
            raise ConfigError(f"{where} has no {name!r}{nearest(name, known)}\n  it takes: {there_are}")
