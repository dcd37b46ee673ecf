"""The shape of a click log: how clicks spread over items, how long sessions are, how clicks hang together.

The first two are shifted power laws, fitted to the training part of a prepared log by maximum likelihood.
The r-th most clicked item (r from 0) has a share of the clicks in proportion to (r + shift)^-exponent; a
session of c clicks has a probability in proportion to (c - shortest + shift)^-exponent. The shift lets the
head of the distribution be flatter than that of a pure power law, which real logs need.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import ConfigError, DataError, nearest
from nextclick.sessions import Sessions

_SHIFTS = np.geomspace(0.05, 20_000.0, 48)  # where the search for the shift begins
_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True)
class PowerLaw:
    """P(x) in proportion to (x + shift)^-exponent for x = 0, 1, 2, ...; shift above 0."""

    exponent: float
    shift: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.exponent) and np.isfinite(self.shift) and self.shift > 0):
            raise ConfigError(
                "a power law needs a finite exponent and a shift above 0, found "
                f"{self.exponent} and {self.shift}"
            )

    def probabilities(self, n: int) -> NDArray[np.float64]:
        """Return P(0) .. P(n - 1), which sum to 1."""
        weights = (np.arange(n) + self.shift) ** -self.exponent
        return np.asarray(weights / weights.sum())

    @classmethod
    def fitted(cls, counts: NDArray[Any]) -> PowerLaw:
        """Return the law under which the counts are most likely, [n], of what was drawn 0, 1, ... n-1.

        For a given shift the exponent is found by Newton's method, of an objective that is concave in it; the
        shift is searched for on a grid and then by golden section.
        Raises DataError when fewer than two different values were drawn.
        """
        if len(counts) < 3 or np.count_nonzero(counts) < 2:
            raise DataError("too little to fit a power law to: fewer than two values, or all alike")
        shares = counts / counts.sum()
        logs = np.log(_SHIFTS)
        best = int(np.argmax([_likelihood(shares, shift)[0] for shift in _SHIFTS]))
        low, high = logs[max(0, best - 1)], logs[min(len(logs) - 1, best + 1)]
        while high - low > 1e-4:
            a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
            if _likelihood(shares, np.exp(a))[0] < _likelihood(shares, np.exp(b))[0]:
                low = a
            else:
                high = b
        shift = float(np.exp((low + high) / 2))
        return cls(_likelihood(shares, shift)[1], shift)


def _likelihood(shares: NDArray[np.float64], shift: float) -> tuple[float, float]:
    """Return the mean log-likelihood of a draw under the best exponent for a shift, and that exponent."""
    x = np.log(np.arange(len(shares)) + shift)
    told = float(shares @ x)
    exponent = 1.0
    for _ in range(60):
        weights = np.exp(-exponent * (x - x[0]))
        weights /= weights.sum()
        mean = float(weights @ x)
        step = (mean - told) / float(weights @ (x - mean) ** 2)
        exponent += float(np.clip(step, -0.5, 0.5))
        if abs(step) < 1e-10:
            break
    total = np.log(np.exp(-exponent * (x - x[0])).sum()) - exponent * x[0]
    return -exponent * told - float(total), exponent


@dataclass(frozen=True)
class Shape:
    """How clicks spread over items, how long sessions are, and how closely their clicks hang together.

    items: in the log that the popularity was fitted to; in a catalogue of another size, an item whose place
    among all is at the same share is as popular, relative to the others.  shortest, longest: clicks of a
    session;  follow: probability that a click is on an item of the last one's
    neighbourhood;  aisle: items in a neighbourhood, an even number.
    Raises ConfigError for values out of range.
    """

    popularity: PowerLaw
    items: int
    length: PowerLaw
    shortest: int
    longest: int
    follow: float = 0.8
    aisle: int = 64

    def __post_init__(self) -> None:
        if not 0 <= self.follow <= 1:
            raise ConfigError(f"follow={self.follow}: expected a probability, from 0 to 1")
        if self.aisle < 2 or self.aisle % 2:
            raise ConfigError(
                f"aisle={self.aisle}: expected an even number, as neighbourhoods overlap by half"
            )
        if self.items < 1:
            raise ConfigError(f"items={self.items}: expected at least one")
        if not 1 <= self.shortest < self.longest:
            raise ConfigError(f"sessions of {self.shortest} to {self.longest} clicks: no such range")

    def of_items(self, n: int) -> NDArray[np.float64]:
        """Return the share of the clicks of each of n items, the most popular first, [n]."""
        law = PowerLaw(self.popularity.exponent, self.popularity.shift * n / self.items)
        return law.probabilities(n)

    @property
    def mean_length(self) -> float:
        """Clicks per session, expected."""
        n = self.longest - self.shortest + 1
        return float(self.length.probabilities(n) @ np.arange(self.shortest, self.longest + 1))

    def to_json(self) -> dict[str, Any]:
        """Return the shape as plain values."""
        return asdict(self)

    @classmethod
    def of_json(cls, values: Any, where: str) -> Shape:
        """Return the shape that ``to_json`` gave. Raises ConfigError that names ``where`` it was read."""
        try:
            laws = {name: PowerLaw(**values[name]) for name in ("popularity", "length")}
            return cls(**{**values, **laws})
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{where}: not the shape of a click log ({error!r}); fit it again") from None

    @classmethod
    def named(cls, name: str) -> Shape:
        """Return a shape fitted to a real log, "yoochoose64" or "diginetica", or one in a JSON file.

        Raises ConfigError when there is no such name or file, or the file holds no shape.
        """
        shapes = json.loads((resources.files(__package__) / "shapes.json").read_text("utf-8"))["shapes"]
        if name in shapes:
            return cls.of_json(shapes[name]["shape"], name)
        file = Path(name)
        if not file.is_file():
            raise ConfigError(
                f"no shape {name!r}{nearest(name, shapes)}\n  there are: {', '.join(shapes)}, or the name of "
                "a file that nextclick.clickstream.fit_shape made"
            )
        try:
            values = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file}: cannot be read as JSON ({error})") from error
        return cls.of_json(values, str(file))


def fit_shape(sessions: Sessions) -> Shape:
    """Return the shape of a log, fitted to its sessions (the training part of a prepared set, say).

    What is fitted are the two distributions; follow and aisle stay at their defaults.
    Raises DataError when all sessions have one length or fewer than two items were clicked.
    """
    lengths = np.bincount(sessions.lengths[sessions.lengths > 0])
    if np.count_nonzero(lengths) < 2:
        raise DataError("all sessions have the same length: there is no distribution to fit")
    shortest = int(np.flatnonzero(lengths)[0])
    support = np.sort(sessions.support())[::-1]
    return Shape(
        popularity=PowerLaw.fitted(support[support > 0]),
        items=int(np.count_nonzero(support)),
        length=PowerLaw.fitted(lengths[shortest:]),
        shortest=shortest,
        longest=len(lengths) - 1,
    )
