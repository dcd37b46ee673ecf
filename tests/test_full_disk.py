"""A disk that becomes full in the middle of writing: every writer says so, and leaves nothing half."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from click.testing import CliRunner

import nextclick
from nextclick import Dataset
from nextclick.cli import main
from nextclick.clickstream import StreamConfig, generate
from spark_here import WARNINGS, small_spark

T0 = 1_400_000_000


@contextmanager
def disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of so many kilobytes, by a mount that needs the rights for it."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data of 40,000 clicks, and beside it their log and sessions as JSON lines."""
    folder = tmp_path_factory.mktemp("data")
    generate(StreamConfig(events=40_000, items=2000), folder / "log")
    nextclick.prepare(folder / "log", out=folder / "data", shard_clicks=10_000)
    model = nextclick.ItemKNN().fit(Dataset.load(folder / "data").train)
    model.save(folder / "model")
    ids = [str(of) for of in model.vocabulary.ids_of(np.arange(50))]
    with (folder / "today.jsonl").open("w") as lines:
        for number in range(3000):
            lines.write(json.dumps({"session": f"s{number}", "items": ids[number % 50 :][:3]}) + "\n")
    return folder / "data"


def refused(words: list[str], on: Path, kept: int = 0) -> str:
    """Run a command that fills the disk; return what it said. Nothing but ``kept`` names is left there."""
    result = CliRunner().invoke(main, words)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1, result.output
    said = " ".join(result.output.split())
    assert "the disk is full" in said or "No space left" in said or "not enough memory or room" in said, said
    assert "Traceback" not in said
    assert len(list(on.iterdir())) == kept
    return said


WRITERS: dict[str, tuple[int, Callable[[Path, Path], list[str]]]] = {
    "generate": (200, lambda data, out: ["generate", "--events", "100000", "--out", f"{out}/log"]),
    "prepare": (300, lambda data, out: ["prepare", f"{data.parent}/log", "--out", f"{out}/data"]),
    "fit": (100, lambda data, out: ["fit", f"{data}", "item-knn", "--out", f"{out}/model"]),
    "fit vmis-knn": (100, lambda data, out: ["fit", f"{data}", "vmis-knn", "--out", f"{out}/model"]),
    "fit by DuckDB": (
        100,
        lambda data, out: ["fit", f"{data}", "item-knn", "--engine", "duckdb", "--out", f"{out}/model"],
    ),
    "recommend": (
        100,
        lambda data, out: [
            *("recommend", f"{data.parent}/model", "--sessions", f"{data.parent}/today.jsonl"),
            *("--out", f"{out}/lists.jsonl"),
        ],
    ),
    "recommend to a table": (
        100,
        lambda data, out: [
            *("recommend", f"{data.parent}/model", "--sessions", f"{data.parent}/today.jsonl"),
            *("--out", f"{out}/lists.csv"),
        ],
    ),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_leaves_nothing(writer: str, data: Path, tmp_path: Path) -> None:
    kilobytes, words = WRITERS[writer]
    with disk(tmp_path / "disk", kilobytes) as small:
        refused(words(data, small), small)


@pytest.mark.parametrize("writer", ["generate", "prepare", "fit", "recommend"])
def test_a_full_disk_keeps_what_was_there(writer: str, data: Path, tmp_path: Path) -> None:
    """An older result of the name stays as it was."""
    kilobytes, words = WRITERS[writer]
    with disk(tmp_path / "disk", kilobytes + 8) as small:
        line = words(data, small)
        there = Path(line[-1])
        if writer == "recommend":
            there.write_text("of yesterday")
        else:
            there.mkdir()
            (there / "prepare.json").write_text("{}")
            line.append("--overwrite")
        refused(line, small, kept=1)
        kept = there if writer == "recommend" else there / "prepare.json"
        assert kept.read_text() in ("of yesterday", "{}")


def test_spilling_onto_a_full_disk_is_said(tmp_path: Path) -> None:
    """What does not fit in the memory allowed goes beside the output, where there is no room either."""
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT i // 4 AS session_id, hash(i) % 400000 AS item_id, {T0} + i AS timestamp "
            f"FROM range(3000000) AS r(i)) TO '{tmp_path}/log.parquet' (FORMAT parquet)"
        )
    with disk(tmp_path / "disk", 3000) as small:
        words = ["prepare", f"{tmp_path}/log.parquet", "--memory", "80MB", "--out", f"{small}/data"]
        refused(words, small)


# -- on Spark


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    yield from small_spark(tmp_path_factory.mktemp("spark"))


def on_spark(test: Callable[..., None]) -> Callable[..., None]:
    for mark in (pytest.mark.spark, *WARNINGS, pytest.mark.usefixtures("spark")):
        test = mark(test)
    return test


@on_spark
@pytest.mark.parametrize(
    "words",
    [
        lambda data, out: ["prepare", f"{data.parent}/log", "--engine", "spark", "--out", f"{out}/data"],
        lambda data, out: ["fit", f"{data}", "vmis-knn", "--engine", "spark", "--out", f"{out}/model"],
    ],
    ids=["prepare", "fit"],
)
def test_a_full_disk_on_spark_leaves_nothing(
    words: Callable[[Path, Path], list[str]], data: Path, tmp_path: Path
) -> None:
    with disk(tmp_path / "disk", 200) as small:
        refused(words(data, small), small)


@on_spark
def test_lists_on_a_full_disk_stay_as_far_as_they_are_complete(data: Path, tmp_path: Path) -> None:
    """No half partition is left; with room again the same command does the rest."""
    out = tmp_path / "disk" / "lists"
    words = [
        *("recommend", f"{data.parent}/model", "--sessions", f"{data.parent}/today.jsonl", "--out", str(out)),
        *("--engine", "spark", "--partitions", "12"),
    ]
    with disk(tmp_path / "disk", 56) as small:
        said = refused(words, small, kept=1)
        complete = sorted(file.name for file in out.glob("part-*"))
        assert f"{len(complete)} of 12 partitions are complete and stay; run the same command again" in said
        assert len(complete) < 12
        assert not list(out.glob(".part-*"))
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["sessions"] == 3000
