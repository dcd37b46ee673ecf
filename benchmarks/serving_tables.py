"""Fill docs/serving.md and docs/online.md with what was measured.

    python benchmarks/serving_tables.py

Each table stands between two markers; a test compares it with the files of results.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pages import between

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def filled() -> dict[Path, str]:
    """Return what both pages should be."""
    pages = {}
    for page, mark, result, table in (
        ("serving", "speed", "serving", speed),
        ("online", "trials", "online_trials", trials),
    ):
        file = ROOT / "docs" / f"{page}.md"
        found = json.loads((RESULTS / f"{result}.json").read_text("utf-8"))
        pages[file] = between(file.read_text("utf-8"), mark, table(found))
    return pages


def speed(found: dict[str, Any]) -> str:
    """What the service does a second and how long it takes, and what it survives."""
    busy = found["http"]["load_average_before"]
    lines = [
        f"Measured on {found['cores']} cores that server and load generator shared (load average {busy:g} in "
        f"the minute before), on diginetica's 43,097 items, no list from the cache:",
        "",
        "| model | in process, p50 | asked a second | p50 | p99 | errors | as fast as it goes |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, at in found["http"].items():
        if name == "load_average_before":
            continue
        steady, fast = at["steady"], at["as_fast_as_it_goes"]
        errors = steady["errors"] + steady["broken_connections"]
        lines.append(
            f"| `{name}` | {found['inside'][name]['p50_ms']:.2f} ms | {steady['rate_asked']:,} | "
            f"{steady['p50_ms']:.1f} ms | {steady['p99_ms']:.1f} ms | {errors} | "
            f"{fast['requests_per_second']:,.0f} a second |"
        )
    swaps, worker, server = found["swaps"], found["kills"]["worker"], found["kills"]["server"]
    series = found["memory"]["resident_mb_of_both_after_events"]
    inside, over_http = found["rerank"]["inside"], found["rerank"]["http"]
    lines += [
        "",
        f"- A re-ranker (`rrcre`) over `{found['rerank']['generator']}` adds {inside['added_p50_ms']:.2f} ms "
        f"to the median request in process, {over_http['added_p50_ms']:.2f} ms over HTTP "
        f"({over_http['generator_p50_ms']:.2f} and {over_http['reranker_p50_ms']:.2f} ms).",
        f"- {swaps['versions_published'] - 1} changes of version during {swaps['requests']:,} questions: "
        f"{swaps['errors']} errors, {swaps['broken_connections']} broken connections, "
        f"{swaps['mixed_answers']} answers of mixed versions, {swaps['marked']} of popular items because the "
        "model was late.",
        f"- At a load average of {found['kills']['load_average_before']:g}, a worker killed under load: "
        f"{worker['lost']} of {worker['acknowledged_events']:,} acknowledged events lost, longest pause "
        f"{worker['longest_pause_s']} s.",
        f"- The whole server killed: {server['lost']} of {server['acknowledged_events']:,} lost, in service "
        f"again after {server['answers_again_after_s']} s.",
    ]
    if "redis" in found["kills"]:
        lists, events = found["kills"]["redis"]["lists"], found["kills"]["redis"]["events"]
        lines.append(
            f"- Redis killed for five seconds: of {lists['requests']:,} lists {lists['errors']} failed, "
            f"{lists['marked_store_down']:,} were made from the question alone and marked; "
            f"{events['errors']:,} events were refused with 503, to be sent again."
        )
    lines.append(
        "- A million events of 100,000 sessions: resident memory of the "
        f"{found['memory']['workers']} workers {series['100000']:.0f} MB after the first hundred thousand, "
        f"{series['500000']:.0f} MB after half of them, {series['1000000']:.0f} MB at the end "
        "(memory that the workers share is counted in each)."
    )
    return "\n".join(lines) + "\n"


def trials(found: dict[str, Any]) -> str:
    """What experiments find where there is nothing, and where there is something."""
    aa, up = found["aa"], found["uplift"]
    return (
        f"Of {aa['tests']:,} A/A tests with such visitors, {aa['sessions_each']:,} sessions each, "
        f"{aa['rejected_at_5_percent']:.1%} reject at 5%. Of {up['tests']:,} tests with a true uplift of "
        f"{up['true']:.2%} and {up['sessions_per_variant']:,} sessions per variant, {up['found']:.1%} find "
        f"it; the report says {up['power_reported']:.1%}.\n"
    )


if __name__ == "__main__":
    for file, content in filled().items():
        if file.read_text("utf-8") != content:
            file.write_text(content, "utf-8")
            print(f"wrote {file.name}", file=sys.stderr)
