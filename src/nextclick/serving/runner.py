"""Questions to one engine: gathered while it is busy, answered together, each within its deadline."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from nextclick.serving.engine import Ask, Engine, Listed

T = TypeVar("T")

_TOGETHER = 32  # questions answered at once
_QUICK = 0.0015  # seconds: an engine that takes less is asked in the event loop
_INSTANT = 0.0003  # seconds: one that takes less gains nothing from answering several together
_LATE = 0.05  # seconds of one answer, after which ...
_REST = 10.0  # ... so many seconds pass until the engine counts as quick again


class BusyError(Exception):
    """So many questions wait that one more would not be answered in time."""


class Runner:
    """Asks an engine: in a thread of its own, so that the event loop does not wait for it, or at once.

    Questions that arrive while the thread is at work wait and are then answered together, which costs less
    than one after the other; nothing waits for others to arrive. A quick engine is asked in the event loop
    itself, those together that the loop found in one turn: waking a thread takes longer than its answer,
    several ms where the processors are busy. The first answer that takes long puts it back into the thread
    for a while. limit: questions that may wait;  cached: answers that are kept, 0 for none.
    """

    def __init__(self, engine: Engine, *, limit: int = 256, cached: int = 10_000) -> None:
        self.engine = engine
        self._limit, self._cached = limit, cached
        self._answers: OrderedDict[tuple[object, ...], Listed] = OrderedDict()
        self._waiting: deque[tuple[Ask, asyncio.Future[Listed]]] = deque()
        self._busy = False
        self._gathered: list[tuple[Ask, asyncio.Future[Listed]]] = []  # in this turn of the event loop
        self._instant = engine.seconds < _INSTANT
        self._quick_from = 0.0 if engine.seconds < _QUICK else math.inf
        self._working = 0  # other work in the thread
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"model-{engine.name}")

    def remembered(self, ask: Ask) -> Listed | None:
        """Return the answer if the same was asked lately."""
        if not self._cached:
            return None
        answer = self._answers.get(ask.key)
        if answer is not None:
            self._answers.move_to_end(ask.key)
        return answer

    async def ask(self, ask: Ask, deadline: float, *, alone: bool = True) -> Listed:
        """Return the engine's answer; deadline: seconds from now;  alone: not one of many at once.

        Raises BusyError, TimeoutError beyond the deadline, and RuntimeError where the model fails.
        """
        free = not (self._busy or self._waiting or self._working)
        if alone and free and time.monotonic() >= self._quick_from:
            answer = await self._at_once(ask, deadline)
        else:
            answer = await self._in_turn(ask, deadline)
        if self._cached:
            self._answers[ask.key] = answer
            if len(self._answers) > self._cached:
                self._answers.popitem(last=False)
        return answer

    async def _at_once(self, ask: Ask, deadline: float) -> Listed:
        future: asyncio.Future[Listed] = asyncio.get_running_loop().create_future()
        self._gathered.append((ask, future))
        start = time.monotonic()
        if self._instant or len(self._gathered) == _TOGETHER:
            self._answer_gathered()
        elif len(self._gathered) == 1:
            asyncio.get_running_loop().call_soon(self._answer_gathered)
        answer = await future
        if time.monotonic() - start > deadline:
            raise TimeoutError
        return answer

    def _answer_gathered(self) -> None:
        together, self._gathered = self._gathered, []
        if not together:
            return
        start = time.monotonic()
        try:
            answers = self.engine.answer([ask for ask, _ in together])
        except Exception as error:
            _settle(together, _failure(error))
            return
        seconds = time.monotonic() - start
        if seconds > _LATE:
            self._quick_from = start + seconds + _REST
        _settle(together, answers)

    async def _in_turn(self, ask: Ask, deadline: float) -> Listed:
        if len(self._waiting) >= self._limit:
            raise BusyError
        future: asyncio.Future[Listed] = asyncio.get_running_loop().create_future()
        self._waiting.append((ask, future))
        if not self._busy:
            self._start()
        async with asyncio.timeout(deadline):
            return await future

    async def do(self, work: Callable[[], T], deadline: float) -> T:
        """Do something else in the engine's thread, between questions. Raises TimeoutError."""
        self._working += 1
        job = asyncio.get_running_loop().run_in_executor(self._thread, work)
        job.add_done_callback(self._worked)
        async with asyncio.timeout(deadline):
            return await asyncio.shield(job)

    def _worked(self, job: asyncio.Future[T]) -> None:
        self._working -= 1
        if not job.cancelled():
            job.exception()  # told to whoever waited, if it was in time

    def close(self) -> None:
        """Let the thread end when it has answered."""
        self._thread.shutdown(wait=False)

    def _start(self) -> None:
        together: list[tuple[Ask, asyncio.Future[Listed]]] = []
        while self._waiting and len(together) < _TOGETHER:
            ask, future = self._waiting.popleft()
            if not future.done():  # the deadline of the others is over
                together.append((ask, future))
        if not together:
            return
        self._busy = True
        job = asyncio.get_running_loop().run_in_executor(
            self._thread, self.engine.answer, [ask for ask, _ in together]
        )
        job.add_done_callback(lambda done: self._finish(together, done))

    def _finish(
        self, together: Sequence[tuple[Ask, asyncio.Future[Listed]]], job: asyncio.Future[list[Listed]]
    ) -> None:
        self._busy = False
        error = job.exception() if not job.cancelled() else asyncio.CancelledError()
        _settle(together, job.result() if error is None else _failure(error))
        if self._waiting:
            self._start()


def _failure(error: BaseException) -> RuntimeError:
    """Return what those who asked get instead of an answer; the log shows the trace of its cause."""
    failure = RuntimeError(f"the model failed: {error!r}")
    failure.__cause__ = error
    return failure


def _settle(
    together: Sequence[tuple[Ask, asyncio.Future[Listed]]], answers: Sequence[Listed] | RuntimeError
) -> None:
    """Give those who still wait their answers, or the error."""
    for n, (_, future) in enumerate(together):
        if future.done():
            continue
        if isinstance(answers, RuntimeError):
            future.set_exception(answers)
        else:
            future.set_result(answers[n])
