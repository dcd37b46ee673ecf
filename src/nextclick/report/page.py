"""The report as one HTML file that needs nothing else: data first, then models, then how it was measured."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from nextclick.dataset import Dataset
from nextclick.files import new_file
from nextclick.report import data_section, drawing, markup, model_sections, numbers
from nextclick.report.findings import Findings
from nextclick.report.markup import Html, element, join, paragraph
from nextclick.results import Report


def write_html(
    report: Report,
    path: str | Path,
    dataset: Dataset | None = None,
    *,
    pictures: bool = True,
    extra: Sequence[tuple[str, str]] = (),
) -> None:
    """Write a report as one self-contained HTML file; an older file is replaced once the new one is complete.

    dataset: what the models were fitted and tested on, for the part about the data;  pictures: draw charts,
    which needs the extra ``report``;  extra: further sections as (title, HTML), inserted as they are.
    Equal input gives an equal file. Raises MissingExtraError without matplotlib, and DataError when the file
    cannot be written.
    """
    content = page(report, dataset, pictures=pictures, extra=extra)
    with new_file(Path(path)) as aside:
        aside.write_text(content, "utf-8", newline="\n")


def page(
    report: Report,
    dataset: Dataset | None = None,
    *,
    pictures: bool = True,
    extra: Sequence[tuple[str, str]] = (),
) -> str:
    """Return the HTML that ``write_html`` writes."""
    if pictures:
        drawing.require_charts()
    findings = Findings(report)
    sections: dict[str, list[Html]] = {}
    if dataset is not None:
        sections["The data"] = data_section.section(dataset, pictures)
    sections["The models"] = [model_sections.main_table(findings), model_sections.all_lengths(findings)]
    if pictures:
        sections["The models in pictures"] = [model_sections.charts(findings)]
    if parts := model_sections.breakdowns(findings, pictures):
        sections["Where they differ"] = parts
    if report.comparisons:
        sections["Which differences are real"] = model_sections.significance(findings)
    for title, content in extra:
        sections[title] = [Html(content)]
    sections["How it was measured"] = model_sections.measured(findings)
    title = f"{report.dataset}: {numbers.plural(len(report.models), 'model')} compared"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(_asset("page.css"))),
    )
    body = element(
        "body",
        element("a", "Skip to the report", href="#report", class_="skip"),
        _header(findings, title, dataset, list(sections)),
        element("main", *_numbered(sections), id="report"),
        element("script", Html(_asset("page.js"))),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _header(findings: Findings, title: str, dataset: Dataset | None, titles: list[str]) -> Html:
    report = findings.report
    about = (
        f"{numbers.plural(report.pairs, 'prediction')} in {numbers.plural(report.sessions, 'test session')}, "
        f"{numbers.plural(report.n_items, 'item')}"
    )
    contents = [element("a", name, href=f"#part-{i}") for i, name in enumerate(titles, 1)]
    warned = model_sections.candidates_warning(findings)
    hint = None
    if found := data_section.warnings_of(dataset):
        hint = paragraph(
            element("a", f"{numbers.plural(len(found), 'warning')} about the data", href="#part-1"),
            " should be read before these figures.",
            class_="warning",
        )
    return element(
        "header",
        paragraph("nextclick report", class_="kicker"),
        element("h1", title),
        paragraph(about, class_="about"),
        *(part for part in (warned, hint) if part is not None),
        element("div", *(paragraph(sentence) for sentence in findings.headline()), class_="headline"),
        element("nav", markup.items(contents), aria_label="Contents"),
    )


def _numbered(sections: dict[str, list[Html]]) -> list[Html]:
    return [
        element(
            "section",
            element("h2", name, id=f"heading-{i}"),
            join(parts),
            id=f"part-{i}",
            aria_labelledby=f"heading-{i}",
        )
        for i, (name, parts) in enumerate(sections.items(), 1)
    ]


def _asset(name: str) -> str:
    return resources.files("nextclick.report").joinpath(name).read_text("utf-8")
