"""The daily refresh: what is not worse is published, what is worse is not, and nothing is ever half."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import nextclick
from nextclick.cli import main
from nextclick.errors import ConfigError, NextclickError
from nextclick.serving import refresh as module
from nextclick.serving.refresh import refresh
from nextclick.serving.versions import Versions
from synthetic import chain_lists

DAY = 86_400


def log(path: Path, days: int, *, noise: float = 0.2, seed: int = 1) -> Path:
    """A raw click log of a directed chain, so many days long; a longer one begins with the shorter."""
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["session_id", "item_id", "timestamp"])
        for day in range(days):
            for n, session in enumerate(chain_lists(30, 120, noise=noise, seed=seed * 1000 + day)):
                for step, item in enumerate(session):
                    moment = 1_700_000_000 + day * DAY + n * 60 + step
                    writer.writerow([f"{day}-{n}", f"item {item}", moment])
    return path


def test_better_is_published_worse_is_not(tmp_path: Path) -> None:
    root = tmp_path / "versions"
    first = refresh(log(tmp_path / "a.csv", 4), root, "pop")
    assert first.published == Versions(root).read()[0]
    assert first.why == "nothing was in service"
    better = refresh(log(tmp_path / "b.csv", 5), root, "markov")
    assert better.published is not None
    assert better.low is not None
    assert better.low > 0.2
    worse = refresh(log(tmp_path / "c.csv", 6), root, "pop")
    assert worse.published is None
    assert worse.high is not None
    assert worse.high < 0
    assert Versions(root).read()[0] == better.published
    equal = refresh(log(tmp_path / "c.csv", 6), root, "markov", margin=0.02)
    assert equal.published is not None
    forced = refresh(tmp_path / "c.csv", root, "pop", force=True)
    assert forced.published is not None
    served = nextclick.load(Versions(root).current())
    assert served.name == "pop"
    assert served.facts["sessions"] == 6 * 120  # the newest day too
    assert Versions(root).rollback() == equal.published


def test_figures_are_those_of_the_newest_day(tmp_path: Path) -> None:
    """Worked out again with the package's own parts: both models on the same clicks, neither knew them."""
    root = tmp_path / "versions"
    refresh(log(tmp_path / "a.csv", 4), root, "markov")
    old = nextclick.load(Versions(root).current())
    found = refresh(log(tmp_path / "b.csv", 5), root, "item-knn", {"last_clicks": 1}, margin=0.9)
    data = nextclick.prepare(tmp_path / "b.csv", out=tmp_path / "data", holdout="1d", validation="0")
    new = nextclick.ItemKNN(last_clicks=1).fit(data.full)
    for name, model in (("new", new), ("in service", old)):
        report = nextclick.evaluate([model], data.test, k=20)
        assert found.figures[name] == pytest.approx(report.models[0].metrics["recall@20"])
    assert found.pairs == report.pairs


def test_what_fails_leaves_the_old_version_in_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "versions"
    first = refresh(log(tmp_path / "a.csv", 3), root, "markov").published
    bad = tmp_path / "bad.csv"
    bad.write_text("session_id,item_id\n1,2\n")
    with pytest.raises(NextclickError):
        refresh(bad, root, "markov")
    with pytest.raises(ConfigError, match="no model"):
        refresh(tmp_path / "a.csv", root, "markow")
    with pytest.raises(ConfigError, match="margin"):
        refresh(tmp_path / "a.csv", root, "markov", margin=2)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.Versions, "publish", full)
    with pytest.raises(OSError, match="No space"):
        refresh(tmp_path / "a.csv", root, "markov", force=True)
    assert Versions(root).read()[0] == first


def test_a_damaged_version_in_service_is_passed_over_in_the_comparison(tmp_path: Path) -> None:
    """Services answer with the one before it, so that is what the new one must not be worse than."""
    root = tmp_path / "versions"
    first = refresh(log(tmp_path / "a.csv", 3), root, "markov").published
    second = refresh(tmp_path / "a.csv", root, "vs-knn", force=True).published
    assert first is not None
    assert second is not None
    (Versions(root).directory(second) / "arrays.safetensors").write_bytes(b"")
    said: list[str] = []
    worse = refresh(tmp_path / "a.csv", root, "pop", say=said.append)
    assert worse.published is None
    assert any(second in line and "damaged" in line for line in said)
    (Versions(root).directory(first) / "arrays.safetensors").write_bytes(b"")
    anything = refresh(tmp_path / "a.csv", root, "pop")
    assert anything.published == Versions(root).read()[0]
    assert anything.why == "nothing was in service"


def test_from_the_command_line(tmp_path: Path) -> None:
    root = str(tmp_path / "versions")
    done = CliRunner().invoke(main, ["refresh", str(log(tmp_path / "a.csv", 3)), root, "markov"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["published"] == Versions(Path(root)).read()[0]
    worse = CliRunner().invoke(main, ["refresh", str(tmp_path / "a.csv"), root, "pop"])
    assert worse.exit_code == 3
    assert "not published" in worse.stderr
    assert CliRunner().invoke(main, ["rollback", root]).exit_code == 1
    assert np.isfinite(json.loads(worse.stdout)["difference"])
