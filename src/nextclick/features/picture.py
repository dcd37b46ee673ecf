"""The items nearest to some, as a picture: thumbnails side by side, or titles where there are none."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nextclick.features import images
from nextclick.features.store import Features
from nextclick.files import new_file
from nextclick.sessions import ItemId

_TILE, _TEXT, _EDGE = 160, 48, 12  # pixels of a thumbnail, of the words below it, around both
_INK, _MUTED, _PAPER = "#1f2328", "#6e7781", "white"
# Of fonts that most systems have one of; the earlier ones know more scripts.
_FONTS = ("NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "arialuni.ttf", "DejaVuSans.ttf", "arial.ttf")


def draw_neighbours(
    features: Features,
    items: Sequence[ItemId],
    name: str,
    path: Path,
    *,
    k: int = 3,
    pictures: tuple[dict[ItemId, str], Path] | None = None,
    titles: dict[ItemId, str] | None = None,
) -> None:
    """Write a PNG with a row for each item: itself, then its k nearest by cosine, nearest first.

    pictures: places of thumbnails by item, and the folder they are taken from;  titles: words by item.
    As figure 2 of Hidasi et al., RecSys 2016.  Raises DataError as ``Features.neighbours`` does.
    """
    images.require_pillow()
    from PIL import Image, ImageDraw

    rows = [[(item, 1.0), *features.neighbours(item, name, k)] for item in items]
    wide = _EDGE + (k + 1) * (_TILE + _EDGE)
    canvas = Image.new("RGB", (wide, _EDGE + len(rows) * (_TILE + _TEXT + _EDGE)), _PAPER)
    draw, font = ImageDraw.Draw(canvas), _font()
    for y, row in enumerate(rows):
        top = _EDGE + y * (_TILE + _TEXT + _EDGE)
        for x, (item, cosine) in enumerate(row):
            left = _EDGE + x * (_TILE + _EDGE)
            tile = _thumbnail(item, pictures)
            if tile is not None:
                canvas.paste(Image.fromarray(tile), (left, top))
            else:
                draw.rectangle((left, top, left + _TILE, top + _TILE), outline=_MUTED)
            said = (titles or {}).get(item, "")
            lines = [str(item) if x == 0 else f"{item}  {cosine:.2f}", *textwrap.wrap(said, 26)[:2]]
            words = "\n".join(lines) if font else _latin("\n".join(lines))
            draw.multiline_text((left, top + _TILE + 4), words, _INK if x == 0 else _MUTED, font)
    raw = io.BytesIO()
    canvas.save(raw, "PNG")
    with new_file(path) as aside:
        aside.write_bytes(raw.getvalue())


def _thumbnail(item: ItemId, pictures: tuple[dict[ItemId, str], Path] | None) -> Any:
    if pictures is None:
        return None
    found = images.read(pictures[0].get(item, ""), pictures[1], _TILE)
    return None if isinstance(found, int) else found


def _font() -> Any:
    """Return letters of the system's, None where it has none of those that are known."""
    from PIL import ImageFont

    for name in _FONTS:
        try:
            return ImageFont.truetype(name, 11)
        except OSError:
            continue
    return None


def _latin(text: str) -> str:
    """Pillow's own letters are Latin; others become question marks rather than an error."""
    return text.encode("latin-1", "replace").decode("latin-1")
