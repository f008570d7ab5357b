"""A semantic ID as one whole number, so that sorting numbers sorts IDs.

Knows nothing of trees, items or tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gcrs.toolkit.errors import DataError

MAX_ID_SPACE = 2**62


def id_keys(codes: np.ndarray, code_counts: Sequence[int]) -> np.ndarray:
    """One int64 a row of `codes` (int [n, L]) that orders rows as their codes do, level by level.

    Raises DataError when a code is out of range or the ID space has more than 2**62 IDs.
    """
    codes = np.asarray(codes)
    if not code_counts or min(code_counts) < 1 or math.prod(code_counts) > MAX_ID_SPACE:
        raise DataError(f"The code counts {tuple(code_counts)} do not make an ID space of 1 to 2**62 IDs.")
    if codes.ndim != 2 or codes.shape[1] != len(code_counts) or not np.issubdtype(codes.dtype, np.integer):
        raise DataError(
            f"The codes are {codes.dtype} of shape {codes.shape}, expected whole numbers [items, {len(code_counts)}]."
        )
    keys = np.zeros(len(codes), dtype=np.int64)
    for level, count in enumerate(code_counts):
        column = codes[:, level]
        if len(column) and (column.min() < 0 or column.max() >= count):
            row = int(np.flatnonzero((column < 0) | (column >= count))[0])
            raise DataError(f"Row {row} has code {int(column[row])} at level {level}, expected 0 to {count - 1}.")
        keys *= count
        keys += column
    return keys
