"""Slow and obvious computations for tests of the training to be held against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


def ranking_loss(
    name: str,
    scores: Any,
    target: Sequence[int],
    *,
    regularisation: float = 0.0,
    activation: str = "linear",
    elu: float = 1.0,
) -> Any:
    """The published formulas, one negative sample at a time; scores: a tensor [B, K], differentiable."""
    import torch

    total = scores.sum() * 0
    for row, column in zip(scores, target, strict=True):
        active = [_active(score, activation, elu) for score in row]
        own = active[column]
        others = [score for n, score in enumerate(active) if n != column]
        weights = [torch.exp(other) for other in others]
        shares = [weight / sum(weights) for weight in weights]
        if name == "cross-entropy":
            total = total - torch.log(torch.exp(own) / (torch.exp(own) + sum(weights)))
        elif name == "bpr":
            total = total - sum(torch.log(_sigmoid(own - other)) for other in others) / len(others)
        elif name == "top1":
            terms = [_sigmoid(other - own) + _sigmoid(other**2) for other in others]
            total = total + sum(terms) / len(others)
        elif name == "top1-max":
            terms = [_sigmoid(other - own) + _sigmoid(other**2) for other in others]
            total = total + sum(share * term for share, term in zip(shares, terms, strict=True))
        elif name == "bpr-max":
            won = sum(share * _sigmoid(own - other) for share, other in zip(shares, others, strict=True))
            size = sum(share * other**2 for share, other in zip(shares, others, strict=True))
            total = total - torch.log(won) + regularisation * size
        else:
            raise KeyError(name)
    return total


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + (-x).exp())


def _active(score: Any, activation: str, elu: float) -> Any:
    if activation == "tanh":
        return (score.exp() - (-score).exp()) / (score.exp() + (-score).exp())
    if activation == "elu":
        return score if score > 0 else elu * (score.exp() - 1)
    return score


class Read(NamedTuple):
    """What one lane reads in one step: the session, which of its clicks, and the lane's old number."""

    session: int
    place: int
    lane_before: int


def lanes(lengths: Sequence[int], order: Sequence[int], n_lanes: int) -> list[list[Read]]:
    """Session-parallel reading of sessions of these lengths, in this order: what every lane reads, by step.

    A lane is a queue of (session, place); at every step it takes the next click that has one after it. One
    that finds none takes the next session, and is closed when there is none left.
    """
    waiting = [session for session in order if lengths[session] > 1]
    queues: list[list[tuple[int, int]]] = [[] for _ in range(n_lanes)]
    steps = []
    while True:
        step = []
        for lane, queue in enumerate(queues):
            if not queue and waiting:
                session = waiting.pop(0)
                queue += [(session, place) for place in range(lengths[session] - 1)]
            if queue:
                step.append(Read(*queue.pop(0), lane))
        if not step:
            return steps
        queues = [queues[read.lane_before] for read in step]
        steps.append(step)


def alias_probabilities(share: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """How likely every item is drawn from an alias table: a place at random, kept or left for its other."""
    found = np.zeros(len(share))
    for place in range(len(share)):
        found[place] += float(share[place]) / len(share)
        found[other[place]] += (1 - float(share[place])) / len(share)
    return found


def adagrad(weights: Any, gradients: Sequence[Any], rate: float, momentum: float, epsilon: float) -> Any:
    """Textbook Adagrad with momentum on a whole array, a number at a time, one gradient a step."""
    flat = [float(weight) for weight in np.asarray(weights, np.float64).ravel()]
    squares, velocity = [0.0] * len(flat), [0.0] * len(flat)
    for gradient in gradients:
        for n, slope in enumerate(np.asarray(gradient, np.float64).ravel()):
            squares[n] += slope * slope
            velocity[n] = momentum * velocity[n] - rate * slope / math.sqrt(squares[n] + epsilon)
            flat[n] += velocity[n]
    return np.reshape(flat, np.shape(weights))
