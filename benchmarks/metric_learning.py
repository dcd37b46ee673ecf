"""What the paper on metric learning (SML) shows, measured again: results/metric_NAME.json, row by row.

    python benchmarks/metric_learning.py yoochoose64                  the rows of papers/sml-yoochoose64.toml
    python benchmarks/metric_learning.py yoochoose64 "RNN-NCAS" ...   these rows only
    python benchmarks/metric_learning.py diginetica                   sml, gru4rec and narm beside
    python benchmarks/metric_learning.py ablation                     table 3, on rsc15-100k instead of SI-T
    python benchmarks/metric_learning.py coverage                     items recommended at all, sec. 5.5
    python benchmarks/metric_learning.py top-up                       positives topped up, sec. 4.5
    python benchmarks/metric_learning.py yoochoose64 "RNN-NCAS" --fitted DIR      of a saved model

Figures are of the protocol "remaining": HR (recall@20) and MRR of the next click, REC over all items still to
come. Fitted on the training part, whose latest tenth of sessions chooses the epoch. A row that stands in the
result file already is not run again: delete it there to repeat it. A saved model has to be of the row's
settings and fitted on the same data, by fingerprint; the time of its fit is not known then.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nextclick
from data import LOGS, RESULTS, ROOT, ready, show, write
from nextclick import Dataset, Recommender, build, evaluate, experiment, settings
from nextclick.settings import as_text
from nextclick.shop import ShopConfig, simulate

# REC@20, HR@20 and MRR@20 of table 2, RSC15/64; of the triplets of table 3, REC@20 and MRR@20 on SI-T.
REC = {
    "RNN-NCAS": 0.5248, "MaxPool-NCAS": 0.5213, "TextCNN-NCAS": 0.5145, "RNN-Triplet": 0.5126,
    "MaxPool-Triplet": 0.4975, "TextCNN-Triplet": 0.3793, "TagSpace-Triplet": 0.3398,
}  # fmt: skip
TABLE_3 = [  # common embedding, sampler, margin, swap; RNN's REC and MRR, MaxPool's REC and MRR
    (True, "split", True, False, 0.7435, 0.5973, 0.7402, 0.5978),
    (True, "split", False, False, 0.7377, 0.5973, 0.7340, 0.5932),
    (True, "split", True, True, 0.7371, 0.5908, 0.7359, 0.5888),
    (False, "split", False, False, 0.6565, 0.5746, 0.6508, 0.5727),
    (False, "split", True, False, 0.6341, 0.5783, 0.6192, 0.5767),
    (False, "split", True, True, 0.6192, 0.5678, 0.6247, 0.5796),
    (False, "window", True, True, 0.0022, 0.0006, 0.0525, 0.0191),
]
# The paper's losses and samplers, with larger batches and fewer, wider steps than it took.
ABLATION = {
    "loss": "triplet", "distance": "euclidean", "item_encoder": "tanh", "positives": 8, "negatives": "own",
    "n_negatives": 8, "batch_size": 128, "epochs": 10, "decay": 0.8, "dropout_items": 0.0,
    "dropout_session": 0.0, "learning_rate": 0.003,
}  # fmt: skip
FITTED: Path | None = None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=["yoochoose64", "diginetica", "ablation", "coverage", "top-up"])
    parser.add_argument("rows", nargs="*")
    parser.add_argument("--fitted", type=Path)
    given = parser.parse_args()
    global FITTED
    FITTED = given.fitted
    name, wanted = given.name, given.rows
    with tempfile.TemporaryDirectory() as work:
        {
            "yoochoose64": yoochoose64,
            "diginetica": diginetica,
            "ablation": ablation,
            "coverage": coverage,
            "top-up": top_up,
        }[name](Path(work), wanted)


def yoochoose64(work: Path, wanted: list[str]) -> None:
    dataset = ready("yoochoose64", work)
    for row in experiment.read(ROOT / "benchmarks" / "papers" / "sml-yoochoose64.toml", LOGS).rows:
        if row.label not in wanted and (wanted or "published" in row.label):
            continue
        published = (
            None if row.published is None else {**row.published.metrics, "source": row.published.source}
        )
        name = row.label.partition(",")[0]
        if published is not None and name in REC:
            published["remaining_recall@20"] = REC[name]
        measure("yoochoose64", row.label, row.model, row.settings, dataset, published)
    beside("yoochoose64", dataset, wanted)


def diginetica(work: Path, wanted: list[str]) -> None:
    dataset = ready("diginetica", work)
    longer = {"n_negatives": 4096, "epochs": 12, "decay": 0.8}  # better on the validation sessions
    for label, values in (("RNN-NCAS", {}), ("RNN-NCAS, longer", longer)):
        if not wanted or label in wanted:
            measure("diginetica", label, "sml", values, dataset, None)
    beside("diginetica", dataset, wanted)


def beside(name: str, dataset: Dataset, wanted: list[str]) -> None:
    """The other networks, with the defaults that validation chose."""
    rows: dict[str, dict[str, Any]] = {"gru4rec": {}, "narm": {"epochs": 5} if name == "diginetica" else {}}
    for model, values in rows.items():
        if not wanted or model in wanted:
            measure(name, model, model, values, dataset, None)


def ablation(work: Path, wanted: list[str]) -> None:
    dataset = ready("rsc15-100k", work)
    for common, sampler, margin, swap, *figures in TABLE_3:
        for encoder, (rec, mrr) in (("gru", figures[:2]), ("max-pool", figures[2:])):
            told = f"{'common' if common else 'separate'} {sampler} N{'-M' * margin}{'-S' * swap} {encoder}"
            values = {**ABLATION, "common": common, "sampler": sampler, "margin": 0.3 * margin, "swap": swap,
                      "encoder": encoder, "layers": 2 if encoder == "gru" else 0}  # fmt: skip
            published = {"remaining_recall@20": rec, "mrr@20": mrr, "source": "table 3, on SI-T"}
            measure("ablation", told, "sml", values, dataset, published)
    for encoder in ("gru", "max-pool"):  # without L2 normalisation, which table 3 always has
        values = {**ABLATION, "normalise": False, "sampler": "split", "encoder": encoder,
                  "layers": 2 if encoder == "gru" else 0}  # fmt: skip
        measure("ablation", f"common split M {encoder}", "sml", values, dataset, None)


def top_up(work: Path, wanted: list[str]) -> None:
    dataset = ready("rsc15-100k", work)
    for topped in (False, True):
        values = {**ABLATION, "sampler": "split", "encoder": "gru", "layers": 2, "top_up": topped}
        measure("top-up", f"top_up={str(topped).lower()}", "sml", values, dataset, None)


def coverage(work: Path, wanted: list[str]) -> None:
    """Items among the first 20 of any answer, of sml and of vs-knn."""
    data = {"eshop": eshop, "demo shop": demo_shop, "yoochoose64": lambda work: ready("yoochoose64", work)}
    for name, prepared in data.items():
        if wanted and name not in wanted:
            continue
        dataset = prepared(work)
        published = {"yoochoose64": "12,232 of vs-knn, 11,216 of SML, of 17 thousand; sec. 5.5"}.get(name)
        for model in ("vs-knn", "sml"):
            measure("coverage", f"{name} {model}", model, {}, dataset, published)


def eshop(work: Path) -> Dataset:
    return nextclick.prepare(LOGS / "eshop" / "clicks.csv.gz", out=work / "eshop")


def demo_shop(work: Path) -> Dataset:
    folder = simulate(ShopConfig()).write(work / "shop", thumbnails=False)
    return nextclick.prepare(folder / "clicks.parquet", out=work / "demo")


def measure(
    name: str, label: str, model: str, values: Mapping[str, Any], dataset: Dataset, published: Any
) -> None:
    file = RESULTS / f"metric_{name}.json"
    rows = json.loads(file.read_text("utf-8"))["rows"] if file.exists() else []
    if any(row["label"] == label for row in rows):
        return
    start = time.perf_counter()
    fitted = build(model, dict(values))
    if FITTED is None:
        fitted.fit(dataset.train, progress=show())
        seconds = round(time.perf_counter() - start)
    else:
        saved, seconds = nextclick.load(FITTED), None
        same = settings.values_of(saved) == settings.values_of(fitted)
        if type(saved) is not type(fitted) or not same or not _of(saved, dataset):
            sys.exit(f"{FITTED}: not of the settings and data of the row {label!r}")
        fitted = saved
    result = evaluate([fitted], dataset, protocol="remaining").models[0]
    measured = ("recall@20", "mrr@20", "remaining_recall@20", "precision@20", "coverage@20")
    rows.append({
        "label": label,
        "model": model,
        "settings": " ".join(f"{key}={as_text(value)}" for key, value in values.items()) or "defaults",
        "dataset": dataset.name.removesuffix("-validation-0"),
        **{metric: round(result.metrics[metric], 4) for metric in measured},
        "items_recommended": round(result.metrics["coverage@20"] * fitted.n_items),
        "items": fitted.n_items,
        "recall@20_interval": [round(bound, 4) for bound in result.intervals["recall@20"]],
        "remaining_recall@20_interval": [round(b, 4) for b in result.intervals["remaining_recall@20"]],
        "published": published,
        "fit_seconds": seconds,
        "epochs": fitted.facts.get("epochs"),
    })  # fmt: skip
    print({key: value for key, value in rows[-1].items() if key not in ("epochs", "settings")}, flush=True)
    write(f"metric_{name}", {"rows": rows})


def _of(model: Recommender, dataset: Dataset) -> bool:
    data = model.facts.get("data", {})
    return data.get("fingerprint") == dataset.fingerprint and data.get("part") == "train"


if __name__ == "__main__":
    main()
