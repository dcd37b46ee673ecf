"""What every recommender is: settings, fit, and answers to queries by score, by rank or as a list.

A recommender keeps no memory of the sessions it answers: the prefix comes with the call. One that can
score every item implements ``_scores``; one that gives votes to few items derives from
``voting.VotingRecommender`` instead. Lists, ranks and batching come from here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nextclick import settings
from nextclick.errors import ArtifactError, ConfigError, DataError, NotFittedError, nearest
from nextclick.fitting import FitProgress as FitProgress
from nextclick.fitting import Progress as Progress
from nextclick.fitting import Run as Run
from nextclick.recommendations import Recommendation, Recommendations
from nextclick.sessions import UNKNOWN, ItemId, Queries, Sessions, Vocabulary

if TYPE_CHECKING:
    from nextclick.features import Features
    from nextclick.filters import Filter
    from nextclick.index import ItemSpace
    from nextclick.ranking import Ranks, Targets
    from nextclick.reasons import Reasons

_SAVED_TYPES = {"i4", "i8", "f4", "f8", "b1", "u1"}  # what compiled loops and networks are made for
_BLOCK = 1 << 24  # scores held at once by a dense recommender: 64 MiB of float32


@dataclass(kw_only=True, eq=False)
class Recommender(ABC):
    """Base of all recommenders. Settings are keyword arguments; ``fit`` returns the recommender itself.

    Raises ConfigError at construction when a setting has a wrong type or is out of range, and
    NotFittedError when asked for an answer before ``fit``.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Published settings by name, as ``--set preset=NAME`` takes them."""
    reads_features: ClassVar[bool] = False
    """Whether ``fit`` takes features of the items."""
    fits_by_engine: ClassVar[bool] = False
    """Whether a database can work out what it learns (``Run.engine``)."""
    wants_features: ClassVar[bool] = False
    """Whether it is made for them, so that a fit without is worth a word."""

    vocabulary: Vocabulary = field(init=False, repr=False)
    support: NDArray[np.int64] = field(init=False, repr=False)
    facts: dict[str, Any] = field(init=False, repr=False)
    """What it was fitted on: sessions, clicks, items, and the data set (name, fingerprint, part) if any."""

    def __post_init__(self) -> None:
        settings.check(self)
        self.facts = {}

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """Return a new recommender with published settings, some of them changed.

        Raises ConfigError when there is no preset of that name, or for settings as the constructor does.
        """
        if name not in cls.presets:
            there_are = ", ".join(cls.presets) or "none"
            raise ConfigError(
                f"{cls.name} has no preset {name!r}{nearest(name, cls.presets)}\n  it has: {there_are}"
            )
        settings.check_names(cls, changes)
        return cls(**{**cls.presets[name], **changes})

    # -- what a recommender implements

    @abstractmethod
    def _fit(self, sessions: Sessions) -> None:
        """Learn from sessions with at least one click; forget whatever was learnt before."""

    @abstractmethod
    def _scores(self, queries: Queries) -> NDArray[np.float32]:
        """Score every item, [n, n_items]; queries hold known items only and may be empty prefixes."""

    @abstractmethod
    def _state(self) -> dict[str, NDArray[Any]]:
        """Return what was learnt, as named arrays."""

    @abstractmethod
    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take back what ``_state`` returned; ``vocabulary`` is set already."""

    # -- what a recommender may say of its answers

    def reasons(self, prefix: NDArray[np.int32], items: NDArray[np.int32]) -> Reasons | None:
        """Return what speaks for ``items`` after ``prefix``, or None: then only leaving clicks out can tell.

        prefix: known item codes, at least one, oldest first;  items: item codes.  ``nextclick.explain`` asks
        for one session at a time, so this may take its time.
        """
        return None

    def item_space(self) -> ItemSpace | None:
        """Return the items as points of which near ones are alike, or None: it has none."""
        return None

    # -- what users call

    def fit(
        self, sessions: Sessions, *, features: Features | None = None, progress: FitProgress | None = None,
        run: Run | None = None,
    ) -> Self:  # fmt: skip
        """Learn from sessions; a second fit forgets the first, also where it fails half-way.

        features: of the items, for the recommenders that read them;  progress: told how far a long training
        is;  run: its checkpoints, TensorBoard files, device, or the engine that does the work.
        Raises ConfigError for features where they are not read, or an engine that it cannot use.  Raises
        DataError for the test part of a data set, when there is no click, or when there is one on an item
        beyond ``sessions.n_items``.
        """
        if features is not None and not self.reads_features:
            raise ConfigError(f"{self.name} reads no item features: fit it without, or a network with them")
        if run is not None and run.engine is not None and not self.fits_by_engine:
            raise ConfigError(f"{self.name} is fitted in memory; item-knn and vmis-knn can be by an engine")
        if sessions.origin.get("part") == "test":
            raise DataError(
                f"{self.name}: the test part is there to measure on; fit on data.train, on data.full (all "
                "before the test part), or on data.sessions when nothing is to be measured any more"
            )
        if len(sessions.items) == 0:
            raise DataError(f"{self.name}: cannot fit on zero clicks; the training part is empty")
        if (
            sessions.offsets[0] != 0
            or sessions.offsets[-1] != len(sessions.items)
            or (sessions.lengths < 0).any()
        ):
            raise DataError(f"{self.name}: the sessions are damaged, their clicks and offsets do not agree")
        if not 0 <= sessions.items.min() <= sessions.items.max() < sessions.n_items:
            raise DataError(
                f"{self.name}: cannot fit on clicks on items beyond the {sessions.n_items} known ones; fit "
                "on the training part of a data set, or on all before the test part (data.full)"
            )
        self.vocabulary = sessions.vocabulary.first(sessions.n_items)
        self.support = sessions.support()
        self.facts = {"sessions": len(sessions), "clicks": len(sessions.items), "items": sessions.n_items}
        if sessions.origin:
            self.facts["data"] = dict(sessions.origin)
        self._tell = progress or (lambda what, done, total: None)
        self._run, self._features = run or Run(), features
        with self._all_or_nothing():
            self._fit(sessions)
        return self

    def with_items(self, features: Features) -> Self:
        """Return a recommender that also knows the items that are new in ``features``, without refitting.

        They can be clicked and recommended; nothing else changes.  Raises ConfigError for recommenders that
        do not read features, and DataError for features that are not of the kind it was fitted with.
        """
        raise ConfigError(
            f"{self.name} knows items by their ids alone, so new ones need a new fit; networks fitted with "
            "features take them"
        )

    @property
    def features(self) -> Features | None:
        """What it was fitted with of the items it knows, None without."""
        return None

    @property
    def takes_new_items(self) -> bool:
        """Whether ``with_items`` can make it know items that it was not fitted on."""
        return False

    @property
    def n_items(self) -> int:
        """How many items the recommender knows; their codes are 0 .. n_items - 1."""
        if not hasattr(self, "vocabulary"):
            raise NotFittedError(self.name)
        return len(self.vocabulary)

    def score(self, queries: Queries) -> NDArray[np.float32]:
        """Score every item for every query, [n, n_items]; higher is better, -inf means never."""
        return self._scores(queries.known(self.n_items))

    def top(
        self, queries: Queries, k: int, *, exclude_seen: bool = False, filter: Filter | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return the k best items of each query and their scores, both [n, k].

        Ties go to the more popular item. A row ends in -1 (score -inf) where fewer than k items can be
        recommended. exclude_seen: leave out the items of the prefix itself.  filter: rules that every item
        listed must meet, bound to this recommender's vocabulary.
        Raises ConfigError when k is not positive, or the filter was bound to other items.
        """
        from nextclick import ranking

        known = self._known(queries, filter)
        top, top_scores = self._empty_top(len(known), k)
        for block in self._blocks(len(known)):
            scores = self._scores(known[block])
            if filter is not None:
                np.copyto(scores, -np.inf, where=~filter.allowed(known[block]))
            if exclude_seen:
                for row, i in enumerate(range(block.start, block.stop)):
                    scores[row, known.prefix(i)] = -np.inf
            ranking.dense_top(scores, self.n_items, top[block], top_scores[block])
        return top, top_scores

    def rank(
        self,
        queries: Queries,
        targets: Targets,
        k: int,
        *,
        n_candidates: int | None = None,
        filter: Filter | None = None,
        progress: Progress | None = None,
    ) -> Ranks:
        """Say where targets stand among all items, and what the first k are; see ``ranking.Ranks``.

        Never sorts all scores: it counts how many are higher. n_candidates: rank against the N most
        clicked items only (and the target itself), which overestimates; all items by default.  filter: rank
        only items that meet its rules; a target that does not is a miss.
        Raises DataError when a score is NaN.
        """
        from nextclick import ranking
        from nextclick.compiled import in_chunks

        known, n_candidates = self._known(queries, filter), self._candidates(n_candidates)
        better, ties = np.empty((2, len(targets.items)), np.int64)
        top, top_scores = self._empty_top(len(known), k)
        for block in self._blocks(len(known)):
            scores = self._scores(known[block])

            def place(part: slice, scores: NDArray[np.float32] = scores, first: int = block.start) -> int:
                at = slice(first + part.start, first + part.stop)
                of_part, rows = targets[at], slice(targets.bounds[at.start], targets.bounds[at.stop])
                if filter is not None:
                    np.copyto(scores[part], -np.inf, where=~filter.allowed(known[at]))
                ranking.dense_top(scores[part], n_candidates, top[at], top_scores[at])
                return ranking.dense_ranks(
                    scores[part], of_part.items, of_part.bounds, n_candidates, better[rows], ties[rows]
                )

            nan = sum(in_chunks(len(scores), place))
            if nan:
                raise DataError(
                    f"{self.name}: {nan} scores are not a number; the model is broken, fit it again"
                )
            if progress is not None:
                progress(block.stop, len(known))
        return ranking.Ranks(better, ties, top, top_scores)

    def measure(
        self, sessions: Sessions, *, at_most: int | None = None, progress: Progress | None = None
    ) -> dict[str, float]:
        """Return recall@20 and mrr@20 of every next click in sessions, all items ranked.

        at_most: measure about so many clicks, evenly spread.  It is what epochs and settings are chosen on,
        with sessions that were not fitted on; ``evaluate`` says how sure such figures are.
        """
        from nextclick import metrics
        from nextclick.ranking import Targets

        queries, positions = sessions.pairs()
        if at_most is not None and len(queries) > at_most:
            some = np.linspace(0, len(queries) - 1, at_most).astype(np.int64)
            queries, positions = queries[some], positions[some]
        ranks = self.rank(queries, Targets.one_each(sessions.items[positions]), 20, progress=progress)
        return {
            "recall@20": float(metrics.recall(ranks.better, ranks.ties, 20).mean()),
            "mrr@20": float(metrics.reciprocal_rank(ranks.better, ranks.ties, 20).mean()),
        }

    def recommend(
        self,
        session: Sequence[ItemId],
        k: int = 20,
        *,
        exclude_seen: bool = False,
        filter: Filter | None = None,
    ) -> Recommendations:
        """Return the k items most likely to be clicked next, for one session of the users' own item ids.

        session: oldest click first; unknown items are skipped and reported, an empty session is allowed.
        exclude_seen: recommend only items that are not in the session.  filter: recommend only items that
        meet its rules; where they leave fewer than k, the answer says why.
        """
        return self.recommend_many([session], k, exclude_seen=exclude_seen, filter=filter)[0]

    def recommend_many(
        self,
        sessions: Sequence[Sequence[ItemId]],
        k: int = 20,
        *,
        exclude_seen: bool = False,
        filter: Filter | None = None,
    ) -> list[Recommendations]:
        """Return one list per session; the same answers as ``recommend``, faster for many."""
        if isinstance(sessions, str) or any(isinstance(session, str) for session in sessions):
            raise DataError("a session is a list of item ids, found one text: write ['a'] for one item 'a'")
        self.n_items  # noqa: B018 - refuses before fit
        codes = [self.vocabulary.codes_of(session) for session in sessions]
        top, scores = self.top(Queries.of(codes), k, exclude_seen=exclude_seen, filter=filter)
        answers = []
        for session, of_session, row, row_scores in zip(sessions, codes, top, scores, strict=True):
            listed = [
                Recommendation(self.vocabulary.id_of(code), float(score))
                for code, score in zip(row.tolist(), row_scores, strict=True)
                if code != UNKNOWN
            ]
            reason = None
            if filter is not None and len(listed) < k:
                reason = filter.reason(of_session[of_session != UNKNOWN], k, exclude_seen=exclude_seen)
            unknown = tuple(item for item, code in zip(session, of_session, strict=True) if code == UNKNOWN)
            fallback = len(unknown) == len(session)
            answers.append(Recommendations(tuple(listed), unknown, fallback, reason))
        return answers

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what was learnt as named arrays, to be saved without code."""
        self.n_items  # noqa: B018 - refuses before fit
        return {"support": self.support, **self._state()}

    def restore(self, state: Mapping[str, NDArray[Any]], vocabulary: Vocabulary) -> Self:
        """Take back what ``state`` returned. Raises ArtifactError when an array is missing or unfit."""
        self.vocabulary = vocabulary
        with self._all_or_nothing():
            try:
                for of, array in state.items():
                    if array.dtype.str[1:] not in _SAVED_TYPES:
                        raise ArtifactError(f"{self.name}: the saved {of} cannot hold {array.dtype}")
                self.support = state["support"]
                whole = np.issubdtype(self.support.dtype, np.integer)
                if self.support.shape != (len(vocabulary),) or not whole:
                    raise ArtifactError(
                        f"{self.name}: the saved clicks per item do not fit; fit the model again"
                    )
                self._restore(state)
            except KeyError as error:
                raise ArtifactError(f"{self.name}: the saved model lacks the array {error}") from None
        return self

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write a model directory (JSON and safetensors, nothing that can run); see ``artifact.save``."""
        from nextclick import artifact

        artifact.save(self, Path(path), overwrite=overwrite)

    # -- for subclasses

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Be not fitted if the block fails: new items with an old table would crash compiled loops."""
        try:
            yield
        except BaseException:
            del self.vocabulary
            raise

    def _known(self, queries: Queries, filter: Filter | None) -> Queries:
        """Return the queries without unknown clicks; refuse a filter that was bound to other items."""
        known = queries.known(self.n_items)
        if filter is not None:
            filter.check(self.vocabulary)
        return known

    def _candidates(self, n: int | None) -> int:
        if n is not None and n < 1:
            raise ConfigError(f"candidates: expected at least 1 item, found {n}")
        return self.n_items if n is None else min(n, self.n_items)

    def _empty_top(self, n: int, k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        if k < 1:
            raise ConfigError(f"k={k}: expected at least 1 item")
        return np.empty((n, k), np.int32), np.empty((n, k), np.float32)

    def _blocks(self, n: int) -> Iterator[slice]:
        size = max(1, _BLOCK // max(1, self.n_items))
        for low in range(0, n, size):
            yield slice(low, min(low + size, n))
