"""The SQL against a slow, obvious preparation in plain Python, on small logs made by hypothesis."""

from __future__ import annotations

import csv
import math
import tempfile
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nextclick.dataset import Dataset
from nextclick.errors import DataError
from nextclick.prepare import prepare

T0 = 1_400_000_000
Click = tuple[int, str, str]  # time in seconds, item, event
Log = list[tuple[str, str, str, str]]  # session or user, item, time, event


class Empty(Exception):
    """The reference has nothing left where the preparation must refuse."""


def reference(log: Log, options: dict[str, Any]) -> dict[str, Any]:
    """Prepare as the documentation says, with lists and loops."""
    usable = {
        (session, item, int(time), event)
        for session, item, time, event in log
        if session and item and time.isdigit() and 631_152_000 <= int(time) < 4_102_444_800
    }
    sessions: dict[tuple[str, int], list[Click]] = {}
    for session in sorted({row[0] for row in usable}, key=str.encode):
        clicks = sorted((time, item.encode(), event) for own, item, time, event in usable if own == session)
        visit, last = 1, clicks[0][0]
        for time, item, event in clicks:
            if options["by_user"] and time - last > options["gap"]:
                visit += 1
            last = time
            sessions.setdefault((session, visit), []).append((time, item.decode(), event))
    if options["events"]:
        sessions = {s: [c for c in clicks if c[2] in options["events"]] for s, clicks in sessions.items()}
    if options["collapse"]:
        sessions = {
            s: [c for i, c in enumerate(clicks) if i == 0 or clicks[i - 1][1] != c[1]]
            for s, clicks in sessions.items()
        }
    sessions = {s: c for s, c in sessions.items() if options["min_length"] <= len(c) <= options["max_length"]}
    support = Counter(item for clicks in sessions.values() for _, item, _ in clicks)
    sessions = {s: [c for c in k if support[c[1]] >= options["min_support"]] for s, k in sessions.items()}
    sessions = {s: clicks for s, clicks in sessions.items() if len(clicks) >= options["min_length"]}
    order = sorted(sessions, key=lambda s: (sessions[s][-1][0], s[0].encode(), s[1]))
    ranked = [sessions[s] for s in order]
    n = len(ranked)
    if n == 0:
        raise Empty
    full = n - max(1, math.floor(n * Fraction(options["holdout"])))
    share = Fraction(options["validation"])
    train = full - (max(1, math.floor(n * share)) if share else 0)
    if train <= 0:
        raise Empty
    parts = [ranked[:train], ranked[train:full], ranked[full:]]
    if options["unseen"] == "drop":
        seen = {item for clicks in parts[0] for _, item, _ in clicks}
        for p in (1, 2):
            cut = [[c for c in clicks if c[1] in seen] for clicks in parts[p]]
            parts[p] = [clicks for clicks in cut if len(clicks) >= 2]
        if not parts[2]:
            raise Empty
    if options["recent"]:
        wanted = math.ceil(sum(len(clicks) - 1 for clicks in parts[0]) * Fraction(options["recent"]))
        kept: list[list[Click]] = []
        while not kept or sum(len(clicks) - 1 for clicks in kept) < wanted:
            kept.insert(0, parts[0][len(parts[0]) - 1 - len(kept)])
        parts[0] = kept
    codes: list[str] = []
    for part in parts:
        counts = Counter(item for clicks in part for _, item, _ in clicks if item not in codes)
        codes += sorted(counts, key=lambda item: (-counts[item], item.encode()))
    return {
        "parts": [[[(c[0] * 1_000_000, c[1], c[2]) for c in clicks] for clicks in part] for part in parts],
        "codes": codes,
    }


def found(data: Dataset) -> dict[str, Any]:
    """Return a prepared data set in the form of the reference."""
    sessions = data.sessions
    assert sessions.events is not None
    ids = sessions.vocabulary.ids_of(sessions.items)
    names = [sessions.event_names[code] for code in sessions.events]
    clicks = list(zip(sessions.times.tolist(), ids, names, strict=True))
    cut = [clicks[a:b] for a, b in zip(sessions.offsets[:-1], sessions.offsets[1:], strict=True)]
    a, b, c = data.bounds
    codes = sessions.vocabulary.ids_of(range(len(sessions.vocabulary)))
    return {"parts": [cut[:a], cut[a:b], cut[b:c]], "codes": codes}


ROW = st.tuples(
    st.sampled_from(["1", "10", "2", "é", "B", ""]),
    st.sampled_from(["a", "b", "c", "Z", "ä", "😀", "a", "b", ""]),
    st.one_of(
        st.integers(0, 40).map(lambda t: str(T0 + t * 7)), st.sampled_from(["", "x", "5", "9999999999"])
    ),
    st.sampled_from(["view", "view", "buy", ""]),
)
OPTIONS = st.fixed_dictionaries(
    {
        "by_user": st.booleans(),
        "gap": st.sampled_from([7, 20]),
        "events": st.sampled_from([None, None, ("view",)]),
        "collapse": st.booleans(),
        "min_length": st.sampled_from([2, 2, 1, 3]),
        "max_length": st.sampled_from([200, 6]),
        "min_support": st.sampled_from([1, 2, 4]),
        "holdout": st.sampled_from(["0.1", "1/3"]),
        "validation": st.sampled_from(["0", "0.2"]),
        "unseen": st.sampled_from(["keep", "drop"]),
        "recent": st.sampled_from([None, "1/2"]),
    }
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ROW, min_size=12, max_size=60), OPTIONS)
def test_sql_agrees_with_plain_python(rows: Log, options: dict[str, Any]) -> None:
    rows = [*rows, ("1", "a", str(T0), "view"), *[("2", "b", str(T0 + k), "view") for k in range(len(rows))]]
    names = {"max_length", "min_length", "min_support", "holdout", "validation", "unseen", "recent", "events"}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.csv"
        with log.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([("who", "item", "time", "event"), *rows])
        try:
            expected = reference(rows, options)
        except Empty:
            expected = None
        given_options = {name: options[name] for name in names} | {
            "collapse_repeats": options["collapse"],
            "gap": f"{options['gap']}s",
            "user" if options["by_user"] else "session": "who",
            "max_bad": 1.0,
            "time_unit": "s",
        }
        try:
            data = prepare(log, out=Path(folder) / "d", **given_options)
        except DataError:
            assert expected is None
        else:
            assert expected is not None
            assert found(data) == expected
            known = [
                len({i for part in expected["parts"][:p] for s in part for _, i, _ in s}) for p in (1, 2, 3)
            ]
            assert list(data.info["n_items"].values()) == known
