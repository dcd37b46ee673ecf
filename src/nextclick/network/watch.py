"""What is told of a training while it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nextclick.errors import MissingExtraError

if TYPE_CHECKING:
    from nextclick.network.recommender import TrainedRecommender
    from nextclick.network.training import Epoch


class Watch:
    """Tells how a training goes: to whoever asked for progress, and to TensorBoard."""

    def __init__(self, model: TrainedRecommender, stage: str) -> None:
        self._tell, self._metric = model._tell, model.watched
        self._stage, self._before = stage, ""
        self._writer: Any = None
        if model._run.tensorboard is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise MissingExtraError("writing TensorBoard files", "tensorboard") from None
            self._writer = SummaryWriter(str(model._run.tensorboard / stage))

    def tell(self, what: str, done: int, total: int) -> None:
        stage = "" if self._stage == "training" else f"{self._stage}, "
        self._tell(stage + what + self._before, done, total)

    def __call__(self, epoch: Epoch, rate: float) -> None:
        if epoch.figure is not None:
            self._before = f"; {self._metric} {epoch.figure:.4f} after epoch {epoch.epoch}"
        if self._writer is not None:
            self._writer.add_scalar("loss", epoch.loss, epoch.epoch)
            self._writer.add_scalar("clicks per second", rate, epoch.epoch)
            if epoch.figure is not None:
                self._writer.add_scalar(self._metric, epoch.figure, epoch.epoch)
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
