"""The simplex of shares over a list of tasks, and how a sampler of independent numbers sees it.

A point is shares that sum to one, small ones set to zero. To Optuna it is one number x in (0, 1] a task: shares are
-log(x), normalised, so that uniform x are uniform over the simplex. Knows nothing of trials or of what a share does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEAST = 0.02  # a smaller share is left out: it would teach nothing in a short run
PREFIX = "x:"  # of the parameters' names
FLOOR = 1e-9  # least x


@dataclass(frozen=True)
class Space:
    """The tasks, in order: a point is float64 [tasks]."""

    tasks: tuple[str, ...]

    def tidy(self, point: Sequence[float] | np.ndarray) -> np.ndarray:
        """Shares of at least `LEAST` or zero, rounded to 4 places, summing to one; [tasks], or points [n, tasks]."""
        rows = np.maximum(np.atleast_2d(np.asarray(point, dtype=np.float64)), 0)
        rows = rows / rows.sum(axis=1, keepdims=True)
        rows[rows < LEAST] = 0
        rows = np.round(rows / rows.sum(axis=1, keepdims=True), 4)
        rows[np.arange(len(rows)), rows.argmax(axis=1)] += 1 - rows.sum(axis=1)
        return rows if np.ndim(point) > 1 else rows[0]

    def shares(self, point: np.ndarray) -> dict[str, float]:
        """By task, zero ones left out."""
        return {name: round(float(share), 6) for name, share in zip(self.tasks, point, strict=True) if share > 0}

    def point(self, shares: Mapping[str, float]) -> np.ndarray:
        """The point of shares by task."""
        return np.asarray([shares.get(name, 0.0) for name in self.tasks])

    def parameters(self, point: np.ndarray) -> dict[str, float]:
        """Optuna's numbers of a point; `of_parameters` turns them back."""
        x = np.clip(np.exp(-point * len(self.tasks)), FLOOR, 1.0)
        return {PREFIX + name: float(value) for name, value in zip(self.tasks, x, strict=True)}

    def of_parameters(self, parameters: Mapping[str, float]) -> np.ndarray:
        """The tidy point of Optuna's numbers."""
        x = np.asarray([parameters[PREFIX + name] for name in self.tasks])
        exponential = -np.log(np.clip(x, FLOOR, 1.0))
        return self.tidy(exponential if exponential.sum() > 0 else np.ones(len(x)))

    def design(self, number: int, seed: int) -> np.ndarray:
        """Point `number` of a space-filling design (scrambled Sobol, uniform over the simplex)."""
        from scipy.stats import qmc

        engine = qmc.Sobol(len(self.tasks), scramble=True, rng=np.random.default_rng([seed, 5]))
        if number:
            engine.fast_forward(number)
        return self.tidy(-np.log(np.clip(engine.random(1)[0], FLOOR, 1 - FLOOR)))

    def candidates(self, count: int, rng: np.random.Generator, near: Sequence[np.ndarray] = ()) -> np.ndarray:
        """Random tidy points [about count, tasks]: all over the simplex, along its edges, and around those given."""
        size = len(self.tasks)
        drawn = [rng.dirichlet(np.full(size, concentration), count // 4) for concentration in (1.0, 0.3)]
        for point in near:
            for strength in (20.0, 80.0):
                drawn.append(rng.dirichlet(strength * (point + 0.2 / size), max(1, count // (4 * max(1, len(near))))))
        return np.unique(self.tidy(np.concatenate([*drawn, *[point[None] for point in near], np.eye(size)])), axis=0)
