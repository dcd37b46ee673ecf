"""Categorical and numeric attributes as one sparse representation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import DataError
from nextclick.features.store import Sparse
from nextclick.filters import ItemTable

_FARTHEST = (
    3.0  # standard deviations from the mean at which a number is cut, so that no outlier outweighs all
)


def encode(
    items: ItemTable,
    categorical: Sequence[str],
    numeric: Sequence[str],
    like: Mapping[str, Any] | None = None,
) -> tuple[Sparse, dict[str, Any]]:
    """Return vectors of length 1 at most of attributes, and what encodes further items in the same columns.

    A categorical value is a column that holds 1; values of a single item are dropped, as they tell nothing of
    others.  A number is a column that holds its distance from the mean in standard deviations, cut at 3.
    like: what an earlier call returned; values that it does not know are left out.
    Raises DataError for a column that is not there, and for a numeric one with text or NaN in it.
    """
    known: dict[str, Any] = {"categorical": {}, "numeric": {}} if like is None else dict(like)
    rows: list[NDArray[np.int64]] = []
    columns: list[NDArray[np.int64]] = []
    values: list[NDArray[np.float64]] = []
    width = 0
    for name in categorical:
        texts, present = _texts(items, name)
        if like is None:
            counts = Counter(text for text, there in zip(texts, present, strict=True) if there)
            known["categorical"][name] = sorted(text for text, count in counts.items() if count > 1)
        codes = {text: n for n, text in enumerate(known["categorical"][name])}
        code = np.array([codes.get(text, -1) for text in texts], np.int64)
        found = np.flatnonzero(present & (code >= 0))
        rows.append(found)
        columns.append(width + code[found])
        values.append(np.ones(len(found)))
        width += len(codes)
    for name in numeric:
        numbers, present = items.numbers(name)
        if like is None:
            there = numbers[present].astype(np.float64)
            spread = float(there.std()) if len(there) else 0.0
            known["numeric"][name] = [float(there.mean()) if len(there) else 0.0, spread or 1.0]
        mean, spread = known["numeric"][name]
        found = np.flatnonzero(present)
        scaled = np.clip((numbers[found] - mean) / spread, -_FARTHEST, _FARTHEST) / _FARTHEST
        rows.append(found)
        columns.append(np.full(len(found), width))
        values.append(scaled)
        width += 1
    if width == 0:
        raise DataError(
            f"{items.where}: no value of {', '.join(categorical)} stands in two rows; leave it out"
        )
    flat = [np.concatenate(parts) for parts in (rows, columns, values)]
    return _assembled(len(items), width, *flat), known


def _texts(items: ItemTable, name: str) -> tuple[list[str], NDArray[np.bool_]]:
    column = items.column(name)
    return [str(value) for value in np.asarray(column.values).tolist()], column.present


def _assembled(n: int, width: int, rows: NDArray[Any], columns: NDArray[Any], values: NDArray[Any]) -> Sparse:
    order = np.lexsort((columns, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    lengths = np.sqrt(np.bincount(rows, values**2, n))
    values = values / np.maximum(lengths, 1.0)[rows]
    offsets = np.r_[0, np.cumsum(np.bincount(rows, minlength=n))].astype(np.int64)
    present = np.diff(offsets) > 0
    return Sparse(offsets, columns.astype(np.int32), values.astype(np.float32), width, present)
