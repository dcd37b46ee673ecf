"""Features of items that a network was fitted with: taken, kept in its state, and those of new items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import ArtifactError, DataError
from nextclick.features import Features, Representation
from nextclick.features.store import one_after_the_other, representation_of
from nextclick.sessions import UNKNOWN, Vocabulary

Given = Mapping[str, Representation]
"""Features by name, each with a row for every item that the model knows."""

_SAVED = "features."


def told(features: Features, given: Given) -> dict[str, Any]:
    """Say what features a model was fitted with, for its facts."""
    without = {name: int((~of_items.present).sum()) for name, of_items in given.items()}
    read = {name: features.describe(name) for name in given}
    return {"fingerprint": features.fingerprint, "items_without": without, "read": read}


def arrays_of(given: Given) -> dict[str, NDArray[Any]]:
    """Return features as named arrays, to be saved with a model; ``restored`` is the way back."""
    return {
        f"{_SAVED}{name}.{part}": array
        for name, of_items in given.items()
        for part, array in of_items.arrays().items()
    }


def restored(
    state: Mapping[str, NDArray[Any]], names: Sequence[str], n_items: int, model: str
) -> dict[str, Representation]:
    """Return the features in a saved state, in the order of names, which safetensors does not keep.

    Raises ArtifactError, which names the model, where they do not fit, and KeyError where one is missing.
    """
    parts: dict[str, dict[str, NDArray[Any]]] = {}
    for key, array in state.items():
        if key.startswith(_SAVED):
            name, _, part = key.removeprefix(_SAVED).rpartition(".")
            parts.setdefault(name, {})[part] = array
    try:
        given = {name: representation_of(parts[name]) for name in names}
        for name, of_items in given.items():
            of_items.check(name)
            if len(of_items) != n_items:
                raise DataError(f"{name}: {len(of_items)} vectors for {n_items} items")
    except (DataError, TypeError, IndexError) as error:
        raise ArtifactError(
            f"{model}: the saved features do not fit ({error}); fit the model again"
        ) from error
    return given


class NewItems:
    """The items of ``features`` that a model with ``given`` ones does not know, and that have some feature.

    vocabulary: the model's, and the new items behind it;  n: how many are new;  own: their features;  wider:
    those of all items.
    Raises DataError for other representations or widths than the model's, or ids of another kind.
    """

    def __init__(self, features: Features, given: Given, vocabulary: Vocabulary, model: str) -> None:
        missing = [name for name in given if name not in features.representations]
        if missing:
            there = ", ".join(features.representations)
            raise DataError(
                f"{model} reads {', '.join(given)}; the features lack {missing[0]}: they have {there}"
            )
        ids = features.items.ids_of(range(len(features)))
        rows = np.flatnonzero(vocabulary.codes_of(ids) == UNKNOWN)
        own = {name: features.representations[name].take(rows) for name in given}
        some = np.flatnonzero(np.any([of_items.present for of_items in own.values()], axis=0))
        try:
            self.vocabulary = vocabulary.extended([ids[row] for row in rows[some].tolist()])
        except ValueError:
            raise DataError(f"{model}: its item ids are integers, those of the new items are text") from None
        self.n = len(some)
        self.own = {name: of_items.take(some) for name, of_items in own.items()}
        self.wider = {name: one_after_the_other(given[name], self.own[name]) for name in given}

    def rows_of(
        self, known: Mapping[str, NDArray[Any]], given: Given, support: NDArray[np.int64], boldness: float,
        lift: float,
    ) -> dict[str, NDArray[Any]]:  # fmt: skip
        """Return tables with a row for each known item, [n_items, ..], with rows of the new items behind.

        What the new items would have learnt comes from an encoder fitted on the known ones
        (``item_encoder``).  support: clicks of the known items;  boldness: the encoder's;  lift: standard
        deviations of the table "bias" that new items are raised by in it, where there is one.
        """
        from nextclick.network.item_encoder import ItemEncoder

        flat = {name: table.reshape(len(table), -1) for name, table in known.items()}
        encoder = ItemEncoder(given, np.concatenate(list(flat.values()), axis=1), support)
        found, at = encoder(self.own, boldness), 0
        tables = {}
        for name, table in flat.items():
            of_new = found[:, at : at + table.shape[1]].reshape(self.n, *known[name].shape[1:])
            if name == "bias":
                of_new += np.float32(lift * table.std())
            tables[name], at = np.concatenate([known[name], of_new]), at + table.shape[1]
        return tables
