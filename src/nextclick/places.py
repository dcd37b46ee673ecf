"""Places that are named by a URL, such as s3://bucket/clicks: read and written through fsspec.

A place without a scheme, and file://, is a path on this machine. Every other scheme is opened by the package
that fsspec names for it (s3fs for s3://, gcsfs for gs://, adlfs for abfs://; memory:// needs none).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

from nextclick.errors import ArtifactError, ConfigError, DataError, MissingExtraError
from nextclick.files import OURS, new_directory, room

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")  # one letter is a drive of Windows
_HERE = ("file", "local")
_LAST = ("prepare.json", "stream.json")  # what tells that a folder is complete is sent last


@dataclass(frozen=True, order=True)
class Url:
    """A file or folder elsewhere, where otherwise a ``Path`` would stand; bytes: its size, if known."""

    text: str
    bytes: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return self.text

    @property
    def name(self) -> str:
        """The last part of it."""
        return self.text.rstrip("/").rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return Path(self.name).suffix

    @property
    def parent(self) -> Url:
        """What it lies in."""
        return Url(self.text.rstrip("/").rpartition("/")[0])

    def __truediv__(self, name: str) -> Url:
        return Url(f"{self.text.rstrip('/')}/{name}")

    def absolute(self) -> Url:
        """Return itself, as a URL is never relative."""
        return self

    def as_posix(self) -> str:
        """Return the text."""
        return self.text

    def open(self) -> BinaryIO:
        """Open the file for reading."""
        files, path = file_system(self)
        opened: BinaryIO = files.open(path, "rb")
        return opened


def place(of: str | Path | Url) -> Path | Url:
    """Return a place by what it is called: a path on this machine, or a URL of another one."""
    scheme = _SCHEME.match(of) if isinstance(of, str) else None
    if scheme is None:
        return of if isinstance(of, Url) else Path(of)
    if scheme[1].lower() not in _HERE:
        return Url(str(of))
    path = unquote(str(of)[scheme.end() :])
    host, slash, rest = path.partition("/")
    if host not in ("", "localhost") or not slash:
        raise ConfigError(f"{of}: a file on this machine is written file:///folder/file, with three slashes")
    return Path(f"/{rest}")


def file_system(url: Url) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it.

    Raises MissingExtraError without fsspec, and ConfigError for a scheme that it does not know, whose package
    is not installed, or where the system refuses to connect.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise MissingExtraError(f"{url}: reading and writing elsewhere", "remote") from None
    scheme = url.text.partition("://")[0]
    instead = "; or copy the files to this machine and name their folder"
    try:
        found: tuple[Any, str] = url_to_fs(url.text)
    except ImportError as error:
        raise ConfigError(
            f"{url}: the package that opens {scheme}:// is not installed ({error}): install it with "
            f"pip{instead}"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{url}: {scheme}:// is no scheme that fsspec knows ({error}){instead}") from error
    except OSError as error:
        raise ConfigError(f"{url}: cannot be opened ({error}); check address and access{instead}") from error
    return found


def listed(url: Url) -> list[tuple[Url, str]]:
    """Return the files of a URL that is a file, a folder or a pattern, and their names below it.

    The name is "" for a file that the URL itself is; nothing is returned where there is nothing.
    Raises as ``file_system`` does, and DataError where the place cannot be read.
    """
    files, path = file_system(url)
    found: dict[str, tuple[Any, str]] = {}
    try:
        pattern = any(letter in path for letter in "*?[")
        for top in files.glob(path) if pattern else [path]:
            if files.isfile(top):
                found[top] = files.info(top), files.info(top)["name"].rpartition("/")[2] if pattern else ""
            elif files.exists(top):
                depth = len(top.rstrip("/")) + 1
                found |= {name: (of, name[depth:]) for name, of in files.find(top, detail=True).items()}
    except OSError as error:
        raise DataError(f"{url}: cannot be read ({error}); check the address and the access to it") from error
    return sorted(
        (Url(files.unstrip_protocol(name), int(of.get("size") or 0)), below)
        for name, (of, below) in found.items()
    )


@contextlib.contextmanager
def new_place(target: Path | Url, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes ``target`` only if the block succeeds; see ``files.new_directory``.

    For a URL the folder is a temporary one here, in TMPDIR, which is sent when it is complete; the file by
    which a folder of ours is known goes last, so that no half of one is taken for a whole. Where sending
    fails, what was sent is removed. ``overwrite`` removes the old one before the new one is sent.
    """
    if isinstance(target, Path):
        with new_directory(target, overwrite=overwrite) as aside:
            yield aside
        return
    files, path = file_system(target)
    try:
        there = files.exists(path)
        ours = there and any(files.exists(f"{path}/{name}") for name in OURS)
    except OSError as error:
        raise DataError(f"{target}: cannot be reached ({error}); check the address and the access") from error
    if there and not overwrite:
        raise DataError(f"{target} exists already: choose another name, or allow it with --overwrite")
    if there and not ours:
        raise DataError(f"{target} was not made by nextclick and is not overwritten: choose another name")
    folder = Path(tempfile.mkdtemp(prefix="nextclick-"))
    try:
        aside = folder / target.name
        with room(aside):
            aside.mkdir()
            yield aside
        _send(aside, files, path, target, there)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _send(folder: Path, files: Any, path: str, target: Url, there: bool) -> None:
    inside = [file for file in folder.rglob("*") if file.is_file()]
    inside.sort(key=lambda file: (file.name in _LAST, file))
    try:
        if there:
            for name in _LAST:  # first of all it is no whole any more
                if files.exists(f"{path}/{name}"):
                    files.rm(f"{path}/{name}")
            files.rm(path, recursive=True)
        for file in inside:
            at = f"{path}/{file.relative_to(folder).as_posix()}"
            files.makedirs(at.rpartition("/")[0], exist_ok=True)
            files.put_file(str(file), at)
    except BaseException as error:
        with contextlib.suppress(Exception):
            files.rm(path, recursive=True)
        if isinstance(error, OSError):
            raise DataError(
                f"{target}: could not be written ({error}); nothing was kept. Make room or check the access, "
                "or write elsewhere"
            ) from error
        raise


def fetched(url: Url, name: str, into: Path) -> Path:
    """Return a file of a folder elsewhere as it lies in ``into``; it is copied there if it is not yet.

    Raises ArtifactError where it is missing or cannot be read, DataError when the disk is full.
    """
    file, source = into / name, url / name
    if file.exists():
        return file
    files, path = file_system(source)
    with room(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, half = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        os.close(handle)
        try:
            files.get_file(path, half)
            Path(half).replace(file)
        except FileNotFoundError:
            raise ArtifactError(f"{source}: missing; put it back, or prepare the data again") from None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ArtifactError(f"{source}: cannot be read ({error}); check the access to it") from error
        finally:
            Path(half).unlink(missing_ok=True)
    return file


def cache_of(url: Url, manifest: str) -> Path | None:
    """Return the folder here for what is fetched of a folder elsewhere, with its manifest; None without one.

    There is one for every content: the name holds a digest of the URL and of the manifest. They lie in
    NEXTCLICK_CACHE, or in .cache/nextclick of the user's folder.
    """
    files, path = file_system(url / manifest)
    try:
        content: bytes = files.cat_file(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{url}: cannot be read ({error}); check the address and the access to it") from error
    base = Path(os.environ.get("NEXTCLICK_CACHE") or Path.home() / ".cache" / "nextclick")
    digest = hashlib.sha256(json.dumps([url.text, manifest]).encode() + content).hexdigest()
    folder = base / digest[:24]
    fetched(url, manifest, folder)
    return folder
