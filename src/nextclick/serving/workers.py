"""The processes of a service: one or several that share a port, replaced when they die or hang."""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from nextclick.errors import ConfigError, MissingExtraError, NextclickError
from nextclick.serving.logs import log, say, set_up
from nextclick.serving.options import Options
from nextclick.serving.slot import Shared, share

_GRACE = 10  # seconds that requests have to end when the service is stopped
_CONNECTIONS = 2000  # of one worker; beyond it new ones are turned away
_SILENT = 30.0  # seconds without a sign of life, after which a worker is taken to hang
_WAIT = 1.0  # seconds before another try where a worker could not start
_PATIENCE = 3.0  # seconds for the port to become free: workers of a killed service end within one
_FIGURES = "PROMETHEUS_MULTIPROC_DIR"


def serve(options: Options, *, host: str, port: int, workers: int) -> None:
    """Serve until a signal ends it.

    Raises ConfigError when the port is taken, and what ``create_app`` raises.
    """
    try:
        import uvicorn  # noqa: F401
    except ImportError:
        raise MissingExtraError("serving", "serve") from None
    set_up()
    with listening(host, port) as listener:
        if workers == 1:
            _answer(options, workers, listener)
            return
        with tempfile.TemporaryDirectory(prefix="nextclick-figures-") as figures:
            os.environ[_FIGURES] = figures
            Crew(options, workers, listener).run()


def listening(host: str, port: int) -> socket.socket:
    """Return a socket bound to a port, which nobody can connect to yet, before models are loaded.

    Raises ConfigError when the port is not free, and does not become so in a moment.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            made.bind((host, port))
            return made
        except OSError as error:
            if time.monotonic() > until:
                made.close()
                raise ConfigError(
                    f"cannot listen on {host} port {port} ({error.strerror}); choose another with --port"
                ) from error
            time.sleep(0.05)


def default_state(model: Path) -> Path:
    """Return where a service keeps its sessions unless told otherwise: beside the model."""
    return model.resolve().parent / f"{model.resolve().name}.state"


def _answer(
    options: Options, workers: int, listener: socket.socket, shared: Mapping[str, Shared] | None = None,
    alive: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Answer requests until a signal ends it; alive: called about every second from the event loop."""
    import uvicorn

    from nextclick.serving.app import create_app
    from nextclick.serving.connections import guarded

    # Several workers accept connections in turn, instead of one taking all that wait.
    os.environ.setdefault("UV_TCP_SINGLE_ACCEPT", "1")
    sys.setswitchinterval(0.001)  # so that a model in its thread does not hold up the event loop for longer
    app = create_app(options, workers=workers, shared=shared or {})
    protocol, sweep = guarded(options.patience)

    async def sign() -> None:
        sweep()
        alive()

    config = uvicorn.Config(
        app, http=protocol, ws="none", log_config=None, access_log=False, server_header=False,
        date_header=False, proxy_headers=bool(options.proxies),
        forwarded_allow_ips=",".join(options.proxies) or None,
        timeout_keep_alive=15, timeout_graceful_shutdown=_GRACE, limit_concurrency=_CONNECTIONS,
        callback_notify=sign, timeout_notify=1,
    )  # fmt: skip
    with _frozen():  # looking through models for garbage would cost some requests tens of milliseconds
        uvicorn.Server(config).run(sockets=[listener])


@contextlib.contextmanager
def _frozen() -> Iterator[None]:
    """Keep what there is now out of the search for garbage."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@dataclass
class _Worker:
    """One process, what it tells, and when it last did; ready: whether it ever answered."""

    process: BaseProcess
    link: Connection
    heard: float = field(default_factory=time.monotonic)
    ready: bool = False
    problem: str = ""

    def listen(self) -> None:
        """Take in what the worker told: signs of life as "", or why it cannot start."""
        try:
            while self.link.poll():
                told = self.link.recv_bytes().decode()
                self.heard, self.ready = time.monotonic(), self.ready or not told
                self.problem = told
        except (EOFError, OSError):
            return


class Crew:
    """Starts the workers, and others where they die or hang.

    What is slow is done once: modules are imported and models opened here, and the workers are copies of
    this process that begin with both (on Linux; elsewhere each starts from nothing).
    """

    def __init__(self, options: Options, workers: int, listener: socket.socket) -> None:
        self._options, self._n, self._listener = options, workers, listener
        self._forks = sys.platform == "linux"
        self._context: Any = multiprocessing.get_context("fork" if self._forks else "spawn")
        self._shared: dict[str, Shared] = {}
        self._crew: list[_Worker] = []
        self._ended = False

    def run(self) -> None:
        """Keep the workers until a signal ends them. Raises ConfigError where none can start."""
        from nextclick.serving.app import check

        check(self._options)
        if self._forks:
            self._shared = share(self._options.models, self._options.runtime)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        with _frozen():  # so that the copies go on sharing its memory
            self._crew = [self._start() for _ in range(self._n)]
            try:
                while not self._ended:
                    self._look()
            finally:
                self._stop()

    def _end(self, number: int, frame: object) -> None:
        self._ended = True

    def _start(self) -> _Worker:
        link, told = self._context.Pipe(duplex=False)
        arguments = self._options, self._n, self._listener, self._shared, told, os.getpid()
        process = self._context.Process(target=_work, args=arguments, name="worker")
        process.start()
        told.close()
        return _Worker(process, link)

    def _look(self) -> None:
        """Wait a moment, and replace workers that are gone or silent."""
        wait([worker.process.sentinel for worker in self._crew], timeout=0.1)
        for n, worker in enumerate(self._crew):
            worker.listen()
            if worker.process.exitcode is None and time.monotonic() < worker.heard + _SILENT:
                continue
            if self._ended:
                return
            worker.process.kill()
            worker.process.join()
            worker.listen()
            about = {"pid": worker.process.pid, "exit": worker.process.exitcode}
            if not any(other.ready for other in self._crew):
                problem = worker.problem or "a worker ended before it was ready; the log says why"
                raise ConfigError(problem)
            say("a worker ended, another one takes its place", logging.ERROR, **about)
            if not worker.ready:
                time.sleep(_WAIT)
            worker.link.close()
            self._crew[n] = self._start()

    def _stop(self) -> None:
        for worker in self._crew:
            worker.process.terminate()
        until = time.monotonic() + _GRACE + 5
        for worker in self._crew:
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.exitcode is None:
                worker.process.kill()
                worker.process.join()


def _work(
    options: Options, workers: int, listener: socket.socket, shared: Mapping[str, Shared], link: Connection,
    parent: int,
) -> None:  # fmt: skip
    """What a worker does: answer, and tell the process that started it that it is alive."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    set_up()
    threading.Thread(target=_end_with, args=(parent,), name="parent", daemon=True).start()
    try:
        _answer(options, workers, listener, shared, lambda: link.send_bytes(b""))
    except NextclickError as error:
        link.send_bytes(str(error).encode())
        sys.exit(1)
    except Exception:
        log.exception("a worker could not start")
        sys.exit(1)
    finally:
        if os.getppid() != parent:  # which would have removed it
            shutil.rmtree(os.environ[_FIGURES], ignore_errors=True)


def _leave(number: int, frame: object) -> None:
    sys.exit(0)


def _end_with(parent: int) -> None:
    """End this worker when the process that started it is gone, so that the port is free again."""
    while os.getppid() == parent:
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(2)
    os.kill(os.getpid(), signal.SIGKILL)
