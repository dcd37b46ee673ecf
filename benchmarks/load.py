"""A small load generator: keep-alive connections that send at a fixed rate, or as fast as they are answered.

At a fixed rate the latency of a request counts from the moment it was due, so that a pause of the server
is not hidden by requests that were never sent. Only 127.0.0.1 is ever asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Outcome:
    """What came back: seconds of each request, statuses, bodies if kept, and broken connections."""

    seconds: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    broken: int = 0
    longest_gap: float = 0.0
    took: float = 0.0

    def figures(self) -> dict[str, Any]:
        """Return rate, percentiles in ms, and errors."""
        found = np.percentile(np.array(self.seconds or [0.0]) * 1000, [50, 90, 99, 99.9])
        names = ("p50_ms", "p90_ms", "p99_ms", "p99.9_ms")
        named = dict(zip(names, np.round(found, 2).tolist(), strict=True))
        errors = sum(n for status, n in self.statuses.items() if status != 200)
        return {
            "requests": len(self.seconds),
            "requests_per_second": round(len(self.seconds) / self.took, 1),
            **named,
            "errors": errors, "broken_connections": self.broken,
        }  # fmt: skip


def load(
    port: int, path: str, bodies: Iterator[tuple[str, bytes]], *, seconds: float, connections: int = 16,
    rate: float | None = None, keep: bool = False,
) -> Outcome:  # fmt: skip
    """Send bodies, each with a name, for some seconds; rate: a second, None for as fast as it goes."""
    return asyncio.run(_load(port, path, bodies, seconds, connections, rate, keep))


async def _load(
    port: int, path: str, bodies: Iterator[tuple[str, bytes]], seconds: float, connections: int,
    rate: float | None, keep: bool,
) -> Outcome:  # fmt: skip
    outcome, start = Outcome(), time.perf_counter()
    due = start
    last = start

    async def one() -> None:
        nonlocal due, last
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while time.perf_counter() < start + seconds:
            name, body = next(bodies)
            moment = time.perf_counter()
            if rate is not None:
                moment = due
                due += 1 / rate
                if moment >= start + seconds:
                    break
                await asyncio.sleep(max(0.0, moment - time.perf_counter()))
            while True:
                try:
                    if streams is None:
                        streams = await asyncio.open_connection("127.0.0.1", port)
                    status, answer = await _ask(*streams, path, body)
                    break
                except (OSError, asyncio.IncompleteReadError):
                    outcome.broken += 1
                    if streams is not None:
                        streams[1].close()
                    streams = None
                    if time.perf_counter() > start + seconds + 10:
                        return
                    await asyncio.sleep(0.02)
            now = time.perf_counter()
            outcome.longest_gap, last = max(outcome.longest_gap, now - last), now
            outcome.seconds.append(now - moment)
            outcome.statuses[status] = outcome.statuses.get(status, 0) + 1
            if keep:
                outcome.names.append(name)
                outcome.bodies.append(answer)
        if streams is not None:
            streams[1].close()

    await asyncio.gather(*(one() for _ in range(connections)))
    outcome.took = time.perf_counter() - start
    return outcome


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, body: bytes
) -> tuple[int, bytes]:
    writer.write(
        b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body)
    )
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    return int(head[9:12]), await reader.readexactly(length)
