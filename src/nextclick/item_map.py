"""A map of the items: their vectors laid out on a plane, as one HTML page that needs nothing else."""

from __future__ import annotations

from collections import Counter
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import ConfigError, DataError, MissingExtraError
from nextclick.files import new_file
from nextclick.filters import ItemTable
from nextclick.nearest import space_of
from nextclick.recommender import Recommender
from nextclick.report import numbers
from nextclick.report.markup import Html, element, items, join, paragraph
from nextclick.sessions import UNKNOWN, ItemId, Vocabulary

_COLOURS = 8  # those that a reader can tell apart; the rarer values share a grey
_WIDTH, _HEIGHT, _EDGE = 960, 640, 12  # of the picture, in its own units
_STYLE = """
svg.map { width: 100%; height: auto; border: 1px solid var(--grid); background: var(--paper); }
svg.map circle { fill: var(--muted); fill-opacity: 0.65; }
svg.map circle:hover { fill-opacity: 1; stroke: var(--ink); stroke-width: 1.5; }
svg.map circle.around { stroke: var(--ink); stroke-width: 2.5; fill-opacity: 1; }
ul.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0.3rem 1.2rem; padding: 0; }
ul.legend li { white-space: nowrap; }
ul.legend svg { display: inline; width: 0.8em; height: 0.8em; margin-right: 0.4em; }
"""


def write(
    model: Recommender,
    path: str | Path,
    *,
    projection: str = "pca",
    most: int = 3000,
    items: ItemTable | None = None,
    colour: str | None = None,
    around: ItemId | None = None,
) -> None:
    """Write the page; an older file is replaced once the new one is complete. Equal input, equal file.

    projection: "pca", the two axes along which the vectors differ most, or "tsne", which keeps near items
    near and says nothing of far ones;  most: how many items are drawn, the most clicked;  items, colour: a
    table and its attribute that colours them;  around: an item to mark.
    Raises ConfigError when the model has no item vectors or fewer than 3 items, or the projection is none of
    the two; DataError for an attribute or item that is not there; MissingExtraError for "tsne" without
    scikit-learn.
    """
    content = page(model, projection=projection, most=most, items=items, colour=colour, around=around)
    with new_file(Path(path)) as aside:
        aside.write_text(content, "utf-8", newline="\n")


def page(
    model: Recommender,
    *,
    projection: str = "pca",
    most: int = 3000,
    items: ItemTable | None = None,
    colour: str | None = None,
    around: ItemId | None = None,
) -> str:
    """Return the HTML that ``write`` writes."""
    space = space_of(model)
    if model.n_items < 3:
        raise ConfigError(f"{model.name} knows {model.n_items} items; a map needs at least 3")
    shown = np.arange(min(most, model.n_items))
    marked = UNKNOWN if around is None else int(model.vocabulary.codes_of([around])[0])
    if around is not None and marked == UNKNOWN:
        raise DataError(f"item {around!r} is not one of the {model.n_items:,} that the model knows")
    if marked >= len(shown):
        shown = np.r_[shown, marked]
    vectors = space.vectors[shown].astype(np.float64)
    if space.likeness == "product":  # near by the cosine
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    values = _values(items, colour, model.vocabulary, shown)
    if projection == "pca":
        places, share = principal(vectors)
        how = f"the two directions in which the vectors differ most, {share:.0%} of their variance"
    elif projection == "tsne":
        places, how = _tsne(vectors), "t-SNE: near items are alike, distances between groups mean nothing"
    else:
        raise ConfigError(f"projection={projection!r}: choose one of pca, tsne")
    title = f"{numbers.plural(len(shown), 'item')} of {model.name}"
    ids = [str(item) for item in model.vocabulary.ids_of(shown)]
    ranked = [value for value, _ in Counter(v for v in values if v is not None).most_common(_COLOURS)]
    parts = [
        paragraph("nextclick item map", class_="kicker"),
        element("h1", title),
        paragraph(f"Laid out by {how}.", class_="about"),
        _picture(
            places, ids, values, ranked, int(np.flatnonzero(shown == marked)[0]) if around is not None else -1
        ),
    ]
    if colour is not None:
        parts.append(_legend(colour, values, ranked))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element(
            "style",
            Html(resources.files("nextclick.report").joinpath("page.css").read_text("utf-8") + _STYLE),
        ),
    )
    return f"<!DOCTYPE html>\n{element('html', head, element('body', element('main', *parts)), lang='en')}\n"


def principal(vectors: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return vectors [N, D] along their two principal axes, [N, 2], and the share of variance that shows.

    Of the two directions that an axis could have, the one in which its largest weight is positive.
    """
    centred = vectors - vectors.mean(axis=0)
    strengths, axes = np.linalg.eigh(centred.T @ centred)  # ascending
    axes = axes[:, ::-1][:, :2]
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    found = np.zeros((len(vectors), 2))
    found[:, : axes.shape[1]] = centred @ axes
    total = strengths.sum()
    return found, float(strengths[-2:].sum() / total) if total > 0 else 1.0


def _tsne(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise MissingExtraError("a map by t-SNE", "map") from None
    near = min(30.0, (len(vectors) - 1) / 3)
    found: NDArray[np.float64] = TSNE(2, perplexity=near, init="pca", random_state=1).fit_transform(
        vectors.astype(np.float32)
    )
    return found


def _values(
    items: ItemTable | None, colour: str | None, vocabulary: Vocabulary, shown: NDArray[np.int64]
) -> list[str | None]:
    """Return the attribute of each item shown as text, None where there is none."""
    values: list[str | None] = [None] * len(shown)
    if items is None or colour is None:
        return values
    column, codes = items.column(colour), vocabulary.codes_of(items.ids.tolist())
    place = {int(code): n for n, code in enumerate(shown)}
    found = np.asarray(column.values).tolist()
    for code, value, present in zip(codes.tolist(), found, column.present.tolist(), strict=True):
        if present and code in place:
            values[place[code]] = f"{value:g}" if isinstance(value, float) else str(value)
    return values


def _picture(
    places: NDArray[np.float64], ids: list[str], values: list[str | None], ranked: list[str], marked: int
) -> Html:
    low, spread = places.min(axis=0), np.maximum(np.ptp(places, axis=0), 1e-12)
    at = (places - low) / spread * [_WIDTH - 2 * _EDGE, _HEIGHT - 2 * _EDGE] + _EDGE
    dots = []
    for n in sorted(range(len(ids)), key=lambda n: n == marked):  # the marked one on top
        value = values[n]
        told = ids[n] if value is None else f"{ids[n]}: {value}"
        fill = f"fill: var(--model-{ranked.index(value)})" if value in ranked else None
        dots.append(
            element(
                "circle",
                element("title", told),
                cx=f"{at[n, 0]:.1f}",
                cy=f"{_HEIGHT - at[n, 1]:.1f}",
                r="8" if n == marked else "4",
                style=fill,
                class_="around" if n == marked else None,
            )
        )
    return element(
        "svg", join(dots), class_="map", viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img",
        aria_label="Items on a plane; the more alike, the nearer",
    )  # fmt: skip


def _legend(colour: str, values: list[str | None], ranked: list[str]) -> Html:
    counts = Counter(values)
    entries = [(value, f"var(--model-{n})", counts[value]) for n, value in enumerate(ranked)]
    rest = len(values) - sum(counts[value] for value in ranked)
    if rest:
        entries.append(("others, or none", "var(--muted)", rest))
    dots = []
    for value, fill, count in entries:
        dot = element("circle", cx="5", cy="5", r="5", style=f"fill: {fill}")
        dots.append(
            join([element("svg", dot, viewBox="0 0 10 10", aria_hidden="true"), f"{value} ({count:,})"])
        )
    return join([paragraph(f"Coloured by {colour}:"), items(dots, class_="legend")])
