"""The charts of a data set: session lengths, repeated items, popularity, clicks over time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from nextclick.report import drawing, numbers
from nextclick.report.markup import Html
from nextclick.report.statistics import Density, Statistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HEIGHT = 2.5
_LONGEST = 20  # sessions of this length and more share a bar
REPEAT_LABELS = ("none", "up to\n10%", "10–25%", "25–50%", "over\n50%")


def lengths(statistics: Statistics) -> Html:
    """Return the histogram of session lengths, with mean and median."""
    counts = statistics.lengths
    most = min(_LONGEST, len(counts) - 1)
    bars = np.r_[counts[1:most], counts[most:].sum()] / statistics.sessions
    rest = len(counts) - 1 > most

    def paint(axes: Axes) -> None:
        places = np.arange(1, most + 1)
        axes.bar(places, bars, color=drawing.BAR, width=0.8)
        ticks = sorted({1, *range(5, most, 5), most} - ({1} if most == 1 else set()))
        axes.set_xticks(ticks, [f"{t}+" if rest and t == most else str(t) for t in ticks])
        _shares(axes, "share of sessions")
        axes.set_xlabel("clicks in the session")
        mean = f"mean {statistics.mean_length:.1f}, median {statistics.median_length:g}"
        axes.annotate(mean, (1, 1), xycoords="axes fraction", ha="right", va="top")

    described = ", ".join(f"{n} clicks: {numbers.share(bar)}" for n, bar in enumerate(bars, 1))
    return drawing.draw(
        "lengths", f"Share of sessions by length. {described}{' or more' * rest}", _HEIGHT, paint
    )


def repeats(statistics: Statistics) -> Html:
    """Return the share of sessions by how much of them repeats itself."""
    bars = statistics.repeats / max(1, statistics.repeats.sum())

    def paint(axes: Axes) -> None:
        drawn = axes.bar(range(len(bars)), bars, color=drawing.BAR, width=0.7)
        axes.bar_label(drawn, [numbers.share(bar) for bar in bars], padding=2, fontsize=8)
        axes.set_xticks(range(len(bars)), REPEAT_LABELS)
        _shares(axes, "share of sessions")
        axes.set_ylim(0, 1.12 * max(bars))
        axes.set_xlabel("part of the session's clicks on an item clicked before in it")

    labels = [label.replace("\n", " ") for label in REPEAT_LABELS]
    described = ", ".join(f"{label}: {numbers.share(b)}" for label, b in zip(labels, bars, strict=True))
    return drawing.draw(
        "repeats", f"Share of sessions by part of repeated clicks. {described}", _HEIGHT, paint
    )


def popularity(statistics: Statistics) -> Html:
    """Return the share of clicks that goes to the most clicked items, over the share of items."""
    n = statistics.items
    summed = np.cumsum(statistics.popularity) / statistics.clicks
    places = np.unique(np.r_[0, np.geomspace(1, n, 160).astype(np.int64) - 1, n - 1])
    marked = [s for s in (0.01, 0.1) if round(s * n) >= 1]

    def paint(axes: Axes) -> None:
        axes.set_xscale("log")
        axes.plot((places + 1) / n, summed[places], color=drawing.BAR, linewidth=2)
        for top in marked:
            of_clicks = statistics.share_of_top(top)
            axes.plot(top, of_clicks, "o", color=drawing.BAR)
            text = f"top {top:.0%} of items:\n{numbers.share(of_clicks)} of clicks"
            above = of_clicks < 0.6
            axes.annotate(
                text,
                (top, of_clicks),
                xytext=(-5, 4) if above else (5, -5),
                textcoords="offset points",
                ha="right" if above else "left",
                va="bottom" if above else "top",
                fontsize=8,
            )
        axes.set_xlim(min(0.5 / n, 0.003), 1.05)
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
        axes.minorticks_off()
        _shares(axes, "share of all clicks")
        axes.set_ylim(0, 1.04)
        axes.set_xlabel("share of the items, most clicked first (logarithmic)")

    described = "; ".join(
        f"top {t:.0%} of items: {numbers.share(statistics.share_of_top(t))}" for t in marked
    )
    return drawing.draw(
        "popularity", f"Share of clicks that goes to the most clicked items. {described}", _HEIGHT, paint
    )


def density(found: Density, parts: Mapping[str, int]) -> Html:
    """Return clicks over time; parts: the microsecond at which each part but the first begins."""
    starts = [_moment(found.start + i * found.step) for i in range(len(found.counts) + 1)]

    def paint(axes: Axes) -> None:
        from matplotlib.dates import AutoDateLocator, DateFormatter

        values = np.r_[found.counts, found.counts[-1]]
        axes.fill_between(starts, values, step="post", color=drawing.BAR, alpha=0.75, linewidth=0)  # type: ignore[arg-type]
        top = 1.22 * max(1, int(found.counts.max()))
        axes.set_ylim(0, top)
        for row, (name, start) in enumerate(parts.items()):
            axes.axvline(_moment(start), color=drawing.INK, linewidth=0.9)  # type: ignore[arg-type]
            left = start - found.start < 0.3 * found.step * len(found.counts)
            axes.annotate(
                f"{name} begins",
                (_moment(start), top),
                xytext=(3 if left else -3, -3 - 11 * row),
                textcoords="offset points",
                ha="left" if left else "right",
                va="top",
                fontsize=8,
                bbox={"facecolor": drawing.PAPER, "edgecolor": "none", "pad": 1},
            )
        axes.xaxis.set_major_locator(AutoDateLocator(minticks=3, maxticks=6))  # type: ignore[no-untyped-call]
        days = (starts[-1] - starts[0]).days
        form = "%H:%M\n%-d %b" if days < 3 else "%-d %b\n%Y" if days < 300 else "%b\n%Y"
        axes.xaxis.set_major_formatter(DateFormatter(form, tz=UTC))  # type: ignore[no-untyped-call]
        axes.yaxis.set_major_formatter(lambda value, _: numbers.tick(value))
        axes.grid(axis="x", visible=False)
        axes.set_ylabel(f"clicks per {found.unit}")

    described = f"Clicks per {found.unit} from {starts[0]:%Y-%m-%d} to {starts[-1]:%Y-%m-%d}"
    return drawing.draw("density", described, _HEIGHT, paint)


def _shares(axes: Axes, label: str) -> None:
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    axes.set_ylabel(label)
    axes.grid(axis="x", visible=False)


def _moment(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds // 1_000_000, UTC)
