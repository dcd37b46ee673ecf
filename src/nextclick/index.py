"""An approximate index of item vectors: near neighbours without looking at every item.

Beside a model lie, once ``nextclick index`` was called,

index.faiss   a graph of near neighbours (HNSW) with the vectors, or vectors of one byte a coordinate in cells
              (an inverted file), opened by memory map
index.json    format, size and hash of it, the hash of the model it belongs to, how widely to search, and the
              recall against exact search that was measured when it was built

Both are numbers only. An index of another model, or one that has changed, is refused.
Source: both by the library faiss; the choices and their measurement are in benchmarks/index_speed.py and
benchmarks/huge_catalogue.py.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

Kind = Literal["graph", "cells"]
"""A graph of near neighbours, or cells of which the nearest are looked through, at a byte a coordinate."""

FORMAT = "nextclick-index"
FORMAT_VERSION = 2  # 1 knew graphs only
LARGE = 2_000_000
"""Items from which on cells are the default: a graph takes many times as long to build, and the memory."""
GRAPH, ABOUT = "index.faiss", "index.json"
_PART = 20_000  # vectors added between two words on how far it is
_EXTRA = 3  # times as many candidates as asked for from rounded vectors, to be ordered by exact ones
_TRAINED = 24  # vectors drawn for each cell, to find the cells
_KEYS = {"bytes": int, "sha256": str, "model": str, "likeness": str, "items": int, "dim": int, "width": int,
         "recall": float}  # fmt: skip


@dataclass(frozen=True)
class ItemSpace:
    """Items as points. vectors: float32 [N, D];  likeness: by what two of them are compared."""

    vectors: NDArray[np.float32]
    likeness: Likeness


class Index:
    """What is searched; ``width``: candidates that a search of a graph keeps, or cells that it looks through.

    The wider the more exact. kind: as above;  recall: share of the 20 exact neighbours found when it was
    built, None where it was not measured.  Raises MissingExtraError where faiss is not installed.
    """

    def __init__(
        self, graph: Any, likeness: Likeness, width: int, recall: float | None = None, kind: Kind = "graph",
        *, mapped: bool = False,
    ) -> None:  # fmt: skip
        self._graph, self.likeness, self.width, self.recall = graph, likeness, width, recall
        self.kind: Kind = kind
        self._mapped = mapped

    @classmethod
    def build(
        cls,
        space: ItemSpace,
        *,
        kind: Kind | None = None,
        cells: int | None = None,
        links: int = 16,
        build_width: int = 100,
        width: int = 64,
        threads: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Index:
        """Build the index of a space.

        kind: "graph", or "cells", the default from LARGE items on;  cells: how many; 8 sqrt(N) by default.
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
        vectors = _numbers(space.vectors, 0)
        kind = kind or ("cells" if len(vectors) >= LARGE else "graph")
        cells = min(len(vectors), cells or max(1, int(8 * len(vectors) ** 0.5)))
        if cells < 1:
            raise ConfigError(f"cells={cells}: expected at least 1")
        metric = faiss.METRIC_INNER_PRODUCT if space.likeness == "product" else faiss.METRIC_L2
        if kind == "cells":
            with _threads(threads):
                graph = _trained(faiss, vectors, cells, metric)
            width = min(width, cells)
        else:
            graph = faiss.IndexHNSWFlat(vectors.shape[1], links, metric)
            graph.hnsw.efConstruction = build_width
        index = cls(graph, space.likeness, width, kind=kind)
        index.add(vectors, threads=threads, progress=progress)
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
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise DataError(f"an index of width {self.dim} takes no vectors of shape {vectors.shape}")
        vectors = _numbers(vectors, len(self))
        with _threads(threads):
            for low in range(0, len(vectors), _PART):
                self._graph.add(vectors[low : low + _PART])
                if progress is not None:
                    progress(min(low + _PART, len(vectors)), len(vectors))

    def __len__(self) -> int:
        return int(self._graph.ntotal)

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return int(self._graph.d)

    def search(self, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """Return codes of about the k nearest items of each query, best first; -1: none found.

        [n, k] from a graph. From cells [n, 3 k], as their order is that of rounded vectors: the k nearest
        are those among them that exact vectors find nearest.
        """
        k = k if self.kind == "graph" else min(k * _EXTRA, len(self))
        if len(queries) == 0:
            return np.empty((0, k), np.int64)
        if self.kind == "graph":
            parameters = _faiss().SearchParametersHNSW(efSearch=max(self.width, k))
        else:
            parameters = _faiss().SearchParametersIVF(nprobe=self.width)
        found = self._graph.search(np.ascontiguousarray(queries, np.float32), k, params=parameters)[1]
        return np.where((found >= 0) & (found < len(self)), found, -1)

    def measured(self, queries: NDArray[np.float32], exact: NDArray[np.integer[Any]]) -> float:
        """Return the share of exact neighbours [n, k] that a search finds; order does not count."""
        found = self.search(queries, exact.shape[1])
        return float(np.mean([np.isin(of, row).mean() for of, row in zip(exact, found, strict=True)]))

    def widen(
        self, queries: NDArray[np.float32], exact: NDArray[np.integer[Any]], recall: float, most: int = 2048
    ) -> float:
        """Double the width until a search finds this share of exact neighbours; return the share.

        From 16 candidates of a graph, or 4 cells, up to ``most`` or all cells; then it is narrowed again as
        far as the share allows, to within an eighth.
        """
        self.width = 16 if self.kind == "graph" else min(4, self._graph.nlist)
        most = most if self.kind == "graph" else min(most, self._graph.nlist)
        short = 0  # the widest that was not enough
        while (reached := self.measured(queries, exact)) < recall and self.width < most:
            short, self.width = self.width, min(2 * self.width, most)
        enough = self.width
        while short and reached >= recall and enough - short > max(1, enough // 8):
            self.width = (short + enough) // 2
            found = self.measured(queries, exact)
            if found < recall:
                short = self.width
            else:
                enough, reached = self.width, found
        self.width, self.recall = enough, reached
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
                "kind": self.kind, "likeness": self.likeness,
                "items": len(self), "dim": self.dim, "width": self.width,
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
        kind = about.get("kind", "graph")
        made = faiss.IndexHNSWFlat if kind == "graph" else faiss.IndexIVFScalarQuantizer
        if type(graph) is not made or (graph.ntotal, graph.d) != (about["items"], about["dim"]):
            raise _unfit(folder, "it is no index of these items")
        recall = about["recall"]
        known = None if recall < 0 else recall
        return cls(graph, about["likeness"], about["width"], known, kind, mapped=mapped)


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
    if (
        about["likeness"] not in ("product", "euclidean")
        or about.get("kind", "graph") not in ("graph", "cells")
        or about["width"] < 1
    ):
        raise _unfit(folder, f"{ABOUT} is wrong")
    return about


def _numbers(vectors: NDArray[np.float32], first: int) -> NDArray[np.float32]:
    """Return the vectors of items from code ``first`` on as faiss takes them, once all are numbers."""
    vectors = np.ascontiguousarray(vectors, np.float32)
    broken = ~np.isfinite(vectors).all(axis=1)
    if broken.any():
        raise DataError(
            f"{int(broken.sum())} of {len(vectors)} item vectors are not all numbers (the first is "
            f"item code {first + int(broken.argmax())}); the model is broken, fit it again"
        )
    return vectors


@contextmanager
def _threads(n: int | None) -> Iterator[None]:
    """Let faiss use so many threads, all cores by default, as long as this is open."""
    faiss = _faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(n or machine.cores())
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _trained(faiss: Any, vectors: NDArray[np.float32], cells: int, metric: int) -> Any:
    """Return an empty inverted file, one byte a coordinate, whose cells fit some of the vectors."""
    dim = vectors.shape[1]
    places = faiss.IndexFlat(dim, metric)
    made = faiss.IndexIVFScalarQuantizer(places, dim, cells, faiss.ScalarQuantizer.QT_8bit, metric, False)
    made.cp.seed, made.cp.niter, made.cp.max_points_per_centroid = 1, 10, _TRAINED
    made.cp.min_points_per_centroid = 1  # fewer are as good as there are: no warning
    rng = np.random.default_rng(1)
    drawn = np.sort(rng.choice(len(vectors), min(len(vectors), _TRAINED * cells), replace=False))
    made.train(vectors[drawn])
    return made


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
