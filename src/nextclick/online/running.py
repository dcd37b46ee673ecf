"""The report of a running experiment: what was recorded since the last look is added to running sums."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nextclick.online.records import Shown, entry_of
from nextclick.online.report import VALUES, Part, dated, findings, of_attribute, of_value
from nextclick.online.statistics import Arm
from nextclick.online.trial import Trial

_Key = tuple[Any, ...]  # of a part: ("all",), ("day", days since 1970) or ("by", attribute, value)
_ALL: _Key = ("all",)


@dataclass
class Sums:
    """Sums over the sessions of one variant in one part of the lists: n lists in a session, c clicked.

    sessions: n and c of each;  m, with_click: sessions, and those with a click;  the others: sums of the
    products that their names say.
    """

    sessions: dict[int, tuple[int, int]] = field(default_factory=dict)
    m: int = 0
    with_click: int = 0
    n: int = 0
    c: int = 0
    nn: int = 0
    nc: int = 0
    cc: int = 0

    def add(self, session: int, lists: int, clicked: int) -> None:
        """Add lists to a session, and clicked ones; both may be negative."""
        n, c = self.sessions.get(session, (0, 0))
        self._count(n, c, -1)
        n, c = n + lists, c + clicked
        self._count(n, c, 1)
        if n:
            self.sessions[session] = n, c
        else:
            self.sessions.pop(session, None)

    def arm(self) -> Arm:
        """Return what ``Arm.from_sessions`` returns of the same sessions."""
        return Arm.from_sums(self.m, self.with_click, self.n, self.c, self.nn, self.nc, self.cc)

    def _count(self, n: int, c: int, sign: int) -> None:
        self.m += sign * (n > 0)
        self.with_click += sign * (c > 0)
        self.n += sign * n
        self.c += sign * c
        self.nn += sign * n * n
        self.nc += sign * n * c
        self.cc += sign * c * c


class Running:
    """Reads the records of an experiment as they grow; each look costs what was recorded since the last.

    It remembers every list shown, some hundred bytes each, because a click on it may still come.
    """

    def __init__(self, trial: Trial, folder: Path) -> None:
        self._trial, self._folder = trial, folder
        self._variants = {variant.name: code for code, variant in enumerate(trial.variants)}
        self._lock = threading.Lock()
        self._forget()

    def look(self) -> dict[str, Any]:
        """Return the report as JSON-ready values, without rows before the first list is shown."""
        with self._lock:
            self._read()
            if not self._shown:
                return {"experiment": self._trial.name, "rows": [], "notes": ["No list has been shown yet."]}
            days = self._days()
            unreadable = self._unreadable + sum(self._torn.values())
            return findings(
                self._trial, self._parts(), max(days) - min(days) + 1, unreadable, len(self._stray)
            ).to_json()

    # -- reading

    def _forget(self) -> None:
        self._read_to: dict[Path, tuple[int, int]] = {}  # inode, and bytes read of whole lines
        self._torn: dict[Path, bool] = {}  # whether a line without its end follows
        self._shown: dict[str, tuple[Shown, int]] = {}  # by request; the session's code
        self._clicked: set[str] = set()
        self._stray: set[str] = set()  # clicks on lists that are not there, or not yet
        self._codes: dict[str, int] = {}
        self._attributes: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
        self._names: list[str] = []
        self._sums: dict[_Key, list[Sums]] = {}
        self._unreadable = 0

    def _read(self) -> None:
        files = sorted(self._folder.glob("*.jsonl")) if self._folder.is_dir() else []
        about = {file: file.stat() for file in files}
        replaced = any(
            file not in about or about[file].st_ino != inode or about[file].st_size < size
            for file, (inode, size) in self._read_to.items()
        )
        if replaced:  # what is counted can no longer be told from what is there
            self._forget()
        for file in files:
            _, start = self._read_to.get(file, (0, 0))
            if about[file].st_size > start:
                with file.open("rb") as lines:
                    lines.seek(start)
                    for line in lines:
                        self._torn[file] = not line.endswith(b"\n")
                        if not self._torn[file]:
                            start += len(line)
                            self._take(line)
                self._read_to[file] = about[file].st_ino, start

    def _take(self, line: bytes) -> None:
        try:
            entry = entry_of(line, self._trial.name, self._variants)
        except (ValueError, KeyError, TypeError):
            self._unreadable += 1
            return
        if isinstance(entry, str):
            self._click(entry)
        elif entry is not None:
            self._show(*entry)

    # -- counting

    def _show(self, request: str, shown: Shown) -> None:
        before = self._shown.get(request)
        if before is not None:
            if before[0] <= shown:
                return
            self._count(*before, lists=-1, clicked=-(request in self._clicked))
        shared = self._attributes.setdefault(tuple(sorted(shown.attributes.items())), shown.attributes)
        shown = shown._replace(attributes=shared)
        for name in shown.attributes:
            if name not in self._names:  # no list had it so far
                self._names.append(name)
                if _ALL in self._sums:
                    self._sums["by", name, ""] = copy.deepcopy(self._sums[_ALL])
        session = self._codes.setdefault(shown.session, len(self._codes))
        self._shown[request] = shown, session
        if request in self._stray:
            self._stray.discard(request)
            self._clicked.add(request)
        self._count(shown, session, lists=1, clicked=int(request in self._clicked))

    def _click(self, request: str) -> None:
        if request not in self._shown:
            self._stray.add(request)
        elif request not in self._clicked:
            self._clicked.add(request)
            self._count(*self._shown[request], lists=0, clicked=1)

    def _count(self, shown: Shown, session: int, *, lists: int, clicked: int) -> None:
        parts: list[_Key] = [_ALL, ("day", shown.day)]
        parts += [("by", name, shown.attributes.get(name, "")) for name in self._names]
        for part in parts:
            if part not in self._sums:
                self._sums[part] = [Sums() for _ in self._variants]
            self._sums[part][shown.variant].add(session, lists, clicked)

    def _days(self) -> list[int]:
        return sorted(key[1] for key in self._sums if key[0] == "day" and self._lists(key))

    def _parts(self) -> Iterator[Part]:
        """The parts in the order of a report: all, days, and the most frequent values of each attribute."""
        yield "all", "", self._arms(_ALL)
        for day in self._days():
            yield "day", dated(day), self._arms(("day", day))
        for name in sorted(self._names):
            keys = sorted(key for key in self._sums if key[:2] == ("by", name) and self._lists(key))
            if not any(key[2] for key in keys):  # those that had it were recorded again without it
                continue
            for key in sorted(keys, key=lambda key: -self._lists(key))[:VALUES]:
                yield of_attribute(name), of_value(key[2]), self._arms(key)

    def _arms(self, key: _Key) -> list[Arm]:
        return [sums.arm() for sums in self._sums[key]]

    def _lists(self, key: _Key) -> int:
        return sum(sums.n for sums in self._sums[key])
