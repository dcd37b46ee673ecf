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
@click.option(
    "--features",
    "features_dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Add the items that are new in these features to the index; with --out.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Directory of the model that knows them too, and its index.",
)
@click.option("--overwrite", is_flag=True, help="Replace that directory if it exists.")
@click.option("--remove", is_flag=True, help="Remove the index instead: the model answers exactly again.")
def index(
    model_dir: Path, recall: float, kind: Kind | None, links: int, build_width: int,
    features_dir: Path | None, out: Path | None, overwrite: bool, remove: bool,
) -> None:  # fmt: skip
    """Build an approximate index of a saved network's items, for large catalogues.

    It lies beside the model, is opened by memory map, and answers lists without rules; evaluation and rules
    look at all items as before. The recall against exact search is measured and shown.

    A network that was fitted with features takes new items without a new fit: --features adds them to the
    index, and writes the model that knows them, with this index, to --out.

    \b
    Example:
      nextclick index models/sml
      nextclick index models/sml --recall 0.99
      nextclick index models/sml --kind cells
      nextclick index models/sml --features new --out models/sml-today
      nextclick index models/sml --remove
    """
    from nextclick import artifact, nearest
    from nextclick.features import Features
    from nextclick.index import remove as removed

    if (features_dir is None) != (out is None):
        raise click.UsageError("--features DIR and --out DIR go together")
    if remove and out is not None:
        raise click.UsageError("--remove takes an index away, --features adds to it: one at a time")
    if remove:
        artifact.read_manifest(model_dir)
        gone = removed(model_dir)
        messages.print(f"{model_dir}: {'index removed' if gone else 'there was no index'}", soft_wrap=True)
        return
    with progress_bar() as bar:
        task = bar.add_task("opening the model", total=None)

        def progress(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        if features_dir is not None and out is not None:
            features = Features.load(features_dir)
            built = nearest.extend_index(
                model_dir, features, out, recall=recall, overwrite=overwrite, progress=progress
            )
        else:
            built = nearest.build_index(
                model_dir, kind=kind, links=links, build_width=build_width, recall=recall, progress=progress
            )
    made = "built" if out is None else "extended"
    messages.print(
        f"index ({built.kind}) of {built.items:,} items x {built.dim}, {made} in {built.seconds:.1f} s: "
        f"finds {built.recall:.1%} of the 20 nearest items, in {built.indexed_ms:.2f} ms instead of "
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
