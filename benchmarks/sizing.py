"""Memory and lists a second of one replica, by the size of the catalogue: results/sizing.json.

    python benchmarks/sizing.py
    python benchmarks/sizing.py gru4rec               one model anew, the others as they stand
    python benchmarks/sizing.py --work FOLDER         keeps each row; the next run goes on behind it

Models are fitted on the synthetic sessions of ``nextclick plan``: vs-knn and item-knn on ten clicks for each
item, gru4rec with its defaults for one epoch of 20,000 clicks, which does not change its size. Each is served
by ``nextclick serve`` with one worker, the cache off, sessions in memory, and asked for 20 items after three
clicks by 4 connections for 8 s as fast as it answers. Lists a second are for each core second that the
server has worked, so other work on the machine and the load generator do not count: it is what a core gives
that does nothing else. Memory is resident when the load is over.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import nextclick
from data import RESULTS, Kept, work_option, write
from load import load
from nextclick.plan import logs
from nextclick.plan.costs import Counts
from serving import Server

SIZES = (10_000, 100_000, 1_000_000)
MODELS = ("item-knn", "vs-knn", "gru4rec")
CLICKS = 20_000  # of the training of a network


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(MODELS))
    work_option(parser)
    arguments = parser.parse_args()
    if unknown := set(arguments.models) - set(MODELS):
        parser.error(f"no model {min(unknown)!r}: there are {', '.join(MODELS)}")
    file, wanted = RESULTS / "sizing.json", arguments.models or list(MODELS)
    there = json.loads(file.read_text("utf-8"))["rows"] if arguments.models and file.exists() else []
    rows = [row for row in there if row["model"] not in wanted]
    with tempfile.TemporaryDirectory() as folder:
        kept = Kept((arguments.work or Path(folder)) / "rows.json")
        for items, name in itertools.product(SIZES, wanted):
            with tempfile.TemporaryDirectory() as work:
                rows.append(
                    kept.get(f"{name} {items}", lambda n=name, i=items, w=work: measured(n, i, Path(w)))
                )
    rows.sort(key=lambda row: (MODELS.index(row["model"]), row["items"]))
    command = " ".join(["python benchmarks/sizing.py", *arguments.models])
    write("sizing", {"command": command, "k": 20, "clicks_of_a_question": 3, "sizes": SIZES, "rows": rows})


def measured(name: str, items: int, work: Path) -> dict[str, Any]:
    """Serve one model on a catalogue of a size and ask it."""
    path, events = work / name, 10 * items if name != "gru4rec" else CLICKS
    values = {"epochs": 1} if name == "gru4rec" else {}
    nextclick.build(name, values).fit(logs.sessions(Counts(events, items))).save(path)
    found: dict[str, Any] = {"model": name, "items": items, "clicks": events}
    server = Server(str(path), "--workers", "1", "--cache", "0", "--store", "memory")
    try:
        server.wait()
        asked = questions(items)
        load(server.port, "/v1/recommend", asked, seconds=2, connections=4)
        before = worked(server)
        outcome = load(server.port, "/v1/recommend", asked, seconds=8, connections=4)
        seconds = worked(server) - before
        figures = outcome.figures()
        assert figures["errors"] == figures["broken_connections"] == 0, figures
        found |= {
            "resident_mb": round(server.memory()),
            "lists_per_core_second": round(figures["requests"] / seconds, 1),
            "core_ms_per_list": round(1e3 * seconds / figures["requests"], 3),
            "load_average": round(os.getloadavg()[0], 2),
        }
    finally:
        server.stop()
    return found


def questions(items: int) -> Iterator[tuple[str, bytes]]:
    """Yield sessions of three clicks, as the training ones are."""
    made = logs.sessions(Counts(20_000, items))
    starts = np.linspace(0, len(made.items) - 3, 5000).astype(np.int64)
    bodies = [json.dumps({"items": made.items[at : at + 3].tolist(), "k": 20}).encode() for at in starts]
    return (("", body) for body in itertools.cycle(bodies))


def worked(server: Server) -> float:
    """Return the seconds that the cores have worked for the server's processes."""
    total = 0
    for pid in {server.process.pid, *server.workers()}:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    start = time.perf_counter()
    main()
    print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr)
