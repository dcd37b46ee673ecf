"""Ready-made vectors of items, from an array, a .npy file or a Parquet file with ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import DataError
from nextclick.features.store import Dense
from nextclick.filters import ItemTable
from nextclick.sessions import UNKNOWN, Vocabulary


def read_vectors(given: str | Path | NDArray[Any], items: ItemTable, name: str) -> Dense:
    """Return ready-made vectors in the order of a table of items.

    given: an array or .npy file [n_items, width], a row per row of the table; or a Parquet file with the
    column of ids that the table has, and one other, of lists of numbers. Items that the Parquet file lacks
    have no vector; ids in it that the table lacks are left out.
    Raises DataError for a wrong number of rows, vectors of different widths, NaN, and ids that stand twice.
    """
    if isinstance(given, np.ndarray):
        return _rows(given, items, f"vectors {name!r}")
    path = Path(given)
    if not path.is_file():
        raise DataError(f"{path}: no such file; give the vectors {name!r} as .npy or Parquet")
    if path.suffix != ".npy":
        return _parquet(path, items)
    try:
        return _rows(np.load(path, allow_pickle=False), items, str(path))
    except (ValueError, EOFError) as error:
        raise DataError(f"{path}: not a .npy file of plain numbers ({error})") from error


def _rows(array: NDArray[Any], items: ItemTable, where: str) -> Dense:
    if array.dtype.kind not in "fiub":
        raise DataError(f"{where}: holds {array.dtype}, expected numbers")
    if array.ndim != 2 or len(array) != len(items):
        raise DataError(
            f"{where}: found an array of shape {array.shape}, expected one vector for each of the "
            f"{len(items):,} items of {items.where}, in its order"
        )
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(array, np.float32)
    of_items = Dense(values, np.ones(len(items), np.bool_))
    of_items.check(where)
    return Dense(values, np.asarray(values.any(axis=1)))


def _parquet(path: Path, items: ItemTable) -> Dense:
    import duckdb

    place = str(path).replace("'", "''")
    source = f"read_parquet('{place}')"
    try:
        with duckdb.connect() as connection:
            described = connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
            kinds = {column: kind for column, kind, *_ in described}
            lists = [column for column, kind in kinds.items() if kind.endswith("]")]
            if items.id_column not in kinds or len(lists) != 1:
                raise DataError(
                    f"{path}: expected a column {items.id_column!r} of item ids and one column of lists of "
                    f"numbers; it has: {', '.join(f'{column} {kind}' for column, kind in kinds.items())}"
                )
            quoted = [column.replace('"', '""') for column in (items.id_column, lists[0])]
            rows = connection.execute(
                f'SELECT "{quoted[0]}", CAST("{quoted[1]}" AS FLOAT[]) FROM {source} '
                f'WHERE "{quoted[1]}" IS NOT NULL'
            ).fetchall()
    except duckdb.Error as error:
        reason = str(error).strip().split("\n")[0]
        raise DataError(f"{path}: cannot be read as vectors: {reason}") from error
    widths = {len(vector) for _, vector in rows}
    if len(widths) != 1:
        raise DataError(f"{path}: found vectors of {sorted(widths) or 'no'} numbers; give all the same width")
    ids = items.ids
    vocabulary = Vocabulary(ids if ids.dtype == np.int64 else [str(item) for item in ids.tolist()])
    codes = vocabulary.codes_of(item for item, _ in rows)
    known = np.flatnonzero(codes != UNKNOWN)
    if len(known) == 0:
        raise DataError(f"{path}: none of the items of {items.where} stands there, such as {ids[0]!r}")
    if len(np.unique(codes[known])) < len(known):
        twice = int(codes[known][np.argsort(codes[known], kind="stable")][:-1][
            np.diff(np.sort(codes[known])) == 0
        ][0])  # fmt: skip
        raise DataError(f"{path}: item {vocabulary.id_of(twice)!r} stands in two rows; keep one per item")
    values = np.zeros((len(items), widths.pop()), np.float32)
    for row in known.tolist():
        values[codes[row]] = [np.nan if number is None else number for number in rows[row][1]]
    present = np.zeros(len(items), np.bool_)
    present[codes[known]] = True
    of_items = Dense(values, present)
    of_items.check(str(path))
    return of_items
