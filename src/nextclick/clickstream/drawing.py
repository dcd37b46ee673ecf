"""Click logs of any size, drawn in a stream: in memory are one file's clicks, however many there are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextclick import __version__
from nextclick.clickstream.shape import Shape
from nextclick.errors import ConfigError
from nextclick.files import write_json
from nextclick.places import Url, new_place, place
from nextclick.recommender import Progress

_DAY = 86_400_000  # milliseconds, as all times here
_BLOCK = 1 << 17  # sessions drawn at once


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """What is drawn. The clicks of a stream are the first ones of every longer stream of the same settings.

    events: clicks in all;  shape: see there;  items: in the catalogue;  seed: 0 to 2^63 - 1;
    sessions_per_day: they start evenly spread;  dwell: mean seconds between two clicks beyond the first
    second;  begin: milliseconds since 1970 of the first session.
    Raises ConfigError for values out of range.
    """

    events: int
    shape: Shape = field(default_factory=lambda: Shape.named("yoochoose64"))
    items: int = 200_000
    seed: int = 1
    sessions_per_day: int = 50_000
    dwell: float = 60.0
    begin: int = 1_420_070_400_000

    def __post_init__(self) -> None:
        ranges = {
            "events": (1, 10**12), "items": (2, 2**31 - 2), "seed": (0, 2**63 - 1),
            "sessions_per_day": (1, 10**9), "dwell": (0, 86_400), "begin": (0, 2**42),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name}={getattr(self, name)}: expected a number from {low} to {high:,}")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)


def stream(config: StreamConfig) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield the clicks, sessions in the order in which they start: session_id, item_id, timestamp, int64.

    Items stand in a row, where the share of each is that of a random rank; a step inside a neighbourhood
    draws from its items by popularity. Such a step, like one to any item by popularity, leaves the
    distribution as it is (it is a step of Gibbs sampling), so every click follows the popularity.
    timestamp: milliseconds since 1970.
    """
    from nextclick.clickstream import kernels

    shape, n = config.shape, config.items
    ranks = np.random.default_rng(config.seed).permutation(n)
    cumulative = _cumulative(shape.of_items(n)[ranks])
    guide = np.searchsorted(cumulative, np.linspace(0.0, 1.0, n + 1), side="right") - 1
    guide = np.minimum(guide, n - 1)
    of_length = _cumulative(shape.length.probabilities(shape.longest - shape.shortest + 1))
    left, first, spacing = config.events, 0, _DAY / config.sessions_per_day
    while left > 0:
        lengths = kernels.lengths(config.seed, first, _BLOCK, of_length, shape.shortest)
        offsets = np.r_[0, np.cumsum(lengths, dtype=np.int64)]
        if offsets[-1] >= left:  # the last session ends where the clicks asked for do
            offsets = np.r_[offsets[: np.searchsorted(offsets, left)], left]
        made = {name: np.empty(offsets[-1], np.int64) for name in ("session_id", "item_id", "timestamp")}
        kernels.clicks(
            config.seed, first, offsets, cumulative, guide, shape.aisle, shape.follow, config.begin, spacing,
            config.dwell * 1000.0, *made.values(),
        )  # fmt: skip
        yield made
        left -= int(offsets[-1])
        first += _BLOCK


def _cumulative(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    sums = np.r_[0.0, np.cumsum(probabilities)]
    sums /= sums[-1]
    return sums


def generate(
    config: StreamConfig,
    out: str | Path | Url,
    *,
    file_events: int = 5_000_000,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path | Url:
    """Write a stream as Parquet files in a new folder, all of it or nothing; return the folder.

    out: the folder, or the URL of one, to which it is sent through fsspec when it is complete.
    file_events: a file ends with the block of sessions in which it reaches so many clicks; the clicks do not
    depend on it.  progress: called with (clicks written, clicks in all).
    The files are part-00000.parquet and so on, with columns session_id, item_id and timestamp
    (milliseconds), in row groups of 491,520 clicks; stream.json keeps the settings.
    Raises ConfigError when ``file_events`` is below 1, and DataError when ``out`` exists or the disk is full.
    """
    if file_events < 1:
        raise ConfigError(f"file_events={file_events}: expected at least 1 click in a file")
    target = place(out)
    with new_place(target, overwrite=overwrite) as aside:
        waiting: list[dict[str, NDArray[Any]]] = []
        files = written = inside = 0
        for made in stream(config):
            waiting.append(made)
            inside += len(made["item_id"])
            if inside >= file_events or written + inside == config.events:
                _write(waiting, aside / f"part-{files:05d}.parquet")
                files, written, inside = files + 1, written + inside, 0
                waiting.clear()
                if progress is not None:
                    progress(written, config.events)
        about = {"package_version": __version__, "files": files, "config": config.to_json()}
        write_json(aside / "stream.json", about)
    return target


def _write(parts: list[dict[str, NDArray[Any]]], file: Path) -> None:
    import duckdb

    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.register("given", columns)
        try:
            connection.execute(f"COPY given TO '{_quoted(file)}' (FORMAT parquet, ROW_GROUP_SIZE 491520)")
        except duckdb.IOException as error:
            if "No space left" in str(error):
                raise OSError(28, "No space left on device") from error
            raise


def _quoted(file: Path) -> str:
    return str(file).replace("'", "''")
