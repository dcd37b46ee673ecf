"""The processes of a service: one or several that share a port, replaced when they die."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from nextclick.errors import ConfigError, MissingExtraError
from nextclick.serving.logs import set_up
from nextclick.serving.options import Options

_OPTIONS, _WORKERS, _PARENT = "NEXTCLICK_SERVE", "NEXTCLICK_WORKERS", "NEXTCLICK_PARENT"
_GRACE = 10  # seconds that requests have to end when the service is stopped
_CONNECTIONS = 2000  # of one worker; beyond it new ones are turned away


def app() -> Any:
    """Make the application of one worker; uvicorn calls it in each process."""
    from nextclick.serving.app import create_app

    set_up()
    workers = int(os.environ[_WORKERS])
    if workers > 1:
        _end_with(int(os.environ[_PARENT]))
    return create_app(msgspec.json.decode(os.environ[_OPTIONS], type=Options), workers=workers)


def serve(options: Options, *, host: str, port: int, workers: int, uds: str | None = None) -> None:
    """Serve until a signal ends it. Raises ConfigError when the port is taken."""
    try:
        import uvicorn
    except ImportError:
        raise MissingExtraError("serving", "serve") from None
    if uds is None:
        check_port(host, port)
    os.environ[_OPTIONS] = msgspec.json.encode(options).decode()
    os.environ[_WORKERS], os.environ[_PARENT] = str(workers), str(os.getpid())
    set_up()
    with tempfile.TemporaryDirectory(prefix="nextclick-figures-") as figures:
        if workers > 1:
            _check(options)
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = figures
        uvicorn.run(
            "nextclick.serving.workers:app", factory=True, host=host, port=port, uds=uds, workers=workers,
            log_config=None, access_log=False, server_header=False, date_header=False,
            proxy_headers=bool(options.proxies), forwarded_allow_ips=",".join(options.proxies) or None,
            timeout_keep_alive=15, timeout_graceful_shutdown=_GRACE, limit_concurrency=_CONNECTIONS,
            timeout_worker_healthcheck=10,
        )  # fmt: skip


def _check(options: Options) -> None:
    """Open what the workers will open, and let it go: their own errors would only have them started again."""
    from nextclick.serving.app import check

    check(options)


def check_port(host: str, port: int) -> None:
    """Raise ConfigError when nothing can listen there, before models are loaded."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host} port {port} ({error.strerror}); choose another with --port"
            ) from error


def _end_with(parent: int) -> None:
    """End this worker when the process that started it is gone, so that the port is free again."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.25)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(2)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def default_state(model: Path) -> Path:
    """Return where a service keeps its sessions unless told otherwise: beside the model."""
    return model.resolve().parent / f"{model.resolve().name}.state"
