"""Codebook: the one-to-one mapping between items and semantic IDs.

A semantic ID is one code a level, coarse to fine, e.g. (17, 63, 0, 25) for `<a_17><b_63><c_0><d_25>`. Knows nothing
of tokens, text or how the codes were found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gcrs.toolkit.errors import DataError, UnknownItem

SemanticId = tuple[int, ...]


def spell(semantic_id: Sequence[int]) -> str:
    """The written form, `<a_17><b_63>…`: level letters from a, codes from 0."""
    return "".join(f"<{chr(ord('a') + level)}_{code}>" for level, code in enumerate(semantic_id))


@dataclass(frozen=True)
class Codebook:
    """Unique semantic IDs of a catalogue's items.

    `codes` is the number of codewords at each level; `ids` maps item id to semantic ID; `titles` are the words that
    stand before an item's ID where a person mentions it (default: none do). Raises DataError when two items share an
    ID or a code is out of range.
    """

    codes: tuple[int, ...]
    ids: Mapping[str, SemanticId]
    titles: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        owner: dict[SemanticId, str] = {}
        for item_id, sid in self.ids.items():
            if len(sid) != len(self.codes) or any(not 0 <= c < k for c, k in zip(sid, self.codes, strict=True)):
                raise DataError(
                    f"Semantic ID {sid} of item {item_id!r} does not fit {len(self.codes)} levels {self.codes}."
                )
            if sid in owner:
                raise DataError(f"Items {owner[sid]!r} and {item_id!r} share the semantic ID {spell(sid)}.")
            owner[sid] = item_id
        object.__setattr__(self, "_owner", owner)

    @property
    def levels(self) -> int:
        """Number of tokens in a semantic ID."""
        return len(self.codes)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def semantic_id(self, item_id: str) -> SemanticId:
        """The item's code at each level; UnknownItem if it has none."""
        try:
            return self.ids[item_id]
        except KeyError:
            raise UnknownItem(item_id, hint="It has no semantic ID: build the catalogue again.") from None

    def item_id(self, sid: Sequence[int]) -> str:
        """The item behind a semantic ID; UnknownItem if the ID is free."""
        owner: dict[SemanticId, str] = self._owner  # type: ignore[attr-defined]
        try:
            return owner[tuple(sid)]
        except KeyError:
            raise UnknownItem(spell(sid)) from None

    def array(self) -> np.ndarray:
        """Codes as int32 [items, levels], rows in the order of `ids`."""
        return np.asarray(list(self.ids.values()), dtype=np.int32).reshape(len(self.ids), self.levels)
