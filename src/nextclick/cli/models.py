"""``nextclick models``"""

from __future__ import annotations

import typing

import click
from rich.console import Console
from rich.table import Table

from nextclick.cli.console import print_json
from nextclick.models import MODELS, find
from nextclick.recommender import Recommender
from nextclick.settings import as_text, describe_type, settings_of


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def models(name: str | None, as_json: bool) -> None:
    """List the recommenders, one line each, with their settings and defaults; or describe one.

    \b
    Example:
      nextclick models
      nextclick models vs-knn
    """
    shown = {name: find(name)} if name else MODELS
    if as_json:
        print_json([_described(model) for model in shown.values()])
        return
    console = Console(highlight=False)
    if name is None:
        _list(console)
    else:
        _describe(console, find(name))


def _list(console: Console) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("model", style="bold", no_wrap=True)
    table.add_column("what it recommends, and its settings with their defaults")
    for name, model in MODELS.items():
        defaults = " ".join(f"{field.name}={as_text(field.default)}" for field in settings_of(model))
        table.add_row(name, model.summary)
        table.add_row("", f"[dim]{defaults or 'no settings'}[/dim]")
    console.print(table)
    console.print(
        "\nWhat a setting means:  nextclick models NAME"
        "\nTo change one:         nextclick fit DATA NAME --out DIR --set k=100"
    )


def _describe(console: Console, model: type[Recommender]) -> None:
    console.print(f"[bold]{model.name}[/bold]: {model.summary}\nSource: {model.source}\n")
    hints = typing.get_type_hints(model)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("setting", "default", "accepts", "meaning"):
        table.add_column(column)
    for field in settings_of(model):
        table.add_row(
            field.name, as_text(field.default), describe_type(field, hints), field.metadata["about"]
        )
    console.print(table if table.row_count else "It has no settings.")
    for preset, values in model.presets.items():
        chosen = " ".join(f"{name}={as_text(value)}" for name, value in values.items())
        console.print(f"\n[bold]--set preset={preset}[/bold]: {chosen}")


def _described(model: type[Recommender]) -> dict[str, object]:
    hints = typing.get_type_hints(model)
    return {
        "name": model.name,
        "summary": model.summary,
        "source": model.source,
        "settings": [
            {
                "name": field.name,
                "default": field.default,
                "accepts": describe_type(field, hints),
                "about": field.metadata["about"],
                "search": field.metadata["search"],
            }
            for field in settings_of(model)
        ],
        "presets": {name: dict(values) for name, values in model.presets.items()},
    }
