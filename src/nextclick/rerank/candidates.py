"""Candidates of every training prefix: made once, in parallel, kept on disk, read by memory map."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nextclick import __version__, settings
from nextclick.errors import ConfigError, DataError
from nextclick.files import alone, new_directory, sha256, write_json
from nextclick.neighbours.item_table import ItemToItem
from nextclick.neighbours.session_votes import SessionKNN
from nextclick.recommender import Recommender, Run
from nextclick.rerank.composite import generators_of
from nextclick.sessions import Queries, Sessions

Tell = Callable[[str, int, int], None]
HeldOut = Literal["auto", "none", "session", "part", "folds"]
Lists = tuple[NDArray[np.int32], NDArray[np.float32]]
"""Item codes [n, k], -1 behind the last, and the generator's scores of them."""

_REFIT = ("folds", "part")  # ways for which a generator is fitted again
_BLOCK = 2048  # prefixes answered together
_ARRAYS: Mapping[str, type[np.generic]] = {"items.npy": np.int32, "scores.npy": np.float32}


def cleaned(
    items: NDArray[Any], scores: NDArray[Any], n_items: int, k: int, met: NDArray[np.int64] | None = None
) -> Lists:
    """Return lists of exactly k places, with what cannot be a candidate left out and -1 in its stead.

    items, scores: [n, any];  met: int64 [3], to which are added the lists with fewer than k candidates, the
    codes that are no item's, and the items that stand in a list again.
    """
    from nextclick.rerank import kernels

    items = np.ascontiguousarray(items[:, :k], np.int32)
    scores = np.ascontiguousarray(scores[:, :k], np.float32)
    if items.shape[1] < k:
        lacking = ((0, 0), (0, k - items.shape[1]))
        items = np.pad(items, lacking, constant_values=-1)
        scores = np.pad(scores, lacking, constant_values=-np.inf)
    elif met is None:  # what was given stays as it is
        items, scores = items.copy(), scores.copy()
    found = kernels.clean(items, scores, n_items, np.zeros(n_items, np.bool_))
    if met is not None:
        met += found
    return items, scores


def clicked(queries: Queries, k: int) -> Lists:
    """Return the items of each prefix itself as a list, the latest click first, [n, k]."""
    from nextclick.rerank import kernels

    items, scores = np.empty((len(queries), k), np.int32), np.empty((len(queries), k), np.float32)
    kernels.clicked(queries.items, queries.starts, queries.ends, items, scores)
    return items, scores


def best_of_row(scores: NDArray[np.float32], k: int) -> Lists:
    """Return the k best items of rows of scores, [n, n_items], -1 behind the last."""
    from nextclick import ranking

    top = np.empty((len(scores), k), np.int32)
    top_scores = np.empty(top.shape, np.float32)
    ranking.dense_top(scores, scores.shape[1], top, top_scores)
    return top, top_scores


@dataclass(frozen=True)
class Wanted:
    """Which lists of training prefixes are wanted.

    k: candidates in each;  held_out: "none": the generator as it is, which has seen the session that it
    answers;  "session": it leaves that session out (session neighbours; the others as they are);  "folds":
    the sessions are cut into ``folds`` parts at random, and each part is answered by a copy fitted on the
    others;  "part": the same for the first of these parts only, and lists of other prefixes are not wanted
    (session neighbours leave the session out);
    "auto": "session" for those that can, "part" for others that know sessions by heart, as they are trained
    in epochs or are made of such and of session neighbours, "folds" for tables of pairs, which have counted
    the click that is asked for ("part" beside generators of which only that is wanted), and "none" for
    those that count single items.
    on_lists: the clicks to predict are clicks on lists (a target event), whose order a table of all sessions
    knows better than its copies do; "auto" leaves a table alone as it is then.
    """

    k: int
    held_out: HeldOut = "auto"
    folds: int = 3
    on_lists: bool = False

    def within(self, sessions: Sessions) -> Wanted:
        """Return what is wanted of these sessions: of fewer than ``folds``, "auto" holds nothing out."""
        if self.held_out == "auto" and len(sessions) < self.folds:
            return replace(self, held_out="none")
        return replace(self, on_lists=sessions.target_name is not None)

    def ways(self, generators: Sequence[Recommender]) -> list[str]:
        """Return how each generator answers the sessions it was fitted on: none, session, part or folds."""
        return [self._way(generator, generators) for generator in generators]

    def _way(self, generator: Recommender, generators: Sequence[Recommender]) -> str:
        if self.held_out in ("none", "folds"):
            return self.held_out
        if isinstance(generator, SessionKNN):
            return "session"
        as_it_is = self.on_lists and len(generators) == 1
        if self.held_out == "auto" and counts_pairs(generator) and not as_it_is:
            return "part" if self._partly(generators) else "folds"
        return "part" if self.held_out != "session" and self._partly([generator]) else "none"

    def _partly(self, generators: Sequence[Recommender]) -> bool:
        """Return whether lists are wanted of one part of the sessions only."""
        if self.held_out == "part":
            return True
        return self.held_out == "auto" and any(
            reads_sessions(one) and not isinstance(one, SessionKNN) for one in generators
        )

    def rows(self, generators: Sequence[Recommender], sessions: Sessions) -> NDArray[np.int64]:
        """Return the training prefixes whose lists are wanted, numbers among ``sessions.pairs()``."""
        if not self._partly(generators):
            return np.arange(sessions.n_pairs)
        _, positions = sessions.pairs()
        return np.flatnonzero(self.parts(sessions)[sessions.session_of[positions]] == 0)

    def parts(self, sessions: Sessions) -> NDArray[np.int64]:
        """Return the part that each session is in, [n_sessions]."""
        return np.random.default_rng(self.folds).permutation(len(sessions)) % self.folds

    def check(self, generators: Sequence[Recommender], sessions: Sessions) -> None:
        """Raise ConfigError for what cannot be held out of these generators and sessions."""
        ways = self.ways(generators)
        if self.held_out == "session" and "session" not in ways:
            names = ", ".join(one.name for one in generators)
            raise ConfigError(
                f"held_out=session: {names} cannot leave a session out, only session neighbours can; take "
                "held_out=folds, or held_out=none"
            )
        exported = [one for one, way in zip(generators, ways, strict=True) if way in _REFIT and exports(one)]
        if exported:
            of = exports(exported[0])[0]
            raise ConfigError(
                f"held_out={self.held_out}: {exported[0].name} is a table exported from {of}, or holds one, "
                "and cannot be fitted again; take held_out=none, or the model itself as the generator"
            )
        if ("folds" in ways or self._partly(generators)) and len(sessions) < self.folds:
            raise ConfigError(
                f"folds={self.folds}: there are {len(sessions)} sessions only; take fewer, or held_out=none"
            )


def trained_in_epochs(model: Recommender) -> bool:
    """Return whether a recommender, or a generator of it, learns sessions by heart in passes over them."""
    return "epochs" in settings.values_of(model) or any(map(trained_in_epochs, generators_of(model)))


def reads_sessions(model: Recommender) -> bool:
    """Return whether a recommender, or a generator of it, answers by more than counts of items and pairs."""
    return (
        isinstance(model, SessionKNN)
        or trained_in_epochs(model)
        or any(map(reads_sessions, generators_of(model)))
    )


def counts_pairs(model: Recommender) -> bool:
    """Return whether a recommender, or a generator of it, has counted a table of items beside each item."""
    if isinstance(model, ItemToItem):
        return not exports(model)
    return any(map(counts_pairs, generators_of(model)))


def exports(model: Recommender) -> list[str]:
    """Return the names of the models whose exported tables a recommender is, or is made of."""
    own = [str(model.facts["table"]["of"])] if "table" in model.facts else []
    return own + [name for one in generators_of(model) for name in exports(one)]


@contextmanager
def training_lists(
    generators: Sequence[Recommender],
    sessions: Sessions,
    wanted: Wanted,
    tell: Tell,
    run: Run,
    together: Callable[[], None] | None = None,
) -> Iterator[tuple[list[Lists], list[dict[str, Any]], NDArray[np.int64]]]:
    """Yield each generator's candidates, [n, k], from disk, about each, and the prefixes they are of, [n].

    run: ``run.candidates`` or, where it is None, the folder of the checkpoints keeps the lists for later
    trainings of the same; without either they lie in a temporary one.  together: where several processes
    train together, waits for them; given to all but the first, which makes the lists first.
    Raises DataError where the disk is full, or the lists kept were changed.
    """
    wanted.check(generators, sessions)
    with tempfile.TemporaryDirectory(prefix="nextclick-candidates-") as spare:
        kept = run.candidates or (run.checkpoints and run.checkpoints / "candidates")
        base = kept or Path(spare)
        if together is not None:
            together()
        of_sessions, rows = checksum(sessions), wanted.rows(generators, sessions)
        partly = {"part of": wanted.folds} if len(rows) < sessions.n_pairs else {}
        found, about = [], []
        for generator, way in zip(generators, wanted.ways(generators), strict=True):
            key = {
                "generator": identity(generator), "sessions": of_sessions, "k": wanted.k,
                "held out": way, "folds": wanted.folds if way == "folds" else 0, "nextclick": __version__,
                **partly,
            }  # fmt: skip
            if way == "folds":  # its copies learn from the times too
                key["times"] = hashlib.sha256(np.ascontiguousarray(sessions.times).data).hexdigest()
            name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
            place = base / f"{generator.name}-{name}"
            if not place.exists():
                with alone(base):
                    if not place.exists():  # made by another process meanwhile
                        _write(place, key, generator, way, sessions, rows, wanted, tell, run)
            lists, facts = _opened(place, key, (len(rows), wanted.k))
            found.append(lists)
            about.append({"model": generator.name, "held out": way, **facts})
        yield found, about, rows


def identity(model: Recommender) -> str:
    """Return a digest of a fitted recommender: its name, settings and everything it has learnt."""
    about = [model.name, settings.values_of(model), [identity(one) for one in generators_of(model)]]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, array in sorted(model.state().items()):
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def checksum(sessions: Sessions) -> str:
    """Return a digest of the clicks of sessions, and of which of them are to be predicted from what."""
    digest = hashlib.sha256(f"{sessions.n_items} {sessions.target_clicks} ".encode())
    for array in (sessions.items, sessions.offsets, sessions.is_target):
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def _write(
    place: Path, key: Mapping[str, Any], generator: Recommender, way: str, sessions: Sessions,
    chosen: NDArray[np.int64], wanted: Wanted, tell: Tell, run: Run,
) -> None:  # fmt: skip
    queries, positions = sessions.pairs()
    queries, session = queries[chosen], sessions.session_of[positions[chosen]]
    met = np.zeros(3, np.int64)
    with new_directory(place) as aside:
        items, scores = (
            _room(aside / name, (len(queries), wanted.k), kind) for name, kind in _ARRAYS.items()
        )
        done = 0
        for rows, answer in _parts(generator, way, sessions, session, wanted, tell, run):
            for low in range(0, len(rows), _BLOCK):
                block = rows[low : low + _BLOCK]
                lists = answer(queries[block], session[block], min(wanted.k, generator.n_items))
                items[block], scores[block] = cleaned(*lists, generator.n_items, wanted.k, met)
                done += len(block)
                tell(f"candidates of {generator.name}", done, len(queries))
        items.flush()
        scores.flush()
        content = {
            "key": key,
            "lists": {"short": int(met[0]), "unknown": int(met[1]), "again": int(met[2])},
            "files": {name: sha256(aside / name) for name in _ARRAYS},
        }
        write_json(aside / "candidates.json", content)


Answer = Callable[[Queries, NDArray[np.int64], int], tuple[NDArray[Any], NDArray[Any]]]


def _parts(
    generator: Recommender, way: str, sessions: Sessions, session: NDArray[np.int64], wanted: Wanted,
    tell: Tell, run: Run,
) -> Iterator[tuple[NDArray[np.int64], Answer]]:  # fmt: skip
    """Yield the prefixes of these sessions, numbers among them, in parts, with what answers each."""
    if way in ("folds", "part"):
        part = wanted.parts(sessions)
        for fold in range(wanted.folds if way == "folds" else 1):
            others = sessions.where(part != fold)
            copy = _refitted(generator, others, f"without part {fold + 1} of {wanted.folds}", tell, run)
            rows = np.flatnonzero(part[session] == fold)
            yield rows, lambda queries, own, k, copy=copy: copy.top(queries, k)  # type: ignore[misc]
        return
    rows = np.arange(len(session))
    if way == "session" and isinstance(generator, SessionKNN):
        yield rows, generator.top_without
    else:
        yield rows, lambda queries, own, k: generator.top(queries, k)


def _refitted(generator: Recommender, sessions: Sessions, what: str, tell: Tell, run: Run) -> Recommender:
    """Return a recommender like the generator, its own generators included, fitted on other sessions."""
    values = settings.values_of(generator)
    parts = [_refitted(one, sessions, what, tell, run) for one in generators_of(generator)]
    copy: Recommender = type(generator)(parts, **values) if parts else type(generator)(**values)  # type: ignore[call-arg]

    def told(now: str, done: int, total: int) -> None:
        tell(f"{generator.name} {what}, {now}", done, total)

    alone = Run(device=run.device, alone=True)  # where several processes train, the first one makes the lists
    return copy.fit(sessions, features=generator.features, progress=told, run=alone)


def _room(file: Path, shape: tuple[int, int], kind: type[np.generic]) -> np.memmap[Any, Any]:
    """Return a new array on disk. A disk without room for it says so here, not when a page is written."""
    array = np.lib.format.open_memmap(file, "w+", kind, shape)
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, max(1, file.stat().st_size))
    return array


def _opened(place: Path, key: Mapping[str, Any], shape: tuple[int, int]) -> tuple[Lists, dict[str, Any]]:
    try:
        content = json.loads((place / "candidates.json").read_text("utf-8"))
        for name in _ARRAYS:
            if sha256(place / name) != content["files"][name]:
                raise ValueError(f"{name} was changed")
        items, scores = (np.load(place / name, mmap_mode="r", allow_pickle=False) for name in _ARRAYS)
        if content["key"] != key or items.shape != shape or scores.shape != shape:
            raise ValueError("they belong to another training")
        return (items, scores), dict(content["lists"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{place}: the candidates kept there cannot be used ({error}); remove that folder to have them "
            "made again"
        ) from error
