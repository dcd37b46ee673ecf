"""Do online experiments find what there is, and nothing where there is nothing?

    python benchmarks/online_trials.py     # about 2 minutes

1,000 A/A tests, and 1,000 with a true uplift of 2.84% in the click-through rate, over sessions of the demo
shop's simulated visitors who are shown the lists of vs-knn. Sessions are drawn with replacement for each test
and assigned by the service's own hash, with another salt each time.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import nextclick
from data import write
from nextclick.online.records import read_records
from nextclick.online.statistics import Arm, compare
from nextclick.online.trial import Trial, place
from nextclick.online.visitors import Visits, answers_of, simulate
from nextclick.shop import ShopConfig
from nextclick.shop import simulate as shop

SEED = 1


def main() -> None:
    with tempfile.TemporaryDirectory() as work:
        write("online_trials", {"seed": SEED, **trials(Path(work))})


def trials(work: Path) -> dict[str, Any]:
    """A/A tests and tests of a true uplift, over sessions of simulated visitors."""
    log = work / "shop"
    if not log.exists():
        shop(ShopConfig()).write(log, thumbnails=False)
        nextclick.prepare(log / "clicks.parquet", out=work / "shop-data", event="event", holdout="3d")
    fitted = nextclick.VSKNN().fit(nextclick.Dataset.load(work / "shop-data").full)
    both = [{"name": name, "model": "m", "share": 0.5} for name in "ab"]
    records = work / "records"
    shutil.rmtree(records, ignore_errors=True)
    simulate(
        Trial.of({"name": "aa", "variant": both}),
        answers_of({"m": fitted}, 20),
        records,
        None,
        Visits(30_000),
    )
    seen = read_records(records, "aa", ["a", "b"])
    n = np.bincount(seen.session).astype(float)
    c = np.bincount(seen.session, weights=seen.clicked)
    rate = c.sum() / n.sum()
    rng = np.random.default_rng(SEED)
    rejected = 0
    for test in range(1000):
        drawn = rng.integers(0, len(n), 4000)
        variant = np.array([place(f"salt-{test}", f"s{row}", (0.5, 0.5)) for row in range(4000)])
        arms = [Arm.from_sessions(n[drawn[variant == v]], c[drawn[variant == v]]) for v in (0, 1)]
        rejected += compare(*arms).p < 0.05
    raised, size, found, said = 0.0284, 60_000, 0, []
    more = raised * rate / (1 - rate)  # chance that a list without a click gets one
    for _ in range(1000):
        a, b = rng.integers(0, len(n), (2, size))
        other = c[b] + rng.binomial((n[b] - c[b]).astype(int), more)
        test = compare(Arm.from_sessions(n[a], c[a]), Arm.from_sessions(n[b], other))
        found += test.p < 0.05 and test.relative > 0
        said.append(test.power(raised))
    return {
        "sessions_simulated": len(n), "ctr": round(rate, 4),
        "aa": {"tests": 1000, "sessions_each": 4000, "rejected_at_5_percent": rejected / 1000},
        "uplift": {
            "true": raised, "tests": 1000, "sessions_per_variant": size, "found": found / 1000,
            "power_reported": round(float(np.mean(said)), 4),
        },
    }  # fmt: skip


if __name__ == "__main__":
    main()
