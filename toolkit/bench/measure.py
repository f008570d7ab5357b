"""A row of the bench and how it is measured: both sides in turn, as often as said, median and spread.

Knows nothing of what is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from gcrs.toolkit.bench.limits import Limit


@dataclass(frozen=True)
class Sample:
    """n measurements: their median, the least and the most."""

    n: int
    median: float
    lo: float
    hi: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Sample:
        """The sample of these values (at least one)."""
        return cls(len(values), median(values), min(values), max(values))


@dataclass(frozen=True)
class Row:
    """One line of the table.

    `value` is in `unit`; a ratio is ours over the baseline's, pair by pair. `ours` and `theirs` are what was divided,
    in seconds unless `details` says otherwise. `limit` is what the machine could do at best, for `ours`. A row that was
    not measured has no value and says why in `skipped`.
    """

    name: str
    what: str
    unit: str
    value: Sample | None = None
    target: float | None = None
    better: Literal["lower", "higher"] = "lower"
    baseline: str | None = None
    ours: Sample | None = None
    theirs: Sample | None = None
    limit: Limit | None = None
    details: dict[str, Any] = field(default_factory=dict)
    skipped: str | None = None

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the target and what else had to hold did; None without a target or a value."""
        if self.target is None or self.value is None:
            return None
        reached = self.value.median <= self.target if self.better == "lower" else self.value.median >= self.target
        return reached and self.details.get("same", True) is True

    @property
    def times_limit(self) -> float | None:
        """Our median over the limit: 1 is as fast as this machine can be."""
        if self.limit is None or self.ours is None or not self.limit.seconds:
            return None
        return self.ours.median / self.limit.seconds

    def as_json(self) -> dict[str, Any]:
        """The row as `gcrs bench --json` has it (docs/cli.md)."""
        out = asdict(self)
        out["met"] = self.met
        if out["limit"] is not None:
            out["limit"]["times"] = self.times_limit
        rounded: dict[str, Any] = _rounded(out)
        return rounded


def _rounded(value: Any) -> Any:
    """Floats to five significant digits, all the way down."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list | tuple) else value


def seconds(run: Callable[[], object]) -> float:
    """How long one call takes."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def sample(run: Callable[[], object], n: int, *, warm: int = 1) -> Sample:
    """Seconds of n calls, after `warm` calls that do not count."""
    for _ in range(warm):
        run()
    return Sample.of([seconds(run) for _ in range(n)])


def pairs(
    ours: Callable[[], object], theirs: Callable[[], object], n: int, *, before: Callable[[], object] | None = None
) -> tuple[Sample, Sample, Sample]:
    """(ratio, ours, theirs) of n pairs, the order turning from pair to pair, so that a drift hits both alike.

    `before` makes each of them ready and does not count.
    """
    mine: list[float] = []
    other: list[float] = []
    for at in range(n):
        for side, run in ((mine, ours), (other, theirs)) if at % 2 == 0 else ((other, theirs), (mine, ours)):
            if before is not None:
                before()
            side.append(seconds(run))
    ratios = [a / b for a, b in zip(mine, other, strict=True)]
    return Sample.of(ratios), Sample.of(mine), Sample.of(other)
