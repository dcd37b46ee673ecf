"""What the sessions of a data set are like: how long, how repetitive, how concentrated, how dense in time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import DataError
from nextclick.metrics import gini_of
from nextclick.sessions import Sessions

REPEAT_EDGES = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Upper bounds, inclusive, of the parts in which ``Statistics.repeats`` counts sessions."""

_SECOND = 1_000_000  # microseconds
_STEPS = {
    "minute": 60 * _SECOND,
    "hour": 3600 * _SECOND,
    "day": 86_400 * _SECOND,
    "week": 7 * 86_400 * _SECOND,
    "30 days": 30 * 86_400 * _SECOND,
    "365 days": 365 * 86_400 * _SECOND,
}
_MOST_BINS = 120
_YEAR_1, _YEAR_9999 = -62_135_596_800 * _SECOND, 253_370_764_800 * _SECOND


@dataclass(frozen=True, eq=False)
class Density:
    """Clicks over time: ``counts[i]`` clicks from microsecond ``start + i * step`` on, for one ``unit``."""

    unit: str
    start: int
    step: int
    counts: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Statistics:
    """Numbers about sessions, as in Twardowski et al., ECIR 2021, table 1 and figure 1.

    items: different items clicked;  pairs: (prefix, next click) pairs;  lengths: [longest + 1] sessions of
    each length;  repeated_clicks: share of the clicks on an item clicked before in the same session;
    repeating_sessions: share of the sessions with such a click;  repeats: [5] sessions by their own share
    of repeated clicks, cut at ``REPEAT_EDGES``;  popularity: [items] clicks of each, most clicked first;
    gini: of the clicks over the items, 0 all alike, towards 1 a few items only;  density: None without clock.
    """

    sessions: int
    clicks: int
    items: int
    pairs: int
    mean_length: float
    median_length: float
    lengths: NDArray[np.int64]
    repeated_clicks: float
    repeating_sessions: float
    repeats: NDArray[np.int64]
    popularity: NDArray[np.int64]
    gini: float
    density: Density | None

    def share_of_top(self, share: float) -> float:
        """Return the share of all clicks that go to this share of the items, the most clicked ones."""
        return float(self.popularity[: round(share * self.items)].sum() / self.clicks)


def describe(sessions: Sessions) -> Statistics:
    """Count what the report tells about sessions; about a second for nine million clicks.

    Raises DataError when there is no click.
    """
    clicks, lengths = len(sessions.items), sessions.lengths
    if not clicks:
        raise DataError("nothing to describe: the sessions hold no click")
    repeated = lengths - _distinct(sessions)
    of_own = repeated[lengths > 0] / lengths[lengths > 0]
    popularity = np.bincount(sessions.items[sessions.items >= 0])
    popularity = np.sort(popularity[popularity > 0])[::-1]
    return Statistics(
        sessions=len(lengths),
        clicks=clicks,
        items=len(popularity),
        pairs=sessions.n_pairs,
        mean_length=float(lengths.mean()),
        median_length=float(np.median(lengths)),
        lengths=np.bincount(lengths),
        repeated_clicks=float(repeated.sum() / clicks),
        repeating_sessions=float((repeated > 0).mean()),
        repeats=np.bincount(np.searchsorted(REPEAT_EDGES, of_own), minlength=len(REPEAT_EDGES)),
        popularity=popularity,
        gini=gini_of(popularity),
        density=_density(sessions.times) if sessions.clock else None,
    )


def _distinct(sessions: Sessions) -> NDArray[np.int64]:
    """Different items per session, [n_sessions]: sorted by (session, item), those unlike the one before."""
    width = int(sessions.items.max()) + 2
    keys = sessions.session_of * width
    keys += sessions.items + 1  # an unknown item, -1, is an item like others here
    keys.sort()
    new = np.ones(len(keys), np.int64)
    new[1:] = keys[1:] != keys[:-1]
    counted = np.r_[0, np.cumsum(new)]
    return counted[sessions.offsets[1:]] - counted[sessions.offsets[:-1]]


def _density(times: NDArray[np.int64]) -> Density | None:
    """Count clicks in the shortest unit of time that gives no more than 120 bins, from whole units on.

    None where times lie before the year 1 or after 9998, which no calendar shows.
    """
    first, last = int(times.min()), int(times.max())
    if first < _YEAR_1 or last >= _YEAR_9999:
        return None
    for unit, step in _STEPS.items():  # noqa: B007 - both are used below
        if last // step - first // step < _MOST_BINS:
            break
    else:  # more than a century: hardly right, but no reason to stop
        unit, step = "part", (last - first) // (_MOST_BINS - 1) + 1
    low = first // step
    return Density(unit, low * step, step, np.bincount(times // step - low))
