"""Retrieval baselines: the dialogue's text as a query, the items' texts as documents, by BM25 and by an encoder.

Knows nothing of the model or of protocols.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gcrs.toolkit.dialogue.turns import Dialogue
from gcrs.toolkit.errors import GcrsError

if TYPE_CHECKING:
    pass

Progress = Callable[[int, int, str], None]
NEWEST = 1000  # characters of a dialogue that the encoder is given: it reads 256 tokens from the beginning of a text


def dialogue_text(dialogue: Dialogue, titles: Mapping[str, str]) -> str:
    """What was said, a line a turn, items as their titles; an item without a title is the word "it"."""
    lines = ("".join(v if what == "text" else titles.get(v, "it") for what, v in t.segments()) for t in dialogue.turns)
    return "\n".join(lines)


def newest_text(text: str, most: int = NEWEST) -> str:
    """The end of a text, cut at a word."""
    return text if len(text) <= most else text[-most:].partition(" ")[2]


def bm25_rankings(
    documents: Sequence[str], ids: Sequence[str], queries: Sequence[str], ks: Sequence[int]
) -> list[list[str]]:
    """The best `ks[n]` items for query n by BM25 (Lucene's variant, k1 1.5, b 0.75, English stop words left out).

    Items without a word in common with the query are not ranked; ties by the documents' order. GcrsError without the
    package bm25s.
    """
    try:
        import bm25s
    except ModuleNotFoundError as error:
        raise GcrsError("The BM25 row needs the package bm25s.", hint="pip install 'gcrs[eval]'") from error
    index = bm25s.BM25()
    index.index(bm25s.tokenize(list(documents), stopwords="en", show_progress=False), show_progress=False)
    split = bm25s.tokenize(list(queries), stopwords="en", return_ids=False, show_progress=False)
    out = []
    for words, k in zip(split, ks, strict=True):
        scores = index.get_scores(words) if words else np.zeros(len(ids))
        out.append([ids[row] for row in np.argsort(-scores, kind="stable")[:k] if scores[row] > 0])
    return out


def dense_rankings(
    documents: Sequence[str],
    ids: Sequence[str],
    queries: Sequence[str],
    ks: Sequence[int],
    progress: Progress | None = None,
    device: str = "cpu",
) -> list[list[str]]:
    """The best `ks[n]` items for query n by the cosine of the default text encoder's vectors; ties by order.

    Vectors are cached by text. Raises MissingModelError (exit 4) when the encoder is not here and cannot be fetched.
    """
    from gcrs.toolkit.catalog.encoders import encode_texts

    texts = encode_texts(documents, progress=progress, device=device)
    asked = encode_texts(queries, progress=progress, device=device)
    out = []
    for vector, k in zip(asked, ks, strict=True):
        order = np.argsort(-np.round(texts @ vector, 6), kind="stable")[:k]
        out.append([ids[row] for row in order])
    return out
