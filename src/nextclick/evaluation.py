"""The evaluation protocol: every click of every test session but the first, all training items ranked.

Of data with a target event only the clicks of that event are predicted, from the last clicks before each.
Each model answers the same queries. Nothing is sampled, nothing is cut: a target that no model knows is a
miss unless it is asked to be dropped, and tied scores count as their expectation.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nextclick import metrics, settings
from nextclick.answers import Answer, Asked, answer
from nextclick.dataset import Dataset
from nextclick.errors import ConfigError, nearest
from nextclick.events import Events, cut
from nextclick.features import Features
from nextclick.filters import Filter
from nextclick.metrics import TieRule
from nextclick.recommender import Recommender
from nextclick.results import Comparison, ModelResult, Protocol, Report, Slice
from nextclick.sessions import UNKNOWN, ItemId, Queries, Sessions

Progress = Callable[[str, int, int], None]
"""Called with (model name, done, total) while a model answers."""

PREFIX_LENGTHS = (1, 2, 3, 4, 5, 6, 11, 21)
MANY_TIES = 0.005  # optimistic minus pessimistic recall beyond which the report speaks of ties


def evaluate(
    models: Sequence[Recommender] | Mapping[str, Recommender],
    test: Sessions | Dataset,
    *,
    k: int | Sequence[int] = (1, 5, 10, 20),
    protocol: Protocol = "next",
    unseen: Literal["miss", "drop", "features"] = "miss",
    features: Features | None = None,
    candidates: int | None = None,
    ties: TieRule = "expected",
    filter: Filter | None = None,
    prefix_lengths: Sequence[int] = PREFIX_LENGTHS,
    dataset: str | None = None,
    paths: Mapping[str, str] | None = None,
    kept: Mapping[str, Path] | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Measure fitted models on test sessions and compare them with each other.

    models: a list, or a mapping that names them;  test: sessions, or a data set whose test part is used;
    k: list lengths;  protocol: "next" measures the next click (recall, MRR, NDCG), "remaining" also all
    items still to come (precision, remaining_recall, MAP);  unseen: what a click on an item unknown to
    every model counts as; "features": the models that read features get to know the items that are new in
    ``features``, and rank them too, what remains unknown is a miss;  candidates: rank against the N most
    clicked items only, which overestimates (as Hidasi et al., RecSys 2016, sec. 4 did for one data set),
    with the protocol "next";  ties: expected, or the best or worst order of equals;  filter: rules that
    every listed item must meet, bound to any of the models; a target that does not is a miss;
    prefix_lengths: where the parts by length of the prefix begin, from 1; n_resamples, seed: of the
    bootstrap over sessions;  dataset, paths: the names of the data and the directories of the models, by
    their names, as the report shows them;  kept: files, by the names of the models, that keep what each
    answered: one that is of the same events and measures is read, and the model not asked again;
    progress: called as ``Progress`` says.
    Raises DataError when there is nothing to measure and ConfigError for options that make no sense.
    """
    if isinstance(test, Dataset):
        dataset, test = dataset or test.name, test.test
    _choose("protocol", protocol, get_args(Protocol))
    _choose("unseen", unseen, ("miss", "drop", "features"))
    if (unseen == "features") != (features is not None):
        raise ConfigError("unseen='features' and features of the new items go together: --features DIR")
    _choose("ties", ties, get_args(TieRule))
    if candidates is not None and protocol == "remaining":
        raise ConfigError("candidates: only with protocol 'next'; the items still to come need all items")
    if n_resamples < 1:
        raise ConfigError(f"n_resamples={n_resamples}: expected at least 1")
    if list(prefix_lengths) != sorted(set(prefix_lengths)) or next(iter(prefix_lengths), 0) != 1:
        raise ConfigError(f"prefix_lengths={prefix_lengths}: expected rising lengths that begin with 1")
    named = _named(models)
    ks = (k,) if isinstance(k, int) else tuple(sorted(set(k)))
    if not ks or ks[0] < 1:
        raise ConfigError(f"k={k}: expected list lengths of at least 1, for example 20")
    if not named:
        raise ConfigError("no model to evaluate: give at least one fitted recommender")
    if features is not None:
        named = _with_items(named, features)
    translations = {name: _translation(model, test) for name, model in named.items()}
    events, unseen_pairs = cut(test, list(translations.values()), protocol, unseen, prefix_lengths)
    asked = Asked(ks, protocol, candidates, ties)
    answers = {}
    for name, model in named.items():
        tell = None if progress is None else (lambda done, total, name=name: progress(name, done, total))
        of_model = _translated(events, translations[name])
        bound = None if filter is None else filter.bound_to(model.vocabulary)
        answers[name] = answer(model, of_model, asked, bound, tell, (kept or {}).get(name))
    # All models meet the same resampled sessions, so that their differences are paired.
    values = np.concatenate([answer.values for answer in answers.values()], axis=1)
    means = metrics.resampled_means(values, events.session, n_resamples, seed)
    samples = dict(zip(answers, np.split(means, len(answers), axis=1), strict=True))
    results = []
    for name, model in named.items():
        p50, p99 = _latency(model, events.queries, translations[name], answers[name].filter)
        result = _result(model, answers[name], samples[name], events)
        path = (paths or {}).get(name, "")
        results.append(replace(result, name=name, path=path, latency_p50_ms=p50, latency_p99_ms=p99))
    notes = _notes(results, candidates, unseen, unseen_pairs, len(events), ks[-1])
    if filter is not None:
        notes = (_note_of_rules(filter, results, len(events)), *notes)
    return Report(
        dataset=dataset or "sessions",
        pairs=len(events),
        sessions=len(np.unique(events.session)),
        k=ks,
        protocol=protocol,
        unseen=unseen,
        unseen_pairs=unseen_pairs,
        candidates=candidates,
        ties=ties,
        n_items=max(model.n_items for model in named.values()),
        models=tuple(results),
        comparisons=tuple(_compare(results, answers, samples, ks[-1])),
        notes=notes,
        target_event=test.target_name,
        target_clicks=test.target_clicks,
        rules=() if filter is None else tuple(map(str, filter.rules.rules)),
    )


def _choose(option: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        there_are = ", ".join(allowed)
        raise ConfigError(f"{option}={value!r}: choose one of {there_are}{nearest(str(value), allowed)}")


def _named(models: Sequence[Recommender] | Mapping[str, Recommender]) -> dict[str, Recommender]:
    if isinstance(models, Mapping):
        return dict(models)
    named: dict[str, Recommender] = {}
    for model in models:
        name = model.name
        for n in itertools.count(2):
            if name not in named:
                break
            name = f"{model.name} ({n})"
        named[name] = model
    return named


def _with_items(models: Mapping[str, Recommender], features: Features) -> dict[str, Recommender]:
    """Let the models that read features know the new items. Raises ConfigError where none does."""
    if not any(model.takes_new_items for model in models.values()):
        raise ConfigError(
            "unseen='features': none of the models was fitted with item features; fit a network with "
            "--features, or count clicks on new items as misses"
        )
    return {
        name: model.with_items(features) if model.takes_new_items else model for name, model in models.items()
    }


def _translation(model: Recommender, test: Sessions) -> NDArray[np.int32]:
    """The model's code of each item code of the test vocabulary, UNKNOWN where it has none."""
    theirs, ours = test.vocabulary.first(model.n_items).to_arrays(), model.vocabulary.to_arrays()
    if ours.keys() == theirs.keys() and all(np.array_equal(ours[name], theirs[name]) for name in ours):
        codes = np.arange(len(test.vocabulary), dtype=np.int32)
        codes[model.n_items :] = UNKNOWN
        return codes
    return model.vocabulary.codes_of(test.vocabulary.ids_of(range(len(test.vocabulary))))


def _translated(events: Events, codes: NDArray[np.int32]) -> Events:
    queries = Queries(codes[events.queries.items], events.queries.starts, events.queries.ends)
    return replace(events, queries=queries, targets=codes[events.targets])


def _result(model: Recommender, answer: Answer, means: NDArray[np.float64], events: Events) -> ModelResult:
    """Sum up an answer, with intervals from its resampled means [n_resamples, n_columns]."""
    low, high = metrics.interval(means)
    reached = dict(zip(answer.columns, answer.values.mean(axis=0).tolist(), strict=True))
    by_kind: dict[str, list[Slice]] = {}
    for kind, label, rows in events.slices:
        part = dict(zip(answer.columns, answer.values[rows].mean(axis=0).tolist(), strict=True))
        by_kind.setdefault(kind, []).append(Slice(label, int(rows.sum()), part))
    effect = answer.effect
    return ModelResult(
        name="",
        path="",
        model=model.name,
        settings=settings.values_of(model),
        metrics={**reached, **answer.shown},
        intervals=dict(zip(answer.columns, zip(low.tolist(), high.tolist(), strict=True), strict=True)),
        slices=by_kind,
        predictions_per_second=len(events) / answer.seconds,
        latency_p50_ms=0.0,
        latency_p99_ms=0.0,
        items_left=None if effect is None else float(effect.left.mean()),
        targets_forbidden=None if effect is None else int(effect.forbidden.sum()),
        features=tuple(model.facts.get("features", {}).get("read", {}).values()),
    )


def _latency(
    model: Recommender, queries: Queries, codes: NDArray[np.int32], filter: Filter | None, n: int = 300
) -> tuple[float, float]:
    """Milliseconds of one request, p50 and p99, over up to n test prefixes: own ids in, list of 20 out."""
    chosen = np.linspace(0, len(queries) - 1, min(n, len(queries))).astype(np.int64)
    prefixes: list[list[ItemId]] = []
    for i in chosen.tolist():
        prefix = codes[queries.prefix(i)]
        prefixes.append(model.vocabulary.ids_of(prefix[prefix != UNKNOWN]))
    for prefix_ids in prefixes[:5]:
        model.recommend(prefix_ids, 20, filter=filter)
    times = []
    for prefix_ids in prefixes:
        start = time.perf_counter()
        model.recommend(prefix_ids, 20, filter=filter)
        times.append((time.perf_counter() - start) * 1000)
    p50, p99 = np.percentile(times, [50, 99])
    return float(p50), float(p99)


def _compare(
    results: list[ModelResult],
    answers: Mapping[str, Answer],
    samples: Mapping[str, NDArray[np.float64]],
    k: int,
) -> Iterator[Comparison]:
    """Compare every two models in recall and MRR at the largest k, on the same resampled sessions."""
    for metric in (f"recall@{k}", f"mrr@{k}"):
        for first, second in itertools.combinations(results, 2):
            column = answers[first.name].columns.index(metric)
            differences = samples[first.name][:, column] - samples[second.name][:, column]
            low, high = metrics.interval(differences)
            difference = first.metrics[metric] - second.metrics[metric]
            p = float(metrics.two_sided_p(differences))
            yield Comparison(first.name, second.name, metric, difference, float(low), float(high), p)


def _notes(
    results: list[ModelResult], candidates: int | None, unseen: str, unseen_pairs: int, pairs: int, k: int
) -> tuple[str, ...]:
    notes = []
    if candidates is not None:
        notes.append(
            f"Ranked against the {candidates:,} most clicked items only: these figures overestimate, and do "
            "not compare with a full ranking."
        )
    if unseen_pairs:
        share = f"{unseen_pairs:,} of {pairs + (unseen_pairs if unseen == 'drop' else 0):,} clicks"
        done = "left out" if unseen == "drop" else "counted as misses"
        notes.append(f"{share} went to items unknown to every model; they are {done}.")
    spreads = {result.name: result.metrics[f"tie_spread@{k}"] for result in results}
    many = [f"{name} {spread:.3f}" for name, spread in spreads.items() if spread > MANY_TIES]
    if many:
        notes.append(
            f"Many ties: between the best and the worst order of equally scored items, recall@{k} would be "
            f"this far apart: {', '.join(many)}. The figures are the expectation over all orders."
        )
    return tuple(notes)


def _note_of_rules(filter: Filter, results: list[ModelResult], pairs: int) -> str:
    """Say which rules were in force and what they do, once where they do the same to all models."""
    said = {
        result.name: f"{result.items_left:,.1f} items on average and forbid {result.targets_forbidden:,} of "
        f"{pairs:,} targets"
        for result in results
    }
    each = "; ".join(f"to {name} {left}" for name, left in said.items())
    left = next(iter(said.values())) if len(set(said.values())) == 1 else each
    return (
        f"Rules were in force, and only items that meet them were ranked: {filter.rules}. They leave {left}, "
        "which count as misses."
    )
