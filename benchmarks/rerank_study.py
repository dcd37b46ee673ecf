"""Re-ranking taken apart, as in the RRCRE paper: results/rerank_study.json, part by part.

    python benchmarks/rerank_study.py carousel carousel-defaults carousel-small
    python benchmarks/rerank_study.py carousel-4x
    python benchmarks/rerank_study.py epochs-carousel candidates-carousel
    python benchmarks/rerank_study.py epochs-yoochoose64 candidates-yoochoose64
    python benchmarks/rerank_study.py epochs-diginetica candidates-diginetica
    python benchmarks/rerank_study.py held-out held-out-defaults held-out-carousel depth
    python benchmarks/rerank_study.py plot

carousel: table 1 on the demo shop, clicks on its carousel of similar items predicted from the last 12 clicks:
each generator, RR and RRCRE over I2I-CF, with differences paired over sessions; and the same on a shop whose
visitors do not care for places (carousel_position=0). carousel-4x: in shops of four times the sessions.
epochs-NAME: figure 3, recall@20 and MRR@20 on the test sessions after each epoch, with rank embeddings and
without.
candidates-NAME: figure 4, recall@5 on the test sessions by number of candidates.
held-out: what it changes whether generators have seen the sessions that they generate for; chosen on, and so
measured on, the latest tenth of the training sessions of yoochoose64, which nothing here was fitted on;
held-out-defaults: the same with the defaults, over I2I-CF; held-out-carousel: so on the latest eighth of the
carousel's, three seeds. depth: on those, with and without the places of earlier clicks, three seeds.
plot: pictures of both, docs/pictures/rerank-*.png, from the result file.
The others in the published form, preset=paper, but carousel-defaults and carousel-small: I2I-CF, and RR and
RRCRE with the defaults and with preset=small, which was chosen on the latest eighth of the carousel's
training sessions.
A part that stands in the result file already is not run again: delete it there to repeat it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from data import RESULTS, ROOT, ready, show, write
from nextclick import RRCRE, Dataset, ItemKNN, Recommender, build, evaluate, prepare
from nextclick.recommender import Run
from nextclick.sessions import Sessions
from nextclick.shop import ShopConfig, simulate

SHOWN = ("recall@20", "mrr@20", "recall@5")
METRICS = (("recall@20", "recall@20"), ("mrr@20", "MRR@20"))
AT_5 = (("recall@5", "recall@5"), ("mrr@20", "MRR@20"))
K = (5, 25, 50, 100, 150, 200)
TITLES = {
    "carousel": "carousel of the demo shop",
    "yoochoose64": "YooChoose 1/64",
    "diginetica": "Diginetica",
}
LABELS = {"item-knn": "I2I-CF"}
SHOPS = {"as designed": 1.0, "without position signal": 0.0}  # what places do to its visitors
CLICKS = {"event": "similar_click", "clicks": 12}


def carousel(work: Path, times: int = 1) -> dict[str, Any]:
    i2i = shown_order()
    models: dict[str, Recommender] = {"I2I-CF": i2i, "STAMP": build("stamp"), "NARM": build("narm")}
    models |= {"RR-I2I-CF": RRCRE.preset("rr", i2i), "RRCRE-I2I-CF": RRCRE.preset("paper", i2i)}
    return {name: table(carousel_data(work, of, times), models, work) for name, of in SHOPS.items()}


def carousel_ours(work: Path, **settings: Any) -> dict[str, Any]:
    """RR is told nothing of places; without rank embeddings the small network of scores reads them still."""
    i2i = shown_order()
    models: dict[str, Recommender] = {
        "I2I-CF": i2i,
        "RR-I2I-CF": build("rrcre", {**settings, "cre": False, "scored": False}, generators=[i2i]),
        "RR-I2I-CF, scored": build("rrcre", {**settings, "cre": False}, generators=[i2i]),
        "RRCRE-I2I-CF": build("rrcre", settings, generators=[i2i]),
    }
    return {name: table(carousel_data(work, of), models, work) for name, of in SHOPS.items()}


def shown_order() -> ItemKNN:
    """The order in which the shop shows its carousels."""
    return ItemKNN.preset("i2i-cf", asymmetry=0.5)


def carousel_data(work: Path, strength: float, times: int = 1) -> Dataset:
    folder = work / f"shop-{strength:g}-{times}"
    if not folder.exists():
        config = ShopConfig(carousel_position=strength, sessions=times * ShopConfig().sessions)
        simulate(config).write(folder, thumbnails=False)
        prepare(
            folder / "clicks.parquet", out=folder / "data", event="event", holdout="3d", validation="0",
            target_event=CLICKS["event"], target_clicks=CLICKS["clicks"],
        )  # fmt: skip
    return Dataset.load(folder / "data")


def table(dataset: Dataset, models: dict[str, Recommender], work: Path) -> dict[str, Any]:
    run = Run(candidates=work / "candidates")
    for name, model in models.items():
        print(f"{dataset.name}: {name}", file=sys.stderr, flush=True)
        model.fit(dataset.train, progress=show(), run=run)
    report = evaluate(models, dataset)
    return {
        "pairs": report.pairs,
        "rows": {
            result.name: {
                **{
                    metric: round(result.metrics[metric], 4) for metric in ("recall@20", "mrr@20", "recall@5")
                },
                "intervals": {
                    metric: [round(bound, 4) for bound in result.intervals[metric]]
                    for metric in ("recall@20", "mrr@20")
                },
            }
            for result in report.models
        },
        "RRCRE-I2I-CF over": differences(report, "RRCRE-I2I-CF"),
        "RR-I2I-CF over": differences(report, "RR-I2I-CF"),
    }


def differences(report: Any, label: str) -> list[dict[str, Any]]:
    """What a model has more than each other one: paired over sessions, with 95% interval and p-value."""
    found = []
    for one in report.comparisons:
        if label not in (one.first, one.second) or one.metric not in ("recall@20", "mrr@20"):
            continue
        sign = 1 if one.first == label else -1
        low, high = sorted((sign * one.low, sign * one.high))
        found.append({
            "over": one.second if sign == 1 else one.first,
            "metric": one.metric,
            "difference": round(sign * one.difference, 4),
            "interval": [round(low, 4), round(high, 4)],
            "p": one.p,
        })  # fmt: skip
    return found


class Watched(RRCRE):
    """A re-ranker that is measured on given sessions after each epoch; what it learns is not changed."""

    test: Sessions

    def _run_stage(self, stage: str, objective: Any, options: Any, validate: Any, about: Any) -> Any:
        def looked() -> float:
            self.curve.append(self.measure(self.test))
            return validate()

        self.curve: list[dict[str, float]] = []
        return super()._run_stage(stage, objective, options, looked, about)


def epochs(setting: str, work: Path) -> dict[str, Any]:
    dataset, generator = of_setting(setting, work)
    of_generator = generator.fit(dataset.train, progress=show()).measure(dataset.test)
    found = {"generator is": generator.name, "generator": of_generator}
    for label, cre in (("RRCRE", True), ("RR", False)):
        model = Watched.preset("paper", generator, cre=cre, every=10**6)  # one look an epoch
        model.test = dataset.test
        model.fit(dataset.train, progress=show(), run=Run(candidates=work / "candidates"))
        found[label] = model.curve
        print(setting, label, model.curve, flush=True)
    return found


def candidates(setting: str, work: Path) -> dict[str, Any]:
    dataset, generator = of_setting(setting, work)
    generator.fit(dataset.train, progress=show())
    found = {"generator is": generator.name, "generator": figures(generator, dataset)}
    for k in K:
        model = RRCRE.preset("paper", generator, k=k).fit(dataset.train, progress=show())
        found[str(k)] = figures(model, dataset)
        print(setting, k, found[str(k)], flush=True)
    return found


def figures(model: Recommender, dataset: Dataset) -> dict[str, float]:
    metrics = evaluate([model], dataset).models[0].metrics
    return {metric: metrics[metric] for metric in SHOWN}


def of_setting(name: str, work: Path) -> tuple[Dataset, Recommender]:
    """One of the two settings of the paper's figures, on the logs at hand."""
    if name == "carousel":
        return carousel_data(work, 1.0), shown_order()
    return ready(name, work), build("vs-knn")


def held_out(
    train: Sessions, *generators: Recommender, part: int = 10, seeds: int = 1,
    ways: Sequence[str] = ("none", "folds"), **settings: Any,
) -> dict[str, Any]:  # fmt: skip
    """Measured on the latest of so many parts of the sessions; figures are means over the seeds."""
    fitted, later = latest_apart(train, part)
    found: dict[str, Any] = {"sessions": len(fitted), "predicted": later.n_pairs}
    for generator in generators:
        of_generator = found[generator.name] = {"generator": generator.fit(fitted).measure(later)}
        for way in (*ways, "session") if generator.name == "vs-knn" else ways:
            of_generator[way] = mean_of_seeds(generator, fitted, later, seeds, **settings, held_out=way)
            print(generator.name, way, of_generator[way], flush=True)
    return found


def latest_apart(sessions: Sessions, part: int) -> tuple[Sessions, Sessions]:
    """Return sessions without the latest of so many parts, and those."""
    n = len(sessions) // part
    return sessions[:-n], sessions[-n:]


def mean_of_seeds(
    generator: Recommender, fitted: Sessions, later: Sessions, seeds: int, **settings: Any
) -> dict[str, Any]:
    """What a re-ranker fitted on some sessions reaches on later ones."""
    runs = []
    for seed in range(1, seeds + 1):
        model = build("rrcre", {**settings, "seed": seed}, generators=[generator])
        runs.append(model.fit(fitted, progress=show()).measure(later))
    means = {metric: sum(run[metric] for run in runs) / seeds for metric in runs[0]}
    return {**means, "examples": model.facts["examples"]}


def held_out_yoochoose(work: Path) -> dict[str, Any]:
    train = ready("yoochoose64", work).train
    return held_out(train, ItemKNN.preset("i2i-cf"), build("vs-knn"), preset="paper")


def held_out_defaults(work: Path) -> dict[str, Any]:
    return held_out(ready("yoochoose64", work).train, ItemKNN.preset("i2i-cf"))


def held_out_carousel(work: Path) -> dict[str, Any]:
    train = carousel_data(work, 1.0).train
    return held_out(train, shown_order(), part=8, seeds=3, ways=("none", "folds", "time"))


def depth(work: Path) -> dict[str, Any]:
    """What it changes to read how far down a visitor looks, on later sessions of training parts."""
    i2i, train = ItemKNN.preset("i2i-cf"), ready("yoochoose64", work).train
    shops = {name: carousel_data(work, of).train for name, of in SHOPS.items()}
    asked = {
        "yoochoose64": (train, 10, i2i, {}),
        **{f"carousel, {name}": (of, 8, shown_order(), {}) for name, of in shops.items()},
        **{
            f"carousel, {name}, small": (of, 8, shown_order(), {"preset": "small"})
            for name, of in shops.items()
        },
    }
    found: dict[str, Any] = {}
    for name, (sessions, part, generator, settings) in asked.items():
        fitted, later = latest_apart(sessions, part)
        found[name] = {"generator": generator.fit(fitted).measure(later)}
        for way in ("yes", "no"):
            found[name][way] = mean_of_seeds(generator, fitted, later, 3, **settings, depth=way)
            print(name, way, found[name][way], flush=True)
    return found


def plot(content: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    def drawn(kind: str, metrics: Sequence[tuple[str, str]], along: str, values_of: Any) -> None:
        """A picture of the parts of a kind: a column for each, a row for each metric."""
        parts = {part.removeprefix(f"{kind}-"): of for part, of in content.items() if part.startswith(kind)}
        figure, axes = pyplot.subplots(2, len(parts), figsize=(4.5 * len(parts), 6), squeeze=False)
        for column, (name, of) in enumerate(parts.items()):
            for axis, (metric, title) in zip(axes[:, column], metrics, strict=True):
                for label, (places, values) in values_of(of, metric).items():
                    axis.plot(places, values, marker="o", label=label)
                axis.axhline(
                    of["generator"][metric], color="grey",
                    label=LABELS.get(of["generator is"], of["generator is"]),
                )  # fmt: skip
                axis.set(xlabel=along, ylabel=title, title=TITLES[name])
                axis.spines[["top", "right"]].set_visible(False)
                axis.legend(frameon=False)
        figure.tight_layout()
        figure.savefig(ROOT / "docs" / "pictures" / f"rerank-{kind}.png", dpi=100)

    drawn("epochs", METRICS, "epoch", lambda of, metric: {
        label: (range(1, len(of[label]) + 1), [one[metric] for one in of[label]]) for label in ("RRCRE", "RR")
    })  # fmt: skip
    drawn("candidates", AT_5, "candidates k", lambda of, metric: {
        "RRCRE": (K, [of[str(k)][metric] for k in K])
    })  # fmt: skip


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "carousel": carousel,
    "carousel-defaults": carousel_ours,
    "carousel-small": partial(carousel_ours, preset="small"),
    "carousel-4x": partial(carousel, times=4),
    "held-out": held_out_yoochoose,
    "held-out-defaults": held_out_defaults,
    "held-out-carousel": held_out_carousel,
    "depth": depth,
    **{f"epochs-{name}": partial(epochs, name) for name in TITLES},
    **{f"candidates-{name}": partial(candidates, name) for name in TITLES},
}


def main() -> None:
    file = RESULTS / "rerank_study.json"
    with tempfile.TemporaryDirectory() as work:
        for part in sys.argv[1:]:
            content = json.loads(file.read_text("utf-8"))["parts"] if file.exists() else {}
            if part == "plot":
                plot(content)
            elif part not in content:
                made = PARTS[part](Path(work))
                content = json.loads(file.read_text("utf-8"))["parts"] if file.exists() else {}
                content = {**content, part: made}
                command = f"python benchmarks/rerank_study.py {' '.join(content)}"  # of all that is there
                write("rerank_study", {"command": command, "parts": content})


if __name__ == "__main__":
    main()
