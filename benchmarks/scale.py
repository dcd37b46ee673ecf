"""From clicks to fitted neighbour models at 1, 10 and 100 million events: seconds, memory, cost per event.

    python benchmarks/scale.py --work FOLDER                              1 and 10 million
    python benchmarks/scale.py --work FOLDER --events 1_000_000 10_000_000 100_000_000
    python benchmarks/scale.py --tables                                   docs/scale.md from the result anew

Each step is a command of its own: nextclick generate, prepare, and fit of vmis-knn and item-knn, both by
DuckDB and in memory. What a step took is kept in FOLDER/steps.json, and the next run goes on behind it.
FOLDER needs about 20 GB for 100 million events. Writes results/scale.json, the picture
docs/pictures/scale.png and the tables in docs/scale.md. By the CPU seconds at 10 million, 100 million events
should take two quiet cores about 1 minute to generate, 3 to prepare, 2 to fit vmis-knn by DuckDB, 4 to fit
item-knn by DuckDB, and 1 each to fit them in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import nextclick
from data import RESULTS, ROOT, write
from pages import between

PAGE, PICTURE = ROOT / "docs" / "scale.md", ROOT / "docs" / "pictures" / "scale.png"
STEPS = {
    "generate": "generate the clicks",
    "prepare": "prepare",
    "vmis-knn duckdb": "fit `vmis-knn`, DuckDB",
    "vmis-knn memory": "fit `vmis-knn`, in memory",
    "item-knn duckdb": "fit `item-knn`, DuckDB",
    "item-knn memory": "fit `item-knn`, in memory",
}
# Of 100 million events: seconds, and GB of memory.
TARGETS = {"prepare": (360, 12), "vmis-knn duckdb": (600, 16), "item-knn duckdb": (1200, 16)}
SLOPE = 1.1
WATCH = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
    "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
    "print(used.ru_maxrss, used.ru_utime + used.ru_stime)"
)


def commands(work: Path, events: int, memory: str) -> dict[str, tuple[list[str], Path]]:
    """The command line of each step, and what it makes."""
    log, data = work / f"log-{events}", work / f"data-{events}"
    made = {
        "generate": (["generate", "--events", str(events)], log),
        "prepare": (["prepare", str(log), "--memory", memory], data),
    }
    for step in list(STEPS)[2:]:
        model, engine = step.split()
        options = ["--engine", engine, "--memory", memory] if engine == "duckdb" else []
        made[step] = (["fit", str(data), model, *options], work / f"{model}-{engine}-{events}")
    return made


def measured(words: list[str], out: Path) -> dict[str, Any]:
    """Run a command in a process; return wall and CPU seconds, and its peak resident memory."""
    # The peak of children only ever grows, so each command is the child of a small process of its own.
    line = [sys.executable, "-m", "nextclick", *words, "--out", str(out), "--overwrite"]
    load, begun = os.getloadavg()[0], time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", WATCH, *line], check=True, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    peak, cpu = done.stdout.split()
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return {
        "command": " ".join(["nextclick", *(Path(word).name if "/" in word else word for word in words)]),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(float(cpu), 2),
        "peak_gb": round(int(peak) * 1024 / 1e9, 2),
        "made_gb": round(size / 1e9, 3),
        "load_average_before": round(load, 1),
    }


def slope(events: list[int], seconds: list[float]) -> float:
    """The exponent of seconds in events, by least squares of the logarithms."""
    return float(np.polyfit(np.log(events), np.log(seconds), 1)[0])


def summed_up(steps: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the result file says: rows, slopes, and which targets are reached."""
    sizes = sorted({int(key.split("/")[0]) for key in steps})
    rows = [
        {"events": size, "step": step, **steps[f"{size}/{step}"],
         "microseconds_per_event": round(steps[f"{size}/{step}"]["seconds"] / size * 1e6, 3)}
        for step in STEPS for size in sizes if f"{size}/{step}" in steps
    ]  # fmt: skip
    slopes = {}
    for step in STEPS:
        of = [row for row in rows if row["step"] == step]
        if len(of) > 1:
            events = [row["events"] for row in of]
            slopes[step] = {
                kind: round(slope(events, [row[kind] for row in of]), 3)
                for kind in ("seconds", "cpu_seconds")
            }
    targets = {}
    for row in rows:
        if row["events"] == 100_000_000 and row["step"] in TARGETS:
            seconds, gigabytes = TARGETS[row["step"]]
            text = f"{row['step']} of 100 million events within {gigabytes} GB and {seconds} s"
            targets[text] = row["seconds"] <= seconds and row["peak_gb"] <= gigabytes
    for step, of in slopes.items():
        targets[f"{step}: slope at most {SLOPE}"] = of["seconds"] <= SLOPE
    return {"rows": rows, "slopes": slopes, "targets": targets}


def table(result: dict[str, Any]) -> str:
    """The table of docs/scale.md."""
    lines = [
        "| step | events | seconds | CPU seconds | peak memory, GB | microseconds per event |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {STEPS[row['step']]} | {row['events'] // 1_000_000} million | {row['seconds']:.1f} | "
        f"{row['cpu_seconds']:.1f} | {row['peak_gb']:.2f} | {row['microseconds_per_event']:.2f} |"
        for row in result["rows"]
    ]
    slopes = ", ".join(
        f"{STEPS[step]} {of['seconds']:.2f} ({of['cpu_seconds']:.2f})"
        for step, of in result["slopes"].items()
    )
    loads = sorted({row["load_average_before"] for row in result["rows"]})
    text = (
        f"Slopes, the exponent of the seconds (CPU seconds) in the number of events: {slopes}. Measured on "
        f"{result['date']} with `{result['command']}`, version {result['nextclick']}, {result['cores']} "
        f"cores, DuckDB with {result['memory']}. The load average of the machine before a step was "
        f"{loads[0]} to {loads[-1]}"
    )
    shared = f": other work shared the {result['cores']} cores, so wall times are too long."
    return "\n".join([*lines, "", text + (shared if loads[-1] > result["cores"] else ".")])


def shapes() -> str:
    """The table of the shapes that streams are drawn from, beside the logs they were fitted to."""
    file = ROOT / "src" / "nextclick" / "clickstream" / "shapes.json"
    found = json.loads(file.read_text("utf-8"))["shapes"]
    lines = ["| | " + " | ".join(f"{name} | drawn" for name in found) + " |"]
    lines.append("|---|" + "---:|---:|" * len(found))
    for what in next(iter(found.values()))["measured"]:
        cells = " | ".join(f"{of[side][what]:,}" for of in found.values() for side in ("measured", "drawn"))
        lines.append(f"| {what.replace('_', ' ')} | {cells} |")
    for law in ("popularity", "length"):
        for value in ("exponent", "shift"):
            cells = " | ".join(f"{of['shape'][law][value]:.2f} | " for of in found.values())
            lines.append(f"| {law}: {value} | {cells} |")
    for value in ("follow", "aisle"):
        lines.append(f"| {value} | " + " | ".join(f"{of['shape'][value]} | " for of in found.values()) + " |")
    return "\n".join(lines)


def agreed() -> str:
    """What results/engines_agree.json says, one line for each log."""
    file = RESULTS / "engines_agree.json"
    if not file.exists():
        return "Not measured yet."
    runs = json.loads(file.read_text("utf-8"))["runs"]
    lines = ["| log | events | prepared arrays | `item-knn` lists | `vmis-knn` index | recommendations |"]
    lines.append("|---|---:|---|---|---|---|")
    for name, run in runs.items():
        cells = [("identical" if run["same"][what] else "DIFFERENT") for what in run["same"]]
        lines.append(f"| {name} | {run['events']:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def filled(page: str) -> str:
    """docs/scale.md with its tables, from the result files."""
    result = json.loads((RESULTS / "scale.json").read_text("utf-8"))
    for name, text in (("scale", table(result)), ("agree", agreed()), ("shapes", shapes())):
        page = between(page, name, text)
    return page


def draw(result: dict[str, Any]) -> None:
    """Seconds by events, both logarithmic, a line for each step with its slope."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for step, style in zip(STEPS, ("k:", "C0-", "C1-", "C1--", "C2-", "C2--"), strict=True):
        of = [row for row in result["rows"] if row["step"] == step]
        name = STEPS[step].replace("`", "")
        if step in result["slopes"]:
            name += f": slope {result['slopes'][step]['seconds']:.2f}"
        axes.loglog(
            [row["events"] for row in of], [row["seconds"] for row in of], style, marker="o", label=name
        )
    axes.set(xlabel="events", ylabel="seconds")
    axes.grid(which="both", alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--work", type=Path, help="folder for logs, data and models; kept")
    parser.add_argument("--memory", default="8GB", help="what DuckDB works in")
    parser.add_argument("--tables", action="store_true", help="only write the table of docs/scale.md anew")
    arguments = parser.parse_args()
    if not arguments.tables:
        if arguments.work is None:
            parser.error("--work is needed: a folder for logs, data and models")
        run(arguments.work.absolute(), sorted(arguments.events), arguments.memory)
    PAGE.write_text(filled(PAGE.read_text("utf-8")), "utf-8")


def run(work: Path, sizes: list[int], memory: str) -> None:
    work.mkdir(parents=True, exist_ok=True)
    kept = work / "steps.json"
    known = json.loads(kept.read_text("utf-8")) if kept.exists() else {"version": nextclick.__version__}
    if known["version"] != nextclick.__version__:
        sys.exit(f"{kept} was measured with version {known['version']}: take another folder")
    steps = known.setdefault("steps", {})
    for size in sizes:
        for step, (words, out) in commands(work, size, memory).items():
            if f"{size}/{step}" not in steps or not out.exists():
                steps[f"{size}/{step}"] = measured(words, out)
                kept.write_text(json.dumps(known, indent=2) + "\n", "utf-8")
            print(f"{size:>12,} {step:16} {json.dumps(steps[f'{size}/{step}'])}", flush=True)
    wanted = {key: value for key, value in steps.items() if int(key.split("/")[0]) in sizes}
    result = summed_up(wanted)
    asked = " ".join(str(size) for size in sizes)
    command = f"python benchmarks/scale.py --work FOLDER --memory {memory} --events {asked}"
    write("scale", {"command": command, "memory": memory, **result})
    draw(json.loads((RESULTS / "scale.json").read_text("utf-8")))
    for target, reached in result["targets"].items():
        print(f"{'reached' if reached else 'MISSED '}  {target}")


if __name__ == "__main__":
    main()
