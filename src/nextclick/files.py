"""Writing that never leaves half a result, and checks that a file is what was written."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from nextclick.errors import ConfigError, DataError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_URL = re.compile(r"(?:^|/)[A-Za-z][A-Za-z0-9+.-]+:(?=/)")
# What tells a directory of ours: prepared data, its slices, a model, a simulated shop, a stream, a demo.
OURS = ("prepare.json", "slice-1", "manifest.json", "shop.json", "stream.json", "report.json")


def check_new(target: Path, *, overwrite: bool = False) -> None:
    """Raise DataError where ``new_directory`` would, for a look before long work."""
    _check_here(target)
    if target.exists():
        if not overwrite:
            raise DataError(f"{target} exists already: choose another name, or allow it with --overwrite")
        if not target.is_dir() or (
            any(target.iterdir()) and not any((target / name).exists() for name in OURS)
        ):
            raise DataError(f"{target} was not made by nextclick and is not overwritten: choose another name")


def check_ending(file: Path, ending: Literal[".png", ".html"]) -> None:
    """Raise ConfigError where a picture or page would get the name of another kind of file."""
    if file.suffix.lower() != ending:
        what = {".png": "the picture is a PNG", ".html": "the page is HTML"}[ending]
        raise ConfigError(f"{file}: {what}; write to a file that ends in {ending}")


@contextlib.contextmanager
def new_directory(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty directory beside ``target`` that takes its name only if the block succeeds.

    On any exception, Ctrl-C included, the directory is removed and ``target`` is as it was before.
    With ``overwrite`` an older ``target`` is replaced, and kept until the new one is complete; but only a
    directory that was made here, or an empty one.
    Raises DataError when ``target`` exists and is not to be overwritten, or when the disk is full.
    """
    check_new(target, overwrite=overwrite)
    with _place(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        with room(target):
            yield aside
            aside.chmod(0o755)
            if target.exists():
                _replace(target, aside)
            else:
                aside.rename(target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _replace(target: Path, aside: Path) -> None:
    """Let ``aside`` take the name of ``target``; interrupted in between, the old one gets its name back."""
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    try:
        target.rename(old / target.name)
        aside.rename(target)
    finally:
        if not target.exists():
            (old / target.name).rename(target)
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target`` to write to; it replaces ``target`` only if the block succeeds.

    Raises DataError when the disk is full or the folder cannot be written.
    """
    with _place(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
    aside = Path(name)
    try:
        with room(target):
            yield aside
            aside.chmod(0o644)
            aside.replace(target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON, aside first; raises DataError when the disk is full."""
    with new_file(path) as aside:
        aside.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises ConfigError, with the line, when there is none or it does not read."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML ({error})") from error


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let one process at a time work in a folder, new or old; the hold ends with the process.

    Raises DataError when another one is at work there. Systems without file locks do not tell.
    """
    if fcntl is None:
        yield
        return
    with _place(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{folder}: another process is at work there; wait for it, or end it") from None
        yield


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def directory_size(path: Path) -> int:
    """Return the bytes of all files in a directory."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _check_here(target: Path) -> None:
    """Refuse a URL where it was taken for a path: a folder with the name of its scheme would be made."""
    scheme = _URL.search(str(target))
    if scheme is not None and not Path(str(target)[: scheme.end()]).exists():
        raise DataError(
            f"{target}: a URL, and this is written to folders of this machine only; write it to one, and "
            "copy it from there"
        )


@contextlib.contextmanager
def _place(target: Path) -> Iterator[None]:
    """Turn every refusal to make something beside ``target`` into an error that names it and the remedy."""
    _check_here(target)
    try:
        with room(target):
            yield
    except OSError as error:
        raise DataError(
            f"{target}: cannot be written there ({error.strerror}); choose another place"
        ) from error


@contextlib.contextmanager
def room(target: Path) -> Iterator[None]:
    """Turn the operating system's refusals into a DataError that names the target and the remedy."""
    try:
        yield
    except OSError as error:
        # numpy says that a file could not be written whole without saying why.
        unwritten = error.errno is None and "written" in str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or unwritten:
            raise DataError(
                f"{target}: the disk is full; nothing was kept. Free space, or write elsewhere"
            ) from error
        elsewhere = error.filename is not None and not Path(error.filename).is_relative_to(target.parent)
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM) and not elsewhere:
            raise DataError(f"{target}: no permission to write there; choose another place") from error
        raise
