"""What generators may have seen of the prefixes that they generate for in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nextclick import settings
from nextclick.errors import ConfigError
from nextclick.neighbours.item_table import ItemToItem
from nextclick.neighbours.session_votes import SessionKNN
from nextclick.recommender import Recommender
from nextclick.rerank.composite import generators_of
from nextclick.sessions import Sessions

HeldOut = Literal["auto", "none", "session", "part", "folds", "time"]
REFIT = {"folds": 3, "part": 3, "time": 20}
"""Ways for which a generator is fitted again, and into how many parts sessions are cut for them."""


@dataclass(frozen=True)
class Wanted:
    """Which lists of training prefixes are wanted.

    k: candidates in each;  held_out: "none": the generator as it is, which has seen the session that it
    answers;  "session": it leaves that session out (session neighbours; the others as they are);  "folds":
    the sessions are cut into ``folds`` parts at random, and each part is answered by a copy fitted on the
    others;  "part": the same for the first of these parts only, and lists of other prefixes are not wanted
    (session neighbours leave the session out);  "time": the parts come one after the other, each is answered
    by a copy fitted on the sessions before it, and lists of the first part's prefixes are not wanted;
    "auto": "session" for those that can, "part" for others that know sessions by heart, as they are trained
    in epochs or are made of such and of session neighbours, "folds" for tables of pairs, which have counted
    the click that is asked for ("part" beside generators of which only that is wanted), and "none" for
    those that count single items.
    folds: None: as many as are usual for the way (``REFIT``).
    depth: of so many earlier clicks of each prefix their places in the lists before them are wanted too.
    on_lists: the clicks to predict are clicks on lists (a target event); "auto" is "time" for tables then, as
    what visitors were shown was made of the clicks before.
    """

    k: int
    held_out: HeldOut = "auto"
    folds: int | None = None
    depth: int = 0
    on_lists: bool = False

    def within(self, sessions: Sessions) -> Wanted:
        """Return what is wanted of these sessions; of fewer than parts, "auto" holds nothing out."""
        on_lists = sessions.target_name is not None
        if self.held_out == "auto" and len(sessions) < self.n_parts("time" if on_lists else "part"):
            return replace(self, held_out="none")
        return replace(self, on_lists=on_lists)

    def n_parts(self, way: str) -> int:
        """Return into how many parts the sessions are cut."""
        return self.folds or REFIT[way]

    def ways(self, generators: Sequence[Recommender]) -> list[str]:
        """Return how each generator answers the sessions it was fitted on, one of ``HeldOut`` but auto."""
        return [self._way(generator, generators) for generator in generators]

    def _way(self, generator: Recommender, generators: Sequence[Recommender]) -> str:
        if self.held_out in ("none", "folds", "time"):
            return self.held_out
        if isinstance(generator, SessionKNN):
            return "session"
        if self.held_out == "auto" and counts_pairs(generator):
            return "part" if self._partly(generators) else "time" if self.on_lists else "folds"
        return "part" if self.held_out != "session" and self._partly([generator]) else "none"

    def _partly(self, generators: Sequence[Recommender]) -> bool:
        """Return whether lists are wanted of one part of the sessions only."""
        if self.held_out == "part":
            return True
        return self.held_out == "auto" and any(
            reads_sessions(one) and not isinstance(one, SessionKNN) for one in generators
        )

    def rows(self, generators: Sequence[Recommender], sessions: Sessions) -> NDArray[np.int64]:
        """Return the training prefixes whose lists are wanted, numbers among ``sessions.pairs()``."""
        way = "part" if self._partly(generators) else "time"
        if way == "time" and way not in self.ways(generators):
            return np.arange(sessions.n_pairs)
        _, positions = sessions.pairs()
        part = self.parts(sessions, way)[sessions.session_of[positions]]
        return np.flatnonzero(part > 0 if way == "time" else part == 0)

    def parts(self, sessions: Sessions, way: str = "folds") -> NDArray[np.int64]:
        """Return the part that each session is in, [n_sessions]."""
        n_parts, n = self.n_parts(way), len(sessions)
        if way == "time":
            return np.arange(n) * n_parts // max(n, 1)
        return np.random.default_rng(n_parts).permutation(n) % n_parts

    def check(self, generators: Sequence[Recommender], sessions: Sessions) -> None:
        """Raise ConfigError for what cannot be held out of these generators and sessions."""
        ways = self.ways(generators)
        if self.held_out == "session" and "session" not in ways:
            names = ", ".join(one.name for one in generators)
            raise ConfigError(
                f"held_out=session: {names} cannot leave a session out, only session neighbours can; take "
                "held_out=folds, or held_out=none"
            )
        exported = [one for one, way in zip(generators, ways, strict=True) if way in REFIT and exports(one)]
        if exported:
            of = exports(exported[0])[0]
            raise ConfigError(
                f"held_out={self.held_out}: {exported[0].name} is a table exported from {of}, or holds one, "
                "and cannot be fitted again; take held_out=none, or the model itself as the generator"
            )
        refit = [*(way for way in ways if way in REFIT), *(["part"] if self._partly(generators) else [])]
        if refit and len(sessions) < self.n_parts(refit[0]):
            raise ConfigError(
                f"folds={self.n_parts(refit[0])}: there are {len(sessions)} sessions only; take fewer, or "
                "held_out=none"
            )


def trained_in_epochs(model: Recommender) -> bool:
    """Return whether a recommender, or a generator of it, learns sessions by heart in passes over them."""
    return "epochs" in settings.values_of(model) or any(map(trained_in_epochs, generators_of(model)))


def reads_sessions(model: Recommender) -> bool:
    """Return whether a recommender, or a generator of it, answers by more than counts of items and pairs."""
    return (
        isinstance(model, SessionKNN)
        or trained_in_epochs(model)
        or any(map(reads_sessions, generators_of(model)))
    )


def counts_pairs(model: Recommender) -> bool:
    """Return whether a recommender, or a generator of it, has counted a table of items beside each item."""
    if isinstance(model, ItemToItem):
        return not exports(model)
    return any(map(counts_pairs, generators_of(model)))


def exports(model: Recommender) -> list[str]:
    """Return the names of the models whose exported tables a recommender is, or is made of."""
    own = [str(model.facts["table"]["of"])] if "table" in model.facts else []
    return own + [name for one in generators_of(model) for name in exports(one)]
