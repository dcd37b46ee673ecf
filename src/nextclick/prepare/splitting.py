"""Cutting ranked sessions into slices, and each into train, validation and test."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

from nextclick.errors import DataError
from nextclick.prepare import steps
from nextclick.prepare.cleaning import Record, Run
from nextclick.prepare.options import Part
from nextclick.prepare.writing import Delivered


@dataclass
class Piece:
    """Sessions that become one data set: its two tables, and how many sessions precede each bound."""

    ranked: str
    kept: str
    n_train: int
    n_full: int
    n_all: int
    suffix: str
    record: Record


def pieces(run: Run) -> Iterator[tuple[str, Record, Delivered]]:
    """Yield the folder, the record of steps and the tables of each data set to write.

    Without slices this is one, in the folder "".  Raises DataError when a part or slice has no session.
    """
    total = run.record.last("sessions")
    if not run.options.slices:
        yield _finished(run, Piece("ranked", "kept", total, total, total, "", run.record), "")
        return
    k = run.options.slices
    if run.clock:
        first, last = run.engine.rows(run.words.fill(steps.LAST_TIME, ranked="ranked", below=total))[0]
        ends = [_up_to(run, "ranked", total, first + (last - first) * i // k) for i in range(1, k)]
        why = f"one of {k} equal spans of time, by the last click of the session"
    else:
        ends = [total * i // k for i in range(1, k)]
        why = f"one of {k} equal runs of sessions"
    for i, (low, high) in enumerate(zip([0, *ends], [*ends, total], strict=True), start=1):
        if low == high:
            raise DataError(f"slice {i} of {k} holds no session; use fewer --slices")
        name = f"_{i}"
        values: dict[str, int | str] = {"low": low, "high": high, "ranked": "ranked", "kept": "kept"}
        run.engine.table(f"ranked{name}", run.words.fill(steps.SLICE_RANKED, **values))
        run.engine.table(f"kept{name}", run.words.fill(steps.SLICE_KEPT, **values))
        piece = Piece(f"ranked{name}", f"kept{name}", 0, 0, high - low, name, copy.deepcopy(run.record))
        _count(run, piece, f"slice {i}", why)
        yield _finished(run, piece, f"slice-{i}")


def _finished(run: Run, piece: Piece, folder: str) -> tuple[str, Record, Delivered]:
    """Split, drop what was not seen, keep the recent part, and give the items their codes."""
    run.progress("split" if not folder else f"split {folder}")
    _split(run, piece)
    if run.options.unseen == "drop":
        _drop_unseen(run, piece)
    if run.options.recent_share is not None:
        _keep_recent(run, piece)
    sizes: dict[str, int | str] = {
        "n_train": piece.n_train,
        "n_full": piece.n_full,
        "ranked": piece.ranked,
        "kept": piece.kept,
    }
    named = sizes | {"parts": f"item_parts{piece.suffix}", "codes": f"item_codes{piece.suffix}"}

    def fill(text: str, **values: str) -> str:
        return run.words.fill(text, **named, **values)

    engine, out = run.engine, f"out{piece.suffix}"
    run.progress("code items")
    engine.table(str(named["parts"]), fill(steps.ITEM_PARTS))
    engine.table(str(named["codes"]), fill(steps.ITEM_CODES))
    engine.view(f"{out}_items", fill(steps.OUT_ITEMS_NUMBERED if run.words.number_items else steps.OUT_ITEMS))
    own_id, joins = _own_id(run)
    engine.view(f"{out}_sessions", fill(steps.OUT_SESSIONS, own_id=own_id, id_joins=joins))
    engine.view(f"{out}_clicks", fill(steps.OUT_CLICKS))
    run.progress("write" if not folder else f"write {folder}")
    bounds = (piece.n_train, piece.n_full, piece.n_all)
    made = Delivered(
        f"{out}_sessions",
        f"{out}_items",
        f"{out}_clicks",
        bounds,
        run.clock,
        run.words.order,
        run.event_names,
        run.options.target,
    )
    return folder, piece.record, made


def _own_id(run: Run) -> tuple[str, str]:
    """Return the SQL of a session's id in the user's words: "user-2" for the second visit of a user."""
    if not run.cut:
        if run.words.number_sessions:
            return "i.id", " JOIN session_ids AS i ON i.session = r.session"
        return "r.session", ""
    joins, user = " JOIN visit_ids AS v ON v.session = r.session", "v.visitor"
    if run.words.number_sessions:
        joins, user = f"{joins} JOIN session_ids AS i ON i.session = v.visitor", "i.id"
    return f"CONCAT(CAST({user} AS STRING), '-', CAST(v.visit AS STRING))", joins


def _split(run: Run, piece: Piece) -> None:
    """Find the bounds of validation and test; a ready split has its test bound already."""
    options, total = run.options, piece.n_all
    start = None
    if options.ready:
        piece.n_full = int(run.engine.rows(run.words.fill(steps.N_BELOW, first_test=run.first_test))[0][0])
        of, test = piece.n_full, "given"
    else:
        piece.n_full, start = _cut(run, piece, options.holdout_part, total, total, None)
        of, test = total, f"the last {options.holdout}"
    piece.n_train = piece.n_full
    if options.validation_part:
        piece.n_train, _ = _cut(run, piece, options.validation_part, of, piece.n_full, start)
    for n, part, option in (
        (piece.n_train, "training", "--holdout and --validation"),
        (total - piece.n_full, "test", "--holdout"),
    ):
        if n <= 0:
            raise DataError(f"no session is left for the {part} part of {total:,} sessions; change {option}")
    if options.validation_part and piece.n_train == piece.n_full:
        raise DataError(f"--validation {options.validation} holds no session; make it longer, or 0 for none")
    validation = f"the last {options.validation} before it" if options.validation_part else "none"
    _count(run, piece, "split", f"test: {test}; validation: {validation}")


def _cut(run: Run, piece: Piece, part: Part, of: int, before: int, end: int | None) -> tuple[int, int | None]:
    """Return how many sessions precede a part that ends where ``before`` do, and the time it starts at.

    A share is of ``of`` sessions, rounded down but at least one. A span counts back from ``end``, else from
    the last click of the sessions before; to it belong the sessions whose last click is later than its start.
    """
    if part.share is not None:
        return before - max(1, math.floor(of * part.share)), None
    values: dict[str, int | str] = {"ranked": piece.ranked, "below": before}
    if end is None:
        end = run.engine.rows(run.words.fill(steps.LAST_TIME, **values))[0][1]
    start = (end or 0) - (part.span or 0)
    return _up_to(run, piece.ranked, before, start), start


def _up_to(run: Run, ranked: str, below: int, time: int) -> int:
    """Return how many of the first ``below`` sessions end at ``time`` or earlier."""
    sql = run.words.fill(steps.RANKS_UP_TO, ranked=ranked, below=below, time=time)
    return int(run.engine.rows(sql)[0][0])


def _drop_unseen(run: Run, piece: Piece) -> None:
    """Drop clicks after training on items that training has not, and sessions left with one click."""
    run.progress("drop unseen items")
    names: dict[str, int | str] = {"ranked": piece.ranked, "kept": piece.kept, "n_train": piece.n_train}
    names |= {name: f"{name}_seen{piece.suffix}" for name in ("seen", "spans", "new", "clicks")}
    for name, sql in (
        ("seen", steps.SEEN_KEPT),
        ("spans", steps.SEEN_SPANS),
        ("new", steps.SEEN_RANKED),
        ("clicks", steps.SEEN_CLICKS),
    ):
        run.engine.table(str(names[name]), run.words.fill(sql, **names))
    run.engine.drop(piece.kept, str(names["seen"]))
    below = f"SELECT COUNT(*), COUNT(CASE WHEN old < {piece.n_full} THEN 1 END) FROM {names['new']}"
    piece.n_all, piece.n_full = (int(n) for n in run.engine.rows(below)[0])
    piece.ranked, piece.kept = str(names["new"]), str(names["clicks"])
    if piece.n_all == piece.n_full:
        raise DataError("no test session has two clicks on items that training knows; use --unseen keep")
    _count(run, piece, "seen", "validation and test: only items that training has seen, 2 clicks or more")


def _keep_recent(run: Run, piece: Piece) -> None:
    """Keep the most recent training sessions that hold the share of the training pairs asked for."""
    share = run.options.recent_share or 1
    values: dict[str, int | str] = {"ranked": piece.ranked, "kept": piece.kept, "n_train": piece.n_train}
    pairs = int(run.engine.rows(run.words.fill(steps.PAIRS, **values))[0][0])
    wanted = math.ceil(pairs * share)
    low = int(run.engine.rows(run.words.fill(steps.RECENT, **values, pairs=wanted))[0][0] or 0)
    values |= {"low": low, "high": piece.n_all}
    names = f"ranked_recent{piece.suffix}", f"kept_recent{piece.suffix}"
    for name, sql in zip(names, (steps.SLICE_RANKED, steps.SLICE_KEPT), strict=True):
        run.engine.table(name, run.words.fill(sql, **values))
    run.engine.drop(piece.kept)
    piece.ranked, piece.kept = names
    piece.n_train, piece.n_full, piece.n_all = (n - low for n in (piece.n_train, piece.n_full, piece.n_all))
    why = f"the latest training sessions with {run.options.recent} of the {pairs:,} training pairs"
    _count(run, piece, "recent", why)


def _count(run: Run, piece: Piece, name: str, why: str) -> None:
    """Record what is left after a step; counted anew only where the step took sessions away."""
    counts = tuple(piece.record.last(what) for what in ("sessions", "clicks", "items"))
    if name != "split":
        sql = run.words.fill(steps.SIZE_OF, ranked=piece.ranked, kept=piece.kept)
        counts = run.engine.rows(sql)[0]
    piece.record.add(name, why, counts)
