"""What the service counts, for Prometheus; over all workers where there are several."""

from __future__ import annotations

import os
from typing import Any

from nextclick.errors import MissingExtraError

_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Measures:
    """Counters and histograms of one service.

    With PROMETHEUS_MULTIPROC_DIR set, as ``nextclick serve`` sets it for several workers, ``exposed`` adds up
    the figures of all of them.
    """

    def __init__(self) -> None:
        try:
            import prometheus_client as prometheus
        except ImportError:
            raise MissingExtraError("serving", "serve") from None
        self._prometheus = prometheus
        self.registry = registry = prometheus.CollectorRegistry()
        self._shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ

        def histogram(name: str, about: str, labels: tuple[str, ...]) -> Any:
            return prometheus.Histogram(
                f"nextclick_{name}", about, labels, buckets=_SECONDS, registry=registry
            )

        def counter(name: str, about: str, labels: tuple[str, ...]) -> Any:
            return prometheus.Counter(f"nextclick_{name}", about, labels, registry=registry)

        def gauge(name: str, about: str, labels: tuple[str, ...] = ()) -> Any:
            return prometheus.Gauge(
                f"nextclick_{name}", about, labels, registry=registry, multiprocess_mode="mostrecent"
            )

        self._requests = histogram("request_seconds", "Time to answer a request", ("route", "status"))
        self._answers = histogram("answer_seconds", "Time to make a list", ("model",))
        self._marks = counter("marks", "Answers with a mark, such as a fallback", ("model", "mark"))
        self._cache = counter("cache", "Answers found, or not found, in the cache", ("model", "found"))
        self._events = counter("events", "Events by what came of them", ("outcome",))
        self._swaps = counter("swaps", "Versions put in service, or refused", ("model", "outcome"))
        self.sessions = gauge("sessions", "Sessions that the store keeps")
        self._children: dict[tuple[Any, ...], Any] = {}

    def _of(self, metric: Any, *labels: str) -> Any:
        """Return the series of some labels; looking it up anew each time would take longer than counting."""
        key = (id(metric), *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    def request(self, route: str, status: int, seconds: float) -> None:
        self._of(self._requests, route, str(status)).observe(seconds)

    def answer(self, model: str, seconds: float, marks: list[str]) -> None:
        self._of(self._answers, model).observe(seconds)
        for mark in marks:
            self._of(self._marks, model, mark).inc()

    def cache(self, model: str, found: bool) -> None:
        self._of(self._cache, model, "yes" if found else "no").inc()

    def events(self, outcome: str, n: int = 1) -> None:
        self._of(self._events, outcome).inc(n)

    def swap(self, model: str, outcome: str) -> None:
        self._of(self._swaps, model, outcome).inc()

    def exposed(self) -> bytes:
        """Return all figures in the text format of Prometheus."""
        registry = self.registry
        if self._shared:
            from prometheus_client import multiprocess

            registry = self._prometheus.CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        text: bytes = self._prometheus.generate_latest(registry)
        return text
