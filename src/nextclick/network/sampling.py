"""Session-parallel mini-batches and the negative samples that go with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nextclick.network import kernels
from nextclick.network.workers import Workers
from nextclick.sessions import Sessions

_STEPS = 256  # worked out together


@dataclass(frozen=True, eq=False)
class Step:
    """A click further in every lane.

    clicks, targets: int64 [L], the click read and the one after it;  wanted: bool [L], where that one is to
    be predicted;  fresh: bool [L, 1], True where the lane begins a session and its state starts from zero;
    source: int64 [L], the number of the lane in the step before (lanes close at the end of the epoch);
    samples: int64 [M], additional negative samples.
    """

    clicks: Tensor
    targets: Tensor
    wanted: Tensor
    fresh: Tensor
    source: Tensor
    samples: Tensor


class NegativeSampler:
    """Draws items with probability in proportion to clicks^alpha; 0 is uniform, 1 by popularity.

    Source: Hidasi & Karatzoglou, CIKM 2018 (additional samples).
    """

    def __init__(self, support: NDArray[np.int64], alpha: float) -> None:
        weights = np.where(support > 0, np.maximum(support, 1.0) ** alpha, 0.0)
        self.alpha, self.probability = alpha, weights / weights.sum()  # [N]
        self._log_clicks = torch.from_numpy(support).to(torch.float32).clamp_(min=1).log_()  # [N]
        self._table = kernels.alias_table(weights)

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.int64]:
        """Return item codes of the given shape, repeats possible."""
        samples = np.empty(shape, np.int64)
        kernels.draw(*self._table, rng.random(samples.size), samples.reshape(-1))
        return samples

    def log_drawn(self, candidates: Tensor, n: int) -> Tensor:
        """Return the log of what candidates [K] are drawn in proportion to, [K].

        n: the first candidates, lanes' next clicks, which come by their clicks; the others by clicks^alpha.
        """
        self._log_clicks = self._log_clicks.to(candidates.device)
        logs = self._log_clicks.index_select(0, candidates)
        logs[n:] *= self.alpha
        return logs


class Lanes:
    """Session-parallel mini-batches: ``n_lanes`` sessions side by side, the next one where one ends.

    Sessions without a click to predict are left out, the others are read to their end.
    Source: Hidasi et al., ICLR 2016, sec. 3.2 and figure 2.
    """

    def __init__(self, sessions: Sessions, n_lanes: int) -> None:
        self.items, self.offsets = np.asarray(sessions.items), np.asarray(sessions.offsets)
        self.wanted = sessions.is_target
        self.sessions = np.unique(sessions.session_of[self.wanted])
        self.n_lanes = min(n_lanes, max(1, len(self.sessions)))
        self.n_pairs = sessions.n_pairs

    def steps(
        self, order: NDArray[np.int64], sampler: NegativeSampler, n_samples: int, rng: np.random.Generator
    ) -> Iterator[Step]:
        """Yield the steps of an epoch: all sessions of ``order`` (numbers of ``self.sessions``) once."""
        order = self.sessions[order]
        session, place = np.full(self.n_lanes, -1), np.zeros(self.n_lanes, np.int64)
        at, source = np.zeros((2, _STEPS, self.n_lanes), np.int64)
        fresh = np.zeros((_STEPS, self.n_lanes), np.bool_)
        n_lanes, taken = self.n_lanes, 0
        while n_lanes:
            sizes, n_lanes, taken = kernels.walk_lanes(
                self.offsets, order, session, place, n_lanes, taken, at, fresh, source
            )
            samples = sampler.draw((_STEPS, n_samples), rng)
            for step, size in enumerate(sizes.tolist()):
                if size == 0:
                    break
                here = at[step, :size]
                columns = (
                    *(self.items[here + n].astype(np.int64) for n in (0, 1)),
                    *(self.wanted[here + 1], fresh[step, :size, None].copy(), source[step, :size].copy()),
                    samples[step],
                )
                yield Step(*(torch.from_numpy(column) for column in columns))


def in_a_step(n_lanes: int, n_samples: int, width: int) -> int:
    """Return how many numbers of four bytes a session-parallel step holds, about.

    Scores of the lanes' candidates three times (with an activation, and as gradients), the vectors of the
    candidates and their gradients, and the samples that are drawn for many steps together.
    """
    candidates = n_lanes + n_samples
    return 3 * n_lanes * candidates + 2 * candidates * width + 4 * _STEPS * n_samples


class LaneStates:
    """What the lanes of this process remember from step to step, no gradient with it.

    empty: a tensor [0, H] for each state of a lane, which says its width, type and device.
    """

    def __init__(self, empty: Sequence[Tensor], workers: Workers) -> None:
        self._empty, self._workers = list(empty), workers
        self._states: list[Tensor] = []
        self._lanes = 0

    def before(self, step: Step, of: slice) -> list[Tensor]:
        """Return the states before a step, one [L, H] for each; zero where a lane begins a session.

        of: the lanes of this process.
        """
        n, fresh = len(step.clicks), step.fresh[of]
        if bool(step.fresh.all()):
            states = [empty.new_zeros(len(fresh), empty.shape[1]) for empty in self._empty]
        else:
            states = self._states
            if n != self._lanes:  # some have closed: the others have moved, perhaps to another process
                wholes = [state.new_zeros(self._lanes, state.shape[1]) for state in states]
                for whole, state in zip(wholes, states, strict=True):
                    whole[self._workers.share(self._lanes)] = state
                self._workers.add_up(wholes)
                states = [whole[step.source.to(whole.device)][of] for whole in wholes]
            fresh = fresh.to(states[0].device)
            states = [state.masked_fill(fresh, 0.0) for state in states]
        self._lanes = n
        return states

    def keep(self, states: Sequence[Tensor]) -> None:
        """Remember the states after a step."""
        self._states = list(states)
