"""The response surface: what any mixture would score, with its uncertainty, from the proxy runs that were made.

Regression over shares, as RegMix (Liu et al., 2024) does it, here a Gaussian process over the square roots of the
shares: the first tokens of a task matter most. Every score carries the error of its few validation dialogues. A run
that was stopped early counts with what the others gained after that point, and with more noise. Knows nothing of how
runs are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gcrs.programs.mixture_space import Space

LEAST_RUNS = 4  # finished runs below which nothing is regressed
CANDIDATES = 2_000
SPACING = 0.05  # total variation of shares below which a run would be an earlier one again: same seed, same replies


@dataclass(frozen=True)
class Observation:
    """One run: its point, its score, the share of the budget at which that was read, and scores by such shares."""

    point: np.ndarray
    value: float
    used: float = 1.0
    earlier: tuple[tuple[float, float], ...] = ()  # (share of the budget, score) before the end
    error: float = 0.0  # standard error of the score: other validation dialogues would have given another

    def at(self, used: float) -> float | None:
        """The score at a share of the budget; None where it was not read."""
        return next((value for share, value in self.earlier if abs(share - used) < 0.05), None)


def lifted(observations: Sequence[Observation]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(points [n, tasks], scores [n] as at the end, extra variance [n]) of all runs.

    The extra variance is that of a score's validation dialogues. Stopped runs get the mean gain of the finished ones
    after the same share of the budget, and its variance; without any that was read there, they are left out.
    """
    finished = [one for one in observations if one.used >= 1]
    points, values, extra = [], [], []
    for one in observations:
        gain, variance = 0.0, 0.0
        if one.used < 1:
            gains = [other.value - value for other in finished if (value := other.at(one.used)) is not None]
            if not gains:
                continue
            gain = float(np.mean(gains))
            variance = float(np.var(gains)) if len(gains) > 1 else gain**2
        points.append(one.point)
        values.append(one.value + gain)
        extra.append(variance + one.error**2)
    return np.asarray(points), np.asarray(values), np.asarray(extra)


class Surface:
    """A Gaussian process over the points of a space. Raises ValueError with fewer than `LEAST_RUNS` runs."""

    def __init__(self, space: Space, observations: Sequence[Observation], *, seed: int = 0) -> None:
        import warnings

        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        self.space, self.seed = space, seed
        self.points, self.values, extra = lifted(observations)
        if len(self.values) < LEAST_RUNS:
            raise ValueError(f"{len(self.values)} runs, expected at least {LEAST_RUNS}")
        self.mean, self.scale = float(self.values.mean()), float(self.values.std()) or 1.0
        kernel = ConstantKernel(1.0, (0.05, 20.0)) * RBF(0.7, (0.2, 5.0)) + WhiteKernel(0.1, (1e-3, 2.0))
        self._model: Any = GaussianProcessRegressor(
            kernel, alpha=1e-8 + extra / self.scale**2, n_restarts_optimizer=2, random_state=seed
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._model.fit(np.sqrt(self.points), (self.values - self.mean) / self.scale)
        self._alpha = self._model.alpha
        self.noise = self.scale * float(np.sqrt(self._model.kernel_.k2.noise_level))

    def predict(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(mean score, its standard deviation without a run's noise), each [points]."""
        mean, deviation = self._model.predict(np.sqrt(np.atleast_2d(points)), return_std=True)
        latent = np.sqrt(np.maximum(deviation**2 - self._model.kernel_.k2.noise_level, 1e-12))
        return mean * self.scale + self.mean, latent * self.scale

    @property
    def incumbent(self) -> float:
        """The best predicted score among the points that were run."""
        return float(self.predict(self.points)[0].max())

    def gain(self, points: np.ndarray) -> np.ndarray:
        """Expected improvement over the incumbent, in units of the score (Jones et al., 1998)."""
        from scipy.stats import norm

        mean, deviation = self.predict(points)
        ahead = mean - self.incumbent
        z = ahead / np.maximum(deviation, 1e-12)
        return np.asarray(ahead * norm.cdf(z) + deviation * norm.pdf(z))

    def _candidates(self, seed: int) -> np.ndarray:
        order = np.argsort(-self.predict(self.points)[0])[:3]
        return self.space.candidates(CANDIDATES, np.random.default_rng([seed, 6]), [self.points[n] for n in order])

    def best(self) -> np.ndarray:
        """The point of the highest predicted score."""
        found = self._candidates(self.seed)
        return np.asarray(found[int(self.predict(found)[0].argmax())])

    def next(self, seed: int) -> tuple[np.ndarray, float]:
        """(the point whose run promises most, what it promises): expected improvement, `SPACING` off what was run."""
        found = self._candidates(seed)
        apart = 0.5 * np.abs(found[:, None] - self.points[None]).sum(axis=-1).min(axis=1)
        found = found[apart >= SPACING] if (apart >= SPACING).any() else found
        gains = self.gain(found)
        return found[int(gains.argmax())], float(gains.max())

    def along(self, task: int, through: np.ndarray, steps: int = 41) -> tuple[np.ndarray, np.ndarray]:
        """(share [steps], points [steps, tasks]): one task from none to all, the others as they stand in a point."""
        shares = np.linspace(0, 1, steps)
        others = through.copy()
        others[task] = 0
        if others.sum() <= 0:
            others = np.ones(len(through))
            others[task] = 0
        others = others / max(others.sum(), 1e-12)
        points = (1 - shares)[:, None] * others
        points[:, task] += shares
        return shares, points

    def left_out(self) -> dict[str, float | int]:
        """How right the surface is about a run that it has not seen, each left out in turn; kernel as fitted."""
        from scipy.stats import spearmanr
        from sklearn.gaussian_process import GaussianProcessRegressor

        told = []
        for n in range(len(self.values)):
            rest = np.arange(len(self.values)) != n
            model = GaussianProcessRegressor(self._model.kernel_, alpha=self._alpha[rest], optimizer=None)
            model.fit(np.sqrt(self.points[rest]), (self.values[rest] - self.mean) / self.scale)
            told.append(float(model.predict(np.sqrt(self.points[n : n + 1]))[0]) * self.scale + self.mean)
        error = float(np.sqrt(np.mean((np.asarray(told) - self.values) ** 2)))
        flat = np.ptp(told) < 1e-12 or np.ptp(self.values) < 1e-12
        rank = 0.0 if flat else float(spearmanr(told, self.values).statistic)
        return {"n": len(told), "rank_correlation": round(rank, 3), "rmse": round(error, 5)}
