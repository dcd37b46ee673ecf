"""An explanation as a picture: a heat map of attention, or bars of what clicks and neighbours add."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nextclick.explain.explanation import Explanation
from nextclick.explain.strongest import Line, lines, short
from nextclick.explain.text import HEADS
from nextclick.files import check_ending, new_file
from nextclick.reasons import Attention, LeftOut
from nextclick.report.drawing import BAR, GRID, INK, MODELS, MUTED, PAPER, canvas, require_charts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DOTS = 160  # per inch
_CELL, _ROW = 0.24, 0.19  # inches of a weight, of a bar
_CLICKS = 60  # in a heat map, the last ones
_ITEMS, _LINES = 20, 6  # in bars: recommended items, and bars of each
_WIDE = 28  # characters of an item id
_PLOT = 6.0  # inches, of bars with the words beside them


def save_png(explanation: Explanation, path: Path) -> None:
    """Write the picture of an explanation; see ``Explanation.save_png``."""
    require_charts()
    check_ending(path, ".png")
    weights = isinstance(explanation.reasons, Attention)
    size = _heat_map_size(explanation) if weights else _bars_size(explanation)
    with new_file(path) as aside, canvas(*size) as figure:
        (_heat_map if weights else _bars)(explanation, figure)
        figure.savefig(aside, format="png", dpi=_DOTS, facecolor=PAPER, metadata={"Software": None})


# -- attention


def _heat_map_size(explanation: Explanation) -> tuple[float, float]:
    shown = explanation.session[-_CLICKS:]
    names = max(len(short(item, _WIDE)) for item in shown)
    return max(5.0, 0.075 * names + _CELL * len(shown) + 2.0), max(2.5, _CELL * len(shown) + 1.55)


def _heat_map(explanation: Explanation, figure: Figure) -> None:
    """One row per prefix, as figure 6 of Li et al., CIKM 2017 has one per session: darker weighed more.

    Weights are not normalised, so each row is drawn as shares of its own largest weight. The sign of all of
    them together means nothing; blue is that of the largest weight of the session, orange the other.
    """
    from matplotlib.colors import LinearSegmentedColormap

    assert isinstance(explanation.reasons, Attention)
    weights, total = explanation.reasons.weights, len(explanation.session)
    first = max(0, total - _CLICKS)
    weights = weights[first:, first:]
    largest = np.maximum(np.abs(weights).max(axis=1, keepdims=True), 1e-30)
    shares = weights / largest * (np.sign(weights.flat[np.abs(weights).argmax()]) or 1.0)
    unread = np.ma.masked_array(shares, weights == 0)  # later clicks, and those too far back
    mixed = bool((unread < 0).any())
    colours = [MODELS[1], "#f7f6f2", MODELS[0]] if mixed else ["#f7f6f2", MODELS[0]]
    axes = figure.add_subplot()
    image = axes.imshow(
        unread,
        cmap=LinearSegmentedColormap.from_list("weights", colours),
        vmin=-1.0 if mixed else 0.0,
        vmax=1.0,
    )
    places, numbers = np.arange(len(weights)), np.arange(first + 1, total + 1)
    names = [short(item, _WIDE) for item in explanation.session[first:]]
    axes.set_yticks(places, [f"{name}  {n}" for name, n in zip(names, numbers, strict=True)])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_xticks(places, [str(n) for n in numbers], fontsize=6.5 if total > 20 else None)
    axes.set_xticks(places - 0.5, minor=True)
    axes.set_yticks(places - 0.5, minor=True)
    axes.grid(visible=False)
    axes.grid(which="minor", color=PAPER, linewidth=1.2)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("click that is weighed")
    axes.set_ylabel("prefix up to click")
    bar = figure.colorbar(
        image, ax=axes, ticks=[-1, 0, 1] if mixed else [0, 0.5, 1],
        shrink=min(0.8, 1.6 / (_CELL * len(weights))), aspect=14, pad=0.02, anchor=(0.0, 1.0),
    )  # fmt: skip
    bar.outline.set_visible(False)
    bar.set_label("weight, the largest\nof a row = 1", size=7)
    _title(
        figure, f"{explanation.model}: what each click weighed, for every prefix", _recommended(explanation)
    )


def _recommended(explanation: Explanation) -> str:
    named = [short(item, _WIDE) for item, _ in explanation.items[:5]]
    return "recommended after the last one: " + ", ".join(named) + ", …" * (len(explanation.items) > 5)


def _title(figure: Figure, title: str, below: str) -> None:
    """Write a title and a line below it, wrapped to the width of the figure, at its left edge."""
    room = int(figure.get_figwidth() * 13)
    wrapped = [row for text in (title, below) for row in textwrap.wrap(text, room, break_on_hyphens=False)]
    figure.suptitle("\n".join(wrapped), x=0.015, ha="left", fontsize=9.5, linespacing=1.35)


# -- bars


def _shown(explanation: Explanation) -> list[tuple[list[Line], Line | None]]:
    return [lines(explanation, n, _LINES, _WIDE // 2) for n in range(min(_ITEMS, len(explanation.items)))]


def _rows(found: tuple[list[Line], Line | None]) -> int:
    return max(1, len(found[0]) + (found[1] is not None))


def _bars_size(explanation: Explanation) -> tuple[float, float]:
    shown = _shown(explanation)
    names = max((len(line.label) for found, _ in shown for line in found), default=0)
    return 0.07 * names + _PLOT, 0.8 + sum(0.42 + _ROW * _rows(found) for found in shown)


def _bars(explanation: Explanation, figure: Figure) -> None:
    shown = _shown(explanation)
    all_axes: Any = figure.subplots(
        len(shown),
        1,
        sharex=True,
        squeeze=False,
        gridspec_kw={"height_ratios": [_rows(found) + 1.2 for found in shown]},
    )
    for n, (found, axes) in enumerate(zip(shown, all_axes[:, 0], strict=True)):
        _panel(explanation, n, found, axes)
    adds = [line.adds for found, _ in shown for line in found if line.adds is not None]
    low, high = min([*adds, 0.0]), max([*adds, 0.0])
    longest = max((len(_words(explanation.by, line)) for found, _ in shown for line in found), default=0)
    words, sides = (
        0.053 * max(longest, 10),
        1 + (low < 0),
    )  # the bars leave room for the words, at each side with bars
    room = ((high - low) or 1.0) * words / max(1.5, _PLOT - 0.3 - sides * words)
    all_axes[-1, 0].set_xlim(low - (room if low < 0 else 0.0), high + room)
    all_axes[-1, 0].set_xlabel("added to the score")
    after = ", ".join(short(item, 18) for item in explanation.session[-6:])
    before = "… " if len(explanation.session) > 6 else ""
    _title(figure, f"{explanation.model}: {HEADS[explanation.by]}", f"session: {before}{after}")


def _panel(explanation: Explanation, n: int, found: tuple[list[Line], Line | None], axes: Axes) -> None:
    strongest, others = found
    item, score = explanation.items[n]
    places = np.arange(_rows(found))
    names = [line.label for line in strongest]
    values = [line.adds or 0.0 for line in strongest]
    axes.barh(
        places[: len(values)], values, height=0.62, color=[BAR if v >= 0 else MODELS[1] for v in values]
    )
    beside = [_words(explanation.by, line) for line in strongest]
    if others is not None:
        names.append("")
        values.append(0.0)
        sum_of_all = "" if others.adds is None else f": {others.adds:.4g} ({others.details[0]})"
        beside.append(others.label + sum_of_all)
    elif not strongest:
        names.append("no click" if isinstance(explanation.reasons, LeftOut) else "no vote")
    for place, (value, words) in enumerate(zip(values, beside, strict=True)):
        axes.annotate(
            words, (value, place), (-4 if value < 0 else 4, 0), textcoords="offset points",
            ha="right" if value < 0 else "left", va="center_baseline", fontsize=7.5, color=MUTED,
        )  # fmt: skip
    axes.set_yticks(places, names)
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(places) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.axvline(0, color=GRID, linewidth=1)
    title = f"{n + 1}  {short(item, 60)}   score {score:.4g}"
    axes.set_title(title, loc="left", fontsize=8.5, fontweight="bold", x=0)


def _words(by: str, line: Line) -> str:
    """Return what stands beside a bar."""
    adds = "" if line.adds is None else f"{line.adds:.3g}  "
    if by == "neighbours":
        share, alike, age = line.details
        old = f"{age} sessions" if age.endswith("later") else f"{age} old"
        return f"{adds}({share}, similarity {alike}, {old})"
    return f"{adds}({'rank ' * (by == 'leaving out')}{line.details[0]})"
