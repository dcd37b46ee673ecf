"""The same steps on Apache Spark, for logs that are already there; needs nextclick[spark] and Java."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray

from nextclick.errors import DataError, MissingExtraError
from nextclick.prepare.engines import DuckDB, export, together
from nextclick.prepare.sources import Dialect, Source, raw_sql, unreadable

_BROKEN = "nextclick_unreadable_line"


class Spark:
    """A Spark session with settings and names of its own; the running one is used if there is one.

    work: an existing folder, on storage that all workers reach, removed by the caller.
    Raises MissingExtraError without pyspark and DataError without Java.
    """

    dialect = Dialect(
        quote=lambda name: "`" + name.replace("`", "``") + "`",
        micros=lambda value, is_text: (
            f"UNIX_MICROS({'TRY_CAST' if is_text else 'CAST'}({value} AS TIMESTAMP))"
        ),
        median=lambda value: f"PERCENTILE_APPROX({value}, 0.5)",
    )

    def __init__(self, work: Path) -> None:
        try:
            from pyspark.sql import SparkSession
        except ImportError:
            raise MissingExtraError("--engine spark", "spark") from None
        self.work = work.absolute()
        self.scanned: Sequence[Source] = ()
        self.files: list[Path] = []
        self.lines: list[Any] = []
        running = SparkSession.getActiveSession()
        self.own = running is None
        base = running or _start(SparkSession, self.work)
        self.session = base.newSession()
        for name, value in {
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.ansi.enabled": "false",
            # Otherwise lines with too few or too many columns pass when only some columns are read.
            "spark.sql.csv.parser.columnPruning.enabled": "false",
        }.items():
            self.session.conf.set(name, value)
        if self.own:
            # A session of one machine gains nothing from the 200 partitions that are Spark's default.
            self.session.conf.set("spark.sql.shuffle.partitions", str(2 * (os.cpu_count() or 1)))
        self.delivered: list[DuckDB] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for engine in self.delivered:
            engine.__exit__()
        for lines in self.lines:
            lines.unpersist()
        if self.own:
            self.session.stop()

    def scan(self, sources: Sequence[Source]) -> None:
        self.scanned = sources
        self.files = [file for source in sources for file in source.files]
        parts = []
        for source in sources:
            name = f"source_{source.part}"
            self._run(lambda source=source, name=name: self._read(source, name))
            parts.append(raw_sql(source, name, self.dialect))
            if not source.parquet:
                parts[-1] += f" WHERE {_BROKEN} IS NULL"
        union = " UNION ALL ".join(parts)
        if all(source.parquet for source in sources):
            self.view("raw", union)
        else:
            self.table("raw", union)

    def _read(self, source: Source, name: str) -> None:
        paths = [str(file.absolute()) for file in source.files]
        if source.parquet:
            self.session.read.parquet(*paths).createOrReplaceTempView(name)
            return
        columns = ", ".join(f"{self.dialect.quote(column)} STRING" for column in source.kinds)
        lines = self.session.read.schema(f"{columns}, {_BROKEN} STRING").csv(
            paths,
            sep=source.delimiter,
            header=source.has_header,
            quote='"',
            escape='"',
            multiLine=True,
            mode="PERMISSIVE",
            columnNameOfCorruptRecord=_BROKEN,
        )
        self.lines.append(lines.persist())
        lines.createOrReplaceTempView(name)

    def unreadable_lines(self) -> tuple[int, str | None]:
        count, example = 0, None
        for source in self.scanned:
            if not source.parquet:
                found = self.rows(
                    f"SELECT SUM(1 + LENGTH({_BROKEN}) - LENGTH(REPLACE({_BROKEN}, '\\n', ''))), "
                    f"MIN({_BROKEN}) FROM source_{source.part} WHERE {_BROKEN} IS NOT NULL"
                )
                count, example = count + (found[0][0] or 0), example or found[0][1]
        return count, example

    def table(self, name: str, sql: str) -> None:
        folder = str(self.work / "tables" / name)

        def compute() -> None:
            # Written, not cached: the plan of a cached table drags along those of all tables before it.
            made = self.session.sql(sql)
            made.write.parquet(folder)
            self.session.read.schema(made.schema).parquet(folder).createOrReplaceTempView(name)

        self._run(compute)

    def view(self, name: str, sql: str) -> None:
        self._run(lambda: self.session.sql(sql).createOrReplaceTempView(name))

    def read(self, name: str, files: Sequence[Path]) -> None:
        self.files += files
        paths = [str(file.absolute()) for file in files]
        self._run(lambda: self.session.read.parquet(*paths).createOrReplaceTempView(name))

    def give(self, name: str, **columns: NDArray[Any]) -> None:
        folder = self.work / "tables" / name
        folder.mkdir(parents=True)
        with DuckDB(self.work) as writer:
            writer.write_parquet("SELECT * FROM given", folder / "given.parquet", **columns)
        self.read(name, [folder])

    def drop(self, *names: str) -> None:
        for name in names:
            for folder in (self.work / "tables" / name, self.work / name):
                shutil.rmtree(folder, ignore_errors=True)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._run(lambda: [tuple(row) for row in self.session.sql(sql).collect()])

    def deliver(self, tables: Sequence[str]) -> DuckDB:
        folders = {name: self.work / name for name in tables}
        for name, folder in folders.items():
            self._run(lambda n=name, f=folder: self.session.table(n).write.parquet(str(f)))
        engine = DuckDB(self.work)
        self.delivered.append(engine)
        export(engine, folders)
        return engine

    def _run(self, work: Callable[..., Any]) -> Any:
        """Run, turning Spark's errors about files into ours; Ctrl-C cancels the running job."""
        from py4j.protocol import Py4JError  # type: ignore[import-untyped]
        from pyspark.errors import PySparkException

        try:
            return work()
        except KeyboardInterrupt:
            self.session.sparkContext.cancelAllJobs()
            raise
        except (PySparkException, Py4JError) as error:
            text = str(error)
            if "No space left on device" in text:
                raise OSError(28, "No space left on device") from error
            if "AnalysisException" in type(error).__name__ or "ParseException" in type(error).__name__:
                raise
            named = next((file for file in self.files if str(file) in text), together(self.files))
            raise unreadable(named, error) from error


def _start(builder: Any, work: Path) -> Any:
    """Start Spark inside this process, reachable from this machine only."""
    java = Path(os.environ["JAVA_HOME"]) / "bin" / "java" if os.environ.get("JAVA_HOME") else None
    if not (java and java.exists()) and shutil.which("java") is None:
        raise DataError(
            "--engine spark needs a Java runtime, version 17 or newer, and none is found: install one, set "
            "JAVA_HOME if it is not on the PATH, or use --engine duckdb"
        )
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    return (
        builder.builder.master("local[*]")
        .appName("nextclick")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.memory", "4g")
        .config("spark.local.dir", str(work / "spark"))
        .config("spark.sql.warehouse.dir", str(work / "warehouse"))
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )
