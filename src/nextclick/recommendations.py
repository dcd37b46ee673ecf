"""A recommended list, in the users' own item ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, overload

from nextclick.sessions import ItemId


class Recommendation(NamedTuple):
    """One recommended item, in the user's own id, with its score (higher is better)."""

    item: ItemId
    score: float


@dataclass(frozen=True, repr=False)
class Recommendations(Sequence[Recommendation]):
    """A recommended list, best first, and what was noticed while making it.

    unknown: items of the session that training does not know; they were skipped.
    fallback: True where no item of the session was known, so the list is the recommender's answer to an
    empty session (for most: the most popular items).
    reason: why rules left fewer items than asked for, perhaps none; None where they did not.
    """

    items: tuple[Recommendation, ...]
    unknown: tuple[ItemId, ...] = ()
    fallback: bool = False
    reason: str | None = None

    def __repr__(self) -> str:
        """Say how many, then a line for each of the first ten; what was unusual at the end."""
        lines = [f"<Recommendations: {len(self)}"]
        lines += [f"  {item!r}  {score:.4g}" for item, score in self.items[:10]]
        lines += ["  ..."] * (len(self) > 10)
        lines += [f"  unknown: {', '.join(map(repr, self.unknown))}"] * bool(self.unknown)
        lines += ["  fallback: no item of the session is known"] * self.fallback
        lines += [f"  short: {self.reason}"] * bool(self.reason)
        return "\n".join(lines) + ">"

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, at: int) -> Recommendation: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Recommendation, ...]: ...
    def __getitem__(self, at: int | slice) -> Recommendation | tuple[Recommendation, ...]:
        return self.items[at]

    def __iter__(self) -> Iterator[Recommendation]:
        return iter(self.items)

    def to_json(self) -> dict[str, Any]:
        """Return the list, the unknown items, whether it is a fallback, and the reason if there is one."""
        items = [{"item": item, "score": score} for item, score in self.items]
        reason = {} if self.reason is None else {"reason": self.reason}
        return {"items": items, "unknown": list(self.unknown), "fallback": self.fallback, **reason}
