"""The lines of an explanation for one recommended item, strongest first: what table and picture show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nextclick.explain.explanation import Explanation
from nextclick.reasons import ClickParts, LeftOut, Neighbour, Neighbours
from nextclick.report.markup import clean
from nextclick.sessions import ItemId

_NAMED = 5  # clicks of a neighbour that are named at most


@dataclass(frozen=True)
class Line:
    """One click or neighbour, or all the others together: what it adds to the score, and its words.

    adds: None where there is no number to show;  details: one text per title that ``titles`` returns.
    """

    adds: float | None
    details: tuple[str, ...]
    label: str


def titles(explanation: Explanation) -> tuple[tuple[str, ...], str]:
    """Return the titles of a line's details, and of its label."""
    match explanation.reasons:
        case Neighbours():
            return ("share", "similar", "age"), "neighbour (*: shared click)"
        case ClickParts():
            return ("share",), "click"
        case _:
            return ("rank",), "click left out"


def lines(explanation: Explanation, n: int, most: int, wide: int = 20) -> tuple[list[Line], Line | None]:
    """Return the ``most`` strongest lines for recommended item n, and one for the others if there are any.

    wide: characters of an item id before it is cut short.
    """
    item, score = explanation.items[n]
    clicks = [f"{j}  {short(click, wide)}" for j, click in enumerate(explanation.session, start=1)]
    match explanation.reasons:
        case Neighbours(sessions):
            found = [
                Line(
                    float(one.parts[n]),
                    (_share(one.parts[n], score), f"{one.similarity:.3g}", _age(one)),
                    _named(one, item, wide),
                )
                for one in sessions
            ]
        case ClickParts(parts):
            adds = parts[:, n].tolist()
            found = [Line(part, (_share(part, score),), c) for part, c in zip(adds, clicks, strict=True)]
        case LeftOut() as reasons:
            adds, ranks = reasons.parts()[:, n].tolist(), reasons.ranks[:, n].tolist()
            found = [
                Line(part if rank else None, (f"{n + 1} → {rank}" if rank else f"{n + 1} → never",), c)
                for part, rank, c in zip(adds, ranks, clicks, strict=True)
            ]
        case _:
            raise TypeError(f"attention is not explained item by item: {explanation!r}")
    return _cut(found, most, isinstance(explanation.reasons, LeftOut), score)


def _cut(found: list[Line], most: int, left_out: bool, score: float) -> tuple[list[Line], Line | None]:
    """Order lines by strength, without those that add nothing, and join what is beyond ``most``."""
    by_size = sorted(found, key=lambda line: -abs(math.inf if line.adds is None else line.adds))
    found = [line for line in by_size if line.adds != 0]
    if len(found) <= most + 1:  # one alone is shown rather than told of
        return found, None
    rest = [line.adds or 0.0 for line in found[most:]]
    if left_out:
        return found[:most], Line(None, ("",), f"{len(rest)} others, {abs(rest[0]):.2g} or less each")
    details = (_share(sum(rest), score), *[""] * (len(found[0].details) - 1))
    return found[:most], Line(sum(rest), details, f"{len(rest)} others")


def _share(part: float, whole: float) -> str:
    percent = 100 * part / whole if part else 0.0
    return f"{percent:.0f}%" if percent >= 0.95 else f"{percent:.1f}%"


def _age(one: Neighbour) -> str:
    if one.days is None:
        return f"{one.later:,} later"
    if one.days < 1:
        return f"{24 * one.days:.0f} h"
    return f"{one.days:.1f} d" if one.days < 9.95 else f"{one.days:.0f} d"


def _named(one: Neighbour, item: ItemId, wide: int) -> str:
    """Name the clicks of a neighbour: all, or those shared and the item voted for, then the latest others."""
    clicks: Sequence[ItemId] = one.clicks
    order = sorted(range(len(clicks)), key=lambda at: (clicks[at] != item, clicks[at] not in one.shared, -at))
    kept = sorted(order[:_NAMED])
    words = []
    for place, at in enumerate(kept):
        if at > (kept[place - 1] + 1 if place else 0):
            words.append("…")
        words.append(short(clicks[at], wide) + "*" * (clicks[at] in one.shared))
    return ", ".join(words + ["…"] * (kept[-1] < len(clicks) - 1))


def short(item: ItemId, most: int) -> str:
    """Return an item id in at most ``most`` characters, without its middle: ids often differ at their end."""
    text = " ".join(clean(str(item)).split())
    tail = (most - 1) // 2
    return text if len(text) <= most else f"{text[: most - 1 - tail]}…{text[-tail:]}"
