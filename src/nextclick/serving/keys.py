"""API keys: random, kept as hashes with their roles, with an end."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from nextclick.errors import ConfigError
from nextclick.files import alone, new_file
from nextclick.serving.logs import say

Role = Literal["recommend", "events", "admin"]
"""What a key may do: ask for lists, send events, see figures and change versions. Admin may do all."""

ROLES: tuple[str, ...] = get_args(Role)
_FORMAT = "nextclick-keys"


@dataclass(frozen=True)
class Key:
    """One key: its name, the SHA-256 of its secret, its roles, and the second since 1970 that it ends."""

    name: str
    digest: str
    roles: tuple[str, ...]
    ends: float | None

    def allows(self, role: str) -> bool:
        """Whether the key may do this."""
        return role in self.roles or "admin" in self.roles

    @property
    def end(self) -> str | None:
        """When it ends, as text in UTC; None for never."""
        if self.ends is None:
            return None
        return datetime.datetime.fromtimestamp(self.ends, datetime.UTC).isoformat(timespec="seconds")


class Keys:
    """The keys of a file. A secret has 256 random bits, so that one plain hash cannot be guessed back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int] = (0, 0)
        self._keys: dict[str, Key] = {}
        self._looked = 0.0
        self._problem: str | None = None
        self.reload()

    def reload(self) -> None:
        """Read the file again if it has changed. Raises ConfigError when it cannot be used."""
        try:
            about = self.path.stat()
        except FileNotFoundError:
            raise ConfigError(
                f"{self.path}: no such file; make a key with: nextclick keys add {self.path} NAME"
            ) from None
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be read ({error.strerror}); may this user?") from error
        if self._seen != (about.st_mtime_ns, about.st_ino):
            self._keys = {key.digest: key for key in read_keys(self.path)}
            self._seen = about.st_mtime_ns, about.st_ino

    def find(self, secret: str) -> Key | None:
        """Return the key of a secret, also one whose time is over; None for an unknown one."""
        now = time.monotonic()
        if now > self._looked + 1.0:  # new and removed keys count after a second
            self._looked = now
            self._look()
        digest = _digest(secret)
        key = self._keys.get(digest)
        return key if key is not None and hmac.compare_digest(key.digest, digest) else None

    def _look(self) -> None:
        """Take up changes of the file; one that cannot be read is logged, and the last keys hold."""
        try:
            self.reload()
            self._problem = None
        except ConfigError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                said = "the file of keys cannot be read, the keys read last hold"
                say(said, logging.ERROR, problem=self._problem)


def read_keys(path: Path) -> list[Key]:
    """Read a file of keys. Raises ConfigError when it cannot be used."""
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError("not a file of keys")
        keys = [Key(k["name"], k["sha256"], tuple(k["roles"]), k["ends"]) for k in content["keys"]]
        for key in keys:
            ends_well = key.ends is None or isinstance(key.ends, int | float)
            if not isinstance(key.name, str) or not isinstance(key.digest, str) or not ends_well:
                raise ValueError("a key of a wrong type")
    except PermissionError:
        raise ConfigError(
            f"{path}: this user may not read it; let it: the file holds hashes of keys, no key"
        ) from None
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise ConfigError(
            f"{path}: cannot be read as keys ({error}); make it with: nextclick keys add"
        ) from error
    return keys


def add_key(path: Path, name: str, roles: Sequence[str], days: float | None = None) -> str:
    """Add a key to a file, new or old, and return its secret, which is kept nowhere.

    days: after which it ends, None for never.  Raises ConfigError for a name that is taken or a role
    that there is not.
    """
    unknown = [role for role in roles if role not in ROLES]
    if unknown or not roles:
        raise ConfigError(f"roles {', '.join(unknown) or 'are missing'}: choose from {', '.join(ROLES)}")
    with alone(path.with_name(f".{path.name}.d")):
        keys = read_keys(path) if path.exists() else []
        if any(key.name == name for key in keys):
            raise ConfigError(f"{path}: there is a key {name!r} already; remove it, or choose another name")
        secret = f"nck_{secrets.token_urlsafe(32)}"
        ends = None if days is None else time.time() + days * 86_400
        _write(path, [*keys, Key(name, _digest(secret), tuple(roles), ends)])
    return secret


def remove_key(path: Path, name: str) -> None:
    """Remove a key from a file. Raises ConfigError when there is none of that name."""
    with alone(path.with_name(f".{path.name}.d")):
        keys = read_keys(path)
        rest = [key for key in keys if key.name != name]
        if len(rest) == len(keys):
            there_are = ", ".join(key.name for key in keys) or "none"
            raise ConfigError(f"{path}: no key {name!r}; there are: {there_are}")
        _write(path, rest)


def _write(path: Path, keys: Sequence[Key]) -> None:
    listed: list[dict[str, Any]] = [
        {"name": key.name, "sha256": key.digest, "roles": list(key.roles), "ends": key.ends} for key in keys
    ]
    with new_file(path) as aside:
        aside.write_text(json.dumps({"format": _FORMAT, "keys": listed}, indent=2) + "\n", "utf-8")
    path.chmod(0o600)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
