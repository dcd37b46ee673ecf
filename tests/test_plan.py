"""The plan: unit costs fitted to what was measured, sums written out, and where one machine ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import nextclick
import plan_tables
from nextclick import ArtifactError, ConfigError
from nextclick.cli import main
from nextclick.plan import logs, measuring
from nextclick.plan.costs import TERMS, Cost, Counts, UnitCosts, fitted
from nextclick.plan.estimate import FAMILIES, Machine, Plan, Step, duration, plan, size

ABOUT = {"date": "2026-01-01", "processor": "P", "cores": 4, "memory": 8 * 10**9, "command": "c"}
MACHINE = Machine(cores=2, memory=10**9, disk=10**9, hours=1.0, latency=0.01)


def cost(step: str, subject: str, quantity: str, **units: float) -> Cost:
    named = {name.replace("_x_", "*"): unit for name, unit in units.items()}
    return Cost(step, subject, quantity, named, ((1000, 10, 1.0),), 0.0)


COSTS = UnitCosts(
    ABOUT,
    (
        cost("prepare", "duckdb", "seconds", fixed=1.0, events=2e-6),
        cost("prepare", "duckdb", "memory", events=100.0),
        cost("prepare", "duckdb", "disk", events=20.0),
        cost("process", "narm", "memory", fixed=2e8),
        cost("fit", "narm", "seconds", fixed=3.0, events_x_items=1e-8),
        cost("fit", "narm", "memory", events=40.0, items=4000.0),
        cost("fit", "narm", "disk", items=400.0),
        cost("evaluate", "narm", "seconds", items=1e-8),
        cost("serve", "narm", "seconds", fixed=0.001, items=1e-8),
        cost("serve", "narm", "memory", items=1000.0),
        cost("fit", "markov", "seconds", events=1e-7),
        cost("fit", "markov", "memory", events=30.0),
        cost("serve", "markov", "seconds", fixed=1e-4),
    ),
)


def steps(found: Plan) -> dict[tuple[str, str], Step]:
    return {(step.step, step.subject): step for step in found.steps}


# -- the arithmetic, by hand


def test_every_figure_is_the_sum_that_is_written() -> None:
    found = steps(plan(Counts(1_000_000, 10_000), COSTS, MACHINE, ["narm"], predictions=5000))
    prepare, fit = found["prepare", "duckdb"], found["fit", "narm"]
    assert prepare.seconds == pytest.approx((1 + 2) / 2)
    assert [line.text for line in prepare.lines] == [
        "(1 s + 2 us x 1,000,000 events) / 2 cores = 1.5 s",
        "100 bytes x 1,000,000 events = 100 MB",
        "20 bytes x 1,000,000 events = 20 MB",
    ]
    assert fit.seconds == pytest.approx(10 * (3 + 100))  # narm has 10 epochs
    assert fit.memory == 2e8 + 4e7 + 4e7
    assert fit.lines[0].text == "(3 s + 10 ns x 1,000,000 events x 10,000 items) x 10 epochs = 17.2 min"
    assert fit.lines[1].text == (
        "200 MB of the process + 40 bytes x 1,000,000 events + 4 kB x 10,000 items = 280 MB"
    )
    assert found["evaluate", "narm"].seconds == pytest.approx(1e-4 * 5000 / 2)
    serve = found["serve", "narm"]
    assert serve.seconds == pytest.approx(0.0011)
    assert serve.memory == 2e8 + 1e7
    assert "909 a second" in serve.notes[0]
    assert all(step.fits for step in found.values())


def test_predictions_are_those_of_a_tenth_of_the_sessions() -> None:
    found = steps(plan(Counts(1_000_000, 10_000), COSTS, MACHINE, ["narm"]))
    assert found["evaluate", "narm"].seconds == pytest.approx(1e-4 * 80_000 / 2)  # 4 of 5 clicks of a session


def test_beyond_the_limits_it_says_what_to_do_and_where_they_are() -> None:
    found = steps(plan(Counts(30_000_000, 1_000_000), COSTS, MACHINE, ["narm", "markov"]))
    prepare = found["prepare", "duckdb"]
    assert prepare.memory == 0.6e9
    assert prepare.disk == 30e6 * 20 + (30e6 * 100 - 0.6e9)
    assert "spills the other 2.4 GB" in prepare.notes[0]
    assert "prepare --engine spark" in prepare.problems[0]
    # 120 bytes an event on disk and in memory, of 1 GB of disk and 0.6 GB of memory
    assert prepare.until == pytest.approx(1.6e9 / 120)
    fit = found["fit", "narm"]
    assert "gru4rec, whose loss draws items" in fit.problems[0]  # 833 hours
    fewer = steps(plan(Counts(1_000_000, 1_000_000), COSTS, MACHINE, ["narm"]))["fit", "narm"]
    assert "28 processes under torchrun" in fewer.problems[0]  # 100,030 seconds
    assert "narrower vectors" in fit.problems[1]
    assert fit.until == 0  # the items alone are too many for the memory
    assert "nextclick index" in found["serve", "narm"].problems[0]
    markov = found["fit", "markov"]
    assert not markov.problems or "prepare --recent" in markov.problems[0]
    assert markov.until == pytest.approx(1e9 / 30)


@given(
    events=st.integers(1000, 10**9),
    items=st.integers(1, 1000),
    memory=st.integers(10**8, 10**13),
    disk=st.integers(10**8, 10**13),
    hours=st.floats(0.01, 1000),
)
def test_until_is_where_one_machine_ends(
    events: int, items: int, memory: int, disk: int, hours: float
) -> None:
    """Just below it fits, just above it does not, for every step that has an end."""
    machine = Machine(2, memory, disk, hours, 1.0)
    for step in plan(Counts(events, items), COSTS, machine, ["narm", "markov"]).steps:
        if step.step == "evaluate" or step.until is None:
            continue
        for factor, fits in ((0.99, True), (1.01, False)):
            other = round(step.until * factor)
            if other < max(items, 1) or abs(other - step.until) < 1:
                continue
            again = steps(plan(Counts(other, items), COSTS, machine, ["narm", "markov"]))
            assert again[step.step, step.subject].fits == fits, (step.step, step.subject, other)


def test_a_fit_beyond_the_memory_is_sent_to_an_engine() -> None:
    """Only the models that have one; and the command that it names takes them."""
    machine = Machine(cores=2, memory=10**8, disk=10**10, hours=0.001)
    found = steps(plan(Counts(10**9, 10**6), UnitCosts.shipped(), machine, list(nextclick.MODELS)))
    for name, model in nextclick.MODELS.items():
        problems = found["fit", name].problems
        too_long, too_large = (
            next(problem for problem in problems if what in problem)
            for what in ("takes ", "of memory of 100 MB")
        )
        assert ("fit --engine duckdb, which spills to disk" in too_large) == model.fits_by_engine, name
        assert ("fit --engine spark on a cluster" in too_long) == model.fits_by_engine, name
    assert {"item-knn", "vmis-knn"} == {
        name for name in nextclick.MODELS if nextclick.MODELS[name].fits_by_engine
    }


def test_what_is_extrapolated_is_said() -> None:
    assert plan(Counts(5000, 5), COSTS, MACHINE, ["markov"]).beyond == (5.0, 0.5)


@pytest.mark.parametrize(
    ("counts", "machine", "models", "message"),
    [
        (Counts(0, 1), MACHINE, [], "expected at least 1"),
        (Counts(5, 6), MACHINE, [], "6 items are more than 5 events"),
        (Counts(5, 5), Machine(1, 0, 1), [], "above zero"),
        (Counts(5, 5), MACHINE, ["nram"], "did you mean 'narm'"),
        (Counts(5, 5), MACHINE, ["stan"], r"stan has no unit costs .* --measure --model stan"),
    ],
)
def test_bad_sizes_are_refused(counts: Counts, machine: Machine, models: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(counts, COSTS, machine, models)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 ns"), (2e-9, "2 ns"), (8.13e-6, "8.13 us"), (0.05, "50 ms"), (119, "119 s"), (300, "5 min"),
     (36_000, "10 h"), (864_000, "10 days"), (3.15576e9, "100 years")],
)  # fmt: skip
def test_times_as_one_reads_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 bytes"), (40, "40 bytes"), (1234, "1.23 kB"), (48e9, "48 GB"), (2e15, "2 PB")]
)
def test_bytes_as_one_reads_them(number: float, text: str) -> None:
    assert size(number) == text


# -- fitting and keeping unit costs


@given(
    units=st.lists(st.floats(0, 1e-3), min_size=4, max_size=4),
    sizes=st.lists(st.tuples(st.integers(10, 10**6), st.integers(10, 10**5)), min_size=4, max_size=6),
)
def test_unit_costs_never_fall_below_zero_and_fit_what_they_can(
    units: list[float], sizes: list[tuple[int, int]]
) -> None:
    true = dict(zip(TERMS, units, strict=True))
    measured = [(Counts(*of), sum(u * Counts(*of).of(t) for t, u in true.items()) + 1e-6) for of in sizes]
    found = fitted("fit", "x", "seconds", TERMS, measured)
    assert all(unit > 0 for unit in found.units.values())
    assert found.error < 1e-3  # what has these terms is found again
    for of, value in measured:
        assert found.at(of) == pytest.approx(value, rel=max(found.error * 1.01, 1e-4))


def test_the_best_fit_is_that_of_a_slow_search() -> None:
    measured = [(Counts(10, 5), 3.0), (Counts(100, 5), 9.0), (Counts(10, 50), 4.0), (Counts(90, 40), 11.0)]
    found = fitted("fit", "x", "seconds", ("fixed", "events", "items"), measured)

    def loss(fixed: float, events: float, items: float) -> float:
        return sum(((fixed + events * c.events + items * c.items) / v - 1) ** 2 for c, v in measured)

    best = loss(*(found.units.get(term, 0.0) for term in ("fixed", "events", "items")))
    grid = np.linspace(0, 1, 41)
    assert best <= min(loss(4 * a, 0.2 * b, 0.2 * c) for a in grid for b in grid for c in grid) + 1e-9


def test_unit_costs_are_kept_as_they_are(tmp_path: Path) -> None:
    COSTS.write(tmp_path / "costs.json")
    again = UnitCosts.read(tmp_path / "costs.json")
    assert again.costs == COSTS.costs
    assert again.models == ("narm", "markov")
    assert again.engines == ("duckdb",)
    assert {**again.about, "format": 1} == {**ABOUT, "format": 1}


@pytest.mark.parametrize("damage", ["none", "cut", "format", "version", "negative", "term", "list"])
def test_damaged_unit_costs_are_refused(damage: str, tmp_path: Path) -> None:
    file = tmp_path / "costs.json"
    if damage != "none":
        COSTS.write(file)
        content = json.loads(file.read_text("utf-8"))
        changed: Any = content
        if damage == "format":
            content["format"] = "else"
        elif damage == "version":
            content["format_version"] = 99
        elif damage == "negative":
            content["costs"][0]["units"]["events"] = -1.0
        elif damage == "term":
            content["costs"][0]["units"] = {"clicks": 1.0}
        elif damage == "list":
            changed = [1]
        text = json.dumps(changed)
        file.write_text(text[:-30] if damage == "cut" else text, "utf-8")
    with pytest.raises(ArtifactError, match=r"costs\.json: .*nextclick plan --measure --costs"):
        UnitCosts.read(file)


def test_the_shipped_costs_are_of_all_models_and_both_engines() -> None:
    shipped = UnitCosts.shipped()
    assert set(shipped.models) == set(nextclick.MODELS)
    assert shipped.engines == ("duckdb", "spark")
    for model in shipped.models:
        for step, quantity in [
            ("process", "memory"), ("fit", "seconds"), ("fit", "memory"), ("fit", "disk"),
            ("evaluate", "seconds"), ("serve", "seconds"), ("serve", "memory"),
        ]:  # fmt: skip
            found = shipped.find(step, model, quantity)
            assert found is not None, (step, model, quantity)
            rows = [(Counts(events, items), value) for events, items, value in found.measured]
            again = fitted(step, model, quantity, found.units, rows)
            for counts, _ in rows:
                assert again.at(counts) == pytest.approx(found.at(counts), rel=1e-3)


def test_the_page_is_up_to_date() -> None:
    page = plan_tables.PAGE.read_text("utf-8")
    assert page == plan_tables.filled(page), "run python benchmarks/plan_tables.py"


# -- measuring


@pytest.mark.parametrize("items", [7, 500])
def test_logs_are_of_the_size_and_shape_that_is_said(items: int) -> None:
    made = logs.sessions(Counts(20_000, items))
    assert made.n_items == items
    assert 0 <= made.items.min() <= made.items.max() < items
    assert made.lengths.min() >= 2
    assert made.lengths.mean() == pytest.approx(logs.CLICKS, rel=0.05)
    assert len(made.items) == pytest.approx(20_000, rel=0.05)
    follows = np.diff(made.items)[np.diff(made.session_of) == 0] % items
    if items > 100:
        assert 0.5 < np.isin(follows, np.arange(1, 21)).mean() < 0.7
    again = logs.sessions(Counts(20_000, items))
    assert np.array_equal(made.items, again.items)


def test_models_are_measured_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(measuring, "grid_of", lambda subject, quick: ((3000, 200), (9000, 400)))
    told: list[tuple[str, int, int]] = []
    found = measuring.measure(
        ["duckdb", "markov", "gru4rec"], quick=False, command="c", progress=lambda *what: told.append(what)
    )
    assert told == [("duckdb", 0, 3), ("markov", 1, 3), ("gru4rec", 2, 3), ("measured", 3, 3)]
    assert found.models == ("markov", "gru4rec")
    assert found.engines == ("duckdb",)
    base = found.find("process", "markov", "memory")
    assert base is not None
    assert 2e7 < base.at(Counts(1, 1)) < 2e9  # an interpreter with what it has loaded
    disk = found.find("fit", "markov", "disk")
    assert disk is not None
    fit = found.find("fit", "markov", "seconds")
    assert fit is not None
    assert all(0 < value < 60 for _, _, value in fit.measured)
    memory = found.find("fit", "gru4rec", "memory")
    assert memory is not None
    sizes = [(3000, 200), (9000, 400), (112_500, 1000), (450_000, 1000)]  # the last ones only begun
    assert [row[:2] for row in memory.measured] == sizes
    # Under 1,000 bytes a click; a unit too slight to tell is left out.
    assert memory.at(Counts(10**6, 1000)) - memory.at(Counts(0, 1000)) < 1e9
    estimate = plan(Counts(10**6, 10**4), found, MACHINE, ["markov"])
    assert steps(estimate)["fit", "markov"].seconds > 0


def test_a_measuring_that_ends_early_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Process:
        """Ends as a process that was killed for its memory does."""

        exitcode = -9

        def __init__(self, target: Any, args: Any, daemon: bool) -> None:
            self.pipe = args[0]

        def start(self) -> None:
            self.pipe.close()

        def is_alive(self) -> bool:
            return False

        def join(self) -> None: ...

    context = measuring.multiprocessing.get_context("spawn")
    monkeypatch.setattr(type(context), "Process", Process)
    with pytest.raises(ConfigError, match=r"measuring markov: the process ended with -9"):
        measuring.measure(["markov"])


# -- the command


def test_the_command_prints_a_table_with_the_arithmetic() -> None:
    done = CliRunner().invoke(
        main, ["plan", "--events", "2.3G", "--items", "20M", "--memory", "64GB"], catch_exceptions=False
    )
    assert done.exit_code == 0
    assert "2,300,000,000 events, 20,000,000 items" in done.output
    assert "with 64 GB of memory" in done.output
    assert "extrapolated beyond the largest measurement: events x" in done.output
    for name in FAMILIES:
        assert f"\nfit {name}\n" in done.output
    assert "too much for one machine" in done.output


def test_the_command_prints_json() -> None:
    words = ["plan", "--events", "50_000", "--items", "1k", "--model", "markov", "--model", "pop", "--json"]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    content = json.loads(done.stdout)
    assert (content["events"], content["items"]) == (50_000, 1000)
    assert {step["subject"] for step in content["steps"]} == {"duckdb", "spark", "markov", "pop"}
    fit = next(step for step in content["steps"] if (step["step"], step["subject"]) == ("fit", "pop"))
    assert fit["one_machine"]
    assert fit["arithmetic"][0].startswith("seconds: ")
    assert content["measured"]["processor"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--events", "5M"], "--events and --items go together"),
        ([], "say how large the log is"),
        (["--events", "many", "--items", "5"], "'many' is no number such as"),
        (["--events", "0", "--items", "5"], "'0' is no number"),
        (["--events", "5M", "--items", "5k", "--model", "vsknn"], "did you mean 'vs-knn'"),
        (["--events", "5M", "--items", "5k", "--costs", "none.json"], "none.json: no such file"),
    ],
)
def test_the_command_refuses(words: list[str], message: str) -> None:
    done = CliRunner().invoke(main, ["plan", *words])
    assert done.exit_code != 0
    assert message in done.output


def test_the_command_measures_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "grid_of", lambda subject, quick: ((3000, 200), (9000, 400)))
    monkeypatch.setattr(measuring, "subjects_here", lambda models: list(models))
    file = tmp_path / "costs.json"
    words = ["plan", "--measure", "--costs", str(file), "--model", "pop", "--events", "1M", "--items", "1k"]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = UnitCosts.read(file)
    seconds = found.find("fit", "pop", "seconds")
    assert seconds is not None
    assert {row[:2] for row in seconds.measured} == {(3000, 200), (9000, 400)}
    assert found.find("fit", "pop", "memory") == UnitCosts.shipped().find("fit", "pop", "memory")
    assert "fit pop" in done.output
