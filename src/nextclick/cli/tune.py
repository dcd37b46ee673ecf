"""``nextclick tune``"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click
from rich.table import Table

from nextclick import settings
from nextclick.artifact import load
from nextclick.cli.console import Place, messages, print_for_programs, progress_bar
from nextclick.dataset import Dataset
from nextclick.features import Features
from nextclick.models import build, find
from nextclick.places import Url
from nextclick.tuning import Trial, Tuned, searched
from nextclick.tuning import tune as search

SHOWN = 5  # trials in the table at the end


@click.command()
@click.argument("data", type=Place())
@click.argument("model")
@click.option("--trials", default=30, show_default=True, type=click.IntRange(min=1), help="How many in all.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Hold a setting fixed; repeat for more. preset=NAME starts from published ones.",
)
@click.option(
    "--metric",
    type=click.Choice(["recall@20", "mrr@20"]),
    default="recall@20",
    show_default=True,
    help="What is to be best.",
)
@click.option(
    "--out",
    default="best.toml",
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File for the best settings; the search itself is kept beside it, in a folder that ends in .tune.",
)
@click.option(
    "--generator",
    "generator_dirs",
    metavar="DIR",
    multiple=True,
    type=click.Path(path_type=Path),
    help="For models made of others (rrcre, blend): a saved model to build on; repeat for more.",
)
@click.option(
    "--features",
    "features_dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help='Item features, as "nextclick features" writes them, for networks, which then read them too.',
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Of the search.")
def tune(
    data: Path | Url,
    model: str,
    trials: int,
    assignments: tuple[str, ...],
    metric: Literal["recall@20", "mrr@20"],
    out: Path,
    generator_dirs: tuple[Path, ...],
    features_dir: Path | None,
    seed: int,
) -> None:
    """Search for the settings of MODEL that are best on the validation sessions of DATA.

    The first trial are the defaults. The best settings so far are kept in a TOML file, for "nextclick fit
    --settings". Typed again, the command goes on where it was stopped. The test part is not looked at.

    \b
    Example:
      nextclick tune data vs-knn --trials 50 --out vs-knn.toml
      nextclick tune data vs-knn --metric mrr@20 --set remind=earlier --out mrr.toml
      nextclick tune data prnn --features features --out prnn.toml
      nextclick tune data blend --generator models/vs-knn --generator models/narm --out blend.toml
    """
    fixed = settings.parse(find(model), assignments)
    generators = [load(path) for path in generator_dirs]
    features = None if features_dir is None else Features.load(features_dir)
    dataset = Dataset.load(data, verify=True)
    if not len(dataset.validation):
        messages.print(
            f"{data} has no validation part: the latest tenth of its training sessions is held out",
            soft_wrap=True,
        )
    messages.print(
        f"searched: {', '.join(searched(build(model, fixed, generators=generators), fixed))}", soft_wrap=True
    )
    with progress_bar() as bar:
        task = bar.add_task(model, total=trials)
        found = search(
            dataset, model, trials=trials, settings=fixed, metric=metric, seed=seed, out=out,
            generators=generators, features=features,
            progress=lambda what, done: bar.update(
                task, description=_going_on(model, metric, what, done), completed=len(done)
            ),
        )  # fmt: skip
    messages.print(_table(found))
    failed = [trial for trial in found.trials if trial.error]
    if failed:
        messages.print(
            f"{len(failed)} of {len(found.trials)} trials failed; the last one: {failed[-1].error}",
            markup=False,
            soft_wrap=True,
        )
    over = "".join(f" --generator {path}" for path in generator_dirs)
    over += f" --features {features_dir}" if features_dir is not None else ""
    messages.print(
        f"settings: {out}\nnext: nextclick fit {data} {model}{over} --settings {out} --out models/{model}",
        soft_wrap=True,
    )
    print_for_programs(
        {
            "model": model,
            "metric": metric,
            "settings": dict(found.settings),
            "path": str(out),
            "measured_on": found.measured_on,
            "best": vars(found.best),
            "trials": [vars(trial) for trial in found.trials],
        }
    )


def _going_on(model: str, metric: str, what: str, done: Sequence[Trial]) -> str:
    reached = [trial.metrics[metric] for trial in done if not trial.error]
    best = f"best {metric} {max(reached):.4f}" if reached else "the defaults first"
    return f"{model}, {best}{f'; {what}' if what else ''}"


def _table(found: Tuned) -> Table:
    """Return the best trials, and the first one for comparison."""
    table = Table(title=f"measured on {found.measured_on}", title_justify="left", box=None, pad_edge=False)
    for title in ("trial", "recall@20", "MRR@20", "seconds"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("settings")
    ranked = found.ranked()
    shown = ranked[:SHOWN] + [trial for trial in ranked[SHOWN:] if trial.number == 1]
    for trial in shown:
        values = " ".join(f"{name}={settings.as_text(value)}" for name, value in trial.settings.items())
        figures = (trial.metrics["recall@20"], trial.metrics["mrr@20"])
        table.add_row(
            f"{trial.number}{' (first)' * (trial.number == 1)}",
            *(f"{figure:.4f}" for figure in figures),
            f"{trial.seconds:.1f}",
            values,
        )
    return table
