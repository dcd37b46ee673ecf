"""The preparation on logs that cannot be used, or only in part: every refusal says what to do."""

from __future__ import annotations

import errno
import gzip
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from nextclick.dataset import Dataset
from nextclick.errors import DataError
from nextclick.prepare import prepare
from nextclick.prepare.engines import DuckDB

T0 = 1_400_000_000
HEADER = "session_id,item_id,timestamp\n"
GOOD = "".join(f"s{s},i{i},{T0 + s * 100 + i}\n" for s in range(40) for i in range(5))
LOOSE: dict[str, Any] = {"min_support": 1, "validation": "0"}


def log_of(tmp_path: Path, text: str, name: str = "log.csv") -> Path:
    (tmp_path / name).write_bytes(text.encode("utf-8"))
    return tmp_path / name


def nothing_left(tmp_path: Path) -> bool:
    return not (tmp_path / "d").exists() and not list(tmp_path.glob(".d.*"))


def test_missing_columns_are_all_named_with_near_matches(tmp_path: Path) -> None:
    log = log_of(tmp_path, "SessionID,ItemId,Time\n1,2,3\n", "clicks.csv")
    with pytest.raises(DataError) as caught:
        prepare(log, out=tmp_path / "d", session="SessionId", item="product")
    assert str(caught.value) == (
        f"{log}: cannot read clicks\n"
        "  no session column 'SessionId'; did you mean --session 'SessionID'?\n"
        "  no item column 'product'\n"
        "  it has: SessionID, ItemId, Time"
    )
    assert nothing_left(tmp_path)


def test_unrecognised_columns_name_the_options(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        prepare(log_of(tmp_path, "a,b,c\n1,2,3\n"), out=tmp_path / "d")
    for text in ("--session (or --user)", "--item", "--time", "it has: a, b, c"):
        assert text in str(caught.value)


def test_ambiguous_columns_are_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'itemid' and 'product' could be it; name it with --item"):
        prepare(log_of(tmp_path, "session,product,itemid,time\n1,2,3,4\n"), out=tmp_path / "d")


def test_sources_that_do_not_exist_or_are_empty(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path, message in (
        (tmp_path / "nowhere.csv", "no such file"),
        (tmp_path / "*.nothing", "no such file"),
        (tmp_path / "folder", "no click log in this folder"),
        (log_of(tmp_path, "", "empty.csv"), "the file is empty"),
        (log_of(tmp_path, HEADER, "header.csv"), "no rows"),
        (log_of(tmp_path, "one column\n1\n", "one.csv"), "no columns found"),
    ):
        with pytest.raises(DataError, match=message):
            prepare(path, out=tmp_path / "d")
    assert nothing_left(tmp_path)


def test_files_with_different_columns_are_refused(tmp_path: Path) -> None:
    a, b = log_of(tmp_path, HEADER + GOOD, "a.csv"), log_of(tmp_path, "x,y,z\n1,2,3\n", "b.csv")
    with pytest.raises(DataError, match=r"b\.csv: its columns are not those of a\.csv"):
        prepare([a, b], out=tmp_path / "d")


def test_truncated_files(tmp_path: Path) -> None:
    packed = gzip.compress((HEADER + GOOD * 200).encode())
    (tmp_path / "cut.csv.gz").write_bytes(packed[: len(packed) // 2])
    duckdb.sql(
        f"COPY (SELECT k AS session_id, k AS item_id, k AS timestamp "
        f"FROM range(9999) r(k)) TO '{tmp_path}/w.parquet'"
    )
    whole = (tmp_path / "w.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    damaged = whole[:200] + bytes(2000) + whole[2200:]
    (tmp_path / "damaged.parquet").write_bytes(damaged)
    (tmp_path / "text.parquet").write_text("no parquet at all")
    (tmp_path / "bad.csv.gz").write_bytes(b"\x1f\x8bnonsense")
    for name in ("cut.csv.gz", "cut.parquet", "damaged.parquet", "text.parquet", "bad.csv.gz"):
        with pytest.raises(DataError, match=f"{name}: cannot be read"):
            prepare(tmp_path / name, out=tmp_path / "d")
        assert nothing_left(tmp_path), name


def test_bad_rows_are_counted_by_reason(tmp_path: Path) -> None:
    bad = f",i1,{T0}\ns1,,{T0}\ns1,i1,\ns1,i1,soon\ns1,i1,-5\ns1,i1,99999999999\ns1,i1\ns1,i1,{T0},extra\n"
    log = log_of(tmp_path, HEADER + GOOD + bad)
    data = prepare(log, out=tmp_path / "d", max_bad="5%")
    assert data.info["bad_rows"] == {
        "impossible time": 2, "no item id": 1, "no session id": 1, "unreadable time": 2, "unreadable line": 2,
    }  # fmt: skip
    assert len(data.sessions.items) == 200
    assert data.info["steps"][0]["clicks"] == 208
    with pytest.raises(DataError) as caught:
        prepare(log, out=tmp_path / "e")
    for text in ("8 of 208 rows", "2 unreadable line", "1 no item id", "For example", "--max-bad"):
        assert text in str(caught.value)


def test_a_quote_that_is_never_closed_counts_every_line_it_swallows(tmp_path: Path) -> None:
    log = log_of(tmp_path, HEADER + GOOD + f's1,"i1,{T0}\n' + GOOD)
    with pytest.raises(DataError, match=r"201 of 401 rows cannot be used \(201 unreadable line"):
        prepare(log, out=tmp_path / "d")


def test_bytes_that_are_no_utf8_are_unreadable_lines(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes((HEADER + GOOD).encode() + b"s1,\xff\xfe,1400000000\n")
    assert prepare(tmp_path / "log.csv", out=tmp_path / "d").info["bad_rows"] == {"unreadable line": 1}
    (tmp_path / "wide.csv").write_bytes((HEADER + GOOD).encode("utf-16"))
    with pytest.raises(DataError, match="not UTF-8"):
        prepare(tmp_path / "wide.csv", out=tmp_path / "e")


def test_what_programs_write_for_nothing_is_no_id(tmp_path: Path) -> None:
    """Else all clicks without a session would be one session, of whoever clicked."""
    words = ("nan", "NaN", "NULL", "None", "<NA>")
    bad = "".join(f"{word},i1,{T0}\ns1,{word},{T0}\n" for word in words)
    data = prepare(log_of(tmp_path, HEADER + GOOD + bad), out=tmp_path / "d", max_bad="5%")
    assert data.info["bad_rows"] == {"no item id": 5, "no session id": 5}
    names = f"{HEADER}" + "".join(f"s{s},Nantes,{T0 + s}\ns{s},nullx,{T0 + s}\n" for s in range(9))
    data = prepare(log_of(tmp_path, names), out=tmp_path / "e", **LOOSE)
    assert sorted(data.sessions.vocabulary.ids_of(range(2))) == ["Nantes", "nullx"]


def test_null_ids_and_times_in_parquet(tmp_path: Path) -> None:
    duckdb.sql(
        f"COPY (SELECT CASE WHEN s = 0 THEN NULL ELSE s END AS session_id, "
        f"CASE WHEN i = 0 THEN NULL ELSE i END AS item_id, "
        f"CASE WHEN i = 1 THEN CAST('nan' AS DOUBLE) ELSE {T0} + s * 100.5 + i END AS timestamp "
        f"FROM range(10) a(s), range(10) b(i)) TO '{tmp_path}/l.parquet'"
    )
    data = prepare(tmp_path / "l.parquet", out=tmp_path / "d", max_bad=1.0, **LOOSE)
    assert data.info["bad_rows"] == {"impossible time": 9, "no item id": 9, "no session id": 10}
    assert len(data.sessions.items) == 72


def test_types_that_cannot_be_ids_or_differ_between_files(tmp_path: Path) -> None:
    def parquet(name: str, item: str) -> Path:
        duckdb.sql(
            f"COPY (SELECT s AS session_id, {item} AS item_id, {T0} + s + i AS timestamp "
            f"FROM range(9) a(s), range(9) b(i)) TO '{tmp_path}/{name}.parquet'"
        )
        return tmp_path / f"{name}.parquet"

    numbers, texts, lists = parquet("n", "i"), parquet("t", "'x' || i"), parquet("l", "[i]")
    with pytest.raises(DataError, match=r"item column 'item_id' is of type BIGINT\[\]"):
        prepare(lists, out=tmp_path / "d")
    with pytest.raises(DataError, match="columns are not those of"):
        prepare([numbers, texts], out=tmp_path / "d")
    with pytest.raises(DataError, match="item column is not of one type in train and test"):
        prepare(train=numbers, test=texts, out=tmp_path / "d")


def test_integer_ids_stored_as_floats_stay_integers(tmp_path: Path) -> None:
    duckdb.sql(
        f"COPY (SELECT s AS session_id, CAST(i AS DOUBLE) + CASE WHEN s = 3 THEN 0.5 ELSE 0 END AS item_id, "
        f"{T0} + s * 10 + i AS timestamp FROM range(9) a(s), range(3) b(i)) TO '{tmp_path}/l.parquet'"
    )
    data = prepare(tmp_path / "l.parquet", out=tmp_path / "d", max_bad=0.5, **LOOSE)
    assert data.sessions.vocabulary.ids_of(range(3)) == [0, 1, 2]
    assert data.info["bad_rows"] == {"no item id": 3}


def test_times_of_no_unit(tmp_path: Path) -> None:
    text = HEADER + "".join(f"s{s},i{i},{50_000_000_000 + s}\n" for s in range(9) for i in range(3))
    with pytest.raises(DataError, match="--time-unit"):
        prepare(log_of(tmp_path, text), out=tmp_path / "d")
    data = prepare(log_of(tmp_path, text), out=tmp_path / "d", time_unit="ordinal", **LOOSE)
    assert int(data.sessions.times[0]) == 50_000_000_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_support": 1000}, "'item support'.*--min-support"),
        ({"min_length": 50}, "'session length'.*--min-length"),
        ({"min_length": 1, "max_length": 1}, "'session length'.*--max-length"),
    ],
)
def test_empty_results_name_the_step_and_the_option(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=f"nothing is left after the step {message}"):
        prepare(log_of(tmp_path, HEADER + GOOD), out=tmp_path / "d", **options)
    assert nothing_left(tmp_path)


def test_items_that_leave_single_clicks_empty_the_second_length_step(tmp_path: Path) -> None:
    text = HEADER + "".join(f"s{s},{item},{T0 + s}\n" for s in range(9) for item in ("common", f"own{s}"))
    with pytest.raises(DataError, match=r"'session length again'.*--min-support \(now 5\)"):
        prepare(log_of(tmp_path, text), out=tmp_path / "d")


def test_output_that_exists_is_kept_unless_it_may_be_replaced(tmp_path: Path) -> None:
    log = log_of(tmp_path, HEADER + GOOD)
    first = prepare(log, out=tmp_path / "d").fingerprint
    with pytest.raises(DataError, match=r"exists already.*--overwrite"):
        prepare(log, out=tmp_path / "d")
    with pytest.raises(DataError, match="no such file"):
        prepare(tmp_path / "nowhere", out=tmp_path / "d", overwrite=True)
    assert Dataset.load(tmp_path / "d").fingerprint == first
    assert prepare(log, out=tmp_path / "d", overwrite=True, min_support=1).fingerprint == first


def test_mixed_line_ends_say_how_to_repair_them(tmp_path: Path) -> None:
    text = HEADER.replace("\n", "\r\n") + GOOD.replace("\n", "\r\n") + GOOD
    with pytest.raises(DataError, match="CR LF against LF"):
        prepare(log_of(tmp_path, text), out=tmp_path / "d")
    assert (
        len(
            prepare(
                log_of(tmp_path, text.replace("\n", "\r\n").replace("\r\r", "\r")), out=tmp_path / "d"
            ).sessions
        )
        == 40
    )


def test_byte_order_mark_and_hostile_names(tmp_path: Path) -> None:
    header = '\ufeffse\'ss,"it""em",ti;me) --\n'
    log = log_of(tmp_path, header + GOOD, 'it\'s "a" log; [1] *?.csv')
    data = prepare(log, out=tmp_path / "d's", session="se'ss", item='it"em', time="ti;me) --")
    assert len(data.sessions) == 40


def test_too_many_kinds_of_event(tmp_path: Path) -> None:
    text = "session,item,time,event\n" + "".join(
        f"s{s},i{s % 3},{T0 + s},e{s + i * 200}\n" for s in range(200) for i in (0, 1)
    )
    with pytest.raises(DataError, match="400 different values"):
        prepare(log_of(tmp_path, text), out=tmp_path / "d")


def test_full_disk_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(DataError, match="the disk is full; nothing was kept"):
        prepare(log_of(tmp_path, HEADER + GOOD), out=tmp_path / "d")
    assert nothing_left(tmp_path)


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    """The interrupt comes while the engine counts a log that would take much longer than the test."""
    duckdb.sql(
        f"COPY (SELECT k // 3 AS session_id, k % 9973 AS item_id, {T0} + k // 3 AS timestamp "
        f"FROM range(6000000) r(k)) TO '{tmp_path}/l.parquet'"
    )
    script = (
        # Where the tests run in the background, children inherit that Ctrl-C is ignored.
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from nextclick.prepare import prepare; "
        "prepare(sys.argv[1], out=sys.argv[2], progress=lambda step: print(step, flush=True))"
    )
    source = Path(__file__).resolve().parents[1] / "src"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "l.parquet"), str(tmp_path / "d")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(source)},
    )
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "drop duplicates":
                break
        time.sleep(0.3)
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in messages
    assert time.monotonic() - sent < 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["l.parquet"]


def test_ctrl_c_in_a_query_leaves_the_engine_idle(tmp_path: Path) -> None:
    """A connection that is still busy refuses to be closed, which would end in a traceback and an abort."""
    (tmp_path / "work").mkdir()
    # Where the tests run in the background, Ctrl-C is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with DuckDB(tmp_path / "work") as engine:
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
            with pytest.raises(KeyboardInterrupt):
                engine.rows("SELECT SUM(a.i * b.i) FROM range(3000000) AS a(i), range(3000000) AS b(i)")
            assert engine.rows("SELECT 1") == [(1,)]
    finally:
        signal.signal(signal.SIGINT, before)
