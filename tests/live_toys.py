"""Live catalogues for tests: the twelve films, a quantizer over points of a plane, journals in a given directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gcrs.toolkit.ids.codebook import Codebook
from gcrs.toolkit.ids.quantizer import residual_codes
from gcrs.toolkit.live import LiveCatalog
from toys import CODES, toy_book, toy_catalog

HASH = "ab" * 32
WIDE = (64, 64, 64)  # code counts with room for thousands


class Nearest:
    """A quantizer whose vectors are the points that it codes; codewords from a seed, ever smaller."""

    kind: Any = "rqkmeans"
    config: Any = None
    width = 2

    def __init__(self, counts: Sequence[int] = CODES, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.codebooks = [rng.normal(size=(k, 2)) / 2**level for level, k in enumerate(counts)]

    @property
    def code_counts(self) -> tuple[int, ...]:
        return tuple(map(len, self.codebooks))

    def latent(self, vectors: np.ndarray) -> np.ndarray:
        return np.asarray(vectors, dtype=np.float64)

    def codes(self, vectors: np.ndarray) -> np.ndarray:
        return residual_codes(self.latent(vectors), self.codebooks)

    def reconstruct(self, codes: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def tensors(self) -> dict[str, np.ndarray]:
        raise NotImplementedError


def live_toy(directory: Path, bundle_hash: str = HASH, counts: Sequence[int] = CODES) -> LiveCatalog:
    """The twelve films, live; other code counts must hold their IDs."""
    book = toy_book()
    return LiveCatalog(bundle_hash, toy_catalog(), Codebook(tuple(counts), book.ids), directory)


def state(live: LiveCatalog) -> tuple[Any, ...]:
    """All that an edition says, to compare."""
    edition = live.edition
    return edition.catalog.items, dict(edition.book.ids), list(edition.book), edition.retired, edition.version
