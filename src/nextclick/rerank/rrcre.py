"""RRCRE: candidates of any recommender, put into a better order by the session and by their places."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import ConfigError, DataError
from nextclick.filters import Filter
from nextclick.neighbours.item_knn import ItemKNN
from nextclick.network.recommender import TrainedRecommender
from nextclick.recommender import Recommender
from nextclick.rerank.candidates import (
    Lists,
    beside,
    best_of_row,
    checksum,
    cleaned,
    clicked,
    earlier_places,
    identity,
    training_lists,
)
from nextclick.rerank.composite import Composite
from nextclick.rerank.held_out import HeldOut, Wanted, reads_sessions
from nextclick.sessions import Queries, Sessions
from nextclick.settings import about

if TYPE_CHECKING:
    from torch import nn

    from nextclick.network.workers import Workers
    from nextclick.rerank.scoring import Scorer

_PUBLISHED: Mapping[str, Any] = {
    **{"held_out": "none", "clicked": False, "scored": False, "content": "yes", "depth": "no"},
    **{"temperature": 0.0},
    **{"epochs": 5, "learning_rate": 0.001, "decay": 1.0, "weight_decay": 0.0, "dropout": 0.0},
}
_SMALL: Mapping[str, Any] = {"dim": 16, "temperature": 0.3, "weight_decay": 0.002}
_WEIGHT_DECAY = {True: 1e-4, False: 0.002}  # by whether items are asked for
_NARROW = 16  # width where items are not asked for
_TOGETHER = 2048  # prefixes answered together
_STARTED = 0.1  # standard deviation of item vectors taken over from a generator


@dataclass(kw_only=True, eq=False)
class RRCRE(Composite, TrainedRecommender):
    """Re-ranking with candidate rank embeddings: the first k of a generator in a better order.

    The session by STAMP's encoder asks for an item and, through a second projection, for a place in the
    generator's list: score(c) = <V_c, MLP1(h)> + <W_place(c), MLP2(h)>, trained by cross-entropy on the
    prefixes whose next click is among the candidates. Items beyond the candidates keep the generator's order.
    With several generators the candidates of all are united, each has rank embeddings of its own, and the
    items beyond come in the order of the first. Scores in answers are probabilities among the candidates;
    items beyond them have less than 2^-60. An empty prefix is answered by the first generator.
    Without a generator it re-ranks I2I-CF (item-knn, preset i2i-cf). ``preset=small``, which is ours, learns
    less by heart: for some ten thousand examples.
    Source: Sánchez Rodríguez et al. 2019 (RRCRE), secs. 4 and 5.2, as ``preset=paper`` is. Several
    generators, ``clicked``, ``scored``, ``content``, ``depth``, ``start``, ``temperature``, ``dropout``,
    ``weight_decay`` and ``held_out`` are ours; the paper's generators have seen the sessions that they
    generate for (held_out=none), and it suggests shared ranks without trying them.
    """

    name: ClassVar[str] = "rrcre"
    summary: ClassVar[str] = "re-ranks the candidates of other recommenders by the session and their places"
    source: ClassVar[str] = "Sánchez Rodríguez et al. 2019 (RRCRE)"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": _PUBLISHED,
        "rr": {**_PUBLISHED, "cre": False},
        "small": _SMALL,
    }
    watched: ClassVar[str] = "recall@5"

    k: int = field(default=100, metadata=about("candidates of each generator", low=1, search=[50, 100, 150]))
    epochs: int = field(default=3, metadata=about("passes over the training prefixes", low=1))
    learning_rate: float = field(
        default=0.006, metadata=about("of Adam", low=0, search=("log", 0.0003, 0.02))
    )
    decay: float = field(
        default=0.4,
        metadata=about("factor on the learning rate after each epoch", low=0, high=1, search=(0.3, 1.0)),
    )
    dim: int = field(default=100, metadata=about("width of item and rank vectors", low=1, search=[50, 100]))
    last_clicks: int = field(
        default=19, metadata=about("clicks of the prefix that are read, the last ones", low=1)
    )
    dropout: float = field(
        default=0.2,
        metadata=about(
            "on the vectors of clicks and of the item asked for", low=0, high=0.99, search=(0.0, 0.6)
        ),
    )
    weight_decay: float | None = field(
        default=None,
        metadata=about(
            "of Adam, on all weights (L2); none: 0.0001 where items are asked for by vectors of their own, "
            "else 0.002, as places and scores are soon known by heart",
            low=0, search=("log", 1e-5, 1e-2),
        ),
    )  # fmt: skip
    spread: float = field(
        default=0.002, metadata=about("standard deviation of the item vectors at the start", low=0)
    )
    temperature: float = field(
        default=0.1,
        metadata=about(
            "an item is asked for by cosines divided by it; 0: plain products, of vectors of any length",
            low=0,
            search=("log", 0.04, 0.3),
        ),
    )
    clicked: bool = field(
        default=True,
        metadata=about("the session's own items are candidates too, by how long ago they were clicked"),
    )
    cre: bool = field(default=True, metadata=about("use the rank embeddings; false: RR, for comparison"))
    scored: bool = field(
        default=True, metadata=about("also use the generators' scores, weighed by the session")
    )
    content: Literal["auto", "yes", "no"] = field(
        default="auto",
        metadata=about(
            "ask for items by vectors of their own; no: judge by places and scores only, and by a session of "
            "width 16 at most; auto: yes over tables of counts, no where a generator reads whole sessions "
            "itself (session neighbours, and what is trained in epochs)"
        ),
    )
    depth: Literal["auto", "yes", "no"] = field(
        default="auto",
        metadata=about(
            "read at which places of the generators' lists the session's earlier clicks stood, which tells "
            "how far down this visitor looks; needs another list for each click; auto: yes over tables of "
            "counts, no where a generator reads whole sessions itself"
        ),
    )
    ranks: Literal["own", "shared"] = field(
        default="own",
        metadata=about("own: an embedding for each place; shared: places in growing buckets, for large k"),
    )
    start: Literal["random", "generator"] = field(
        default="random", metadata=about("item vectors start at random, or from a generator that has some")
    )
    held_out: HeldOut = field(
        default="auto",
        metadata=about(
            "what generators may have seen of the prefixes they generate for in training: none: held out "
            "nothing; session: session neighbours leave the session out; folds: copies fitted on the other "
            "parts of the sessions; part: one such copy, and only its part is trained on; time: parts one "
            "after the other, each answered by a copy fitted on those before it; auto: session for session "
            "neighbours, part for what is trained in epochs, for tables of pairs folds, or time where the "
            "clicks to predict are of a target event (part beside what is trained), none for counts of items"
        ),
    )
    folds: int | None = field(
        default=None,
        metadata=about(
            "parts that the sessions are cut into, for folds, part and time; none: 3, and 20 for time", low=2
        ),
    )
    validation: float = field(
        default=0.05,
        metadata=about("share of the prefixes, at random, to choose the weights on", low=0, high=0.9),
    )
    every: int = field(default=1000, metadata=about("steps between two looks at them", low=1))

    def __post_init__(self) -> None:
        super().__post_init__()
        self._forget()

    def _forget(self) -> None:
        """Drop what answers were made with: the network is another one from now on."""
        self._scorer: Scorer | None = None
        self._room = threading.local()

    @classmethod
    def _default_generators(cls) -> tuple[Recommender, ...]:
        return (ItemKNN.preset("i2i-cf"),)

    # -- answering

    def top(
        self, queries: Queries, k: int, *, exclude_seen: bool = False, filter: Filter | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return what the base class does, from the candidates alone where they suffice."""
        from nextclick.rerank import kernels, scoring

        if filter is not None or k > self.k:
            return super().top(queries, k, exclude_seen=exclude_seen, filter=filter)
        known = self._known(queries, None)
        top, top_scores = self._empty_top(len(known), k)
        short = [np.flatnonzero(known.ends == known.starts)]
        rows = np.flatnonzero(known.ends > known.starts)
        for low in range(0, len(rows), _TOGETHER):
            block = rows[low : low + _TOGETHER]
            some = known[block]
            lists = [cleaned(*one.top(some, self.k), self.n_items, self.k) for one in self.generators]
            union, values = self._rescored(some, lists)
            best, best_scores = self._empty_top(len(some), k)
            found = scoring.best(
                union, np.maximum(values, kernels.FLOOR), some.items, exclude_seen, some.starts, some.ends,
                best, best_scores,
            )  # fmt: skip
            top[block], top_scores[block] = best, best_scores
            short.append(block[found < min(k, self.n_items)])
        others = np.concatenate(short)
        if len(others):  # the items beyond the candidates are needed
            top[others], top_scores[others] = super().top(known[others], k, exclude_seen=exclude_seen)
        return top, top_scores

    def _rewrite(self, queries: Queries, dense: Sequence[NDArray[np.float32]]) -> None:
        from nextclick.rerank import kernels

        lists = [best_of_row(scores, self.k) for scores in dense]
        kernels.place_above(dense[0], *self._rescored(queries, lists))

    def _rescored(
        self, queries: Queries, lists: list[Lists]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return the candidates [n, C] of non-empty prefixes and their probabilities, 0 for none.

        lists: the first candidates of each generator.
        """
        from nextclick.rerank import kernels
        from nextclick.rerank.scoring import Scorer

        if self._scorer is None:
            self._scorer = Scorer(self.network)
        if not hasattr(self._room, "place"):
            self._room.place = np.full(self.n_items, kernels.ABSENT, np.int32)
        if self.clicked:
            lists = [*lists, clicked(queries, self.k)]
        items, scores = (np.stack(part) for part in zip(*lists, strict=True))
        union, places, features = kernels.united(items, scores, self.n_items, self._room.place)
        values = self._scorer.probabilities(
            queries, self.last_clicks, union, places, features, self._earlier(queries)
        )
        return union, values

    def _earlier(self, queries: Queries) -> NDArray[np.int32]:
        """Return where earlier clicks stood in the generators' lists, [n, E, G]; G = 0 where unread."""
        found = []
        for one in self.generators if self._depth else ():

            def answer(of: Queries, _: Any, k: int, one: Recommender = one) -> Lists:
                return one.top(of, k)

            found.append(earlier_places(queries, self.k, self._depth, answer, self.n_items))
        return beside(found, len(queries))

    # -- learning

    @property
    def _asks_for_items(self) -> bool:
        """Whether items have vectors of their own here (setting content)."""
        return self.content == "yes" or (self.content == "auto" and self._over_counts)

    @property
    def _depth(self) -> int:
        """Of how many earlier clicks the places are read (setting depth)."""
        read = self.depth == "yes" or (self.depth == "auto" and self._over_counts)
        return self.last_clicks - 1 if read and self.cre else 0

    @property
    def _over_counts(self) -> bool:
        """Whether all generators are tables of counts, which "auto" asks for."""
        return not any(map(reads_sessions, self.generators))

    def _network(self, n_items: int) -> nn.Module:
        from torch import nn

        from nextclick.rerank.network import Reranker, rows_of_places

        content = self._asks_for_items
        if not (content or self.cre or self.scored):
            raise ConfigError(
                f"{self.name}: cre=false and scored=false leave nothing to judge candidates by, as items are "
                "not asked for by vectors of their own over these generators; take content=yes (preset=rr)"
            )
        if self.depth == "yes" and not self.cre:
            raise ConfigError(
                f"{self.name}: depth=yes tells the rank embeddings which places to ask for, and cre=false "
                "leaves them out; take depth=no, or cre=true"
            )
        network = Reranker(
            n_items, self.dim if content else min(self.dim, _NARROW), len(self.generators) + self.clicked,
            rows_of_places(self.k, self.ranks == "shared"),
            cre=self.cre, scored=self.scored, dropout=self.dropout, temperature=self.temperature,
            content=content, deep=len(self.generators) if self._depth else 0,
        )  # fmt: skip
        for name, weights in network.named_parameters():
            if name.startswith("judge"):
                continue  # as linear layers start
            if weights.ndim < 2:
                nn.init.zeros_(weights)
            elif name.startswith("encoder"):
                nn.init.normal_(weights, std=0.05)  # as STAMP is started
            elif name.startswith("depths"):
                nn.init.normal_(weights, std=0.01)
            else:
                nn.init.xavier_uniform_(weights)
        nn.init.normal_(network.items.weight, std=self.spread)
        return network

    def _learn(self, sessions: Sessions, workers: Workers) -> None:
        import torch

        from nextclick.network.training import Options
        from nextclick.rerank.training import Reordering

        if sessions.n_pairs == 0:
            raise DataError(f"{self.name}: no training session has two clicks, so there is nothing to learn")
        self._ready(sessions)
        self._forget()
        self.network = self._started()
        if self.start == "generator":
            self._take_items()
        wanted = Wanted(self.k, self.held_out, self.folds, self._depth).within(sessions)
        wait = workers.wait if workers.rank else None
        with training_lists(self.generators, sessions, wanted, self._tell, self._run, wait) as made:
            if not workers.rank:
                workers.wait()
            if self.network.judge is not None:
                counts = torch.from_numpy(sessions.support()).float().log1p()
                self.network.popularity.copy_(counts / counts.max().clamp(min=1.0))
            weight_decay = self.weight_decay
            if weight_decay is None:
                weight_decay = _WEIGHT_DECAY[self._asks_for_items]
            objective = Reordering(
                self.network, sessions, made, batch_size=self.batch_size, longest=self.last_clicks,
                share=self.validation, epochs=self.epochs, every=self.every, seed=self.seed, workers=workers,
                weight_decay=weight_decay, clicked=self.clicked,
            )  # fmt: skip
            self.facts |= {
                "candidates": made.about,
                "examples": objective.n_examples,
                "prefixes": len(made.rows),
            }
            if objective.n_examples == 0:
                names = " or ".join(one.name for one in self.generators)
                raise DataError(
                    f"{self.name}: of {len(made.rows):,} training prefixes none has its next click among the "
                    f"{self.k} candidates of {names}, so there is nothing to learn; raise k, or take another "
                    "generator"
                )
            looks = objective.looks
            decay = self.decay ** (objective.every / objective.steps)
            options = Options(looks, self.learning_rate, decay, looks, self.seed)
            validate = objective.measure if len(objective.validating) else None
            digests = {
                "generators": [identity(one) for one in self.generators],
                "sessions": checksum(sessions),
            }
            self._run_stage("re-ranking", objective, options, validate, digests)

    def _take_items(self) -> None:
        """Start the item vectors from those of a generator that has some, scaled to a usual size.

        Wider ones are turned to where they vary most, of which the first coordinates are taken.
        """
        import torch

        for one in self.generators:
            items = getattr(getattr(one, "network", None), "items", None)
            vectors = items.weight.detach() if items is not None else None
            if vectors is None and (space := one.item_space()) is not None:
                vectors = torch.from_numpy(space.vectors)
            if vectors is not None:
                with torch.no_grad():
                    vectors, room = vectors[: self.n_items], self.network.items.weight.shape[1]
                    if vectors.shape[1] > room:
                        largest = torch.linalg.eigh(vectors.T @ vectors).eigenvectors.flip(1)  # [D, D]
                        vectors = vectors @ largest[:, :room]
                    scale = _STARTED / max(float(vectors.std()), 1e-12)
                    self.network.items.weight[:, : vectors.shape[1]] = vectors * scale
                return
        there = ", ".join(one.name for one in self.generators)
        raise ConfigError(f"{self.name}: start=generator, but {there} has no item vectors; take start=random")

    # -- what was learnt

    def _own_state(self) -> dict[str, NDArray[Any]]:
        return TrainedRecommender._state(self)

    def _restore_own(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._forget()
        TrainedRecommender._restore(self, state)
