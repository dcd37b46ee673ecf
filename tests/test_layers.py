"""The flow of the package: each layer imports only from the layers before it, and no file is a maze."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import nextclick

SOURCE = Path(nextclick.__file__).parent
LAYERS = [
    ["__version__", "errors", "machine"],
    ["compiled"],
    ["files", "settings", "metrics"],
    ["sessions", "ranking", "results", "places"],
    ["dataset", "reasons", "filters", "recommendations", "events", "index", "fitting"],
    ["features"],
    ["recommender"],
    ["voting"],
    ["neighbours", "factors", "network", "prepare", "shop", "clickstream"],
    ["baselines", "rerank", "metric", "parallel", "large"],
    ["models", "answers"],
    ["artifact", "evaluation", "report", "tuning"],
    ["batch", "explain", "demo", "experiment", "nearest", "online", "plan"],
    ["item_map", "serving", "batch_spark"],
    ["cli"],
    ["__main__"],
]
# recommender.save(path) is the one convenience that points against the flow, inside a function.
ALLOWED = {("recommender", "artifact")}


def layer_of(room: str) -> int:
    return next(n for n, rooms in enumerate(LAYERS) if room in rooms)


def imports_of(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "nextclick":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nextclick."):
            found.add((node.module or "").split(".")[1])
    return found


FILES = sorted(file for file in SOURCE.rglob("*.py") if file != SOURCE / "__init__.py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_follow_the_layers(file: Path) -> None:
    room = file.relative_to(SOURCE).parts[0].removesuffix(".py")
    for imported in imports_of(file) - {room}:
        if imported == "prepare" and room == "cli":
            continue
        assert (room, imported) in ALLOWED or layer_of(imported) < layer_of(room), (
            f"{room} may not import {imported}"
        )


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_no_file_is_longer_than_400_lines(file: Path) -> None:
    assert len(file.read_text("utf-8").splitlines()) <= 400


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_nothing_that_could_run_code_from_a_file(file: Path) -> None:
    text = file.read_text("utf-8")
    for risky in ("pickle.load", "torch.load", "joblib", "eval(", "exec(", "allow_pickle=True", "yaml.load("):
        assert risky not in text
