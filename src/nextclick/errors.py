"""Every error that a user can cause, each saying what is wrong, what was found and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NextclickError(Exception):
    """Base of all errors that a user can cause; the command line prints its text and exits with 1."""


class DataError(NextclickError):
    """A click log, a prepared data set or a query cannot be used as it is."""


class TooLargeError(DataError):
    """A training cannot fit in the memory there is; it says how much it needs, with the arithmetic."""

    def __init__(
        self, model: str, n_weights: int, n_items: int, copies: int, there: int, remedy: str, step: int = 0
    ) -> None:
        needed = 4 * (n_weights * copies + step)
        super().__init__(
            f"{model} with these settings has {n_weights:,} weights for {n_items:,} items; "
            f"{n_weights:,} x 4 bytes x {copies} copies in training"
            f"{f' + {step:,} x 4 bytes in a step' if step else ''} = {needed / 1e9:.1f} GB, and "
            f"{there / 1e9:.1f} GB are available. Prepare with a higher --min-support, {remedy}, or take a "
            "neighbour model (vs-knn)"
        )


class ConfigError(NextclickError):
    """A setting, option or name is unknown, has the wrong type or is out of range."""


class NotFittedError(NextclickError):
    """A recommender was asked for scores before it was fitted."""

    def __init__(self, model: str) -> None:
        super().__init__(f"{model} is not fitted yet: call fit(sessions) first, or load a saved model")


class ArtifactError(NextclickError):
    """A saved model or prepared data set is damaged, foreign, or written by a newer version."""


class MissingExtraError(NextclickError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra {extra!r}: pip install 'nextclick[{extra}]'")


class WorkerLostError(NextclickError):
    """One of the processes that train together has ended, so the others cannot go on."""

    def __init__(self, rank: int, size: int, why: str) -> None:
        super().__init__(
            f"process {rank} of {size} cannot reach the others any more ({why}): one has ended, was killed, "
            "or ran out of memory; its own message, if any, says why. Start all of them again with --resume, "
            "on as many processes or on another number: the training goes on from the last epoch"
        )


class TrainingDivergedError(NextclickError):
    """The loss of a network in training became infinite or not a number."""

    def __init__(self, epoch: int, step: int, pairs: int, rate: float) -> None:
        super().__init__(
            f"training diverged in epoch {epoch}, step {step:,}, after {pairs:,} predicted clicks, at "
            f"learning rate {rate:g}: the loss is no number any more. Try a smaller learning_rate"
        )


SETTINGS_AT_FAULT = (ConfigError, TooLargeError, TrainingDivergedError)
"""What a training with other settings may not run into."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known word nearest to ``word``, or ``""`` if none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
