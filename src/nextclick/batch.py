"""Recommendations for a file of sessions, a batch at a time, in memory that does not grow with the file."""

from __future__ import annotations

import csv
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from nextclick.errors import ConfigError, DataError
from nextclick.files import new_file
from nextclick.filters import Filter
from nextclick.places import Url, place
from nextclick.recommendations import Recommendations
from nextclick.recommender import Recommender
from nextclick.sessions import ItemId

Session = tuple[ItemId, list[ItemId]]
"""A session's own id, and its items, oldest first."""

JSON_LINES = (".jsonl", ".ndjson")
_MEMORY = 512 << 20  # bytes for sorting a table of clicks; beyond that it spills to disk


@dataclass(frozen=True)
class Counts:
    """What a batch run did.

    sessions: answered;  fallbacks: those without any known item;  unknown_items: skipped;  shortened:
    sessions whose list rules left shorter than asked for, perhaps empty.
    """

    sessions: int
    fallbacks: int
    unknown_items: int
    shortened: int = 0


def recommend_file(
    model: Recommender,
    source: str | Path | Url,
    out: Path,
    *,
    k: int = 20,
    exclude_seen: bool = False,
    filter: Filter | None = None,
    columns: Mapping[str, str | None] | None = None,
    batch: int = 2048,
    progress: Callable[[int], None] | None = None,
) -> Counts:
    """Answer every session of ``source`` and write the lists to ``out``.

    source: JSON lines ``{"session": id, "items": [id, ...]}`` (.jsonl), or a table of clicks in any form
    that ``prepare`` reads, its clicks in any order, or the URL of one;  columns: names of its columns by
    role, where they are not recognised.  out: .jsonl, one line per session with "items", "unknown" and
    "fallback", and "reason" where rules left a list short; or .csv with the columns session, rank, item,
    score. Written aside first, so never half.  filter: rules that every item recommended must meet.
    progress: called with the number of sessions answered so far.
    Raises DataError for an unreadable source, with the line, and ConfigError for an unknown ending of out.
    """
    if out.suffix not in (*JSON_LINES, ".csv"):
        raise ConfigError(f"{out}: write to a file that ends in .jsonl or .csv")
    source = place(source)
    if isinstance(source, Path) and not source.exists():
        raise DataError(f"{source}: no such file or folder; check the path")
    stream = _from_json_lines(source) if source.suffix in JSON_LINES else _from_table(source, columns or {})
    done = fallbacks = unknown = shortened = 0
    with new_file(out) as aside, aside.open("w", encoding="utf-8", newline="") as target:
        write = _csv_writer(target) if out.suffix == ".csv" else _json_writer(target)
        while some := list(itertools.islice(stream, batch)):
            answers = model.recommend_many(
                [items for _, items in some], k, exclude_seen=exclude_seen, filter=filter
            )
            for (session, _), answer in zip(some, answers, strict=True):
                write(session, answer)
                fallbacks += answer.fallback
                unknown += len(answer.unknown)
                shortened += answer.reason is not None
            done += len(some)
            if progress is not None:
                progress(done)
        if done == 0:
            raise DataError(f"{source}: holds no session; export it again")
    return Counts(done, fallbacks, unknown, shortened)


def _json_writer(target: TextIO) -> Callable[[ItemId, Recommendations], None]:
    def write(session: ItemId, answer: Recommendations) -> None:
        target.write(json.dumps({"session": session, **answer.to_json()}, ensure_ascii=False) + "\n")

    return write


def _csv_writer(target: TextIO) -> Callable[[ItemId, Recommendations], None]:
    writer = csv.writer(target)
    writer.writerow(["session", "rank", "item", "score"])

    def write(session: ItemId, answer: Recommendations) -> None:
        writer.writerows([session, rank, item, score] for rank, (item, score) in enumerate(answer, start=1))

    return write


def _from_json_lines(source: Path | Url) -> Iterator[Session]:
    with source.open() if isinstance(source, Url) else source.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            yield session_of_line(line, f"{source}, line {number}", number)


def session_of_line(line: bytes | str, where: str, default: int | None) -> Session:
    """Read a line ``{"session": id, "items": [id, ...]}``.

    default: the id of a session that names none; None: it has to.  Raises DataError, which says ``where``.
    """
    wrong = ""
    try:
        session = json.loads(line)
    except json.JSONDecodeError as error:
        wrong = f"no JSON from character {error.pos + 1} on: {error.msg}"
    except ValueError as error:  # no UTF-8
        wrong = str(error)
    else:
        if not isinstance(session, dict):
            wrong = f"found a {type(session).__name__}"
        elif "items" not in session:
            wrong = f"no key 'items', found: {', '.join(session) or 'none'}"
        elif not isinstance(session["items"], list) or not all(map(_is_id, session["items"])):
            wrong = "items must be a list of ids"
        elif not _is_id(session.get("session", default)):
            wrong = "session must be an id"
    if wrong:
        raise DataError(f'{where}: expected {{"session": "s1", "items": ["a", "b"]}}; {wrong}')
    return session.get("session", default), session["items"]


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _from_table(source: Path | Url, columns: Mapping[str, str | None]) -> Iterator[Session]:
    from nextclick.prepare.engines import DuckDB
    from nextclick.prepare.finding import find_source

    found = find_source(str(source), columns)
    if found.columns.session is None:
        raise DataError(
            f"{source}: it names users and no sessions; name the column of sessions with --session"
        )
    work = Path(tempfile.mkdtemp(prefix="nextclick-"))
    try:
        (work / "engine").mkdir()
        with DuckDB(work / "engine", found.files, memory=_MEMORY) as engine:
            engine.scan([found])
            last = ", TRY_CAST(ord AS DOUBLE), ord" if found.columns.order else ""
            clicks = engine.stream(
                "SELECT session, item FROM raw WHERE session IS NOT NULL AND item IS NOT NULL "
                f"ORDER BY session, TRY_CAST(time AS DOUBLE), time{last}, CAST(item AS STRING)"
            )
            yield from _grouped(clicks)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _grouped(clicks: Iterable[tuple[Any, ...]]) -> Iterator[Session]:
    for session, rows in itertools.groupby(clicks, key=lambda row: row[0]):
        yield session, [item for _, item in rows]
