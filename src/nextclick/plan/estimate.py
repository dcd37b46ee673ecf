"""The arithmetic of a plan: unit costs times counts, what fits on one machine, and up to which size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nextclick.errors import ConfigError, nearest
from nextclick.models import find
from nextclick.network.recommender import NeuralRecommender, TrainedRecommender
from nextclick.plan.costs import TERMS, Cost, Counts, UnitCosts
from nextclick.plan.logs import CLICKS
from nextclick.plan.measuring import epochs_of

FAMILIES = ("markov", "item-knn", "vmis-knn", "bpr-mf", "gru4rec", "narm")
"""The models of a plan that names none: one of each family."""
HELD_OUT = 0.1  # of the sessions: what ``prepare`` keeps for the test
_MOST_WORKERS = 100  # of a training under torchrun, beyond which another way is named
_SPILL = 0.6  # of the memory: what preparation takes before it spills to disk


@dataclass(frozen=True)
class Machine:
    """What one machine has, and what is asked of it.

    cores;  memory, disk: bytes;  hours: that preparing, fitting or evaluating may take;  latency: seconds
    that one list may take.
    """

    cores: int
    memory: int
    disk: int
    hours: float = 24.0
    latency: float = 0.05


@dataclass(frozen=True)
class Line:
    """One line of arithmetic: what it is of, the sum written out, its value in seconds or bytes."""

    quantity: str
    text: str
    value: float


@dataclass
class Step:
    """One step for one subject: its costs, the lines they come from, and where one machine ends.

    seconds: of the whole step, for "serve" of one list;  problems: why one machine does not do, each with
    its remedy;  until: clicks up to which one machine does, with as many items, None: at any number.
    """

    step: str
    subject: str
    seconds: float = 0.0
    memory: float = 0.0
    disk: float = 0.0
    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    until: float | None = None

    @property
    def fits(self) -> bool:
        """Whether one machine does it within the limits."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return the step as JSON values."""
        return {
            "step": self.step, "subject": self.subject, "seconds": self.seconds, "memory_bytes": self.memory,
            "disk_bytes": self.disk, "one_machine": self.fits, "problems": self.problems,
            "one_machine_until_events": None if self.until is None else int(self.until),
            "arithmetic": [f"{line.quantity}: {line.text}" for line in self.lines], "notes": self.notes,
        }  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """All steps for a size, on a machine.

    beyond: how many times the events and the items of the largest measurement the size is.
    """

    counts: Counts
    machine: Machine
    steps: tuple[Step, ...]
    beyond: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        of = self.machine
        return {
            "events": self.counts.events,
            "items": self.counts.items,
            "machine": {
                "cores": of.cores, "memory_bytes": of.memory, "disk_bytes": of.disk,
                "hours": of.hours, "latency_seconds": of.latency,
            },
            "extrapolated": {"events": self.beyond[0], "items": self.beyond[1]},
            "steps": [step.to_json() for step in self.steps],
        }  # fmt: skip


def plan(
    counts: Counts,
    costs: UnitCosts,
    machine: Machine,
    models: Sequence[str] = FAMILIES,
    *,
    predictions: int | None = None,
) -> Plan:
    """Estimate every step for a log of a size.

    models: by name, each measured in ``costs``;  predictions: clicks predicted in the evaluation; by default
    those of the tenth of the sessions that ``prepare`` holds out.
    Raises ConfigError for counts that are not positive, limits that are not, or a model without unit costs.
    """
    if counts.events < 1 or counts.items < 1:
        raise ConfigError(f"events={counts.events}, items={counts.items}: expected at least 1 of each")
    if counts.items > counts.events:
        raise ConfigError(
            f"{counts.items:,} items are more than {counts.events:,} events: only items that were clicked "
            "count"
        )
    if min(machine.memory, machine.disk, machine.cores) <= 0 or min(machine.hours, machine.latency) <= 0:
        raise ConfigError("cores, memory, disk, hours and latency are to be above zero")
    for model in models:
        find(model)
        if model not in costs.models:
            raise ConfigError(
                f"{model} has no unit costs here{nearest(model, costs.models)}: measure it with nextclick "
                f"plan --measure --model {model}\n  there are: {', '.join(costs.models)}"
            )
    if predictions is None:
        predictions = max(1, round(counts.events * HELD_OUT * (1 - 1 / CLICKS)))
    steps = [_prepared(engine, counts, costs, machine) for engine in costs.engines]
    for model in models:
        steps += _of_model(model, counts, costs, machine, predictions)
    rows = [row for cost in costs.costs for row in cost.measured]
    beyond = tuple(of / max(row[at] for row in rows) for at, of in enumerate((counts.events, counts.items)))
    return Plan(counts, machine, tuple(steps), (beyond[0], beyond[1]))


def _prepared(engine: str, counts: Counts, costs: UnitCosts, machine: Machine) -> Step:
    step = Step("prepare", engine)
    seconds = _add(step, costs, "seconds", counts, cores=machine.cores)
    memory = _add(step, costs, "memory", counts)
    disk = _add(step, costs, "disk", counts)
    if seconds:
        remedy = "more cores on a cluster"
        if engine != "spark":
            remedy = "prepare --engine spark on a cluster, or more cores"
        problem = "takes {found}, more than {limit}: " + remedy
        _limit(step, seconds, counts, machine.hours * 3600, problem, times=1 / machine.cores)
    if engine == "spark":
        worked = step.seconds * machine.cores / 3600
        step.notes.append(f"on a cluster: {_three(worked)} core hours, if more cores share them evenly")
    room = _SPILL * machine.memory
    if memory and step.memory > room:
        spilled = step.memory - room
        step.notes.append(
            f"takes {_SPILL:.0%} of the memory, {size(room)}, and spills the other {size(spilled)} to disk"
        )
        step.memory, step.disk = room, step.disk + spilled
    if disk:  # with all that spills, where it does before the disk is full
        ends = [_until(disk, counts, machine.disk)]
        if memory:
            both = {term: disk.units.get(term, 0.0) + memory.units.get(term, 0.0) for term in TERMS}
            ends.append(_until(replace(disk, units=both), counts, machine.disk + room))
        step.until = min([step.until or math.inf, *ends])
    if disk and step.disk > machine.disk:
        step.problems.append(
            f"needs {size(step.disk)} of disk of {size(machine.disk)}: a larger disk, or prepare --engine "
            "spark with its folders on shared storage"
        )
    return step


def _of_model(
    model: str, counts: Counts, costs: UnitCosts, machine: Machine, predictions: int
) -> Iterator[Step]:
    process = costs.find("process", model, "memory")
    base = 0.0 if process is None else process.at(counts)
    started = f"{size(base)} of the process"
    epochs = epochs_of(model)

    fit = Step("fit", model)
    seconds = _add(fit, costs, "seconds", counts, times=(epochs, "epochs") if epochs else None)
    memory = _add(fit, costs, "memory", counts, base=(base, started))
    disk = _add(fit, costs, "disk", counts)
    if epochs:
        fit.notes.append(f"{epochs} epochs at most by default; training may stop earlier")
    if seconds:
        longest = machine.hours * 3600
        problem = "takes {found}, more than {limit}: " + _faster(model, fit.seconds, longest)
        _limit(fit, seconds, counts, longest, problem, times=epochs or 1)
    if memory:
        problem = "needs {found} of memory of {limit}: " + _smaller(model)
        _limit(fit, memory, counts, machine.memory - base, problem, base=base)
    if disk:
        problem = "the model takes {found} of disk of {limit}: a larger disk, or fewer items or sessions "
        _limit(fit, disk, counts, machine.disk, problem + "(prepare --min-support, --recent)")
    yield fit

    evaluate = Step("evaluate", model)
    seconds = _add(
        evaluate, costs, "seconds", counts, times=(predictions, "predictions"), cores=machine.cores
    )
    evaluate.memory = _loaded(costs, model, counts, base)
    if seconds and evaluate.seconds > machine.hours * 3600:
        evaluate.problems.append(
            f"takes {duration(evaluate.seconds)}, more than {machine.hours:g} h: hold fewer sessions out "
            "(prepare --holdout 1d), which measures nearly as surely"
        )
    yield evaluate

    serve = Step("serve", model)
    _add(serve, costs, "seconds", counts)
    memory = _add(serve, costs, "memory", counts, base=(base, started))
    if serve.seconds:
        serve.notes.append(
            f"one core answers 1 / {duration(serve.seconds)} = {1 / serve.seconds:,.0f} a second"
        )
    if serve.seconds > machine.latency:
        serve.problems.append(
            f"a list takes {duration(serve.seconds)}, more than {duration(machine.latency)}: "
            + ("an index (nextclick index)" if issubclass(find(model), NeuralRecommender)
               else "the lists as a table (nextclick export --format table)")
        )  # fmt: skip
    if memory:
        fewer = "a larger machine, or fewer items or sessions (prepare --min-support, --recent)"
        problem = "needs {found} of memory of {limit}: " + fewer
        _limit(serve, memory, counts, machine.memory - base, problem, base=base)
    yield serve


def _loaded(costs: UnitCosts, model: str, counts: Counts, base: float) -> float:
    cost = costs.find("serve", model, "memory")
    return 0.0 if cost is None else base + cost.at(counts)


def _faster(model: str, seconds: float, longest: float) -> str:
    if find(model).fits_by_engine:
        return "fit --engine spark on a cluster, or the latest sessions only (prepare --recent)"
    if issubclass(find(model), TrainedRecommender):
        workers = math.ceil(seconds / longest)
        if workers > _MOST_WORKERS:
            fewer = "the latest sessions only (prepare --recent), or fewer items (--min-support)"
            other = "; or gru4rec, whose loss draws items instead of scoring all of them"
            return fewer + ("" if model == "gru4rec" else other)
        return f"{workers:,} processes under torchrun, of a core each, if they shared it evenly, or GPUs"
    return "the latest sessions only (prepare --recent)"


def _smaller(model: str) -> str:
    if find(model).fits_by_engine:
        return (
            "fit --engine duckdb, which spills to disk (or --engine spark, on a cluster), a larger machine, "
            "or the latest sessions only (prepare --recent)"
        )
    if "dim" in {*vars(find(model))} or hasattr(find(model), "hidden"):
        return "fewer items (prepare --min-support), narrower vectors (dim, hidden), or a larger machine"
    return "the latest sessions only (prepare --recent), fewer items (--min-support), or a larger machine"


def _add(
    step: Step, costs: UnitCosts, quantity: str, counts: Counts, *,
    times: tuple[int, str] | None = None, cores: int = 1, base: tuple[float, str] = (0.0, ""),
) -> Cost | None:  # fmt: skip
    """Set one quantity of a step and write its arithmetic down; return the cost it comes from."""
    cost = costs.find(step.step, step.subject, quantity)
    if cost is None:
        return None
    show = duration if quantity == "seconds" else size
    factor = times[0] if times else 1
    value = base[0] + factor * cost.at(counts) / cores
    parts = [base[1]] if base[0] else []
    for term, unit in cost.units.items():
        of = {"fixed": "", "events": f" x {counts.events:,} events", "items": f" x {counts.items:,} items",
              "events*items": f" x {counts.events:,} events x {counts.items:,} items"}[term]  # fmt: skip
        parts.append(show(unit) + of)
    text = " + ".join(parts) or show(0)
    if (times or cores > 1) and len(parts) > 1:
        text = f"({text})"
    if times:
        text = f"{text} x {times[0]:,} {times[1]}"
    if cores > 1:
        text = f"{text} / {cores} cores"
    step.lines.append(Line(quantity, f"{text} = {show(value)}", value))
    setattr(step, quantity, value)
    return cost


def _limit(
    step: Step, cost: Cost, counts: Counts, limit: float, problem: str, *, times: float = 1, base: float = 0.0
) -> None:
    """Note a problem where a cost, so many times, is beyond a limit, and up to how many clicks it is not."""
    show = duration if cost.quantity == "seconds" else size
    if times * cost.at(counts) > limit:
        found = show(base + times * cost.at(counts))
        step.problems.append(problem.format(found=found, limit=show(base + limit)))
    until = min(_until(cost, counts, limit / times), math.inf if step.until is None else step.until)
    step.until = None if until == math.inf else until


def _until(cost: Cost, counts: Counts, limit: float) -> float:
    """Return up to how many clicks a cost stays below a limit, with as many items."""
    units = cost.units
    slope = units.get("events", 0.0) + units.get("events*items", 0.0) * counts.items
    rest = limit - units.get("fixed", 0.0) - units.get("items", 0.0) * counts.items
    return max(0.0, rest / slope) if slope > 0 else (math.inf if rest >= 0 else 0.0)


def duration(seconds: float) -> str:
    """Return a time as one reads it: 8.1 us, 0.36 ms, 12 s, 35 min, 2.1 h, 6.4 days."""
    for limit, unit, per in (
        (1e-6, "ns", 1e-9), (1e-3, "us", 1e-6), (1.0, "ms", 1e-3), (120.0, "s", 1.0), (7200.0, "min", 60.0),
        (172_800.0, "h", 3600.0), (3e8, "days", 86_400.0),
    ):  # fmt: skip
        if seconds < limit:
            return f"{_three(seconds / per)} {unit}"
    return f"{_three(seconds / 31_557_600)} years"


def size(number: float) -> str:
    """Return bytes as one reads them, in powers of ten: 40 bytes, 1.2 MB, 48 GB."""
    for limit, unit, per in (
        (1e3, "bytes", 1.0), (1e6, "kB", 1e3), (1e9, "MB", 1e6), (1e12, "GB", 1e9), (1e15, "TB", 1e12),
    ):  # fmt: skip
        if number < limit:
            return f"{_three(number / per)} {unit}"
    return f"{_three(number / 1e15)} PB"


def _three(value: float) -> str:
    """Return three digits, without a power of ten."""
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{float(f'{value:.3g}'):,.10g}"
