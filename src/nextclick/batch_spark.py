"""Recommendations for sessions without number, on Apache Spark: Parquet by partition, which can be resumed.

A session belongs to the partition that its id hashes to, whatever the cluster. A worker opens the model once,
answers a partition and gives its file the final name when it is complete; so what lies there is complete,
and a run that was ended in whatever way is taken up again by the same command, which answers the partitions
that are missing. The model, rules and the folder of the lists are opened by their paths on every worker.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextclick import artifact
from nextclick.batch import JSON_LINES, Counts, session_of_line
from nextclick.errors import ConfigError, DataError, MissingExtraError
from nextclick.files import alone, sha256, write_json

if TYPE_CHECKING:
    from nextclick.filters import Filter
    from nextclick.recommender import Recommender

FORMAT = "nextclick-lists"
FORMAT_VERSION = 1
ABOUT = "_batch.json"
_COUNTS = b"nextclick.counts"
_BATCH = 2048  # sessions answered together
_LOOK = 0.5  # seconds between two looks at how many partitions are complete


@dataclass(frozen=True)
class Job:
    """What every worker has to know: how to open the model, what to recommend, and where to write.

    Paths are text, as they go to other processes.
    """

    model: str
    out: str
    k: int = 20
    exclude_seen: bool = False
    features: str | None = None
    rules: str | None = None
    items: str | None = None
    items_id: str | None = None


def recommend_on_spark(
    job: Job,
    source: Path,
    *,
    columns: Mapping[str, str | None] | None = None,
    partitions: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Counts:
    """Answer every session of ``source`` and write the lists to ``part-00000.parquet`` ... in ``job.out``.

    source: JSON lines, each with its session id, or a table of clicks that ``prepare`` reads; files,
    columns as for ``batch.recommend_file``, whose lists these are. Paths are to be reachable by every worker.
    A row has session (text), items (integers or text, as the model's ids), scores (float64), unknown (text),
    fallback and reason.  partitions: files;  progress: called with partitions complete, and of all.
    Raises DataError for an unreadable source, where ``out`` was begun with something else, where a worker was
    lost (what is complete stays), or without Java; MissingExtraError without pyspark.
    """
    from nextclick.prepare.spark import Spark

    out = Path(job.out)
    if partitions < 1:
        raise ConfigError(f"partitions={partitions}: expected at least 1")
    if out.suffix in (*JSON_LINES, ".csv") or out.is_file():
        raise ConfigError(f"{out}: --engine spark writes a folder of Parquet files; name a folder")
    if not source.exists():
        raise DataError(f"{source}: no such file or folder; check the path")
    _needs_arrow()
    opened(job)  # what cannot be opened is said before Spark is started
    tell = progress or (lambda done, total: None)
    with alone(out):
        missing = _begun(job, source, columns or {}, partitions)
        tell(partitions - len(missing), partitions)
        if missing:
            work = Path(tempfile.mkdtemp(prefix="nextclick-"))
            try:
                with Spark(work) as spark:
                    sessions = _sessions(spark, source, columns or {}, partitions)
                    _run(spark, job, sessions, missing, lambda done: tell(partitions - len(missing) + done,
                         partitions))  # fmt: skip
            finally:
                shutil.rmtree(work, ignore_errors=True)
            for part in _missing(out, partitions):  # those that no session hashes to
                _Part(job, part).close()
        counts = _counted(out, partitions)
    if counts.sessions == 0:
        raise DataError(f"{source}: holds no session; export it again")
    return counts


# -- what is there already


def _begun(job: Job, source: Path, columns: Mapping[str, str | None], partitions: int) -> list[int]:
    """Return the partitions that are missing; leave no half ones. Raises DataError as above."""
    out, about = Path(job.out), _about(job, source, columns, partitions)
    others = [file for file in out.iterdir() if file.name != ".lock"]
    if (out / ABOUT).exists():
        try:
            there = json.loads((out / ABOUT).read_text("utf-8"))
        except ValueError:
            there = None
        if there != about:
            named = [name for name in about if not isinstance(there, dict) or there.get(name) != about[name]]
            raise DataError(
                f"{out}: was begun with another {', '.join(named)}; go on with the same, or name a new folder"
            )
    elif others:
        raise DataError(f"{out}: holds other files; name a new folder for the lists")
    else:
        write_json(out / ABOUT, about)
    for half in out.glob(".part-*"):
        half.unlink(missing_ok=True)
    return _missing(out, partitions)


def _about(job: Job, source: Path, columns: Mapping[str, str | None], partitions: int) -> dict[str, Any]:
    files = sorted(file for file in source.rglob("*") if file.is_file()) if source.is_dir() else [source]
    stats = [(str(file), file.stat()) for file in files]
    manifest = artifact.read_manifest(Path(job.model))
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": artifact.fingerprint_of(manifest),
        "k": job.k,
        "exclude_seen": job.exclude_seen,
        "features": job.features,
        "rules": [None if file is None else sha256(Path(file)) for file in (job.rules, job.items)],
        "sessions": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats],
        "columns": {role: name for role, name in sorted(columns.items()) if name is not None},
        "partitions": partitions,
    }


def _missing(out: Path, partitions: int) -> list[int]:
    return [part for part in range(partitions) if not (out / _name(part)).exists()]


def _name(part: int) -> str:
    return f"part-{part:05}.parquet"


def _counted(out: Path, partitions: int) -> Counts:
    """Return the sums over all files, from their ends, which also shows that each can be read."""
    from pyarrow import ArrowException
    from pyarrow.parquet import read_metadata

    sums = dict.fromkeys((field.name for field in fields(Counts)), 0)
    for part in range(partitions):
        file = out / _name(part)
        try:
            found = json.loads(read_metadata(file).metadata[_COUNTS])
            sums = {name: sums[name] + int(found[name]) for name in sums}
        except (ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{file}: damaged ({error}); remove it and run the same command again") from error
    return Counts(**sums)


# -- on the driver


def _sessions(spark: Any, source: Path, columns: Mapping[str, str | None], partitions: int) -> Any:
    """Return all sessions as rows (part, session, items), the items oldest first."""
    if source.suffix in JSON_LINES:
        lines = spark.session.read.text(str(source.absolute()))
        read = functools.partial(_read_lines, source=str(source))
        rows = lines.mapInArrow(read, "session STRING, items ARRAY<STRING>")
        rows.createOrReplaceTempView("sessions_read")
    else:
        from nextclick.prepare.sources import find_source

        found = find_source(source, columns)
        if found.columns.session is None:
            raise DataError(
                f"{source}: it names users and no sessions; name the column of sessions with --session"
            )
        spark.scan([found])
        last = ["TRY_CAST(ord AS DOUBLE)", "ord"] if found.columns.order else []
        keys = ["TRY_CAST(time AS DOUBLE)", "time", *last, "CAST(item AS STRING)"]
        # What is missing comes last, as in the other engine; an array sorts it first.
        key = ", ".join(f"({of}) IS NULL, {of}" for of in keys)
        spark.view(
            "sessions_read",
            "SELECT CAST(session AS STRING) AS session, "
            "TRANSFORM(SORT_ARRAY(COLLECT_LIST(STRUCT("
            f"{key}, CAST(item AS STRING) AS own_id))), click -> click.own_id) AS items "
            "FROM raw WHERE session IS NOT NULL AND item IS NOT NULL GROUP BY session",
        )
    part = f"CAST(PMOD(XXHASH64(session), {partitions}) AS INT) AS part"
    return spark.session.sql(f"SELECT {part}, session, items FROM sessions_read")


def _run(spark: Any, job: Job, sessions: Any, missing: list[int], tell: Callable[[int], None]) -> None:
    """Answer the partitions that are missing, in as many tasks."""
    from py4j.protocol import Py4JError  # type: ignore[import-untyped]
    from pyspark.errors import PySparkException
    from pyspark.sql import functions

    rows = (
        sessions.where(functions.col("part").isin(missing))
        .repartitionByRange(len(missing), "part")
        .sortWithinPartitions("part", "session", "items")
        .mapInArrow(functools.partial(_answer, job=job), "part INT, sessions BIGINT")
    )
    out = Path(job.out)

    def done() -> int:
        return sum((out / _name(part)).exists() for part in missing)

    with ThreadPoolExecutor(1) as pool:
        running: Future[Any] = pool.submit(rows.collect)
        try:
            while not wait([running], _LOOK).done:
                tell(done())
            running.result()
        except (PySparkException, Py4JError, OSError) as error:
            raise _explained(error, out, done(), len(missing)) from error
        except BaseException:
            spark.session.sparkContext.cancelAllJobs()
            raise
    tell(len(missing))


def _explained(error: Exception, out: Path, done: int, asked: int) -> DataError:
    """Return our error for one of Spark's: what a worker said, or that one was lost."""
    text = str(error)
    own = re.findall(r"^nextclick\.errors\.\w+: (.*(?:\n  .*)*)", text, re.MULTILINE)
    again = f"{done} of {asked} partitions are complete and stay; run the same command again for the rest"
    if own:
        return DataError(f"{own[-1]}\n  {again}")
    if "No space left on device" in text:
        return DataError(f"{out}: the disk is full; make room. {again}")
    if "No module named 'nextclick'" in text:
        return DataError("nextclick is not installed on every worker: install it there. " + again)
    lost = re.search(
        r"Python worker exited unexpectedly[^\n]*|ExecutorLostFailure[^\n]*|Connection refused|"
        r"Answer from Java side is empty|An error occurred while trying to connect[^\n]*",
        text,
    )
    if lost or isinstance(error, OSError):
        why = lost[0].strip() if lost else text.splitlines()[0]
        return DataError(
            f"{out}: a worker was lost ({why}), most likely for want of memory or ended by somebody. {again}"
        )
    first = next((line.strip() for line in text.splitlines() if line.strip()), repr(error))
    return DataError(f"{out}: Spark failed ({first}). {again}")


# -- on the workers


@functools.lru_cache(maxsize=1)
def opened(job: Job) -> tuple[Recommender, Filter | None]:
    """Return the model and the rules of a job, read once in a process."""
    from nextclick.features import Features
    from nextclick.filters import ItemTable, Rules

    model = artifact.load(Path(job.model))
    if job.features is not None:
        model = model.with_items(Features.load(Path(job.features)))
    if job.rules is None:
        return model, None
    rules, items = Rules.read(Path(job.rules)), None
    if job.items is not None:
        items = ItemTable.read(Path(job.items), id_column=job.items_id, columns=rules.attributes)
    return model, rules.bind(items, model.vocabulary)


def _read_lines(batches: Iterator[Any], source: str) -> Iterator[Any]:
    import pyarrow as pa

    schema = pa.schema([("session", pa.string()), ("items", pa.list_(pa.string()))])
    for batch in batches:
        rows = []
        for line in batch.column(0).to_pylist():
            if not line.strip():
                continue
            session, items = session_of_line(line, f"{source}: {line[:100]}", None)
            rows.append({"session": str(session), "items": [str(item) for item in items]})
        yield pa.RecordBatch.from_pylist(rows, schema)


def _answer(batches: Iterator[Any], job: Job) -> Iterator[Any]:
    """Answer the sessions of one or several partitions, one after the other in the rows."""
    import pyarrow as pa

    rows = (row for batch in batches for row in batch.to_pylist())
    for number, of_part in itertools.groupby(rows, key=lambda row: row["part"]):
        part = _Part(job, number)
        try:
            while some := list(itertools.islice(of_part, _BATCH)):
                part.add(some)
            part.close()
        finally:
            part.abandon()
        yield pa.RecordBatch.from_pydict(
            {"part": pa.array([number], pa.int32()), "sessions": pa.array([part.counts["sessions"]])}
        )


class _Part:
    """The file of one partition while it is written: under another name until it is complete."""

    def __init__(self, job: Job, number: int) -> None:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        self.job = job
        self.model, self.filter = opened(job)
        own_id = pa.int64() if isinstance(self.model.vocabulary.id_of(0), int) else pa.string()
        self.schema = pa.schema([
            ("session", pa.string()), ("items", pa.list_(own_id)), ("scores", pa.list_(pa.float64())),
            ("unknown", pa.list_(pa.string())), ("fallback", pa.bool_()), ("reason", pa.string()),
        ])  # fmt: skip
        self.file = Path(job.out) / _name(number)
        self.aside = self.file.with_name(f".{self.file.name}.{uuid.uuid4().hex}")
        self.counts = asdict(Counts(0, 0, 0))
        self.writer: Any = ParquetWriter(self.aside, self.schema, compression="zstd")

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Answer sessions and write their lists."""
        import pyarrow as pa

        answers = self.model.recommend_many(
            [row["items"] for row in rows], self.job.k, exclude_seen=self.job.exclude_seen, filter=self.filter
        )
        lists = []
        for row, answer in zip(rows, answers, strict=True):
            lists.append({
                "session": row["session"],
                "items": [item for item, _ in answer], "scores": [score for _, score in answer],
                "unknown": [str(item) for item in answer.unknown],
                "fallback": answer.fallback, "reason": answer.reason,
            })  # fmt: skip
            self.counts["sessions"] += 1
            self.counts["fallbacks"] += answer.fallback
            self.counts["unknown_items"] += len(answer.unknown)
            self.counts["shortened"] += answer.reason is not None
        self.writer.write_table(pa.Table.from_pylist(lists, self.schema))

    def close(self) -> None:
        """Complete the file and give it its name."""
        self.writer.add_key_value_metadata({_COUNTS: json.dumps(self.counts)})
        self.writer.close()
        self.aside.replace(self.file)

    def abandon(self) -> None:
        """Remove what is not complete; nothing after ``close``."""
        self.writer.close()
        self.aside.unlink(missing_ok=True)


def _needs_arrow() -> None:
    try:
        for name in ("pyspark", "pyarrow", "pandas"):  # Spark asks for the last
            importlib.import_module(name)
    except ImportError:
        raise MissingExtraError("--engine spark", "spark") from None
