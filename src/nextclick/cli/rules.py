"""The options --rules, --items and --items-id, shared by the commands that recommend and measure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nextclick.cli.console import messages

if TYPE_CHECKING:
    from nextclick.filters import Filter
    from nextclick.sessions import Vocabulary

_FILE = click.Path(path_type=Path)


def rule_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command, which takes them as rules_file, items_file and items_id."""
    for option in (
        click.option(
            "--items-id", metavar="COLUMN", help="Item id column of the file of --items, if not recognised."
        ),
        click.option(
            "--items",
            "items_file",
            type=_FILE,
            help="The table of items with the attributes that --rules name: Parquet or CSV.",
        ),
        click.option(
            "--rules",
            "rules_file",
            type=_FILE,
            help="Recommend only items that meet the rules of a file, TOML or JSON.",
        ),
    ):
        command = option(command)
    return command


def check_rule_options(rules_file: Path | None, items_file: Path | None, items_id: str | None) -> None:
    """Refuse options that do not go together."""
    if rules_file is None and (items_file is not None or items_id is not None):
        raise click.UsageError("--items and --items-id go with --rules FILE")
    if items_file is None and items_id is not None:
        raise click.UsageError("--items-id names a column of the file of --items")


def bound_filter(
    rules_file: Path | None, items_file: Path | None, items_id: str | None, vocabulary: Vocabulary
) -> Filter | None:
    """Return the rules bound to a model's items, None where none are asked for; print what was noticed."""
    from nextclick.filters import ItemTable, Rules

    check_rule_options(rules_file, items_file, items_id)
    if rules_file is None:
        return None
    rules = Rules.read(rules_file)
    items = None
    if items_file is not None:
        items = ItemTable.read(items_file, id_column=items_id, columns=rules.attributes)
    filter = rules.bind(items, vocabulary)
    for note in filter.notes:
        messages.print(note, markup=False, soft_wrap=True)
    return filter
