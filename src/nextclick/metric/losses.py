"""Metric losses, one small function each, of distances from sessions to items.

All take the same arguments and return the loss of every session, [R]:

positive: [R, P] distances d(s, i_p) to the items that followed;  weight: [R, P] what each of them counts, 0
where there is none;  negative: [R, M] or [R, P, M] distances d(s, i_n) to negative samples, the second where
they differ by positive (see ``swapped``);  there: [R, M] bool, False where a negative sample does not count.

The paper draws as many negatives as positives and pairs them. Here every positive meets every negative of
its session and the mean over the negatives is taken: the same in expectation, with less noise.

Source: Twardowski et al. 2021 (SML), secs. 3 and 4; the equations are numbered as there.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def contrastive(positive: Tensor, weight: Tensor, negative: Tensor, there: Tensor, margin: float) -> Tensor:
    """Positives are pulled to the session, negatives pushed out to the margin m.

    d_p and max(0, m - d_n), summed. Source: eq. 3, which prints max(0, d - m) for negatives: that would pull
    those beyond the margin in, so m - d is meant.
    """
    pushed = _mean(torch.relu(margin - _by_positive(negative)), there)  # [R, P or 1]
    return (weight * (positive + pushed)).sum(1)


def triplet(positive: Tensor, weight: Tensor, negative: Tensor, there: Tensor, margin: float) -> Tensor:
    """Every negative is to lie further away than every positive, by the margin m: max(0, d_p - d_n + m).

    Source: eqs. 7 and 8.
    """
    behind = positive[..., None] - _by_positive(negative) + margin  # [R, P, M]
    return (weight * _mean(torch.relu(behind), there)).sum(1)


def bpr(positive: Tensor, weight: Tensor, negative: Tensor, there: Tensor) -> Tensor:
    """-ln sigmoid(d_n - d_p). Source: eq. 5."""
    ahead = _by_positive(negative) - positive[..., None]  # [R, P, M]
    return (weight * _mean(-logsigmoid(ahead), there)).sum(1)


def top1(positive: Tensor, weight: Tensor, negative: Tensor, there: Tensor) -> Tensor:
    """sigmoid(d_p - d_n) + sigmoid((1 - d_n)^2). Source: eq. 6; 1 - d is the score of a distance."""
    far = _by_positive(negative)
    lost = torch.sigmoid(positive[..., None] - far) + torch.sigmoid((1 - far) ** 2)
    return (weight * _mean(lost, there)).sum(1)


def ncas(positive: Tensor, weight: Tensor, negative: Tensor, there: Tensor, epsilon: float) -> Tensor:
    """Kullback-Leibler divergence of the soft-max over minus distances from the smoothed truth.

    p(i) = exp(-d_i) / sum over Z of exp(-d), with Z the session's positives and negatives. The truth spreads
    1 - epsilon over the positives, by their weights, and epsilon evenly over Z.
    negative: [R, M] only.
    Source: eqs. 9 and 10. Equation 10 compares the prediction with a smoothing of itself, which is least
    where all distances are alike; the true distribution, smoothed, is meant.
    """
    chosen = weight > 0
    n = (chosen.sum(1) + there.sum(1)).to(positive.dtype)  # |Z|, [R]
    far = torch.cat([positive.masked_fill(~chosen, torch.inf), negative.masked_fill(~there, torch.inf)], 1)
    shares = (1 - epsilon) * weight / weight.sum(1, keepdim=True)  # [R, P]
    each = epsilon / n
    told = torch.logsumexp(-far, 1) + (shares * positive).sum(1)
    if epsilon > 0:
        told = told + each * ((positive * chosen).sum(1) + (negative * there).sum(1))
    # The negatives all have the same truth, so that its entropy needs no pass over them.
    of_positives = (shares + each[:, None]) * chosen
    known = torch.special.xlogy(of_positives, of_positives).sum(1)
    return told + known + torch.special.xlogy(each, each) * there.sum(1)


def swapped(negative: Tensor, apart: Tensor) -> Tensor:
    """The smaller of a negative's distances to session and positive, [R, P, M]: d' = min(d_kn, d_pn).

    negative: [R, M];  apart: [R, P, M] distances d(i_p, i_n).  Source: sec. 4.2.
    """
    return torch.minimum(negative[:, None], apart)


def position_weights(n: int) -> Tensor:
    """What the n items that followed count, the next one first: sqrt(1 / (1 + j)). Source: sec. 4.2."""
    return torch.arange(1, n + 1, dtype=torch.float32).rsqrt()


def _by_positive(negative: Tensor) -> Tensor:
    return negative if negative.ndim == 3 else negative[:, None]


def _mean(values: Tensor, there: Tensor) -> Tensor:
    """Mean over the negatives that count, [R, P], of values [R, P, M]; 0 where there is none."""
    counted = there[:, None].to(values.dtype)
    return (values * counted).sum(2) / counted.sum(2).clamp_(min=1.0)
