"""From rules and a table of items to masks over the items of a recommender."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import ConfigError, DataError, NextclickError, nearest
from nextclick.filters.filter import ABSENT, Bound, Condition, Filter, Mask, Same, Within, count
from nextclick.filters.items import ItemTable
from nextclick.filters.rules import Rule, Rules, Value, levels_of
from nextclick.sessions import UNKNOWN, Vocabulary


def bind(rules: Rules, items: ItemTable | None, vocabulary: Vocabulary) -> Filter:
    """Return rules bound to a table and the items of a vocabulary; see ``Rules.bind``."""
    notes: list[str] = []
    rows = None
    if rules.attributes:
        if items is None:
            raise ConfigError(
                f"{rules.where}: rules on {', '.join(sorted(rules.attributes))} need the table of items; "
                "give it with --items (items in Python)"
            )
        rows = _rows(items, vocabulary, notes)
    bound = []
    for n, rule in enumerate(rules.rules, start=1):
        try:
            bound.append(_bind(rule, items, rows, vocabulary, notes))
        except NextclickError as error:
            raise type(error)(f"{rules.where}: rule {n} ({rule.name!r}): {error}") from error
    return Filter(rules, items, vocabulary, bound, notes)


def _rows(items: ItemTable, vocabulary: Vocabulary, notes: list[str]) -> NDArray[np.int64]:
    """Return the row of each item of a vocabulary in the table, -1 where it has none."""
    codes = vocabulary.codes_of(items.ids.tolist())
    known = np.flatnonzero(codes != UNKNOWN)
    if len(known) == 0:
        raise DataError(
            f"{items.where}: none of the model's items stands there, such as {vocabulary.id_of(0)!r}; column "
            f"{items.id_column!r} holds ids such as {items.ids[:1].tolist()[0]!r}. Name the right one with "
            "--items-id (id_column in Python)"
        )
    rows = np.full(len(vocabulary), -1, np.int64)
    rows[codes[known]] = known
    if ignored := len(items) - len(known):
        notes.append(f"{items.where}: {count(ignored)} unknown to the model, ignored")
    if without := len(vocabulary) - len(known):
        notes.append(f"{items.where}: {count(without)} of the model not there, without values")
    return rows


def _bind(
    rule: Rule,
    items: ItemTable | None,
    rows: NDArray[np.int64] | None,
    vocabulary: Vocabulary,
    notes: list[str],
) -> Bound:
    always = np.ones(len(vocabulary), np.bool_)
    by_anchor: list[Condition] = []
    for listed, meets in ((rule.block, False), (rule.allow, True)):
        if listed is not None:
            codes = vocabulary.codes_of(listed)
            inside = np.zeros(len(vocabulary), np.bool_)
            inside[codes[codes != UNKNOWN]] = True
            always &= inside == meets
            if unknown := int(np.count_nonzero(codes == UNKNOWN)):
                notes.append(
                    f"rule {rule.name!r}: {count(unknown)} of its list unknown to the model, ignored"
                )
    if items is None or rows is None or not rule.attribute:
        return Bound(rule.name, always, ())

    def of_items(values: NDArray[Any], present: Mask) -> tuple[NDArray[Any], Mask]:
        return values[rows], present[rows] & (rows >= 0)

    for values, wanted in ((rule.among, True), (rule.not_among, False)):
        if values is not None:
            inside, present = of_items(*_inside(rule, items, values, notes))
            always &= np.where(present, inside == wanted, rule.keep)
    if rule.between is not None:
        numbers, present = of_items(*items.numbers(rule.attribute[0]))
        low, high = (numbers.dtype.type(x) if numbers.dtype == np.float32 else x for x in rule.between)
        always &= np.where(present, (numbers >= low) & (numbers <= high), rule.keep)
    if rule.within is not None:
        numbers, present = of_items(*items.numbers(rule.attribute[0]))
        measured = np.where(present, numbers.astype(np.float64), np.nan)
        by_anchor.append(Within(measured, *rule.within, ~present if rule.keep else None))
    if rule.same:
        keys, present = of_items(*_keys(rule, items))
        keys = np.where(present, keys, ABSENT).astype(np.int32)
        by_anchor.append(Same(keys, ~present if rule.keep else None))
    return Bound(rule.name, always, tuple(by_anchor))


def _inside(rule: Rule, items: ItemTable, values: tuple[Value, ...], notes: list[str]) -> tuple[Mask, Mask]:
    """Return which rows of the table hold one of the values, and which hold any at all."""
    if rule.path:
        paths, present = _paths(rule, items)
        wanted = {levels_of(str(value), rule.separator): value for value in values}
        lengths = sorted({len(path) for path in wanted})
        starts = {path[:length] for path in paths for length in lengths}
        _note_absent(rule, [value for path, value in wanted.items() if path not in starts], (), notes)
        inside = [any(path[:length] in wanted for length in lengths) for path in paths]
        return np.array(inside, np.bool_), present
    name = rule.attribute[0]
    kind = items.column(name).kind
    if isinstance(values[0], str):
        if kind in ("number", "boolean"):
            raise ConfigError(
                f"{values[0]!r} is text, and column {name!r} of {items.where} holds {kind}s; write the value "
                "without quotes"
            )
        texts, present = items.texts(name)
        among, there_are = set(values), set(texts[present].tolist())
        _note_absent(rule, [value for value in values if value not in there_are], there_are, notes)
        return np.fromiter((text in among for text in texts), np.bool_, len(texts)), present
    if isinstance(values[0], bool):
        truth, present = items.booleans(name)
        return np.isin(truth, list(values)), present
    numbers, present = items.numbers(name)
    # Compared as they are stored: 9.99 in single precision is not 9.99 in double.
    given = np.array(values, np.float32 if numbers.dtype == np.float32 else None)
    absent = ~np.isin(given, numbers[present])
    _note_absent(rule, [value for value, gone in zip(values, absent, strict=True) if gone], (), notes)
    return np.isin(numbers, given), present


def _note_absent(rule: Rule, absent: Sequence[Value], there_are: Collection[str], notes: list[str]) -> None:
    """Note the values that no row of the table has: they may be misspelt."""
    if absent:
        near = nearest(absent[0], there_are) if isinstance(absent[0], str) and len(there_are) < 2000 else ""
        more = f" and {len(absent) - 1:,} more" if len(absent) > 1 else ""
        notes.append(f"rule {rule.name!r}: no item has the value {absent[0]!r}{more}{near}")


def _keys(rule: Rule, items: ItemTable) -> tuple[NDArray[Any], Mask]:
    """Return a number for each different value of the attribute, [n_rows], and where there is a value."""
    if rule.path:
        paths, present = _paths(rule, items)
        listed: list[Any] = [path[: rule.depth] for path in paths]
    else:
        column = items.column(rule.attribute[0])
        present = column.present
        listed = np.asarray(
            items.numbers(rule.attribute[0])[0] if column.kind == "number" else column.values
        ).tolist()
    numbered: dict[Any, int] = {}
    return np.array([numbered.setdefault(value, len(numbered)) for value in listed], np.int32), present


def _paths(rule: Rule, items: ItemTable) -> tuple[list[tuple[str, ...]], Mask]:
    """Return the levels of each row's path, up to the first that is missing, and where there is any."""
    if len(rule.attribute) == 1:
        texts, present = items.texts(rule.attribute[0])
        cut = zip(texts, present, strict=True)
        paths = [levels_of(text, rule.separator) if there else () for text, there in cut]
    else:
        levels = []
        for column in map(items.column, rule.attribute):
            told = np.where(column.present, np.asarray(column.values).astype(object), "")
            levels.append([str(value).strip() for value in told.tolist()])
        paths = [row[: row.index("")] if "" in row else row for row in zip(*levels, strict=True)]
    return paths, np.array([len(path) > 0 for path in paths], np.bool_)
