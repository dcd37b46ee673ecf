"""The part of the page about the data: what preparation did to the log, and what the sessions are like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from nextclick.dataset import Dataset
from nextclick.report import markup, numbers
from nextclick.report.markup import Html, cell, element, figure, join, paragraph
from nextclick.report.numbers import count, share
from nextclick.report.statistics import Statistics, describe
from nextclick.sessions import Sessions


def section(dataset: Dataset, pictures: bool) -> list[Html]:
    """Return the content of the section; tolerates a data set whose ``info`` says little or nothing."""
    info = dataset.info
    parts = [*_warnings(info), _facts(dataset.name, statistics := describe(dataset.sessions))]
    if steps := _steps(info.get("steps") or ()):
        parts.append(steps)
    parts.append(_bad_rows(info))
    parts.append(_splits(dataset))
    if pictures:
        parts.append(_charts(dataset, statistics))
    if source := _source(info):
        parts.append(source)
    return parts


def warnings_of(dataset: Dataset | None) -> list[str]:
    """Return what preparation warned of."""
    return [] if dataset is None else [str(warning) for warning in dataset.info.get("warnings") or ()]


def _warnings(info: Mapping[str, Any]) -> list[Html]:
    return [
        element("div", element("strong", "Warning: "), str(warning), class_="warning", role="note")
        for warning in info.get("warnings") or ()
    ]


def _facts(name: str, found: Statistics) -> Html:
    facts = {
        "sessions": count(found.sessions),
        "clicks": count(found.clicks),
        "items": count(found.items),
        "clicks to predict": count(found.pairs),
        "clicks per session, mean": f"{found.mean_length:.1f}",
        "clicks per session, median": f"{found.median_length:g}",
        "repeated clicks": share(found.repeated_clicks),
        "Gini of item clicks": f"{found.gini:.3f}",
    }
    entries = [element("div", element("dd", value), element("dt", title)) for title, value in facts.items()]
    about = paragraph(
        element("strong", name),
        ", prepared: training, validation and test together. A click is repeated if the "
        f"same item was clicked before in the session; {share(found.repeating_sessions)} of the sessions "
        "have such a click.",
    )
    return join([about, element("dl", *entries, class_="facts")])


def _steps(steps: Sequence[Mapping[str, Any]]) -> Html | None:
    """Return the table of the preparation: what was there after each step, and what the step dropped."""
    rows = []
    before: Mapping[str, Any] = {}
    for step in steps:
        why = str(step.get("why") or "")
        name = element("th", str(step.get("name", "step")), element("small", why) if why else "", scope="row")
        cells = []
        for what in ("clicks", "sessions", "items"):
            after = step.get(what)
            if after is None:
                cells += [cell(numbers.NOTHING), cell("")]
                continue
            lost = before.get(what, after) - after
            # Cutting users' clicks makes more sessions of the same clicks.
            change = "" if not lost else ("+" if lost < 0 else "") + share(abs(lost) / max(1, before[what]))
            cells += [cell(count(after)), cell(change, class_="number change")]
        rows.append([name, *cells])
        before = step
    if not rows:
        return None
    head = ["Step", "Clicks", "dropped", "Sessions", "dropped", "Items", "dropped"]
    return markup.table("What each step of the preparation left", head, rows)


def _bad_rows(info: Mapping[str, Any]) -> Html:
    bad = {str(reason): int(n) for reason, n in (info.get("bad_rows") or {}).items() if n}
    if not bad:
        return paragraph("No row of the log was unusable.") if "bad_rows" in info else Html()
    steps = info.get("steps") or ()
    rows = int(steps[0].get("clicks") or 0) if steps else 0
    table = [
        [reason, cell(count(n)), cell(share(n / rows) if rows else numbers.NOTHING)]
        for reason, n in bad.items()
    ]
    return markup.table("Unusable rows of the log", ["Reason", "Rows", "Share of the log"], table)


def _splits(dataset: Dataset) -> Html:
    rows = []
    for name, part in _parts(dataset).items():
        first, last = _period(part)
        rows.append(
            [
                name,
                count(len(part)),
                count(len(part.items)),
                count(part.n_pairs),
                cell(first, class_="date"),
                cell(last, class_="date"),
            ]
        )
    when = "First click (UTC)", "Last click (UTC)"
    if not dataset.sessions.clock:
        when = "First click (order)", "Last click (order)"
    head = ["Part", "Sessions", "Clicks", "Clicks to predict", *when]
    table = markup.table("The parts, in order of time", head, rows)
    a, b = dataset.known
    known = f"Training knows {numbers.plural(a, 'item')}"
    known += f", training and validation together {b:,}." if b != a else "."
    return join([table, paragraph(known, class_="hint")])


def _parts(dataset: Dataset) -> dict[str, Sessions]:
    parts = {"training": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return {name: part for name, part in parts.items() if len(part)}


def _period(part: Sessions) -> tuple[str, str]:
    first, last = int(part.times.min()), int(part.times.max())
    return (_time(first), _time(last)) if part.clock else (count(first), count(last))


def _time(microseconds: int) -> str:
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    except OverflowError:
        return count(microseconds)
    return f"{moment:%Y-%m-%d %H:%M}"


def _charts(dataset: Dataset, found: Statistics) -> Html:
    from nextclick.report import data_charts

    ten = share(found.share_of_top(0.1))
    charts = [
        figure(
            data_charts.lengths(found), "Session lengths.", "Short sessions leave a model little to go by."
        ),
        figure(
            data_charts.repeats(found),
            "Repeated items.",
            "Where visitors return to items they have seen, recommending those again scores well.",
        ),
        figure(
            data_charts.popularity(found),
            "Popularity.",
            f"The top tenth of the items draws {ten} of the clicks: the steeper the start, the stronger a "
            "model that only knows what is popular.",
        ),
    ]
    if found.density is not None:
        begins = {n: int(p.times.min()) for n, p in list(_parts(dataset).items())[1:]}
        charts.append(
            figure(
                data_charts.density(found.density, begins),
                "Clicks over time.",
                "Where training ends and the later parts begin.",
            )
        )
    else:
        charts.append(
            element(
                "p",
                "The log has no clock: its times only order the clicks, so there is no chart over time.",
                class_="hint",
            )
        )
    return element("div", *charts, class_="charts")


def _source(info: Mapping[str, Any]) -> Html | None:
    """Return the files, without their folders, and the options of the preparation, folded away."""
    rows = []
    for source in info.get("sources") or ():
        if isinstance(source, Mapping) and source.get("file"):
            rows.append(["file", str(source["file"]).replace("\\", "/").rsplit("/", 1)[-1]])
    for name, value in (info.get("options") or {}).items():
        if value is not None:
            rows.append([str(name), ", ".join(map(str, value)) if isinstance(value, list) else str(value)])
    for key in ("fingerprint", "package_version"):
        if info.get(key):
            rows.append([key.replace("_", " "), str(info[key])])
    if not rows:
        return None
    cells = [[name, cell(value, class_="wrap")] for name, value in rows]
    table = markup.table("Source and options of the preparation", ["Option", "Value"], cells)
    return element("details", element("summary", "Source and options of the preparation"), table)
