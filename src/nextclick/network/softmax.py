"""Cross-entropy over all items, fused with its products: no more than a block of scores exists at once.

Training against every item costs three products of pairs x items x width: the scores, the gradient of
the sessions and the gradient of the items. Everything else has to stay out of their way. So the loss and
both gradients are worked out block by block in the forward pass, in buffers that are allocated once
(fresh ones of this size cost more in page faults than the exponentials in them), and the soft-max is left
unnormalised: dividing the small results by the sums saves two passes over the large block. A block is cut
into tiles of items that stay in the caches from their scores to the sessions' gradient, and lies items by
sessions, as the products of narrow tables with it are quicker that way round than the other.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor

TILE = 4096  # items; found by measurement, as are the most rows of a block
_ROWS, _SCORES = 512, 25_000_000  # sessions of a block: so many, or as many as have so many scores in all
_FEWEST = 128
_LARGEST = 60.0  # exponents stay below this, so that sums of millions of them stay finite


class _FullSoftmax(torch.autograd.Function):
    """mean_p(log sum_n exp(s_p . i_n) - s_p . i_target(p)), with gradients for sessions and items."""

    @staticmethod
    def forward(ctx: Any, sessions: Tensor, items: Tensor, targets: Tensor, low: torch.dtype) -> Tensor:
        n_pairs, width = sessions.shape  # P, D
        item_grad = torch.zeros_like(items)
        session_grad = torch.empty_like(sessions)
        chosen = items[targets]  # [P, D]
        loss = -(sessions * chosen).sum(1).double().sum()
        # Cauchy-Schwarz bounds the scores. Only where that is beyond what exp can take are they shifted by
        # the largest of their session, which costs two more passes over the block.
        shifted = bool(sessions.norm(dim=1).max() * items.norm(dim=1).max() > _LARGEST)
        exact = low == items.dtype
        buffers = _buffers(len(items), width, low, items)
        tiles = torch.split(items.to(low), TILE)  # [T, D] each
        # A row of ones makes the sums part of a product, which saves a pass.
        across = [torch.cat([tile.T, tile.new_ones(1, len(tile))]) for tile in tiles]  # [D + 1, T]
        for begin in range(0, n_pairs, buffers.rows):
            block = sessions[begin : begin + buffers.rows]
            n, lowered = len(block), block.to(low).T.contiguous()  # [D, R]
            scores = [
                of_tile[: len(tile) * n].view(-1, n)  # [T, R]
                for tile, of_tile in zip(tiles, buffers.scores, strict=True)
            ]
            grad = block.new_zeros(width + 1, n)
            if shifted:
                loss += _shifted(lowered, tiles, scores).double().sum()
            for tile, back, of_tile in zip(tiles, across, scores, strict=True):
                if not shifted:
                    torch.mm(tile, lowered, out=of_tile)
                of_tile.exp_()
                if exact:
                    grad.addmm_(back, of_tile)
                else:
                    grad += torch.mm(back, of_tile)
            total = grad[width]  # [R]
            loss += total.log().double().sum()
            session_grad[begin : begin + n] = (grad[:width] / total).T - chosen[begin : begin + n]
            weighted = (block / total[:, None]).to(low)
            for of_items, of_tile, out in zip(
                torch.split(item_grad, TILE), scores, buffers.items, strict=True
            ):
                if exact:
                    of_items.addmm_(of_tile, weighted)
                else:
                    of_items += torch.mm(of_tile, weighted, out=out)
        item_grad.index_add_(0, targets, sessions, alpha=-1.0)
        ctx.gradients = session_grad, item_grad
        return (loss / n_pairs).to(sessions.dtype)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (session_grad, item_grad), ctx.gradients = ctx.gradients, None  # changed in place, so of use once
        scale = outputs[0] / len(session_grad)
        return session_grad.mul_(scale), item_grad.mul_(scale), None, None


def _shifted(lowered: Tensor, tiles: tuple[Tensor, ...], scores: list[Tensor]) -> Tensor:
    """Fill the scores of a block, less the largest of each session over all tiles; return these, [R]."""
    for tile, of_tile in zip(tiles, scores, strict=True):
        torch.mm(tile, lowered, out=of_tile)
    largest = torch.stack([of_tile.amax(0) for of_tile in scores]).amax(0)
    for of_tile in scores:
        of_tile -= largest
    return largest


class _Buffers:
    """rows: sessions of a block."""

    def __init__(self, n_items: int, width: int, low: torch.dtype, items: Tensor) -> None:
        self.made_for = (n_items, width, low, items.dtype, items.device)
        self.rows = min(_ROWS, max(_FEWEST, _SCORES // max(n_items, 1)))
        sizes = [min(TILE, n_items - first) for first in range(0, n_items, TILE)]
        given: dict[str, Any] = {"dtype": low, "device": items.device}
        self.scores = [torch.empty(self.rows * size, **given) for size in sizes]
        # Full precision adds its products up in place, without a buffer.
        self.items = [torch.empty(0 if low == items.dtype else size, width, **given) for size in sizes]


_kept = threading.local()


def _buffers(n_items: int, width: int, low: torch.dtype, items: Tensor) -> _Buffers:
    """Return this thread's buffers, new ones only where sizes, type or device have changed."""
    kept: _Buffers | None = getattr(_kept, "buffers", None)
    if kept is None or kept.made_for != (n_items, width, low, items.dtype, items.device):
        kept = _kept.buffers = _Buffers(n_items, width, low, items)
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
