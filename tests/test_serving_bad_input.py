"""What is sent wrongly, twice, late, from elsewhere or half: refused with a remedy, or marked."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import errno
import io
import json
import logging
import math
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nextclick.cli import main
from nextclick.errors import ConfigError
from nextclick.online import records
from nextclick.online.page import to_html
from nextclick.online.records import Recorder, read_records
from nextclick.online.report import report
from nextclick.online.running import Running
from nextclick.online.trial import Trial
from nextclick.serving import engine as engines
from nextclick.serving.keys import Keys, add_key, remove_key
from nextclick.serving.messages import Event, remedy
from nextclick.serving.service import AHEAD
from serving import N_ITEMS, client, saved

pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return saved(folder)


def service_of(opened: Any) -> Any:
    app = opened.app
    while not hasattr(app, "state"):
        app = getattr(app, "_app", None) or app.app
    return app.state.service


# -- messages say what to send instead


@pytest.mark.parametrize(
    ("route", "content", "wanted"),
    [
        ("recommend", {"itmes": ["a"]}, "did you mean 'items'"),
        ("recommend", {"item": ["a"]}, "did you mean 'items'"),
        ("events/batch", {"events": [{"session": "s", "itm": "a"}]}, "did you mean 'item'"),
        ("recommend", {"items": "a"}, "items is item ids, oldest first"),
        ("recommend", {"items": [1.5]}, "text of 1 to 256 characters, or a whole number"),
        ("recommend", {"filter": {"block": []}}, "filter is a list of rules"),
        ("recommend", {"attributes": {"market": 1}}, 'as {"market": "de"}'),
        ("recommend", {"k": "ten"}, "see /docs"),
        ("recommend", [], "see /docs"),
        ("recommend/batch", {"requests": []}, "requests is a list of 1 to 100 questions"),
        ("events", {"item": "a"}, "session is the id of a session"),
        ("events", {"session": "s", "item": "a", "time": 1_700_000_000}, "milliseconds since 1970 UTC"),
        ("events", {"session": "s", "item": "a", "time": "now"}, "milliseconds since 1970 UTC"),
        ("events", {"session": "s", "item": "a", "id": ""}, "the same when it is sent again"),
        ("events/batch", {"events": [{"session": "s", "item": None}]}, "item is an item id"),
    ],
)
def test_a_refusal_says_what_to_send_instead(model: Path, route: str, content: Any, wanted: str) -> None:
    with client(model) as opened:
        reply = opened.post(f"/v1/{route}", json=content)
        assert reply.status_code == 422
        assert wanted in reply.json()["error"]


def test_a_refusal_does_not_repeat_a_field_as_long_as_a_body() -> None:
    assert len(remedy(f"Object contains unknown field `{'x' * 200_000}`", Event)) < 1000


def test_parameters_of_a_path_are_refused_like_everything_else(model: Path) -> None:
    with client(model) as opened:
        for query in ("page=x", "page=1.5", f"page={'9' * 5000}"):
            reply = opened.get(f"/v1/catalogue?{query}")
            assert reply.status_code == 422
            assert reply.json().keys() == {"error", "request"}
            assert reply.json()["error"].startswith("page: ")


# -- keys


def test_a_key_whose_time_is_over_says_since_when_and_what_to_do(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    add_key(file, "another", ["recommend"])
    with client(model, keys=str(file)) as opened:
        keys = opened.app._keys
        secret = add_key(file, "shop", ["recommend"], days=3 / 86_400)  # three seconds
        keys._looked = 0.0  # as after a second
        headers = {"Authorization": f"Bearer {secret}"}
        assert opened.post("/v1/recommend", json={}, headers=headers).status_code == 200
        time.sleep(3.05)
        refused = opened.post("/v1/recommend", json={}, headers=headers)
        assert refused.status_code == 401
        end = Keys(file).find(secret).end  # type: ignore[union-attr]
        assert end is not None
        assert all(part in refused.json()["error"] for part in ("'shop' expired", end, "nextclick keys add"))
        assert refused.headers["www-authenticate"] == "Bearer"
        remove_key(file, "shop")
        again = add_key(file, "shop", ["recommend"])
        keys._looked = 0.0
        headers = {"Authorization": f"Bearer {again}"}
        assert opened.post("/v1/recommend", json={}, headers=headers).status_code == 200


def test_keys_read_last_hold_while_their_file_cannot_be_read(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys.json"
    secret = add_key(file, "shop", ["recommend"])
    with client(model, keys=str(file)) as opened:
        keys = opened.app._keys
        whole = file.read_text()

        def asked() -> int:
            keys._looked = 0.0  # as after a second
            headers = {"Authorization": f"Bearer {secret}"}
            return int(opened.post("/v1/recommend", json={}, headers=headers).status_code)

        file.unlink()
        assert [asked(), asked()] == [200, 200]
        file.mkdir()
        assert asked() == 200
        file.rmdir()
        file.write_text("{")
        assert asked() == 200
        said = [one for one in caplog.records if "file of keys" in one.message]
        assert len(said) == 3  # each trouble once
        file.write_text(whole.replace("shop", "other"))
        assert asked() == 200
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be read"):
        Keys(tmp_path / "file" / "keys.json")


# -- other sites


def test_a_browser_may_ask_first_without_a_key_and_reads_refusals(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    secret = add_key(file, "shop", ["recommend"])
    shop = {"Origin": "https://shop.example"}
    with client(model, keys=str(file), origins=("https://shop.example",)) as opened:
        first = opened.options(
            "/v1/recommend",
            headers={
                **shop,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type",
            },
        )
        assert first.status_code == 200
        assert first.headers["access-control-allow-origin"] == "https://shop.example"
        asked = {**shop, "Sec-Fetch-Site": "cross-site", "Authorization": f"Bearer {secret}"}
        assert opened.post("/v1/recommend", json={}, headers=asked).status_code == 200
        refused = opened.post("/v1/recommend", json={}, headers=shop)
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://shop.example"
        stranger = {"Origin": "https://x.example", "Access-Control-Request-Method": "POST"}
        assert "access-control-allow-origin" not in opened.options("/v1/recommend", headers=stranger).headers


def test_a_page_of_another_site_cannot_send_events_without_asking(model: Path) -> None:
    """Browsers send text without asking first; CORS only keeps the answer from the page."""
    event = json.dumps({"session": "s", "item": "item 1"})
    with client(model) as opened:

        def status(path: str, site: str, origin: str = "https://x.example") -> int:
            headers = {"Content-Type": "text/plain", "Sec-Fetch-Site": site, "Origin": origin}
            return int(opened.post(path, content=event, headers=headers).status_code)

        assert status("/v1/events", "cross-site") == 403
        assert status("/v1/events", "same-site") == 403
        assert status("/v1/admin/look", "cross-site") == 403
        assert opened.post("/v1/session/forget", json={"session": "s"}).json() == {"forgotten": False}
        assert status("/v1/events", "same-origin") == status("/v1/events", "none") == 200
        assert opened.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200  # by a link
    with client(model, origins=("https://x.example",)) as opened:
        assert status("/v1/events", "cross-site") == 200
        assert status("/v1/events", "cross-site", "https://y.example") == 403


def test_a_name_that_was_made_to_lead_here_is_not_this_machine(model: Path) -> None:
    """A page of that name would be of the same origin, and could read the figures."""
    with client(model) as opened:

        def status(host: str, path: str = "/metrics") -> int:
            return int(opened.get(path, headers={"Host": host}).status_code)

        for host in ("127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000", socket.gethostname()):
            assert status(host) == 200
        for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example"):
            assert status(host) == 403
            assert status(host, "/v1/models") == 200
    with client(model, admin_anywhere=True) as opened:
        assert status("shop.example") == 200


# -- clients that go away


def test_a_client_that_leaves_in_the_middle_is_no_failure_of_the_service(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with client(model) as opened:
        scope = {
            "type": "http", "method": "POST", "path": "/v1/events", "raw_path": b"/v1/events",
            "query_string": b"", "headers": [(b"content-length", b"100")], "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80), "scheme": "http", "http_version": "1.1", "root_path": "",
        }  # fmt: skip
        parts = iter([{"type": "http.request", "body": b'{"sess', "more_body": True}])

        async def receive() -> Any:
            return next(parts, {"type": "http.disconnect"})

        async def send(message: Any) -> None: ...

        opened.portal.call(opened.app, scope, receive, send)
        text = opened.get("/metrics").text
        assert 'nextclick_request_seconds_count{route="/v1/events",status="400"} 1.0' in text
        assert 'status="5' not in text
    assert not [one for one in caplog.records if one.exc_info]


# -- events


moments = st.one_of(
    st.none(),
    st.integers(-40, 40).map(lambda n: ("past", n)),  # out of order, and of one moment
    st.sampled_from([("ahead", 30_000), ("ahead", 3_600_000)]),  # within what is taken, and beyond
)
stream = st.lists(
    st.tuples(st.integers(0, N_ITEMS + 3), moments, st.integers(0, 12), st.booleans()), max_size=25
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(stream=stream)
def test_whatever_order_events_come_in_none_is_lost_and_none_counts_twice(
    events_client: Any, stream: list[Any]
) -> None:
    """Single ones and batches, sent twice, late, from clocks that run ahead: the session is as if sorted."""
    opened, name = events_client, f"s{time.time_ns()}"
    start = int(time.time() * 1000)
    wanted: list[tuple[int, str]] = []
    seen: set[int] = set()
    batch: list[dict[str, Any]] = []

    def flush() -> None:
        if batch:
            reply = opened.post("/v1/events/batch", json={"events": batch})
            assert reply.status_code == 200
            assert reply.json()["kept"] + reply.json()["duplicates"] == len(batch)
            batch.clear()

    for item, moment, id, alone in stream:
        event: dict[str, Any] = {"session": name, "item": f"item {item}", "id": f"e{id}"}
        kind, n = moment or ("now", 0)
        at = {"past": start - 100_000 + n, "ahead": start + n, "now": None}[kind]
        if at is not None:
            event["time"] = at
        if id not in seen:
            late = at is None or at > start + AHEAD + 10_000  # counts as now
            # what counts as now lies between the past and what is a little ahead, in the order of arrival
            wanted.append((start if late else at or 0, f"item {item}"))
        if not alone:
            batch.append(event)
            seen.add(id)
            continue
        flush()
        time.sleep(0.001)
        reply = opened.post("/v1/events", json=event)
        assert reply.status_code == 200
        assert reply.json()["duplicate"] == (id in seen)
        assert reply.json()["corrected"] == (at is not None and at > start + AHEAD + 10_000)
        seen.add(id)
    flush()
    kept = opened.portal.call(service_of(opened).store.read, name)
    assert kept == [item for _, item in sorted(wanted, key=lambda one: one[0])]
    answer = opened.post("/v1/recommend", json={"session": name})
    assert answer.status_code == 200
    known = [item for item in kept if int(item.split()[1]) < N_ITEMS]
    marks = [] if known else ["unknown-items"] if kept else ["empty-session"]
    assert answer.json()["marks"] == marks
    assert answer.json()["unknown"] == [item for item in kept if item not in known]


@pytest.fixture(scope="module")
def events_client(folder: Path) -> Any:
    with client(saved(folder), deadline=10.0) as opened:
        yield opened


# -- records that cannot be written


TRIAL = {
    "name": "t",
    "variant": [{"name": "a", "model": "m", "share": 0.5}, {"name": "b", "model": "n", "share": 0.5}],
}


def test_a_line_that_was_cut_off_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(tmp_path)
    write = os.write
    recorder.shown("t", "s", "a", "r0", ["x"], {})
    for room in (10, 0, 3):  # a disk that is nearly full
        monkeypatch.setattr(records.os, "write", lambda file, line, room=room: write(file, line[:room]))
        with pytest.raises(OSError, match="bytes were written"):
            recorder.shown("t", "s", "a", "lost", ["x"], {})
    monkeypatch.setattr(records.os, "write", write)
    recorder.shown("t", "s", "a", "r1", ["x"], {})
    recorder.shown("t", "s", "a", "r2", ["x"], {})
    recorder.close()
    seen = read_records(tmp_path, "t", ["a", "b"])
    assert len(seen) == 3
    running = Running(Trial.of(TRIAL), tmp_path).look()
    assert running["rows"][0]["lists"] == 3


def test_an_experiment_that_cannot_be_recorded_is_marked_and_its_clicks_are_asked_for_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = tmp_path / "t.toml"
    trial.write_text(
        'name = "t"\n[[variant]]\nname = "a"\nmodel = "m"\nshare = 0.5\n'
        '[[variant]]\nname = "b"\nmodel = "n"\nshare = 0.5\n'
    )
    models = {"m": saved(folder), "n": saved(folder, "pop")}
    kept = tmp_path / "records"
    with client(models, trial=str(trial), records=str(kept)) as opened:

        def full(*_: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        shown = opened.post("/v1/recommend", json={"session": "s", "items": ["item 3"]}).json()
        assert shown["marks"] == []
        click = {"session": "s", "item": "item 4", "id": "e", "request": shown["request"]}
        with monkeypatch.context() as broken:
            broken.setattr(records.os, "write", full)
            marked = opened.post("/v1/recommend", json={"session": "s", "items": ["item 3"]})
            assert marked.status_code == 200
            assert marked.json()["items"] == shown["items"]
            assert marked.json()["marks"] == ["unrecorded"]
            lost = opened.post("/v1/events", json=click)
            assert lost.status_code == 503
            assert "send the event again" in lost.json()["error"]
            assert opened.get("/readyz").json()["records"] == "down"
            assert opened.get("/readyz").json()["degraded"]
        again = opened.post("/v1/events", json=click)
        assert again.status_code == 200
        assert not opened.get("/readyz").json()["degraded"]
    seen = read_records(kept, "t", ["a", "b"])
    assert (len(seen), int(seen.clicked.sum())) == (1, 1)


def test_what_visitors_send_commands_neither_a_spreadsheet_nor_a_terminal(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    values = ["=1+1", "+1", "-1", "@x", "a\x1b[2Jb", "a\u202eb", "<script>x</script>", "[red]x", "", "de"]
    for n, value in enumerate(values):
        recorder.shown("t", f"s{n}", "a", f"r{n}", [], {"=market": value})
    recorder.close()
    trial = Trial.of(TRIAL)
    findings = report(trial, read_records(tmp_path, "t", ["a", "b"]))
    rows = [row for row in csv.DictReader(io.StringIO(findings.to_csv())) if row["variant"] == "a"]
    found = {row["value"] for row in rows if row["by"] == "'=market"}
    bare = "\N{REPLACEMENT CHARACTER}"
    shown = {f"a{bare}[2Jb", f"a{bare}b", "<script>x</script>", "[red]x", "(not sent)", "de"}
    assert found == {"'=1+1", "'+1", "'-1", "'@x", *shown}
    page = to_html(findings)
    assert "<script" not in page
    assert "&lt;script&gt;x" in page
    (tmp_path / "t.toml").write_text(
        'name = "t"\n[[variant]]\nname = "a"\nmodel = "m"\nshare = 0.5\n'
        '[[variant]]\nname = "b"\nmodel = "n"\nshare = 0.5\n'
    )
    told = CliRunner().invoke(
        main, ["experiment", "report", str(tmp_path / "t.toml"), str(tmp_path)], env={"COLUMNS": "120"}
    )
    assert told.exit_code == 0
    assert "\x1b[2J" not in told.output
    assert "[red]x" in told.output
    assert {row["value"] for row in Running(trial, tmp_path).look()["rows"]} == {
        row.value for row in findings.rows
    }


# -- logs


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(json.dumps([record.getMessage(), getattr(record, "about", {})]))


@contextlib.contextmanager
def logged() -> Any:
    lines, log = Lines(), logging.getLogger("nextclick.serving")
    level = log.level
    log.addHandler(lines)
    log.setLevel("INFO")
    try:
        yield lines.said
    finally:
        log.removeHandler(lines)
        log.setLevel(level)


@pytest.mark.parametrize("contents", [False, True])
def test_logs_tell_the_request_and_what_it_holds_only_if_asked(
    model: Path, monkeypatch: pytest.MonkeyPatch, contents: bool
) -> None:
    with logged() as said, client(model, cache=0, access_log=True, log_contents=contents) as opened:
        event = {"session": "secret-session", "item": "item 7", "id": "secret-event", "recommend": {}}
        opened.post("/v1/events", json=event, headers={"X-Request-ID": "one"})
        opened.post("/v1/events/batch", json={"events": [{**event, "recommend": None}]})
        opened.post("/v1/recommend", json={"session": "secret-session", "items": ["item 7", "?"]})
        opened.post("/v1/recommend", json={"session": 5})

        def broken(self: Any, asks: Any) -> Any:
            raise ValueError("broken")

        monkeypatch.setattr(engines.Engine, "answer", broken)
        opened.post("/v1/recommend", json={"items": ["item 7"]}, headers={"X-Request-ID": "two"})
    whole = "\n".join(said)
    assert ("secret-session" in whole) == contents
    assert ("secret-event" in whole) == contents
    assert ("item 7" in whole) == contents
    failures = [json.loads(line) for line in said if "a model failed" in line]
    assert [about["request"] for _, about in failures] == ["two"]
    requests = [about for message, about in map(json.loads, said) if message == "request"]
    assert [one["status"] for one in requests[:4]] == [200, 200, 200, 422]
    assert requests[0]["request"] == "one"
    if contents:
        lists = [about for message, about in map(json.loads, said) if message == "a list"]
        assert lists[0]["session"] == "secret-session"
        assert lists[0]["items"] == ["item 7"]
        assert len(lists[0]["listed"]) == 20


@pytest.mark.parametrize("in_thread", [False, True])
def test_the_log_has_the_trace_of_a_model_that_fails(
    model: Path, monkeypatch: pytest.MonkeyPatch, in_thread: bool
) -> None:
    traces: list[str] = []

    class Traces(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            traces.append(logging.Formatter().format(record))

    handler, log = Traces(), logging.getLogger("nextclick.serving")
    log.addHandler(handler)
    try:
        with client(model, cache=0) as opened:
            runner = service_of(opened).slots["m"].current.runner
            runner._quick_from = math.inf if in_thread else 0.0

            def breaks_here(*_: Any, **__: Any) -> Any:
                raise ValueError("broken")

            monkeypatch.setattr(runner.engine.model, "top", breaks_here)
            reply = opened.post("/v1/recommend", json={"items": ["item 7"]})
            assert reply.json()["marks"] == ["model-error"]
            assert "broken" not in reply.text
    finally:
        log.removeHandler(handler)
    assert any("in breaks_here" in trace for trace in traces)


# -- figures


def test_figures_have_the_sessions_and_the_share_of_fallbacks(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client(model, cache=0) as opened:
        for n in range(7):
            opened.post("/v1/events", json={"session": f"s{n}", "item": "item 1"})
        asyncio_sleep, service = asyncio.sleep, service_of(opened)

        async def counted() -> None:
            task = asyncio.create_task(service._count())
            await asyncio_sleep(0.05)
            task.cancel()

        opened.portal.call(counted)
        assert "nextclick_sessions 7.0" in opened.get("/metrics").text
        opened.post("/v1/recommend", json={"items": ["item 1"]})

        def broken(self: Any, asks: Any) -> Any:
            raise ValueError

        monkeypatch.setattr(engines.Engine, "answer", broken)
        opened.post("/v1/recommend", json={"items": ["item 1"]})
        text = opened.get("/metrics").text
        assert 'nextclick_marks_total{mark="model-error",model="m"} 1.0' in text
        assert 'nextclick_answer_seconds_count{model="m"} 2.0' in text
        assert 'nextclick_answer_seconds_bucket{le="0.001",model="m"}' in text
