"""Which column of a click log plays which role: named by the user, or recognised."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nextclick.errors import ConfigError, DataError, nearest

ROLES = ("session", "user", "item", "time", "order", "event")


@dataclass(frozen=True)
class Columns:
    """The columns of one log by role; exactly one of ``session`` and ``user`` is set.

    time: one column, or three that hold year, month and day.
    """

    item: str
    time: tuple[str, ...]
    session: str | None = None
    user: str | None = None
    order: str | None = None
    event: str | None = None
    layout: str = "given by name"

    def of_role(self) -> dict[str, list[str]]:
        """Return the columns of every role that is used."""
        found = {role: getattr(self, role) for role in ROLES}
        return {role: list(c) if isinstance(c, tuple) else [c] for role, c in found.items() if c}


@dataclass(frozen=True)
class Layout:
    """A log format that is known by its column names, compared without case, blanks and underscores.

    needs: the names that give it away;  roles: role -> name (three names for year, month and day).
    """

    name: str
    needs: frozenset[str]
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


LAYOUTS = (
    Layout(
        "Diginetica, CIKM Cup 2016 (train-item-views.csv)",
        frozenset({"sessionid", "itemid", "timeframe", "eventdate"}),
        # eventdate is a day; only timeframe (milliseconds since the session began) orders its clicks.
        {"session": ("sessionid",), "item": ("itemid",), "time": ("eventdate",), "order": ("timeframe",)},
    ),
    Layout(
        "RetailRocket (events.csv)",
        frozenset({"timestamp", "visitorid", "event", "itemid"}),
        {"user": ("visitorid",), "item": ("itemid",), "time": ("timestamp",), "event": ("event",)},
    ),
    Layout(
        "e-shop clothing 2008 (UCI 553)",
        frozenset({"year", "month", "day", "order", "sessionid", "page2clothingmodel"}),
        {
            "session": ("sessionid",),
            "item": ("page2clothingmodel",),
            "time": ("year", "month", "day"),
            "order": ("order",),
        },
    ),
    Layout(
        "RecSys Challenge 2015 with header",
        frozenset({"sessionid", "itemid", "time"}),
        {"session": ("sessionid",), "item": ("itemid",), "time": ("time",)},
    ),
    Layout(
        "session_id, item_id, timestamp",
        frozenset({"sessionid", "itemid", "timestamp"}),
        {"session": ("sessionid",), "item": ("itemid",), "time": ("timestamp",)},
    ),
)

# Names that mean one thing only. A column called "order" is not here: it is as often an order number.
SYNONYMS = {
    "session": ("sessionid", "session", "sid", "visitid", "sessionkey"),
    "user": ("userid", "user", "visitorid", "visitor", "customerid", "customer", "clientid"),
    "item": ("itemid", "item", "productid", "product", "articleid", "article", "sku"),
    "time": ("timestamp", "time", "ts", "datetime", "eventtime", "unixtime", "createdat"),
    "event": ("event", "eventtype", "eventname"),
}

YOOCHOOSE = "RecSys Challenge 2015 (yoochoose-clicks.dat)"
_YOOCHOOSE_HEADER = ("session", "timestamp", "item", "category")
_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?")


def header_of(first_row: Sequence[str]) -> tuple[list[str], bool]:
    """Return the column names and whether the first row holds them.

    The clicks of the RecSys Challenge 2015 have no header: session, time, item, category.
    """
    if len(first_row) == 4 and first_row[0].isdigit() and _INSTANT.fullmatch(first_row[1]):
        return list(_YOOCHOOSE_HEADER), False
    names: list[str] = []
    for name in first_row:
        names.append(name if name not in names else f"{name}_{names.count(name) + len(names)}")
    return names, True


def choose_columns(header: Sequence[str], given: Mapping[str, str | None], where: str) -> Columns:
    """Give every role its column: the one named in ``given``, else that of a known layout or name.

    header: the columns there are;  given: role -> column or None;  where: the file, for the error.
    Raises DataError, naming every role without a column, near matches and the columns there are;
    ConfigError when both a session and a user column are asked for.
    """
    named = {role: column for role, column in given.items() if column}
    if "session" in named and "user" in named:
        raise ConfigError(
            "give --session, or --user to cut each user's clicks into sessions at pauses, not both"
        )
    complaints = [
        f"  no {role} column {column!r}{_hint(role, column, header)}"
        for role, column in named.items()
        if any(name not in header for name in _parts(role, column, header))
    ]
    found, layout, ambiguous = _recognise(header)
    roles = {**found, **{role: _parts(role, column, header) for role, column in named.items()}}
    if "user" in named:
        roles.pop("session", None)
    elif "session" in roles:
        roles.pop("user", None)
    missing = [role for role in ("item", "time") if role not in roles]
    if "session" not in roles and "user" not in roles:
        missing.insert(0, "session")
    for role in missing:
        options = "--session (or --user)" if role == "session" else f"--{role}"
        several = ambiguous.get(role)
        why = f"{' and '.join(map(repr, several))} could be it" if several else "none is recognised"
        complaints.append(f"  no {role} column: {why}; name it with {options}")
    if complaints:
        found_columns = f"  it has: {', '.join(header)}"
        raise DataError("\n".join([f"{where}: cannot read clicks", *complaints, found_columns]))
    single = {role: columns[0] for role, columns in roles.items() if role != "time"}
    return Columns(time=roles["time"], layout=layout if not named else "given by name", **single)


def _parts(role: str, column: str, header: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of one given name; a time may be "year,month,day"."""
    if role == "time" and column not in header and column.count(",") == 2:
        return tuple(part.strip() for part in column.split(","))
    return (column,)


def _hint(role: str, column: str, header: Sequence[str]) -> str:
    """Return the column to name instead, nearest in spelling; none whose name says another role."""
    others = {name for other, names in SYNONYMS.items() if other != role for name in names}
    fit = [name for name in header if _plain(name) not in others]
    return nearest(column, fit).replace("did you mean ", f"did you mean --{role} ")


def _plain(name: str) -> str:
    return re.sub(r"[^0-9a-z]", "", name.lower())


def _recognise(
    header: Sequence[str],
) -> tuple[dict[str, tuple[str, ...]], str, dict[str, list[str]]]:
    """Return the roles of a known layout or of plain names, its name, and the roles with several takers."""
    if tuple(header) == _YOOCHOOSE_HEADER:
        return {"session": ("session",), "item": ("item",), "time": ("timestamp",)}, YOOCHOOSE, {}
    plain: dict[str, str] = {}
    for name in header:
        plain.setdefault(_plain(name), name)
    for layout in LAYOUTS:
        if layout.needs <= plain.keys():
            roles = {role: tuple(plain[name] for name in names) for role, names in layout.roles.items()}
            if "event" in plain and "event" not in roles:
                roles["event"] = (plain["event"],)
            return roles, layout.name, {}
    found: dict[str, tuple[str, ...]] = {}
    ambiguous: dict[str, list[str]] = {}
    for role, names in SYNONYMS.items():
        takers = [plain[name] for name in names if name in plain]
        if len(takers) == 1:
            found[role] = (takers[0],)
        elif takers:
            ambiguous[role] = takers
    return found, "plain column names", ambiguous
