"""Whatever is sent, by the description of the API or against it: never a 5xx, always what is described."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving import Server, client, saved, served

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("schema")
    table = folder / "items.csv"
    table.write_text("item_id,kind\n" + "".join(f"item {n},{n % 3}\n" for n in range(30)))
    arguments = [str(saved(folder)), str(saved(folder, "pop")), "--items", str(table)]
    with served(*arguments, "--store", f"sqlite:{folder / 's.sqlite'}", "--deadline", "2000") as running:
        yield running


@pytest.fixture(scope="module")
def api(server: Server) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def test_the_service_keeps_to_its_description(api: Any) -> None:
    checks = [schemathesis.checks.not_a_server_error, *_described()]
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) >= 14
    for operation in operations:
        _try(operation, checks)


def _try(operation: Any, checks: list[Any]) -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy())
    def call(case: Any) -> None:
        case.call_and_validate(checks=checks)

    call()


def _described() -> list[Any]:
    from schemathesis.specs.openapi import checks as of_schema

    return [
        of_schema.status_code_conformance,
        of_schema.content_type_conformance,
        of_schema.response_schema_conformance,
    ]


anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
FIELDS = (
    "items",
    "session",
    "k",
    "exclude",
    "anchor",
    "filter",
    "model",
    "item",
    "event",
    "time",
    "id",
    "request",
)
nearly = st.dictionaries(
    st.sampled_from([*FIELDS, "recommend", "attributes", "requests", "events"]), anything
)
rules = st.lists(
    st.dictionaries(
        st.sampled_from(
            ["attribute", "equals", "in", "within", "between", "same", "block", "allow", "depth"]
        ),
        anything,
    ),
    max_size=3,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    route=st.sampled_from(["recommend", "recommend/batch", "events", "events/batch", "explain"]),
    content=nearly | st.builds(lambda r: {"filter": r, "items": ["item 3"]}, rules) | anything,
)
def test_nothing_that_is_nearly_right_is_too_much(api_client: Any, route: str, content: Any) -> None:
    import json

    reply = api_client.post(f"/v1/{route}", content=json.dumps(content).encode("utf-8", "surrogatepass"))
    assert reply.status_code in (200, 400, 413, 422), reply.text
    if reply.status_code != 200:
        assert reply.json()["error"]
        assert "Traceback" not in reply.text


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=st.binary(max_size=200))
def test_any_bytes_are_answered(api_client: Any, body: bytes) -> None:
    assert api_client.post("/v1/events", content=body).status_code in (400, 422)


@pytest.fixture(scope="module")
def api_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder: Path = tmp_path_factory.mktemp("client")
    table = folder / "items.csv"
    table.write_text("item_id,kind\n" + "".join(f"item {n},{n % 3}\n" for n in range(30)))
    with client(saved(folder), items=str(table), deadline=5.0) as opened:
        yield opened
