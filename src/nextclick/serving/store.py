"""Sessions as the service keeps them: the protocol of a store, what one holds, and the store in memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from nextclick.errors import ConfigError, NextclickError, nearest
from nextclick.sessions import ItemId

REMEMBERED = (
    4  # times ``longest`` clicks are kept, so that a click sent again is known for longer than it counts
)


class StoreDownError(NextclickError):
    """The store cannot be reached, or did not answer in time."""


class Click(NamedTuple):
    """One event of a session. time: ms since 1970 UTC;  id: of the event, the same when it is sent again."""

    time: int
    id: str
    item: ItemId


@dataclass(frozen=True)
class Limits:
    """How much a store keeps.

    longest: clicks of a session that are read, the latest;  ttl: seconds after its last event that a session
    is kept;  sessions: how many are kept, the latest.
    """

    longest: int = 50
    ttl: float = 1800.0
    sessions: int = 1_000_000


class Appended(NamedTuple):
    """What came of events: the session's items now, oldest first, and how many were there already."""

    items: list[ItemId]
    duplicates: int


class Store(Protocol):
    """Keeps sessions: bounded, ordered by time, each event once, gone after the time to live.

    Every method raises StoreDownError when the store does not answer. ``append`` returns when the events are
    kept: they survive the end of the process, by whatever signal, except in memory.
    """

    async def append(self, session: str, clicks: Sequence[Click]) -> Appended:
        """Add events; one that is there already changes nothing, one older than all that are kept neither."""

    async def read(self, session: str) -> list[ItemId]:
        """Return the items of a session, oldest first; empty where it is unknown or its time is over."""

    async def forget(self, session: str) -> bool:
        """Remove a session; False where it was not there."""

    async def count(self) -> int:
        """Return about how many sessions are kept."""

    async def close(self) -> None:
        """Let go of files and connections."""


def merged(kept: list[Click], clicks: Sequence[Click], longest: int) -> tuple[list[Click], int]:
    """Return a session with more clicks, in order of time, and how many of them were there already.

    Clicks of the same time stand in the order of their arrival. At most REMEMBERED * longest are returned.
    """
    ids = {click.id for click in kept}
    duplicates = 0
    result = list(kept)
    for click in clicks:
        if click.id in ids:
            duplicates += 1
            continue
        ids.add(click.id)
        at = len(result)
        while at and result[at - 1].time > click.time:
            at -= 1
        result.insert(at, click)
    return result[-REMEMBERED * longest :], duplicates


def items_of(kept: Sequence[Click], longest: int) -> list[ItemId]:
    """Return the items of the clicks that are read."""
    return [click.item for click in kept[-longest:]]


class MemoryStore:
    """Sessions of one process in its memory: fastest, and lost when it ends."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._sessions: OrderedDict[str, tuple[float, list[Click]]] = OrderedDict()

    async def append(self, session: str, clicks: Sequence[Click]) -> Appended:
        now = time.time()
        kept, duplicates = merged(self._kept(session, now), clicks, self._limits.longest)
        self._sessions[session] = now, kept
        self._sessions.move_to_end(session)
        self._trim(now)
        return Appended(items_of(kept, self._limits.longest), duplicates)

    async def read(self, session: str) -> list[ItemId]:
        return items_of(self._kept(session, time.time()), self._limits.longest)

    async def forget(self, session: str) -> bool:
        return self._sessions.pop(session, None) is not None

    async def count(self) -> int:
        return len(self._sessions)

    async def close(self) -> None:
        self._sessions.clear()

    def _kept(self, session: str, now: float) -> list[Click]:
        touched, kept = self._sessions.get(session, (0.0, []))
        return kept if touched + self._limits.ttl >= now else []

    def _trim(self, now: float) -> None:
        while self._sessions:
            touched, _ = next(iter(self._sessions.values()))
            if len(self._sessions) <= self._limits.sessions and touched + self._limits.ttl >= now:
                return
            self._sessions.popitem(last=False)


def open_store(where: str, limits: Limits) -> Store:
    """Open the store that ``where`` names: ``memory``, ``sqlite:FILE``, or ``redis://HOST:PORT/DB``.

    Raises ConfigError for anything else, MissingExtraError without the Redis client, and DataError for a
    file that cannot be used.
    """
    kind, _, rest = where.partition(":")
    if where == "memory":
        return MemoryStore(limits)
    if kind == "sqlite" and rest:
        from nextclick.serving.sqlite import SqliteStore

        return SqliteStore(Path(rest), limits)
    if kind in ("redis", "rediss", "unix") and rest:
        from nextclick.serving.redis import RedisStore

        return RedisStore(where, limits)
    raise ConfigError(
        f"store {where!r}: expected memory, sqlite:FILE or redis://HOST:PORT/DB"
        f"{nearest(kind, ('memory', 'sqlite', 'redis'))}"
    )
