"""The list of rows, and a run over those that were asked for.

Knows nothing of how a table looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

from gcrs.toolkit.errors import UsageError

if TYPE_CHECKING:
    from gcrs.toolkit.bench.measure import Row
    from gcrs.toolkit.bench.workbench import Progress, Workbench

FAMILIES = {  # which function measures which rows
    ("help",): "processes.startup",
    ("tree-build", "tree-memory", "tree-step"): "tree.tree",
    ("filter-7k", "filter-1M"): "tree.filters",
    ("turn-tokens", "turn-wall", "turn-calls"): "turn.turn",
    ("sessions",): "turn.sessions",
    ("replies",): "turn.replies",
    ("top-50",): "ranking.top",
    ("evaluation",): "ranking.evaluation",
    ("finetune",): "training.finetune",
    ("finetune-step",): "training.step",
    ("memory",): "processes.memory",
    ("outlines-words", "outlines-ids"): "constraints.outlines",
    ("llguidance",): "constraints.llguidance",
}
NAMES = tuple(name for names in FAMILIES for name in names)


def chosen(names: Sequence[str]) -> frozenset[str]:
    """The rows that these names mean: a row's own, or a family's beginning such as `turn`; all without any.

    Raises UsageError for a name that means none.
    """
    found: set[str] = set()
    for name in names:
        meant = {row for row in NAMES if name in (row, row.split("-")[0])}
        if not meant:
            raise UsageError(f"The bench has no row {name!r}.", hint=f"Its rows: {', '.join(NAMES)}.")
        found |= meant
    return frozenset(found or NAMES)


def run(bench: Workbench, names: Sequence[str] = (), progress: Progress | None = None) -> Iterator[Row]:
    """Measure the rows of these names, in the list's order; those that are measured together are measured once."""
    wanted = chosen(names)
    families = [(rows, where) for rows, where in FAMILIES.items() if wanted & set(rows)]
    for done, (rows, where) in enumerate(families):
        if progress is not None:
            progress(done, len(families), f"measuring {', '.join(rows)}")
        module, function = where.split(".")
        for row in getattr(import_module(f"gcrs.toolkit.bench.{module}"), function)(bench):
            if row.name in wanted:
                yield replace(row, target=None) if bench.quick else row  # targets are for the whole sizes
