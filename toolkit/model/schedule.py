"""The learning rate's factor over a run: warm-up, stable, decay; by steps, by tokens or by minutes.

Knows nothing of optimisers. Source: the warm-up-stable-decay schedule (Hu et al., MiniCPM, 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_WARMUP = 0.05  # share of a budget not in steps that warm-up may take: nobody knows how many steps that will be


@dataclass(frozen=True)
class Schedule:
    """Factor in 0..1 from how far a run is.

    Exactly one of `steps`, `minutes` and `tokens` bounds the run. `decay` is the share of the budget that decays
    linearly to zero; `warmup` is in steps, and takes at most `MOST_WARMUP` of a budget in minutes or tokens. Tokens are
    those of the sequences read, without padding.
    """

    steps: int | None
    minutes: float | None
    warmup: int
    decay: float
    tokens: int | None = None

    def progress(self, step: int, elapsed_minutes: float, tokens: int = 0) -> float:
        """Share of the budget that is used, 0..1."""
        if self.steps is not None:
            return min(1.0, step / max(1, self.steps))
        if self.tokens is not None:
            return min(1.0, tokens / self.tokens)
        assert self.minutes is not None
        return min(1.0, elapsed_minutes / self.minutes)

    def factor(self, step: int, elapsed_minutes: float, tokens: int = 0) -> float:
        """Learning-rate factor for the step about to be taken (counted from 0)."""
        used = self.progress(step, elapsed_minutes, tokens)
        warm = (step + 1) / max(1, self.warmup)
        if self.steps is None:
            warm = max(warm, used / MOST_WARMUP)
        left = 1.0 - used
        return min(warm, 1.0, 1.0 if self.decay <= 0 else left / self.decay)

    def decaying(self, step: int, elapsed_minutes: float, tokens: int = 0) -> bool:
        """Whether the decay has begun."""
        return self.progress(step, elapsed_minutes, tokens) >= 1.0 - self.decay

    def done(self, step: int, elapsed_minutes: float, tokens: int = 0) -> bool:
        """Whether the budget is spent."""
        return self.progress(step, elapsed_minutes, tokens) >= 1.0
