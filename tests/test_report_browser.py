"""The report in a real browser: offline, on a laptop and on a phone, sortable, without a complaint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import nextclick
from nextclick.report import write_html
from synthetic import chain

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("matplotlib")
    sessions = chain(30, 300, noise=0.3, seed=1)
    models = [nextclick.build(name).fit(sessions[:200]) for name in ("pop", "markov", "vs-knn")]
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_html(nextclick.evaluate(models, sessions[200:]), path)
    return path


def opened(browser: Any, report: Path, complaints: list[str], width: int) -> Any:
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None
    )
    page.goto(report.as_uri())
    return page


@pytest.mark.parametrize("width", [390, 1280])
def test_fits_the_screen_and_asks_for_nothing(
    browser: Any, report: Path, complaints: list[str], width: int
) -> None:
    page = opened(browser, report, complaints, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("svg").count() >= 4
    assert page.locator("h1").count() == 1
    assert complaints == []


def test_a_click_on_a_heading_sorts_the_models(browser: Any, report: Path, complaints: list[str]) -> None:
    page = opened(browser, report, complaints, 1280)
    table = page.locator("table.sortable").first
    column = table.locator("thead th").all_inner_texts().index("MRR@20")

    def shown() -> list[float]:
        cells = table.locator(f"tbody tr > :nth-child({column + 1})").evaluate_all(
            "cells => cells.map(cell => Number(cell.dataset.value))"
        )
        return [float(value) for value in cells]

    heading = table.locator("thead th").nth(column).locator("button")
    heading.click()
    assert shown() == sorted(shown(), reverse=True)
    heading.focus()
    page.keyboard.press("Enter")
    assert shown() == sorted(shown())
    assert len(set(shown())) == 3
    assert complaints == []
