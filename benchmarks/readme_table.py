"""Write the measured figures of results/ into the README, between its markers.

They are those of accuracy.json and papers_*.json: results.json of "nextclick run", kept under the name of its
experiment, which wins where both have a row.

python benchmarks/readme_table.py           writes
python benchmarks/readme_table.py --check   exits with 1 if the README is not up to date
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nextclick import MODELS
from pages import between

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
DATASETS = {"yoochoose64": "YooChoose 1/64", "diginetica": "Diginetica"}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table: a line per model and settings, published figures in brackets, their sources below.

    rows: as in results/accuracy.json; shown are the defaults, and settings that a source reports on.
    """
    by_key: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        by_key.setdefault((row["model"], row["settings"]), {})[row["dataset"]] = row
    heads = ["model", "settings", *DATASETS.values(), "source of the model"]
    lines = [_line(heads), _line(["---"] * len(heads))]
    notes: dict[str, str] = {}
    for model, about in MODELS.items():
        found = [(settings, by) for (name, settings), by in by_key.items() if name == model]
        shown = [
            (settings, by)
            for settings, by in found
            if settings.partition(";")[0] == "defaults" or any(row.get("published") for row in by.values())
        ]
        source, name = about.source, f"`{model}`"
        for settings, by in shown or [("", {})]:
            cells = [_cell(by.get(dataset), notes) for dataset in DATASETS]
            lines.append(_line([name, settings, *cells, source]))
            source = name = ""  # once per model
    below = "; ".join(f"{letter} {source}" for source, letter in notes.items())
    return "\n".join([*lines, *(["", f"In brackets, published: {below}."] if below else [])])


def of_experiment(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of an experiment that are done as those of accuracy.json: means over their seeds.

    The name of the experiment ends in that of the data set. precision=auto, products rounded where that is
    faster, makes no other model, so such rows stand beside those of the other data set.
    """
    return [
        {
            "model": row["model"],
            "settings": row["written"].replace(" precision=auto", ""),
            "dataset": content["name"].rpartition("-")[2],
            **row["mean"],
            "published": row["published"] if "recall@20" in (row["published"] or {}) else None,
        }
        for row in content["rows"]
        if row["state"] == "done"
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(row: Mapping[str, Any] | None, notes: dict[str, str]) -> str:
    """Return the figures of one cell; a source not met before gets the next letter in ``notes``."""
    if row is None:
        return ""
    published = row.get("published")
    if not published:
        return _pair(row)
    letter = notes.setdefault(published["source"], chr(ord("a") + len(notes)))
    return f"{_pair(row)} ({_pair(published)} {letter})"


def _pair(figures: Mapping[str, Any]) -> str:
    # A hair upwards, so that 0.1835 is shown as 0.184 whatever its binary form.
    return " / ".join(
        f"{figures[metric] + 1e-9:.3f}" if metric in figures else "–" for metric in ("recall@20", "mrr@20")
    )


def filled(readme: str) -> str:
    """Return the README with the table between its markers; without results, with a sentence instead."""
    rows = json.loads((RESULTS / "accuracy.json").read_text("utf-8"))["rows"]
    for file in sorted(RESULTS.glob("metric_*.json")):
        found = json.loads(file.read_text("utf-8"))["rows"]
        rows += [row for row in found if row["settings"] == "defaults" and row["label"] == "RNN-NCAS"]
    for file in sorted(RESULTS.glob("papers_*.json")):
        rows += of_experiment(json.loads(file.read_text("utf-8")))
    return between(readme, "accuracy", table(rows))


def main() -> int:
    """Write the README, or only say whether it is up to date; return the exit code."""
    readme = README.read_text("utf-8")
    new = filled(readme)
    if "--check" in sys.argv[1:]:
        if new != readme:
            print("README.md is not up to date: run python benchmarks/readme_table.py", file=sys.stderr)
        return int(new != readme)
    README.write_text(new, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
