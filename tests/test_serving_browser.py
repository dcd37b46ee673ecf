"""The shop and the running experiment in a real browser: clicked through, on a laptop and on a phone.

With NEXTCLICK_PICTURES set to a folder, the screenshots of the documentation are written there.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nextclick
from nextclick.serving.keys import add_key
from nextclick.shop import ShopConfig, simulate
from serving import Server, saved, served
from synthetic import QUICK

pytestmark = pytest.mark.browser
PICTURES = os.environ.get("NEXTCLICK_PICTURES")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("uvicorn")
    pytest.importorskip("PIL")
    folder = tmp_path_factory.mktemp("shop")
    shop = simulate(ShopConfig(sessions=4000, products=256)).write(folder / "shop", thumbnails=True)
    data = nextclick.prepare(shop / "clicks.parquet", out=folder / "data", event="event", holdout="3d")
    names = ["markov", "vs-knn", "pop"]
    for name in names:
        nextclick.build(name).fit(data.full).save(folder / name)
    if importlib.util.find_spec("torch") is not None:
        nextclick.build("stamp", QUICK["stamp"]).fit(data.full).save(folder / "stamp")
        names.append("stamp")
    trial = folder / "trial.toml"
    variants = "".join(
        f'[[variant]]\nname = "{name}"\nmodel = "{name}"\nshare = 0.5\n' for name in ("markov", "vs-knn")
    )
    trial.write_text(f'name = "lists"\n{variants}')
    arguments = [str(folder / name) for name in names]
    options = ["--catalogue", str(shop), "--experiment", str(trial), "--records", str(folder / "records")]
    options += ["--deadline", "10000"]  # what a busy machine must not turn into a fallback
    with served(*arguments, *options, "--store", f"sqlite:{folder / 's.sqlite'}") as running:
        yield running


def opened(browser: Any, server: Server, path: str, complaints: list[str], width: int = 1280) -> Any:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith(server.url) else complaints.append(request.url),
    )
    page.goto(server.url + path)
    return page


def listed(page: Any, name: str) -> list[str]:
    rows = page.locator(f'[data-list="{name}"] button.row')
    found: list[str] = rows.evaluate_all("rows => rows.map(row => row.dataset.item)")
    return found


def clicked(page: Any, button: Any, clicks: int) -> None:
    """Click, and wait until the session and all lists have followed."""
    waited(lambda: page.locator("#said").text_content())  # of what went before
    page.locator("#said").evaluate("said => { said.textContent = '' }")
    button.click()
    followed = "() => [document.querySelectorAll('#session li').length, said.textContent]"
    waited(lambda: (found := page.evaluate(followed))[0] == clicks and found[1])


def waited(true: Callable[[], Any], seconds: float = 10.0) -> None:
    """Wait for something; the page's policy lets no other script of a test's run in it for long."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


def shot(page: Any, name: str) -> None:
    if PICTURES:
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=str(Path(PICTURES) / name), full_page=False)


def test_lists_follow_the_clicks_and_say_why(browser: Any, server: Server, complaints: list[str]) -> None:
    page = opened(browser, server, "/", complaints)
    page.wait_for_selector("#products button.product")
    item = server.post("/v1/recommend", {"k": 4})["items"][3]["item"]  # one that the models know
    page.wait_for_selector('[data-list="vs-knn"] button.row')
    empty = {name: listed(page, name) for name in ("markov", "vs-knn", "pop")}
    page.locator("#item").fill(item)
    clicked(page, page.locator("#type-item button"), 1)
    after = {name: listed(page, name) for name in empty}
    assert after["vs-knn"] != empty["vs-knn"]
    assert after["markov"] != empty["markov"]
    assert item not in after["vs-knn"]
    assert page.locator('[data-list="vs-knn"] .move.new').count() > 0
    direct = server.post("/v1/recommend", {"items": [item], "k": 10, "exclude_seen": True, "model": "vs-knn"})
    assert after["vs-knn"] == [entry["item"] for entry in direct["items"]]
    assert "new of 10" in page.locator("#said").inner_text()
    clicked(page, page.locator('[data-list="vs-knn"] button.row').nth(1), 2)
    assert listed(page, "vs-knn") != after["vs-knn"]
    shown = "rows => rows.map(row => row.innerText).filter(text => /^[0-9]+\\s+P[0-9]{4}\\b/.test(text))"
    assert page.locator("[data-list] button.row").evaluate_all(shown) == []  # titles, in every list
    assert " ms " in page.locator('[data-list="vs-knn"] p').first.inner_text()
    page.locator('[data-list="vs-knn"] summary').click()
    page.wait_for_selector('[data-list="vs-knn"] .why dt')
    assert page.locator('[data-list="vs-knn"] meter').count() >= 1
    page.locator('[data-list="pop"] summary').click()
    page.wait_for_selector('[data-list="pop"] details li')
    assert "without" in page.locator('[data-list="pop"] details li').first.inner_text()
    assert not page.locator("#key-form").is_visible()
    assert not page.locator("#problem").is_visible()
    shot(page, "shop.png")
    assert complaints == []


def test_the_rate_of_the_experiment_moves_with_a_click(
    browser: Any, server: Server, complaints: list[str]
) -> None:
    page, live = (opened(browser, server, path, complaints) for path in ("/", "/experiment"))
    mine = 'section[data-list^="For you"] '
    page.wait_for_selector(mine + "button.row")
    variant = page.locator(mine + "p").first.inner_text().split()[1]

    def figures() -> tuple[int, int]:
        found = server.get("/v1/experiment")
        row = next(row for row in found["rows"] if row["by"] == "all" and row["variant"] == variant)
        return row["lists"], row["clicked"]

    clicked(page, page.locator("#products button.product").first, 1)
    lists, clicks = figures()
    clicked(page, page.locator(mine + "button.row").first, 2)
    assert figures() == (lists + 1, clicks + 1)
    cells = "rows => rows.map(row => [row.children[0].textContent, row.children[3].textContent])"
    waited(lambda: [variant, str(clicks + 1)] in live.locator("#all tbody tr").evaluate_all(cells))
    assert live.locator("svg circle").count() == 2
    if PICTURES:
        _visitors(server)
        live.wait_for_timeout(3000)
    shot(live, "experiment.png")
    assert complaints == []


def _visitors(server: Server) -> None:
    """So many visitors that the picture shows something: each clicks its list now and then."""
    import random

    chance = random.Random(1)
    for visitor in range(400):
        session, item = f"v{visitor}", f"P{chance.randrange(256) + 1:04d}"
        for step in range(chance.randrange(1, 6)):
            about = {"market": chance.choice(["de", "fr"])}
            server.post("/v1/events", {"session": session, "item": item, "id": f"{session}.{step}"})
            answer = server.post("/v1/recommend", {"session": session, "k": 10, "attributes": about})
            item = answer["items"][chance.randrange(10)]["item"]
            if chance.random() < (0.12 if answer["variant"] == "markov" else 0.2):
                event = {
                    "session": session,
                    "item": item,
                    "id": f"{session}.{step}c",
                    "request": answer["request"],
                }
                server.post("/v1/events", event)


def test_attention_is_shown_click_by_click(browser: Any, server: Server, complaints: list[str]) -> None:
    pytest.importorskip("torch")
    page = opened(browser, server, "/?models=stamp,vs-knn,none", complaints)
    page.wait_for_selector('[data-list="stamp"] button.row')
    titles = "lists => lists.map(list => list.dataset.list)"
    assert page.locator("#columns section").evaluate_all(titles)[-2:] == ["stamp", "vs-knn"]
    session = [entry["item"] for entry in server.post("/v1/recommend", {"k": 3})["items"]]
    for n, item in enumerate(session, start=1):
        page.locator("#item").fill(item)
        clicked(page, page.locator("#type-item button"), n)
    page.locator('[data-list="stamp"] summary').click()
    why = page.locator('[data-list="stamp"] .why')
    why.wait_for()
    told = server.post("/v1/explain", {"items": session, "model": "stamp"})
    assert told["by"] == "attention"
    weights = [float(text) for text in why.locator("dd:last-of-type, dd + dd").all_inner_texts()]
    assert weights == pytest.approx(told["weights"][-1], rel=0.06)  # two digits are shown
    assert why.locator("dt").count() == len(session)
    assert complaints == []


def test_a_list_keeps_its_place_for_the_keyboard_and_a_table_its_scroll(
    browser: Any, server: Server, complaints: list[str]
) -> None:
    """Both are drawn anew; what is read out and where one is must not jump."""
    page = opened(browser, server, "/", complaints)
    rows = page.locator('[data-list="vs-knn"] button.row')
    rows.first.wait_for()
    for n in range(2):
        page.locator("#said").evaluate("said => { said.textContent = '' }")
        rows.nth(3).focus()
        page.keyboard.press("Enter")
        waited(lambda n=n: page.locator("#session li").count() == n + 1)
        waited(lambda: page.locator("#said").text_content())
        held = "row => row === document.activeElement"
        assert rows.nth(3).evaluate(held)
    server.post("/v1/recommend", {"session": "one", "attributes": {"market": "de"}})
    live = opened(browser, server, "/experiment", complaints, width=360)
    part = live.locator('[data-by="market"]')
    part.wait_for()
    part.focus()
    part.evaluate("part => { part.scrollLeft = 60 }")
    before = part.locator("tbody").inner_text()
    server.post("/v1/recommend", {"session": "two", "attributes": {"market": "fr"}})
    waited(lambda: part.locator("tbody").inner_text() != before)
    assert part.evaluate("part => part.scrollLeft") == 60
    assert part.evaluate("part => part === document.activeElement")
    assert complaints == []


def test_pages_ask_for_a_key_where_one_is_needed(browser: Any, tmp_path: Path) -> None:
    """Both pages; the key goes with the tab, to no address bar and no other tab."""
    key = add_key(tmp_path / "keys.json", "desk", ["admin"])
    options = ["--store", "memory", "--keys", str(tmp_path / "keys.json"), "--deadline", "10000"]
    with served(str(saved(tmp_path)), *options) as locked:
        shop = browser.new_page()
        shop.goto(locked.url + "/")
        shop.locator("#key-form").wait_for()
        assert "an API key is needed" in shop.locator("#problem").inner_text()
        shop.locator("#key").fill("wrong")
        shop.keyboard.press("Enter")
        waited(lambda: "not known" in shop.locator("#problem").inner_text())
        shop.locator("#key").fill(key)
        shop.keyboard.press("Enter")
        shop.locator("[data-list] button.row").first.wait_for()
        assert not shop.locator("#key-form").is_visible()
        assert not shop.locator("#problem").is_visible()
        shop.locator("nav >> text=Experiment").click()
        waited(lambda: "No experiment is running" in shop.locator("#said").inner_text())
        assert key not in shop.url
        live = browser.new_page()
        live.goto(locked.url + "/experiment")
        live.locator("#key-form").wait_for()
        live.locator("#key").fill(key)
        live.locator("#key-form button").click()
        waited(lambda: "No experiment is running" in live.locator("#said").inner_text())
        assert not live.locator("#key-form").is_visible()


def test_what_stands_in_a_catalogue_is_shown_as_text(
    browser: Any, server: Server, complaints: list[str]
) -> None:
    title, price = "<img src=x onerror=alert(1)>", "<b>1</b>"
    item = {"id": "P0001", "title": title, "price": price, "image": ""}
    page = browser.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.route(
        lambda url: "/v1/catalogue" in url,
        lambda route: route.fulfill(json={"items": [item], "categories": ["<script>"], "pages": 1}),
    )
    page.goto(server.url + "/")
    page.wait_for_selector("#products button.product")
    clicked(page, page.locator("#products button.product"), 1)
    assert title in page.locator("#products").inner_text()
    assert price in page.locator("#products").inner_text()
    assert title in page.locator("#session").inner_text()
    assert page.locator("#products img, #products b, #category script").count() == 0
    assert complaints == []


@pytest.mark.parametrize("path", ["/", "/experiment", "/docs"])
def test_pages_fit_a_phone_and_can_be_used_with_a_keyboard(
    browser: Any, server: Server, complaints: list[str], path: str
) -> None:
    page = opened(browser, server, path, complaints, width=360)
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("h1").count() == 1
    assert page.locator("html[lang=en]").count() == 1
    unnamed = "buttons => buttons.filter(button => !button.innerText.trim()).length"
    assert page.locator("button:visible").evaluate_all(unnamed) == 0
    assert page.locator("img:not([alt])").count() == 0
    if path == "/":
        page.locator("#products button.product").first.focus()
        page.keyboard.press("Enter")
        page.wait_for_selector("#session li")
        page.wait_for_load_state("networkidle")
        small = "buttons => buttons.filter(button => button.getBoundingClientRect().height < 40).length"
        waited(lambda: page.locator("button:visible").evaluate_all(small) == 0)  # once the lists stand
        shot(page, "shop-phone.png")
    if path == "/docs":
        page.wait_for_selector("text=POST /v1/recommend")
    assert complaints == []
