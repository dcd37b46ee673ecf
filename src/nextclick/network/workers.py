"""The processes that train together, as torchrun starts them; alone when it did not."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

from nextclick import machine
from nextclick.errors import WorkerLostError


@dataclass(frozen=True)
class Workers:
    """``size`` processes of which this is number ``rank``.

    All of them draw the same batches in the same order; each works out its share of every batch, and the
    gradients are added up. So one process and many do the same steps, up to the order of summation.
    """

    rank: int = 0
    size: int = 1

    def share(self, n: int) -> slice:
        """Return the part of n rows that is this process's; the parts differ by one row at most."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, in one exchange.

        Raises WorkerLostError where one of them has ended.
        """
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with self._together():
            distributed.all_reduce(flat)
        for tensor, summed in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            tensor.copy_(summed.reshape(tensor.shape))

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.size > 1:
            with self._together():
                distributed.barrier()

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Turn the failure of an exchange, of which every backend has its own, into one that says so."""
        try:
            yield
        except RuntimeError as error:
            why = (str(error).strip().splitlines() or ["no reason given"])[-1]
            raise WorkerLostError(self.rank, self.size, why) from error


_PATIENCE = timedelta(days=2)
"""The first process may have candidates to make while the others wait; a lost one shows at once."""


def joined() -> Workers:
    """Join the processes that torchrun started, if it did; for good, as they cannot meet a second time."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Workers()
    if not distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, timeout=_PATIENCE)
        atexit.register(_leave)
    return Workers(distributed.get_rank(), distributed.get_world_size())


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def memory_of(device: torch.device) -> int | None:
    """Return the bytes that can still be taken on a device; None where that cannot be found out."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else machine.available_memory()


def chosen_device(name: str) -> torch.device:
    """Return the device of a name; ``auto``: a GPU where there is one, else the processor.

    ``auto`` and ``cuda`` give every process that torchrun started on this machine a GPU of its own.
    """
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu" if name == "auto" else name)
