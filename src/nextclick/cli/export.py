"""``nextclick export``"""

from __future__ import annotations

from pathlib import Path

import click

from nextclick.cli.console import messages, print_for_programs
from nextclick.errors import ConfigError


@click.command()
@click.argument("model_dir", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--format", "form", type=click.Choice(["onnx", "table"]), default="onnx", show_default=True,
    help="onnx: a network without PyTorch; table: the list of each item alone.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Directory of the table's model.")
@click.option(
    "-k", default=100, show_default=True, type=click.IntRange(min=1), help="Items in each list of a table."
)
@click.option("--overwrite", is_flag=True, help="Replace the table if it exists.")
def export(model_dir: Path, form: str, out: Path | None, k: int, overwrite: bool) -> None:
    """Prepare a saved model for serving: a network for ONNX Runtime, or any model as a table.

    onnx adds the export to DIR itself, and checks it against PyTorch on sessions of several lengths before;
    "nextclick serve" then answers from it, without PyTorch. table asks the model for the list after each item
    alone and saves the lists as a model of its own (--out), which answers from memory.

    \b
    Example:
      nextclick export models/narm --format onnx
      nextclick export models/narm --format table --out models/narm-table
    """
    if form == "onnx":
        if out is not None:
            raise click.UsageError("--out is for --format table; the ONNX export is added to DIR")
        from nextclick.serving import onnx

        with messages.status("exporting"):
            found = onnx.export(model_dir)
        messages.print(f"exported; next: nextclick serve {model_dir}", soft_wrap=True, markup=False)
        print_for_programs({"path": str(model_dir / onnx.GRAPH), **found})
        return
    if out is None:
        raise ConfigError("--format table needs --out DIR, the directory of the table's model")
    from nextclick.serving.table import export_table

    with messages.status("asking for the list of each item"):
        model = export_table(model_dir, k)
        model.save(out, overwrite=overwrite)
    messages.print(f"saved a table of {model.n_items:,} items: {out}", soft_wrap=True, markup=False)
    print_for_programs({"path": str(out), **model.facts})
