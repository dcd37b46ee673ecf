"""How long and how much memory ``prepare`` takes on 1, 10 and 30 times the Diginetica training clicks.

The copies have session and item ids of their own, so everything grows with the factor. Needs the file
diginetica/train.parquet in the folder NEXTCLICK_DATA (default: ../shared/data beside the repository).

Example:
  python benchmarks/prepare_speed.py --json benchmarks/results/prepare_speed.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from nextclick import __version__

ROOT = Path(__file__).resolve().parents[1]
RUN = (
    "import sys; from nextclick.prepare import prepare; prepare(sys.argv[1], out=sys.argv[2], overwrite=True)"
)


def multiplied(source: Path, times: int, target: Path) -> int:
    """Write ``times`` copies of the clicks with new ids; return the number of rows."""
    connection = duckdb.connect()
    connection.execute(
        f"COPY (SELECT CAST(session_id + k * 1000000 AS INTEGER) AS session_id, "
        f"CAST(item_id + k * 100000 AS INTEGER) AS item_id, timestamp "
        f"FROM '{source}', range({times}) AS r(k)) TO '{target}'"
    )
    return int(connection.execute(f"SELECT COUNT(*) FROM '{target}'").fetchall()[0][0])


def measured(log: Path, out: Path) -> tuple[float, float, float]:
    """Return wall seconds, peak resident memory in GB, and CPU seconds of one run, a process of its own."""
    # The peak of children only ever grows, so each run is the child of a small process of its own.
    watcher = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(used.ru_maxrss, used.ru_utime + used.ru_stime)"
    )
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", watcher, sys.executable, "-c", RUN, str(log), str(out)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    scale = 1e9 if platform.system() == "Darwin" else 1e6
    wall = time.perf_counter() - begun
    peak, cpu = done.stdout.split()
    return wall, int(peak) / scale, float(cpu)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, nargs="+", default=[1, 10, 30])
    parser.add_argument("--repeat", type=int, default=3, help="runs of each size; the fastest counts")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    arguments = parser.parse_args()
    data = Path(os.environ.get("NEXTCLICK_DATA") or ROOT.parent / "shared" / "data")
    rows: list[dict[str, Any]] = []
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        for times in arguments.times:
            log = Path(folder) / f"clicks-{times}.parquet"
            clicks = multiplied(data / "diginetica" / "train.parquet", times, log)
            runs = [measured(log, Path(folder) / "out") for _ in range(arguments.repeat)]
            wall, peak = min(run[0] for run in runs), max(run[1] for run in runs)
            first = rows[0] if rows else {"wall_s": wall, "clicks": clicks}
            rows.append(
                {
                    "times": times,
                    "clicks": clicks,
                    "wall_s": round(wall, 2),
                    "all_wall_s": [round(run[0], 2) for run in runs],
                    "cpu_s": round(min(run[2] for run in runs), 2),
                    "peak_gb": round(peak, 2),
                    "clicks_per_s": round(clicks / wall),
                    "cost_per_click_ratio": round(wall / clicks / (first["wall_s"] / first["clicks"]), 2),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
            log.unlink()
    if arguments.json:
        result = {
            "what": "prepare: raw Parquet log to prepared data set, whole process with start-up",
            "date": datetime.now(UTC).date().isoformat(),
            "version": __version__,
            "duckdb": duckdb.__version__,
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
            # Other work on the machine makes wall times longer; CPU seconds hardly.
            "load_average_at_start": round(load, 1),
            "command": "python " + " ".join(["benchmarks/prepare_speed.py", *sys.argv[1:]]),
            "rows": rows,
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
