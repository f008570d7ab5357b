"""TextColumn: a column of texts or of lists of texts, held so that a question about its entries is asked once an entry.

Knows nothing of rules or of the catalogue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gcrs.toolkit.catalog.item import Fact

if TYPE_CHECKING:
    import numpy as np


class TextColumn:
    """Distinct case-folded entries, and which rows hold which; `known` is bool [n], where there is a value."""

    def __init__(self, values: list[Fact | None]) -> None:
        import numpy as np

        codes: dict[str, int] = {}
        spelled: dict[str, int] = {}  # as written -> code: case-folding each distinct spelling once
        rows: list[int] = []
        entries: list[int] = []
        for row, value in enumerate(values):
            if value is None:
                continue
            for text in value if isinstance(value, list) else (value,):
                code = spelled.get(text)  # type: ignore[arg-type]
                if code is None:
                    folded = " ".join(str(text).casefold().split())
                    code = spelled[str(text)] = codes.setdefault(folded, len(codes))
                rows.append(row)
                entries.append(code)
        self.n = len(values)
        self.distinct = list(codes)
        self._codes = codes
        self._rows = np.array(rows, dtype=np.int32)
        self._entries = np.array(entries, dtype=np.int32)
        self.known = np.zeros(self.n, dtype=bool)
        self.known[self._rows] = True

    def equal(self, folded: str) -> np.ndarray:
        """Bool [n]: rows that hold this very entry."""
        import numpy as np

        mask = np.zeros(self.n, dtype=bool)
        code = self._codes.get(folded)
        if code is not None:
            mask[self._rows[self._entries == code]] = True
        return mask

    def any_of(self, hits: list[bool]) -> np.ndarray:
        """Bool [n]: rows that hold at least one entry marked in `hits` (by distinct entry)."""
        import numpy as np

        mask = np.zeros(self.n, dtype=bool)
        mask[self._rows[np.array(hits, dtype=bool)[self._entries]]] = True
        return mask
