"""Opening a saved model to serve it: with ONNX Runtime where it was exported, else as it was fitted."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Literal

from nextclick import artifact
from nextclick.errors import MissingExtraError
from nextclick.models import find
from nextclick.network.recommender import TrainedRecommender
from nextclick.recommender import Recommender

Runtime = Literal["auto", "onnx", "model"]


def open_model(path: Path, runtime: Runtime = "auto") -> Recommender:
    """Open a model directory.

    runtime: "onnx" answers with ONNX Runtime and without PyTorch, from what ``nextclick export`` added;
    "model" as it was fitted;  "auto" with ONNX Runtime where that was exported and is installed.
    Raises ArtifactError as ``artifact.load``, and MissingExtraError for a runtime that is not installed.
    """
    from nextclick.serving import onnx

    return onnx.load(path) if _by_export(path, runtime) else artifact.load(path)


def engine_room(path: Path, runtime: Runtime = "auto") -> str | None:
    """Return the package that a model computes with, and whose threads a copy of its process would lack.

    "onnxruntime", "torch", or None for a model that needs neither. Raises ArtifactError as ``read_manifest``.
    """
    if _by_export(path, runtime):
        return "onnxruntime"
    manifest = artifact.read_manifest(path)
    parts = [path / name for name in manifest.get("generators", {})]
    if issubclass(find(manifest["model"]), TrainedRecommender):
        return "torch"
    return next((found for part in parts if (found := engine_room(part, "model")) is not None), None)


def imported(package: str) -> None:
    """Import what a model will compute with. Raises MissingExtraError without it."""
    try:
        importlib.import_module(package)
    except ImportError:
        extra = "neural" if package == "torch" else "onnx"
        raise MissingExtraError(f"answering with {package}", extra) from None


def _by_export(path: Path, runtime: Runtime) -> bool:
    from nextclick.serving import onnx

    exported = runtime == "auto" and onnx.is_exported(path) and onnx.is_installed()
    return runtime == "onnx" or exported
