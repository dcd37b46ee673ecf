"""Charts as inline SVG: text stays text, colours follow the page, equal input gives equal bytes.

Matplotlib draws without its global state: no pyplot, no backend, settings only inside ``draw``. Colours are
written as variables of the page's style sheet, so the same picture is legible on light and dark ground.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nextclick.errors import MissingExtraError
from nextclick.report.markup import Html, clean, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.9  # inches; the page scales pictures to the width of their column
INK, MUTED, GRID, PAPER, BAR = "#1b1f25", "#5b636e", "#e2e6eb", "#fffffe", "#4a7aa5"
# Distinct for colour-blind readers by hue and lightness; after Okabe & Ito 2008 and Tol 2021, darkened to
# stand out from white by 3:1 or more. The style sheet gives a lighter twin of each for dark ground.
MODELS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#8a7a00", "#332288", "#cc6677", "#7a4a2b")
MARKERS = ("o", "s", "D", "^", "v", "P")
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper", BAR: "bar"} | {
    colour: f"model-{i}" for i, colour in enumerate(MODELS)
}
_SETTINGS = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 8.5,
    "axes.labelsize": 8.5,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "lines.markeredgewidth": 0.8,
    "legend.frameon": False,
}


def require_charts() -> None:
    """Raise MissingExtraError where charts cannot be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingExtraError("the report with charts", "report") from None


def colour(i: int) -> str:
    """Return the colour of the i-th model of a report, the same in all its charts."""
    return MODELS[i % len(MODELS)]


def marker(i: int) -> str:
    """Return the marker of the i-th model; another shape each time the colours begin again."""
    return MARKERS[i // len(MODELS) % len(MARKERS)]


def shortened(name: str, most: int = 22) -> str:
    """Return a name as charts can hold it."""
    name = " ".join(clean(name).split())
    return name if len(name) <= most else name[: most - 1].rstrip() + "…"


def draw(key: str, described: str, height: float, paint: Callable[[Axes], None]) -> Html:
    """Return the SVG of what ``paint`` draws on one pair of axes.

    key: unlike that of any other picture on the page;  described: the picture in words, for those who do not
    see it;  height: inches.
    """
    with canvas(WIDTH, height, **{"svg.hashsalt": key}) as figure:
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        paint(axes)
        stream = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", metadata=nothing)
    return _inline(stream.getvalue(), described)


@contextmanager
def canvas(width: float, height: float, **settings: Any) -> Iterator[Figure]:
    """Yield an empty figure, inches wide and high; the project's style holds inside the block only."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with warnings.catch_warnings(), style.context(["default", _SETTINGS | settings]):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the reader's font shows it
        yield Figure(figsize=(width, height), layout="constrained")


def _inline(svg: str, described: str) -> Html:
    """Make a stand-alone SVG a part of a page: no prolog, ids only where used, colours of the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r"<[^>]*>", lambda found: _plain(found[0]), svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    label = escape(described).replace('"', "&quot;")
    svg = f'<svg role="img" aria-label="{label}" {box[0]}>' + svg[svg.index(">") + 1 :]
    return Html(re.sub(r"\s*\n\s*", "\n", svg).strip())


def _plain(tag: str) -> str:
    """Shorten the numbers of one tag, and take colours and font from the page."""
    tag = re.sub(r"(\d\.\d\d)\d+", r"\1", tag)
    tag = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", tag)
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    for plain, variable in _VARIABLES.items():
        tag = tag.replace(plain, f"var(--{variable})")
    return tag


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return positions nearest to the wanted ones (least squares) that keep ``gap`` between each other.

    The order of the wanted positions is kept, equal ones in the order given. All lie in [low, high] where
    there is room for that, else the gap shrinks.
    """
    if len(wanted) > 1:
        gap = min(gap, (high - low) / (len(wanted) - 1))
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks: list[list[float]] = []  # sum and number of wanted positions, less the gaps before them
    for place, i in enumerate(order):
        blocks.append([wanted[i] - place * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            total, n = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += n
    placed = [0.0] * len(wanted)
    means: Iterator[float] = (total / n for total, n in blocks for _ in range(int(n)))
    for place, (i, mean) in enumerate(zip(order, means, strict=True)):
        placed[i] = min(max(mean, low), high - (len(wanted) - 1) * gap) + place * gap
    return placed


def label_ends(
    axes: Axes, ends: Sequence[tuple[float, float]], names: Sequence[str], models: Sequence[int]
) -> None:
    """Write the name of each line at its right end, moved up or down until no two overlap.

    ends: (x, y) of the last point of each line, in data;  models: which model each is, for its colour.
    Everything else must be on the axes already, for this fixes their place.
    """
    figure = axes.figure
    unit = figure.dpi / 72  # of a point, in pixels
    widest = max(_size(axes, name)[0] for name in names)
    layout: Any = figure.get_layout_engine()
    layout.set(rect=(0, 0, 1 - (widest + 18 * unit) / figure.bbox.width, 1))
    _settle(figure)
    frame, inverse = axes.get_window_extent(), axes.transData.inverted()
    points = axes.transData.transform(ends)
    heights = spread(points[:, 1].tolist(), 10.5 * unit, frame.y0 + 3 * unit, frame.y1 - 3 * unit)
    for (x, y), height, name, i in zip(points, heights, names, models, strict=True):
        from_to = inverse.transform([(x + 4 * unit, y), (frame.x1 + 14 * unit, height)])
        _leader(axes, from_to, i)
        at = inverse.transform((frame.x1 + 16 * unit, height))
        axes.text(at[0], at[1], name, fontsize=8, color=colour(i), va="center_baseline", clip_on=False)


def label_points(axes: Axes, points: Sequence[tuple[float, float]], names: Sequence[str]) -> None:
    """Write a name beside the point of each model, where it covers the least of other points and names.

    points: (x, y) in data. Everything else must be on the axes already, for this fixes their place.
    """
    figure = axes.figure
    _settle(figure)
    unit, frame, inverse = figure.dpi / 72, axes.get_window_extent(), axes.transData.inverted()
    centres = axes.transData.transform(points)
    taken: list[_Box] = [(x - 4 * unit, y - 4 * unit, x + 4 * unit, y + 4 * unit) for x, y in centres]
    for i, ((x, y), name) in enumerate(zip(centres, names, strict=True)):
        width, height = _size(axes, name)
        places = []
        for far in range(4):
            away = (6 + 10 * far) * unit
            for order, (right, up) in enumerate(_AROUND):
                left = x + right * away - width * (1 - right) / 2
                middle = y + up * (away + (height / 2 if right == 0 else 0))
                box = (left, middle - height / 2, left + width, middle + height / 2)
                cost = sum(_overlap(box, other) for other in taken) + 3 * _outside(box, frame)
                places.append((cost + (far * 12 + order / 2) * unit**2, far, box))
        _, far, box = min(places)
        taken.append(box)
        at = inverse.transform((box[0], (box[1] + box[3]) / 2))
        axes.text(at[0], at[1], name, fontsize=8, color=colour(i), va="center_baseline", clip_on=False)
        if far:
            nearest = (min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3]))
            _leader(axes, inverse.transform([(x, y), nearest]), i)


def _leader(axes: Axes, from_to: Any, i: int) -> None:
    """Draw the thin line from a point to its name; from_to: [2, 2] in data."""
    axes.plot(
        from_to[:, 0],
        from_to[:, 1],
        color=colour(i),
        linewidth=0.6,
        alpha=0.7,
        zorder=1,
        clip_on=False,
        scalex=False,
        scaley=False,
    )


_AROUND = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
_Box = tuple[float, float, float, float]


def _overlap(a: _Box, b: _Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _outside(box: _Box, frame: Any) -> float:
    whole = (box[2] - box[0]) * (box[3] - box[1])
    return whole - _overlap(box, (frame.x0, frame.y0, frame.x1, frame.y1))


def _size(axes: Axes, name: str) -> tuple[float, float]:
    """Width and height in pixels of a name as a label."""
    text = axes.text(0, 0, name, fontsize=8)
    extent = text.get_window_extent()
    text.remove()
    return extent.width, extent.height


def _settle(figure: Any) -> None:
    """Let the layout engine place the axes, then hold them there, so that positions can be worked out."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
