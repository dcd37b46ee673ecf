"""The service over HTTP, in this process: answers, refusals, fallbacks, swaps and limits."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nextclick
from nextclick.errors import ArtifactError, ConfigError, MissingExtraError
from nextclick.serving import engine as engines
from nextclick.serving.keys import add_key, read_keys, remove_key
from nextclick.serving.runner import Runner
from nextclick.serving.store import StoreDownError
from nextclick.serving.versions import Versions
from serving import N_ITEMS, client, saved
from synthetic import QUICK

pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    return saved(folder)


def items(answer: dict[str, Any]) -> list[Any]:
    return [entry["item"] for entry in answer["items"]]


def service_of(opened: Any) -> Any:
    app = opened.app
    while not hasattr(app, "state"):
        app = app._app
    return app.state.service


# -- lists


@pytest.mark.parametrize("name", ["pop", "markov", "item-knn", "vs-knn", "bpr-mf"])
@pytest.mark.parametrize("exclude_seen", [False, True])
def test_answers_are_those_of_the_model(folder: Path, name: str, exclude_seen: bool) -> None:
    path = saved(folder, name)
    model = nextclick.load(path)
    with client(path) as opened:
        for session in ([], ["item 3"], ["item 3", "item 9", "item 3"], ["item 0", "no such", "item 5"]):
            asked = {"items": session, "k": 7, "exclude_seen": exclude_seen}
            for _ in range(2):  # the second comes from the cache
                answer = opened.post("/v1/recommend", json=asked).json()
                wanted = model.recommend(session, 7, exclude_seen=exclude_seen)
                assert items(answer) == [item for item, _ in wanted]
                np.testing.assert_allclose(
                    [e["score"] for e in answer["items"]], [score for _, score in wanted], rtol=1e-5
                )
                assert answer["unknown"] == list(wanted.unknown)


@pytest.mark.parametrize("name", [*nextclick.MODELS, "table"])
def test_any_model_runs_behind_the_service(folder: Path, name: str) -> None:
    """What it answers over HTTP is what it recommends in Python; a precomputed table as well."""
    if name == "table":
        from nextclick.serving.table import export_table

        path = folder / "table"
        export_table(saved(folder), 20).save(path)
    else:
        try:
            path = saved(folder, name, **QUICK.get(name, {}))
        except MissingExtraError as error:
            pytest.skip(str(error))
    model = nextclick.load(path)
    with client(path, deadline=10.0) as opened:
        for session in (["item 3"], ["item 3", "item 9", "no such"]):
            answer = opened.post("/v1/recommend", json={"items": session, "k": 10}).json()
            wanted = model.recommend(session, 10)
            assert items(answer) == [item for item, _ in wanted]
            assert answer["marks"] == []
            assert answer["unknown"] == session[2:]


def test_integer_ids_stay_integers(folder: Path) -> None:
    path = saved(folder, "markov", seed=3, text=False)
    with client(path) as opened:
        assert all(
            isinstance(item, int) for item in items(opened.post("/v1/recommend", json={"items": [3]}).json())
        )


def test_a_batch_is_each_question_alone(model: Path) -> None:
    asked = [{"items": [f"item {n}"], "k": 3 + n, "exclude": [f"item {n + 1}"] * (n % 2)} for n in range(12)]
    with client(model, cache=0) as opened:
        together = opened.post("/v1/recommend/batch", json={"requests": asked}).json()["answers"]
        for one, answer in zip(asked, together, strict=True):
            alone = opened.post("/v1/recommend", json=one).json()
            assert (alone["items"], alone["version"]) == (answer["items"], answer["version"])


def test_excluded_items_are_made_up_for(model: Path) -> None:
    with client(model) as opened:
        whole = items(opened.post("/v1/recommend", json={"items": ["item 3"], "k": 10}).json())
        left = items(
            opened.post(
                "/v1/recommend", json={"items": ["item 3"], "k": 8, "exclude": [*whole[1:3], "?"]}
            ).json()
        )
        assert left == [whole[0], *whole[3:10]]


def test_the_anchor_counts_as_the_last_click(model: Path) -> None:
    with client(model) as opened:
        a = opened.post("/v1/recommend", json={"items": ["item 9"], "anchor": "item 3"}).json()
        b = opened.post("/v1/recommend", json={"items": ["item 9", "item 3"]}).json()
        again = opened.post("/v1/recommend", json={"items": ["item 9", "item 3"], "anchor": "item 3"}).json()
        assert a["items"] == b["items"] == again["items"]


def test_rules_hold_those_of_the_service_and_those_of_the_request(model: Path, tmp_path: Path) -> None:
    rules, table = tmp_path / "rules.toml", tmp_path / "items.csv"
    rules.write_text('[[rule]]\nname = "own"\nattribute = "kind"\nequals = "even"\n')
    kinds = "".join(f"item {n},{'odd' if n % 2 else 'even'},{n}\n" for n in range(N_ITEMS))
    table.write_text("item_id,kind,price\n" + kinds)
    with client(model, rules=str(rules), items=str(table)) as opened:

        def ask(**more: Any) -> Any:
            return opened.post("/v1/recommend", json={"items": ["item 3"], "k": 30, **more})

        even = items(ask().json())
        assert sorted(even) == sorted(f"item {n}" for n in range(0, N_ITEMS, 2))
        dear = ask(filter=[{"attribute": "price", "between": [10, 20]}]).json()
        assert set(items(dear)) == {f"item {n}" for n in range(10, 21, 2)}
        assert "only 6 items" in dear["reason"]
        assert [e for e in even if e in items(dear)] == items(dear)
        same = ask(filter=[{"name": "own", "attribute": "price", "between": [10, 20]}]).json()
        assert items(same) == items(dear)  # a rule of that name stands beside the service's own
        some = ask(filter=[{"allow": ["item 4"]}], exclude=["item 4"]).json()
        assert items(some) == []
        assert "no item outside those excluded satisfies all rules" in some["reason"]
        for bad, said in (
            ([{"attribute": "colour", "equals": "red"}], "colour"),
            ([{"block_file": "/etc/passwd"}], "file of the server"),
            ([{"atribute": "price"}], "attribute"),
            ([{"block": ["x"] * 1001}], "1,001"),
        ):
            refused = ask(filter=bad)
            assert refused.status_code == 422
            assert said in refused.json()["error"]


def test_several_models_answer_side_by_side(folder: Path) -> None:
    with client({"a": saved(folder), "b": saved(folder, "pop")}) as opened:
        a, b, default = (
            opened.post("/v1/recommend", json={"items": ["item 3"], **more}).json()
            for more in ({"model": "a"}, {"model": "b"}, {})
        )
        assert a["items"] == default["items"] != b["items"]
        assert opened.get("/v1/models").json()["default"] == "a"
        wrong = opened.post("/v1/recommend", json={"model": "c"})
        assert wrong.status_code == 422
        assert "there are: a, b" in wrong.json()["error"]


# -- sessions and events


def test_a_session_grows_and_its_list_is_that_of_its_items(model: Path) -> None:
    direct = nextclick.load(model)
    with client(model) as opened:
        for n, item in enumerate(["item 3", "item 4", "item 9"]):
            event = {
                "session": "s",
                "item": item,
                "id": f"e{n}",
                "time": 1_700_000_000_000 + n,
                "recommend": {"k": 5},
            }
            kept = opened.post("/v1/events", json=event).json()
            assert (kept["clicks"], kept["duplicate"], kept["corrected"]) == (n + 1, False, False)
            assert not kept["answer"]["marks"]
        wanted = [item for item, _ in direct.recommend(["item 3", "item 4", "item 9"], 5)]
        assert items(kept["answer"]) == wanted
        assert items(opened.post("/v1/recommend", json={"session": "s", "k": 5}).json()) == wanted
        again = opened.post("/v1/events", json={**event, "recommend": None}).json()
        assert again["duplicate"]
        assert again["clicks"] == 3
        assert opened.post("/v1/session/forget", json={"session": "s"}).json() == {"forgotten": True}
        empty = opened.post("/v1/recommend", json={"session": "s", "k": 5}).json()
        assert empty["marks"] == ["empty-session"]


def test_late_events_take_their_place_and_future_ones_are_corrected(model: Path) -> None:
    now = int(time.time() * 1000)
    with client(model) as opened:
        opened.post("/v1/events", json={"session": "s", "item": "item 4", "id": "b", "time": now - 1000})
        opened.post("/v1/events", json={"session": "s", "item": "item 3", "id": "a", "time": now - 2000})
        session = opened.post("/v1/recommend", json={"session": "s"}).json()
        listed = opened.post("/v1/recommend", json={"items": ["item 3", "item 4"]}).json()
        assert session["items"] == listed["items"]
        skewed = opened.post(
            "/v1/events", json={"session": "s", "item": "item 5", "time": now + 3_600_000}
        ).json()
        assert skewed["corrected"]
        seconds = opened.post("/v1/events", json={"session": "s", "item": "item 5", "time": now // 1000})
        assert seconds.status_code == 422


def test_events_by_the_hundred(model: Path) -> None:
    events = [{"session": f"s{n % 7}", "item": f"item {n % N_ITEMS}", "id": f"e{n}"} for n in range(100)]
    with client(model) as opened:
        first = opened.post("/v1/events/batch", json={"events": events}).json()
        again = opened.post("/v1/events/batch", json={"events": events}).json()
        assert (first["kept"], first["duplicates"]) == (100, 0)
        assert (again["kept"], again["duplicates"]) == (0, 100)


# -- what is refused


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b'"\xff"', 422, "object"),
        (b'{"items": ["\xff"]}', 400, "UTF-8"),
        (b"[]", 422, "object"),
        (b'{"itmes": ["a"]}', 422, "itmes"),
        (b'{"items": "abc"}', 422, "array"),
        (b'{"items": [1.5]}', 422, "items"),
        (b'{"items": [true]}', 422, "items"),
        (b'{"items": [null]}', 422, "items"),
        (b'{"items": [""]}', 422, "items"),
        (b'{"items": [99999999999999999999]}', 422, "items"),
        (b'{"k": 0}', 422, "k"),
        (b'{"k": 201}', 422, "k"),
        (b'{"session": ""}', 422, "session"),
        (b'{"session": 5}', 422, "session"),
        (b'{"items": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", 422, "items"),
        (b'{"filter": {"rule": []}}', 422, "filter"),
        (b'{"attributes": {"a": 1}}', 422, "attributes"),
        (json.dumps({"items": ["a"] * 1001}).encode(), 422, "items"),
        (b'{"items": ["' + b"a" * 270_000 + b'"]}', 413, "262,144"),
    ],
)
def test_bad_questions_are_refused_with_a_reason(model: Path, body: bytes, status: int, said: str) -> None:
    with client(model) as opened:
        reply = opened.post("/v1/recommend", content=body)
        assert reply.status_code == status
        assert said in reply.json()["error"]
        assert reply.json()["request"] == reply.headers["x-request-id"]
        assert "Traceback" not in reply.text


def test_a_body_without_a_length_is_bounded_too(model: Path) -> None:
    def parts() -> Any:
        for _ in range(100):
            yield b"x" * 1000

    with client(model, max_body=10_000) as opened:
        assert opened.post("/v1/recommend", content=parts()).status_code == 413


def test_unknown_routes_and_methods(model: Path) -> None:
    with client(model) as opened:
        assert opened.get("/nothing").status_code == 404
        assert "/docs" in opened.get("/nothing").json()["error"]
        assert opened.get("/v1/recommend").status_code == 405
        assert opened.get("/page/../app.py").status_code == 404
        assert opened.get("/page/%2e%2e%2fapp.py").status_code == 404


def test_headers_keep_browsers_safe(model: Path) -> None:
    with client(model) as opened:
        headers = opened.post("/v1/recommend", json={}).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
        named = opened.post("/v1/recommend", json={}, headers={"X-Request-ID": "mine-1"})
        assert named.headers["x-request-id"] == named.json()["request"] == "mine-1"
        odd = opened.post("/v1/recommend", json={}, headers={"X-Request-ID": "<script>"})
        assert odd.json()["request"] != "<script>"
    with client(model, origins=("https://shop.example",)) as opened:
        asked = {"Origin": "https://shop.example"}
        allowed = opened.post("/v1/recommend", json={}, headers=asked).headers
        assert allowed["access-control-allow-origin"] == "https://shop.example"
        other = opened.post("/v1/recommend", json={}, headers={"Origin": "https://other.example"}).headers
        assert "access-control-allow-origin" not in other


# -- who may


def test_keys_have_roles_and_ends(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    shop, events = add_key(file, "shop", ["recommend"]), add_key(file, "events", ["events"])
    admin, old = add_key(file, "admin", ["admin"]), add_key(file, "old", ["recommend"], days=-1)
    assert shop not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    with client(model, keys=str(file)) as opened:

        def status(path: str, key: str | None, content: Any = None) -> int:
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            if content is None:
                return int(opened.get(path, headers=headers).status_code)
            return int(opened.post(path, json=content, headers=headers).status_code)

        event = {"session": "s", "item": "item 1"}
        assert [status("/v1/recommend", key, {}) for key in (None, "?", shop, events, admin, old)] == [
            401, 401, 200, 403, 200, 401,
        ]  # fmt: skip
        assert [status("/v1/events", key, event) for key in (None, shop, events, admin)] == [
            401,
            403,
            200,
            200,
        ]
        assert [status("/metrics", key) for key in (None, shop, events, admin)] == [401, 403, 403, 200]
        assert status("/healthz", None) == 200
        assert opened.post("/v1/recommend", json={}, headers={"X-API-Key": shop}).status_code == 200
        assert "expired" in opened.post("/v1/recommend", json={}, headers={"X-API-Key": old}).json()["error"]
        remove_key(file, "shop")
        time.sleep(1.1)
        assert status("/v1/recommend", shop, {}) == 401
    with pytest.raises(ConfigError, match="already"):
        add_key(file, "admin", ["admin"])
    with pytest.raises(ConfigError, match="there are: events, admin, old"):
        remove_key(file, "shop")
    file.write_text("{}")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_keys(file)


def test_figures_are_for_this_machine(model: Path) -> None:
    with client(model) as opened:
        assert opened.get("/metrics").status_code == 200
        assert opened.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 403
        opened._transport.client = ("192.0.2.7", 5000)
        assert opened.get("/metrics").status_code == 403
        assert opened.post("/v1/recommend", json={}).status_code == 200
    with client(model, admin_anywhere=True) as opened:
        opened._transport.client = ("192.0.2.7", 5000)
        assert opened.get("/metrics").status_code == 200


def test_too_many_requests_are_told_to_wait(model: Path) -> None:
    with client(model, rate=5.0) as opened:
        replies = [opened.post("/v1/recommend", json={}) for _ in range(30)]
        refused = [reply for reply in replies if reply.status_code == 429]
        assert 10 <= len(refused) <= 20
        assert int(refused[0].headers["retry-after"]) >= 1
        assert opened.get("/healthz").status_code == 200


# -- what happens when something is not there


class _Broken:
    """A store that does not answer."""

    async def read(self, session: str) -> list[Any]:
        raise StoreDownError("gone")

    async def append(self, session: str, clicks: Any) -> Any:
        raise StoreDownError("gone")

    async def count(self) -> int:
        raise StoreDownError("gone")

    async def close(self) -> None: ...


def test_without_the_store_lists_are_made_from_the_request(model: Path) -> None:
    with client(model) as opened:
        wanted = opened.post("/v1/recommend", json={"items": ["item 3"]}).json()["items"]
        service = service_of(opened)
        working, service.store = service.store, _Broken()
        answer = opened.post("/v1/recommend", json={"items": ["item 3"], "session": "s"}).json()
        assert answer["items"] == wanted
        assert answer["marks"] == ["store-down"]
        lost = opened.post("/v1/events", json={"session": "s", "item": "item 1"})
        assert lost.status_code == 503
        assert "send it again" in lost.json()["error"]
        assert opened.get("/readyz").json()["degraded"]
        service.store = working
        assert opened.post("/v1/events", json={"session": "s", "item": "item 1"}).status_code == 200
        assert not opened.get("/readyz").json()["degraded"]


def slow_warming(self: engines.Engine) -> None:
    self.seconds = 1.0


def test_a_slow_or_broken_model_is_stood_in_for(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.Engine, "warm", slow_warming)
    with client(model, deadline=0.05, cache=0) as opened:
        slow = engines.Engine.answer
        popular = [item for item, _ in nextclick.Popularity().fit(_sessions()).recommend([], 5)]

        def late(self: Any, asks: Any) -> Any:
            time.sleep(0.3)
            return slow(self, asks)

        monkeypatch.setattr(engines.Engine, "answer", late)
        started = time.perf_counter()
        answer = opened.post(
            "/v1/recommend", json={"items": ["item 3"], "k": 5, "exclude": [popular[1]]}
        ).json()
        assert time.perf_counter() - started < 0.25
        assert answer["marks"] == ["deadline"]
        assert items(answer)[:4] == [popular[0], *popular[2:]]
        time.sleep(0.4)
        metrics = opened.get("/metrics").text
        assert 'nextclick_marks_total{mark="deadline",model="m"} 1.0' in metrics


@pytest.mark.parametrize("warming", [None, slow_warming])
def test_a_broken_model_is_stood_in_for(model: Path, monkeypatch: pytest.MonkeyPatch, warming: Any) -> None:
    if warming:
        monkeypatch.setattr(engines.Engine, "warm", warming)
    with client(model, cache=0) as opened:

        def broken(self: Any, asks: Any) -> Any:
            raise ValueError("secret")

        monkeypatch.setattr(engines.Engine, "answer", broken)
        reply = opened.post("/v1/recommend", json={"items": ["item 3"]})
        assert reply.json()["marks"] == ["model-error"]
        assert "secret" not in reply.text


def test_a_quick_model_that_becomes_slow_is_late_once_and_then_has_a_thread(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client(model, deadline=0.1, cache=0) as opened:
        quick, asked_by = engines.Engine.answer, []

        def late(self: Any, asks: Any) -> Any:
            asked_by.append(threading.current_thread().name)
            time.sleep(0.3)
            return quick(self, asks)

        ask = {"items": ["item 3"], "k": 5}
        wanted = items(opened.post("/v1/recommend", json=ask).json())
        monkeypatch.setattr(engines.Engine, "answer", late)
        assert opened.post("/v1/recommend", json=ask).json()["marks"] == ["deadline"]
        started = time.perf_counter()
        assert opened.post("/v1/recommend", json=ask).json()["marks"] == ["deadline"]
        assert time.perf_counter() - started < 0.25
        assert not asked_by[0].startswith("model-")
        assert asked_by[1].startswith("model-")
        monkeypatch.setattr(engines.Engine, "answer", quick)
        time.sleep(0.4)
        assert items(opened.post("/v1/recommend", json=ask).json()) == wanted


def test_batches_and_explanations_go_through_the_thread(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quick model's batch is answered together, and nothing else while the thread explains."""
    with client(model, cache=0) as opened:
        quick, sizes = engines.Engine.answer, []

        def counted(self: Any, asks: Any) -> Any:
            sizes.append((threading.current_thread().name.startswith("model-"), len(asks)))
            return quick(self, asks)

        monkeypatch.setattr(engines.Engine, "answer", counted)
        many = [{"items": [f"item {n}"]} for n in range(20)]
        opened.post("/v1/recommend/batch", json={"requests": many})
        assert sum(n for _, n in sizes) == 20
        assert len(sizes) < 20
        assert all(in_thread for in_thread, _ in sizes)
        runner = service_of(opened).slots["m"].current.runner
        runner._working += 1  # as while something is explained
        opened.post("/v1/recommend", json=many[0])
        assert sizes[-1] == (True, 1)
        runner._working -= 1
        opened.post("/v1/recommend", json=many[0])
        assert sizes[-1] == (False, 1)


@pytest.mark.parametrize(("seconds", "expected"), [(0.0001, [1] * 40), (0.001, [32, 8])])
def test_questions_of_one_turn_of_the_loop_are_answered_together_where_that_helps(
    model: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, expected: list[int]
) -> None:
    engine = engines.Engine.open(model, "m")
    answer, sizes = engine.answer, []
    engine.seconds = seconds

    def counted(asks: Any) -> Any:
        sizes.append(len(asks))
        return answer(asks)

    monkeypatch.setattr(engine, "answer", counted)
    asked = [engines.Ask(np.array([n], np.int32), 5) for n in range(N_ITEMS)][:20] * 2

    async def all_at_once() -> list[Any]:
        runner = Runner(engine, cached=0)
        return await asyncio.gather(*(runner.ask(one, 1.0) for one in asked))

    found = asyncio.run(all_at_once())
    assert sizes == expected
    assert found == [answer([one])[0] for one in asked]


def _sessions() -> nextclick.Sessions:
    from synthetic import chain

    return chain(N_ITEMS, 200, noise=0.2, seed=1)


def test_rules_hold_for_the_stand_in_too(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.Engine, "answer", lambda self, asks: time.sleep(0.2))
    monkeypatch.setattr(engines.Engine, "warm", slow_warming)
    with client(model, deadline=0.02) as opened:
        allowed = ["item 7", "item 8", "item 9"]
        asked = {"items": ["item 8"], "filter": [{"allow": allowed}], "exclude_seen": True}
        answer = opened.post("/v1/recommend", json=asked).json()
        assert sorted(items(answer)) == ["item 7", "item 9"]


# -- versions


def test_another_version_is_put_in_service_and_a_broken_one_is_not(folder: Path, tmp_path: Path) -> None:
    versions = Versions(tmp_path / "root")
    first = versions.publish(saved(folder))
    with client(tmp_path / "root") as opened:

        def ask() -> dict[str, Any]:
            found: dict[str, Any] = opened.post("/v1/recommend", json={"items": ["item 3"]}).json()
            return found

        before = ask()
        assert before["version"] == first
        second = versions.publish(saved(folder, "pop"))
        assert opened.post("/v1/admin/look").json()["changed"] == {"m": True}
        assert ask()["version"] == second
        third = versions.publish(saved(folder, "markov"))
        broken = versions.directory(third) / "arrays.safetensors"
        broken.write_bytes(broken.read_bytes()[:-10])
        state = opened.post("/v1/admin/look").json()
        assert state["changed"] == {"m": False}
        assert state["degraded"]
        assert "damaged" in state["models"]["m"]["problem"]
        assert ask()["version"] == second
        versions.rollback()
        opened.post("/v1/admin/look")
        assert not opened.get("/readyz").json()["degraded"]
        assert versions.rollback() == first
        opened.post("/v1/admin/look")
        assert ask() == {**before, "request": ask()["request"]} or ask()["items"] == before["items"]


def test_a_damaged_version_at_the_start_leaves_the_one_before_it(folder: Path, tmp_path: Path) -> None:
    versions = Versions(tmp_path)
    first = versions.publish(saved(folder))
    broken = [versions.publish(saved(folder, name)) for name in ("pop", "markov")]
    for version in broken:
        (versions.directory(version) / "arrays.safetensors").write_bytes(b"")
    with client(tmp_path) as opened:
        assert opened.post("/v1/recommend", json={"items": ["item 3"]}).json()["version"] == first
        state = opened.get("/readyz").json()
        assert state["degraded"]
        assert "damaged" in state["models"]["m"]["problem"]
    (versions.directory(first) / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="damaged"), client(tmp_path):
        pass


def test_a_model_that_is_replaced_is_taken_up(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "model"
    shutil.copytree(saved(folder), path)
    with client(path) as opened:
        first = opened.post("/v1/recommend", json={"items": ["item 3"]}).json()
        nextclick.load(saved(folder, "pop")).save(path, overwrite=True)
        opened.post("/v1/admin/look")
        assert opened.post("/v1/recommend", json={"items": ["item 3"]}).json()["version"] != first["version"]


def test_versions_are_servable_whatever_is_interrupted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = Versions(tmp_path)
    with pytest.raises(ArtifactError, match="no version in service"):
        versions.read()
    with pytest.raises(ArtifactError):
        versions.publish(tmp_path / "nothing")
    first = versions.publish(saved(folder))
    with pytest.raises(ConfigError, match="nothing to go back to"):
        versions.rollback()
    import nextclick.serving.versions as module

    for step in ("shutil.copytree", "_to_disk", "_synchronise"):
        target: Any = module
        for part in step.split(".")[:-1]:
            target = getattr(target, part)
        with monkeypatch.context() as broken:

            def die(*_: Any, **__: Any) -> None:
                raise KeyboardInterrupt

            broken.setattr(target, step.rpartition(".")[2], die)
            with pytest.raises(KeyboardInterrupt):
                versions.publish(saved(folder, "pop"))
        assert versions.read()[0] == first
        nextclick.load(versions.current())
    names = [versions.publish(saved(folder, "pop", seed=seed)) for seed in range(2, 11)]
    assert versions.read()[0] == names[-1]
    assert len(versions.read()[1]) == 5
    assert {path.name for path in (tmp_path / "versions").iterdir()} == {names[-1], *versions.read()[1]}
    versions.pointer.write_text('{"format": "nextclick-versions", "version": "../..", "before": []}')
    with pytest.raises(ArtifactError, match="unreadable"):
        versions.read()


def test_a_damaged_pointer_is_replaced_and_damaged_versions_are_passed_over(
    folder: Path, tmp_path: Path
) -> None:
    versions = Versions(tmp_path)
    names = [versions.publish(saved(folder, name)) for name in ("pop", "markov", "item-knn", "vs-knn")]
    (versions.directory(names[2]) / "arrays.safetensors").write_bytes(b"")
    assert versions.rollback() == names[1]
    assert versions.read() == (names[1], (names[0], names[3], names[2]))
    versions.pointer.write_text("{")
    with pytest.raises(ArtifactError, match="publish a version again"):
        versions.read()
    with pytest.raises(ArtifactError, match="publish a version again"), client(tmp_path):
        pass
    last = versions.publish(saved(folder, "bpr-mf"))
    assert versions.read() == (last, tuple(reversed(names)))
    for name in names:
        (versions.directory(name) / "manifest.json").unlink()
    with pytest.raises(ArtifactError):
        versions.rollback()
    assert versions.read()[0] == last


# -- why, and what is counted


def test_explanations_are_those_of_explain(folder: Path) -> None:
    for name, by in (("vs-knn", "neighbours"), ("item-knn", "clicks"), ("pop", "leaving out")):
        with client(saved(folder, name)) as opened:
            told = opened.post("/v1/explain", json={"items": ["item 3", "item 4"], "k": 2}).json()
            assert told["by"] == by
            assert len(told["items"]) == 2
            nothing = opened.post("/v1/explain", json={"items": ["?"]})
            assert nothing.status_code == 422


def test_figures_count_what_happened(model: Path) -> None:
    with client(model) as opened:
        for _ in range(3):
            opened.post("/v1/recommend", json={"items": ["item 3"]})
        opened.post("/v1/recommend", json={"items": ["nothing"]})
        opened.post("/v1/recommend", content=b"{")
        event = {"session": "s", "item": "item 1", "id": "e"}
        for _ in range(2):
            opened.post("/v1/events", json=event)
        text = opened.get("/metrics").text
        for line in (
            'nextclick_request_seconds_count{route="/v1/recommend",status="200"} 4.0',
            'nextclick_request_seconds_count{route="/v1/recommend",status="400"} 1.0',
            'nextclick_answer_seconds_count{model="m"} 4.0',
            'nextclick_cache_total{found="yes",model="m"} 2.0',
            'nextclick_marks_total{mark="unknown-items",model="m"} 1.0',
            'nextclick_events_total{outcome="duplicate"} 1.0',
        ):
            assert line in text


def test_the_schema_describes_every_route(model: Path) -> None:
    with client(model) as opened:
        schema = opened.get("/openapi.json").json()
        assert {"/v1/recommend", "/v1/events", "/v1/recommend/batch", "/metrics"} <= schema["paths"].keys()
        assert schema["components"]["schemas"]["Recommend"]["additionalProperties"] is False
        refs = set(json.dumps(schema).split('"#/components/schemas/')[1:])
        assert {ref.partition('"')[0] for ref in refs} <= schema["components"]["schemas"].keys()
