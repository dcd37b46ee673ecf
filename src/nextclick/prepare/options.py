"""What can be asked of the preparation, and the reading of durations, fractions and parts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from nextclick.errors import ConfigError

DAY = 86_400_000_000  # microseconds, as all spans of time here
_UNITS = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": DAY}
TIME_UNITS = ("auto", "s", "ms", "us", "ns", "ordinal")
NO_LIMIT = 0
TARGET_CLICKS = 12


@dataclass(frozen=True)
class Part:
    """How much of the end of a log to set aside: a time span in microseconds, or a share of sessions."""

    span: int | None = None
    share: Fraction | None = None

    def __bool__(self) -> bool:
        return bool(self.span or self.share)


@dataclass(frozen=True)
class PrepareOptions:
    """Everything that decides the prepared sessions, apart from the files; None = the usual value.

    The usual values differ for a ready split (``train`` and ``test`` given), which is left as it is:
    max_length 200 clicks (ready: 0, no limit), min_support 5 clicks (1), holdout and validation "0.1"
    (none and "0").

    gap: a longer pause starts a new session, where sessions are cut from a user's clicks.
    recent: keep the most recent training sessions that hold this share of the training pairs.
    max_bad: the share of unusable rows that is still accepted.
    target_event: the event whose clicks are to be predicted, each from the last ``target_clicks`` clicks
    before it (12, if an event is named, as in the RRCRE paper, sec. 5.3); None: every click, from all.
    Raises ConfigError for a value that cannot be read or is out of range, with the values allowed.
    """

    session: str | None = None
    item: str | None = None
    time: str | None = None
    event: str | None = None
    user: str | None = None
    order: str | None = None
    gap: str = "30m"
    time_unit: str = "auto"
    events: tuple[str, ...] | None = None
    min_length: int = 2
    max_length: int | None = None
    min_support: int | None = None
    collapse_repeats: bool = False
    recent: str | None = None
    holdout: str | None = None
    validation: str | None = None
    slices: int | None = None
    unseen: str = "keep"
    max_bad: float | str = 0.01
    engine: str = "duckdb"
    target_event: str | None = None
    target_clicks: int | None = None
    ready: bool = False

    def __post_init__(self) -> None:
        usual: dict[str, Any] = {
            "max_length": NO_LIMIT if self.ready else 200,
            "min_support": 1 if self.ready else 5,
            "validation": "0" if self.ready else "0.1",
        }
        if self.target_event is not None:
            usual["target_clicks"] = TARGET_CLICKS
        for name, value in usual.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if self.ready and self.holdout is not None:
            raise ConfigError("--holdout cuts off a test part, but --test gives one: leave one of them out")
        if self.ready and self.slices:
            raise ConfigError(
                "--slices cuts one log into several, so it cannot be used with --train and --test"
            )
        if not self.ready and self.holdout is None:
            object.__setattr__(self, "holdout", "0.1")
        _one_of("time_unit", self.time_unit, TIME_UNITS)
        _one_of("unseen", self.unseen, ("keep", "drop"))
        _one_of("engine", self.engine, ("duckdb", "spark"))
        _at_least("min_length", self.min_length, 1)
        _at_least("min_support", self.min_support, 1)
        _at_least("max_length", self.max_length, 0)
        if self.slices is not None:
            _at_least("slices", self.slices, 1)
        if self.max_length and self.max_length < self.min_length:
            raise ConfigError(f"--max-length {self.max_length} is below --min-length {self.min_length}")
        if self.events is not None and not self.events:
            raise ConfigError("--events names no event: give at least one, or leave it out")
        if self.target_event is None:
            if self.target_clicks is not None:
                raise ConfigError(
                    f"--target-clicks {self.target_clicks} needs a --target-event whose clicks are predicted"
                )
        else:
            _at_least("target_clicks", self.target_clicks, 1)
            if self.events is not None and self.target_event not in self.events:
                raise ConfigError(
                    f"--target-event {self.target_event!r} is dropped by --events {','.join(self.events)}: "
                    "add it there, or leave --events out"
                )
        # Read once here, so that a typing error is found before any file is.
        _ = self.gap_span, self.holdout_part, self.validation_part, self.recent_share, self.bad_share
        if not self.ready and not self.holdout_part:
            raise ConfigError("--holdout 0 leaves nothing to test on: give days (7d) or a share (0.1)")

    @property
    def gap_span(self) -> int:
        """The pause that ends a session, in microseconds."""
        span = read_span(self.gap)
        if not span:
            raise ConfigError(f"--gap {self.gap!r} is not a duration: write 30m, 45s, 2h or 1d")
        return span

    @property
    def holdout_part(self) -> Part:
        """The test part."""
        return read_part("holdout", self.holdout or "0")

    @property
    def validation_part(self) -> Part:
        """The validation part."""
        return read_part("validation", self.validation or "0")

    @property
    def target(self) -> dict[str, Any] | None:
        """What is to be predicted, as ``prepare.json`` has it; None where it is every click."""
        if self.target_event is None:
            return None
        return {"event": self.target_event, "clicks": self.target_clicks}

    @property
    def recent_share(self) -> Fraction | None:
        """The share of the training pairs to keep, or None."""
        if self.recent is None:
            return None
        share = read_share(self.recent)
        if share is None or not 0 < share <= 1:
            raise ConfigError(
                f"--recent {self.recent!r} is not a share above 0 and up to 1: write 1/64 or 0.25"
            )
        return share

    @property
    def bad_share(self) -> Fraction:
        """The share of bad rows that is accepted."""
        share = read_share(str(self.max_bad))
        if share is None or not 0 <= share <= 1:
            raise ConfigError(f"--max-bad {self.max_bad!r} is not a share from 0 to 1: write 1% or 0.01")
        return share

    def to_json(self) -> dict[str, Any]:
        """Return all options as plain values, for ``prepare.json``."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def read_span(text: str) -> int | None:
    """Return "30m", "7d" and the like in microseconds, or None if it is no duration."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)\s*([smhd])", text.strip())
    return int(Fraction(match[1]) * _UNITS[match[2]]) if match else None


def read_share(text: str) -> Fraction | None:
    """Return "0.1", "10%" or "1/64" as an exact fraction, or None if it is none of these."""
    plain = text.strip()
    try:
        return Fraction(plain[:-1]) / 100 if plain.endswith("%") else Fraction(plain)
    except (ValueError, ZeroDivisionError):
        return None


def read_part(option: str, text: str) -> Part:
    """Return a part of the log given as a time span ("7d") or as a share of sessions ("0.1").

    Raises ConfigError when it is neither.
    """
    span = read_span(text)
    if span is not None:
        return Part(span=span)
    share = read_share(text)
    if share is None or not 0 <= share < 1:
        raise ConfigError(
            f"--{option} {text!r} is neither a time span nor a share below 1: write 7d, 0.1, 10% or 1/8"
        )
    return Part(share=share)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"--{name.replace('_', '-')} {value!r} is unknown: choose {', '.join(known)}")


def _at_least(name: str, value: int | None, least: int) -> None:
    if value is None or value < least:
        raise ConfigError(f"--{name.replace('_', '-')} {value} is too small: at least {least}")
