"""A small extractor trained on the user's own pictures, where no pretrained one can be had.

It learns to tell pictures apart while they are shifted, scaled, mirrored, noisy and of another hue: two views
of a picture are to be nearer to each other than to all others of the batch (instance discrimination). Its
last pooling is whitened on the same pictures, so that colour, which varies most, does not drown the rest.
The network is four plain convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import DataError, MissingExtraError

SIDE = 64
WIDTH = 128
_CHANNELS = (32, 64, 128, WIDTH)
_STRIDES = (2, 2, 2, 1)
_TEMPERATURE = 0.1
_BATCH = 128
_LEAST = 32  # pictures to train on
_NOISE = 0.01  # of the mean variance: what is added to each before the whitening


class OwnExtractor:
    """The trained network; ``weights``: named arrays, as ``trained`` returns them."""

    side, width = SIDE, WIDTH

    def __init__(self, weights: Mapping[str, NDArray[Any]]) -> None:
        import hashlib

        torch = _torch()
        self.weights = dict(weights)
        self._network = _body()
        expected = {name: tuple(tensor.shape) for name, tensor in self._network.state_dict().items()}
        if {name: array.shape for name, array in weights.items()} != expected:
            raise DataError("the saved weights of the picture extractor do not fit; make the features again")
        self._network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
        self._network.train(False)
        digest = hashlib.sha256(b"".join(weights[name].tobytes() for name in sorted(weights)))
        self.identity = f"own {digest.hexdigest()}"
        self.name = "own (four convolutions, trained on these pictures alone)"

    def __call__(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        torch = _torch()
        with torch.inference_mode():
            found: NDArray[np.float32] = self._network(torch.from_numpy(pixels)).numpy()
        return found


def trained(
    pictures: NDArray[np.uint8],
    *,
    epochs: int = 20,
    seed: int = 1,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> OwnExtractor:
    """Train an extractor on pictures, uint8 [n, 64, 64, 3]; the same one for the same seed and pictures.

    Raises DataError for fewer than 32 pictures.
    """
    torch = _torch()
    if len(pictures) < _LEAST:
        raise DataError(
            f"found {len(pictures)} readable pictures, at least {_LEAST} are needed to train an extractor; "
            "give a trained one with --image-model FILE.onnx"
        )
    pixels = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body, head = _body(), torch.nn.Linear(WIDTH, 64)
        parameters = [*body[:-1].parameters(), *head.parameters()]
        size = min(_BATCH, len(pictures))
        steps = epochs * (len(pictures) // size)
        optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
        done = 0
        for _ in range(epochs):
            order = rng.permutation(len(pictures))
            for low in range(0, len(order) - size + 1, size):
                of_batch = pixels[torch.from_numpy(order[low : low + size])].float() / 255
                views = torch.cat([_view(of_batch), _view(of_batch)])
                loss = _nt_xent(head(body[:-1](views)))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                done += 1
                progress(f"training the extractor: loss {float(loss.detach()):.3f}", done, steps)
        _whiten(body, pixels)
    return OwnExtractor({name: tensor.numpy() for name, tensor in body.state_dict().items()})


def _body() -> Any:
    from torch import nn

    layers: list[nn.Module] = []
    before = 3
    for channels, stride in zip(_CHANNELS, _STRIDES, strict=True):
        layers += [
            nn.Conv2d(before, channels, 3, stride, 1, bias=False),
            nn.GroupNorm(8, channels),
            nn.ReLU(),
        ]
        before = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, WIDTH))


def _whiten(body: Any, pixels: Any) -> None:
    """Let the last layer turn the pooled vectors into uncorrelated ones of about equal size."""
    torch = _torch()
    with torch.inference_mode():
        pooled = torch.cat(
            [body[:-1](pixels[at : at + 256].float() / 255) for at in range(0, len(pixels), 256)]
        )
        mean = pooled.mean(0)
        spread, directions = torch.linalg.eigh(
            (pooled - mean).T.double() @ (pooled - mean).double() / len(pooled)
        )
        # Directions that hardly vary hold noise: they are not blown up to the size of the others.
        floor = _NOISE * spread.mean()
        matrix = (directions / (spread.clamp(min=0) + floor).sqrt()).T.float()
        body[-1].weight.copy_(matrix)
        body[-1].bias.copy_(-matrix @ mean)


def _view(pictures: Any) -> Any:
    """Move, scale, turn and mirror each picture a little, and add noise; colours stay what they are."""
    torch = _torch()
    n = len(pictures)
    angle = (torch.rand(n) - 0.5) * 0.35
    scale = 0.65 + 0.45 * torch.rand(n)
    mirror = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    turn, slant = scale * angle.cos(), scale * angle.sin()
    rotation = torch.stack([mirror * turn, -slant, mirror * slant, turn], 1).view(n, 2, 2)
    shift = (torch.rand(n, 2, 1) - 0.5) * 0.4
    grid = torch.nn.functional.affine_grid(
        torch.cat([rotation, shift], 2), list(pictures.shape), align_corners=False
    )
    seen = torch.nn.functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    return _hues(seen) + 0.02 * torch.randn_like(seen)


def _hues(pictures: Any) -> Any:
    """Turn the hues of half of the pictures, each by an angle of its own, around the axis of greys."""
    torch = _torch()
    angle = torch.where(torch.rand(len(pictures)) < 0.5, 0.0, 6.2832 * torch.rand(len(pictures)))
    cosine, third = angle.cos()[:, None, None], torch.full((3, 3), 1 / 3)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / 3**0.5
    turn = cosine * torch.eye(3) + (1 - cosine) * third + angle.sin()[:, None, None] * cross
    return torch.einsum("bij,bjhw->bihw", turn, pictures).clamp_(0, 1)


def _nt_xent(vectors: Any) -> Any:
    """Mean cross-entropy of each view's other view among all views of the batch, by cosine / temperature."""
    torch = _torch()
    unit = torch.nn.functional.normalize(vectors, dim=1)
    scores = unit @ unit.T / _TEMPERATURE
    scores.fill_diagonal_(-torch.inf)
    half = len(vectors) // 2
    other = torch.cat([torch.arange(half, 2 * half), torch.arange(half)])
    return torch.nn.functional.cross_entropy(scores, other)


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise MissingExtraError("training an extractor", "neural") from None
    return torch
