"""Figure 5 of Li et al., CIKM 2017: NARM against the improved GRU4Rec, on each data set of table 3.

    python benchmarks/narm_figure5.py FOLDER_OF_THE_LOGS WORK_FOLDER            all three
    python benchmarks/narm_figure5.py FOLDER_OF_THE_LOGS WORK_FOLDER yoochoose64 diginetica

Does the rows "gru4rec-plus" and "narm" of benchmarks/papers/NAME.toml, which say what to download, and draws
docs/pictures/narm-figure-5.png with 95% intervals. What is done of these files in WORK_FOLDER/NAME, by this
command or by ``nextclick run``, is not done again.

Time on two cores, by measured epochs: half an hour on YooChoose 1/64, an hour on Diginetica; YooChoose 1/4
has 16 times the clicks of 1/64 on twice the items and takes a day.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from data import ROOT, write
from nextclick import experiment

ROWS = ("gru4rec-plus", "narm")
DATA = ("yoochoose64", "yoochoose4", "diginetica")
FIGURES = ("recall@20", "mrr@20")


def main() -> None:
    logs, work, names = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] or DATA
    found: dict[str, Any] = {}
    for name in names:
        asked = experiment.read(ROOT / "benchmarks" / "papers" / f"{name}.toml", logs)
        done = experiment.run(
            asked, work / name, rows=ROWS, say=lambda line: print(line, file=sys.stderr, flush=True)
        )
        if done.failed:
            sys.exit("\n".join(done.failed))
        found[name] = {row["label"]: of(row) for row in done.content["rows"] if row["label"] in ROWS}
    write("narm_figure5", {"rows": found})
    draw(found, ROOT / "docs" / "pictures" / "narm-figure-5.png")


def of(row: dict[str, Any]) -> dict[str, Any]:
    """The figures of a row, their intervals, and the change that is published beside them."""
    return {
        **{name: round(row["mean"][name], 4) for name in FIGURES},
        **{f"{name}_interval": [round(end, 4) for end in row["interval"][name]] for name in FIGURES},
        "published": row["published"],
    }


def draw(found: dict[str, Any], path: Path) -> None:
    """Bars side by side for each data set, a picture for each figure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, both = pyplot.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    for axes, metric in zip(both, FIGURES, strict=True):
        for n, (label, colour) in enumerate(zip(ROWS, ("#8a8f98", "#0072b2"), strict=True)):
            heights = [rows[label][metric] for rows in found.values()]
            ends = [rows[label][f"{metric}_interval"] for rows in found.values()]
            apart = [[h - low for h, (low, _) in zip(heights, ends, strict=True)],
                     [high - h for h, (_, high) in zip(heights, ends, strict=True)]]  # fmt: skip
            places = [place + 0.4 * n for place in range(len(found))]
            axes.bar(places, heights, 0.38, yerr=apart, capsize=4, color=colour, label=label)
        axes.set_xticks([place + 0.2 for place in range(len(found))], list(found), fontsize=8)
        axes.set_title(metric.replace("mrr", "MRR"), loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    both[0].legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    print(f"drawn: {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
