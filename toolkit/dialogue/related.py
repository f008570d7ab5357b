"""Which items go together where no dialogue says so: near vectors and shared facts.

Vectors are what the semantic IDs stand for (the quantizer's reconstruction), so that no encoder is needed. Knows
nothing of words or tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from gcrs.toolkit.catalog.item import Catalog

CANDIDATES = 2_000  # items that one item is compared with; a catalogue larger than that is sampled by cluster


class Related:
    """Neighbours of items. `vectors` float [items, width] and `clusters` int [items], rows in the catalogue's order.

    In a catalogue of more than `CANDIDATES` items an item is compared with those of its cluster alone.
    """

    def __init__(
        self, catalog: Catalog, vectors: np.ndarray, clusters: np.ndarray, columns: Sequence[str], *, seed: int = 0
    ) -> None:
        self.ids = [item.id for item in catalog]
        self._cluster_of = np.asarray(clusters)
        order = np.argsort(self._cluster_of, kind="stable")
        starts = np.flatnonzero(np.diff(self._cluster_of[order], prepend=-1))
        self._clusters = {int(self._cluster_of[rows[0]]): rows for rows in np.split(order, starts[1:]) if len(rows)}
        self._row = {item_id: n for n, item_id in enumerate(self.ids)}
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        self._vectors = (vectors / np.maximum(norms, 1e-9)).astype(np.float32)
        self._facts = [frozenset(_entries(item.facts, columns)) for item in catalog]
        counts = Counter(entry for facts in self._facts for entry in facts)
        self._worth = {entry: float(np.log(len(self.ids) / n)) for entry, n in counts.items() if n > 1}
        self._seed = seed
        self.nearest = lru_cache(maxsize=100_000)(self._nearest)

    def _nearest(self, item_id: str, k: int = 12) -> tuple[str, ...]:
        """The k most related other items, best first: cosine plus the share of its rare facts that they have too."""
        row = self._row[item_id]
        if len(self.ids) <= CANDIDATES:
            rows = np.arange(len(self.ids))
        else:
            rows = self._clusters[int(self._cluster_of[row])]
            if len(rows) > CANDIDATES:
                rows = np.random.default_rng([self._seed, row]).choice(rows, CANDIDATES, replace=False)
        rows = rows[rows != row]
        if not len(rows):
            return ()
        mine = self._facts[row]
        own = sum(self._worth.get(entry, 0.0) for entry in mine) or 1.0
        shared = np.asarray([sum(self._worth.get(e, 0.0) for e in mine & self._facts[r]) for r in rows]) / own
        score = self._vectors[rows] @ self._vectors[row] + shared
        return tuple(self.ids[rows[n]] for n in np.argsort(-score, kind="stable")[:k])

    def far(self, item_id: str, rng: np.random.Generator) -> str:
        """An item that is not among the most related ones; the item itself where there is no other."""
        near = {item_id, *self.nearest(item_id)}
        for _ in range(20):
            if (other := self.ids[int(rng.integers(len(self.ids)))]) not in near:
                return other
        return next((other for other in self.ids if other != item_id), item_id)


def _entries(facts: object, columns: Sequence[str]) -> list[tuple[str, str]]:
    """(column, value) of what two items can share; numbers and years by their tenth or decade."""
    out: list[tuple[str, str]] = []
    for column in columns:
        value = facts.get(column) if isinstance(facts, dict) else None
        for entry in value if isinstance(value, list) else [] if value is None else [value]:
            if isinstance(entry, bool | str):
                out.append((column, str(entry).casefold()))
            elif isinstance(entry, int | float):
                out.append((column, str(int(entry) // 10) if abs(entry) >= 100 else f"{entry:g}"))
    return out
