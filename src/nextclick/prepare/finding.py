"""Finding the files of a click log, here or elsewhere, and looking at their columns."""

from __future__ import annotations

import csv
import glob
import gzip
import io
import itertools
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import duckdb

from nextclick.errors import DataError
from nextclick.places import Url, file_system, listed, place
from nextclick.prepare.layouts import choose_columns, header_of
from nextclick.prepare.sources import File, Source, literal, size_of, unreadable

DATA_NAMES = (".csv", ".tsv", ".txt", ".dat", ".parquet", ".pq")

_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")

Look = tuple[dict[str, str], str, bool, bool]  # kinds, delimiter ("": Parquet), has a header, is zipped


class Store(Protocol):
    """Where files that URLs name are found, and looked at."""

    def listed(self, url: Url) -> list[tuple[Url, str]]:
        """Return the files of a URL that is a file, a folder or a pattern, and their names below it.

        The name is "" for a file that the URL itself is.
        """

    def looks(self, files: Sequence[Url], parquet: bool) -> list[Look]:
        """Return what stands at the head of each file."""


def find_source(
    paths: str | Path | Sequence[str | Path],
    given: Mapping[str, str | None],
    part: int = 0,
    store: Store | None = None,
) -> Source:
    """Find the files of a log, look at their columns, and give each role a column.

    paths: files, folders or glob patterns, or URLs of them;  store: what opens the URLs, fsspec if not given.
    Folders named after a value, such as day=2024-05-01, are a column too, of text.  Raises DataError when
    there is no file, when files cannot be read or differ in columns, and when a role has no column or one of
    an unusable type; for URLs as ``places.file_system`` does.
    """
    store = store or _Fsspec()
    files = tuple(_files(paths, store))
    if empty := [file for file in files if size_of(file) == 0]:
        raise DataError(f"{empty[0]}: the file is empty; leave it out, or export the log again")
    parquet = [_is_parquet(file) for file in files]
    if len(set(parquet)) > 1:
        raise DataError(
            f"{files[0].parent}: holds Parquet and text files; give files of one kind, for example "
            f"'{files[0].parent}/*{files[0].suffix}'"
        )
    looks = _looks(files, parquet[0], store)
    for file, look in zip(files[1:], looks[1:], strict=False):
        if _described(look) != _described(looks[0]):
            raise DataError(
                f"{file}: its columns are not those of {files[0].name}\n"
                f"  {file.name}: {_described(look)}\n  {files[0].name}: {_described(looks[0])}\n"
                "  prepare them apart, or give only the files of one log"
            )
    kinds, delimiter, has_header, zipped = looks[0]
    where = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    partitions = _partitions(files)
    kinds = {name: kind for name, kind in kinds.items() if name not in partitions}
    kinds |= dict.fromkeys(partitions, "text")
    columns = choose_columns(list(kinds), given, where)
    source = Source(files, parquet[0], kinds, columns, delimiter, has_header, zipped, part, partitions)
    for role, names in columns.of_role().items():
        kind = source.kind(role)
        usable = {"time": ("integer", "float", "text", "instant"), "event": ("integer", "text")}
        if kind not in usable.get(role, ("integer", "float", "text")):
            raise DataError(
                f"{where}: the {role} column {names[0]!r} is of type {kind}, which cannot be used; "
                "store it as integer or text"
            )
    return source


def _partitions(files: Sequence[File]) -> tuple[str, ...]:
    """Return the columns that folders are named after. Raises DataError where they are not those of all."""
    found = [tuple(keys for keys, _ in folders_of(file)) for file in files]
    for file, keys in zip(files, found, strict=True):
        if keys != found[0]:
            raise DataError(
                f"{file}: lies in folders of {', '.join(keys) or 'no column'}, {files[0]} in those of "
                f"{', '.join(found[0]) or 'no column'}; give only the files of one log"
            )
    return found[0]


def folders_of(file: File) -> list[tuple[str, str]]:
    """Return (column, folder above) of the folders right over a file that are named after values.

    The outermost is the first.
    """
    found: list[tuple[str, str]] = []
    folder = file.as_posix().rpartition("/")[0]
    while True:
        folder, _, name = folder.rpartition("/")
        key, equals, _ = name.partition("=")
        if not (key and equals):
            return found[::-1]
        found.append((key, folder))


def _files(paths: str | Path | Sequence[str | Path], store: Store) -> Iterator[File]:
    """Yield the files that paths, folders, patterns and URLs name, each once, in the order of their names."""
    seen: set[File] = set()
    for path in [paths] if isinstance(paths, str | Path) else paths:
        named = place(path)
        for file in _expand(named) if isinstance(named, Path) else _elsewhere(named, store):
            if file not in seen:
                seen.add(file)
                yield file


def _expand(path: Path) -> list[Path]:
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file() and _is_log(str(file.relative_to(path)))]
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


def _elsewhere(url: Url, store: Store) -> list[Url]:
    found = store.listed(url)
    if not found:
        raise DataError(f"{url}: no such file or folder; check the address")
    files = [file for file, name in found if name == "" or _is_log(name)]
    if not files:
        raise DataError(f"{url}: no click log there; looked for {', '.join(DATA_NAMES)} and .gz")
    return files


def _is_log(name: str) -> bool:
    """Whether a file in a folder is one of a log; name: below the folder."""
    hidden = (".", "_")  # as Spark names its markers
    return name.removesuffix(".gz").lower().endswith(DATA_NAMES) and not any(
        part.startswith(hidden) for part in name.split("/")
    )


def _is_parquet(file: File) -> bool:
    if file.name.endswith((".parquet", ".pq")):
        return True
    if isinstance(file, Url):
        return False
    with _readable(file), file.open("rb") as stream:
        return stream.read(4) == b"PAR1"


def _looks(files: Sequence[File], parquet: bool, store: Store) -> list[Look]:
    """Return what stands at the heads of all files; of files elsewhere a store may look at fewer."""
    here = [file for file in files if isinstance(file, Path)]
    there = [file for file in files if isinstance(file, Url)]
    looks = [_look(file, parquet) for file in here]
    return looks + (store.looks(there, parquet) if there else [])


class _Fsspec:
    """Files elsewhere, opened in this process."""

    def listed(self, url: Url) -> list[tuple[Url, str]]:
        return listed(url)

    def looks(self, files: Sequence[Url], parquet: bool) -> list[Look]:
        return [_look(file, parquet) for file in files]


def _look(file: File, parquet: bool) -> Look:
    return _look_parquet(file) if parquet else _look_text(file)


def _described(look: Look) -> str:
    named = ", ".join(f"{name} ({kind})" for name, kind in look[0].items())
    return named + f", separated by {look[1]!r}" * bool(look[1]) + ", gzip" * look[3]


def _look_parquet(file: File) -> Look:
    with duckdb.connect() as connection:
        try:
            if isinstance(file, Url):
                connection.register_filesystem(file_system(file)[0])
            sql = "DESCRIBE SELECT * FROM read_parquet(?, hive_partitioning=false)"
            rows = connection.execute(sql, [literal(file)]).fetchall()
        except (duckdb.Error, OSError) as error:
            raise unreadable(file, error) from error
    return {name: _kind(kind) for name, kind, *_ in rows}, "", True, False


def _kind(duckdb_type: str) -> str:
    if duckdb_type in _INTEGERS or duckdb_type == "HUGEINT":
        return "integer"
    if duckdb_type in ("FLOAT", "DOUBLE") or duckdb_type.startswith("DECIMAL"):
        return "float"
    if duckdb_type in ("TIMESTAMP_NS", "TIMESTAMPTZ_NS"):
        return "nanos"
    if duckdb_type.startswith(("TIMESTAMP", "DATE")):
        return "instant"
    return "text" if duckdb_type == "VARCHAR" else duckdb_type


def _look_text(file: File) -> Look:
    """Read the first row of a text file."""
    with _readable(file), file.open() if isinstance(file, Url) else file.open("rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if zipped and duckdb.__version__.startswith("1."):
            # DuckDB before 2.0 takes a gzip file that is cut off for one that has ended.
            with gzip.open(raw, "rb") as unpacked:
                while unpacked.read(1 << 22):
                    pass
            raw.seek(0)
        # Only the first row has to be UTF-8 here: lines further down are counted if they are not.
        plain: Any = gzip.open(raw, "rb") if zipped else raw  # noqa: SIM115 - closed with the text over it
        with io.TextIOWrapper(plain, "utf-8-sig", "replace", newline="") as stream:
            kinds, delimiter, has_header = head_of(str(file), stream.readline(1_000_000), stream)
    return kinds, delimiter, has_header, zipped


def head_of(file: str, first_line: str, rest: Iterable[str] = ()) -> tuple[dict[str, str], str, bool]:
    """Return the columns of a text file, their separator, and whether the first row names them.

    rest: the lines after it, where a quoted name goes on.  The separator is the commonest of comma,
    semicolon, tab and |.  Raises DataError for what is no text or no table.
    """
    if "\ufffd" in first_line or "\0" in first_line:
        raise DataError(f"{file}: not UTF-8 text; convert it, e.g. with iconv -t UTF-8")
    delimiter = max(",;\t|", key=first_line.count)
    rows: Iterable[list[str]] = csv.reader(itertools.chain([first_line], rest), delimiter=delimiter)
    first = next(iter(rows), [])
    if len(first) < 2:
        raise DataError(
            f"{file}: no columns found in its first line {first_line.strip()[:80]!r}; "
            "they are to be separated by commas, semicolons, tabs or |"
        )
    names, has_header = header_of(first)
    return dict.fromkeys(names, "text"), delimiter, has_header


class _readable:
    """Turn what goes wrong while a file is opened or read into a DataError that names it."""

    def __init__(self, file: File) -> None:
        self.file = file

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError | EOFError | csv.Error | zlib.error):
            raise unreadable(self.file, error) from error
