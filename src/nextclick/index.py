"""An approximate index of item vectors: near neighbours without looking at every item.

Beside a model lie, once ``nextclick index`` was called,

index.faiss   a graph of near neighbours (HNSW) with the vectors, opened by memory map
index.json    format, size and hash of it, the hash of the model it belongs to, how widely to search, and the
              recall against exact search that was measured when it was built

Both are numbers only. An index of another model, or one that has changed, is refused.
Source: HNSW by the library faiss; the choice and its measurement are in benchmarks/index_speed.py.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nextclick import machine
from nextclick.errors import ArtifactError, ConfigError, DataError, MissingExtraError
from nextclick.files import new_file, sha256, write_json

Likeness = Literal["product", "euclidean"]
"""What is searched for: the largest inner products, or the smallest Euclidean distances."""

FORMAT = "nextclick-index"
FORMAT_VERSION = 1
GRAPH, ABOUT = "index.faiss", "index.json"
_PART = 20_000  # vectors added between two words on how far it is
_KEYS = {"bytes": int, "sha256": str, "model": str, "likeness": str, "items": int, "dim": int, "width": int,
         "recall": float}  # fmt: skip


@dataclass(frozen=True)
class ItemSpace:
    """Items as points. vectors: float32 [N, D];  likeness: by what two of them are compared."""

    vectors: NDArray[np.float32]
    likeness: Likeness


class Index:
    """A graph to search in; ``width`` is how many candidates a search keeps, the wider the more exact.

    recall: share of the 20 exact neighbours found when it was built, None where it was not measured.
    Raises MissingExtraError where faiss is not installed.
    """

    def __init__(
        self, graph: Any, likeness: Likeness, width: int, recall: float | None = None, *, mapped: bool = False
    ) -> None:
        self._graph, self.likeness, self.width, self.recall = graph, likeness, width, recall
        self._mapped = mapped

    @classmethod
    def build(
        cls,
        space: ItemSpace,
        *,
        links: int = 16,
        build_width: int = 100,
        width: int = 64,
        threads: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Index:
        """Build the graph of a space.

        links: of an item to near ones (twice as many on the ground level);  build_width: candidates kept
        while an item is added;  width: as above;  threads: all cores by default; with one, the same vectors
        give the same graph, with more the order of insertion is left to chance;  progress: called with
        (vectors added, of all).
        Raises DataError for vectors that are no numbers, ConfigError for settings out of range.
        """
        faiss = _faiss()
        if space.vectors.ndim != 2 or len(space.vectors) == 0:
            shape = space.vectors.shape
            raise DataError(f"an index needs vectors [items, width], found an array of shape {shape}")
        if not 2 <= links <= 512 or build_width < 1 or width < 1:
            raise ConfigError(f"links={links}, build_width={build_width}, width={width}: expected 2 to 512 "
                              "links and widths of at least 1")  # fmt: skip
        metric = faiss.METRIC_INNER_PRODUCT if space.likeness == "product" else faiss.METRIC_L2
        graph = faiss.IndexHNSWFlat(space.vectors.shape[1], links, metric)
        graph.hnsw.efConstruction = build_width
        index = cls(graph, space.likeness, width)
        index.add(space.vectors, threads=threads, progress=progress)
        return index

    def add(
        self,
        vectors: NDArray[np.float32],
        *,
        threads: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Add items behind those there are, [n, width].

        threads, progress: as in ``build``.
        Raises DataError for vectors of another width, or that are no numbers, and ConfigError where the index
        was opened by memory map.
        """
        if self._mapped:  # the library would end the process
            raise ConfigError("an index opened by memory map takes no items: open it with mapped=False")
        vectors = np.ascontiguousarray(vectors, np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise DataError(f"an index of width {self.dim} takes no vectors of shape {vectors.shape}")
        broken = ~np.isfinite(vectors).all(axis=1)
        if broken.any():
            raise DataError(
                f"{int(broken.sum())} of {len(vectors)} item vectors are not all numbers (the first is "
                f"item code {len(self) + int(broken.argmax())}); the model is broken, fit it again"
            )
        faiss = _faiss()
        before = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(threads or machine.cores())
        try:
            for low in range(0, len(vectors), _PART):
                self._graph.add(vectors[low : low + _PART])
                if progress is not None:
                    progress(min(low + _PART, len(vectors)), len(vectors))
        finally:
            faiss.omp_set_num_threads(before)

    def __len__(self) -> int:
        return int(self._graph.ntotal)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self._graph.d)

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Return codes of about the k nearest items of each query, best first, [n, k]; -1: none found."""
        if len(queries) == 0:
            return np.empty((0, k), np.int64)
        parameters = _faiss().SearchParametersHNSW(efSearch=max(self.width, k))
        found = self._graph.search(np.ascontiguousarray(queries, np.float32), k, params=parameters)[1]
        return np.where((found >= 0) & (found < len(self)), found, -1)

    def measured(self, queries: NDArray[np.float32], exact: NDArray[np.integer[Any]]) -> float:
        """Return the share of exact neighbours [n, k] that a search finds."""
        found = self.search(queries, exact.shape[1])
        return float(np.mean([np.isin(of, row).mean() for of, row in zip(exact, found, strict=True)]))

    def widen(
        self, queries: NDArray[np.float32], exact: NDArray[np.integer[Any]], recall: float, most: int = 2048
    ) -> float:
        """Double the width from 16 until a search finds this share of exact neighbours; return the share."""
        self.width = 16
        while (reached := self.measured(queries, exact)) < recall and self.width < most:
            self.width *= 2
        self.recall = reached
        return reached

    def save(self, folder: Path, model: str) -> None:
        """Write the index beside a model; model: SHA-256 of the arrays that it belongs to."""
        with new_file(folder / GRAPH) as aside:
            _faiss().write_index(self._graph, str(aside))
        write_json(
            folder / ABOUT,
            {
                "format": FORMAT, "format_version": FORMAT_VERSION, "model": model,
                "bytes": (folder / GRAPH).stat().st_size, "sha256": sha256(folder / GRAPH),
                "likeness": self.likeness, "items": len(self), "dim": self.dim, "width": self.width,
                "recall": -1.0 if self.recall is None else self.recall,
            },
        )  # fmt: skip

    @classmethod
    def open(cls, folder: Path, *, mapped: bool = True) -> Index:
        """Open the index beside a model. Raises ArtifactError as ``attached`` does.

        mapped: by memory map, to search in; else in memory, to add items to.
        """
        about = read_about(folder)
        faiss = _faiss()
        try:
            graph = faiss.read_index(str(folder / GRAPH), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
        except RuntimeError as error:
            raise _unfit(folder, "it cannot be read") from error
        if type(graph) is not faiss.IndexHNSWFlat or (graph.ntotal, graph.d) != (
            about["items"],
            about["dim"],
        ):
            raise _unfit(folder, "it is no index of these items")
        recall = about["recall"]
        known = None if recall < 0 else recall
        return cls(graph, about["likeness"], about["width"], known, mapped=mapped)


class Attached:
    """The index beside a saved model, checked when the model is loaded and opened when it is first used."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, threading.Lock()
        self._opened: Index | None = None

    def opened(self) -> Index:
        """Return the index. Raises ArtifactError and MissingExtraError as ``Index`` does."""
        with self._lock:
            if self._opened is None:
                self._opened = Index.open(self._folder)
            return self._opened


def attached(folder: Path, model: str, n_items: int) -> Attached | None:
    """Return the index that lies beside a model, None where there is none.

    model: SHA-256 of its arrays.  Raises ArtifactError when the index belongs to another model, is damaged
    (size or hash differ), or is of a newer format.
    """
    if not (folder / ABOUT).exists():
        return None
    about, file = read_about(folder), folder / GRAPH
    if about["model"] != model or about["items"] != n_items:
        raise _unfit(folder, "it does not fit the model beside it")
    if not file.is_file() or file.stat().st_size != about["bytes"] or sha256(file) != about["sha256"]:
        raise _unfit(folder, "it is missing, damaged or changed since it was built")
    return Attached(folder)


def read_about(folder: Path) -> dict[str, Any]:
    """Read what is written about the index beside a model. Raises ArtifactError where it is unfit."""
    try:
        about = json.loads((folder / ABOUT).read_text("utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise _unfit(folder, f"{ABOUT} cannot be read ({error})") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise _unfit(folder, f"{ABOUT} is not that of an index")
    version = about.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ArtifactError(f"{folder / ABOUT}: written in format {version}, this version reads up to "
                            f"{FORMAT_VERSION}: upgrade nextclick")  # fmt: skip
    for key, kind in _KEYS.items():
        if not isinstance(about.get(key), kind):
            raise _unfit(folder, f"{ABOUT} lacks {key!r}, or it is wrong")
    if about["likeness"] not in ("product", "euclidean") or about["width"] < 1:
        raise _unfit(folder, f"{ABOUT} is wrong")
    return about


def remove(folder: Path) -> bool:
    """Remove the index beside a model; return whether there was one."""
    there = (folder / ABOUT).exists() or (folder / GRAPH).exists()
    (folder / ABOUT).unlink(missing_ok=True)
    (folder / GRAPH).unlink(missing_ok=True)
    return there


def _unfit(folder: Path, why: str) -> ArtifactError:
    return ArtifactError(
        f"{folder / GRAPH}: {why}; build it again with: nextclick index {folder}, or remove it with --remove"
    )


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise MissingExtraError("an approximate index", "ann") from None
    return faiss
