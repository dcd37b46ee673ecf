"""Lists made on Spark are those made here, ties included, and a run that was ended goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner

import nextclick
from nextclick import ConfigError, DataError, MissingExtraError
from nextclick.batch import recommend_file
from nextclick.batch_spark import Job, driver, recommend_on_spark
from nextclick.cli import main
from spark_here import WARNINGS, below, small_spark
from synthetic import chain

pytestmark = [pytest.mark.spark, *WARNINGS]
TRAIN = chain(30, 200, noise=0.4, seed=1)


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from small_spark(tmp_path_factory.mktemp("spark"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with many ties: neighbours count alike without weights."""
    path = tmp_path_factory.mktemp("model") / "sknn"
    nextclick.SKNN(k=20, sample_size=50).fit(TRAIN).save(path)
    return path


def clicks(path: Path, n: int = 400) -> Path:
    """Write a log: ties of times, ids that no model knows, missing values, an order beyond nine."""
    ids = TRAIN.vocabulary.ids_of(range(TRAIN.n_items))
    rows = []
    for at in range(n * 4):
        item = ids[at * 7 % len(ids)] if at % 11 else f"new{at % 5}"
        rows.append((f"s{at * 13 % n}", item if at % 97 else None, at // 40, at % 13))
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE log (session_id TEXT, item_id TEXT, timestamp BIGINT, ord INT)")
        connection.executemany("INSERT INTO log VALUES (?, ?, ?, ?)", rows)
        connection.execute(f"COPY log TO '{path}'")
    return path


def here(model: Path, source: Path, out: Path, **options: Any) -> dict[str, dict[str, Any]]:
    recommend_file(nextclick.load(model), source, out, **options)
    return {str(row["session"]): row for row in map(json.loads, out.read_text("utf-8").splitlines())}


def read(folder: Path) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        return connection.execute(f"SELECT * FROM '{folder}/*.parquet' ORDER BY session").fetchall()


def assert_same(folder: Path, expected: dict[str, dict[str, Any]]) -> None:
    rows = read(folder)
    assert [row[0] for row in rows] == sorted(expected)
    for session, items, scores, unknown, fallback, reason in rows:
        one = expected[session]
        assert items == [entry["item"] for entry in one["items"]]
        assert scores == [entry["score"] for entry in one["items"]]
        assert (unknown, fallback, reason) == (one["unknown"], one["fallback"], one.get("reason"))


@pytest.mark.usefixtures("spark")
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_log_is_answered_as_it_is_here(form: str, model: Path, tmp_path: Path) -> None:
    source = clicks(tmp_path / f"log.{form}")
    columns = {"order": "ord"}
    expected = here(model, source, tmp_path / "here.jsonl", k=7, exclude_seen=True, columns=columns)
    job = Job(str(model), str(tmp_path / "lists"), k=7, exclude_seen=True)
    told: list[tuple[int, int]] = []
    counts = recommend_on_spark(
        job, source, columns=columns, partitions=5, progress=lambda *done: told.append(done)
    )
    assert_same(tmp_path / "lists", expected)
    assert counts.sessions == len(expected) == 400
    assert counts.unknown_items == sum(len(row["unknown"]) for row in expected.values()) > 0
    assert told[0] == (0, 5)
    assert told[-1] == (5, 5)
    scores = [row[2] for row in read(tmp_path / "lists")]
    assert sum(len(set(of)) < len(of) for of in scores) > 50  # there are ties


@pytest.mark.usefixtures("spark")
def test_the_model_is_sent_to_the_workers(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They need no path of the machine that starts the job: the folder is gone when they begin."""
    copy, source = Path(shutil.copytree(model, tmp_path / "sknn")), clicks(tmp_path / "log.csv", 30)
    expected = here(model, source, tmp_path / "here.jsonl", columns={"order": "ord"})
    run_there = driver._run

    def without_the_folder(*given: Any) -> None:
        shutil.rmtree(copy)
        run_there(*given)

    monkeypatch.setattr(driver, "_run", without_the_folder)
    job = Job(str(copy), str(tmp_path / "lists"))
    recommend_on_spark(job, f"file://{source}", columns={"order": "ord"}, partitions=2)
    assert_same(tmp_path / "lists", expected)


@pytest.mark.usefixtures("spark")
def test_lines_rules_and_empty_partitions(model: Path, tmp_path: Path) -> None:
    source, rules = tmp_path / "today.jsonl", tmp_path / "rules.toml"
    ids = TRAIN.vocabulary.ids_of(range(3))
    sessions = [{"session": 7, "items": ids}, {"session": "a", "items": []}, {"session": "b", "items": ["?"]}]
    source.write_text("\n".join(map(json.dumps, sessions)) + "\n\n", "utf-8")
    blocked = json.dumps(TRAIN.vocabulary.ids_of(range(25)))
    rules.write_text(f"[[rule]]\nblock = {blocked}\n", "utf-8")
    runner = CliRunner()
    options = ["--rules", str(rules), "-k", "6", "--sessions", str(source)]
    spark = [*options, "--engine", "spark", "--partitions", "9", "--out", str(tmp_path / "lists")]
    done = runner.invoke(main, ["recommend", str(model), *spark], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    alone = runner.invoke(
        main, ["recommend", str(model), *options, "--out", str(tmp_path / "l.jsonl")], catch_exceptions=False
    )
    assert json.loads(done.stdout) == json.loads(alone.stdout)
    assert json.loads(done.stdout)["shortened"] == 3
    rows = map(json.loads, (tmp_path / "l.jsonl").read_text("utf-8").splitlines())
    assert_same(tmp_path / "lists", {str(row["session"]): row for row in rows})
    assert len(list((tmp_path / "lists").glob("part-*.parquet"))) == 9


@pytest.mark.usefixtures("spark")
def test_only_what_is_missing_is_answered_again(model: Path, tmp_path: Path) -> None:
    source, out = clicks(tmp_path / "log.parquet"), tmp_path / "lists"
    job = Job(str(model), str(out), k=5)
    recommend_on_spark(job, source, partitions=6)
    whole, files = read(out), sorted(out.glob("part-*"))
    stamps = {file: file.stat().st_mtime_ns for file in files}
    for gone in (files[1], files[4]):
        gone.unlink()
    (out / ".part-00001.parquet.half").write_bytes(b"PAR1")
    counts = recommend_on_spark(job, source, partitions=6)
    assert read(out) == whole
    assert counts.sessions == 400
    assert not list(out.glob(".part-*"))
    kept = [file for file in files if file.stat().st_mtime_ns == stamps[file]]
    assert kept == [files[at] for at in (0, 2, 3, 5)]


@pytest.mark.usefixtures("spark")
def test_a_folder_that_was_begun_with_something_else_is_refused(model: Path, tmp_path: Path) -> None:
    source, out = clicks(tmp_path / "log.parquet", 20), tmp_path / "lists"
    recommend_on_spark(Job(str(model), str(out), k=5), source, partitions=2)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(DataError, match=r"lists: was begun with another k; go on with the same"):
        recommend_on_spark(Job(str(model), str(out), k=6), source, partitions=2)
    with pytest.raises(DataError, match="another partitions"):
        recommend_on_spark(Job(str(model), str(out), k=5), source, partitions=3)
    other = tmp_path / "other"
    nextclick.SKNN(k=21, sample_size=50).fit(TRAIN).save(other)
    with pytest.raises(DataError, match="another model"):
        recommend_on_spark(Job(str(other), str(out), k=5), source, partitions=2)
    clicks(source, 21)
    with pytest.raises(DataError, match="another sessions"):
        recommend_on_spark(Job(str(model), str(out), k=5), source, partitions=2)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    next(out.glob("part-*")).write_bytes(b"cut")
    clicks(source, 20)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear", "utf-8")
    with pytest.raises(DataError, match="holds other files"):
        recommend_on_spark(Job(str(model), str(tmp_path / "mine")), source, partitions=2)


@pytest.mark.usefixtures("spark")
def test_a_damaged_partition_is_found(model: Path, tmp_path: Path) -> None:
    source, out = clicks(tmp_path / "log.parquet", 20), tmp_path / "lists"
    job = Job(str(model), str(out), k=5)
    recommend_on_spark(job, source, partitions=2)
    (out / "part-00001.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match=r"part-00001.parquet: damaged .* remove it and run the same"):
        recommend_on_spark(job, source, partitions=2)


@pytest.mark.usefixtures("spark")
def test_what_a_worker_says_is_said(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "today.jsonl"
    source.write_text('{"items": ["a"]}\n', "utf-8")
    with pytest.raises(DataError, match=r"session must be an id.*\n  0 of 2 partitions are complete"):
        recommend_on_spark(Job(str(model), str(tmp_path / "lists")), source, partitions=2)
    assert not list((tmp_path / "lists").glob("*.parquet"))


def test_what_cannot_be_is_refused_before_spark_starts(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = clicks(tmp_path / "log.csv", 5)
    with pytest.raises(ConfigError, match="partitions=0"):
        recommend_on_spark(Job(str(model), str(tmp_path / "a")), source, partitions=0)
    with pytest.raises(ConfigError, match="writes a folder of Parquet files"):
        recommend_on_spark(Job(str(model), str(tmp_path / "a.jsonl")), source)
    with pytest.raises(DataError, match="no such file"):
        recommend_on_spark(Job(str(model), str(tmp_path / "a")), tmp_path / "none.csv")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'nextclick\[spark\]'"):
        recommend_on_spark(Job(str(model), str(tmp_path / "a")), source)
    assert not (tmp_path / "a").exists()


def run(*words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "nextclick", "recommend", *words],
        env={**os.environ, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_without_java_it_says_so(model: Path, tmp_path: Path) -> None:
    source = clicks(tmp_path / "log.csv", 5)
    words = [str(model), "--sessions", str(source), "--out", str(tmp_path / "lists"), "--engine", "spark"]
    process = run(*words, PATH=str(tmp_path), JAVA_HOME="")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "needs a Java runtime, version 17 or newer" in said
    assert "Traceback" not in said


@pytest.mark.usefixtures("spark")
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the workers in /proc")
def test_a_lost_worker_leaves_what_is_complete(model: Path, tmp_path: Path) -> None:
    """Its Python workers are killed while Spark answers: it says so; the same call does the rest."""
    source, out = clicks(tmp_path / "log.parquet", 1000), tmp_path / "lists"
    job = Job(str(model), str(out))

    def kill_after_the_first() -> None:
        while not list(out.glob("part-*.parquet")):
            time.sleep(0.002)
        for worker in workers_of(os.getpid()):
            os.kill(worker, signal.SIGKILL)

    killer = threading.Thread(target=kill_after_the_first, daemon=True)
    killer.start()
    with pytest.raises(
        DataError, match=r"a worker was lost .* of 60 partitions are complete and stay; run the same command"
    ):
        recommend_on_spark(job, source, partitions=60)
    killer.join()
    complete = {file: file.stat().st_mtime_ns for file in out.glob("part-*.parquet")}
    assert 0 < len(complete) < 60
    try:
        again = recommend_on_spark(job, source, partitions=60)
    except DataError:  # the same Spark handed work to another one, killed at rest
        again = recommend_on_spark(job, source, partitions=60)
    assert again.sessions == 1000
    assert not list(out.glob(".part-*"))
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in complete.items())
    assert_same(out, here(model, source, tmp_path / "here.jsonl"))


def workers_of(pid: int) -> list[int]:
    """Return the Python workers of Spark below a process."""
    found = []
    for child in below(pid):
        try:
            command = Path(f"/proc/{child}/cmdline").read_text("utf-8", "replace")
        except OSError:
            continue
        if "pyspark" in command and "java" not in command:
            found.append(child)
    return found
