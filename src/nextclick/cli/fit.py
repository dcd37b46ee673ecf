"""``nextclick fit``"""

from __future__ import annotations

import time
from pathlib import Path

import click

from nextclick import settings
from nextclick.cli.console import messages, print_for_programs, progress_bar
from nextclick.dataset import Dataset
from nextclick.files import directory_size
from nextclick.models import build, find
from nextclick.tuning import read_settings


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("model")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Directory of the saved model.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change a setting; repeat for more. preset=NAME takes published ones.",
)
@click.option(
    "--settings",
    "settings_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help='Settings from a file, as "nextclick tune" writes it; --set wins over it.',
)
@click.option(
    "--full", is_flag=True, help="Fit on training and validation together, once settings are chosen."
)
@click.option("--overwrite", is_flag=True, help="Replace the model if it exists.")
def fit(
    data: Path,
    model: str,
    out: Path,
    assignments: tuple[str, ...],
    settings_file: Path | None,
    full: bool,
    overwrite: bool,
) -> None:
    """Fit MODEL on the training part of DATA and save it as a directory.

    DATA is what "nextclick prepare" wrote; "nextclick models" lists the models and their settings.

    \b
    Example:
      nextclick fit data vs-knn --out models/vs-knn
      nextclick fit data item-knn --out models/i2i --set preset=i2i-cf
      nextclick fit data vs-knn --out models/tuned --settings best.toml
    """
    given = settings.parse(find(model), assignments)
    recommender = build(model, (read_settings(model, settings_file) if settings_file else {}) | given)
    dataset = Dataset.load(data, verify=True)
    sessions = dataset.full if full else dataset.train
    start = time.perf_counter()
    with progress_bar() as bar:
        task = bar.add_task(f"fitting {model} on {len(sessions):,} sessions", total=None)
        recommender.fit(
            sessions,
            progress=lambda what, done, total: bar.update(
                task, description=f"{model}, {what}", completed=done, total=total
            ),
        )
    seconds = time.perf_counter() - start
    recommender.save(out, overwrite=overwrite)
    messages.print(
        f"fitted {model} on {len(sessions):,} sessions in {seconds:.1f} s\n"
        f"next: nextclick evaluate {data} {out}    or: nextclick recommend {out} ITEM ...",
        soft_wrap=True,
    )
    print_for_programs(
        {
            "model": model,
            "path": str(out),
            "settings": settings.values_of(recommender),
            "seconds": round(seconds, 3),
            "bytes": directory_size(out),
            **recommender.facts,
        }
    )
