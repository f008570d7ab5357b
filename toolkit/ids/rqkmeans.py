"""RQ-KMeans: residual quantization with one k-means a level, on the vectors' main directions. Seconds, no torch.

Why not on all directions: at the fine levels the residual is nearly the same in each, k-means spends its centres on
outliers, and most items share few codes. ReDial's 6,833 films, 384 numbers, 4 x 64 codes, seed 0: the perplexity of
the last level is 21 with all directions and 59 with 64 of them, items that share a raw ID fall from 230 to 136, and
the relative reconstruction error rises from 0.448 to 0.465.

Knows nothing of items, collisions or files.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from gcrs.toolkit.errors import DataError
from gcrs.toolkit.ids.kmeans import CHUNK, kmeans, nearest
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

    def __init__(
        self, mean: np.ndarray, basis: np.ndarray, codebooks: list[np.ndarray], config: QuantizerConfig
    ) -> None:
        """`mean` [d], `basis` [directions, d] with orthonormal rows, `codebooks` [codes, directions] a level."""
        self.mean = np.asarray(mean, dtype=np.float64)
        self.basis = np.asarray(basis, dtype=np.float64)
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
        mean, basis = main_directions(vectors[chosen], config.directions)
        residual = ((vectors[chosen] - mean) @ basis.T).astype(np.float32)
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
        return cls(mean, basis, codebooks, config)

    @classmethod
    def from_tensors(cls, tensors: dict[str, np.ndarray], config: QuantizerConfig) -> RQKMeans:
        """The quantizer that `tensors` describes; DataError when a codebook is missing or of the wrong shape."""
        basis = tensors.get("basis")
        if basis is None or basis.ndim != 2:
            raise DataError("The quantizer file has no basis.")
        books = {f"codebook.{level}": (config.codes, len(basis)) for level in range(config.levels)}
        check_tensors(tensors, {"basis": basis.shape, "mean": basis.shape[1:], **books})
        return cls(tensors["mean"], basis, [tensors[name] for name in books], config)

    @property
    def code_counts(self) -> tuple[int, ...]:
        """Number of codewords at each level."""
        return tuple(len(book) for book in self.codebooks)

    @property
    def width(self) -> int:
        """Numbers in an item's vector."""
        return len(self.mean)

    def latent(self, vectors: np.ndarray) -> np.ndarray:
        """Coordinates along the main directions, float64 [n, directions]."""
        vectors = check_vectors(vectors, self.width)
        starts = range(0, len(vectors), CHUNK)
        return np.concatenate([(vectors[begin : begin + CHUNK] - self.mean) @ self.basis.T for begin in starts])

    def codes(self, vectors: np.ndarray) -> np.ndarray:
        """Greedy codes, int32 [n, levels]."""
        return residual_codes(self.latent(vectors), self.codebooks)

    def reconstruct(self, codes: np.ndarray) -> np.ndarray:
        """The mean and the codewords along their directions, float32 [n, d]."""
        return (codeword_sum(codes, self.codebooks) @ self.basis + self.mean).astype(np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        """Mean, directions and one codebook a level, float32."""
        books = {f"codebook.{level}": book for level, book in enumerate(self.codebooks)}
        return {
            name: array.astype(np.float32) for name, array in {"mean": self.mean, "basis": self.basis, **books}.items()
        }


def main_directions(vectors: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean [d] and the `most` directions of largest variance, orthonormal [min(most, d), d], both float32."""
    mean = vectors.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((vectors.shape[1], vectors.shape[1]))
    for begin in range(0, len(vectors), CHUNK):
        part = vectors[begin : begin + CHUNK] - mean
        covariance += part.T @ part
    _, directions = np.linalg.eigh(covariance)  # ascending variance
    return mean.astype(np.float32), np.ascontiguousarray(directions[:, ::-1][:, :most].T, dtype=np.float32)
