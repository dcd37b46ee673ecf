"""DuckDB and Spark on two threads prepare and fit to the same: arrays, lists and recommendations, bit by bit.

    python benchmarks/engines_agree.py diginetica
    python benchmarks/engines_agree.py --events 10_000_000

The first log is the ready split in NEXTCLICK_DATA (shared/data beside the checkout), the second a stream of
``nextclick generate``. Compared are the files of the prepared arrays, what item-knn and vmis-knn learnt, also
with the compiled loops, and the lists of 20 items with their scores after prefixes of the test sessions, ties
included. Adds to results/engines_agree.json, and writes the table in docs/scale.md. With --work FOLDER what
is prepared and fitted is kept there, and the next run goes on behind it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import scale
from data import LOGS, RESULTS, Kept, work_option, write
from nextclick import VMISKNN, Dataset, ItemKNN, Recommender, Run, prepare
from nextclick.artifact import load
from nextclick.clickstream import StreamConfig, generate
from nextclick.large import open_engine

ASKED = 100_000  # prefixes of the test sessions


def spark() -> Any:
    """A Spark on two threads of this process, which the package then uses."""
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    return (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.memory", "6g")
        .config("spark.sql.shuffle.partitions", "16")
        .config("spark.log.level", "ERROR")
        .config("spark.local.dir", tempfile.gettempdir())
        .getOrCreate()
    )


def same_arrays(ours: Path, theirs: Path) -> bool:
    names = sorted(file.name for file in (ours / "arrays").iterdir())
    return names == sorted(file.name for file in (theirs / "arrays").iterdir()) and all(
        (ours / "arrays" / name).read_bytes() == (theirs / "arrays" / name).read_bytes() for name in names
    )


def same(ours: Recommender, theirs: Recommender) -> bool:
    a, b = ours.state(), theirs.state()
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def compared(work: Path, **source: Any) -> dict[str, Any]:
    """Prepare by both engines, fit by both and in memory, and compare; go on behind what ``work`` keeps."""
    kept = Kept(work / "seconds.json")

    def timed(name: str, make: Callable[[], Any]) -> None:
        def measure() -> float:
            begun = time.perf_counter()
            make()
            return round(time.perf_counter() - begun, 1)

        kept.get(name, measure)

    data: dict[str, Dataset] = {}
    for engine in ("duckdb", "spark"):
        timed(
            f"prepare {engine}",
            lambda e=engine: prepare(out=work / e, engine=e, overwrite=True, **source),
        )
        data[engine] = Dataset.load(work / engine)
    models: dict[str, list[Recommender]] = {}
    for engine in ("duckdb", "spark"):
        for kind in (ItemKNN, VMISKNN):
            timed(f"fit {kind.name} {engine}", lambda k=kind, e=engine: fitted(k, e, data[e], work))
        models[engine] = [load(work / f"{kind.name}-{engine}") for kind in (ItemKNN, VMISKNN)]
    plain = [kind().fit(data["duckdb"].train) for kind in (ItemKNN, VMISKNN)]
    queries, _ = data["duckdb"].test.pairs()
    queries = queries[: min(ASKED, len(queries))]
    lists = {name: [model.top(queries, 20) for model in of] for name, of in models.items()}
    agree = [
        same(a, b) and same(a, c) for a, b, c in zip(models["duckdb"], models["spark"], plain, strict=True)
    ]
    return {
        "events": int(data["duckdb"].info["steps"][0]["clicks"]),
        "prefixes": len(queries),
        "same": {
            "prepared arrays": same_arrays(work / "duckdb", work / "spark"),
            "item-knn": agree[0],
            "vmis-knn": agree[1],
            "recommendations": all(
                np.array_equal(x, y)
                for ours, theirs in zip(lists["duckdb"], lists["spark"], strict=True)
                for x, y in zip(ours, theirs, strict=True)
            ),
        },
        "seconds": dict(kept.parts),
    }


def fitted(kind: type[Recommender], engine: str, data: Dataset, work: Path) -> None:
    with open_engine(engine, data, beside=work / f"{kind.name}-{engine}", memory=4_000_000_000) as opened:
        model = kind().fit(data.train, run=Run(engine=opened))
    model.save(work / f"{kind.name}-{engine}", overwrite=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("log", nargs="?", choices=["diginetica", "yoochoose64", "rsc15-100k"])
    parser.add_argument("--events", type=int, help="instead: a stream of so many clicks")
    work_option(parser)
    arguments = parser.parse_args()
    if (arguments.log is None) == (arguments.events is None):
        parser.error("name a log, or give --events")
    session = spark()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.log:
            name, asked = arguments.log, arguments.log
            source: dict[str, Any] = {part: LOGS / name / f"{part}.parquet" for part in ("train", "test")}
        else:
            name, asked = f"stream of {arguments.events:,}", f"--events {arguments.events}"
        work = (arguments.work or Path(folder)) / name.replace(" ", "-").replace(",", "")
        work.mkdir(parents=True, exist_ok=True)
        if arguments.events:
            if not (work / "log").exists():
                generate(StreamConfig(events=arguments.events), work / "log")
            source = {"source": work / "log"}
        command = f"python benchmarks/engines_agree.py {asked}"
        run = {"command": command, **compared(work, **source)}
    session.stop()
    file = RESULTS / "engines_agree.json"
    runs = json.loads(file.read_text("utf-8"))["runs"] if file.exists() else {}
    write("engines_agree", {"command": command, "threads": 2, "runs": {**runs, name: run}})
    print(json.dumps(run, indent=2))
    if (RESULTS / "scale.json").exists():
        scale.PAGE.write_text(scale.filled(scale.PAGE.read_text("utf-8")), "utf-8")
    if not all(run["same"].values()):
        sys.exit("the engines do not agree")


if __name__ == "__main__":
    main()
