"""``nextclick neighbours``"""

from __future__ import annotations

from pathlib import Path

import click

from nextclick.cli.console import messages, print_json, print_ranked, wants_json
from nextclick.files import check_ending

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("model_dir", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("item", required=False, metavar="[ITEM]")
@click.option("-k", default=20, show_default=True, type=click.IntRange(min=1), help="How many items to list.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    help="How to print.  [default: table on a terminal, json in a pipe]",
)
@click.option(
    "--map", "map_file", type=_FILE, metavar="FILE.html", help="Draw all items on a plane, as a page."
)
@click.option(
    "--projection",
    type=click.Choice(["pca", "tsne"]),
    default="pca",
    show_default=True,
    help="How the map is laid out: the two main axes, or t-SNE, which keeps near items near.",
)
@click.option(
    "--most",
    default=3000,
    show_default=True,
    type=click.IntRange(min=2),
    help="Items on the map, the most clicked.",
)
@click.option(
    "--items", "items_file", type=_FILE, help="The table of items with their categories: Parquet or CSV."
)
@click.option(
    "--items-id", metavar="COLUMN", help="Item id column of the file of --items, if not recognised."
)
@click.option("--colour", metavar="COLUMN", help="Attribute of --items that colours the map.")
def neighbours(
    model_dir: Path,
    item: str | None,
    k: int,
    form: str | None,
    map_file: Path | None,
    projection: str,
    most: int,
    items_file: Path | None,
    items_id: str | None,
    colour: str | None,
) -> None:
    """List the items nearest to ITEM in what a saved model has learnt, or draw a map of all items.

    Works for every model that learns item vectors. Nearness is the cosine, or minus the squared distance
    where the model learnt that. The map is one HTML page that needs nothing else.

    \b
    Example:
      nextclick neighbours models/sml P0012 -k 10
      nextclick neighbours models/sml --map map.html --items items.parquet --colour category
    """
    from nextclick import artifact, nearest

    if item is None and map_file is None:
        raise click.UsageError("give an ITEM to list what is near to it, or --map FILE.html, or both")
    if (items_file is None) != (colour is None):
        raise click.UsageError("--items FILE and --colour COLUMN go together")
    if map_file is None and (items_file is not None or items_id is not None):
        raise click.UsageError("--items, --items-id and --colour are for the page of --map")
    if items_file is None and items_id is not None:
        raise click.UsageError("--items-id names a column of the file of --items")
    if map_file is not None:
        check_ending(map_file, ".html")
    model = artifact.load(model_dir, with_index=False)
    near = nearest.neighbours(model, item, k) if item is not None else None
    if map_file is not None:
        from nextclick import item_map
        from nextclick.filters import ItemTable

        table = None
        if items_file is not None and colour is not None:
            table = ItemTable.read(items_file, id_column=items_id, columns=[colour])
        with messages.status("laying out the map"):
            item_map.write(
                model, map_file, projection=projection, most=most, items=table, colour=colour, around=item
            )
        messages.print(f"map: {map_file}", markup=False, soft_wrap=True)
    if near is None:
        return
    if wants_json(form):
        print_json([{"item": other, "nearness": score} for other, score in near])
    else:
        print_ranked("nearness", ((other, f"{score:.3f}") for other, score in near))
