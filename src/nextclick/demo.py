"""The whole way on a simulated shop: log, prepared data, models, comparison, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nextclick.dataset import Dataset
from nextclick.evaluation import evaluate
from nextclick.files import new_directory, write_json
from nextclick.models import build
from nextclick.prepare import prepare
from nextclick.results import Report
from nextclick.shop import ShopConfig, simulate

# A product page does not recommend its own product, and this shop's visitors never click it twice in a row.
MODELS: Mapping[str, Mapping[str, Any]] = {
    "pop": {},
    "markov": {},
    "item-knn": {},
    "vs-knn": {"remind": "earlier"},
}
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
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> Demo:
    """Simulate a shop, prepare its log, fit four recommenders, compare them, write the report.

    Everything lands in ``out``: shop/ (clicks, items, thumbnails, truth), data/ (prepared sessions),
    models/NAME, report.html, report.json; all of it or nothing.  say: told what is being done.
    Raises DataError when ``out`` exists and is not to be overwritten, and MissingExtraError where the
    packages that draw the report are not installed.
    """
    from nextclick.report import require_charts, write_html

    require_charts()
    config = config or ShopConfig()
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
        with step(f"fitting {', '.join(MODELS)}"):
            models = {name: build(name, chosen).fit(dataset.full) for name, chosen in MODELS.items()}
            for name, model in models.items():
                model.save(aside / "models" / name)
        with step("evaluating them"):
            paths = {name: str(out / "models" / name) for name in MODELS}
            report = evaluate(models, dataset.test, dataset="demo shop", paths=paths)
        with step("writing the report"):
            write_json(aside / "report.json", report.to_json())
            write_html(report, aside / "report.html", dataset)
    return Demo(out, dataset, report, seconds)


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
