"""Thumbnails of the products: the outline tells the subcategory, the fill colour, pattern and tone.

Pillow draws and encodes; it is the extra ``report`` and only loaded here, when pictures are wanted.
"""

from __future__ import annotations

import colorsys
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import MissingExtraError
from nextclick.shop.catalogue import PATTERN, PATTERNS, SUBCATEGORIES, TONE, Catalogue
from nextclick.shop.config import ShopConfig

if TYPE_CHECKING:
    from PIL.Image import Image

SIZE = 64  # pixels each way
_FINE = 2 * SIZE  # drawn at this size and averaged down, for smooth edges
_SUPPLE = 15.0  # degrees of hue by which a tone turns a colour, at most
HUES = (0, 30, 52, 118, 172, 214, 272, 325)  # degrees, of catalogue.COLOURS
_BODY, _MARKED = 1, 4  # paints: background, body, dark, light, and the pattern's mark on the body
_ARC = 40  # corners of a round part

# Parts of an outline on a board of 100 x 100, painted in order.  First letter: p = polygon (x y x y ...),
# e = ellipse in the box (left top right bottom), r = box.  Last letter: b = body in the product's fill,
# d = darker detail, l = light detail, c = cut out.
OUTLINES: dict[str, str] = {
    "Backpack": "e 36 8 64 36 d;e 42 14 58 34 c;r 24 26 76 88 b;e 24 12 76 50 b;r 32 56 68 80 d;"
    "r 35 59 65 77 b",
    "Tote": "e 32 8 68 64 d;e 37 13 63 60 c;p 20 38 80 38 88 90 12 90 b;r 18 38 82 43 d",
    "Suitcase": "r 40 6 60 26 d;r 44 10 56 26 c;r 24 22 76 86 b;r 36 22 39 86 d;r 61 22 64 86 d;"
    "e 28 84 38 94 d;e 62 84 72 94 d",
    "Wallet": "r 10 30 90 76 b;p 10 30 84 22 90 30 d;r 64 46 90 60 d;e 69 49 77 57 l",
    "Table lamp": "p 34 14 66 14 82 52 18 52 b;r 47 52 53 82 d;e 32 78 68 92 d",
    "Floor lamp": "p 38 4 62 4 74 30 26 30 b;r 48 30 52 92 d;e 34 88 66 96 d",
    "Pendant": "r 49 2 51 38 d;r 45 30 55 40 d;e 14 36 86 108 b;r 0 72 100 110 c;e 40 66 60 84 l",
    "Lantern": "e 38 4 62 28 d;e 42 8 58 26 c;p 30 30 50 14 70 30 d;r 28 30 72 86 b;e 42 44 58 76 l;"
    "r 24 84 76 92 d",
    "Chair": "r 28 6 36 94 d;r 28 8 70 48 b;r 26 54 78 64 b;r 70 60 77 94 d;r 27 60 34 94 d",
    "Stool": "p 36 34 42 34 26 94 19 94 d;p 58 34 64 34 81 94 74 94 d;r 28 66 72 71 d;e 18 20 82 42 b",
    "Armchair": "r 24 14 76 70 b;e 24 6 76 34 b;e 8 38 32 62 b;r 8 50 32 84 b;e 68 38 92 62 b;"
    "r 68 50 92 84 b;r 32 56 68 66 l;r 30 66 70 84 d;r 14 84 20 94 d;r 80 84 86 94 d",
    "Bench": "r 6 42 94 56 b;r 6 24 94 34 b;r 12 24 18 86 d;r 82 24 88 86 d",
    "Mug": "e 58 34 92 72 d;e 65 41 84 65 c;r 20 22 72 84 b;e 20 76 72 92 b;e 20 15 72 29 d",
    "Plate": "e 6 14 94 90 b;e 26 31 74 73 l;e 30 35 70 69 b",
    "Bowl": "e 8 -2 92 86 b;r -20 -30 120 40 c;e 8 32 92 48 d;r 36 82 64 90 d",
    "Teapot": "p 78 50 98 28 94 26 70 40 b;e 2 34 40 78 d;e 9 42 34 71 c;e 20 28 82 88 b;"
    "e 34 22 68 36 d;e 46 12 56 24 d",
    "Shirt": "p 30 14 70 14 96 40 82 54 74 46 74 92 26 92 26 46 18 54 4 40 b;p 40 14 60 14 50 30 c;"
    "r 49 30 51 92 d",
    "Sweater": "p 30 12 70 12 88 30 96 84 82 86 74 50 74 92 26 92 26 50 18 86 4 84 12 30 b;"
    "e 38 4 62 24 d;e 42 2 58 19 c;r 26 86 74 92 d",
    "Dress": "p 36 6 42 6 50 18 58 6 64 6 68 26 60 46 84 94 16 94 40 46 32 26 b;r 39 43 61 49 d",
    "Trousers": "p 28 6 72 6 80 94 58 94 50 36 42 94 20 94 b;r 28 6 72 14 d",
    "Sneaker": "p 10 36 26 32 36 44 56 46 66 58 90 62 94 78 8 78 b;r 6 76 95 85 l;"
    "p 34 44 56 46 60 52 40 50 d",
    "Boot": "p 28 8 60 8 60 52 84 62 90 80 28 80 b;r 26 78 91 88 d;r 28 8 60 17 d",
    "Sandal": "e 6 62 94 88 d;p 24 66 34 36 44 36 40 68 b;p 52 68 62 44 78 50 86 70 b;r 28 36 42 44 d",
    "Slipper": "e 4 54 96 86 d;e 34 34 96 84 b;e 6 50 48 76 l;r 4 74 96 80 d",
    "Box": "p 12 36 50 22 88 36 50 50 l;p 12 36 50 50 50 92 12 76 b;p 88 36 50 50 50 92 88 76 d",
    "Basket": "e 22 6 78 74 d;e 28 12 72 70 c;p 10 44 90 44 78 90 22 90 b;r 7 40 93 49 d",
    "Shelf": "r 18 6 82 94 b;r 25 13 75 33 c;r 25 40 75 60 c;r 25 67 75 87 c;r 31 20 37 33 d;"
    "r 39 17 44 33 d;r 56 46 68 60 d",
    "Cabinet": "r 14 16 86 84 b;r 49 16 51 84 d;e 42 46 47 54 l;e 53 46 58 54 l;r 18 84 24 94 d;"
    "r 76 84 82 94 d;r 11 12 89 19 d",
    "Hat": "e 2 62 98 86 d;e 26 20 74 70 b;r 26 44 74 72 b;r 26 60 74 69 d",
    "Scarf": "e 24 6 76 50 b;e 36 14 64 38 c;p 34 38 54 42 48 94 26 92 b;"
    "p 50 40 68 36 80 84 62 88 b;r 26 90 48 95 d",
    "Belt": "e 4 22 96 84 b;e 15 32 85 73 c;r 38 66 62 92 d;r 43 71 57 87 b",
    "Watch": "r 38 2 62 98 b;e 22 22 78 78 d;e 28 28 72 72 l;p 49 35 51 35 51 50 63 56 62 58 49 52 d",
}


def require_pillow() -> None:
    """Raise MissingExtraError when Pillow is not installed."""
    if importlib.util.find_spec("PIL") is None:
        raise MissingExtraError("drawing thumbnails", "report")


def write_thumbnails(config: ShopConfig, catalogue: Catalogue, folder: Path) -> None:
    """Write every product's thumbnail as ``folder``/P0001.png, ...; 64 x 64 pixels, RGB."""
    folder.mkdir()
    for number, name in enumerate(catalogue.ids):
        thumbnail(config, catalogue, number).save(folder / f"{name}.png", compress_level=6)


def thumbnail(config: ShopConfig, catalogue: Catalogue, number: int) -> Image:
    """Draw the thumbnail of one product, 64 x 64 RGB, the same at every call.

    Shown are subcategory, colour, pattern and tone of product ``catalogue.drawn_as[number]``; jitter of
    place, size, angle, light and background belongs to ``number`` and tells nothing.
    """
    from PIL import Image

    shown = int(catalogue.drawn_as[number])
    rng = np.random.default_rng([config.seed, 7, number])
    layers = _layers(rng, SUBCATEGORIES[int(catalogue.subcategory[shown])])
    pattern = round(catalogue.attributes[shown, PATTERN] / (2 * np.pi) * len(PATTERNS)) % len(PATTERNS)
    base, mark = _fill(int(catalogue.colour[shown]), float(catalogue.attributes[shown, TONE]), rng)
    marked = _marks(pattern, rng)
    background = np.array([1.0, 1.0, 1.0]) * rng.uniform(0.93, 0.99) - rng.uniform(0, 0.03, 3)
    paints = np.stack([background, base, base * 0.55, 0.35 * base + 0.62, mark])
    canvas = paints[np.where(marked & (layers == _BODY), _MARKED, layers)]  # [128, 128, 3]
    small = (canvas[::2, ::2] + canvas[1::2, ::2] + canvas[::2, 1::2] + canvas[1::2, 1::2]) / 4
    small += rng.normal(0, 0.012, small.shape)
    return Image.fromarray((np.clip(small, 0, 1) * 255).round().astype(np.uint8))


def _layers(rng: np.random.Generator, subcategory: str) -> NDArray[np.uint8]:
    """Return which paint goes where: 0 background, 1 body, 2 dark, 3 light; uint8 [128, 128]."""
    from PIL import Image, ImageDraw

    angle = np.radians(rng.normal(0, 4))
    scale = rng.uniform(0.80, 0.94) * _FINE / 100
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stretch = np.array([rng.uniform(0.92, 1.06), rng.uniform(0.92, 1.06)])
    centre = _FINE / 2 + rng.normal(0, 0.02 * _FINE, 2)
    image = Image.new("L", (_FINE, _FINE), 0)
    draw = ImageDraw.Draw(image)
    for part in OUTLINES[subcategory].split(";"):
        kind, *numbers, paint = part.split()
        values = np.array(numbers, np.float64)
        if kind == "p":
            points = values.reshape(-1, 2)
        else:
            left, top, right, bottom = values
            if kind == "r":
                points = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
            else:
                turns = np.linspace(0, 2 * np.pi, _ARC, endpoint=False)
                middle, radius = [(left + right) / 2, (top + bottom) / 2], [right - left, bottom - top]
                points = middle + np.stack([np.cos(turns), np.sin(turns)], axis=1) * radius / 2
        points = (points - 50) * stretch @ turn.T + centre
        draw.polygon(points.ravel().tolist(), fill="cbdl".index(paint))
    return np.asarray(image)


def _fill(
    colour: int, tone: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the colours of ground and pattern: the tone turns the hue and, apart, lightens it."""
    hue = (HUES[colour] + _SUPPLE * np.cos(tone) + rng.normal(0, 1.0)) % 360 / 360
    light = 0.48 + 0.15 * np.sin(tone) + rng.normal(0, 0.012)
    vivid = 0.68 + rng.normal(0, 0.03)
    base = np.array(colorsys.hls_to_rgb(hue, light, vivid))
    mark = np.array(colorsys.hls_to_rgb(hue, light + 0.30 if light < 0.5 else light - 0.28, vivid * 0.8))
    return base, mark


def _marks(pattern: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return where the pattern leaves its mark, bool [128, 128]; codes as in catalogue.PATTERNS."""
    across, down = rng.uniform(0, 40, 2)
    x = np.arange(_FINE)[None, :] + across
    y = np.arange(_FINE)[:, None] + down
    pitch = 16 * rng.uniform(0.92, 1.08)

    def lines(along: NDArray[np.float64], width: float) -> NDArray[np.bool_]:
        return along % pitch < width * pitch

    def dots(step: float, radius: float) -> NDArray[np.bool_]:
        odd = (y // step) % 2 * step / 2
        inside: NDArray[np.bool_] = ((x + odd) % step - step / 2) ** 2 + (
            y % step - step / 2
        ) ** 2 < radius**2
        return inside

    nothing = np.zeros((_FINE, _FINE), bool)
    name = PATTERNS[pattern]
    if name == "pinstripe":
        return nothing | lines(x, 0.25)
    if name == "stripe":
        return nothing | lines(x * 0.7, 0.5)
    if name == "diagonal":
        return lines((x + y) * 0.7, 0.45)
    if name == "check":
        return lines(x * 0.8, 0.5) ^ lines(y * 0.8, 0.5)
    if name == "grid":
        return lines(x, 0.22) | lines(y, 0.22)
    if name == "dense dots":
        return dots(pitch, pitch * 0.32)
    if name == "dots":
        return dots(pitch * 1.6, pitch * 0.42)
    return nothing
