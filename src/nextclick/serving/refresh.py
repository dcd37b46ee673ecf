"""The daily refresh: the newest log prepared, a model fitted, and put in service only if it is not worse."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nextclick import artifact
from nextclick.dataset import Dataset
from nextclick.errors import ArtifactError, ConfigError
from nextclick.evaluation import evaluate
from nextclick.models import build, find
from nextclick.prepare import prepare
from nextclick.recommender import FitProgress, Recommender
from nextclick.results import Report
from nextclick.serving import onnx
from nextclick.serving.versions import Versions

METRIC = "recall@20"


@dataclass(frozen=True)
class Outcome:
    """What a refresh came to.

    published: the new version, None where the old one stays;  why: in words;  difference, low, high: of the
    new model's recall@20 less that of the one in service, with its interval, None without one in service;
    pairs: clicks of the newest day that were predicted.
    """

    published: str | None
    why: str
    difference: float | None
    low: float | None
    high: float | None
    pairs: int
    figures: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return asdict(self)


def refresh(
    log: Path,
    root: Path,
    model: str,
    settings: Mapping[str, Any] | None = None,
    *,
    holdout: str = "1d",
    margin: float = 0.005,
    force: bool = False,
    export: bool = False,
    columns: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda text: None,
    progress: FitProgress | None = None,
) -> Outcome:
    """Prepare the newest log, fit, compare with the version in service, and publish if it is not worse.

    log: as ``prepare`` takes it, or a prepared data set;  root: the folder of versions;  model, settings:
    what to fit;  holdout: the newest part that both are measured on;  margin: how much recall@20 may be lost
    at most: published is what the 95% interval of the difference, over sessions, reaches down to no further
    than -margin;  force: publish in any case;  export: add an ONNX export;  columns: options of ``prepare``.

    Both models are measured on the same clicks of the newest part, which neither has seen. What is published
    is then fitted again on everything, the newest part included. The model in service may know the newest
    part's beginning if it was fitted on it; it is then favoured, and the guard errs on its side.
    Raises ConfigError, DataError or ArtifactError; what is in service then stays.
    """
    find(model)
    if not 0 <= margin < 1:
        raise ConfigError(f"margin={margin}: expected a share from 0 to 1, for example 0.005")
    versions = Versions(root)
    with tempfile.TemporaryDirectory(prefix="nextclick-refresh-") as work:
        data = _data(log, Path(work) / "data", holdout, columns or {}, say)
        say(f"fitting {model} on {len(data.full):,} sessions")
        candidate = build(model, settings or {}, full=True).fit(data.full, progress=progress)
        in_service = _in_service(versions, say)
        named: dict[str, Recommender] = {"new": candidate}
        if in_service is not None:
            named["in service"] = in_service
        say(f"measuring on the newest {holdout}: {len(data.test):,} sessions")
        found = evaluate(named, data.test, k=20)
        outcome = _judged(found, margin, force)
        if outcome[0]:
            say(f"fitting {model} on all {len(data.sessions):,} sessions")
            final = build(model, settings or {}, full=True).fit(data.sessions, progress=progress)
            final.facts["refresh"] = {METRIC: found.models[0].metrics[METRIC], "pairs": found.pairs}
            saved = Path(work) / "model"
            final.save(saved)
            if export:
                onnx.export(saved)
            version = versions.publish(saved)
        figures = {result.name: result.metrics[METRIC] for result in found.models}
        return Outcome(version if outcome[0] else None, *outcome[1:], found.pairs, figures)


def _data(
    log: Path, out: Path, holdout: str, columns: Mapping[str, Any], say: Callable[[str], None]
) -> Dataset:
    if (log / "prepare.json").is_file():
        return Dataset.load(log, verify=True)
    say(f"preparing {log}")
    return prepare(log, out=out, holdout=holdout, validation="0", **columns)


def _in_service(versions: Versions, say: Callable[[str], None]) -> Recommender | None:
    """Open what a service answers with: the last version that opens, None where there is none."""
    for name in versions.known():
        try:
            return artifact.load(versions.directory(name))
        except ArtifactError as error:
            say(f"passed over in the comparison: {error}")
    return None


def _judged(
    found: Report, margin: float, force: bool
) -> tuple[bool, str, float | None, float | None, float | None]:
    """Return whether to publish, why, and the difference with its interval."""
    if len(found.models) == 1:
        return True, "nothing was in service", None, None, None
    comparison = next(one for one in found.comparisons if one.metric == METRIC)
    difference, low, high = comparison.difference, comparison.low, comparison.high
    said = f"recall@20 differs by {difference:+.4f} ({low:+.4f} to {high:+.4f})"
    if low >= -margin:
        return True, f"{said}: not worse by more than {margin:g}", difference, low, high
    if force:
        return True, f"{said}: published by force", difference, low, high
    return False, f"{said}: it may be worse by more than {margin:g}", difference, low, high
