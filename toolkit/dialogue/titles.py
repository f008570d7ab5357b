"""A catalogue's titles by key, with what helps to tell them apart: years, mention counts, names of people.

Knows nothing of sentences or of evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from gcrs.toolkit.catalog.item import Catalog, Item
from gcrs.toolkit.dialogue.everyday import LIST_MENTIONS, VERY_COMMON, Rarity, rarity
from gcrs.toolkit.dialogue.normalise import Word, fold, key_of, split_year, title_key, words

_LAST_NUMERALS = {
    "v": "5",
    "x": "10",
}  # a Roman five or ten only where it ends a title: "Rocky V", not "V for Vendetta"
RECENT = 5  # years before a catalogue's newest item in which "the new one" may have come out
_PREFIXES = (3, 6, 9)


class Titles:
    """Title key -> canonical item ids, for a catalogue's titles, other names, and what stands beside a title's colon.

    `mentions` counts how often each item (id or alias) is spoken of. Building takes about 20 microseconds a title.
    """

    def __init__(self, catalog: Catalog, mentions: Mapping[str, int] | None = None) -> None:
        self.catalog = catalog
        self.counts: dict[str, int] = {}
        for source_id, count in (mentions or {}).items():
            if source_id in catalog:
                item_id = catalog.canonical(source_id)
                self.counts[item_id] = self.counts.get(item_id, 0) + count
        self._scale = LIST_MENTIONS / max(sum(self.counts.values()), 1)
        self._years: dict[str, int] = {}
        self._names: set[tuple[str, str]] = set()
        self._name_keys: set[str] = set()
        self.index: dict[str, list[str]] = {}
        self.pieces: set[str] = set()  # keys that are only a part of their title
        pieces: dict[str, list[str]] = {}
        for item in catalog:
            self._add(item, pieces)
        for key, items in pieces.items():
            if len(items) == 1 and key not in self.index:
                self.index[key] = items
                self.pieces.add(key)
        self._learn_names()
        self.longest = max(map(len, self.index), default=0)
        self._starts = {key[:n] for key in self.index for n in _PREFIXES}

    def _add(self, item: Item, pieces: dict[str, list[str]]) -> None:
        year = item.facts.get("year")
        for title in (item.title, *item.names):
            name, own_year = split_year(title)
            year = own_year if year is None else year
            parts = words(name)
            keys = {title_key(name), key_of(parts)}  # with its article too: the longer match wins
            if len(parts) > 1 and parts[-1].bare in _LAST_NUMERALS:
                keys.add(title_key(name[: parts[-1].start] + _LAST_NUMERALS[parts[-1].bare]))
            for key in keys - {""}:
                _enter(self.index, key, item.id)
            if (colon := name.find(": ")) > 0:
                for piece in (name[:colon], name[colon + 2 :]):
                    if (run := words(piece)) and rarity(run) == Rarity.NAME:
                        _enter(pieces, title_key(piece), item.id)
        if isinstance(year, int) or (isinstance(year, str) and year.isdigit()):
            self._years[item.id] = int(year)

    def _learn_names(self) -> None:
        """Names in the facts (people, companies) that hold a title, as neighbouring words, or are one, as keys."""
        facts = (value for item in self.catalog for value in item.facts.values() if isinstance(value, list))
        for name in {name for value in facts for name in value}:
            pieces = fold(name).split()
            if len(pieces) > 1 and "".join(pieces) in self.index:
                self._name_keys.add("".join(pieces))
            self._names.update(pair for pair in pairwise(pieces) if pair[0] in self.index or pair[1] in self.index)

    def may_go_on(self, key: str) -> bool:
        """Whether a longer key may begin with this one."""
        return len(key) <= self.longest and all(key[:n] in self._starts for n in _PREFIXES if len(key) >= n)

    def of_year(self, items: Sequence[str], year: int) -> list[str]:
        """The items of this year, else of a year beside it (festival and release dates differ)."""
        exact = [item for item in items if self._years.get(item) == year]
        return exact or [item for item in items if abs(self._years.get(item, 0) - year) == 1]

    def of_age(self, items: Sequence[str], new: bool) -> list[str]:
        """The newest or the oldest of the items; none where the newest is old, so that another one must be meant."""
        dated = sorted((year, item) for item in items if (year := self._years.get(item)) is not None)
        if not dated:
            return list(items)
        year = dated[-1 if new else 0][0]
        if new and year < max(self._years.values()) - RECENT:
            return []
        return [item for other, item in dated if other == year]

    def mentions(self, items: Sequence[str]) -> int | None:
        """How often these items are spoken of, on the scale of the everyday words; None where nobody counted."""
        if not self.counts:
            return None
        return round(self._scale * sum(self.counts.get(item, 0) for item in items))

    def is_a_person(self, key: str, items: Sequence[str]) -> bool:
        """Whether a key is a name of the facts, and no title that is often spoken of."""
        return key in self._name_keys and (self.mentions(items) or 0) < VERY_COMMON

    def in_a_name(self, run: Sequence[Word]) -> bool:
        """Whether two neighbours among these words belong to a name of the facts: ("emma", "stone")."""
        return any((one.bare, other.bare) in self._names for one, other in pairwise(run))

    def names(self, item_id: str) -> tuple[str, ...]:
        """Every title of an item, without years."""
        item = self.catalog[item_id]
        return tuple(split_year(title)[0] for title in (item.title, *item.names))

    def broken(self, items: Sequence[str]) -> bool:
        """Whether one of the titles has a comma or a sentence's end inside: "What's Up, Doc?"."""
        return any(mark in name for item in items for name in self.names(item) for mark in ",!?.;、，。！？")

    def is_whole(self, item_id: str, key: str) -> bool:
        """Whether a key is one of the item's names with its article, if it has one."""
        return any(key_of(words(name)) == key for name in self.names(item_id))

    def weight(self, item_id: str, key: str) -> int:
        """An item's mentions; three times as many where its title has no article that was left out ("Heat")."""
        return self.counts.get(item_id, 0) * (3 if self.is_whole(item_id, key) else 1)


def _enter(index: dict[str, list[str]], key: str, item_id: str) -> None:
    items = index.setdefault(key, [])
    if item_id not in items:
        items.append(item_id)
