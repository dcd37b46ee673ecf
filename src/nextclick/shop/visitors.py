"""The month in the shop, day by day: who comes when, what they click, and what the oracle knew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextclick.shop import kernels
from nextclick.shop.catalogue import COMPARING as N_COMPARING
from nextclick.shop.catalogue import PER_CATEGORY, SUBCATEGORIES, Catalogue, stream
from nextclick.shop.config import ShopConfig

MECHANISMS = ("intent", "last", "before", "carousel", "repeat", "popular", "bot")
CAROUSEL, BOT = kernels.CAROUSEL, kernels.BOT
EPOCH_MS = 1_740_960_000_000  # Monday 3 March 2025, 00:00 UTC
DAY_MS = 86_400_000
BOT_CLICKS = (200, 600)
LONGEST_PAUSE_S = 1500.0  # below the half hour after which logs usually begin a new session
# Visits by weekday from Monday and by hour of the day, relative to each other.
WEEK = (1.0, 0.95, 0.95, 1.0, 1.0, 1.15, 1.3)
HOURS = (
    1.2, 0.7, 0.4, 0.3, 0.3, 0.5, 1.2, 2.2, 3.2, 4.0, 4.5, 4.8,
    5.0, 4.7, 4.5, 4.5, 4.7, 5.0, 5.6, 6.4, 7.0, 6.6, 4.8, 2.6,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Log:
    """All clicks, sessions in order of their start, one array entry per click unless said otherwise.

    Sessions: offsets int64 [n_sessions + 1], session s is clicks ``offsets[s]`` to ``offsets[s + 1] - 1``;
    day int64 (the day a session starts), explorer and bot bool, [n_sessions].
    Clicks: item int32;  timestamp int64, ms since 1970 UTC;  truth, see ``kernels.Record``: mechanism
    (into MECHANISMS), place in the carousel from 1 (0 = elsewhere), intent, pace, taste, price_level,
    probability and rank of the clicked product under the oracle, place_rank within the carousel.
    carousels: int16 [days, n_products, size], the list on each product's page on each day, -1 = nothing.
    """

    offsets: NDArray[np.int64]
    day: NDArray[np.int64]
    explorer: NDArray[np.bool_]
    bot: NDArray[np.bool_]
    timestamp: NDArray[np.int64]
    truth: kernels.Record
    carousels: NDArray[np.int16]

    @property
    def item(self) -> NDArray[np.int32]:
        """The product of each click, as a number into the catalogue."""
        return self.truth.item

    @property
    def session(self) -> NDArray[np.int64]:
        """The session of each click, from 0."""
        return np.repeat(np.arange(len(self.day)), np.diff(self.offsets))

    def session_of(self, click: int) -> int:
        """Return the session of one click, both counted from 0."""
        return int(np.searchsorted(self.offsets, click, side="right")) - 1

    @property
    def position(self) -> NDArray[np.int64]:
        """The place of each click in its session, 1 = first."""
        return np.arange(len(self.item)) - self.offsets[self.session] + 1


def simulate_clicks(config: ShopConfig, catalogue: Catalogue) -> Log:
    """Let a month of visitors click through the shop.

    Sessions that start on a day see the trend of that day and carousels refitted on the sessions that
    started before it.
    """
    rng = stream(config, 6)
    weekly = np.resize(np.array(WEEK), config.days)
    per_day = rng.multinomial(config.sessions, weekly / weekly.sum())
    day = np.repeat(np.arange(config.days), per_day)
    hour = rng.choice(24, config.sessions, p=np.array(HOURS) / sum(HOURS))
    start = EPOCH_MS + day * DAY_MS + hour * 3_600_000 + rng.integers(0, 3_600_000, config.sessions)
    start.sort()

    explorer = rng.random(config.sessions) < config.explorers
    bot = rng.random(config.sessions) < config.bots
    if config.bots > 0 and not bot.any():
        bot[rng.integers(config.sessions)] = True
    explorer &= ~bot
    typical = config.median_clicks * np.where(explorer, config.explorer_clicks, 1.0)
    # The explorers' longer sessions must not move the median: both kinds share out the factor.
    typical /= config.explorer_clicks**config.explorers
    drawn = typical * np.exp(config.clicks_spread * rng.normal(size=config.sessions))
    clicks = np.clip(np.rint(drawn), 1, 199).astype(np.int64)
    clicks[bot] = rng.integers(BOT_CLICKS[0], BOT_CLICKS[1] + 1, int(bot.sum()))
    offsets = np.concatenate([[0], np.cumsum(clicks)]).astype(np.int64)
    timestamp = _timestamps(rng, start, offsets, bot)

    truth = _record(int(offsets[-1]))
    rules = _rules(config)
    n = config.products
    carousels = np.full((config.days, n, config.carousel_size), -1, np.int16)
    together = np.zeros((n, n), np.int32)
    ends = np.concatenate([[0], np.cumsum(per_day)])
    for today in range(config.days):
        low, high = int(ends[today]), int(ends[today + 1])
        if today > 0:
            before = int(ends[today - 1])
            kernels.count_pairs(before, low, offsets, truth.item, config.carousel_max_products, together)
            kernels.similar_items(together, carousels[today])
        products = _products(config, catalogue, today, carousels[today])
        kernels.simulate_day(low, high, config.seed, offsets, explorer, bot, products, rules, truth)
    return Log(offsets, day, explorer, bot, timestamp, truth, carousels)


def _timestamps(
    rng: np.random.Generator, start: NDArray[np.int64], offsets: NDArray[np.int64], bot: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Pauses between clicks: log-normal with a median of 35 s; a bot clicks every 1 to 3 s."""
    n, lengths = int(offsets[-1]), np.diff(offsets)
    pause = np.clip(35.0 * np.exp(1.1 * rng.normal(size=n)), 1.0, LONGEST_PAUSE_S)
    pause = np.where(np.repeat(bot, lengths), rng.uniform(1.0, 3.0, n), pause)
    elapsed = np.cumsum((pause * 1000).astype(np.int64))
    return np.repeat(start - elapsed[offsets[:-1]], lengths) + elapsed


def _record(n: int) -> kernels.Record:
    return kernels.Record(
        item=np.zeros(n, np.int32),
        mechanism=np.zeros(n, np.uint8),
        place=np.zeros(n, np.int16),
        intent=np.zeros(n, np.int16),
        pace=np.zeros(n, np.int8),
        taste=np.zeros((n, 4)),
        price_level=np.zeros(n),
        probability=np.zeros(n),
        rank=np.zeros(n),
        place_rank=np.zeros(n),
    )


def _rules(config: ShopConfig) -> kernels.Rules:
    weights = np.tile(
        [
            config.intent_weight,
            config.last_weight * config.sequence,
            config.before_weight * config.sequence,
            config.carousel_weight,
            config.repeat_weight,
            config.popular_weight,
        ],
        (2, 1),
    )
    weights[1, kernels.REPEAT] *= config.explorer_repeats
    place = np.arange(config.carousel_size, dtype=np.float64)
    preference = np.stack(
        [
            -place / config.skim_depth,
            -(((place - config.explorer_place) / config.explorer_width) ** 2) / 2,
        ]
    )
    strengths = np.array([config.text, config.text, config.image, config.image])
    return kernels.Rules(
        weights=weights,
        drift=np.array([config.drift, config.drift * config.explorer_drift]),
        change=float(config.change),
        taste=strengths * config.taste_sharpness,
        price=float(config.price_sharpness),
        pace_share=float(config.pace_share),
        repeat_decay=float(config.repeat_decay),
        link_match=float(config.link_match),
        carousel_match=float(config.carousel_match),
        carousel_intent=float(config.carousel_intent),
        place=preference * config.carousel_position,
        per_category=PER_CATEGORY,
        comparing=N_COMPARING,
    )


def taste_axes(attributes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return cosine and sine of each angle, side by side: float64 [n, 8]."""
    waves: NDArray[Any] = np.stack([np.cos(attributes), np.sin(attributes)], axis=2)
    return waves.reshape(len(attributes), -1)


def _products(
    config: ShopConfig, catalogue: Catalogue, day: int, carousel: NDArray[np.int16]
) -> kernels.Products:
    logs = catalogue.log_weights(day)
    weight = np.exp(logs)
    by_subcategory = np.bincount(catalogue.subcategory, weight, len(SUBCATEGORIES))
    sizes = np.bincount(catalogue.subcategory, minlength=len(SUBCATEGORIES))
    here = np.isfinite(logs)
    return kernels.Products(
        taste_axes=taste_axes(catalogue.attributes),
        price_level=catalogue.price_level,
        weight=weight,
        weight_sum=np.cumsum(weight),
        intent_log=np.where(here, config.intent_popularity * np.where(here, logs, 0.0), -np.inf),
        subcategory=catalogue.subcategory,
        members=np.argsort(catalogue.subcategory, kind="stable"),
        member_ends=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        intent_sum=np.cumsum(np.sqrt(by_subcategory)),
        links=catalogue.links,
        carousel=carousel,
        available=int(here.sum()),
    )
