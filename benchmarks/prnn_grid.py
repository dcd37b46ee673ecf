"""The grid of Hidasi et al., RecSys 2016, table 2, on the demo shop and two public logs with item features.

    python benchmarks/prnn_grid.py shop 1,2,3
    python benchmarks/prnn_grid.py shop-no-image 1,2,3      pictures without a signal
    python benchmarks/prnn_grid.py shop-texts 1,2,3         titles and descriptions instead of pictures
    python benchmarks/prnn_grid.py shop-sparse 1,2,3 epochs=16 dropout_hidden=0.5    SPARSE's, its texts
    python benchmarks/prnn_grid.py beauty --tune            settings of each row, on the validation sessions
    python benchmarks/prnn_grid.py beauty 1,2,3,4,5         with those settings
    python benchmarks/prnn_grid.py beauty-shuffled 1,2,3,4,5    every item with the features of another one
    python benchmarks/prnn_grid.py eshop --tune
    python benchmarks/prnn_grid.py eshop 1,2,3,4,5
    python benchmarks/prnn_grid.py shop 1 --large           tables 3 and 4: 500+500 units against 1,000
    python benchmarks/prnn_grid.py shop 1 --validation learning_rate=0.1    on the validation sessions
    python benchmarks/prnn_grid.py shop --figure            figure 3, from the results that are there

The shop's features are thumbnails, by an extractor trained on them, or its texts; beauty's are category and
brand tokens as text; eshop's are columns. item-knn, over which gains are given, has NARM's formula. Every row
has the settings of SETTINGS and the same epochs for each subnet; ID only is also trained for twice as many.
--tune tries as many changes on every row, one seed, and the row is then measured with those of the highest
MRR@20 (results/prnn_tuned_NAME.json). A row that was measured is not measured again: its answers to every
click lie in the work folder ($NEXTCLICK_WORK or benchmarks/work), and the table is made from them. Intervals
resample whole sessions; seeds are averaged click by click before. ``findings`` in the results are what the
paper found, each with the difference in MRR@20 that speaks for it or against it. Seeds may be measured by
processes side by side, one each; the command with all of them then makes the table of what lies there.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import nextclick
from data import LOGS, RESULTS, ROOT, write
from nextclick import Dataset, Features, Images, ItemTable, Sessions, build, build_features, metrics
from nextclick.models import find
from nextclick.ranking import Targets
from nextclick.settings import parse
from nextclick.shop import ShopConfig, simulate

WORK = Path(os.environ.get("NEXTCLICK_WORK", ROOT / "benchmarks" / "work"))
# Chosen on the shop's validation sessions; rows that read no features are as they would be at any scale.
SETTINGS: dict[str, Any] = {
    "loss": "cross-entropy", "logq": 1.0, "activation": "linear", "batch_size": 200, "n_samples": 512,
    "learning_rate": 0.05, "dropout_hidden": 0.2, "epochs": 8, "scale": 10.0,
}  # fmt: skip
# What --tune tries on every row: as many changes for each, the last by what the row has.
CHANGES = ("epochs=16", "epochs=16 dropout_hidden=0.5", "epochs=16 dropout_hidden=0.7")
OF_ONE = ("epochs=8 dropout_hidden=0.5",)
OF_SEVERAL = ("epochs=16 dropout_hidden=0.7 weights=1,0.3",)
ARCHITECTURES, STRATEGIES = (
    ("parallel", "interaction", "shared"),
    ("residual", "interleaving", "simultaneous", "alternating"),
)
SHORT = ("item-knn", "ID only (100)", "ID only (200)", "parallel (residual)", "parallel (interleaving)")
ON_LOGS = (*SHORT, "feature", "parallel (alternating)", "parallel (simultaneous)")
TUNED = {"beauty": "beauty", "beauty-shuffled": "beauty", "eshop": "eshop"}
"""Data that are measured with settings chosen for each row, and whose."""
FEWER_ROWS = ("beauty", "eshop", "shop-sparse")
NO_SIGNAL = ("shop-no-image", "beauty-shuffled")
SPARSE: dict[str, float] = {"products": 6000, "sessions": 20_000}
"""A shop of three times the products and a third of the sessions: 12 clicks on a product in the median."""
Row = tuple[str, str, dict[str, Any], bool]  # label, model, settings, whether features are given


def rows(large: bool) -> list[Row]:
    """The rows of table 2, or of tables 3 and 4."""
    size, longer = 500 if large else 100, {"epochs": 2 * SETTINGS["epochs"]}
    baseline = 2 * size if large else size
    found: list[Row] = [("item-knn", "item-knn", {"preset": "narm"}, False)]
    for hidden in sorted({baseline, 2 * size}):
        given = {"architecture": "id", "hidden": hidden}
        found.append((f"ID only ({hidden})", "prnn", given, False))
    for architecture in ("feature", "concatenated"):
        found.append((architecture, "prnn", {"architecture": architecture, "hidden": baseline}, True))
    for architecture in ARCHITECTURES[:1] if large else ARCHITECTURES:
        for strategy in STRATEGIES:
            given = {"architecture": architecture, "strategy": strategy, "hidden": size}
            found.append((f"{architecture} ({strategy})", "prnn", given, True))
    given = {"architecture": "id", "hidden": 2 * size, **longer}
    found.append((f"ID only ({2 * size}), twice the epochs", "prnn", given, False))
    return found


# -- data


def shop(folder: Path, texts: bool = False, **settings: float) -> tuple[Dataset, Features]:
    if not (folder / "shop" / "shop.json").exists():
        simulate(ShopConfig.of(settings)).write(folder / "shop", overwrite=True)
    data = prepared(folder, folder / "shop" / "clicks.parquet", event="event", holdout="3d", validation="3d")
    items = ItemTable.read(folder / "shop" / "items.parquet")

    def made() -> Features:
        if texts:
            return build_features(items, text_columns=["title", "description"])
        return build_features(items, pictures=Images("image", folder / "shop", "own"))

    return data, kept(folder, made)


def beauty(folder: Path) -> tuple[Dataset, Features]:
    data = prepared(folder, LOGS / "beauty" / "events.parquet", holdout="0.1", validation="0.1")
    items = ItemTable.read(LOGS / "beauty" / "items.parquet")
    return data, kept(folder, lambda: build_features(items, text_columns=["text"]))


def shuffled(data: Dataset, features: Features) -> tuple[Dataset, Features]:
    """The same, where every item has the features of another one: as many and as rich, and of no use."""
    rows = np.random.default_rng(1).permutation(len(features))
    others = {name: of_items.take(rows) for name, of_items in features.representations.items()}
    return data, Features(features.items, others, features.about)


def eshop(folder: Path) -> tuple[Dataset, Features]:
    import duckdb

    log = LOGS / "eshop" / "clicks.csv.gz"
    data = prepared(folder, log, holdout="0.1", validation="0.1")
    names = ("page 1 (main category)", "colour", "model photography", "price 2")
    with duckdb.connect() as connection:
        table = connection.execute(
            'SELECT "page 2 (clothing model)" AS item, '
            + ", ".join(f'CAST(mode("{name}") AS VARCHAR) AS "{name}"' for name in names)
            + f", avg(price) AS price FROM read_csv('{log}') GROUP BY 1 ORDER BY 1"
        ).fetchnumpy()
    items = ItemTable.of({name: np.ma.getdata(column).tolist() for name, column in table.items()})
    return data, kept(folder, lambda: build_features(items, categorical=names, numeric=["price"]))


def prepared(folder: Path, source: Path, **options: Any) -> Dataset:
    if not (folder / "data" / "prepare.json").exists():
        nextclick.prepare(source, out=folder / "data", **options)
    return Dataset.load(folder / "data")


def kept(folder: Path, make: Any) -> Features:
    if not (folder / "features" / "manifest.json").exists():
        make().save(folder / "features")
    return Features.load(folder / "features")


DATA: dict[str, Any] = {
    "shop": shop,
    "shop-no-image": lambda folder: shop(folder, image=0.0),
    "shop-texts": lambda folder: shop(folder, texts=True),
    "shop-sparse": lambda folder: shop(folder, texts=True, **SPARSE),
    "beauty": beauty,
    "beauty-shuffled": lambda folder: shuffled(*beauty(folder)),
    "eshop": eshop,
}


# -- measuring


def answers(row: Row, seed: int, fitted: Sessions, test: Sessions, features: Features, file: Path) -> Any:
    """Recall@20 and the reciprocal rank of every click, [n, 2], from the file if it is there; and seconds."""
    if not file.exists():
        _, name, given, reads = row
        values = {**SETTINGS, **given, "seed": seed} if name == "prnn" else given
        start = time.perf_counter()
        model = build(name, values).fit(fitted, features=features if reads else None)
        seconds = time.perf_counter() - start
        queries, positions = test.pairs()
        ranks = model.rank(queries, Targets.one_each(test.items[positions]), 20)
        found = np.stack([
            metrics.recall(ranks.better, ranks.ties, 20),
            metrics.reciprocal_rank(ranks.better, ranks.ties, 20),
        ], 1)  # fmt: skip
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(".part.npy")
        np.save(aside, np.r_[found, [[seconds, 0.0]]])
        aside.rename(file)
        print(f"{row[0]}, seed {seed}: {found.mean(0).round(4).tolist()} in {seconds:.0f} s", flush=True)
    stored = np.load(file, allow_pickle=False)
    return stored[:-1], float(stored[-1, 0])


Compared = Callable[[str, str], dict[str, dict[str, float]]]


def table(measured: dict[str, list[Any]], sessions: Any) -> tuple[list[dict[str, Any]], Compared]:
    """Figures of each row, the gain over item-knn, and its differences from ID only with their p-values.

    Returned too is what compares any two rows.
    """
    means = {label: np.mean([values for values, _ in runs], axis=0) for label, runs in measured.items()}
    columns = np.concatenate(list(means.values()), axis=1)
    samples = dict(
        zip(means, np.split(metrics.resampled_means(columns, sessions, 1000), len(means), 1), strict=True)
    )

    def over(label: str, other: str) -> dict[str, dict[str, float]]:
        by, p = (means[label] - means[other]).mean(0), metrics.two_sided_p(samples[label] - samples[other])
        return {
            name: {"difference": round(float(by[n]), 4), "p": round(float(p[n]), 4)}
            for n, name in enumerate(("recall@20", "mrr@20"))
        }

    found = []
    for label, values in means.items():
        low, high = metrics.interval(samples[label])
        recall, mrr = values.mean(0)
        row: dict[str, Any] = {"row": label, "seeds": len(measured[label])}
        for n, name in enumerate(("recall@20", "mrr@20")):
            row[name] = round(float((recall, mrr)[n]), 4)
            row[f"{name}_interval"] = [round(float(low[n]), 4), round(float(high[n]), 4)]
            row[f"{name}_gain"] = round(float(values.mean(0)[n] / means["item-knn"].mean(0)[n] - 1), 4)
            of_seeds = [float(of[:, n].mean()) for of, _ in measured[label]]
            row[f"{name}_by_seed"] = [round(of, 4) for of in of_seeds]
        for other in (label for label in means if label.startswith("ID only")):
            row[f"over {other}"] = over(label, other)
        row["fit_seconds"] = [round(seconds) for _, seconds in measured[label]]
        found.append(row)
    return found, over


def findings(labels: Sequence[str], over: Compared, baseline: str, signal: bool) -> list[dict[str, Any]]:
    """What the paper found of its table 2, and whether it is so here.

    baseline: ID only of the size of both subnets together;  signal: whether the features tell anything; where
    they do not, the gain of p-RNN has to be gone.
    """
    higher = "higher" if signal else "no higher"
    asked = [(f"parallel ({strategy})", baseline, higher) for strategy in STRATEGIES[:2]]
    if signal:
        asked += [
            ("parallel (simultaneous)", f"parallel ({strategy})", "lower")
            for strategy in STRATEGIES
            if strategy != "simultaneous"
        ]
        alone = next((label for label in labels if label.startswith("ID only")), "")  # not measured yet
        asked += [("feature", alone, "lower"), ("concatenated", alone, "about as high")]
    found = []
    for label, other, wanted in asked:
        if label not in labels or other not in labels:
            continue
        mrr = over(label, other)["mrr@20"]
        sure, up = mrr["p"] < 0.05, mrr["difference"] > 0
        so = {
            "higher": sure and up,
            "lower": sure and not up,
            "no higher": not (sure and up),
            "about as high": abs(mrr["difference"]) < 0.005,
        }
        found.append({"row": label, "is": wanted, "than": other, "mrr@20": mrr, "so": so[wanted]})
    return found


def figure(name: str) -> None:
    """Draw figure 3: the best p-RNN against ID only and item-knn, with 95% intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    content = json.loads((RESULTS / f"prnn_grid_{name}.json").read_text("utf-8"))
    rows = {row["row"]: row for row in content["rows"]}

    def best(*beginnings: str) -> str:
        return max((of for of in rows if of.startswith(beginnings)), key=lambda of: rows[of]["mrr@20"])

    shown = ["item-knn", best("ID only"), best(*ARCHITECTURES)]
    figure, both = pyplot.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for axes, metric in zip(both, ("recall@20", "mrr@20"), strict=True):
        heights = [rows[label][metric] for label in shown]
        ends = np.array([rows[label][f"{metric}_interval"] for label in shown])
        apart = np.abs(ends.T - np.array(heights))
        axes.bar(range(3), heights, yerr=apart, capsize=4, color=["#8a8f98", "#0072b2", "#d55e00"])
        axes.set_xticks(range(3), [label.replace(" (", "\n(") for label in shown], fontsize=8)
        axes.set_ylim(0.9 * ends.min(), 1.02 * ends.max())
        axes.set_title(metric.replace("mrr", "MRR"), loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    path = ROOT / "docs" / "pictures" / f"prnn-{name}.png"
    figure.savefig(path, dpi=110)
    print(f"drawn: {path}")


def tune(name: str) -> None:
    """Try changes of the settings on every row, on the validation sessions: results/prnn_tuned_NAME.json."""
    data, features = DATA[name](WORK / name)
    found = []
    for row in chosen_rows(name, large=False):
        if row[1] != "prnn":
            continue
        tried = []
        for change in (*CHANGES, *(OF_SEVERAL if "strategy" in row[2] else OF_ONE)):
            values = parse(find("prnn"), change.split())
            folder = WORK / name / f"validation-{digest({**SETTINGS, **values})}"
            file = folder / f"{slug(row[0])}-1.npy"
            run = answers(with_values(row, values), 1, data.train, data.validation, features, file)
            recall, mrr = run[0].mean(0)
            tried.append({"change": change, "recall@20": round(recall, 4), "mrr@20": round(mrr, 4)})
        best = max(tried, key=lambda one: one["mrr@20"])
        found.append({"row": row[0], "change": best["change"], "tried": tried})
        about = {"data": name, "clicks": len(run[0]), "part": "validation", "seed": 1}
        write(f"prnn_tuned_{name}", {**about, "settings": SETTINGS, "rows": found})


def tuned(name: str) -> dict[str, dict[str, Any]]:
    """The settings that --tune chose for each row; none for the data that SETTINGS were chosen on."""
    if name not in TUNED:
        return {}
    file = RESULTS / f"prnn_tuned_{TUNED[name]}.json"
    if not file.exists():
        made = f"python benchmarks/prnn_grid.py {TUNED[name]} --tune"
        sys.exit(f"no {file.relative_to(ROOT)}; make it with: {made}")
    rows = json.loads(file.read_text("utf-8"))["rows"]
    return {row["row"]: parse(find("prnn"), row["change"].split()) for row in rows}


def with_values(row: Row, values: dict[str, Any]) -> Row:
    label, model, given, reads = row
    return label, model, {**values, **given}, reads


def chosen_rows(name: str, large: bool) -> list[Row]:
    """The rows of the grid that are measured on these data."""
    short = SHORT if name in NO_SIGNAL else ON_LOGS if name in FEWER_ROWS else None
    return [row for row in rows(large) if short is None or large or row[0] in short]


def digest(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def slug(label: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in label)


def main() -> None:
    name, words = sys.argv[1], sys.argv[3:]
    if "--figure" in sys.argv:
        figure(name)
        return
    if "--tune" in sys.argv:
        tune(name)
        return
    seeds = [int(seed) for seed in sys.argv[2].split(",")]
    large, validation = "--large" in words, "--validation" in words
    SETTINGS.update(parse(find("prnn"), [word for word in words if "=" in word]))
    data, features = DATA[name](WORK / name)
    fitted, test = (data.train, data.validation) if validation else (data.full, data.test)
    signal, baseline = name not in NO_SIGNAL, f"ID only ({1000 if large else 200})"
    changes = {} if validation or large else tuned(name)
    part = f"{'validation' if validation else 'test'}{'-large' * large}"
    measured: dict[str, list[Any]] = {}
    sessions = test.session_of[test.pairs()[1]]
    for seed in seeds:
        for row in chosen_rows(name, large):
            if row[1] != "prnn" and seed != seeds[0]:
                continue
            values = changes.get(row[0], {})
            file = WORK / name / f"{part}-{digest({**SETTINGS, **values})}" / f"{slug(row[0])}-{seed}.npy"
            run = answers(with_values(row, values), seed, fitted, test, features, file)
            measured.setdefault(row[0], []).append(run)
            if validation or "item-knn" not in measured:
                continue
            about = {"data": name, "clicks": len(sessions), "seeds": seeds, "settings": SETTINGS}
            about |= {"changed for": changes} if changes else {}
            figures, over = table(measured, sessions)
            told = findings(list(measured), over, baseline, signal)
            content = {**about, "features": features_told(features), "rows": figures, "findings": told}
            write(f"prnn_grid_{name}{'_large' if large else ''}", content)


def features_told(features: Features) -> dict[str, str]:
    return {name: features.describe(name) for name in features.representations}


if __name__ == "__main__":
    main()
