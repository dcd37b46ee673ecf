"""``nextclick prepare``"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from nextclick import prepare as prepare_log
from nextclick.cli.console import Place, messages, print_for_programs
from nextclick.dataset import Dataset
from nextclick.places import Url
from nextclick.prepare.options import TIME_UNITS
from nextclick.settings import read_memory


@click.command()
@click.argument("source", nargs=-1)
@click.option("--out", required=True, type=Place(), help="Directory of the prepared data, or its URL.")
@click.option("--train", multiple=True, metavar="FILE", help="Training part of a log that is split already.")
@click.option("--test", multiple=True, metavar="FILE", help="Test part of a log that is split already.")
@click.option("--session", metavar="COLUMN", help="Column of session ids.")
@click.option("--item", metavar="COLUMN", help="Column of item ids.")
@click.option("--time", "time_", metavar="COLUMN", help="Column of times, or three: year,month,day.")
@click.option("--event", metavar="COLUMN", help="Column of kinds of event, such as view and purchase.")
@click.option("--user", metavar="COLUMN", help="Column of user ids, to cut into sessions at pauses (--gap).")
@click.option("--order", metavar="COLUMN", help="Column that orders the clicks of a session at one time.")
@click.option("--gap", default="30m", show_default=True, help="A longer pause starts a new session.")
@click.option(
    "--time-unit",
    default="auto",
    show_default=True,
    type=click.Choice(TIME_UNITS),
    help="Of numeric times; ordinal: they only count up.",
)
@click.option("--events", metavar="NAME,...", help="Keep these kinds of event only.")
@click.option("--target-event", metavar="NAME", help="Predict the clicks of this kind of event only.")
@click.option(
    "--target-clicks",
    type=int,
    metavar="N",
    help="Each from the last N clicks before it.  [default: 12 with --target-event]",
)
@click.option("--min-length", default=2, show_default=True, help="Drop sessions with fewer clicks.")
@click.option(
    "--max-length",
    type=int,
    help="Drop sessions with more clicks; 0: no limit.  [default: 200; 0 with --train]",
)
@click.option("--min-support", type=int, help="Drop items with fewer clicks.  [default: 5; 1 with --train]")
@click.option("--collapse-repeats", is_flag=True, help="Count clicks in a row on one item once.")
@click.option("--recent", metavar="SHARE", help="Train on the latest sessions with this share of pairs.")
@click.option("--holdout", metavar="PART", help="Test part at the end: 7d, or a share.  [default: 0.1]")
@click.option(
    "--validation",
    metavar="PART",
    help="Part before it to choose settings on: 7d, 0.1, or 0 for none.  [default: 0.1; 0 with --train]",
)
@click.option("--slices", type=int, metavar="K", help="Cut the log into K data sets, one after the other.")
@click.option(
    "--unseen",
    default="keep",
    show_default=True,
    type=click.Choice(["keep", "drop"]),
    help="Later clicks on items that training has not seen.",
)
@click.option("--max-bad", default="1%", show_default=True, help="Share of unusable rows to accept.")
@click.option(
    "--engine",
    default="duckdb",
    show_default=True,
    type=click.Choice(["duckdb", "spark"]),
    help="What runs the steps; the result is the same.",
)
@click.option(
    "--memory",
    metavar="SIZE",
    help="What duckdb works in, such as 8GB, or a Spark started here.  [default: 60% of all; 4GiB]",
)
@click.option("--overwrite", is_flag=True, help="Replace the data if they exist.")
def prepare(
    source: tuple[str, ...],
    out: Path | Url,
    train: tuple[str, ...],
    test: tuple[str, ...],
    time_: str | None,
    events: str | None,
    memory: str | None,
    overwrite: bool,
    **options: Any,
) -> None:
    """Turn a raw click log into sessions, split by time into train, validation and test.

    SOURCE is CSV (commas, semicolons, tabs), Parquet, or either gzipped: files, folders, patterns or URLs.
    The columns of well-known logs are recognised, others are named with --session (or --user), --item and
    --time.

    \b
    Example:
      nextclick prepare clicks.csv --out data
      nextclick prepare events.csv --user visitorid --events view --holdout 7d --validation 7d --out data
      nextclick prepare --train train.parquet --test test.parquet --out data
      nextclick prepare clicks.csv --event event --target-event similar_click --out data
      nextclick prepare s3://bucket/clicks --engine spark --out s3://bucket/data
    """
    begun = time.perf_counter()
    with messages.status("prepare") as status:
        dataset = prepare_log(
            list(source) or None,
            out=out,
            train=list(train) or None,
            test=list(test) or None,
            time=time_,
            events=tuple(name.strip() for name in events.split(",")) if events is not None else None,
            memory=read_memory("--memory", memory) if memory is not None else None,
            overwrite=overwrite,
            progress=lambda step: status.update(f"prepare: {step}"),
            **options,
        )
    seconds = time.perf_counter() - begun
    slices = options["slices"]
    paths = [out / f"slice-{i + 1}" for i in range(slices)] if slices else [out]
    made = [dataset, *(Dataset.load(path) for path in paths[1:])]
    for path, one in zip(paths, made, strict=True):
        messages.print(_table(path, one.info["steps"]))
        messages.print(_parts(one.info), highlight=False, soft_wrap=True)
        for warning in one.info["warnings"]:
            messages.print(f"[yellow]warning:[/] {warning}", soft_wrap=True)
    following = f"next: nextclick fit {paths[0]} vs-knn --out models/vs-knn"
    messages.print(f"prepared in {seconds:.1f} s\n{following}", soft_wrap=True)
    summaries = [_summary(path, one.info) for path, one in zip(paths, made, strict=True)]
    print_for_programs({"slices": summaries} if slices else summaries[0])


def _table(path: Path | Url, steps: Sequence[Mapping[str, Any]]) -> Table:
    """Return the counts after each step, and what the step dropped."""
    table = Table(title=str(path), title_justify="left", box=None, pad_edge=False)
    table.add_column("step")
    for what in ("sessions", "clicks", "items"):
        table.add_column(what, justify="right", no_wrap=True)
    table.add_column("what remains", style="dim")
    for step in steps:
        counts = []
        for what in ("sessions", "clicks", "items"):
            dropped = step["dropped"][what]
            counts.append(f"{f'[dim]-{dropped:,}[/] ' if dropped > 0 else ''}{step[what]:,}")
        table.add_row(step["name"], *counts, step["why"].replace("[", "\\["))
    return table


def _parts(info: Mapping[str, Any]) -> str:
    """Return the sizes of the parts, and why rows were not usable, in words."""
    lines, target = [], info["target"]
    of = ""
    if target is not None:
        of = f" of event {target['event']}, each from the last {target['clicks']} before it"
    for name, part in info["splits"].items():
        first, end = part["sessions"]
        lines.append(f"{name}: {end - first:,} sessions, {part['pairs']:,} clicks to predict{of}")
    if info["bad_rows"]:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in info["bad_rows"].items())
        lines.append(f"rows not usable: {reasons}")
    return "\n".join(lines)


def _summary(path: Path | Url, info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result as plain values for other programs."""
    wanted = (
        *("name", "clock", "time_unit", "columns", "bad_rows"),
        *("warnings", "splits", "target", "n_items", "fingerprint"),
    )
    return {"path": str(path), **{key: info[key] for key in wanted}}
