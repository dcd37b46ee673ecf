"""Sessions in Redis, or anything that speaks its protocol: shared by services on many machines."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from nextclick.errors import MissingExtraError
from nextclick.serving.store import REMEMBERED, Appended, Click, Limits, StoreDownError
from nextclick.sessions import ItemId

_PREFIX = "nextclick:session:"
_PATIENCE = 0.25  # seconds for connecting, and for an answer
_REST = 1.0  # seconds without a try after Redis did not answer, so that requests do not all wait


class RedisStore:
    """Sessions as sorted sets: the time is the score, event id and item are the member.

    A member that is there already is not added, so an event sent again changes nothing; all commands of an
    event go in one transaction. Clicks of the same millisecond stand in the order of their ids.
    """

    def __init__(self, where: str, limits: Limits, client: Any = None) -> None:
        try:
            from redis import asyncio as redis
            from redis.exceptions import RedisError
        except ImportError:
            raise MissingExtraError("keeping sessions in Redis", "redis") from None
        self._limits, self._down = limits, (RedisError, OSError, TimeoutError)
        self._client: Any = client or redis.Redis.from_url(
            where, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE
        )
        self._rest_until = 0.0

    async def append(self, session: str, clicks: Sequence[Click]) -> Appended:
        longest, key = self._limits.longest, _PREFIX + session
        pipe = self._client.pipeline(transaction=True)
        members = {msgspec.msgpack.encode((click.id, click.item)): click.time for click in clicks}
        pipe.zadd(key, members, nx=True)
        pipe.zremrangebyrank(key, 0, -REMEMBERED * longest - 1)
        pipe.pexpire(key, int(self._limits.ttl * 1000))
        pipe.zrange(key, -longest, -1)
        added, _, _, kept = await self._ask(pipe.execute())
        return Appended(_items(kept), len(clicks) - int(added))

    async def read(self, session: str) -> list[ItemId]:
        return _items(await self._ask(self._client.zrange(_PREFIX + session, -self._limits.longest, -1)))

    async def forget(self, session: str) -> bool:
        return bool(await self._ask(self._client.delete(_PREFIX + session)))

    async def count(self) -> int:
        return int(await self._ask(self._client.dbsize()))

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, question: Any) -> Any:
        if time.monotonic() < self._rest_until:
            question.close()
            raise StoreDownError("Redis did not answer a moment ago")
        try:
            return await question
        except self._down as error:
            self._rest_until = time.monotonic() + _REST
            raise StoreDownError(f"Redis does not answer ({type(error).__name__})") from error


def _items(kept: Sequence[bytes]) -> list[ItemId]:
    return [msgspec.msgpack.decode(member, type=tuple[str, ItemId])[1] for member in kept]
