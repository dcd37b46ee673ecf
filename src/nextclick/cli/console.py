"""What the commands share: messages and progress on stderr, results on stdout."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

messages = Console(stderr=True, highlight=False)


def progress_bar() -> Progress:
    """Return a progress display on stderr that leaves nothing behind, and nothing at all in a pipe."""
    return Progress(
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
