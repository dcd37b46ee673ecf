"""The items nearest to an item, the index of a saved model, and what both are asked for by name."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nextclick import artifact
from nextclick.errors import ConfigError, DataError, nearest
from nextclick.features import Features
from nextclick.files import check_new
from nextclick.index import Index, ItemSpace, Kind, attached
from nextclick.network.recommender import NeuralRecommender
from nextclick.recommendations import Recommendation
from nextclick.recommender import Recommender
from nextclick.sessions import UNKNOWN, ItemId, Queries

_ASKED = 500  # sessions that recall is measured with
_K = 20


def neighbours(model: Recommender, item: ItemId, k: int = 20) -> list[Recommendation]:
    """Return the k items nearest to an item in the model's space, and how near they are, best first.

    Scores are cosines, or minus squared distances where the model learnt those; ties go to the more clicked
    item, and the item itself is left out.
    Raises ConfigError when the model has no item space or k is not positive, and DataError when it does not
    know the item.
    """
    if k < 1:
        raise ConfigError(f"k={k}: expected at least 1 item")
    space = space_of(model)
    code = int(model.vocabulary.codes_of([item])[0])
    if code == UNKNOWN:
        ids = [str(known) for known in model.vocabulary.ids_of(range(model.n_items))]
        raise DataError(f"item {item!r} is not one of the {model.n_items:,} that the model knows"
                        f"{nearest(str(item), ids[:10_000])}")  # fmt: skip
    likeness = likeness_to(space, space.vectors[code])
    order = np.argsort(-likeness, kind="stable")
    order = order[order != code][:k]
    return [Recommendation(model.vocabulary.id_of(int(n)), float(likeness[n])) for n in order]


def space_of(model: Recommender) -> ItemSpace:
    """Return the item space of a fitted model. Raises ConfigError when it has none, DataError if broken."""
    model.n_items  # noqa: B018 - refuses before fit
    space = model.item_space()
    if space is None:
        raise ConfigError(
            f"{model.name} has no item vectors, so none are near to others; take a model that learns them "
            "(sml, narm, stamp, gru4rec, bpr-mf, fpmc)"
        )
    if not np.isfinite(space.vectors).all():
        raise DataError(f"{model.name}: some item vectors are not numbers; the model is broken, fit it again")
    return space


def likeness_to(space: ItemSpace, vector: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how near all items are to a point, [N]: cosines, or minus squared Euclidean distances."""
    if space.likeness == "euclidean":
        return -np.square(space.vectors - vector).sum(axis=1)
    lengths = np.linalg.norm(space.vectors, axis=1) * np.linalg.norm(vector)
    return (space.vectors @ vector) / np.maximum(lengths, np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Built:
    """What building an index came to.

    recall: share of the 20 exact nearest items that a search finds, asked with ``asked`` sessions of one
    click each, other ones than the width was chosen with where there are enough items;  seconds: of
    building;  indexed_ms, exact_ms: one such search, and one over all items.
    """

    items: int
    dim: int
    kind: Kind
    width: int
    recall: float
    asked: int
    seconds: float
    indexed_ms: float
    exact_ms: float


def build_index(
    path: Path,
    *,
    kind: Kind | None = None,
    links: int = 16,
    build_width: int = 100,
    recall: float = 0.95,
    threads: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Built:
    """Build the approximate index of a saved network and write it beside it, replacing an older one.

    kind, links, build_width, threads: as in ``Index.build``;  recall: the search is made as wide as it takes
    to find this share of the 20 exact nearest items of sessions of one click, if it can be.
    Raises ConfigError for a model without vectors of sessions and items, or a recall outside 0 to 1.
    """
    tell = progress or (lambda what, done, total: None)
    model = _network_of(path, recall)
    space = space_of(model)
    start = time.perf_counter()
    index = Index.build(
        space, kind=kind, links=links, build_width=build_width, threads=threads,
        progress=lambda done, total: tell("building the index", done, total),
    )  # fmt: skip
    built = _measured(model, space, index, recall, time.perf_counter() - start, tell)
    index.save(path, artifact.arrays_sha256(path))
    return built


def extend_index(
    path: Path,
    features: Features,
    out: Path,
    *,
    recall: float = 0.95,
    threads: int | None = None,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> Built:
    """Write a model that also knows the items that are new in ``features``, with the index of both beside it.

    Nothing is fitted again: the new items get vectors from their features (``with_items``) and are added to
    the graph that lies beside the model in ``path``, which stays as it is. The new index remembers the new
    model, and is refused beside the old one.
    recall, threads: as in ``build_index``.
    Raises ConfigError for a model without an index, or not fitted with features, and where no item is new;
    DataError where ``out`` exists, or features that are not of the kind it was fitted with.
    """
    tell = progress or (lambda what, done, total: None)
    check_new(out, overwrite=overwrite)
    model = _network_of(path, recall)
    if attached(path, artifact.arrays_sha256(path), model.n_items) is None:
        raise ConfigError(f"{path}: no index to add items to; build it first: nextclick index {path}")
    wider = model.with_items(features)
    n = model.n_items
    if wider.n_items == n:
        raise ConfigError(f"{path}: knows every item that has features already; there is none to add")
    space = space_of(wider)
    start = time.perf_counter()
    index = Index.open(path, mapped=False)
    index.add(
        space.vectors[n:], threads=threads, progress=lambda done, total: tell("adding items", done, total)
    )
    built = _measured(wider, space, index, recall, time.perf_counter() - start, tell)
    with artifact.saving(wider, out, overwrite=overwrite) as aside:
        index.save(aside, artifact.arrays_sha256(aside))
    return built


def _network_of(path: Path, recall: float) -> NeuralRecommender:
    if not 0 < recall <= 1:
        raise ConfigError(f"recall={recall}: expected a share above 0, at most 1")
    model = artifact.load(path, with_index=False)
    if not isinstance(model, NeuralRecommender):
        raise ConfigError(
            f"{path}: {model.name} does not search a space of vectors, so no index makes it faster; take a "
            "network (sml, narm, stamp, gru4rec)"
        )
    return model


def _measured(
    model: NeuralRecommender, space: ItemSpace, index: Index, recall: float, seconds: float,
    tell: Callable[[str, int, int], None],
) -> Built:  # fmt: skip
    """Make the search of an index as wide as it takes, and return what it came to."""
    tell("measuring", 0, 1)
    clicked = np.linspace(0, model.n_items - 1, min(2 * _ASKED, model.n_items)).astype(np.int32)
    vectors = model.session_vectors(Queries.of([[code] for code in clicked.tolist()]))
    start = time.perf_counter()
    exact = np.stack([_exact(space, vector, min(_K, model.n_items)) for vector in vectors])
    exact_ms = 1e3 * (time.perf_counter() - start) / len(vectors)
    if len(vectors) == 2 * _ASKED:
        index.widen(vectors[::2], exact[::2], recall)
        vectors, exact = vectors[1::2], exact[1::2]
        index.recall = reached = index.measured(vectors, exact)
    else:  # every item was asked with
        reached = index.widen(vectors, exact, recall)
    start = time.perf_counter()
    for vector in vectors:
        index.search(vector[None], _K)
    indexed_ms = 1e3 * (time.perf_counter() - start) / len(vectors)
    tell("measured", 1, 1)
    return Built(
        len(index), index.dim, index.kind, index.width, reached, len(vectors), seconds, indexed_ms, exact_ms
    )


def _exact(space: ItemSpace, vector: NDArray[np.float32], k: int) -> NDArray[np.intp]:
    if space.likeness == "product":
        scores = space.vectors @ vector
    else:
        scores = -np.square(space.vectors - vector).sum(axis=1)
    best = np.argpartition(-scores, k - 1)[:k]
    return best[np.argsort(-scores[best], kind="stable")]
