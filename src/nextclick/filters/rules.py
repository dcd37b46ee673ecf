"""The file of rules: read, checked, and each rule said in words."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from nextclick.errors import ConfigError, nearest
from nextclick.files import read_toml
from nextclick.sessions import ItemId, Vocabulary

if TYPE_CHECKING:
    from nextclick.filters.filter import Filter
    from nextclick.filters.items import ItemTable

ON_ATTRIBUTE = ("same", "equals", "in", "not_in", "between", "within")
ON_PATH = ("same", "equals", "in", "not_in")
ON_ITEMS = ("block", "block_file", "allow", "allow_file")
KEYS = ("name", "attribute", *ON_ATTRIBUTE, "depth", "separator", "missing", *ON_ITEMS)

Value = str | int | float | bool


@dataclass(frozen=True)
class Rule:
    """One rule: an item meets it if it meets all its conditions.

    attribute: column names, several for the levels of a path, none for lists of items;  same: as the
    anchor's, the last click's;  values: to be among (``among``), or not to be (``not_among``);  between:
    bounds, both allowed;  within: bounds as multiples of the anchor's value;  path: the attribute is a path
    of levels, parted by ``separator``, of which ``same`` compares the first ``depth``, None: all;  keep:
    items without a value meet the rule;  block, allow: ids of items.
    """

    name: str
    attribute: tuple[str, ...] = ()
    same: bool = False
    among: tuple[Value, ...] | None = None
    not_among: tuple[Value, ...] | None = None
    between: tuple[float, float] | None = None
    within: tuple[float, float] | None = None
    path: bool = False
    depth: int | None = None
    separator: str = "/"
    keep: bool = False
    block: frozenset[ItemId] | None = None
    allow: frozenset[ItemId] | None = None

    @property
    def said(self) -> str:
        """The conditions in words, for example "price from 5 to 100"."""
        what = self.separator.join(self.attribute)
        parts = []
        if self.same:
            levels = {None: "", 1: " (first level)"}.get(self.depth, f" (first {self.depth} levels)")
            parts.append(f"same {what} as the anchor{levels}")
        if self.among is not None:
            parts.append(f"{what} {'is' if len(self.among) == 1 else 'is one of'} {_listed(self.among)}")
        if self.not_among is not None:
            none_of = "is not" if len(self.not_among) == 1 else "is none of"
            parts.append(f"{what} {none_of} {_listed(self.not_among)}")
        if self.between is not None:
            parts.append(f"{what} from {self.between[0]:g} to {self.between[1]:g}")
        if self.within is not None:
            parts.append(f"{what} from {self.within[0]:g} to {self.within[1]:g} times that of the anchor")
        if self.attribute and self.keep:
            parts.append(f"or no {what}")
        if self.block is not None:
            parts.append(f"not on a list of {len(self.block):,}")
        if self.allow is not None:
            parts.append(f"on a list of {len(self.allow):,}")
        return ", ".join(parts)

    def __str__(self) -> str:
        return self.said if self.name == self.said else f"{self.name} ({self.said})"


@dataclass(frozen=True)
class Rules:
    """Rules that an item must all meet to be recommended; ``where`` names their file."""

    rules: tuple[Rule, ...]
    where: str = field(default="the rules", compare=False)

    def __str__(self) -> str:
        return "; ".join(map(str, self.rules))

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read rules from TOML, or JSON of the same shape (.json).

        Raises ConfigError, naming file, rule and key, for what cannot be read or makes no sense.
        """
        path = Path(path)
        content = _read_json(path) if path.suffix.lower() == ".json" else read_toml(path)
        return cls.of(content, where=str(path), folder=path.parent)

    @classmethod
    def of(cls, content: Mapping[str, Any], *, where: str = "the rules", folder: str | Path = ".") -> Self:
        """Check rules given as Python values of the same shape, ``{"rule": [{...}, ...]}``.

        folder: where the paths of ``block_file`` and ``allow_file`` begin.  Raises ConfigError as ``read``.
        """
        try:
            _only(content, ("rule",), "the file")
            given = content.get("rule")
            if isinstance(given, Mapping):
                raise ConfigError("rule is one table; write [[rule]] with two brackets")
            if not isinstance(given, Sequence) or isinstance(given, str) or not given:
                raise ConfigError("there is no rule; write at least one, as [[rule]]")
            rules = tuple(_rule(rule, n, Path(folder)) for n, rule in enumerate(given, start=1))
            names = [rule.name for rule in rules]
            for n, name in enumerate(names, start=1):
                if name in names[: n - 1]:
                    first = names.index(name) + 1
                    raise ConfigError(
                        f"rules {first} and {n} are both {name!r}; remove one, or name them apart"
                    )
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
        return cls(rules, where)

    @property
    def attributes(self) -> frozenset[str]:
        """The columns of the table of items that the rules speak of."""
        return frozenset(name for rule in self.rules for name in rule.attribute)

    def bind(self, items: ItemTable | str | Path | None, vocabulary: Vocabulary) -> Filter:
        """Look up the attributes of a recommender's items once, so that every answer is quick.

        items: the table, or the file to read of it what the rules need; None where no rule needs any.
        vocabulary: ``model.vocabulary``.
        Raises ConfigError where a rule does not fit the table, and DataError for a table that cannot be used.
        """
        from nextclick.filters.binding import bind
        from nextclick.filters.items import ItemTable

        if isinstance(items, str | Path):
            items = ItemTable.read(items, columns=self.attributes)
        return bind(self, items, vocabulary)


def _listed(values: Sequence[Value]) -> str:
    shown = [str(value).lower() if isinstance(value, bool) else str(value) for value in values[:4]]
    return ", ".join(shown) + (f" and {len(values) - 4:,} more" if len(values) > 4 else "")


def _rule(given: Any, n: int, folder: Path) -> Rule:
    where = f"rule {n}"
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: expected a table, found {given!r}")
    name = given.get("name")
    if isinstance(name, str):
        where += f" ({name!r})"
    try:
        return _checked(given, folder)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _checked(given: Mapping[str, Any], folder: Path) -> Rule:
    _only(given, KEYS, "a rule")
    name = given.get("name", "")
    if not isinstance(name, str) or ("name" in given and not name.strip()):
        raise ConfigError(f"name={name!r}: expected text")
    attribute = _attribute(given)
    path = len(attribute) > 1 or "depth" in given or "separator" in given
    listed = {key: _items(given, key, folder) for key in ("block", "allow")}
    rule = Rule(
        name,
        attribute,
        same=_same(given),
        among=_among(given),
        not_among=_values("not_in", given["not_in"]) if "not_in" in given else None,
        between=_bounds("between", given["between"]) if "between" in given else None,
        within=_bounds("within", given["within"]) if "within" in given else None,
        path=path,
        depth=_depth(given, attribute),
        separator=_separator(given),
        keep=_keep(given),
        **listed,
    )
    if path:
        _check_path(given, rule)
    return rule if name else replace(rule, name=rule.said)


def _attribute(given: Mapping[str, Any]) -> tuple[str, ...]:
    conditions = [key for key in ON_ATTRIBUTE if key in given]
    if not conditions and not any(key in given for key in ON_ITEMS):
        raise ConfigError(f"no condition; give one of {', '.join((*ON_ATTRIBUTE, *ON_ITEMS))}")
    if "attribute" not in given:
        asking = [*conditions, *(key for key in ("depth", "separator", "missing") if key in given)]
        if asking:
            raise ConfigError(f'{asking[0]}: of which attribute? Write for example attribute = "category"')
        return ()
    if not conditions:
        raise ConfigError(f"attribute without a condition on it; give one of {', '.join(ON_ATTRIBUTE)}")
    attribute = given["attribute"]
    names = [attribute] if isinstance(attribute, str) else attribute
    if not isinstance(names, list | tuple) or not names or not all(isinstance(n, str) and n for n in names):
        raise ConfigError(f"attribute={attribute!r}: expected a column, or a list of columns for a path")
    if len(set(names)) < len(names):
        raise ConfigError(f"attribute={attribute!r}: names a column twice")
    return tuple(names)


def _same(given: Mapping[str, Any]) -> bool:
    if given.get("same", "anchor") != "anchor":
        raise ConfigError(
            f'same={given["same"]!r}: expected "anchor", the last click of the session; for a fixed value '
            "write equals"
        )
    return "same" in given


def _among(given: Mapping[str, Any]) -> tuple[Value, ...] | None:
    if "in" in given and "equals" in given:
        raise ConfigError("equals and in: give one of them")
    if "equals" in given:
        value = given["equals"]
        if isinstance(value, list):
            raise ConfigError(f"equals={value!r}: expected one value; for several write in = {value!r}")
        return _values("equals", [value])
    return _values("in", given["in"]) if "in" in given else None


def _values(key: str, given: Any) -> tuple[Value, ...]:
    if not isinstance(given, list | tuple):
        raise ConfigError(f"{key}={given!r}: expected a list of values; write {key} = [{given!r}]")
    if not given:
        raise ConfigError(f"{key}: the list is empty; give at least one value")
    for value in given:
        if not isinstance(value, str | int | float) or (
            isinstance(value, float) and not math.isfinite(value)
        ):
            raise ConfigError(f"{key}: {value!r} is neither text, a finite number, true nor false")
        if value == "":
            raise ConfigError(f'{key}: "" is no value; items without one are a matter of missing = "keep"')
    if len({_kind(value) for value in given}) > 1:
        raise ConfigError(f"{key}={list(given)!r}: mixes {' and '.join(sorted({_kind(v) for v in given}))}")
    return tuple(given)


def _kind(value: Value) -> Literal["text", "boolean", "number"]:
    return "text" if isinstance(value, str) else "boolean" if isinstance(value, bool) else "number"


def _bounds(key: str, given: Any) -> tuple[float, float]:
    numbers = isinstance(given, list | tuple) and all(
        isinstance(x, int | float) and not isinstance(x, bool) for x in given
    )
    example = "[5, 100]" if key == "between" else "[0.5, 2.0]"
    if not numbers or len(given) != 2:
        raise ConfigError(f"{key}={given!r}: expected two numbers, for example {key} = {example}")
    try:
        low, high = float(given[0]), float(given[1])
    except OverflowError:
        raise ConfigError(f"{key}: a number of more than 300 digits; write inf for no bound") from None
    if math.isnan(low) or math.isnan(high) or low > high:
        raise ConfigError(f"{key}={given!r}: expected the lower number first, for example {key} = {example}")
    if key == "within" and not (low >= 0 and math.isfinite(high)):
        raise ConfigError(f"within={given!r}: expected finite multiples of at least 0, for example {example}")
    return low, high


def _depth(given: Mapping[str, Any], attribute: tuple[str, ...]) -> int | None:
    depth = given.get("depth")
    if "depth" not in given:
        return None
    if not isinstance(depth, int) or isinstance(depth, bool) or depth < 1:
        raise ConfigError(f"depth={depth!r}: expected a whole number of at least 1")
    if "same" not in given:
        raise ConfigError('depth: only with same = "anchor"; in = ["a/b"] takes all below a/b without it')
    if 1 < len(attribute) < depth:
        raise ConfigError(f"depth={depth}: attribute names {len(attribute)} levels only")
    return depth


def _separator(given: Mapping[str, Any]) -> str:
    separator = given.get("separator", "/")
    if not isinstance(separator, str) or not separator:
        raise ConfigError(f'separator={separator!r}: expected text, for example separator = "/"')
    return separator


def _check_path(given: Mapping[str, Any], rule: Rule) -> None:
    for key in ("between", "within"):
        if key in given:
            raise ConfigError(f"{key}: needs a number, and attribute is a path of levels")
    for key, values in (("in", rule.among), ("not_in", rule.not_among)):
        for value in values or ():
            key = "equals" if key == "in" and "equals" in given else key
            levels = levels_of(value, rule.separator) if isinstance(value, str) else ()
            if not levels:
                raise ConfigError(f'{key}: {value!r} is no path of levels; write it as text, like "a/b"')
            if 1 < len(rule.attribute) < len(levels):
                raise ConfigError(
                    f"{key}: {value!r} has {len(levels)} levels, and attribute names {len(rule.attribute)}"
                )


def levels_of(path: str, separator: str) -> tuple[str, ...]:
    """Cut a path into its levels, without blanks around them and without empty ones."""
    return tuple(level for part in path.split(separator) if (level := part.strip()))


def _keep(given: Mapping[str, Any]) -> bool:
    missing = given.get("missing")
    if "missing" in given and missing not in ("drop", "keep"):
        close = nearest(missing, ("drop", "keep")) if isinstance(missing, str) else ""
        raise ConfigError(f'missing={missing!r}: expected "drop" or "keep"{close}')
    if missing is None:  # an item without a brand is of none of the brands that are not wanted
        return "not_in" in given and not any(key in given for key in ON_ATTRIBUTE if key != "not_in")
    return bool(missing == "keep")


def _items(given: Mapping[str, Any], key: str, folder: Path) -> frozenset[ItemId] | None:
    """Return the ids of a block or allow list, from the rule itself and from its file."""
    ids: set[ItemId] = set()
    if key in given:
        listed = given[key]
        if not isinstance(listed, list | tuple) or not all(
            isinstance(item, str | int) and not isinstance(item, bool) for item in listed
        ):
            raise ConfigError(f'{key}={listed!r}: expected a list of item ids, for example {key} = ["P0001"]')
        ids |= set(listed)
    in_file = f"{key}_file"
    if in_file in given:
        file = given[in_file]
        if not isinstance(file, str) or not file:
            raise ConfigError(f'{in_file}={file!r}: expected a file name, for example "{key}.txt"')
        try:
            lines = (folder / file).read_text("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ConfigError(
                f"{in_file}: {folder / file} cannot be read ({why}); give a text file with an item id a line"
            ) from error
        ids |= {line.strip() for line in lines if line.strip()}
    if key not in given and in_file not in given:
        return None
    if key == "allow" and not ids:
        raise ConfigError("allow: the list is empty, so that nothing could be recommended")
    return frozenset(ids)


def _only(given: Iterable[str], known: Sequence[str], where: str) -> None:
    for key in given:
        if key not in known:
            hint = "; it stands in a rule: write it below a [[rule]]" if key in KEYS else nearest(key, known)
            raise ConfigError(f"{where} has no {key!r}{hint}\n  it takes: {', '.join(known)}")


def _read_json(path: Path) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for at, (key, _) in enumerate(pairs):
            if key in [earlier for earlier, _ in pairs[:at]]:
                raise ConfigError(f"{path}: the key {key!r} stands twice in one table; remove one")
        return dict(pairs)

    try:
        content = json.loads(path.read_text("utf-8"), object_pairs_hook=once)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (ValueError, OSError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise ConfigError(f'{path}: expected {{"rule": [...]}}, found {type(content).__name__}')
    return content
