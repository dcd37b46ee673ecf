"""The inner loops of the simulator, compiled: sessions click by click, and the carousel's lists."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from nextclick.compiled import uniform

INTENT, LAST, BEFORE, CAROUSEL, REPEAT, POPULAR, BOT = range(7)


class Products(NamedTuple):
    """What a visitor meets on one day; n products, G subcategories."""

    taste_axes: NDArray[np.float64]  # [n, 8] cosine and sine of the four hidden attributes
    price_level: NDArray[np.float64]  # [n]
    weight: NDArray[np.float64]  # [n] popularity of the day, 0 before arrival
    weight_sum: NDArray[np.float64]  # [n] running sum of weight
    intent_log: NDArray[np.float64]  # [n] log of weight, times intent_popularity; -inf before arrival
    subcategory: NDArray[np.int64]  # [n]
    members: NDArray[np.int64]  # [n] products by subcategory
    member_ends: NDArray[np.int64]  # [G + 1] members of g: member_ends[g] to member_ends[g + 1]
    intent_sum: NDArray[np.float64]  # [G] running sum of the subcategories' popularity
    links: NDArray[np.int32]  # [n, 5] successors
    carousel: NDArray[np.int16]  # [n, size] similar products, -1 where the list is shorter
    available: int  # products that have arrived


class Rules(NamedTuple):
    """The settings of ``ShopConfig`` that act at a click, strengths multiplied in."""

    weights: NDArray[np.float64]  # [2, 6] mechanism weights of skimmers and of explorers
    drift: NDArray[np.float64]  # [2] probability per click, of skimmers and of explorers
    change: float
    taste: NDArray[np.float64]  # [4] log-odds per attribute
    price: float
    pace_share: float
    repeat_decay: float
    link_match: float
    carousel_match: float
    carousel_intent: float
    place: NDArray[np.float64]  # [2, size] log-odds of each place of the carousel
    per_category: int
    comparing: int


class Record(NamedTuple):
    """One entry per click, filled by ``simulate_day``."""

    item: NDArray[np.int32]
    mechanism: NDArray[np.uint8]
    place: NDArray[np.int16]  # place in the carousel from 1, 0 = the click was elsewhere
    intent: NDArray[np.int16]  # subcategory
    pace: NDArray[np.int8]  # which of the three comparing links the session prefers
    taste: NDArray[np.float64]  # [clicks, 4] angles
    price_level: NDArray[np.float64]
    probability: NDArray[np.float64]
    rank: NDArray[np.float64]
    place_rank: NDArray[np.float64]  # oracle rank within the carousel, 0 = the click was elsewhere


@njit(cache=True)
def _start_stream(state: NDArray[np.uint64], seed: int, session: int) -> None:
    """Give every session its own stream, whatever the others drew."""
    state[0] = np.uint64(seed)
    a = uniform(state)
    state[0] += np.uint64(session) * np.uint64(0xD1342543DE82EF95) + np.uint64(a * 9007199254740992.0)
    uniform(state)
    state[0] ^= state[0] >> np.uint64(29)
    state[0] *= np.uint64(0xFF51AFD7ED558CCD)


@njit(cache=True)
def _normal(state: NDArray[np.uint64]) -> float:
    radius = np.sqrt(-2.0 * np.log(1.0 - uniform(state)))
    return float(radius * np.cos(2.0 * np.pi * uniform(state)))


@njit(cache=True)
def _match(
    i: int, axes: NDArray[np.float64], wanted: NDArray[np.float64], price: float, p: Products
) -> float:
    """Log-odds by which product i suits taste and price; ``wanted`` holds the taste's 8 coefficients."""
    score = 0.0
    for a in range(8):
        score += axes[i, a] * wanted[a]
    off = p.price_level[i] - wanted[8]
    return float(score - 0.5 * price * off * off)


@njit(cache=True)
def _rank(values: NDArray[np.float64], n: int, own: float) -> float:
    """Rank of ``own`` among the first n values, 1 = highest, equal values sharing their mean rank."""
    better = 0
    equal = 0
    for i in range(n):
        better += values[i] > own
        equal += values[i] == own
    return float(better + (equal + 1) / 2.0)


@njit(cache=True)
def simulate_day(
    low: int,
    high: int,
    seed: int,
    offsets: NDArray[np.int64],
    explorer: NDArray[np.bool_],
    bot: NDArray[np.bool_],
    products: Products,
    rules: Rules,
    record: Record,
) -> None:
    """Fill in the clicks of sessions low to high - 1, which all start on the day of ``products``."""
    n = len(products.weight)
    size = products.carousel.shape[1]
    n_links = products.links.shape[1]
    room = n + size + 2 * n_links + 8
    state = np.zeros(1, np.uint64)
    p = np.empty(n)  # the oracle: true probability of each product
    offered = np.empty((POPULAR, room), np.int64)  # products that each mechanism but POPULAR offers,
    chance = np.empty((POPULAR, room))  # and their probabilities within the mechanism
    count = np.zeros(POPULAR, np.int64)
    places = np.empty(size, np.int64)
    share = np.empty(6)
    taste = np.empty(4)
    wanted = np.empty(9)
    last_seen = np.full(n, -1, np.int64)
    total_weight = products.weight_sum[n - 1]
    for s in range(low, high):
        _start_stream(state, seed, s)
        who = 1 if explorer[s] else 0
        begin, end = offsets[s], offsets[s + 1]
        if bot[s]:
            _crawl(begin, end, state, products, record)
            continue
        subcategory, pace = 0, 0
        for c in range(begin, end):
            u = uniform(state)
            if c == begin or u < rules.change:
                subcategory = np.searchsorted(
                    products.intent_sum, uniform(state) * products.intent_sum[-1], side="right"
                )
                for a in range(4):
                    taste[a] = 2.0 * np.pi * uniform(state)
                    wanted[2 * a] = rules.taste[a] * np.cos(taste[a])
                    wanted[2 * a + 1] = rules.taste[a] * np.sin(taste[a])
                wanted[8] = _normal(state)
                if c == begin:
                    pace = int(rules.comparing * uniform(state))
            elif u < rules.change + rules.drift[who]:
                first = subcategory - subcategory % rules.per_category
                step = 1 + int((rules.per_category - 1) * uniform(state))
                subcategory = first + (subcategory - first + step) % rules.per_category
            last = record.item[c - 1] if c > begin else -1

            # What each mechanism offers
            count[:] = 0
            top = -np.inf
            for k in range(products.member_ends[subcategory], products.member_ends[subcategory + 1]):
                i = products.members[k]
                if i != last and products.weight[i] > 0.0:
                    score = products.intent_log[i] + _match(
                        i, products.taste_axes, wanted, rules.price, products
                    )
                    offered[INTENT, count[INTENT]] = i
                    chance[INTENT, count[INTENT]] = score
                    count[INTENT] += 1
                    top = max(top, score)
            _softmax(chance[INTENT], count[INTENT], top)
            for back in range(2):
                if c - 1 - back < begin:
                    continue
                at = record.item[c - 1 - back]
                m, total = LAST + back, 0.0
                for k in range(n_links):
                    i = products.links[at, k]
                    if i != last and products.weight[i] > 0.0:
                        even = (1.0 - rules.pace_share) / (n_links - 1)
                        suits = _match(i, products.taste_axes, wanted, rules.price, products)
                        worth = np.exp(products.intent_log[i] + rules.link_match * suits)
                        chance[m, count[m]] = worth * (rules.pace_share if k == pace else even)
                        offered[m, count[m]] = i
                        total += chance[m, count[m]]
                        count[m] += 1
                for k in range(count[m]):
                    chance[m, k] /= total
                if total <= 0.0:
                    count[m] = 0
            if last >= 0:
                top = -np.inf
                for k in range(size):
                    i = products.carousel[last, k]
                    if i >= 0:
                        score = rules.place[who, k] + rules.carousel_match * _match(
                            i, products.taste_axes, wanted, rules.price, products
                        )
                        if products.subcategory[i] == subcategory:
                            score += rules.carousel_intent
                        offered[CAROUSEL, count[CAROUSEL]] = i
                        chance[CAROUSEL, count[CAROUSEL]] = score
                        places[count[CAROUSEL]] = k + 1
                        count[CAROUSEL] += 1
                        top = max(top, score)
                _softmax(chance[CAROUSEL], count[CAROUSEL], top)
                total, worth = 0.0, 1.0
                last_seen[last] = s
                for b in range(c - 2, begin - 1, -1):
                    i = record.item[b]
                    if last_seen[i] != s:
                        last_seen[i] = s
                        offered[REPEAT, count[REPEAT]] = i
                        chance[REPEAT, count[REPEAT]] = worth
                        total += worth
                        count[REPEAT] += 1
                        worth *= rules.repeat_decay
                for k in range(count[REPEAT]):
                    last_seen[offered[REPEAT, k]] = -1
                    chance[REPEAT, k] /= total
                last_seen[last] = -1

            # The mixture, and from it the click
            total = 0.0
            for m in range(6):
                share[m] = rules.weights[who, m] if m == POPULAR or count[m] > 0 else 0.0
                total += share[m]
            rest = total_weight - (products.weight[last] if last >= 0 else 0.0)
            scale = share[POPULAR] / total / rest
            for i in range(n):
                p[i] = products.weight[i] * scale
            if last >= 0:
                p[last] = 0.0
            for m in range(POPULAR):
                share[m] /= total
                if share[m] > 0.0:
                    for k in range(count[m]):
                        p[offered[m, k]] += share[m] * chance[m, k]
            u = uniform(state)
            m = 0
            while m < POPULAR and u >= share[m]:
                u -= share[m]
                m += 1
            item, place, place_rank = -1, 0, 0.0
            if m == POPULAR:
                while item < 0 or item == last or products.weight[item] <= 0.0:
                    item = np.searchsorted(products.weight_sum, uniform(state) * total_weight, side="right")
                    item = min(item, n - 1)
            else:
                u = uniform(state)
                k = 0
                while k < count[m] - 1 and u >= chance[m, k]:
                    u -= chance[m, k]
                    k += 1
                item = offered[m, k]
                if m == CAROUSEL:
                    place = places[k]
                    place_rank = _rank(chance[m], count[m], chance[m, k])
            record.item[c] = item
            record.mechanism[c] = m
            record.place[c] = place
            record.intent[c] = subcategory
            record.pace[c] = pace
            record.taste[c] = taste
            record.price_level[c] = wanted[8]
            record.probability[c] = p[item]
            record.rank[c] = _rank(p, n, p[item])
            record.place_rank[c] = place_rank


@njit(cache=True)
def _softmax(values: NDArray[np.float64], n: int, top: float) -> None:
    """Turn the first n log-odds, the highest being ``top``, into probabilities."""
    total = 0.0
    for k in range(n):
        values[k] = np.exp(values[k] - top)
        total += values[k]
    for k in range(n):
        values[k] /= total


@njit(cache=True)
def _crawl(begin: int, end: int, state: NDArray[np.uint64], products: Products, record: Record) -> None:
    """A bot: every product that has arrived is as likely as any other, at each click."""
    for c in range(begin, end):
        item = -1
        while item < 0 or products.weight[item] <= 0.0:
            item = int(len(products.weight) * uniform(state))
        record.item[c] = item
        record.mechanism[c] = BOT
        record.place[c] = 0
        record.intent[c] = products.subcategory[item]
        record.pace[c] = 0
        record.taste[c] = 0.0
        record.price_level[c] = 0.0
        record.probability[c] = 1.0 / products.available
        record.rank[c] = (products.available + 1) / 2.0
        record.place_rank[c] = 0.0


@njit(cache=True)
def count_pairs(
    low: int,
    high: int,
    offsets: NDArray[np.int64],
    items: NDArray[np.int32],
    limit: int,
    together: NDArray[np.int32],
) -> None:
    """Add, for sessions low to high - 1, one to ``together[i, j]`` for each two products seen in one.

    The diagonal counts the sessions of a product.  Sessions with more than ``limit`` different products
    are left out.
    """
    for s in range(low, high):
        seen = np.unique(items[offsets[s] : offsets[s + 1]])
        if len(seen) <= limit:
            for i in seen:
                for j in seen:
                    together[i, j] += 1


@njit(cache=True)
def similar_items(together: NDArray[np.int32], carousel: NDArray[np.int16]) -> None:
    """Fill row i of ``carousel`` [n, size] with the products most similar to i, best first.

    Similarity: sessions with both / sqrt(product of the sessions with each).  The lower product number
    first among equals; -1 where fewer products were ever seen together with i.
    """
    n, size = carousel.shape
    best = np.empty(size)
    for i in range(n):
        found = 0
        for j in range(n):
            if together[i, j] == 0 or i == j:
                continue
            score = together[i, j] / np.sqrt(float(together[i, i]) * float(together[j, j]))
            if found == size and score <= best[size - 1]:
                continue
            k = found if found < size else size - 1
            while k > 0 and best[k - 1] < score:
                best[k] = best[k - 1]
                carousel[i, k] = carousel[i, k - 1]
                k -= 1
            best[k] = score
            carousel[i, k] = j
            found = min(found + 1, size)
        for k in range(found, size):
            carousel[i, k] = -1
