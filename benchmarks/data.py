"""Where the benchmarks find real click logs, and what every result file says about its run."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nextclick
from nextclick import Dataset

ROOT = Path(__file__).resolve().parent.parent
LOGS = Path(os.environ.get("NEXTCLICK_DATA", ROOT.parent / "shared" / "data"))
RESULTS = ROOT / "benchmarks" / "results"


def ready(name: str, work: Path, validation: str = "0") -> Dataset:
    """Prepare a ready train/test split (yoochoose64, diginetica, rsc15-100k) unless it is there already."""
    out = work / f"{name}-validation-{validation}"
    if not (out / "prepare.json").exists():
        for part in ("train", "test"):
            if not (LOGS / name / f"{part}.parquet").exists():
                sys.exit(f"{LOGS / name}: no {part}.parquet; set NEXTCLICK_DATA to the folder of the logs")
        nextclick.prepare(
            train=LOGS / name / "train.parquet",
            test=LOGS / name / "test.parquet",
            out=out,
            validation=validation,
        )
    return Dataset.load(out)


def show() -> Callable[[str, int, int], None]:
    """What ``fit`` tells its progress to: it prints what is going on every ten seconds."""
    last = [time.perf_counter()]

    def tell(what: str, done: int, total: int) -> None:
        if time.perf_counter() - last[0] > 10:
            last[0] = time.perf_counter()
            print(f"{what} ({done / total:.0%})", file=sys.stderr, flush=True)

    return tell


def work_option(parser: argparse.ArgumentParser) -> None:
    """Add --work, the folder that a benchmark keeps its parts in."""
    parser.add_argument("--work", type=Path, help="folder that keeps what was measured; the next run goes on")


class Kept:
    """What the parts of a benchmark came to, kept in a folder, so that the next run goes on behind them."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        there = json.loads(file.read_text("utf-8")) if file.exists() else {"version": nextclick.__version__}
        if there["version"] != nextclick.__version__:
            sys.exit(f"{file} was measured with version {there['version']}: take another folder")
        self.parts: dict[str, Any] = there.setdefault("parts", {})
        self.all = there

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        """Return what a part came to, measured now if it was not yet."""
        if name not in self.parts:
            self.parts[name] = measure()
            aside = self.file.with_suffix(".new")
            aside.write_text(json.dumps(self.all, indent=2) + "\n", "utf-8")
            aside.replace(self.file)
        print(name, json.dumps(self.parts[name]), flush=True)
        return self.parts[name]


def write(name: str, content: dict[str, Any]) -> None:
    """Write results/NAME.json with the date, versions, processor and command that made it."""
    about = {
        "command": " ".join(["python", str(Path(sys.argv[0]).resolve().relative_to(ROOT)), *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "nextclick": nextclick.__version__,
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
    }
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps({**about, **content}, indent=2) + "\n", "utf-8")
    print(f"wrote {file.relative_to(ROOT)}", file=sys.stderr)
