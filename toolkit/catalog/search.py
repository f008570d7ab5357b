"""Search: items by words of their titles and facts.

A word matches where a word of the item begins with it. Titles come before facts; where no item holds all the words,
titles that are spelled alike are returned. Knows nothing of rules, of dialogues or of what people mean.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from gcrs.toolkit.catalog.item import Catalog, Item

if TYPE_CHECKING:
    import numpy as np

ALIKE = 75.0  # of 100: a misspelt title
MOST_ALIKE = 50
_BREAKS = re.compile(r"[\W_]+")


def _words(text: str) -> str:
    """The text's words, case-folded and without accents, each with a blank before and behind it."""
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text)
        text = "".join(c for c in decomposed if not unicodedata.combining(c))
    return f" {_BREAKS.sub(' ', text.casefold()).strip()} "


def _told(item: Item) -> str:
    values = [v for value in item.facts.values() for v in (value if isinstance(value, list) else [value])]
    return _words(" ".join([item.title, *item.names, *(str(value) for value in values)]))


class Search:
    """Looks through one catalogue; its texts are prepared at the first search (7k items: 0.1 s)."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    @cached_property
    def _titles(self) -> list[str]:
        return [_words(item.label) for item in self.catalog]

    @cached_property
    def _texts(self) -> list[str]:
        return [_told(item) for item in self.catalog]

    def find(self, query: str, allowed: np.ndarray) -> list[Item]:
        """The allowed items (bool [n], in catalogue order) that match, best first; a blank query is every one."""
        rows: Sequence[int] = allowed.nonzero()[0].tolist()
        items = self.catalog.items
        wanted = _words(query)
        if not wanted.strip():
            return [items[row] for row in rows]
        parts = [f" {word}" for word in wanted.split()]
        ranked = []
        for row in rows:
            title = self._titles[row]
            if wanted in (title, _words(items[row].title) if wanted.strip() in title else ""):
                ranked.append((0, row))
            elif title.startswith(wanted.rstrip()):
                ranked.append((1, row))
            elif all(part in title for part in parts):
                ranked.append((2, row))
            elif all(part in title or part in self._texts[row] for part in parts):
                ranked.append((3, row))
        return [items[row] for _, row in sorted(ranked)] if ranked else self._alike(wanted, rows)

    def _alike(self, wanted: str, rows: Sequence[int]) -> list[Item]:
        from rapidfuzz import fuzz, process

        bare = [_words(self.catalog.items[row].title) for row in rows]
        found = process.extract(wanted, bare, scorer=fuzz.ratio, limit=MOST_ALIKE, score_cutoff=ALIKE)
        return [self.catalog.items[rows[place]] for _, _, place in found]
