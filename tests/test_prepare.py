"""The preparation on logs that can be used: real ones, known layouts, and each option."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from click.testing import CliRunner

from nextclick.cli import main
from nextclick.dataset import Dataset
from nextclick.errors import ConfigError, DataError
from nextclick.prepare import prepare
from nextclick.prepare.options import DAY, read_part, read_share, read_span
from nextclick.sessions import Sessions

T0 = 1_400_000_000  # seconds, in May 2014


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], delimiter: str = ",") -> Path:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerows([header] if header else [])
        writer.writerows(rows)
    return path


def simple_log(path: Path, n_sessions: int = 40, length: int = 3) -> Path:
    """Sessions one hour apart; the items of each are a, b, c ... in turn."""
    rows = [
        (f"s{s:03}", "abcdefghij"[(s + i) % 10], T0 + s * 3600 + i * 10)
        for s in range(n_sessions)
        for i in range(length)
    ]
    return write_csv(path, ["session_id", "item_id", "timestamp"], rows)


def lists(sessions: Sessions) -> list[list[Any]]:
    """Return the sessions as the user's own item ids."""
    return [
        sessions.vocabulary.ids_of(sessions.items[a:b])
        for a, b in zip(sessions.offsets[:-1], sessions.offsets[1:], strict=True)
    ]


def whole(dataset: Dataset) -> list[list[Any]]:
    return lists(dataset.sessions)


def step(dataset: Dataset, name: str) -> dict[str, Any]:
    return next(one for one in dataset.info["steps"] if one["name"] == name)


LOOSE: dict[str, Any] = {"min_support": 1, "min_length": 1, "validation": "0"}


@pytest.mark.parametrize(
    ("name", "train_pairs", "test_pairs", "n_items"),
    [("yoochoose64", 369_859, 55_898, 17_376), ("diginetica", 719_470, 60_858, 43_097)],
)
def test_ready_splits_of_the_literature_keep_their_pairs(
    shared_data: Path, tmp_path: Path, name: str, train_pairs: int, test_pairs: int, n_items: int
) -> None:
    folder = shared_data / name
    data = prepare(train=folder / "train.parquet", test=folder / "test.parquet", out=tmp_path / name)
    assert (data.train.n_pairs, data.test.n_pairs) == (train_pairs, test_pairs)
    assert data.train.n_items == n_items
    assert not data.train.clock
    assert data.sessions.times[0] == 0
    assert len(data.validation) == 0
    assert np.all(np.diff(data.train.support()) <= 0), "codes are in the order of popularity"


def test_eshop_log_is_recognised_and_kept_in_its_order(shared_data: Path, tmp_path: Path) -> None:
    log = shared_data / "eshop" / "clicks.csv.gz"
    data = prepare(log, out=tmp_path / "eshop", holdout="7d", validation="7d", **{"min_support": 1})
    assert data.info["columns"]["order"] == ["order"]
    assert step(data, "read")["clicks"] == 165_474
    assert step(data, "read")["sessions"] == 24_026
    assert step(data, "read")["items"] == 217
    with gzip.open(log, "rt") as stream:
        rows = [
            (r["session ID"], int(r["order"]), r["page 2 (clothing model)"])
            for r in csv.DictReader(stream, delimiter=";")
        ]
    expected: dict[str, list[tuple[int, str]]] = {}
    for session, order, item in rows:
        expected.setdefault(session, []).append((order, item))
    ids = duckdb.sql(f"SELECT id FROM '{tmp_path}/eshop/sessions.parquet' ORDER BY session").fetchall()
    for (own,), found in zip(ids, whole(data), strict=True):
        assert found == [item for _, item in sorted(expected[own])]
    last = int(data.sessions.times[-1])
    ends = data.sessions.times[data.sessions.offsets[1:] - 1]
    assert data.bounds[1] == np.count_nonzero(ends <= last - 7 * DAY)
    assert data.bounds[0] == np.count_nonzero(ends <= last - 14 * DAY)


def test_raw_diginetica_is_ordered_by_timeframe(shared_data: Path, tmp_path: Path) -> None:
    log = shared_data / "raw-formats" / "sample_train-item-views.csv"
    data = prepare(log, out=tmp_path / "d", **LOOSE)
    assert data.info["layout"].startswith("Diginetica")
    ids = [
        row[0]
        for row in duckdb.sql(f"SELECT id FROM '{tmp_path}/d/sessions.parquet' ORDER BY session").fetchall()
    ]
    first = whole(data)[ids.index("1")]
    assert first[:3] == ["9654", "33043", "32118"]  # timeframes 75848, 173912, 243569
    assert not data.info["warnings"]


def test_without_order_column_ties_are_warned_about(shared_data: Path, tmp_path: Path) -> None:
    log = shared_data / "raw-formats" / "sample_train-item-views.csv"
    rows = [line.split(";") for line in log.read_text().splitlines()[1:500]]
    bare = write_csv(
        tmp_path / "log.csv", ["session_id", "item_id", "time"], [(r[0], r[2], r[4]) for r in rows]
    )
    data = prepare(bare, out=tmp_path / "d", **LOOSE)
    assert "--order" in data.info["warnings"][0]


def test_retailrocket_export_and_users_cut_at_pauses_agree(shared_data: Path, tmp_path: Path) -> None:
    """The export's session ids were made with pauses of 30 minutes; cutting its users again finds them."""
    log = shared_data / "raw-formats" / "sample_retailrocket.csv"
    ready = prepare(log, out=tmp_path / "a")
    cut = prepare(log, out=tmp_path / "b", user="user_id")
    assert whole(ready) == whole(cut)
    assert "-" in duckdb.sql(f"SELECT id FROM '{tmp_path}/b/sessions.parquet'").fetchall()[0][0]


def test_original_retailrocket_log_with_events(tmp_path: Path) -> None:
    rows = [
        ((T0 + s * 5000 + i * 60) * 1000, s % 3, ["view", "addtocart"][i == 1], f"{i}", "")
        for s in range(12)
        for i in range(3)
    ]
    log = write_csv(
        tmp_path / "events.csv", ["timestamp", "visitorid", "event", "itemid", "transactionid"], rows
    )
    data = prepare(log, out=tmp_path / "all", **LOOSE)
    assert data.info["time_unit"] == "ms"
    assert whole(data) == [["0", "1", "2"]] * 12
    assert data.sessions.event_names == ("addtocart", "view")
    assert data.sessions.events is not None
    assert data.sessions.events[:3].tolist() == [1, 0, 1]
    views = prepare(log, out=tmp_path / "views", events=("view",), **LOOSE)
    assert whole(views) == [["0", "2"]] * 12
    assert views.sessions.event_names == ("view",)
    with pytest.raises(ConfigError, match="no event 'veiw'; did you mean 'view'"):
        prepare(log, out=tmp_path / "typo", events=("veiw",))


def test_yoochoose_file_without_header(tmp_path: Path) -> None:
    rows = [(s, f"2014-04-07T10:{s:02}:{i:02}.277Z", f"0{i}", 0) for s in range(10) for i in range(3)]
    log = write_csv(tmp_path / "yoochoose-clicks.dat", [], rows)
    data = prepare(log, out=tmp_path / "d", **LOOSE)
    assert whole(data) == [["00", "01", "02"]] * 10
    assert step(data, "read")["clicks"] == 30
    assert int(data.sessions.times[0]) == 1_396_864_800_277_000


@pytest.mark.parametrize(
    ("unit", "shown"),
    [
        ("s", "1400000000"), ("s", "1400000000.25"), ("ms", "1400000000250"), ("us", "1400000000250000"),
        ("ns", "1400000000250000999"), ("iso", "2014-05-13T16:53:20.25Z"), ("iso", "2014-05-13 16:53:20.25"),
        ("iso", "2014-05-13T18:53:20.250+02:00"), ("iso", "2014-05-13"),
    ],
)  # fmt: skip
def test_times_in_every_unit(tmp_path: Path, unit: str, shown: str) -> None:
    log = write_csv(
        tmp_path / "l.csv", ["session", "item", "time"], [(s, i, shown) for s in "abc" for i in "xy"]
    )
    data = prepare(log, out=tmp_path / "d", **LOOSE)
    assert data.info["time_unit"] == unit
    micros = 1_400_000_000_000_000 + 250_000 * (".25" in shown or "025" in shown)
    assert set(data.sessions.times.tolist()) == {1_399_939_200_000_000 if shown == "2014-05-13" else micros}


@pytest.mark.parametrize("kind", ["BIGINT", "DOUBLE", "TIMESTAMP", "TIMESTAMPTZ", "DATE", "VARCHAR"])
def test_parquet_types_of_time(tmp_path: Path, kind: str) -> None:
    moment = {"BIGINT": f"{T0}", "DOUBLE": f"{T0}.25"}.get(kind, "TIMESTAMP '2014-05-13 16:53:20'")
    duckdb.sql(
        f"COPY (SELECT s AS session_id, i AS item_id, CAST({moment} AS {kind}) AS timestamp "
        f"FROM range(4) a(s), range(2) b(i)) TO '{tmp_path}/l.parquet'"
    )
    data = prepare(tmp_path / "l.parquet", out=tmp_path / "d", **LOOSE)
    expected = {"DOUBLE": T0 * 10**6 + 250_000, "DATE": 1_399_939_200_000_000}.get(kind, T0 * 10**6)
    assert set(data.sessions.times.tolist()) == {expected}
    assert data.sessions.vocabulary.id_of(0) == 0


def test_ids_are_kept_as_written(tmp_path: Path) -> None:
    nasty = [
        "007",
        "7",
        "a,b",
        'q"uote',
        "new\nline",
        " blank ",
        "😀",
        "é",
        "e\u0301",
        "x" * 10_000,
        "'",
        "null and void",
        "\\",
    ]
    rows = [(f"s {s},", item, T0 + s * 100 + i) for s in range(5) for i, item in enumerate(nasty)]
    log = write_csv(tmp_path / "l.csv.gz", ["session_id", "item_id", "timestamp"], rows)
    data = prepare(log, out=tmp_path / "d", **LOOSE)
    assert whole(data) == [nasty] * 5
    assert not data.info["bad_rows"]
    again = Dataset.load(tmp_path / "d")
    assert again.sessions.vocabulary.code_of("😀") == data.sessions.vocabulary.code_of("😀") >= 0
    assert again.sessions.vocabulary.code_of("007") != again.sessions.vocabulary.code_of("7")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_separators(tmp_path: Path, delimiter: str) -> None:
    rows = [(s, i, T0 + s) for s in range(4) for i in range(3)]
    log = write_csv(tmp_path / "l.csv", ["session_id", "item_id", "timestamp"], rows, delimiter)
    assert whole(prepare(log, out=tmp_path / "d", **LOOSE)) == [["0", "1", "2"]] * 4


def test_folder_pattern_and_several_files_are_one_log(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    for part in range(3):
        rows = [(s, i, T0 + s) for s in range(part * 4, part * 4 + 4) for i in range(3)]
        write_csv(folder / f"part-{part}.csv", ["session_id", "item_id", "timestamp"], rows)
    (folder / "_SUCCESS").touch()
    one = prepare(folder, out=tmp_path / "a", **LOOSE)
    two = prepare(str(folder / "*.csv"), out=tmp_path / "b", **LOOSE)
    three = prepare([folder / f"part-{i}.csv" for i in (2, 0, 1)], out=tmp_path / "c", **LOOSE)
    assert len(one.sessions) == 12
    assert one.fingerprint == two.fingerprint == three.fingerprint


def test_codes_follow_split_then_clicks_then_id(tmp_path: Path) -> None:
    sessions = [["b", "b", "a"], ["c", "a"], ["v", "c", "v"], ["t", "b", "u", "u"]]
    rows = [(s, item, T0 + s * 100 + i) for s, items in enumerate(sessions) for i, item in enumerate(items)]
    log = write_csv(tmp_path / "l.csv", ["session_id", "item_id", "timestamp"], rows)
    data = prepare(log, out=tmp_path / "d", min_support=1, holdout="1/4", validation="1/4")
    assert data.sessions.vocabulary.ids_of(range(6)) == ["a", "b", "c", "v", "u", "t"]
    assert data.info["n_items"] == {"train": 3, "full": 4, "all": 6}
    assert (len(data.train), len(data.validation), len(data.test)) == (2, 1, 1)
    items = duckdb.sql(f"SELECT * FROM '{tmp_path}/d/items.parquet' ORDER BY item").fetchall()
    assert items[0] == (0, "a", 2, "train")
    assert items[3] == (3, "v", 0, "validation")
    events = duckdb.sql(f"SELECT * FROM '{tmp_path}/d/events.parquet'").fetchall()
    assert [row[:3] for row in events[:3]] == [(0, 0, 1), (0, 1, 1), (0, 2, 0)]


def test_sessions_of_both_files_of_a_ready_split_are_different(tmp_path: Path) -> None:
    header = ["session_id", "item_id", "timestamp"]
    a = write_csv(tmp_path / "a.csv", header, [(1, "x", T0), (1, "y", T0 + 1)])
    b = write_csv(tmp_path / "b.csv", header, [(1, "x", T0), (1, "z", T0 + 1)])
    data = prepare(train=a, test=b, out=tmp_path / "d")
    assert (lists(data.train), lists(data.test)) == ([["x", "y"]], [["x", "z"]])
    assert data.train.n_items == 2
    assert "before the training part ends" in data.info["warnings"][0]


def test_validation_is_carved_from_the_end_of_a_ready_training_part(tmp_path: Path) -> None:
    train, test = simple_log(tmp_path / "train.csv", 20), simple_log(tmp_path / "test.csv", 5)
    data = prepare(train=train, test=test, out=tmp_path / "d", validation="0.25")
    assert data.bounds == (15, 20, 25)


def test_support_in_a_ready_split_counts_training_and_spares_the_test_part(tmp_path: Path) -> None:
    header = ["session_id", "item_id", "timestamp"]
    a = write_csv(
        tmp_path / "a.csv",
        header,
        [(s, i, T0 + s) for s in range(3) for i in ("x", "y")] + [(2, "r", T0 + 3)],
    )
    b = write_csv(tmp_path / "b.csv", header, [(9, "x", T0 + 9), (9, "r", T0 + 10), (9, "new", T0 + 11)])
    data = prepare(train=a, test=b, out=tmp_path / "d", min_support=2)
    assert lists(data.train) == [["x", "y"]] * 3
    assert lists(data.test) == [["x", "r", "new"]]
    assert data.train.n_items == 2


def test_recent_keeps_whole_sessions_with_enough_pairs(tmp_path: Path) -> None:
    log = simple_log(tmp_path / "l.csv", 40)
    everything = prepare(log, out=tmp_path / "a")
    part = prepare(log, out=tmp_path / "b", recent="1/10")
    wanted = -(-everything.train.n_pairs // 10)
    assert wanted <= part.train.n_pairs < wanted + 2
    assert lists(part.train) == lists(everything.train)[-len(part.train) :]
    assert lists(part.test) == lists(everything.test)
    assert lists(part.validation) == lists(everything.validation)


def test_unseen_items_are_dropped_when_asked(tmp_path: Path) -> None:
    rows = [(s, i, T0 + s * 10) for s in range(8) for i in ("a", "b")]
    rows += [
        (8, "a", T0 + 80),
        (8, "new", T0 + 81),
        (9, "a", T0 + 90),
        (9, "new", T0 + 91),
        (9, "b", T0 + 92),
    ]
    log = write_csv(tmp_path / "l.csv", ["session_id", "item_id", "timestamp"], rows)
    options = {"min_support": 1, "holdout": "0.2", "validation": "0"}
    assert lists(prepare(log, out=tmp_path / "a", **options).test) == [["a", "new"], ["a", "new", "b"]]
    data = prepare(log, out=tmp_path / "b", unseen="drop", **options)
    assert lists(data.test) == [["a", "b"]]
    assert data.info["n_items"] == {"train": 2, "full": 2, "all": 2}


def test_repeats_are_collapsed_when_asked(tmp_path: Path) -> None:
    rows = [(s, i, T0 + s * 10 + n) for s in range(4) for n, i in enumerate("aabba")]
    log = write_csv(tmp_path / "l.csv", ["session_id", "item_id", "timestamp"], rows)
    assert whole(prepare(log, out=tmp_path / "a", **LOOSE)) == [list("aabba")] * 4
    assert whole(prepare(log, out=tmp_path / "b", collapse_repeats=True, **LOOSE)) == [list("aba")] * 4


def test_exact_duplicates_count_once_and_are_no_bad_rows(tmp_path: Path) -> None:
    rows = [(s, i, T0 + s * 10) for s in range(4) for i in "ab"]
    log = write_csv(tmp_path / "l.csv", ["session_id", "item_id", "timestamp"], rows * 3)
    data = prepare(log, out=tmp_path / "d", **LOOSE)
    assert whole(data) == [["a", "b"]] * 4
    assert step(data, "unique")["dropped"]["clicks"] == 16
    assert data.info["bad_rows"] == {}


def test_slices_of_time_and_of_sessions(tmp_path: Path) -> None:
    data = prepare(simple_log(tmp_path / "l.csv", 40), out=tmp_path / "d", slices=4)
    parts = [Dataset.load(tmp_path / "d" / f"slice-{i}") for i in range(1, 5)]
    assert data.fingerprint == parts[0].fingerprint
    assert [len(part.sessions) for part in parts] == [10, 10, 10, 10]
    assert [part.name for part in parts] == [f"d/slice-{i}" for i in range(1, 5)]
    assert all(len(part.test) and len(part.validation) for part in parts)
    rows = [(s, i, s * 10 + i) for s in range(20) for i in range(3)]
    counter = write_csv(tmp_path / "c.csv", ["session_id", "item_id", "timestamp"], rows)
    prepare(counter, out=tmp_path / "c", slices=2)
    assert len(Dataset.load(tmp_path / "c" / "slice-2").sessions) == 10


def test_counters_have_no_days(tmp_path: Path) -> None:
    rows = [(s, i, s * 10 + i) for s in range(20) for i in range(3)]
    log = write_csv(tmp_path / "c.csv", ["session_id", "item_id", "timestamp"], rows)
    data = prepare(log, out=tmp_path / "d")
    assert not data.train.clock
    with pytest.raises(ConfigError, match=r"--holdout 7d.*only count up.*0\.1"):
        prepare(log, out=tmp_path / "e", holdout="7d")
    with pytest.raises(ConfigError, match=r"--gap.*only count up"):
        prepare(log, out=tmp_path / "e", user="session_id")


def test_a_session_of_100_000_clicks(tmp_path: Path) -> None:
    duckdb.sql(
        f"COPY (SELECT 1 AS session_id, k % 1000 AS item_id, {T0} + k AS timestamp FROM range(100000) r(k) "
        f"UNION ALL SELECT s, i, {T0} + 200000 + s FROM range(2, 12) a(s), range(2) b(i)) "
        f"TO '{tmp_path}/l.parquet'"
    )
    data = prepare(tmp_path / "l.parquet", out=tmp_path / "d", max_length=0)
    assert data.sessions.lengths.max() == 100_000
    assert data.sessions.items[:3].tolist() == data.sessions.vocabulary.codes_of([0, 1, 2]).tolist()
    assert len(prepare(tmp_path / "l.parquet", out=tmp_path / "e").sessions) == 10


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    log = simple_log(tmp_path / "l.csv")
    prepare(log, out=tmp_path / "a" / "data")
    prepare(log, out=tmp_path / "b" / "data")
    for file in sorted((tmp_path / "a" / "data" / "arrays").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / "data" / "arrays" / file.name).read_bytes()
    assert (tmp_path / "a/data/prepare.json").read_text() == (tmp_path / "b/data/prepare.json").read_text()
    assert not [path for path in (tmp_path / "a").rglob("*") if path.name.startswith(".")]


def test_command_prints_json_and_a_table(tmp_path: Path) -> None:
    log = simple_log(tmp_path / "l.csv")
    done = CliRunner().invoke(main, ["prepare", str(log), "--out", str(tmp_path / "d"), "--max-bad", "2%"])
    assert done.exit_code == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["splits"]["train"]["sessions"] == [0, 32]
    assert "session length" in done.stderr
    sliced = CliRunner().invoke(main, ["prepare", str(log), "--out", str(tmp_path / "s"), "--slices", "2"])
    assert len(json.loads(sliced.stdout)["slices"]) == 2


def test_command_error_is_one_paragraph(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["prepare", "nowhere.csv", "--out", str(tmp_path / "d")])
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "nowhere.csv: no such file" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "micros"), [("30m", 1_800_000_000), ("7d", 7 * DAY), ("1.5h", 5_400_000_000), ("x", None)]
)
def test_spans(text: str, micros: int | None) -> None:
    assert read_span(text) == micros


def test_shares_and_parts() -> None:
    assert read_share("10%") == read_share("0.1") == read_share("1/10")
    assert read_share("a") is read_share("1/0") is None
    assert read_part("holdout", "2d").span == 2 * DAY
    assert not read_part("validation", "0")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gap": "30"}, "--gap '30' is not a duration"),
        ({"holdout": "soon"}, "--holdout 'soon' is neither"),
        ({"holdout": "0"}, "nothing to test on"),
        ({"validation": "2"}, "--validation '2' is neither"),
        ({"recent": "0"}, "--recent '0'"),
        ({"max_bad": "lots"}, "--max-bad 'lots'"),
        ({"unseen": "maybe"}, "--unseen 'maybe' is unknown: choose keep, drop"),
        ({"engine": "pandas"}, "choose duckdb, spark"),
        ({"min_length": 5, "max_length": 3}, "--max-length 3 is below"),
        ({"slices": 0}, "--slices 0 is too small"),
        ({"session": "a", "user": "b"}, "not both"),
        ({"events": ["view"]}, "--events needs an event column"),
    ],
)
def test_options_that_cannot_be_read(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(simple_log(tmp_path / "l.csv"), out=tmp_path / "d", **options)
    assert not (tmp_path / "d").exists()


def test_train_and_test_belong_together(tmp_path: Path) -> None:
    log = simple_log(tmp_path / "l.csv")
    for arguments in ({"train": log}, {"source": log, "train": log, "test": log}, {}):
        with pytest.raises(ConfigError):
            prepare(**arguments, out=tmp_path / "d")
    with pytest.raises(ConfigError, match="--holdout"):
        prepare(train=log, test=log, holdout="0.1", out=tmp_path / "d")
    with pytest.raises(ConfigError, match="--slices"):
        prepare(train=log, test=log, slices=2, out=tmp_path / "d")


def test_a_span_longer_than_the_log_leaves_no_training(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no session is left for the training part"):
        prepare(simple_log(tmp_path / "l.csv"), out=tmp_path / "d", holdout="900d")
