"""What turns pictures into vectors: an ONNX file, a PyTorch module, or a library's pretrained GoogLeNet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import ConfigError, DataError, MissingExtraError
from nextclick.files import sha256

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)[:, None, None]  # of ImageNet's pictures, by channel
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)[:, None, None]
_TELLING = 1000  # numbers of a matrix that its spread can be told from
_READ = 100_000  # how many of them are looked at, about
_CUSTOM = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1)  # deviations that starts have whatever the shape
_SURE = 1e-4  # of a matrix that was drawn, the probability to be taken for a trained one
_RANDOM = (
    "its weights are random: every matrix is still spread as numbers drawn for a start are, so its features "
    "would say nothing of a picture; give a network that was trained"
)


class OnnxExtractor:
    """A network in an ONNX file, run by onnxruntime.

    output: name of the output to take, the first if left out; one of four dimensions is averaged over its
    places, which makes the last convolution of a network as good as its last pooling.  Pictures are scaled
    by ImageNet's mean and deviation, as almost all such networks expect.
    Raises DataError when the file does not load, takes something else than pictures, or holds random weights
    (``are_random``).
    """

    def __init__(self, path: str | Path, output: str | None = None, side: int = 224) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise MissingExtraError("an ONNX extractor", "features") from None
        path = Path(path)
        if not path.is_file():
            raise DataError(f"{path}: no such file; give a network in ONNX format")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has a class for every reason, and no common one
            reason = str(error).strip().split("\n")[0]
            raise DataError(f"{path}: not a network that onnxruntime can load: {reason}") from error
        given = self._session.get_inputs()[0]
        outputs = [of.name for of in self._session.get_outputs()]
        if output is not None and output not in outputs:
            raise DataError(f"{path}: has no output {output!r}; it has: {', '.join(outputs)}")
        shape = list(given.shape)
        if len(shape) != 4 or (shape[1] not in (3, None) and not isinstance(shape[1], str)):
            raise DataError(f"{path}: takes {shape}, expected pictures [batch, 3, height, width]")
        self._input, self._output = given.name, output or outputs[0]
        self._one_by_one = shape[0] == 1
        self.side = shape[2] if isinstance(shape[2], int) else side
        self.identity = f"onnx {sha256(path)} {self._output}"
        self.name = path.name
        try:
            found = self(np.zeros((1, 3, self.side, self.side), np.float32))
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            raise DataError(
                f"{path}: fails on a picture of {self.side} x {self.side} pixels, float32: {reason}"
            ) from error
        if found.ndim != 2 or len(found) != 1:
            raise DataError(
                f"{path}: gives {list(found.shape)} for one picture, expected [1, D] or [1, D, h, w]; name "
                f"another of its outputs: {', '.join(outputs)}"
            )
        if are_random(_matrices(path)):
            raise DataError(f"{path}: {_RANDOM}")
        self.width = int(found.shape[1])

    def __call__(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        scaled = (pixels - _MEAN) / _DEVIATION
        batches = np.split(scaled, len(scaled)) if self._one_by_one else [scaled]
        found = np.concatenate([self._session.run([self._output], {self._input: of})[0] for of in batches])
        pooled: NDArray[np.float32] = found.mean(axis=(2, 3)) if found.ndim == 4 else found
        return pooled


class TorchExtractor:
    """Any PyTorch module that takes pictures [B, 3, side, side] and returns [B, D] or [B, D, h, w].

    weights: where they are from, in words, as reports show it.
    Raises ConfigError without a word on the weights, and for random ones: where batch normalisation has seen
    no picture, or the weights are still spread as they were drawn (``are_random``).
    """

    def __init__(self, module: Any, *, weights: str, side: int = 224, name: str = "") -> None:
        import hashlib

        import torch

        named = name or type(module).__name__
        if not weights.strip():
            raise ConfigError(f"extractor {named}: say where its weights are from, weights='...'")
        seen = [of.num_batches_tracked for of in module.modules() if hasattr(of, "num_batches_tracked")]
        if seen and all(count is not None and int(count) == 0 for count in seen):
            raise ConfigError(
                f"extractor {named}: its weights are random, no picture has ever been through its batch "
                "normalisation; load trained weights first"
            )
        state = module.state_dict()
        if are_random(tensor.detach().float().cpu().numpy() for tensor in state.values() if tensor.ndim > 1):
            raise ConfigError(f"extractor {named}: {_RANDOM}")
        digest = hashlib.sha256()
        for tensor in state.values():
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        self._module, self.side = module.train(False), side
        self.name, self.identity = f"{named} ({weights})", f"torch {named} {digest.hexdigest()}"
        self.width = int(self(np.zeros((1, 3, side, side), np.float32)).shape[1])

    def __call__(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            found = self._module(torch.from_numpy((pixels - _MEAN) / _DEVIATION))
            pooled: NDArray[np.float32] = (found.mean((2, 3)) if found.ndim == 4 else found).numpy()
        return pooled


def are_random(matrices: Iterable[NDArray[Any]]) -> bool:
    """Return whether weights are as they were drawn: no matrix is spread otherwise than a start usually is.

    matrices: weights of any shape, [out, in, ...] or [in, out]; those of fewer than 1,000 numbers tell
    nothing. A start is drawn evenly between two bounds, from a normal distribution that is cut off at two
    deviations, or from a whole one of a deviation that the shape or custom gives; the test is Kolmogorov and
    Smirnov's. Trained weights may come near a normal distribution, but not of just that deviation.
    Raises MissingExtraError without SciPy.
    """
    try:
        from scipy import stats
    except ImportError:
        raise MissingExtraError("an extractor of pictures", "features") from None

    told = False
    for matrix in matrices:
        if matrix.size < _TELLING:
            continue
        told = True
        numbers = np.asarray(matrix, np.float64).ravel()[:: matrix.size // _READ + 1]
        low, high = numbers.min(), numbers.max()
        if not high > low:
            continue  # all the same: not trained either
        into, out = (matrix.size // matrix.shape[axis] for axis in (0, 1))
        by_shape = [(gain / n) ** 0.5 for gain in (1, 2) for n in (into, out, (into + out) / 2)]
        starts = [
            stats.uniform(low, high - low), stats.truncnorm(-2, 2, (low + high) / 2, (high - low) / 4),
            *(stats.norm(0, deviation) for deviation in (*by_shape, *_CUSTOM)),
        ]  # fmt: skip
        if max(stats.kstest(numbers, start.cdf).pvalue for start in starts) < _SURE:
            return False
    return told


def _matrices(path: Path) -> Iterator[NDArray[Any]]:
    """Read the weights of an ONNX file that have two dimensions or more, one after the other."""
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("an ONNX extractor", "features") from None

    graph = onnx.load(path).graph
    constants = (of.t for node in graph.node if node.op_type == "Constant" for of in node.attribute)
    for tensor in (*graph.initializer, *constants):
        if len(tensor.dims) > 1 and onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).kind == "f":
            yield onnx.numpy_helper.to_array(tensor, str(path.parent))


def googlenet() -> TorchExtractor:
    """Return the last average pooling of GoogLeNet, 1,024 numbers, with torchvision's weights.

    torchvision fetches them once and keeps them, so this needs a network the first time.
    Raises MissingExtraError without torchvision, and DataError where the weights cannot be had.
    Source: Hidasi et al., RecSys 2016, sec. 4 (encoding images), who took Caffe's.
    """
    try:
        import torchvision
    except (ImportError, RuntimeError):  # made for another PyTorch
        raise MissingExtraError("the extractor googlenet, from torchvision,", "images") from None
    from torch import nn

    try:
        module = torchvision.models.googlenet(weights="IMAGENET1K_V1")
    except OSError as error:
        raise DataError(
            f"torchvision could not fetch GoogLeNet's weights ({error}); give an ONNX file with "
            "--image-model, or --image-model own to train a small network on your own pictures"
        ) from error
    module.fc = nn.Identity()
    return TorchExtractor(module, weights="torchvision IMAGENET1K_V1", name="GoogLeNet")
