"""Lists of all of Diginetica's sessions on Spark and here: results/spark_batch.json.

    python benchmarks/spark_batch.py
    python benchmarks/spark_batch.py test        those of one part of the log, train or test
    python benchmarks/spark_batch.py --work FOLDER        keeps each row; the next run goes on behind it

vs-knn and item-knn with their defaults, fitted on the training part, answer every session of the training and
test part of the log (20 items). On Spark the run of vs-knn is killed, driver and workers, when a third of its
64 partitions is complete, and started again. The lists, with their scores and the order of ties, are compared
row by row.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import duckdb

import nextclick
from data import LOGS, Kept, ready, work_option, write

PARTITIONS = 64


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", nargs="?", choices=["train", "test"])
    work_option(parser)
    arguments = parser.parse_args()
    parts = [arguments.part] if arguments.part else ["train", "test"]
    with tempfile.TemporaryDirectory() as folder:
        work = (arguments.work or Path(folder)).absolute() / "-".join(parts)
        kept = Kept(work / "rows.json")
        dataset = ready("diginetica", work)
        (work / "clicks").mkdir(exist_ok=True)
        for part in parts:
            link = work / "clicks" / f"{part}.parquet"
            if not link.exists():
                link.symlink_to(LOGS / "diginetica" / f"{part}.parquet")
        rows = []
        for name in ("vs-knn", "item-knn"):
            if not (work / name).exists():
                nextclick.build(name).fit(dataset.train).save(work / name)
            rows.append(kept.get(name, lambda name=name: compared(name, work)))
    command = "python benchmarks/spark_batch.py" + f" {arguments.part}" * bool(arguments.part)
    about = {"dataset": "diginetica", "parts": parts, "partitions": PARTITIONS, "k": 20}
    write("spark_batch", {"command": command, **about, "rows": rows})


def compared(name: str, work: Path) -> dict[str, Any]:
    """Make both lists and count the rows that differ."""
    here, spark = work / f"{name}.jsonl", work / f"{name}-lists"
    shutil.rmtree(spark, ignore_errors=True)  # of a run that was ended, which is not to be timed
    start = time.perf_counter()
    counts = run(name, work, here)
    seconds_here = time.perf_counter() - start
    options = ["--engine", "spark", "--partitions", str(PARTITIONS)]
    before_kill = 0
    if name == "vs-knn":
        before_kill = killed(name, work, spark, options)
    start = time.perf_counter()
    of_spark = run(name, work, spark, *options)
    seconds_spark = time.perf_counter() - start
    assert counts == of_spark, (counts, of_spark)
    with duckdb.connect() as connection:
        connection.execute(
            f"CREATE TABLE here AS SELECT CAST(session AS TEXT) AS session, "
            "[x.item for x in items] AS items, [x.score for x in items] AS scores, "
            f"fallback FROM read_json('{here}', format='newline_delimited', columns={{session: 'BIGINT', "
            "items: 'STRUCT(item BIGINT, score DOUBLE)[]', fallback: 'BOOLEAN'})"
        )
        connection.execute(
            f"CREATE TABLE spark AS SELECT session, items, scores, fallback FROM '{spark}/*.parquet'"
        )
        both, different = connection.execute(
            "SELECT COUNT(*), COUNT(*) FILTER (WHERE here.items IS DISTINCT FROM spark.items OR "
            "here.scores IS DISTINCT FROM spark.scores OR here.fallback != spark.fallback) "
            "FROM here FULL JOIN spark USING (session)"
        ).fetchall()[0]
        tied = connection.execute(
            "SELECT COUNT(*) FROM here WHERE len(list_distinct(scores)) < len(scores)"
        ).fetchall()[0][0]
    return {
        "model": name, **counts, "rows_in_either": both, "rows_that_differ": different,
        "lists_with_ties": tied, "seconds_here": round(seconds_here, 1),
        "seconds_on_spark": round(seconds_spark, 1),
        "bytes": sum(file.stat().st_size for file in spark.glob("part-*")),
        "partitions_complete_when_killed": before_kill,
    }  # fmt: skip


def command(name: str, work: Path, out: Path, *options: str) -> list[str]:
    return [
        sys.executable, "-m", "nextclick", "recommend", str(work / name), "--sessions", str(work / "clicks"),
        "--out", str(out), *options,
    ]  # fmt: skip


def run(name: str, work: Path, out: Path, *options: str) -> dict[str, int]:
    done = subprocess.run(command(name, work, out, *options), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def killed(name: str, work: Path, out: Path, options: list[str]) -> int:
    """Start a run, kill all of it when a third is complete; return how many partitions are."""
    process = subprocess.Popen(
        command(name, work, out, *options), stdout=subprocess.DEVNULL, start_new_session=True
    )

    def complete() -> int:
        return len(list(out.glob("part-*.parquet")))

    while process.poll() is None and complete() < PARTITIONS // 3:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return complete()


if __name__ == "__main__":
    main()
