"""Connections that send the head of a request slowly, or without end, or do not read, are closed."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

_MOST = 65_536  # bytes of a request's line and headers


def _break_off(transport: Any) -> None:
    """End a connection and drop what it has not taken, which else the system would go on keeping for it."""
    with contextlib.suppress(OSError):
        at_once = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    transport.abort()


def guarded(patience: float) -> tuple[type[Any], Callable[[], None]]:
    """Return uvicorn's protocol with limits, and a function to be called about every second.

    patience: seconds for the head of a request, for the first request of a connection, and for the next byte
    of an answer to be taken.
    uvicorn limits neither by itself; the bodies are limited where they are read.
    """
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    connected: WeakSet[Any] = WeakSet()
    waiting: WeakSet[Any] = WeakSet()

    class Guarded(HttpToolsProtocol):
        """Knows since when it waits for a head, None once that is there, and how much of it came."""

        head_since: float | None = None
        head_bytes = 0
        unread, unread_since = 0, 0.0  # bytes of answers that wait for the client, and when fewer did last

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            connected.add(self)
            self._begin()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._begin()

        def on_headers_complete(self) -> None:
            self.head_since = None
            waiting.discard(self)
            super().on_headers_complete()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.head_since is None:
                self.head_bytes = 0
                return
            self.head_bytes += len(data)
            if self.head_bytes > _MOST and not self.transport.is_closing():
                self.send_400_response("The head of the request is too large.")

        def resume_writing(self) -> None:
            self.unread = 0  # much was taken, whatever has been added since
            super().resume_writing()

        def connection_lost(self, exc: Exception | None) -> None:
            connected.discard(self)
            waiting.discard(self)
            super().connection_lost(exc)

        def _begin(self) -> None:
            if self.head_since is None:
                self.head_since = time.monotonic()
                waiting.add(self)

    def sweep() -> None:
        now = time.monotonic()
        overdue = now - patience
        for connection in list(connected):
            left = connection.transport.get_write_buffer_size()
            if connection.unread == 0 or left < connection.unread:
                connection.unread_since = now
            elif connection.unread_since < overdue:
                connected.discard(connection)
                _break_off(connection.transport)
            connection.unread = left
        for connection in list(waiting):
            if connection.head_since is not None and connection.head_since < overdue:
                waiting.discard(connection)
                connection.transport.close()

    return Guarded, sweep
