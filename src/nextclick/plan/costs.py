"""Unit costs: seconds and bytes per event, per item and per both, fitted to what was measured."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from nextclick.errors import ArtifactError
from nextclick.files import write_json

FORMAT = "nextclick-unit-costs"
FORMAT_VERSION = 1
TERMS = ("fixed", "events", "items", "events*items")
"""What a cost may grow with: nothing, the clicks of the log, its items, or the product of both."""
QUANTITIES = ("seconds", "memory", "disk")
_SLIGHT = 1e-4  # share of every measurement below which a term is left out
_SHIPPED = "unit_costs.json"


@dataclass(frozen=True)
class Counts:
    """The size of a log: clicks and items."""

    events: int
    items: int

    def of(self, term: str) -> int:
        """Return the number that the unit cost of a term is multiplied with."""
        return {
            "fixed": 1, "events": self.events, "items": self.items, "events*items": self.events * self.items,
        }[term]  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """What one step takes of one thing: the sum of unit costs times counts.

    step: "process" (the memory of a process that has done nothing yet), "prepare", "fit", "evaluate" or
    "serve";  subject: a model, or the engine of "prepare";  quantity:
    "seconds", "memory" or "disk" (bytes);  units: unit cost by term of TERMS;  measured: (events, items,
    value) of every measurement;  error: largest relative difference between a measurement and its estimate.
    Seconds are those of one core; of one epoch for a model that has epochs, of one predicted click for
    "evaluate", of one list for "serve".
    """

    step: str
    subject: str
    quantity: str
    units: Mapping[str, float]
    measured: Sequence[tuple[int, int, float]]
    error: float

    def at(self, counts: Counts) -> float:
        """Return the cost at a size, in seconds or bytes."""
        return sum(unit * counts.of(term) for term, unit in self.units.items())


@dataclass(frozen=True)
class UnitCosts:
    """All costs of one machine.

    about: date, processor, cores, memory (bytes), version, command and the shape of the logs measured with.
    """

    about: Mapping[str, Any]
    costs: tuple[Cost, ...]

    def find(self, step: str, subject: str, quantity: str) -> Cost | None:
        """Return one cost, None where it was not measured."""
        for cost in self.costs:
            if (cost.step, cost.subject, cost.quantity) == (step, subject, quantity):
                return cost
        return None

    @property
    def models(self) -> tuple[str, ...]:
        """The models that were measured, in order."""
        return tuple(dict.fromkeys(cost.subject for cost in self.costs if cost.step == "fit"))

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that preparation was measured on, in order."""
        return tuple(dict.fromkeys(cost.subject for cost in self.costs if cost.step == "prepare"))

    def write(self, path: Path) -> None:
        """Write as JSON, aside first."""
        costs = [{**asdict(cost), "measured": [list(row) for row in cost.measured]} for cost in self.costs]
        write_json(path, {"format": FORMAT, "format_version": FORMAT_VERSION, **self.about, "costs": costs})

    @classmethod
    def read(cls, path: Path) -> UnitCosts:
        """Read a file that ``write`` wrote. Raises ArtifactError when it is missing, damaged or foreign."""
        try:
            return cls._of(json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            raise ArtifactError(
                f"{path}: no such file; measure this machine with: nextclick plan --measure --costs {path}"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ArtifactError(
                f"{path}: not unit costs of this version of nextclick ({error!r}); measure them again with: "
                f"nextclick plan --measure --costs {path}"
            ) from error

    @classmethod
    def shipped(cls) -> UnitCosts:
        """Return the costs that come with the package."""
        return cls._of(json.loads(resources.files("nextclick.plan").joinpath(_SHIPPED).read_text("utf-8")))

    @classmethod
    def _of(cls, content: dict[str, Any]) -> UnitCosts:
        if content["format"] != FORMAT or content["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format {content['format']!r}, version {content['format_version']!r}")
        costs = []
        for row in content["costs"]:
            measured = tuple(
                (int(events), int(items), float(value)) for events, items, value in row["measured"]
            )
            cost = Cost(**{**row, "measured": measured, "units": dict(row["units"])})
            if not set(cost.units) <= set(TERMS) or cost.quantity not in QUANTITIES or not measured:
                raise ValueError(f"{cost.step} of {cost.subject} has units or measurements that are unknown")
            if not all(np.isfinite(unit) and unit >= 0 for unit in cost.units.values()):
                raise ValueError(f"{cost.step} of {cost.subject} has a unit cost below zero")
            costs.append(cost)
        about = {name: content[name] for name in ("date", "processor", "cores", "memory", "command")}
        rest = {
            name: value
            for name, value in content.items()
            if name not in ("format", "format_version", "costs")
        }
        return cls({**about, **rest}, tuple(costs))


def fitted(
    step: str, subject: str, quantity: str, terms: Iterable[str],
    measured: Sequence[tuple[Counts, float]],
) -> Cost:  # fmt: skip
    """Return the unit costs, none below zero, whose estimates differ least from the measurements.

    Least squares of the relative differences, over all subsets of the terms: those whose solution has a
    negative unit are left out, which is the exact solution for so few terms.
    """
    values = np.array([max(value, 1e-12) for _, value in measured])
    best: tuple[float, dict[str, float]] = (np.inf, {})
    names = list(terms)
    for size in range(1, len(names) + 1):
        for subset in itertools.combinations(names, size):
            counts = np.array([[of.of(term) for term in subset] for of, _ in measured], np.float64)
            relative = counts / values[:, None]
            scale = np.linalg.norm(relative, axis=0)
            solution = np.linalg.lstsq(relative / scale, np.ones(len(values)), rcond=None)[0] / scale
            left = float(np.square(relative @ solution - 1).sum())
            if (solution >= 0).all() and left < best[0] - 1e-12:
                best = left, dict(zip(subset, solution.tolist(), strict=True))
    shares = {term: max(unit * of.of(term) / value for (of, _), value in zip(measured, values, strict=True))
              for term, unit in best[1].items()}  # fmt: skip
    kept = [term for term, share in shares.items() if share > _SLIGHT]
    if 0 < len(kept) < len(names):
        return fitted(step, subject, quantity, kept, measured)
    units = {term: float(f"{unit:.6g}") for term, unit in best[1].items() if unit > 0}
    rows = tuple((of.events, of.items, float(f"{value:.6g}")) for of, value in measured)
    cost = Cost(step, subject, quantity, units, rows, 0.0)
    differences = [abs(cost.at(of) - value) / max(value, 1e-12) for of, value in measured]
    return Cost(step, subject, quantity, units, rows, float(f"{max(differences):.3g}"))
