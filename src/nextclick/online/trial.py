"""The file of an online experiment, and who sees which of its variants."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nextclick.errors import ConfigError, nearest
from nextclick.files import read_toml
from nextclick.filters import Rules

_KEYS = ("name", "salt", "variant")
_VARIANT_KEYS = ("name", "model", "share", "rules")


@dataclass(frozen=True)
class Variant:
    """One arm: the model that answers, its share of the sessions, and rules of its own on items."""

    name: str
    model: str
    share: float
    rules: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Trial:
    """An online experiment. The first variant is the control, which the others are compared with."""

    name: str
    salt: str
    variants: tuple[Variant, ...]

    @classmethod
    def read(cls, path: str | Path) -> Trial:
        """Read the TOML file of an experiment. Raises ConfigError that names what is wrong."""
        path = Path(path)
        return cls.of(read_toml(path), where=str(path), folder=path.parent)

    @classmethod
    def of(cls, content: Mapping[str, Any], *, where: str = "the experiment", folder: Path = Path()) -> Trial:
        """Check an experiment given as Python values; paths of rules begin at ``folder``."""
        try:
            _only(content, _KEYS, "an experiment")
            name, salt = content.get("name"), content.get("salt")
            if not isinstance(name, str) or not name:
                raise ConfigError('name is missing; write name = "similar-items"')
            if salt is None:
                salt = name
            if not isinstance(salt, str) or not salt:
                raise ConfigError("salt must be text; another salt assigns all sessions anew")
            given = content.get("variant")
            if not isinstance(given, Sequence) or isinstance(given, str) or len(given) < 2:
                raise ConfigError("at least two variants are needed, each as [[variant]]")
            variants = tuple(_variant(n, entry, folder) for n, entry in enumerate(given, start=1))
            names = [variant.name for variant in variants]
            if len(set(names)) < len(names):
                raise ConfigError(f"two variants have one name: {', '.join(names)}")
            total = sum(variant.share for variant in variants)
            if abs(total - 1) > 1e-9:
                raise ConfigError(f"the shares add up to {total:g}; they must add up to 1")
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
        return cls(name, salt, variants)

    def variant_of(self, session: str) -> Variant:
        """Return the variant of a session: always the same, and for each session as if drawn by lot."""
        return self.variants[place(self.salt, session, tuple(v.share for v in self.variants))]


def place(salt: str, session: str, shares: Sequence[float]) -> int:
    """Return which of the shares, which add up to 1, a session falls in.

    The first 8 bytes of the keyed BLAKE2b hash of the session's id, as a number in [0, 1), against the
    running sum of the shares. Sessions of another salt fall independently of these.
    """
    key = hashlib.blake2b(salt.encode("utf-8"), digest_size=32).digest()
    digest = hashlib.blake2b(session.encode("utf-8", "surrogatepass"), digest_size=8, key=key).digest()
    drawn = int.from_bytes(digest, "big") / 2**64
    for n, reached in enumerate(itertools.accumulate(shares)):
        if drawn < reached:
            return n
    return len(shares) - 1


def _variant(n: int, entry: Any, folder: Path) -> Variant:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"variant {n} is no table; write [[variant]]")
    _only(entry, _VARIANT_KEYS, f"variant {n}")
    name, model, share = (entry.get(key) for key in ("name", "model", "share"))
    if not isinstance(name, str) or not name or not isinstance(model, str) or not model:
        raise ConfigError(f'variant {n}: name and model are needed, as name = "b" and model = "vs-knn"')
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise ConfigError(f"variant {name}: share={share!r}: expected a number between 0 and 1")
    rules: tuple[Mapping[str, Any], ...] = ()
    if "rules" in entry:
        file = entry["rules"]
        if not isinstance(file, str):
            raise ConfigError(f"variant {name}: rules must name a file of rules")
        Rules.read(folder / file)  # says what is wrong with it, before a visitor comes
        rules = tuple(read_toml(folder / file)["rule"])
    return Variant(name, model, float(share), rules)


def _only(given: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in given:
        if key not in known:
            raise ConfigError(f"{where} has no {key!r}{nearest(key, known)}\n  it takes: {', '.join(known)}")
