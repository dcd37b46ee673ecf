"""What goes in and out of the service; everything that is not said here is refused."""

from __future__ import annotations

import re
from typing import Annotated, Any

from msgspec import Meta, Struct

from nextclick.errors import nearest

ItemId = Annotated[str, Meta(min_length=1, max_length=256)] | Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Items = Annotated[list[ItemId], Meta(max_length=1000)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Attributes = Annotated[
    dict[Annotated[str, Meta(max_length=40)], Annotated[str, Meta(max_length=100)]], Meta(max_length=10)
]
MOMENTS = (946_684_800_000, 4_102_444_800_000)  # the years 2000 to 2100, in ms


class Recommend(Struct, forbid_unknown_fields=True, frozen=True):
    """A question: what may be clicked next, after these items or in this session?

    items: oldest first; they count where no session is named, or its events are not known.  anchor: the item
    on whose page the list stands, taken as the last click.  exclude: items that are not to be listed.
    filter: rules on items, as a file of rules has them, on top of the service's own.  attributes: of the
    visitor or the place, for the report of an experiment.
    """

    items: Items | None = None
    session: Name | None = None
    k: Annotated[int, Meta(ge=1, le=200)] = 20
    exclude_seen: bool = False
    exclude: Items = []
    anchor: ItemId | None = None
    filter: Annotated[list[dict[str, Any]], Meta(max_length=20)] | None = None
    model: Name | None = None
    attributes: Attributes = {}


class RecommendMany(Struct, forbid_unknown_fields=True, frozen=True):
    """Several questions, each answered as if it were alone."""

    requests: Annotated[list[Recommend], Meta(min_length=1, max_length=100)]


class Event(Struct, forbid_unknown_fields=True, frozen=True):
    """Something that a visitor did.

    id: of the event, the same when it is sent again.  time: ms since 1970 UTC, now if left out.  request: of
    the list that was clicked on, for the report of an experiment.  recommend: answer with a fresh list.
    """

    session: Name
    item: ItemId
    event: Annotated[str, Meta(min_length=1, max_length=40)] = "view"
    time: Annotated[int, Meta(ge=MOMENTS[0], le=MOMENTS[1])] | None = None
    id: Name | None = None
    request: Name | None = None
    recommend: Recommend | None = None
    attributes: Attributes = {}


class Events(Struct, forbid_unknown_fields=True, frozen=True):
    """Events of one or more sessions, in any order."""

    events: Annotated[list[Event], Meta(min_length=1, max_length=1000)]


class Explain(Struct, forbid_unknown_fields=True, frozen=True):
    """A question why: the first k items after these, or after a session."""

    items: Annotated[list[ItemId], Meta(max_length=50)] | None = None
    session: Name | None = None
    k: Annotated[int, Meta(ge=1, le=20)] = 5
    model: Name | None = None


class Forget(Struct, forbid_unknown_fields=True, frozen=True):
    """A session that is to be removed, because its visitor asks for it, for example."""

    session: Name


class Forgotten(Struct, frozen=True):
    """Whether the session was there."""

    forgotten: bool


class Listed(Struct, frozen=True):
    """One recommended item; a higher score is better."""

    item: str | int
    score: float


class Answer(Struct, frozen=True, omit_defaults=False):
    """A list, best first, the version that made it, and what was unusual.

    marks: empty-session, unknown-items (no item is known), deadline, busy, model-error (the most clicked
    items instead of the model's), store-down (made from the items in the request alone), unrecorded (by the
    experiment).  unknown: items that were skipped.  reason: why rules leave fewer items than asked for.
    """

    items: list[Listed]
    model: str
    version: str
    request: str
    marks: list[str]
    unknown: list[str | int]
    variant: str | None = None
    reason: str | None = None


class Answers(Struct, frozen=True):
    """The lists of a batch, in its order."""

    answers: list[Answer]


class Kept(Struct, frozen=True):
    """What came of an event: kept, or there already; corrected: its time lay in the future, and is now."""

    request: str
    duplicate: bool
    corrected: bool
    clicks: int
    answer: Answer | None = None


class KeptMany(Struct, frozen=True):
    """What came of a batch of events."""

    request: str
    kept: int
    duplicates: int
    corrected: int


class Problem(Struct, frozen=True):
    """Why a request was refused, and what to do."""

    error: str
    request: str


_ITEM = "text of 1 to 256 characters, or a whole number"
_TEXT = "text of 1 to 200 characters"
_HINTS = {
    "items": f"item ids, oldest first, each {_ITEM}",
    "exclude": f"item ids, each {_ITEM}",
    "item": f"an item id, {_ITEM}",
    "anchor": f"an item id, {_ITEM}",
    "session": f"the id of a session, {_TEXT}",
    "id": f"the id of the event, {_TEXT}, the same when it is sent again",
    "request": f"the request id of the list that was clicked on, {_TEXT}",
    "model": f"the name of a model, {_TEXT}",
    "time": "milliseconds since 1970 UTC, or left out for now",
    "filter": 'a list of rules, as [{"attribute": "in_stock", "equals": true}]',
    "attributes": 'at most 10 texts by name, as {"market": "de"}',
    "recommend": 'what list to answer with, as {"k": 10}',
    "events": "a list of 1 to 1,000 events",
    "requests": "a list of 1 to 100 questions",
}
_INSIDE: dict[type[Struct], type[Struct]] = {RecommendMany: Recommend, Events: Event}


def remedy(said: str, kind: type[Struct]) -> str:
    """Return what a decoder says is wrong with a message of a kind, and what to send instead."""
    unknown = re.search(r"unknown field `(.*?)`", said, re.DOTALL)
    if len(said) > 400:  # names of fields are the client's
        said = f"{said[:400]} ..."
    if unknown:
        known = {*kind.__struct_fields__, *_INSIDE.get(kind, kind).__struct_fields__} - {unknown[1]}
        meant = nearest(unknown[1][:100], sorted(known))
        return f"{said}{meant}; leave it out, or see /docs for what there is"
    missing = re.search(r"missing required field `(.*?)`", said)
    names = [missing[1]] if missing else re.findall(r"\.(\w+)", said.rpartition("- at `$")[2])
    hinted = [name for name in names if name in _HINTS]
    return f"{said}; {hinted[-1]} is {_HINTS[hinted[-1]]}" if hinted else f"{said}; see /docs"
