"""Numbers as the reports show them: the same rounding on the page and in the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable

NOTHING = "–"


def digits(values: Iterable[float]) -> int:
    """Return the decimals for one column of metrics: 3, or 4 where every value is below 0.1."""
    finite = [abs(value) for value in values if math.isfinite(value)]
    return 3 if not finite or max(finite) >= 0.1 else 4


def metric(value: float, decimals: int = 3) -> str:
    """Return a metric such as "0.688"; a dash where there is none."""
    return f"{value:.{decimals}f}" if math.isfinite(value) else NOTHING


def interval(low: float, high: float, decimals: int = 3) -> str:
    """Return bounds such as "[0.682, 0.694]"."""
    return f"[{metric(low, decimals)}, {metric(high, decimals)}]"


def signed(value: float, decimals: int = 3) -> str:
    """Return a difference with its sign, "+0.012" or "−0.012"; zero has none."""
    text = metric(abs(value), decimals)
    if not math.isfinite(value) or float(text) == 0:
        return text
    return ("+" if value > 0 else "−") + text


def count(value: float) -> str:
    """Return a whole number with commas, "55,898"."""
    return f"{value:,.0f}" if math.isfinite(value) else NOTHING


def short(value: float) -> str:
    """Return a large number in three digits, "812", "57.4k", "1.10M"."""
    if not math.isfinite(value):
        return NOTHING
    for unit, size in (("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9)):
        scaled = float(f"{value / size:.3g}")
        if abs(scaled) < 1000 or unit == "G":
            break
    decimals = 0 if unit == "" else 2 if scaled < 10 else 1 if scaled < 100 else 0
    return f"{scaled:.{decimals}f}{unit}"


def tick(value: float) -> str:
    """Return a number on an axis, without the digits that say nothing: "60k", "2.5k", "1M"."""
    text = short(value)
    digits, unit = (text[:-1], text[-1]) if text[-1].isalpha() else (text, "")
    return (f"{value:g}" if not unit else f"{float(digits):g}") + unit


def share(value: float) -> str:
    """Return a share in per cent, "12.3%"; "<0.1%" where rounding would hide that there is something."""
    if not math.isfinite(value):
        return NOTHING
    if 0 < value < 0.0005:
        return "<0.1%"
    if 0.9995 <= value < 1:
        return ">99.9%"
    return f"{value:.1%}"


def milliseconds(value: float) -> str:
    """Return a latency in ms, to 0.01 below 10 ms."""
    if not math.isfinite(value):
        return NOTHING
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def probability(p: float) -> str:
    """Return a p-value with its sign of relation, "= 0.034" or "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def plural(n: int, noun: str) -> str:
    """Return "1 session" or "15,324 sessions"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
