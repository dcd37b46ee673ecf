"""``nextclick evaluate``"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click
from rich.console import Console

from nextclick import artifact
from nextclick.cli.console import Place, messages, print_json, progress_bar
from nextclick.cli.rules import bound_filter, rule_options
from nextclick.dataset import Dataset
from nextclick.errors import ConfigError
from nextclick.features import Features
from nextclick.files import check_ending, write_json
from nextclick.places import Url
from nextclick.results import Report


def _lengths(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        lengths = tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r}: write list lengths like 1,5,20") from None
    if min(lengths) < 1:
        raise click.BadParameter(f"{value!r}: list lengths start at 1")
    return lengths


def _candidates(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    if value == "all":
        return None
    kind, _, number = value.partition(":")
    if kind != "top" or not number.isdigit() or int(number) < 1:
        raise click.BadParameter(f"{value!r}: write all, or top:50000 for the 50,000 most clicked items")
    return int(number)


@click.command()
@click.argument("data", type=Place())
@click.argument("model_dirs", nargs=-1, required=True, metavar="DIR...", type=click.Path(path_type=Path))
@click.option(
    "--k",
    "ks",
    callback=_lengths,
    metavar="K,K,...",
    default="1,5,10,20",
    show_default=True,
    help="List lengths.",
)
@click.option(
    "--protocol",
    type=click.Choice(["next", "remaining"]),
    default="next",
    show_default=True,
    help="Measure the next click only, or also all items still to come.",
)
@click.option(
    "--unseen",
    type=click.Choice(["miss", "drop", "features"]),
    default="miss",
    show_default=True,
    help="Clicks on items unknown to every model: count as misses, leave out, or rank by --features.",
)
@click.option(
    "--features",
    "features_dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Features of new items, for --unseen features.",
)
@click.option(
    "--candidates",
    callback=_candidates,
    metavar="all|top:N",
    default="all",
    show_default=True,
    help="Rank against all items, or the N most clicked (overestimates).",
)
@click.option(
    "--ties",
    type=click.Choice(["expected", "optimistic", "pessimistic"]),
    default="expected",
    show_default=True,
    help="How equal scores count.",
)
@click.option(
    "--part",
    type=click.Choice(["test", "validation"]),
    default="test",
    show_default=True,
    help="Which sessions to measure on; choose settings on validation.",
)
@rule_options
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the bootstrap.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, allow_dash=True, dir_okay=False),
    help="Write the figures as JSON (- for stdout).",
)
@click.option(
    "--html",
    "html_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the report as one HTML page.",
)
def evaluate(
    data: Path | Url,
    model_dirs: tuple[Path, ...],
    ks: tuple[int, ...],
    protocol: Literal["next", "remaining"],
    unseen: Literal["miss", "drop", "features"],
    features_dir: Path | None,
    candidates: int | None,
    ties: Literal["expected", "optimistic", "pessimistic"],
    part: str,
    rules_file: Path | None,
    items_file: Path | None,
    items_id: str | None,
    seed: int,
    json_file: Path | None,
    html_file: Path | None,
) -> None:
    """Measure the models in DIR... on the test sessions of DATA, against each other.

    Every click of every test session but the first is to be predicted from the clicks before it, ranking
    all items; of DATA prepared with a target event, each click of that event from the last clicks before
    it. Intervals and p-values come from resampling whole sessions.

    \b
    Example:
      nextclick evaluate data models/* --html report.html
      nextclick evaluate data models/vs-knn --k 20 --json -
      nextclick evaluate data models/* --rules rules.toml --items items.parquet
      nextclick evaluate data models/* --unseen features --features features
    """
    from nextclick import evaluation

    if html_file is not None:
        from nextclick.report import require_charts

        require_charts()  # before the work, not after it
        check_ending(html_file, ".html")
    if (unseen == "features") != (features_dir is not None):
        raise click.UsageError("--unseen features and --features DIR go together")
    features = None if features_dir is None else Features.load(features_dir)
    dataset = Dataset.load(data, verify=True)
    if part == "validation" and not len(dataset.validation):
        raise ConfigError(f"{data} has no validation part: prepare it again with --validation 0.1")
    names = _names(_without_leftovers(model_dirs))
    models, notes = {}, []
    for name, path in names.items():
        origin = artifact.read_manifest(path)["facts"].get("data", {})
        if origin.get("fingerprint") != dataset.fingerprint:
            notes.append(
                f"{name} was fitted on other data than {dataset.name}; make sure that the test sessions were "
                "not among them."
            )
        elif part == "validation" and origin.get("part") == "full":
            raise ConfigError(
                f"{path} was fitted with --full and has seen the validation sessions: fit it without"
            )
        models[name] = artifact.load(path)
    filter = bound_filter(rules_file, items_file, items_id, next(iter(models.values())).vocabulary)
    with progress_bar() as bar:
        tasks = {name: bar.add_task(name, total=None) for name in models}
        report = evaluation.evaluate(
            models, dataset.test if part == "test" else dataset.validation,
            dataset=dataset.name, paths={name: str(path) for name, path in names.items()},
            k=ks, protocol=protocol, unseen=unseen, features=features, candidates=candidates, ties=ties,
            filter=filter,
            seed=seed,
            progress=lambda name, done, total: bar.update(tasks[name], completed=done, total=total),
        )  # fmt: skip
    report = dataclasses.replace(report, notes=(*report.notes, *notes))
    if part == "test":
        _record(report, names)
    # Shown before it is written: a disk that is full must not cost the figures.
    if str(json_file) == "-":
        print_json(report.to_json())
    else:
        from nextclick.report import print_report

        print_report(report, Console(highlight=False))
    if json_file is not None and str(json_file) != "-":
        write_json(json_file, report.to_json())
    if html_file is not None:
        from nextclick.report import write_html

        write_html(report, html_file, dataset)
        messages.print(f"report: {html_file}", soft_wrap=True)


def _without_leftovers(paths: Sequence[Path]) -> Sequence[Path]:
    """Leave out what services and trainings keep beside models, as ``models/*`` names it too."""
    left = [
        path for path in paths
        if path.suffix in (".state", ".training") and not (path / "manifest.json").exists()
    ]  # fmt: skip
    if not left or len(left) == len(paths):
        return paths
    told = ", ".join(map(str, left))
    messages.print(f"left out, as no models but what a service or a training keeps: {told}", soft_wrap=True)
    return [path for path in paths if path not in left]


def _names(paths: Sequence[Path]) -> dict[str, Path]:
    """Name each model by its directory, with as many parents as tell them apart."""
    for depth in range(1, max(len(path.resolve().parts) for path in paths) + 1):
        names = ["/".join(path.resolve().parts[-depth:]) for path in paths]
        if len(set(names)) == len(paths):
            return dict(zip(names, paths, strict=True))
    raise ConfigError("the same model directory is given twice")


def _record(report: Report, names: dict[str, Path]) -> None:
    """Keep the figures beside each model; a model that cannot be written to stays as it is."""
    for result in report.models:
        figures = {"dataset": report.dataset, "pairs": report.pairs, "protocol": report.protocol,
                   "unseen": report.unseen, "candidates": report.candidates, "rules": list(report.rules),
                   **result.metrics}  # fmt: skip
        try:
            artifact.record(names[result.name], metrics=figures)
        except Exception as error:
            messages.print(
                f"{result.name}: its figures could not be kept beside it ({error})", soft_wrap=True
            )
