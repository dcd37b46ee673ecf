"""An explanation as tables in the terminal, readable without colour."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nextclick.explain.explanation import Explanation
from nextclick.explain.strongest import lines, short, titles
from nextclick.reasons import Attention, LeftOut
from nextclick.report.markup import clean

_SHOWN = 3  # lines per recommended item
_SHADES = "·░▒▓█"  # of a weight by its size: up to 1/10, 3/10, 1/2, 3/4 of the largest, beyond
_NARROW = 24  # clicks beyond which a weight is drawn one character wide
HEADS = {
    "neighbours": "what past sessions like this one add to the score of each item",
    "clicks": "what each click adds to the score of each item",
    "leaving out": "what each click adds, seen by leaving it out",
}


def print_explanation(explanation: Explanation, console: Console) -> None:
    """Print what is recommended and why, and the notes."""
    clicks = f"{len(explanation.session)} click{'s' * (len(explanation.session) != 1)}"
    reasons = explanation.reasons
    if isinstance(reasons, Attention):
        console.print(Text(f"{explanation.model}: weight of each of {clicks}, by attention", style="bold"))
        console.print(_weights(explanation, reasons.weights))
        listed = ", ".join(f"{short(item, 40)} ({score:.4g})" for item, score in explanation.items)
        console.print(Text(f"recommended: {listed}"))
    else:
        console.print(Text(f"{explanation.model}, {clicks}: {HEADS[explanation.by]}", style="bold"))
        console.print(_parts(explanation))
    for note in explanation.notes:
        console.print(Text(f"- {clean(note)}", style="dim"))


def _table(*columns: tuple[str, bool]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title, number in columns:
        table.add_column(title, justify="right" if number else "left", no_wrap=number, overflow="fold")
    return table


def _parts(explanation: Explanation) -> Table:
    details, label = titles(explanation)
    table = _table(
        ("rank", True),
        ("item", False),
        ("score", True),
        ("adds", True),
        *((title, True) for title in details),
        (label, False),
    )
    adds = "+.3g" if isinstance(explanation.reasons, LeftOut) else ".4g"
    for n, (item, score) in enumerate(explanation.items):
        head = [str(n + 1), short(item, 40), f"{score:.4g}"]
        strongest, others = lines(explanation, n, _SHOWN)
        for line in [*strongest, *([others] if others else [])]:
            number = "" if line.adds is None else format(line.adds, adds)
            table.add_row(*map(Text, (*head, number, *line.details, line.label)))
            head = ["", "", ""]
        if head[0]:
            table.add_row(*map(Text, head))
    return table


def _weights(explanation: Explanation, weights: NDArray[np.float32]) -> Table:
    """A row per prefix: its last click, what that weighs in the end, and the weights of all, as shades."""
    table = _table(
        ("click", True), ("item", False), ("weight", True), ("prefix up to it, darker: more", False)
    )
    repeat = 1 if len(weights) > _NARROW else 2
    for t, (item, row) in enumerate(zip(explanation.session, np.abs(weights), strict=True)):
        of_largest = row[: t + 1] / max(float(row.max()), 1e-30)
        shades = "".join(
            _SHADES[int(level)] * repeat if weight else " " * repeat
            for weight, level in zip(row, np.digitize(of_largest, [0.1, 0.3, 0.5, 0.75]), strict=False)
        )
        weight = weights[-1, t]
        table.add_row(
            *map(
                Text,
                (str(t + 1), short(item, 40), f"{weight:.3g}" if weight else "not read", shades),
            )
        )
    return table
