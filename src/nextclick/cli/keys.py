"""``nextclick keys``"""

from __future__ import annotations

import time
from pathlib import Path

import click

from nextclick.cli.console import messages, print_json

_FILE = click.Path(path_type=Path)


@click.group()
def keys() -> None:
    """Make, list and remove API keys of a service.

    \b
    Example:
      nextclick keys add keys.json shop --role recommend --role events
    """


@keys.command()
@click.argument("file", type=_FILE)
@click.argument("name")
@click.option(
    "--role", "roles", multiple=True, type=click.Choice(["recommend", "events", "admin"]),
    default=["recommend"], show_default=True, help="What the key may do; repeat for more.",
)  # fmt: skip
@click.option(
    "--days", type=click.FloatRange(min=0, min_open=True), help="Days after which it ends; never if left out."
)
def add(file: Path, name: str, roles: tuple[str, ...], days: float | None) -> None:
    """Make a key called NAME, and print its secret, which is kept nowhere.

    FILE keeps a hash of it; running services take a new key within a second.

    \b
    Example:
      nextclick keys add keys.json shop --role recommend --role events --days 90
    """
    from nextclick.serving.keys import add_key

    secret = add_key(file, name, roles, days)
    messages.print("keep this key; it is not shown again:")
    click.echo(secret)


@keys.command("list")
@click.argument("file", type=_FILE)
def list_(file: Path) -> None:
    """List the keys of FILE: names, roles, ends, and whether they are over, as JSON.

    \b
    Example:
      nextclick keys list keys.json
    """
    from nextclick.serving.keys import read_keys

    now = time.time()
    print_json(
        [
            {
                "name": key.name,
                "roles": list(key.roles),
                "ends": key.end,
                "expired": key.ends is not None and key.ends < now,
            }
            for key in read_keys(file)
        ]
    )


@keys.command()
@click.argument("file", type=_FILE)
@click.argument("name")
def remove(file: Path, name: str) -> None:
    """Remove the key called NAME from FILE; running services refuse it within a second.

    \b
    Example:
      nextclick keys remove keys.json shop
    """
    from nextclick.serving.keys import remove_key

    remove_key(file, name)
    messages.print(f"removed {name}", markup=False)
