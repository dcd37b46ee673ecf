"""The command line: one file per command, loaded only when it is called."""

from __future__ import annotations

import errno
import importlib
import re
import sys
from collections.abc import Mapping
from typing import Any

import click

from nextclick import __version__
from nextclick.errors import NextclickError, nearest

COMMANDS: Mapping[str, str] = {
    "demo": "Make a small shop, compare recommenders on it, write a report. Needs no data.",
    "generate": "Make a click log of any size, with the shape of a real one.",
    "prepare": "Turn a raw click log into sessions, split by time.",
    "features": "Make features of items from texts, pictures and columns; show similar items.",
    "plan": "Estimate time, memory and disk for a log of a size, and when one machine is too small.",
    "models": "List the recommenders and their settings.",
    "tune": "Search for the best settings of a recommender on validation sessions.",
    "fit": "Fit a recommender on prepared data and save it.",
    "evaluate": "Measure saved recommenders on the test sessions, against each other.",
    "recommend": "Answer sessions with the items likely to be clicked next.",
    "run": "Prepare, fit and evaluate all models of an experiment file, beside published figures.",
    "neighbours": "List the items nearest to an item, or draw a map of all items.",
    "index": "Build an approximate index of a saved network, for large catalogues.",
    "explain": "Show why a saved recommender gives its answer to a session.",
    "serve": "Serve recommendations over HTTP.",
    "export": "Prepare a saved model for serving: a network without PyTorch, or a table.",
    "experiment": "Report on an online experiment, or simulate one.",
    "refresh": "Fit on the newest log and put the model in service, unless it is worse.",
    "rollback": "Put the version before the one in service back.",
    "keys": "Make, list and remove API keys of a service.",
}
"""Each command in the order of a first visit; command X is ``nextclick.cli.X.X``."""


class _Lazy(click.Group):
    """A group that imports a command when it is needed, so that ``--help`` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command:
        if name not in COMMANDS:
            ctx.fail(f"no command {name!r}{nearest(name, COMMANDS)}\n  there are: {', '.join(COMMANDS)}")
        command: click.Command = getattr(importlib.import_module(f"nextclick.cli.{name}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except NextclickError as error:
            raise click.ClickException(str(error)) from error
        except click.UsageError as error:
            if hint := _settings_without_set(error):
                raise click.UsageError(error.message + hint, error.ctx) from error
            raise
        except OSError as error:
            if error.errno == errno.EPIPE or error.filename is None:  # click ends quietly on a closed pipe
                raise
            raise click.ClickException(
                f"{error.filename}: {error.strerror}; check the path and its permissions"
            ) from error


def _settings_without_set(error: click.UsageError) -> str:
    """Return how NAME=VALUE words are meant to be given, where they were given as arguments."""
    extra = re.search(r"extra arguments? \((.*)\)", error.message)
    words = [word for word in extra[1].split() if "=" in word] if extra else []
    takes = error.ctx is not None and any("--set" in param.opts for param in error.ctx.command.params)
    return f"\nSettings are given one by one: --set {' --set '.join(words)}" if takes and words else ""


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="nextclick")
def main() -> None:
    """Session-based recommendation: from a raw click log to a recommender that answers.

    \b
    Without data:   nextclick demo
    With a log:     nextclick prepare clicks.csv --out data
                    nextclick fit data vs-knn --out models/vs-knn
                    nextclick evaluate data models/vs-knn --html report.html
                    nextclick recommend models/vs-knn ITEM ITEM
    """
    # The user's own ids may hold anything; a terminal that cannot show a character gets an escape.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
