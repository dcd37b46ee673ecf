"""Compiling numeric loops, and running them on all cores.

Importing this module loads numba (about a second), so kernels are imported inside the functions that
run them: ``nextclick --help`` never waits for a compiler.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from nextclick import machine

T = TypeVar("T")


def _cache_folder() -> Path:
    """Return a folder of this user's own for compiled code, made if need be.

    numba's cache files can run code when read, so they must not lie where others may write; and where
    neither the package nor a home folder is writable, numba would refuse to import at all.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        folder = base / "nextclick" / "numba"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):
        return Path(tempfile.mkdtemp(prefix="nextclick-numba-"))


if "NUMBA_CACHE_DIR" not in os.environ:
    os.environ["NUMBA_CACHE_DIR"] = str(_cache_folder())

import numba  # noqa: E402 - reads NUMBA_CACHE_DIR when it is imported
import numpy as np  # noqa: E402


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function of plain arrays and numbers; it runs without the interpreter lock."""
    kernel: Callable[..., Any] = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    return kernel


def fast(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile like ``compiled``, with sums in any order and estimated roots: for finite numbers only."""
    make = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
    kernel: Callable[..., Any] = make(function)
    return kernel


@compiled
def uniform(state):  # type: ignore[no-untyped-def]
    """Advance a SplitMix64 counter, uint64 [1], and return a number in [0, 1)."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return float(z >> np.uint64(11)) * (1.0 / 9007199254740992.0)


def in_chunks(n: int, work: Callable[[slice], T], *, at_least: int = 64) -> list[T]:
    """Run ``work`` over consecutive slices of range(n) on all cores; return its results in order.

    at_least: the smallest slice worth handing to a thread; a smaller n runs in the calling thread.
    """
    threads = machine.cores()
    if threads == 1 or n <= at_least:
        return [work(slice(0, n))]
    size = max(at_least, -(-n // (threads * 8)))
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, [slice(low, min(low + size, n)) for low in range(0, n, size)]))


def ragged(parts: list[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Join ragged rows: parts of (lengths, values, ...) become (offsets, values, ...)."""
    lengths = np.concatenate([part[0] for part in parts])
    offsets = np.r_[0, np.cumsum(lengths)].astype(np.int64)
    return offsets, *(np.concatenate(columns) for columns in list(zip(*parts, strict=True))[1:])
