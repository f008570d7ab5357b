"""Rows of a table: every metric of every row under a protocol, with intervals, and against the first row.

Knows nothing of where rankings come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gcrs.toolkit.eval.metrics import Resampling, mrr_at, ndcg_at, recall_at
from gcrs.toolkit.eval.significance import paired

KS = (1, 5, 10, 20, 50)
METRICS = {"recall": recall_at, "ndcg": ndcg_at, "mrr": mrr_at}
COMPARED = ("recall@1", "recall@10", "recall@50", "ndcg@10", "mrr@10")


@dataclass(frozen=True)
class Row:
    """Ranks of a row's cases (0: not found) by protocol; None where the row did not score a case.

    `only` lists the metrics that the row has, empty for all; `about` says what the row is.
    """

    name: str
    role: str
    about: str
    ranks: Mapping[str, Sequence[int | None]]
    only: tuple[str, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)


def values_of(metric: str, ranks: Sequence[int]) -> np.ndarray:
    """One value a case of a metric such as `recall@10`."""
    name, _, k = metric.partition("@")
    return METRICS[name](ranks, int(k))


def metric_names() -> list[str]:
    """All metrics in the order of the report."""
    return [f"{name}@{k}" for name in METRICS for k in KS]


def table(rows: Sequence[Row], protocol: str, groups: Sequence[str], *, seed: int) -> list[dict[str, Any]]:
    """The rows as JSON: each metric's value and interval, and the difference of each row from the first one.

    `groups` are the dialogues of the protocol's cases. A row that scored some cases only says how many (`n`), and is
    compared with the first on those (`first_on_these`: the first row's metrics there).
    """
    held: dict[tuple[int, ...], Resampling] = {}
    first = rows[0].ranks[protocol] if rows else ()
    out = []
    for row in rows:
        ranks = row.ranks[protocol]
        kept = tuple(n for n, rank in enumerate(ranks) if rank is not None)
        drawn = held.setdefault(kept, Resampling([groups[n] for n in kept], seed=seed))
        own = [rank for rank in ranks if rank is not None]
        names = row.only or metric_names()
        shown: dict[str, Any] = {"name": row.name, "role": row.role, "n": len(kept), "about": row.about}
        shown |= {name: drawn.estimate(values_of(name, own)).to_json() for name in names}
        if row is not rows[0] and kept and all(first[n] is not None for n in kept):
            theirs = [rank for n in kept if (rank := first[n]) is not None]
            shown["against"] = rows[0].name
            if len(kept) < len(ranks):  # what it is compared with cannot be read off the first row
                held_first = {name: drawn.estimate(values_of(name, theirs)).to_json() for name in names}
                shown["first_on_these"] = held_first
            shown["difference"] = {
                name: paired(values_of(name, own), values_of(name, theirs), drawn, seed=seed).to_json()
                for name in COMPARED
                if name in names
            }
        out.append(shown | dict(row.notes))
    return out
