"""k-means with k-means++ seeding, in numpy: deterministic for one seed and thread count.

Knows nothing of residuals, levels or items: points in, centres out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

CHUNK = 16_384  # rows compared with all centres at once: bounds the memory at a million rows


def squared_distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances [n, k] between rows of `points` [n, d] and `centres` [k, d], never negative."""
    cross = points @ centres.T
    cross *= -2
    cross += np.einsum("nd,nd->n", points, points)[:, None]
    cross += np.einsum("kd,kd->k", centres, centres)
    return np.maximum(cross, 0, out=cross)


def nearest(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the nearest centre (the lowest at a tie), int64 [n], and its squared distance, [n]."""
    index = np.empty(len(points), dtype=np.int64)
    distance = np.empty(len(points), dtype=points.dtype)
    for begin in range(0, len(points), CHUNK):
        table = squared_distances(points[begin : begin + CHUNK], centres)
        index[begin : begin + CHUNK] = best = table.argmin(axis=1)
        distance[begin : begin + CHUNK] = np.take_along_axis(table, best[:, None], axis=1)[:, 0]
    return index, distance


def plus_plus(points: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k starting centres [k, d] by k-means++ (Arthur & Vassilvitskii 2007): each far from those before it.

    With fewer than k distinct points the rest are random points moved by a little noise, so that centres differ.
    """
    centres = np.empty((k, points.shape[1]), dtype=points.dtype)
    centres[0] = points[rng.integers(len(points))]
    closest = squared_distances(points, centres[:1])[:, 0]
    closest[np.all(points == centres[0], axis=1)] = 0
    for j in range(1, k):
        total = float(closest.sum(dtype=np.float64))
        if total <= 1e-12 * max(1.0, float(np.abs(points).max()) ** 2):
            spread = float(points.std()) or 1.0
            noise = rng.standard_normal((k - j, points.shape[1])) * (0.1 * spread)
            centres[j:] = points[rng.integers(len(points), size=k - j)] + noise.astype(points.dtype)
            break
        pick = np.searchsorted(np.cumsum(closest, dtype=np.float64), rng.random() * total, side="right")
        centres[j] = points[min(int(pick), len(points) - 1)]
        closest = np.minimum(closest, squared_distances(points, centres[j : j + 1])[:, 0])
        closest[np.all(points == centres[j], axis=1)] = 0
    return centres


def kmeans(
    points: np.ndarray,
    k: int,
    rng: np.random.Generator,
    *,
    iterations: int = 100,
    tolerance: float = 1e-5,
    on_iteration: Callable[[int], None] | None = None,
) -> np.ndarray:
    """k centres [k, d] of the rows of `points` (float [n, d], n >= 1), by Lloyd's iterations from k-means++.

    Stops after `iterations`, or when the mean squared distance falls by less than `tolerance` of itself. A centre
    that loses all its points moves onto the point that is worst served. `on_iteration` hears each iteration's number.
    """
    centres = plus_plus(points, k, rng)
    before = np.inf
    for iteration in range(iterations):
        index, distance = nearest(points, centres)
        error = float(distance.mean(dtype=np.float64))
        if on_iteration:
            on_iteration(iteration)
        if before - error <= tolerance * before and iteration:
            break
        before = error
        counts = np.bincount(index, minlength=k)
        order = np.argsort(index, kind="stable")
        used = np.flatnonzero(counts)
        starts = np.cumsum(counts)[used] - counts[used]
        centres[used] = np.add.reduceat(points[order], starts, axis=0) / counts[used, None].astype(points.dtype)
        empty = np.flatnonzero(counts == 0)
        if len(empty) and error > 0:
            worst = np.argsort(-distance, kind="stable")[: len(empty)]
            worst = worst[distance[worst] > 0]  # fewer distinct points than centres: the others stay where they are
            centres[empty[: len(worst)]] = points[worst]
    return centres
