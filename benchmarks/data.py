"""Where the benchmarks find real click logs, and what every result file says about its run."""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
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
