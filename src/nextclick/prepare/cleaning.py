"""Reading and cleaning: from the rows of a log to the sessions that remain, ranked by time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nextclick.errors import ConfigError, DataError, nearest
from nextclick.prepare import steps
from nextclick.prepare.engines import Engine
from nextclick.prepare.layouts import ROLES
from nextclick.prepare.options import PrepareOptions
from nextclick.prepare.sources import Source, log_sql, unit_of
from nextclick.prepare.steps import Words

Progress = Callable[[str], None]

_ALL = 2**63 - 1  # above every session number: the log is not split yet


@dataclass
class Record:
    """What each step left, for ``prepare.json``; a step that leaves nothing ends the preparation."""

    steps: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, why: str, counts: Sequence[int], relax: str = "") -> None:
        """Note sessions, clicks and items after a step.

        Raises DataError, naming the option to relax, when none is left.
        """
        after = dict(zip(("sessions", "clicks", "items"), map(int, counts), strict=True))
        before = self.steps[-1] if self.steps else after
        dropped = {what: before[what] - count for what, count in after.items()}
        self.steps.append({"name": name, "why": why, **after, "dropped": dropped})
        if not after["clicks"]:
            had = ", ".join(f"{before[what]:,} {what}" for what in after)
            remedy = f"; relax {relax}" if relax else ""
            raise DataError(
                f"nothing is left after the step {name!r} ({why}), before it there were {had}{remedy}"
            )

    def last(self, what: str) -> int:
        """Return a count after the last step."""
        return int(self.steps[-1][what])


class Run:
    """One preparation: the engine's tables as they are made, and the record of the steps."""

    def __init__(
        self, engine: Engine, sources: Sequence[Source], options: PrepareOptions, progress: Progress
    ) -> None:
        self.engine, self.sources, self.options, self.progress = engine, sources, options, progress
        self.record = Record()
        self.bad: dict[str, int] = {}
        source = sources[0]
        for role in ROLES:
            kinds = [one.kind(role) for one in sources]
            if len(set(kinds)) > 1:
                shown = " and ".join(
                    f"{one.files[0]}: {kind or 'no such column'}"
                    for one, kind in zip(sources, kinds, strict=True)
                )
                raise DataError(
                    f"the {role} column is not of one type in train and test ({shown}); make them the same"
                )
        own_ids = source.columns.session or source.columns.user
        self.words = Words(
            number_sessions=source.kinds[own_ids or ""] == "text" or options.ready,
            number_items=source.kind("item") == "text",
            order=source.columns.order is not None,
            event=source.columns.event is not None,
        )
        if options.events and not self.words.event:
            raise ConfigError("--events needs an event column, and none is recognised: name it with --event")
        if options.target_event is not None and not self.words.event:
            raise ConfigError(
                f"--target-event {options.target_event!r} needs an event column, and none is recognised: "
                "name it with --event"
            )
        self.first_test = _ALL
        self.event_names: tuple[str, ...] | None = None
        self.unit = "ordinal"
        self.clicks = "clicks"  # the table that holds them now
        self.cut = source.columns.session is None  # are sessions cut from users' clicks?

    @property
    def clock(self) -> bool:
        """Do the times tell the time, or do they only count up?"""
        return self.unit != "ordinal"

    def read(self) -> None:
        """Read the log, drop rows that cannot be used and exact duplicates."""
        engine, words = self.engine, self.words
        self.progress("read")
        engine.scan(self.sources)
        self._tell_time()
        engine.view("log", log_sql(self.sources[0], self.unit, engine.dialect))
        graded = {reason: int(n) for reason, n in engine.rows(words.fill(steps.BAD_ROWS))}
        lines, line = engine.unreadable_lines()
        good = graded.pop(None, 0)
        self.bad = dict(sorted(graded.items())) | ({"unreadable line": lines} if lines else {})
        bad = sum(self.bad.values())
        if not good + bad:
            raise DataError(f"{self.sources[0].files[0]}: no rows below the header; export the log again")
        self._refuse_bad(bad, good + bad, line)
        if words.number_sessions:
            engine.table("session_ids", words.fill(steps.SESSION_IDS))
        if words.number_items:
            engine.table("item_ids", words.fill(steps.ITEM_IDS))
        if words.event:
            engine.table("event_ids", words.fill(steps.EVENT_IDS))
            names = engine.rows("SELECT id FROM event_ids ORDER BY e")
            self.event_names = tuple(name for (name,) in names)
        self.progress("drop duplicates")
        engine.table("clicks", words.fill(steps.CLICKS))
        sessions, clicks, items = engine.rows(words.fill(steps.COUNTS, clicks="clicks"))[0]
        read = engine.rows(steps.READ_SIZES)[0] if bad else (sessions, items)
        self.record.add("read", "rows of the log", (read[0], good + bad, read[1]))
        why, relax = "with ids of session and item and a time", "nothing: all rows lack an id or a time"
        self.record.add("usable", why, (sessions, good, items), relax)
        self.record.add("unique", "exact duplicates count once", (sessions, clicks, items))
        engine.drop("raw")
        if self.options.ready:
            below = engine.rows("SELECT COUNT(*) FROM session_ids WHERE part = 0")[0][0]
            self.first_test = int(below) + 1

    def _tell_time(self) -> None:
        source, dialect = self.sources[0], self.engine.dialect
        kind, asked = source.kind("time"), self.options.time_unit
        numbers, present, median = 0, 0, None
        if kind != "instant" and asked == "auto":
            number = "time" if kind != "text" else "TRY_CAST(time AS DOUBLE)"
            found = self.engine.rows(
                f"SELECT COUNT({number}), COUNT(time), {dialect.median(number)} FROM raw"
            )
            numbers, present, median = found[0]
        self.unit = unit_of(source, asked, numbers, present, median)
        if self.clock:
            return
        for option, part in (
            ("holdout", self.options.holdout_part),
            ("validation", self.options.validation_part),
        ):
            if part.span is not None:
                raise ConfigError(
                    f"--{option} {getattr(self.options, option)}: the times of this log only count up, they "
                    "are no clock; give a share of the sessions, such as 0.1, or the unit with --time-unit"
                )
        if self.cut:
            raise ConfigError(
                f"--gap {self.options.gap}: the times of this log only count up, so a user's clicks "
                "cannot be cut at pauses; name a session column with --session, or the unit with --time-unit"
            )

    def _refuse_bad(self, bad: int, rows: int, line: str | None) -> None:
        if bad <= self.options.bad_share * rows:
            return
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in sorted(self.bad.items(), key=lambda r: -r[1]))
        examples = self.engine.rows(self.words.fill(steps.BAD_EXAMPLE))
        if examples:
            reason, session, item, time = examples[0]
            example = f"{reason}: session {session!r}, item {item!r}, time {time!r}"
        else:
            example = f"line that cannot be split into columns: {(line or '')[:120]!r}"
        where = self.sources[0].files[0]
        raise DataError(
            f"{where}: {bad:,} of {rows:,} rows cannot be used ({reasons}), more than --max-bad "
            f"{float(self.options.bad_share):.4g} allows. For example: {example}. Repair the log, check the "
            "columns and --time-unit, or allow more with --max-bad"
        )

    def cut_sessions(self) -> None:
        """Where the log names users only, cut the clicks of each into sessions at long pauses."""
        if not self.cut:
            return
        self.progress("cut sessions")
        engine, words = self.engine, self.words
        engine.view("pauses", words.fill(steps.PAUSES, gap=self.options.gap_span, clicks=self.clicks))
        engine.table("visits", words.fill(steps.VISITS))
        engine.table("visit_ids", words.fill(steps.VISIT_IDS))
        self._become("cut_clicks", steps.CUT_CLICKS)
        engine.drop("visits")
        if self.options.ready:
            below = engine.rows(f"SELECT COUNT(*) FROM visit_ids WHERE visitor < {self.first_test}")[0][0]
            self.first_test = int(below) + 1
        why = f"a pause of more than {self.options.gap} starts a new session"
        self._count("sessions cut", why)

    def choose_clicks(self) -> None:
        """Keep the events that were asked for, and one of clicks repeated on the same item."""
        wanted, target, names = self.options.events, self.options.target_event, self.event_names or ()
        asked = [("--events", name) for name in wanted or ()]
        for option, name in [*asked, *([] if target is None else [("--target-event", target)])]:
            if name not in names:
                raise ConfigError(
                    f"{option}: the log has no event {name!r}{nearest(name, names)}; "
                    f"it has {', '.join(names[:20])}"
                )
        if wanted is not None:
            self.progress("choose events")
            codes = ", ".join(str(names.index(name)) for name in wanted)
            self._become("chosen_clicks", steps.CHOSEN_EVENTS, events=codes)
            self._count("events", f"only {', '.join(wanted)}", "--events")
        if self.options.collapse_repeats:
            self.progress("collapse repeats")
            self._become("collapsed_clicks", steps.WITHOUT_REPEATS)
            self._count("repeats collapsed", "clicks in a row on one item count once")

    def filter(self) -> None:
        """Drop odd sessions, rare items, then sessions that became short; rank what remains by time."""
        engine, options = self.engine, self.options
        limits: dict[str, int | str] = {
            "shortest": options.min_length,
            "longest": options.max_length or _ALL,
            "first_test": self.first_test,
            "support": options.min_support or 1,
            "clicks": self.clicks,
        }

        def fill(text: str, **values: str) -> str:
            return self.words.fill(text, **limits, **values)

        self.progress("filter")
        engine.table("sizes", fill(steps.SIZES))
        engine.table("odd_sessions", fill(steps.ODD_SESSIONS))
        engine.view("fit_clicks", fill(steps.FIT_CLICKS))
        engine.table("item_sizes", fill(steps.ITEM_SIZES))
        n_sessions = engine.rows(steps.N_FIT)[0][0]
        n_items, n_clicks = engine.rows("SELECT COUNT(*), SUM(n) FROM item_sizes")[0]
        longest = f" to {options.max_length}" if options.max_length else " or more"
        lengths = f"sessions of {options.min_length}{longest} clicks"
        relax = "--min-length and --max-length"
        self.record.add("session length", lengths, (n_sessions, n_clicks or 0, n_items), relax)
        engine.table("rare_items", fill(steps.RARE_ITEMS))
        engine.view("common_clicks", fill(steps.COMMON_CLICKS, source="fit_clicks"))
        engine.table("spans", fill(steps.SPANS))
        n_sessions, n_clicks = engine.rows("SELECT COUNT(*), SUM(n) FROM spans")[0]
        n_items = engine.rows(fill(steps.N_COMMON))[0][0]
        support = f"items with {options.min_support} or more clicks" + " in training" * options.ready
        relax = f"--min-support (now {options.min_support})"
        self.record.add("item support", support, (n_sessions, n_clicks or 0, n_items), relax)
        self.progress("rank sessions")
        engine.table("ranked", fill(steps.RANKED))
        # Only sessions of the right length are ranked, so that condition need not be looked at again.
        engine.view("clicks_of_common_items", fill(steps.COMMON_CLICKS, source=self.clicks))
        engine.table("kept", fill(steps.KEPT, source="clicks_of_common_items"))
        engine.drop("sizes", "spans", self.clicks)
        counts = engine.rows(self.words.fill(steps.SIZE_OF, ranked="ranked", kept="kept"))[0]
        why = f"sessions that still have {options.min_length} clicks or more"
        relax = f"--min-support (now {options.min_support}) or --min-length (now {options.min_length})"
        self.record.add("session length again", why, counts, relax)

    def _become(self, name: str, sql: str, **values: int | str) -> None:
        """Make the clicks a new table, computed from the one they are in, which is freed."""
        self.engine.table(name, self.words.fill(sql, clicks=self.clicks, **values))
        self.engine.drop(self.clicks)
        self.clicks = name

    def _count(self, name: str, why: str, relax: str = "") -> None:
        counts = self.engine.rows(self.words.fill(steps.COUNTS, clicks=self.clicks))[0]
        self.record.add(name, why, counts, relax)
