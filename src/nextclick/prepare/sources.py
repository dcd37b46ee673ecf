"""Finding the files of a click log and turning their columns into one view, in either engine's words.

The view is called ``log`` and has the columns part (0 train or whole log, 1 test), session and item
(text or bigint, NULL where missing), time (bigint; NULL where unreadable, -1 where impossible),
written (text: the time as it stands in the file), and where used ord (bigint) and event (text).
"""

from __future__ import annotations

import csv
import glob
import gzip
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from nextclick.errors import DataError
from nextclick.prepare.layouts import Columns, choose_columns, header_of

DATA_NAMES = (".csv", ".tsv", ".txt", ".dat", ".parquet", ".pq")
CLOCK_FROM, CLOCK_TO = 631_152_000, 4_102_444_800  # seconds: 1990-01-01 and 2100-01-01, UTC
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")


@dataclass(frozen=True)
class Source:
    """Files of one kind with the same columns.

    kinds: column -> "integer", "float", "text", "instant" or a type that cannot be used.
    """

    files: tuple[Path, ...]
    parquet: bool
    kinds: Mapping[str, str]
    columns: Columns
    delimiter: str = ","
    has_header: bool = True
    zipped: bool = False
    part: int = 0

    def kind(self, role: str) -> str | None:
        """Return the kind of a role's values, or None where the role is not used."""
        names = self.columns.of_role().get(role)
        return None if names is None else "text" if len(names) > 1 else self.kinds[names[0]]


@dataclass(frozen=True)
class Dialect:
    """The few words in which the engines differ; ``micros`` takes text or an instant, NULL if unreadable."""

    quote: Callable[[str], str]
    micros: Callable[[str, bool], str]  # expression, is it text? -> microseconds since 1970
    median: Callable[[str], str]


def find_source(
    paths: str | Path | Sequence[str | Path], given: Mapping[str, str | None], part: int = 0
) -> Source:
    """Find the files of a log, look at their columns, and give each role a column.

    paths: files, folders or glob patterns.  Raises DataError when there is none, when they cannot be
    read or differ in columns, and when a role has no column or one of an unusable type.
    """
    files = tuple(_files(paths))
    if empty := [file for file in files if file.stat().st_size == 0]:
        raise DataError(f"{empty[0]}: the file is empty; leave it out, or export the log again")
    parquet = [_is_parquet(file) for file in files]
    if len(set(parquet)) > 1:
        raise DataError(
            f"{files[0].parent}: holds Parquet and text files; give files of one kind, for example "
            f"'{files[0].parent}/*{files[0].suffix}'"
        )
    looks = [_look_parquet(file) if parquet[0] else _look_text(file) for file in files]
    for file, look in zip(files[1:], looks[1:], strict=True):
        if _described(look) != _described(looks[0]):
            raise DataError(
                f"{file}: its columns are not those of {files[0].name}\n"
                f"  {file.name}: {_described(look)}\n  {files[0].name}: {_described(looks[0])}\n"
                "  prepare them apart, or give only the files of one log"
            )
    kinds, delimiter, has_header, zipped = looks[0]
    where = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    columns = choose_columns(list(kinds), given, where)
    source = Source(files, parquet[0], kinds, columns, delimiter, has_header, zipped, part)
    for role, names in columns.of_role().items():
        kind = source.kind(role)
        usable = {"time": ("integer", "float", "text", "instant"), "event": ("integer", "text")}
        if kind not in usable.get(role, ("integer", "float", "text")):
            raise DataError(
                f"{where}: the {role} column {names[0]!r} is of type {kind}, which cannot be used; "
                "store it as integer or text"
            )
    return source


def raw_sql(source: Source, table: str, dialect: Dialect) -> str:
    """Return SELECT text for the columns of the roles, still as they stand in the files.

    table: the files as the engine reads them.
    """
    names = {"session": "session", "user": "session", "item": "item", "order": "ord", "event": "event"}
    chosen = [f"{source.part} AS part"]
    for role, columns in source.columns.of_role().items():
        quoted = [dialect.quote(column) for column in columns]
        if role == "time" and len(columns) == 3:
            year, *rest = (f"CAST({column} AS STRING)" for column in quoted)
            padded = "".join(f", '-', LPAD({column}, 2, '0')" for column in rest)
            chosen.append(f"CONCAT({year}{padded}) AS time")
        else:
            chosen.append(f"{quoted[0]} AS {names.get(role, 'time')}")
    return f"SELECT {', '.join(chosen)} FROM {table}"


def log_sql(source: Source, unit: str, dialect: Dialect) -> str:
    """Return the SELECT text of the view ``log`` over the table ``raw``.

    unit: "iso" where the times are text or instants, else "s", "ms", "us", "ns" or "ordinal".
    """
    chosen = ["part"]
    for role, name in (("session", "session"), ("user", "session"), ("item", "item")):
        kind = source.kind(role)
        if kind:
            chosen.append(f"{_id_sql(name, kind)} AS {name}")
    kind = source.kind("time") or "text"
    if unit == "iso":
        low, high = CLOCK_FROM * 1_000_000, CLOCK_TO * 1_000_000
        micros = dialect.micros("time", kind == "text")
        chosen.append(f"{_within(micros, low, high, micros)} AS time")
    else:
        chosen.append(f"{_number_sql('time', kind, unit)} AS time")
    chosen.append("CAST(time AS STRING) AS written")
    if order := source.kind("order"):
        chosen.append(f"{_whole_sql('ord', order)} AS ord")
    if source.kind("event"):
        chosen.append("COALESCE(CAST(event AS STRING), '') AS event")
    return f"SELECT {', '.join(chosen)} FROM raw"


def unit_of(source: Source, asked: str, numbers: int, present: int, median: float | None) -> str:
    """Return the unit of the times: as asked, or told by the median of those that are numbers.

    numbers, present: how many times are numbers, and how many are there at all.
    A median between the years 1990 and 2100 in seconds, milli-, micro- or nanoseconds names the unit; a
    smaller one is a counter ("ordinal").  Raises DataError when it fits neither.
    """
    kind = source.kind("time")
    if kind == "instant" or (kind == "text" and asked == "auto" and numbers * 2 < present):
        return "iso"
    if asked != "auto" or median is None:
        return "ordinal" if asked == "auto" else asked
    if median < CLOCK_FROM:
        return "ordinal"
    for unit, per_second in PER_SECOND.items():
        if CLOCK_FROM * per_second <= median < CLOCK_TO * per_second:
            return unit
    raise DataError(
        f"{source.files[0]}: times such as {median:.0f} are in no unit between the years 1990 and 2100; "
        "name it with --time-unit s, ms, us or ns, or --time-unit ordinal if they only count up"
    )


def _within(value: str, low: int, high: int, then: str) -> str:
    """Return ``then`` where the value is in [low, high), -1 where it is outside, NULL where it is NULL."""
    outside = f"{value} < {low} OR {value} >= {high}"
    return f"CASE WHEN {value} IS NULL THEN NULL WHEN {outside} THEN -1 ELSE {then} END"


def _id_sql(name: str, kind: str) -> str:
    if kind == "text":
        return f"NULLIF({name}, '')"
    return _whole_sql(name, kind)


def _whole_sql(name: str, kind: str) -> str:
    """Return a whole number as bigint, NULL for anything else; "12.0" counts as 12."""
    if kind == "integer":
        return f"TRY_CAST({name} AS BIGINT)"
    number = f"TRY_CAST({name} AS DECIMAL(38,6))" if kind == "text" else name
    return f"CASE WHEN {number} = FLOOR({number}) THEN TRY_CAST({number} AS BIGINT) END"


def _number_sql(name: str, kind: str, unit: str) -> str:
    """Return numeric times as microseconds, or unchanged where they only count up."""
    if unit == "ordinal":
        whole = _whole_sql(name, kind)
        return _within(whole, 0, 2**62, whole)
    low, high = CLOCK_FROM * PER_SECOND[unit], CLOCK_TO * PER_SECOND[unit]
    if kind == "text":
        # A double holds every microsecond until 2100; nanoseconds need more digits, and cost more time.
        name = f"TRY_CAST({name} AS {'DECIMAL(38,6)' if unit == 'ns' else 'DOUBLE'})"
    number = f"TRY_CAST({name} AS BIGINT)" if kind == "integer" else name
    if unit == "ns":
        whole = f"CAST(FLOOR({number}) AS BIGINT)"
        micros = f"CAST(ROUND(({whole} - {whole} % 1000) / 1000) AS BIGINT)"
    else:
        factor = 1_000_000 // PER_SECOND[unit]
        micros = f"CAST(FLOOR({number} * {factor} + 0.5) AS BIGINT)"
        if kind == "integer":
            micros = f"{number} * {factor}"
    return _within(number, low, high, micros)


def _files(paths: str | Path | Sequence[str | Path]) -> Iterator[Path]:
    """Yield the files that paths, folders and patterns name, each once, in the order of their names."""
    seen: set[Path] = set()
    for path in [paths] if isinstance(paths, str | Path) else paths:
        for file in _expand(Path(path)):
            if file not in seen:
                seen.add(file)
                yield file


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        inside = (file for file in path.rglob("*") if file.is_file())
        hidden = (".", "_")  # as Spark names its markers
        files = [
            file
            for file in inside
            if file.name.removesuffix(".gz").lower().endswith(DATA_NAMES)
            and not any(part.startswith(hidden) for part in file.relative_to(path).parts)
        ]
        if not files:
            raise DataError(
                f"{path}: no click log in this folder; looked for {', '.join(DATA_NAMES)} and .gz"
            )
        return sorted(files)
    if path.exists():
        return [path]
    matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))
    if not matches:
        raise DataError(f"{path}: no such file or folder; check the path")
    return list(itertools.chain.from_iterable(_expand(match) for match in matches))


def _is_parquet(file: Path) -> bool:
    with _readable(file), file.open("rb") as stream:
        return stream.read(4) == b"PAR1" or file.name.endswith((".parquet", ".pq"))


Look = tuple[dict[str, str], str, bool, bool]  # kinds, delimiter ("": Parquet), has a header, is zipped


def _described(look: Look) -> str:
    named = ", ".join(f"{name} ({kind})" for name, kind in look[0].items())
    return named + f", separated by {look[1]!r}" * bool(look[1]) + ", gzip" * look[3]


def _look_parquet(file: Path) -> Look:
    with duckdb.connect() as connection:
        try:
            rows = connection.execute("DESCRIBE SELECT * FROM read_parquet(?)", [literal(file)]).fetchall()
        except duckdb.Error as error:
            raise unreadable(file, error) from error
    return {name: _kind(kind) for name, kind, *_ in rows}, "", True, False


def _kind(duckdb_type: str) -> str:
    if duckdb_type in _INTEGERS or duckdb_type == "HUGEINT":
        return "integer"
    if duckdb_type in ("FLOAT", "DOUBLE") or duckdb_type.startswith("DECIMAL"):
        return "float"
    if duckdb_type.startswith(("TIMESTAMP", "DATE")):
        return "instant"
    return "text" if duckdb_type == "VARCHAR" else duckdb_type


def _look_text(file: Path) -> Look:
    """Read the first row of a text file; the separator is the commonest of comma, semicolon, tab and |."""
    with _readable(file):
        with file.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        if zipped and duckdb.__version__.startswith("1."):
            # DuckDB before 2.0 takes a gzip file that is cut off for one that has ended.
            with gzip.open(file, "rb") as unpacked:
                while unpacked.read(1 << 22):
                    pass
        opened = gzip.open if zipped else open
        # Only the first row has to be UTF-8 here: lines further down are counted if they are not.
        with opened(file, "rt", encoding="utf-8-sig", errors="replace", newline="") as stream:
            first_line = stream.readline(1_000_000)
            delimiter = max(",;\t|", key=first_line.count)
            stream.seek(0)
            rows: Iterable[list[str]] = csv.reader(stream, delimiter=delimiter)
            first = next(iter(rows), [])
    if "\ufffd" in first_line or "\0" in first_line:
        raise DataError(f"{file}: not UTF-8 text; convert it, e.g. with iconv -t UTF-8")
    if len(first) < 2:
        raise DataError(
            f"{file}: no columns found in its first line {first_line.strip()[:80]!r}; "
            "they are to be separated by commas, semicolons, tabs or |"
        )
    names, has_header = header_of(first)
    return dict.fromkeys(names, "text"), delimiter, has_header, zipped


class _readable:
    """Turn what goes wrong while a file is opened or read into a DataError that names it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError | EOFError | csv.Error | zlib.error):
            raise unreadable(self.file, error) from error


def literal(file: Path) -> str:
    """Return a file's path as DuckDB takes it, where *, ? and [ in its name stand for themselves."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(file))


def unreadable(file: Path | str, error: BaseException) -> DataError:
    """Return the error for a file that is damaged, truncated or not what its name says."""
    reason = str(error).strip().split("\n")[0]
    return DataError(f"{file}: cannot be read, it may be damaged or incomplete: {reason}")
