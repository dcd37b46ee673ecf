"""The demo shop: the signals it promises are there, vanish at strength 0, and the oracle is right."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from nextclick.errors import ConfigError, DataError, MissingExtraError
from nextclick.metrics import gini_of
from nextclick.shop import Shop, ShopConfig, simulate
from nextclick.shop import shop as shop_module
from nextclick.shop.catalogue import COMPARING, PATTERN, PER_CATEGORY, SUBCATEGORIES, make_catalogue
from nextclick.shop.thumbnails import OUTLINES, thumbnail
from nextclick.shop.visitors import BOT, CAROUSEL, DAY_MS, EPOCH_MS, MECHANISMS, taste_axes

SMALL = ShopConfig(products=400, sessions=5000, days=6, newcomers=30, oracle_days=2)


def variant(**changes: Any) -> ShopConfig:
    return dataclasses.replace(SMALL, **changes)


@pytest.fixture(scope="module")
def shop() -> Shop:
    return simulate(SMALL)


@pytest.fixture(scope="module")
def mute() -> Shop:
    """A shop whose texts and thumbnails say nothing and whose carousel has no preferred places."""
    return simulate(variant(text=0, image=0, sequence=0, carousel_position=0))


# Determinism


def test_the_same_seed_gives_the_same_shop_click_for_click(shop: Shop) -> None:
    again = simulate(SMALL)
    for name, column in shop.log.truth._asdict().items():
        np.testing.assert_array_equal(column, getattr(again.log.truth, name), err_msg=name)
    np.testing.assert_array_equal(shop.log.timestamp, again.log.timestamp)
    assert shop.catalogue.titles == again.catalogue.titles


def test_another_seed_gives_another_shop(shop: Shop) -> None:
    other = simulate(variant(seed=2))
    assert other.catalogue.titles != shop.catalogue.titles
    assert not np.array_equal(other.log.item[:1000], shop.log.item[:1000])


def test_global_random_state_is_neither_read_nor_moved(shop: Shop) -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    assert simulate(variant(sessions=200)).log.item is not None
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # type: ignore[index]


# Statistics


def test_sessions_look_like_those_of_real_logs(shop: Shop) -> None:
    counts = shop.counts()
    assert 3 <= counts["median_clicks_per_session"] <= 4
    assert 4.3 < counts["mean_clicks_per_session"] < 5.5
    assert 0.4 < counts["gini"] < 0.75  # 0.56 to 0.84 in three public logs
    lengths = np.diff(shop.log.offsets)[~shop.log.bot]
    assert np.percentile(lengths, 99) > 15
    assert lengths.max() < 200


def test_there_are_bots_with_hundreds_of_clicks(shop: Shop) -> None:
    lengths = np.diff(shop.log.offsets)[shop.log.bot]
    assert len(lengths) >= 1
    assert lengths.min() >= 200
    assert (shop.log.truth.mechanism[shop.log.bot[shop.log.session]] == BOT).all()


def test_no_product_is_clicked_before_it_arrives(shop: Shop) -> None:
    arrival = EPOCH_MS + shop.catalogue.arrived[shop.log.item] * DAY_MS
    assert (shop.log.timestamp >= arrival).all()
    newcomers = shop.catalogue.arrived >= SMALL.days - 3
    assert newcomers.sum() == SMALL.newcomers
    assert newcomers[shop.log.item].sum() > 100


def test_times_rise_within_a_session_and_pauses_stay_below_half_an_hour(shop: Shop) -> None:
    log = shop.log
    pause = np.diff(log.timestamp)[np.diff(log.session) == 0]
    assert pause.min() >= 1000
    assert pause.max() <= 1_500_000
    starts = log.timestamp[log.offsets[:-1]]
    assert (np.diff(starts) >= 0).all()
    assert ((starts - EPOCH_MS) // DAY_MS == log.day).all()


def test_evenings_and_weekends_are_busier() -> None:
    log = simulate(variant(days=7, sessions=7000)).log
    hour = (log.timestamp[log.offsets[:-1]] - EPOCH_MS) % DAY_MS // 3_600_000
    visits = np.bincount(hour, minlength=24)
    assert visits[20] > 5 * visits[3]
    assert np.bincount(log.day)[6] > 1.1 * np.bincount(log.day)[1]


def test_mechanisms_come_in_the_proportions_of_their_weights(shop: Shop) -> None:
    """Last, intent and popular are always on offer for long sessions' later clicks, so they compare."""
    config, log = shop.config, shop.log
    made = Counter(log.truth.mechanism[log.position > 1].tolist())
    ratio = made[MECHANISMS.index("last")] / made[MECHANISMS.index("intent")]
    assert ratio == pytest.approx(config.last_weight / config.intent_weight, rel=0.08)
    ratio = made[MECHANISMS.index("popular")] / made[MECHANISMS.index("intent")]
    assert ratio == pytest.approx(config.popular_weight / config.intent_weight, rel=0.08)


def test_gini_of_equal_and_of_one_sided_counts() -> None:
    assert gini_of(np.array([3, 3, 3])) == 0
    assert gini_of(np.array([0, 0, 0, 8])) == pytest.approx(3 / 4)


# Sequence


def consecutive(shop: Shop) -> np.ndarray:
    """How often each product was clicked right after each other, without the bots."""
    log, n = shop.log, len(shop.catalogue)
    inside = (np.diff(log.session) == 0) & ~log.bot[log.session[1:]]
    together = np.zeros((n, n))
    np.add.at(together, (log.item[:-1][inside], log.item[1:][inside]), 1)
    return together


def deals(group: np.ndarray) -> list[np.ndarray]:
    """Sixty ways to deal products out anew inside their groups."""
    rng, places = np.random.default_rng(5), np.argsort(group, kind="stable")
    orders = []
    for _ in range(60):
        shuffled = rng.permutation(len(group))
        order = np.empty(len(group), int)
        order[places] = shuffled[np.argsort(group[shuffled], kind="stable")]
        orders.append(order)
    return orders


def direction(shop: Shop) -> float:
    """Clicks along comparing links less clicks against them, in deviations of links drawn anew."""
    together = consecutive(shop)
    surplus = together - together.T
    links = shop.catalogue.links[:, :COMPARING]

    def along(order: np.ndarray) -> float:
        return float(surplus[order[:, None], order[links]].sum())

    chance = np.array([along(order) for order in deals(shop.catalogue.subcategory)])
    return float((along(np.arange(len(links))) - chance.mean()) / chance.std())


def test_successor_links_are_directed(shop: Shop) -> None:
    assert direction(shop) > 8
    links = shop.catalogue.links[:, :COMPARING]
    assert not any(i in links[j] for i in range(len(links)) for j in links[i])


def test_without_sequence_no_direction_is_left(mute: Shop) -> None:
    assert abs(direction(mute)) < 4
    assert not np.isin(mute.log.truth.mechanism, (1, 2)).any()


def test_the_click_before_the_last_matters_beyond_the_last(shop: Shop) -> None:
    """Successors of the second-to-last click are hit more often than predecessors of it, two clicks on."""
    log = shop.log
    inside = (log.position[2:] > 2) & ~log.bot[log.session[2:]]
    before, now = log.item[:-2][inside], log.item[2:][inside]
    links = shop.catalogue.links[:, :COMPARING]
    along = (links[before] == now[:, None]).any(axis=1).sum()
    against = (links[now] == before[:, None]).any(axis=1).sum()
    assert along > 1.2 * against


# Text and image


def neighbours_alike(shop: Shop, features: np.ndarray, within: bool) -> float:
    """How much more alike consecutive clicks are than if the features were dealt out anew, in deviations.

    Pairs of products count by how far they exceed what their popularity explains.  within: pairs inside
    a subcategory only, and features dealt out inside it, so that what tells the subcategory is no help.
    """
    together = consecutive(shop)
    np.fill_diagonal(together, 0)
    group = shop.catalogue.subcategory if within else np.zeros(len(shop.catalogue), int)
    together *= group[:, None] == group
    of_group = np.bincount(group, together.sum(axis=1))
    expected = np.outer(together.sum(axis=1), together.sum(axis=0)) * (group[:, None] == group)
    expected /= np.maximum(of_group[group], 1)[:, None]
    excess = (together - expected) / np.sqrt(np.maximum(expected, 1e-9))
    excess[expected == 0] = 0
    np.fill_diagonal(excess, 0)
    alike = features @ features.T
    chance = np.array([(excess * alike[np.ix_(order, order)]).sum() for order in deals(group)])
    return float(((excess * alike).sum() - chance.mean()) / chance.std())


def title_features(shop: Shop) -> np.ndarray:
    words = sorted({word for title in shop.catalogue.titles for word in title.split()})
    place = {word: k for k, word in enumerate(words)}
    table = np.zeros((len(shop.catalogue), len(words)))
    for i, title in enumerate(shop.catalogue.titles):
        table[i, [place[word] for word in title.split()]] = 1
    table -= table.mean(axis=0)
    return table / np.linalg.norm(table, axis=1, keepdims=True)


def pictures(shop: Shop) -> np.ndarray:
    shown = range(len(shop.catalogue))
    return np.stack([np.asarray(thumbnail(shop.config, shop.catalogue, i), float) for i in shown])


def image_features(shop: Shop) -> np.ndarray:
    """Coarse pixels: outline and colour."""
    coarse = pictures(shop).reshape(-1, 16, 4, 16, 4, 3).mean(axis=(2, 4)).reshape(len(shop.catalogue), -1)
    coarse -= coarse.mean(axis=0)
    return coarse / np.linalg.norm(coarse, axis=1, keepdims=True)


def texture_features(shop: Shop) -> np.ndarray:
    """How lightness changes over a few pixels in three directions, relative to its subcategory's mean."""
    light = pictures(shop).mean(axis=3)[:, 12:52, 12:52]
    steps = [(0, k) for k in range(1, 8)] + [(k, 0) for k in range(1, 8)] + [(k, k) for k in range(1, 6)]
    texture = np.stack(
        [np.abs(light[:, dy:, dx:] - light[:, : 40 - dy, : 40 - dx]).mean(axis=(1, 2)) for dy, dx in steps],
        axis=1,
    )
    texture = np.log(texture)
    group = shop.catalogue.subcategory
    for g in range(len(SUBCATEGORIES)):
        texture[group == g] -= texture[group == g].mean(axis=0)
    return texture / np.linalg.norm(texture, axis=1, keepdims=True)


def test_titles_tell_what_is_clicked_next_and_nothing_at_strength_0(shop: Shop, mute: Shop) -> None:
    assert neighbours_alike(shop, title_features(shop), within=False) > 10
    assert neighbours_alike(shop, title_features(shop), within=True) > 4
    assert abs(neighbours_alike(mute, title_features(mute), within=False)) < 4


def test_thumbnails_tell_what_is_clicked_next_and_nothing_at_strength_0(shop: Shop, mute: Shop) -> None:
    assert neighbours_alike(shop, image_features(shop), within=False) > 10
    assert neighbours_alike(shop, texture_features(shop), within=True) > 4
    assert abs(neighbours_alike(mute, texture_features(mute), within=True)) < 4
    assert abs(neighbours_alike(mute, image_features(mute), within=False)) < 4


@pytest.mark.parametrize("column", range(4), ids=["material", "style", "pattern", "tone"])
def test_every_hidden_attribute_drives_clicks_unless_its_strength_is_0(
    shop: Shop, mute: Shop, column: int
) -> None:
    def attribute(of: Shop) -> np.ndarray:
        return taste_axes(of.catalogue.attributes)[:, 2 * column : 2 * column + 2]

    assert neighbours_alike(shop, attribute(shop), within=True) > 4
    assert abs(neighbours_alike(mute, attribute(mute), within=True)) < 4


def test_the_pattern_can_be_read_off_the_thumbnail_and_not_off_the_title(shop: Shop) -> None:
    """A plain thumbnail has a smoother middle than a checked one of the same product."""
    pattern = np.rint(shop.catalogue.attributes[:, PATTERN] / (2 * np.pi) * 8).astype(int)

    def roughness(i: int) -> float:
        middle = np.asarray(thumbnail(shop.config, shop.catalogue, i), float)[24:46, 22:42].mean(axis=2)
        return float(np.abs(np.diff(middle, axis=1)).mean())

    rough = np.array([roughness(i) for i in range(200)])
    assert np.median(rough[pattern[:200] == 4]) > 2 * np.median(rough[pattern[:200] == 0])
    assert not any(word in " ".join(shop.catalogue.titles) for word in ("stripe", "check", "dots"))


# Carousel


def slow_similar(shop: Shop, day: int) -> list[list[int]]:
    """I2I-CF by the book: sets of sessions, cosine, sort."""
    log = shop.log
    seen: dict[int, set[int]] = {i: set() for i in range(len(shop.catalogue))}
    for s in np.flatnonzero(log.day < day).tolist():
        products = set(log.item[log.offsets[s] : log.offsets[s + 1]].tolist())
        if len(products) <= shop.config.carousel_max_products:
            for i in products:
                seen[i].add(s)
    lists = []
    for i in range(len(shop.catalogue)):
        scored = []
        for j in range(len(shop.catalogue)):
            both = len(seen[i] & seen[j])
            if both and i != j:
                scored.append((-both / np.sqrt(float(len(seen[i])) * float(len(seen[j]))), j))
        lists.append([j for _, j in sorted(scored)[: shop.config.carousel_size]])
    return lists


def test_carousels_equal_a_slow_obvious_item_to_item_cosine() -> None:
    small = simulate(variant(products=256, sessions=900, newcomers=10))
    for day in (1, 4):
        fast = [[int(j) for j in row if j >= 0] for row in small.log.carousels[day]]
        assert fast == slow_similar(small, day)
    assert (small.log.carousels[0] == -1).all()


def test_similar_clicks_stand_at_their_place_of_the_last_clicks_carousel(shop: Shop) -> None:
    log = shop.log
    clicks = np.flatnonzero(log.truth.mechanism == CAROUSEL)
    assert len(clicks) > 1000
    shown = log.carousels[log.day[log.session[clicks]], log.item[clicks - 1]]
    np.testing.assert_array_equal(
        shown[np.arange(len(clicks)), log.truth.place[clicks] - 1], log.item[clicks]
    )
    assert (log.truth.place[log.truth.mechanism != CAROUSEL] == 0).all()


def test_explorers_look_deeper_and_show_it_before(shop: Shop) -> None:
    log = shop.log
    on_carousel, explorer = log.truth.mechanism == CAROUSEL, log.explorer[log.session]
    place = log.truth.place
    assert np.median(place[on_carousel & explorer]) > 12 > 8 > np.median(place[on_carousel & ~explorer])
    lengths = np.diff(log.offsets)
    assert lengths[log.explorer].mean() > 1.3 * lengths[~log.explorer & ~log.bot].mean()
    returns = log.truth.mechanism == MECHANISMS.index("repeat")
    later = log.position > 2
    assert returns[later & ~explorer].mean() > 2 * returns[later & explorer].mean()


def place_surprise(shop: Shop, explorers: bool) -> float:
    """Places clicked, less those expected if only the match counted, in standard deviations."""
    log, total, variance = shop.log, 0.0, 0.0
    for c in np.flatnonzero((log.truth.mechanism == CAROUSEL) & (log.explorer[log.session] == explorers)):
        _, weights = carousel_offer(shop, int(c), position=0.0)
        places = np.arange(1, len(weights) + 1)
        mean = (weights * places).sum()
        total += log.truth.place[c] - mean
        variance += (weights * (places - mean) ** 2).sum()
    return float(total / np.sqrt(variance))


def test_places_attract_clicks_by_kind_of_visitor_and_not_at_strength_0(shop: Shop, mute: Shop) -> None:
    assert place_surprise(shop, explorers=False) < -10
    assert place_surprise(shop, explorers=True) > 4
    assert abs(place_surprise(mute, explorers=False)) < 4
    assert abs(place_surprise(mute, explorers=True)) < 4


# Oracle


def match(shop: Shop, c: int) -> np.ndarray:
    config, state = shop.config, shop.log.truth
    strength = np.array([config.text, config.text, config.image, config.image]) * config.taste_sharpness
    likes = (strength * np.cos(shop.catalogue.attributes - state.taste[c])).sum(axis=1)
    return likes - config.price_sharpness / 2 * (shop.catalogue.price_level - state.price_level[c]) ** 2


def carousel_offer(shop: Shop, c: int, position: float) -> tuple[np.ndarray, np.ndarray]:
    """The products of the carousel before click c, and their probabilities once it is used."""
    config, log = shop.config, shop.log
    session = log.session_of(c)
    shown = log.carousels[log.day[session], log.item[c - 1]].astype(int)
    shown = shown[shown >= 0]
    place = np.arange(len(shown))
    if log.explorer[session]:
        place_score = -(((place - config.explorer_place) / config.explorer_width) ** 2) / 2
    else:
        place_score = -place / config.skim_depth
    fits = shop.catalogue.subcategory[shown] == log.truth.intent[c]
    score = position * place_score + config.carousel_match * match(shop, c)[shown]
    weights = np.exp(score + config.carousel_intent * fits)
    return shown, weights / weights.sum()


def slow_oracle(shop: Shop, c: int) -> np.ndarray:
    """The probability of each product at click c, straight from docs/simulator.md."""
    config, log, items = shop.config, shop.log, shop.catalogue
    session = log.session_of(c)
    begin = int(log.offsets[session])
    prefix = [int(i) for i in log.item[begin:c]]
    weight = np.exp(items.log_weights(int(log.day[session])))
    allowed = weight > 0
    if prefix:
        allowed[prefix[-1]] = False
    suits = match(shop, c)
    offers: dict[str, np.ndarray] = {}
    mine = items.subcategory == log.truth.intent[c]
    offers["intent"] = np.where(mine & allowed, weight**config.intent_popularity * np.exp(suits), 0)
    offers["popular"] = np.where(allowed, weight, 0)
    for name, back in (("last", 1), ("before", 2)):
        offers[name] = np.zeros(len(items))
        if len(prefix) >= back:
            for k, i in enumerate(items.links[prefix[-back]]):
                pace = config.pace_share if k == log.truth.pace[c] else (1 - config.pace_share) / 4
                worth = weight[i] ** config.intent_popularity * np.exp(config.link_match * suits[i])
                offers[name][i] += pace * worth * allowed[i]
    offers["carousel"] = np.zeros(len(items))
    offers["repeat"] = np.zeros(len(items))
    if prefix:
        shown, chance = carousel_offer(shop, c, config.carousel_position)
        offers["carousel"][shown] = chance
        returns = [i for i in dict.fromkeys(reversed(prefix)) if i != prefix[-1]]
        offers["repeat"][returns] = config.repeat_decay ** np.arange(len(returns))
    weights = {name: getattr(config, f"{name}_weight") for name in offers}
    weights["last"] *= config.sequence
    weights["before"] *= config.sequence
    weights["repeat"] *= config.explorer_repeats if log.explorer[session] else 1
    present = {name: weights[name] for name, offer in offers.items() if offer.sum() > 0}
    return sum(
        (
            share / sum(present.values()) * offers[name] / offers[name].sum()
            for name, share in present.items()
        ),
        np.zeros(len(items)),
    )


def test_oracle_equals_a_slow_recomputation_and_is_calibrated(shop: Shop) -> None:
    log = shop.log
    lengths = np.diff(log.offsets)
    sessions = np.flatnonzero((log.day == SMALL.days - 1) & ~log.bot & (lengths > 2))[:150]
    mass, hits = [], []
    for s in sessions:
        for c in range(int(log.offsets[s]), int(log.offsets[s + 1])):
            p = slow_oracle(shop, c)
            own = p[log.item[c]]
            assert p.sum() == pytest.approx(1)
            assert log.truth.probability[c] == pytest.approx(own, rel=1e-9)
            near = np.isclose(p, own, rtol=1e-9, atol=0)
            better = int(((p > own) & ~near).sum())
            assert log.truth.rank[c] == pytest.approx(better + (int(near.sum()) + 1) / 2)
            if log.truth.place[c]:
                _, chance = carousel_offer(shop, c, SMALL.carousel_position)
                at = chance[log.truth.place[c] - 1]
                assert log.truth.place_rank[c] == pytest.approx((chance > at * (1 + 1e-9)).sum() + 1)
            mass.append(np.sort(p)[-20:].sum())
            hits.append(log.truth.rank[c] <= 20)
    expected, spread = np.sum(mass), np.sqrt(np.sum(np.array(mass) * (1 - np.array(mass))))
    assert abs(np.sum(hits) - expected) < 4 * spread


def test_oracle_is_far_above_popularity_and_below_certainty(shop: Shop) -> None:
    scores = shop.oracle()["last_2_days"]
    assert 0.6 < scores["all"]["recall_at_20"] < 0.95
    assert scores["carousel"]["recall_at_20"] > scores["carousel_order"]["recall_at_20"] + 0.1
    assert scores["carousel"]["mrr_at_20"] > scores["carousel_order"]["mrr_at_20"] + 0.1


# Catalogue


def test_subcategories_have_outlines_and_enough_products() -> None:
    items = make_catalogue(SMALL)
    assert set(OUTLINES) == set(SUBCATEGORIES)
    assert len(SUBCATEGORIES) == 8 * PER_CATEGORY
    assert np.bincount(items.subcategory, minlength=32).min() > 2 * COMPARING


def test_accessories_come_from_one_other_subcategory(shop: Shop) -> None:
    items = shop.catalogue
    for g in range(len(SUBCATEGORIES)):
        targets = items.subcategory[items.links[items.subcategory == g][:, COMPARING:]]
        assert len(np.unique(targets)) == 1
        assert targets.flat[0] != g


# Files


def test_files_are_complete_readable_and_without_nulls(shop: Shop, tmp_path: Path) -> None:
    folder = shop.write(tmp_path / "demo")
    tables = {}
    for name in ("clicks", "items", "truth"):
        relation = duckdb.sql(f"SELECT * FROM '{folder / name}.parquet'")
        tables[name] = (dict(zip(relation.columns, map(str, relation.types), strict=True)), len(relation))
        for column in relation.columns:
            assert relation.filter(f'"{column}" IS NULL').fetchall() == [], (name, column)
    assert tables["clicks"] == (
        {"session_id": "BIGINT", "item_id": "VARCHAR", "timestamp": "BIGINT", "event": "VARCHAR"},
        len(shop.log.item),
    )
    assert tables["items"][1] == SMALL.products
    assert tables["truth"][1] == len(shop.log.item)
    first = duckdb.sql(f"SELECT item_id, title, image FROM '{folder}/items.parquet' LIMIT 1").fetchall()
    assert first == [("P0001", shop.catalogue.titles[0], "thumbnails/P0001.png")]
    assert len(list((folder / "thumbnails").glob("*.png"))) == SMALL.products
    from PIL import Image

    with Image.open(folder / "thumbnails" / "P0001.png") as picture:
        assert (picture.size, picture.mode) == ((64, 64), "RGB")
    about = json.loads((folder / "shop.json").read_text())
    assert ShopConfig.of(about["config"]) == SMALL
    assert about["counts"] == shop.counts()
    assert about["oracle"] == shop.oracle()
    events = duckdb.sql(f"SELECT event, count(*) FROM '{folder}/clicks.parquet' GROUP BY 1").fetchall()
    assert dict(events)["similar_click"] == shop.counts()["similar_clicks"]


def test_writing_twice_gives_the_same_bytes(shop: Shop, tmp_path: Path) -> None:
    one, two = (shop.write(tmp_path / name, thumbnails=False) for name in ("one", "two"))
    for file in ("clicks.parquet", "items.parquet", "truth.parquet", "shop.json"):
        assert (one / file).read_bytes() == (two / file).read_bytes()
    assert duckdb.sql(f"SELECT DISTINCT image FROM '{one}/items.parquet'").fetchall() == [("",)]


def test_writing_is_all_or_nothing(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shop_module, "write_thumbnails", fail)
    with pytest.raises(KeyboardInterrupt):
        shop.write(tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused_unless_overwriting(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    with pytest.raises(DataError, match="exists already"):
        shop.write(tmp_path / "demo", thumbnails=False)
    shop.write(tmp_path / "demo", thumbnails=False, overwrite=True)
    assert (tmp_path / "demo" / "shop.json").is_file()


def test_thumbnails_without_pillow_name_the_extra(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"nextclick\[report\]"):
        shop.write(tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sequense": 1}, "did you mean 'sequence'"),
        ({"text": -1}, "text must be from 0 to 10, found -1"),
        ({"sessions": 10.5}, "sessions must be a whole number"),
        ({"text": "much"}, "text must be a number"),
        ({"newcomers": 300, "products": 400}, "arrive late"),
        ({"intent_weight": 0, "popular_weight": 0}, "must not both be 0"),
        ({"trend": float("nan")}, "trend must be at least 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ShopConfig.of(settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"sessions": 1, "products": 256, "newcomers": 0},
        {"intent_weight": 0.0, "sessions": 200},
        {"bots": 1.0, "sessions": 5},
        {"explorers": 1.0, "carousel_size": 1, "sessions": 300},
    ],
)
def test_extreme_settings_still_give_a_shop(settings: dict[str, Any]) -> None:
    made = simulate(variant(**settings))
    made.counts()
    made.oracle()
    assert (made.log.truth.probability > 0).all()


def test_every_setting_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[1] / "docs" / "simulator.md").read_text("utf-8")
    for field in dataclasses.fields(ShopConfig):
        assert f"`{field.name}`" in page, field.name
