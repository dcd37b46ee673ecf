"""Stores of sessions: the same promises in memory, in SQLite and in Redis, held against a slow reference."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import resource
import sqlite3
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

KINDS = ["memory", "sqlite", "redis"]
Run = Callable[[Awaitable[Any]], Any]


@contextlib.contextmanager
def opened(kind: str, folder: Path, limits: Limits) -> Iterator[tuple[Any, Run]]:
    """A store, and a loop to run it in."""
    loop = asyncio.new_event_loop()
    if kind == "redis":
        fakeredis = pytest.importorskip("fakeredis")
        from nextclick.serving.redis import RedisStore

        store: Any = RedisStore("", limits, client=fakeredis.FakeAsyncRedis())
    else:
        store = open_store("memory" if kind == "memory" else f"sqlite:{folder / 's.sqlite'}", limits)
    try:
        yield store, loop.run_until_complete
    finally:
        loop.run_until_complete(store.close())
        loop.close()


events = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 25), st.sampled_from(["x", "y", 7])), max_size=30
)


@pytest.mark.parametrize("kind", KINDS)
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(stream=events, longest=st.integers(1, 4))
def test_any_stream_of_events_gives_what_sorting_gives(
    tmp_path_factory: pytest.TempPathFactory, kind: str, stream: list[Any], longest: int
) -> None:
    """Out of order, sent twice, several sessions: as if all had been sorted by time and cut."""
    folder = tmp_path_factory.mktemp("store")
    seen: dict[str, dict[int, Any]] = {"a": {}, "b": {}}
    with opened(kind, folder, Limits(longest=longest)) as (store, run):
        for session, moment, item in stream:  # the time names the event, so an id has one time and one item
            first = seen[session].setdefault(moment, item)
            again = moment in seen[session] and first is not item
            kept = run(store.append(session, [Click(moment, f"e{moment}", first)]))
            wanted = [i for _, i in sorted(seen[session].items())][-longest:]
            remembered = sorted(seen[session])[-REMEMBERED * longest :]
            if moment in remembered:
                assert kept.items == wanted
            assert not again or kept.duplicates in (0, 1)
        for session, clicks in seen.items():
            assert run(store.read(session)) == [item for _, item in sorted(clicks.items())][-longest:]


@pytest.mark.parametrize("kind", KINDS)
def test_an_event_sent_again_changes_nothing(kind: str, tmp_path: Path) -> None:
    with opened(kind, tmp_path, Limits(longest=3)) as (store, run):
        clicks = [Click(n, f"e{n}", n) for n in range(6)]
        assert run(store.append("s", clicks)).duplicates == 0
        for click in clicks:
            kept = run(store.append("s", [click, click]))
            assert kept.items == [3, 4, 5]
            assert kept.duplicates == 2 if kind != "redis" else kept.duplicates >= 1
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


def test_text_and_numbers_come_back_as_they_went_in(tmp_path: Path) -> None:
    items = ["1", 1, "é\x00ü", -(2**63), "x" * 256]
    for kind in KINDS:
        with opened(kind, tmp_path / kind, Limits()) as (store, run):
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
