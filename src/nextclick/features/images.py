"""Pictures of items: read safely, put through an extractor in batches, resumable."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import urllib.request
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import DataError, MissingExtraError
from nextclick.files import write_json

FORMATS = ["JPEG", "PNG", "WEBP"]
MAX_PIXELS = 50_000_000  # of a picture; a small file may claim to be any size
_MAX_BYTES = 50_000_000  # of a picture's file
_ELSEWHERE = ("http://", "https://")
_SECONDS = 20  # to wait for one
_SAVED_EVERY = 20  # batches

TODO, DONE, MISSING, UNREADABLE, TOO_LARGE = range(5)
"""What became of a picture."""

Progress = Callable[[str, int, int], None]


class Extractor(Protocol):
    """What turns pictures into vectors.

    name: what it is and where its weights are from, as reports show it;  width: numbers of a vector;
    side: pixels of the square pictures that it takes;  identity: text that changes when its weights do.
    """

    name: str
    width: int
    side: int
    identity: str

    def __call__(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a vector for each picture, [B, width]; pixels: [B, 3, side, side] RGB in 0..1."""
        ...


def read(place: str, folder: Path, side: int, limit: int = MAX_PIXELS) -> NDArray[np.uint8] | int:
    """Return a picture as uint8 [side, side, 3], or why there is none: MISSING, UNREADABLE, TOO_LARGE.

    place: a path from ``folder``, or an address (http, https);  limit: pixels. The picture is scaled so that
    its shorter side fits, and its middle is taken; what is transparent becomes white. Only JPEG, PNG and
    WebP are opened, and none is unpacked before its size is known.
    """
    from PIL import Image, ImageOps

    raw = _bytes(place, folder)
    if isinstance(raw, int):
        return raw
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own warning of large pictures; the limit below decides
            with Image.open(io.BytesIO(raw), formats=FORMATS) as opened:
                if opened.width * opened.height > limit:
                    return TOO_LARGE
                opened.draft("RGB", (2 * side, 2 * side))  # JPEG: unpack at about the size needed
                turned = ImageOps.exif_transpose(opened).convert("RGBA")
        paper = Image.new("RGBA", turned.size, "white")
        paper.alpha_composite(turned)
        fitted = ImageOps.fit(paper.convert("RGB"), (side, side), Image.Resampling.BILINEAR)
    except Image.DecompressionBombError:
        return TOO_LARGE
    except (OSError, SyntaxError, ValueError, EOFError, ArithmeticError, MemoryError):
        return UNREADABLE  # Pillow raises all of these for broken files
    return np.asarray(fitted)


def _bytes(place: str, folder: Path) -> bytes | int:
    if not place:
        return MISSING
    try:
        if place.startswith(_ELSEWHERE):
            with urllib.request.urlopen(place, timeout=_SECONDS) as answer:
                raw = answer.read(_MAX_BYTES + 1)
            return TOO_LARGE if len(raw) > _MAX_BYTES else raw
        with (folder / place).open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        return TOO_LARGE if len(raw) > _MAX_BYTES else raw
    except (OSError, ValueError, http.client.HTTPException):  # URLError is an OSError
        return MISSING


def require_pillow() -> None:
    """Raise MissingExtraError when Pillow is not installed."""
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise MissingExtraError("reading pictures", "features") from None


def extract(
    places: Sequence[str],
    folder: Path,
    extractor: Extractor,
    *,
    work: Path | None = None,
    batch: int = 32,
    limit: int = MAX_PIXELS,
    progress: Progress = lambda what, done, total: None,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return the vectors of pictures, length 1, [n, width], and what became of each, uint8 [n].

    The vector of a picture that is missing, unreadable or too large is zero.  work: a folder where what is
    done is kept every few batches; a later call with the same pictures and extractor goes on from there.
    Raises DataError when the extractor returns vectors of another width or that are not finite.
    """
    require_pillow()
    vectors, state = np.zeros((len(places), extractor.width), np.float32), np.zeros(len(places), np.uint8)
    about = {"extractor": extractor.identity, "pictures": _digest(places, folder, limit)}
    if work is not None:
        _take_up(work, about, vectors, state)
        for row in np.flatnonzero(state == MISSING).tolist():
            if places[row].startswith(_ELSEWHERE):  # the network may be back
                state[row] = TODO
    todo = np.flatnonzero(state == TODO)
    for number, low in enumerate(range(0, len(todo), batch), start=1):
        rows = todo[low : low + batch]
        found = [read(places[row], folder, extractor.side, limit) for row in rows.tolist()]
        good = np.array([not isinstance(picture, int) for picture in found])
        state[rows] = [picture if isinstance(picture, int) else DONE for picture in found]
        if good.any():
            pixels = np.stack([picture for picture in found if not isinstance(picture, int)])
            vectors[rows[good]] = _vectors(extractor, pixels)
        progress("reading pictures", len(places) - len(todo) + low + len(rows), len(places))
        if work is not None and number % _SAVED_EVERY == 0:
            _keep(work, about, vectors, state)
    return vectors, state


def _vectors(extractor: Extractor, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    scaled = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
    found = np.asarray(extractor(scaled), np.float32)
    if found.shape != (len(pixels), extractor.width) or not np.isfinite(found).all():
        raise DataError(
            f"the extractor {extractor.name} returned {found.shape} for {len(pixels)} pictures, or numbers "
            f"that are not finite; expected [{len(pixels)}, {extractor.width}]"
        )
    unit: NDArray[np.float32] = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
    return unit


def _digest(places: Sequence[str], folder: Path, limit: int) -> str:
    """Return what changes when a picture does: names, sizes and times of the files."""
    digest = hashlib.sha256(f"{limit}".encode())
    for place in places:
        digest.update(place.encode() + b"\0")
        try:
            status = (folder / place).stat()
            digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
        except (OSError, ValueError):
            digest.update(b"-")
    return digest.hexdigest()


def _take_up(
    work: Path, about: dict[str, Any], vectors: NDArray[np.float32], state: NDArray[np.uint8]
) -> None:
    """Fill in what an earlier run of the same work has done."""
    try:
        if json.loads((work / "about.json").read_text("utf-8")) == about:
            vectors[:] = np.load(work / "vectors.npy", allow_pickle=False)
            state[:] = np.load(work / "state.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # none, or written half: begin anew
        vectors[:], state[:] = 0, TODO


def _keep(work: Path, about: dict[str, Any], vectors: NDArray[np.float32], state: NDArray[np.uint8]) -> None:
    """Write down what is done; ``about`` last, so that half a writing does not count."""
    work.mkdir(parents=True, exist_ok=True)
    (work / "about.json").unlink(missing_ok=True)
    np.save(work / "vectors.npy", vectors, allow_pickle=False)
    np.save(work / "state.npy", state, allow_pickle=False)
    write_json(work / "about.json", about)
