"""What runs on the workers: the model is opened once, and the lists of partition after partition written."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextclick import artifact
from nextclick.batch import Counts, session_of_line

if TYPE_CHECKING:
    from nextclick.filters import Filter
    from nextclick.recommender import Recommender

SENT = ("model", "features", "rules", "items")
"""What of a job is sent to every machine, where it is given."""
COUNTS = b"nextclick.counts"
_BATCH = 2048  # sessions answered together


@dataclass(frozen=True)
class Job:
    """What every worker has to know: how to open the model, what to recommend, and where to write.

    Paths are text, as they go to other processes.  model, features, rules, items: on the machine that starts
    the job; they are sent from there.  out: on storage that every worker reaches.
    """

    model: str
    out: str
    k: int = 20
    exclude_seen: bool = False
    features: str | None = None
    rules: str | None = None
    items: str | None = None
    items_id: str | None = None


def sent_name(of: str, path: str) -> str:
    """Return the name of a file or folder of a job in the archive; the ending tells how it is read."""
    return of + "".join(Path(path).suffixes)


def received(job: Job, sent: str) -> Job:
    """Return the job with the paths that its files have on the machine of this worker."""
    from pyspark import SparkFiles

    folder = Path(SparkFiles.get(sent))
    there = {of: getattr(job, of) for of in SENT if getattr(job, of) is not None}
    paths: dict[str, Any] = {of: str(folder / sent_name(of, path)) for of, path in there.items()}
    return replace(job, **paths)


def file_name(part: int) -> str:
    """Return the name of a partition's file, once it is complete."""
    return f"part-{part:05}.parquet"


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


def read_lines(batches: Iterator[Any], source: str) -> Iterator[Any]:
    """Read JSON lines as sessions. Raises DataError with a line that is none, and where it is from."""
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


def answer(batches: Iterator[Any], job: Job, sent: str) -> Iterator[Any]:
    """Answer the sessions of one or several partitions, one after the other in the rows."""
    import pyarrow as pa

    job = received(job, sent)
    rows = (row for batch in batches for row in batch.to_pylist())
    for number, of_part in itertools.groupby(rows, key=lambda row: row["part"]):
        part = Part(job, number)
        try:
            while some := list(itertools.islice(of_part, _BATCH)):
                part.add(some)
            part.close()
        finally:
            part.abandon()
        yield pa.RecordBatch.from_pydict(
            {"part": pa.array([number], pa.int32()), "sessions": pa.array([part.counts["sessions"]])}
        )


class Part:
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
        self.file = Path(job.out) / file_name(number)
        self.aside = self.file.with_name(f".{self.file.name}.{uuid.uuid4().hex}")
        self.counts = asdict(Counts(0, 0, 0))
        try:
            self.writer: Any = ParquetWriter(self.aside, self.schema, compression="zstd")
        except BaseException:
            self.aside.unlink(missing_ok=True)
            raise

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
        self.writer.add_key_value_metadata({COUNTS: json.dumps(self.counts)})
        self.writer.close()
        self.aside.replace(self.file)

    def abandon(self) -> None:
        """Remove what is not complete; nothing after ``close``."""
        try:
            with contextlib.suppress(OSError):  # on a full disk, of which is told already
                self.writer.close()
        finally:
            self.aside.unlink(missing_ok=True)
