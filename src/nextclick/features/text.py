"""Text as a sparse bag of words and pairs of words, weighted by TF-IDF."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextclick.errors import DataError, MissingExtraError
from nextclick.features.stopwords import STOP_WORDS
from nextclick.features.store import Sparse
from nextclick.sessions import Vocabulary

# Scripts written without blanks: every sign is a word, and so every two signs are a pair.
_SIGNS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_MARKS = (
    "\u0300-\u036f\u0900-\u0963\u0966-\u0dff\u0e00-\u0e4f\u0e50-\u109f"  # letters with signs above, below
)
_WORD = f"[{_SIGNS}]|(?:(?![{_SIGNS}])[\\w{_MARKS}])+"


def joined(texts: Sequence[str]) -> str:
    """Join the texts of an item, without repeating one at the start of another.

    A description that begins with the title adds only what comes after it (Hidasi et al., RecSys 2016,
    sec. 4, note 6).
    """
    said: list[str] = []
    for text in texts:
        rest = text.strip()
        for before in said:
            head, after = rest[: len(before)], rest[len(before) :]
            if head.casefold() == before.casefold() and not _one_word(head[-1:] + after[:1]):
                rest = after.strip()
        if rest:
            said.append(rest)
    return " ".join(said)


def _one_word(letters: str) -> bool:
    """Whether two letters belong to one word, so that a text may not be cut between them."""
    return len(letters) == 2 and re.fullmatch(_WORD, letters) is not None


def encode(texts: Sequence[str]) -> tuple[Sparse, dict[str, NDArray[Any]], dict[str, Any]]:
    """Return TF-IDF vectors of length 1 of texts, what encodes further ones, and what was counted.

    Words and pairs of neighbouring words, without stop words of several languages; those that occur only
    once in all texts are dropped.  Source: Hidasi et al., RecSys 2016, sec. 4 (encoding text).
    Raises DataError when no word occurs twice.
    """
    counter = _counter(None)
    try:
        counts = counter.fit_transform(texts)
    except ValueError:  # no word at all
        counts = None
    often = np.zeros(0, np.bool_) if counts is None else np.asarray(counts.sum(axis=0))[0] > 1
    if counts is None or not often.any():
        raise DataError(
            "text: no word occurs twice in all texts, so nothing tells items apart; name other columns with "
            "--text, or leave it out"
        )
    terms = counter.get_feature_names_out()[often].tolist()
    counts = counts[:, np.flatnonzero(often)]
    n = len(texts)
    found_in = np.bincount(counts.indices, minlength=len(terms))
    idf = np.log((1 + n) / (1 + found_in)) + 1
    encoder = {f"terms_{name}": array for name, array in Vocabulary(terms).to_arrays().items()}
    encoder["idf"] = idf
    dropped = int((~often).sum())
    return _weighted(counts, idf), encoder, {"terms": len(terms), "dropped_terms": dropped}


def encode_like(texts: Sequence[str], encoder: Mapping[str, NDArray[Any]]) -> Sparse:
    """Return TF-IDF vectors of further texts, in the columns and with the weights of earlier ones."""
    terms = {name.removeprefix("terms_"): array for name, array in encoder.items() if name != "idf"}
    listed = Vocabulary.from_arrays(terms)
    counter = _counter({str(listed.id_of(n)): n for n in range(len(listed))})
    return _weighted(counter.transform(texts), encoder["idf"])


def _counter(vocabulary: dict[str, int] | None) -> Any:
    try:
        from sklearn.feature_extraction.text import CountVectorizer
    except ImportError:
        raise MissingExtraError("encoding text", "features") from None
    return CountVectorizer(
        ngram_range=(1, 2), token_pattern=_WORD, preprocessor=_plain, stop_words=sorted(STOP_WORDS),
        vocabulary=vocabulary, dtype=np.float64,
    )  # fmt: skip


def _plain(text: str) -> str:
    """Lower case, and one way of writing each sign."""
    return unicodedata.normalize("NFKC", text).casefold()


def _weighted(counts: Any, idf: NDArray[np.float64]) -> Sparse:
    counts = counts.tocsr().astype(np.float64)
    counts.data *= idf[counts.indices]
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    lengths = np.sqrt(np.bincount(rows, counts.data**2, counts.shape[0]))
    counts.data /= lengths[rows]
    return Sparse.of(counts)
