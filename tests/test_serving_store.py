"""Stores of sessions: the same promises in memory, in SQLite and in Redis, held against a slow reference."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import resource
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nextclick.errors import ConfigError, DataError
from nextclick.serving.store import REMEMBERED, Click, Limits, MemoryStore, StoreDownError, open_store

KINDS = ["memory", "sqlite", "redis", "redis-server"]
Run = Callable[[Awaitable[Any]], Any]


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a real Redis listens, for the tests of this file."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server")
    path = tmp_path_factory.mktemp("redis") / "socket"
    command = [program, "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(path.parent)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 20
        while not path.exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        yield path
    finally:
        running.terminate()
        running.wait(10)


@pytest.fixture(autouse=True)
def _redis_server(request: pytest.FixtureRequest) -> None:
    """Have it started for those tests that name it."""
    if "redis-server" in request.node.name:
        pytest.importorskip("redis")
        SERVER["socket"] = request.getfixturevalue("socket")


SERVER: dict[str, Path] = {}


@contextlib.contextmanager
def opened(kind: str, folder: Path, limits: Limits) -> Iterator[tuple[Any, Run]]:
    """A store, and a loop to run it in."""
    loop = asyncio.new_event_loop()
    if kind == "redis":
        fakeredis = pytest.importorskip("fakeredis")
        pytest.importorskip("lupa", reason="no Lua for the simulated Redis")
        from nextclick.serving.redis import RedisStore

        store: Any = RedisStore("", limits, client=fakeredis.FakeAsyncRedis())
    elif kind == "redis-server":
        store = open_store(f"unix://{SERVER['socket']}", limits)
        loop.run_until_complete(store._client.flushall())
    else:
        store = open_store("memory" if kind == "memory" else f"sqlite:{folder / 's.sqlite'}", limits)
    try:
        yield store, loop.run_until_complete
    finally:
        loop.run_until_complete(store.close())
        loop.close()


events = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 12), st.integers(0, 25), st.sampled_from(["x", "y", 7])),
    max_size=30,
)


@pytest.mark.parametrize("kind", KINDS)
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(stream=events, longest=st.integers(1, 4), together=st.integers(1, 5))
def test_any_stream_of_events_gives_what_sorting_gives(
    tmp_path_factory: pytest.TempPathFactory, kind: str, stream: list[Any], longest: int, together: int
) -> None:
    """Out of order, of one moment, of one id with other items and times, in two sessions, several at once.

    Each store does what this does: of an id that is there the first click stays, the others stand by time,
    those of the same time as they came, and only so many are remembered.
    """
    folder = tmp_path_factory.mktemp("store")
    seen: dict[str, list[Click]] = {"a": [], "b": []}
    with opened(kind, folder, Limits(longest=longest)) as (store, run):
        for low in range(0, len(stream), together):
            for session, there in seen.items():
                clicks = [
                    Click(moment, f"e{id}", item)
                    for of, id, moment, item in stream[low : low + together]
                    if of == session
                ]
                if not clicks:
                    continue
                duplicates = 0
                for click in clicks:
                    if click.id in {other.id for other in there}:
                        duplicates += 1
                    else:
                        there.append(click)
                        there.sort(key=lambda one: one.time)
                del there[: -REMEMBERED * longest]
                kept = run(store.append(session, clicks))
                assert kept.items == [click.item for click in there[-longest:]]
                assert kept.duplicates == duplicates
        for session, there in seen.items():
            assert run(store.read(session)) == [click.item for click in there[-longest:]]


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_is_told_by_its_id_alone(kind: str, tmp_path: Path) -> None:
    """By ids of every length that MessagePack writes differently, and that begin with each other."""
    ids = ["", "a", "ab", "a" * 31, "a" * 32, "é" * 127 + "a", "é" * 128, "b" * 65_535]
    with opened(kind, tmp_path, Limits()) as (store, run):
        first = [Click(1000 + n, id, f"item {n}") for n, id in enumerate(ids)]
        assert run(store.append("s", first)).duplicates == 0
        other = [Click(2000 - n, id, "another") for n, id in enumerate(ids)]
        again = run(store.append("s", other))
        assert again.duplicates == len(ids)
        assert again.items == [click.item for click in first]


@pytest.mark.parametrize("kind", KINDS)
def test_clicks_of_one_moment_stand_as_they_came(kind: str, tmp_path: Path) -> None:
    now = 4_102_444_800_000  # the last moment that is taken
    with opened(kind, tmp_path, Limits(longest=500)) as (store, run):
        run(store.append("s", [Click(now + 1, "last", "last")]))
        for low in range(0, 400, 40):
            run(store.append("s", [Click(now, f"{(n * 7919) % 1000}", n) for n in range(low, low + 40)]))
        assert run(store.read("s")) == [*range(400), "last"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_sent_again_changes_nothing(kind: str, tmp_path: Path) -> None:
    with opened(kind, tmp_path, Limits(longest=3)) as (store, run):
        clicks = [Click(n, f"e{n}", n) for n in range(6)]
        assert run(store.append("s", clicks)).duplicates == 0
        for click in clicks:
            kept = run(store.append("s", [click, click]))
            assert kept.items == [3, 4, 5]
            assert kept.duplicates == 2
        assert run(store.read("other")) == []
        assert run(store.forget("s"))
        assert not run(store.forget("s"))
        assert run(store.read("s")) == []


@pytest.mark.parametrize("kind", KINDS)
def test_sessions_end(kind: str, tmp_path: Path) -> None:
    with opened(kind, tmp_path, Limits(ttl=0.15)) as (store, run):
        run(store.append("s", [Click(1, "a", "x")]))
        assert run(store.read("s")) == ["x"]
        time.sleep(0.2)
        assert run(store.read("s")) == []
        assert run(store.append("s", [Click(2, "b", "y")])).items == ["y"]


@pytest.mark.parametrize("kind", KINDS)
def test_text_and_numbers_come_back_as_they_went_in(kind: str, tmp_path: Path) -> None:
    items = ["1", 1, "é\x00ü", -(2**63), "x" * 256]
    with opened(kind, tmp_path, Limits()) as (store, run):
        run(store.append("s", [Click(n, str(n), item) for n, item in enumerate(items)]))
        assert run(store.read("s")) == items


def test_sqlite_survives_and_is_shared_and_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nextclick.serving.sqlite as module

    monkeypatch.setattr(module, "_SWEEP", 0.05)
    with opened("sqlite", tmp_path, Limits(sessions=10)) as (store, run):
        with opened("sqlite", tmp_path, Limits(sessions=10)) as (other, _):
            for n in range(40):
                run(store.append(f"s{n}", [Click(n, "e", n)]))
                assert run(other.read(f"s{n}")) == [n]
        until = time.monotonic() + 10
        while run(store.count()) > 10 and time.monotonic() < until:
            time.sleep(0.05)
        assert run(store.count()) == 10
        assert run(store.read("s39")) == [39]
    with opened("sqlite", tmp_path, Limits()) as (store, run):
        assert run(store.read("s39")) == [39]


def test_the_log_of_sqlite_stays_short_under_writes_without_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nextclick.serving import sqlite

    monkeypatch.setattr(sqlite, "_LOG", 300_000)
    monkeypatch.setattr(sqlite, "_LOOK", 0.01)
    file = tmp_path / "s"
    store = sqlite.SqliteStore(file, Limits())
    log, n = tmp_path / "s-wal", 0
    sizes: list[int] = []
    until = time.monotonic() + 10
    while len(sizes) < 3000 or min(sizes[-1000:]) > 300_000:
        assert time.monotonic() < until
        asyncio.run(store.append(f"s{n % 500}", [Click(n, f"e{n}", n)]))
        sizes.append(log.stat().st_size)
        n += 1
    assert sum(late < early for early, late in itertools.pairwise(sizes)) >= 1  # it began anew
    assert len(asyncio.run(store.read("s1"))) > 1
    asyncio.run(store.close())


def test_workers_may_make_a_new_file_at_the_same_moment(tmp_path: Path) -> None:
    from nextclick.serving import sqlite

    def opened(file: Path, gate: threading.Barrier) -> None:
        gate.wait()
        asyncio.run(sqlite.SqliteStore(file, Limits()).close())

    with ThreadPoolExecutor(3) as pool:
        for n in range(60):
            gate = threading.Barrier(3)
            for job in [pool.submit(opened, tmp_path / f"{n}.db", gate) for _ in range(3)]:
                job.result()


def test_a_store_that_fails_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'redis'"):
        open_store("rediss3:x", Limits())
    (tmp_path / "bad.sqlite").write_text("this is no database, and long enough to be looked at as one" * 10)
    with pytest.raises(DataError, match="cannot be used as a store"):
        open_store(f"sqlite:{tmp_path / 'bad.sqlite'}", Limits())
    with opened("sqlite", tmp_path, Limits()) as (store, run):
        blocker = sqlite3.connect(tmp_path / "s.sqlite", isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreDownError, match="locked"):
            run(store.append("s", [Click(1, "a", "x")]))
        assert run(store.read("s")) == []
        blocker.execute("COMMIT")
        blocker.close()
        assert run(store.append("s", [Click(1, "a", "x")])).items == ["x"]


def test_redis_that_does_not_answer_is_left_alone_for_a_while() -> None:
    pytest.importorskip("redis")
    from nextclick.serving.redis import RedisStore

    async def asked() -> list[float]:
        store = RedisStore("redis://127.0.0.1:1/0", Limits())
        took = []
        for _ in range(3):
            start = time.perf_counter()
            with pytest.raises(StoreDownError):
                await store.append("s", [Click(1, "a", "x")])
            took.append(time.perf_counter() - start)
        await store.close()
        return took

    assert max(asyncio.run(asked())[1:]) < 0.05


def test_memory_stays_flat_over_many_events() -> None:
    """A short form of what the benchmark does with a million events."""
    store, loop = MemoryStore(Limits(longest=5, sessions=500)), asyncio.new_event_loop()

    async def many(first: int) -> None:
        for n in range(first, first + 20_000):
            await store.append(f"s{n % 2000}", [Click(n, f"e{n}", n % 50)])

    loop.run_until_complete(many(0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loop.run_until_complete(many(20_000))
    assert loop.run_until_complete(store.count()) == 500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB
    loop.close()
