"""The rules of a service and of its requests, bound to the items of a model once and kept."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nextclick.errors import ConfigError
from nextclick.filters import Filter, ItemTable, Rules
from nextclick.filters.rules import Rule
from nextclick.serving.engine import Engine

_KEPT = 64  # sets of rules that came with requests and stay bound
_ENTRIES = 1000  # values and ids in one rule of a request, at most


class Rulebook:
    """Binds rules: the service's own hold always, those of a request on top of them."""

    def __init__(self, rules: Rules | None = None, items: ItemTable | None = None) -> None:
        self._rules, self._items = rules, items
        self._engine: Engine | None = None
        self._own: Filter | None = None
        self._bound: OrderedDict[str, Filter] = OrderedDict()
        self._lock = threading.Lock()

    def bound_to(self, engine: Engine) -> Rulebook:
        """Return a rulebook for a model's items. Raises ConfigError or DataError where rules do not fit."""
        book = Rulebook(self._rules, self._items)
        book._engine = engine
        if self._rules is not None:
            book._own = self._rules.bind(self._items, engine.model.vocabulary)
        return book

    def filter(self, asked: Sequence[Mapping[str, Any]] | None) -> tuple[Filter | None, str]:
        """Return the rules that hold for a request and a text that tells them from others.

        Raises ConfigError for rules that make no sense, or that the table of items does not allow.
        """
        if not asked:
            return self._own, ""
        key = json.dumps(asked, sort_keys=True)
        with self._lock:
            if key in self._bound:
                self._bound.move_to_end(key)
                return self._bound[key], key
        for n, rule in enumerate(asked, start=1):
            _check(n, rule)
        assert self._engine is not None
        rules = Rules.of({"rule": [dict(rule) for rule in asked]}, where="filter")
        if rules.attributes and self._items is None:
            raise ConfigError("filter: the service has no table of items; start it with --items FILE")
        if self._rules is not None:
            rules = Rules((*self._rules.rules, *_named_apart(rules.rules, self._rules.rules)), "filter")
        bound = rules.bind(self._items, self._engine.model.vocabulary)
        with self._lock:
            self._bound[key] = bound
            if len(self._bound) > _KEPT:
                self._bound.popitem(last=False)
        return bound, key


def _named_apart(asked: Sequence[Rule], own: Sequence[Rule]) -> Iterator[Rule]:
    """Yield the rules of a request; one named like one of the service's own stands beside that."""
    names = {rule.name for rule in own}
    for rule in asked:
        name = rule.name
        while name in names:
            name += " of the request"
        names.add(name)
        yield replace(rule, name=name)


def _check(n: int, rule: Mapping[str, Any]) -> None:
    """Refuse what a request may not ask for: files of the service's machine, and very long lists."""
    for key in ("block_file", "allow_file"):
        if key in rule:
            raise ConfigError(
                f"filter: rule {n}: {key} names a file of the server; list the ids in {key[:5]}"
            )
    for key, value in rule.items():
        if isinstance(value, list) and len(value) > _ENTRIES:
            raise ConfigError(f"filter: rule {n}: {key} has {len(value):,} entries; at most {_ENTRIES:,}")
