"""``nextclick experiment``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nextclick.cli.console import messages, print_json, progress_bar
from nextclick.errors import ConfigError
from nextclick.files import check_ending, new_file

if TYPE_CHECKING:
    from nextclick.online.report import Findings
    from nextclick.online.trial import Trial
    from nextclick.online.visitors import Answers

_PATH = click.Path(path_type=Path)


@click.group()
def experiment() -> None:
    """Report on an online experiment, or simulate one.

    \b
    Example:
      nextclick experiment report similar.toml records
    """


@experiment.command()
@click.argument("file", type=_PATH)
@click.argument("records", type=_PATH)
@click.option(
    "--effect", default=0.03, show_default=True, type=click.FloatRange(-0.99, 10),
    help="Relative uplift that power and days needed are worked out for.",
)  # fmt: skip
@click.option("--csv", "csv_file", type=_PATH, help="Write all rows as CSV.")
@click.option("--html", "html_file", type=_PATH, help="Write a report as one HTML file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def report(
    file: Path, records: Path, effect: float, csv_file: Path | None, html_file: Path | None, as_json: bool
) -> None:
    """Say what an experiment shows: click-through rates, uplift over the first variant, and how sure that is.

    FILE is the experiment's TOML, RECORDS the folder that "nextclick serve --experiment FILE" writes.
    Sessions are the unit, so clicks of one visitor do not count as independent.

    \b
    Example:
      nextclick experiment report similar.toml models/vs-knn.state/records --html similar.html
    """
    from nextclick.online import report as reports
    from nextclick.online.records import read_records
    from nextclick.online.trial import Trial

    if html_file is not None:
        check_ending(html_file, ".html")
    trial = Trial.read(file)
    if effect == 0:
        raise ConfigError("effect: no data tell an uplift of 0 from none; give one that is worth finding")
    seen = read_records(records, trial.name, [variant.name for variant in trial.variants])
    findings = reports.report(trial, seen, effect=effect)
    if csv_file is not None:
        with new_file(csv_file) as aside:
            aside.write_text(findings.to_csv(), "utf-8")
    if html_file is not None:
        from nextclick.online.page import to_html

        with new_file(html_file) as aside:
            aside.write_text(to_html(findings), "utf-8")
    if as_json:
        print_json(findings.to_json())
    else:
        _print(findings)


@experiment.command()
@click.argument("file", type=_PATH)
@click.argument("models", nargs=-1, required=True, metavar="MODEL_DIR...")
@click.option("--out", required=True, type=_PATH, help="Folder for the records.")
@click.option(
    "--log", type=_PATH, metavar="DATA",
    help="Replay the test sessions of prepared data instead: what they clicked next counts if it is shown.",
)  # fmt: skip
@click.option("--items", type=_PATH, help="The table of items with the attributes that variants' rules name.")
@click.option("--sessions", default=20_000, show_default=True, type=click.IntRange(1), help="Visitors.")
@click.option("--days", default=14, show_default=True, type=click.IntRange(1, 366), help="Days they come on.")
@click.option("-k", default=20, show_default=True, type=click.IntRange(1, 100), help="Items in a list.")
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0), help="Of the visitors.")
@click.option("--shop-seed", default=1, show_default=True, type=click.IntRange(0), help="Of the demo shop.")
@click.option(
    "--products", default=2000, show_default=True, type=click.IntRange(256, 9999), help="Of the demo shop."
)
@click.option("--same", is_flag=True, help="Answer every variant with the first one's model: an A/A test.")
@click.pass_context
def simulate(
    context: click.Context, file: Path, models: tuple[str, ...], out: Path, log: Path | None,
    items: Path | None, sessions: int, days: int, k: int, seed: int, shop_seed: int, products: int,
    same: bool,
) -> None:  # fmt: skip
    """Let simulated visitors of the demo shop go through the experiment of FILE, and record what they do.

    They are shown the lists of their variant's model (fitted on the demo shop's log, its directories given as
    MODEL_DIR or NAME=MODEL_DIR) and click the more often, the better these suit them. With --log the test
    sessions of a prepared log go through it instead, in their own time, and a list counts as clicked if it
    holds what was clicked next. They never saw the lists: that counts hits, not clicks of visitors.

    \b
    Example:
      nextclick experiment simulate similar.toml models/markov models/vs-knn --out records
      nextclick experiment simulate similar.toml models/markov models/vs-knn --out replayed --log data
      nextclick experiment report similar.toml records
    """
    from nextclick import artifact
    from nextclick.cli.serve import named_models
    from nextclick.filters import ItemTable
    from nextclick.online.trial import Trial
    from nextclick.online.visitors import answers_of

    trial = Trial.read(file)
    chosen = [
        name for name in ("sessions", "days", "seed", "shop_seed", "products")
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    ]  # fmt: skip
    if log is not None and chosen:
        raise click.UsageError(
            f"--{chosen[0].replace('_', '-')} is of simulated visitors; --log replays real ones"
        )
    if out.exists() and any(out.iterdir()):
        raise ConfigError(f"{out} holds something already: name a new folder, or the records would be mixed")
    opened = {name: artifact.load(path) for name, path in named_models(models)}
    for variant in trial.variants:
        if variant.model not in opened and not same:
            raise ConfigError(f"variant {variant.name}: no model {variant.model!r} among {', '.join(opened)}")
    first = next((opened[v.model] for v in trial.variants if v.model in opened), next(iter(opened.values())))
    answering = {v.model: first if same else opened[v.model] for v in trial.variants}
    answers = answers_of(answering, k, None if items is None else ItemTable.read(items))
    if log is None:
        shown = _visited(trial, answers, out, sessions, days, k, seed, shop_seed, products)
    else:
        shown = _replayed(trial, answers, out, log)
    messages.print(
        f"{'the sessions of the log' if log else f'{sessions:,} visitors'} were shown {shown:,} lists\n"
        f"next: nextclick experiment report {file} {out}",
        soft_wrap=True, markup=False,
    )  # fmt: skip


def _visited(
    trial: Trial, answers: Answers, out: Path, sessions: int, days: int, k: int, seed: int, shop_seed: int,
    products: int,
) -> int:  # fmt: skip
    from nextclick.online.visitors import Visits, simulate
    from nextclick.shop.config import ShopConfig

    with progress_bar() as bar:
        task = bar.add_task("visitors", total=sessions)
        return simulate(
            trial, answers, out, ShopConfig(seed=shop_seed, products=products),
            Visits(sessions, days, k, seed), progress=lambda done, total: bar.update(task, completed=done),
        )  # fmt: skip


def _replayed(trial: Trial, answers: Answers, out: Path, log: Path) -> int:
    from nextclick.dataset import Dataset
    from nextclick.online.records import Recorder
    from nextclick.online.replay import replay

    data = Dataset.load(log)
    recorder = Recorder(out)
    try:
        with progress_bar() as bar:
            task = bar.add_task("lists", total=None)
            return replay(
                trial, answers, recorder, data.test,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )  # fmt: skip
    finally:
        recorder.close()


def _print(findings: Findings) -> None:
    from nextclick.online.report import said_days, said_p

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=Text(f"Experiment {findings.trial}"))
    for name in ("part", "variant"):
        table.add_column(name)
    for name in ("sessions", "lists", "CTR", "uplift", "95% interval", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    by = "all"
    for row in findings.rows:
        if row.by != by:
            table.add_section()
            table.add_row(Text(f"by {row.by}", style="bold"))
            by = row.by
        up = row.uplift
        figures = ["", "", ""]
        if up is not None:
            figures = [f"{up.relative:+.2%}", f"{up.low:+.1%} to {up.high:+.1%}", said_p(up.p)]
        cells = (f"{row.arm.sessions:,}", f"{row.arm.lists:,}", f"{row.arm.rate:.4f}", *figures)
        table.add_row(Text(row.value or "all"), Text(row.variant), *cells)
    Console(highlight=False).print(table, markup=False)
    messages.print(f"sessions shared out as they should be: p = {findings.mismatch:.3f}")
    for name, power in findings.power.items():
        messages.print(
            f"{name}: an uplift of {findings.effect:.2%} would be found with a chance of {power:.0%}; days "
            f"still needed for 80%: {said_days(findings.days_more[name])}",
            soft_wrap=True, markup=False,
        )  # fmt: skip
    for note in findings.notes:
        messages.print(note, soft_wrap=True, markup=False)
