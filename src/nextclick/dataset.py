"""A prepared data set on disk: all sessions in time order, cut into train, validation and test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import ArtifactError
from nextclick.places import Url, cache_of, fetched, place
from nextclick.sessions import Sessions, Vocabulary

FORMAT = "nextclick-data"
FORMAT_VERSION = 2  # 1 knew no target event


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A prepared data set: all sessions in time order, cut into train, validation and test.

    ``info`` is ``prepare.json``: source, options, counts before and after each step, fingerprint.
    """

    name: str
    sessions: Sessions
    bounds: tuple[int, int, int]  # sessions before: validation, test, the end
    known: tuple[int, int]  # items known to: train, train and validation
    info: Mapping[str, Any]
    path: Path | None = None  # where it lies, or what was fetched of it
    elsewhere: Url | None = None  # where it was fetched from

    def __repr__(self) -> str:
        sizes = np.diff((0, *self.bounds)).tolist()
        parts = ", ".join(
            f"{part} {n:,}" for part, n in zip(("train", "validation", "test"), sizes, strict=True)
        )
        return f"<Dataset {self.name!r}: sessions {parts}; {len(self.vocabulary):,} items>"

    @property
    def vocabulary(self) -> Vocabulary:
        """The users' own ids of all items, those known to training first."""
        return self.sessions.vocabulary

    @property
    def train(self) -> Sessions:
        """The sessions to fit on."""
        return self._part("train", 0, self.bounds[0], self.known[0])

    @property
    def validation(self) -> Sessions:
        """The sessions to choose settings on: later than train, earlier than test; may be empty."""
        return self._part("validation", self.bounds[0], self.bounds[1], self.known[0])

    @property
    def full(self) -> Sessions:
        """Train and validation together, to fit once more when the settings are chosen."""
        return self._part("full", 0, self.bounds[1], self.known[1])

    @property
    def test(self) -> Sessions:
        """The sessions to report on; never to choose anything on."""
        return self._part("test", self.bounds[1], self.bounds[2], self.known[0])

    def _part(self, part: str, first: int, last: int, n_items: int) -> Sessions:
        origin = {"name": self.name, "fingerprint": self.fingerprint, "part": part}
        return replace(self.sessions[first:last], n_items=n_items, origin=origin)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the prepared clicks; models remember the one they were fitted on."""
        return str(self.info["fingerprint"])

    @property
    def shards(self) -> list[tuple[str, int]]:
        """The Parquet files of the clicks, from the first session on: name within ``path``, and clicks."""
        whole = {"file": "events.parquet", "clicks": len(self.sessions.items)}  # before there were shards
        return [(shard["file"], shard["clicks"]) for shard in self.info.get("shards", [whole])]

    def shard(self, name: str) -> Path:
        """Return the file of a shard, fetched first where the data lie elsewhere."""
        assert self.path is not None
        return self.path / name if self.elsewhere is None else fetched(self.elsewhere, name, self.path)

    @classmethod
    def load(cls, path: str | Path | Url, *, verify: bool = False) -> Dataset:
        """Open a prepared data set; its arrays are memory-mapped, so this takes milliseconds.

        path: its folder, or the URL of one, whose arrays are fetched once, into NEXTCLICK_CACHE or
        .cache/nextclick of the user's folder; its shards only when an engine reads them.
        verify: also read all arrays and compare them with their fingerprint, as the commands do.
        Raises ArtifactError when ``path`` is no data set of ours, is damaged, or is of a newer format.
        """
        where = place(path)
        if isinstance(where, Path):
            return cls._checked(where, _read_info(where), verify)
        here = cache_of(where, "prepare.json")
        if here is None:
            raise ArtifactError(
                f"{where}: no prepared data here; make it with: nextclick prepare LOG --out {where}"
            )
        info = _read_info(here)
        for name in info["arrays"]:
            fetched(where, f"arrays/{name}", here)
        return replace(cls._checked(here, info, verify), elsewhere=where)

    @classmethod
    def _checked(cls, path: Path, info: dict[str, Any], verify: bool) -> Dataset:
        try:
            return cls._opened(path, info, verify)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise ArtifactError(f"{path}: damaged ({error!r}); prepare the data again") from error

    @classmethod
    def _opened(cls, path: Path, info: dict[str, Any], verify: bool) -> Dataset:
        arrays = {}
        for name, size in info["arrays"].items():
            file = path / "arrays" / name
            if not file.is_file() or file.stat().st_size != size:
                found = f"{file.stat().st_size} bytes" if file.is_file() else "no such file"
                raise ArtifactError(f"{file}: expected {size} bytes, found {found}; prepare the data again")
            arrays[name.removesuffix(".npy")] = np.load(file, mmap_mode="r", allow_pickle=False)
        target = info.get("target")
        if verify and fingerprint_of(arrays, target) != info["fingerprint"]:
            raise ArtifactError(
                f"{path / 'arrays'}: changed since they were prepared; prepare the data again"
            )
        ids = {name: array for name, array in arrays.items() if name.startswith("ids")}
        sessions = Sessions(
            items=arrays["items"],
            offsets=arrays["offsets"],
            times=arrays["times"],
            vocabulary=Vocabulary.from_arrays(ids),
            n_items=info["n_items"]["all"],
            clock=info["clock"],
            events=arrays.get("events"),
            event_names=tuple(info["event_names"]),
            target_event=None if target is None else info["event_names"].index(target["event"]),
            target_clicks=None if target is None else target["clicks"],
        )
        (_, a), (_, b), (_, c) = (
            info["splits"][part]["sessions"] for part in ("train", "validation", "test")
        )
        known = (info["n_items"]["train"], info["n_items"]["full"])
        clicks = {len(arrays[name]) for name in ("items", "times", "events") if name in arrays}
        agree = 0 <= a <= b <= c == len(sessions) and 0 <= known[0] <= known[1] <= sessions.n_items
        if not agree or clicks != {int(sessions.offsets[-1])} or sessions.n_items != len(sessions.vocabulary):
            raise ValueError("its counts do not agree with its arrays")
        return cls(info["name"], sessions, (a, b, c), known, info, path)


def fingerprint_of(arrays: Mapping[str, NDArray[Any]], target: Mapping[str, Any] | None = None) -> str:
    """Return the SHA-256 over the names, types and contents of prepared arrays, and what is to be predicted.

    target: the event and the longest prefix, as ``prepare.json`` has them, or None for every click.
    """
    digest = hashlib.sha256()
    if target is not None:
        digest.update(json.dumps(dict(target), sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {len(array)} ".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def _read_info(path: Path) -> dict[str, Any]:
    """Read and check ``prepare.json``; raises ArtifactError."""
    try:
        info = json.loads((path / "prepare.json").read_text("utf-8"))
    except FileNotFoundError:
        hint = f"make it with: nextclick prepare LOG --out {path}"
        if (path / "slice-1").is_dir():
            hint = f"it holds slices, name one of them: {path / 'slice-1'}"
        elif (path / "manifest.json").exists():
            hint = "this is a saved model; name a directory that nextclick prepare wrote"
        raise ArtifactError(f"{path}: no prepared data here; {hint}") from None
    except (ValueError, OSError, RecursionError) as error:
        raise ArtifactError(
            f"{path / 'prepare.json'}: unreadable ({error}); prepare the data again"
        ) from error
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise ArtifactError(
            f"{path / 'prepare.json'}: not a prepared data set of nextclick; name a directory that nextclick "
            "prepare wrote"
        )
    version = info.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ArtifactError(
            f"{path}: written in format {version}, this version reads up to {FORMAT_VERSION}: "
            "upgrade nextclick"
        )
    return info
