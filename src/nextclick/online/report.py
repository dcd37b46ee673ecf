"""What an online experiment shows: rates, uplift, power, and whether the sessions were shared out rightly."""

from __future__ import annotations

import csv
import datetime
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nextclick.online.records import Seen
from nextclick.online.statistics import LEVEL, POWER, Arm, Uplift, compare, mismatch
from nextclick.online.trial import Trial

MISMATCH = 0.001  # below which the shares are said to be wrong
VALUES = 20  # values of an attribute that are told apart, the most frequent


@dataclass(frozen=True)
class Row:
    """One variant in all sessions or in a part of them; uplift: None for the control."""

    by: str
    value: str
    variant: str
    arm: Arm
    uplift: Uplift | None


@dataclass(frozen=True)
class Findings:
    """All there is to say about an experiment.

    mismatch: p-value of the shares of the sessions;  days: from the first list to the last;  effect: the
    relative uplift that power and days are about;  power, days_more: of each variant but the control.
    """

    trial: str
    rows: tuple[Row, ...]
    mismatch: float
    days: int
    effect: float
    power: dict[str, float]
    days_more: dict[str, float]
    unreadable: int
    stray: int

    @property
    def overall(self) -> tuple[Row, ...]:
        """The rows of all sessions together, the control first."""
        return tuple(row for row in self.rows if row.by == "all")

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be known before the figures are believed."""
        notes = []
        if self.mismatch < MISMATCH:
            notes.append(
                f"The sessions are not shared out as the experiment says (p = {self.mismatch:.2g}): some "
                "were lost or counted twice. Find out why before believing any figure."
            )
        if any(row.uplift is not None and not row.uplift.enough for row in self.overall):
            notes.append("Too few sessions with a click for intervals and p-values to be believed yet.")
        if len(self.overall) > 2:
            notes.append(
                f"{len(self.overall) - 1} variants are compared with the control; each p-value stands alone, "
                f"so some below {1 - LEVEL:.2f} are to be expected by chance."
            )
        if self.unreadable:
            notes.append(f"{self.unreadable:,} damaged lines of the records were passed over.")
        if self.stray:
            notes.append(f"{self.stray:,} lists were clicked of which no record says that they were shown.")
        return tuple(notes)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values; null for what is infinite."""
        return {
            "experiment": self.trial,
            "mismatch_p": self.mismatch,
            "days": self.days,
            "effect": self.effect,
            "power": self.power,
            "days_more": {name: _finite(days) for name, days in self.days_more.items()},
            "rows": [_plain(row) for row in self.rows],
            "notes": list(self.notes),
        }

    def to_csv(self) -> str:
        """Return a table with a line per variant and part."""
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(_plain(self.rows[0])), lineterminator="\n")
        writer.writeheader()
        for plain in map(_plain, self.rows):
            writer.writerow({**plain, **{name: _no_formula(plain[name]) for name in ("by", "value")}})
        return stream.getvalue()


Part = tuple[str, str, Sequence[Arm]]
"""What a part is divided by, its value, and the arms of the variants in it."""


def report(trial: Trial, seen: Seen, *, effect: float = 0.03) -> Findings:
    """Work out what the records show; effect: the relative uplift that is worth finding."""
    days = int(seen.day.max() - seen.day.min()) + 1
    return findings(trial, _parts(seen), days, seen.unreadable, seen.stray, effect=effect)


def findings(
    trial: Trial, parts: Iterable[Part], days: int, unreadable: int, stray: int, *, effect: float = 0.03
) -> Findings:
    """Compare the variants in each part; the first part is of all sessions."""
    rows = [row for part in parts for row in _rows(trial, *part)]
    overall = {row.variant: row.uplift for row in rows if row.by == "all" and row.uplift is not None}
    sessions = [row.arm.sessions for row in rows if row.by == "all"]
    return Findings(
        trial.name,
        tuple(rows),
        mismatch(sessions, [variant.share for variant in trial.variants]),
        days,
        effect,
        {name: uplift.power(effect) for name, uplift in overall.items()},
        {name: max(0.0, days * (uplift.times_the_data(effect) - 1)) for name, uplift in overall.items()},
        unreadable,
        stray,
    )


def dated(day: int) -> str:
    """Return days since 1970 as a date."""
    return datetime.date.fromordinal(datetime.date(1970, 1, 1).toordinal() + day).isoformat()


def of_attribute(name: str) -> str:
    """Return what a part by an attribute is called, which no other part is."""
    return f"{name} (sent)" if name in ("all", "day") else of_value(name)


def of_value(value: str) -> str:
    """Return a value as it is shown: what a visitor sent as one may hold a terminal's commands."""
    shown = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in value)
    return shown or "(not sent)"


def _no_formula(value: str) -> str:
    """Return a value as no spreadsheet takes it for a formula."""
    return f"'{value}" if value[:1] in ("=", "+", "-", "@") else value


def _parts(seen: Seen) -> Iterator[Part]:
    yield "all", "", _arms(seen)
    for day in np.unique(seen.day).tolist():
        yield "day", dated(day), _arms(seen.part(seen.day == day))
    for name, values in seen.attributes.items():
        found, counts = np.unique(values.astype(str), return_counts=True)
        for value in found[np.argsort(-counts, kind="stable")][:VALUES].tolist():
            yield of_attribute(name), of_value(value), _arms(seen.part(values == value))


def _arms(seen: Seen) -> list[Arm]:
    of_variant = [seen.variant == code for code in range(len(seen.variants))]
    return [Arm.of(seen.session[rows], seen.clicked[rows]) for rows in of_variant]


def _rows(trial: Trial, by: str, value: str, arms: Sequence[Arm]) -> Iterator[Row]:
    for n, (variant, arm) in enumerate(zip(trial.variants, arms, strict=True)):
        yield Row(by, value, variant.name, arm, compare(arms[0], arm) if n else None)


def _plain(row: Row) -> dict[str, Any]:
    low, high = row.arm.interval()
    plain: dict[str, Any] = {
        "by": row.by, "value": row.value, "variant": row.variant, "sessions": row.arm.sessions,
        "lists": row.arm.lists, "clicked": row.arm.clicked,
        "ctr": row.arm.rate, "ctr_low": low, "ctr_high": high,
    }  # fmt: skip
    up = row.uplift
    figures = (None,) * 4 if up is None else (up.relative, up.low, up.high, up.p)
    return plain | dict(zip(("uplift", "uplift_low", "uplift_high", "p"), map(_finite, figures), strict=True))


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def said_days(days: float) -> str:
    """Return days in words."""
    if not math.isfinite(days):
        return "unknown"
    return "none" if days == 0 else f"about {math.ceil(days):,}"


def said_p(p: float) -> str:
    """Return a p-value in three digits."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


ABOUT_POWER = f"chance of finding it; days still needed for {POWER:.0%}"
