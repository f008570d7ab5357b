"""Two ways of training held together over several training seeds, on the same cases.

One trained model an arm says how it differs from another trained model; whether the way of training does, only several
seeds say. Knows nothing of models: it reads the reports that `gcrs eval --report` wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gcrs.toolkit.errors import DataError
from gcrs.toolkit.eval.metrics import Resampling
from gcrs.toolkit.eval.report import check_comparable, check_same_cases, ranks_of_cases
from gcrs.toolkit.eval.table import COMPARED, values_of


@dataclass(frozen=True)
class SeedDifference:
    """The mean difference over seeds and n cases, its 95 % interval, each seed's own, and both arms' means."""

    this: float
    other: float
    value: float
    lo: float
    hi: float
    by_seed: tuple[float, ...]
    n: int


def over_seeds(gaps: np.ndarray, drawn: Resampling, *, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of `gaps` [seeds, cases]: each draw takes seeds and dialogues anew, with replacement.

    With fewer than about five seeds it is too narrow: so few say little about how far seeds differ. Source: Davison &
    Hinkley (1997), section 3.8, both levels resampled.
    """
    means = np.stack([drawn.means(row) for row in gaps])  # [seeds, draws]
    chosen = np.random.default_rng([seed, 1]).integers(0, len(gaps), means.shape)
    lo, hi = np.quantile(np.take_along_axis(means, chosen, axis=0).mean(axis=0), [0.025, 0.975])
    return float(lo), float(hi)


def compare_seeds(
    runs: Sequence[Path], others: Sequence[Path], *, row: str = "model", seed: int = 0
) -> dict[str, dict[str, SeedDifference]]:
    """By protocol and metric, how `runs` differ from `others`: report directories, one a training seed, in one order.

    DataError unless all of them scored the same cases, and as many on either side.
    """
    if not runs or len(runs) != len(others):
        raise DataError(
            f"There are {len(runs)} runs on one side and {len(others)} on the other.", hint="Give one each a seed."
        )
    reports = {run: check_comparable(run) for run in (*runs, *others)}
    for run, report in reports.items():
        check_same_cases(reports[runs[0]]["cases"], report, run)
    first = ranks_of_cases(runs[0])
    lines = {run: ranks_of_cases(run, first) for run in reports}
    out: dict[str, dict[str, SeedDifference]] = {}
    for protocol in reports[runs[0]]["protocols"]:
        kept = [n for n, line in enumerate(first) if protocol in line["ranks"]]
        drawn = Resampling([first[n]["dialogue"] for n in kept], seed=seed)
        for metric in COMPARED if kept else ():
            mine, own = (
                np.stack([_values(lines[run], kept, protocol, row, metric, run) for run in side])
                for side in (runs, others)
            )
            gaps = mine - own
            lo, hi = over_seeds(gaps, drawn, seed=seed)
            found = SeedDifference(
                float(mine.mean()), float(own.mean()), float(gaps.mean()), lo, hi,
                tuple(map(float, gaps.mean(axis=1))), len(kept),
            )  # fmt: skip
            out.setdefault(protocol, {})[metric] = found
    return out


def _values(
    lines: Sequence[Mapping[str, Any]], kept: Sequence[int], protocol: str, row: str, metric: str, run: Path
) -> np.ndarray:
    ranks = [lines[n]["ranks"].get(protocol, {}).get(row) for n in kept]
    if any(rank is None for rank in ranks):
        raise DataError(f"{run} has no rank of the row {row!r} for each case of {protocol}.")
    return np.asarray(values_of(metric, ranks), dtype=np.float64)
