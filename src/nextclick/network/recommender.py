"""What the neural recommenders share: settings of training, fit, scores, and saving."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from nextclick import __version__, settings
from nextclick.errors import ArtifactError, ConfigError, DataError, MissingExtraError, TooLargeError
from nextclick.features import Features, Representation
from nextclick.network.given import NewItems, arrays_of, restored, told
from nextclick.network.indexed import IndexedRecommender
from nextclick.recommender import Recommender
from nextclick.sessions import Queries, Sessions
from nextclick.settings import about

if TYPE_CHECKING:
    from torch import Tensor, nn

    from nextclick.network.scoring import Network
    from nextclick.network.training import Epoch, Objective, Options
    from nextclick.network.workers import Workers

_BY_ITEM = ("items.weight", "own.weight", "output", "bias")


@dataclass(kw_only=True, eq=False)
class TrainedRecommender(Recommender):
    """Base of the recommenders whose network is trained: how, on which device, how it is saved and resumed.

    Raises MissingExtraError where PyTorch is not installed.
    """

    copies: ClassVar[int] = 6
    """Of the weights, in memory during training: weights, gradients, Adam's two, the best, a checkpoint."""

    epochs: int = field(default=30, metadata=about("passes over the training sessions at most", low=1))
    batch_size: int = field(
        default=512,
        metadata=about("next clicks predicted in one step, about", low=1, search=[128, 256, 512, 1024]),
    )
    learning_rate: float = field(
        default=0.001, metadata=about("of Adam", low=0, search=("log", 0.0003, 0.01))
    )
    decay: float = field(
        default=1.0,
        metadata=about("factor on the learning rate after each epoch", low=0, high=1, search=(0.5, 1.0)),
    )
    seed: int = field(default=1, metadata=about("of the start, the order and the dropouts", low=0))

    watched: ClassVar[str] = ""
    """The figure that a training is to raise, as progress and TensorBoard name it."""

    # -- what a trained recommender implements

    @abstractmethod
    def _network(self, n_items: int) -> nn.Module:
        """Return the network with its starting weights, drawn from PyTorch's current seed."""

    @abstractmethod
    def _learn(self, sessions: Sessions, workers: Workers) -> None:
        """Train ``self.network`` on sessions."""

    # -- shared

    def _whole_network(self, n_items: int) -> nn.Module:
        """Return ``_network`` with whatever a base class adds to it."""
        return self._network(n_items)

    def _fit(self, sessions: Sessions) -> None:
        torch = _torch()
        from nextclick.network.workers import Workers, chosen_device, joined

        try:
            self._device = chosen_device(self._run.device)
            torch.empty(0, device=self._device)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(f"device {self._run.device!r} cannot be used: {error}") from error
        self._check_memory(sessions)
        self.facts["epochs"] = []
        self._learn(sessions, Workers() if self._run.alone else joined())
        self.network.to("cpu").train(False)

    def _started(self) -> Any:
        """Return the network with its starting weights, which depend on the seed alone."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self._whole_network(self.n_items).to(self._device)

    def _run_stage(
        self, stage: str, objective: Objective, options: Options, validate: Callable[[], float] | None,
        about: Mapping[str, Any],
    ) -> Epoch:  # fmt: skip
        """Train the network, leave it with its best weights and return the best epoch."""
        from nextclick.network.training import best_of, train
        from nextclick.network.watch import Watch

        checkpoints = None
        if self._run.checkpoints is not None:
            from nextclick.network.checkpoints import Checkpoints

            known = {"model": self.name, "settings": settings.values_of(self), "version": __version__}
            checkpoints = Checkpoints(self._run.checkpoints / f"{stage}.safetensors", {**known, **about})
        with closing(Watch(self, stage)) as watch:
            history = train(objective, options, validate, watch.tell, checkpoints, watch)
        self.facts["epochs"] += [{"stage": stage, **asdict(epoch)} for epoch in history]
        return best_of(history)

    def _state(self) -> dict[str, NDArray[Any]]:
        return {name: tensor.numpy() for name, tensor in self.network.state_dict().items()}

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        torch = _torch()
        with torch.random.fork_rng(devices=[]):
            network = self._whole_network(self.n_items)
        for name, tensor in network.state_dict().items():
            if state[name].shape != tuple(tensor.shape) or state[name].dtype != np.float32:
                raise ArtifactError(f"{self.name}: the saved {name} does not fit; fit the model again")
        network.load_state_dict({name: torch.from_numpy(state[name]) for name in network.state_dict()})
        self.network: Any = network.train(False)

    def _check_memory(self, sessions: Sessions) -> None:
        """Refuse a training that cannot fit in the memory of its device, with the arithmetic."""
        import torch

        from nextclick.network.workers import memory_of

        with torch.device("meta"):
            whole = self._whole_network(sessions.n_items)
        n_weights = sum(weights.numel() for weights in whole.parameters())
        there = memory_of(self._device)
        step = self._in_a_step(min(self.batch_size, max(1, sessions.n_pairs)), sessions.n_items)
        if there is not None and 4 * (n_weights * self.copies + step) > there:
            smaller = "make dim, hidden, batch_size or the number of negative samples smaller"
            raise TooLargeError(self.name, n_weights, sessions.n_items, self.copies, there, smaller, step)

    def _in_a_step(self, batch: int, n_items: int) -> int:
        """Return how many numbers of four bytes a step holds besides the weights, about; batch: its pairs."""
        return 0


@dataclass(kw_only=True, eq=False)
class NeuralRecommender(TrainedRecommender, IndexedRecommender):
    """Base of the networks that score every item from the prefix.

    A part of the training sessions, the last ones by time or any (``validation_by``), is kept to choose the
    epoch on. An empty prefix is answered with the most clicked items.
    Fitted with features, the vectors by which items are read are their own and what their features add
    (``item_vectors``), on the output side too where that is the same table; items that are new but have
    features can then be known without refitting.
    """

    reads_features: ClassVar[bool] = True
    boldness: ClassVar[float] = 0.7
    """Of the encoder that speaks for new items: how large it makes what it is not sure of (0 to 1)."""
    lift: ClassVar[float] = 0.0
    """By how many standard deviations of all items' biases those of new items are raised."""

    validation: float = field(
        default=0.1,
        metadata=about("share of the sessions, to choose the epoch on; 0: none", low=0, high=0.9),
    )
    validation_by: Literal["time", "random"] = field(
        default="time", metadata=about("which sessions these are: the latest, or any")
    )
    metric: Literal["recall", "mrr"] = field(
        default="recall", metadata=about("what is to be best on the validation sessions, at 20")
    )
    patience: int = field(default=3, metadata=about("epochs without improvement before stopping", low=1))
    refit: bool = field(
        default=False,
        metadata=about("train again on all sessions, validation included, for the chosen number of epochs"),
    )
    last_clicks: int = field(
        default=19, metadata=about("clicks of the prefix that are read, the last ones", low=1)
    )

    _given: dict[str, Representation] = field(init=False, repr=False, default_factory=dict)
    """The features of its items, by name, that it was fitted with."""

    @property
    def watched(self) -> str:  # type: ignore[override]
        return f"{self.metric}@20"

    # -- what a recommender implements, or changes

    @abstractmethod
    def _network(self, n_items: int) -> Network:
        """Return the network with its starting weights, drawn from PyTorch's current seed."""

    @abstractmethod
    def _objective(self, network: Network, sessions: Sessions, workers: Workers) -> Objective:
        """Return what the network is trained for on these sessions."""

    def _train(self, sessions: Sessions, fitted: Sessions, kept: Sessions, workers: Workers) -> None:
        """Train on all but the kept sessions, which choose the epoch; then on all sessions, if asked to."""
        self.network = self._started()
        best = self._stage("training", fitted, kept, workers)
        if self.refit and kept.n_pairs:
            self.network = self._started()
            self._stage("refit", sessions, sessions[:0], workers, epochs=best.epoch)

    def _options(self, epochs: int, rate: float) -> Options:
        """Return how long to train and at which rates."""
        from nextclick.network.training import Options

        return Options(epochs, rate, self.decay, self.patience, self.seed)

    # -- shared

    def _fit(self, sessions: Sessions) -> None:
        features, self._features, self._given = self._features, None, {}
        if features is not None:
            self._given = features.of(self.vocabulary)
            self.facts["features"] = told(features, self._given)
            self.facts["representations"] = ["id", *self._given]
        super()._fit(sessions)

    def _whole_network(self, n_items: int) -> nn.Module:
        network: Any = self._network(n_items)
        if self._given:
            from nextclick.network.sources import ItemFeatures

            network.items.features = ItemFeatures(self._given, network.items.embedding_dim)
        whole: nn.Module = network
        return whole

    def _learn(self, sessions: Sessions, workers: Workers) -> None:
        self._forget_index()
        fitted, kept = self._parts(sessions)
        if fitted.n_pairs == 0:
            raise DataError(f"{self.name}: no training session has two clicks, so there is nothing to learn")
        self._train(sessions, fitted, kept, workers)

    def _parts(self, sessions: Sessions) -> tuple[Sessions, Sessions]:
        """Return the sessions to train on, and those kept to choose the epoch on."""
        n = len(sessions)
        first = n - int(n * self.validation)
        if self.validation_by == "time":
            return sessions[:first], sessions[first:]
        keep = np.random.default_rng(self.seed).permutation(n) >= first
        return sessions.where(~keep), sessions.where(keep)

    def _stage(
        self, stage: str, sessions: Sessions, kept: Sessions, workers: Workers, *,
        epochs: int | None = None, rate: float | None = None,
    ) -> Epoch:  # fmt: skip
        """Train the network on sessions, leave it with its best weights and return the best epoch."""
        options = self._options(epochs or self.epochs, self.learning_rate if rate is None else rate)
        objective = self._objective(self.network, sessions, workers)
        validate = (lambda: self.measure(kept)[f"{self.metric}@20"]) if kept.n_pairs else None
        what = {key: self.facts.get(key) for key in ("sessions", "clicks", "items", "data", "features")}
        sums = [crc32(array.data) for part in (sessions, kept) for array in (part.items, part.offsets)]
        return self._run_stage(stage, objective, options, validate, {**what, "checksums": sums})

    def _scores(self, queries: Queries) -> NDArray[np.float32]:
        torch = _torch()
        empty = queries.ends == queries.starts
        rows = np.flatnonzero(~empty)
        if len(rows) == 0:
            return np.repeat(self.support[None].astype(np.float32), len(queries), 0)
        with torch.inference_mode():
            answers = self.network.scores(self._session_vectors(queries[rows])).cpu().numpy()
        if len(rows) == len(queries):
            found: NDArray[np.float32] = answers
            return found
        scores = np.empty((len(queries), self.n_items), np.float32)
        scores[empty], scores[rows] = self.support, answers
        return scores

    def _session_vectors(self, queries: Queries) -> Tensor:
        """Return the vectors of prefixes that are not empty, [n, D]; without gradients, on the device."""

        from nextclick.network.batches import prefixes

        device = self.network.items.weight.device
        clicks, mask, last = prefixes(queries, self.last_clicks)
        vectors: Tensor = self.network.at(clicks.to(device), mask.to(device), last.to(device))
        return vectors

    def answering(self) -> nn.Module:
        """Return the network as one module for export: clicks [B, T] and lengths [B] to scores [B, n_items].

        clicks: int64 codes, oldest first, padded on the right, the last ``last_clicks`` of a prefix at most.
        """
        from nextclick.network.exported import Answers

        return Answers(self._reader(), self.item_space(), self._biased).train(False)

    def _reader(self) -> nn.Module:
        """Return what makes the vectors of prefixes in ``answering``."""
        from nextclick.network.exported import LastPlaces

        return LastPlaces(self.network)

    # -- saving, and new items

    def _state(self) -> dict[str, NDArray[Any]]:
        return {**super()._state(), **arrays_of(self._given)}

    def _restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        names = [name for name in self.facts.get("representations", []) if name != "id"]
        self._given = restored(state, names, self.n_items, self.name)
        super()._restore(state)
        self._forget_index()

    @property
    def features(self) -> Features | None:
        from nextclick.features import Features

        return Features(self.vocabulary, self._given) if self._given else None

    @property
    def takes_new_items(self) -> bool:
        return bool(self._given)

    def with_items(self, features: Features) -> Self:
        """Return a network that also knows the items that are new in ``features``, without refitting.

        Their features are read as those of any other item; what the ids would have learnt of them comes from
        an encoder fitted on the trained items (``item_encoder``). Nothing changes of the known items.
        Raises ConfigError for a network without features, and DataError for other representations or widths.
        """
        n = self.n_items
        if not self._given:
            raise ConfigError(
                f"{self.name}: fitted without features, so it cannot know new items; fit it with --features"
            )
        new = NewItems(features, self._given, self.vocabulary, self.name)
        wider = copy.copy(self)
        wider.vocabulary = new.vocabulary
        wider.support = np.r_[self.support, np.zeros(new.n, np.int64)]
        wider.facts = {**self.facts, "new_items": new.n, "items": n + new.n}
        state = super()._state()
        if new.n:
            known = {name: state[name] for name in self._by_item()}
            state |= new.rows_of(known, self._given, self.support, self.boldness, self.lift)
        state |= self._of_new(state, new)
        wider._restore({**state, **arrays_of(new.wider)})
        return wider

    def _by_item(self) -> list[str]:
        """Return the names of the weights that have a row for each item, learnt from clicks alone."""
        return [name for name in _BY_ITEM if name in self.network.state_dict()]

    def _of_new(self, state: Mapping[str, NDArray[Any]], new: NewItems) -> Mapping[str, NDArray[Any]]:
        """Return weights by item that began as their features, with those of new items behind."""
        return {}


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise MissingExtraError("a neural recommender", "neural") from None
    return torch
