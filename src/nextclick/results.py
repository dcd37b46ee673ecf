"""What an evaluation found, as plain values: shown by reports, written as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nextclick.metrics import TieRule

Protocol = Literal["next", "remaining"]


@dataclass(frozen=True)
class Slice:
    """Metrics of one part of the test events, for example those after three clicks."""

    label: str
    pairs: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class ModelResult:
    """What one model reached.

    metrics: by name, for example "recall@20";  intervals: (low, high) 95% bounds of the same;  slices:
    by kind ("prefix length", "target popularity", "target");  settings: the model's own;  latency: seconds
    of one request at the 50th and 99th percentile, ids in, ids out;  items_left: how many items the rules in
    force leave to a prefix, on average;  targets_forbidden: how many targets they forbid; None without rules;
    features: what it reads of items besides their ids, a line for each representation.
    """

    name: str
    path: str
    model: str
    settings: Mapping[str, Any]
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    slices: Mapping[str, Sequence[Slice]]
    predictions_per_second: float
    latency_p50_ms: float
    latency_p99_ms: float
    items_left: float | None = None
    targets_forbidden: int | None = None
    features: Sequence[str] = ()


@dataclass(frozen=True)
class Comparison:
    """The paired difference of two models in one metric: first minus second, 95% interval, p-value."""

    first: str
    second: str
    metric: str
    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, repr=False)
class Report:
    """A comparison of models on one test set, and all that is needed to read it.

    target_event, target_clicks: the event whose clicks were predicted, each from so many clicks before it at
    most; None: every click but the first of a session, from all before it.  rules: those that every listed
    item had to meet, in words.
    """

    dataset: str
    pairs: int
    sessions: int
    k: tuple[int, ...]
    protocol: Protocol
    unseen: str
    unseen_pairs: int
    candidates: int | None
    ties: TieRule
    n_items: int
    models: tuple[ModelResult, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()
    target_event: str | None = None
    target_clicks: int | None = None
    rules: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Say the size, then a line per model: its recall and MRR at the largest k."""
        k = self.k[-1]
        wide = max((len(result.name) for result in self.models), default=0)
        lines = [f"<Report on {self.dataset!r}: {self.pairs:,} clicks to predict, {self.sessions:,} sessions"]
        for result in self.models:
            recall, mrr = result.metrics[f"recall@{k}"], result.metrics[f"mrr@{k}"]
            lines.append(f"  {result.name:{wide}}  recall@{k} {recall:.3f}  MRR@{k} {mrr:.3f}")
        return "\n".join(lines) + ">"

    @property
    def predicted(self) -> str:
        """What was to be predicted, in words: the start of a sentence."""
        if self.target_event is None:
            return "every click but the first of a session"
        return f"each click of event {self.target_event}"

    @property
    def seen(self) -> str:
        """What it was predicted from, in words."""
        if self.target_clicks is None:
            return "the clicks before it"
        return (
            "the last click before it"
            if self.target_clicks == 1
            else f"the last {self.target_clicks} clicks before it"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-ready values; metrics stand beside the name of their model."""
        return {
            "dataset": self.dataset,
            "pairs": self.pairs,
            "sessions": self.sessions,
            "k": list(self.k),
            "protocol": self.protocol,
            "target_event": self.target_event,
            "target_clicks": self.target_clicks,
            "unseen": self.unseen,
            "unseen_pairs": self.unseen_pairs,
            "candidates": self.candidates,
            "ties": self.ties,
            "rules": list(self.rules),
            "items": self.n_items,
            "models": [
                {
                    "name": result.name,
                    "path": result.path,
                    "model": result.model,
                    "settings": dict(result.settings),
                    "features": list(result.features),
                    **result.metrics,
                    "predictions_per_second": result.predictions_per_second,
                    "latency_p50_ms": result.latency_p50_ms,
                    "latency_p99_ms": result.latency_p99_ms,
                    "items_left": result.items_left,
                    "targets_forbidden": result.targets_forbidden,
                    "intervals": {name: list(bounds) for name, bounds in result.intervals.items()},
                    "slices": {
                        kind: [{"label": s.label, "pairs": s.pairs, **s.metrics} for s in slices]
                        for kind, slices in result.slices.items()
                    },
                }
                for result in self.models
            ],
            "comparisons": [vars(comparison) for comparison in self.comparisons],
            "notes": list(self.notes),
        }
