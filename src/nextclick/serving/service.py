"""What the service does, apart from HTTP: lists for sessions, events into them, and why."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from nextclick.errors import ConfigError, DataError, NextclickError, nearest
from nextclick.online.records import Recorder
from nextclick.online.trial import Trial
from nextclick.serving.engine import Ask, Listed
from nextclick.serving.logs import log, say
from nextclick.serving.measures import Measures
from nextclick.serving.messages import Answer, Event, Explain, Kept, KeptMany, Recommend
from nextclick.serving.messages import Listed as ListedItem
from nextclick.serving.options import Options
from nextclick.serving.runner import BusyError
from nextclick.serving.slot import Current, Slot
from nextclick.serving.store import Click, Store, StoreDownError
from nextclick.sessions import ItemId

AHEAD = 60_000  # ms that a client's clock may run ahead; a later time counts as now


class UnavailableError(Exception):
    """Nothing was done, and the same request may succeed in a moment."""


class Service:
    """Models, sessions and the experiment in one process; ``start`` and ``stop`` belong to the event loop."""

    def __init__(
        self,
        slots: Mapping[str, Slot],
        store: Store,
        measures: Measures,
        options: Options,
        *,
        trial: Trial | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.slots, self.store, self.measures, self.options = dict(slots), store, measures, options
        self.trial, self.recorder = trial, recorder
        self.default = next(iter(self.slots))
        self.store_down: str | None = None
        self.records_down: str | None = None
        self._tasks: list[asyncio.Task[None]] = []
        if trial is not None:
            check_models(trial, list(self.slots))

    async def start(self) -> None:
        """Begin to watch for versions and to count sessions."""
        for slot in self.slots.values():
            self._tasks.append(asyncio.create_task(slot.watch(self.options.poll)))
        self._tasks.append(asyncio.create_task(self._count()))

    async def stop(self) -> None:
        """End what ``start`` began, and let go of files and connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(StoreDownError):
            await self.store.close()
        if self.recorder is not None:
            self.recorder.close()

    async def _count(self) -> None:
        while True:
            try:
                self.measures.sessions.set(await self.store.count())
                self._store_up()
            except StoreDownError as error:
                self._store_failed(error)
            await asyncio.sleep(5.0)

    # -- lists

    async def recommend(self, asked: Recommend, request: str) -> Answer:
        """Return a list for a question. Raises ConfigError for one that makes no sense."""
        marks: list[str] = []
        items = await self._items(asked, marks)
        return await self._list(asked, items, request, marks)

    async def recommend_many(self, asked: Sequence[Recommend], request: str) -> list[Answer]:
        """Return a list for each question, the n-th with the request id REQUEST.n, as if it were alone."""

        async def one(n: int, part: Recommend) -> Answer:
            marks: list[str] = []
            items = await self._items(part, marks)
            return await self._list(part, items, f"{request}.{n}", marks, alone=False)

        return await asyncio.gather(*(one(n, part) for n, part in enumerate(asked)))

    async def _items(self, asked: Recommend, marks: list[str]) -> list[ItemId]:
        given = list(asked.items or ())
        if asked.session is None:
            return given
        try:
            kept = await self.store.read(asked.session)
            self._store_up()
        except StoreDownError as error:
            self._store_failed(error)
            marks.append("store-down")
            return given
        return kept or given

    async def _list(
        self, asked: Recommend, items: list[ItemId], request: str, marks: list[str], *, alone: bool = True
    ) -> Answer:
        start = time.perf_counter()
        variant = None
        if self.trial is not None and asked.session is not None and asked.model is None:
            variant = self.trial.variant_of(asked.session)
        current = self.slot(asked.model or (variant.model if variant else self.default)).current
        engine = current.engine
        if asked.anchor is not None and (not items or items[-1] != asked.anchor):
            items = [*items, asked.anchor]
        prefix, unknown = engine.codes(items)
        if not items:
            marks.append("empty-session")
        elif len(prefix) == 0:
            marks.append("unknown-items")
        rules = [*(variant.rules if variant else ()), *(asked.filter or ())]
        filter, of_rules = current.rules.filter(rules)
        excluded = frozenset(engine.codes(asked.exclude)[0].tolist()) if asked.exclude else frozenset()
        ask = Ask(prefix, min(asked.k, engine.n_items), asked.exclude_seen, excluded, filter, of_rules)
        listed = await self._answer(current, ask, marks, alone, request)
        reason = None
        if filter is not None and len(listed) < ask.k:
            reason = filter.reason(prefix, ask.k, exclude_seen=asked.exclude_seen, exclude=excluded)
        if variant is not None:
            self._shown(asked, variant.name, request, listed, marks)
        self.measures.answer(engine.name, time.perf_counter() - start, marks)
        if self.options.log_contents:
            say(
                "a list", request=request, session=asked.session, model=engine.name, items=items,
                listed=[item for item, _ in listed], marks=marks,
            )  # fmt: skip
        return Answer(
            [ListedItem(item, score) for item, score in listed], engine.name, engine.version, request, marks,
            unknown, variant.name if variant else None, reason,
        )  # fmt: skip

    def _shown(self, asked: Recommend, variant: str, request: str, listed: Listed, marks: list[str]) -> None:
        """Record for the experiment that a list is shown; one that cannot be recorded is marked."""
        if self.trial is None or self.recorder is None or asked.session is None:
            return
        try:
            self.recorder.shown(
                self.trial.name, asked.session, variant, request, [item for item, _ in listed],
                asked.attributes, fallback=any(mark in _FALLBACKS for mark in marks),
            )  # fmt: skip
            self._records_up()
        except OSError as error:
            self._records_failed(error)
            marks.append("unrecorded")

    async def _answer(
        self, current: Current, ask: Ask, marks: list[str], alone: bool, request: str
    ) -> Listed:
        """Ask the model; where it does not answer in time, or at all, take the most clicked items."""
        runner = current.runner
        remembered = runner.remembered(ask)
        if self.options.cache:
            self.measures.cache(current.engine.name, remembered is not None)
        if remembered is not None:
            return remembered
        try:
            return await runner.ask(ask, self.options.deadline, alone=alone)
        except TimeoutError:
            marks.append("deadline")
        except BusyError:
            marks.append("busy")
        except RuntimeError:
            about = {"model": current.engine.name, "request": request}
            log.exception("a model failed", extra={"about": about})
            marks.append("model-error")
        return current.engine.popular(ask)

    def slot(self, name: str) -> Slot:
        """Return the place of a model by name. Raises ConfigError that lists the names."""
        if name not in self.slots:
            raise ConfigError(
                f"no model {name!r}{nearest(name, self.slots)}; there are: {', '.join(self.slots)}"
            )
        return self.slots[name]

    # -- events

    async def event(self, event: Event, request: str) -> Kept:
        """Keep an event, and answer with a list if it asks for one.

        Raises UnavailableError when it could not be kept: nothing was done, and it may be sent again.
        """
        if event.recommend is not None and event.recommend.session not in (None, event.session):
            raise ConfigError("recommend.session: leave it out, it is the event's session")
        time_ms, corrected = _moment(event)
        click = Click(time_ms, event.id or secrets.token_hex(12), event.item)
        kept = await self._append(event.session, [click])
        self._clicked(event, click)
        self._log_event(event, click, request)
        self.measures.events("duplicate" if kept.duplicates else "kept")
        if corrected:
            self.measures.events("corrected")
        answer = None
        if event.recommend is not None:
            asked = _in_session(event.recommend, event.session)
            answer = await self._list(asked, kept.items, request, [])
        return Kept(request, kept.duplicates > 0, corrected, len(kept.items), answer)

    async def events(self, events: Sequence[Event], request: str) -> KeptMany:
        """Keep events of several sessions. Raises UnavailableError when not all could be kept."""
        of_session: dict[str, list[Click]] = {}
        corrections = 0
        for event in events:
            if event.recommend is not None:
                raise ConfigError("recommend: only with a single event, at /v1/events")
            time_ms, corrected = _moment(event)
            corrections += corrected
            click = Click(time_ms, event.id or secrets.token_hex(12), event.item)
            of_session.setdefault(event.session, []).append(click)
            self._clicked(event, click)
            self._log_event(event, click, request)
        duplicates = 0
        for session, clicks in of_session.items():
            duplicates += (await self._append(session, clicks)).duplicates
        self.measures.events("kept", len(events) - duplicates)
        self.measures.events("duplicate", duplicates)
        self.measures.events("corrected", corrections)
        return KeptMany(request, len(events) - duplicates, duplicates, corrections)

    async def _append(self, session: str, clicks: Sequence[Click]) -> Any:
        try:
            kept = await self.store.append(session, clicks)
            self._store_up()
            return kept
        except StoreDownError as error:
            self._store_failed(error)
            self.measures.events("failed", len(clicks))
            raise UnavailableError("the event could not be kept; send it again, with the same id") from error

    def _clicked(self, event: Event, click: Click) -> None:
        """Record a click for the experiment: one that names the list that it was made on.

        Raises UnavailableError when it cannot be recorded.
        """
        if self.recorder is None or self.trial is None or event.request is None:
            return
        try:
            self.recorder.clicked(
                self.trial.name, event.session, event.request, click.id, event.item, event.attributes
            )
            self._records_up()
        except OSError as error:
            self._records_failed(error)
            self.measures.events("failed")
            raise UnavailableError(
                "the click could not be recorded; send the event again, with the same id"
            ) from error

    def _log_event(self, event: Event, click: Click, request: str) -> None:
        if self.options.log_contents:
            say(
                "an event", request=request, session=event.session, item=event.item, event=event.event,
                id=click.id, of_time=click.time,
            )  # fmt: skip

    # -- why

    async def explain(self, asked: Explain, request: str) -> dict[str, Any]:
        """Return why a model recommends what it does. Raises DataError where there is nothing to say."""
        from nextclick.explain import explain

        marks: list[str] = []
        items = await self._items(Recommend(asked.items, asked.session), marks)
        current = self.slot(asked.model or self.default).current
        model = current.engine.model
        try:
            told = await current.runner.do(lambda: explain(model, items[-20:], asked.k), 5.0)
        except TimeoutError:
            raise DataError("explaining took too long; ask for fewer items, or after fewer clicks") from None
        return {**told.to_json(), "version": current.engine.version, "request": request, "marks": marks}

    # -- state

    def state(self) -> dict[str, Any]:
        """Return which versions are in service, and what is wrong."""
        models = {
            name: {
                "version": slot.current.engine.version, "kind": slot.current.engine.kind,
                "items": slot.current.engine.n_items, "problem": slot.problem,
            }
            for name, slot in self.slots.items()
        }  # fmt: skip
        down = self.store_down is not None or self.records_down is not None
        troubled = down or any(slot.problem for slot in self.slots.values())
        state = {"ready": True, "degraded": troubled, "models": models, "default": self.default}
        state["store"] = self.store_down or "ok"
        return state | ({"records": self.records_down or "ok"} if self.recorder is not None else {})

    def _store_failed(self, error: NextclickError) -> None:
        if self.store_down is None:
            say(
                "the store is down; lists are made from the items in requests",
                logging.ERROR,
                store=str(error),
            )
        self.store_down = "down"

    def _store_up(self) -> None:
        if self.store_down is not None:
            say("the store is back")
        self.store_down = None

    def _records_failed(self, error: OSError) -> None:
        if self.records_down is None:
            say("the experiment cannot be recorded", logging.ERROR, records=str(error))
        self.records_down = "down"

    def _records_up(self) -> None:
        if self.records_down is not None:
            say("the experiment is recorded again")
        self.records_down = None


_FALLBACKS = frozenset({"deadline", "busy", "model-error", "empty-session", "unknown-items", "store-down"})


def check_models(trial: Trial, models: Sequence[str]) -> None:
    """Raise ConfigError when a variant names a model that is not served."""
    for variant in trial.variants:
        if variant.model not in models:
            raise ConfigError(
                f"variant {variant.name}: no model {variant.model!r}{nearest(variant.model, models)}; "
                f"served are: {', '.join(models)}"
            )


def _moment(event: Event) -> tuple[int, bool]:
    """Return the time of an event in ms, and whether it lay in the future and is now instead."""
    now = int(time.time() * 1000)
    if event.time is None:
        return now, False
    return (now, True) if event.time > now + AHEAD else (event.time, False)


def _in_session(asked: Recommend, session: str) -> Recommend:
    import msgspec

    return msgspec.structs.replace(asked, session=session)
