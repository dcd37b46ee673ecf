"""What an experiment came to: means and deviations over runs, beside the published figures."""

from __future__ import annotations

import datetime
import math
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nextclick import __version__
from nextclick.dataset import Dataset
from nextclick.experiment.spec import Experiment, Row
from nextclick.experiment.work import BOOTSTRAP_SEED, Task
from nextclick.report import numbers

SHOWN = ("recall@20", "mrr@20")


def summary(
    experiment: Experiment,
    datasets: Sequence[Dataset],
    results: Sequence[tuple[Row, Sequence[tuple[Task, Mapping[str, Any] | None]]]],
    command: str,
) -> dict[str, Any]:
    """Return the content of results.json, JSON-ready.

    results: for each row its tasks, each with its result, ``{"error": why}``, or None where it was not run.
    """
    return {
        "name": experiment.name,
        "date": datetime.date.today().isoformat(),
        "nextclick": __version__,
        "python": platform.python_version(),
        "command": command,
        "bootstrap_seed": BOOTSTRAP_SEED,
        "data": [
            {
                "name": dataset.name,
                "fingerprint": dataset.fingerprint,
                "train_sessions": len(dataset.train),
                "validation_sessions": len(dataset.validation),
                "test_sessions": len(dataset.test),
                "pairs": dataset.test.n_pairs,
            }
            for dataset in datasets
        ],
        "rows": [_row(row, of_row) for row, of_row in results],
    }


def _row(row: Row, of_row: Sequence[tuple[Task, Mapping[str, Any] | None]]) -> dict[str, Any]:
    runs = [
        {"data": task.dataset.name, "seed": task.seed, "folder": task.folder.name, **result}
        for task, result in of_row
        if result is not None
    ]
    done = [run for run in runs if "error" not in run]
    failed = len(done) < len(runs)
    state = "failed" if failed else "done" if len(done) == len(of_row) else "begun" if runs else "not run"
    mean, std = {}, {}
    for metric in done[0]["metrics"] if done else ():
        values = [run["metrics"][metric] for run in done]
        mean[metric] = float(np.mean(values))
        std[metric] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    published = row.published
    content: dict[str, Any] = {
        "label": row.label,
        "model": row.model,
        "settings": dict(row.settings),
        "written": row.written,
        "full": row.full,
        "generators": list(row.generators),
        "seeds": [seed for seed in row.seeds if seed is not None],
        "state": state,
        "mean": mean,
        "std": std,
        "interval": {
            metric: [float(np.mean([run["intervals"][metric][end] for run in done])) for end in (0, 1)]
            for metric in (done[0]["intervals"] if done else ())
        },
        "hits": _hits(done),
        "published": None,
        "difference": {},
        "runs": runs,
    }
    if published is not None:
        content["published"] = {**published.metrics, "source": published.source}
        if published.hits:
            content["published"]["hits"] = dict(published.hits)
        content["difference"] = {
            metric: mean[metric] - value for metric, value in published.metrics.items() if metric in mean
        }
    return content


def _hits(done: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return by length of the prefix: predictions, and the mean number of them with the target in 20."""
    hits: dict[str, dict[str, float]] = {}
    for run in done:
        for part in run["slices"].get("prefix length", ()):
            of_length = hits.setdefault(part["label"], {"pairs": 0.0, "hits": 0.0})
            of_length["pairs"] += part["pairs"] / len(done)
            of_length["hits"] += part["pairs"] * part["recall@20"] / len(done)
    return hits


HEAD = ("row", "runs", "recall@20", "published", "difference", "MRR@20", "published", "difference")


def lines(content: Mapping[str, Any]) -> list[list[str]]:
    """Return the table for terminals and Markdown: a line per row under ``HEAD``."""
    table = []
    for row in content["rows"]:
        n_done = sum("error" not in run for run in row["runs"])
        cells = [row["label"], row["state"] if row["state"] != "done" else str(n_done)]
        for metric in SHOWN:
            cells += [measured(row, metric), published(row, metric), difference(row, metric)]
        table.append(cells)
    return table


def measured(row: Mapping[str, Any], metric: str) -> str:
    """Return the mean over runs with its standard deviation, "0.6959 ± 0.0012"."""
    if metric not in row["mean"]:
        return ""
    deviation = row["std"][metric]
    return numbers.metric(row["mean"][metric], 4) + (
        f" ± {numbers.metric(deviation, 4)}" if deviation is not None else ""
    )


def published(row: Mapping[str, Any], metric: str) -> str:
    """Return the published figure in as many digits as it was given."""
    value = (row["published"] or {}).get(metric)
    return "" if value is None else f"{value:g}"


def difference(row: Mapping[str, Any], metric: str) -> str:
    """Return measured minus published with its sign."""
    value = row["difference"].get(metric, math.nan)
    return numbers.signed(value, 4) if math.isfinite(value) else ""


def failures(content: Mapping[str, Any]) -> list[str]:
    """Return a line for each run that failed: its row, seed and reason."""
    return [
        f"{row['label']}{'' if run['seed'] is None else ', seed ' + str(run['seed'])}: {run['error']}"
        for row in content["rows"]
        for run in row["runs"]
        if "error" in run
    ]


def markdown(content: Mapping[str, Any]) -> str:
    """Return the table, its sources and what failed, as a Markdown page."""
    written = [
        f"# {content['name']}",
        "",
        f"Made on {content['date']} with nextclick {content['nextclick']}: `{content['command']}`",
        "",
        _markdown_line(HEAD),
        _markdown_line(["---"] * len(HEAD)),
        *map(_markdown_line, lines(content)),
        "",
        "Runs: fits with different seeds (and slices, where the data have some); mean ± standard deviation "
        "over them. Difference: measured minus published.",
    ]
    sources = [row for row in content["rows"] if row["published"]]
    if sources:
        written += ["", *(f"- {row['label']}: {row['published']['source']}" for row in sources)]
    if failed := failures(content):
        written += ["", *(f"- failed: {' '.join(failure.split())}" for failure in failed)]
    return "\n".join(written) + "\n"


def _markdown_line(cells: Sequence[str]) -> str:
    escaped = [" ".join(cell.replace("|", "\\|").split()) for cell in cells]
    return f"| {' | '.join(escaped)} |"
