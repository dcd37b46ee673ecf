"""Fit the shape of real click logs, which ``nextclick generate`` draws from.

    python benchmarks/click_shape.py

Reads the training parts of yoochoose64 and diginetica (NEXTCLICK_DATA, or shared/data beside the checkout)
and writes src/nextclick/clickstream/shapes.json: the fitted power laws; how often a click stays near the last
one and how near that is, chosen from a grid so that a stream of as many clicks has as many different items in
a session and as many different steps from item to item; and what was measured on the log and on that stream.
"""

from __future__ import annotations

import datetime
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import nextclick
from data import ROOT, ready
from nextclick import Sessions
from nextclick.clickstream import Shape, StreamConfig, fit_shape
from nextclick.clickstream.drawing import stream

FOLLOW, AISLES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95), (16, 32, 48, 64, 96, 128, 192, 256)
FILE = ROOT / "src" / "nextclick" / "clickstream" / "shapes.json"


def told(sessions: Sessions) -> dict[str, Any]:
    """What shows the shape of a log, and how closely its items hang together."""
    support = np.sort(sessions.support())[::-1]
    last, following = sessions.items[:-1].astype(np.int64), sessions.items[1:]
    inside = np.ones(len(last), np.bool_)
    inside[sessions.offsets[1:-1] - 1] = False
    steps = (last * sessions.n_items + following)[inside]
    lengths = sessions.lengths
    of_item = sessions.session_of * sessions.n_items + sessions.items
    return {
        "sessions": len(sessions),
        "clicks": len(sessions.items),
        "items": int(np.count_nonzero(support)),
        "clicks_per_session": round(float(lengths.mean()), 3),
        "sessions_of_two_clicks": round(float((lengths == 2).mean()), 4),
        "longest_percent": int(np.percentile(lengths, 99)),
        "share_of_the_first_100_items": round(float(support[:100].sum() / support.sum()), 4),
        "share_of_the_first_tenth": round(float(support[: len(support) // 10].sum() / support.sum()), 4),
        "different_items_per_click": round(len(np.unique(of_item)) / len(of_item), 4),
        "different_steps_per_step": round(len(np.unique(steps)) / len(steps), 4),
    }


def drawn_from(shape: Shape, like: Sessions) -> Sessions:
    """As many clicks as there are, on as many items."""
    parts = list(stream(StreamConfig(events=len(like.items), shape=shape, items=like.n_items)))
    items, of = (np.concatenate([part[name] for part in parts]) for name in ("item_id", "session_id"))
    offsets = np.r_[0, np.flatnonzero(np.diff(of)) + 1, len(of)]
    codes = (items - 1).astype(np.int32)
    return replace(like, items=codes, offsets=offsets, times=np.arange(len(codes)))


def main() -> None:
    shapes = {}
    with tempfile.TemporaryDirectory() as work:
        for name in ("yoochoose64", "diginetica"):
            sessions = ready(name, Path(work)).train
            measured, laws = told(sessions), fit_shape(sessions)
            tried = [replace(laws, follow=follow, aisle=aisle) for follow in FOLLOW for aisle in AISLES]
            drawn = [told(drawn_from(shape, sessions)) for shape in tried]
            off = [
                sum(abs(np.log(one[what] / measured[what])) for what in ("different_items_per_click",
                    "different_steps_per_step")) for one in drawn
            ]  # fmt: skip
            best = int(np.argmin(off))
            shapes[name] = {"shape": tried[best].to_json(), "measured": measured, "drawn": drawn[best]}
            print(json.dumps(shapes[name], indent=2), flush=True)
    about = {
        "command": "python benchmarks/click_shape.py",
        "date": datetime.date.today().isoformat(),
        "nextclick": nextclick.__version__,
    }
    FILE.write_text(json.dumps({**about, "shapes": shapes}, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
