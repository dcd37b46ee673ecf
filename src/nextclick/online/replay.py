"""A prepared log played back through an experiment: what its sessions would have been shown.

A list counts as clicked when the item that the session clicked next, whatever led it there, is among the
items shown. The visitors never saw these lists, so this is no click-through rate: it says which variant
foresees more of what was clicked without it, as recall does, with the figures of an online experiment.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nextclick.errors import DataError
from nextclick.online.records import Recorder
from nextclick.online.trial import Trial
from nextclick.online.visitors import Answers
from nextclick.sessions import ItemId, Sessions

_TOGETHER = 2048  # lists that are made at once


def replay(
    trial: Trial,
    answers: Answers,
    recorder: Recorder,
    sessions: Sessions,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Show a list before every click that is to be predicted, in the order of time, and record it.

    answers: as for ``simulate``;  sessions: with real times, such as the test part of prepared data. The n-th
    session is named "session-n".  progress: told how many lists were shown, and of how many.
    Returns the lists shown.  Raises DataError for sessions whose clicks have no time, or none to predict.
    """
    if not sessions.clock:
        raise DataError("these sessions have no times, only an order; a replay takes place in time")
    queries, targets = sessions.pairs()
    if len(targets) == 0:
        raise DataError("no click of these sessions is to be predicted: nothing can be replayed")
    of, times = sessions.session_of[targets], sessions.times[targets - 1]  # a list follows the click before
    order = np.argsort(times, kind="stable")
    ids = sessions.vocabulary.ids_of
    for low in range(0, len(order), _TOGETHER):
        some = order[low : low + _TOGETHER]
        names = [f"session-{session}" for session in of[some].tolist()]
        variants = [trial.variant_of(name) for name in names]
        lists: list[list[ItemId]] = [[] for _ in some]
        for variant in trial.variants:
            rows = [row for row, chosen in enumerate(variants) if chosen is variant]
            if rows:
                asked = [ids(queries.prefix(int(some[row]))) for row in rows]
                for row, listed in zip(rows, answers(variant, asked), strict=True):
                    lists[row] = listed
        wanted = ids(sessions.items[targets[some]])
        for row, pair in enumerate(some.tolist()):
            name, variant_name, at = names[row], variants[row].name, float(times[pair]) / 1e6
            request = f"{name}.{int(targets[pair] - sessions.offsets[of[pair]])}"
            recorder.shown(trial.name, name, variant_name, request, lists[row], {}, at=at)
            if wanted[row] in lists[row]:
                recorder.clicked(trial.name, name, request, request, wanted[row], {}, at=at)
        if progress is not None:
            progress(low + len(some), len(order))
    return len(order)
