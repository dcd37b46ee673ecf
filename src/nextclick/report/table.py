"""The report as a table in the terminal: readable at 80 columns, in a pipe, and without colour."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nextclick.report import numbers
from nextclick.report.findings import Findings
from nextclick.report.markup import clean
from nextclick.results import ModelResult, Report

_ALWAYS = ("recall", "mrr", "ndcg", "coverage")


def print_report(report: Report, console: Console) -> None:
    """Print the models, best recall first, and the notes; further columns where the console is wide enough.

    The best of a column is bold and marked ``*``, one not significantly below it ``~``, so that both are seen
    without bold type too.
    """
    findings = Findings(report)
    columns = [findings.at(name) for name in _ALWAYS]
    room = console.options.update(width=10_000)
    for names in _wider(findings):
        more = [*columns[:-1], *names, columns[-1]]
        if console.measure(_table(findings, more), options=room).maximum > console.width:
            break
        columns = more
    events = numbers.plural(report.pairs, "prediction")
    title = f"{clean(report.dataset)}: {events} in {numbers.plural(report.sessions, 'session')}"
    console.print(Text(title, style="bold"))
    if report.target_event is not None:
        console.print(Text(clean(f"{report.predicted} is predicted from {report.seen}"), style="dim"))
    console.print(_table(findings, columns))
    if len(report.models) > 1:
        console.print(Text("* best   ~ not significantly below the best (recall, MRR)", style="dim"))
    if report.notes:
        notes = Table.grid(padding=(0, 1, 0, 0))
        for note in report.notes:
            notes.add_row("-", Text(clean(note)))
        console.print(notes)


def _wider(findings: Findings) -> list[list[str]]:
    """Columns to add while there is room: what only this protocol measures, then shorter lists."""
    own = [[findings.at(name)] for name in findings.accuracy if name not in _ALWAYS]
    return own + [[f"recall@{k}", f"mrr@{k}"] for k in findings.report.k[-2::-1]]


def _table(findings: Findings, columns: list[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("model", overflow="fold", min_width=8)
    for name in (*columns, "pred/s", "p50 ms"):
        title = name.partition("@")[0] if name == findings.at("coverage") else name
        table.add_column(title.replace("remaining_recall", "rem.rec") + " ", justify="right", no_wrap=True)
    models = findings.report.models
    fastest = max(result.predictions_per_second for result in models)
    quickest = min(result.latency_p50_ms for result in models)
    best = {name: findings.best(name) for name in columns}
    tied = {
        name: findings.tied(name) if name in (findings.at("recall"), findings.at("mrr")) else []
        for name in columns
    }
    for result in findings.ranked(findings.at("recall")):
        cells = [
            _cell(
                numbers.metric(findings.value(result, name), findings.decimals(name)),
                result,
                best[name],
                tied[name],
            )
            for name in columns
        ]
        speed, p50 = result.predictions_per_second, result.latency_p50_ms
        cells.append(_cell(numbers.short(speed), result, {result.name} if speed == fastest else set()))
        cells.append(_cell(numbers.milliseconds(p50), result, {result.name} if p50 == quickest else set()))
        table.add_row(Text(clean(result.name)), *cells)
    return table


def _cell(text: str, result: ModelResult, best: set[str], tied: list[str] | None = None) -> Text:
    if result.name in best:
        return Text(text + "*", style="bold")
    return Text(text + ("~" if result.name in (tied or ()) else " "))
