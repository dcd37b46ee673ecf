"""Versions of a model: directories beside each other, and one small file that says which is in service.

ROOT/versions/NAME/   a saved model each, complete before it has its name
ROOT/current.json     the version in service, and those before it

The pointer is replaced in one step and only after the directory lies there, so whatever is interrupted, the
pointer leads to a complete version.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
from pathlib import Path
from typing import Any

from nextclick import artifact
from nextclick.errors import ArtifactError, ConfigError
from nextclick.files import alone, new_directory, new_file, sha256

POINTER = "current.json"
FORMAT = "nextclick-versions"
_KEPT = 5  # versions before the one in service


class Versions:
    """The versions below one folder; every change is made by one process at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def pointer(self) -> Path:
        """The file that says which version is in service."""
        return self.root / POINTER

    def directory(self, version: str) -> Path:
        """Return where a version lies."""
        return self.root / "versions" / version

    def read(self) -> tuple[str, tuple[str, ...]]:
        """Return the version in service and those before it, the latest first.

        Raises ArtifactError when there is no pointer, or it cannot be read.
        """
        try:
            content = json.loads(self.pointer.read_text("utf-8"))
            names = (content["version"], *content["before"])
            if content["format"] != FORMAT or not all(_is_name(name) for name in names):
                raise ValueError("not a pointer of nextclick")
        except FileNotFoundError:
            raise ArtifactError(
                f"{self.root}: no version in service here; publish one with: nextclick refresh"
            ) from None
        except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
            raise ArtifactError(f"{self.pointer}: unreadable ({error}); publish a version again") from error
        return names[0], names[1:]

    def known(self) -> tuple[str, ...]:
        """Return the version in service and those before it, by date where the pointer is unreadable."""
        try:
            last, before = self.read()
            return last, *before
        except ArtifactError:
            folders = self.root.glob("versions/*/")
            return tuple(sorted((folder.name for folder in folders if folder.name[0] != "."), reverse=True))

    def current(self) -> Path:
        """Return the directory of the version in service. Raises ArtifactError as ``read``."""
        return self.directory(self.read()[0])

    def publish(self, model: Path) -> str:
        """Copy a saved model in, check it, and put it in service; return the name of the version.

        Raises ArtifactError for a model that does not open, and DataError when it cannot be written or
        another process is changing the versions.
        """
        from nextclick.serving.opening import open_model

        with alone(self.root):
            open_model(model)
            name = _name(model)
            if not self.directory(name).exists():
                with new_directory(self.directory(name)) as aside:
                    shutil.copytree(model, aside, dirs_exist_ok=True)
                    _to_disk(aside)
            open_model(self.directory(name))
            before = tuple(other for other in self.known() if other != name)
            self._point(name, before[:_KEPT])
            self._prune((name, *before[:_KEPT]))
            return name

    def rollback(self) -> str:
        """Put the last version before the one in service back that opens; return its name.

        Raises ConfigError when there is none, ArtifactError when none opens.
        """
        from nextclick.serving.opening import open_model

        with alone(self.root):
            last, before = self.read()
            if not before:
                raise ConfigError(f"{self.root}: no version before {last}, so there is nothing to go back to")
            for n, name in enumerate(before):
                try:
                    open_model(self.directory(name))
                except ArtifactError as error:
                    damaged = error
                    continue
                self._point(name, (*before[n + 1 :], last, *before[:n]))
                return name
            raise damaged

    def _point(self, name: str, before: tuple[str, ...]) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        content = {"format": FORMAT, "version": name, "before": list(before), "published": now}
        with new_file(self.pointer) as aside:
            aside.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
            _synchronise(aside)
        _synchronise(self.root)

    def _prune(self, kept: tuple[str, ...]) -> None:
        """Remove versions that nothing leads to any more."""
        for directory in (self.root / "versions").iterdir():
            if directory.name not in kept and not directory.name.startswith("."):
                shutil.rmtree(directory, ignore_errors=True)


def is_root(path: Path) -> bool:
    """Whether a path holds versions rather than a model."""
    return (path / POINTER).exists() or (path / "versions").is_dir()


def mark(path: Path) -> tuple[int, ...]:
    """Return what changes when another version or model takes its place; () if it is gone."""
    file = path / POINTER if is_root(path) else path / "manifest.json"
    try:
        about = file.stat()
    except OSError:
        return ()
    return about.st_ino, about.st_mtime_ns, about.st_size


def located(path: Path, back: int = 0) -> tuple[Path, str]:
    """Return the directory of the model to serve, and the name of its version.

    back: so many versions before the one in service.  Raises ArtifactError when there is none.
    """
    if is_root(path):
        last, before = Versions(path).read()
        if back > len(before):
            raise ArtifactError(
                f"{path}: no version of it can be served; publish one with: nextclick refresh"
            )
        version = (last, *before)[back]
        return Versions(path).directory(version), version
    if back:
        raise ArtifactError(f"{path}: there is no earlier version of it")
    artifact.read_manifest(path)
    return path, sha256(path / "manifest.json")[:12]


def _name(model: Path) -> str:
    """Name a version by the moment and by what it holds; the name sorts by time."""
    manifest: dict[str, Any] = artifact.read_manifest(model)
    moment = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S%f")[:-3]
    return f"{moment}-{manifest['model']}-{sha256(model / 'manifest.json')[:8]}"


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and Path(name).name == name


def _to_disk(folder: Path) -> None:
    """Have a folder's files written out, so that a pointer never outlives what it points to."""
    for file in folder.rglob("*"):
        _synchronise(file)
    _synchronise(folder)


def _synchronise(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
