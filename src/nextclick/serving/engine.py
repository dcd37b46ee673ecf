"""One version of a model in service: what it is asked and answers, and the popular items to fall back to."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nextclick import artifact
from nextclick.filters import Filter, Rules
from nextclick.recommender import Recommender
from nextclick.serving.opening import Runtime, open_model
from nextclick.serving.versions import located
from nextclick.sessions import UNKNOWN, ItemId, Queries

Listed = tuple[tuple[ItemId, float], ...]
"""Items and scores, best first."""


@dataclass(frozen=True, eq=False)
class Ask:
    """One question to a model.

    prefix: known item codes, oldest first;  k: items wanted;  exclude_seen: none of the prefix;  exclude:
    codes that are not to be listed;  filter: rules bound to the model's items;  rules: what tells them from
    other rules.
    """

    prefix: NDArray[np.int32]
    k: int
    exclude_seen: bool = False
    exclude: frozenset[int] = frozenset()
    filter: Filter | None = None
    rules: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        """What two questions with the same answer agree in."""
        return self.prefix.tobytes(), self.k, self.exclude_seen, self.exclude, self.rules


class Engine:
    """A loaded version; it never changes, so that an answer is of one version from start to end."""

    def __init__(self, model: Recommender, name: str, version: str, kind: str) -> None:
        self.model, self.name, self.version, self.kind = model, name, version, kind
        self.n_items = model.n_items
        self._ids = model.vocabulary.ids_of(range(model.n_items))
        self.code_of = model.vocabulary.code_of
        self._popular = np.argsort(-model.support, kind="stable").astype(np.int32)
        self.seconds = math.inf  # of an answer, when warm

    @classmethod
    def open(cls, path: Path, name: str, runtime: Runtime = "auto", back: int = 0) -> Engine:
        """Load the version that a path stands for, and answer once, so that the first visitor need not wait.

        path: a model directory, or a folder of versions;  back: so many versions before the last.
        Raises ArtifactError when it cannot be served.
        """
        directory, version = located(path, back)
        model = open_model(directory, runtime)
        engine = cls(model, name, version, str(artifact.read_manifest(directory)["model"]))
        engine.warm()
        return engine

    def warm(self) -> None:
        """Answer some sessions of popular items, which compiles what is compiled; take the time of one."""
        nothing = Rules.of({"rule": [{"block": []}]}).bind(None, self.model.vocabulary)
        for length in (1, 3, 0, 5):
            self.answer([Ask(self._popular[:length], 20)])
            self.answer([Ask(self._popular[:length], 20, True, filter=nothing, rules="none")])
        taken = []
        for length in (1, 2, 3, 5, 10):
            start = time.perf_counter()
            self.answer([Ask(self._popular[:length], 20)])
            taken.append(time.perf_counter() - start)
        self.seconds = min(taken)  # the others were interrupted, more or less

    def codes(self, items: Sequence[ItemId]) -> tuple[NDArray[np.int32], list[ItemId]]:
        """Return the codes of the items that the model knows, and the items that it does not."""
        codes = [self.code_of(item) for item in items]
        unknown = [item for item, code in zip(items, codes, strict=True) if code == UNKNOWN]
        known = [code for code in codes if code != UNKNOWN] if unknown else codes
        return np.array(known, np.int32), unknown

    def answer(self, asks: Sequence[Ask]) -> list[Listed]:
        """Answer several questions at once; each as if it had been asked alone."""
        groups: dict[tuple[bool, str], list[int]] = {}
        for at, ask in enumerate(asks):
            groups.setdefault((ask.exclude_seen, ask.rules), []).append(at)
        answers: list[Listed] = [()] * len(asks)
        for rows in groups.values():
            some = [asks[row] for row in rows]
            most = min(self.n_items, max(ask.k + len(ask.exclude) for ask in some))
            first = some[0]
            top, scores = self.model.top(
                Queries.of([ask.prefix for ask in some]), most,
                exclude_seen=first.exclude_seen, filter=first.filter,
            )  # fmt: skip
            for row, ask, items, of_items in zip(rows, some, top.tolist(), scores.tolist(), strict=True):
                answers[row] = self._listed(ask, items, of_items)
        return answers

    def popular(self, ask: Ask) -> Listed:
        """Answer with the most clicked items, which takes no model; rules and exclusions hold."""
        items: NDArray[np.int32] = self._popular
        if ask.filter is not None:
            items = items[ask.filter.allowed(Queries.of([ask.prefix]))[0][items]]
        seen = set(ask.prefix.tolist()) if ask.exclude_seen else set()
        most = ask.k + len(ask.exclude) + len(seen)
        codes = [code for code in items[:most].tolist() if code not in seen]
        return self._listed(ask, codes, self.model.support[codes].astype(float).tolist())

    def _listed(self, ask: Ask, codes: list[int], scores: list[float]) -> Listed:
        ids, out = self._ids, ask.exclude
        pairs = [
            (ids[code], score)
            for code, score in zip(codes, scores, strict=True)
            if code != UNKNOWN and code not in out
        ]
        return tuple(pairs[: ask.k])
