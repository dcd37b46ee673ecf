"""``nextclick fit``"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from nextclick import settings
from nextclick.artifact import load
from nextclick.cli.console import Place, messages, print_for_programs, progress_bar
from nextclick.dataset import Dataset
from nextclick.errors import ConfigError, DataError
from nextclick.features import Features
from nextclick.files import check_new, directory_size
from nextclick.fitting import NeighbourEngine
from nextclick.large import ENGINES, open_engine
from nextclick.models import MODELS, build, find, takes_generators
from nextclick.places import Url
from nextclick.recommender import Run
from nextclick.rerank.composite import generators_of
from nextclick.settings import read_memory
from nextclick.tuning import read_settings


@click.command()
@click.argument("data", type=Place())
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
    "--features",
    "features_dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help='Item features, as "nextclick features" writes them, for networks, which then read them too.',
)
@click.option(
    "--full", is_flag=True, help="Fit on training and validation together, once settings are chosen."
)
@click.option("--resume", is_flag=True, help="Go on with a training of a network that was interrupted.")
@click.option("--device", default="auto", show_default=True, help="For networks: auto, cpu, cuda, cuda:1.")
@click.option(
    "--tensorboard",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="For networks: write event files for TensorBoard there.",
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
    "--candidates",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="For those: keep the generators' candidates there, for further trainings over the same.",
)
@click.option(
    "--engine",
    type=click.Choice(["memory", *ENGINES]),
    default="memory",
    show_default=True,
    help="For item-knn and vmis-knn: a database does the work, beyond memory; the model is the same.",
)
@click.option(
    "--memory",
    metavar="SIZE",
    help="What duckdb works in, such as 8GB, or a Spark started here.  [default: 60% of all; 4GiB]",
)
@click.option("--overwrite", is_flag=True, help="Replace the model if it exists.")
def fit(
    data: Path | Url,
    model: str,
    out: Path,
    assignments: tuple[str, ...],
    settings_file: Path | None,
    features_dir: Path | None,
    full: bool,
    resume: bool,
    device: str,
    tensorboard: Path | None,
    generator_dirs: tuple[Path, ...],
    candidates: Path | None,
    engine: str,
    memory: str | None,
    overwrite: bool,
) -> None:
    """Fit MODEL on the training part of DATA and save it as a directory.

    DATA is what "nextclick prepare" wrote; "nextclick models" lists the models and their settings.

    \b
    Example:
      nextclick fit data vs-knn --out models/vs-knn
      nextclick fit data item-knn --out models/i2i --set preset=i2i-cf
      nextclick fit data vs-knn --out models/tuned --settings best.toml
      nextclick fit data prnn --out models/prnn --features features

    Networks write a checkpoint after every epoch, to MODEL.training beside the model; after an interruption
    the same command with --resume goes on from there, to the same result. --full makes them train twice: the
    latest tenth of the sessions chooses the number of epochs, then all sessions are trained on for as many.

    \b
    In two stages: a re-ranker over saved models, which it keeps a copy of:
      nextclick fit data rrcre --generator models/vs-knn --generator models/narm --out models/rrcre

    \b
    A log that is larger than memory, from its shards on disk:
      nextclick fit data item-knn --engine duckdb --memory 8GB --out models/item-knn

    \b
    On several processors or GPUs:
      torchrun --nproc-per-node 2 -m nextclick fit data narm --out models/narm
    """
    given = settings.parse(find(model), assignments)
    from_file = read_settings(model, settings_file) if settings_file else {}
    if candidates is not None and not takes_generators(model):
        raise ConfigError(f"--candidates: {model} takes no generators, so it keeps no candidates")
    if engine != "memory" and not find(model).fits_by_engine:
        able = ", ".join(name for name, one in MODELS.items() if one.fits_by_engine)
        raise ConfigError(f"--engine {engine}: {model} is fitted in memory; {able} can be by an engine")
    limit = read_memory("--memory", memory) if memory is not None else None
    generators = [load(path) for path in generator_dirs]
    recommender = build(model, from_file | given, full=full, generators=generators)
    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun started: this one writes
    check_new(out, overwrite=overwrite)
    training = out.with_name(f"{out.name}.training")
    if first:
        _ready(training, resume, overwrite)
    dataset = Dataset.load(data, verify=True)
    sessions = dataset.full if full else dataset.train
    features = None if features_dir is None else Features.load(features_dir)
    if recommender.wants_features and features is None and first:
        messages.print(f"{model}: no --features given, it reads item ids alone")
    if takes_generators(model) and not generators and first:
        built = " and ".join(one.name for one in generators_of(recommender))
        messages.print(f"{model}: no --generator given, it builds on {built}, fitted along")
    start = time.perf_counter()
    with progress_bar() as bar, _engine(engine, dataset, out, limit) as opened:
        task = bar.add_task(f"fitting {model} on {len(sessions):,} sessions", total=None, visible=first)
        recommender.fit(
            sessions,
            features=features,
            progress=lambda what, done, total: bar.update(
                task, description=f"{model}, {what}", completed=done, total=total
            ),
            run=Run(training, tensorboard if first else None, device, candidates, opened),
        )
    seconds = time.perf_counter() - start
    if not first:
        return
    recommender.save(out, overwrite=overwrite)
    shutil.rmtree(training, ignore_errors=True)
    for line in _lacking(recommender.facts.get("candidates", ())):
        messages.print(line, soft_wrap=True)
    if "weights" in recommender.facts:
        parts = zip(generators_of(recommender), recommender.facts["weights"], strict=True)
        messages.print("weights: " + ", ".join(f"{one.name} {weight:g}" for one, weight in parts))
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


def _lacking(candidates: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Say of generators whose lists in training were shorter than asked for, or held what is no item."""
    for of in candidates:
        what = {
            "lists of fewer than k": of["short"],
            "unknown items, left out": of["unknown"],
            "items named twice, left out once": of["again"],
        }
        if any(what.values()):
            told = ", ".join(f"{n:,} {name}" for name, n in what.items() if n)
            yield f"candidates of {of['model']}: {told}"


@contextmanager
def _engine(name: str, dataset: Dataset, out: Path, memory: int | None) -> Iterator[NeighbourEngine | None]:
    """Open the engine asked for, with its temporary files beside the model; None where it is memory."""
    if name == "memory":
        yield None
        return
    with open_engine(name, dataset, beside=out, memory=memory) as opened:
        yield opened


def _ready(training: Path, resume: bool, overwrite: bool) -> None:
    """Leave no checkpoints of an earlier training unless this one is to go on from them."""
    there = sorted(training.rglob("*.safetensors"))
    if there and not resume and not overwrite:
        raise DataError(
            f"{training} holds the checkpoints of a training that was interrupted: add --resume to go on "
            "from them, or --overwrite to begin anew"
        )
    if resume and not there:
        raise DataError(f"{training}: no checkpoint there, so nothing to resume; leave --resume out")
    if there and not resume:
        shutil.rmtree(training)
