"""``nextclick features``, and ``nextclick features neighbours`` and ``add`` beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from nextclick.cli.console import messages, print_for_programs, print_json, progress_bar
from nextclick.errors import ConfigError
from nextclick.files import check_ending

_PATH = click.Path(path_type=Path)


class _Features(click.Command):
    """Makes features, unless its first word names one of ``others``: then that command runs."""

    others: Mapping[str, click.Command] = {}

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args and args[0] in self.others:
            other = self.others[args[0]]
            return other.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


def _several(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    names = tuple(name.strip() for name in (value or "").split(",") if name.strip())
    if value is not None and not names:
        raise click.BadParameter("name columns like title,description")
    return names


def _vectors(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, Path]:
    given = {}
    for assignment in value:
        name, equals, file = assignment.partition("=")
        if not equals or not name or not file:
            raise click.BadParameter(f"{assignment!r}: write NAME=FILE, for example image=vectors.npy")
        given[name] = Path(file)
    return given


@click.command(cls=_Features)
@click.argument("data", type=_PATH)
@click.option("--items", "items_file", required=True, type=_PATH, help="Table of items: Parquet or CSV.")
@click.option("--items-id", metavar="COLUMN", help="Item id column of that table, if not recognised.")
@click.option("--text", callback=_several, metavar="A,B", help="Columns of text, such as title,description.")
@click.option(
    "--image", metavar="COLUMN", help="Column of pictures: paths from the table's folder, or http(s)."
)
@click.option(
    "--image-model",
    default="own",
    show_default=True,
    metavar="own|googlenet|FILE",
    help="What reads pictures: a small network trained on them, torchvision's GoogLeNet, or an ONNX file.",
)
@click.option("--image-output", metavar="NAME", help="Output of the ONNX file to take, if not the first.")
@click.option(
    "--max-pixels", default=50_000_000, show_default=True, type=click.IntRange(min=1),
    help="Larger pictures are refused unopened.",
)  # fmt: skip
@click.option("--categorical", callback=_several, metavar="A,B", help="Columns of categories.")
@click.option("--numeric", callback=_several, metavar="A,B", help="Columns of numbers.")
@click.option(
    "--vectors", callback=_vectors, multiple=True, metavar="NAME=FILE",
    help="Ready-made vectors, .npy in the order of the table or Parquet with ids; repeat for more.",
)  # fmt: skip
@click.option(
    "--like", metavar="DIR", type=_PATH,
    help="Encode as these features were: for items that are new since a model was fitted.",
)  # fmt: skip
@click.option("--seed", default=1, show_default=True, help="Of the training of --image-model own.")
@click.option("--out", required=True, type=_PATH, help="Directory of the features.")
@click.option("--overwrite", is_flag=True, help="Replace the directory if it exists.")
def features(
    data: Path, items_file: Path, items_id: str | None, text: tuple[str, ...], image: str | None,
    image_model: str, image_output: str | None, max_pixels: int, categorical: tuple[str, ...],
    numeric: tuple[str, ...], vectors: dict[str, Path], like: Path | None, seed: int, out: Path,
    overwrite: bool,
) -> None:  # fmt: skip
    """Make features of the items of DATA from a table with their texts, pictures and attributes.

    Texts become a sparse bag of words and pairs of words weighted by TF-IDF, pictures the vectors of a
    convolutional network, attributes columns of their own. Pictures that are missing, unreadable or too large
    are counted and get no vector. An interrupted reading of pictures goes on where it was.

    \b
    Example:
      nextclick features data --items items.parquet --text title,description --image image --out features
      nextclick features data --items items.csv --categorical brand,colour --numeric price --out features
      nextclick features data --items new-items.parquet --text title,description --like features --out new

    Commands of their own, each with --help: "nextclick features neighbours" shows the items most similar by
    text or picture, "nextclick features add" makes a fitted network know new items.
    """
    from nextclick.dataset import Dataset
    from nextclick.features import Features, Recipe
    from nextclick.files import check_new

    check_new(out, overwrite=overwrite)
    dataset = Dataset.load(data, verify=True)
    earlier = None if like is None else Features.load(like)
    recipe = Recipe(
        items_file, items_id or "", text, image or "", image_model, image_output or "", max_pixels,
        categorical, numeric, vectors, seed,
    )  # fmt: skip
    work = out.with_name(f"{out.name}.pictures")
    with progress_bar() as bar:
        task = bar.add_task("making features", total=None)
        made = recipe.made(
            like=earlier, work=work,
            progress=lambda what, done, total: bar.update(
                task, description=what, completed=done, total=total
            ),
        )  # fmt: skip
        bar.update(task, description="writing", total=None)
        known = dataset.vocabulary.codes_of(made.items.ids_of(range(len(made))))
        if (known < 0).all() and like is None:
            raise ConfigError(
                f"{items_file}: no item of {data} stands there, such as {dataset.vocabulary.id_of(0)!r}; "
                "name the right id column with --items-id"
            )
        made.save(out, overwrite=overwrite)
    _clean(work)
    clicked = int((known >= 0).sum())
    without = len(dataset.vocabulary) - clicked
    for name in made.representations:
        messages.print(made.describe(name), markup=False, soft_wrap=True)
    told = made.about.get("image", {})
    if told:
        messages.print(
            f"pictures: {told['missing']:,} missing, {told['unreadable']:,} unreadable, "
            f"{told['too_large']:,} too large", markup=False, soft_wrap=True,
        )  # fmt: skip
    next_one = f"nextclick fit {data} prnn --features {out} --out MODEL"
    if like is not None:
        next_one = f"nextclick features add MODEL {out} --out MODEL_THAT_KNOWS_THEM"
    messages.print(
        f"{clicked:,} items of {data} have features, {without:,} do not; {len(made) - clicked:,} items of "
        f"the table are not in {data}: new, never clicked, or left out when it was prepared\n"
        f"next: {next_one}",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    print_for_programs(
        {
            "path": str(out), "items": len(made), "clicked": clicked, "without": without,
            "about": {name: {of: value for of, value in about.items() if of != "encoder"}
                      for name, about in made.about.items()},
        }
    )  # fmt: skip


def _clean(work: Path) -> None:
    import shutil

    shutil.rmtree(work, ignore_errors=True)


@click.command()
@click.argument("features_dir", metavar="FEATURES", type=_PATH)
@click.argument("items", nargs=-1, required=True, metavar="ITEM...")
@click.option("-k", default=3, show_default=True, type=click.IntRange(min=1), help="Neighbours of each item.")
@click.option("--by", metavar="NAME", help="Representation to compare by.  [default: the first]")
@click.option(
    "--items", "items_file", type=_PATH, help="Table of items with titles and pictures, to show them."
)
@click.option("--items-id", metavar="COLUMN", help="Item id column of that table, if not recognised.")
@click.option("--title", metavar="COLUMN", help="Column of titles.")
@click.option("--image", metavar="COLUMN", help="Column of pictures.")
@click.option("--png", type=_PATH, help="Draw them: a row for each ITEM.")
def neighbours(
    features_dir: Path, items: tuple[str, ...], k: int, by: str | None, items_file: Path | None,
    items_id: str | None, title: str | None, image: str | None, png: Path | None,
) -> None:  # fmt: skip
    """Show the items most similar to each ITEM by text or picture.

    \b
    Example:
      nextclick features neighbours features P0012 --by image
      nextclick features neighbours features P0012 --items items.parquet --image image --png similar.png
    """
    from nextclick.features import Features
    from nextclick.features.picture import draw_neighbours
    from nextclick.filters import ItemTable

    if png is not None:
        check_ending(png, ".png")
    if png is not None and not (title or image):
        raise click.UsageError("--png draws titles and pictures: name --items, and its --title or --image")
    loaded = Features.load(features_dir)
    name = by or next(iter(loaded.representations))
    if items_file is None and (title or image):
        raise click.UsageError("--title and --image name columns of the table of --items")
    found = {item: loaded.neighbours(item, name, k) for item in items}
    shown: dict[str, dict[Any, str]] = {}
    if items_file is not None:
        wanted = {of: column for of, column in (("title", title), ("image", image)) if column is not None}
        table = ItemTable.read(items_file, id_column=items_id, columns=set(wanted.values()))
        for of, column in wanted.items():
            values, present = table.texts(column)
            shown[of] = {
                item: value
                for item, value, there in zip(table.ids.tolist(), values, present, strict=True)
                if there
            }
    if png is not None:
        ids = [loaded.items.id_of(loaded.items.code_of(item)) for item in items]
        pictures = (shown["image"], items_file.parent) if items_file and "image" in shown else None
        draw_neighbours(loaded, ids, name, png, k=k, pictures=pictures, titles=shown.get("title"))
        messages.print(f"drawn: {png}", markup=False, soft_wrap=True)
    import sys

    if not sys.stdout.isatty():
        print_json({str(item): [{"item": of, "cosine": cosine} for of, cosine in near]
                    for item, near in found.items()})  # fmt: skip
        return
    console = Console(highlight=False)
    for asked, near in found.items():
        console.print(f"{asked} by {name}:", markup=False)
        for other, cosine in near:
            words = shown.get("title", {}).get(other, "")
            console.print(f"  {cosine:.3f}  {other}  {words}".rstrip(), markup=False)


@click.command()
@click.argument("model_dir", metavar="MODEL", type=_PATH)
@click.argument("features_dir", metavar="FEATURES", type=_PATH)
@click.option("--out", required=True, type=_PATH, help="Directory of the model that knows them.")
@click.option("--overwrite", is_flag=True, help="Replace that directory if it exists.")
def add(model_dir: Path, features_dir: Path, out: Path, overwrite: bool) -> None:
    """Make a copy of a fitted network that also knows the items that are new in FEATURES.

    MODEL was fitted with features, and is not fitted again: new items are read by their features, and ranked
    by what items like them have learnt. FEATURES are made like those of the fit ("nextclick features DATA
    --items NEW --like FEATURES ..."). The copy is served, exported and evaluated like any other model.

    \b
    Example:
      nextclick features add models/prnn new --out models/prnn-today
      nextclick serve models/prnn-today
    """
    from nextclick import artifact
    from nextclick.features import Features
    from nextclick.files import check_new

    check_new(out, overwrite=overwrite)
    model = artifact.load(model_dir)
    wider = model.with_items(Features.load(features_dir))
    wider.save(out, overwrite=overwrite)
    new = wider.n_items - model.n_items
    messages.print(
        f"{new:,} new items beside the {model.n_items:,} of {model_dir}: {out}\nnext: nextclick serve {out}",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    print_for_programs({"path": str(out), "model": wider.name, "new_items": new, "items": wider.n_items})


_Features.others = {"neighbours": neighbours, "add": add}
