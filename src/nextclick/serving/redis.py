"""Sessions in Redis, or what speaks its protocol and runs scripts: shared by services on many machines."""

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
_STEP = 2.0**-11  # ms; as a double, every time until the year 2100 has room for so small a part

# KEYS: the session.  ARGV: clicks that are read, clicks that are kept, ms to live, _STEP, then time and
# member of each click. Returns how many were new, and the last members. A member is a list of two in
# MessagePack, the id first, so that it begins with the id's length: in 5 bits, in a byte after 217, or in two
# bytes after 218.
_APPEND = """
local function id_of(member)
  local kind, a, b = string.byte(member, 2, 4)
  if kind < 192 then return string.sub(member, 3, 2 + kind - 160) end
  if kind == 217 then return string.sub(member, 4, 3 + a) end
  return string.sub(member, 5, 4 + 256 * a + b)
end
local key, longest, most, step = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local known, added = {}, 0
for _, member in ipairs(redis.call('ZRANGE', key, 0, -1)) do known[id_of(member)] = true end
for n = 5, #ARGV, 2 do
  local moment, id = tonumber(ARGV[n]), id_of(ARGV[n + 1])
  if not known[id] then
    local score, after = moment, string.format('(%.0f', moment + 1)
    local last = redis.call('ZREVRANGEBYSCORE', key, after, ARGV[n], 'WITHSCORES', 'LIMIT', '0', '1')
    if last[2] then score = math.min(tonumber(last[2]) + step, moment + 1 - step) end
    redis.call('ZADD', key, string.format('%.17g', score), ARGV[n + 1])
    known[id] = true
    added = added + 1
  end
end
redis.call('ZREMRANGEBYRANK', key, '0', string.format('%.0f', -1 - most))
redis.call('PEXPIRE', key, ARGV[3])
return {added, redis.call('ZRANGE', key, string.format('%.0f', -longest), '-1')}
"""

_packed = msgspec.msgpack.Encoder().encode


class RedisStore:
    """Sessions as sorted sets: the time is the score, event id and item are the member.

    Events are added by a script, which Redis runs as one step: one whose id is there already, with whatever
    item, changes nothing. Clicks of the same ms stand in the order of their arrival, up to 2,048 of them:
    each has a score a little above the one before.
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
        self._script: Any = self._client.register_script(_APPEND)
        self._rest_until = 0.0

    async def append(self, session: str, clicks: Sequence[Click]) -> Appended:
        limits = self._limits
        asked: list[Any] = [limits.longest, REMEMBERED * limits.longest, int(limits.ttl * 1000), _STEP]
        for click in clicks:
            asked += click.time, _packed((click.id, click.item))
        added, kept = await self._ask(self._script(keys=[_PREFIX + session], args=asked))
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
