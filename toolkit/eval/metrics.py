"""Ranking metrics and their intervals: pure functions over the ranks of gold items.

An interval respects dialogues: cases of one dialogue are not independent, so whole dialogues are drawn. Knows nothing
of models or data files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

DRAWS = 2000


@dataclass(frozen=True)
class Estimate:
    """A mean with the bounds of its 95 % interval, all in 0..1, over n cases; of none there is none."""

    value: float
    lo: float
    hi: float
    n: int

    def to_json(self) -> dict[str, float | None]:
        """`{"value", "lo", "hi"}`, null where there are no cases."""
        found = (self.value, self.lo, self.hi) if self.n else (None,) * 3
        return dict(zip(("value", "lo", "hi"), found, strict=True))


def share(values: Sequence[bool] | np.ndarray, groups: Sequence[str], *, seed: int) -> dict[str, Any]:
    """The share that is true, its interval over groups, and n; null where there is nothing to take a share of."""
    found = Resampling(groups, seed=seed).estimate(np.asarray(values, dtype=np.float64))
    return {**found.to_json(), "n": found.n}


def rank_of(gold: str, ranking: Sequence[str]) -> int:
    """Rank of the gold item counted from 1; 0 when it is not in the ranking."""
    return ranking.index(gold) + 1 if gold in ranking else 0


def recall_at(ranks: Sequence[int], k: int) -> np.ndarray:
    """1 for each case whose gold item is among the first k, else 0; float64 [cases]."""
    at = np.asarray(ranks, dtype=np.int64)
    return ((at > 0) & (at <= k)).astype(np.float64)


def ndcg_at(ranks: Sequence[int], k: int) -> np.ndarray:
    """1 / log2(rank + 1) among the first k, else 0; one relevant item a case, so the ideal gain is 1.

    Source: Jaervelin & Kekaelaeinen (2002).
    """
    at = np.asarray(ranks, dtype=np.float64)
    return recall_at(ranks, k) / np.log2(np.maximum(at, 1) + 1)


def mrr_at(ranks: Sequence[int], k: int) -> np.ndarray:
    """1 / rank among the first k, else 0."""
    return recall_at(ranks, k) / np.maximum(np.asarray(ranks, dtype=np.float64), 1)


class Resampling:
    """The bootstrap's draws of whole groups (dialogue ids), made once for any number of metrics over the same cases.

    Percentile intervals over `draws` draws; the same seed gives the same. Source: Efron & Tibshirani (1993), cluster
    resampling.
    """

    def __init__(self, groups: Sequence[str] | np.ndarray, *, seed: int = 0, draws: int = DRAWS) -> None:
        names, self.index = np.unique(np.asarray(groups), return_inverse=True)
        self.count, self._seed, self._draws = len(names), seed, draws
        self._sizes = np.bincount(self.index, minlength=self.count).astype(np.float64)

    @cached_property
    def _drawn(self) -> np.ndarray:
        """How often each group is drawn, float64 [draws, groups]."""
        rng = np.random.default_rng(self._seed)
        out = np.empty((self._draws, self.count))
        for n in range(self._draws):
            out[n] = np.bincount(rng.integers(0, self.count, self.count), minlength=self.count)
        return out

    def sums(self, values: np.ndarray) -> np.ndarray:
        """The values' sum in each group, float64 [groups]."""
        return np.bincount(self.index, weights=values, minlength=self.count)

    def means(self, values: np.ndarray) -> np.ndarray:
        """The mean of `values` [cases] in each draw."""
        return np.asarray((self._drawn @ self.sums(values)) / (self._drawn @ self._sizes))

    def estimate(self, values: np.ndarray) -> Estimate:
        """Mean and interval of `values`, one a case."""
        if not len(values):
            return Estimate(0.0, 0.0, 0.0, 0)
        lo, hi = np.quantile(self.means(values), [0.025, 0.975])
        return Estimate(float(values.mean()), float(lo), float(hi), len(values))


def recall(
    ranks: Sequence[int], k: int, groups: Sequence[str] | None = None, *, seed: int = 0, draws: int = DRAWS
) -> Estimate:
    """Share of cases whose gold item is among the first k; `ranks` as from `rank_of`.

    The interval draws `groups` (dialogue ids), or cases without them.
    """
    held = np.arange(len(ranks)) if groups is None else groups
    return Resampling(held, seed=seed, draws=draws).estimate(recall_at(ranks, k))
