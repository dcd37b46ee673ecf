"""Rules bound to the items of a recommender: which of them may be listed after which click."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import ConfigError
from nextclick.filters.items import ItemTable
from nextclick.filters.rules import Rules
from nextclick.sessions import UNKNOWN, Queries, Vocabulary

Mask = NDArray[np.bool_]

_BLOCK = 1 << 22  # items allowed or not, looked at at once: 4 MiB
ABSENT = -1  # key of an item without a value
_ROUNDING = 1e-9  # 20 * 1.15 is a little less than 23: bounds of ``within`` are widened by this share


class Condition(Protocol):
    """What depends on the anchor."""

    def narrow(self, anchors: NDArray[np.int32], allowed: Mask) -> None:
        """Forbid in allowed [n, n_items] what does not fit the anchors [n], UNKNOWN where there is none."""


@dataclass(frozen=True, eq=False)
class Same:
    """Items with the key of the anchor; keys: int32 [n_items], ABSENT where there is no value."""

    keys: NDArray[np.int32]
    keep: Mask | None

    def narrow(self, anchors: NDArray[np.int32], allowed: Mask) -> None:
        wanted = np.where(anchors == UNKNOWN, ABSENT, self.keys[anchors])
        fits = self.keys == wanted[:, None]
        if self.keep is not None:
            fits |= self.keep
        fits[wanted == ABSENT] = True
        allowed &= fits


@dataclass(frozen=True, eq=False)
class Within:
    """Items whose value lies between multiples of the anchor's; values: float64 [n_items], NaN for none."""

    values: NDArray[np.float64]
    low: float
    high: float
    keep: Mask | None

    def narrow(self, anchors: NDArray[np.int32], allowed: Mask) -> None:
        own = np.where(anchors == UNKNOWN, np.nan, self.values[anchors])
        bounds = np.sort(np.stack([own * self.low, own * self.high]), axis=0)  # own may be negative
        room = np.abs(bounds) * _ROUNDING
        low, high = bounds[0] - room[0], bounds[1] + room[1]
        fits = self.values >= low[:, None]
        fits &= self.values <= high[:, None]
        if self.keep is not None:
            fits |= self.keep
        fits[np.isnan(own)] = True
        allowed &= fits


@dataclass(frozen=True, eq=False)
class Bound:
    """One rule over the items: what holds for every anchor, [n_items], and what depends on it."""

    name: str
    always: Mask
    by_anchor: tuple[Condition, ...]

    def allowed(self, anchors: NDArray[np.int32]) -> Mask:
        mask = np.repeat(self.always[None], len(anchors), axis=0)
        for condition in self.by_anchor:
            condition.narrow(anchors, mask)
        return mask


@dataclass(frozen=True, eq=False)
class Effect:
    """What a filter does to queries.

    left: int64 [n], items that meet all rules;  forbidden: [n], the target is known and does not meet them.
    """

    left: NDArray[np.int64]
    forbidden: Mask


class Filter:
    """Rules bound to the items of one recommender; made by ``Rules.bind``, and safe to share among threads.

    notes: what was noticed when the rules were bound, in words.
    """

    def __init__(
        self,
        rules: Rules,
        items: ItemTable | None,
        vocabulary: Vocabulary,
        bound: Sequence[Bound],
        notes: Sequence[str],
    ) -> None:
        self.rules = rules
        self.items = items
        self.notes = tuple(notes)
        self._vocabulary = vocabulary
        self._bound = tuple(bound)
        self._always = np.logical_and.reduce([rule.always for rule in bound])
        self._all = Bound("", self._always, tuple(c for rule in bound for c in rule.by_anchor))

    def __repr__(self) -> str:
        return f"<Filter: {self.n_items:,} items; {self.rules}>"

    @property
    def n_items(self) -> int:
        """How many items the recommender has that the rules were bound to."""
        return len(self._always)

    def allowed(self, queries: Queries) -> Mask:
        """Return which items meet all rules, [n, n_items]; the anchor is the last click of a prefix.

        queries: of known items only.  An array of its own, which may be changed.
        """
        return self._all.allowed(_anchors(queries))

    def check(self, vocabulary: Vocabulary) -> None:
        """Raise ConfigError unless the rules were bound to the items of this vocabulary."""
        if vocabulary is self._vocabulary:
            return
        if not _same_items(vocabulary, self._vocabulary):
            raise ConfigError(
                f"{self.rules.where}: bound to {self.n_items:,} items of another model; bind the rules to "
                "this one: rules.bind(items, model.vocabulary)"
            )
        self._vocabulary = vocabulary  # the next look is quick

    def bound_to(self, vocabulary: Vocabulary) -> Filter:
        """Return the same rules for the items of a vocabulary, itself where they are bound to it already."""
        if vocabulary is self._vocabulary or _same_items(vocabulary, self._vocabulary):
            return self
        return self.rules.bind(self.items, vocabulary)

    def effect(self, queries: Queries, targets: NDArray[np.int32]) -> Effect:
        """Say what the rules do to queries of known items and one target each, UNKNOWN or known, [n]."""
        anchors, which = np.unique(_anchors(queries), return_inverse=True)
        order = np.argsort(which, kind="stable")
        starts = np.searchsorted(which[order], np.arange(len(anchors) + 1))
        left, forbidden = np.empty(len(queries), np.int64), np.zeros(len(queries), np.bool_)
        size = max(1, _BLOCK // self.n_items)
        for low in range(0, len(anchors), size):
            high = min(low + size, len(anchors))
            allowed = self._all.allowed(anchors[low:high])
            rows = order[starts[low] : starts[high]]
            at = which[rows] - low
            left[rows] = np.count_nonzero(allowed, axis=1)[at]
            known = (targets[rows] >= 0) & (targets[rows] < self.n_items)
            forbidden[rows[known]] = ~allowed[at[known], targets[rows[known]]]
        return Effect(left, forbidden)

    def reason(
        self, prefix: NDArray[np.int32], k: int, *, exclude_seen: bool = False,
        exclude: Collection[int] = (),
    ) -> str | None:  # fmt: skip
        """Say why the rules leave fewer than k items after a prefix; None if they leave enough.

        prefix: known item codes, oldest first;  exclude_seen: they are not to be recommended;  exclude:
        codes of others that are not.
        """
        query = Queries.of([prefix])
        unseen = np.ones(self.n_items, np.bool_)
        if exclude_seen:
            unseen[prefix] = False
        unseen[list(exclude)] = False
        allowed = self.allowed(query)[0]
        left = int(np.count_nonzero(allowed & unseen))
        if left >= min(k, int(np.count_nonzero(unseen))):
            return None
        anchors = _anchors(query)
        counts = [int(np.count_nonzero(rule.allowed(anchors))) for rule in self._bound]
        clicked = self._vocabulary.id_of(int(prefix[-1])) if len(prefix) else None

        def after(conditions: Sequence[Condition]) -> str:
            return f" for anchor {clicked}" if conditions and clicked is not None else ""

        if 0 in counts:
            rule = self._bound[counts.index(0)]
            return f"no item satisfies rule {rule.name!r}{after(rule.by_anchor)}"
        outside = ""
        if (allowed & ~unseen).any():
            where = ["the session"] * exclude_seen + ["those excluded"] * bool(exclude)
            outside = f" outside {' and '.join(where)}"
        some = f"only {count(left)}" if left else "no item"
        found = f"{some}{outside} {'satisfy' if left > 1 else 'satisfies'}"
        if len(counts) == 1:
            return f"{found} rule {self._bound[0].name!r}{after(self._all.by_anchor)}"
        each = (f"{rule.name!r} leaves {n:,}" for rule, n in zip(self._bound, counts, strict=True))
        return f"{found} all rules{after(self._all.by_anchor)}: {', '.join(each)}"


def _anchors(queries: Queries) -> NDArray[np.int32]:
    """Return the last click of each prefix, UNKNOWN where it is empty."""
    anchors = np.full(len(queries), UNKNOWN, np.int32)
    some = queries.ends > queries.starts
    anchors[some] = queries.items[queries.ends[some] - 1]
    return anchors


def _same_items(a: Vocabulary, b: Vocabulary) -> bool:
    return len(a) == len(b) and a.ids_of(range(len(a))) == b.ids_of(range(len(b)))


def count(n: int) -> str:
    """Return "1 item", "2 items"."""
    return f"{n:,} item{'s' * (n != 1)}"
