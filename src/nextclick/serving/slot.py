"""A model's place in the service: it watches for other versions and changes over to them, or says why not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nextclick.errors import ArtifactError, NextclickError
from nextclick.serving.engine import Engine
from nextclick.serving.logs import say
from nextclick.serving.measures import Measures
from nextclick.serving.opening import Runtime, engine_room, imported
from nextclick.serving.rulebook import Rulebook
from nextclick.serving.runner import Runner
from nextclick.serving.versions import located, mark

_GOODBYE = 5.0  # seconds until an engine that was replaced is let go; its answers are given by then


@dataclass(frozen=True, eq=False)
class Current:
    """What answers now: an engine, its questions, and the rules bound to its items. Replaced as a whole."""

    engine: Engine
    runner: Runner
    rules: Rulebook


@dataclass(frozen=True, eq=False)
class Shared:
    """An engine that was opened before the process was copied, and the mark of what it was opened from."""

    engine: Engine
    mark: tuple[int, ...]


def share(models: Sequence[tuple[str, str]], runtime: Runtime) -> dict[str, Shared]:
    """Open the models, by name and path, that copies of this process can go on using.

    Of the others, whose packages start threads that a copy would lack, only the packages are imported; what
    cannot be opened is left to the workers, which know what to do instead.
    Raises MissingExtraError for a package that is not installed.
    """
    found = {}
    for name, path in models:
        with contextlib.suppress(ArtifactError):
            before = mark(Path(path))
            room = engine_room(located(Path(path))[0], runtime)
            if room is None:
                found[name] = Shared(Engine.open(Path(path), name, runtime), before)
            else:
                imported(room)
    return found


class Slot:
    """One served model by name. ``current`` is of one version, whoever holds it.

    problem: why the newest version is not in service, None where it is.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        rules: Rulebook,
        measures: Measures,
        *,
        runtime: Runtime,
        cached: int,
        shared: Shared | None = None,
    ) -> None:
        self.name, self.path = name, path
        self._rules, self._measures = rules, measures
        self._runtime: Runtime = runtime
        self._cached = cached
        self._mark = mark(path)
        self._shared = shared if shared is not None and shared.mark == self._mark else None
        self.problem: str | None = None
        self.current = self._first()

    def _first(self) -> Current:
        """Open the version in service or, if it is damaged, the last one before it that is not."""
        try:
            return self._opened()
        except ArtifactError as error:
            problem = error
        for back in range(1, 100):
            try:
                located(self.path, back)
            except ArtifactError:
                break
            with contextlib.suppress(ArtifactError):
                current = self._opened(back)
                self.problem = str(problem)
                self._measures.swap(self.name, "refused")
                say(
                    "the version in service cannot be served, an earlier one is", logging.ERROR,
                    model=self.name, version=current.engine.version, problem=self.problem,
                )  # fmt: skip
                return current
        raise problem

    def _opened(self, back: int = 0) -> Current:
        shared, self._shared = self._shared, None
        engine = shared.engine if shared else Engine.open(self.path, self.name, self._runtime, back)
        return Current(engine, Runner(engine, cached=self._cached), self._rules.bound_to(engine))

    async def watch(self, every: float) -> None:
        """Look for another version, for ever; seconds between two looks."""
        while True:
            await asyncio.sleep(every)
            await self.look()

    async def look(self) -> bool:
        """Change over if another version was put in service; return whether it did."""
        found = mark(self.path)
        if found in (self._mark, ()):  # () while a directory is being replaced
            return False
        self._mark = found
        before = self.current
        try:
            self.current = await asyncio.get_running_loop().run_in_executor(None, self._opened)
        except (NextclickError, OSError) as error:
            self.problem = str(error)
            self._measures.swap(self.name, "refused")
            say(
                "the new version cannot be served, the old one stays", logging.ERROR,
                model=self.name, version=before.engine.version, problem=str(error),
            )  # fmt: skip
            return False
        except Exception as error:
            self.problem = f"{type(error).__name__} while loading; see the log"
            self._measures.swap(self.name, "refused")
            logging.getLogger("nextclick.serving").exception("the new version cannot be served")
            return False
        self.problem = None
        self._measures.swap(self.name, "done")
        say(
            "changed over", model=self.name, version=self.current.engine.version, before=before.engine.version
        )
        asyncio.get_running_loop().call_later(_GOODBYE, before.runner.close)
        return True
