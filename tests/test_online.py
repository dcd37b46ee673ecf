"""Online experiments: who sees what, what is kept of it, and what the figures promise."""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import nextclick
from nextclick.cli import main
from nextclick.errors import ConfigError, DataError
from nextclick.online import statistics
from nextclick.online.records import Recorder, read_records
from nextclick.online.replay import replay
from nextclick.online.report import report
from nextclick.online.running import Running
from nextclick.online.statistics import Arm, compare
from nextclick.online.trial import Trial, place
from nextclick.online.visitors import Visits, answers_of, simulate
from nextclick.shop import ShopConfig
from nextclick.shop import simulate as shop
from serving import client, saved

TWO = {
    "name": "t",
    "variant": [{"name": "a", "model": "m", "share": 0.5}, {"name": "b", "model": "n", "share": 0.5}],
}


# -- who sees what


def test_sessions_stay_are_shared_out_and_other_salts_are_independent() -> None:
    sessions = [f"s{n}" for n in range(40_000)]
    shares = (0.2, 0.3, 0.5)
    first = np.array([place("salt", session, shares) for session in sessions])
    again = np.array([place("salt", session, shares) for session in sessions])
    assert np.array_equal(first, again)
    assert statistics.mismatch(np.bincount(first).tolist(), shares) > 1e-4
    other = np.array([place("other", session, shares) for session in sessions])
    together = np.array([[np.sum((first == i) & (other == j)) for j in range(3)] for i in range(3)])
    wanted = np.outer(shares, shares).ravel().tolist()
    assert statistics.mismatch(together.ravel().tolist(), wanted) > 1e-4


def test_the_assignment_is_written_down() -> None:
    """By which an experiment goes on over restarts and upgrades."""
    assert [place("salt", f"s{n}", (0.5, 0.5)) for n in range(12)] == ASSIGNED


ASSIGNED = [1, 0, 0, 1, 1, 0, 1, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": ""}, "name is missing"),
        ({"variant": TWO["variant"][:1]}, "at least two"),
        ({"variant": [TWO["variant"][0]] * 2}, "one name"),
        ({"variant": [TWO["variant"][0], {**TWO["variant"][1], "share": 0.6}]}, "add up to 1.1"),
        ({"variant": [TWO["variant"][0], {**TWO["variant"][1], "share": True}]}, "between 0 and 1"),
        ({"variant": [TWO["variant"][0], {**TWO["variant"][1], "sahre": 0.5}]}, "did you mean 'share'"),
        ({"variant": [TWO["variant"][0], {**TWO["variant"][1], "rules": "none.toml"}]}, "no such file"),
        ({"salt": 5}, "salt"),
        ({"variants": []}, "did you mean 'variant'"),
    ],
)
def test_a_wrong_file_is_said(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Trial.of({**TWO, **change})


# -- figures


def test_a_rate_and_its_error_by_hand() -> None:
    """Sessions of 1, 2 and 3 lists with 1, 0 and 2 clicks: R = 3/6, spreads 1/2, -1, 1/2."""
    arm = Arm.of(np.array([0, 1, 1, 2, 2, 2]), np.array([True, False, False, True, True, False]))
    assert (arm.sessions, arm.lists, arm.clicked, arm.with_click, arm.rate) == (3, 6, 3, 2, 0.5)
    assert arm.error == pytest.approx(math.sqrt((0.25 + 1 + 0.25) / 2 / 3 / 4))


def test_errors_are_those_of_the_bootstrap() -> None:
    rng = np.random.default_rng(1)
    n = rng.geometric(0.3, 3000).astype(float)
    c = rng.binomial(n.astype(int), rng.beta(1, 9, 3000)).astype(float)
    drawn = rng.integers(0, 3000, (2000, 3000))
    rates = c[drawn].sum(1) / n[drawn].sum(1)
    assert Arm.from_sessions(n, c).error == pytest.approx(rates.std(), rel=0.06)


@given(st.floats(0.05, 60), st.integers(1, 9))
def test_the_chi_squared_tail_is_its_integral(x: float, degrees: int) -> None:
    grid = np.linspace(x, x + 400, 400_001)
    density = np.exp((degrees / 2 - 1) * np.log(grid / 2) - grid / 2 - math.lgamma(degrees / 2)) / 2
    assert statistics.chi_squared_tail(x, degrees) == pytest.approx(np.trapezoid(density, grid), abs=1e-5)


def sessions_of(rng: np.random.Generator, m: int, raised: float = 0.0) -> tuple[Any, Any]:
    """Sessions that differ in length and in how gladly they click; ``raised``: relatively more of it."""
    n = rng.geometric(0.3, m)
    glad = np.minimum(rng.beta(1.5, 10, m) * (1 + raised), 1.0)
    return n.astype(float), rng.binomial(n, glad).astype(float)


def test_the_same_against_the_same_is_rejected_as_often_as_said() -> None:
    rng = np.random.default_rng(3)
    tests = [compare(*(Arm.from_sessions(*sessions_of(rng, 1500)) for _ in range(2))) for _ in range(2000)]
    rejected = np.mean([test.p < 0.05 for test in tests])
    assert 0.035 <= rejected <= 0.065
    held = np.mean([test.low <= 0 <= test.high for test in tests])
    assert held == pytest.approx(1 - rejected)


def test_an_uplift_is_found_as_often_as_the_power_says() -> None:
    rng = np.random.default_rng(4)
    found, said, covered = [], [], []
    for _ in range(600):
        a, b = Arm.from_sessions(*sessions_of(rng, 5000)), Arm.from_sessions(*sessions_of(rng, 5000, 0.1))
        test = compare(a, b)
        found.append(test.p < 0.05 and test.relative > 0)
        said.append(test.power(0.1))
        covered.append(test.low <= 0.1 <= test.high)
    assert np.mean(found) == pytest.approx(np.mean(said), abs=0.05)
    assert 0.3 < np.mean(said) < 0.95
    assert np.mean(covered) == pytest.approx(0.95, abs=0.025)
    test = compare(a, b)
    assert statistics.Uplift(
        test.relative, 0, 0, 0, test.error / math.sqrt(test.times_the_data(0.1)), True
    ).power(0.1) == pytest.approx(0.8, abs=0.001)


def test_clicks_of_one_session_are_not_taken_for_many() -> None:
    """One session that clicks a thousand times is one session."""
    session = np.r_[np.zeros(1000, int), np.arange(1, 101)]
    many = Arm.of(session, np.r_[np.ones(1000, bool), np.zeros(100, bool)])
    assert many.error > 0.05
    none = Arm.of(np.arange(50), np.zeros(50, bool))
    assert compare(none, many).p == 1.0
    assert not compare(none, many).enough
    assert Arm.of(np.array([]), np.array([])).lists == 0
    assert compare(Arm.of(np.zeros(3, int), np.ones(3, bool)), many).p > 0.5


# -- records


def test_records_are_read_back_once_and_torn_lines_are_counted(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    for n in range(6):
        recorder.shown(
            "t",
            f"s{n // 2}",
            "ab"[n // 2 % 2],
            f"r{n}",
            ["x"],
            {"market": "de"} if n else {},
            at=86_400.0 * n,
        )
    for _ in range(2):
        recorder.clicked("t", "s0", "r1", "e", "x", {}, at=86_500.0)
    recorder.clicked("t", "s0", "r99", "e", "x", {})
    recorder.shown("other", "s0", "a", "r7", [], {})
    recorder.close()
    assert len(list(tmp_path.iterdir())) == 8
    with next(iter(sorted(tmp_path.iterdir()))).open("a") as torn:
        torn.write('{"kind": "shown", "tri')
    seen = read_records(tmp_path, "t", ["a", "b"])
    assert (len(seen), int(seen.clicked.sum()), seen.unreadable, seen.stray) == (6, 1, 1, 1)
    findings = report(Trial.of(TWO), seen)
    days = [row.value for row in findings.rows if row.by == "day"]
    assert days == sorted(days)
    assert days[0] == "1970-01-01"
    assert {row.value for row in findings.rows if row.by == "market"} == {"de", "(not sent)"}
    assert sum(row.arm.lists for row in findings.rows if row.by == "day") == 6
    assert len(findings.notes) == 3
    assert findings.to_csv().count("\n") == len(findings.rows) + 1
    json.dumps(findings.to_json(), allow_nan=False)
    with pytest.raises(DataError, match="check its name"):
        read_records(tmp_path, "none", ["a", "b"])
    with pytest.raises(DataError, match="no records here"):
        read_records(tmp_path / "x", "t", ["a"])


class Line(NamedTuple):
    file: int
    text: bytes


@st.composite
def lines(draw: st.DrawFn) -> Line:
    """A line of the records, as a recorder writes it or damaged, of requests and sessions that meet again."""
    entry: dict[str, Any] = {
        "time": draw(st.sampled_from([0, 1, 86_400_000, 200_000_000])),
        "kind": draw(st.sampled_from(["shown", "clicked"])),
        "trial": draw(st.sampled_from(["t", "t", "t", "other"])),
        "session": f"s{draw(st.integers(0, 4))}",
        "request": f"r{draw(st.integers(0, 12))}",
        "variant": draw(st.sampled_from(["a", "b", "b", "gone"])),
        "attributes": draw(st.dictionaries(st.sampled_from(["market", "day"]), st.sampled_from("xy"))),
    }
    if draw(st.integers(0, 9)) == 0:
        del entry[draw(st.sampled_from(["variant", "request", "time", "trial"]))]
    end = draw(st.sampled_from(["\n", "\n", "\n", "\n", ' and "more"\n']))
    return Line(draw(st.integers(0, 2)), (json.dumps(entry) + end).encode())


@given(st.lists(st.lists(lines(), max_size=12), max_size=5), st.data())
@settings(max_examples=60, deadline=None)
def test_a_running_report_is_that_of_all_records_at_every_look(
    looks: list[list[Line]], data: st.DataObject
) -> None:
    trial = Trial.of(TWO)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        running = Running(trial, folder)
        for some in looks:
            for line in some:
                with (folder / f"{line.file}.jsonl").open("ab") as file:
                    cut = data.draw(st.sampled_from([0, 0, 0, len(line.text) // 2]))
                    if cut:  # a look while the line is being written
                        file.write(line.text[:cut])
                        file.flush()
                        running.look()
                    file.write(line.text[cut:])
            try:
                seen = read_records(folder, "t", ["a", "b"])
            except DataError:
                assert running.look()["rows"] == []
                continue
            wanted, found = report(trial, seen).to_json(), running.look()
            assert flat(found) == pytest.approx(flat(wanted), rel=1e-9, abs=1e-12)
            assert found["notes"] == wanted["notes"]


def flat(content: Any, where: str = "") -> dict[str, Any]:
    """The numbers and texts of nested tables by the way to them; texts and None as themselves."""
    if isinstance(content, dict):
        parts = content.items()
    elif isinstance(content, list):
        parts = enumerate(content)  # type: ignore[assignment]
    else:
        return (
            {f"{where}={content}": 0.0} if content is None or isinstance(content, str) else {where: content}
        )
    return {key: value for name, part in parts for key, value in flat(part, f"{where}/{name}").items()}


def test_records_that_are_replaced_are_read_anew_and_what_was_read_is_not(tmp_path: Path) -> None:
    trial = Trial.of(TWO)
    line = '{"time": 0, "kind": "shown", "trial": "t", "session": "s", "variant": "a", "request": "%s", '
    line += '"attributes": {}}\n'
    file = tmp_path / "1.jsonl"
    running = Running(trial, tmp_path)
    assert running.look()["rows"] == []
    file.write_text("".join(line % n for n in range(5)))
    assert running.look()["rows"][0]["lists"] == 5
    with file.open("r+") as changed:  # only what follows is read: the sums stay as they were
        changed.write(line.replace('"a"', '"b"') % 0)
    with file.open("a") as more:
        more.write(line % "another")
    assert [row["lists"] for row in running.look()["rows"][:2]] == [6, 0]
    file.write_text(line % 7)
    assert running.look()["rows"][0]["lists"] == 1
    file.unlink()
    assert running.look()["rows"] == []


def test_the_days_still_needed_bring_the_power_that_is_named(tmp_path: Path) -> None:
    """Days of the same visitors are added: one day fewer than said is too few, as many are enough."""
    trial = Trial.of(TWO)

    def found(days: int) -> Any:
        folder = tmp_path / f"{days}"
        recorder = Recorder(folder)
        for day in range(days):
            for n in range(300):
                name, variant = f"{day}-{n}", "ab"[n % 2]
                for step in range(1 + n % 3):
                    request = f"{name}.{step}"
                    recorder.shown("t", name, variant, request, [], {}, at=86_400.0 * day)
                    if (n * 7 + step) % 5 == 0:
                        recorder.clicked("t", name, request, request, "x", {}, at=86_400.0 * day)
        recorder.close()
        return report(trial, read_records(folder, "t", ["a", "b"]), effect=0.12)

    first = found(2)
    more = first.days_more["b"]
    assert (first.days, first.effect) == (2, 0.12)
    assert 3 < more < 40
    assert first.power["b"] < 0.5
    enough, short = found(2 + math.ceil(more)), found(1 + math.ceil(more))
    assert enough.power["b"] == pytest.approx(0.8, abs=0.03)
    assert enough.power["b"] >= 0.8 - 1e-3
    assert enough.days_more["b"] < 0.2
    assert short.power["b"] < 0.8
    assert short.days_more["b"] > 0


def test_lost_sessions_are_noticed(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    for n in range(2000):
        variant = Trial.of(TWO).variant_of(f"s{n}").name
        if variant == "a" or n % 3:
            recorder.shown("t", f"s{n}", variant, f"r{n}", [], {})
    recorder.close()
    findings = report(Trial.of(TWO), read_records(tmp_path, "t", ["a", "b"]))
    assert findings.mismatch < 1e-3
    assert "not shared out" in findings.notes[0]


def test_a_record_is_with_the_system_before_the_answer(tmp_path: Path) -> None:
    """So that a killed process loses none: the file holds it while the recorder is still open."""
    recorder = Recorder(tmp_path)
    recorder.shown("t", "s", "a", "r", ["x"], {})
    (file,) = tmp_path.iterdir()
    assert str(os.getpid()) in file.name
    assert json.loads(file.read_text())["request"] == "r"
    recorder.close()


def test_the_service_assigns_records_and_reports(tmp_path: Path) -> None:
    trial = tmp_path / "t.toml"
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nblock = ["item 4"]\n')
    trial.write_text(
        'name = "t"\n[[variant]]\nname = "a"\nmodel = "m"\nshare = 0.5\n'
        '[[variant]]\nname = "b"\nmodel = "n"\nshare = 0.5\nrules = "rules.toml"\n'
    )
    models = {"m": saved(tmp_path), "n": saved(tmp_path, "markov")}
    read = Trial.read(trial)
    with client(models, trial=str(trial), records=str(tmp_path / "records")) as opened:
        for n in range(60):
            session = f"s{n}"
            opened.post("/v1/events", json={"session": session, "item": "item 3"})
            answer = opened.post(
                "/v1/recommend", json={"session": session, "attributes": {"market": "de"}}
            ).json()
            variant = read.variant_of(session)
            assert (answer["variant"], answer["model"]) == (variant.name, variant.model)
            items = [entry["item"] for entry in answer["items"]]
            assert ("item 4" in items) == (variant.name == "a")
            if n % 3 == 0:
                event = {"session": session, "item": items[0], "request": answer["request"], "id": f"c{n}"}
                for _ in range(2):
                    opened.post("/v1/events", json=event)
        other = opened.post("/v1/recommend", json={"session": "s1", "model": "m"}).json()
        assert other["variant"] is None
        found = opened.get("/v1/experiment").json()
        rows = [row for row in found["rows"] if row["by"] == "all"]
        assert sum(row["lists"] for row in rows) == 60
        assert sum(row["clicked"] for row in rows) == 20
    with pytest.raises(ConfigError, match="no model 'n'"), client({"m": models["m"]}, trial=str(trial)):
        pass


# -- simulated visitors


def test_visitors_click_lists_that_suit_them_more_often(tmp_path: Path) -> None:
    config = ShopConfig(sessions=8000, products=1024)
    folder = shop(config).write(tmp_path / "shop", thumbnails=False)
    data = nextclick.prepare(folder / "clicks.parquet", out=tmp_path / "data", event="event", holdout="3d")
    models = {"m": nextclick.Popularity().fit(data.full), "n": nextclick.VSKNN().fit(data.full)}
    trial = Trial.of(TWO)
    shown = simulate(trial, answers_of(models, 10), tmp_path / "records", config, Visits(3000, days=5, k=10))
    seen = read_records(tmp_path / "records", "t", ["a", "b"])
    assert len(seen) == shown
    findings = report(trial, seen)
    assert findings.overall[1].uplift is not None
    assert findings.overall[1].uplift.low > 0.1
    assert findings.mismatch > 1e-4
    again = simulate(
        trial, answers_of(models, 10), tmp_path / "again", config, Visits(500, days=5, k=10, seed=2)
    )
    once = simulate(
        trial, answers_of(models, 10), tmp_path / "once", config, Visits(500, days=5, k=10, seed=2)
    )
    assert again == once


def test_rules_of_a_variant_hold_for_simulated_visitors_too(tmp_path: Path) -> None:
    fitted = nextclick.Popularity().fit(nextclick.Sessions.from_lists([["p", "q"], ["p", "r"]]))
    (tmp_path / "items.csv").write_text("item_id,kind\np,shoe\nq,hat\nr,hat\n")
    (tmp_path / "rules.toml").write_text('[[rule]]\nattribute = "kind"\nequals = "hat"\n')
    items = nextclick.ItemTable.read(tmp_path / "items.csv")
    ruled = {"name": "b", "model": "m", "share": 0.5, "rules": "rules.toml"}
    content = {"name": "t", "variant": [{"name": "a", "model": "m", "share": 0.5}, ruled]}
    trial = Trial.of(content, folder=tmp_path)
    answers = answers_of({"m": fitted}, 3, items)
    assert answers(trial.variants[0], [["r"]]) == [["p", "q"]]
    assert answers(trial.variants[1], [["r"]]) == [["q"]]


def test_a_replay_counts_lists_that_hold_the_next_click(tmp_path: Path) -> None:
    """By hand: the lists are always x, y; of six clicks to foresee, three are among them."""
    sessions = nextclick.Sessions.from_lists(
        [["a", "x", "b", "y"], ["b", "a"], ["y", "x", "c"], ["c"]],
        times=[n * 3_600_000_000 for n in (0, 10, 20, 30, 5, 15, 25, 26, 27, 28)],
    )
    trial = Trial.of(TWO)
    recorder = Recorder(tmp_path)
    asked: list[list[Any]] = []

    def answers(variant: Any, prefixes: Any) -> Any:
        asked.extend(map(list, prefixes))
        return [["x", "y"] for _ in prefixes]

    assert replay(trial, answers, recorder, sessions) == 6
    recorder.close()
    wanted = [["a"], ["a", "x"], ["a", "x", "b"], ["b"], ["y"], ["y", "x"]]
    assert sorted(asked) == sorted(wanted)
    seen = read_records(tmp_path, "t", ["a", "b"])
    assert (len(seen), int(seen.clicked.sum()), len(np.unique(seen.session))) == (6, 3, 3)
    entries = [
        json.loads(line) for file in sorted(tmp_path.iterdir()) for line in file.read_text().splitlines()
    ]
    shown = [entry for entry in entries if entry["kind"] == "shown"]
    assert [entry["time"] // 3_600_000 for entry in shown] == [0, 5, 10, 20, 25, 26]
    assert {entry["variant"] for entry in shown if entry["session"] == "session-0"} == {
        trial.variant_of("session-0").name
    }
    untimed = nextclick.Sessions.from_lists([["a", "b"]])
    with pytest.raises(DataError, match="no times"):
        replay(trial, answers, recorder, untimed)


def test_from_the_command_line(tmp_path: Path) -> None:
    config = ShopConfig(sessions=3000, products=256)
    folder = shop(config).write(tmp_path / "shop", thumbnails=False)
    data = nextclick.prepare(folder / "clicks.parquet", out=tmp_path / "data", event="event", holdout="3d")
    nextclick.Markov().fit(data.full).save(tmp_path / "m")
    nextclick.Popularity().fit(data.full).save(tmp_path / "n")
    (tmp_path / "t.toml").write_text(
        'name = "t"\n[[variant]]\nname = "a"\nmodel = "m"\nshare = 0.5\n'
        '[[variant]]\nname = "b"\nmodel = "n"\nshare = 0.5\n'
    )
    base = ["experiment", "simulate", str(tmp_path / "t.toml"), str(tmp_path / "m"), str(tmp_path / "n")]
    options = ["--out", str(tmp_path / "records"), "--sessions", "600", "--products", "256"]
    done = CliRunner().invoke(main, [*base, *options])
    assert done.exit_code == 0, done.output
    assert CliRunner().invoke(main, [*base, *options]).exit_code == 1
    files = [f"--{kind}={tmp_path / f'r.{kind}'}" for kind in ("csv", "html")]
    replayed = [*base, "--log", str(tmp_path / "data"), "--out", str(tmp_path / "replayed")]
    assert "simulated visitors" in CliRunner().invoke(main, [*replayed, "--days", "3"]).output
    done = CliRunner().invoke(main, replayed)
    assert done.exit_code == 0, done.output
    hits = read_records(tmp_path / "replayed", "t", ["a", "b"])
    assert len(hits) == len(data.test.pairs()[0])
    models = [nextclick.load(tmp_path / "m"), nextclick.load(tmp_path / "n")]
    for code, measured in enumerate(nextclick.evaluate(models, data.test).models):
        of_variant = hits.clicked[hits.variant == code]  # about recall@20: the session's items are left out
        assert abs(of_variant.mean() - measured.metrics["recall@20"]) < 0.15
    told = CliRunner().invoke(
        main,
        ["experiment", "report", str(tmp_path / "t.toml"), str(tmp_path / "records"), *files],
        env={"COLUMNS": "140"},
    )
    assert told.exit_code == 0, told.output
    assert "by day" in told.output
    assert "2025-04-02" in told.output
    narrow = CliRunner().invoke(
        main,
        ["experiment", "report", str(tmp_path / "t.toml"), str(tmp_path / "records")],
        env={"COLUMNS": "80"},
    )
    lines = [line.rstrip() for line in narrow.stdout.splitlines() if line.startswith(("2025-", "all"))]
    assert all("…" not in line and re.search(r"[0-9]$", line) for line in lines)  # no figure is cut off
    assert len([line for line in lines if " to " in line and line.startswith("all")]) == 1
    assert "would be found with a chance of" in told.output
    assert "<script" not in (tmp_path / "r.html").read_text()
    assert (tmp_path / "r.csv").read_text().startswith("by,value,variant,sessions,")
