"""Losses of a target against the other candidates, each with its gradient written out.

Every loss takes scores [B, K], whose columns are candidates, and the column of each row's target [B]; all
other columns are its negative samples. It returns the sum over the rows (not the mean: the caller knows the
whole batch) and the gradient of that sum, in the formulas below r_i the target's score, r_j a negative's,
n their number, s_j = exp(r_j) / sum_k exp(r_k) over the negatives alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]


def cross_entropy(scores: Tensor, target: Tensor, regularisation: float) -> tuple[Tensor, Tensor]:
    """-log(exp(r_i) / (exp(r_i) + sum_j exp(r_j)))."""
    shares = scores.softmax(1)
    chosen = target[:, None]
    loss = -(shares.gather(1, chosen) + _TINY).log().sum()
    return loss, shares.scatter_add_(1, chosen, shares.new_full(chosen.shape, -1.0))


def bpr(scores: Tensor, target: Tensor, regularisation: float) -> tuple[Tensor, Tensor]:
    """-1/n sum_j log sigmoid(r_i - r_j)  (Hidasi et al., ICLR 2016)."""
    chosen, n = target[:, None], scores.shape[1] - 1
    ahead = scores - scores.gather(1, chosen)  # r_j - r_i, 0 for the target itself
    loss = (torch.nn.functional.softplus(ahead).sum() - len(scores) * _LOG_2) / n
    gradient = ahead.sigmoid_().div_(n).scatter_(1, chosen, 0.0)
    return loss, gradient.scatter_(1, chosen, -gradient.sum(1, keepdim=True))


def top1(scores: Tensor, target: Tensor, regularisation: float) -> tuple[Tensor, Tensor]:
    """1/n sum_j (sigmoid(r_j - r_i) + sigmoid(r_j^2))  (Hidasi et al., ICLR 2016)."""
    chosen, n = target[:, None], scores.shape[1] - 1
    own = scores.gather(1, chosen)
    ahead, size = (scores - own).sigmoid_(), (scores * scores).sigmoid_()
    loss = (ahead.sum() + size.sum() - len(scores) * 0.5 - (own * own).sigmoid().sum()) / n
    of_ahead = (ahead * (1 - ahead)).div_(n).scatter_(1, chosen, 0.0)
    gradient = of_ahead + size.mul_(1 - size).mul_(scores).mul_(2 / n)
    return loss, gradient.scatter_(1, chosen, -of_ahead.sum(1, keepdim=True))


def top1_max(scores: Tensor, target: Tensor, regularisation: float) -> tuple[Tensor, Tensor]:
    """sum_j s_j (sigmoid(r_j - r_i) + sigmoid(r_j^2))  (Hidasi & Karatzoglou, CIKM 2018)."""
    chosen = target[:, None]
    shares = scores.scatter(1, chosen, -torch.inf).softmax(1)
    ahead, size = (scores - scores.gather(1, chosen)).sigmoid_(), (scores * scores).sigmoid_()
    inner = ahead + size
    loss = (shares * inner).sum(1, keepdim=True)
    of_ahead = ahead.mul_(1 - ahead).mul_(shares)
    gradient = inner.sub_(loss).add_(size.mul_(1 - size).mul_(scores), alpha=2).mul_(shares).add_(of_ahead)
    return loss.sum(), gradient.scatter_(1, chosen, -of_ahead.sum(1, keepdim=True))


def bpr_max(scores: Tensor, target: Tensor, regularisation: float) -> tuple[Tensor, Tensor]:
    """-log sum_j s_j sigmoid(r_i - r_j) + regularisation sum_j s_j r_j^2  (CIKM 2018).

    With a_j = sigmoid(r_i - r_j), f = sum_j s_j a_j and q = sum_j s_j r_j^2 the gradient of r_j is
    s_j (1 - a_j^2 / f + regularisation (r_j^2 - q + 2 r_j)), that of r_i is sum_j s_j a_j^2 / f - 1.
    """
    chosen = target[:, None]
    shares = scores.scatter(1, chosen, -torch.inf).softmax(1)
    below = (scores.gather(1, chosen) - scores).sigmoid_()  # a_j
    weighed = shares * below
    f = weighed.sum(1, keepdim=True).add_(_TINY)
    squared = weighed.mul_(below)
    of_target = squared.sum(1, keepdim=True) / f - 1
    loss = -f.log().sum()
    gradient = shares - squared.div_(f)
    if regularisation > 0:
        size = below.copy_(scores).mul_(scores)
        q = (shares * size).sum(1, keepdim=True)
        loss = loss + regularisation * q.sum()
        gradient += shares.mul_(size.sub_(q).add_(scores, alpha=2)).mul_(regularisation)
    return loss, gradient.scatter_(1, chosen, of_target)


LOSSES: dict[str, Loss] = {
    "cross-entropy": cross_entropy,
    "bpr": bpr,
    "top1": top1,
    "bpr-max": bpr_max,
    "top1-max": top1_max,
}
_TINY = 1e-24
_LOG_2 = 0.6931471805599453


_BLOCK = 1 << 16  # scores worked on together: what a loss needs besides them stays in the caches


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, target: Tensor, scale: float, weight: float, loss: Loss,
        regularisation: float, activation: str, elu: float,
    ) -> Tensor:  # fmt: skip
        value, size = scores.new_zeros(()), len(scores)
        if scores.device.type == "cpu":
            size = -(-size // max(1, round(scores.numel() / _BLOCK)))
        ctx.gradient = torch.empty_like(scores)
        for low in range(0, len(scores), max(1, size)):
            rows = slice(low, low + size)
            active = _activated(scores[rows], activation, elu)
            of_rows, of_scores = loss(active, target[rows], regularisation)
            value += of_rows
            if activation == "tanh":
                of_scores.mul_(1 - active * active)
            elif activation == "elu":
                of_scores = torch.ops.aten.elu_backward(of_scores, elu, 1, 1, True, active)
            torch.mul(of_scores, scale * weight, out=ctx.gradient[rows])
        return value * scale

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Any, ...]:
        gradient, ctx.gradient = ctx.gradient, None  # changed in place, so of use once
        if not (gradient.device.type == "cpu" and outputs[0].item() == 1.0):  # a pass over all scores less
            gradient.mul_(outputs[0])
        return gradient, None, None, None, None, None, None, None


def _activated(scores: Tensor, activation: str, elu: float) -> Tensor:
    if activation == "tanh":
        return torch.tanh(scores)
    return torch.nn.functional.elu(scores, elu) if activation == "elu" else scores


def ranking_loss(
    name: str,
    scores: Tensor,
    target: Tensor,
    *,
    scale: float = 1.0,
    weight: float = 1.0,
    regularisation: float = 0.0,
    activation: str = "linear",
    elu: float = 1.0,
) -> Tensor:
    """Sum over the rows of a loss by its name in ``LOSSES``, times ``scale``; gradients reach the scores.

    scores: [B, K] float;  target: [B] int64, the column of each row's target;  weight: what the gradients,
    and not the value, are multiplied by besides;  regularisation: of bpr-max;
    activation: "linear", "tanh" or "elu" (x above 0, elu * (exp(x) - 1) below), put on the scores first.
    Without a negative sample, K = 1, the loss is 0.
    """
    if scores.shape[1] == 1:  # the last lane of an epoch without additional samples
        return (scores * 0.0).sum()
    loss: Tensor = _Loss.apply(  # type: ignore[no-untyped-call]
        scores, target, scale, weight, LOSSES[name], regularisation, activation, elu
    )
    return loss
