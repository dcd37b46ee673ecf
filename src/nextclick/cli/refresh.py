"""``nextclick refresh``"""

from __future__ import annotations

from pathlib import Path

import click

from nextclick import settings
from nextclick.cli.console import messages, print_for_programs, progress_bar
from nextclick.models import find
from nextclick.tuning import read_settings

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("log", type=_PATH)
@click.argument("versions_dir", metavar="DIR", type=_PATH)
@click.argument("model")
@click.option(
    "--set", "assignments", multiple=True, metavar="NAME=VALUE", help="Change a setting; repeat for more."
)
@click.option(
    "--settings", "settings_file", type=_PATH, metavar="FILE", help="Settings from a file of nextclick tune."
)
@click.option("--holdout", default="1d", show_default=True, help="Newest part of the log to measure on.")
@click.option(
    "--margin", default=0.005, show_default=True, type=click.FloatRange(0, 1, max_open=True),
    help="Recall@20 that may be lost at most, by the 95% interval.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Publish even if it is worse.")
@click.option("--export", "onnx", is_flag=True, help="Add an ONNX export, for networks.")
@click.option("--session", metavar="COLUMN", help="Session column, if not recognised.")
@click.option("--user", metavar="COLUMN", help="User column, where there are no sessions.")
@click.option("--item", metavar="COLUMN", help="Item column, if not recognised.")
@click.option("--time", metavar="COLUMN", help="Time column, if not recognised.")
@click.pass_context
def refresh(
    context: click.Context, log: Path, versions_dir: Path, model: str, assignments: tuple[str, ...],
    settings_file: Path | None, holdout: str, margin: float, force: bool, onnx: bool, session: str | None,
    user: str | None, item: str | None, time: str | None,
) -> None:  # fmt: skip
    """Fit MODEL on the newest LOG and put it in service in DIR, unless it is worse than what is there.

    LOG is a raw click log, or what "nextclick prepare" wrote; DIR is a folder of versions, new or old, that
    "nextclick serve" watches. Both models predict the clicks of the newest part of the log; the new one is
    published if the interval of the difference leaves no room for losing more than --margin. It is then
    fitted on the whole log. Ends with 3 where the old version stays.

    \b
    Example:
      nextclick refresh clicks.csv versions vs-knn --holdout 1d
      nextclick refresh clicks.csv versions narm --export
    """
    from nextclick.serving.refresh import refresh as run

    given = settings.parse(find(model), assignments)
    from_file = read_settings(model, settings_file) if settings_file else {}
    columns = {"session": session, "user": user, "item": item, "time": time}
    with progress_bar() as bar:
        task = bar.add_task("refreshing", total=None)

        def say(text: str) -> None:
            bar.update(task, description=text, completed=0, total=None)
            if not messages.is_terminal:
                messages.print(text, markup=False)

        outcome = run(
            log, versions_dir, model, from_file | given, holdout=holdout, margin=margin, force=force,
            export=onnx,
            columns={name: column for name, column in columns.items() if column}, say=say,
            progress=lambda what, done, total: bar.update(
                task, description=f"{model}, {what}", completed=done, total=total
            ),
        )  # fmt: skip
    kept = outcome.published is None
    messages.print(
        f"{'not published' if kept else f'in service: {outcome.published}'}; {outcome.why}",
        markup=False,
        soft_wrap=True,
    )
    print_for_programs(outcome.to_json())
    if kept:
        context.exit(3)
