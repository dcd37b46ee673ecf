"""How long ``nextclick demo`` and ``nextclick demo --full`` take, against the 90 s and 300 s they may.

    python benchmarks/demo_time.py          both, about six minutes on two cores
    python benchmarks/demo_time.py quick    one of them: quick or full

Each runs as its user types it, in a process and an empty folder of its own, from the simulated shop to the
report; compiled loops are there already, as after a first run. Adds to benchmarks/results/demo_time.json.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

from data import RESULTS, write

DEMOS: dict[str, tuple[list[str], float]] = {"quick": ([], 90.0), "full": (["--full"], 300.0)}
"""What is typed behind ``nextclick demo``, and the seconds that it may take."""


def main() -> None:
    wanted = sys.argv[1:] or list(DEMOS)
    file = RESULTS / "demo_time.json"
    found = json.loads(file.read_text("utf-8")) if file.exists() else {}
    results = {name: found[name] for name in DEMOS if name in found}
    for name in wanted:
        results[name] = timed(*DEMOS[name])
        print(name, results[name], flush=True)
    write("demo_time", results)


def timed(words: list[str], allowed: float) -> dict[str, Any]:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryDirectory() as empty:
        subprocess.run(
            [sys.executable, "-m", "nextclick", "demo", *words], cwd=empty, check=True, capture_output=True
        )
        seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "seconds": round(seconds, 1), "processor_seconds": round(used, 1), "allowed": allowed,
        "of_what_is_allowed": round(seconds / allowed, 2),
    }  # fmt: skip


if __name__ == "__main__":
    main()
