"""The whole way on a simulated shop: log, prepared data, models, comparison, report."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nextclick.dataset import Dataset
from nextclick.evaluation import evaluate
from nextclick.features import Features, Images, build_features
from nextclick.files import new_directory, write_json
from nextclick.filters import ItemTable
from nextclick.models import build, find, takes_generators
from nextclick.prepare import prepare
from nextclick.recommender import Recommender
from nextclick.results import Report
from nextclick.shop import ShopConfig, simulate

Settings = Mapping[str, Any]

# A product page does not recommend its own product, and this shop's visitors never click it twice in a row.
MODELS: Mapping[str, Settings] = {
    "pop": {},
    "markov": {},
    "item-knn": {},
    "vs-knn": {"remind": "earlier"},
}
GENERATORS = ("vs-knn", "narm")  # of the models in two stages
# Small enough for a minute; with ``full`` as they are by default.
NETWORKS: Mapping[str, Settings] = {
    "narm": {"dim": 50, "hidden": 50, "epochs": 3, "learning_rate": 0.005},
    "rrcre": {"dim": 32, "k": 50},
}
FULL: Mapping[str, Settings] = {
    "narm": {"epochs": 6},
    "blend": {},
    "rrcre": {},
    "prnn": {
        "strategy": "simultaneous", "loss": "cross-entropy", "logq": 1.0, "activation": "linear",
        "batch_size": 200, "n_samples": 512, "learning_rate": 0.05, "epochs": 4,
    },
}  # fmt: skip
PASSES = 5  # over the thumbnails, in training what sees them
HOLDOUT = "3d"  # the newcomers of the last three days meet models that have never seen them


@dataclass(frozen=True)
class Demo:
    """What the demo made: its folder, the prepared data, the report and the seconds of each step."""

    out: Path
    dataset: Dataset
    report: Report
    seconds: dict[str, float]


def run(
    out: Path,
    config: ShopConfig | None = None,
    *,
    full: bool = False,
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> Demo:
    """Simulate a shop, prepare its log, fit recommenders, compare them, write the report.

    Everything lands in ``out``: shop/ (clicks, items, thumbnails, truth), data/ (prepared sessions),
    models/NAME, report.html, report.json, with ``full`` features/ of the thumbnails; all of it or nothing.
    Where PyTorch is not installed the networks, and what re-ranks, are left out, and it is said.
    full: train the networks as long as they are trained by default, and p-RNN on ids and thumbnails;
    say: told what is being done.
    Raises DataError when ``out`` exists and is not to be overwritten, and MissingExtraError where the
    packages that draw the report are not installed.
    """
    from nextclick.report import require_charts, two_stages, write_html

    require_charts()
    config = config or ShopConfig()
    chosen = {**MODELS, **((FULL if full else NETWORKS) if importlib.util.find_spec("torch") else {})}
    seconds: dict[str, float] = {}
    with new_directory(out, overwrite=overwrite) as aside:
        step = _Step(say, seconds)
        with step("simulating a shop"):
            shop = simulate(config)
            counts = shop.counts()
            shop.write(aside / "shop")
        say(
            f"  {counts['products']:,} products, {counts['sessions']:,} sessions, {counts['clicks']:,} clicks"
        )
        with step("preparing its log"):
            dataset = prepare(
                aside / "shop" / "clicks.parquet", out=aside / "data", event="event",
                holdout=HOLDOUT, validation=HOLDOUT,
            )  # fmt: skip
        say(
            f"  {len(dataset.train):,} sessions to fit on, {len(dataset.test):,} to test on (the last 3 days)"
        )
        features = None
        if any(find(name).wants_features for name in chosen):
            with step("reading its pictures"):
                features = _features(aside / "shop")
                features.save(aside / "features")
            say(f"  {features.describe('image')}")
        models: dict[str, Recommender] = {}
        for part in (MODELS, {name: chosen[name] for name in chosen if name not in MODELS}):
            if part:
                with step(f"fitting {', '.join(part)}"):
                    for name, values in part.items():
                        models[name] = _fitted(name, values, models, dataset, features)
            else:
                say("  without PyTorch no network: pip install 'nextclick[neural]' adds narm and rrcre")
        with step("evaluating them"):
            for name, model in models.items():
                model.save(aside / "models" / name)
            paths = {name: str(out / "models" / name) for name in models}
            report = evaluate(models, dataset.test, dataset="demo shop", paths=paths)
        with step("writing the report"):
            write_json(aside / "report.json", report.to_json())
            over = [name for name in models if takes_generators(name)]
            extra = [("Two stages", two_stages(report, over, GENERATORS))] if over else []
            write_html(report, aside / "report.html", dataset, extra=extra)
    return Demo(out, dataset, report, seconds)


def _features(shop: Path) -> Features:
    """What a small network, trained on the thumbnails themselves, sees on those of all products."""
    items = ItemTable.read(shop / "items.parquet")
    return build_features(items, pictures=Images("image", shop, "own", epochs=PASSES))


def _fitted(
    name: str,
    values: Settings,
    others: Mapping[str, Recommender],
    dataset: Dataset,
    features: Features | None,
) -> Recommender:
    generators = [others[one] for one in GENERATORS] if takes_generators(name) else []
    model = build(name, values, generators=generators)
    return model.fit(dataset.full, features=features if model.wants_features else None)


class _Step:
    """Says what is being done and keeps how long it took."""

    def __init__(self, say: Callable[[str], None], seconds: dict[str, float]) -> None:
        self.say, self.seconds = say, seconds

    def __call__(self, what: str) -> _Step:
        self.what = what
        return self

    def __enter__(self) -> None:
        self.say(f"{self.what} ...")
        self.start = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.seconds[self.what] = round(time.perf_counter() - self.start, 2)
