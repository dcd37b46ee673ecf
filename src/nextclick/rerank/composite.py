"""Recommenders made of recommenders: what they share with those that generate their candidates."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nextclick import settings
from nextclick.errors import ArtifactError, ConfigError, DataError
from nextclick.recommender import Recommender, Run
from nextclick.sessions import Queries, Sessions

_STATE = "generators."
"""What the names of the generators' arrays begin with, among those of a composite."""
_BLOCK = 2048  # prefixes whose candidates are held at once


@dataclass(kw_only=True, eq=False)
class Composite(Recommender):
    """Base of the recommenders that build on others, the generators, each a black box.

    generator: one or several recommenders. Those that have been fitted are taken as they are, and must know
    the same items as the sessions of ``fit``; the others are fitted there first. None: what the class names.
    Raises ConfigError for what is no recommender.
    """

    generator: Recommender | Sequence[Recommender] | None = field(default=None, kw_only=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self._default_generators() if self.generator is None else self.generator
        self.generators: tuple[Recommender, ...] = (
            (given,) if isinstance(given, Recommender) else tuple(given)
        )
        if not self.generators or not all(isinstance(one, Recommender) for one in self.generators):
            raise ConfigError(
                f"{self.name}: generator={self.generator!r}: expected a recommender, or several of them"
            )
        self._to_fit = [not hasattr(one, "vocabulary") for one in self.generators]

    @classmethod
    def preset(
        cls, name: str, generator: Recommender | Sequence[Recommender] | None = None, **changes: Any
    ) -> Self:
        made = super().preset(name, **changes)
        return made if generator is None else cls(generator, **settings.values_of(made))

    # -- what a composite implements

    @classmethod
    @abstractmethod
    def _default_generators(cls) -> tuple[Recommender, ...]:
        """Return what generates the candidates where nothing else is named, not fitted."""

    @abstractmethod
    def _rewrite(self, queries: Queries, dense: Sequence[NDArray[np.float32]]) -> None:
        """Put the second stage's scores into the first generator's, dense[0], of non-empty prefixes.

        dense: the scores of each generator, all [n, n_items].
        """

    @abstractmethod
    def _own_state(self) -> dict[str, NDArray[Any]]:
        """Return what was learnt beyond the generators, as named arrays."""

    @abstractmethod
    def _restore_own(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take back what ``_own_state`` returned; vocabulary and generators are set already."""

    # -- shared

    def _scores(self, queries: Queries) -> NDArray[np.float32]:
        dense = [one.score(queries) for one in self.generators]
        rows = np.flatnonzero(queries.ends > queries.starts)
        for low in range(0, len(rows), _BLOCK):
            some = rows[low : low + _BLOCK]
            parts = [scores[some] for scores in dense]
            self._rewrite(queries[some], parts)
            dense[0][some] = parts[0]
        return dense[0]

    def _ready(self, sessions: Sessions) -> None:
        """Fit the generators that were given unfitted; refuse those fitted on other data."""
        for n, (generator, to_fit) in enumerate(zip(self.generators, self._to_fit, strict=True), start=1):
            if to_fit:
                self._fit_generator(n, generator, sessions)
            else:
                self._check(generator)
        self.facts["generators"] = [
            {"model": one.name, "fitted on": one.facts.get("data", {})} for one in self.generators
        ]

    def _fit_generator(self, n: int, generator: Recommender, sessions: Sessions) -> None:
        folder = self._run.checkpoints
        run = Run(None if folder is None else folder / f"generator-{n}", device=self._run.device)

        def tell(what: str, done: int, total: int) -> None:
            self._tell(f"generator {generator.name}, {what}", done, total)

        tell("fitting", 0, 0)
        generator.fit(sessions, progress=tell, run=run)

    def _check(self, generator: Recommender) -> None:
        """Raise DataError for a generator fitted on other items, or on another part of the data."""
        remedy = "fit both on the same part of the same data"
        theirs, ours = generator.facts.get("data"), self.facts.get("data")
        if theirs and ours and theirs["fingerprint"] != ours["fingerprint"]:
            raise DataError(
                f"{self.name}: its generator {generator.name} was fitted on other data ({theirs['name']}, "
                f"fingerprint {theirs['fingerprint'][:12]}) than these ({ours['name']}, fingerprint "
                f"{ours['fingerprint'][:12]}): {remedy}"
            )
        if theirs and ours and theirs["part"] != ours["part"]:
            raise DataError(
                f"{self.name}: its generator {generator.name} was fitted on the part {theirs['part']!r}, and "
                f"this is {ours['part']!r}: {remedy} (both with --full, or both without)"
            )
        codes, own = generator.vocabulary.to_arrays(), self.vocabulary.to_arrays()
        same = codes.keys() == own.keys() and all(
            codes[name].shape == own[name].shape and (codes[name] == own[name]).all() for name in own
        )
        if not same:
            raise DataError(
                f"{self.name}: its generator {generator.name} was fitted on other items than these sessions "
                f"have ({generator.n_items:,} against {self.n_items:,}): {remedy}"
            )

    def _state(self) -> dict[str, NDArray[Any]]:
        parts = {
            f"{_STATE}{n}.{name}": array
            for n, one in enumerate(self.generators, start=1)
            for name, array in one.state().items()
        }
        return {**self._own_state(), **parts}

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        if any(name.startswith(_STATE) for name in state):
            self.generators = tuple(
                self._restored(one, _below(state, f"{_STATE}{n}."))
                for n, one in enumerate(self.generators, start=1)
            )
            self._to_fit = [False] * len(self.generators)
        if len(self.facts.get("generators", self.generators)) != len(self.generators):
            raise ArtifactError(
                f"{self.name}: it was fitted over {len(self.facts['generators'])} generators, and found are "
                f"{len(self.generators)}; fit the model again"
            )
        for one in self.generators:
            if not hasattr(one, "vocabulary"):
                raise ArtifactError(
                    f"{self.name}: the saved model lacks its generator {one.name}; fit it again"
                )
            if one.n_items != self.n_items:
                raise ArtifactError(
                    f"{self.name}: its generator {one.name} knows {one.n_items:,} items, and it knows "
                    f"{self.n_items:,}; fit the model again"
                )
        self._restore_own(state)

    def _restored(self, generator: Recommender, state: Mapping[str, NDArray[Any]]) -> Recommender:
        """Return a new recommender of a generator's kind: others may use the generator itself."""
        new = type(generator)(**settings.values_of(generator))
        if isinstance(generator, Composite) and isinstance(new, Composite):
            new = type(generator)(generator.generators, **settings.values_of(generator))
        new.facts = generator.facts
        return new.restore(state, self.vocabulary)


def without_generators(state: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a state that are not those of generators."""
    return {name: array for name, array in state.items() if not name.startswith(_STATE)}


def generators_of(model: Recommender) -> tuple[Recommender, ...]:
    """Return the generators of a recommender, none for a simple one."""
    return model.generators if isinstance(model, Composite) else ()


def _below(state: Mapping[str, NDArray[Any]], start: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(start): array for name, array in state.items() if name.startswith(start)}
