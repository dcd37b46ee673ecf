"""The columns of a click log as one view, in either engine's words.

The view is called ``log`` and has the columns part (0 train or whole log, 1 test), session and item
(text or bigint, NULL where missing), time (bigint; NULL where unreadable, -1 where impossible),
written (text: the time as it stands in the file), and where used ord (bigint) and event (text).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nextclick.errors import DataError
from nextclick.places import Url
from nextclick.prepare.layouts import Columns

WRITTEN = (
    "[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([ T]([01]?[0-9]|2[0-3]):[0-5]?[0-9](:[0-5]?[0-9]([.][0-9]{0,9})?)?"
    "(Z| (UTC|GMT|[A-Z][A-Za-z_]+/[A-Za-z_/]+)|[+-](0[0-9]|1[0-7])(:?[0-5][0-9])?)?)?"
)
"""A time that is text, as a regular expression without backslashes: what engines read in the same way."""
_PLAIN = """CASE WHEN time LIKE '____/%'
THEN CONCAT(REPLACE(SUBSTR(time, 1, 10), '/', '-'), SUBSTR(TRIM(time), 11)) ELSE TRIM(time) END"""
_NO_ID = "'', 'nan', 'NaN', 'NAN', 'null', 'Null', 'NULL', 'none', 'None', 'NONE', '<NA>'"
"""What programs write where there is nothing; as ids they would tie together whatever lacks one."""
CLOCK_FROM, CLOCK_TO = 631_152_000, 4_102_444_800  # seconds: 1990-01-01 and 2100-01-01, UTC
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

File = Path | Url


@dataclass(frozen=True)
class Source:
    """Files of one kind with the same columns.

    kinds: column -> "integer", "float", "text", "instant", "nanos" (an instant in nanoseconds) or a type that
    cannot be used.  partitions: the
    last of these columns, whose values are not in the files but in the names of their folders (day=7).
    """

    files: tuple[File, ...]
    parquet: bool
    kinds: Mapping[str, str]
    columns: Columns
    delimiter: str = ","
    has_header: bool = True
    zipped: bool = False
    part: int = 0
    partitions: tuple[str, ...] = ()

    def kind(self, role: str) -> str | None:
        """Return the kind of a role's values, or None where the role is not used."""
        names = self.columns.of_role().get(role)
        if names is None:
            return None
        return "text" if len(names) > 1 else self.kinds[names[0]].replace("nanos", "instant")


@dataclass(frozen=True)
class Dialect:
    """The few words in which the engines differ; ``micros`` takes text or an instant, NULL if unreadable."""

    quote: Callable[[str], str]
    micros: Callable[[str, bool], str]  # expression, is it text? -> microseconds since 1970
    median: Callable[[str], str]
    whole: Callable[[str], str] = lambda value: value  # instant in nanoseconds -> its microsecond


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
            value = dialect.whole(quoted[0]) if source.kinds[columns[0]] == "nanos" else quoted[0]
            chosen.append(f"{value} AS {names.get(role, 'time')}")
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
    kind, of = source.kind("time") or "text", "raw"
    if unit == "iso":
        low, high = CLOCK_FROM * 1_000_000, CLOCK_TO * 1_000_000
        plain = _PLAIN if kind == "text" else "time"
        of = f"(SELECT *, {plain} AS plain FROM raw) AS r"
        of = f"(SELECT *, {dialect.micros('plain', kind == 'text')} AS micros FROM {of}) AS m"
        chosen.append(f"{_within('micros', low, high, 'micros')} AS time")
    else:
        chosen.append(f"{_number_sql('time', kind, unit)} AS time")
    chosen.append("CAST(time AS STRING) AS written")
    if order := source.kind("order"):
        chosen.append(f"{_whole_sql('ord', order)} AS ord")
    if source.kind("event"):
        chosen.append("COALESCE(CAST(event AS STRING), '') AS event")
    return f"SELECT {', '.join(chosen)} FROM {of}"


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
        return f"CASE WHEN {name} NOT IN ({_NO_ID}) THEN {name} END"
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
    if kind == "float":  # of other types a product may have too many digits, or too few
        number = f"CAST({name} AS DOUBLE)"
    if unit == "ns":
        whole = f"CAST(FLOOR({number}) AS BIGINT)"
        micros = f"CAST(ROUND(({whole} - {whole} % 1000) / 1000) AS BIGINT)"
    else:
        factor = 1_000_000 // PER_SECOND[unit]
        micros = f"CAST(FLOOR({number} * {factor} + 0.5) AS BIGINT)"
        if kind == "integer":
            micros = f"{number} * {factor}"
    return _within(number, low, high, micros)


def size_of(file: File) -> int:
    """Return the bytes of a file of a log."""
    return file.bytes if isinstance(file, Url) else file.stat().st_size


def literal(file: File) -> str:
    """Return a file's path as DuckDB takes it, where *, ? and [ in its name stand for themselves."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(file))


def unreadable(file: File | str, error: BaseException) -> DataError:
    """Return the error for a file that is damaged, truncated or not what its name says."""
    reason = str(error).strip().split("\n")[0]
    return DataError(f"{file}: cannot be read, it may be damaged or incomplete: {reason}")
