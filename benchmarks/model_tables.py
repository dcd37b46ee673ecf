"""Fill docs/models.md with what was measured of re-ranking, metric learning and p-RNN; docs/training.md too.

    python benchmarks/model_tables.py

Each part stands between two markers; a test compares the pages with the files of results.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pages import between

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
_METRICS = ("recall@20", "mrr@20")
GRIDS = {
    "shop": "demo shop, thumbnails",
    "shop-texts": "demo shop, texts",
    "shop-no-image": "demo shop whose visitors do not look at thumbnails",
    "shop-sparse": "sparse shop, texts",
    "beauty": "beauty",
    "beauty-shuffled": "beauty, features of other items",
    "eshop": "eshop",
}
LOGS = {"yoochoose64": "YooChoose 1/64", "diginetica": "Diginetica"}


def filled() -> dict[Path, str]:
    """Return what the pages should be."""
    pages: Mapping[str, Mapping[str, Callable[[], Iterable[str]]]] = {
        "models": {
            "re-ranking": reranking,
            "carousel": carousel,
            "metric learning": metric,
            "p-RNN": parallel,
        },
        "training": {"speed": speed},
    }
    found = {}
    for name, parts in pages.items():
        file = ROOT / "docs" / f"{name}.md"
        page = file.read_text("utf-8")
        for mark, make in parts.items():
            page = between(page, mark, "\n".join([*make(), ""]))
        found[file] = page
    return found


def reranking() -> list[str]:
    """Generators, and what blends and re-rankers make of them."""
    lines = [
        "| data | model | settings | recall@20 / MRR@20 | over its generators, the better of them |",
        "|---|---|---|---|---|",
    ]
    for name, shown in LOGS.items():
        rows = [row for row in _read(f"papers_rrcre-{name}")["rows"] if row["state"] == "done"]
        means = {row["label"]: row["mean"] for row in rows}
        for row in rows:
            best = [max((means[one][m] for one in row["generators"]), default=None) for m in _METRICS]
            gain = [
                f"{row['mean'][m] - of:+.3f}" if of is not None else ""
                for m, of in zip(_METRICS, best, strict=True)
            ]
            label = row["label"].removesuffix(", as published")
            settings = row["written"].partition(";")[0]
            lines.append(
                f"| {shown} | {label} | {settings} | {_of_seeds(row)} | {' / '.join(filter(None, gain))} |"
            )
    return lines


def carousel() -> list[str]:
    """I2I-CF and what re-ranking makes of it, where clicks on the demo shop's carousel are predicted."""
    parts = _read("rerank_study")["parts"]
    lines = [
        "| shop | settings | model | recall@20 / MRR@20 | RRCRE over it, with p |",
        "|---|---|---|---|---|",
    ]
    of_part = {
        "carousel": ("preset=paper", ""),
        "carousel-defaults": ("defaults", ""),
        "carousel-small": ("preset=small", ""),
        "carousel-4x": ("preset=paper", ", four times the sessions"),
    }
    for part, (settings, larger) in of_part.items():
        for shop, found in parts.get(part, {}).items():
            gains = {(one["over"], one["metric"]): one for one in found["RRCRE-I2I-CF over"]}
            for model, row in found["rows"].items():
                over = [gains.get((model, metric)) for metric in _METRICS]
                gain = " / ".join(f"{one['difference']:+.3f} ({one['p']:.3f})" for one in over if one)
                lines.append(f"| {shop}{larger} | {settings} | {model} | {_figures(row)} | {gain} |")
    return lines


def metric() -> list[str]:
    """Metric learning: the rows of the paper, its ablation, positives topped up, items recommended at all."""
    lines = [
        "| data | row | settings | recall@20 / MRR@20 (95% of the recall) | REC@20 | the paper's |",
        "|---|---|---|---|---|---|",
    ]
    for name, shown in LOGS.items():
        for row in _read(f"metric_{name}")["rows"]:
            low, high = row["recall@20_interval"]
            figures = f"{_figures(row)} ({low:.3f} to {high:.3f})"
            rec = f"{row['remaining_recall@20']:.3f}"
            lines.append(
                f"| {shown} | {row['label']} | {row['settings']} | {figures} | {rec} | {_published(row)} |"
            )
    lines += [
        "",
        "Table 3 of the paper on rsc15-100k, where the paper has SI-T: N with L2 normalisation, M with the",
        "margin, S with the swap; items read and recommended by common or separate vectors; positives and",
        "negatives by the random split or the sliding window.",
        "",
        "| row and encoder | REC@20 / MRR@20 | the paper's |",
        "|---|---|---|",
    ]
    for row in _read("metric_ablation")["rows"]:
        figures = f"{row['remaining_recall@20']:.3f} / {row['mrr@20']:.3f}"
        lines.append(f"| {row['label']} | {figures} | {_published(row)} |")
    lines += ["", "| data and model | recall@20 / MRR@20 | items ever recommended |", "|---|---|---|"]
    for row in [*_read("metric_top-up")["rows"], *_read("metric_coverage")["rows"]]:
        of = f"{row['items_recommended']:,} of {row['items']:,}"
        lines.append(f"| {row['label']} | {_figures(row)} | {of} |")
    return lines


def parallel() -> list[str]:
    """The grids of p-RNN: every row, and by how much it is over the ids alone."""
    lines = [
        "| data | network | recall@20 / MRR@20 | MRR@20 over ID only (100), with p | over ID only (200) |",
        "|---|---|---|---|---|",
    ]
    for name, data in GRIDS.items():
        lines += _grid(f"prnn_grid_{name}", data, (100, 200))
    large = [line for name, data in GRIDS.items() for line in _grid(f"prnn_grid_{name}_large", data, (1000,))]
    if large:
        lines += [
            "",
            "Tables 3 and 4 of the paper, 500+500 units against 1,000:",
            "",
            "| data | network | recall@20 / MRR@20 | MRR@20 over ID only (1000), with p |",
            "|---|---|---|---|",
            *large,
        ]
    return lines


def _grid(name: str, data: str, sizes: Sequence[int]) -> list[str]:
    """The rows of one grid, if it was measured; sizes: of the ids alone that each is held against."""
    if not (RESULTS / f"{name}.json").exists():
        return []
    lines, found = [], _read(name)
    shown = data if found["settings"].get("logq") else f"{data}, without logq"
    for row in found["rows"]:
        over = [row.get(f"over ID only ({size})", {}).get("mrr@20") for size in sizes]
        itself = [row["row"] == f"ID only ({size})" for size in sizes]
        gains = [
            "" if of is None or same else f"{of['difference']:+.4f} ({of['p']:.3f})"
            for of, same in zip(over, itself, strict=True)
        ]
        lines.append(f"| {shown} | {row['row']} | {_figures(row)} | {' | '.join(gains)} |")
    return lines


def speed() -> list[str]:
    """Epochs beside the products that they cannot do without and a plain loop; steps of gru4rec."""
    found = _read("network_speed")
    lines = [
        "| network, published settings | the products alone | an epoch | an epoch in bfloat16 "
        "| a plain loop | bfloat16 / products | loop / bfloat16 |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in ("narm", "stamp"):
        for name, shown in LOGS.items():
            of = found[f"{model} on {name}"]
            seconds = [of["seconds"][what] for what in ("floor", "epoch", "epoch in bfloat16", "plain loop")]
            times = of["epoch in bfloat16 / floor"], of["plain loop / epoch in bfloat16"]
            cells = [f"{of:.0f} s" for of in seconds] + [f"{ratio:.2f}" for ratio in times]
            lines.append(f"| `{model}`, {shown} | {' | '.join(cells)} |")
    lines += ["", "| `gru4rec`, YooChoose 1/64 | next clicks a second | the plain steps |", "|---|---|---|"]
    clicks = found["gru4rec"]["clicks a second"]
    for what in found["gru4rec"]["times the plain steps"]:
        lines.append(f"| {what} | {clicks[what]:,} | {clicks[f'{what}, plain steps']:,} |")
    return lines


def _read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


def _figures(row: Mapping[str, Any]) -> str:
    return " / ".join(f"{row[metric] + 1e-9:.3f}" for metric in _METRICS)


def _of_seeds(row: Mapping[str, Any]) -> str:
    """The mean of a row, and what one seed differs by where there were several."""
    spread = [row["std"][metric] for metric in _METRICS]
    if None in spread:
        return _figures(row["mean"])
    deviations = " / ".join(f"{value:.4f}" for value in spread)
    return f"{_figures(row['mean'])} (±{deviations}, {len(row['seeds'])} seeds)"


def _published(row: Mapping[str, Any]) -> str:
    names = {"recall@20": "recall", "mrr@20": "MRR", "remaining_recall@20": "REC"}
    published = row["published"] or {}
    return ", ".join(f"{shown} {published[name]:.3f}" for name, shown in names.items() if name in published)


if __name__ == "__main__":
    for file, content in filled().items():
        file.write_text(content, "utf-8")
        print(f"wrote {file.name}", file=sys.stderr)
