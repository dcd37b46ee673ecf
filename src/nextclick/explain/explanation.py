"""One session explained: what is recommended, and the reasons for it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import DataError
from nextclick.reasons import Attention, ClickParts, LeftOut, Neighbours, Reasons
from nextclick.recommendations import Recommendation
from nextclick.recommender import Recommender
from nextclick.sessions import UNKNOWN, ItemId, Queries


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Why a recommender recommends some items after a session; ``print`` shows it as a table.

    model: the recommender's name;  session: the clicks that it knows, oldest first (T);  items: what it
    recommends, best first (k);  reasons: ``Attention``, ``ClickParts``, ``Neighbours`` or, where the
    recommender has none of its own, ``LeftOut``: see ``nextclick.reasons``;  unknown: clicks that were
    skipped;  notes: what to know when reading it.
    """

    model: str
    session: tuple[ItemId, ...]
    items: tuple[Recommendation, ...]
    reasons: Reasons
    unknown: tuple[ItemId, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def by(self) -> str:
        """How it explains: "attention", "clicks", "neighbours", or "leaving out" (any recommender)."""
        return self.reasons.by

    def __repr__(self) -> str:
        return f"<Explanation of {len(self.items)} items of {self.model} by {self.by}>"

    def __str__(self) -> str:
        from rich.console import Console

        from nextclick.explain.text import print_explanation

        stream = io.StringIO()
        print_explanation(self, Console(file=stream, width=100, color_system=None, highlight=False))
        return "\n".join(row.rstrip() for row in stream.getvalue().splitlines())

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values; the keys beside the common ones depend on ``by``."""
        return {
            "model": self.model,
            "by": self.by,
            "session": list(self.session),
            "unknown": list(self.unknown),
            "items": [{"item": item, "score": score} for item, score in self.items],
            **self.reasons.to_json(),
            "notes": list(self.notes),
        }

    def save_png(self, path: str | Path) -> None:
        """Write the picture: a heat map of attention, else bars; an older file is replaced when it is done.

        Raises MissingExtraError without matplotlib, and DataError when the file cannot be written.
        """
        from nextclick.explain.picture import save_png

        save_png(self, Path(path))


def explain(
    model: Recommender,
    session: Sequence[ItemId],
    k: int = 5,
    *,
    exclude_seen: bool = False,
    leave_out: bool = False,
) -> Explanation:
    """Return why ``model`` recommends its first k items after a session of the users' own item ids.

    session: oldest click first; unknown items are skipped and reported.  exclude_seen: recommend only items
    that are not in the session.  leave_out: leave out each click in turn and compare the answers, which is
    done anyway for a recommender without reasons of its own.
    Raises DataError where the model knows no item of the session, or has nothing to recommend, and
    ConfigError when k is not positive.
    """
    if isinstance(session, str):
        raise DataError("a session is a list of item ids, found one text: write ['a'] for one item 'a'")
    model.n_items  # noqa: B018 - refuses before fit
    codes = model.vocabulary.codes_of(session)
    prefix = codes[codes != UNKNOWN]
    if len(prefix) == 0:
        raise DataError(
            f"{model.name} knows no item of the session, so there is nothing to explain; give at least one "
            "item that stands in its training data"
        )
    top, scores = (row[0] for row in model.top(Queries.of([prefix]), k, exclude_seen=exclude_seen))
    listed, scores = top[top != UNKNOWN], scores[top != UNKNOWN]
    if len(listed) == 0:
        raise DataError(f"{model.name} has nothing to recommend after this session, so nothing to explain")
    own = None if leave_out else model.reasons(prefix, listed)
    reasons = own or _left_out(model, prefix, listed, scores)
    items = tuple(
        Recommendation(item, float(score))
        for item, score in zip(model.vocabulary.ids_of(listed), scores, strict=True)
    )
    notes = _notes(reasons, items)
    if own is None and not leave_out:
        notes = (
            f"{model.name}, as it is set, has no reasons of its own to tell; leaving out works for any.",
            *notes,
        )
    unknown = tuple(item for item, code in zip(session, codes, strict=True) if code == UNKNOWN)
    known = tuple(model.vocabulary.ids_of(prefix))
    return Explanation(model.name, known, items, reasons, unknown, notes)


def _left_out(
    model: Recommender, prefix: NDArray[np.int32], items: NDArray[np.int32], full: NDArray[np.float32]
) -> LeftOut:
    scores = np.empty((len(prefix), len(items)), np.float32)
    ranks = np.zeros((len(prefix), len(items)), np.int64)
    for j in range(len(prefix)):  # one at a time: a full row of scores may be large
        row = model.score(Queries.of([np.delete(prefix, j)]))[0]
        # Many models answer an empty session by clicks, which no score can be compared with.
        scores[j] = row[items] if len(prefix) > 1 else 0.0
        for n, item in enumerate(items):
            if row[item] > -np.inf:
                before = row[:item] == row[item]  # the smaller code is the more clicked item
                ranks[j, n] = 1 + np.count_nonzero(row > row[item]) + np.count_nonzero(before)
    return LeftOut(scores, ranks, full)


def _notes(reasons: Reasons, items: Sequence[Recommendation]) -> tuple[str, ...]:
    """Say what a reader could mistake."""
    match reasons:
        case Attention(weights):
            notes = ["Attention tells what the network looked at, not what speaks for which item."]
            if (read := _clicks_read(weights)) < len(weights):
                notes.append(f"Only the last {read} clicks of a prefix are read.")
            return tuple(notes)
        case LeftOut():
            notes = ["One click is left out at a time; the differences do not add up to the score."]
            if len(reasons.scores) == 1:
                notes.append(
                    "Without its only click a session has no score of its own: all of the score is shown as "
                    "what the click adds, and the rank beside it is that in the answer to an empty session."
                )
            if not reasons.parts().any():
                notes.append("No click makes a difference: without any one of them the scores are the same.")
            return tuple(notes)
        case ClickParts(parts):
            totals = parts.sum(axis=0)
        case Neighbours():
            totals = reasons.parts(len(items)).sum(axis=0)
    fill = [str(item) for (item, _), total in zip(items, totals, strict=True) if total == 0]
    return (
        (f"No vote at all, there to fill the list as much clicked items: {', '.join(fill)}.",) if fill else ()
    )


def _clicks_read(weights: NDArray[np.float32]) -> int:
    """How many clicks of a prefix the longest one reads."""
    return int(np.max(np.count_nonzero(weights, axis=1)))
