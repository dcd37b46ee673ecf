"""Sessions in an SQLite file: shared by the workers of one machine, and kept when they end or are killed."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import msgspec

from nextclick.errors import DataError
from nextclick.serving.store import Appended, Click, Limits, StoreDownError, items_of, merged
from nextclick.sessions import ItemId

T = TypeVar("T")

_PATIENCE = 0.5  # seconds that a worker waits for another one's write
_OPENING = 10.0  # seconds that it waits when it opens a file whose long log another one is moving
_SWEEP = 2.0  # seconds between looks for sessions whose time is over
_LOOK = 0.25  # seconds between looks at the size of the log
_LOG = 64_000_000  # bytes of the log, beyond which writers wait a moment for it to begin anew
_PAGES = 2048  # KiB of the file that a connection keeps; the operating system keeps the rest
_AT_ONCE = 2000  # sessions removed in one transaction, so that no writer waits long
_SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY, touched REAL NOT NULL, clicks BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_touched ON sessions (touched);
"""
_OVERDUE = (
    "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE touched < ? ORDER BY touched LIMIT ?)"
)
_OLDEST = "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions ORDER BY touched LIMIT ?)"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Click]).decode


class SqliteStore:
    """Sessions in an SQLite file with a write-ahead log.

    A write is in the log, in the hands of the operating system, when ``append`` returns: it survives a
    killed process, and a power failure up to the last synchronisation. Reading and writing take tens of
    microseconds and run in the event loop; a thread moves the log into the file and removes old sessions.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path, self._limits = path, limits
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = self._opened()
            self._connection.execute(f"PRAGMA busy_timeout = {int(_PATIENCE * 1000)}")
        except (sqlite3.Error, OSError) as error:
            raise DataError(
                f"{path}: cannot be used as a store of sessions ({error}); name another file, or remove it"
            ) from error
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="sessions", daemon=True)
        self._keeper.start()

    def _opened(self) -> sqlite3.Connection:
        """Return a connection to the file with its tables, made if need be.

        Of several workers that make a new file at the same moment SQLite sends some away at once, whatever
        time-out they have: they would wait for each other. They try again.
        """
        until = time.monotonic() + _OPENING
        while True:
            try:
                connection = self._connect()
                connection.executescript(_SCHEMA)
                return connection
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
                time.sleep(0.01 + 0.02 * random.random())

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=_OPENING, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # the thread does it
        connection.execute(f"PRAGMA journal_size_limit = {_LOG}")
        connection.execute(f"PRAGMA cache_size = -{_PAGES}")
        return connection

    async def append(self, session: str, clicks: Sequence[Click]) -> Appended:
        return self._do(lambda: self._append(session, clicks))

    async def read(self, session: str) -> list[ItemId]:
        return self._do(lambda: items_of(self._kept(session, time.time()), self._limits.longest))

    async def forget(self, session: str) -> bool:
        delete = "DELETE FROM sessions WHERE id = ?"
        return self._do(lambda: self._connection.execute(delete, (session,)).rowcount > 0)

    async def count(self) -> int:
        row = self._do(lambda: self._connection.execute("SELECT count(*) FROM sessions").fetchone())
        return int(row[0])

    async def close(self) -> None:
        self._ended.set()
        self._keeper.join(timeout=5)
        self._connection.close()

    def _append(self, session: str, clicks: Sequence[Click]) -> Appended:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            now = time.time()
            kept, duplicates = merged(self._kept(session, now), clicks, self._limits.longest)
            connection.execute(
                "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?)", (session, now, _encode(kept))
            )
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return Appended(items_of(kept, self._limits.longest), duplicates)

    def _kept(self, session: str, now: float) -> list[Click]:
        row = self._connection.execute(
            "SELECT touched, clicks FROM sessions WHERE id = ?", (session,)
        ).fetchone()
        return _decode(row[1]) if row is not None and row[0] + self._limits.ttl >= now else []

    def _do(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except (sqlite3.Error, OSError, msgspec.MsgspecError) as error:
            raise StoreDownError(f"{self.path}: {error}") from error

    # -- in the thread

    def _keep(self) -> None:
        """Move the log into the file and remove what is overdue, with a connection of the thread's own."""
        try:
            with closing(self._connect()) as connection:
                swept = time.monotonic()
                while not self._ended.wait(_LOOK):
                    self._shorten(connection)
                    if time.monotonic() > swept + _SWEEP:
                        self._sweep(connection)
                        swept = time.monotonic()
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error:  # the file is gone; requests say so
            return

    def _shorten(self, connection: sqlite3.Connection) -> None:
        """Have a long log begun anew: without a pause between writers it would grow for ever.

        What is in it is moved while they write; only for what came meanwhile do they wait.
        """
        with contextlib.suppress(OSError, sqlite3.OperationalError):  # another worker is at it
            if self.path.with_name(f"{self.path.name}-wal").stat().st_size > _LOG:
                _, there, moved = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if moved < there:
                    connection.execute("PRAGMA wal_checkpoint(RESTART)")

    def _sweep(self, connection: sqlite3.Connection) -> None:
        try:
            overdue = time.time() - self._limits.ttl
            while connection.execute(_OVERDUE, (overdue, _AT_ONCE)).rowcount == _AT_ONCE:
                time.sleep(0.01)  # lets writers through
            (n,) = connection.execute("SELECT count(*) FROM sessions").fetchone()
            while n > self._limits.sessions:
                removed = connection.execute(_OLDEST, (min(_AT_ONCE, n - self._limits.sessions),)).rowcount
                n -= max(1, removed)
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.OperationalError:  # another worker is at it
            return
