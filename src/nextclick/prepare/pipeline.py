"""The preparation from end to end: read, clean, filter, split, code, write."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nextclick import __version__
from nextclick.dataset import FORMAT, FORMAT_VERSION, Dataset
from nextclick.errors import ConfigError
from nextclick.files import write_json
from nextclick.places import Url, new_place, place
from nextclick.prepare.cleaning import Progress, Record, Run
from nextclick.prepare.engines import DuckDB, Engine
from nextclick.prepare.finding import find_source
from nextclick.prepare.layouts import ROLES
from nextclick.prepare.options import PrepareOptions
from nextclick.prepare.sources import Source, size_of
from nextclick.prepare.splitting import pieces
from nextclick.prepare.writing import SHARD_CLICKS, Delivered, write_dataset

Paths = str | Path | Sequence[str | Path]
_TIES = 0.05


def prepare(
    source: Paths | None = None,
    *,
    out: str | Path | Url,
    train: Paths | None = None,
    test: Paths | None = None,
    session: str | None = None,
    item: str | None = None,
    time: str | None = None,
    event: str | None = None,
    user: str | None = None,
    order: str | None = None,
    gap: str = "30m",
    time_unit: str = "auto",
    events: Sequence[str] | None = None,
    min_length: int = 2,
    max_length: int | None = None,
    min_support: int | None = None,
    collapse_repeats: bool = False,
    recent: str | None = None,
    holdout: str | None = None,
    validation: str | None = None,
    slices: int | None = None,
    unseen: str = "keep",
    max_bad: float | str = 0.01,
    engine: str = "duckdb",
    target_event: str | None = None,
    target_clicks: int | None = None,
    memory: int | None = None,
    shard_clicks: int = SHARD_CLICKS,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Dataset:
    """Turn a raw click log into a prepared data set on disk, and open it.

    source: files, folders or patterns of CSV, TSV or Parquet, gzip too, or URLs of them, which DuckDB reads
    through fsspec and Spark by itself; or ``train`` and ``test`` for logs that are split already.  out: the
    new folder, or the URL of one, written through fsspec.  progress: called with the name of each step as
    it begins.  memory: bytes that DuckDB works in before it uses temporary files, 60% of the machine's if not
    given; or of a Spark that is started here, 4 GiB if not given.  shard_clicks: clicks in one Parquet file
    of the result, about.  session, item, time, event, user, order: columns, where they are not recognised.
    The other arguments are the fields of ``PrepareOptions``, explained and checked there.

    The steps: read; drop unusable rows, then exact duplicates; cut sessions at pauses where only users
    are known; keep the events asked for and one of repeated clicks; drop sessions that are too short or
    too long, then rare items, then sessions that became too short; split; unseen; recent. Sessions are
    ordered by (time of last click, id), clicks inside by (time, order, item id, event), so the result is
    the same on every engine and every run. With ``slices`` the first of the data sets is returned, the
    others are ``out/slice-2`` and so on.

    Raises DataError for logs that cannot be used, ConfigError for options, MissingExtraError for Spark.
    Sources: the usual filters and the recent part, Li et al., CIKM 2017, sec. 4.1; slices, Twardowski
    et al., "Metric learning for session-based recommendations", 2021, sec. 5; the target event, Sánchez
    Rodríguez et al., 2019 (RRCRE), sec. 5.3.
    """
    ready = train is not None or test is not None
    if ready and (train is None or test is None):
        raise ConfigError("--train and --test belong together: give both, or one log without them")
    if ready == (source is not None):
        raise ConfigError("give one log as SOURCE, or a ready split with --train and --test")
    chosen = PrepareOptions(
        session=session,
        item=item,
        time=time,
        event=event,
        user=user,
        order=order,
        gap=gap,
        time_unit=time_unit,
        events=None if events is None else tuple(events),
        min_length=min_length,
        max_length=max_length,
        min_support=min_support,
        collapse_repeats=collapse_repeats,
        recent=recent,
        holdout=holdout,
        validation=validation,
        slices=slices,
        unseen=unseen,
        max_bad=max_bad,
        engine=engine,
        target_event=target_event,
        target_clicks=target_clicks,
        ready=ready,
    )
    if shard_clicks < 1:
        raise ConfigError(f"shard_clicks={shard_clicks}: expected at least 1 click in a file")
    target = place(out)
    with new_place(target, overwrite=overwrite) as aside:
        given = {role: getattr(chosen, role) for role in ROLES}
        logs = [(source, 0)] if source is not None else [(train, 0), (test, 1)]
        named = [(paths, part) for paths, part in logs if paths is not None]
        work = aside / ".work"
        work.mkdir()
        opened, sources = _opened(chosen, work, named, given, memory)
        with opened:
            run = Run(opened, sources, chosen, progress or (lambda _: None))
            run.read()
            run.cut_sessions()
            run.choose_clicks()
            run.filter()
            for folder, record, made in pieces(run):
                finished = opened.deliver([made.sessions, made.items, made.clicks])
                info = write_dataset(finished, made, aside / folder, shard_clicks)
                name = f"{target.name}/{folder}" if folder else target.name
                write_json(aside / folder / "prepare.json", _described(run, name, record, made, info))
        shutil.rmtree(work)
    return Dataset.load(target / "slice-1" if chosen.slices else target)


def _opened(
    options: PrepareOptions, work: Path, logs: Sequence[tuple[Paths, int]],
    given: Mapping[str, str | None], memory: int | None,
) -> tuple[Engine, list[Source]]:  # fmt: skip
    """Return the engine, to be closed by the caller, and what it reads; Spark finds URLs by itself."""
    if options.engine == "spark" and any(_is_elsewhere(paths) for paths, _ in logs):
        from nextclick.prepare.spark import Spark

        spark = Spark(work, memory)
        try:
            return spark, [find_source(paths, given, part, spark) for paths, part in logs]
        except BaseException:
            spark.__exit__()
            raise
    sources = [find_source(paths, given, part) for paths, part in logs]
    if options.engine == "spark":
        from nextclick.prepare.spark import Spark

        return Spark(work, memory), sources
    return DuckDB(work, [file for source in sources for file in source.files], memory), sources


def _is_elsewhere(paths: Paths) -> bool:
    return any(isinstance(place(path), Url) for path in ([paths] if isinstance(paths, str | Path) else paths))


def _described(run: Run, name: str, record: Record, made: Delivered, info: dict[str, Any]) -> dict[str, Any]:
    """Return the content of ``prepare.json``; without time of day, so that equal runs give equal files."""
    splits = info["splits"]
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "package_version": __version__,
        "name": name,
        "sources": [
            {"file": file.as_posix(), "bytes": size_of(file), "part": part}
            for source, part in zip(
                run.sources, ("train", "test") if run.options.ready else ("log",), strict=True
            )
            for file in source.files
        ],
        "layout": run.sources[0].columns.layout,
        "columns": run.sources[0].columns.of_role(),
        "time_unit": run.unit,
        "clock": run.clock,
        "options": run.options.to_json(),
        "steps": record.steps,
        "bad_rows": run.bad,
        "warnings": _warnings(run, info.pop("tied"), splits),
        **info,
    }


def _warnings(run: Run, tied: float, splits: dict[str, Any]) -> list[str]:
    """Return what is suspicious about the data, in whole sentences."""
    found = []
    if tied > _TIES and run.sources[0].columns.order is None:
        found.append(
            f"{tied:.1%} of the clicks share session and time with another one and there is no order "
            "column, so the order of these clicks is not known (they stand in the order of their item "
            "ids): results of models that use the order mean nothing. Name the column that "
            "orders them with --order"
        )
    latest, first = splits["train"]["last_time"], splits["test"]["first_time"]
    if run.options.ready and first < latest:
        found.append(
            f"the test part starts ({first}) before the training part ends ({latest}): models may be "
            "fitted on clicks that are later than those they are tested on"
        )
    return found
