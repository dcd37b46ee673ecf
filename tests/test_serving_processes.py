"""The service in processes of its own: killed, swapped under load, stopped, and never losing an event."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import nextclick
from nextclick.serving.versions import Versions
from serving import Server, free_port, saved, served

pytest.importorskip("uvicorn")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


class Load(threading.Thread):
    """Asks as fast as it can, over one connection; keeps what was answered, and what was refused."""

    def __init__(self, server: Server, bodies: Any, path: str) -> None:
        super().__init__(daemon=True)
        self.server, self.bodies, self.path = server, bodies, path
        self.answers: list[tuple[int, bytes]] = []
        self.broken: list[int] = []  # how many answers there had been when a connection broke
        self.sent: list[str] = []
        self.over = False

    def run(self) -> None:
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        try:
            self._ask(connection)
        finally:
            connection.close()

    def _ask(self, connection: HTTPConnection) -> None:
        for name, body in self.bodies():
            while not self.over:
                try:
                    connection.request("POST", self.path, body, {"Content-Type": "application/json"})
                    reply = connection.getresponse()
                    self.answers.append((reply.status, reply.read()))
                    self.sent.append(name)
                    break
                except (OSError, HTTPException):
                    self.broken.append(len(self.answers))
                    connection.close()
                    time.sleep(0.02)
            if self.over:
                return


def events(prefix: str) -> Any:
    def bodies() -> Any:
        n = 0
        while True:
            yield (
                f"{prefix}{n}",
                f'{{"session": "{prefix}{n // 5}", "item": "item {n % 30}", "id": "{prefix}{n}"}}',
            )
            n += 1

    return bodies


def lists() -> Any:
    while True:
        yield "", '{"items": ["item 3", "item 9"], "k": 10}'


def kept(store: Path, loads: list[Load]) -> int:
    """How many acknowledged events the store holds; fails where one is missing."""
    import sqlite3

    from nextclick.serving.sqlite import _decode

    with sqlite3.connect(store) as connection:
        ids = {
            click.id
            for (blob,) in connection.execute("SELECT clicks FROM sessions")
            for click in _decode(blob)
        }
    connection.close()
    acknowledged = {
        name
        for load in loads
        for name, (status, _) in zip(load.sent, load.answers, strict=True)
        if status == 200
    }
    assert acknowledged <= ids
    return len(acknowledged)


def test_no_event_is_lost_when_worker_or_server_is_killed(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "sessions.sqlite"
    server = Server(str(saved(folder)), "--workers", "2", "--store", f"sqlite:{store}")
    loads = [Load(server, events(f"{n}-"), "/v1/events") for n in range(3)]
    try:
        server.wait()
        for load in loads:
            load.start()
        time.sleep(0.7)
        before = server.children()
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)
        killed = time.monotonic()
        server.get("/healthz")  # the other one answers
        while len(set(server.children()) - set(before)) == 0 and time.monotonic() < killed + 60:
            time.sleep(0.05)
        assert set(server.children()) - set(before)
        time.sleep(0.7)
        server.kill()
        killed = time.monotonic()
        while server.is_up():  # the port is free when the workers have noticed
            assert time.monotonic() < killed + 30
            time.sleep(0.05)
        server.start()
        server.wait()
        counted = [len(load.answers) for load in loads]
        time.sleep(0.7)
        assert all(len(load.answers) > n for load, n in zip(loads, counted, strict=True))
    finally:
        for load in loads:
            load.over = True
        server.stop()
    assert kept(store, loads) > 100
    assert {status for load in loads for status, _ in load.answers} == {200}


def test_versions_are_swapped_under_load_without_a_failed_or_mixed_answer(
    folder: Path, tmp_path: Path
) -> None:
    versions = Versions(tmp_path / "root")
    models = [saved(folder), saved(folder, "pop"), saved(folder, "item-knn")]
    first = versions.publish(models[0])
    wanted = {}
    with served(
        str(tmp_path / "root"), "--workers", "2", "--poll", "0.05", "--store", f"sqlite:{tmp_path / 's'}"
    ) as server:
        loads = [Load(server, lists, "/v1/recommend") for _ in range(3)]
        for load in loads:
            load.start()
        for turn in range(6):
            version = first if turn == 0 else versions.publish(models[turn % 3])
            model = nextclick.load(versions.directory(version))
            wanted[version] = [item for item, _ in model.recommend(["item 3", "item 9"], 10)]
            time.sleep(0.35)
        for load in loads:
            load.over = True
            load.join(10)
    answers = [json.loads(body) for load in loads for _, body in load.answers]
    assert {status for load in loads for status, _ in load.answers} == {200}
    assert not any(load.broken for load in loads)
    assert {answer["version"] for answer in answers} == set(wanted)
    assert all(
        [entry["item"] for entry in answer["items"]] == wanted[answer["version"]] for answer in answers
    )
    assert not any(answer["marks"] for answer in answers)


def test_figures_of_all_workers_are_added_up_and_a_stop_is_clean(folder: Path, tmp_path: Path) -> None:
    server = Server(str(saved(folder)), "--workers", "2", "--store", f"sqlite:{tmp_path / 's'}")
    try:
        server.wait()
        for n in range(40):
            server.post("/v1/recommend", {"items": [f"item {n % 30}"]})
        with urllib.request.urlopen(server.url + "/metrics") as reply:
            text = reply.read().decode()
        assert 'nextclick_answer_seconds_count{model="vs-knn-1"} 40.0' in text
    finally:
        code = server.stop()
    assert code == 0


def test_a_slow_client_is_turned_away_and_holds_nobody_up(folder: Path, tmp_path: Path) -> None:
    with served(str(saved(folder)), "--store", "memory", "--patience", "0.3") as server:
        slow = socket.create_connection(("127.0.0.1", server.port))
        slow.sendall(b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert server.post("/v1/recommend", {})["items"]
        slow.settimeout(5)
        assert b" 408 " in slow.recv(1000)
        slow.close()
        broken = socket.create_connection(("127.0.0.1", server.port))
        broken.sendall(b"\x00\xff nonsense\r\n\r\n")
        broken.settimeout(5)
        assert b" 400 " in broken.recv(1000)
        broken.close()
        assert server.get("/healthz") == {"alive": True}


def read_all(connection: socket.socket, seconds: float = 10.0) -> bytes:
    """What comes until the other side closes the connection; fails where it does not."""
    connection.settimeout(seconds)
    got = b""
    while part := connection.recv(65_536):
        got += part
    return got


def test_connections_that_say_nothing_or_never_end_their_headers_are_closed(folder: Path) -> None:
    with served(str(saved(folder)), "--store", "memory", "--patience", "0.5") as server:
        address = ("127.0.0.1", server.port)
        with socket.create_connection(address) as silent, socket.create_connection(address) as slow:
            slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-More")
            assert read_all(silent) == b""
            assert read_all(slow) == b""
        with socket.create_connection(address) as second:  # the second request of a connection is slow
            second.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            got = b""
            while b'{"alive":true}' not in got:  # the head may come before the body
                part = second.recv(10_000)
                assert part
                got += part
            assert b"200 OK" in got
            second.sendall(b"GET /heal")
            assert read_all(second) == b""
        for head in (
            b"GET /healthz HTTP/1.1\r\n" + b"X-A: %s\r\n" % (b"a" * 1000),
            b"GET /",
            b"GET / HTTP/1.1\r\nX: ",
        ):
            with socket.create_connection(address) as endless:
                with contextlib.suppress(ConnectionError):
                    endless.sendall(head)
                    for _ in range(100):
                        endless.sendall(
                            b"X-A: %s\r\n" % (b"a" * 4000) if head.endswith(b"\n") else b"a" * 4000
                        )
                with contextlib.suppress(ConnectionError):
                    assert b" 400 " in read_all(endless)
        assert server.get("/healthz") == {"alive": True}


def test_a_client_that_reads_nothing_is_let_go(folder: Path) -> None:
    """It asks for more than the system's buffers hold and takes none of it."""
    question = {"requests": [{"items": [f"item {n % 30}"], "k": 30} for n in range(100)]}
    body = json.dumps(question).encode()
    head = b"POST /v1/recommend/batch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with served(str(saved(folder)), "--store", "memory", "--patience", "0.5") as server:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", server.port))
            deaf.settimeout(0.5)
            with contextlib.suppress(OSError):  # the server stops reading while it cannot write
                for _ in range(400):
                    deaf.sendall(head + body)
            waited(lambda: ended(deaf))
        with socket.socket() as reader:  # one that reads slowly may, for longer than the patience
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            reader.connect(("127.0.0.1", server.port))
            reader.sendall((head + body) * 60)
            reader.settimeout(10)
            start, got, last = time.monotonic(), 0, b""
            while got < 60:
                part = reader.recv(100_000)
                assert part
                got += (last + part).count(b'"answers"')
                last = part[-8:]  # a byte less than what is counted
                time.sleep(0.06 if time.monotonic() < start + 3.5 else 0)
        assert server.get("/healthz") == {"alive": True}


def ended(connection: socket.socket) -> bool:
    """Whether the other side has broken off: known without reading a byte."""
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0 or state_of(connection) != 1


def state_of(connection: socket.socket) -> int:
    """The state of a connection; 1 is established."""
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /v1/catalogue?item=%ff&category=%c3%28 HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\n\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Request-ID: \xff\r\n\r\n", 200),
        (b'POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\n\r\n{"session":"\xff"}', 400),
        (b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n", 413),
        (b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
def test_bytes_that_are_no_text_or_no_request_are_refused(
    plain_server: Server, sent: bytes, status: int
) -> None:
    with socket.create_connection(("127.0.0.1", plain_server.port)) as connection:
        connection.sendall(sent)
        connection.settimeout(5)
        assert b" %d " % status in connection.recv(1000).partition(b"\r\n")[0]
    assert plain_server.get("/healthz") == {"alive": True}


@pytest.fixture(scope="module")
def plain_server(folder: Path) -> Iterator[Server]:
    with served(str(saved(folder)), "--store", "memory") as running:
        yield running


def test_behind_a_proxy_that_was_announced_the_visitors_address_counts(folder: Path) -> None:
    """A proxy that serves the pages below a path, and hands on who asks."""
    with (
        served(str(saved(folder)), "--store", "memory", "--proxy", "127.0.0.1", "--rate", "5") as server,
        proxied(server.port, "/shop/") as url,
    ):
        assert status(f"{url}v1/models", "192.0.2.7") == 200
        assert status(f"{url}metrics", "192.0.2.7") == 403
        assert status(f"{url}metrics", "192.0.2.7, 127.0.0.1") == 403  # by way of another proxy here
        assert status(f"{url}metrics", "127.0.0.1, 192.0.2.7") == 403  # as a stranger would write it
        assert status(f"http://127.0.0.1:{server.port}/metrics", None) == 200
        many = [status(f"{url}v1/models", "192.0.2.8") for _ in range(30)]
        assert 429 in many
        assert status(f"{url}v1/models", "192.0.2.9") == 200  # another visitor, by the same proxy
        for page in ("", "experiment", "docs"):
            with urllib.request.urlopen(url + page) as reply:
                text = reply.read().decode()
            links = re.findall(r'(?:href|src)="([^"#]+)"', text)
            assert len(links) >= 5
            for link in links:
                assert status(urllib.parse.urljoin(url + page, link), None) == 200


def status(url: str, forwarded: str | None) -> int:
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


@contextlib.contextmanager
def proxied(port: int, below: str) -> Iterator[str]:
    """A reverse proxy that takes requests below a path, as in the documentation."""

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith(below):
                self.send_error(404)
                return
            connection = HTTPConnection("127.0.0.1", port, timeout=10)
            client = self.headers.get("X-Forwarded-For", "192.0.2.1")  # stands for the visitor's address
            connection.request(
                "GET", "/" + self.path.removeprefix(below), headers={"X-Forwarded-For": client}
            )
            reply = connection.getresponse()
            body = reply.read()
            self.send_response(reply.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            connection.close()

        def log_message(self, *_: Any) -> None: ...

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}{below}"
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join(10)


def test_a_server_starts_again_at_once_on_the_port_of_one_that_was_killed(
    folder: Path, tmp_path: Path
) -> None:
    server = Server(str(saved(folder)), "--workers", "2", "--store", f"sqlite:{tmp_path / 's'}")
    try:
        server.wait()
        figures = set(Path(tempfile.gettempdir()).glob("nextclick-figures-*"))
        orphans = server.children()
        server.kill()
        server.start()
        gone = time.monotonic() + 20
        while any(is_alive(pid) for pid in orphans):
            assert time.monotonic() < gone
            time.sleep(0.02)
        server.wait()
        assert len(server.children()) == 2
        assert not set(server.children()) & set(orphans)
        assert server.post("/v1/recommend", {"items": ["item 3"]})["items"]
        left = set(Path(tempfile.gettempdir()).glob("nextclick-figures-*"))
        assert len(figures - left) >= 1  # of the killed one
    finally:
        server.stop()


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_lists_go_on_without_redis_and_sessions_when_it_is_back(folder: Path, tmp_path: Path) -> None:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server to kill")
    pytest.importorskip("redis")
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--appendonly", "yes"]
    command += ["--appendfsync", "always", "--dir", str(tmp_path)]
    redis = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    load: Load | None = None
    try:
        with served(
            str(saved(folder)), "--workers", "2", "--store", f"redis://127.0.0.1:{port}/0", "--cache", "0"
        ) as server:
            load = Load(server, events("r"), "/v1/events")
            asked = {"session": "one", "items": ["item 3"], "k": 5}
            alone = server.post("/v1/recommend", asked)
            server.post("/v1/events", {"session": "one", "item": "item 9", "id": "e"})
            kept = server.post("/v1/recommend", asked)
            assert kept["marks"] == alone["marks"] == []
            load.start()
            time.sleep(0.5)
            redis.kill()
            redis.wait(10)
            without = server.post("/v1/recommend", asked)
            assert without["marks"] == ["store-down"]
            assert without["items"] == alone["items"]
            waited(lambda: 503 in {status for status, _ in load.answers})
            waited(lambda: server.get("/readyz")["degraded"])  # by whichever worker answers
            redis = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            waited(lambda: server.post("/v1/recommend", asked) | {"request": ""} == kept | {"request": ""})
            n = len(load.answers)
            waited(lambda: 200 in {status for status, _ in load.answers[n:]})
            load.over = True
            load.join(10)
            acknowledged = [
                name for name, (status, _) in zip(load.sent, load.answers, strict=True) if status == 200
            ]
            assert {status for status, _ in load.answers} == {200, 503}
            again = [
                {"session": f"r{n // 5}", "item": f"item {n % 30}", "id": f"r{n}"}
                for n in (int(name[1:]) for name in acknowledged[:1000])
            ]
            found: dict[str, Any] = {}

            def answered() -> bool:  # the other worker may leave Redis alone for a moment more
                try:
                    found.update(server.post("/v1/events/batch", {"events": again}))
                except urllib.error.HTTPError as error:
                    if error.code != 503:
                        raise
                return bool(found)

            waited(answered)
            assert found["duplicates"] == len(again)  # every one is still known
    finally:
        if load is not None:
            load.over = True
        redis.kill()
        redis.wait(10)


def waited(true: Callable[[], Any], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_missing_package_is_said_with_the_remedy(folder: Path) -> None:
    model = str(saved(folder))
    for package in ("msgspec", "fastapi", "uvicorn", "prometheus_client"):
        code = f"import sys; sys.modules[{package!r}] = None; from nextclick.cli import main; main()"
        command = [sys.executable, "-c", code, "serve", model, "--store", "memory", "--port", "18998"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1, done.stderr
        assert "pip install 'nextclick[serve]'" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "no model here"),
        (["MODEL", "--workers", "2", "--store", "memory"], "several workers"),
        (["MODEL", "--host", "0.0.0.0"], "--keys"),
        (["MODEL", "--store", "mongo:x"], "expected memory, sqlite"),
        (["MODEL", "--keys", "none.json"], "nextclick keys add"),
        (["MODEL", "MODEL"], "two models"),
        (["MODEL", "--rules", "none.toml"], "no such file"),
        (["MODEL", "--runtime", "onnx"], "nextclick export"),
        (["nothing", "--workers", "2"], "no model here"),
    ],
)
def test_what_cannot_be_served_is_said(folder: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    model = str(saved(folder))
    words = [model if word == "MODEL" else word for word in arguments]
    if "--store" not in words:
        words += ["--store", f"sqlite:{tmp_path / 's'}"]
    command = [sys.executable, "-m", "nextclick", "serve", *words, "--port", "18999"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
