"""What an online experiment shows: rates, uplift, power, and whether the sessions were shared out rightly."""

from __future__ import annotations

import csv
import datetime
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextclick.online.records import Seen, read_records
from nextclick.online.statistics import LEVEL, POWER, Arm, Uplift, compare, mismatch
from nextclick.online.trial import Trial

MISMATCH = 0.001  # below which the shares are said to be wrong
_VALUES = 20  # values of an attribute that are told apart, the most frequent


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
        writer.writerows(_plain(row) for row in self.rows)
        return stream.getvalue()


def report(trial: Trial, seen: Seen, *, effect: float = 0.03) -> Findings:
    """Work out what the records show; effect: the relative uplift that is worth finding."""
    rows = [*_rows("all", "", seen)]
    for day in np.unique(seen.day).tolist():
        date = datetime.date.fromordinal(datetime.date(1970, 1, 1).toordinal() + day).isoformat()
        rows += _rows("day", date, seen.part(seen.day == day))
    for name, values in seen.attributes.items():
        found, counts = np.unique(values.astype(str), return_counts=True)
        for value in found[np.argsort(-counts, kind="stable")][:_VALUES].tolist():
            rows += _rows(name, value or "(not sent)", seen.part(values == value))
    days = int(seen.day.max() - seen.day.min()) + 1
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
        seen.unreadable,
        seen.stray,
    )


def live(trial: Trial, folder: Path) -> dict[str, Any]:
    """Return the report of a running experiment as JSON-ready values, empty before the first list."""
    from nextclick.errors import DataError

    try:
        seen = read_records(folder, trial.name, [variant.name for variant in trial.variants])
    except DataError:
        return {"experiment": trial.name, "rows": [], "notes": ["No list has been shown yet."]}
    return report(trial, seen).to_json()


def _rows(by: str, value: str, seen: Seen) -> Iterator[Row]:
    arms = [_arm(seen, code) for code in range(len(seen.variants))]
    for n, (name, arm) in enumerate(zip(seen.variants, arms, strict=True)):
        yield Row(by, value, name, arm, compare(arms[0], arm) if n else None)


def _arm(seen: Seen, code: int) -> Arm:
    rows: NDArray[np.bool_] = seen.variant == code
    return Arm.of(seen.session[rows], seen.clicked[rows])


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


ABOUT_POWER = f"chance of finding it; days still needed for {POWER:.0%}"
