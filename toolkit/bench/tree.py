"""The ID tree and its filter, for catalogues of a thousand to a million items; no model takes part."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from gcrs.toolkit.bench.limits import moving
from gcrs.toolkit.bench.measure import Row, Sample, sample
from gcrs.toolkit.bench.simulated import codes_of
from gcrs.toolkit.ids.tree import PrefixTree

if TYPE_CHECKING:
    from gcrs.toolkit.bench.workbench import Workbench

LEVELS, BEAMS, ALLOWED = 4, 50, 0.3
SIZES = (1_000, 10_000, 100_000, 1_000_000)
YEAR, LONGEST = 2000, 0.02  # of the filter's rule, and seconds that 7k items may take


def _codes(n: int) -> int:
    return 64 if n < 50_000 else 256


@cache
def _ids(n: int) -> np.ndarray:
    return codes_of(n, LEVELS, _codes(n), skewed=False)  # even codes share the fewest prefixes: the largest tree


def _label(n: int) -> str:
    return f"{n // 1_000_000}M" if n >= 1_000_000 else f"{n // 1_000}k"


def tree(bench: Workbench) -> list[Row]:
    """Build, memory and one step of 50 beams, at every size."""
    sizes = bench.pick(SIZES, (1_000, 10_000, 100_000))
    rates, repeats = bench.rates(), bench.pick(5, 2)
    built, megabytes, steps = {}, {}, {}
    for n in sizes:
        ids, counts = _ids(n), (_codes(n),) * LEVELS
        built[n] = sample(lambda ids=ids, counts=counts: PrefixTree.build(ids, counts), repeats)  # type: ignore[misc]
        made = PrefixTree.build(ids, counts).subset(np.random.default_rng(1).random(n) < ALLOWED)
        megabytes[n], steps[n] = made.nbytes / 1e6, _step(made, bench.pick(200, 50))
    last, first = sizes[-1], sizes[0]
    own = PrefixTree.build(_ids(last), (_codes(last),) * LEVELS).nbytes
    limit = moving(rates, _ids(last).nbytes + own)
    million = last == SIZES[-1]
    return [
        Row(
            "tree-build", f"ID tree of {_label(last)} items built", "s", built[last], 1.0 if million else None,
            ours=built[last], limit=limit, details={_label(n): built[n].median for n in sizes},
        ),
        Row(
            "tree-memory", f"its arrays and a filter, {_label(last)} items", "MB", Sample.of([megabytes[last]]),
            50.0 if million else None, details={_label(n): megabytes[n] for n in sizes},
        ),
        Row(
            "tree-step", f"children of {BEAMS} beams under a filter, slowest level, {_label(last)} items", "ms",
            steps[last], 0.2, baseline=f"the same at {_label(first)} items", theirs=steps[first],
            details={"unit of theirs": "ms", "growth": steps[last].median / steps[first].median}
            | {_label(n): steps[n].median for n in sizes},
        ),
    ]  # fmt: skip


def _step(made: PrefixTree, repeats: int) -> Sample:
    """Milliseconds of the slowest level: beams on living states, their children looked up."""
    rng = np.random.default_rng(2)
    slowest: Sample | None = None
    for level in range(made.levels):
        begin, end = made.level_start[level : level + 2]
        living = np.arange(begin, end)
        living = living if made.alive is None else living[made.alive[living]]
        states = np.sort(rng.choice(living, BEAMS if level else 1))  # all beams begin as one
        found = sample(lambda states=states: made.children_batch(states), repeats, warm=5)  # type: ignore[misc]
        if slowest is None or found.median > slowest.median:
            slowest = found
    assert slowest is not None
    return Sample(slowest.n, 1e3 * slowest.median, 1e3 * slowest.lo, 1e3 * slowest.hi)


def filters(bench: Workbench) -> list[Row]:
    """From rules in words to a tree that decodes under them: columns are there, the tree is subset."""
    from gcrs.toolkit.catalog.filters import Columns, parse_where
    from gcrs.toolkit.catalog.item import Catalog, Item

    rows = []
    genres = ("action", "comedy", "drama", "horror")
    for name, n, target in (("filter-7k", 7_000, LONGEST), ("filter-1M", 1_000_000, 0.5)):
        if bench.quick and n > 100_000:
            rows.append(Row(name, "rules to a filtered tree, 1M items", "s", skipped="left out of a quick run"))
            continue
        items = [Item(str(at), "t", {"year": 1950 + at % 75, "genres": [genres[at % 4]]}) for at in range(n)]
        columns = Columns(Catalog(items, {"year": "integer", "genres": "list"}))
        whole = PrefixTree.build(_ids(n), (_codes(n),) * LEVELS)
        rules = [f"year>={YEAR}", "genres=comedy"]

        def ready(columns: Columns = columns, whole: PrefixTree = whole, rules: list[str] = rules) -> PrefixTree:
            return whole.subset(columns.allowed([parse_where(rule) for rule in rules], ["5"]))

        taken = sample(ready, bench.pick(5, 3))
        touched = 3 * n + whole.nbytes  # a boolean a rule and item, then every state once
        rows.append(
            Row(
                name,
                f"two rules and an exclusion to a filtered tree, {_label(n)} items",
                "s",
                taken,
                target,
                ours=taken,
                limit=moving(bench.rates(), touched),
            )
        )
    return rows
