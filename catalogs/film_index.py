"""Films that data sets name by strings, "Knives Out (2019)", found among a catalogue's items by name and year.

Knows nothing of any one data set.
"""

from __future__ import annotations

import re

from gcrs.toolkit.catalog.item import Catalog
from gcrs.toolkit.dialogue.normalise import fold, split_year, title_key


def film_id(film: str) -> str:
    """The id of a film without a catalogue: "knives-out-2019" of "Knives Out (2019)"."""
    return re.sub(r"[^a-z0-9]+", "-", fold(film)).strip("-") or "film"


class FilmIndex:
    """Film string -> item id, by name and year."""

    def __init__(self, catalog: Catalog | None) -> None:
        self._made = catalog is None
        self._by_name: dict[str, dict[str, int | None]] = {}
        for item in catalog or ():
            fact = item.facts.get("year")
            for title in (item.title, *item.names):
                name, year = split_year(title)
                self._by_name.setdefault(title_key(name), {})[item.id] = fact if isinstance(fact, int) else year

    def __call__(self, film: str) -> str | None:
        if self._made:
            return film_id(film)
        name, year = split_year(film)
        same_name = self._by_name.get(title_key(name), {})
        same_year = [item for item, other in same_name.items() if year is not None and other == year]
        if same_year:
            return same_year[0]
        undated = [item for item, other in same_name.items() if year is None or other is None]
        return undated[0] if len(same_name) == 1 and undated else None
