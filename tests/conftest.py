"""What several test files need."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real click logs: NEXTCLICK_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("NEXTCLICK_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "rsc15-100k" / "train.parquet").is_file():
        pytest.skip(f"no real click logs in {folder}; set NEXTCLICK_DATA to their folder")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium to look at the pages with")
    with playwright.sync_playwright() as running:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        opened = running.chromium.launch(executable_path=chromium, args=arguments)
        yield opened
        opened.close()


@pytest.fixture
def complaints() -> list[str]:
    """What a page says on its console, or asks for elsewhere."""
    return []
