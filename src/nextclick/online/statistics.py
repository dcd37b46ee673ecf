"""What the clicks of an experiment can and cannot tell, with the session as the unit.

The click-through rate of a variant is R = sum c_s / sum n_s over its m sessions, c_s of the n_s lists shown
in session s having been clicked. Sessions are independent, lists of one session are not, so R is a ratio of
two means over sessions. To first order (the delta method),

    var R = (var c - 2 R cov(c, n) + R^2 var n) / (m mean(n)^2),    var log R = var R / R^2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

_NORMAL = NormalDist()
LEVEL = 0.95  # of intervals; 1 - LEVEL is the level of tests
POWER = 0.8  # that the days needed are worked out for
ENOUGH = 10  # sessions with a click, below which a variance says little


@dataclass(frozen=True)
class Arm:
    """One variant: sessions, lists shown, lists clicked, the click-through rate and its standard error.

    with_click: sessions with at least one click.  rate and error are 0 where nothing was shown.
    """

    sessions: int
    lists: int
    clicked: int
    with_click: int
    rate: float
    error: float

    @classmethod
    def of(cls, session: NDArray[np.int64], clicked: NDArray[np.bool_]) -> Arm:
        """Sum up lists; session: a code for each, clicked: whether it was. Both [n_lists]."""
        if len(session) == 0:
            return cls(0, 0, 0, 0, 0.0, 0.0)
        _, which = np.unique(session, return_inverse=True)
        n = np.asarray(np.bincount(which), np.float64)  # [m]
        c = np.asarray(np.bincount(which, weights=clicked), np.float64)
        return cls.from_sessions(n, c)

    @classmethod
    def from_sessions(cls, n: NDArray[np.float64], c: NDArray[np.float64]) -> Arm:
        """Sum up sessions of n lists shown each, c of them clicked; both [m], every n at least 1."""
        m, rate = len(n), float(c.sum() / n.sum())
        if m < 2:
            return cls(m, int(n.sum()), int(c.sum()), int((c > 0).sum()), rate, math.inf)
        spread = c - rate * n  # of mean 0; its variance is the bracket of the formula above
        variance = float((spread**2).sum()) / (m - 1) / m / float(n.mean()) ** 2
        return cls(m, int(n.sum()), int(c.sum()), int((c > 0).sum()), rate, math.sqrt(variance))

    @classmethod
    def from_sums(cls, m: int, with_click: int, n: int, c: int, nn: int, nc: int, cc: int) -> Arm:
        """Sum up m sessions of which only sums are known: of n, c, n^2, n c and c^2."""
        if m == 0:
            return cls(0, 0, 0, 0, 0.0, 0.0)
        rate = c / n
        if m < 2:
            return cls(m, n, c, with_click, rate, math.inf)
        squares = (cc * n * n - 2 * c * n * nc + c * c * nn) / n**2  # of c_s - R n_s, in whole numbers first
        variance = squares / (m - 1) / m / (n / m) ** 2
        return cls(m, n, c, with_click, rate, math.sqrt(variance))

    @property
    def log_error(self) -> float:
        """Standard error of the logarithm of the rate; infinite without a click."""
        return self.error / self.rate if self.rate > 0 else math.inf

    def interval(self) -> tuple[float, float]:
        """Return the interval of the rate, on the scale of logarithms."""
        if self.rate == 0:
            return 0.0, 1.0 if self.lists == 0 else min(1.0, 3.0 / self.sessions)
        reach = quantile() * self.log_error
        return self.rate * math.exp(-reach), min(1.0, self.rate * math.exp(reach))


@dataclass(frozen=True)
class Uplift:
    """How a variant's rate stands to the control's, relatively: 0.03 is 3% more.

    low, high: the interval;  p: two-sided, of no difference;  error: standard error of the log of the ratio;
    enough: whether both have so many sessions with a click that interval and p can be believed.
    """

    relative: float
    low: float
    high: float
    p: float
    error: float
    enough: bool

    def power(self, effect: float) -> float:
        """Return the probability that a true relative uplift of ``effect`` is found with as much data."""
        if not 0 < self.error < math.inf:
            return 0.0
        away = math.log1p(effect) / self.error
        return _NORMAL.cdf(away - quantile()) + _NORMAL.cdf(-away - quantile())

    def times_the_data(self, effect: float, power: float = POWER) -> float:
        """Return how many times the data are needed to find ``effect`` with a power; at least the data."""
        if effect == 0 or not self.error < math.inf:
            return math.inf
        wanted = abs(math.log1p(effect)) / (quantile() + _NORMAL.inv_cdf(power))
        return (self.error / wanted) ** 2


def compare(control: Arm, variant: Arm) -> Uplift:
    """Compare two variants by the logarithm of the ratio of their rates, which is about normal."""
    enough = min(control.with_click, variant.with_click) >= ENOUGH
    if control.rate == 0 or variant.rate == 0:
        relative = 0.0 if control.rate == variant.rate else (-1.0 if variant.rate == 0 else math.inf)
        return Uplift(relative, -1.0, math.inf, 1.0, math.inf, False)
    log, error = math.log(variant.rate / control.rate), math.hypot(control.log_error, variant.log_error)
    if error == 0:  # every list of every session clicked, in both
        sure = math.expm1(log)
        return Uplift(sure, sure, sure, 1.0 if log == 0 else 0.0, 0.0, enough)
    reach = quantile() * error
    p = 2 * _NORMAL.cdf(-abs(log) / error)
    return Uplift(math.expm1(log), math.expm1(log - reach), math.expm1(log + reach), p, error, enough)


def mismatch(sessions: Sequence[int], shares: Sequence[float]) -> float:
    """Return the p-value of the sessions having been shared out as they should (chi-squared).

    A small one, below 0.001 say, means that sessions were lost on the way, and no figure can be trusted.
    """
    total = sum(sessions)
    if total == 0:
        return 1.0
    expected = [share * total for share in shares]
    statistic = sum((found - wanted) ** 2 / wanted for found, wanted in zip(sessions, expected, strict=True))
    return chi_squared_tail(statistic, len(shares) - 1)


def chi_squared_tail(x: float, degrees: int) -> float:
    """Return the probability that a chi-squared variable exceeds x.

    From 1 or 2 degrees of freedom up by Q(d + 2) = Q(d) + (x/2)^(d/2) exp(-x/2) / Gamma(d/2 + 1).
    """
    if x <= 0 or degrees < 1:
        return 1.0
    d = 2 - degrees % 2
    tail = math.erfc(math.sqrt(x / 2)) if d == 1 else math.exp(-x / 2)
    while d < degrees:
        tail += math.exp(d / 2 * math.log(x / 2) - x / 2 - math.lgamma(d / 2 + 1))
        d += 2
    return min(1.0, tail)


def quantile(level: float = LEVEL) -> float:
    """Return how many standard errors an interval reaches to either side."""
    return _NORMAL.inv_cdf((1 + level) / 2)
