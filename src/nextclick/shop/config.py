"""Every parameter of the demo shop, with its unit, its meaning and the default that is fixed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nextclick.errors import ConfigError, nearest


@dataclass(frozen=True)
class ShopConfig:
    """Settings of the simulator.  The defaults are the reference shop on which models are compared.

    Four *strengths* (unit 1; 1 = as designed, 0 = the signal is not there at all, 2 = twice as strong)
    come first.  Shares and mechanism weights need not add up: the weights of the mechanisms that have
    something to offer at a click are divided by their sum.  "Log-odds" are natural logarithms.
    Raises ConfigError when a value is out of range.
    """

    seed: int = 1  # any integer from 0; same settings and seed: the same shop, click for click

    # Strengths of the four signals
    sequence: float = 1.0  # directed links from the last click and the one before it
    text: float = 1.0  # taste for what only titles and descriptions tell: material and style
    image: float = 1.0  # taste for what only thumbnails tell: pattern and tone
    carousel_position: float = 1.0  # preference for places of the carousel, whatever product stands there

    # Size
    products: int = 2000  # products in the catalogue, at least 256
    sessions: int = 60_000  # sessions, bots included
    days: int = 30  # days, from Monday 3 March 2025, 00:00 UTC
    oracle_days: int = 3  # last days over which the oracle is scored besides the very last one

    # Catalogue
    late_share: float = 0.15  # share of products that arrive after day 0, before the last three days
    newcomers: int = 80  # products that arrive in the last three days
    novelty: float = 1.2  # log-odds a product has more on the day it arrives, fading with novelty_days
    novelty_days: float = 4.0  # days after which that advantage has fallen to 1/e
    popularity_spread: float = 2.0  # standard deviation of the products' log popularity
    trend: float = 0.5  # log-odds by which products, styles and patterns rise and fall over the days
    title_gap: float = 0.05  # probability that a title lacks its material (and, apart, its style) word

    # Visitors
    median_clicks: float = 3.3  # median clicks of a session, before rounding up
    clicks_spread: float = 0.85  # standard deviation of the log of clicks per session
    explorers: float = 0.4  # share of sessions whose visitor looks deep into carousels
    explorer_clicks: float = 1.8  # explorers' sessions are this many times as long as the others'
    explorer_drift: float = 4.0  # explorers' intents drift this many times as often
    explorer_repeats: float = 0.1  # explorers return to products seen this many times as often
    bots: float = 0.001  # share of sessions that are crawlers with 200 to 600 clicks

    # Intent
    drift: float = 0.03  # probability per click that the intent moves to another subcategory of its category
    change: float = 0.015  # probability per click that the visitor wants something new altogether
    taste_sharpness: float = 2.0  # log-odds of a perfect match over an indifferent one, per attribute
    price_sharpness: float = 0.3  # twice the log-odds lost one standard deviation off the price wanted
    intent_popularity: float = 0.75  # exponent of popularity among products of the intent, and among links

    # Mechanisms: weights of where the next click comes from, unit 1
    intent_weight: float = 0.36  # a product of the intent's subcategory that matches the taste
    last_weight: float = 0.16  # a successor of the last click, times sequence
    before_weight: float = 0.10  # a successor of the click before it, times sequence
    carousel_weight: float = 0.24  # a product of the carousel on the last click's page
    repeat_weight: float = 0.08  # a product seen earlier in the session
    popular_weight: float = 0.15  # any product, by popularity and trend
    link_match: float = 0.8  # how much of taste and price counts among successors, 1 = as for the intent
    pace_share: float = 0.6  # share of successor clicks that follow the session's own pace
    repeat_decay: float = 0.6  # how much less each click further back is returned to

    # Carousel of similar items
    carousel_size: int = 30  # products shown
    carousel_max_products: int = 100  # sessions with more different products do not count: bots
    carousel_match: float = 0.4  # how much of taste and price counts at the carousel, 1 = as elsewhere
    carousel_intent: float = 1.0  # log-odds of products of the intent's subcategory over others
    skim_depth: float = 4.0  # places over which a skimmer's interest falls to 1/e
    explorer_place: float = 19.0  # place (0 = first) that explorers like best
    explorer_width: float = 6.0  # standard deviation, in places, around it

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            whole = isinstance(field.default, int)
            kinds = (int,) if whole else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds):
                kind = "a whole number" if whole else "a number"
                raise ConfigError(f"shop setting {field.name} must be {kind}, found {value!r}")
            low, high = _BOUNDS.get(field.name, (0.0, math.inf))
            if not (low <= value <= high) or math.isinf(value):
                limit = f"from {low:g} to {high:g}" if math.isfinite(high) else f"at least {low:g}"
                raise ConfigError(f"shop setting {field.name} must be {limit}, found {value!r}")
        if self.intent_weight + self.popular_weight <= 0:
            raise ConfigError("shop settings intent_weight and popular_weight must not both be 0")
        if self.newcomers + round(self.late_share * self.products) > self.products // 2:
            raise ConfigError(
                f"at most half of the {self.products} products may arrive late: lower late_share or newcomers"
            )

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> ShopConfig:
        """Build a config from names and values; raises ConfigError on an unknown name."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in settings:
            if name not in known:
                raise ConfigError(f"no shop setting {name!r}{nearest(name, known)}")
        return cls(**settings)


_SHARE = (0.0, 1.0)
_BOUNDS: dict[str, tuple[float, float]] = {
    "seed": (0, 2**63 - 1),
    "products": (256, 9999),
    "sessions": (1, 10_000_000),
    "days": (4, 366),
    "oracle_days": (1, 366),
    "late_share": (0.0, 0.5),
    "novelty_days": (0.1, math.inf),
    "title_gap": _SHARE,
    "median_clicks": (1.0, 100.0),
    "clicks_spread": (0.0, 2.0),
    "explorers": _SHARE,
    "explorer_clicks": (0.1, 10.0),
    "bots": _SHARE,
    "drift": _SHARE,
    "change": _SHARE,
    "explorer_drift": (0.0, 10.0),
    "pace_share": _SHARE,
    "repeat_decay": _SHARE,
    "carousel_size": (1, 100),
    "carousel_max_products": (2, 10_000),
    "skim_depth": (0.1, math.inf),
    "explorer_width": (0.1, math.inf),
    "sequence": (0.0, 10.0),
    "text": (0.0, 10.0),
    "image": (0.0, 10.0),
    "carousel_position": (0.0, 10.0),
    "taste_sharpness": (0.0, 10.0),
}
