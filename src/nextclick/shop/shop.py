"""A simulated shop as a whole: making it, scoring its oracle, writing it down."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from nextclick.files import new_directory, write_json
from nextclick.metrics import gini_of
from nextclick.shop.catalogue import (
    BRANDS,
    CATEGORIES,
    COLOURS,
    PER_CATEGORY,
    SUBCATEGORIES,
    Catalogue,
    make_catalogue,
)
from nextclick.shop.config import ShopConfig
from nextclick.shop.thumbnails import require_pillow, write_thumbnails
from nextclick.shop.visitors import BOT, CAROUSEL, DAY_MS, EPOCH_MS, MECHANISMS, Log, simulate_clicks

FORMAT = "nextclick-shop"
FORMAT_VERSION = 1
EVENTS = ("view", "similar_click")


@dataclass(frozen=True, eq=False)
class Shop:
    """A shop with its month of clicks; ``write`` lays it down as files."""

    config: ShopConfig
    catalogue: Catalogue
    log: Log

    def counts(self) -> dict[str, Any]:
        """Sizes and shares of the log; lengths and Gini without the bots."""
        log = self.log
        human = ~log.bot[log.session]
        lengths = np.diff(log.offsets)[~log.bot]
        clicks = np.bincount(log.item[human], minlength=len(self.catalogue))
        later = human & (log.position > 1)
        made = np.bincount(log.truth.mechanism[later], minlength=len(MECHANISMS))
        return {
            "products": len(self.catalogue),
            "newcomers": int((self.catalogue.arrived >= self.config.days - 3).sum()),
            "sessions": len(log.day),
            "bots": int(log.bot.sum()),
            "clicks": len(log.item),
            "clicks_of_bots": int((~human).sum()),
            "similar_clicks": int((log.truth.mechanism == CAROUSEL).sum()),
            "median_clicks_per_session": float(np.median(lengths)) if len(lengths) else 0.0,
            "mean_clicks_per_session": round(float(lengths.mean()), 4) if len(lengths) else 0.0,
            "gini": round(gini_of(clicks), 4),
            "mechanisms": {
                name: round(float(share), 4)
                for name, share in zip(MECHANISMS, made / max(1, made.sum()), strict=True)
                if name != MECHANISMS[BOT]
            },
        }

    def oracle(self) -> dict[str, Any]:
        """Recall@20 and MRR@20 of the oracle on the last day and on the last ``oracle_days`` days.

        Counted are clicks after a session's first, without bots.  ``all`` and ``new_products`` (arrived
        in the last three days), ``similar_clicks``: rank among all products, not knowing where the
        visitor will click; ``carousel``: the clicks on the carousel, rank within its list, knowing
        that it is used; ``carousel_order``: the same clicks, rank = their place in the list.
        """
        log, truth = self.log, self.log.truth
        days = {"last_day": 1, f"last_{self.config.oracle_days}_days": self.config.oracle_days}
        counted = (log.position > 1) & ~log.bot[log.session]
        on_carousel = truth.mechanism == CAROUSEL
        new = self.catalogue.arrived[log.item] >= self.config.days - 3
        scores: dict[str, Any] = {}
        for name, last in days.items():
            late = counted & (log.day[log.session] >= self.config.days - last)
            scores[name] = {
                "all": _scores(truth.rank[late]),
                "new_products": _scores(truth.rank[late & new]),
                "similar_clicks": _scores(truth.rank[late & on_carousel]),
                "carousel": _scores(truth.place_rank[late & on_carousel]),
                "carousel_order": _scores(truth.place[late & on_carousel].astype(np.float64)),
            }
        return scores

    def write(self, folder: str | Path, *, overwrite: bool = False, thumbnails: bool = True) -> Path:
        """Write the shop into a new folder, wholly or not at all, and return the folder.

        clicks.parquet, items.parquet, truth.parquet, shop.json and, unless ``thumbnails`` is off,
        thumbnails/*.png.  Without thumbnails the column ``image`` holds empty text.
        Raises DataError when the folder exists (``overwrite`` replaces it), MissingExtraError when
        thumbnails are wanted and Pillow is not installed.
        """
        folder = Path(folder)
        if thumbnails:
            require_pillow()
        with new_directory(folder, overwrite=overwrite) as aside:
            ids = np.array(self.catalogue.ids, object)
            _write_table(aside / "clicks.parquet", self._clicks(ids))
            _write_table(aside / "items.parquet", self._items(ids, thumbnails))
            _write_table(aside / "truth.parquet", self._truth(ids))
            if thumbnails:
                write_thumbnails(self.config, self.catalogue, aside / "thumbnails")
            about = {"format": FORMAT, "format_version": FORMAT_VERSION}
            config = dataclasses.asdict(self.config)
            write_json(
                aside / "shop.json",
                {**about, "config": config, "counts": self.counts(), "oracle": self.oracle()},
            )
        return folder

    def _clicks(self, ids: NDArray[Any]) -> dict[str, NDArray[Any]]:
        log = self.log
        return {
            "session_id": log.session + 1,
            "item_id": ids[log.item],
            "timestamp": log.timestamp,
            "event": np.array(EVENTS, object)[(log.truth.mechanism == CAROUSEL).astype(int)],
        }

    def _items(self, ids: NDArray[Any], thumbnails: bool) -> dict[str, NDArray[Any]]:
        items = self.catalogue
        images = [f"thumbnails/{item}.png" if thumbnails else "" for item in ids]
        return {
            "item_id": ids,
            "title": np.array(items.titles, object),
            "description": np.array(items.descriptions, object),
            "category": np.array(CATEGORIES, object)[items.subcategory // PER_CATEGORY],
            "subcategory": np.array(SUBCATEGORIES, object)[items.subcategory],
            "brand": np.array(BRANDS, object)[items.brand],
            "colour": np.array(COLOURS, object)[items.colour],
            "price": items.price,
            "arrived": EPOCH_MS + items.arrived * DAY_MS,
            "image": np.array(images, object),
        }

    def _truth(self, ids: NDArray[Any]) -> dict[str, NDArray[Any]]:
        log, truth = self.log, self.log.truth
        return {
            "session_id": log.session + 1,
            "position": log.position,
            "item_id": ids[log.item],
            "mechanism": np.array(MECHANISMS, object)[truth.mechanism],
            "intent_subcategory": np.array(SUBCATEGORIES, object)[truth.intent],
            "explorer": log.explorer[log.session],
            "bot": log.bot[log.session],
            "oracle_rank": truth.rank,
            "oracle_probability": truth.probability,
            "carousel_place": truth.place.astype(np.int64),
            "carousel_oracle_rank": truth.place_rank,
        }


def simulate(config: ShopConfig | None = None) -> Shop:
    """Make a shop; the same config gives the same shop, click for click.  None: the reference shop."""
    config = config or ShopConfig()
    catalogue = make_catalogue(config)
    return Shop(config, catalogue, simulate_clicks(config, catalogue))


def _scores(ranks: NDArray[np.float64]) -> dict[str, float]:
    """Recall@20 and MRR@20; 0 where there is no click."""
    n = max(1, len(ranks))
    hit = ranks <= 20
    return {
        "clicks": len(ranks),
        "recall_at_20": round(float(hit.sum() / n), 4),
        "mrr_at_20": round(float((1 / ranks[hit]).sum() / n), 4),
    }


def _write_table(path: Path, columns: dict[str, NDArray[Any]]) -> None:
    """Write arrays as a Parquet file, rows in their order."""
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("columns", columns)
        target = str(path).replace("'", "''")
        connection.execute(f"COPY (SELECT * FROM columns) TO '{target}' (FORMAT parquet, COMPRESSION zstd)")
