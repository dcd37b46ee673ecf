"""Click sessions as flat arrays, and the queries cut from them.

Everything past this module speaks item *codes*: 0 .. n-1, from the most to the least clicked item of
the training part. So ``code < n_items`` asks "does training know this item?", the N most supported
items are the codes below N, and "the smaller code first" breaks ties by popularity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import DataError

ItemId = int | str
UNKNOWN = -1


class Vocabulary:
    """The users' own item ids, one per item code; ids are all integers or all text.

    ids: the id of each code, in code order.  An id that stands twice raises DataError as soon as a code
    is asked for, not before: large vocabularies open without a look at every id.
    """

    def __init__(self, ids: NDArray[np.int64] | Sequence[str]) -> None:
        if isinstance(ids, np.ndarray):
            self._numbers: NDArray[np.int64] | None = ids.astype(np.int64, copy=False)
            self._texts: list[str] = []
        else:
            self._numbers, self._texts = None, list(ids)

    def __repr__(self) -> str:
        first = ", ".join(map(repr, self.ids_of(range(min(3, len(self))))))
        return f"<Vocabulary: {len(self):,} items, {first}{', ...' * (len(self) > 3)}>"

    def __len__(self) -> int:
        return len(self._texts) if self._numbers is None else len(self._numbers)

    def id_of(self, code: int) -> ItemId:
        """Return the user's id of an item code."""
        return self._texts[code] if self._numbers is None else int(self._numbers[code])

    def ids_of(self, codes: Iterable[int]) -> list[ItemId]:
        """Return the users' ids of item codes."""
        return [self.id_of(int(code)) for code in codes]

    @cached_property
    def _codes(self) -> dict[ItemId, int]:
        ids: list[Any] = self._texts if self._numbers is None else self._numbers.tolist()
        codes: dict[ItemId, int] = {item: code for code, item in enumerate(ids)}
        if len(codes) != len(ids):
            twice = Counter(ids).most_common(1)[0][0]
            raise DataError(f"item id {twice!r} stands twice in the vocabulary")
        return codes

    def code_of(self, item: ItemId) -> int:
        """Return the code of a user's id, or UNKNOWN (-1); "12" and 12 name the same item."""
        if self._numbers is None:
            return self._codes.get(str(item), UNKNOWN)
        try:
            number = int(item)
        except (ValueError, TypeError, OverflowError):
            return UNKNOWN
        # int() is generous: it reads 1.5, True, "1_2" and "012", which are the names of no item.
        return self._codes.get(number, UNKNOWN) if str(number) == str(item) else UNKNOWN

    def codes_of(self, items: Iterable[ItemId]) -> NDArray[np.int32]:
        """Return the codes of users' ids, UNKNOWN (-1) where an id is not in the vocabulary."""
        return np.fromiter((self.code_of(item) for item in items), np.int32)

    def first(self, n: int) -> Vocabulary:
        """Return the vocabulary of the codes below ``n``."""
        return Vocabulary(self._texts[:n] if self._numbers is None else self._numbers[:n])

    def extended(self, ids: Sequence[ItemId]) -> Vocabulary:
        """Return the vocabulary with more ids, of its own kind, behind its last."""
        if self._numbers is None:
            return Vocabulary([*self._texts, *map(str, ids)])
        return Vocabulary(np.r_[self._numbers, np.array(ids, np.int64)])

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the ids as plain arrays: ``ids`` int64, or ``ids_utf8`` uint8 with ``ids_ends`` int64."""
        if self._numbers is not None:
            return {"ids": self._numbers}
        encoded = [text.encode("utf-8") for text in self._texts]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        return {"ids_utf8": np.frombuffer(b"".join(encoded), np.uint8), "ids_ends": ends}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Vocabulary:
        """Rebuild a vocabulary from ``to_arrays``. Raises ValueError when the arrays do not fit."""
        numbers, raw, ends = (arrays.get(name) for name in ("ids", "ids_utf8", "ids_ends"))
        if numbers is not None and numbers.ndim == 1 and numbers.dtype == np.int64:
            return cls(numbers)
        if raw is None or ends is None or ends.dtype != np.int64 or ends.ndim != 1 or raw.dtype != np.uint8:
            raise ValueError("the item ids are missing or of a wrong type")
        if (np.diff(ends, prepend=0) < 0).any() or (ends[-1] if len(ends) else 0) != raw.size:
            raise ValueError("the item ids do not fit together")
        text, cuts = raw.tobytes(), ends.tolist()
        return cls([text[a:b].decode("utf-8") for a, b in zip([0, *cuts], cuts, strict=False)])


@dataclass(frozen=True, eq=False, repr=False)
class Queries:
    """Prefixes of sessions, each to be answered with the items likely to be clicked next.

    Prefix i is ``items[starts[i]:ends[i]]``, oldest click first; prefixes may overlap in ``items``, so
    all prefixes of all sessions cost no copy.  items: int32 codes; starts, ends: int64, [n].
    """

    items: NDArray[np.int32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, prefixes: Sequence[Sequence[int] | NDArray[np.int32]]) -> Queries:
        """Build queries from one list of item codes per prefix."""
        ends = np.cumsum([len(prefix) for prefix in prefixes], dtype=np.int64)
        items = [np.asarray(prefix, np.int32) for prefix in prefixes]
        starts = np.r_[0, ends].astype(np.int64)[:-1]  # of no prefixes: empty too
        return cls(np.concatenate([*items, np.empty(0, np.int32)]), starts, ends)

    def __repr__(self) -> str:
        return f"<Queries: {len(self):,} prefixes>"

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, which: slice | NDArray[Any]) -> Queries:
        return Queries(self.items, self.starts[which], self.ends[which])

    def prefix(self, i: int) -> NDArray[np.int32]:
        """Return the item codes of prefix ``i``, oldest first."""
        return self.items[self.starts[i] : self.ends[i]]

    def known(self, n_items: int) -> Queries:
        """Return the queries without the clicks on items that training does not know."""
        keep = (self.items >= 0) & (self.items < n_items)
        if keep.all():
            return self
        before = np.r_[0, np.cumsum(keep)]
        return Queries(self.items[keep], before[self.starts], before[self.ends])


@dataclass(frozen=True, eq=False, repr=False)
class Sessions:
    """Sessions in chronological order of their last click, as flat arrays (views where possible).

    items: int32 [n_clicks] item codes;  offsets: int64 [n_sessions + 1], session s is
    ``items[offsets[s]:offsets[s + 1]]``;  times: int64 [n_clicks], microseconds since 1970 UTC where
    ``clock``, else a counter that only orders the clicks;  events: uint8 [n_clicks] codes into
    ``event_names``, or None where the log has one kind of event;  n_items: how many items a model fitted
    on these sessions knows, the codes below it;  origin: the prepared data set they are of, its name,
    fingerprint and part, where there is one;  target_event: code of the only event whose clicks are to be
    predicted, None: every click;  target_clicks: how many clicks before it a target is predicted from at
    most, None: all.
    """

    items: NDArray[np.int32]
    offsets: NDArray[np.int64]
    times: NDArray[np.int64]
    vocabulary: Vocabulary
    n_items: int
    clock: bool = True
    events: NDArray[np.uint8] | None = None
    event_names: tuple[str, ...] = ()
    origin: Mapping[str, str] = field(default_factory=dict)
    target_event: int | None = None
    target_clicks: int | None = None

    @classmethod
    def from_lists(cls, sessions: Iterable[Sequence[ItemId]], times: Iterable[int] | None = None) -> Sessions:
        """Build sessions from one list of item ids per session, oldest first.

        times: the microsecond of each click, sessions one after the other; counted up if left out.
        Raises DataError when there is no click at all or ids mix integers and text.
        """
        given = list(sessions)
        if any(isinstance(session, str) for session in given):
            raise DataError("a session is a list of item ids, found one text: write ['a'] for one item 'a'")
        lists = [list(session) for session in given]
        counts = Counter(item for session in lists for item in session)
        if not counts:
            raise DataError("no clicks: at least one session with one item is needed")
        kinds = {type(item) for item in counts}
        if len(kinds) > 1 or not (
            issubclass(kind := kinds.pop(), str | int | np.integer) and kind is not bool
        ):
            found = sorted({type(item).__name__ for item in counts})
            raise DataError(f"item ids must be all integers or all text, found {found}")
        ranked: list[Any] = sorted(counts, key=lambda item: (-counts[item], item))
        try:
            vocabulary = Vocabulary(ranked if isinstance(ranked[0], str) else np.array(ranked, np.int64))
        except OverflowError:
            raise DataError(
                "item ids must be integers of at most 64 bits; give larger ones as text"
            ) from None
        items = vocabulary.codes_of(item for session in lists for item in session)
        offsets = np.r_[0, np.cumsum([len(session) for session in lists])].astype(np.int64)
        stamps = np.arange(len(items), dtype=np.int64) if times is None else np.array([*times], np.int64)
        if len(stamps) != len(items):
            raise DataError(f"found {len(stamps)} times for {len(items)} clicks: give one per click")
        return cls(items, offsets, stamps, vocabulary, len(vocabulary), clock=times is not None)

    def __repr__(self) -> str:
        return f"<Sessions: {len(self):,} sessions, {len(self.items):,} clicks, {self.n_items:,} known items>"

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, which: slice) -> Sessions:
        """Return consecutive sessions, without copying their clicks; they know the same items."""
        low, high, step = which.indices(len(self))
        if step != 1:
            raise ValueError("sessions can be sliced in order only")
        high = max(low, high)
        a, b = int(self.offsets[low]), int(self.offsets[high])
        return replace(
            self,
            items=self.items[a:b],
            times=self.times[a:b],
            offsets=self.offsets[low : high + 1] - a,
            events=None if self.events is None else self.events[a:b],
        )

    def where(self, which: NDArray[np.bool_]) -> Sessions:
        """Return the chosen sessions, in their order, over the same items;  which: bool [n_sessions]."""
        stay = which[self.session_of]
        return replace(
            self,
            items=self.items[stay],
            times=self.times[stay],
            offsets=np.r_[0, np.cumsum(self.lengths[which])].astype(np.int64),
            events=None if self.events is None else self.events[stay],
        )

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Clicks per session, [n_sessions]."""
        return np.diff(self.offsets)

    @property
    def target_name(self) -> str | None:
        """Name of the event whose clicks are to be predicted, None where it is every click."""
        return None if self.target_event is None else self.event_names[self.target_event]

    @property
    def is_target(self) -> NDArray[np.bool_]:
        """Which clicks are to be predicted, [n_clicks]: no first one, those of ``target_event`` only."""
        return targets_of(self.offsets, self.events, self.target_event)

    @property
    def n_pairs(self) -> int:
        """Number of (prefix, click to predict) pairs: of a session, one less than its clicks, or fewer."""
        if self.target_event is not None:
            return int(np.count_nonzero(self.is_target))
        return int(np.maximum(self.lengths - 1, 0).sum())

    @property
    def session_of(self) -> NDArray[np.int64]:
        """The session of each click, [n_clicks]."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def support(self) -> NDArray[np.int64]:
        """Clicks per known item, [n_items]."""
        return np.bincount(self.items[self.items < self.n_items], minlength=self.n_items)

    def pairs(self) -> tuple[Queries, NDArray[np.int64]]:
        """Return the clicks before each click to predict, and where in ``items`` that click stands.

        The click itself is ``items[position]``; the rest of the session ends at ``offsets[session + 1]``.
        The prefix is the last ``target_clicks`` clicks before it.
        Positions: int64 [n_pairs], sessions in order, early clicks first.
        """
        targets = np.flatnonzero(self.is_target)
        return Queries(self.items, self.prefix_starts()[targets], targets), targets

    def prefix_starts(self, longest: int | None = None) -> NDArray[np.int64]:
        """Return where the prefix of each click starts, [n_clicks]; longest: in clicks, if given."""
        starts = self.offsets[self.session_of]
        limits = [limit for limit in (longest, self.target_clicks) if limit is not None]
        return np.maximum(starts, np.arange(len(starts)) - min(limits)) if limits else starts


def targets_of(
    offsets: NDArray[np.int64], events: NDArray[np.uint8] | None, event: int | None
) -> NDArray[np.bool_]:
    """Return which clicks of sessions are to be predicted, [n_clicks]: all but first ones, of one event.

    offsets, events: as in ``Sessions``;  event: a code, or None for every kind.
    Raises DataError when an event is asked for and the clicks have none.
    """
    wanted = np.ones(int(offsets[-1]), np.bool_)
    if event is not None:
        if events is None:
            raise DataError("clicks of one event are to be predicted, but the clicks have no events")
        wanted = np.asarray(events == event)
    wanted[offsets[:-1][np.diff(offsets) > 0]] = False
    return wanted
