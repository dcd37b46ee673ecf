"""What a second stage adds: a re-ranker, or a blend, beside the models that generate its candidates."""

from __future__ import annotations

from collections.abc import Sequence

from nextclick.report import markup, numbers
from nextclick.report.findings import SIGNIFICANT, Findings
from nextclick.report.markup import Html, cell, element, join, paragraph
from nextclick.results import Report


def two_stages(report: Report, seconds: Sequence[str], generators: Sequence[str]) -> Html:
    """Return a section on models of two stages, for ``write_html(extra=...)``.

    seconds, generators: names of models in the report; those of the first build on all of the others.
    """
    findings = Findings(report)
    results = {result.name: result for result in report.models}
    names = (findings.at("recall"), findings.at("mrr"))
    rows = []
    for model in (*generators, *seconds):
        cells = []
        for name in names:
            cells.append(cell(findings.shown(name, results[model]), findings.value(results[model], name)))
        for generator in generators:
            for name in names:
                found = findings.difference(name, model, generator) if model in seconds else None
                if found is None:
                    cells.append(cell(numbers.NOTHING))
                    continue
                bounds = f"[{numbers.signed(found.low)}, {numbers.signed(found.high)}]"
                small = element("small", bounds, element("br"), f"p {numbers.probability(found.p)}")
                judged = "" if found.p >= SIGNIFICANT else " above" if found.difference > 0 else " below"
                cells.append(cell(join([numbers.signed(found.difference), small]), class_=f"number{judged}"))
        rows.append([model, *cells])
    head = ["Model", *names, *(f"{name} over {generator}" for generator in generators for name in names)]
    return join([
        paragraph(
            f"{_listed(seconds)} put into one list what {_listed(generators)} recommend. Beside the "
            "generators stands what is gained over each of them, paired over sessions, with the 95% interval "
            "and p-value; coloured where it is significant: ",
            element("span", "above", class_="above"), " or ", element("span", "below", class_="below"),
            " the generator.",
        ),
        markup.table("Two stages and their generators", head, rows),
    ])  # fmt: skip


def _listed(names: Sequence[str]) -> str:
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last
