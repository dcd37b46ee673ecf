"""``nextclick explain``"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from nextclick import artifact
from nextclick.cli.console import messages, print_json
from nextclick.errors import DataError
from nextclick.files import check_ending


@click.command()
@click.argument("model_dir", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("items", nargs=-1, metavar="ITEM...")
@click.option(
    "-k", default=5, show_default=True, type=click.IntRange(min=1), help="How many items to explain."
)
@click.option("--exclude-seen", is_flag=True, help="Leave out the items of the session itself.")
@click.option(
    "--leave-out", is_flag=True, help="Leave out each click in turn instead, which works for any model."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    help="How to print.  [default: table on a terminal, json in a pipe]",
)
@click.option(
    "--png", type=click.Path(path_type=Path), help="Also draw a picture, to a file that ends in .png."
)
@click.option(
    "--from-data",
    type=click.Path(path_type=Path),
    metavar="DATA",
    help="Take a session of the test part of prepared data, all but its last click.",
)
@click.option("--session", metavar="ID", help="Which session of --from-data, by its id in the log.")
def explain(
    model_dir: Path,
    items: tuple[str, ...],
    k: int,
    exclude_seen: bool,
    leave_out: bool,
    form: str | None,
    png: Path | None,
    from_data: Path | None,
    session: str | None,
) -> None:
    """Explain what a saved model recommends after a session of ITEMs (own ids, oldest first).

    Networks with attention tell what each click weighed for every prefix, session neighbours which past
    sessions voted, item-to-item models what each click adds. For all others each click is left out in turn.

    \b
    Example:
      nextclick explain models/vs-knn P0012 P0840
      nextclick explain models/narm P0012 P0840 P0031 --png attention.png
      nextclick explain models/markov --from-data data --session 4711 --leave-out
    """
    from nextclick.explain import explain as explained

    if (from_data is None) == (not items):
        raise click.UsageError("give the ITEMs of one session, or a session of --from-data")
    if (from_data is None) != (session is None):
        raise click.UsageError("--from-data DATA and --session ID go together")
    if png is not None:
        from nextclick.report import require_charts

        require_charts()
        check_ending(png, ".png")
    clicks: list[Any] = list(items)
    if from_data is not None and session is not None:
        *clicks, following = _test_session(from_data, session)
        messages.print(
            f"session {session}: {len(clicks)} clicks, then {following}", markup=False, soft_wrap=True
        )
    answer = explained(artifact.load(model_dir), clicks, k, exclude_seen=exclude_seen, leave_out=leave_out)
    if answer.unknown:
        messages.print(
            f"unknown items skipped: {', '.join(map(str, answer.unknown))}", markup=False, soft_wrap=True
        )
    if png is not None:
        answer.save_png(png)
        messages.print(f"picture: {png}", markup=False, soft_wrap=True)
    if form == "json" or (form is None and not sys.stdout.isatty()):
        print_json(answer.to_json())
    else:
        from nextclick.explain.text import print_explanation

        print_explanation(answer, Console(highlight=False))


def _test_session(data: Path, session: str) -> list[Any]:
    """Return the item ids of a test session, oldest first."""
    import duckdb

    from nextclick.dataset import Dataset

    dataset = Dataset.load(data)
    table = data / "sessions.parquet"
    if not table.is_file():
        raise DataError(f"{table}: missing, so sessions have no ids; prepare the data again")
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT session, split FROM read_parquet(?) WHERE CAST(id AS VARCHAR) = ? ORDER BY session DESC",
            [str(table), session],
        ).fetchall()
    if not found or found[0][1] != "test":
        where = f"it is of the {found[0][1]} part" if found else "there is no session of that id"
        raise DataError(f"{data}: no test session {session!r}, {where}; see the ids in {table}")
    number = int(found[0][0])
    low, high = dataset.sessions.offsets[number : number + 2]
    return dataset.vocabulary.ids_of(dataset.sessions.items[low:high])
