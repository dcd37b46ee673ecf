"""Simulated visitors of the demo shop who are shown lists, and click on them more often if they like them.

The shop's own simulator fixes how often its carousel is used, so that no list could raise it. Here a visitor
who is shown a list weighs it against going on alone: with u_k how much product k suits, place included, the
list is clicked with probability sum_k exp(u_k) / (sum_k exp(u_k) + exp(outside)), and then k by exp(u_k).
Taste, price, places and popularity are the shop's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nextclick.filters import Filter, ItemTable, Rules
from nextclick.online.records import Recorder
from nextclick.online.trial import Trial, Variant
from nextclick.recommender import Recommender
from nextclick.sessions import ItemId
from nextclick.shop.catalogue import SUBCATEGORIES, Catalogue, make_catalogue
from nextclick.shop.config import ShopConfig
from nextclick.shop.visitors import DAY_MS, EPOCH_MS, taste_axes

OUTSIDE = 5.0  # log-odds of going on alone
_TOGETHER = 2048  # sessions that are answered at once
MARKETS, DEVICES = ("de", "fr", "nl", "se"), ("phone", "desktop")

Answers = Callable[[Variant, Sequence[Sequence[ItemId]]], list[list[ItemId]]]
"""Called with a variant and sessions, returns their lists."""


@dataclass(frozen=True)
class Visits:
    """How many visitors come: sessions on each of so many days, k products in a list, and a seed."""

    sessions: int = 20_000
    days: int = 14
    k: int = 20
    seed: int = 1


def answers_of(models: Mapping[str, Recommender], k: int, items: ItemTable | None = None) -> Answers:
    """Answer with models in this process, without the items of the session itself, under each one's rules.

    items: the table of items whose attributes the rules of variants name.  The answers raise DataError or
    ConfigError for rules that do not fit it.
    """
    filters: dict[str, Filter | None] = {}

    def answer(variant: Variant, sessions: Sequence[Sequence[ItemId]]) -> list[list[ItemId]]:
        model = models[variant.model]
        if variant.name not in filters:
            rules = Rules.of({"rule": [dict(rule) for rule in variant.rules]}) if variant.rules else None
            filters[variant.name] = rules.bind(items, model.vocabulary) if rules else None
        found = model.recommend_many(sessions, k, exclude_seen=True, filter=filters[variant.name])
        return [[item for item, _ in one] for one in found]

    return answer


def simulate(
    trial: Trial,
    answers: Answers,
    folder: Path,
    config: ShopConfig | None = None,
    visits: Visits | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Let visitors come to the shop, show them lists by variant and record what they click on.

    folder: of the records, as ``nextclick serve`` writes them.  progress: told how many sessions are over.
    Returns the lists shown.
    """
    config, visits = config or ShopConfig(), visits or Visits()
    shop = _Shop(config)
    rng = np.random.default_rng([visits.seed, 77])
    recorder, shown = Recorder(folder), 0
    try:
        days = np.sort(rng.integers(0, visits.days, visits.sessions))
        for low in range(0, visits.sessions, _TOGETHER):
            some = np.arange(low, min(low + _TOGETHER, visits.sessions))
            shown += _visit(trial, answers, recorder, shop, visits, some, days[some], rng)
            if progress is not None:
                progress(int(some[-1]) + 1, visits.sessions)
    finally:
        recorder.close()
    return shown


class _Shop:
    """What visitors meet: the catalogue of a shop on its last day."""

    def __init__(self, config: ShopConfig) -> None:
        self.config = config
        self.catalogue: Catalogue = make_catalogue(config)
        logs = self.catalogue.log_weights(config.days - 1)
        self.axes = taste_axes(self.catalogue.attributes)  # [n, 8]
        self.log_popularity = config.intent_popularity * np.maximum(logs, -30.0)  # [n]
        self.ids = self.catalogue.ids
        self.code_of = {item: code for code, item in enumerate(self.ids)}
        sizes = np.bincount(self.catalogue.subcategory, minlength=len(SUBCATEGORIES))
        self.members = np.full((len(SUBCATEGORIES), int(sizes.max())), -1, np.int64)
        for kind in range(len(SUBCATEGORIES)):
            of_kind = np.flatnonzero(self.catalogue.subcategory == kind)
            self.members[kind, : len(of_kind)] = of_kind
        by_kind = np.bincount(self.catalogue.subcategory, np.exp(logs), len(SUBCATEGORIES))
        self.intents = np.sqrt(by_kind) / np.sqrt(by_kind).sum()

    def suits(
        self, products: NDArray[np.int64], wanted: NDArray[np.float64], price: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Log-odds by which products [n, k] suit visitors of a taste [n, 8] and a price level [n]; [n, k]."""
        off = self.catalogue.price_level[products] - price[:, None]
        taste = np.einsum("nka,na->nk", self.axes[products], wanted)
        return np.asarray(taste - 0.5 * self.config.price_sharpness * off**2)


def _visit(
    trial: Trial,
    answers: Answers,
    recorder: Recorder,
    shop: _Shop,
    visits: Visits,
    numbers: NDArray[np.int64],
    days: NDArray[np.int64],
    rng: np.random.Generator,
) -> int:
    """Let some visitors come side by side: each sees a product, its list, and clicks on, until it leaves."""
    config, n = shop.config, len(numbers)
    names = [f"visitor-{visits.seed}-{number}" for number in numbers.tolist()]
    variants = [trial.variant_of(name) for name in names]
    strengths = config.taste_sharpness * np.array([config.text, config.text, config.image, config.image])
    angles = rng.uniform(0, 2 * np.pi, (n, 4))
    wanted = np.stack([np.cos(angles) * strengths, np.sin(angles) * strengths], axis=2).reshape(n, 8)
    price, intent = rng.normal(size=n), rng.choice(len(shop.intents), n, p=shop.intents)
    drawn = config.median_clicks * np.exp(config.clicks_spread * rng.normal(size=n))
    length = np.clip(np.rint(drawn), 1, 50).astype(np.int64)
    about = [
        {"market": MARKETS[market], "device": DEVICES[device]}
        for market, device in zip(rng.integers(0, 4, n).tolist(), rng.integers(0, 2, n).tolist(), strict=True)
    ]
    clock = (EPOCH_MS + (config.days + days) * DAY_MS) / 1000 + rng.uniform(0, 80_000, n)
    at = _own_choice(shop, intent, wanted, price, np.full(n, -1), rng)
    sessions: list[list[ItemId]] = [[shop.ids[product]] for product in at.tolist()]
    shown = 0
    for step in range(int(length.max())):
        here = np.flatnonzero(length > step)
        lists = _lists(trial, answers, shop, sessions, variants, here, visits.k)
        utility = _liking(shop, lists, wanted[here], price[here], intent[here])
        total = np.exp(utility).sum(axis=1)
        clicked = rng.random(len(here)) < total / (total + np.exp(OUTSIDE))
        place = np.argmax(utility + rng.gumbel(size=utility.shape), axis=1)
        alone = _own_choice(shop, intent[here], wanted[here], price[here], at[here], rng)
        for row, who in enumerate(here.tolist()):
            request = f"{names[who]}.{step}"
            moment = float(clock[who]) + 40 * step
            items = [shop.ids[product] for product in lists[row].tolist() if product >= 0]
            recorder.shown(trial.name, names[who], variants[who].name, request, items, about[who], at=moment)
            if clicked[row]:
                product = int(lists[row, place[row]])
                recorder.clicked(
                    trial.name, names[who], request, request, shop.ids[product], about[who], at=moment + 10
                )
            else:
                product = int(alone[row])
            at[who] = product
            sessions[who].append(shop.ids[product])
        shown += len(here)
    return shown


def _lists(
    trial: Trial, answers: Answers, shop: _Shop, sessions: list[list[ItemId]], variants: Sequence[object],
    here: NDArray[np.int64], k: int,
) -> NDArray[np.int64]:  # fmt: skip
    """Ask each variant's model for the lists of its visitors, [n, k] products, -1 where there is none."""
    lists = np.full((len(here), k), -1, np.int64)
    for variant in trial.variants:
        rows = [row for row, who in enumerate(here.tolist()) if variants[who] is variant]
        if rows:
            found = answers(variant, [sessions[here[row]] for row in rows])
            for row, items in zip(rows, found, strict=True):
                codes = [shop.code_of[str(item)] for item in items if str(item) in shop.code_of]
                lists[row, : len(codes)] = codes[:k]
    return lists


def _liking(
    shop: _Shop, lists: NDArray[np.int64], wanted: NDArray[np.float64], price: NDArray[np.float64],
    intent: NDArray[np.int64],
) -> NDArray[np.float64]:  # fmt: skip
    """How much each place of the lists is liked, [n, k]; -inf where there is nothing."""
    config = shop.config
    utility = -np.arange(lists.shape[1]) / config.skim_depth
    utility = utility + config.carousel_match * shop.suits(lists, wanted, price)
    utility = utility + config.carousel_intent * (shop.catalogue.subcategory[lists] == intent[:, None])
    return np.where(lists >= 0, utility, -np.inf)


def _own_choice(
    shop: _Shop, intent: NDArray[np.int64], wanted: NDArray[np.float64], price: NDArray[np.float64],
    last: NDArray[np.int64], rng: np.random.Generator,
) -> NDArray[np.int64]:  # fmt: skip
    """Return what visitors find alone: a product of their intent, by taste and popularity, not the last."""
    offered = shop.members[intent]
    worth = shop.suits(offered, wanted, price) + shop.log_popularity[offered]
    worth[(offered < 0) | (offered == last[:, None])] = -np.inf
    chosen = np.argmax(worth + rng.gumbel(size=worth.shape), axis=1)
    return np.asarray(offered[np.arange(len(offered)), chosen])
