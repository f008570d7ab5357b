"""Recall at k with an interval that respects dialogues: pure functions over the ranks of gold items.

Knows nothing of models or data files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A mean with the bounds of its 95 % interval, all in 0..1, over n cases."""

    value: float
    lo: float
    hi: float
    n: int


def rank_of(gold: str, ranking: Sequence[str]) -> int:
    """Rank of the gold item counted from 1; 0 when it is not in the ranking."""
    return ranking.index(gold) + 1 if gold in ranking else 0


def recall(
    ranks: Sequence[int], k: int, groups: Sequence[str] | None = None, *, seed: int = 0, draws: int = 2000
) -> Estimate:
    """Share of cases whose gold item is among the first k.

    `ranks` as from `rank_of`. The interval is a percentile bootstrap over `groups` (dialogue ids: cases of one dialogue
    are not independent), or over cases without them. Source: Efron & Tibshirani (1993), cluster resampling.
    """
    hits = np.asarray([0 < rank <= k for rank in ranks], dtype=np.float64)
    if not len(hits):
        return Estimate(0.0, 0.0, 0.0, 0)
    _, index = np.unique(groups if groups is not None else np.arange(len(hits)), return_inverse=True)
    sums = np.bincount(index, weights=hits)
    sizes = np.bincount(index).astype(np.float64)
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    for n in range(draws):
        drawn = rng.integers(0, len(sums), len(sums))
        means[n] = sums[drawn].sum() / sizes[drawn].sum()
    lo, hi = np.quantile(means, [0.025, 0.975])
    return Estimate(float(hits.mean()), float(lo), float(hi), len(hits))
