"""What the steps of replies have cost, in totals that only grow. Knows nothing of how they are made."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class StepStats:
    """Totals of one step over all calls: prompt ids found in the cache, tokens forwarded, tree nodes forwarded.

    `joined` counts the forwards that read for several replies at once, and `shared` the replies that they read for.
    """

    calls: int = 0
    reused: int = 0
    forwarded: int = 0
    branched: int = 0
    seconds: float = 0.0
    joined: int = 0
    shared: int = 0


@dataclass
class EngineStats:
    """What each step has cost so far; only ever grows."""

    intent: StepStats = field(default_factory=StepStats)
    targets: StepStats = field(default_factory=StepStats)
    respond: StepStats = field(default_factory=StepStats)

    @property
    def forwarded(self) -> int:
        """Tokens forwarded by all steps, tree nodes included."""
        return sum(step.forwarded + step.branched for step in (self.intent, self.targets, self.respond))
