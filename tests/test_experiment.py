"""Experiment files: what they may say, that each row is done once, and that figures are what they seem."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import numpy as np
import pytest
from click.testing import CliRunner, Result

import nextclick
from conftest import ROOT
from nextclick import MODELS, ConfigError, DataError, Dataset, Popularity, build, experiment
from nextclick.cli import main
from nextclick.errors import TrainingDivergedError
from nextclick.experiment import Done, read
from nextclick.files import alone, read_toml
from nextclick.sessions import Sessions
from synthetic import chain_lists

PAPERS = sorted((ROOT / "benchmarks" / "papers").glob("*.toml"))
DAY = 86_400


def clicks(days: int, *, a_day: int = 12, seed: int = 1) -> list[tuple[int, int, int, int]]:
    """(session, item, second, step) of sessions spread over days."""
    lists = chain_lists(40, days * a_day, noise=0.2, seed=seed)
    begin = int(datetime(2015, 5, 3, tzinfo=UTC).timestamp())
    return [
        (s, item, begin + s * DAY // a_day + 20 * c, c)
        for s, session in enumerate(lists)
        for c, item in enumerate(session)
    ]


def write_rows(path: Path, head: list[str], rows: list[list[Any]], delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([head, *rows] if head else rows)
    return path


def instant(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def raw_files(folder: Path) -> None:
    """The logs that the files in benchmarks/papers ask for, small, in the form they are downloaded in."""
    yoochoose = [[s, f"{instant(t):%Y-%m-%dT%H:%M:%S}.077Z", 214_000_000 + i, 0] for s, i, t, _ in clicks(9)]
    write_rows(folder / "yoochoose-clicks.dat", [], yoochoose)
    diginetica = [[s, "NA", 39 - i, 1000 * c, f"{instant(t):%Y-%m-%d}"] for s, i, t, c in clicks(30)]
    head = ["sessionId", "userId", "itemId", "timeframe", "eventdate"]
    write_rows(folder / "train-item-views.csv", head, diginetica, ";")
    events = [[1000 * t, s % 100, "addtocart" if c == 7 else "view", i, ""] for s, i, t, c in clicks(60)]
    write_rows(folder / "events.csv", ["timestamp", "visitorid", "event", "itemid", "transactionid"], events)
    for name in ("yoochoose64", "diginetica"):
        for part, rows in (("train", clicks(20)), ("test", clicks(2, seed=2))):
            file = write_rows(
                folder / name / f"{part}.csv", ["session_id", "item_id", "timestamp"],
                [[s, i, n] for n, (s, i, _, _) in enumerate(rows)],
            )  # fmt: skip
            duckdb.sql(f"COPY (SELECT * FROM '{file}') TO '{file.with_suffix('.parquet')}'")


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    raw_files(folder)
    rows = [[s, f"item {i}", t] for s, i, t, _ in clicks(30)]
    log = write_rows(folder / "clicks.csv", ["session_id", "item_id", "timestamp"], rows)
    nextclick.prepare(log, out=folder / "data", holdout="3d", validation="3d")
    return folder


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take most of the time, and other tests look at them."""
    monkeypatch.setattr(experiment, "pictures_can_be_drawn", lambda: False)


def written(folder: Path, text: str) -> Path:
    file = folder / "experiment.toml"
    file.write_text(textwrap.dedent(text), "utf-8")
    return file


def start(folder: Path, logs: Path, text: str, out: str = "out", **options: Any) -> Done:
    return experiment.run(read(written(folder, text), logs), folder / out, **options)


TWO = """
    name = "two"
    [data]
    prepared = "data"
    [[rows]]
    model = "markov"
    published = { "recall@20" = 0.1, "mrr@20" = 0.9999, source = "nobody" }
    [[rows]]
    label = "neighbours"
    model = "vs-knn"
    settings = { preset = "paper", k = 50 }
"""


# -- the published files


@pytest.mark.parametrize("file", PAPERS, ids=lambda file: file.stem)
def test_every_row_of_the_published_files_builds_its_model(file: Path) -> None:
    made = read(file)
    assert made.name == file.stem
    for row in made.rows:
        assert build(row.model, row.settings).name == row.model
        assert row.published is None or row.published.metrics or row.published.hits


@pytest.mark.parametrize("file", PAPERS, ids=lambda file: file.stem)
def test_the_published_files_run_on_logs_as_they_are_downloaded(
    file: Path, logs: Path, tmp_path: Path
) -> None:
    made = read(file, logs)
    cheap = [row.label for row in made.rows if row.model in ("pop", "vs-knn")]
    done = experiment.run(made, tmp_path, rows=cheap[:1]) if cheap else None
    datasets = experiment.work.datasets_of(made, tmp_path, lambda *_: None)
    n = 5 if file.stem == "retailrocket" else 1
    assert len(datasets) == n
    for dataset in datasets:
        assert len(dataset.train) > len(dataset.test) > 5
        assert not len(dataset.validation)
    assert done is None or len([row for row in done.content["rows"] if row["state"] == "done"]) == 1


def test_the_raw_logs_are_prepared_as_the_papers_say(logs: Path, tmp_path: Path) -> None:
    def prepared(file: str) -> Dataset:
        content = read_toml(ROOT / "benchmarks" / "papers" / f"{file}.toml")["data"]
        return nextclick.prepare(logs / content.pop("source"), out=tmp_path / file, **content)

    quarter = prepared("yoochoose4")
    pairs = {step["name"]: step["clicks"] - step["sessions"] for step in quarter.info["steps"]}
    longest = int(quarter.sessions.lengths.max())
    assert abs(quarter.train.n_pairs - (pairs["seen"] - quarter.test.n_pairs) / 4) <= longest
    last_day = quarter.sessions.times.max() - DAY * 1_000_000
    assert quarter.sessions.times[quarter.test.offsets[1:] - 1 + len(quarter.train.items)].min() > last_day
    week = prepared("diginetica-raw")
    assert len(week.vocabulary) == week.train.n_items  # nothing unseen is left
    ids = np.array([int(item) for item in week.vocabulary.ids_of(week.train.items)])
    steps = np.diff(ids)[np.diff(week.train.session_of) == 0]
    assert np.isin(steps, [-1, 39]).mean() > 0.7  # in the order of timeframe: downwards, as clicked
    rocket = prepared("retailrocket")
    assert rocket.info["options"]["slices"] == 5
    assert rocket.sessions.events is None or rocket.sessions.event_names == ("view",)


# -- what a file may say


BAD = {
    "nam = 'x'": "the experiment has no 'nam'; did you mean 'name'",
    "name = 'a b'": "name: expected letters",
    "name = 'x'": "there is no row",
    "name = 'x'\nrows = [3]": "row 1: expected a table",
    "name = 'x'\n[[rows]]\nmodel = 'markof'": "row 1: no model 'markof'; did you mean 'markov'",
    "name = 'x'\n[[rows]]\nlabel = 'a'": r"row 1 \(a\): which model",
    "name = 'x'\n[[rows]]\nmodel = 'markov'\nsetings = {}": "did you mean 'settings'",
    "name = 'x'\n[[rows]]\nmodel = 'markov'\nsettings = {decai = 'div'}": "did you mean 'decay'",
    "name = 'x'\n[[rows]]\nmodel = 'markov'\nsettings = {last_clicks = 0}": "at least 1",
    "name = 'x'\n[[rows]]\nmodel = 'narm'\nsettings = {seed = 3}": "seed belongs into seeds",
    "name = 'x'\n[[rows]]\nmodel = 'narm'\nseeds = [1, 1]": "expected different whole numbers",
    "name = 'x'\n[[rows]]\nmodel = 'markov'\nfull = 1": "expected true or false",
    "name = 'x'\n[[rows]]\nmodel = 'pop'\n[[rows]]\nmodel = 'pop'": "2 rows have the label 'pop, defaults'",
    "name = 'x'\n[[rows]]\nmodel = 'pop'\npublished = {'recal@20' = 0.5, source = 's'}": "'recall@20'",
    "name = 'x'\n[[rows]]\nmodel = 'pop'\npublished = {'recall@20' = 68.3, source = 's'}": "from 0 to 1",
    "name = 'x'\n[[rows]]\nmodel = 'pop'\npublished = {'recall@20' = 0.683}": "published: where",
    "name = 'x'\n[[rows]]\nmodel = 'pop'\npublished = {hits = {a = 1}, source = 's'}": "expected counts",
    "name = 'x'\n[defaults]\nseed = 1\n[[rows]]\nmodel = 'pop'": "did you mean 'seeds'",
    "name = 'x'\n[[rows]]\nmodel = 'pop'": "give prepared, or source, or train and test",
    "name = 'x'\n[data]\nprepared = 'd'\nholdout = '7d'\n[[rows]]\nmodel = 'pop'": "stands alone",
    "name = 'x'\n[data]\nsource = 'd'\nholdot = '7d'\n[[rows]]\nmodel = 'pop'": "did you mean 'holdout'",
    "name = 'x'\n[data]\nsource = 'd'\nholdout = 7\n[[rows]]\nmodel = 'pop'": "expected text",
    "name = 'x'\n[data]\nsource = 'd'\nholdout = '7x'\n[[rows]]\nmodel = 'pop'": "neither a time span",
    "name = 'x'\n[data]\ntrain = 'd'\n[[rows]]\nmodel = 'pop'": "or train and test",
    "name = 'x'\n[data]\nsource = 3\n[[rows]]\nmodel = 'pop'": "expected a file or pattern",
    "name = ": "cannot be read as TOML",
}


@pytest.mark.parametrize("text", BAD)
def test_what_a_file_may_not_say(text: str, tmp_path: Path) -> None:
    file = tmp_path / "e.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=BAD[text]) as raised:
        read(file)
    assert str(file) in str(raised.value)


def test_defaults_presets_and_files_of_settings(tmp_path: Path) -> None:
    (tmp_path / "best.toml").write_text('model = "stan"\n[settings]\nk = 7\nlambda_snh_sessions = "none"\n')
    made = read(written(tmp_path, """
        name = "x"
        [data]
        source = ["a.csv", "b/*.csv"]
        [defaults]
        seeds = [4, 5]
        settings = { k = 9 }
        [[rows]]
        model = "stan"
        settings = "best.toml"
        [[rows]]
        model = "vs-knn"
        settings = { preset = "paper", last_clicks = "none" }
        full = true
    """))  # fmt: skip
    stan, vsknn = made.rows
    assert stan.settings == {"k": 7, "lambda_snh_sessions": None}
    assert vsknn.settings == {"k": 9, "preset": "paper", "last_clicks": None}
    assert vsknn.label == "vs-knn, k=9 preset=paper last_clicks=none"
    assert (stan.seeds, stan.full, vsknn.full) == ((None,), False, True)  # no chance in either
    with pytest.raises(ConfigError, match=r"(?s)no row 'stam'.*it has: stan"):
        made.row("stam")


# -- doing it


def test_figures_are_those_of_the_models_and_stand_beside_the_published(logs: Path, tmp_path: Path) -> None:
    done = start(tmp_path, logs, TWO, command="nextclick run it")
    content = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    assert content == done.content
    assert not done.failed
    data = Dataset.load(logs / "data")
    markov, neighbours = content["rows"]
    model = build("vs-knn", {"preset": "paper", "k": 50}).fit(data.train)
    reached = nextclick.evaluate([model], data).models[0]
    for metric, value in reached.metrics.items():
        assert neighbours["mean"][metric] == pytest.approx(value)
        assert neighbours["std"][metric] is None  # of a single run
    assert neighbours["runs"][0]["intervals"]["recall@20"] == pytest.approx(reached.intervals["recall@20"])
    assert markov["difference"]["recall@20"] == pytest.approx(markov["mean"]["recall@20"] - 0.1)
    assert markov["published"]["source"] == "nobody"
    assert content["data"][0]["fingerprint"] == data.fingerprint
    assert (content["command"], content["nextclick"]) == ("nextclick run it", nextclick.__version__)
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "Measured beside published" in page
    assert page.count('class="number above"') == page.count('class="number below"') == 1
    text = (tmp_path / "out" / "results.md").read_text("utf-8")
    assert f"| neighbours | 1 | {reached.metrics['recall@20']:.4f} |" in text


def test_seeds_are_averaged_and_a_network_leaves_no_checkpoints(logs: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    small = {"epochs": 2, "dim": 6, "hidden": 5, "batch_size": 128}
    table = ", ".join(f"{name} = {value}" for name, value in small.items())
    done = start(tmp_path, logs, f"""
        name = "seeds"
        [data]
        prepared = "data"
        [[rows]]
        label = "narm"
        model = "narm"
        settings = {{ {table} }}
        seeds = [1, 2]
        full = true
    """)  # fmt: skip
    data = Dataset.load(logs / "data")
    recalls = []
    for seed in (1, 2):
        model = build("narm", {**small, "seed": seed}, full=True).fit(data.full)
        recalls.append(nextclick.evaluate([model], data).models[0].metrics["recall@20"])
    row = done.content["rows"][0]
    assert [run["metrics"]["recall@20"] for run in row["runs"]] == pytest.approx(recalls)
    assert recalls[0] != recalls[1]
    assert row["mean"]["recall@20"] == pytest.approx(sum(recalls) / 2)
    assert row["std"]["recall@20"] == pytest.approx(abs(recalls[0] - recalls[1]) / 2**0.5)
    for run in row["runs"]:
        assert [epoch["stage"] for epoch in run["epochs"]][:3] == ["training", "training", "refit"]
    assert not list((tmp_path / "out" / "runs").glob("*.checkpoints"))


def test_hits_by_length_are_counted_and_compared(logs: Path, tmp_path: Path) -> None:
    text = TWO.replace('source = "nobody"', 'source = "nobody", hits = {1 = 40, 2 = 20}')
    text = text.replace("k = 50 }", "k = 50 }\n    published = { hits = {1 = 50}, source = 'us' }")
    done = start(tmp_path, logs, text)
    data = Dataset.load(logs / "data")
    model = build("markov").fit(data.train)
    counted: dict[str, list[int]] = {}
    for a, b in zip(data.test.offsets, data.test.offsets[1:], strict=False):
        session = data.vocabulary.ids_of(data.test.items[a:b])
        for n in range(1, len(session)):
            listed = [item for item, _ in model.recommend(session[:n], 20)]
            counted.setdefault(str(n), []).append(session[n] in listed)
    hits = done.content["rows"][0]["hits"]
    assert {length: of["pairs"] for length, of in hits.items()} == {k: len(v) for k, v in counted.items()}
    for length, of in hits.items():
        assert of["hits"] == pytest.approx(sum(counted[length]), abs=3)  # ties count as expectation
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "Published hits among the first 20" in page
    assert "(+25.0%)" in page  # 50 after 40


def test_slices_are_averaged(logs: Path, tmp_path: Path) -> None:
    done = start(tmp_path, logs, """
        name = "slices"
        [data]
        source = "clicks.csv"
        slices = 2
        validation = "0"
        [[rows]]
        model = "markov"
    """)  # fmt: skip
    row = done.content["rows"][0]
    assert [run["data"] for run in row["runs"]] == ["slices/slice-1", "slices/slice-2"]
    values = [run["metrics"]["mrr@20"] for run in row["runs"]]
    assert row["mean"]["mrr@20"] == pytest.approx(sum(values) / 2)
    assert len(done.content["data"]) == 2


# -- once only


def test_what_is_done_is_not_done_again(logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = start(tmp_path, logs, TWO, rows=["neighbours"])
    assert [row["state"] for row in first.content["rows"]] == ["not run", "done"]
    fitted: list[str] = []
    fit = nextclick.Recommender.fit
    monkeypatch.setattr(
        nextclick.Recommender, "fit", lambda self, *a, **k: fitted.append(self.name) or fit(self, *a, **k)
    )
    whole = start(tmp_path, logs, TWO)
    assert fitted == ["markov"]
    assert not list((tmp_path / "out" / "runs").glob("*.npz"))  # each lies beside its model
    asked: list[str] = []
    rank = nextclick.Recommender.rank

    def ranked(self: Any, queries: Any, *a: Any, **k: Any) -> Any:
        asked.extend([self.name] * (len(queries) > 2))
        return rank(self, queries, *a, **k)

    monkeypatch.setattr(nextclick.Recommender, "rank", ranked)
    page = (tmp_path / "out" / "report.html").stat().st_mtime_ns
    again = start(tmp_path, logs, TWO)
    assert fitted == ["markov"]
    assert again.content == whole.content
    assert (tmp_path / "out" / "report.html").stat().st_mtime_ns == page
    renamed = start(tmp_path, logs, TWO.replace('"neighbours"', '"others"'))
    assert fitted == ["markov"]  # a label is only a name
    assert (tmp_path / "out" / "report.html").stat().st_mtime_ns > page
    assert renamed.content["rows"][1]["mean"] == whole.content["rows"][1]["mean"]
    assert not asked  # nor are the models asked again for a new report
    start(tmp_path, logs, TWO.replace("k = 50", "k = 51"))
    assert fitted == ["markov", "vs-knn"]
    monkeypatch.setattr(experiment.work, "__version__", "9.9.9")
    start(tmp_path, logs, TWO, rows=["neighbours"])
    assert fitted == ["markov", "vs-knn", "vs-knn"]


_KILLED = """
    import os, signal, sys
    from pathlib import Path
    from nextclick import experiment

    def progress(what, done, total):
        if "neighbours, evaluating" in what:
            os.kill(os.getpid(), signal.SIGKILL)

    experiment.run(experiment.read(sys.argv[1], sys.argv[2]), Path(sys.argv[3]), progress=progress)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL on Windows")
def test_killed_in_a_row_the_rows_before_it_are_kept(logs: Path, tmp_path: Path) -> None:
    file = written(tmp_path, TWO)
    command = [sys.executable, "-c", textwrap.dedent(_KILLED), file, logs, tmp_path / "out"]
    assert subprocess.run(command, check=False).returncode == -9
    before = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    assert [row["state"] for row in before["rows"]] == ["done", "not run"]
    kept = list((tmp_path / "out" / "runs").glob("markov-*/result.json"))
    assert len(kept) == 1
    stamp = kept[0].stat().st_mtime_ns
    resumed = start(tmp_path, logs, TWO)
    assert kept[0].stat().st_mtime_ns == stamp
    whole = start(tmp_path, logs, TWO, out="other")
    for one, other in zip(resumed.content["rows"], whole.content["rows"], strict=True):
        assert one["mean"] == other["mean"]


NETWORK = """
    name = "network"
    [data]
    prepared = "data"
    [[rows]]
    label = "narm"
    model = "narm"
    settings = { epochs = 4, dim = 6, hidden = 5, batch_size = 128, patience = 9 }
"""


def test_stopped_in_a_training_it_goes_on_at_its_last_epoch(logs: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")

    def stop(what: str, done: int, total: int) -> None:
        if "epoch 3" in what:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, logs, NETWORK, progress=stop)
    assert list((tmp_path / "out" / "runs").glob("narm-*.checkpoints"))
    said: list[str] = []
    resumed = start(tmp_path, logs, NETWORK, progress=lambda what, done, total: said.append(what))
    assert any("epoch 4" in what for what in said)
    assert not any("epoch 1" in what or "epoch 2" in what for what in said)
    assert not list((tmp_path / "out" / "runs").glob("*.checkpoints"))
    whole = start(tmp_path, logs, NETWORK, out="other")
    assert resumed.content["rows"][0]["mean"] == whole.content["rows"][0]["mean"]
    assert resumed.content["rows"][0]["runs"][0]["epochs"][-1]["epoch"] == 4


@dataclass(kw_only=True, eq=False)
class Diverging(Popularity):
    """A model whose training fails, as long as it is told to."""

    name: ClassVar[str] = "diverging"
    how: ClassVar[Exception | None] = TrainingDivergedError(1, 1, 10, 0.5)

    def _fit(self, sessions: Sessions) -> None:
        if self.how is not None:
            raise self.how


def test_a_row_that_fails_is_recorded_and_the_others_go_on(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "diverging", Diverging)
    text = TWO.replace('model = "markov"', 'model = "diverging"\n    label = "bad"')
    for how in (Diverging.how, MemoryError("no room"), RuntimeError("CUDA out of memory")):
        monkeypatch.setattr(Diverging, "how", how)
        shown = command("run", written(tmp_path, text), "--data", logs, "--out", tmp_path / "out")
        assert shown.exit_code == 1
        assert isinstance(shown.exception, SystemExit)
        bad, good = json.loads(shown.stdout)["rows"]
        assert (bad["state"], good["state"]) == ("failed", "done")
        assert str(how) in bad["runs"][0]["error"]
        assert "failed: bad" in shown.stderr
    assert "These runs failed" in (tmp_path / "out" / "report.html").read_text("utf-8")
    monkeypatch.setattr(Diverging, "how", None)
    assert start(tmp_path, logs, text).content["rows"][0]["state"] == "done"  # tried again


def test_data_that_are_missing_changed_or_in_use(logs: Path, tmp_path: Path) -> None:
    text = """
        name = "own"
        [data]
        source = "own.csv"
        [[rows]]
        model = "pop"
    """
    with pytest.raises(DataError, match=r"own\.csv: no such file.*--data"):
        start(tmp_path, tmp_path, text)
    own = tmp_path / "own.csv"
    own.write_bytes((logs / "clicks.csv").read_bytes())
    start(tmp_path, tmp_path, text)
    own.write_bytes(own.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"own\.csv: changed since it was prepared"):
        start(tmp_path, tmp_path, text)
    own.unlink()  # not needed any more
    assert start(tmp_path, tmp_path, text).content["rows"][0]["state"] == "done"
    result = next((tmp_path / "out" / "runs").glob("*/result.json"))
    result.write_text("{")
    with pytest.raises(DataError, match=r"remove .* to run it again"):
        start(tmp_path, tmp_path, text)
    with alone(tmp_path / "out"), pytest.raises(DataError, match="another process is at work"):
        start(tmp_path, tmp_path, text)


# -- the command


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


def test_the_command_lists_runs_and_says_what_it_wrote(logs: Path, tmp_path: Path) -> None:
    file, out = written(tmp_path, TWO), tmp_path / "out"
    listed = json.loads(command("run", file, "--data", logs, "--out", out, "--list").stdout)
    assert [(row["label"], row["state"]) for row in listed] == [
        ("markov, defaults", "not run"),
        ("neighbours", "not run"),
    ]
    assert not out.exists()
    shown = command("run", file, "--data", logs, "--out", out, "--rows", "neighbours")
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["command"].endswith("--rows neighbours")
    assert str(out / "report.html") in shown.stderr
    assert re.search(r"neighbours +1 +0\.\d{4}", shown.stderr)
    listed = json.loads(command("run", file, "--data", logs, "--out", out, "--list").stdout)
    assert [row["state"] for row in listed] == ["not run", "done"]
    over = f"""{TWO}
    [[rows]]
    label = "both"
    model = "blend"
    generators = ["markov, defaults", "neighbours"]
    """
    changed = written(tmp_path, over)
    assert command("run", changed, "--data", logs, "--out", out).exit_code == 0
    changed = written(tmp_path, over.replace("k = 50", "k = 40"))
    listed = json.loads(command("run", changed, "--data", logs, "--out", out, "--list").stdout)
    assert [row["state"] for row in listed] == ["done", "changed", "changed"]  # what builds on it too
    refused = command("run", file, "--data", logs, "--out", out, "--rows", "neighbour")
    assert refused.exit_code == 1
    assert "did you mean 'neighbours'" in refused.stderr


# -- rows over rows


def over(rows: str) -> str:
    return f'name = "x"\n[data]\nprepared = "data"\n{rows}'


BOTH = """
[[rows]]
label = "markov"
model = "markov"

[[rows]]
label = "stamp"
model = "stamp"
seeds = [4, 2]
settings = { epochs = 1, dim = 4 }

[[rows]]
label = "over both"
model = "rrcre"
generators = ["markov", "stamp"]
seeds = [2, 3]
settings = { epochs = 1, dim = 4, k = 8 }

[[rows]]
label = "blended"
model = "blend"
generators = ["markov", "stamp"]
settings = { weights = "3,1" }
"""


def test_rows_over_rows_take_their_models(logs: Path, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(over(BOTH), "utf-8")
    spec = read(tmp_path / "x.toml", logs)
    assert spec.rows[3].written == "weights=3,1; over markov + stamp"
    told: list[str] = []
    done = experiment.run(spec, tmp_path / "out", rows=["over both"], say=told.append)
    assert [one.split(":")[0] for one in told] == [
        "markov", "stamp, seed 2", "over both, seed 2", "stamp, seed 4", "over both, seed 3"
    ]  # fmt: skip
    assert [row["state"] for row in done.content["rows"]] == ["done", "done", "done", "not run"]
    assert done.content["rows"][2]["generators"] == ["markov", "stamp"]
    runs = {path.name.rsplit("-", 1)[0]: path / "model" for path in (tmp_path / "out" / "runs").iterdir()}
    for seed, of_stamp in ((2, 2), (3, 4)):  # with the same seed where there is one, else with the first
        inner = nextclick.load(runs[f"rrcre-seed-{seed}"])
        assert [one.name for one in inner.generators] == ["markov", "stamp"]  # type: ignore[attr-defined]
        assert inner.generators[1].seed == of_stamp  # type: ignore[attr-defined]
    again = experiment.run(spec, tmp_path / "out", say=told.append)
    assert [one.split(":")[0] for one in told[5:]] == ["blended"]
    assert [row["state"] for row in again.content["rows"]] == ["done"] * 4


def test_a_row_over_one_that_fails_fails_too(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "diverging", Diverging)
    text = over(BOTH).replace('model = "markov"', 'model = "diverging"')
    (tmp_path / "x.toml").write_text(text, "utf-8")
    done = experiment.run(read(tmp_path / "x.toml", logs), tmp_path / "out", rows=["blended"])
    assert done.content["rows"][3]["runs"][0]["error"] == "markov failed, and this row builds on it"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('["markov", "stamp"]', '["markov", "stmp"]'), "no row above it has the label 'stmp'; did you mean"),
        (('["markov", "stamp"]', '"markov"'), "expected labels of rows"),
        (('generators = ["markov", "stamp"]\nseeds', "seeds"), "rrcre builds on other rows; name them"),
        (('label = "markov"', 'label = "markov"\ngenerators = ["x"]'), "markov takes no generator"),
        (('label = "over both"', 'label = "over both"\nfull = true'), "full=True, but not in its generator"),
        (('weights = "3,1"', 'weights = "3"'), "found 1 for 2 generators"),
    ],
)
def test_generators_that_are_no_rows_above_are_refused(
    change: tuple[str, str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "x.toml").write_text(over(BOTH.replace(*change, 1)), "utf-8")
    with pytest.raises(ConfigError, match=re.escape(message)):
        read(tmp_path / "x.toml")


# -- rows that read features


FEATURED = """
    name = "featured"
    [data]
    prepared = "data"
    [features]
    ready = "features"
    [features.made]
    items = "items.csv"
    text = ["title"]
    numeric = ["price"]
    [defaults]
    seeds = [1]
    [[rows]]
    label = "text"
    model = "prnn"
    features = "made"
    settings = { epochs = 1, hidden = 4 }
    [[rows]]
    model = "narm"
    features = "ready"
    settings = { epochs = 1, dim = 4, hidden = 4 }
    [[rows]]
    label = "ids"
    model = "narm"
    settings = { epochs = 1, dim = 4, hidden = 4 }
"""


@pytest.fixture(scope="module")
def shop(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared log, with a table of its items and features made of it."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("shop")
    (folder / "data").symlink_to(logs / "data")
    rows = [[f"item {item}", f"{'red' if item % 2 else 'blue'} thing", item] for item in range(40)]
    write_rows(folder / "items.csv", ["item_id", "title", "price"], rows)
    items = nextclick.ItemTable.read(folder / "items.csv")
    nextclick.build_features(items, text_columns=["title"]).save(folder / "features")
    return folder


def test_rows_read_features_that_are_there_or_made(shop: Path, tmp_path: Path) -> None:
    done = start(tmp_path, shop, FEATURED)
    assert not done.failed
    assert [row["written"] for row in done.content["rows"]] == [
        "epochs=1 hidden=4; features made",
        "epochs=1 dim=4 hidden=4; features ready",
        "epochs=1 dim=4 hidden=4",
    ]
    runs = {}
    for path in (tmp_path / "out" / "runs").iterdir():
        key = json.loads((path / "result.json").read_text())["key"]
        runs[key["model"], "features" in key] = nextclick.load(path / "model")
    assert runs["prnn", True].facts["representations"] == ["id", "text", "columns"]
    assert runs["narm", True].facts["representations"] == ["id", "text"]
    assert not runs["narm", False].takes_new_items
    (made,) = (tmp_path / "out" / "features").iterdir()
    before = (made / "features.safetensors").stat().st_mtime_ns
    told: list[str] = []
    again = start(tmp_path, shop, FEATURED, say=told.append)
    assert told == []  # neither fitted nor made again
    assert (made / "features.safetensors").stat().st_mtime_ns == before
    assert [row["mean"] for row in again.content["rows"]] == [row["mean"] for row in done.content["rows"]]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('features = "made"', 'features = "mad"', r"row 'text': no \[features\] 'mad'; did you mean 'made'"),
        ('features = "made"', "features = 3", "expected the name of a table"),
        ('model = "prnn"', 'model = "markov"', "markov reads none"),
        ('text = ["title"]', 'text = "title"', "expected a list of columns"),
        ('text = ["title"]', 'txt = ["title"]', r"\[features\] made has no 'txt'; did you mean 'text'"),
        ('items = "items.csv"', "", "which table of items"),
        ('ready = "features"', "ready = 3", "a directory of features, or what to make them from"),
    ],
)
def test_features_that_make_no_sense_are_refused(old: str, new: str, says: str, tmp_path: Path) -> None:
    text = FEATURED.replace("settings = { epochs = 1, hidden = 4 }", "", 1) if "markov" in new else FEATURED
    with pytest.raises(ConfigError, match=says):
        read(written(tmp_path, text.replace(old, new, 1)))


def test_features_that_are_not_there_stop_the_run(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"item\.csv: no such file; the features 'made'"):
        start(tmp_path, shop, FEATURED.replace("items.csv", "item.csv"))
    with pytest.raises(nextclick.ArtifactError, match="no features here"):
        start(tmp_path, shop, FEATURED.replace('ready = "features"', 'ready = "data"'))
