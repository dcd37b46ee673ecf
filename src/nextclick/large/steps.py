"""The tables of neighbour models as portable SQL: one text that DuckDB and Spark run unchanged.

Counts are integers and every numbering has a total order, so both engines give the same rows; a weight is one
division of a count by a product, in double precision, as in the compiled loops. Tables:

events     session, position, item, time [, event]    the clicks of the prepared data, all its parts
held       session, item, n                           the distinct items of the sessions fitted on
followed   session, i, j                              clicks to predict, j, and the ones before them, i
norms      item, of_row, of_column                    what a count is divided by
"""

from __future__ import annotations

# What tells whether the shards hold the clicks of the arrays.
SUMS = "SELECT COUNT(*), CAST(SUM(item) AS BIGINT), MAX(session) FROM events WHERE session < {n_sessions}"

HELD = """SELECT session, item, CAST({n} AS BIGINT) AS n FROM events WHERE session < {n_sessions}
GROUP BY session, item"""

HELD_SIZES = "SELECT item, CAST(SUM(n) AS BIGINT) AS n FROM held GROUP BY item"

# How many rows the pairs of all sessions are, before they are counted.
HELD_PAIRS = "SELECT CAST(SUM(n * n) AS BIGINT) FROM (SELECT COUNT(*) AS n FROM held GROUP BY session) AS s"

# count: of sessions, or of each click on i with each click on j; counting rows is the faster one.
HELD_COUNTS = """SELECT a.item AS i, b.item AS j, {count} AS n
FROM held AS a JOIN held AS b ON b.session = a.session
WHERE a.item % {buckets} = {bucket} AND a.item <> b.item GROUP BY a.item, b.item"""

# A click to predict is no first one of its session, and of one kind of event where one is asked for.
FOLLOWED = """SELECT {distinct} s.session AS session, s.i AS i, s.j AS j
FROM (SELECT session, item AS j{event},
LAG(item) OVER (PARTITION BY session ORDER BY position) AS i FROM events WHERE session < {n_sessions}) AS s
{wanted} WHERE s.i IS NOT NULL AND s.i <> s.j"""

FOLLOWED_SIZES = "SELECT {side} AS item, COUNT(*) AS n FROM followed GROUP BY {side}"

FOLLOWED_PAIRS = "SELECT COUNT(*) FROM followed"

FOLLOWED_COUNTS = """SELECT i, j, COUNT(*) AS n FROM followed
WHERE i % {buckets} = {bucket} GROUP BY i, j"""

# Only the strongest neighbours of each item leave the engine; equal ones in the order of their codes.
NEAREST = """SELECT i, j, weight, place FROM (SELECT i, j, weight,
ROW_NUMBER() OVER (PARTITION BY i ORDER BY weight DESC, j) AS place
FROM (SELECT p.i AS i, p.j AS j, CAST(p.n AS DOUBLE) / (r.of_row * c.of_column) AS weight
FROM ({counts}) AS p JOIN norms AS r ON r.item = p.i JOIN norms AS c ON c.item = p.j) AS w) AS ranked
WHERE place <= {keep}"""

# The last place of each item in each session, from 1.
LATEST = """SELECT session, item, MAX(position) + 1 AS position FROM events WHERE session < {n_sessions}
GROUP BY session, item"""

# Sessions are numbered by time, so the latest sessions of an item have the largest numbers.
RECENT = """SELECT DISTINCT session FROM (SELECT session,
ROW_NUMBER() OVER (PARTITION BY item ORDER BY session DESC) AS place FROM latest) AS listed
WHERE place <= {longest}"""

RECENT_CLICKS = """SELECT l.session AS session, l.item AS item, l.position AS position
FROM latest AS l JOIN recent AS r ON r.session = l.session"""

RECENT_SIZES = "SELECT COUNT(DISTINCT session), COUNT(*) FROM recent_clicks"

RECENT_BLOCK = """SELECT session, item, position FROM recent_clicks
WHERE session >= {low} AND session < {high} ORDER BY session, position DESC"""
