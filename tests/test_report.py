from __future__ import annotations

import dataclasses
import io
import itertools
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import nextclick
from nextclick.dataset import Dataset
from nextclick.errors import DataError, MissingExtraError
from nextclick.report import describe, numbers, print_report, two_stages, write_html
from nextclick.report.drawing import shortened, spread
from nextclick.report.findings import Findings
from nextclick.results import Comparison, ModelResult, Report, Slice
from nextclick.sessions import Sessions
from synthetic import chain

EVIL = "<script>alert('x')</script> & $x_1$ \x00"
PREFIXES = {"1": 400, "2": 300, "3": 200, "4": 120, "5": 90, "6-10": 60, "11-20": 30, "21+": 3}
POPULARITY = {"top 1%": 500, "1-10%": 400, "10-50%": 200, "50-100%": 93, "unseen": 10}


class Page(HTMLParser):
    """Collects what a page holds; fails on a tag that is not closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.open, f"<{tag}/> closes itself in SVG only"
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)


def model(name: str, at: float, protocol: str = "next", ks: tuple[int, ...] = (1, 5, 20)) -> ModelResult:
    kinds = ["recall", "mrr", "ndcg"]
    if protocol == "remaining":
        kinds += ["precision", "remaining_recall", "map"]
    values = {f"{kind}@{k}": at * (1 - 0.1 * i) * k / 20 for i, kind in enumerate(kinds) for k in ks}
    bounds = {key: (value - 0.01, value + 0.01) for key, value in values.items()}
    k = ks[-1]
    more = {
        f"coverage@{k}": at / 2,
        f"gini@{k}": 0.9 - at / 3,
        f"popularity@{k}": 900.0 * at,
        f"tie_spread@{k}": 0,
    }
    parts = {
        "prefix length": PREFIXES,
        "target popularity": POPULARITY,
        "target": {"repeated": 300, "new": 903},
    }
    slices = {
        kind: [Slice(label, n, values) for label, n in labels.items()] for kind, labels in parts.items()
    }
    return ModelResult(
        name,
        "",
        "markov",
        {"k": 100, "decay": "linear"},
        values | more,
        bounds,
        slices,
        1234.5 * (1 + at),
        0.5,
        12.25,
    )


def compare(a: ModelResult, b: ModelResult, metric: str, p: float) -> Comparison:
    difference = a.metrics[metric] - b.metrics[metric]
    return Comparison(a.name, b.name, metric, difference, difference - 0.02, difference + 0.02, p)


def report_of(n: int, protocol: str = "next", ks: tuple[int, ...] = (1, 5, 20), **changes: Any) -> Report:
    models = tuple(model(f"model {i}", 0.7 - 0.03 * i, protocol, ks) for i in range(n))
    if "names" in changes:
        names = changes.pop("names")
        models = tuple(dataclasses.replace(m, name=name) for m, name in zip(models, names, strict=True))
    compared = [
        compare(a, b, metric, 0.04 if j else 0.2)
        for metric in (f"recall@{ks[-1]}", f"mrr@{ks[-1]}")
        for i, a in enumerate(models)
        for j, b in enumerate(models[i + 1 :])
    ]
    made = Report(
        "shop",
        1203,
        320,
        ks,
        protocol,
        "miss",
        10,
        None,
        "expected",
        500,
        models,
        tuple(compared),
        ("Mind the gap.",),  # type: ignore[arg-type]
    )
    return dataclasses.replace(made, **changes)


def dataset_of(clock: bool = True, info: dict[str, Any] | None = None, name: str = "shop") -> Dataset:
    rng = np.random.default_rng(3)
    lists = [rng.zipf(1.5, n).clip(1, 60).tolist() for n in rng.integers(2, 9, 80)]
    n = sum(map(len, lists))
    hour = 3_600_000_000
    sessions = Sessions.from_lists(lists, np.arange(n) * hour + 1_396_310_400_000_000 if clock else None)
    return Dataset(
        name,
        sessions,
        (50, 60, 80),
        (sessions.n_items - 2, sessions.n_items),
        {"fingerprint": "0" * 64, **(info or {})},
    )


INFO: dict[str, Any] = {
    "steps": [
        {"name": "read", "why": "rows of the log", "sessions": 1000, "clicks": 4000, "items": 90},
        {"name": "usable", "sessions": 1000, "clicks": 3996, "items": 90},
        {"name": "item support", "why": EVIL, "sessions": 870, "clicks": 3000, "items": 60},
    ],
    "bad_rows": {"no item": 4},
    "warnings": [f"the order of clicks is not known {EVIL}"],
    "options": {"min_length": 2, "events": ["view", "buy"], "recent": None},
    "sources": [{"file": "somewhere/else/clicks.csv", "bytes": 9}],
}


def html(tmp_path: Path, report: Report, dataset: Dataset | None = None, **options: Any) -> tuple[str, Page]:
    path = tmp_path / "report.html"
    write_html(report, path, dataset, **options)
    text = path.read_text("utf-8")
    page = Page(text)
    assert "http:" not in text
    assert "https:" not in text
    assert re.search(r"\b(nan|inf)\b", " ".join(page.text), re.IGNORECASE) is None
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for tag, name, value in page.attributes:
        if name in ("src", "href") or (name == "style" and "url(" in value):
            assert value.startswith("#") or "url(#" in value, (tag, name, value)
            target = re.search(r"#([^)\s]+)", value)
            assert target is not None
            assert target[1] in ids
        if (tag, name) in {("svg", "aria-label"), ("th", "scope")}:
            assert value
    assert page.tags["script"] == 1
    assert len(text) < 500_000
    return text, page


# -- the page


@pytest.mark.parametrize("protocol", ["next", "remaining"])
def test_shows_every_model_and_every_value(tmp_path: Path, protocol: str) -> None:
    report = report_of(5, protocol)
    _, page = html(tmp_path, report, dataset_of(info=INFO))
    shown = " ".join(page.text)
    for result in report.models:
        assert result.name in shown
        for name, value in result.metrics.items():
            if not name.startswith(("popularity", "tie_spread")):
                assert f"{value:.3f}" in shown or f"{value:.4f}" in shown, name
        for low, high in result.intervals.values():
            assert f"[{low:.3f}, {high:.3f}]" in shown or f"[{low:.4f}, {high:.4f}]" in shown
    assert "Mind the gap." in shown
    assert "24.9%" in shown  # of the clicks, dropped by item support
    assert page.tags["svg"] >= 12


@pytest.mark.parametrize(("n", "ks"), [(1, (1, 5, 20)), (2, (20,)), (12, (1, 5, 20))])
def test_works_with_few_and_many_models(tmp_path: Path, n: int, ks: tuple[int, ...]) -> None:
    _, page = html(tmp_path, report_of(n, ks=ks))
    assert "model 0" in " ".join(page.text)


def test_escapes_what_users_name(tmp_path: Path) -> None:
    report = report_of(2, names=[EVIL, "b" * 90], dataset=EVIL, notes=(EVIL,))
    evil = dataclasses.replace(report.models[0], settings={EVIL: EVIL}, model=EVIL)
    report = dataclasses.replace(report, models=(evil, report.models[1]))
    text, page = html(tmp_path, report, dataset_of(info=INFO | {"bad_rows": {EVIL: 3}}, name=EVIL))
    assert "<script>alert" not in text
    assert "\x00" not in text
    assert "<script>alert('x')</script>" in " ".join(page.text)


def test_warns_of_restricted_candidates(tmp_path: Path) -> None:
    _, page = html(tmp_path, report_of(3, candidates=100), pictures=False)
    assert "overestimate" in " ".join(page.text)
    _, page = html(tmp_path, report_of(3), pictures=False)
    assert "overestimate" not in " ".join(page.text)


def test_shows_the_data_without_a_clock_and_without_info(tmp_path: Path) -> None:
    _, page = html(tmp_path, report_of(2), dataset_of(clock=False))
    shown = " ".join(page.text)
    assert "no clock" in shown
    assert "1970" not in shown


def test_shows_bad_rows_warnings_and_options_but_no_folders(tmp_path: Path) -> None:
    text, page = html(tmp_path, report_of(2), dataset_of(info=INFO), pictures=False)
    shown = " ".join(page.text)
    assert "no item" in shown
    assert "the order of clicks is not known" in shown
    assert "view, buy" in shown
    assert "clicks.csv" in shown
    assert "somewhere" not in text


def test_degenerate_figures_do_not_break_it(tmp_path: Path) -> None:
    report = report_of(3)
    nothing = [
        dataclasses.replace(
            result,
            metrics=dict.fromkeys(result.metrics, 0.0) | {"mrr@20": float("nan")},
            intervals=dict.fromkeys(result.intervals, (0.0, 0.0)),
            slices={},
            predictions_per_second=0.0,
        )
        for result in report.models
    ]
    html(tmp_path, dataclasses.replace(report, models=tuple(nothing), comparisons=()))


def test_equal_input_gives_equal_bytes_and_leaves_no_settings(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    first, _ = html(tmp_path, report_of(2), dataset_of(info=INFO))
    second, _ = html(tmp_path, report_of(2), dataset_of(info=INFO))
    assert first == second
    assert dict(matplotlib.rcParams) == before


def test_extra_sections_are_inserted_as_they_are(tmp_path: Path) -> None:
    text, page = html(
        tmp_path, report_of(2), extra=[("Two stages & more", "<p>The <em>gain</em>.</p>")], pictures=False
    )
    assert "<p>The <em>gain</em>.</p>" in text
    assert "Two stages & more" in page.text
    assert text.index("<em>gain") < text.index("How it was measured</h2>")


def test_without_matplotlib_pictures_are_refused_and_the_rest_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"nextclick\[report\]"):
        write_html(report_of(2), tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
    _, page = html(tmp_path, report_of(2), dataset_of(info=INFO), pictures=False)
    assert page.tags["svg"] == 0


def test_importing_the_report_does_not_load_matplotlib() -> None:
    code = "import sys, nextclick.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- findings and numbers


def test_headline_says_who_leads_and_whether_that_is_sure() -> None:
    sentences = " ".join(Findings(report_of(3)).headline())
    assert "<b>model 0</b> has the highest recall@20, 0.700 [0.690, 0.710]" in sentences
    assert "70 times out of 100" in sentences
    assert "is not significant (+0.030, p = 0.200)" in sentences
    assert "also has the highest MRR@20" in sentences


def test_differences_can_be_asked_either_way() -> None:
    findings = Findings(report_of(2))
    there = findings.difference("recall@20", "model 0", "model 1")
    back = findings.difference("recall@20", "model 1", "model 0")
    assert there is not None
    assert back is not None
    assert (back.difference, back.low, back.high) == (-there.difference, -there.high, -there.low)
    assert findings.tied("recall@20") == ["model 1"]
    assert findings.best("gini@20", lowest=True) == {"model 0"}


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (7.25, "7"), (999.6, "1.00k"), (57_400, "57.4k"), (1_104_745, "1.10M")]
)
def test_large_numbers_in_three_digits(value: float, text: str) -> None:
    assert numbers.short(value) == text


def test_shares_never_hide_that_there_is_something() -> None:
    assert [numbers.share(x) for x in (0, 1e-6, 0.1234, 0.99999, 1)] == [
        "0.0%",
        "<0.1%",
        "12.3%",
        ">99.9%",
        "100.0%",
    ]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20))
def test_spread_keeps_gap_order_and_bounds(wanted: list[float]) -> None:
    placed = spread(wanted, 4.0, 0.0, 100.0)
    assert min(placed) >= -1e-6
    assert max(placed) <= 100 + 1e-6
    in_order = [placed[i] for i in sorted(range(len(wanted)), key=lambda i: wanted[i])]
    assert all(b - a >= 4 - 1e-6 for a, b in itertools.pairwise(in_order))


def test_spread_leaves_alone_what_has_room() -> None:
    assert spread([50.0, 10.0, 30.0], 5, 0, 100) == [50.0, 10.0, 30.0]


def test_long_names_are_shortened_for_charts() -> None:
    assert shortened("short") == "short"
    assert len(shortened("x" * 80)) == 22


# -- statistics


@given(st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=9), min_size=1, max_size=15))
def test_statistics_agree_with_slow_counts(lists: list[list[int]]) -> None:
    found = describe(Sessions.from_lists(lists))
    lengths = [len(one) for one in lists]
    repeated = [len(one) - len(set(one)) for one in lists]
    counts = sorted(Counter(item for one in lists for item in one).values(), reverse=True)
    assert (found.sessions, found.clicks, found.items) == (len(lists), sum(lengths), len(counts))
    assert found.pairs == sum(n - 1 for n in lengths)
    assert found.mean_length == pytest.approx(np.mean(lengths))
    assert found.median_length == np.median(lengths)
    assert found.lengths.tolist() == [lengths.count(n) for n in range(max(lengths) + 1)]
    assert found.repeated_clicks == pytest.approx(sum(repeated) / sum(lengths))
    assert found.repeating_sessions == pytest.approx(np.mean([r > 0 for r in repeated]))
    bounds = [(-1, 0), (0, 0.1), (0.1, 0.25), (0.25, 0.5), (0.5, 1)]
    own = [r / n for r, n in zip(repeated, lengths, strict=True)]
    assert found.repeats.tolist() == [sum(low < r <= high for r in own) for low, high in bounds]
    assert found.popularity.tolist() == counts
    apart = sum(abs(a - b) for a in counts for b in counts)
    assert found.gini == pytest.approx(apart / (2 * len(counts) * sum(counts)))
    assert found.density is None


def test_density_counts_every_click_once() -> None:
    day = 86_400_000_000
    found = describe(
        Sessions.from_lists([[1, 2], [3, 1, 2]], [0, day // 2, 5 * day, 5 * day + 1, 20 * day])
    ).density
    assert found is not None
    assert found.unit == "day"
    assert found.counts.tolist() == [2, 0, 0, 0, 0, 2] + 14 * [0] + [1]


def test_statistics_of_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="no click"):
        describe(Sessions.from_lists([[1]])[:0])


# -- the terminal


def printed(report: Report, width: int) -> str:
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=width))
    return stream.getvalue()


def test_table_fits_eighty_columns_and_a_pipe() -> None:
    text = printed(report_of(3), 80)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "\x1b" not in text
    assert "…" not in text
    head = next(line for line in text.splitlines() if line.startswith("model"))
    assert head.split() == ["model", "recall@20", "mrr@20", "ndcg@20", "coverage", "pred/s", "p50", "ms"]
    rows = [line.split() for line in text.splitlines() if line.startswith("model ")][1:]
    assert rows[0] == ["model", "0", "0.700*", "0.630*", "0.560*", "0.350*", "2.10k*", "0.50*"]
    assert rows[1][2] == "0.670~"
    assert rows[2][2] == "0.640"
    assert "- Mind the gap." in text


def test_a_wide_terminal_shows_more() -> None:
    text = printed(report_of(3), 120)
    assert "recall@5" in text
    assert all(len(line) <= 120 for line in text.splitlines())
    assert "precision@20" in printed(report_of(3, "remaining"), 120)


def test_names_are_no_markup_and_not_cut() -> None:
    long = "a" * 30 + "[red]" + "z" * 30
    text = printed(report_of(2, names=[long, "[/bold]"]), 80)
    assert "".join(line.split(" ")[0] for line in text.splitlines() if line[0] in "az[]r")[:65].startswith(
        "a" * 10
    )
    assert "[/bold]" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_one_model_in_the_terminal() -> None:
    assert "not significantly" not in printed(report_of(1), 80)


def test_two_stages_say_what_is_gained_over_each_generator() -> None:
    train = chain(20, 90, noise=0.3, seed=1)
    test = chain(20, 40, noise=0.3, seed=2)
    first, second = nextclick.Markov().fit(train), nextclick.Popularity().fit(train)
    both = nextclick.Blend([first, second], weights="1,1").fit(train)
    report = nextclick.evaluate({"markov": first, "pop": second, "both": both}, test)
    page = two_stages(report, ["both"], ["markov", "pop"])
    assert "both put into one list what markov and pop recommend" in page
    assert page.count("<tr>") == 4
    (found,) = (
        c for c in report.comparisons if {c.first, c.second} == {"pop", "both"} and c.metric == "mrr@20"
    )
    gain = abs(found.difference)
    assert f"+{gain:.3f}" in page
    assert 'class="number above"' in page
