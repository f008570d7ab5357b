"""RQ-KMeans: residual quantization with one k-means a level, on the item vectors themselves. Seconds, no torch.

Knows nothing of items, collisions or files.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gcrs.toolkit.errors import DataError
from gcrs.toolkit.ids.kmeans import kmeans, nearest
from gcrs.toolkit.ids.quantizer import (
    Kind,
    Progress,
    QuantizerConfig,
    check_tensors,
    check_vectors,
    codeword_sum,
    residual_codes,
)


class RQKMeans:
    """Residual k-means: level 1 clusters the vectors, each further level what the levels before left over."""

    kind: ClassVar[Kind] = "rqkmeans"

    def __init__(self, codebooks: list[np.ndarray], config: QuantizerConfig) -> None:
        self.codebooks = [np.asarray(book, dtype=np.float64) for book in codebooks]
        self.config = config

    @classmethod
    def fit(
        cls, vectors: np.ndarray, config: QuantizerConfig, *, seed: int = 0, progress: Progress | None = None
    ) -> RQKMeans:
        """Fit on float [n, d], n >= 1; `progress` hears (iteration, most iterations, what) over all levels."""
        vectors = check_vectors(vectors)
        rng = np.random.default_rng(seed)
        chosen = np.arange(len(vectors))
        if len(vectors) > config.sample:
            chosen = np.sort(rng.choice(len(vectors), size=config.sample, replace=False))
        residual = np.array(vectors[chosen], dtype=np.float32)
        total = config.levels * config.iterations
        codebooks: list[np.ndarray] = []
        for level in range(config.levels):

            def report(iteration: int, level: int = level) -> None:
                if progress:
                    progress(level * config.iterations + iteration, total, f"k-means, level {level + 1}")

            centres = kmeans(residual, config.codes, rng, iterations=config.iterations, on_iteration=report)
            index, _ = nearest(residual, centres)
            residual -= centres[index]
            codebooks.append(centres)
        if progress:
            progress(total, total, "k-means")
        return cls(codebooks, config)

    @classmethod
    def from_tensors(cls, tensors: dict[str, np.ndarray], config: QuantizerConfig) -> RQKMeans:
        """The quantizer that `tensors` describes; DataError when a codebook is missing or of the wrong shape."""
        first = tensors.get("codebook.0")
        if first is None or first.ndim != 2:
            raise DataError("The quantizer file has no codebook of level 0.")
        check_tensors(tensors, {f"codebook.{level}": (config.codes, first.shape[1]) for level in range(config.levels)})
        return cls([tensors[f"codebook.{level}"] for level in range(config.levels)], config)

    @property
    def code_counts(self) -> tuple[int, ...]:
        """Number of codewords at each level."""
        return tuple(len(book) for book in self.codebooks)

    @property
    def width(self) -> int:
        """Numbers in an item's vector."""
        return self.codebooks[0].shape[1]

    def latent(self, vectors: np.ndarray) -> np.ndarray:
        """The vectors themselves, float64 [n, d]."""
        return check_vectors(vectors, self.width).astype(np.float64)

    def codes(self, vectors: np.ndarray) -> np.ndarray:
        """Greedy codes, int32 [n, levels]."""
        return residual_codes(check_vectors(vectors, self.width), self.codebooks)

    def reconstruct(self, codes: np.ndarray) -> np.ndarray:
        """Sum of the codewords, float32 [n, d]."""
        return codeword_sum(codes, self.codebooks).astype(np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        """One float32 tensor a level."""
        return {f"codebook.{level}": book.astype(np.float32) for level, book in enumerate(self.codebooks)}
