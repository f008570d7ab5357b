"""The learning rate's factor over a run: warm-up, stable, decay; by steps or by minutes.

Knows nothing of optimisers. Source: the warm-up-stable-decay schedule (Hu et al., MiniCPM, 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_WARMUP = 0.05  # share of a budget in minutes that warm-up may take: nobody knows how many steps that will be


@dataclass(frozen=True)
class Schedule:
    """Factor in 0..1 from how far a run is.

    Exactly one of `steps` and `minutes` bounds the run. `decay` is the share of the budget that decays linearly to
    zero; `warmup` is in steps, and takes at most `MOST_WARMUP` of a budget in minutes.
    """

    steps: int | None
    minutes: float | None
    warmup: int
    decay: float

    def progress(self, step: int, elapsed_minutes: float) -> float:
        """Share of the budget that is used, 0..1."""
        if self.steps is not None:
            return min(1.0, step / max(1, self.steps))
        assert self.minutes is not None
        return min(1.0, elapsed_minutes / self.minutes)

    def factor(self, step: int, elapsed_minutes: float) -> float:
        """Learning-rate factor for the step about to be taken (counted from 0)."""
        used = self.progress(step, elapsed_minutes)
        warm = (step + 1) / max(1, self.warmup)
        if self.steps is None:
            warm = max(warm, used / MOST_WARMUP)
        left = 1.0 - used
        return min(warm, 1.0, 1.0 if self.decay <= 0 else left / self.decay)

    def decaying(self, step: int, elapsed_minutes: float) -> bool:
        """Whether the decay has begun."""
        return self.progress(step, elapsed_minutes) >= 1.0 - self.decay

    def done(self, step: int, elapsed_minutes: float) -> bool:
        """Whether the budget is spent."""
        return self.progress(step, elapsed_minutes) >= 1.0
