"""Candidates of every training prefix: made once, in parallel, kept on disk, read by memory map."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextclick import __version__, settings
from nextclick.errors import DataError
from nextclick.files import alone, new_directory, sha256, write_json
from nextclick.neighbours.session_votes import SessionKNN
from nextclick.recommender import Recommender, Run
from nextclick.rerank.composite import generators_of
from nextclick.rerank.held_out import REFIT, Wanted
from nextclick.sessions import Queries, Sessions

Tell = Callable[[str, int, int], None]
Lists = tuple[NDArray[np.int32], NDArray[np.float32]]
"""Item codes [n, k], -1 behind the last, and the generator's scores of them."""

_BLOCK = 2048  # prefixes answered together
_ARRAYS: Mapping[str, type[np.generic]] = {"items.npy": np.int32, "scores.npy": np.float32}
_EARLIER: Mapping[str, type[np.generic]] = {"earlier.npy": np.int32}


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


def earlier_places(
    queries: Queries, k: int, depth: int, answer: Callable[..., tuple[Any, Any]], n_items: int
) -> NDArray[np.int32]:
    """Return where the clicks of prefixes stood in the lists of the clicks before them, [n, depth].

    The latest click comes first; the first click of a prefix has no list. k: not in the list; -1: no click.
    answer: given beginnings of prefixes, the numbers among ``queries`` of those, and k, returns lists.
    """
    from nextclick.rerank import kernels

    counts = np.clip(queries.ends - queries.starts - 1, 0, depth)
    row = np.repeat(np.arange(len(queries)), counts)
    back = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    start, at = queries.starts[row], queries.ends[row] - 1 - back
    # Prefixes of one session have beginnings in common, each of which is answered once.
    _, first, own = np.unique(start * (len(queries.items) + 1) + at, return_index=True, return_inverse=True)
    found = np.empty(len(first), np.int64)
    for low in range(0, len(first), _BLOCK):
        block = first[low : low + _BLOCK]
        of = Queries(queries.items, start[block], at[block])
        items, scores = answer(of, row[block], min(k, n_items))
        items, _ = cleaned(items, scores, n_items, k)
        kernels.place_of(items, queries.items[at[block]], found[low : low + _BLOCK])
    places = np.full((len(queries), depth), kernels.ABSENT, np.int32)
    places[row, back] = np.where(found < 0, k, found)[own]
    return places


def beside(places: Sequence[NDArray[np.int32]], n: int) -> NDArray[np.int32]:
    """Put the earlier places of n prefixes in the lists of several generators side by side, [n, E, G]."""
    return np.stack(places, 2) if len(places) else np.empty((n, 0, 0), np.int32)


def best_of_row(scores: NDArray[np.float32], k: int) -> Lists:
    """Return the k best items of rows of scores, [n, n_items], -1 behind the last."""
    from nextclick import ranking

    top = np.empty((len(scores), k), np.int32)
    top_scores = np.empty(top.shape, np.float32)
    ranking.dense_top(scores, scores.shape[1], top, top_scores)
    return top, top_scores


class Made(NamedTuple):
    """What generators answer to training prefixes, from disk.

    lists: candidates of each generator, [n, k];  earlier: of each, where the clicks of the prefixes stood in
    the lists of the clicks before them, [n, depth], see ``earlier_places``;  about: what is told of each;
    rows: the prefixes, numbers among ``sessions.pairs()``, [n].
    """

    lists: list[Lists]
    earlier: list[NDArray[np.int32]]
    about: list[dict[str, Any]]
    rows: NDArray[np.int64]


@contextmanager
def training_lists(
    generators: Sequence[Recommender],
    sessions: Sessions,
    wanted: Wanted,
    tell: Tell,
    run: Run,
    together: Callable[[], None] | None = None,
) -> Iterator[Made]:
    """Yield each generator's candidates, made now or kept from before.

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
        n_parts = wanted.n_parts("time" if "time" in wanted.ways(generators) else "part")
        partly = {"part of": n_parts} if len(rows) < sessions.n_pairs else {}
        found = Made([], [], [], rows)
        for generator, way in zip(generators, wanted.ways(generators), strict=True):
            key = {
                "generator": identity(generator), "sessions": of_sessions, "k": wanted.k,
                "held out": way, "folds": wanted.n_parts(way) if way in ("folds", "time") else 0,
                "nextclick": __version__, **partly,
            }  # fmt: skip
            if wanted.depth:
                key["depth"] = wanted.depth
            if way in ("folds", "time"):  # its copies learn from the times too
                key["times"] = hashlib.sha256(np.ascontiguousarray(sessions.times).data).hexdigest()
            name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
            place = base / f"{generator.name}-{name}"
            if not place.exists():
                with alone(base):
                    if not place.exists():  # made by another process meanwhile
                        _write(place, key, generator, way, sessions, rows, wanted, tell, run)
            arrays, facts = _opened(place, key, _shapes(wanted, len(rows)))
            found.lists.append((arrays[0], arrays[1]))
            found.earlier.extend(arrays[2:])
            found.about.append({"model": generator.name, "held out": way, **facts})
        yield found


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


Shapes = Mapping[str, tuple[tuple[int, int], type[np.generic]]]


def _shapes(wanted: Wanted, n: int) -> Shapes:
    """Return the files that are kept of one generator, with their shapes."""
    found = {name: ((n, wanted.k), kind) for name, kind in _ARRAYS.items()}
    return found | {name: ((n, wanted.depth), kind) for name, kind in _EARLIER.items() if wanted.depth}


def _write(
    place: Path, key: Mapping[str, Any], generator: Recommender, way: str, sessions: Sessions,
    chosen: NDArray[np.int64], wanted: Wanted, tell: Tell, run: Run,
) -> None:  # fmt: skip
    queries, positions = sessions.pairs()
    queries, session = queries[chosen], sessions.session_of[positions[chosen]]
    met = np.zeros(3, np.int64)
    shapes = _shapes(wanted, len(queries))
    with new_directory(place) as aside:
        arrays = [_room(aside / name, shape, kind) for name, (shape, kind) in shapes.items()]
        items, scores = arrays[:2]
        done = 0
        for rows, answer in _parts(generator, way, sessions, session, wanted, tell, run):
            for low in range(0, len(rows), _BLOCK):
                block = rows[low : low + _BLOCK]
                lists = answer(queries[block], session[block], min(wanted.k, generator.n_items))
                items[block], scores[block] = cleaned(*lists, generator.n_items, wanted.k, met)
                for places in arrays[2:]:
                    places[block] = earlier_places(
                        queries[block],
                        wanted.k,
                        wanted.depth,
                        lambda of, rows, k, own=session[block], ask=answer: ask(of, own[rows], k),
                        generator.n_items,
                    )
                done += len(block)
                tell(f"candidates of {generator.name}", done, len(queries))
        for array in arrays:
            array.flush()
        content = {
            "key": key,
            "lists": {"short": int(met[0]), "unknown": int(met[1]), "again": int(met[2])},
            "files": {name: sha256(aside / name) for name in shapes},
        }
        write_json(aside / "candidates.json", content)


Answer = Callable[[Queries, NDArray[np.int64], int], tuple[NDArray[Any], NDArray[Any]]]


def _parts(
    generator: Recommender, way: str, sessions: Sessions, session: NDArray[np.int64], wanted: Wanted,
    tell: Tell, run: Run,
) -> Iterator[tuple[NDArray[np.int64], Answer]]:  # fmt: skip
    """Yield the prefixes of these sessions, numbers among them, in parts, with what answers each."""
    if way in REFIT:
        part, n_parts = wanted.parts(sessions, way), wanted.n_parts(way)
        for n in {"folds": range(n_parts), "part": range(1), "time": range(1, n_parts)}[way]:
            others = sessions.where(part < n if way == "time" else part != n)
            about = "of the parts before part" if way == "time" else "without part"
            copy = _refitted(generator, others, f"{about} {n + 1} of {n_parts}", tell, run)
            rows = np.flatnonzero(part[session] == n)
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


def _opened(place: Path, key: Mapping[str, Any], shapes: Shapes) -> tuple[list[Any], dict[str, Any]]:
    try:
        content = json.loads((place / "candidates.json").read_text("utf-8"))
        for name in shapes:
            if sha256(place / name) != content["files"][name]:
                raise ValueError(f"{name} was changed")
        arrays = [np.load(place / name, mmap_mode="r", allow_pickle=False) for name in shapes]
        expected = [shape for shape, _ in shapes.values()]
        if content["key"] != key or [array.shape for array in arrays] != expected:
            raise ValueError("they belong to another training")
        return arrays, dict(content["lists"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{place}: the candidates kept there cannot be used ({error}); remove that folder to have them "
            "made again"
        ) from error
