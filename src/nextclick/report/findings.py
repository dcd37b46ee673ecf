"""What a comparison says, in words: who is best, who cannot be told apart from the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

from nextclick.report import numbers
from nextclick.report.markup import Html, element, escape, join
from nextclick.results import Comparison, ModelResult, Report

SIGNIFICANT = 0.05
"""A paired difference with a p-value below this is called significant."""

LABELS = {
    "recall": "Recall",
    "mrr": "MRR",
    "ndcg": "NDCG",
    "precision": "Precision",
    "remaining_recall": "Rem. recall",
    "map": "MAP",
    "coverage": "Coverage",
    "popularity": "Popularity",
    "gini": "Gini",
}


class Findings:
    """A report's models by rank, ties with the best, and differences in either direction."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.k = report.k[-1]
        self._compared = {(c.metric, c.first, c.second): c for c in report.comparisons}

    def at(self, metric: str, k: int | None = None) -> str:
        """Return the name under which a metric stands, ``recall@20``; the largest k if none is given."""
        return f"{metric}@{self.k if k is None else k}"

    @cached_property
    def accuracy(self) -> tuple[str, ...]:
        """The accuracy metrics there are, without their k."""
        wanted = ["recall", "mrr", "ndcg"]
        if self.report.protocol == "remaining":
            wanted += ["precision", "remaining_recall", "map"]
        return tuple(m for m in wanted if any(self.at(m) in r.metrics for r in self.report.models))

    def ranked(self, name: str) -> list[ModelResult]:
        """Return the models by a metric, the best first; equal ones in the order of the report."""
        values = {result.name: self.value(result, name) for result in self.report.models}
        return sorted(self.report.models, key=lambda r: (math.isnan(values[r.name]), -values[r.name]))

    def value(self, result: ModelResult, name: str) -> float:
        """Return a metric of a model; not a number where it has none."""
        return float(result.metrics.get(name, float("nan")))

    def decimals(self, name: str) -> int:
        """Return the decimals in which this metric is shown for all models."""
        return numbers.digits(self.value(result, name) for result in self.report.models)

    def best(self, name: str, *, lowest: bool = False) -> set[str]:
        """Return the names of the models with the best value; more than one only when exactly equal."""
        values = {r.name: self.value(r, name) for r in self.report.models if name in r.metrics}
        if not values:
            return set()
        goal = min(values.values()) if lowest else max(values.values())
        return {model for model, value in values.items() if value == goal}

    def difference(self, name: str, first: str, second: str) -> Comparison | None:
        """Return the comparison of two models as first minus second, whichever way it was made."""
        if (found := self._compared.get((name, first, second))) is not None:
            return found
        if (turned := self._compared.get((name, second, first))) is not None:
            return Comparison(first, second, name, -turned.difference, -turned.high, -turned.low, turned.p)
        return None

    def tied(self, name: str) -> list[str]:
        """Return the models that are not the best by value, but not significantly below it, best first."""
        best = self.best(name)
        top = self.ranked(name)[0].name
        others = [result.name for result in self.ranked(name) if result.name not in best]
        return [o for o in others if (c := self.difference(name, top, o)) and c.p >= SIGNIFICANT]

    def shown(self, name: str, result: ModelResult) -> str:
        """Return a value with its interval, "0.688 [0.682, 0.694]"."""
        decimals = self.decimals(name)
        text = numbers.metric(self.value(result, name), decimals)
        if name in result.intervals:
            text += f" {numbers.interval(*result.intervals[name], decimals)}"
        return text

    def headline(self) -> list[Html]:
        """Return the summary in plain sentences: for recall, then for MRR, the best and its lead."""
        recall, mrr = self.at("recall"), self.at("mrr")
        best, first = self.ranked(recall)[0], self.ranked(mrr)[0]
        among = f"among its first {self.k} recommendations" if self.k > 1 else "its first recommendation"
        times = f"{100 * self.value(best, recall):.0f} times out of 100"
        meaning = f"the item really clicked next is {among} {times}."
        of_recall, of_mrr = self.shown(recall, best), self.shown(mrr, first)
        if len(self.report.models) == 1:
            return [
                join([_name(best.name), f" reaches {recall} {of_recall}: {meaning}"]),
                escape(f"Its MRR@{self.k} is {of_mrr}."),
            ]
        has = "also has" if first is best else "has"
        return [
            join(
                [_name(best.name), f" has the highest {recall}, {of_recall}: {meaning} ", self._lead(recall)]
            ),
            join([_name(first.name), f" {has} the highest MRR@{self.k}, {of_mrr}. ", self._lead(mrr)]),
        ]

    def _lead(self, name: str) -> Html:
        top, runner_up = (result.name for result in self.ranked(name)[:2])
        found = self.difference(name, top, runner_up)
        tied = [other for other in self.tied(name) if other != runner_up]
        if found is None:
            return join(["The runner-up is ", _name(runner_up), "."])
        by = f"{numbers.signed(found.difference, self.decimals(name))}, p {numbers.probability(found.p)}"
        if found.p < SIGNIFICANT:
            return join(["Its lead over the runner-up, ", _name(runner_up), f", is significant ({by})."])
        if found.difference == 0:
            also = [", and is not significantly above ", _listed(tied)] if tied else []
            return join(["It gives the same figure as ", _name(runner_up), *also, "."])
        also = [", nor is that over ", _listed(tied)] if tied else []
        return join(
            ["Its lead over the runner-up, ", _name(runner_up), f", is not significant ({by})", *also, "."]
        )

    def undecided(self, name: str) -> list[tuple[str, str]]:
        """Return the pairs of models whose difference is not significant, the better one first."""
        order: Sequence[str] = [result.name for result in self.ranked(name)]
        return [
            (a, b)
            for i, a in enumerate(order)
            for b in order[i + 1 :]
            if (c := self.difference(name, a, b)) and c.p >= SIGNIFICANT
        ]


def _name(model: str) -> Html:
    return element("b", model)


def _listed(models: Sequence[str]) -> Html:
    """Return names as a phrase: "a", "a and b", "a, b and c"."""
    *head, last = map(_name, models)
    return join([join(head, ", "), " and ", last]) if head else last
