"""The same SQL text on DuckDB and on Spark gives the same data and the same models, bit by bit."""

from __future__ import annotations

import contextlib
import csv
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from nextclick import VMISKNN, ItemKNN, Recommender, Run
from nextclick.clickstream import StreamConfig, generate
from nextclick.dataset import Dataset
from nextclick.errors import ConfigError, DataError, MissingExtraError
from nextclick.large import open_engine
from nextclick.places import Url
from nextclick.prepare import prepare
from nextclick.prepare.engines import DuckDB
from nextclick.prepare.finding import find_source
from nextclick.prepare.sources import log_sql
from nextclick.prepare.spark import Spark
from spark_here import WARNINGS, below, small_spark

T0 = 1_400_000_000
pytestmark = [pytest.mark.spark, *WARNINGS]


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from small_spark(tmp_path_factory.mktemp("spark"))


def assert_same(tmp_path: Path, *source: Path, **options: Any) -> Dataset:
    duck = prepare(*source, out=tmp_path / "duckdb" / "data", **options)
    spark = prepare(*source, out=tmp_path / "spark" / "data", engine="spark", **options)
    files = sorted((tmp_path / "duckdb" / "data").glob("slice-*/arrays/*") or ())
    files = files or sorted((tmp_path / "duckdb" / "data" / "arrays").iterdir())
    for file in files:
        other = tmp_path / "spark" / file.relative_to(tmp_path / "duckdb")
        assert file.read_bytes() == other.read_bytes(), file.name
    for key in ("steps", "bad_rows", "splits", "n_items", "time_unit", "warnings", "fingerprint"):
        assert duck.info[key] == spark.info[key], key
    assert not list((tmp_path / "spark").glob(".*"))
    return duck


@pytest.mark.usefixtures("spark")
def test_ready_split_with_clock(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "rsc15-100k"
    assert_same(tmp_path, train=folder / "train.parquet", test=folder / "test.parquet", validation="1d")


@pytest.mark.usefixtures("spark")
def test_eshop(shared_data: Path, tmp_path: Path) -> None:
    assert_same(tmp_path, shared_data / "eshop" / "clicks.csv.gz", holdout="7d", validation="7d")


@pytest.mark.usefixtures("spark")
def test_nasty_log(tmp_path: Path) -> None:
    """NULLs, broken lines, accents, emoji, quotes, ties, zones, duplicates, events, pauses, unseen items."""
    items = [
        "a",
        "B",
        "é",
        "e\u0301",
        "😀",
        "Z",
        " z ",
        'q"',
        "c,d",
        "n\nl",
        "007",
        "7",
        "ﬀ",
        "\u200b",
        "x" * 5000,
    ]
    rows: list[tuple[str, ...]] = []
    for k in range(900):
        hour, minute, second = k // 60 % 24, k % 60, (k // 4 * 4) % 60
        moment = f"2014-05-{1 + k // 300:02}T{hour:02}:{minute:02}:{second:02}"
        zone = ("", "Z", "+02:00", ".123456", ".5Z", "-05:30")[k % 6]
        rows.append(
            (f"ü{k % 17}", items[k * k % len(items)], moment + zone, ("view", "buy", "")[k % 3], str(k % 5))
        )
    rows += rows[:50]
    rows += [
        ("", "a", "2014-05-01", "view", "1"),
        ("u", "", "2014-05-01", "view", "1"),
        ("u", "NaN", "2014-05-01", "view", "1"),
        ("u", "a", "", "view", "1"),
    ]
    rows += [
        ("u", "a", "soon", "view", "1"),
        ("u", "a", "1914-05-01", "view", "1"),
        ("u", "a", "2014-05-01", "view", "x"),
    ]
    log = tmp_path / "log.csv"
    with log.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("user", "item", "time", "event", "nth"), *rows])
        stream.write("u,too few\r\nu,a,2014-05-01,view,1,too many\r\n")
    data = assert_same(
        tmp_path, log, order="nth", gap="20m", collapse_repeats=True, recent="2/3", unseen="drop",
        min_support=2, max_length=40, max_bad=0.1, events=("view", "buy"), slices=2,
    )  # fmt: skip
    assert data.info["bad_rows"] == {
        "impossible time": 1, "no item id": 2, "no session id": 1, "unreadable order": 1,
        "unreadable time": 2, "unreadable line": 2,
    }  # fmt: skip


MICROS = [
    1_400_000_000_000_000, 1_400_000_000_123_456, 1_400_000_000_999_999, 700_000_000_000_000, 0, -1,
    -86_400_000_000 * 3000, -62_000_000_000_000_000, None,
]  # fmt: skip
NUMBERS = [1.4e9, 1.4e9 + 0.5, 1.4e9 + 0.123456, float("nan"), float("inf"), -float("inf"), -1.5, 0.0, None]


def times() -> dict[str, Any]:
    """Times of every type that Parquet has; before 1970 and before 1582, with microseconds and finer."""
    import pyarrow as pa

    found = {}
    for unit, per in (("s", 1_000_000), ("ms", 1000), ("us", 1), ("ns", 1)):
        for zone in (None, "UTC", "America/New_York"):
            values = [None if m is None else m // per for m in MICROS]
            if unit == "ns":  # these begin in 1677
                values = [None if m is None or m < -9e15 else m * 1000 + 789 for m in values]
            found[f"{unit} {zone}"] = pa.array(values, pa.timestamp(unit, zone))
    days = [None if m is None else m // 86_400_000_000 for m in MICROS]
    found["date"] = pa.array(days, pa.date32())
    found["double"] = pa.array(NUMBERS, pa.float64())
    found["float"] = pa.array([None if x is None else np.float32(x) for x in NUMBERS], pa.float32())
    decimals = [None if x is None or not np.isfinite(x) else Decimal(f"{x:.3f}") for x in NUMBERS]
    found["decimal"] = pa.array(decimals, pa.decimal128(18, 3))
    found["unsigned"] = pa.array([1_400_000_000, 2**64 - 1, 0, None, *[5] * 5], pa.uint64())
    found["text of numbers"] = pa.array(
        ["1400000000", "1400000000.5", "", None, "x", "nan", "1e9", " 5 ", "-5"]
    )
    return found


ZONES = [
    "", "Z", " UTC", " GMT", "+02", "+0230", "-05:30", "+17:59", " America/New_York", "Z ", " No/Land", "UTC",
]  # fmt: skip
TEXTS = [
    "".join(parts)
    for parts in itertools.product(
        ["2014-05-01", "2014-5-1", "2014/05/01", "2014-02-29"], ["T", " "],
        ["1:2", "01:02:03", "23:59:59.9999999", "0:0:0.", "10:20:30.123456789"], ZONES,
    )
] + [
    "2014-05-01", "2014", "2014-05", "2014/5/1", "2014-05-01 12", "12:00:00", "T12:00:00", "now", "today",
    "epoch", "infinity", " 2014-05-01 ", "2014-05-01 24:00:00", "2014-05-01 23:59:60", "2014-05-01  12:00:00",
    "20140501", "2014-05-01\t12:00:00", "2014-05-01\n", "2014-05-01 12:00:00 +02:00", "2014-05-01 BC", "null",
    "2014-05-01 12:00:00+25:00", "2014-05-01 (BC)", "+2014-05-01", "-2014-05-01", "2014-05-01 12:00:00,123",
    "99999-01-01", "1969-12-31 23:59:59.999999", "0001-01-01", "2014-05-01 12:00:00 PST",
    "2014-05-01t12:00:00z", "２０１４-05-01", "",
]  # fmt: skip


@pytest.mark.usefixtures("spark")
def test_times_of_every_type_are_read_alike(tmp_path: Path) -> None:
    """The session's own time zone is New York's, which shows nowhere; text is in UTC unless it says so."""
    import pyarrow as pa
    from pyarrow.parquet import write_table

    columns = times()
    log, texts = tmp_path / "log.parquet", tmp_path / "texts.parquet"
    number = pa.array(range(len(MICROS)))
    write_table(pa.table({"session": number, "item": number, **columns}), log)
    number = pa.array(range(len(TEXTS)))
    write_table(pa.table({"session": number, "item": number, "text": TEXTS}), texts)

    def read(engine: DuckDB | Spark) -> dict[str, dict[int, int]]:
        found = {}
        for name in [*columns, "text"]:
            source = find_source(texts if name == "text" else log, {"time": name})
            engine.scan([source])
            unit = "iso" if source.kind("time") == "instant" or name == "text" else "s"
            engine.view("log", log_sql(source, unit, engine.dialect))
            found[name] = dict(engine.rows("SELECT item, time FROM log"))
            engine.connection.execute("DROP VIEW log; DROP VIEW raw") if isinstance(engine, DuckDB) else None
        return found

    for folder in ("duckdb", "spark"):
        (tmp_path / folder / "work").mkdir(parents=True)
    with DuckDB(tmp_path / "duckdb" / "work", [log, texts]) as engine:
        duck = read(engine)
    with Spark(tmp_path / "spark" / "work") as engine:
        spark = read(engine)
    for name, expected in duck.items():
        assert spark[name] == expected, name
    # By hand: micros as they are, what is before 1990 is impossible, what is missing is missing.
    for unit in ("us", "ns"):
        for zone in (None, "UTC", "America/New_York"):
            assert list(duck[f"{unit} {zone}"].values())[:4] == MICROS[:4]
    assert list(duck["us None"].values())[4:] == [-1, -1, -1, -1, None]
    assert list(duck["double"].values())[:3] == [MICROS[0], MICROS[0] + 500_000, MICROS[1]]
    assert list(duck["double"].values())[3:] == [-1, -1, -1, -1, -1, None]
    of_text = dict(zip(TEXTS, duck["text"].values(), strict=True))
    noon = 1_398_902_400_000_000  # 2014-05-01 in UTC
    assert of_text["2014-05-01"] == of_text["2014/5/1"] == of_text[" 2014-05-01 "] == noon
    assert of_text["2014-05-01T1:2"] == of_text["2014-5-1 1:2Z"] == noon + 62 * 60_000_000
    assert of_text["2014-05-01T10:20:30.123456789Z"] == noon + 37_230_123_456
    assert of_text["2014-05-01 01:02:03+0230"] == noon - 5_277_000_000
    assert of_text["2014-05-01 01:02:03 America/New_York"] == noon + 18_123_000_000
    for unreadable in ("2014", "12:00:00", "epoch", "2014-05-01 24:00:00", "2014-02-29 1:2", ""):
        assert of_text[unreadable] is None


@pytest.mark.usefixtures("spark")
def test_missing_empty_and_odd_ids_are_left_out_alike(tmp_path: Path) -> None:
    """NULL, NaN, infinity, fractions, minus zero, numbers beyond all integers; empty and blank text."""
    import pyarrow as pa
    from pyarrow.parquet import write_table

    sessions = [1.0, 2.0, float("nan"), float("inf"), 2.5, None, 1e20, -0.0, 0.0, -3.0]
    items = ["a", "", None, " ", "a ", "NaN", "null", "é", "e\u0301", "\u00a0"]
    n = 300
    table = pa.table({
        "session": pa.array([sessions[k % 10] for k in range(n)], pa.float64()),
        "item": pa.array([items[k * k % 7 + k % 4] for k in range(n)]),
        "time": pa.array([None if k % 50 == 0 else 1_400_000_000 + k for k in range(n)], pa.int64()),
        "event": pa.array([("view", "", None, "NULL")[k % 4] for k in range(n)]),
    })  # fmt: skip
    write_table(table, tmp_path / "log.parquet")
    data = assert_same(tmp_path, tmp_path / "log.parquet", max_bad=1, min_support=1, validation="0",
                       holdout="0.3", max_length=0)  # fmt: skip
    assert set(data.info["bad_rows"]) == {"no item id", "no session id", "unreadable time"}
    assert sorted(data.info["event_names"]) == ["", "NULL", "view"]


@pytest.mark.usefixtures("spark")
@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_folders_named_after_values_are_a_column_alike(form: str, tmp_path: Path) -> None:
    """Also a value that is missing, as Spark names it, and one with a letter that no file name holds."""
    for number, day in enumerate(["2023-11-14", "2023-11-15 10%3A30", "__HIVE_DEFAULT_PARTITION__"]):
        folder = tmp_path / "log [1]" / f"day={day}"
        folder.mkdir(parents=True)
        with duckdb.connect() as connection:
            connection.execute(
                f"COPY (SELECT {100 * number} + i // 4 AS session_id, i % 7 AS item_id "
                f"FROM range(200) AS r(i)) TO '{folder}/part.{form}' (FORMAT {form})"
            )
    data = assert_same(tmp_path, tmp_path / "log [1]", time="day", max_bad=0.5, min_support=1, holdout="0.3")
    assert data.info["bad_rows"] == {"unreadable time": 200}
    assert data.info["splits"]["test"]["last_time"] == "2023-11-15T10:30:00+00:00"


@pytest.fixture
def elsewhere(spark: Any, tmp_path: Path) -> str:
    """The URL of a file system that Spark opens and Python does not: Hadoop's view of a folder."""
    hadoop = spark.sparkContext._jsc.hadoopConfiguration()
    name = f"t{abs(hash(str(tmp_path)))}"
    (tmp_path / "elsewhere").mkdir()
    hadoop.set(f"fs.viewfs.mounttable.{name}.link./logs", f"file://{tmp_path / 'elsewhere'}")
    return f"viewfs://{name}/logs"


def test_a_log_that_spark_opens_by_its_url(elsewhere: str, tmp_path: Path) -> None:
    generate(StreamConfig(events=2000, items=60), tmp_path / "elsewhere" / "clicks" / "hour=7")
    generate(StreamConfig(events=1000, items=60, seed=2), tmp_path / "log" / "other")
    here = prepare(tmp_path / "elsewhere" / "clicks", out=tmp_path / "here")
    there = prepare(f"{elsewhere}/clicks/hour=*/part-*.parquet", out=tmp_path / "there", engine="spark")
    assert there.fingerprint == here.fingerprint
    assert there.info["sources"][0]["bytes"] == here.info["sources"][0]["bytes"]
    with Spark(tmp_path / "listing") as engine:
        folder, pattern = (
            engine.listed(Url(f"{elsewhere}/{of}")) for of in ("clicks", "clicks/hour=*/part-*.parquet")
        )
    assert [file.text for file, _ in folder if file.name.endswith(".parquet")] == [
        of.text for of, _ in pattern
    ]
    assert all(file.text.endswith(f"/clicks/hour=7/{file.name}") for file, _ in pattern)
    assert [name for _, name in folder] == [f"hour=7/{file.name}" for file, _ in folder]
    assert [name for _, name in pattern] == [file.name for file, _ in pattern]
    text = tmp_path / "elsewhere" / "text.csv"
    text.write_text("session,item,time\n" + "".join(f"{k // 4},{k % 5},{T0 + k}\n" for k in range(200)))
    here = prepare(f"file://{text}", out=tmp_path / "text here")
    there = prepare(f"{elsewhere}/text.csv", out=tmp_path / "text there", engine="spark")
    assert there.fingerprint == here.fingerprint
    with pytest.raises(DataError, match="none: no such file or folder; check the address"):
        prepare(f"{elsewhere}/none", out=tmp_path / "none", engine="spark")
    for scheme in ("nowhere", "s3a"):
        match = rf"{scheme}://bucket/clicks: Spark has no file system for .*spark.jars.packages"
        with pytest.raises(ConfigError, match=match):
            prepare(f"{scheme}://bucket/clicks", out=tmp_path / "none", engine="spark")
    assert not (tmp_path / "none").exists()


def run(tmp_path: Path, **environment: str) -> subprocess.Popen[str]:
    words = ["prepare", str(tmp_path / "log"), "--out", str(tmp_path / "data"), "--engine", "spark"]
    return subprocess.Popen(
        [sys.executable, "-m", "nextclick", *words], env={**os.environ, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_java_that_does_not_do_is_said(tmp_path: Path) -> None:
    pytest.importorskip("pyspark")
    generate(StreamConfig(events=400, items=20), tmp_path / "log")
    java = tmp_path / "jdk" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text("#!/bin/sh\necho 'UnsupportedClassVersionError: class file version 61.0' >&2\nexit 1\n")
    java.chmod(0o755)
    process = run(tmp_path, JAVA_HOME=str(tmp_path / "jdk"))
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "needs a Java runtime of version 17 or newer; install one and set JAVA_HOME" in " ".join(
        said.split()
    )
    assert "Traceback" not in said
    assert sorted(file.name for file in tmp_path.iterdir()) == ["jdk", "log"]


@pytest.mark.usefixtures("spark")
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds Spark in /proc")
def test_spark_that_ends_midway_is_said(tmp_path: Path) -> None:
    """Its Java machine is killed while the clicks are cleaned: no traceback, and nothing is left."""
    generate(StreamConfig(events=20_000, items=500), tmp_path / "log")
    process = run(tmp_path)
    try:
        while not list(tmp_path.glob(".data.*/.work/tables/clicks")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        for child in below(process.pid):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if "java" in Path(f"/proc/{child}/cmdline").read_text("utf-8", "replace").split("\0")[0]:
                    os.kill(child, signal.SIGKILL)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 1, said
    assert "Spark lost a worker or ended" in " ".join(said.split())
    assert "nothing was kept. Run the same command again" in " ".join(said.split())
    assert [file.name for file in tmp_path.iterdir()] == ["log"]


@pytest.mark.usefixtures("spark")
def test_truncated_file_on_spark(tmp_path: Path) -> None:
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match=r"cut\.parquet: cannot be read"):
        prepare(tmp_path / "cut.parquet", out=tmp_path / "d", engine="spark")


def test_without_java_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyspark")
    from pyspark.sql import SparkSession

    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "l.csv").write_text("session,item,time\n1,2,3\n")
    with pytest.raises(DataError, match="needs a Java runtime, version 17"):
        prepare(tmp_path / "l.csv", out=tmp_path / "d", engine="spark")


def test_a_spark_that_is_started_gets_the_memory_asked_for(tmp_path: Path, monkeypatch: Any) -> None:
    """And 4 GiB where none is."""
    pytest.importorskip("pyspark")
    asked: dict[str, str] = {}

    class Builder:
        def config(self, name: str, value: str) -> Builder:
            asked[name] = value
            return self

        master = appName = lambda self, name: self

        def getOrCreate(self) -> None:
            raise RuntimeError("enough")

    session = type("Session", (), {"builder": Builder(), "getActiveSession": staticmethod(lambda: None)})
    monkeypatch.setattr("pyspark.sql.SparkSession", session)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").touch()
    (tmp_path / "l.csv").write_text("session,item,time\n1,2,3\n")
    for memory, expected in ((None, "4096m"), (16 << 30, "16384m")):
        with pytest.raises(DataError, match=r"Spark could not be started with .*bin/java .enough"):
            prepare(tmp_path / "l.csv", out=tmp_path / "d", engine="spark", memory=memory)
        assert asked["spark.driver.memory"] == expected


def test_without_pyspark_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    (tmp_path / "l.csv").write_text("session,item,time\n1,2,3\n")
    with pytest.raises(MissingExtraError, match=r"pip install 'nextclick\[spark\]'"):
        prepare(tmp_path / "l.csv", out=tmp_path / "d", engine="spark")


# -- neighbour models


@pytest.mark.usefixtures("spark")
def test_models_and_recommendations_are_the_same(tmp_path: Path) -> None:
    """Ties included: a stream of few items has many. Prepared by one engine, fitted by both and in memory."""
    generate(StreamConfig(events=3000, items=80), tmp_path / "log")
    data = assert_same(tmp_path, tmp_path / "log", shard_clicks=1000)
    kinds: list[tuple[type[Recommender], dict[str, Any]]] = [
        (ItemKNN, {"n_neighbours": 5}),
        (ItemKNN, {"formula": "narm", "counts": "clicks"}),
        (ItemKNN, {"pairs": "anchor", "n_neighbours": 5}),
        (VMISKNN, {"sample_size": 6, "k": 4}),
    ]
    models: dict[str, list[Recommender]] = {}
    for engine in ("duckdb", "spark"):
        with open_engine(engine, data, beside=tmp_path / engine / "model") as opened:
            models[engine] = [kind(**of).fit(data.train, run=Run(engine=opened)) for kind, of in kinds]
    queries, _ = data.test.pairs()
    for (kind, of), duck, spark in zip(kinds, *models.values(), strict=True):
        plain = kind(**of).fit(data.train)
        for name, array in plain.state().items():
            assert np.array_equal(array, duck.state()[name]), name
            assert np.array_equal(array, spark.state()[name]), name
        for ours, theirs in zip(duck.top(queries, 20), spark.top(queries, 20), strict=True):
            assert np.array_equal(ours, theirs)
    assert not list((tmp_path / "spark").glob(".*"))


@pytest.mark.usefixtures("spark")
def test_two_fits_by_one_spark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several buckets, and the second from the start again: nothing of the first is left in the way."""
    monkeypatch.setattr("nextclick.large.engine._PAIR_BYTES", 2_000_000)
    generate(StreamConfig(events=400, items=20), tmp_path / "log")
    data = prepare(tmp_path / "log", out=tmp_path / "data")
    plain = ItemKNN().fit(data.train).state()
    with open_engine("spark", data, memory=1_000_000_000) as opened:
        for _ in range(2):
            state = ItemKNN().fit(data.train, run=Run(engine=opened)).state()
            assert all(np.array_equal(plain[name], state[name]) for name in plain)


def test_fitting_without_java_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyspark")
    from pyspark.sql import SparkSession

    generate(StreamConfig(events=400, items=20), tmp_path / "log")
    data = prepare(tmp_path / "log", out=tmp_path / "data")
    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: None)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="needs a Java runtime, version 17"), open_engine("spark", data):
        pass
    assert sorted(file.name for file in tmp_path.iterdir()) == ["data", "log"]
