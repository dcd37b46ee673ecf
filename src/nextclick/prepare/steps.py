"""The steps of the preparation as portable SQL: one text that DuckDB and Spark run unchanged.

Every window and every numbering has a total order, so both engines give the same rows. Tables:

log        part, session, item, time, written [, ord] [, event]   one row per row read; see sources.py
clicks     session, item, time [, ord] [, e]                  usable rows; session, item, e are numbers
sizes      session, n                                         clicks of each session
item_sizes item, n, n_train                                   clicks of each item
ranked     rank, session, n, first_time, last_time            the sessions that remain, in order of time
kept       rank, item, time [, ord] [, e]                     their clicks

The text in braces is filled in from ``Words``: optional columns, and numbers. Rows to drop are few as
a rule, so they are listed and excluded: probing a short list is several times faster than a long one.
"""

from __future__ import annotations

from dataclasses import dataclass

BAD = """CASE WHEN session IS NULL THEN 'no session id'
    WHEN item IS NULL THEN 'no item id'
    WHEN time IS NULL THEN 'unreadable time'
    WHEN time < 0 THEN 'impossible time'{bad_order} END"""


@dataclass(frozen=True)
class Words:
    """What varies in the text: columns that a log has or lacks, and how its ids become numbers.

    Integer ids of one log are their own numbers; text ids, and sessions of a ready split (whose ids may
    recur in the other part), are numbered in the order of (part, id).
    """

    number_sessions: bool
    number_items: bool
    order: bool
    event: bool

    def fill(self, text: str, **values: int | str) -> str:
        """Return the SQL with all braces replaced."""
        extra = ", ord" * self.order + ", e" * self.event
        joins = ""
        if self.number_sessions:
            joins += " JOIN session_ids AS a ON a.part = l.part AND a.id = l.session"
        if self.number_items:
            joins += " JOIN item_ids AS b ON b.id = l.item"
        if self.event:
            joins += " JOIN event_ids AS k ON k.id = l.event"
        filled = text.replace("{bad}", BAD)
        for name, word in {
            "extra": extra,
            "in_order": f"time{', ord' * self.order}, item{', e' * self.event}",
            "session": "a.session" if self.number_sessions else "l.session",
            "item": "b.item" if self.number_items else "l.item",
            "log_extra": ", l.ord" * self.order + ", k.e" * self.event,
            "c_extra": ", c.ord AS ord" * self.order + ", c.e AS e" * self.event,
            "k_extra": ", k.ord AS ord" * self.order + ", k.e AS e" * self.event,
            "joins": joins,
            "has_order": " AND l.ord IS NOT NULL" * self.order,
            "bad_order": "\n    WHEN ord IS NULL THEN 'unreadable order'" * self.order,
            **{name: str(value) for name, value in values.items()},
        }.items():
            filled = filled.replace("{" + name + "}", word)
        return filled


BAD_ROWS = "SELECT reason, COUNT(*) FROM (SELECT {bad} AS reason FROM log) AS graded GROUP BY reason"

BAD_EXAMPLE = """SELECT reason, session, item, written
FROM (SELECT session, item, written, {bad} AS reason FROM log) AS graded WHERE reason IS NOT NULL LIMIT 1"""

READ_SIZES = """SELECT (SELECT COUNT(*) FROM (SELECT DISTINCT part, session FROM log
WHERE session IS NOT NULL) AS s), COUNT(DISTINCT item) FROM log"""

SESSION_IDS = """SELECT part, id, CAST(ROW_NUMBER() OVER (ORDER BY part, id) AS BIGINT) AS session
FROM (SELECT DISTINCT part, session AS id FROM log WHERE session IS NOT NULL) AS ids"""

ITEM_IDS = """SELECT id, CAST(ROW_NUMBER() OVER (ORDER BY id) AS BIGINT) AS item
FROM (SELECT DISTINCT item AS id FROM log WHERE item IS NOT NULL) AS ids"""

EVENT_IDS = """SELECT id, CAST(ROW_NUMBER() OVER (ORDER BY id) - 1 AS INT) AS e
FROM (SELECT DISTINCT event AS id FROM log) AS ids"""

# DISTINCT is the step that drops exact duplicates.
CLICKS = """SELECT DISTINCT {session} AS session, {item} AS item, l.time AS time{log_extra}
FROM log AS l{joins} WHERE l.session IS NOT NULL AND l.item IS NOT NULL AND l.time >= 0{has_order}"""

SIZES = "SELECT session, COUNT(*) AS n FROM {clicks} GROUP BY session"

# Sessions from each user's clicks: a pause longer than the gap starts a new visit.
PAUSES = """SELECT session AS visitor, item, time{extra},
CASE WHEN time - LAG(time) OVER (PARTITION BY session ORDER BY {in_order}) <= {gap} THEN 0 ELSE 1 END AS fresh
FROM {clicks}"""

VISITS = """SELECT visitor, item, time{extra}, CAST(SUM(fresh) OVER (PARTITION BY visitor ORDER BY {in_order}
ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS BIGINT) AS visit FROM pauses"""

VISIT_IDS = """SELECT visitor, visit, CAST(ROW_NUMBER() OVER (ORDER BY visitor, visit) AS BIGINT) AS session
FROM (SELECT DISTINCT visitor, visit FROM visits) AS ids"""

CUT_CLICKS = """SELECT i.session AS session, item, time{extra}
FROM visits AS v JOIN visit_ids AS i ON i.visitor = v.visitor AND i.visit = v.visit"""

CHOSEN_EVENTS = "SELECT session, item, time{extra} FROM {clicks} WHERE e IN ({events})"

WITHOUT_REPEATS = """SELECT session, item, time{extra} FROM (SELECT session, item, time{extra},
LAG(item) OVER (PARTITION BY session ORDER BY {in_order}) AS before FROM {clicks}) AS c
WHERE before IS NULL OR before <> item"""

COUNTS = "SELECT COUNT(DISTINCT session), COUNT(*), COUNT(DISTINCT item) FROM {clicks}"

# A ready split keeps its test part whole: lengths and support look at the sessions below first_test.
ODD_SESSIONS = "SELECT session FROM sizes WHERE n < {shortest} OR (n > {longest} AND session < {first_test})"

FIT_CLICKS = """SELECT session, item, time{extra} FROM {clicks} AS c
WHERE NOT EXISTS (SELECT 1 FROM odd_sessions AS o WHERE o.session = c.session)"""

ITEM_SIZES = """SELECT item, COUNT(*) AS n, COUNT(CASE WHEN session < {first_test} THEN 1 END) AS n_train
FROM fit_clicks GROUP BY item"""

N_FIT = "SELECT (SELECT COUNT(*) FROM sizes) - (SELECT COUNT(*) FROM odd_sessions)"

RARE_ITEMS = "SELECT item FROM item_sizes WHERE n_train < {support}"

COMMON_CLICKS = """SELECT session, item, time{extra} FROM {source} AS c
WHERE session >= {first_test} OR NOT EXISTS (SELECT 1 FROM rare_items AS r WHERE r.item = c.item)"""

# Test clicks on rare items stay, so there their items still count.
N_COMMON = """SELECT COUNT(*) FROM item_sizes WHERE n_train >= {support} OR n > n_train"""

SPANS = """SELECT session, COUNT(*) AS n, MIN(time) AS first_time, MAX(time) AS last_time
FROM common_clicks GROUP BY session"""

RANKED = """SELECT CAST(ROW_NUMBER() OVER (ORDER BY CASE WHEN session < {first_test} THEN 0 ELSE 1 END,
last_time, session) - 1 AS INT) AS rank, session, n, first_time, last_time FROM spans WHERE n >= {shortest}"""

KEPT = """SELECT r.rank AS rank, c.item AS item, c.time AS time{c_extra}
FROM {source} AS c JOIN ranked AS r ON r.session = c.session"""

N_BELOW = "SELECT COUNT(*) FROM ranked WHERE session < {first_test}"
RANKS_UP_TO = "SELECT COUNT(*) FROM {ranked} WHERE rank < {below} AND last_time <= {time}"
LAST_TIME = "SELECT MIN(first_time), MAX(last_time) FROM {ranked} WHERE rank < {below}"

# A run of sessions as a data set of its own: ranks count from 0 again.
SLICE_RANKED = """SELECT CAST(rank - {low} AS INT) AS rank, session, n, first_time, last_time
FROM {ranked} WHERE rank >= {low} AND rank < {high}"""
SLICE_KEPT = """SELECT CAST(rank - {low} AS INT) AS rank, item, time{extra}
FROM {kept} WHERE rank >= {low} AND rank < {high}"""

# Clicks after training on items that training has not seen, then what is left of their sessions.
SEEN_KEPT = """SELECT rank, item, time{extra} FROM {kept}
WHERE rank < {n_train} OR item IN (SELECT item FROM {kept} WHERE rank < {n_train})"""
SEEN_SPANS = """SELECT rank, COUNT(*) AS n, MIN(time) AS first_time, MAX(time) AS last_time
FROM {seen} GROUP BY rank HAVING COUNT(*) >= 2 OR rank < {n_train}"""
# The order stays that of the whole sessions, so that no session changes its part.
SEEN_RANKED = """SELECT CAST(ROW_NUMBER() OVER (ORDER BY s.rank) - 1 AS INT) AS rank, r.session AS session,
s.n AS n, s.first_time AS first_time, s.last_time AS last_time, s.rank AS old
FROM {spans} AS s JOIN {ranked} AS r ON r.rank = s.rank"""
SEEN_CLICKS = """SELECT n.rank AS rank, c.item AS item, c.time AS time{c_extra}
FROM {seen} AS c JOIN {new} AS n ON n.old = c.rank"""

PAIRS = "SELECT CAST(SUM(n - 1) AS BIGINT) FROM {ranked} WHERE rank < {n_train}"
# The latest session at which the pairs counted from the end of training reach the number asked for.
RECENT = """SELECT MAX(rank) FROM (SELECT rank, SUM(n - 1) OVER (ORDER BY rank DESC
ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS pairs FROM {ranked} WHERE rank < {n_train}) AS s
WHERE pairs >= {pairs}"""

SIZE_OF = "SELECT (SELECT COUNT(*) FROM {ranked}), COUNT(*), COUNT(DISTINCT item) FROM {kept}"

ITEM_PARTS = """SELECT item, COUNT(CASE WHEN rank < {n_train} THEN 1 END) AS n0,
COUNT(CASE WHEN rank >= {n_train} AND rank < {n_full} THEN 1 END) AS n1,
COUNT(CASE WHEN rank >= {n_full} THEN 1 END) AS n2 FROM {kept} GROUP BY item"""

# The code of an item: by the part it first occurs in, then its clicks there, then its id.
ITEM_CODES = """SELECT CAST(ROW_NUMBER() OVER (ORDER BY part, n DESC, item) - 1 AS INT) AS code,
item, part, n0
FROM (SELECT item, n0, CASE WHEN n0 > 0 THEN 0 WHEN n1 > 0 THEN 1 ELSE 2 END AS part,
CASE WHEN n0 > 0 THEN n0 WHEN n1 > 0 THEN n1 ELSE n2 END AS n FROM {parts}) AS p"""

OUT_ITEMS_NUMBERED = """SELECT c.code AS code, i.id AS id, c.n0 AS train_clicks, c.part AS part
FROM {codes} AS c JOIN item_ids AS i ON i.item = c.item"""
OUT_ITEMS = "SELECT code, item AS id, n0 AS train_clicks, part FROM {codes}"

OUT_SESSIONS = """SELECT r.rank AS rank, {own_id} AS id, r.n AS n, r.first_time AS first_time,
r.last_time AS last_time FROM {ranked} AS r{id_joins}"""

OUT_CLICKS = """SELECT k.rank AS rank, c.code AS code, k.item AS item, k.time AS time{k_extra}
FROM {kept} AS k JOIN {codes} AS c ON c.item = k.item"""
