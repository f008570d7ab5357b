"""Item and Catalog: what can be recommended.

Knows nothing of files, semantic IDs or the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from gcrs.toolkit.errors import DataError, UnknownItem

LONGEST_TITLE = 80  # characters of a title that a model is shown
Fact = str | int | float | bool | list[str]
ColumnType = Literal["string", "integer", "number", "boolean", "date", "list"]


@dataclass(frozen=True)
class Item:
    """One thing of the catalogue.

    `facts` maps a column's name to its value; a missing value has no key. `aliases` are other source ids that mean
    this same item, `names` other titles it is known by (used by the mention linker only).
    """

    id: str
    title: str
    facts: Mapping[str, Fact] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The title as shown to a person: with its year when the catalogue has one and the title does not."""
        year = self.facts.get("year")
        if year is None or str(year) in self.title:
            return self.title
        return f"{self.title} ({year})"


class Catalog:
    """An immutable, ordered set of items, found by id or by alias.

    `columns` gives each fact column's type, fixed when the catalogue is built. Raises DataError on duplicate ids or
    aliases.
    """

    def __init__(self, items: Sequence[Item], columns: Mapping[str, ColumnType] | None = None) -> None:
        self.items = tuple(items)
        self.columns: dict[str, ColumnType] = dict(columns or {})
        self._canonical: dict[str, str] = {}
        self._by_id: dict[str, Item] = {}
        for item in self.items:
            for source_id in (item.id, *item.aliases):
                if source_id in self._canonical:
                    raise DataError(f"Item id {source_id!r} appears twice in the catalogue.", hint="Make ids unique.")
                self._canonical[source_id] = item.id
            self._by_id[item.id] = item

    def titles(self) -> dict[str, str]:
        """Each item's title, cut where it is very long, by canonical id."""
        return {item.id: item.title[:LONGEST_TITLE] for item in self.items}

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._canonical

    def __getitem__(self, item_id: str) -> Item:
        """The item with this id or alias; UnknownItem if there is none."""
        return self._by_id[self.canonical(item_id)]

    def canonical(self, item_id: str) -> str:
        """The canonical id behind an id or alias; UnknownItem if there is none."""
        try:
            return self._canonical[item_id]
        except KeyError:
            raise UnknownItem(item_id) from None
