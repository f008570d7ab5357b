"""What recommendations are like as a whole: how many items, how evenly, for whom right, how sure, and where they fail.

Pure functions over rankings, probabilities and semantic IDs. Knows nothing of models or files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gcrs.toolkit.eval.metrics import Resampling

BANDS = ((0, 0, "0"), (1, 9, "1-9"), (10, 49, "10-49"), (50, 199, "50-199"), (200, None, "200+"))
NAMED = ((0, 0, "0"), (1, 1, "1"), (2, 2, "2"), (3, 4, "3-4"), (5, None, "5+"))
CUTS = (1, 10, 50)  # items of a ranking that coverage and Gini look at
Bands = Sequence[tuple[int, int | None, str]]


def coverage(recommended: Iterable[Sequence[str]], items: int) -> float:
    """The share of a catalogue of `items` items that is recommended at least once."""
    return len({item for ranking in recommended for item in ranking}) / items if items else 0.0


def gini(counts: Sequence[int], items: int) -> float:
    """How unevenly recommendations fall on the items of a catalogue: 0 all alike, towards 1 all on one.

    `counts` are those of the items that were recommended; the other `items - len(counts)` count 0.
    """
    total = sum(counts)
    if not total or items < 1:
        return 0.0
    ascending = np.sort(np.concatenate([np.zeros(items - len(counts)), np.asarray(counts, dtype=np.float64)]))
    places = np.arange(1, items + 1)
    return float((2 * places - items - 1) @ ascending / (items * total))


def breadth(rankings: Sequence[Sequence[str]], items: int) -> dict[str, float]:
    """Coverage and Gini of the first items of all rankings, at each of `CUTS`."""
    out: dict[str, float] = {}
    for k in CUTS:
        best = [ranking[:k] for ranking in rankings]
        out |= {f"coverage@{k}": coverage(best, items), f"gini@{k}": gini(recommended_counts(best), items)}
    return out


def recommended_counts(rankings: Iterable[Sequence[str]]) -> list[int]:
    """How often each item that is recommended at all is, in the order of first appearance."""
    return list(Counter(item for ranking in rankings for item in ranking).values())


def band_of(value: int, bands: Bands) -> str:
    """The name of the band that holds a count."""
    return next(name for low, high, name in bands if value >= low and (high is None or value <= high))


def by_band(
    rows: Mapping[str, np.ndarray], counts: Sequence[int], bands: Bands, groups: Sequence[str], *, seed: int = 0
) -> list[dict[str, Any]]:
    """The mean of each row's values, one a case, in each band of the cases' counts, with its interval over `groups`.

    `n` says how many cases a band has; null where there are none.
    """
    names = [band_of(count, bands) for count in counts]
    out = []
    for _, _, name in bands:
        held = [n for n, own in enumerate(names) if own == name]
        drawn = Resampling([groups[n] for n in held], seed=seed)
        found = {row: drawn.estimate(values[held]).to_json() for row, values in rows.items()}
        out.append({"band": name, "n": len(held), "rows": found})
    return out


def calibration(chances: Sequence[float], right: Sequence[bool], bins: int = 10) -> dict[str, Any]:
    """How often what is said with a probability is right, in `bins` bins of equally many cases, lowest first.

    `error` is the expected calibration error: the bins' |mean probability - share right|, weighted by their size.
    Source: Guo et al. (2017), with bins of equal mass.
    """
    order = np.argsort(np.asarray(chances, dtype=np.float64), kind="stable")
    said, true = np.asarray(chances, dtype=np.float64)[order], np.asarray(right, dtype=np.float64)[order]
    out, error = [], 0.0
    for part in np.array_split(np.arange(len(said)), min(bins, max(1, len(said)))):
        if len(part):
            mean, share = float(said[part].mean()), float(true[part].mean())
            error += len(part) / len(said) * abs(mean - share)
            out.append({"n": len(part), "probability": mean, "right": share})
    return {"error": error, "bins": out}


def failing_level(chosen: Sequence[int], gold: Sequence[Sequence[int]]) -> int:
    """The level, from 0, at which a chosen semantic ID leaves the gold ID that it follows furthest.

    The number of levels when it is a gold ID.
    """
    shared = 0
    for sid in gold:
        same = [a == b for a, b in zip(chosen, sid, strict=True)]
        shared = max(shared, same.index(False) if False in same else len(same))
    return shared
