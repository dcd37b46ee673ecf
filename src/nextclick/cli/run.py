"""``nextclick run``"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nextclick import experiment as experiments
from nextclick.cli.console import messages, print_for_programs, progress_bar
from nextclick.experiment import HEAD, Experiment

WIDE = 110  # columns of a terminal that has room for everything


@click.command()
@click.argument("file", metavar="EXPERIMENT", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the results go.  [default: its name]",
)
@click.option(
    "--data",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the files it names are.  [default: beside it]",
)
@click.option("--rows", multiple=True, metavar="LABEL", help="Do this row only; repeat for more.")
@click.option("--list", "listed", is_flag=True, help="Show the rows and how far each is; do nothing.")
def run(file: Path, out: Path | None, data: Path | None, rows: tuple[str, ...], listed: bool) -> None:
    """Prepare, fit and evaluate all models of an EXPERIMENT file (TOML), each with several seeds.

    Writes results.json, results.md and report.html: the mean and standard deviation of every row, beside
    the figure published for it. What is done is kept: typed again, the command does only what is missing.
    A row that fails is recorded, and the others go on; the exit code is 1 then.

    \b
    Example:
      nextclick run benchmarks/papers/diginetica.toml --data ~/logs --out diginetica
      nextclick run experiment.toml --rows narm --rows stamp
      nextclick run experiment.toml --list
    """
    experiment = experiments.read(file, data)
    out = out or Path(experiment.name)
    if listed:
        _list(experiment, out)
        return
    with progress_bar() as bar:
        task = bar.add_task(experiment.name, total=None)
        done = experiments.run(
            experiment, out, rows=rows, command=_command(file, out, data, rows),
            progress=lambda what, at, total: bar.update(
                task, description=what, completed=at, total=total or None
            ),
            say=lambda text: messages.print(text, markup=False, soft_wrap=True),
        )  # fmt: skip
    messages.print(_table(experiments.lines(done.content)))
    messages.print(f"written: {', '.join(map(str, done.files))}", soft_wrap=True)
    print_for_programs(done.content)
    if done.failed:
        for failure in done.failed:
            messages.print(f"failed: {failure}", markup=False, soft_wrap=True)
        raise click.exceptions.Exit(1)


def _table(lines: Sequence[Sequence[str]]) -> Table:
    """Return what was measured; a narrow terminal leaves out the published figures, not the differences."""
    shown = [n for n, title in enumerate(HEAD) if title != "published" or messages.width >= WIDE]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for n in shown:
        number = n > 1
        table.add_column(
            HEAD[n], justify="right" if number else "left", no_wrap=number, min_width=None if n else 12
        )
    for cells in lines:
        table.add_row(*(Text(cells[n]) for n in shown))
    return table


def _command(file: Path, out: Path, data: Path | None, rows: tuple[str, ...]) -> str:
    words = ["nextclick", "run", str(file), "--out", str(out)]
    words += ["--data", str(data)] if data else []
    return shlex.join([*words, *(word for label in rows for word in ("--rows", label))])


def _list(experiment: Experiment, out: Path) -> None:
    states = experiments.states(experiment, out)
    if not sys.stdout.isatty():
        print_for_programs(
            [
                {
                    "label": row.label,
                    "model": row.model,
                    "settings": dict(row.settings),
                    "seeds": [seed for seed in row.seeds if seed is not None],
                    "published": row.published and {**row.published.metrics, "source": row.published.source},
                    "state": states[row.label],
                }
                for row in experiment.rows
            ]
        )
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("row", "model", "settings", "seeds", "state"):
        table.add_column(title)
    for row in experiment.rows:
        seeds = ", ".join(str(seed) for seed in row.seeds if seed is not None)
        table.add_row(*map(Text, (row.label, row.model, row.written, seeds, states[row.label])))
    Console(highlight=False).print(table)
