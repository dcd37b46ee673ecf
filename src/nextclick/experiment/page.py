"""The report of an experiment: measured beside published, hits by length, and the comparison of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nextclick.experiment.summary import SHOWN, difference, failures, measured, published
from nextclick.report import markup, numbers
from nextclick.report.markup import Html, cell, element, join, paragraph


def sections(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the sections that the report of an experiment has beyond the usual ones, as (title, HTML)."""
    parts: list[tuple[str, str]] = [("Measured beside published", _beside(content))]
    if any(row["hits"] for row in content["rows"]):
        parts.append(("Hits by length of the prefix", _by_length(content["rows"])))
    return parts


def _beside(content: Mapping[str, Any]) -> Html:
    rows = []
    for row in content["rows"]:
        runs = sum("error" not in run for run in row["runs"])
        cells = [cell(row["written"], class_="wrap"), cell(str(runs), runs)]
        for metric in SHOWN:
            cells += [
                cell(measured(row, metric), row["mean"].get(metric)),
                cell(published(row, metric), (row["published"] or {}).get(metric)),
                cell(
                    difference(row, metric), row["difference"].get(metric), f"number {_judged(row, metric)}"
                ),
            ]
        source = (row["published"] or {}).get("source", "")
        rows.append([row["label"], *cells, cell(source, class_="wrap")])
    head = ["Row", "Settings", "Runs"]
    for title in ("Recall@20", "MRR@20"):
        head += [title, "published", "difference"]
    parts = [
        markup.table("Each row and its published figure", [*head, "Source"], rows, class_="sortable"),
        paragraph(
            "Means over runs that differ in their seed (and slice of the data), with the standard deviation "
            "between them. A difference is coloured where the published figure lies outside of the 95% "
            "interval of the measured one: ",
            element("span", "above", class_="above"),
            " or ",
            element("span", "below", class_="below"),
            " what was published.",
            class_="hint",
        ),
    ]
    if troubles := failures(content):
        parts.append(
            element("div", paragraph("These runs failed:"), markup.items(troubles), class_="warning")
        )
    return join(parts)


def _judged(row: Mapping[str, Any], metric: str) -> str:
    """Return whether the published figure lies below, within or above the measured interval."""
    if metric not in row["difference"]:
        return ""
    low, high = row["interval"][metric]
    figure = row["published"][metric]
    return "above" if figure < low else "below" if figure > high else ""


def _by_length(rows: Sequence[Mapping[str, Any]]) -> Html:
    """Return the hits of each row by clicks in the prefix, and how far they are from those of the first."""
    shown = [row for row in rows if row["hits"]]
    parts = [_hits_table("Measured", [(row["label"], _of_lengths(row)) for row in shown], shown[0]["hits"])]
    quoted = [
        (row["label"], row["published"]["hits"]) for row in shown if (row["published"] or {}).get("hits")
    ]
    if quoted:
        parts.append(_hits_table("Published", quoted, None))
    parts.append(
        paragraph(
            "How many predictions had the item clicked next among the first 20, by the clicks seen so far; "
            "in brackets the change against the first row. (Means over runs.)",
            class_="hint",
        )
    )
    whole = join(parts)
    return whole if quoted else element("details", element("summary", "All lengths"), whole)


def _of_lengths(row: Mapping[str, Any]) -> dict[str, float]:
    return {length: of_length["hits"] for length, of_length in row["hits"].items()}


def _hits_table(
    title: str,
    rows: Sequence[tuple[str, Mapping[str, float]]],
    pairs: Mapping[str, Mapping[str, float]] | None,
) -> Html:
    first = rows[0][1]
    lengths = sorted({key for _, hits in rows for key in hits}, key=lambda key: int(key.rstrip("+")))
    table = []
    for length in lengths:
        cells = [cell(numbers.count(pairs[length]["pairs"]) if length in pairs else "")] if pairs else []
        for n, (_, hits) in enumerate(rows):
            if length not in hits:
                cells.append(cell(""))
                continue
            change = Html()
            if n and first.get(length):
                ratio = 100 * (hits[length] / first[length] - 1)
                change = element("small", f"({numbers.signed(ratio, 1)}%)")
            cells.append(cell(join([numbers.count(hits[length]), " ", change]), hits[length]))
        table.append([length, *cells])
    head = ["Clicks so far", *(["Predictions"] if pairs else []), *(label for label, _ in rows)]
    return markup.table(f"{title} hits among the first 20", head, table)
