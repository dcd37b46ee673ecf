"""Networks without PyTorch: exported once to ONNX beside their saved model, answered by ONNX Runtime."""

from __future__ import annotations

import importlib.util
import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from nextclick import artifact
from nextclick.errors import ArtifactError, ConfigError, MissingExtraError
from nextclick.files import new_file, sha256, write_json
from nextclick.reasons import Attention
from nextclick.recommender import Recommender
from nextclick.sessions import Queries, Sessions, Vocabulary

if TYPE_CHECKING:
    from nextclick.network.recommender import NeuralRecommender

FORMAT = "nextclick-onnx"
FORMAT_VERSION = 1
GRAPH, ATTENTION, ABOUT = "answers.onnx", "attention.onnx", "onnx.json"
_LENGTHS, _BATCHES = (1, 2, 9, 30), (1, 4)  # that an export is checked on
_ROWS = 64  # prefixes weighed at once
_CLOSE = 1e-4  # of the largest score: what float32 sums in another order differ by, with room


@dataclass(kw_only=True, eq=False)
class OnnxRecommender(Recommender):
    """Answers of an exported network; lists, rules and batches come from the base class as for any other.

    It cannot be fitted. An empty prefix is answered with the most clicked items.
    """

    name: ClassVar[str] = "onnx"
    summary: ClassVar[str] = "an exported network, answered by ONNX Runtime"
    source: ClassVar[str] = "as the network it was exported from"

    last_clicks: int = field(default=19)
    session: Any = field(init=False, repr=False)
    weigher: Any = field(init=False, repr=False, default=None)  # of a network with attention

    def __post_init__(self) -> None:
        self.facts = {}

    def _fit(self, sessions: Sessions) -> None:
        raise ConfigError("an exported network cannot be fitted; fit the model and export it again")

    def _scores(self, queries: Queries) -> NDArray[np.float32]:
        rows = np.flatnonzero(queries.ends > queries.starts)
        if len(rows) == 0:
            return np.repeat(self.support[None].astype(np.float32), len(queries), 0)
        answers = self._asked(self.session, queries[rows] if len(rows) < len(queries) else queries)
        if len(rows) == len(queries):
            return answers
        scores = np.tile(self.support.astype(np.float32), (len(queries), 1))
        scores[rows] = answers
        return scores

    def reasons(self, prefix: NDArray[np.int32], items: NDArray[np.int32]) -> Attention | None:
        """Return the weights of the clicks, as the network itself does; None where it has none to tell."""
        if self.weigher is None:
            return None
        size = len(prefix)
        weights = np.zeros((size, size), np.float32)
        for low in range(0, size, _ROWS):
            ends = np.arange(low + 1, min(low + _ROWS, size) + 1)
            rows = self._asked(self.weigher, Queries(prefix, np.zeros_like(ends), ends))  # [B, T]
            for end, row in zip(ends.tolist(), rows, strict=True):
                first = max(0, end - self.last_clicks)
                weights[end - 1, first:end] = row[: end - first]
        return Attention(weights)

    def _asked(self, graph: Any, queries: Queries) -> NDArray[np.float32]:
        """Run a graph on the last clicks of queries, none of which is empty."""
        lengths = np.minimum(queries.ends - queries.starts, self.last_clicks)
        clicks = np.zeros((len(queries), int(lengths.max())), np.int64)  # [B, T]
        for row, (n, end) in enumerate(zip(lengths.tolist(), queries.ends.tolist(), strict=True)):
            clicks[row, :n] = queries.items[end - n : end]
        (answers,) = graph.run(None, {"clicks": clicks, "lengths": lengths.astype(np.int64)})
        found: NDArray[np.float32] = answers
        return found

    def _state(self) -> dict[str, NDArray[Any]]:
        raise ConfigError("an exported network is saved by exporting it: nextclick export MODEL_DIR")

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        raise ConfigError("an exported network is opened by the server only")


def is_exported(path: Path) -> bool:
    """Whether a model directory holds an export."""
    return (path / ABOUT).is_file()


def is_installed() -> bool:
    """Whether ONNX Runtime is there."""
    return importlib.util.find_spec("onnxruntime") is not None


def load(path: Path) -> OnnxRecommender:
    """Open the export in a model directory, without PyTorch.

    Raises ArtifactError when there is none, it is damaged, or it is not that of the model beside it, and
    MissingExtraError without ONNX Runtime.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("answering with ONNX Runtime", "onnx") from None
    from safetensors import SafetensorError, safe_open

    manifest = artifact.read_manifest(path)
    about = _read_about(path)
    if about["arrays"] != next(iter(manifest["files"].values())).get("sha256"):
        raise ArtifactError(f"{path / GRAPH}: exported from other weights; export the model again")
    digests = {GRAPH: about["sha256"], **({ATTENTION: about["attention"]} if about["attention"] else {})}
    try:
        for name, digest in digests.items():
            if sha256(path / name) != digest:
                raise ArtifactError(f"{path / name}: changed since it was exported; export the model again")
        with safe_open(path / "arrays.safetensors", framework="numpy") as arrays:
            wanted = [name for name in arrays.keys() if name.startswith("vocabulary.")]  # noqa: SIM118
            ids = {name.removeprefix("vocabulary."): arrays.get_tensor(name) for name in wanted}
            support = arrays.get_tensor("support")
        vocabulary = Vocabulary.from_arrays(ids)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # the workers share the processors
        options.log_severity_level = 3
        graphs = {
            name: onnxruntime.InferenceSession(path / name, options, providers=["CPUExecutionProvider"])
            for name in digests
        }
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"{path}: the export is unreadable ({error}); export the model again") from error
    except Exception as error:  # the runtime's own errors share no base class but this one
        raise ArtifactError(f"{path / GRAPH}: damaged ({error}); export the model again") from error
    model = OnnxRecommender(last_clicks=about["last_clicks"])
    model.vocabulary, model.support, model.session = vocabulary, support, graphs[GRAPH]
    model.weigher = graphs.get(ATTENTION)
    model.facts = manifest["facts"]
    if support.shape != (len(vocabulary),) or len(vocabulary) != manifest["n_items"]:
        raise ArtifactError(f"{path}: support and item ids do not fit together; fit the model again")
    return model


def export(path: Path) -> dict[str, Any]:
    """Add an ONNX export to a saved network's directory, checked against PyTorch; return what was found.

    The graph takes clicks int64 [B, T], padded on the right, and lengths int64 [B], and gives the scores of
    all items, float32 [B, n_items]. It is checked on several lengths and batches before it gets its name. A
    network with attention gets a second graph, which gives the weights of the clicks, float32 [B, T].
    Raises ConfigError for a model that is no network, ArtifactError where the export answers differently,
    and MissingExtraError without PyTorch or ONNX.
    """
    from nextclick.network.recommender import NeuralRecommender

    if not is_installed() or importlib.util.find_spec("onnxscript") is None:
        raise MissingExtraError("exporting to ONNX", "onnx")
    manifest = artifact.read_manifest(path)
    model = artifact.load(path)
    if not isinstance(model, NeuralRecommender):
        raise ConfigError(
            f"{path}: {model.name} is no network that scores all items, so there is nothing to export to "
            "ONNX; serve it as it is, or make a table of it (--format table)"
        )
    with new_file(path / GRAPH) as aside:
        _write_graph(model.answering(), "scores", aside)
        largest = _check(model, aside)
        digest, size = sha256(aside), aside.stat().st_size
    attention = None
    if _has_attention(model):
        with new_file(path / ATTENTION) as aside:
            _write_graph(_weights_of(model), "weights", aside)
            largest = max(largest, _check_attention(model, aside))
            attention = sha256(aside)
    about = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": model.name,
        "last_clicks": model.last_clicks,
        "arrays": next(iter(manifest["files"].values()))["sha256"],
        "sha256": digest,
        "attention": attention,
    }
    write_json(path / ABOUT, about)
    return {**about, "bytes": size, "largest_difference": largest}


def _has_attention(model: NeuralRecommender) -> bool:
    return model.reasons(np.zeros(2, np.int32), np.zeros(0, np.int32)) is not None


def _weights_of(model: NeuralRecommender) -> Any:
    import torch
    from torch import Tensor, nn

    class Weights(nn.Module):
        """How much each click weighs in the answer after the last of its row."""

        def __init__(self) -> None:
            super().__init__()
            self.network: Any = model.network.train(False)

        def forward(self, clicks: Tensor, lengths: Tensor) -> Tensor:
            mask = torch.arange(clicks.shape[1])[None] < lengths[:, None]
            weights: Tensor = self.network.encoder.weigh(self.network.inputs(clicks), mask)  # [B, T, T]
            last = (lengths - 1)[:, None, None].expand(-1, 1, clicks.shape[1])
            return weights.gather(1, last)[:, 0]

    return Weights()


def _write_graph(graph: Any, gives: str, file: Path) -> None:
    import torch

    clicks, lengths = torch.zeros(3, 5, dtype=torch.int64), torch.tensor([5, 2, 1])
    sizes = {
        "clicks": {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO},
        "lengths": {0: torch.export.Dim.AUTO},
    }
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of the exporter about itself and about packages that are not needed
        exporter.setLevel(logging.ERROR)
        torch.onnx.export(
            graph.train(False), (clicks, lengths), file, input_names=["clicks", "lengths"],
            output_names=[gives], dynamic_shapes=sizes, dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
    exporter.setLevel(level)


def _check(model: NeuralRecommender, file: Path) -> float:
    """Compare an export with the network; return the largest difference, as a share of the largest score."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    largest = 0.0
    for length in _LENGTHS:
        for size in _BATCHES:
            lengths = np.array([max(1, length - row) for row in range(size)])
            queries = Queries.of([rng.integers(0, model.n_items, n).astype(np.int32) for n in lengths])
            exported = OnnxRecommender(last_clicks=model.last_clicks)
            exported.vocabulary, exported.support, exported.session = model.vocabulary, model.support, session
            try:
                found, wanted = exported.score(queries), model.score(queries)
            except Exception as error:
                raise ArtifactError(
                    f"the export does not take {size} sessions of {length} clicks ({error}); nothing was kept"
                ) from error
            difference = float(np.abs(found - wanted).max() / max(1e-9, float(np.abs(wanted).max())))
            largest = max(largest, difference)
    return _close(largest)


def _check_attention(model: NeuralRecommender, file: Path) -> float:
    """Compare exported weights with the network's; return the largest difference, as ``_check``."""
    import onnxruntime

    exported = OnnxRecommender(last_clicks=model.last_clicks)
    exported.weigher = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    rng, none = np.random.default_rng(0), np.zeros(0, np.int32)
    largest = 0.0
    for length in _LENGTHS:
        prefix = rng.integers(0, model.n_items, length).astype(np.int32)
        found, wanted = exported.reasons(prefix, none), model.reasons(prefix, none)
        assert isinstance(found, Attention)
        assert isinstance(wanted, Attention)
        difference = float(np.abs(found.weights - wanted.weights).max())
        largest = max(largest, difference / max(1e-9, float(np.abs(wanted.weights).max())))
    return _close(largest)


def _close(largest: float) -> float:
    if not largest <= _CLOSE:
        raise ArtifactError(
            f"the export answers differently from the network, by {largest:.2g} of the largest score; "
            "nothing was kept. Upgrade onnxscript and export again"
        )
    return largest


def _read_about(path: Path) -> dict[str, Any]:
    file = path / ABOUT
    try:
        about: dict[str, Any] = json.loads(file.read_text("utf-8"))
        known = about["format"] == FORMAT and about["format_version"] <= FORMAT_VERSION
        if not known or not isinstance(about["last_clicks"], int) or about["last_clicks"] < 1:
            raise ValueError("not an export of this version")
        wanted = {key: about[key] for key in ("last_clicks", "arrays", "sha256")}
        return {**wanted, "attention": about.get("attention")}  # not in exports of older versions
    except FileNotFoundError:
        raise ArtifactError(f"{path}: not exported; make it with: nextclick export {path}") from None
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise ArtifactError(f"{file}: unreadable ({error}); export the model again") from error
