"""The same steps on Apache Spark, for logs that are already there; needs nextclick[spark] and Java."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray

from nextclick.errors import ConfigError, DataError, MissingExtraError
from nextclick.places import Url
from nextclick.prepare.engines import DuckDB, export, together
from nextclick.prepare.finding import Look, folders_of, head_of
from nextclick.prepare.sources import WRITTEN, Dialect, File, Source, raw_sql, unreadable

_MEMORY = 4 << 30
_BROKEN = "nextclick_unreadable_line"
_NO_SECONDS = "^([0-9-]+[T ][0-9]{1,2}:[0-9]{1,2})(Z| [A-Z]|[+-])"  # Spark knows no zone after minutes
_LOST = re.compile(
    r"Python worker exited unexpectedly[^\n]*|ExecutorLostFailure[^\n]*|Connection refused|"
    r"Connection reset by peer|Answer from Java side is empty|SparkContext was shut down|"
    r"stopped SparkContext|Error while sending or receiving|"
    r"An error occurred while trying to connect[^\n]*"
)


class Spark:
    """A Spark session with settings and names of its own; the running one is used if there is one.

    work: an existing folder, on storage that all workers reach, removed by the caller;  memory: bytes of the
    Java machine, where one is started; 4 GiB if not given.
    Raises MissingExtraError without pyspark and DataError without Java.
    """

    dialect = Dialect(
        quote=lambda name: "`" + name.replace("`", "``") + "`",
        # The end: not $, which is also before a last line feed.
        micros=lambda value, is_text: (
            f"CASE WHEN {value} RLIKE '^({WRITTEN})(?!(?s:.))' "
            f"THEN UNIX_MICROS(TRY_CAST(REGEXP_REPLACE({value}, '{_NO_SECONDS}', '$1:00$2') "
            "AS TIMESTAMP)) END"
            if is_text
            else f"UNIX_MICROS(CAST({value} AS TIMESTAMP))"
        ),
        median=lambda value: f"PERCENTILE_APPROX({value}, 0.5)",
    )

    def __init__(self, work: Path, memory: int | None = None) -> None:
        try:
            from pyspark.sql import SparkSession
        except ImportError:
            raise MissingExtraError("--engine spark", "spark") from None
        self.work = work.absolute()
        self.scanned: Sequence[Source] = ()
        self.files: list[File] = []
        self.lines: list[Any] = []
        running = SparkSession.getActiveSession()
        self.own = running is None
        base = running or _start(SparkSession, self.work, memory or _MEMORY)
        self.session = base.newSession()
        for name, value in {
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.ansi.enabled": "false",
            # Otherwise lines with too few or too many columns pass when only some columns are read.
            "spark.sql.csv.parser.columnPruning.enabled": "false",
            # Times that other programs wrote: days long ago by today's calendar, nanoseconds as they are.
            "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
            "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
            "spark.sql.legacy.parquet.nanosAsLong": "true",
            # What folders are named after is text, as in the other engine.
            "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
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
        with contextlib.suppress(Exception):  # Spark may be what was lost
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
        inside = [column for column in source.kinds if column not in source.partitions]
        columns = ", ".join(f"{self.dialect.quote(column)} STRING" for column in inside)
        parts = None
        for base, paths in _by_folder(source).items():
            reader = self.session.read if base is None else self.session.read.option("basePath", base)
            if source.parquet:
                part = self._with_instants(reader.parquet(*paths), source)
            else:
                part = reader.schema(f"{columns}, {_BROKEN} STRING").csv(
                    paths,
                    sep=source.delimiter,
                    header=source.has_header,
                    quote='"',
                    escape='"',
                    multiLine=True,
                    mode="PERMISSIVE",
                    columnNameOfCorruptRecord=_BROKEN,
                )
            parts = part if parts is None else parts.unionByName(part)
        assert parts is not None
        if not source.parquet:
            self.lines.append(parts.persist())
        parts.createOrReplaceTempView(name)

    def _with_instants(self, rows: Any, source: Source) -> Any:
        """Return rows whose instants in nanoseconds, which Spark reads as numbers, are instants."""
        kinds = dict(rows.dtypes)
        for column, kind in source.kinds.items():
            if kind == "nanos" and kinds.get(column) == "bigint":
                quoted = self.dialect.quote(column)
                rows = rows.withColumn(column, _expression(f"TIMESTAMP_MICROS({quoted} DIV 1000)"))
        return rows

    def listed(self, url: Url) -> list[tuple[Url, str]]:
        """Return the files of a URL, as Spark's own file systems see them, and their names below it."""
        text, self.files = url.text.rstrip("/"), [url]

        def look() -> list[tuple[str, int]]:
            reader = self.session.read.format("binaryFile").option("recursiveFileLookup", "true")
            return [tuple(row) for row in reader.load(text).select("path", "length").collect()]

        try:
            found = self._run(look)
        except DataError as error:
            if "PATH_NOT_FOUND" in str(error.__cause__):
                return []
            raise
        plain = text.partition("://")[2].lstrip("/")
        names = [(path, size, path.partition(":")[2].lstrip("/")) for path, size in found]
        pattern = any(letter in plain for letter in "*?[{")
        return sorted(
            (Url(path, size), name.rpartition("/")[2] if pattern else name[len(plain) :].lstrip("/"))
            for path, size, name in names
        )

    def looks(self, files: Sequence[Url], parquet: bool) -> list[Look]:
        """Return what stands at the head of the first of the files; the others are taken to be like it."""
        first = str(files[0])
        self.files = list(files)
        if parquet:
            types = self._run(lambda: self.session.read.parquet(first).dtypes)
            return [({name: _kind(of) for name, of in types}, "", True, False)]
        line = self._run(lambda: self.session.read.text(first).first())
        kinds, delimiter, has_header = head_of(first, line[0].removeprefix("\ufeff") if line else "")
        return [(kinds, delimiter, has_header, first.endswith(".gz"))]

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
        folder = _here(self.work / "tables" / name)

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
        paths = [located(file) for file in files]
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
            self._run(lambda n=name, f=folder: self.session.table(n).write.parquet(_here(f)))
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
        except (PySparkException, Py4JError, ConnectionError, EOFError) as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> Exception:
        text = str(error)
        if "No space left on device" in text:
            return OSError(28, "No space left on device")
        if why := lost(error):
            return DataError(
                f"Spark lost a worker or ended ({why}), most likely for want of memory or ended by somebody; "
                "nothing was kept. Run the same command again, with more memory for Spark (--memory 16GB, "
                "where none is running)"
            )
        scheme = re.search(
            r"No FileSystem for scheme \"?([\w+.-]+)|Class (org\.apache\S+FileSystem) not found", text
        )
        if scheme:
            return ConfigError(
                f"{together(self.files)}: Spark has no file system for {scheme[1] or scheme[2]}: start it "
                "with the package that opens it (spark.jars.packages in spark-defaults.conf, for s3a:// "
                "org.apache.hadoop:hadoop-aws), or use --engine duckdb, which reads through fsspec"
            )
        if "PATH_NOT_FOUND" in text:
            return DataError(f"{together(self.files)}: no such file or folder; check the address")
        if "AnalysisException" in type(error).__name__ or "ParseException" in type(error).__name__:
            return error
        named = next((file for file in self.files if str(file) in text), together(self.files))
        return unreadable(named, error)


def lost(error: BaseException) -> str | None:
    """Return what of Spark was lost, where an error says so: a worker, or the whole of it."""
    found = _LOST.search(str(error))
    if found is not None:
        return found[0].strip()
    if isinstance(error, OSError | EOFError):
        return (str(error).splitlines() or [repr(error)])[0]
    return None


def _by_folder(source: Source) -> dict[str | None, list[str]]:
    """Return the files by the folder under which the folders named after values begin; None without any."""
    found: dict[str | None, list[str]] = {}
    for file in source.files:
        whole = file.absolute()
        folders = folders_of(whole)
        base = folders[0][1] or "/" if folders else None
        if base is not None and isinstance(whole, Path):
            base = _here(base)
        found.setdefault(base, []).append(located(whole))
    return found


def located(file: File) -> str:
    """Return a file as Spark takes it, where *, ? and the like in the name stand for themselves."""
    if isinstance(file, Url):
        return file.text
    return _here(re.sub(r"([\[\]{}*?\\])", r"\\\1", str(file.absolute())))


def _here(path: object) -> str:
    """Return a path of this machine as a URL, as Spark's own file system may be another one."""
    return f"file://{path}"


def _expression(sql: str) -> Any:
    from pyspark.sql import functions

    return functions.expr(sql)


def _kind(spark_type: str) -> str:
    """Return the kind of a column by Spark's name of its type."""
    if spark_type in ("tinyint", "smallint", "int", "bigint"):
        return "integer"
    if spark_type in ("float", "double") or spark_type.startswith("decimal"):
        return "float"
    if spark_type in ("timestamp", "timestamp_ntz", "date"):
        return "instant"
    return "text" if spark_type == "string" else spark_type


def _start(builder: Any, work: Path, memory: int) -> Any:
    """Start Spark inside this process, reachable from this machine only.

    Raises DataError without Java, or where it does not start, as with a Java that is too old.
    """
    java = Path(os.environ["JAVA_HOME"]) / "bin" / "java" if os.environ.get("JAVA_HOME") else None
    if not (java and java.exists()) and shutil.which("java") is None:
        raise DataError(
            "--engine spark needs a Java runtime, version 17 or newer, and none is found: install one, set "
            "JAVA_HOME if it is not on the PATH, or use --engine duckdb"
        )
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    configured = (
        builder.builder.master("local[*]")
        .appName("nextclick")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.memory", f"{memory >> 20}m")
        .config("spark.local.dir", str(work / "spark"))
        .config("spark.sql.warehouse.dir", str(work / "warehouse"))
        .config("spark.log.level", "ERROR")
    )
    from pyspark.errors import PySparkException

    try:
        return configured.getOrCreate()
    except (PySparkException, OSError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        used = java or shutil.which("java")
        raise DataError(
            f"Spark could not be started with {used} ({reason}): it needs a Java runtime of version 17 or "
            "newer; install one and set JAVA_HOME to it, or use --engine duckdb"
        ) from error
