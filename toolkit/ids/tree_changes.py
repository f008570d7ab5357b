"""A prefix tree with IDs added or taken out: a new tree from the old one's arrays, without sorting what is sorted.

Taking an ID out changes what scores are normalised over; what must only not be decoded now is a filter
(`PrefixTree.subset`), which changes nothing else. Knows nothing of item ids, files or the model.
"""

from __future__ import annotations

import numpy as np

from gcrs.toolkit.errors import DataError
from gcrs.toolkit.ids.keys import id_keys
from gcrs.toolkit.ids.tree import PrefixTree


def sorted_codes(tree: PrefixTree) -> np.ndarray:
    """The tree's IDs in ascending order, uint16 or int32 [n, L]; the i-th is the ID of row `tree.rows[i]`."""
    n, levels = len(tree), tree.levels
    by_id = np.empty((n, levels), dtype=tree.code.dtype)
    below = np.ones(n, dtype=np.int64)  # leaves under each node of a level, from the leaves up
    for level in reversed(range(levels)):
        begin, end = tree.level_start[level + 1 : level + 3]
        by_id[:, level] = np.repeat(tree.code[begin:end], below)
        if level:
            above = int(tree.level_start[level])
            runs = tree.first[above:begin] - begin
            below = np.add.reduceat(below, runs) if n else below
    return by_id


def extend(tree: PrefixTree, codes: np.ndarray) -> PrefixTree:
    """The tree with the rows of `codes` (int [m, L]) as rows n to n + m - 1; those that were there keep their number.

    A filter goes on to hold for the old rows; the new ones are allowed. Raises DataError on IDs that are taken, equal
    or out of range.
    """
    codes = np.asarray(codes)
    fresh = id_keys(codes, tree.code_counts)
    old = sorted_codes(tree)
    order = np.argsort(fresh, kind="stable")
    at = np.searchsorted(id_keys(old, tree.code_counts), fresh[order], side="right")
    by_id = np.insert(old, at, codes[order].astype(old.dtype), axis=0)
    rows = np.insert(tree.rows, at, (len(tree) + order).astype(np.int32))
    grown = PrefixTree.of_sorted(by_id, rows, tree.code_counts)
    if tree.alive is None:
        return grown
    return grown.subset(np.concatenate([tree.allowed_rows(), np.ones(len(codes), dtype=bool)]))


def remove(tree: PrefixTree, rows: np.ndarray) -> PrefixTree:
    """The tree without `rows` (int [m], repeats are one), renumbered as `np.delete(codes, rows, axis=0)` does.

    A filter goes on to hold. Raises DataError for a row that is not there.
    """
    rows = np.asarray(rows, dtype=np.int64).reshape(-1)
    if len(rows) and (rows.min() < 0 or rows.max() >= len(tree)):
        wrong = int(rows[(rows < 0) | (rows >= len(tree))][0])
        raise DataError(f"Row {wrong} is not in the ID tree, expected 0 to {len(tree) - 1}.")
    stays = np.ones(len(tree), dtype=bool)
    stays[rows] = False
    number = (np.cumsum(stays) - 1).astype(np.int32)
    kept = stays[tree.rows]
    left = PrefixTree.of_sorted(sorted_codes(tree)[kept], number[tree.rows[kept]], tree.code_counts)
    return left if tree.alive is None else left.subset(tree.allowed_rows()[stays])


def same(one: PrefixTree, other: PrefixTree) -> bool:
    """Whether two trees have the same IDs for the same rows and the same filter."""
    arrays = [(getattr(one, name), getattr(other, name)) for name in ("level_start", "first", "code", "rows", "alive")]
    return one.code_counts == other.code_counts and all(
        (a is None) == (b is None) and (a is None or np.array_equal(a, b)) for a, b in arrays
    )
