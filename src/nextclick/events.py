"""The test events that all models of an evaluation answer: prefixes, targets, and parts reported apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import DataError
from nextclick.results import Protocol
from nextclick.sessions import UNKNOWN, Queries, Sessions


@dataclass(frozen=True, eq=False)
class Events:
    """The test events that all models answer.

    queries: the prefixes;  targets, bounds: the items still to come, the next click first, as users' codes
    of the test vocabulary;  session: [n];  slices: (kind, label, rows) of the parts reported separately.
    """

    queries: Queries
    targets: NDArray[np.int32]
    bounds: NDArray[np.int64]
    session: NDArray[np.int64]
    slices: Sequence[tuple[str, str, NDArray[np.bool_]]] = field(default=())

    def __len__(self) -> int:
        return len(self.queries)


def cut(
    test: Sessions,
    translations: list[NDArray[np.int32]],
    protocol: Protocol,
    unseen: str,
    prefix_lengths: Sequence[int],
) -> tuple[Events, int]:
    """Cut the test sessions into events; also count those whose next click no model knows."""
    queries, positions = test.pairs()
    if len(queries) == 0:
        if test.target_name is not None:
            raise DataError(
                f"nothing to evaluate: no session has a click of event {test.target_name!r} to predict"
            )
        raise DataError("nothing to evaluate: no test session has two clicks; give longer sessions")
    session = test.session_of[positions]
    known = np.any([codes != UNKNOWN for codes in translations], axis=0)  # of each item
    answerable = known[test.items[positions]]
    in_training = known & (np.arange(len(known)) < test.n_items)
    slices = _slices(test, queries, positions, in_training, prefix_lengths)
    if protocol == "remaining":
        targets, bounds = _still_to_come(test, positions, test.offsets[session + 1], known, unseen == "drop")
    else:
        targets, bounds = test.items[positions], np.arange(len(positions) + 1)
    if unseen == "drop":
        if not answerable.any():
            raise DataError(
                "nothing to evaluate: no model knows any of the items clicked in the test sessions; fit the "
                "models on the same log, or count such clicks with unseen='miss'"
            )
        keep = np.flatnonzero(answerable)
        lengths = np.diff(bounds)
        targets = targets[np.repeat(answerable, lengths)]
        bounds = np.r_[0, np.cumsum(lengths[keep])]
        slices = [(kind, label, rows[keep]) for kind, label, rows in slices if rows[keep].any()]
        queries, session = queries[keep], session[keep]
    return Events(queries, targets, bounds.astype(np.int64), session, slices), int((~answerable).sum())


def _still_to_come(
    test: Sessions,
    positions: NDArray[np.int64],
    ends: NDArray[np.int64],
    known: NDArray[np.bool_],
    only_known: bool,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The distinct items to predict from each position to the end of its session, in order of appearance."""
    rows, wanted = [], test.is_target
    for position, end in zip(positions.tolist(), ends.tolist(), strict=True):
        rest = test.items[position:end][wanted[position:end]]
        _, first = np.unique(rest, return_index=True)
        rest = rest[np.sort(first)]
        rows.append(rest[known[rest]] if only_known else rest)
    return np.concatenate(rows), np.r_[0, np.cumsum([len(row) for row in rows])]


def _slices(
    test: Sessions,
    queries: Queries,
    positions: NDArray[np.int64],
    known: NDArray[np.bool_],
    prefix_lengths: Sequence[int],
) -> list[tuple[str, str, NDArray[np.bool_]]]:
    """Parts by prefix length (Li et al., CIKM 2017, table 5), by target popularity, repeated or new."""
    length = queries.ends - queries.starts
    parts: list[tuple[str, str, NDArray[np.bool_]]] = []
    edges = [*prefix_lengths, np.iinfo(np.int64).max]
    for low, high in itertools.pairwise(edges):
        label = str(low) if high == low + 1 else f"{low}+" if high == edges[-1] else f"{low}-{high - 1}"
        parts.append(("prefix length", label, (length >= low) & (length < high)))
    target = test.items[positions]
    place = target / max(test.n_items, 1)  # codes run from the most to the least clicked item
    shares = [(0.0, 0.01, "top 1%"), (0.01, 0.1, "1-10%"), (0.1, 0.5, "10-50%"), (0.5, np.inf, "50-100%")]
    for at_least, under, label in shares:
        parts.append(("target popularity", label, (place >= at_least) & (place < under) & known[target]))
    parts.append(("target popularity", "unseen", ~known[target]))
    repeated = np.array(
        [
            (queries.items[a:b] == t).any()
            for a, b, t in zip(queries.starts, queries.ends, target, strict=True)
        ]
    )
    parts += [("target", "repeated", repeated), ("target", "new", ~repeated)]
    return [part for part in parts if part[2].any()]
