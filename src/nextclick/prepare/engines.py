"""The engines that run the steps: what they have in common, and DuckDB."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import duckdb
import numpy as np
from numpy.typing import NDArray

from nextclick import machine
from nextclick.errors import DataError
from nextclick.places import Url, file_system
from nextclick.prepare.sources import WRITTEN, Dialect, File, Source, literal, raw_sql, unreadable


class Engine(Protocol):
    """Runs portable SQL over tables and views that it keeps by name."""

    dialect: Dialect

    def scan(self, sources: Sequence[Source]) -> None:
        """Make ``raw``, the rows of all sources; raises DataError when a file cannot be read."""

    def unreadable_lines(self) -> tuple[int, str | None]:
        """Return how many lines of text files could not be parsed, and one of them."""

    def table(self, name: str, sql: str) -> None:
        """Compute ``sql`` once and keep it under a name."""

    def view(self, name: str, sql: str) -> None:
        """Give ``sql`` a name."""

    def read(self, name: str, files: Sequence[Path]) -> None:
        """Give the rows of Parquet files of ours, all with the same columns, a name."""

    def give(self, name: str, **columns: NDArray[Any]) -> None:
        """Keep arrays of one length as a table, under a name."""

    def drop(self, *names: str) -> None:
        """Free what is kept under these names; views stay."""

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a small result."""

    def deliver(self, tables: Sequence[str]) -> DuckDB:
        """Return a DuckDB that holds these tables, for the last stage, which is the same for all engines."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


class DuckDB:
    """DuckDB in memory, spilling to ``work``; it can read the sources and ``work`` and nothing else.

    work: an existing folder, removed by the caller;  readable: files of the sources, those elsewhere are read
    through fsspec;  memory: bytes to work in, before it spills; 60% of the machine's if not given.  Ctrl-C
    stops a running query.
    """

    dialect = Dialect(
        quote=lambda name: '"' + name.replace('"', '""') + '"',
        micros=lambda value, is_text: (
            f"CASE WHEN regexp_full_match({value}, '{WRITTEN}') "
            f"THEN epoch_us(TRY_CAST({value} AS TIMESTAMPTZ)) END"
            if is_text
            else f"epoch_us(CAST({value} AS TIMESTAMPTZ))"
        ),
        median=lambda value: f"quantile_disc({value}, 0.5)",
        whole=lambda value: f"make_timestamp(epoch_ns(CAST({value} AS TIMESTAMP_NS)) // 1000)",
    )

    def __init__(self, work: Path, readable: Sequence[File] = (), memory: int | None = None) -> None:
        self.work = work
        self.scanned: Sequence[Source] = ()
        self.files: list[File] = []  # that are read, to be named where one is damaged
        self.tables: set[str] = set()
        self.connection = duckdb.connect(
            config={
                "temp_directory": str(work / "spill"),
                "threads": machine.cores(),
                "memory_limit": f"{memory or machine.memory() * 6 // 10}B",
                "preserve_insertion_order": False,
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            }
        )
        for files in {file_system(path)[0] for path in readable if isinstance(path, Url)}:
            self.connection.register_filesystem(files)
        names = {name for path in readable for name in (str(path), literal(path))}
        allowed = ", ".join(_text(name) for name in sorted(names))
        for setting in (
            "TimeZone = 'UTC'",
            "enable_progress_bar = false",
            f"allowed_paths = [{allowed}]",
            f"allowed_directories = [{_text(str(work.parent))}]",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            self.connection.execute(f"SET {setting}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.connection.close()

    def scan(self, sources: Sequence[Source]) -> None:
        self.scanned = sources
        self.files = [file for source in sources for file in source.files]
        parts = [raw_sql(source, _reader(source), self.dialect) for source in sources]
        union = " UNION ALL ".join(parts)
        # Text is parsed once, which also finds the lines that cannot be; Parquet is cheap to read again.
        if all(source.parquet for source in sources):
            self.view("raw", union)
        else:
            self.table("raw", union)

    def unreadable_lines(self) -> tuple[int, str | None]:
        if all(source.parquet for source in self.scanned):
            return 0, None
        # A quote that is never closed swallows the lines after it: each of them counts.
        found = self.rows(
            "SELECT MIN(csv_line), ANY_VALUE(error_message) FROM reject_errors "
            "GROUP BY scan_id, file_id, line"
        )
        lines = sum(1 + (text or "").strip().count("\n") for text, _ in found)
        example = min(((text or why).strip() for text, why in found), default=None)
        return lines, example

    def table(self, name: str, sql: str) -> None:
        self._run(lambda c: c.execute(f"CREATE TEMP TABLE {name} AS {sql}"))
        self.tables.add(name)

    def view(self, name: str, sql: str) -> None:
        self._run(lambda c: c.execute(f"CREATE TEMP VIEW {name} AS {sql}"))

    def read(self, name: str, files: Sequence[Path]) -> None:
        self.files += files
        listed = ", ".join(_text(literal(file)) for file in files)
        self.view(name, f"SELECT * FROM read_parquet([{listed}])")

    def give(self, name: str, **columns: NDArray[Any]) -> None:
        def copy(connection: duckdb.DuckDBPyConnection) -> None:
            connection.register("given", columns)
            connection.execute(f"CREATE TEMP TABLE {name} AS SELECT * FROM given")
            connection.unregister("given")

        self._run(copy)
        self.tables.add(name)

    def drop(self, *names: str) -> None:
        for name in self.tables.intersection(names):
            self.connection.execute(f"DROP TABLE {name}")
            self.tables.remove(name)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._run(lambda c: c.execute(sql).fetchall())

    def stream(self, sql: str, size: int = 50_000) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a result, ``size`` of them in memory at a time."""
        cursor = self._run(lambda c: c.execute(sql))
        while some := cursor.fetchmany(size):
            yield from some

    def columns(self, sql: str) -> dict[str, NDArray[Any]]:
        """Return the result as one array per column; text comes as objects."""
        found = self._run(lambda c: c.execute(sql).fetchnumpy())
        return {name: np.ma.getdata(values) for name, values in found.items()}

    def write_parquet(self, sql: str, path: Path, **arrays: NDArray[Any]) -> None:
        """Write a result as Parquet; ``arrays``, all of one length, can be read as the table ``given``."""

        def write(connection: duckdb.DuckDBPyConnection) -> None:
            if arrays:
                connection.register("given", arrays)
            connection.execute(f"COPY ({sql}) TO {_text(str(path))} (FORMAT parquet)")
            if arrays:
                connection.unregister("given")

        self._run(write)

    def deliver(self, tables: Sequence[str]) -> DuckDB:
        return self

    def _run(self, work: Callable[[duckdb.DuckDBPyConnection], Any]) -> Any:
        """Run in a thread, because DuckDB itself does not hear Ctrl-C while a query runs."""
        outcome: list[Any] = []
        failure: list[BaseException] = []
        # Not thread.join and is_alive: a join that Ctrl-C interrupts takes a running thread for ended.
        done = threading.Event()

        def target() -> None:
            try:
                outcome.append(work(self.connection))
            except BaseException as error:
                failure.append(error)
            finally:
                done.set()

        thread = threading.Thread(target=target, daemon=True)
        try:
            thread.start()
            while not done.wait(0.2):
                pass
        except BaseException:
            while not done.wait(0.1) and thread.ident is not None:
                self.connection.interrupt()
            raise
        if failure:
            raise _explained(failure[0], self.files, self.work) from failure[0]
        return outcome[0]


def export(engine: DuckDB, tables: dict[str, Path]) -> None:
    """Give Parquet folders written by another engine the names that the last stage reads."""
    for name, folder in tables.items():
        engine.view(name, f"SELECT * FROM read_parquet({_text(f'{literal(folder)}/*.parquet')})")


def _explained(error: BaseException, files: Sequence[File], work: Path) -> BaseException:
    """Return what to raise for an error of DuckDB: about the disk, the memory or the files."""
    text = str(error)
    if "No space left on device" in text or "ENOSPC" in text:
        return OSError(errno.ENOSPC, "No space left on device")
    if isinstance(error, duckdb.OutOfMemoryException):
        return DataError(f"not enough memory or room for temporary files: {text.splitlines()[0]}")
    if isinstance(error, duckdb.InvalidInputException) and "state machine" in text:
        return DataError(
            f"{files[0]}: a line ends in another way than the others (CR LF against LF), or a "
            "quote is out of place; make the line ends the same, e.g. with sed -i 's/\\r$//'"
        )
    if str(work.parent) in text:
        return error
    if isinstance(error, OSError):
        return unreadable(together(files), error) if any(isinstance(file, Url) for file in files) else error
    damaged = (duckdb.IOException, duckdb.InvalidInputException, duckdb.ConversionException)
    # Damage inside Parquet is told by an error of no class of its own.
    if isinstance(error, damaged) or type(error) is duckdb.Error:
        named = next((file for file in files if str(file) in text), together(files))
        return unreadable(named, error)
    return error


def together(files: Sequence[File]) -> File | str:
    """Return how to name files of which one is damaged, it is not known which: the file, or their folder."""
    if len(files) < 2:
        return files[0] if files else "the log"
    if any(isinstance(file, Url) for file in files):
        return f"{files[0]} and {len(files) - 1} more"
    return os.path.commonpath([str(file.absolute()) for file in files])


def _reader(source: Source) -> str:
    """Return the table function that reads the files, every value of text files as it is written."""
    files = ", ".join(_text(literal(file)) for file in source.files)
    # As text, so that both engines read the same; else each has its own idea of what is a number or a date.
    folders = f"hive_partitioning={bool(source.partitions)}, hive_types_autocast=false"
    if source.parquet:
        return f"read_parquet([{files}], {folders})"
    inside = [name for name in source.kinds if name not in source.partitions]
    columns = ", ".join(f"{_text(name)}: 'VARCHAR'" for name in inside)
    return (
        f"read_csv([{files}], {folders}, auto_detect=false, columns={{{columns}}}, "
        f"header={source.has_header}, "
        f"delim={_text(source.delimiter)}, quote='\"', escape='\"', comment='', strict_mode=true, "
        f"compression='{'gzip' if source.zipped else 'none'}', max_line_size=16777216, "
        "store_rejects=true, rejects_limit=0)"
    )


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
