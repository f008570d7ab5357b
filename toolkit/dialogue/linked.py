"""What the mention linker hands back: the linked text, each link with its surface, and what stayed open.

Knows nothing of how a mention is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

How = Literal["exact", "year", "dialogue", "count", "fuzzy"]


@dataclass(frozen=True)
class Link:
    """`source[start:end]` (`surface`) names `item`; `how` says what decided it."""

    start: int
    end: int
    item: str
    surface: str
    how: How


@dataclass(frozen=True)
class Ambiguous:
    """`source[start:end]` names several items and nothing tells which; left unlinked."""

    start: int
    end: int
    surface: str
    candidates: tuple[str, ...]


@dataclass(frozen=True)
class Linked:
    """A linked message: `text` with `<item:ID>` spans, as a Turn holds it; positions refer to `source`."""

    text: str
    source: str
    links: tuple[Link, ...] = ()
    ambiguous: tuple[Ambiguous, ...] = ()

    def without(self, *items: str) -> Linked:
        """The same message with the links to these items undone."""
        kept = tuple(link for link in self.links if link.item not in items)
        return Linked(write_links(self.source, kept), self.source, kept, self.ambiguous)


def write_links(source: str, links: Sequence[Link]) -> str:
    """The source with each link's surface replaced by `<item:ID>`; links in order, none overlapping."""
    out, last = [], 0
    for link in links:
        out += [source[last : link.start], f"<item:{link.item}>"]
        last = link.end
    return "".join(out) + source[last:]
