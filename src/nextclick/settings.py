"""Settings of a recommender: dataclass fields that know their meaning, type and range.

A recommender's settings are the ``init`` fields of its dataclass, each declared with ``about``; what it
learns are plain attributes. So the command line, the table of models and the artifacts all read one place.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import Field
from typing import Any, Literal

from nextclick.errors import ConfigError, nearest

LARGEST = 2**31 - 1
"""Whole numbers beyond are refused: compiled code, which adds to them, would fail or wrap around."""


Search = tuple[float, float] | tuple[Literal["log"], float, float] | list[Any]
"""Where ``tune`` looks for a setting: from low to high, the same on a logarithmic scale, or choices."""


def about(
    meaning: str, *, low: float | None = None, high: float | None = None, search: Search | None = None
) -> dict[str, Any]:
    """Return field metadata: what a setting means (with its unit and source) and its inclusive range.

    search: where ``tune`` looks for its best value, for example ``(0, 0.6)``, ``("log", 10, 1000)`` or
    ``["mean", "last"]``; without it the setting is not searched. One that is none, or 0 where the scale is
    logarithmic, is off, and is searched only from a preset that turns it on.
    """
    return {"about": meaning, "low": low, "high": high, "search": search}


def settings_of(model: Any) -> list[Field[Any]]:
    """Return the settings (dataclass fields declared with ``about``) of a recommender or its class."""
    return [field for field in dataclasses.fields(model) if field.init and "about" in field.metadata]


def values_of(model: Any) -> dict[str, Any]:
    """Return a recommender's settings by name."""
    return {field.name: getattr(model, field.name) for field in settings_of(model)}


def check(model: Any) -> None:
    """Raise ConfigError when a setting of a constructed recommender has a wrong type or is out of range."""
    hints = typing.get_type_hints(type(model))
    for field in settings_of(model):
        value = getattr(model, field.name)
        where = f"{model.name}: {field.name}={value!r}"
        allowed = _choices(hints[field.name])
        if allowed is not None:
            if value not in allowed:
                raise ConfigError(f"{where}: choose one of {', '.join(map(str, allowed))}")
            continue
        kinds = _kinds(hints[field.name])
        if value is None and type(None) in kinds:
            continue
        if float in kinds and isinstance(value, int) and not isinstance(value, bool):
            value = _as_float(value)
            object.__setattr__(model, field.name, value)
        elif not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ConfigError(
                f"{where}: expected {describe_type(field, hints)}, found {type(value).__name__}"
            )
        low, high = field.metadata.get("low"), field.metadata.get("high")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{where}: expected a finite number")
        if (low is not None and value < low) or (high is not None and value > high):
            raise ConfigError(f"{where}: expected {describe_type(field, hints)}")
        if isinstance(value, int) and abs(value) > LARGEST:
            raise ConfigError(f"{where}: expected a whole number of at most {LARGEST}")


def check_names(model: type[Any], given: Iterable[str]) -> None:
    """Raise ConfigError for the first name that is no setting of the model class; name the accepted ones."""
    names = [field.name for field in settings_of(model)]
    for name in given:
        if name not in names:
            accepted = ", ".join(names) or "none"
            raise ConfigError(
                f"{model.name} has no setting {name!r}{nearest(name, names)}\n  it accepts: {accepted}"
            )


def parse(model: type[Any], assignments: Iterable[str]) -> dict[str, Any]:
    """Turn ``name=value`` texts into typed settings of a model class.

    Raises ConfigError for an unknown name, a missing ``=``, or a value that does not read as its type.
    """
    hints = typing.get_type_hints(model)
    fields = {field.name: field for field in settings_of(model)}
    parsed: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals:
            raise ConfigError(f"--set {assignment}: write name=value, for example --set k=100")
        if name == "preset":
            parsed[name] = text
            continue
        check_names(model, [name])
        try:
            parsed[name] = _read(text, hints[name])
        except ValueError:
            raise ConfigError(
                f"{model.name}: {name}={text}: expected {describe_type(fields[name], hints)}"
            ) from None
    return parsed


def of_table(model: type[Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a table of a TOML file gives, ``preset`` among them as it stands.

    TOML has no none: it is written as the text "none", and any other text is read as after ``--set``.
    Raises ConfigError for an unknown name or a text that does not read as its type.
    """
    texts = {name: value for name, value in table.items() if isinstance(value, str)}
    others = {name: value for name, value in table.items() if name not in texts}
    check_names(model, others)
    return parse(model, [f"{name}={text}" for name, text in texts.items()]) | others


def describe_type(field: Field[Any], hints: Mapping[str, Any]) -> str:
    """Say in words what a setting accepts: its type or choices, and its range."""
    hint = hints[field.name]
    if (allowed := _choices(hint)) is not None:
        return "one of " + ", ".join(map(str, allowed))
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "none"}
    text = " or ".join(names.get(kind, kind.__name__) for kind in _kinds(hint))
    low, high = field.metadata.get("low"), field.metadata.get("high")
    if low is not None and high is not None:
        return f"{text} from {low:g} to {high:g}"
    if low is not None:
        return f"{text} of at least {low:g}"
    return f"{text} of at most {high:g}" if high is not None else text


def documented(model: type[Any]) -> str:
    """Return the docstring of a recommender class with its settings, for ``help`` and notebooks."""
    hints = typing.get_type_hints(model)
    lines = [
        f"    {field.name}: {describe_type(field, hints)}, default {as_text(field.default)}\n"
        f"        {field.metadata['about']}"
        for field in settings_of(model)
    ]
    text = inspect.cleandoc(model.__doc__ or "")
    return "\n".join([text, "", "Settings:", "", *lines]) if lines else text


def as_text(value: object) -> str:
    """Return the value of a setting as a user writes it after ``--set name=``."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf  # refused as not finite


def _choices(hint: Any) -> tuple[Any, ...] | None:
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else None


def _kinds(hint: Any) -> tuple[type, ...]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _read(text: str, hint: Any) -> Any:
    if (allowed := _choices(hint)) is not None:
        return next((choice for choice in allowed if str(choice) == text), text)
    kinds = _kinds(hint)
    if type(None) in kinds and text.lower() in ("none", ""):
        return None
    if bool in kinds:
        if text.lower() not in ("true", "false", "yes", "no", "1", "0"):
            raise ValueError(text)
        return text.lower() in ("true", "yes", "1")
    for kind in (int, float):
        if kind in kinds:
            return kind(text)
    return text


def read_memory(option: str, text: str) -> int:
    """Return "8GB", "500 MB" or "1.5GiB" in bytes; K, M, G, T are powers of 1000, Ki, Mi, Gi, Ti of 1024.

    Raises ConfigError that names the option when it is no size, or below 64 MB, in which no engine runs.
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)\s*([kmgt])(i?)b?", text.strip().lower())
    if match is None:
        raise ConfigError(f"{option} {text!r} is no size of memory: write 8GB, 500MB or 12GiB")
    size = int(float(match[1]) * (1024 if match[3] else 1000) ** ("kmgt".index(match[2]) + 1))
    if size < 64_000_000:
        raise ConfigError(f"{option} {text}: too little, at least 64MB")
    return size
