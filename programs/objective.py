"""Objective: what a search over mixtures maximises, a weighted sum of validation metrics that the user writes.

    recall@10=1,bits_per_byte=-0.1

Knows nothing of models, mixtures or searches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gcrs.toolkit.catalog.nearest import nearest
from gcrs.toolkit.errors import UsageError

METRICS = ("recall@1", "recall@10", "recall@50", "intent_accuracy", "bits_per_byte")
DEFAULT = "recall@10=1,intent_accuracy=0.1,bits_per_byte=-0.05"


@dataclass(frozen=True)
class Objective:
    """Weights by metric; more is better, so bits per byte want a negative one."""

    weights: Mapping[str, float]

    @classmethod
    def parse(cls, text: str) -> Objective:
        """From `metric=weight` parts joined by commas. UsageError names what cannot be read."""
        weights: dict[str, float] = {}
        for part in text.split(","):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            if name not in METRICS:
                near = nearest(name, METRICS, most=1)
                hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(METRICS)}."
                raise UsageError(f"The objective names the metric {name!r}, which is not known.", hint=hint)
            try:
                weight = float(value) if equals else math.nan
            except ValueError:
                weight = math.nan
            if not math.isfinite(weight) or name in weights:
                raise UsageError(
                    f"The objective's part {part.strip()!r} is no metric with one weight.",
                    hint="Write 'recall@10=1,bits_per_byte=-0.1'.",
                )
            weights[name] = weight
        if not any(weights.values()):
            raise UsageError("The objective weighs everything with 0.", hint="Write 'recall@10=1'.")
        return cls(weights)

    def __str__(self) -> str:
        return ",".join(f"{name}={weight:g}" for name, weight in self.weights.items())

    def score(self, metrics: Mapping[str, float]) -> float:
        """The weighted sum. UsageError when the validation dialogues had no case for one of the metrics."""
        if missing := [name for name in self.weights if name not in metrics]:
            raise UsageError(
                f"The validation dialogues have no case for {missing[0]}.", hint="Leave it out of the objective."
            )
        return sum(weight * metrics[name] for name, weight in self.weights.items())
