"""What several test files need."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real click logs: NEXTCLICK_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("NEXTCLICK_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "rsc15-100k" / "train.parquet").is_file():
        pytest.skip(f"no real click logs in {folder}; set NEXTCLICK_DATA to their folder")
    return folder
