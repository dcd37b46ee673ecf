"""The charts of the models: how accurate, how sure, how fast, how varied, and on which clicks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nextclick.report import drawing, numbers
from nextclick.report.drawing import colour, marker, shortened
from nextclick.report.findings import LABELS, Findings
from nextclick.report.markup import Html
from nextclick.results import ModelResult, Slice

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class ModelCharts:
    """Draws one report; a model keeps its colour and marker in all of its charts."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self.models = findings.report.models
        self.index = {result.name: i for i, result in enumerate(self.models)}

    def dots(self, metric: str) -> Html:
        """Return each model's value of a metric with its interval, the best on top."""
        name = self.findings.at(metric)
        ranked, decimals = self.findings.ranked(name)[::-1], self.findings.decimals(name)

        def paint(axes: Axes) -> None:
            for row, result in enumerate(ranked):
                i, value = self.index[result.name], self.findings.value(result, name)
                low, high = result.intervals.get(name, (value, value))
                axes.plot(
                    [low, high], [row, row], color=colour(i), linewidth=7, alpha=0.3, solid_capstyle="butt"
                )
                axes.plot(value, row, marker(i), color=colour(i), markersize=3.2)
                axes.annotate(
                    numbers.metric(value, decimals),
                    (1, row),
                    xycoords=("axes fraction", "data"),
                    xytext=(5, 0),
                    textcoords="offset points",
                    va="center",
                    color=drawing.INK,
                    fontsize=8,
                )
            self._rows(axes, ranked)
            axes.set_xlabel(f"{LABELS[metric]}@{self.findings.k}, band: 95% interval")

        values = "; ".join(f"{r.name} {self.findings.shown(name, r)}" for r in ranked[::-1])
        return drawing.draw(f"dots {metric}", f"{name} by model: {values}", self._tall(), paint)

    def over_k(self, metric: str) -> Html | None:
        """Return a line per model of a metric over the length of the list; nothing for one length."""
        ks = self.findings.report.k
        if len(ks) < 2:
            return None

        def paint(axes: Axes) -> None:
            lines = {r.name: [self.findings.value(r, f"{metric}@{k}") for k in ks] for r in self.models}
            axes.set_xticks(ks, [str(k) for k in ks])
            axes.set_xlabel("length of the recommended list (k)")
            axes.set_ylabel(f"{LABELS[metric]}@k")
            self._lines(axes, list(map(float, ks)), lines)

        return drawing.draw(
            f"over k {metric}",
            f"{LABELS[metric]} of each model at k = {', '.join(map(str, ks))}; the figures are in "
            "the table of all list lengths",
            3.1,
            paint,
        )

    def speed(self, metric: str) -> Html:
        """Return accuracy against predictions per second."""
        name = self.findings.at(metric)

        def paint(axes: Axes) -> None:
            axes.set_xscale("log")
            axes.set_xlabel("predictions per second (logarithmic)")
            axes.set_ylabel(f"{LABELS[metric]}@{self.findings.k}")
            speeds = [max(r.predictions_per_second, 1e-3) for r in self.models]
            self._points(axes, speeds, [self.findings.value(r, name) for r in self.models])

        points = "; ".join(
            f"{r.name} {numbers.short(r.predictions_per_second)} per second at "
            f"{self.findings.value(r, name):.3f}"
            for r in self.models
        )
        return drawing.draw("speed", f"{name} against speed: {points}", 3.3, paint)

    def diversity(self) -> Html | None:
        """Return coverage of the catalogue against the popularity of what is recommended."""
        coverage, popularity = self.findings.at("coverage"), self.findings.at("popularity")
        if not all(coverage in r.metrics and popularity in r.metrics for r in self.models):
            return None

        def paint(axes: Axes) -> None:
            popular = [r.metrics[popularity] for r in self.models]
            if min(popular) > 0 and max(popular) > 5 * min(popular):
                axes.set_yscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
            axes.set_xlabel(f"coverage@{self.findings.k}: share of the items ever recommended")
            axes.set_ylabel("mean training clicks of a\nrecommended item")
            self._points(axes, [r.metrics[coverage] for r in self.models], popular)

        points = "; ".join(
            f"{r.name} covers {numbers.share(r.metrics[coverage])}, popularity "
            f"{numbers.short(r.metrics[popularity])}"
            for r in self.models
        )
        return drawing.draw("diversity", f"Coverage and popularity: {points}", 3.3, paint)

    def by_slice(self, kind: str, metric: str, axis: str, leave_out: Sequence[str] = ()) -> Html | None:
        """Return a line per model over the parts of one kind, with the number of events under each part."""
        name = self.findings.at(metric)
        labels = {
            s.label: s.pairs for r in self.models for s in r.slices.get(kind, ()) if s.label not in leave_out
        }
        if len(labels) < 2:
            return None

        def paint(axes: Axes) -> None:
            lines = {}
            for result in self.models:
                own = {s.label: s.metrics.get(name, float("nan")) for s in result.slices.get(kind, ())}
                if own.keys() >= labels.keys():
                    lines[result.name] = [own[label] for label in labels]
            places = list(map(float, range(len(labels))))
            axes.set_xticks(places, [f"{label}\n{numbers.short(n)}" for label, n in labels.items()])
            axes.set_xlim(-0.3, len(labels) - 0.7)
            axes.set_xlabel(f"{axis}, with the number of test clicks below")
            axes.set_ylabel(f"{LABELS[metric]}@{self.findings.k}")
            self._lines(axes, places, lines)

        return drawing.draw(
            f"{kind} {metric}",
            f"{name} of each model by {kind}: {', '.join(labels)}; the figures are in the table below",
            3.3,
            paint,
        )

    def repeated(self, metric: str) -> Html | None:
        """Return, for each model, its value on repeated and on new items, joined by a line."""
        name = self.findings.at(metric)
        both: dict[str, tuple[float, float]] = {}
        for result in self.findings.ranked(name)[::-1]:
            own: dict[str, Slice] = {s.label: s for s in result.slices.get("target", ())}
            if {"repeated", "new"} <= own.keys():
                both[result.name] = own["repeated"].metrics[name], own["new"].metrics[name]
        if not both:
            return None

        def paint(axes: Axes) -> None:
            for row, (model, (repeated, new)) in enumerate(both.items()):
                i = self.index[model]
                axes.plot([repeated, new], [row, row], color=colour(i), linewidth=1.2, alpha=0.5, zorder=1)
                axes.plot(repeated, row, marker(i), color=colour(i), markersize=5.5)
                axes.plot(
                    new,
                    row,
                    marker(i),
                    color=colour(i),
                    markersize=5.5,
                    markerfacecolor=drawing.PAPER,
                    markeredgewidth=1.4,
                )
            self._rows(axes, [self.models[self.index[model]] for model in both])
            axes.set_xlabel(
                f"{LABELS[metric]}@{self.findings.k}: ● item clicked before in the session, ○ new item"
            )

        values = "; ".join(f"{m} {a:.3f} repeated, {b:.3f} new" for m, (a, b) in reversed(both.items()))
        return drawing.draw(
            f"repeated {metric}", f"{name} on repeated and new items: {values}", self._tall(), paint
        )

    # -- parts

    def _tall(self) -> float:
        return 0.75 + 0.235 * len(self.models)

    def _rows(self, axes: Axes, results: Sequence[ModelResult]) -> None:
        axes.set_yticks(range(len(results)), [shortened(r.name) for r in results], color=drawing.INK)
        axes.set_ylim(-0.6, len(results) - 0.4)
        axes.grid(axis="y", visible=False)
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, min(0.0, high) - 0.01), high)

    def _lines(self, axes: Axes, places: Sequence[float], lines: dict[str, list[float]]) -> None:
        for name, values in lines.items():
            i = self.index[name]
            axes.plot(places, values, color=colour(i), marker=marker(i), markeredgecolor=drawing.PAPER)
        axes.grid(axis="x", visible=False)
        highest = max(max(values) for values in lines.values())
        axes.set_ylim(0, 1.06 * highest if highest > 0 else 1)
        ends = [(places[-1], values[-1]) for values in lines.values()]
        drawing.label_ends(axes, ends, [shortened(n, 16) for n in lines], [self.index[n] for n in lines])

    def _points(self, axes: Axes, x: Sequence[float], y: Sequence[float]) -> None:
        from matplotlib.ticker import LogLocator, NullLocator

        points = list(zip(x, y, strict=True))
        for i, point in enumerate(points):
            axes.plot(*point, marker(i), color=colour(i), markersize=6.5, markeredgecolor=drawing.PAPER)
        axes.margins(0.12)
        for low, values, limit in (
            (axes.get_xlim()[0], x, axes.set_xlim),
            (axes.get_ylim()[0], y, axes.set_ylim),
        ):
            limit(max(low, -0.03 * max(values)))  # no metric is below zero
        for axis, values in ((axes.xaxis, x), (axes.yaxis, y)):
            if axis.get_scale() == "log":
                narrow = max(values) < 100 * min(values)
                axis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,)))
                axis.set_minor_locator(NullLocator())
            if max(values) > 1.5:
                axis.set_major_formatter(lambda value, _: numbers.tick(value))
        drawing.label_points(axes, points, [shortened(result.name) for result in self.models])
