"""``nextclick generate``"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import click

from nextclick.cli.console import Place, messages, print_for_programs, progress_bar
from nextclick.clickstream import Shape, StreamConfig, fit_shape
from nextclick.clickstream import generate as write_stream
from nextclick.dataset import Dataset
from nextclick.places import Url, listed


@click.command()
@click.option("--events", required=True, type=int, metavar="N", help="Clicks in all, such as 10_000_000.")
@click.option("--out", required=True, type=Place(), help="Folder of the Parquet files, or its URL.")
@click.option(
    "--shape",
    default="yoochoose64",
    show_default=True,
    metavar="NAME|FILE",
    help="Fitted to a real log: yoochoose64, diginetica, or a JSON file of one.",
)
@click.option(
    "--like",
    metavar="DATA",
    type=Place(),
    help="Instead: the shape of prepared data, fitted to their training part.",
)
@click.option("--items", default=200_000, show_default=True, help="Items in the catalogue.")
@click.option("--seed", default=1, show_default=True, help="Same settings and seed, same clicks.")
@click.option(
    "--follow",
    type=float,
    help="Share of clicks near the last one, 0: none.  [default: of the shape]",
)
@click.option("--sessions-per-day", default=50_000, show_default=True, help="Sessions that start in a day.")
@click.option("--file-events", default=5_000_000, show_default=True, help="Clicks in a file, about.")
@click.option("--overwrite", is_flag=True, help="Replace the folder if it exists.")
def generate(
    events: int,
    out: Path | Url,
    shape: str,
    like: Path | Url | None,
    items: int,
    seed: int,
    follow: float | None,
    sessions_per_day: int,
    file_events: int,
    overwrite: bool,
) -> None:
    """Make a click log of any size, with the shape of a real one, to try out sizes and machines.

    Popularity of items and length of sessions follow power laws fitted to real logs; items near each other
    in the catalogue follow each other. Clicks are drawn in a stream, so memory does not grow with their
    number. A longer log of the same settings begins with the same clicks. For a shop with known signals see
    "nextclick demo".

    \b
    Example:
      nextclick generate --events 1_000_000 --out stream
      nextclick prepare stream --out data-stream
    """
    of = Shape.named(shape) if like is None else fit_shape(Dataset.load(like).train)
    of = of if follow is None else replace(of, follow=follow)
    config = StreamConfig(events=events, shape=of, items=items, seed=seed, sessions_per_day=sessions_per_day)
    begun = time.perf_counter()
    with progress_bar() as bar:
        task = bar.add_task("generating clicks", total=events)
        write_stream(
            config,
            out,
            file_events=file_events,
            overwrite=overwrite,
            progress=lambda done, total: bar.update(task, completed=done),
        )
    seconds = time.perf_counter() - begun
    messages.print(
        f"made {events:,} clicks in {seconds:.1f} s\nnext: nextclick prepare {out} --out data", soft_wrap=True
    )
    sizes = (
        [file.stat().st_size for file in out.iterdir()] if isinstance(out, Path)
        else [file.bytes for file, _ in listed(out)]
    )  # fmt: skip
    print_for_programs(
        {
            "path": str(out),
            "events": events,
            "files": len(sizes) - 1,
            "bytes": sum(sizes),
            "seconds": round(seconds, 3),
        }
    )
