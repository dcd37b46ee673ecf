"""``nextclick serve``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from nextclick.cli.console import messages
from nextclick.errors import ConfigError

if TYPE_CHECKING:
    from nextclick.serving.opening import Runtime

_PATH = click.Path(path_type=Path)
_HERE = ("127.0.0.1", "::1", "localhost")


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL_DIR...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on."
)
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Processes that share the port.",
)
@click.option(
    "--store",
    help="Where sessions are kept: sqlite:FILE, redis://HOST:PORT/DB, or memory (one worker only).  "
    "[default: sqlite, in MODEL_DIR.state beside the first model]",
)
@click.option(
    "--runtime",
    type=click.Choice(["auto", "onnx", "model"]),
    default="auto",
    show_default=True,
    help="Answer networks by their ONNX export, as they were fitted, or by the export where there is one.",
)
@click.option("--rules", type=_PATH, help="Recommend only items that meet the rules of a file, TOML or JSON.")
@click.option("--items", type=_PATH, help="The table of items with the attributes that rules name.")
@click.option(
    "--items-id", metavar="COLUMN", help="Item id column of the file of --items, if not recognised."
)
@click.option(
    "--longest", default=50, show_default=True, type=click.IntRange(1, 1000),
    help="Clicks of a session that are read, the latest.",
)  # fmt: skip
@click.option(
    "--ttl", default=30.0, show_default=True, type=click.FloatRange(0.01),
    help="Minutes after its last event that a session is kept.",
)  # fmt: skip
@click.option(
    "--max-sessions", default=1_000_000, show_default=True, type=click.IntRange(1),
    help="Sessions kept at most, the latest; not for Redis, which has a limit of its own.",
)  # fmt: skip
@click.option(
    "--deadline", default=100.0, show_default=True, type=click.FloatRange(1),
    help="Milliseconds for a list; beyond it the most clicked items are answered, and marked.",
)  # fmt: skip
@click.option(
    "--cache", default=10_000, show_default=True, type=click.IntRange(0), help="Lists kept per model."
)
@click.option(
    "--poll", default=1.0, show_default=True, type=click.FloatRange(0.01),
    help="Seconds between looks for another version.",
)  # fmt: skip
@click.option("--keys", type=_PATH, help="File of API keys, as nextclick keys writes it.")
@click.option(
    "--no-keys", is_flag=True, help="Listen on other addresses than this machine's without API keys."
)
@click.option(
    "--admin-anywhere", is_flag=True,
    help="Answer /metrics, /v1/experiment and /v1/admin to other machines too; needs --keys.",
)  # fmt: skip
@click.option(
    "--proxy", "proxies", multiple=True, metavar="ADDRESS",
    help="Reverse proxy whose X-Forwarded-For is believed; repeat for more.",
)  # fmt: skip
@click.option(
    "--cors", "origins", multiple=True, metavar="ORIGIN",
    help="Site whose pages may ask from a browser, as https://shop.example; repeat for more.",
)  # fmt: skip
@click.option(
    "--rate", default=0.0, show_default=True, type=click.FloatRange(0),
    help="Requests a second for each client, or key; 0 for any number.",
)  # fmt: skip
@click.option(
    "--max-body",
    default=262_144,
    show_default=True,
    type=click.IntRange(100),
    help="Bytes of a request's body.",
)
@click.option(
    "--patience", default=5.0, show_default=True, type=click.FloatRange(0.1),
    help="Seconds that a client may take to send its request.",
)  # fmt: skip
@click.option("--experiment", "trial", type=_PATH, help="File of an online experiment, TOML.")
@click.option(
    "--records", type=_PATH,
    help="Folder for the records of the experiment.  [default: MODEL_DIR.state/records]",
)  # fmt: skip
@click.option(
    "--catalogue",
    type=_PATH,
    help="Items with titles and pictures for the page: a table, or a demo shop's folder.",
)
@click.option("--access-log", is_flag=True, help="Log every request, without what it holds.")
@click.option(
    "--log-contents", is_flag=True,
    help="Log sessions, items and lists too; who may read the log then sees what visitors do.",
)  # fmt: skip
def serve(
    models: tuple[str, ...],
    host: str,
    port: int,
    workers: int,
    store: str | None,
    runtime: str,
    rules: Path | None,
    items: Path | None,
    items_id: str | None,
    longest: int,
    ttl: float,
    max_sessions: int,
    deadline: float,
    cache: int,
    poll: float,
    keys: Path | None,
    no_keys: bool,
    admin_anywhere: bool,
    proxies: tuple[str, ...],
    origins: tuple[str, ...],
    rate: float,
    max_body: int,
    patience: float,
    trial: Path | None,
    records: Path | None,
    catalogue: Path | None,
    access_log: bool,
    log_contents: bool,
) -> None:
    """Serve recommendations over HTTP from each MODEL_DIR, a saved model or a folder of versions.

    The first model answers unless a request, or an experiment, names another; NAME=MODEL_DIR gives a model
    another name than its directory's. Another version, or a model that is replaced, is put in service without
    a pause. The page is at /, the description of the API at /docs.

    \b
    Example:
      nextclick serve models/vs-knn
      nextclick serve models/vs-knn models/markov --port 8080 --workers 2 --catalogue nextclick-demo/shop
      nextclick serve best=models/narm --host 0.0.0.0 --keys keys.json --store redis://cache:6379/0
    """
    from nextclick.serving.options import Options
    from nextclick.serving.workers import default_state, serve

    named = named_models(models)
    if workers > 1 and store == "memory":
        raise ConfigError(
            "store memory is of one process: with several workers take sqlite:FILE or redis://..."
        )
    if host not in _HERE and keys is None and not no_keys:
        raise ConfigError(
            f"{host} can be reached from other machines: give --keys FILE (nextclick keys add FILE NAME), or "
            "--no-keys if something else keeps strangers out"
        )
    if admin_anywhere and keys is None:
        raise ConfigError("--admin-anywhere needs --keys FILE, or everybody could see the figures")
    if items_id is not None and items is None:
        raise click.UsageError("--items-id names a column of the file of --items")
    if records is not None and trial is None:
        raise click.UsageError("--records goes with --experiment FILE")
    state = default_state(Path(named[0][1]))
    options = Options(
        models=named,
        store=store or f"sqlite:{state / 'sessions.sqlite'}",
        runtime=cast("Runtime", runtime),
        rules=_text(rules), items=_text(items), items_id=items_id,
        longest=longest, ttl=ttl * 60, max_sessions=max_sessions,
        deadline=deadline / 1000, poll=poll, cache=cache,
        rate=rate, max_body=max_body, patience=patience,
        keys=_text(keys), admin_anywhere=admin_anywhere, proxies=proxies, origins=origins,
        trial=_text(trial), records=_text(records or (state / "records" if trial else None)),
        catalogue=_text(catalogue), access_log=access_log, log_contents=log_contents,
    )  # fmt: skip
    messages.print(
        f"serving {', '.join(name for name, _ in named)} at http://{host}:{port}/ "
        f"(sessions in {options.store})",
        soft_wrap=True, markup=False,
    )  # fmt: skip
    serve(options, host=host, port=port, workers=workers)


def named_models(models: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return name and path of each model, from PATH or NAME=PATH."""
    named: list[tuple[str, str]] = []
    for given in models:
        name, equals, path = given.partition("=")
        if not equals:
            name, path = Path(given).resolve().name, given
        if any(name == other for other, _ in named):
            raise ConfigError(f"two models are named {name!r}: name them apart, as b={path}")
        named.append((name, path))
    return tuple(named)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
