"""The neighbour models written as one would on a first day: pandas, dictionaries, sets, loops.

Two uses: the tests hold the compiled models against these, rank by rank; the benchmarks time both.
Nothing here is clever on purpose. Scores are float64 until the end and float32 in the answer, as the
compiled models give them, so that equal scores are equal in both.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from math import exp, log, log10, sqrt

import numpy as np
import pandas as pd

from nextclick import Sessions

POSITION: dict[str, Callable[[int, int], float]] = {
    "same": lambda p, n: 1.0,
    "div": lambda p, n: p / n,
    "linear": lambda p, n: max(0.0, 1 - 0.1 * (n - p)),
    "log": lambda p, n: 1 / log10(n - p + 1.7),
    "quadratic": lambda p, n: (p / n) ** 2,
}
STEP: dict[str, Callable[[int], float]] = {
    "same": lambda s: 1.0,
    "div": lambda s: 1 / s,
    "linear": lambda s: max(0.0, 1 - 0.1 * s),
    "log": lambda s: 1 / log10(s + 1.7),
    "quadratic": lambda s: 1 / (s * s),
}


def frame(sessions: Sessions) -> pd.DataFrame:
    """One row per click: session number, item code, time."""
    columns = {"session": sessions.session_of, "item": sessions.items, "time": sessions.times}
    return pd.DataFrame(columns)


class Markov:
    def fit(self, clicks: pd.DataFrame) -> Markov:
        self.next: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
        for _, items in clicks.groupby("session")["item"]:
            for before, after in itertools.pairwise(items):
                self.next[before][after] += 1
        return self

    def scores(self, prefix: Sequence[int]) -> dict[int, float]:
        following = self.next[prefix[-1]] if prefix else {}
        total = sum(following.values())
        return {item: count / total for item, count in following.items()}


class ItemKNN:
    def __init__(
        self, formula: str, counts: str, regularisation: float = 0.0, asymmetry: float = 0.5
    ) -> None:
        self.formula, self.counts = formula, counts
        self.regularisation, self.asymmetry = regularisation, asymmetry

    def fit(self, clicks: pd.DataFrame) -> ItemKNN:
        together: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        alone: dict[int, int] = defaultdict(int)
        for _, items in clicks.groupby("session")["item"]:
            seen = list(items) if self.counts == "clicks" else list(set(items))
            for i in seen:
                alone[i] += 1
                for j in seen:
                    if i != j:
                        together[i][j] += 1
        self.similar: dict[int, dict[int, float]] = {}
        for i, others in together.items():
            self.similar[i] = {}
            for j, count in others.items():
                if self.formula == "narm":
                    norm = sqrt(alone[i] + self.regularisation) * sqrt(alone[j] + self.regularisation)
                else:
                    norm = alone[i] ** self.asymmetry * alone[j] ** (1 - self.asymmetry)
                self.similar[i][j] = count / norm
        return self

    def scores(self, prefix: Sequence[int]) -> dict[int, float]:
        return self.similar.get(prefix[-1], {}) if prefix else {}


class SessionKNN:
    """SKNN, VS-kNN and STAN by their settings; equal similarities go to the more recent session."""

    def __init__(
        self,
        k: int,
        sample_size: int,
        similarity: str = "vector",
        weighting: str = "same",
        score_weighting: str = "same",
        idf: float = 0.0,
        lambda_spw: float | None = None,
        lambda_snh_sessions: float | None = None,
        lambda_inh: float | None = None,
        last_clicks: int | None = None,
    ) -> None:
        self.k, self.sample_size, self.similarity = k, sample_size, similarity
        self.weighting, self.score_weighting, self.idf = weighting, score_weighting, idf
        self.lambda_spw, self.lambda_snh, self.lambda_inh = lambda_spw, lambda_snh_sessions, lambda_inh
        self.last_clicks = last_clicks

    def fit(self, clicks: pd.DataFrame) -> SessionKNN:
        self.items_of = {session: list(items) for session, items in clicks.groupby("session")["item"]}
        self.sessions_of: dict[int, set[int]] = defaultdict(set)
        for session, item in zip(clicks["session"], clicks["item"], strict=True):
            self.sessions_of[item].add(session)
        self.distinct = {session: set(items) for session, items in self.items_of.items()}
        n_sessions = len(self.items_of)
        self.newest = max(self.items_of)
        counts = clicks.groupby("item").size()
        self.rarity = {item: max(0.0, log(n_sessions / count)) for item, count in counts.items()}
        return self

    def neighbours(self, prefix: Sequence[int]) -> list[tuple[int, float]]:
        candidates: set[int] = set()
        for item in prefix:
            candidates |= self.sessions_of.get(item, set())
        if len(candidates) > self.sample_size:
            candidates = set(sorted(candidates, reverse=True)[: self.sample_size])
        n = len(prefix)
        weights: dict[int, float] = {}
        for p, item in enumerate(prefix, start=1):
            if self.lambda_spw is not None:
                weights[item] = exp((p - n) / self.lambda_spw)
            else:
                weights[item] = POSITION[self.weighting](p, n)
        latest_first = list(dict.fromkeys(reversed(prefix)))
        alike = []
        for session in candidates:
            theirs = self.distinct[session]
            overlap = 0.0
            for item in latest_first:
                if item in theirs:
                    overlap += weights[item]
            if self.similarity == "vector":
                similarity = overlap / len(weights)
            elif self.similarity == "cosine":
                similarity = overlap / (sqrt(sum(weights[i] ** 2 for i in latest_first)) * sqrt(len(theirs)))
            elif self.similarity == "jaccard":
                similarity = overlap / (len(weights) + len(theirs) - overlap)
            else:
                similarity = 2 * overlap / (len(weights) + len(theirs))
            if self.lambda_snh is not None:
                similarity *= exp(-(self.newest - session) / self.lambda_snh)
            if similarity > 0:
                alike.append((session, similarity))
        return sorted(alike, key=lambda one: (-one[1], -one[0]))[: self.k]

    def scores(self, prefix: Sequence[int]) -> dict[int, float]:
        prefix = prefix[-self.last_clicks :] if self.last_clicks else prefix
        mine = set(prefix)
        scores: dict[int, float] = {}
        for session, similarity in self.neighbours(prefix):
            theirs = self.items_of[session]
            vote = similarity
            for step, item in enumerate(reversed(prefix), start=1):
                if item in self.distinct[session]:
                    vote *= STEP[self.score_weighting](step)
                    break
            last_place = {item: place for place, item in enumerate(theirs)}
            match = max((place for place, item in enumerate(theirs) if item in mine), default=0)
            for item in self.distinct[session]:
                part = vote
                if self.lambda_inh is not None:
                    part *= exp(-abs(last_place[item] - match) / self.lambda_inh)
                scores[item] = scores.get(item, 0.0) + part
        return {item: score * (1 + self.idf * self.rarity[item]) for item, score in scores.items()}


def rank(scores: dict[int, float], target: int, n_items: int) -> tuple[int, int]:
    """Items scored higher than the target, and other items of its score; items without a score have 0."""
    given = np.array(list(scores.values()), np.float32)
    own = np.float32(scores.get(target, 0.0))
    better, ties = int((given > own).sum()), int((given == own).sum())
    if own == 0:
        ties += n_items - len(given)
    return better, ties - 1
