"""The report of an online experiment as one HTML file."""

from __future__ import annotations

from pathlib import Path

from nextclick.online.report import Findings, Row, said_days, said_p
from nextclick.report import markup
from nextclick.report.markup import Html, element, join

_STYLE = Path(markup.__file__).parent / "page.css"


def to_html(findings: Findings) -> str:
    """Return the report; it loads nothing from anywhere."""
    parts = sorted({row.by for row in findings.rows}, key=lambda by: (by != "all", by != "day", by))
    tables = [_table(by, [row for row in findings.rows if row.by == by]) for by in parts]
    said = [element("p", note, class_="warning") for note in findings.notes]
    body = element(
        "main",
        element("h1", f"Experiment {findings.trial}"),
        element("p", f"{findings.days} days. A rate is lists clicked by lists shown; sessions are the unit."),
        *said,
        element("p", f"Sessions shared out as they should be: p {_equals(findings.mismatch)}."),
        *(
            element(
                "p",
                f"{name}: an uplift of {findings.effect:.2%} would be found with a chance of {power:.0%}; "
                f"days still needed for a chance of 80%: {said_days(findings.days_more[name])}.",
            )
            for name, power in findings.power.items()
        ),
        *tables,
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"Experiment {findings.trial}"),
        element("style", Html(_STYLE.read_text("utf-8"))),
    )
    return f"<!DOCTYPE html>\n{element('html', head, element('body', body), lang='en')}\n"


def _table(by: str, rows: list[Row]) -> Html:
    titles = ("sessions", "lists", "clicked", "CTR", "uplift", "95% interval", "p")
    first = ["variant"] if by == "all" else [by, "variant"]
    numbers = (element("th", title, scope="col", class_="number") for title in titles)
    head = element("tr", *(element("th", title, scope="col") for title in first), *numbers)
    body = join(_row(by, row) for row in rows)
    caption = element("caption", "All sessions" if by == "all" else f"By {by}")
    table = element("table", caption, element("thead", head), element("tbody", body))
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label=f"Rates by {by}")


def _row(by: str, row: Row) -> Html:
    up, arm = row.uplift, row.arm
    cells = [f"{arm.sessions:,}", f"{arm.lists:,}", f"{arm.clicked:,}", f"{arm.rate:.4f}"]
    cells += ["", "", ""] if up is None else [
        f"{up.relative:+.2%}", f"{up.low:+.2%} to {up.high:+.2%}", said_p(up.p)
    ]  # fmt: skip
    heads = [] if by == "all" else [element("td", row.value, class_="date")]
    numbers = (element("td", cell, class_="number") for cell in cells)
    return element("tr", *heads, element("th", row.variant, scope="row"), *numbers)


def _equals(p: float) -> str:
    said = said_p(p)
    return said if said.startswith("<") else f"= {said}"
