"""Writing that never leaves half a result, whatever goes wrong and whenever."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from nextclick import DataError, files

FAILURES = [
    RuntimeError("broken"),
    KeyboardInterrupt(),
    SystemExit(1),
    OSError(errno.EIO, "input/output error"),
]
names = [type(failure).__name__ for failure in FAILURES]


def tree(folder: Path) -> dict[str, str | None]:
    """Everything in a folder, hidden files included, with the content of files."""
    return {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else None
        for path in folder.rglob("*")
    }


def fail_half_way(file: Path, failure: BaseException) -> None:
    file.write_text("half")
    raise failure


def old(folder: Path) -> Path:
    target = folder / "result"
    (target / "deep").mkdir(parents=True)
    (target / "deep" / "file").write_text("old")
    (target / "manifest.json").write_text("{}")
    return target


def test_new_directory_takes_its_name_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "not" / "yet" / "there"
    with files.new_directory(target) as aside:
        assert aside.is_dir()
        assert not list(aside.iterdir())
        assert not target.exists()
        (aside / "file").write_text("new")
    assert tree(target) == {"file": "new"}
    assert [path.name for path in target.parent.iterdir()] == ["there"]
    assert target.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("failure", FAILURES, ids=names)
def test_new_directory_leaves_nothing_when_the_block_fails(tmp_path: Path, failure: BaseException) -> None:
    with pytest.raises(type(failure)), files.new_directory(tmp_path / "result") as aside:
        fail_half_way(aside / "file", failure)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("failure", FAILURES, ids=names)
def test_new_directory_keeps_the_old_one_when_the_block_fails(tmp_path: Path, failure: BaseException) -> None:
    target = old(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(type(failure)), files.new_directory(target, overwrite=True) as aside:
        fail_half_way(aside / "file", failure)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("failing", [1, 2])
@pytest.mark.parametrize("failure", FAILURES, ids=names)
def test_new_directory_keeps_the_old_one_when_changing_places_fails(
    tmp_path: Path, failure: BaseException, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C may come between the two renames: the old one is away, the new one not there yet."""
    target = old(tmp_path)
    before = tree(tmp_path)
    rename, calls = Path.rename, 0

    def interrupted(self: Path, to: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise failure
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(type(failure)), files.new_directory(target, overwrite=True) as aside:
        (aside / "file").write_text("new")
    assert tree(tmp_path) == before


def test_new_directory_keeps_the_new_one_when_ctrl_c_comes_after_both_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = old(tmp_path)
    rename, calls = Path.rename, 0

    def interrupted(self: Path, to: Path) -> Path:
        nonlocal calls
        calls += 1
        done = rename(self, to)
        if calls == 2:
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), files.new_directory(target, overwrite=True) as aside:
        (aside / "file").write_text("new")
    assert tree(target) == {"file": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_new_directory_refuses_what_exists(tmp_path: Path) -> None:
    target = old(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(DataError, match=r"result exists already.*--overwrite"), files.new_directory(target):
        pytest.fail("the block must not run")
    (tmp_path / "file").write_text("a file")
    with pytest.raises(DataError, match="exists already"), files.new_directory(tmp_path / "file"):
        pytest.fail("the block must not run")
    (tmp_path / "file").unlink()
    assert tree(tmp_path) == before


def test_new_directory_replaces_when_allowed(tmp_path: Path) -> None:
    target = old(tmp_path)
    with files.new_directory(target, overwrite=True) as aside:
        (aside / "file").write_text("new")
        assert (target / "deep" / "file").read_text() == "old"  # kept until the new one is complete
    assert tree(tmp_path) == {"result": None, "result/file": "new"}


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full; nothing was kept"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EACCES, "no permission to write"),
        (errno.EROFS, "no permission to write"),
    ],
)
def test_refusals_of_the_system_name_the_target(tmp_path: Path, number: int, message: str) -> None:
    target = old(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(DataError, match=f"{target}: {message}"), files.new_directory(target, overwrite=True):
        raise OSError(number, "the system's own words")
    with pytest.raises(DataError, match=f"{message}"), files.new_file(target / "deep" / "file"):
        raise OSError(number, "the system's own words")
    assert tree(tmp_path) == before


def test_a_full_disk_before_the_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    monkeypatch.setattr("tempfile.mkstemp", full)
    with pytest.raises(DataError, match="disk is full"), files.new_directory(tmp_path / "a"):
        pytest.fail("the block must not run")
    with pytest.raises(DataError, match="disk is full"), files.new_file(tmp_path / "b"):
        pytest.fail("the block must not run")


def test_new_file_replaces_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file"
    for content in ("first", "second"):
        with files.new_file(target) as aside:
            aside.write_text(content)
            assert not target.exists() or target.read_text() == "first"
        assert tree(tmp_path) == {"deep": None, "deep/file": content}
    assert target.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("failure", FAILURES, ids=names)
def test_new_file_keeps_the_old_one_when_the_block_fails(tmp_path: Path, failure: BaseException) -> None:
    target = tmp_path / "file"
    for before in ({}, {"file": "old"}):
        for name, content in before.items():
            (tmp_path / name).write_text(content)
        with pytest.raises(type(failure)), files.new_file(target) as aside:
            fail_half_way(aside, failure)
        assert tree(tmp_path) == before


def test_write_json(tmp_path: Path) -> None:
    content = {"name": "café ☕", "numbers": [1, 0.1, None], "deep": {"a": True}}
    files.write_json(tmp_path / "file.json", content)
    text = (tmp_path / "file.json").read_text("utf-8")
    assert json.loads(text) == content
    assert "café ☕" in text
    assert text.endswith("}\n")


@pytest.mark.parametrize("content", [{"a": float("nan")}, {"a": object()}])
def test_write_json_writes_all_or_nothing(tmp_path: Path, content: Any) -> None:
    (tmp_path / "file.json").write_text("old")
    with pytest.raises((ValueError, TypeError)):
        files.write_json(tmp_path / "file.json", content)
    assert tree(tmp_path) == {"file.json": "old"}


def test_sha256_and_size(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"123")
    (tmp_path / "other").write_bytes(b"4567")
    assert files.sha256(tmp_path / "a" / "file") == hashlib.sha256(b"123").hexdigest()
    assert files.directory_size(tmp_path) == 7


def test_overwrite_takes_only_what_was_made_here(tmp_path: Path) -> None:
    mine = tmp_path / "thesis"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="not made by nextclick"), files.new_directory(mine, overwrite=True):
        pass
    assert (mine / "thesis.txt").read_text() == "years of work"
    for mark in ("prepare.json", "manifest.json"):
        ours = tmp_path / mark.removesuffix(".json")
        ours.mkdir()
        (ours / mark).write_text("{}")
        with files.new_directory(ours, overwrite=True) as aside:
            (aside / "new").write_text("new")
        assert [file.name for file in ours.iterdir()] == ["new"]
