"""A table of items and their attributes, from Parquet, CSV or Python: one row per item."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import DataError, nearest

# Names of the id column, compared without case, blanks and underscores; "id" counts where none of them is.
ID_NAMES = ("itemid", "item", "productid", "product", "articleid", "article", "sku")
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")
_INTEGERS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}
_AS_DOUBLE = {"UBIGINT", "HUGEINT", "UHUGEINT", "DOUBLE"}


@dataclass(frozen=True, eq=False)
class Column:
    """One attribute: kind "text", "number", "boolean", or the name of a type that no rule can use.

    values: [n_rows], meaningless where ``present`` is False, None for a type that cannot be used.
    """

    kind: str
    values: NDArray[Any] | None
    present: NDArray[np.bool_]


@dataclass(frozen=True, eq=False, repr=False)
class ItemTable:
    """Items by their own ids, with attributes by name.

    where: the file, for errors;  ids: [n_rows], int64 or text, each once;  id_column: where they stood;
    names: all columns there are;  columns: those that were read.  An empty text is no value.
    """

    where: str
    ids: NDArray[Any]
    id_column: str
    names: tuple[str, ...]
    columns: Mapping[str, Column]

    def __repr__(self) -> str:
        return f"<ItemTable: {len(self):,} items, {', '.join(self.names)}>"

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def read(
        cls, path: str | Path, *, id_column: str | None = None, columns: Collection[str] | None = None
    ) -> Self:
        """Read a Parquet file, or CSV or TSV with a header, gzipped or not.

        id_column: the column of item ids; recognised by its name if left out.  columns: which attributes to
        keep, all if left out.  A column of CSV holds text, and is read as numbers or booleans where a rule
        asks for these.
        Raises DataError for a file that is missing, damaged or empty, for no recognisable id column, and for
        ids that are missing, stand twice, or are neither integers nor text.
        """
        import duckdb

        path = Path(path)
        if not path.is_file():
            raise DataError(f"{path}: no such file; give the table of items, Parquet or CSV")
        kinds, table = _look(path)
        chosen = _id_column(list(kinds), id_column, str(path))
        wanted = [name for name in kinds if name == chosen or columns is None or name in columns]
        usable = [name for name in wanted if _cast(kinds[name]) is not None]
        select = ", ".join(
            f"CAST({_quoted(name)} AS {_cast(kinds[name])}) AS {_quoted(name)}" for name in usable
        )
        try:
            with duckdb.connect() as connection:
                found = connection.execute(f"SELECT {select or 'NULL'} FROM {table}").fetchnumpy()
        except duckdb.Error as error:
            raise _unreadable(path, error) from error
        n = len(found[usable[0]]) if usable else 0
        read = {name: _column(found[name], name, str(path)) for name in usable}
        read |= {
            name: Column(kinds[name], None, np.ones(n, np.bool_)) for name in wanted if name not in usable
        }
        return cls._checked(str(path), chosen, tuple(kinds), read)

    @classmethod
    def of(
        cls,
        columns: Mapping[str, Sequence[Any] | NDArray[Any]],
        *,
        id_column: str | None = None,
        where: str = "the table of items",
    ) -> Self:
        """Make a table of columns of equal length, None where there is no value; checked as ``read`` does."""
        chosen = _id_column(list(columns), id_column, where)
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise DataError(f"{where}: columns of different length: {told}")
        read = {name: _column(values, name, where) for name, values in columns.items()}
        return cls._checked(where, chosen, tuple(columns), read)

    @classmethod
    def _checked(cls, where: str, id_column: str, names: tuple[str, ...], columns: dict[str, Column]) -> Self:
        of_ids = columns.pop(id_column)
        ids = of_ids.values
        if of_ids.kind not in ("text", "number") or ids is None or np.issubdtype(ids.dtype, np.floating):
            found = str(ids.dtype) if ids is not None and of_ids.kind == "number" else of_ids.kind
            raise DataError(
                f"{where}: the item ids in column {id_column!r} are of type {found}; store them as integers "
                "or text"
            )
        if len(ids) == 0:
            raise DataError(f"{where}: holds no item; export it again")
        if not of_ids.present.all():
            row = int(np.argmin(of_ids.present)) + 1
            raise DataError(f"{where}, row {row}: no item id in column {id_column!r}; remove the row")
        listed = ids.tolist()
        if len(set(listed)) < len(listed):
            twice, count = Counter(listed).most_common(1)[0]
            raise DataError(
                f"{where}: item {twice!r} stands in {count} rows; keep one row per item (its id "
                f"column is {id_column!r})"
            )
        return cls(where, ids, id_column, names, columns)

    # -- an attribute as a rule needs it; the values of items without one are meaningless

    def column(self, name: str) -> Column:
        """Return an attribute as it was stored.

        Raises DataError when there is none of that name, with the nearest, or its type cannot be used.
        """
        if name not in self.columns:
            others = [other for other in self.names if other != self.id_column]
            there_are = ", ".join(others) or "none"
            raise DataError(
                f"{self.where} has no column {name!r}{nearest(name, others)}\n  its attributes: {there_are}"
            )
        column = self.columns[name]
        if column.values is None:
            raise DataError(
                f"{self.where}: column {name!r} is of type {column.kind}, which no rule can use; store it as "
                "text, a number or a boolean"
            )
        return column

    def texts(self, name: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return the texts of an attribute, object [n_rows], and where there is one."""
        column = self.column(name)
        if column.kind != "text":
            raise DataError(f"{self.where}: column {name!r} holds {column.kind}s, not text")
        return np.asarray(column.values), column.present

    def numbers(self, name: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return the numbers of an attribute, int64, float32 or float64 [n_rows], and where there is one.

        Raises DataError, with the row, for text that is no number and for numbers that are not finite.
        """
        column = self.column(name)
        values = np.asarray(column.values)
        if column.kind == "boolean":
            raise DataError(f"{self.where}: column {name!r} holds booleans, not numbers")
        if column.kind == "text":
            numbers = np.zeros(len(values), np.float64)
            for row in np.flatnonzero(column.present).tolist():
                try:
                    numbers[row] = float(values[row])
                except ValueError:
                    raise DataError(f"{self._row(row)}: {name} {values[row]!r} is no number") from None
            values = numbers
        broken = column.present & ~np.isfinite(values)
        if broken.any():
            row = int(np.argmax(broken))
            raise DataError(
                f"{self._row(row)}: {name} is {values[row]}; leave it empty where it is not known"
            )
        return values, column.present

    def booleans(self, name: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return the truth of an attribute, bool [n_rows], and where there is one.

        Text may be true, yes, 1, false, no, 0; numbers 1 and 0.  Raises DataError, with the row, for others.
        """
        column = self.column(name)
        if column.kind == "boolean":
            return np.asarray(column.values), column.present
        truth = np.zeros(len(self), np.bool_)
        values = np.asarray(column.values).tolist()
        for row in np.flatnonzero(column.present).tolist():
            value = values[row]
            text = value.strip().lower() if isinstance(value, str) else f"{value:g}"
            if text not in (*_TRUE, *_FALSE):
                raise DataError(f"{self._row(row)}: {name} {value!r} is neither true nor false")
            truth[row] = text in _TRUE
        return truth, column.present

    def _row(self, row: int) -> str:
        return f"{self.where}, row {row + 1} (item {self.ids[row : row + 1].tolist()[0]!r})"


def _id_column(names: list[str], asked: str | None, where: str) -> str:
    there_are = f"  it has: {', '.join(names)}"
    if asked is not None:
        if asked not in names:
            raise DataError(
                f"{where} has no column {asked!r} of item ids{nearest(asked, names)}\n{there_are}"
            )
        return asked
    plain = {name: re.sub(r"[^0-9a-z]", "", name.lower()) for name in names}
    found = [name for name in names if plain[name] in ID_NAMES] or [
        name for name in names if plain[name] == "id"
    ]
    if len(found) != 1:
        several = f"{' and '.join(map(repr, found))} could be it" if found else "none is recognised"
        raise DataError(
            f"{where}: which column holds the item ids? {several}; name it with --items-id (id_column in "
            f"Python)\n{there_are}"
        )
    return found[0]


def _column(given: Any, name: str, where: str) -> Column:
    """Return a column of plain values, where None, masked and empty text are no value."""
    if isinstance(given, np.ndarray) and given.dtype != object and given.dtype.kind not in "US":
        values: NDArray[Any] = np.ma.getdata(given)
        present = ~np.ma.getmaskarray(given)
        kind = {"b": "boolean", "i": "number", "u": "number", "f": "number"}.get(values.dtype.kind)
        return Column(kind or str(values.dtype), values if kind else None, present)
    if isinstance(given, np.ma.MaskedArray):
        masked, given = np.ma.getmaskarray(given), np.ma.getdata(given).astype(object)
        given[masked] = None
    listed = [None if value is None or value == "" else value for value in given]
    present = np.array([value is not None for value in listed], np.bool_)
    there = [value for value in listed if value is not None]
    if all(isinstance(value, str) for value in there):
        return Column("text", np.array([value or "" for value in listed], object), present)
    if all(isinstance(value, bool | np.bool_) for value in there):
        return Column("boolean", np.array([bool(value) for value in listed], np.bool_), present)
    if all(isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in there):
        filled = np.array([value or 0 for value in listed])
        return Column("number", filled if filled.dtype.kind in "iu" else filled.astype(np.float64), present)
    found = " and ".join(sorted({type(value).__name__ for value in there}))
    raise DataError(f"{where}: column {name!r} holds {found}; give text, or numbers, or booleans")


def _look(path: Path) -> tuple[dict[str, str], str]:
    """Return the columns of a file with their types, and the file as DuckDB reads it."""
    import duckdb

    # *, ? and [ in a file's name stand for themselves.
    literal = _text("".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path)))
    try:
        with path.open("rb") as raw:
            start = raw.read(4)
        if not start:
            raise DataError(f"{path}: the file is empty; export it again")
        if start == b"PAR1" or path.suffix in (".parquet", ".pq"):
            with duckdb.connect() as connection:
                rows = connection.execute(f"DESCRIBE SELECT * FROM read_parquet({literal})").fetchall()
            return {name: kind for name, kind, *_ in rows}, f"read_parquet({literal})"
        zipped = start[:2] == b"\x1f\x8b"
        if zipped:
            with gzip.open(path, "rb") as unpacked:  # DuckDB takes a file that is cut off for one that ended
                while unpacked.read(1 << 22):
                    pass
        opened = gzip.open if zipped else open
        with opened(path, "rt", encoding="utf-8-sig", newline="") as stream:
            first_line = stream.readline(1_000_000)
            delimiter = max(",;\t|", key=first_line.count)
            stream.seek(0)
            header = next(iter(csv.reader(stream, delimiter=delimiter)), [])
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text; convert it, e.g. with iconv -t UTF-8") from error
    except (OSError, EOFError, zlib.error, csv.Error, duckdb.Error) as error:
        raise _unreadable(path, error) from error
    twice = [name for name, count in Counter(name.lower() for name in header).items() if count > 1]
    if twice or not all(header):
        told = f"the column {twice[0]!r} twice" if twice else "a column without a name"
        raise DataError(f"{path}: its first line names {told}; give every column its own name")
    columns = ", ".join(f"{_text(name)}: 'VARCHAR'" for name in header)
    return dict.fromkeys(header, "VARCHAR"), (
        f"read_csv([{literal}], auto_detect=false, columns={{{columns}}}, header=true, "
        f"delim={_text(delimiter)}, quote='\"', escape='\"', comment='', strict_mode=true, "
        f"compression='{'gzip' if zipped else 'none'}', max_line_size=16777216)"
    )


def _cast(kind: str) -> str | None:
    """Return the type that a column is read as, None where no rule can use it."""
    if kind in _INTEGERS:
        return "BIGINT"
    if kind in _AS_DOUBLE or kind.startswith("DECIMAL"):
        return "DOUBLE"
    if kind in ("VARCHAR", "UUID") or kind.startswith("ENUM"):
        return "VARCHAR"
    return kind if kind in ("FLOAT", "BOOLEAN") else None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _unreadable(path: Path, error: BaseException) -> DataError:
    reason = str(error).strip().split("\n")[0]
    return DataError(f"{path}: cannot be read, it may be damaged or incomplete: {reason}")
