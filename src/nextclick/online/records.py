"""What happened in an experiment, appended to files of JSON lines: lists shown and clicks on them."""

from __future__ import annotations

import datetime
import errno
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import DataError
from nextclick.sessions import ItemId

_SYNCHRONISED = 1.0  # seconds between writes to the disk itself


class Recorder:
    """Appends what happens in one process to a file of its own, a new one each day.

    Each record is handed to the operating system before the visitor is answered, so that a killed process
    loses none; a thread has the file written to the disk every second, which is what a power failure can
    cost. Files are only ever added to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{folder}: cannot be written to ({error.strerror}); choose another") from error
        self._file: int | None = None
        self._day = ""
        self._torn = False  # the file ends within a line
        self._lock = threading.Lock()
        self._dirty = self._ended = False
        threading.Thread(target=self._synchronise, name="records", daemon=True).start()

    def shown(
        self,
        trial: str,
        session: str,
        variant: str,
        request: str,
        items: Sequence[ItemId],
        attributes: Mapping[str, str],
        *,
        fallback: bool = False,
        at: float | None = None,
    ) -> None:
        """Record that a list was shown: the request that it answered, and whether a fallback stood in.

        Raises OSError when it cannot be written; what is written next is whole all the same.
        """
        entry: dict[str, Any] = {"kind": "shown", "trial": trial, "session": session, "variant": variant}
        entry |= {"request": request, "items": list(items), "attributes": dict(attributes)}
        self._append({**entry, "fallback": fallback}, at)

    def clicked(
        self, trial: str, session: str, request: str, id: str, item: ItemId, attributes: Mapping[str, str],
        *, at: float | None = None,
    ) -> None:  # fmt: skip
        """Record a click on the list of a request; id: of the event, the same when it is sent again.

        Raises OSError as ``shown``.
        """
        entry: dict[str, Any] = {"kind": "clicked", "trial": trial, "session": session, "request": request}
        self._append({**entry, "id": id, "item": item, "attributes": dict(attributes)}, at)

    def close(self) -> None:
        """Write everything to the disk and close the file."""
        with self._lock:
            self._ended = True
            if self._file is not None:
                os.fsync(self._file)
                os.close(self._file)
                self._file = None

    def _append(self, entry: Mapping[str, Any], at: float | None) -> None:
        at = time.time() if at is None else at
        line = (json.dumps({"time": int(at * 1000), **entry}, ensure_ascii=False) + "\n").encode(
            "utf-8", "replace"
        )
        day = datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d")
        with self._lock:
            file = self._file_of(day)
            whole = b"\n" + line if self._torn else line
            written = os.write(file, whole)
            self._torn = written < len(whole) and (self._torn or written > 0)
            if written < len(whole):
                raise OSError(errno.ENOSPC, f"only {written} of {len(whole)} bytes were written")
            self._dirty = True

    def _file_of(self, day: str) -> int:
        """Return the open file of a day."""
        if self._file is not None and day != self._day:
            before, self._file = self._file, None
            os.fsync(before)
            os.close(before)
        if self._file is None:
            name = f"{day}.{os.getpid()}.{time.time_ns():x}.jsonl"
            self._file = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            self._day, self._torn = day, False
        return self._file

    def _synchronise(self) -> None:
        while not self._ended:
            time.sleep(_SYNCHRONISED)
            with self._lock:
                file, dirty = self._file, self._dirty
                self._dirty = False
            if file is not None and dirty:
                try:
                    os.fsync(file)
                except OSError:  # closed meanwhile
                    continue


@dataclass(frozen=True, eq=False)
class Seen:
    """What an experiment's records come to, one row per list shown.

    session: int64 codes;  variant: codes into ``variants``;  clicked: whether any of its items was;  day:
    days since 1970 UTC;  attributes: by name, text of each row, "" where it was not sent.  unreadable: lines
    that were cut off or damaged;  stray: clicks on lists that are not there.
    """

    variants: tuple[str, ...]
    session: NDArray[np.int64]
    variant: NDArray[np.int64]
    clicked: NDArray[np.bool_]
    day: NDArray[np.int64]
    attributes: Mapping[str, NDArray[Any]]
    unreadable: int = 0
    stray: int = 0

    def __len__(self) -> int:
        return len(self.session)

    def part(self, rows: NDArray[np.bool_]) -> Seen:
        """Return some of the lists shown."""
        attributes = {name: values[rows] for name, values in self.attributes.items()}
        return Seen(
            self.variants,
            self.session[rows],
            self.variant[rows],
            self.clicked[rows],
            self.day[rows],
            attributes,
        )


class Shown(NamedTuple):
    """A list that was shown. time: ms since 1970 UTC;  variant: its number."""

    time: int
    session: str
    variant: int
    attributes: dict[str, str]

    @property
    def day(self) -> int:
        """Days since 1970 UTC."""
        return self.time // 86_400_000

    def __le__(self, other: tuple[Any, ...]) -> bool:
        """Which of two of one request counts: the earlier one, whatever the order they are read in."""
        return (*self[:3], sorted(self[3].items())) <= (*other[:3], sorted(other[3].items()))


def entry_of(line: bytes, trial: str, variants: Mapping[str, int]) -> tuple[str, Shown] | str | None:
    """Read one line of the records.

    Returns a request and the list that it was answered with, or the request whose list was clicked, or None
    for what belongs to no variant of the experiment. Raises ValueError, KeyError or TypeError for a damaged
    line.
    """
    entry = json.loads(line)
    if entry["trial"] != trial:
        return None
    request = entry["request"]
    if not isinstance(request, str):
        raise TypeError("a request is text")
    if entry["kind"] == "clicked":
        return request
    if entry["variant"] not in variants:
        return None
    code, attributes = variants[entry["variant"]], entry["attributes"]
    if not isinstance(attributes, dict) or not isinstance(entry["session"], str):
        raise TypeError("a session is text, attributes are a table")
    return request, Shown(int(entry["time"]), entry["session"], code, attributes)


def read_records(folder: Path, trial: str, variants: Sequence[str]) -> Seen:
    """Read what was recorded of an experiment; each list counts once, however often its clicks were sent.

    Raises DataError when there is no record of it.
    """
    files = sorted(folder.glob("*.jsonl")) if folder.is_dir() else []
    if not files:
        raise DataError(f"{folder}: no records here; name the folder that nextclick serve --records wrote")
    codes = {name: code for code, name in enumerate(variants)}
    shown: dict[str, Shown] = {}
    clicks: set[str] = set()
    unreadable = 0
    for file in files:
        with file.open("rb") as lines:
            for line in lines:
                try:
                    entry = entry_of(line, trial, codes)
                except (ValueError, KeyError, TypeError):
                    unreadable += 1
                    continue
                if isinstance(entry, str):
                    clicks.add(entry)
                elif entry is not None:
                    request, about = entry
                    if request not in shown or not shown[request] <= about:
                        shown[request] = about
    if not shown:
        raise DataError(f"{folder}: no list of the experiment {trial!r} was recorded; check its name")
    sessions: dict[str, int] = {}
    rows = list(shown.values())
    names = sorted({name for about in rows for name in about.attributes})
    return Seen(
        tuple(variants),
        np.array([sessions.setdefault(about.session, len(sessions)) for about in rows], np.int64),
        np.array([about.variant for about in rows], np.int64),
        np.array([request in clicks for request in shown], np.bool_),
        np.array([about.day for about in rows], np.int64),
        {name: np.array([about.attributes.get(name, "") for about in rows], object) for name in names},
        unreadable,
        len(clicks - shown.keys()),
    )
