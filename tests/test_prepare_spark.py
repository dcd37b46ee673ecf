"""The same SQL text on DuckDB and on Spark gives the same data and the same models, bit by bit."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nextclick import VMISKNN, ItemKNN, Recommender, Run
from nextclick.clickstream import StreamConfig, generate
from nextclick.dataset import Dataset
from nextclick.errors import DataError, MissingExtraError
from nextclick.large import open_engine
from nextclick.prepare import prepare
from spark_here import WARNINGS, small_spark

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
        "impossible time": 1, "no item id": 1, "no session id": 1, "unreadable order": 1,
        "unreadable time": 2, "unreadable line": 2,
    }  # fmt: skip


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
