"""``nextclick plan``"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from nextclick import machine
from nextclick.cli.console import messages, print_json, progress_bar
from nextclick.errors import ConfigError
from nextclick.plan.costs import Counts, UnitCosts
from nextclick.plan.estimate import FAMILIES, Machine, Plan, duration, size
from nextclick.plan.estimate import plan as planned

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def _number(text: str) -> int:
    """Read a count or a number of bytes: 2300000000, 2.3e9, 2300M, 2.3G, 64GB."""
    plain = text.lower().replace("_", "").replace(",", "")
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?(?:e\+?[0-9]{1,2})?) ?([kmgt]?)b?", plain)
    if found is None or (number := round(float(found[1]) * _UNITS[found[2]])) < 1:
        raise click.BadParameter(f"{text!r} is no number such as 2300000000, 2.3e9, 2.3G or 64GB")
    return number


def _counted(name: str, meaning: str) -> Callable[[Any], Any]:
    return click.option(name, type=_number, metavar="NUMBER", help=meaning)


@click.command()
@_counted("--events", "Clicks of the log: 2300000000, 2.3e9 or 2.3G.")
@_counted("--items", "Items that are clicked in it.")
@click.option(
    "--model", "models", multiple=True, metavar="NAME",
    help="Plan for this model; may be repeated.  [default: one of each family]",
)  # fmt: skip
@_counted("--predictions", "Clicks predicted in the evaluation.  [default: those of a tenth of the sessions]")
@click.option("--cores", type=click.IntRange(min=1), help="Processors of the machine.  [default: this one's]")
@_counted("--memory", "Its memory in bytes, as 64GB.  [default: this one's]")
@_counted("--disk", "Its free disk in bytes, as 2TB.  [default: this folder's]")
@click.option(
    "--hours", default=24.0, show_default=True, type=click.FloatRange(min=0, min_open=True),
    help="Hours that preparing, fitting or evaluating may take.",
)  # fmt: skip
@click.option(
    "--latency", default=50.0, show_default=True, type=click.FloatRange(min=0, min_open=True),
    help="Milliseconds that one list may take.",
)  # fmt: skip
@click.option(
    "--costs", "costs_file", type=click.Path(path_type=Path), metavar="FILE",
    help="Unit costs to plan with, or to write with --measure.  [default: those that come with nextclick]",
)  # fmt: skip
@click.option("--measure", is_flag=True, help="Measure the times on this machine first; takes minutes.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan(
    events: int | None,
    items: int | None,
    models: tuple[str, ...],
    predictions: int | None,
    cores: int | None,
    memory: int | None,
    disk: int | None,
    hours: float,
    latency: float,
    costs_file: Path | None,
    measure: bool,
    as_json: bool,
) -> None:
    """Estimate time, memory and disk for a log of a size, and say when one machine is too small.

    Every figure is a unit cost times a count, printed as such. The unit costs that come with nextclick were
    measured on one machine, which the plan names; --measure times the same steps on
    yours. Times of fit and serve are those of one core.

    \b
    Example:
      nextclick plan --events 2.3G --items 20M
      nextclick plan --events 50M --items 300k --model gru4rec --model vs-knn --memory 64GB
      nextclick plan --measure --costs costs.json --model narm
    """
    if (events is None) != (items is None):
        raise click.UsageError("--events and --items go together")
    if events is None and not measure:
        raise click.UsageError("say how large the log is: --events 50M --items 300k; or --measure")
    costs = _measured(models, costs_file) if measure else (
        UnitCosts.shipped() if costs_file is None else UnitCosts.read(costs_file)
    )  # fmt: skip
    if events is None or items is None:
        return
    wanted = models or tuple(name for name in FAMILIES if name in costs.models)
    on = Machine(
        cores or machine.cores(), memory or machine.memory(), disk or shutil.disk_usage(Path.cwd()).free,
        hours, latency / 1000,
    )  # fmt: skip
    found = planned(Counts(events, items), costs, on, wanted, predictions=predictions)
    if as_json:
        about = {name: value for name, value in costs.about.items() if name != "costs"}
        print_json({**found.to_json(), "measured": about})
    else:
        _print(found, costs)


def _measured(models: tuple[str, ...], file: Path | None) -> UnitCosts:
    from nextclick.plan.measuring import measure, subjects_here

    if file is not None and file.exists() and not file.is_file():
        raise ConfigError(f"{file}: is a folder; name a file for the unit costs")
    subjects = subjects_here(models or FAMILIES)
    missing = [name for name in models if name not in subjects]
    if missing:
        raise ConfigError(f"{', '.join(missing)}: needs an extra that is not installed, see nextclick models")
    with progress_bar() as bar:
        task = bar.add_task("measuring", total=len(subjects))
        costs = measure(
            subjects, command=" ".join(["nextclick", *sys.argv[1:]]),
            progress=lambda what, done, total: bar.update(
                task, description=f"measuring {what}", completed=done, total=total
            ),
        )  # fmt: skip
    if file is not None:
        costs.write(file)
        messages.print(f"unit costs of this machine: {file}", soft_wrap=True)
    return costs


def _short(number: float) -> str:
    """Return two digits of a count in the form of ``--events``."""
    rounded = float(f"{number:.2g}")
    for unit, per in reversed(_UNITS.items()):
        if unit and rounded >= per:
            return f"{rounded / per:,g}{unit.upper()}"
    return f"{rounded:g}"


def _print(found: Plan, costs: UnitCosts) -> None:
    out = Console(highlight=False)
    of, about = found.machine, costs.about
    out.print(
        f"{found.counts.events:,} events, {found.counts.items:,} items, on {of.cores} cores with "
        f"{size(of.memory)} of memory and {size(of.disk)} of free disk", soft_wrap=True,
    )  # fmt: skip
    out.print(
        f"unit costs: {about['date']}, {about['processor']}, {about['cores']} cores, "
        f"{size(about['memory'])}", soft_wrap=True,
    )  # fmt: skip
    times = [
        f"{name} x {by:,.1f}" for name, by in zip(("events", "items"), found.beyond, strict=True) if by > 1
    ]
    if times:
        out.print(f"extrapolated beyond the largest measurement: {', '.join(times)}", soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("step", "of"):
        table.add_column(name, no_wrap=True)
    for name in ("time", "memory", "disk", "one machine", "until events"):
        table.add_column(name, justify="right", no_wrap=True)
    for step in found.steps:
        until = "" if step.until is None else _short(step.until)
        table.add_row(
            step.step, step.subject, duration(step.seconds) + " a list" * (step.step == "serve"),
            *(size(value) if value else "" for value in (step.memory, step.disk)),
            "yes" if step.fits else "no", until,
        )  # fmt: skip
    out.print(table)
    for step in found.steps:
        out.print(f"\n{step.step} {step.subject}")
        for line in step.lines:
            out.print(f"  {line.quantity}: {line.text}", soft_wrap=True)
        for note in step.notes:
            out.print(f"  {note}", soft_wrap=True)
        for problem in step.problems:
            out.print(f"  too much for one machine: {problem}", soft_wrap=True)
