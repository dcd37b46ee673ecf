"""The parts of the page about the models: the main table, charts, breakdowns, significance, protocol."""

from __future__ import annotations

from collections.abc import Iterable

from nextclick import __version__
from nextclick.report import markup, numbers
from nextclick.report.charts import ModelCharts
from nextclick.report.drawing import MODELS
from nextclick.report.findings import LABELS, SIGNIFICANT, Findings
from nextclick.report.markup import Html, cell, element, figure, join, paragraph
from nextclick.report.numbers import metric
from nextclick.results import ModelResult
from nextclick.settings import as_text

_BEST = Html('<span class="mark" title="best in this column">★<span class="unseen"> best</span></span>')
_TIED = Html(
    '<span class="mark" title="not significantly different from the best">≈'
    '<span class="unseen"> tied with the best</span></span>'
)


def main_table(findings: Findings) -> Html:
    """Return the table of models at the largest k, best recall first, best and tied values marked."""
    k, report = findings.k, findings.report
    accuracy = [findings.at(name) for name in findings.accuracy]
    others = [
        name
        for name in (findings.at("coverage"), findings.at("popularity"), findings.at("gini"))
        if any(name in r.metrics for r in report.models)
    ]
    lowest = {findings.at("gini")}
    best = {name: findings.best(name, lowest=name in lowest) for name in (*accuracy, *others)}
    best[findings.at("popularity")] = set()  # neither more nor less is better
    fastest = max(r.predictions_per_second for r in report.models)
    p50 = min(r.latency_p50_ms for r in report.models)
    p99 = min(r.latency_p99_ms for r in report.models)
    rows = []
    for result in findings.ranked(findings.at("recall")):
        cells = [_value(findings, result, name, best[name]) for name in (*accuracy, *others)]
        speed = result.predictions_per_second
        cells += [
            _marked(numbers.short(speed), speed, speed == fastest),
            _marked(
                numbers.milliseconds(result.latency_p50_ms),
                result.latency_p50_ms,
                result.latency_p50_ms == p50,
            ),
            _marked(
                numbers.milliseconds(result.latency_p99_ms),
                result.latency_p99_ms,
                result.latency_p99_ms == p99,
            ),
        ]
        rows.append([_name(findings, result), *cells])
    titles = [f"{LABELS[name]}@{k}" for name in findings.accuracy] + [
        LABELS[n.partition("@")[0]] for n in others
    ]
    head = ["Model", *titles, "Predictions/s", "p50 ms", "p99 ms"]
    caption = f"Models by recall@{k}; in brackets the 95% interval"
    legend = paragraph(
        _BEST,
        " best value of its column. ",
        _TIED,
        " not significantly different from the best (recall and MRR, paired "
        f"comparison, p of {SIGNIFICANT:g} or more). Coverage: share of the items ever among the first {k}. "
        "Popularity: mean training clicks of a recommended item. Gini: how unevenly items are recommended, "
        "0 all alike. p50, p99: latency of one request.",
        class_="hint",
    )
    return join([markup.table(caption, head, rows, class_="sortable models"), legend])


def all_lengths(findings: Findings) -> Html:
    """Return the metrics at every k, folded away, one table per metric."""
    ks = findings.report.k
    tables = []
    for name in findings.accuracy:
        best = {k: findings.best(findings.at(name, k)) for k in ks}
        rows = [
            [_name(findings, r), *(_value(findings, r, findings.at(name, k), best[k]) for k in ks)]
            for r in findings.ranked(findings.at(name))
        ]
        head = ["Model", *(f"@{k}" for k in ks)]
        tables.append(
            markup.table(f"{LABELS[name]} by length of the list", head, rows, class_="sortable models")
        )
    return element("details", element("summary", "All list lengths"), *tables)


def charts(findings: Findings) -> Html:
    """Return the charts over all test clicks."""
    drawn, k = ModelCharts(findings), findings.k
    recall_over_k, mrr_over_k = drawn.over_k("recall"), drawn.over_k("mrr")
    diversity = drawn.diversity()
    figures = [
        figure(
            drawn.dots("recall"), f"Recall@{k}.", f"How often the item clicked next is among the first {k}."
        ),
        figure(
            drawn.dots("mrr"),
            f"MRR@{k}.",
            "How far up it stands: 1 for the first place, 1/2 for the second, and so on.",
        ),
        figure(
            recall_over_k,
            "Recall by length of the list.",
            "A line that starts high puts the right item first more often.",
        )
        if recall_over_k
        else None,
        figure(mrr_over_k, "MRR by length of the list.", "Flat to the right: places far down count little.")
        if mrr_over_k
        else None,
        figure(
            drawn.speed("recall"),
            "Accuracy and speed.",
            "Up is more accurate, right is faster. Predictions per second over the whole test part.",
        ),
        figure(
            diversity,
            "Coverage and popularity.",
            "Right shows more of the catalogue, down shows less known items.",
        )
        if diversity
        else None,
    ]
    return element("div", *(f for f in figures if f is not None), class_="charts")


def breakdowns(findings: Findings, pictures: bool) -> list[Html]:
    """Return the metrics on parts of the test clicks: charts, and tables of all figures folded away."""
    kinds = {kind: None for result in findings.report.models for kind in result.slices}
    parts: list[Html] = []
    if pictures:
        drawn = ModelCharts(findings)
        recall, mrr = f"recall@{findings.k}", f"MRR@{findings.k}"
        wanted = [
            (
                drawn.by_slice("prefix length", "recall", "clicks seen so far"),
                f"By clicks seen so far, {recall}.",
                "Is a model better when it knows more of the session?",
            ),
            (
                drawn.by_slice("prefix length", "mrr", "clicks seen so far"),
                f"By clicks seen so far, {mrr}.",
                "The same for the place in the list.",
            ),
            (
                drawn.by_slice("target popularity", "recall", "item clicked next", ["unseen"]),
                f"By popularity of the item clicked next, {recall}.",
                "Left the most clicked items, right the rarest: a steep fall means a model lives "
                "off what is popular.",
            ),
            (
                drawn.repeated("recall"),
                f"Repeated and new items, {recall}.",
                "Full dot: the visitor goes back to an item of this session. Empty dot: a new "
                "item, the harder and often more useful case.",
            ),
        ]
        figures = [figure(chart, title, hint) for chart, title, hint in wanted if chart is not None]
        parts.append(element("div", *figures, class_="charts"))
    tables = [_breakdown(findings, kind, name) for kind in kinds for name in ("recall", "mrr")]
    if tables:
        parts.append(element("details", element("summary", "All figures of these parts"), *tables))
    return parts


def _breakdown(findings: Findings, kind: str, name: str) -> Html:
    at = findings.at(name)
    labels = {s.label: s.pairs for r in findings.report.models for s in r.slices.get(kind, ())}
    rows = [["test clicks", *(numbers.count(pairs) for pairs in labels.values())]]
    for result in findings.ranked(findings.at("recall")):
        own = {s.label: s.metrics.get(at, float("nan")) for s in result.slices.get(kind, ())}
        rows.append([_name(findings, result), *(metric(own.get(label, float("nan"))) for label in labels)])
    return markup.table(f"{LABELS[name]}@{findings.k} by {kind}", ["Model", *labels], rows)


def significance(findings: Findings) -> list[Html]:
    """Return the differences of every two models, for recall and for MRR."""
    parts = [
        paragraph(
            "Each cell is the model of its row minus the model of its column, with the 95% interval and "
            "p-value. All models answer the same clicks, so they are compared in pairs, and whole sessions "
            "are drawn again and again (bootstrap), because the clicks of one session are not independent. ",
            _TIED,
            f" not significant (p of {SIGNIFICANT:g} or more). The p-values are not corrected for the number "
            "of pairs: among twenty pairs of equal models, one would look different by chance.",
        )
    ]
    for name in (findings.at("recall"), findings.at("mrr")):
        parts.append(_matrix(findings, name))
        pairs = [f"{a} and {b}" for a, b in findings.undecided(name)]
        said = (
            f"Not significantly apart in {_title(name)}: {'; '.join(pairs)}."
            if pairs
            else f"All models differ significantly in {_title(name)}."
        )
        parts.append(paragraph(said, class_="hint"))
    return parts


def _matrix(findings: Findings, name: str) -> Html:
    ranked = findings.ranked(name)
    rows = []
    for i, row in enumerate(ranked[:-1]):
        cells: list[str] = [cell("", class_="empty") for _ in range(i)]
        for column in ranked[i + 1 :]:
            found = findings.difference(name, row.name, column.name)
            if found is None:
                cells.append(cell(numbers.NOTHING))
                continue
            bounds = f"[{numbers.signed(found.low)}, {numbers.signed(found.high)}]"
            small = element("small", bounds, element("br"), f"p {numbers.probability(found.p)}")
            tied = found.p >= SIGNIFICANT
            content = join(
                [numbers.signed(found.difference), " " if tied else "", _TIED if tied else "", small]
            )
            cells.append(cell(content, class_="number tied" if tied else "number apart"))
        rows.append([_name(findings, row), *cells])
    head = [f"{_title(name)} of", *(f"− {r.name}" for r in ranked[1:])]
    return markup.table(f"Differences in {_title(name)}, row minus column", head, rows, class_="matrix")


def measured(findings: Findings) -> list[Html]:
    """Return how the figures came about: protocol, notes, settings of the models, version."""
    report, k = findings.report, findings.k
    ranked_items = (
        f"All {report.n_items:,} items"
        if report.candidates is None
        else f"Only the {report.candidates:,} most clicked items"
    )
    if report.rules:
        ranked_items += f" that meet {'the rule' if len(report.rules) == 1 else 'all rules'} in force"
    ties = {
        "expected": "Items of equal score count as the mean over all their orders, worked out exactly.",
        "optimistic": "Of items of equal score the right one counts as the first, which overestimates.",
        "pessimistic": "Of items of equal score the right one counts as the last.",
    }[report.ties]
    if report.unseen == "drop":
        unseen = (
            f"{numbers.plural(report.unseen_pairs, 'click')} on items unknown to every model are left out."
        )
    else:
        share = f"{report.unseen_pairs:,} of {report.pairs:,}"
        unseen = f"A click on an item unknown to every model counts as a miss ({share})."
    lines = [
        f"{numbers.plural(report.pairs, 'prediction')} in "
        f"{numbers.plural(report.sessions, 'test session')}: for {report.predicted}, each model sees "
        f"{report.seen} and ranks what may be clicked next.",
        f"{ranked_items} are ranked; nothing is sampled, and every position counts the same.",
        unseen,
        ties,
        f"Intervals are the central 95% of the metric over resampled sessions. Lists are {k} items "
        "long unless another length is named.",
    ]
    if report.protocol == "remaining":
        to_come = "still to come" if report.target_event is None else "that such clicks still go to"
        lines.insert(
            1,
            "Recall, MRR and NDCG look at the next click alone; precision, remaining (rem.) recall and "
            f"MAP at all different items {to_come} in the session.",
        )
    parts = [markup.items(lines)]
    if report.notes:
        parts += [element("h3", "Notes"), markup.items(report.notes)]
    rows = []
    for result in findings.ranked(findings.at("recall")):
        settings = ", ".join(f"{name}={as_text(value)}" for name, value in result.settings.items()) or "none"
        rows.append([_name(findings, result), cell(result.model, class_=None), cell(settings, class_="wrap")])
    parts += [
        element("h3", "Settings"),
        markup.table("Settings of each model", ["Name", "Model", "Settings"], rows),
    ]
    reading = [f"{result.name} reads {of}" for result in report.models for of in result.features]
    if reading:
        parts += [element("h3", "Item features"), markup.items(reading)]
    parts.append(paragraph(f"Made with nextclick {__version__}.", class_="hint"))
    return parts


def candidates_warning(findings: Findings) -> Html | None:
    """Return the warning that belongs to a ranking of few items."""
    n = findings.report.candidates
    if n is None:
        return None
    text = (
        f"only the {n:,} most clicked of {findings.report.n_items:,} items were ranked. These figures "
        "overestimate what the models reach, and must not be compared with a full ranking."
    )
    return element("div", element("strong", "Warning: "), text, class_="warning", role="note")


def _name(findings: Findings, result: ModelResult) -> Html:
    i = [r.name for r in findings.report.models].index(result.name)
    again = " again" if i >= len(MODELS) else ""
    swatch = element("span", class_=f"swatch model-{i % len(MODELS)}{again}", aria_hidden="true")
    return element("th", swatch, result.name, scope="row")


def _value(findings: Findings, result: ModelResult, name: str, best: Iterable[str]) -> Html:
    value, decimals = findings.value(result, name), findings.decimals(name)
    text = numbers.short(value) if name.startswith("popularity") else metric(value, decimals)
    bounds = result.intervals.get(name)
    small = element("small", numbers.interval(*bounds, decimals)) if bounds else Html()
    tied = name in (findings.at("recall"), findings.at("mrr")) and result.name in findings.tied(name)
    return _marked(text, value, result.name in best, tied, small)


def _marked(text: str, value: float, best: bool, tied: bool = False, small: Html = Html()) -> Html:  # noqa: B008
    mark = _BEST if best else _TIED if tied else Html('<span class="mark"></span>')
    return cell(join([element("b", text) if best else text, mark, small]), value)


def _title(name: str) -> str:
    return (
        "recall@" + name.partition("@")[2] if name.startswith("recall") else "MRR@" + name.partition("@")[2]
    )
