"""Collision resolution: every item ends with a semantic ID of its own, as near to its vector as is free.

The paper's procedure (its appendix A): take the items that share an ID; treat first the item whose last-level
distance is smallest; give each its nearest codeword of the LAST level that leaves its ID unused; when that level is
exhausted, go back one level, move to the next nearest codeword there and assign the levels after it anew, with the
residual along the changed path. Items that do not collide keep their IDs.

Going back is a depth-first search with the nearest codeword first. Counting the used IDs below each prefix tells
beforehand which branches hold no free ID, so the search walks down once, past full branches, to the very leaf that
backtracking would find. It always ends: a prefix that is not full has a child that is not full.

Knows nothing of items' names, text or files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gcrs.toolkit.errors import DataError
from gcrs.toolkit.ids.keys import id_keys
from gcrs.toolkit.ids.kmeans import squared_distances
from gcrs.toolkit.ids.quantizer import Progress, codeword_sum


class FreeIds:
    """Which IDs are taken, and the nearest free one to a point. Mutable: `take` marks an ID as used."""

    def __init__(self, used: np.ndarray, codebooks: Sequence[np.ndarray]) -> None:
        """`used` is int [m, levels], rows may repeat; `codebooks` holds one float [K, d'] a level."""
        self.codebooks = codebooks
        self.code_counts = tuple(len(book) for book in codebooks)
        self._keys = np.unique(id_keys(used, self.code_counts))
        self._below = [math.prod(self.code_counts[level + 1 :]) for level in range(len(codebooks))]
        self._counts: dict[tuple[int, ...], np.ndarray] = {}

    def nearest_free(self, point: np.ndarray) -> tuple[int, ...]:
        """The ID that the procedure gives to a latent point [d']: at each level the nearest codeword that is not full.

        The lowest code wins at a tie. Raises DataError when every ID is taken.
        """
        prefix: tuple[int, ...] = ()
        residual = np.asarray(point, dtype=np.float64)
        for book, below in zip(self.codebooks, self._below, strict=True):
            full = self._taken(prefix) >= below
            if full.all():
                space = math.prod(self.code_counts)
                raise DataError(
                    f"All {space:,} semantic IDs of {len(self.code_counts)} levels are taken.",
                    hint="Build the catalogue again with more levels or codes.",
                )
            distance = squared_distances(residual[None], book)[0]
            distance[full] = np.inf
            code = int(distance.argmin())
            residual = residual - book[code]
            prefix = (*prefix, code)
        return prefix

    def take(self, semantic_id: Sequence[int]) -> None:
        """Mark a free ID as used."""
        for level, code in enumerate(semantic_id):
            self._taken(tuple(semantic_id[:level]))[code] += 1

    def _taken(self, prefix: tuple[int, ...]) -> np.ndarray:
        """Used IDs below each child of a prefix, int64 [K of the next level]; counted at the first visit."""
        counts = self._counts.get(prefix)
        if counts is None:
            level = len(prefix)
            begin = 0
            for code, below in zip(prefix, self._below, strict=False):
                begin += code * below
            bounds = begin + np.arange(self.code_counts[level] + 1, dtype=np.int64) * self._below[level]
            counts = self._counts[prefix] = np.diff(np.searchsorted(self._keys, bounds))
        return counts


def resolve_collisions(
    codes: np.ndarray,
    latent: np.ndarray,
    codebooks: Sequence[np.ndarray],
    *,
    progress: Progress | None = None,
) -> np.ndarray:
    """Unique IDs, int32 [n, levels], for greedy `codes` (int [n, levels]) of latent points (float [n, d']).

    Groups of items that share an ID are treated in the order of that ID, items within a group from the smallest
    last-level distance on, equal distances in the order of rows. The first of a group keeps its ID, and no ID that
    any item holds at the start is given to another, so what changes is independent of the order of rows up to such
    ties. Raises DataError when there are more items than IDs.
    """
    code_counts = tuple(len(book) for book in codebooks)
    keys = id_keys(codes, code_counts)
    space = math.prod(code_counts)
    if len(keys) > space:
        raise DataError(
            f"{len(keys):,} items cannot share {space:,} semantic IDs ({len(code_counts)} levels of {code_counts}).",
            hint="Use more levels or codes.",
        )
    ids = np.array(codes, dtype=np.int32)
    _, group, size = np.unique(keys, return_inverse=True, return_counts=True)
    colliding = np.flatnonzero(size[group] > 1)
    if not len(colliding):
        return ids
    rest = np.asarray(latent[colliding], dtype=np.float64) - codeword_sum(ids[colliding], codebooks)
    distance = np.einsum("nd,nd->n", rest, rest)  # of the last level: what its nearest codeword leaves over
    ranked = colliding[np.lexsort((colliding, distance, group[colliding]))]
    followers = ranked[1:][group[ranked[1:]] == group[ranked[:-1]]]  # all but the first of each group
    free = FreeIds(ids, codebooks)
    for done, row in enumerate(followers):
        ids[row] = semantic_id = free.nearest_free(latent[row])
        free.take(semantic_id)
        if progress and done % 256 == 0:
            progress(done, len(followers), "resolving collisions")
    if progress:
        progress(len(followers), len(followers), "resolving collisions")
    return ids
