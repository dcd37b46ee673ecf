"""Fill docs/plan.md with a plan worked out and with what was measured beyond one machine.

    python benchmarks/plan_tables.py

Each part stands between two markers; a test compares the page with the unit costs and the files of results.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nextclick.plan.costs import Counts, UnitCosts
from nextclick.plan.estimate import Machine, duration, plan, size
from nextclick.plan.logs import CLICKS
from pages import between

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "plan.md"
RESULTS = ROOT / "benchmarks" / "results"
WORKED = Counts(2_300_000_000, 20_000_000)
MACHINE = Machine(cores=16, memory=128 * 10**9, disk=4 * 10**12)
MODELS = ("markov", "item-knn", "vmis-knn", "gru4rec", "narm")
PREDICTIONS = 1_000_000
_ASKED, _BUSY = 10_000, 0.6  # lists a second at the busiest moment; share of a core that may be busy


def filled(page: str) -> str:
    """Return what the page should be."""
    parts: Mapping[str, Callable[[], str]] = {
        "engines": engines, "worked": worked, "sizing": sizing, "catalogue": catalogue, "lists": lists,
        "processes": processes,
    }  # fmt: skip
    for mark, make in parts.items():
        page = between(page, mark, make())
    return page


def worked() -> str:
    """The plan for 2.3 billion clicks on 20 million items: each step, its engine, its arithmetic."""
    costs = UnitCosts.shipped()
    found = plan(WORKED, costs, MACHINE, MODELS, predictions=PREDICTIONS)
    lines = [
        f"{WORKED.events:,} clicks on {WORKED.items:,} items; one machine is {MACHINE.cores} cores, "
        f"{size(MACHINE.memory)} of memory, {size(MACHINE.disk)} of disk, {MACHINE.hours:g} hours a step, "
        f"{duration(MACHINE.latency)} a list; {PREDICTIONS:,} clicks are predicted in the evaluation. Unit "
        f"costs of {costs.about['date']}: {costs.about['processor']}, {costs.about['cores']} cores.",
        "",
        "| step | of | time | memory | disk | one machine | up to clicks | measured up to |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for step in found.steps:
        measured = [row for cost in costs.costs for row in cost.measured
                    if (cost.step, cost.subject) == (step.step, step.subject)]  # fmt: skip
        events, items = (max(row[at] for row in measured) for at in (0, 1))
        until = "" if step.until is None else f"{float(f'{step.until:.2g}'):,.0f}"
        bytes_of = [size(value) if value else "" for value in (step.memory, step.disk)]
        lines.append(
            f"| {step.step} | {step.subject} | {duration(step.seconds)}{' a list' * (step.step == 'serve')} "
            f"| {bytes_of[0]} | {bytes_of[1]} | {'yes' if step.fits else 'no'} | {until} | "
            f"{events:,} x {items:,} |"
        )
    lines += ["", "```text"]
    for step in found.steps:
        lines.append(f"{step.step} {step.subject}")
        lines += [f"  {line.quantity}: {line.text}" for line in step.lines]
        lines += [f"  {note}" for note in step.notes]
        lines += [f"  too much for one machine: {problem}" for problem in step.problems]
    return "\n".join([*lines, "```", ""])


def engines() -> str:
    """Which engine runs which step of the plan, and what its figures are extrapolated from."""
    events, items, cores = WORKED.events, WORKED.items, MACHINE.cores
    sessions = round(events / CLICKS)
    rows = []

    def add(step: str, engine: str, unit: float, count: int, what: str, made: str, measured: str) -> None:
        core = unit * count
        rows.append(
            f"| {step} | {engine} | {duration(unit)} x {count:,} {what} = {duration(core)} of a core | "
            f"{duration(core / cores)} | {made} | {measured} |"
        )

    scale = _read("scale")
    for name, step in (
        ("prepare", "prepare"), ("item-knn duckdb", "fit `item-knn`"), ("vmis-knn duckdb", "fit `vmis-knn`"),
    ) if scale else ():  # fmt: skip
        assert scale is not None
        row = max((row for row in scale["rows"] if row["step"] == name), key=lambda row: row["events"])
        made = size(row["made_gb"] * 1e9 / row["events"] * events)
        unit = row["cpu_seconds"] / row["events"]
        add(
            step, f"DuckDB in {scale['memory']}, or Spark", unit, events, "clicks",
            f"{made}; memory {row['peak_gb']:g} GB as measured, the rest spills",
            f"{row['events']:,} clicks, {_times(events, row['events'])}; results/scale.json",
        )  # fmt: skip
    batch = _read("spark_batch")
    for row in batch["rows"] if batch else ():
        assert batch is not None
        timed = row["sessions"] * (1 - row["partitions_complete_when_killed"] / batch["partitions"])
        add(
            f"lists of `{row['model']}` for all sessions", "Spark, `recommend --engine spark`",
            row["seconds_on_spark"] * batch["cores"] / timed, sessions, "sessions",
            size(row["bytes"] / row["sessions"] * sessions) if "bytes" in row else "",
            f"{timed:,.0f} sessions, {_times(sessions, timed)}, start of Spark included; "
            "results/spark_batch.json",
        )  # fmt: skip
    index = _read("huge_catalogue") or _read("huge_catalogue_1000000")
    if index:
        add(
            "index of a network's items", "faiss, `nextclick index --kind cells`",
            index["build_core_seconds"] / index["items"], items, "items",
            f"{size(index['bytes'] / index['items'] * items)} beside vectors of "
            f"{size(index['vectors_bytes'] / index['items'] * items)}",
            f"{index['items']:,} items, {_times(items, index['items'])}; building grows faster than the "
            "items, as there are more cells; results/huge_catalogue.json",
        )  # fmt: skip
    lines = [
        f"| step | engine | work | on {cores} cores | makes | extrapolated from |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    replicas = _read("sizing")
    for row in replicas["rows"] if replicas else ():
        if row["items"] == max(replicas["sizes"]) and row["model"] in ("item-knn", "vs-knn"):
            needed = _ASKED / row["lists_per_core_second"] / _BUSY
            lines.append(
                f"| serve `{row['model']}` | replicas over Redis | {_ASKED:,} lists a second, if so many are "
                f"asked for, / {row['lists_per_core_second']:,.0f} of a core / {_BUSY:g} busy = {needed:.0f} "
                f"cores | | a replica of {row['resident_mb']:,} MB | {row['items']:,} items, "
                f"{_times(items, row['items'])}; results/sizing.json |"
            )
    return "\n".join([*lines, ""])


def _times(count: int, measured: float) -> str:
    return f"x {count / measured:,.0f}"


def sizing() -> str:
    """Memory and lists a second of one replica."""
    found = _read("sizing")
    if found is None:
        return _not_yet("sizing")
    lines = [
        f"Measured {found['date']} on one core of {found['cores']}, over HTTP, {found['k']} items after "
        f"{found['clicks_of_a_question']} clicks, nothing from the cache:",
        "",
        "| model | items | clicks fitted on | memory of a replica | lists a second and core | a list |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{row['model']}` | {row['items']:,} | {row['clicks']:,} | {row['resident_mb']:,} MB | "
        f"{row['lists_per_core_second']:,.0f} | {row['core_ms_per_list']:.2f} ms |"
        for row in found["rows"]
    ]
    return "\n".join([*lines, ""])


def catalogue() -> str:
    """Search among ten million vectors; among a million as long as only those were measured."""
    found = _read("huge_catalogue") or _read("huge_catalogue_1000000")
    if found is None:
        return _not_yet("huge_catalogue")
    clock, core = found["clock_ms"], found["core_ms"]
    return (
        f"Measured {found['date']} with {found['items']:,} clustered vectors of {found['dim']} coordinates "
        f"on {found['cores_used']} cores (load average {found['load_average_before']:g} in "
        f"the minute before): the index of cells finds {found['recall@20']:.1%} of the exact "
        f"20 with {found['width']} cells looked through; a list takes {clock['p50']:.1f} ms at the median "
        f"and {clock['p90']:.1f} ms at the 90th percentile ({core['p90']:.1f} ms of the core), a look at all "
        f"items {found['exact_core_ms']:,.0f} ms of the core. Index {size(found['bytes'])}, exact vectors "
        f"{size(found['vectors_bytes'])}, all of it with building at most {size(found['peak_bytes'])}; built "
        f"in {duration(found['build_core_seconds'])} of the cores.\n"
    )


def lists() -> str:
    """Lists on Spark against those made here."""
    found = _read("spark_batch")
    if found is None:
        return _not_yet("spark_batch")
    lines = [
        f"Measured {found['date']} on Diginetica's sessions ({' and '.join(found['parts'])} part), "
        f"{found['partitions']} partitions, on "
        f"{found['cores']} cores:",
        "",
        "| model | sessions | lists with ties | rows that differ | here | Spark |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{row['model']}` | {row['sessions']:,} | {row['lists_with_ties']:,} "
        f"| {row['rows_that_differ']:,} | {duration(row['seconds_here'])} "
        f"| {duration(row['seconds_on_spark'])} |"
        for row in found["rows"]
    ]
    for row in found["rows"]:
        if row["partitions_complete_when_killed"]:
            lines += [
                "",
                f"`{row['model']}` was killed, with all its workers, when "
                f"{row['partitions_complete_when_killed']} partitions were complete; the time on Spark is "
                "that of the rest.",
            ]
    return "\n".join([*lines, ""])


def processes() -> str:
    """Training on several processes."""
    found = _read("distributed")
    if found is None:
        return _not_yet("distributed")
    lines = [
        f"Measured {found['date']}: the largest difference from one process of any of the first losses, in "
        "float64, and of any weight (float32) after one of two processes was killed and training went on:",
        "",
        "| model | steps | 2 processes | 3 processes | goes on with 2 | with 1 | with 3 |",
        "|---|---|---|---|---|---|---|",
    ]
    names = [f"largest_difference_on_{size}" for size in (2, 3)]
    names += [f"restart_on_{size}" for size in (2, 1, 3)]
    lines += [
        f"| `{row['model']}` | {row['steps']} | " + " | ".join(f"{row[name]:.1g}" for name in names) + " |"
        for row in found["rows"]
    ]
    return "\n".join([*lines, ""])


def _read(name: str) -> dict[str, Any] | None:
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text("utf-8")) if file.exists() else None


def _not_yet(name: str) -> str:
    return f"Not measured yet: `python benchmarks/{name}.py`.\n"


if __name__ == "__main__":
    content = PAGE.read_text("utf-8")
    if content != filled(content):
        PAGE.write_text(filled(content), "utf-8")
        print(f"wrote {PAGE.name}", file=sys.stderr)
