"""Logs and prepared data elsewhere: what lies at a URL is read and written as what lies here."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import numpy as np
import pytest
from click.testing import CliRunner

from nextclick import Dataset, ItemKNN, Run, prepare
from nextclick.cli import main
from nextclick.clickstream import StreamConfig, generate
from nextclick.errors import ArtifactError, ConfigError, DataError, MissingExtraError, NextclickError
from nextclick.large import open_engine
from nextclick.places import Url, listed, place
from nextclick.prepare.finding import find_source, folders_of


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """fsspec's file system in memory, empty; what is fetched from it lies in tmp_path/cache."""
    files = fsspec.filesystem("memory")
    monkeypatch.setenv("NEXTCLICK_CACHE", str(tmp_path / "cache"))
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def written(file: Path, first: int = 0, n: int = 400) -> Path:
    """A log of n clicks: sessions of four, 13 items, a click a minute."""
    file.parent.mkdir(parents=True, exist_ok=True)
    form = "parquet" if file.suffix == ".parquet" else "csv"
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT {first} + i // 4 AS session_id, (i * i) % 13 AS item_id, "
            f"1700000000 + {first} * 240 + i * 60 AS timestamp FROM range({n}) AS r(i)) "
            f"TO '{file}' (FORMAT {form})"
        )
    return file


def partitioned(folder: Path) -> Path:
    written(folder / "day=2023-11-14" / "part-0.parquet")
    written(folder / "day=2023-11-15" / "part-0.parquet", first=100)
    (folder / "day=2023-11-15" / "_SUCCESS").touch()
    (folder / ".hidden").mkdir()
    written(folder / ".hidden" / "part-9.parquet")
    return folder


def sent(folder: Path, files: Any, to: str) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            files.put_file(str(file), f"{to}/{file.relative_to(folder).as_posix()}")


# -- names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data", Path("data")),
        ("/data/x y", Path("/data/x y")),
        ("C:\\data", Path("C:\\data")),
        ("file:///data/x%20y", Path("/data/x y")),
        ("file://localhost/data", Path("/data")),
        ("s3://bucket/a", Url("s3://bucket/a")),
    ],
)
def test_a_place_is_a_path_or_a_url(text: str, expected: Path | Url) -> None:
    assert place(text) == expected


def test_the_parts_of_a_url() -> None:
    url = Url("s3://bucket/a/part-0.parquet")
    assert (url.name, url.suffix, str(url.parent)) == ("part-0.parquet", ".parquet", "s3://bucket/a")
    assert str(url.parent / "b") == "s3://bucket/a/b"


def test_folders_named_after_values() -> None:
    assert folders_of(Path("/a/day=1/hour=2/x.csv")) == [("day", "/a"), ("hour", "/a/day=1")]
    assert folders_of(Path("/run=1/a/x.csv")) == []  # only those right over the file
    assert folders_of(Url("s3://b/day=1/x.csv")) == [("day", "s3://b")]


@pytest.mark.parametrize(
    ("where", "match"),
    [
        ("file://elsewhere/x", "is written file:///folder/file, with three slashes"),
        ("what://a/b", "what:// is no scheme that fsspec knows"),
        ("memory://none", "memory://none: no such file or folder; check the address"),
        ("memory://none/*.csv", "no such file or folder"),
    ],
)
@pytest.mark.usefixtures("elsewhere")
def test_what_cannot_be_opened_is_said(where: str, match: str, tmp_path: Path) -> None:
    with pytest.raises(NextclickError, match=match):
        prepare(where, out=tmp_path / "d")
    assert not list(tmp_path.iterdir())


def test_a_scheme_whose_package_is_missing_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    result = CliRunner().invoke(main, ["prepare", "s3://bucket/log", "--out", str(tmp_path / "d")])
    assert result.exit_code == 1
    said = " ".join(result.output.split())
    assert "the package that opens s3:// is not installed (Install s3fs to access S3)" in said
    assert "install it with pip; or copy the files to this machine" in said
    with pytest.raises(ConfigError, match="Install s3fs"):
        prepare(written(tmp_path / "log.csv"), out="s3://bucket/data")
    with pytest.raises(ConfigError, match="Install s3fs"):
        Dataset.load("s3://bucket/data")
    assert [file.name for file in tmp_path.iterdir()] == ["log.csv"]


def test_without_fsspec_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'nextclick\[remote\]'"):
        prepare("memory://clicks", out=tmp_path / "d")
    assert prepare(f"file://{written(tmp_path / 'log.csv')}", out=tmp_path / "d").sessions


def test_what_is_written_here_only_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder "s3:" would be made otherwise."""
    monkeypatch.chdir(tmp_path)
    data = prepare(written(tmp_path / "log.csv"), out=tmp_path / "d")
    with pytest.raises(DataError, match="a URL, and this is written to folders of this machine only"):
        ItemKNN().fit(data.train).save(Path("s3://bucket/model"))
    for words in (["--out", "s3://bucket/model"], ["--out", f"{tmp_path}/s3://bucket/model"]):
        result = CliRunner().invoke(main, ["fit", str(tmp_path / "d"), "item-knn", *words])
        assert result.exit_code == 1
        assert "written to folders of this machine only" in " ".join(result.output.split())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["d", "log.csv"]
    (tmp_path / "a:").mkdir()  # a name that is no scheme's
    ItemKNN().fit(data.train).save(tmp_path / "a:" / "model")


# -- reading


@pytest.mark.parametrize("form", ["parquet", "csv", "csv.gz"])
def test_a_log_elsewhere_is_read_as_it_is_here(form: str, elsewhere: Any, tmp_path: Path) -> None:
    file = written(tmp_path / "log" / f"clicks.{form.removesuffix('.gz')}")
    if form.endswith("gz"):
        import gzip

        file.with_name("clicks.csv.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    sent(tmp_path / "log", elsewhere, "/bucket/log")
    here = prepare(tmp_path / "log", out=tmp_path / "here")
    for number, source in enumerate(["memory://bucket/log", f"memory://bucket/log/clicks.{form}"]):
        there = prepare(source, out=tmp_path / f"there-{number}")
        assert there.fingerprint == here.fingerprint
        assert there.info["sources"][0]["file"].endswith(f"bucket/log/clicks.{form}")
        assert there.info["sources"][0]["bytes"] == here.info["sources"][0]["bytes"]


def test_a_partitioned_folder(elsewhere: Any, tmp_path: Path) -> None:
    """Its files are one log, what they are partitioned by is a column; what is hidden is left out."""
    folder = partitioned(tmp_path / "clicks")
    sent(folder, elsewhere, "/clicks")
    for number, source in enumerate([folder, f"file://{folder}", "memory://clicks", "memory://clicks/day=*"]):
        data = prepare(source, out=tmp_path / f"d{number}")
        assert data.info["steps"][0]["clicks"] == 800
        assert len(data.sessions) == 200
        days = prepare(source, out=tmp_path / f"i{number}", item="day")
        assert sorted(days.vocabulary.ids_of(range(2))) == ["2023-11-14", "2023-11-15"]
    one = prepare("memory://clicks/day=2023-11-14", out=tmp_path / "one")
    assert len(one.sessions) == 100


def test_a_partitioned_folder_of_text(tmp_path: Path) -> None:
    for day in (1, 2):
        written(tmp_path / "log" / f"day=2023-11-0{day}" / "part.csv", first=100 * day)
    data = prepare(tmp_path / "log", out=tmp_path / "d", time="day")
    assert data.info["time_unit"] == "iso"
    assert len(np.unique(np.asarray(data.sessions.times))) == 2
    assert len(data.sessions) == 200


def test_folders_that_are_not_of_one_kind_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "log" / "day=1" / "a.parquet")
    written(tmp_path / "log" / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet: lies in folders of no column|lies in folders of day"):
        prepare(tmp_path / "log", out=tmp_path / "d")


def test_files_elsewhere_that_are_damaged_are_named(elsewhere: Any, tmp_path: Path) -> None:
    file = written(tmp_path / "a.parquet")
    elsewhere.pipe_file("/log/a.parquet", file.read_bytes())
    elsewhere.pipe_file("/log/b.parquet", file.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"memory:///log/b\.parquet: cannot be read"):
        prepare("memory://log", out=tmp_path / "d")
    elsewhere.pipe_file("/log/b.parquet", b"")
    with pytest.raises(DataError, match=r"b\.parquet: the file is empty"):
        prepare("memory://log", out=tmp_path / "d")
    elsewhere.pipe_file("/log/b.parquet", file.read_bytes())
    source = find_source("memory://log", {})
    assert [one.name for one in source.files] == ["a.parquet", "b.parquet"]


def test_a_connection_that_breaks_is_said(
    elsewhere: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere.pipe_file("/log/a.csv", written(tmp_path / "a.csv").read_bytes())

    def broken(*_: Any, **__: Any) -> None:
        raise ConnectionError("the other side is gone")

    monkeypatch.setattr(type(elsewhere), "find", broken)
    with pytest.raises(DataError, match=r"memory://log: cannot be read \(the other side is gone"):
        prepare("memory://log", out=tmp_path / "d")


# -- writing, and what was written


def test_prepared_data_elsewhere_are_used_as_those_here(elsewhere: Any, tmp_path: Path) -> None:
    """The commands write and read them; the shards are fetched one by one, when an engine reads them."""
    generate(StreamConfig(events=3000, items=60), "memory://streams/one")
    assert elsewhere.exists("/streams/one/stream.json")
    here = prepare("memory://streams/one", out=tmp_path / "here", shard_clicks=1000)
    there = prepare("memory://streams/one", out="memory://made/data", shard_clicks=1000)
    assert there.fingerprint == here.fingerprint
    names = {of.text.rpartition("/data/")[2] for of, _ in listed(Url("memory://made/data"))}
    assert names == {
        file.relative_to(tmp_path / "here").as_posix()
        for file in (tmp_path / "here").rglob("*")
        if file.is_file()
    }
    runner, model = CliRunner(), tmp_path / "model"
    done = runner.invoke(
        main, ["fit", "memory://made/data", "item-knn", "--out", str(model)], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    done = runner.invoke(main, ["evaluate", "memory://made/data", str(model)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    data = Dataset.load("memory://made/data", verify=True)
    assert data.path is not None
    assert not list(data.path.rglob("*.parquet"))
    with open_engine("duckdb", data, beside=tmp_path / "m", memory=200_000_000) as opened:
        fitted = ItemKNN().fit(data.train, run=Run(engine=opened))
    assert len(list(data.path.rglob("part-*.parquet"))) == len(data.shards) > 1
    plain = ItemKNN().fit(here.train)
    assert all(np.array_equal(array, fitted.state()[name]) for name, array in plain.state().items())


@pytest.mark.parametrize("form", ["sessions.jsonl", "clicks.csv"])
def test_sessions_elsewhere_are_answered_as_those_here(form: str, elsewhere: Any, tmp_path: Path) -> None:
    data = prepare(written(tmp_path / "clicks.csv"), out=tmp_path / "d")
    ItemKNN().fit(data.train).save(tmp_path / "model")
    (tmp_path / "sessions.jsonl").write_text(
        '{"session": 1, "items": [1, 4]}\n{"session": 2, "items": [9]}\n'
    )
    elsewhere.pipe_file(f"/in/{form}", (tmp_path / form).read_bytes())
    for number, source in enumerate([tmp_path / form, f"memory://in/{form}"]):
        words = ["recommend", str(tmp_path / "model"), "--sessions", str(source)]
        done = CliRunner().invoke(main, [*words, "--out", str(tmp_path / f"{number}.jsonl")])
        assert done.exit_code == 0, done.output
    assert (tmp_path / "0.jsonl").read_bytes() == (tmp_path / "1.jsonl").read_bytes()


def test_slices_elsewhere(elsewhere: Any, tmp_path: Path) -> None:
    prepare(written(tmp_path / "log.parquet"), out="memory://made/slices", slices=2, min_support=1)
    for number in (1, 2):
        assert len(Dataset.load(f"memory://made/slices/slice-{number}").sessions) > 0
    with pytest.raises(ArtifactError, match="memory://made/slices: no prepared data here"):
        Dataset.load("memory://made/slices")


def test_what_is_elsewhere_is_kept_unless_it_may_be_replaced(elsewhere: Any, tmp_path: Path) -> None:
    log = written(tmp_path / "log.parquet")
    first = prepare(log, out="memory://made/data")
    with pytest.raises(DataError, match=r"memory://made/data exists already.*--overwrite"):
        prepare(log, out="memory://made/data", min_support=2)
    elsewhere.pipe_file("/mine/letter.txt", b"dear")
    with pytest.raises(DataError, match="was not made by nextclick"):
        prepare(log, out="memory://mine", overwrite=True)
    assert elsewhere.cat_file("/mine/letter.txt") == b"dear"
    again = prepare(log, out="memory://made/data", overwrite=True, validation="0.3")
    assert again.bounds != first.bounds
    assert Dataset.load("memory://made/data").bounds == again.bounds  # not what was fetched before


def test_a_full_place_elsewhere_keeps_nothing(
    elsewhere: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, sizes = type(elsewhere).put_file, []

    def full(self: Any, source: str, target: str, *args: Any, **options: Any) -> None:
        if len(sizes) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        sizes.append(target)
        put(self, source, target, *args, **options)

    monkeypatch.setattr(type(elsewhere), "put_file", full)
    with pytest.raises(DataError, match=r"memory://made/data: could not be written .*nothing was kept"):
        prepare(written(tmp_path / "log.parquet"), out="memory://made/data")
    assert not any(name.endswith("prepare.json") for name in sizes)  # it goes last
    assert not elsewhere.exists("/made/data")


def test_a_shard_elsewhere_that_is_missing_is_named(elsewhere: Any, tmp_path: Path) -> None:
    prepare(written(tmp_path / "log.parquet"), out="memory://made/data", shard_clicks=100)
    elsewhere.rm("/made/data/events.parquet/part-00001.parquet")
    data = Dataset.load("memory://made/data")
    with (
        pytest.raises(ArtifactError, match=r"events\.parquet/part-00001\.parquet: missing; put it back"),
        open_engine("duckdb", data, beside=tmp_path / "m"),
    ):
        pass
    elsewhere.rm("/made/data/arrays/items.npy")
    (tmp_path / "cache").rename(tmp_path / "old cache")
    with pytest.raises(ArtifactError, match=r"arrays/items\.npy: missing"):
        Dataset.load("memory://made/data")
