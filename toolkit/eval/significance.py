"""Whether two rows differ on the same cases: a paired interval and a randomisation test, both over whole dialogues.

Knows nothing of what the values measure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gcrs.toolkit.eval.metrics import Resampling

FLIPS = 10_000


@dataclass(frozen=True)
class Difference:
    """The mean of a - b over n cases, its 95 % interval, and the two-sided p-value of no difference."""

    value: float
    lo: float
    hi: float
    p: float
    n: int

    def to_json(self) -> dict[str, float]:
        """`{"value", "lo", "hi", "p"}`."""
        return {"value": self.value, "lo": self.lo, "hi": self.hi, "p": self.p}


def paired(a: np.ndarray, b: np.ndarray, drawn: Resampling, *, seed: int = 0, flips: int = FLIPS) -> Difference:
    """The difference of two rows' values, one a case, the same cases in the same order.

    The interval is the bootstrap's over dialogues. The p-value is that of a randomisation test: in each of `flips`
    rounds every dialogue's two results change places or not, each with probability 1/2; it is the share of rounds at
    least as far from 0 as what was seen, the seen one included. Source: Noreen (1989); Smucker, Allan & Carterette
    (2007).
    """
    gap = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    if not len(gap):
        return Difference(0.0, 0.0, 0.0, 1.0, 0)
    sums = drawn.sums(gap)
    rng = np.random.default_rng(seed)
    seen, further = abs(sums.sum()) - 1e-9, 0
    for start in range(0, flips, 1000):
        signs = rng.integers(0, 2, (min(1000, flips - start), len(sums))) * 2 - 1
        further += int((np.abs(signs @ sums) >= seen).sum())
    lo, hi = np.quantile(drawn.means(gap), [0.025, 0.975])
    return Difference(float(gap.mean()), float(lo), float(hi), (further + 1) / (flips + 1), len(gap))
