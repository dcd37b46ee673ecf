"""``nextclick index``"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from nextclick.cli.console import messages, print_for_programs, progress_bar
from nextclick.index import Kind


@click.command()
@click.argument("model_dir", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--recall",
    default=0.95,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of the 20 exact nearest items that a search is to find.",
)
@click.option(
    "--kind",
    type=click.Choice(["graph", "cells"]),
    help="A graph of near items, or cells of items at a byte a coordinate: smaller, and built faster.  "
    "[default: cells from 2 million items on]",
)
@click.option(
    "--links",
    default=16,
    show_default=True,
    type=click.IntRange(2, 512),
    help="Of a graph: links of an item to near ones; more find more, and take more room.",
)
@click.option(
    "--build-width",
    default=100,
    show_default=True,
    type=click.IntRange(1),
    help="Of a graph: candidates kept while an item is added; more build slower and better.",
)
@click.option("--remove", is_flag=True, help="Remove the index instead: the model answers exactly again.")
def index(
    model_dir: Path, recall: float, kind: Kind | None, links: int, build_width: int, remove: bool
) -> None:
    """Build an approximate index of a saved network's items, for large catalogues.

    It lies beside the model, is opened by memory map, and answers lists without rules; evaluation and rules
    look at all items as before. The recall against exact search is measured and shown.

    \b
    Example:
      nextclick index models/sml
      nextclick index models/sml --recall 0.99
      nextclick index models/sml --kind cells
      nextclick index models/sml --remove
    """
    from nextclick import artifact, nearest
    from nextclick.index import remove as removed

    if remove:
        artifact.read_manifest(model_dir)
        gone = removed(model_dir)
        messages.print(f"{model_dir}: {'index removed' if gone else 'there was no index'}", soft_wrap=True)
        return
    with progress_bar() as progress:
        task = progress.add_task("opening the model", total=None)
        built = nearest.build_index(
            model_dir, kind=kind, links=links, build_width=build_width, recall=recall,
            progress=lambda what, done, total: progress.update(
                task, description=what, completed=done, total=total
            ),
        )  # fmt: skip
    messages.print(
        f"index ({built.kind}) of {built.items:,} items x {built.dim}, built in {built.seconds:.1f} s: finds "
        f"{built.recall:.1%} of the 20 nearest items, in {built.indexed_ms:.2f} ms instead of "
        f"{built.exact_ms:.2f} ms a search",
        soft_wrap=True,
    )
    if built.recall < recall:
        remedy = (
            "--kind graph finds" if built.kind == "cells" else "more --links or a larger --build-width find"
        )
        messages.print(f"less than the {recall:.0%} asked for: {remedy} more", soft_wrap=True)
    if built.exact_ms < built.indexed_ms:
        messages.print("looking at all items is faster here: remove the index with --remove", soft_wrap=True)
    print_for_programs(asdict(built))
