"""Seeded click sessions to test on: directed cyclic chains, noise, and random ones for hypothesis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

import nextclick
from nextclick import Queries, Sessions

DAY = 86_400_000_000  # microseconds


def chain_lists(
    n_items: int, n_sessions: int, *, noise: float, seed: int, shortest: int = 3, longest: int = 8
) -> list[list[int]]:
    """Walks 0 -> 1 -> ... -> n_items-1 -> 0 from a random start; each step is a random item with ``noise``.

    The chain is directed: a model that learns the transposed transitions finds nothing.
    """
    rng = np.random.default_rng(seed)
    sessions = []
    for _ in range(n_sessions):
        item = int(rng.integers(n_items))
        session = [item]
        for _ in range(int(rng.integers(shortest, longest + 1)) - 1):
            item = int(rng.integers(n_items)) if rng.random() < noise else (item + 1) % n_items
            session.append(item)
        sessions.append(session)
    return sessions


def as_text(sessions: Sequence[Sequence[int]]) -> list[list[str]]:
    return [[f"item {item}" for item in session] for session in sessions]


def hourly(sessions: Sequence[Sequence[Any]]) -> list[int]:
    """A clock for sessions: one starts each hour, a click a second."""
    return [
        s * 3_600_000_000 + c * 1_000_000 for s, session in enumerate(sessions) for c in range(len(session))
    ]


def chain(
    n_items: int, n_sessions: int, *, noise: float, seed: int, clock: bool = True, text: bool = True
) -> Sessions:
    numbers = chain_lists(n_items, n_sessions, noise=noise, seed=seed)
    lists: Sequence[Sequence[Any]] = as_text(numbers) if text else numbers
    return Sessions.from_lists(lists, hourly(lists) if clock else None)


def random_queries(n: int, n_items: int, *, seed: int, longest: int = 12) -> Queries:
    """Random prefixes, some empty, some with repeated items, some with codes that training lacks."""
    rng = np.random.default_rng(seed)
    return Queries.of(
        [rng.integers(-1, n_items + 2, rng.integers(0, longest + 1)).astype(np.int32) for _ in range(n)]
    )


def id_lists(ids: st.SearchStrategy[Any], *, at_least: int = 1) -> st.SearchStrategy[list[list[Any]]]:
    """Lists of sessions, some perhaps empty, with at least ``at_least`` clicks in all."""
    sessions = st.lists(st.lists(ids, max_size=6), min_size=1, max_size=8)
    return sessions.filter(lambda lists: sum(map(len, lists)) >= at_least)


int_sessions = id_lists(st.integers(-5, 9))
text_sessions = id_lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3))


# Settings with which a model is trained in a moment; it need not be good where a test is not about that.
QUICK: dict[str, dict[str, Any]] = {
    "bpr-mf": {"epochs": 1, "dim": 4},
    "fpmc": {"epochs": 1, "dim": 4},
    "stamp": {"epochs": 1, "dim": 4, "batch_size": 64},
    "narm": {"epochs": 1, "dim": 4, "hidden": 3, "batch_size": 64},
    "sml": {"epochs": 1, "dim": 4, "hidden": 3, "batch_size": 64},
    "gru4rec": {"epochs": 1, "hidden": 4, "batch_size": 16, "n_samples": 8},
    "prnn": {"epochs": 1, "hidden": 4, "batch_size": 16},
    "gru4rec-plus": {"epochs": 1, "dim": 4, "hidden": 3, "batch_size": 64},
    "rrcre": {"epochs": 1, "dim": 4, "batch_size": 64},
}


def quick(name: str, values: Mapping[str, Any] | None = None) -> nextclick.Recommender:
    """A new recommender for a test that fits it: networks small and trained briefly, others as they are."""
    return nextclick.build(name, {**QUICK.get(name, {}), **(values or {})})


def with_targets(
    lists: Sequence[Sequence[Any]],
    flags: Sequence[Sequence[bool]],
    target_clicks: int | None = None,
    times: Sequence[int] | None = None,
) -> Sessions:
    """Sessions in which only the flagged clicks, those of event "tip", are to be predicted."""
    events = np.array([flag for session in flags for flag in session], np.uint8)
    return replace(
        Sessions.from_lists(lists, times),
        events=events, event_names=("view", "tip"), target_event=1, target_clicks=target_clicks,
    )  # fmt: skip


flagged_sessions = st.lists(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=12), min_size=1, max_size=12
).map(lambda lists: ([[i for i, _ in one] for one in lists], [[f for _, f in one] for one in lists]))
"""Lists of items and, in the same shape, which of their clicks are tips."""
