"""The products that the page shows: titles and pictures of a user's own file, and no other file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nextclick.cli import main
from nextclick.errors import DataError
from nextclick.serving.catalogue import Catalogue
from serving import client, saved

pytest.importorskip("fastapi")

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A catalogue with a picture beside it, one elsewhere, and ones that must not be handed out."""
    folder = tmp_path / "catalogue"
    (folder / "pictures").mkdir(parents=True)
    (folder / "pictures" / "a.png").write_bytes(PNG)
    (folder / "notes.txt").write_text("not a picture")
    (tmp_path / "secret.png").write_bytes(PNG)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    rows = [
        "item_id,title,category,price,image",
        "item 1,A lamp,lamps,19.5,pictures/a.png",
        "item 2,<b>A plate</b>,plates,,https://pictures.example/2.jpg",
        "item 3,,lamps,3,../secret.png",
        "item 4,Four,lamps,4,notes.txt",
        "item 5,Five,lamps,5,link.png",
        "item 6,Six,lamps,6,javascript:alert(1)",
        "item 7,Seven,lamps,on request,http://plain.example/7.png",
        "a/b?c#d%e,Odd,odd,8,pictures/a.png",
        "item 9,Nine,lamps,9,https://x.example; script-src 'unsafe-inline'/9.png",
        *(f"item {n},Title {n},many,1," for n in range(10, 70)),
    ]
    path = folder / "items.csv"
    path.write_text("\n".join(rows) + "\n", "utf-8")
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("models"))


def test_products_are_those_of_the_file(table: Path, model: Path) -> None:
    with client(model, catalogue=str(table)) as opened:

        def asked(query: str) -> Any:
            return opened.get(f"/v1/catalogue?{query}").json()

        first = asked("")
        assert first["categories"] == ["lamps", "many", "odd", "plates"]
        assert (first["pages"], len(first["items"])) == (3, 24)
        assert first["items"][0] == {
            "id": "item 1", "title": "A lamp", "category": "lamps", "price": 19.5,
            "image": "pictures/item%201",
        }  # fmt: skip
        seen = [item["id"] for page in range(3) for item in asked(f"page={page}")["items"]]
        assert len(seen) == len(set(seen)) == 69
        (seventh,) = asked("item=item 7")["items"]
        assert seventh["price"] == "on request"
        assert asked("page=3")["items"] == asked(f"page={10**30}")["items"] == []
        assert asked("page=-1") == first
        assert [item["id"] for item in asked("category=plates")["items"]] == ["item 2"]
        assert asked("category=none")["items"] == []
        some = asked("item=item 3&item=item 2&item=not, there")["items"]
        assert [item["title"] for item in some] == ["item 3", "<b>A plate</b>", "not, there"]
        assert some[1]["image"] == "https://pictures.example/2.jpg"


def test_pictures_come_from_the_catalogues_folder_and_nowhere_else(table: Path, model: Path) -> None:
    with client(model, catalogue=str(table)) as opened:
        items = {
            item["id"]: item
            for n in range(3)
            for item in opened.get(f"/v1/catalogue?page={n}").json()["items"]
        }
        for item in ("item 1", "a/b?c#d%e"):
            found = opened.get("/" + items[item]["image"])
            assert (found.status_code, found.content) == (200, PNG)
            assert found.headers["content-type"] == "image/png"
        for item in ("item 3", "item 4", "item 5", "item 6", "item 7", "item 10"):
            assert opened.get(f"/pictures/{item}").status_code == 404
        for path in ("../secret.png", "%2e%2e/secret.png", "pictures/a.png", "items.csv", "%00", "item 1/.."):
            assert opened.get(f"/pictures/{path}").status_code == 404


def test_only_hosts_of_pictures_are_in_the_policy(table: Path, model: Path) -> None:
    with client(model, catalogue=str(table)) as opened:
        policy = opened.get("/").headers["content-security-policy"]
        assert "img-src 'self' https://pictures.example;" in policy
        assert "unsafe" not in policy
        assert policy.count("script-src") == 1
    assert Catalogue.open(table).image_hosts == ("https://pictures.example",)


def test_without_a_catalogue_items_are_shown_by_their_ids(model: Path) -> None:
    with client(model) as opened:
        assert opened.get("/v1/catalogue?page=0").json()["items"] == []
        assert opened.get("/pictures/item 1").status_code == 404


@pytest.mark.parametrize(
    "content", [None, b"", b"title,price\na,1\n", b"\xff\xfe\x00item_id", b"item_id\na\na\n"]
)
def test_a_catalogue_that_cannot_be_read_is_said(tmp_path: Path, model: Path, content: bytes | None) -> None:
    path = tmp_path / "items.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        Catalogue.open(path)
    assert str(path) in str(raised.value)
    done = CliRunner().invoke(
        main, ["serve", str(model), "--catalogue", str(path), "--store", "memory", "--port", "18997"]
    )
    assert done.exit_code == 1
    assert "Traceback" not in done.output
