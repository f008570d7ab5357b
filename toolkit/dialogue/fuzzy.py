"""Titles that are spelt almost like what was typed, by edit distance within a block of like titles.

Works on title keys (`normalise.key_of`); knows nothing of items, sentences or evidence.
"""

from __future__ import annotations

from collections.abc import Iterable

SHORTEST = 6  # letters of a key below which one slip makes another word


def allowed_slips(size: int, words: int) -> int:
    """Edits (insert, delete, replace, swap of neighbours) that a title of so many letters and words may be off by."""
    if size < SHORTEST:
        return 0
    if words == 1:  # "Pacific" is no slip of "Pacifier"
        return 1 if size < 12 else 2
    return 1 if size < 10 else 2 if size < 18 else 3


class NearKeys:
    """Keys in blocks of one first letter and one length, so that a search compares with a few hundred, not all."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._blocks: dict[tuple[str, int], list[str]] = {}
        for key in keys:
            if len(key) >= SHORTEST:
                self._blocks.setdefault((key[0], len(key)), []).append(key)

    def search(self, key: str, words: int) -> tuple[list[str], int]:
        """The keys nearest to `key` within its allowed slips, all at one distance, and that distance; ([], 0) if none.

        The first letter must be right and so must every digit: "Toy Story 3" is no slip of "Toy Story 2".
        """
        from rapidfuzz import process
        from rapidfuzz.distance import OSA

        slips = allowed_slips(len(key), words)
        best, nearest = slips, []
        for size in range(len(key) - slips, len(key) + slips + 1):
            block = self._blocks.get((key[0], size))
            if not block:
                continue
            for near, distance, _ in process.extract(key, block, scorer=OSA.distance, score_cutoff=best, limit=4):
                if digits(near) != digits(key):
                    continue
                if distance < best:
                    best, nearest = distance, [near]
                elif distance == best:
                    nearest.append(near)
        return (nearest, best) if slips else ([], 0)


def digits(key: str) -> str:
    """The digits of a key, in order."""
    return "".join(c for c in key if c.isdigit())
