"""Unit costs of all steps and models on this machine, as ``nextclick plan`` ships them.

    python benchmarks/unit_costs.py                  all: src/nextclick/plan/unit_costs.json
    python benchmarks/unit_costs.py narm gru4rec     these anew, the others as they stand

Each engine and model runs in a process of its own, over four sizes of synthetic logs (their shape is written
into the file), models for one epoch. What was measured stands in the file beside the unit costs that were
fitted to it. The file is written after each subject, so a run that was stopped goes on with the rest named.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

from data import ROOT
from nextclick.errors import ArtifactError
from nextclick.plan.costs import Cost, UnitCosts
from nextclick.plan.measuring import measure, subjects_here

FILE = ROOT / "src" / "nextclick" / "plan" / "unit_costs.json"


def main() -> None:
    every = subjects_here()
    wanted = sys.argv[1:] or every
    for subject in wanted:
        start = time.perf_counter()
        found = measure([subject], quick=False, command="python benchmarks/unit_costs.py")
        kept = [cost for cost in _there() if cost.subject != subject]
        order = sorted([*kept, *found.costs], key=lambda cost: every.index(cost.subject))
        replace(found, costs=tuple(order)).write(FILE)
        print(f"{subject}: {time.perf_counter() - start:.0f} s", flush=True)
        for cost in found.costs:
            print(f"  {cost.step} {cost.quantity}: {dict(cost.units)}, within {cost.error:.0%}", flush=True)


def _there() -> tuple[Cost, ...]:
    try:
        return UnitCosts.read(FILE).costs
    except ArtifactError:
        return ()


if __name__ == "__main__":
    main()
