"""The products: what a page shows of them, and what stays hidden and drives the clicks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextclick.shop.config import ShopConfig

TREE: dict[str, tuple[str, ...]] = {
    "Bags": ("Backpack", "Tote", "Suitcase", "Wallet"),
    "Lamps": ("Table lamp", "Floor lamp", "Pendant", "Lantern"),
    "Seating": ("Chair", "Stool", "Armchair", "Bench"),
    "Tableware": ("Mug", "Plate", "Bowl", "Teapot"),
    "Clothing": ("Shirt", "Sweater", "Dress", "Trousers"),
    "Footwear": ("Sneaker", "Boot", "Sandal", "Slipper"),
    "Storage": ("Box", "Basket", "Shelf", "Cabinet"),
    "Accessories": ("Hat", "Scarf", "Belt", "Watch"),
}
CATEGORIES = tuple(TREE)
SUBCATEGORIES = tuple(name for names in TREE.values() for name in names)
PER_CATEGORY = 4
LEAST = 8  # products of a subcategory; more than twice COMPARING

# Materials and styles lie on circles in this order: neighbours please nearly the same taste.
MATERIALS: dict[str, tuple[str, ...]] = {
    "Bags": ("canvas", "cotton", "nylon", "leather", "suede", "jute"),
    "Lamps": ("brass", "copper", "steel", "glass", "paper", "rattan"),
    "Seating": ("oak", "walnut", "steel", "velvet", "linen", "wicker"),
    "Tableware": ("porcelain", "stoneware", "terracotta", "enamel", "glass", "bamboo"),
    "Clothing": ("cotton", "linen", "silk", "viscose", "wool", "denim"),
    "Footwear": ("leather", "suede", "canvas", "mesh", "felt", "cork"),
    "Storage": ("pine", "oak", "steel", "wire", "felt", "seagrass"),
    "Accessories": ("wool", "cashmere", "silk", "leather", "steel", "straw"),
}
N_MATERIALS = 6
STYLES = (
    ("classic", "timeless"),
    ("vintage", "retro"),
    ("rustic", "country"),
    ("boho", "folk"),
    ("playful", "cheerful"),
    ("sporty", "active"),
    ("urban", "modern"),
    ("minimal", "pure"),
)
PATTERNS = ("plain", "pinstripe", "stripe", "diagonal", "check", "grid", "dense dots", "dots")
COLOURS = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink")
BRANDS = (
    "Alder", "Bexley", "Corvo", "Dunmore", "Eskil", "Fjara", "Galano", "Hestia", "Ivara", "Juniper",
    "Kestrel", "Lumi", "Marlow", "Nordvik", "Orsa", "Pavane", "Quillon", "Runa", "Solbakk", "Tamsin",
    "Umbria", "Verano", "Wickford", "Yarrow",
)  # fmt: skip
NOISE = (
    "new", "edition", "series", "original", "special", "plus", "set", "home", "day", "select", "studio",
    "season", "gift", "favourite", "line", "one", "mini", "collection", "value", "premium",
)  # fmt: skip
_SENTENCES = (
    "A {style} {noun} in {material}, made by {brand} for every day.",
    "{brand} makes this {noun} from {material}: {style}, sturdy and easy to care for.",
    "With its {style} look this {noun} of {material} fits in anywhere.",
    "This {noun} by {brand} brings {material} and a {style} touch together.",
)

# Successor links of a product: three next steps of comparing, then two accessories.
COMPARING, ACCESSORIES = 3, 2
N_LINKS = COMPARING + ACCESSORIES
MATERIAL, STYLE, PATTERN, TONE = range(4)  # the hidden attributes: two told by text, two by the image


@dataclass(frozen=True, eq=False)
class Catalogue:
    """All products, one array entry each.

    subcategory, brand, colour: codes into SUBCATEGORIES, BRANDS, COLOURS;  price: euro;  price_level:
    standard deviations of log price from the mean of the subcategory;  arrived: day, 0 = from the start;
    popularity: log-odds, before trend and novelty.
    attributes: float64 [n, 4], the angles in radians of material, style, pattern and tone.
    links: int32 [n, 5], the products that a click on this one leads to (see ``visitors``).
    trend: float64 [days, n], log-odds of each product on each day, novelty included.
    titles, descriptions: what the page says.  drawn_as: the product whose thumbnail it shows, itself
    unless the image strength is 0.
    """

    subcategory: NDArray[np.int64]
    brand: NDArray[np.int64]
    colour: NDArray[np.int64]
    price: NDArray[np.float64]
    price_level: NDArray[np.float64]
    arrived: NDArray[np.int64]
    popularity: NDArray[np.float64]
    attributes: NDArray[np.float64]
    links: NDArray[np.int32]
    trend: NDArray[np.float64]
    titles: list[str]
    descriptions: list[str]
    drawn_as: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.subcategory)

    @property
    def ids(self) -> list[str]:
        """The public id of each product: P0001, P0002, ..."""
        return [f"P{number + 1:04d}" for number in range(len(self))]

    def log_weights(self, day: int) -> NDArray[np.float64]:
        """Return each product's log popularity on a day, -inf before its arrival; float64 [n]."""
        return np.where(self.arrived <= day, self.popularity + self.trend[day], -np.inf)


def stream(config: ShopConfig, purpose: int) -> np.random.Generator:
    """Return the random numbers of one purpose, so that no part of the shop disturbs another's draws."""
    return np.random.default_rng([config.seed, purpose])


def make_catalogue(config: ShopConfig) -> Catalogue:
    """Draw the products of a shop."""
    n, rng = config.products, stream(config, 1)
    # At least LEAST products each, so that the circles of ``_links`` never lead back; the rest unevenly.
    sizes = rng.dirichlet(np.full(len(SUBCATEGORIES), 8.0))
    sure = np.repeat(np.arange(len(SUBCATEGORIES)), LEAST)
    spread = rng.choice(len(SUBCATEGORIES), n - len(sure), p=sizes)
    subcategory = rng.permutation(np.concatenate([sure, spread]))
    material, style, pattern = (rng.integers(0, k, n) for k in (N_MATERIALS, len(STYLES), len(PATTERNS)))
    attributes = np.empty((n, 4))
    for column, codes, k in (
        (MATERIAL, material, N_MATERIALS),
        (STYLE, style, len(STYLES)),
        (PATTERN, pattern, len(PATTERNS)),
    ):
        attributes[:, column] = 2 * np.pi * codes / k
    attributes[:, TONE] = 2 * np.pi * rng.random(n)

    brand = rng.integers(0, len(BRANDS), n)
    dear = rng.normal(0, 0.3, len(BRANDS))[brand]
    log_price = rng.uniform(2.7, 5.0, len(SUBCATEGORIES))[subcategory] + dear + rng.normal(0, 0.35, n)
    price_level = _standardised(log_price, subcategory)

    arrived = np.zeros(n, np.int64)
    order = rng.permutation(n)
    late = round(config.late_share * n)
    arrived[order[: config.newcomers]] = rng.integers(config.days - 3, config.days, config.newcomers)
    arrived[order[config.newcomers : config.newcomers + late]] = rng.integers(1, config.days - 3, late)
    popularity = rng.normal(0, config.popularity_spread, n)
    popularity += rng.normal(0, 0.4, len(SUBCATEGORIES))[subcategory]

    words = stream(config, 2)
    speaks = words.permutation(n) if config.text == 0 else np.arange(n)
    written = [
        _write(words, config, int(subcategory[i]), int(material[i]), int(style[i]), int(brand[i]))
        for i in speaks
    ]
    shown = stream(config, 3).permutation(n)
    return Catalogue(
        subcategory=subcategory,
        brand=brand,
        colour=rng.integers(0, len(COLOURS), n),
        price=np.round(np.exp(log_price), 2),
        price_level=price_level,
        arrived=arrived,
        popularity=popularity,
        attributes=attributes,
        links=_links(stream(config, 4), subcategory),
        trend=_trend(config, arrived, style, pattern),
        titles=[title for title, _ in written],
        descriptions=[description for _, description in written],
        drawn_as=shown if config.image == 0 else np.arange(n),
    )


def _standardised(values: NDArray[np.float64], group: NDArray[np.int64]) -> NDArray[np.float64]:
    counts = np.maximum(np.bincount(group, minlength=len(SUBCATEGORIES)), 1)
    mean = np.bincount(group, values, len(SUBCATEGORIES)) / counts
    spread = np.sqrt(np.bincount(group, (values - mean[group]) ** 2, len(SUBCATEGORIES)) / counts)
    return (values - mean[group]) / np.maximum(spread, 1e-9)[group]


def _links(rng: np.random.Generator, subcategory: NDArray[np.int64]) -> NDArray[np.int32]:
    """Draw the successor links; independent of every attribute but the subcategory.

    Each subcategory is laid on a secret circle: comparing leads 1, 2 or 3 places on, never back.
    Accessories come from one other subcategory, and these too form a circle of all of them.
    """
    n = len(subcategory)
    links = np.empty((n, N_LINKS), np.int32)
    members = [rng.permutation(np.flatnonzero(subcategory == g)) for g in range(len(SUBCATEGORIES))]
    circle = rng.permutation(len(SUBCATEGORIES))
    follower = dict(zip(circle.tolist(), np.roll(circle, -1).tolist(), strict=True))
    for g, ring in enumerate(members):
        for step in range(COMPARING):
            links[ring, step] = np.roll(ring, -(step + 1))
        offered = members[follower[g]]
        for extra in range(ACCESSORIES):
            # A permutation written out as often as needed: every product is accessory about as often.
            tiled = np.resize(rng.permutation(offered), len(ring))
            links[ring, COMPARING + extra] = tiled
    return links


def _trend(
    config: ShopConfig, arrived: NDArray[np.int64], style: NDArray[Any], pattern: NDArray[Any]
) -> NDArray[np.float64]:
    """Waves of the products, of styles (times text) and of patterns (times image); plus novelty."""
    rng = stream(config, 5)
    day = np.arange(config.days)[:, None]

    def waves(count: int) -> NDArray[np.float64]:
        period, phase = rng.uniform(8, 40, count), rng.uniform(0, 2 * np.pi, count)
        return np.sin(2 * np.pi * day / period + phase)

    trend = config.trend * (
        waves(config.products)
        + config.text * waves(len(STYLES))[:, style]
        + config.image * waves(len(PATTERNS))[:, pattern]
    )
    age = np.maximum(day - arrived, 0)
    return trend + np.where(arrived > 0, config.novelty * np.exp(-age / config.novelty_days), 0.0)


def _write(
    rng: np.random.Generator, config: ShopConfig, subcategory: int, material: int, style: int, brand: int
) -> tuple[str, str]:
    """Return title and description of a product: each latent word from its few synonyms, plus noise."""
    category = CATEGORIES[subcategory // PER_CATEGORY]
    told = {
        "style": STYLES[style][int(rng.integers(2))],
        "material": MATERIALS[category][material],
        "noun": SUBCATEGORIES[subcategory].lower(),
        "brand": BRANDS[brand],
    }
    gaps = rng.random(2) < config.title_gap
    noise = [NOISE[int(k)] for k in rng.choice(len(NOISE), int(rng.integers(0, 3)), replace=False)]
    parts = [told["brand"]] + ([] if gaps[0] else [told["style"]]) + ([] if gaps[1] else [told["material"]])
    title = " ".join([*parts, told["noun"], *noise])
    told["style"] = STYLES[style][int(rng.integers(2))]
    return title, _SENTENCES[int(rng.integers(len(_SENTENCES)))].format(**told)
