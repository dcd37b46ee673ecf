"""Streams of clicks: the same ones whatever the chunks, with the shape that was asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import nextclick
from nextclick import Sessions
from nextclick.cli import main
from nextclick.clickstream import PowerLaw, Shape, StreamConfig, fit_shape
from nextclick.clickstream.drawing import generate, stream
from nextclick.errors import ConfigError, DataError

SMALL = StreamConfig(events=30_000, items=500, seed=3)


def whole(config: StreamConfig) -> dict[str, np.ndarray]:
    parts = list(stream(config))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_a_longer_stream_begins_with_the_shorter_one(monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = whole(SMALL), whole(replace(SMALL, events=70_000))
    monkeypatch.setattr("nextclick.clickstream.drawing._BLOCK", 37)
    chopped = whole(SMALL)
    for name, column in short.items():
        assert len(column) == 30_000
        assert np.array_equal(column, long[name][:30_000])
        assert np.array_equal(column, chopped[name])


def test_another_seed_makes_other_clicks() -> None:
    a, b = whole(SMALL), whole(replace(SMALL, seed=4))
    assert (a["item_id"] != b["item_id"]).mean() > 0.9


def test_popularity_and_lengths_are_those_of_the_shape() -> None:
    """Every click follows the popularity, not only the first, and lengths their law: within 4 deviations."""
    config = replace(SMALL, events=200_000, items=50, shape=Shape.named("yoochoose64"))
    made = whole(config)
    wanted = np.sort(config.shape.of_items(50))[::-1]
    first = np.r_[True, np.diff(made["session_id"]) > 0]
    starts = int(first.sum())  # sessions are independent, their clicks are not
    for chosen in (first, ~first):
        found = np.sort(np.bincount(made["item_id"][chosen], minlength=51)[1:] / chosen.sum())[::-1]
        assert np.abs(found - wanted).max() < 4 * np.sqrt(wanted.max() / starts)
    lengths = np.bincount(made["session_id"])[1:-1]
    law = config.shape.length.probabilities(config.shape.longest - 1)
    for clicks in range(2, 10):
        share = law[clicks - 2]
        assert abs((lengths == clicks).mean() - share) < 4 * np.sqrt(share / len(lengths))
    assert lengths.min() >= config.shape.shortest
    assert lengths.max() <= config.shape.longest


def test_clicks_stay_near_each_other_only_where_asked_for() -> None:
    def near(follow: float) -> float:
        config = replace(SMALL, items=5000, shape=replace(SMALL.shape, follow=follow, aisle=10))
        made = whole(config)
        same = np.diff(made["session_id"]) == 0
        return float((np.abs(np.diff(made["item_id"]))[same] < 10).mean())

    assert near(1.0) == 1.0
    assert near(0.0) < 0.05


def test_times_grow_within_sessions_and_from_session_to_session() -> None:
    made = whole(SMALL)
    steps, same = np.diff(made["timestamp"]), np.diff(made["session_id"]) == 0
    assert (steps[same] >= 1000).all()
    starts = made["timestamp"][np.r_[True, ~same]]
    assert (np.diff(starts) >= 0).all()
    day = 86_400_000
    assert len(starts) / ((starts[-1] - starts[0]) / day) == pytest.approx(50_000, rel=0.01)


@settings(max_examples=20, deadline=None)
@given(exponent=st.floats(0.8, 3.5), shift=st.floats(0.5, 50.0), seed=st.integers(0, 1000))
def test_a_fitted_law_explains_the_draws_at_least_as_well_as_the_true_one(
    exponent: float, shift: float, seed: int
) -> None:
    true = PowerLaw(exponent, shift)
    counts = np.random.default_rng(seed).multinomial(20_000, true.probabilities(200))
    fitted = PowerLaw.fitted(counts)

    def told(law: PowerLaw) -> float:
        return float(counts @ np.log(law.probabilities(200)))

    assert told(fitted) >= told(true) - 0.5


def test_a_law_is_found_again_by_hand() -> None:
    """Exact shares of 1/(x+1)^2 as counts: the law that made them fits best."""
    fitted = PowerLaw.fitted(1e6 / (np.arange(100) + 1.0) ** 2)
    assert fitted.exponent == pytest.approx(2.0, abs=0.01)
    assert fitted.shift == pytest.approx(1.0, abs=0.01)


def test_the_shape_of_a_stream_is_found_again() -> None:
    config = replace(SMALL, events=300_000, items=300)
    made = whole(config)
    lists = np.split(made["item_id"], np.flatnonzero(np.diff(made["session_id"])) + 1)
    found = fit_shape(Sessions.from_lists([one.tolist() for one in lists[:-1]]))
    wanted = config.shape
    assert found.shortest == wanted.shortest
    assert found.mean_length == pytest.approx(wanted.mean_length, rel=0.02)
    assert np.abs(found.of_items(300) - wanted.of_items(300)).sum() == pytest.approx(0, abs=0.06)


def test_files_of_any_size_hold_the_same_clicks_and_can_be_prepared(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    generate(SMALL, tmp_path / "one", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(30_000, 30_000)]
    one = duckdb.sql(f"SELECT * FROM '{tmp_path}/one/*.parquet'").fetchnumpy()
    for name, column in whole(SMALL).items():
        assert np.array_equal(one[name], column)
    data = nextclick.prepare(tmp_path / "one", out=tmp_path / "data")
    assert data.info["steps"][0]["clicks"] == 30_000
    assert data.info["time_unit"] == "ms"


def test_many_files_are_written_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nextclick.clickstream.drawing._BLOCK", 1000)
    generate(SMALL, tmp_path / "many", file_events=10_000)
    files = sorted((tmp_path / "many").glob("*.parquet"))
    assert len(files) == 3
    rows = [duckdb.sql(f"SELECT item_id FROM '{file}'").fetchnumpy()["item_id"] for file in files]
    assert np.array_equal(np.concatenate(rows), whole(SMALL)["item_id"])
    assert json.loads((tmp_path / "many" / "stream.json").read_text())["files"] == 3


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nextclick.clickstream.drawing._write", full)
    with pytest.raises(DataError, match="the disk is full"):
        generate(SMALL, tmp_path / "log")
    assert not list(tmp_path.iterdir())


def test_the_command_in_a_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nextclick", "generate", "--events", "2000", "--items", "100"]
    done = subprocess.run(
        [*command, "--follow", "0", "--out", str(tmp_path / "log")],
        check=True,
        capture_output=True,
        text=True,
    )
    said = json.loads(done.stdout)
    assert said["events"] == 2000
    assert said["files"] == 1
    again = subprocess.run(
        [*command, "--out", str(tmp_path / "log")], check=False, capture_output=True, text=True
    )
    assert again.returncode == 1
    assert "exists already" in again.stderr


def test_like_prepared_data(tmp_path: Path) -> None:
    generate(SMALL, tmp_path / "log")
    nextclick.prepare(tmp_path / "log", out=tmp_path / "data")
    words = ["generate", "--events", "500", "--like", str(tmp_path / "data"), "--out", str(tmp_path / "more")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    shape = json.loads((tmp_path / "more" / "stream.json").read_text())["config"]["shape"]
    (tmp_path / "shape.json").write_text(json.dumps(shape))
    assert Shape.named(str(tmp_path / "shape.json")).to_json() == shape


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"events": 0}, "events=0: expected a number from 1"),
        ({"items": 1}, "items=1: expected a number from 2"),
        ({"seed": -1}, "seed=-1"),
        ({"dwell": float("nan")}, "dwell=nan"),
    ],
)
def test_settings_out_of_range_are_refused(given: dict[str, int], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        replace(SMALL, **given)


def test_shapes_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no shape 'yoochose64'; did you mean 'yoochoose64'"):
        Shape.named("yoochose64")
    (tmp_path / "a.json").write_text('{"popularity": {"exponent": 1}}')
    with pytest.raises(ConfigError, match=r"a\.json: not the shape of a click log"):
        Shape.named(str(tmp_path / "a.json"))
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        Shape.named(str(tmp_path / "a.json"))
    with pytest.raises(DataError, match="same length"):
        fit_shape(Sessions.from_lists([[1, 2], [2, 3]]))
    with pytest.raises(ConfigError, match="even number"):
        replace(SMALL.shape, aisle=7)
    with pytest.raises(ConfigError, match="probability"):
        replace(SMALL.shape, follow=1.5)
    with pytest.raises(ConfigError, match="shift above 0"):
        PowerLaw(1.0, 0.0)
