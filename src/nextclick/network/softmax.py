"""Cross-entropy over all items, fused with its products: no more than a block of scores exists at once.

Training against every item costs three products of pairs x items x width: the scores, the gradient of
the sessions and the gradient of the items. Everything else has to stay out of their way. So the loss and
both gradients are worked out block by block in the forward pass, in buffers that are allocated once
(fresh ones of this size cost more in page faults than the exponentials in them), and the soft-max is left
unnormalised: dividing the small results by the row sums saves two passes over the large block.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor

ROWS = 128  # of a block: found by measurement, larger ones fall out of the caches
_LARGEST = 60.0  # exponents stay below this, so that sums of millions of them stay finite


class _FullSoftmax(torch.autograd.Function):
    """mean_p(log sum_n exp(s_p . i_n) - s_p . i_target(p)), with gradients for sessions and items."""

    @staticmethod
    def forward(ctx: Any, sessions: Tensor, items: Tensor, targets: Tensor, low: torch.dtype) -> Tensor:
        n_pairs, width = sessions.shape  # P, D
        n_items = len(items)  # N
        item_grad = torch.zeros_like(items)
        session_grad = torch.empty_like(sessions)
        chosen = items[targets]  # [P, D]
        loss = -(sessions * chosen).sum(1).double().sum()
        # Cauchy-Schwarz bounds the scores. Only where that is beyond what exp can take are they shifted by
        # the largest of their row, which costs two more passes over the block.
        shifted = bool(sessions.norm(dim=1).max() * items.norm(dim=1).max() > _LARGEST)
        exact = low == items.dtype
        # In full precision a column of ones makes the row sums part of a product, which saves a pass.
        low_items = torch.cat([items, items.new_ones(n_items, 1)], 1) if exact else items.to(low)
        transposed = low_items[:, :width].T.contiguous()
        buffers = _buffers(n_items, low_items.shape[1], low, items.device)
        for begin in range(0, n_pairs, ROWS):
            rows = slice(begin, min(begin + ROWS, n_pairs))
            block = sessions[rows]
            scores = buffers.scores[: len(block)]
            torch.mm(block.to(low), transposed, out=scores)  # [R, N]
            if shifted:
                largest = scores.amax(1, keepdim=True)
                scores -= largest
                loss += largest.double().sum()
            scores.exp_()
            grad = buffers.sessions[: len(block)]
            torch.mm(scores, low_items, out=grad)
            total = grad[:, width:] if exact else scores.sum(1, keepdim=True, dtype=torch.float32)  # [R, 1]
            loss += total.log().double().sum()
            session_grad[rows] = grad[:, :width].to(sessions.dtype) / total - chosen[rows]
            if exact:
                item_grad.addmm_(scores.T, block / total)
            else:
                item_grad += scores.T @ (block / total).to(low)
        item_grad.index_add_(0, targets, sessions, alpha=-1.0)
        ctx.gradients = session_grad, item_grad
        return (loss / n_pairs).to(sessions.dtype)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (session_grad, item_grad), ctx.gradients = ctx.gradients, None  # changed in place, so of use once
        scale = outputs[0] / len(session_grad)
        return session_grad.mul_(scale), item_grad.mul_(scale), None, None


class _Buffers:
    def __init__(self, n_items: int, width: int, dtype: torch.dtype, device: torch.device) -> None:
        self.made_for = (n_items, width, dtype, device)
        self.scores = torch.empty(ROWS, n_items, dtype=dtype, device=device)
        self.sessions = torch.empty(ROWS, width, dtype=dtype, device=device)


_kept = threading.local()


def _buffers(n_items: int, width: int, dtype: torch.dtype, device: torch.device) -> _Buffers:
    """Return this thread's buffers, new ones only where sizes, type or device have changed."""
    kept: _Buffers | None = getattr(_kept, "buffers", None)
    if kept is None or kept.made_for != (n_items, width, dtype, device):
        kept = _kept.buffers = _Buffers(n_items, width, dtype, device)
    return kept


def full_softmax(
    sessions: Tensor, items: Tensor, targets: Tensor, *, low: torch.dtype = torch.float32
) -> Tensor:
    """Mean cross-entropy of each session against all items, a scalar.

    sessions: [P, D] float;  items: [N, D] float, the scores are sessions @ items.T;  targets: [P] int64 in
    [0, N);  low: the type of the large products, bfloat16 (sums, loss and the results stay in the type of the
    items), or float32 for that type too.  Gradients reach sessions and items; second derivatives do not
    exist.
    """
    low = items.dtype if low == torch.float32 else low
    loss: Tensor = _FullSoftmax.apply(sessions, items, targets, low)  # type: ignore[no-untyped-call]
    return loss
