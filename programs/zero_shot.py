"""What another language model says, held against the catalogue: used when the program runs zero-shot.

Our own model cannot name what does not exist; another one can. Everything here fails closed. Knows nothing of DSPy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gcrs.programs.spelled import parse_semantic_ids
from gcrs.toolkit.dialogue.normalise import neutralise
from gcrs.toolkit.dialogue.turns import Turn
from gcrs.toolkit.errors import DataError, DeadEnd
from gcrs.toolkit.ids.codebook import Codebook
from gcrs.toolkit.model.engine import Piece, Scored

if TYPE_CHECKING:
    import numpy as np

    from gcrs.toolkit.catalog.item import Catalog
    from gcrs.toolkit.dialogue.linker import Linker
    from gcrs.toolkit.live import Edition
    from gcrs.toolkit.model.tokens import TokenSpace

_SENTENCES = re.compile(r"(?<=[.!?…\n])(?=\s)")


@dataclass(frozen=True)
class Parts:
    """What a program reads but never learns; shared, not copied, when DSPy copies the program.

    `edition` is the catalogue at one version: its items, their semantic IDs, and which of them are retired.
    """

    edition: Edition
    tokens: TokenSpace
    linker: Linker | None
    titles: dict[str, str] = field(repr=False)

    @property
    def catalog(self) -> Catalog:
        """All items, retired ones included: what may be mentioned."""
        return self.edition.catalog

    @property
    def book(self) -> Codebook:
        """Their semantic IDs."""
        return self.edition.book

    def offered(self, allowed: np.ndarray | None) -> np.ndarray | None:
        """A filter (bool [items], None: everything) less the retired items."""
        offered = self.edition.offered
        return allowed if offered is None else offered if allowed is None else allowed & offered

    def __deepcopy__(self, memo: dict[int, Any]) -> Parts:
        return self


def look_up(named: str, allowed: np.ndarray | None, parts: Parts) -> Scored:
    """The allowed item that a model named by semantic ID, item id or title; DeadEnd when there is none."""
    text = named.strip().strip("\"'`*.")
    found: list[str] = []
    try:
        found = [parts.book.item_id(sid) for sid in parse_semantic_ids(text, parts.book)]
    except DataError:
        found = []  # not a semantic ID of this catalogue: perhaps a title
    if not found and text in parts.catalog:
        found = [parts.catalog.canonical(text)]
    if not found:
        folded = text.casefold()
        found = [item.id for item in parts.catalog if folded in (item.label.casefold(), item.title.casefold())]
    if not found and parts.linker is not None:
        found = [link.item for link in parts.linker.link(f'"{text}"').links]
    rows = {item: row for row, item in enumerate(parts.book)}
    legal = [item for item in found if item in rows and (allowed is None or allowed[rows[item]])]
    if not legal:
        why = "which the rules in force exclude" if found else "which is not in the catalogue"
        raise DeadEnd(f"The language model chose {named[:80]!r}, {why}.", hint="Ask again or use the bundle's model.")
    return Scored(legal[0], parts.book.semantic_id(legal[0]), 0.0)


def as_pieces(said: str, licensed: Sequence[str], parts: Parts) -> Iterator[Piece]:
    """A message as pieces no longer than a sentence: licensed titles become item spans, a typed span is only text."""
    text = neutralise(said)
    if parts.linker is not None:
        linked = parts.linker.link(text, licensed)
        text = linked.without(*(link.item for link in linked.links if link.item not in licensed)).text
    for what, value in Turn("assistant", text).segments():
        if what == "item":
            yield Piece("item", f"<item:{value}>", value, ())
        else:
            yield from (Piece("text", sentence, None, ()) for sentence in _SENTENCES.split(value) if sentence)
