"""Neighbour models fitted by a database: what compiled loops learn, to the last bit, from shards on disk."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import data as data_of_benchmarks
import nextclick
import scale
import vectors
from nextclick import VMISKNN, VSKNN, Dataset, ItemKNN, Recommender, Run, Sessions, prepare
from nextclick.cli import main
from nextclick.clickstream import StreamConfig, generate
from nextclick.errors import ArtifactError, ConfigError, DataError, MissingExtraError
from nextclick.index import Index
from nextclick.large import open_engine
from nextclick.large.engine import Counting
from nextclick.prepare.engines import DuckDB

MODELS: list[tuple[type[Recommender], dict[str, Any]]] = [
    (ItemKNN, {}),
    (ItemKNN, {"n_neighbours": 3}),
    (ItemKNN, {"formula": "narm", "counts": "clicks", "n_neighbours": 1000}),
    (ItemKNN, {"pairs": "anchor"}),
    (ItemKNN, {"pairs": "anchor", "counts": "clicks", "formula": "narm", "n_neighbours": 2}),
    (VMISKNN, {"sample_size": 5}),
    (VMISKNN, {"sample_size": 100_000}),
    (VMISKNN, {"sample_size": 3, "day_decay": 0.9, "idf_similarity": True}),
]
some = pytest.mark.parametrize(
    ("model", "values"), MODELS, ids=[f"{m.name} {' '.join(map(str, v.values()))}" for m, v in MODELS]
)


def written(folder: Path, lists: list[list[int]], events: list[list[str]] | None = None) -> Path:
    """Write sessions as a log, one an hour, a click a second."""
    rows = [
        (s, item, 1_400_000_000 + 3600 * s + c, "view" if events is None else events[s][c])
        for s, session in enumerate(lists)
        for c, item in enumerate(session)
    ]
    columns = {name: np.array(column) for name, column in zip(
        ("session_id", "item_id", "timestamp", "event"), zip(*rows, strict=True), strict=True)}  # fmt: skip
    columns["event"] = columns["event"].astype(object)
    folder.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as connection:
        connection.register("given", columns)
        connection.execute(f"COPY given TO '{folder / 'log.parquet'}' (FORMAT parquet)")
    return folder / "log.parquet"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A stream of 6,000 clicks, many tied weights among them, in several shards."""
    folder = tmp_path_factory.mktemp("large")
    generate(StreamConfig(events=6000, items=150), folder / "log")
    return prepare(folder / "log", out=folder / "data", validation="0.2", shard_clicks=1000)


def fitted(model: Recommender, dataset: Dataset, sessions: Sessions, engine: str = "duckdb") -> Recommender:
    with open_engine(engine, dataset, memory=200_000_000) as opened:
        return model.fit(sessions, run=Run(engine=opened))


def assert_same(ours: Recommender, theirs: Recommender) -> None:
    a, b = ours.state(), theirs.state()
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype, name
        assert np.array_equal(a[name], b[name]), name
    assert ours.facts == theirs.facts


# -- the same lists


@some
def test_an_engine_gives_what_the_compiled_loops_give(
    data: Dataset, model: type[Recommender], values: dict[str, Any]
) -> None:
    for sessions in (data.train, data.full):
        assert_same(fitted(model(**values), data, sessions), model(**values).fit(sessions))


def test_lists_do_not_depend_on_the_number_of_buckets(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int, int]] = []
    monkeypatch.setattr("nextclick.large.engine._PAIR_BYTES", 80_000_000)
    with open_engine("duckdb", data, memory=200_000_000) as opened:
        model = ItemKNN().fit(data.train, run=Run(engine=opened), progress=lambda *now: told.append(now))
        again = ItemKNN(pairs="anchor").fit(data.train, run=Run(engine=opened))
    assert max(total for what, _, total in told if what == "counting pairs") > 5
    assert_same(model, ItemKNN().fit(data.train))
    assert_same(again, ItemKNN(pairs="anchor").fit(data.train))


@pytest.mark.parametrize("pairs", ["session", "anchor"])
def test_only_pruned_lists_leave_the_engine(
    data: Dataset, monkeypatch: pytest.MonkeyPatch, pairs: str
) -> None:
    """Of many pairs of items no more rows come out than there are places in the lists."""
    delivered: list[int] = []
    columns, rows = DuckDB.columns, DuckDB.rows

    def counted(self: DuckDB, sql: str) -> Any:
        found = columns(self, sql)
        delivered.append(max(map(len, found.values()), default=0))
        return found

    def few(self: DuckDB, sql: str) -> Any:
        found = rows(self, sql)
        assert len(found) <= 1, sql
        return found

    monkeypatch.setattr(DuckDB, "columns", counted)
    monkeypatch.setattr(DuckDB, "rows", few)
    model = fitted(ItemKNN(pairs=pairs, n_neighbours=1), data, data.train)
    n_items = data.train.n_items
    everything = len(ItemKNN(pairs=pairs, n_neighbours=n_items).fit(data.train).state()["items"])
    assert everything > 5 * n_items
    assert max(delivered) <= n_items
    assert len(model.state()["items"]) <= n_items


def test_what_is_opened_is_mapped_and_not_read(data: Dataset) -> None:
    """The flat arrays beside the shards: parts of the data are windows into the files."""
    assert data.path is not None
    opened = Dataset.load(data.path)
    for array in (opened.sessions.items, opened.sessions.times):
        assert isinstance(array, np.memmap)
    assert np.shares_memory(opened.train.items, opened.sessions.items)
    assert np.shares_memory(opened.test.items, opened.sessions.items)


def test_ties_by_hand(tmp_path: Path) -> None:
    """1 goes with 2 and 3 twice each and with 4 once; n_neighbours=2 keeps the first codes among equals."""
    lists = [[1, 2, 3], [1, 3, 2], [1, 4], [4, 1], [1, 2]]
    data = prepare(
        written(tmp_path, lists), out=tmp_path / "data", min_support=1, holdout="0.2", validation="0"
    )
    assert data.train.vocabulary.ids_of(range(4)) == [1, 2, 3, 4]
    values = {"asymmetry": 0.5, "n_neighbours": 2}
    model = fitted(ItemKNN(**values), data, data.train)
    state = model.state()
    # n_1 = 4, n_2 = n_3 = n_4 = 2: all three of 1's neighbours have weight 2 / sqrt(4 * 2).
    assert state["items"][: state["offsets"][1]].tolist() == [1, 2]
    assert state["weights"][:2].tolist() == pytest.approx([2 / np.sqrt(8)] * 2)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lists=st.lists(st.lists(st.integers(1, 6), min_size=2, max_size=7), min_size=3, max_size=15),
    model=st.sampled_from(MODELS),
    shard=st.integers(1, 30),
)
def test_any_log(
    tmp_path_factory: pytest.TempPathFactory, lists: list[list[int]],
    model: tuple[type[Recommender], dict[str, Any]], shard: int,
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("any")
    log = written(folder, lists)
    options: dict[str, Any] = {"min_support": 1, "holdout": "0.3", "validation": "0"}
    data = prepare(log, out=folder / "data", shard_clicks=shard, **options)
    assert_same(fitted(model[0](**model[1]), data, data.train), model[0](**model[1]).fit(data.train))


def test_targets_of_one_event(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    lists = [rng.integers(1, 9, 6).tolist() for _ in range(60)]
    names = ["view", "it's \\ tip", "buy"]
    events = [[names[n] for n in rng.integers(0, 3, 6)] for _ in lists]
    data = prepare(written(tmp_path, lists, events), out=tmp_path / "data", target_event=names[1])
    assert_same(fitted(ItemKNN(pairs="anchor"), data, data.train), ItemKNN(pairs="anchor").fit(data.train))


# -- the bounded index


def test_sessions_that_cannot_answer_are_dropped_and_the_rest_keep_their_numbers(data: Dataset) -> None:
    plain, bounded = VSKNN(sample_size=8, k=5).fit(data.train), VMISKNN(sample_size=8, k=5).fit(data.train)
    state = bounded.state()
    numbers = state["numbers"]
    assert len(numbers) - 1 < len(data.train) * 0.8
    assert numbers[-1] == len(data.train)
    whole = plain.state()
    for kept, number in list(enumerate(numbers[:-1]))[::17]:
        row = slice(*state["offsets"][kept : kept + 2])
        of = slice(*whole["offsets"][number : number + 2])
        assert np.array_equal(state["items"][row], whole["items"][of])
    queries, _ = data.validation.pairs()
    for ours, theirs in zip(bounded.top(queries, 20), plain.top(queries, 20), strict=True):
        assert np.array_equal(ours, theirs)
    prefix = data.train[-1:].items
    a, b = (model.reasons(prefix, np.arange(9, dtype=np.int32)).sessions for model in (bounded, plain))
    told = [(one.clicks, one.similarity, one.days, one.later, one.parts.tolist()) for one in a]
    assert told == [(one.clicks, one.similarity, one.days, one.later, one.parts.tolist()) for one in b]
    assert len(told) == 5


def test_a_session_left_out_is_left_out_of_the_bounded_index_too(data: Dataset) -> None:
    plain, bounded = VSKNN(sample_size=8, k=5).fit(data.train), VMISKNN(sample_size=8, k=5).fit(data.train)
    queries, positions = data.train.pairs()
    own = data.train.session_of[positions]
    for ours, theirs in zip(
        bounded.top_without(queries, own, 10), plain.top_without(queries, own, 10), strict=True
    ):
        assert np.array_equal(ours, theirs)


def test_numbers_that_do_not_fit_are_refused(data: Dataset) -> None:
    model = VMISKNN(sample_size=8).fit(data.train)
    state = model.state()
    for wrong in (state["numbers"][::-1].copy(), state["numbers"][1:], state["numbers"].astype(np.int32)):
        with pytest.raises(ArtifactError, match="saved numbers do not fit"):
            VMISKNN(sample_size=8).restore({**state, "numbers": wrong}, model.vocabulary)


# -- the command line


def test_the_command_writes_an_ordinary_model(data: Dataset, tmp_path: Path) -> None:
    assert data.path is not None
    words = ["fit", str(data.path), "item-knn", "--set", "n_neighbours=7"]
    for extra in (
        ["--out", str(tmp_path / "plain")],
        ["--out", str(tmp_path / "duck"), "--engine", "duckdb"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "nextclick", *words, *extra], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    a, b = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("plain", "duck"))
    assert a == b
    assert sorted(file.name for file in tmp_path.iterdir()) == ["duck", "plain"]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["vs-knn", "--engine", "duckdb"], "vs-knn is fitted in memory; item-knn, vmis-knn can be"),
        (["item-knn", "--engine", "duckdb", "--memory", "much"], "'much' is no size of memory"),
        (["item-knn", "--engine", "duckdb", "--memory", "1MB"], "too little, at least 64MB"),
    ],
)
def test_what_an_engine_cannot_do_is_said(
    data: Dataset, tmp_path: Path, words: list[str], match: str
) -> None:
    result = CliRunner().invoke(main, ["fit", str(data.path), *words, "--out", str(tmp_path / "m")])
    assert result.exit_code == 1
    assert match in result.output
    assert not list(tmp_path.iterdir())


# -- shards


def test_shards_hold_the_clicks_in_order_and_change_nothing_else(data: Dataset, tmp_path: Path) -> None:
    assert data.path is not None
    assert len(data.shards) > 3
    again = prepare(data.path.parent / "log", out=tmp_path / "whole", validation="0.2")
    assert again.fingerprint == data.fingerprint
    assert [name for name, _ in again.shards] == ["events.parquet"]
    sql = "SELECT session, position, item, epoch_us(time) AS time FROM '{}' ORDER BY session, position"
    a = duckdb.sql(sql.format(data.path / "events.parquet" / "*.parquet")).fetchnumpy()
    b = duckdb.sql(sql.format(tmp_path / "whole" / "events.parquet")).fetchnumpy()
    for name in a:
        assert np.array_equal(a[name], b[name])
    assert np.array_equal(a["item"], data.sessions.items)
    assert np.array_equal(a["time"], data.sessions.times)
    low = 0
    for shard in data.info["shards"]:
        assert shard["sessions"][0] == low
        low = shard["sessions"][1]
        assert shard["clicks"] <= 1000
        found = duckdb.sql(f"SELECT MIN(session), MAX(session) FROM '{data.path / shard['file']}'").fetchall()
        assert found == [(shard["sessions"][0], low - 1)]
    assert low == len(data.sessions)


@pytest.fixture
def copy(data: Dataset, tmp_path: Path) -> Path:
    assert data.path is not None
    return Path(shutil.copytree(data.path, tmp_path / "copy"))


def refused(folder: Path, match: str) -> None:
    out = folder.parent / "model"
    words = ["fit", str(folder), "item-knn", "--engine", "duckdb", "--out", str(out)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1, result.output
    assert match in result.output.replace("\n", " ")
    assert [file.name for file in folder.parent.iterdir()] == ["copy"]


def test_a_missing_shard_is_named(copy: Path) -> None:
    (copy / "events.parquet" / "part-00002.parquet").unlink()
    refused(copy, "part-00002.parquet: this shard is missing; put it back, or prepare the data again")


def test_a_truncated_shard_is_named(copy: Path) -> None:
    shard = copy / "events.parquet" / "part-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    refused(copy, "part-00001.parquet: this shard is damaged or truncated")


def test_a_shard_of_another_preparation_is_named(copy: Path) -> None:
    shards = copy / "events.parquet"
    last = sorted(shards.iterdir())[-1]
    (shards / "part-00000.parquet").write_bytes(last.read_bytes())
    refused(copy, "part-00000.parquet: expected ")


def test_a_shard_with_other_clicks_is_found_out(copy: Path) -> None:
    """As many as there were, so that only their sum tells."""
    shard = copy / "events.parquet" / "part-00001.parquet"
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT * REPLACE (item + 1 AS item) FROM '{shard}') TO '{copy}/other.parquet'"
        )
    (copy / "other.parquet").rename(shard)
    refused(copy, "they are not of one preparation; prepare the data again")


def test_damage_inside_a_shard_is_never_taken_for_clicks(copy: Path) -> None:
    """Zeros over its data, its end left whole: an error of ours, not one of the database's."""
    shard = copy / "events.parquet" / "part-00001.parquet"
    content = bytearray(shard.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    shard.write_bytes(content)
    out = copy.parent / "model"
    words = ["fit", str(copy), "item-knn", "--engine", "duckdb", "--out", str(out)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    assert "events.parquet: cannot be read, it may be damaged" in result.output.replace("\n", " ")
    assert not out.exists()


def test_a_full_disk_leaves_no_model(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Counting, "_collected", full)
    refused(copy, "the disk is full; nothing was kept")


def test_other_sessions_than_those_of_the_data_are_refused(data: Dataset) -> None:
    lists = Sessions.from_lists([["a", "b"], ["b", "c"]])
    with open_engine("duckdb", data, memory=200_000_000) as opened:
        for other in (lists, data.train[5:], data.train[1:50]):
            with pytest.raises(DataError, match="from its first one on"):
                ItemKNN().fit(other, run=Run(engine=opened))
        assert_same(ItemKNN().fit(data.train[:50], run=Run(engine=opened)), ItemKNN().fit(data.train[:50]))
        with pytest.raises(ConfigError, match="vs-knn is fitted in memory"):
            VSKNN().fit(data.train, run=Run(engine=opened))


def test_unknown_engines_and_data_in_memory_are_refused(data: Dataset) -> None:
    with (
        pytest.raises(ConfigError, match="no engine 'polars': choose one of duckdb, spark"),
        open_engine("polars", data),
    ):
        pass
    loose = Dataset(data.name, data.sessions, data.bounds, data.known, data.info)
    with pytest.raises(ArtifactError, match="not on disk"), open_engine("duckdb", loose):
        pass


def test_spark_without_pyspark_names_the_extra(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with (
        pytest.raises(MissingExtraError, match=r"pip install 'nextclick\[spark\]'"),
        open_engine("spark", data),
    ):
        pass
    assert data.path is not None
    assert not [file for file in data.path.parent.iterdir() if file.name.startswith(".")]


def test_data_prepared_before_there_were_shards_are_read(copy: Path) -> None:
    """One file, and nothing of it in prepare.json."""
    with duckdb.connect() as connection:
        connection.execute(
            f"COPY (SELECT * FROM '{copy}/events.parquet/*.parquet') TO '{copy}/whole' (FORMAT parquet)"
        )
    shutil.rmtree(copy / "events.parquet")
    (copy / "whole").rename(copy / "events.parquet")
    info = json.loads((copy / "prepare.json").read_text())
    del info["shards"]
    (copy / "prepare.json").write_text(json.dumps(info))
    old = Dataset.load(copy, verify=True)
    assert_same(fitted(ItemKNN(), old, old.train), ItemKNN().fit(old.train))


# -- sizes of memory


@pytest.mark.parametrize(
    ("text", "size"), [("8GB", 8 * 10**9), ("500 mb", 5 * 10**8), ("1.5GiB", 3 << 29), ("1t", 10**12)]
)
def test_sizes_of_memory(text: str, size: int) -> None:
    assert nextclick.settings.read_memory("--memory", text) == size


# -- what the benchmarks say


def test_the_tables_of_the_page_are_up_to_date() -> None:
    assert scale.PAGE.read_text("utf-8") == scale.filled(scale.PAGE.read_text("utf-8")), (
        "run python benchmarks/scale.py --tables"
    )


def test_benchmarks_go_on_behind_what_they_kept(tmp_path: Path) -> None:
    measured: list[str] = []

    def measure() -> float:
        measured.append("once")
        return 1.5

    for _ in range(2):
        assert data_of_benchmarks.Kept(tmp_path / "work" / "parts.json").get("a part", measure) == 1.5
    assert measured == ["once"]
    (tmp_path / "work" / "parts.json").write_text('{"version": "0.0.0"}')
    with pytest.raises(SystemExit, match=r"measured with version 0\.0\.0: take another folder"):
        data_of_benchmarks.Kept(tmp_path / "work" / "parts.json")


def test_an_index_that_was_kept_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And finds as many of the exact items as it did when it was built."""
    pytest.importorskip("faiss")
    of, queries = vectors.drawn(3000, 20)
    assert np.allclose(np.linalg.norm(of, axis=1), 1)
    exact, _ = vectors.nearest(of, queries)
    slow = np.argsort(-(queries @ of.T), axis=1, kind="stable")[:, : vectors.K]
    assert np.array_equal(np.sort(exact), np.sort(slow))
    first = vectors.opened(of, queries, exact, tmp_path, "cells")
    assert first.figures["recall_when_built"] >= vectors.RECALL
    monkeypatch.setattr(Index, "build", None)
    again = vectors.opened(of, queries, exact, tmp_path, "cells")
    assert {**again.figures, "open_ms": 0} == {**first.figures, "open_ms": 0}
    assert again.index.measured(queries, exact) == pytest.approx(first.figures["recall_when_built"], abs=1e-4)


def test_slopes_and_targets_by_hand() -> None:
    def step(seconds: float, gigabytes: float) -> dict[str, Any]:
        return {"seconds": seconds, "cpu_seconds": 2 * seconds, "peak_gb": gigabytes}

    result = scale.summed_up(
        {
            "1000000/prepare": step(1, 1), "100000000/prepare": step(100, 11),
            "1000000/item-knn duckdb": step(1, 1), "100000000/item-knn duckdb": step(10_000, 17),
        }
    )  # fmt: skip
    assert result["slopes"]["prepare"]["seconds"] == 1.0
    assert result["slopes"]["item-knn duckdb"]["cpu_seconds"] == 2.0
    assert result["rows"][1]["microseconds_per_event"] == 1.0
    assert list(result["targets"].values()) == [True, False, True, False]


def test_preparation_in_little_memory_gives_the_same_data(data: Dataset, tmp_path: Path) -> None:
    assert data.path is not None
    words = ["prepare", str(data.path.parent / "log"), "--validation", "0.2", "--out", str(tmp_path / "d")]
    refused = CliRunner().invoke(main, [*words, "--memory", "8"])
    assert refused.exit_code == 1
    assert "--memory '8' is no size of memory: write 8GB, 500MB or 12GiB" in refused.output
    done = CliRunner().invoke(main, [*words, "--memory", "100MB"])
    assert done.exit_code == 0, done.output
    assert Dataset.load(tmp_path / "d", verify=True).fingerprint == data.fingerprint
    with pytest.raises(ConfigError, match="shard_clicks=0: expected at least 1"):
        prepare(data.path.parent / "log", out=tmp_path / "e", shard_clicks=0)
