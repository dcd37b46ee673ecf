"""Services to test: small models, an application in this process, and a server in processes of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nextclick
from nextclick.serving.app import create_app
from nextclick.serving.options import Options
from synthetic import chain

N_ITEMS = 30


def saved(folder: Path, name: str = "vs-knn", *, seed: int = 1, text: bool = True, **values: Any) -> Path:
    """A small fitted model on disk; another seed makes another one."""
    sessions = chain(N_ITEMS, 200, noise=0.2, seed=seed, text=text)
    path = folder / f"{name}-{seed}"
    if not path.exists():
        nextclick.build(name, values).fit(sessions).save(path)
    return path


@contextlib.contextmanager
def client(models: dict[str, Path] | Path, **options: Any) -> Iterator[Any]:
    """A client of an application in this process."""
    from starlette.testclient import TestClient

    named = {"m": models} if isinstance(models, Path) else models
    chosen = Options(models=tuple((name, str(path)) for name, path in named.items()), **options)
    app = create_app(chosen)
    with TestClient(
        app,  # type: ignore[arg-type]
        base_url="http://127.0.0.1",
        client=("127.0.0.1", 5000),
        raise_server_exceptions=False,
    ) as opened:
        yield opened


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """``nextclick serve`` in processes of its own."""

    def __init__(self, *arguments: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.arguments = arguments
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "nextclick", "serve", *self.arguments, "--port", str(self.port)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def wait(self, seconds: float = 60.0) -> float:
        """Wait until lists are answered; return how long it took."""
        start = time.monotonic()
        while time.monotonic() < start + seconds:
            if self.process.poll() is not None:
                assert self.process.stderr is not None
                raise AssertionError(self.process.stderr.read())
            with contextlib.suppress(OSError):
                self.get("/readyz")
                return time.monotonic() - start
            time.sleep(0.05)
        raise AssertionError("the server did not come up")

    def is_up(self) -> bool:
        with contextlib.suppress(OSError):
            self.get("/healthz")
            return True
        return False

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=10) as reply:
            return json.loads(reply.read())

    def post(self, path: str, content: Any) -> Any:
        body = json.dumps(content).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.loads(reply.read())

    def children(self) -> list[int]:
        """The workers: what the server has started and not buried."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    after_name = (entry / "stat").read_text().rpartition(")")[2].split()
                    if int(after_name[1]) == self.process.pid and after_name[0] != "Z":
                        found.append(int(entry.name))
        return found

    def kill(self) -> None:
        """End the server without a chance to clean up."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        self._close()

    def stop(self) -> int:
        """End the server as a service manager does; return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        code = self.process.wait(60)
        self._close()
        return code

    def _close(self) -> None:
        if self.process.stderr is not None:
            self.process.stderr.close()


@contextlib.contextmanager
def served(*arguments: str) -> Iterator[Server]:
    server = Server(*arguments)
    try:
        server.wait()
        yield server
    finally:
        server.stop()
