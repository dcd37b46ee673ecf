"""``nextclick rollback``"""

from __future__ import annotations

from pathlib import Path

import click

from nextclick.cli.console import messages, print_for_programs


@click.command()
@click.argument("versions_dir", metavar="DIR", type=click.Path(path_type=Path))
def rollback(versions_dir: Path) -> None:
    """Put the version before the one in service back, of the folder of versions DIR.

    Running services change over within a second or two. The version left stays there, last in the row.

    \b
    Example:
      nextclick rollback versions
    """
    from nextclick.serving.versions import Versions

    versions = Versions(versions_dir)
    left, _ = versions.read()
    back = versions.rollback()
    messages.print(f"in service again: {back}  (instead of {left})", soft_wrap=True, markup=False)
    print_for_programs({"version": back, "left": left})
