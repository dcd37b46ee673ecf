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
_ROWS, _FEWEST, _SCORES = 512, 128, 25_000_000  # sessions of a block: as many as have so many scores in all
_LARGEST = 60.0  # no exponent is above this, so that sums of millions of them stay finite
_SMALLEST = -40.0  # nor is the target's below this, so that no sum vanishes, and few numbers are subnormal


class _FullSoftmax(torch.autograd.Function):
    """mean_p(log sum_n exp(s_p . i_n) - s_p . i_target(p)), with gradients for sessions and items."""

    @staticmethod
    def forward(ctx: Any, sessions: Tensor, items: Tensor, targets: Tensor, low: torch.dtype) -> Tensor:
        n_pairs, width = sessions.shape  # P, D
        item_grad = torch.zeros_like(items)
        session_grad = torch.empty_like(sessions)
        chosen = items[targets]  # [P, D]
        own = (sessions * chosen).sum(1)  # [P]
        loss = -own.double().sum()
        # By Cauchy-Schwarz no score of a session is above its bound. What that is beyond the largest exponent
        # is taken off its scores within their product. Only where its target would be lost below that, its
        # largest score is looked for first, which costs another product.
        bound = sessions.norm(dim=1) * items.norm(dim=1).max()
        shift = (bound - _LARGEST).clamp_(min=0.0).to(low)  # [P]
        lost = own - shift < _SMALLEST
        exact = low == items.dtype
        buffers = _buffers(len(items), width, low, items)
        # A column of ones makes the shift and the sums parts of products, which saves passes.
        tiles = torch.split(torch.cat([items, items.new_ones(len(items), 1)], 1).to(low), TILE)  # [T, D + 1]
        across = [tile.T.contiguous() for tile in tiles]
        for begin in range(0, n_pairs, buffers.rows):
            block = sessions[begin : begin + buffers.rows]
            n, taken = len(block), shift[begin : begin + buffers.rows]
            scores = [
                of_tile[: len(tile) * n].view(-1, n)  # [T, R]
                for tile, of_tile in zip(tiles, buffers.scores, strict=True)
            ]
            lowered = torch.cat([block.T.to(low), -taken[None]])  # [D + 1, R]
            if bool(lost[begin : begin + n].any()):
                lowered[width] = 0.0
                taken = _largest(lowered, tiles, scores)
                lowered[width] = -taken
            loss += taken.double().sum()
            grad = block.new_zeros(width + 1, n)
            for tile, back, of_tile in zip(tiles, across, scores, strict=True):
                torch.mm(tile, lowered, out=of_tile).exp_()
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


def _largest(lowered: Tensor, tiles: tuple[Tensor, ...], scores: list[Tensor]) -> Tensor:
    """Return the largest score of each session of a block, [R]; scores: room for them."""
    found = [
        torch.mm(tile, lowered, out=of_tile).amax(0) for tile, of_tile in zip(tiles, scores, strict=True)
    ]
    return torch.stack(found).amax(0)


class _Buffers:
    """rows: sessions of a block."""

    def __init__(self, n_items: int, width: int, low: torch.dtype, items: Tensor) -> None:
        self.made_for = (n_items, width, low, items.dtype, items.device)
        self.rows = _rows(n_items)
        sizes = [min(TILE, n_items - first) for first in range(0, n_items, TILE)]
        given: dict[str, Any] = {"dtype": low, "device": items.device}
        self.scores = [torch.empty(self.rows * size, **given) for size in sizes]
        # Full precision adds its products up in place, without a buffer.
        self.items = [torch.empty(0 if low == items.dtype else size, width, **given) for size in sizes]


def _rows(n_items: int) -> int:
    """Return how many sessions a block has at most."""
    return min(_ROWS, max(_FEWEST, _SCORES // max(n_items, 1)))


def in_a_step(n_items: int, width: int) -> int:
    """Return how many numbers of four bytes the soft-max holds, about: a block's scores, the items twice."""
    return n_items * (_rows(n_items) + 2 * (width + 1))


_kept = threading.local()


def _buffers(n_items: int, width: int, low: torch.dtype, items: Tensor) -> _Buffers:
    """Return this thread's buffers, new ones only where sizes, type or device have changed."""
    kept: _Buffers | None = getattr(_kept, "buffers", None)
    if kept is None or kept.made_for != (n_items, width, low, items.dtype, items.device):
        kept = _kept.buffers = _Buffers(n_items, width, low, items)
    return kept


def product_type(precision: str, device: torch.device | str) -> torch.dtype:
    """Return the type of large products on a device.

    precision: "float32", "bfloat16", or "auto": bfloat16 where the device multiplies in it.
    """
    if precision != "auto":
        found: torch.dtype = getattr(torch, precision)
        return found
    if torch.device(device).type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # Older versions of torch do not tell.
        told: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        able = any(told.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return torch.bfloat16 if able else torch.float32


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
