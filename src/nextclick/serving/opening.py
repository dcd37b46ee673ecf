"""Opening a saved model to serve it: with ONNX Runtime where it was exported, else as it was fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from nextclick import artifact
from nextclick.recommender import Recommender

Runtime = Literal["auto", "onnx", "model"]


def open_model(path: Path, runtime: Runtime = "auto") -> Recommender:
    """Open a model directory.

    runtime: "onnx" answers with ONNX Runtime and without PyTorch, from what ``nextclick export`` added;
    "model" as it was fitted;  "auto" with ONNX Runtime where that was exported and is installed.
    Raises ArtifactError as ``artifact.load``, and MissingExtraError for a runtime that is not installed.
    """
    from nextclick.serving import onnx

    if runtime == "onnx" or (runtime == "auto" and onnx.is_exported(path) and onnx.is_installed()):
        return onnx.load(path)
    return artifact.load(path)
