"""``nextclick recommend``"""

from __future__ import annotations

from pathlib import Path

import click

from nextclick import artifact, batch
from nextclick.cli.console import Place, messages, print_json, print_ranked, progress_bar, wants_json
from nextclick.cli.rules import bound_filter, check_rule_options, rule_options
from nextclick.features import Features
from nextclick.places import Url


@click.command()
@click.argument("model_dir", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("items", nargs=-1, metavar="ITEM...")
@click.option(
    "-k", default=20, show_default=True, type=click.IntRange(min=1), help="How many items to recommend."
)
@click.option("--exclude-seen", is_flag=True, help="Leave out the items of the session itself.")
@click.option(
    "--features",
    "features_dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Features of items that are new since the model was fitted: they are known too.",
)
@rule_options
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    help="How to print.  [default: table on a terminal, json in a pipe]",
)
@click.option(
    "--sessions",
    type=Place(),
    help="Answer the sessions of a file instead: .jsonl, or a click log; or those of a URL.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where to write the answers to --sessions: .jsonl or .csv; a folder with --engine spark.",
)
@click.option(
    "--engine",
    default="here",
    show_default=True,
    type=click.Choice(["here", "spark"]),
    help="What answers the file of --sessions: this process, or Apache Spark; the lists are the same.",
)
@click.option(
    "--partitions",
    type=click.IntRange(min=1),
    help="Files that --engine spark writes, each resumed or complete.  [default: 64]",
)
@click.option("--session", metavar="COLUMN", help="Session column of a click log, if not recognised.")
@click.option("--item", metavar="COLUMN", help="Item column of a click log, if not recognised.")
@click.option("--time", metavar="COLUMN", help="Time column of a click log, if not recognised.")
def recommend(
    model_dir: Path,
    items: tuple[str, ...],
    k: int,
    exclude_seen: bool,
    features_dir: Path | None,
    rules_file: Path | None,
    items_file: Path | None,
    items_id: str | None,
    form: str | None,
    sessions: Path | Url | None,
    out: Path | None,
    engine: str,
    partitions: int | None,
    session: str | None,
    item: str | None,
    time: str | None,
) -> None:
    """Recommend the next items for a session of ITEMs (own ids, oldest first), or for a file of sessions.

    Items that the model does not know are skipped and said; without any known item it answers as to an
    empty session and marks the answer "fallback". Where rules leave fewer items than asked for, it says why.
    On Spark the lists are Parquet files, one for each partition of the sessions; the same command again
    answers those that are missing.

    \b
    Example:
      nextclick recommend models/vs-knn P0012 P0840 -k 10
      nextclick recommend models/vs-knn P0012 --rules rules.toml --items items.parquet
      nextclick recommend models/prnn P0012 --features features
      nextclick recommend models/vs-knn --sessions today.jsonl --out lists.jsonl
      nextclick recommend models/vs-knn --sessions clicks/ --out lists --engine spark --partitions 256
    """
    if (sessions is None) == (not items):
        raise click.UsageError("give the ITEMs of one session, or a file of sessions with --sessions")
    if (sessions is None) != (out is None):
        raise click.UsageError("--sessions FILE and --out FILE go together")
    columns = {"session": session, "item": item, "time": time}
    if sessions is None and any(columns.values()):
        raise click.UsageError("--session, --item and --time name columns of the file of --sessions")
    if sessions is not None and form is not None:
        raise click.UsageError("--format is for one session; the ending of --out says how a file is written")
    if engine == "spark":
        if sessions is None or out is None:
            raise click.UsageError("--engine spark answers a file or folder of --sessions")
        _on_spark(
            model_dir, sessions, out, k, exclude_seen, features_dir, (rules_file, items_file, items_id),
            columns, 64 if partitions is None else partitions,
        )  # fmt: skip
        return
    if partitions is not None:
        raise click.UsageError("--partitions goes with --engine spark")
    model = artifact.load(model_dir)
    if features_dir is not None:
        model = model.with_items(Features.load(features_dir))
    filter = bound_filter(rules_file, items_file, items_id, model.vocabulary)
    if sessions is not None and out is not None:
        with messages.status("recommending") as status:
            counts = batch.recommend_file(
                model, sessions, out, k=k, exclude_seen=exclude_seen, filter=filter, columns=columns,
                progress=lambda done: status.update(f"recommending: {done:,} sessions answered"),
            )  # fmt: skip
        messages.print(f"answered {counts.sessions:,} sessions: {out}", soft_wrap=True)
        print_json(vars(counts))
        return
    answer = model.recommend(items, k, exclude_seen=exclude_seen, filter=filter)
    if answer.unknown:
        messages.print(
            f"unknown items skipped: {', '.join(map(str, answer.unknown))}", markup=False, soft_wrap=True
        )
    if answer.fallback:
        messages.print("no item of the session is known: this is the answer to an empty session")
    if answer.reason is not None:
        messages.print(answer.reason, markup=False, soft_wrap=True)
    if wants_json(form):
        print_json(answer.to_json())
    else:
        print_ranked("score", ((item, f"{score:.4g}") for item, score in answer))


def _on_spark(
    model_dir: Path, sessions: Path | Url, out: Path, k: int, exclude_seen: bool, features_dir: Path | None,
    rules: tuple[Path | None, Path | None, str | None], columns: dict[str, str | None], partitions: int,
) -> None:  # fmt: skip
    from nextclick.batch_spark import Job, opened, recommend_on_spark

    check_rule_options(*rules)

    def whole(path: Path | None) -> str | None:
        return None if path is None else str(path.absolute())

    rules_file, items_file, items_id = rules
    job = Job(
        str(model_dir.absolute()), str(out.absolute()), k, exclude_seen, whole(features_dir),
        whole(rules_file), whole(items_file), items_id,
    )  # fmt: skip
    filter = opened(job)[1]
    for note in filter.notes if filter is not None else ():
        messages.print(note, markup=False, soft_wrap=True)
    with progress_bar() as bar:
        task = bar.add_task("recommending, partitions complete", total=partitions)
        counts = recommend_on_spark(
            job, sessions, columns=columns, partitions=partitions,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    messages.print(f"answered {counts.sessions:,} sessions: {out}", soft_wrap=True)
    print_json(vars(counts))
