"""What the commands share: messages and progress on stderr, results on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from nextclick.places import Url, place

if TYPE_CHECKING:
    _Type = click.ParamType[Path | Url]
else:  # older versions of click do not say of what
    _Type = click.ParamType


class Place(_Type):
    """A folder of this machine, or the URL of one elsewhere."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | Url:
        return value if isinstance(value, Path | Url) else place(value)


messages = Console(stderr=True, highlight=False)


LOG_EVERY = 60.0  # seconds between two lines of progress where no terminal shows a bar


class _Progress(Progress):
    """A bar in a terminal; in a pipe or a log file a line every minute, for work that takes longer."""

    _told: float = 0.0

    def start(self) -> None:
        self._told = time.monotonic()
        super().start()

    def update(self, task_id: TaskID, **given: Any) -> None:
        super().update(task_id, **given)
        if not self.disable or time.monotonic() - self._told < LOG_EVERY:
            return
        task = self._tasks[task_id]
        if not task.visible:
            return
        self._told = time.monotonic()
        line = task.description
        if task.total:
            line += f": {task.completed:,.0f} of {task.total:,.0f}"
            if task.time_remaining is not None and not task.finished:
                line += f", {timedelta(seconds=round(task.time_remaining))} left"
        messages.print(line, markup=False, soft_wrap=True)


def progress_bar() -> Progress:
    """Return a progress display on stderr: a bar that leaves nothing behind, or lines in a log."""
    return _Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=messages, transient=True, disable=not messages.is_terminal,
    )  # fmt: skip


def print_for_programs(content: Any) -> None:
    """Print a result as JSON on stdout, unless a person watches, who has seen the messages."""
    if not sys.stdout.isatty():
        print_json(content)


def print_json(content: Any) -> None:
    """Print a result as JSON on stdout."""
    click.echo(json.dumps(content, indent=2, ensure_ascii=False))


def wants_json(form: str | None) -> bool:
    """Whether a result is to be printed as JSON: it was asked for, or there is no terminal."""
    return form == "json" or (form is None and not sys.stdout.isatty())


def print_ranked(title: str, rows: Iterable[tuple[object, str]]) -> None:
    """Print items and a figure of each, best first, as a table; title: of the figure."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("rank", justify="right")
    table.add_column("item", overflow="fold")
    table.add_column(title, justify="right")
    for rank, (item, figure) in enumerate(rows, start=1):
        table.add_row(str(rank), str(item).replace("[", "\\["), figure)
    Console(highlight=False).print(table)
