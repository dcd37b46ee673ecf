"""How fast the service answers, and what it survives: server and load generator on the same cores.

    python benchmarks/serving.py                 # all of it, about 10 minutes
    python benchmarks/serving.py http swaps      # parts: inside, http, rerank, swaps, kills, memory

inside: the engine alone, without HTTP, on prefixes of diginetica's test part. http: ``nextclick serve`` with
2 workers for 60 s at the rate that is promised, then 10 s as fast as it goes; no list is kept in the cache.
rerank: a generator and a re-ranker over it behind one server, asked in turn.
swaps: 30 changes of version during 60 s of load. kills: SIGKILL of a worker, of the whole server and of Redis
(where redis-server is installed) while events come in. memory: resident memory of the server while a million
events of 100,000 sessions come in.

Models are fitted into the folder WORK if they are not there (NEXTCLICK_WORK, else a temporary one).
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np

import nextclick
from data import RESULTS, ready, write
from load import Outcome, load
from nextclick import Dataset
from nextclick.serving import onnx
from nextclick.serving.engine import Ask, Engine
from nextclick.serving.versions import Versions

SETTING = "server and load generator share the same cores; cache off"
SECONDS = 60.0
RATES = {"vs-knn": 1000, "narm": 500, "item-knn": 1000}
PARTS = ("inside", "http", "rerank", "swaps", "kills", "memory")
SETTINGS: dict[str, dict[str, Any]] = {"narm": {"epochs": 1}, "item-knn": {"preset": "i2i-cf"}, "vs-knn": {}}


def main() -> None:
    wanted = sys.argv[1:] or list(PARTS)
    results: dict[str, Any] = {}
    if sys.argv[1:] and (RESULTS / "serving.json").exists():  # a part takes its place among the others
        results = {k: v for k, v in json.loads((RESULTS / "serving.json").read_text()).items() if k in PARTS}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(os.environ.get("NEXTCLICK_WORK", temporary))
        for part in wanted:
            before = os.getloadavg()[0]
            found = globals()[part](work)
            results[part] = {"load_average_before": round(before, 2), **found}
            print(part, json.dumps(results[part], indent=2), file=sys.stderr)
            write("serving", {"setting": SETTING, **results})


# -- what is served


def data(work: Path) -> Dataset:
    return ready("diginetica", work)


def model(work: Path, name: str) -> Path:
    """A model fitted on diginetica; how well it predicts does not matter here, its size does."""
    path = work / f"diginetica-{name}"
    if path.exists():
        return path
    if name == "rrcre":  # a few sessions are enough: its speed does not depend on what it has learnt
        generator = nextclick.load(model(work, "vs-knn"))
        reranker = nextclick.RRCRE(generator, epochs=1, held_out="none")
        reranker.fit(data(work).train[-3000:]).save(path)
    else:
        nextclick.build(name, SETTINGS[name]).fit(data(work).train).save(path)
        if name == "narm":
            onnx.export(path)
    return path


def taken(engine: Engine, items: list[Any]) -> float:
    """Milliseconds of one answer: own ids in, ids and scores out."""
    start = time.perf_counter()
    engine.answer([Ask(engine.codes(items)[0], 20)])
    return (time.perf_counter() - start) * 1000


def prefixes(work: Path, n: int) -> list[list[Any]]:
    dataset = data(work)
    queries, _ = dataset.test.pairs()
    some = np.random.default_rng(1).choice(len(queries), n, replace=False)
    return [dataset.vocabulary.ids_of(queries.prefix(i)) for i in some]


def questions(work: Path) -> Iterator[tuple[str, bytes]]:
    asked = [json.dumps({"items": one, "k": 20}).encode() for one in prefixes(work, 20_000)]
    return (("", body) for body in itertools.cycle(asked))


class Server:
    """``nextclick serve``, in processes of its own."""

    def __init__(self, *arguments: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.arguments = arguments
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "nextclick", "serve", *self.arguments, "--port", str(self.port)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def answers(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def wait(self) -> None:
        while not self.answers():
            if self.process.poll() is not None:
                sys.exit("the server did not start")
            time.sleep(0.02)

    def workers(self) -> list[int]:
        found = subprocess.run(
            ["ps", "--ppid", str(self.process.pid), "-o", "pid="], capture_output=True, text=True
        )
        return [int(row) for row in found.stdout.split()]

    def memory(self) -> float:
        """Resident memory of all workers, MB; what they share is counted in each."""
        return sum(_resident(pid) for pid in self.workers() or [self.process.pid])

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(120)


def _resident(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


# -- parts


def inside(work: Path) -> dict[str, Any]:
    """Milliseconds of one answer, by the engine alone: own ids in, ids and scores out."""
    found = {}
    for name in RATES:
        engine = Engine.open(model(work, name), name)
        times = [taken(engine, items) for items in prefixes(work, 3000)]
        p50, p99 = np.percentile(times, [50, 99]).round(3).tolist()
        found[name] = {"p50_ms": p50, "p99_ms": p99}
    return found


def http(work: Path) -> dict[str, Any]:
    found = {}
    for name, rate in RATES.items():
        server = Server(
            str(model(work, name)), "--workers", "2", "--cache", "0", "--store", f"sqlite:{work / 'http.db'}"
        )
        server.wait()
        asked = questions(work)
        load(server.port, "/v1/recommend", asked, seconds=2)  # warms up
        steady = load(server.port, "/v1/recommend", asked, seconds=SECONDS, rate=rate, keep=True)
        marked = sum(b'"marks":[]' not in body for body in steady.bodies)
        fast = load(server.port, "/v1/recommend", asked, seconds=10)
        server.stop()
        steady_figures = {"rate_asked": rate, **steady.figures(), "marked": marked}
        found[name] = {"steady": steady_figures, "as_fast_as_it_goes": fast.figures()}
    return found


def rerank(work: Path) -> dict[str, Any]:
    """What a re-ranker adds to a request, against its generator in the same run: inside, and over HTTP."""
    paths = {"generator": model(work, "vs-knn"), "reranker": model(work, "rrcre")}
    engines = {name: Engine.open(path, name) for name, path in paths.items()}
    times = [{name: taken(engines[name], items) for name in engines} for items in prefixes(work, 2000)]
    inside = {name: float(np.median([one[name] for one in times])) for name in engines}
    named = [f"{name}={path}" for name, path in paths.items()]
    server = Server(*named, "--workers", "2", "--cache", "0", "--store", f"sqlite:{work / 'rerank.db'}")
    server.wait()
    asked = (
        (name, json.dumps({"items": items, "k": 20, "model": name}).encode())
        for items in itertools.cycle(prefixes(work, 5000))
        for name in paths
    )
    load(server.port, "/v1/recommend", asked, seconds=2, rate=100)  # warms up
    outcome = load(server.port, "/v1/recommend", asked, seconds=30, connections=4, rate=100, keep=True)
    server.stop()
    of = {name: [] for name in paths}  # type: dict[str, list[float]]
    for name, seconds in zip(outcome.names, outcome.seconds, strict=True):
        of[name].append(1000 * seconds)
    http = {name: float(np.median(seconds)) for name, seconds in of.items()}
    marked = sum(b'"marks":[]' not in body for body in outcome.bodies)
    return {
        where: {**{f"{name}_p50_ms": round(p50, 3) for name, p50 in found.items()},
                "added_p50_ms": round(found["reranker"] - found["generator"], 3)}
        for where, found in (("inside", inside), ("http", http))
    } | {"generator": "vs-knn", **outcome.figures(), "marked": marked}  # fmt: skip


def swaps(work: Path) -> dict[str, Any]:
    """30 versions put in service during the load; every answer must be wholly of the version it names."""
    root = work / "swap-versions"
    shutil.rmtree(root, ignore_errors=True)
    versions = Versions(root)
    models = [model(work, name) for name in ("vs-knn", "item-knn")]
    asked = prefixes(work, 50)
    first = versions.publish(models[0])
    right: dict[str, list[list[Any]]] = {}

    def learn(version: str, path: Path) -> None:
        fitted = nextclick.load(path)
        right[version] = [[item for item, _ in fitted.recommend(items, 20)] for items in asked]

    learn(first, models[0])
    server = Server(
        str(root), "--workers", "2", "--cache", "0", "--poll", "0.1", "--store", f"sqlite:{work / 'swaps.db'}"
    )
    server.wait()
    bodies = [(str(n), json.dumps({"items": items, "k": 20}).encode()) for n, items in enumerate(asked)]
    done = threading.Event()

    def change() -> None:
        for turn in range(1, 31):
            learn(versions.publish(models[turn % 2]), models[turn % 2])
            if done.wait(max(0.0, SECONDS / 31 * turn - (time.monotonic() - began))):
                return

    began = time.monotonic()
    changing = threading.Thread(target=change)
    changing.start()
    outcome = load(
        server.port,
        "/v1/recommend",
        itertools.cycle(bodies),
        seconds=SECONDS,
        connections=8,
        rate=300,
        keep=True,
    )
    done.set()
    changing.join()
    server.stop()
    answers = [json.loads(body) for body in outcome.bodies]
    mixed = sum(
        not answer["marks"]
        and [entry["item"] for entry in answer["items"]] != right[answer["version"]][int(name)]
        for name, answer in zip(outcome.names, answers, strict=True)
    )
    return {
        "versions_published": len(right), "versions_seen": len({answer["version"] for answer in answers}),
        "mixed_answers": mixed,
        "marked": sum(bool(answer["marks"]) for answer in answers), **outcome.figures(),
    }  # fmt: skip


def kills(work: Path) -> dict[str, Any]:
    found = {}
    for what in ("worker", "server"):
        found[what] = _killed(work, what)
    if shutil.which("redis-server"):
        found["redis"] = _without_redis(work)
    return found


def _events(prefix: str) -> Iterator[tuple[str, bytes]]:
    for n in itertools.count():
        name = f"{prefix}{n}"
        event = {"session": f"{prefix}{n // 5}", "item": n % 1000, "id": name}
        yield name, json.dumps(event).encode()


def _killed(work: Path, what: str) -> dict[str, Any]:
    """Kill during 20 s of events, start again, and look for every acknowledged event in the store."""
    import sqlite3

    from nextclick.serving.sqlite import _decode

    store = work / f"kill-{what}.db"
    for file in work.glob(f"{store.name}*"):
        file.unlink()
    server = Server(str(model(work, "vs-knn")), "--workers", "2", "--store", f"sqlite:{store}")
    server.wait()
    back: list[float] = []

    def kill() -> None:
        time.sleep(7)
        began = time.monotonic()
        if what == "worker":
            os.kill(server.workers()[0], signal.SIGKILL)
        else:
            orphans = server.workers()
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait()
            server.start()  # as a service manager does, at once: it waits for the port
            while any(Path(f"/proc/{pid}").exists() for pid in orphans):
                time.sleep(0.02)
        server.wait()
        back.append(time.monotonic() - began)

    killing = threading.Thread(target=kill)
    killing.start()
    outcome = load(server.port, "/v1/events", _events("e"), seconds=20, connections=8, rate=400, keep=True)
    killing.join()
    server.stop()
    with sqlite3.connect(store) as connection:
        ids = {
            click.id
            for (blob,) in connection.execute("SELECT clicks FROM sessions")
            for click in _decode(blob)
        }
    acknowledged = [
        name for name, body in zip(outcome.names, outcome.bodies, strict=True) if b'"clicks"' in body
    ]
    return {
        "acknowledged_events": len(acknowledged), "lost": len(set(acknowledged) - ids),
        "answers_again_after_s": round(back[0], 2), "longest_pause_s": round(outcome.longest_gap, 2),
        **outcome.figures(),
    }  # fmt: skip


def _without_redis(work: Path) -> dict[str, Any]:
    """Kill Redis during the load and start it again: lists go on, events are refused meanwhile."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = work / "redis"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    options = f"--port {port} --bind 127.0.0.1 --appendonly yes --dir".split()

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(["redis-server", *options, str(folder)], stdout=subprocess.DEVNULL)

    redis = start()
    server = Server(str(model(work, "vs-knn")), "--workers", "2", "--store", f"redis://127.0.0.1:{port}/0")
    server.wait()

    def kill() -> None:
        nonlocal redis
        time.sleep(5)
        redis.kill()
        redis.wait()
        time.sleep(5)
        redis = start()

    killing = threading.Thread(target=kill)
    killing.start()
    asked = (
        (name, json.dumps({"session": f"s{name}", "items": [1, 2], "k": 20}).encode())
        for name in map(str, range(10**9))
    )
    lists: list[Outcome] = []
    listing = threading.Thread(
        target=lambda: lists.append(
            load(server.port, "/v1/recommend", asked, seconds=18, connections=4, rate=200, keep=True)
        )
    )
    listing.start()
    events = load(server.port, "/v1/events", _events("r"), seconds=18, connections=4, rate=200)
    listing.join()
    killing.join()
    server.stop()
    redis.terminate()
    redis.wait()
    marked = sum(b"store-down" in body for body in lists[0].bodies)
    return {
        "lists": {**lists[0].figures(), "marked_store_down": marked},
        "events": {**events.figures(), "statuses": {str(status): n for status, n in events.statuses.items()}},
    }  # fmt: skip


def memory(work: Path) -> dict[str, Any]:
    """Resident memory while a million events of 100,000 sessions come in, a thousand at once."""
    store = work / "memory.db"
    for file in work.glob(f"{store.name}*"):
        file.unlink()
    server = Server(
        str(model(work, "vs-knn")), "--workers", "2", "--store", f"sqlite:{store}", "--max-body", "1000000"
    )
    server.wait()
    rng = np.random.default_rng(1)
    sessions, items = rng.integers(0, 100_000, 1_000_000), rng.integers(1, 43_000, 1_000_000)
    load(server.port, "/v1/recommend", questions(work), seconds=1, connections=8)
    start, series = time.perf_counter(), {"0": round(server.memory(), 1)}
    statuses: dict[int, int] = {}
    for low in range(0, 1_000_000, 100_000):
        bodies = []
        for first in range(low, low + 100_000, 1000):
            events = [
                {"session": f"s{sessions[n]}", "item": int(items[n]), "id": f"e{n}"}
                for n in range(first, first + 1000)
            ]
            bodies.append(("", json.dumps({"events": events}).encode()))
        waiting = iter(bodies)
        outcome = Outcome()
        while len(outcome.seconds) < 100:
            try:
                part = load(server.port, "/v1/events/batch", waiting, seconds=600, connections=1)
            except (StopIteration, RuntimeError):
                break
            outcome.seconds += part.seconds
            statuses = {**statuses, **part.statuses}
        series[str(low + 100_000)] = round(server.memory(), 1)
    took = time.perf_counter() - start
    server.stop()
    size = sum(file.stat().st_size for file in work.glob(f"{store.name}*")) / 1e6
    return {
        "workers": 2,
        "resident_mb_of_both_after_events": series,
        "growth_in_the_second_half_mb": round(series["1000000"] - series["500000"], 1),
        "seconds": round(took, 1),
        "store_mb": round(size, 1),
    }


if __name__ == "__main__":
    main()
