"""The driver: what is missing, what every machine is sent, and what went wrong there."""

from __future__ import annotations

import functools
import importlib
import json
import re
import shutil
import tarfile
import tempfile
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import fields
from pathlib import Path
from typing import Any

from nextclick import artifact
from nextclick.batch import JSON_LINES, Counts
from nextclick.batch_spark.worker import (
    COUNTS,
    SENT,
    Job,
    Part,
    answer,
    file_name,
    opened,
    read_lines,
    sent_name,
)
from nextclick.errors import ConfigError, DataError, MissingExtraError
from nextclick.files import alone, sha256, write_json
from nextclick.places import Url, place
from nextclick.prepare.spark import located, lost

FORMAT = "nextclick-lists"
FORMAT_VERSION = 1
ABOUT = "_batch.json"
_LOOK = 0.5  # seconds between two looks at how many partitions are complete


def recommend_on_spark(
    job: Job,
    source: str | Path | Url,
    *,
    columns: Mapping[str, str | None] | None = None,
    partitions: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Counts:
    """Answer every session of ``source`` and write the lists to ``part-00000.parquet`` ... in ``job.out``.

    source: JSON lines, each with its session id, or a table of clicks that ``prepare`` reads, which every
    worker reaches, or the URL of one that Spark opens;  columns: as for ``batch.recommend_file``, whose lists
    these are.
    A row has session (text), items (integers or text, as the model's ids), scores (float64), unknown (text),
    fallback and reason.  partitions: files;  progress: called with partitions complete, and of all.
    Raises DataError for an unreadable source, where ``out`` was begun with something else, where a worker was
    lost (what is complete stays), or without Java; MissingExtraError without pyspark.
    """
    from nextclick.prepare.spark import Spark

    out, source = Path(job.out), place(source)
    if partitions < 1:
        raise ConfigError(f"partitions={partitions}: expected at least 1")
    if out.suffix in (*JSON_LINES, ".csv") or out.is_file():
        raise ConfigError(f"{out}: --engine spark writes a folder of Parquet files; name a folder")
    if isinstance(source, Path) and not source.exists():
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
                    sent = _sent(spark, job, work)
                    _run(spark, job, sent, sessions, missing, lambda done: tell(
                         partitions - len(missing) + done, partitions))  # fmt: skip
            finally:
                shutil.rmtree(work, ignore_errors=True)
                _remove_halves(out)  # of workers that were ended
            for part in _missing(out, partitions):  # those that no session hashes to
                Part(job, part).close()
        counts = _counted(out, partitions)
    if counts.sessions == 0:
        raise DataError(f"{source}: holds no session; export it again")
    return counts


# -- what is there already


def _begun(job: Job, source: Path | Url, columns: Mapping[str, str | None], partitions: int) -> list[int]:
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
    _remove_halves(out)
    return _missing(out, partitions)


def _remove_halves(out: Path) -> None:
    for half in out.glob(".part-*"):
        half.unlink(missing_ok=True)


def _about(
    job: Job, source: Path | Url, columns: Mapping[str, str | None], partitions: int
) -> dict[str, Any]:
    if isinstance(source, Path):
        files = sorted(file for file in source.rglob("*") if file.is_file()) if source.is_dir() else [source]
        stats = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    else:
        stats = [[str(source)]]  # what lies there is not looked at before Spark is started
    manifest = artifact.read_manifest(Path(job.model))
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": artifact.fingerprint_of(manifest),
        "k": job.k,
        "exclude_seen": job.exclude_seen,
        "features": job.features,
        "rules": [None if file is None else sha256(Path(file)) for file in (job.rules, job.items)],
        "sessions": stats,
        "columns": {role: name for role, name in sorted(columns.items()) if name is not None},
        "partitions": partitions,
    }


def _missing(out: Path, partitions: int) -> list[int]:
    return [part for part in range(partitions) if not (out / file_name(part)).exists()]


def _counted(out: Path, partitions: int) -> Counts:
    """Return the sums over all files, from their ends, which also shows that each can be read."""
    from pyarrow import ArrowException
    from pyarrow.parquet import read_metadata

    sums = dict.fromkeys((field.name for field in fields(Counts)), 0)
    for part in range(partitions):
        file = out / file_name(part)
        try:
            found = json.loads(read_metadata(file).metadata[COUNTS])
            sums = {name: sums[name] + int(found[name]) for name in sums}
        except (ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{file}: damaged ({error}); remove it and run the same command again") from error
    return Counts(**sums)


# -- on the driver


def _sent(spark: Any, job: Job, work: Path) -> str:
    """Pack what the job opens and send it to every machine; return the name of its folder there.

    Spark sends the archive once to a machine, not to each of its workers, and unpacks it there.
    """
    name = f"nextclick-{uuid.uuid4().hex}"
    packed = work / f"{name}.tar"
    with tarfile.open(packed, "w", dereference=True) as archive:
        for of in SENT:
            if (path := getattr(job, of)) is not None:
                archive.add(path, arcname=sent_name(of, path))
    spark.session.sparkContext.addArchive(f"{packed}#{name}")
    return name


def _sessions(spark: Any, source: Path | Url, columns: Mapping[str, str | None], partitions: int) -> Any:
    """Return all sessions as rows (part, session, items), the items oldest first."""
    if source.suffix in JSON_LINES:
        lines = spark.session.read.text(located(source))
        read = functools.partial(read_lines, source=str(source))
        rows = lines.mapInArrow(read, "session STRING, items ARRAY<STRING>")
        rows.createOrReplaceTempView("sessions_read")
    else:
        from nextclick.prepare.finding import find_source

        found = find_source(str(source), columns, store=spark)
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


def _run(
    spark: Any, job: Job, sent: str, sessions: Any, missing: list[int], tell: Callable[[int], None]
) -> None:
    """Answer the partitions that are missing, in as many tasks."""
    from py4j.protocol import Py4JError  # type: ignore[import-untyped]
    from pyspark.errors import PySparkException
    from pyspark.sql import functions

    rows = (
        sessions.where(functions.col("part").isin(missing))
        .repartitionByRange(len(missing), "part")
        .sortWithinPartitions("part", "session", "items")
        .mapInArrow(functools.partial(answer, job=job, sent=sent), "part INT, sessions BIGINT")
    )
    out = Path(job.out)

    def done() -> int:
        return sum((out / file_name(part)).exists() for part in missing)

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
    if why := lost(error):
        return DataError(
            f"{out}: a worker was lost ({why}), most likely for want of memory or ended by somebody. {again}"
        )
    first = next((line.strip() for line in text.splitlines() if line.strip()), repr(error))
    return DataError(f"{out}: Spark failed ({first}). {again}")


def _needs_arrow() -> None:
    try:
        for name in ("pyspark", "pyarrow", "pandas"):  # Spark asks for the last
            importlib.import_module(name)
    except ImportError:
        raise MissingExtraError("--engine spark", "spark") from None
