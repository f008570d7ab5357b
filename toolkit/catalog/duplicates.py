"""When two titles are one: the normal form that films are merged by, and the pairs close enough to look at.

Knows nothing of files; merging itself is the reader's decision, near-duplicates are only ever listed. Only a catalogue
in which nothing can be chosen is refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from gcrs.toolkit.catalog.item import Catalog
from gcrs.toolkit.errors import DataError
from gcrs.toolkit.scripts import MARKS, VOICED

_WINDOW = 8  # neighbours in sorted order that each title is compared with: linear in the number of items
_SAME_NAME = 20  # the same, for titles of one name
_MANY = 20  # items of one name beyond which each is listed beside the next alone
_CLOSE = 92.0  # rapidfuzz ratio, 0..100
_ARTICLES = ("the", "a", "an")
_NO_WORD = re.compile(rf"[^\w{MARKS}]|_")


@dataclass(frozen=True)
class NearDuplicate:
    """Two items that may be one: their ids (in catalogue order) and what makes them look alike."""

    first: str
    second: str
    reason: str


def title_words(title: str) -> list[str]:
    """The title's words without case, accents and punctuation; `&` reads as "and"."""
    folded = unicodedata.normalize("NFKD", title.replace("&", " and ")).casefold()
    plain = "".join(c for c in folded if not unicodedata.combining(c) or c in VOICED)
    return _NO_WORD.sub(" ", re.sub(r"['’`´.]", "", plain)).split()


def normalise_title(title: str) -> str:
    """The form in which equal names are one name: `title_words` written together ("Spider-Man" is "Spider Man").

    A title of punctuation alone is its own normal form.
    """
    return "".join(title_words(title)) or title.strip().casefold()


def near_duplicates(catalog: Catalog) -> list[NearDuplicate]:
    """Pairs of items with (almost) the same name whose years do not tell them apart, in catalogue order.

    "Almost" is: equal but for a leading article, or a similarity of at least 92 of 100 with the same numbers in
    both. Years tell apart when both are known and more than one year from each other. Of many items of one name each
    is paired with the next alone, so that the list stays linear in the items.
    """
    from rapidfuzz.fuzz import ratio

    entries = []
    for position, item in enumerate(catalog):
        words = title_words(item.title)
        bare = words[1:] if len(words) > 1 and words[0] in _ARTICLES else words
        entries.append(("".join(bare) or normalise_title(item.title), position, item.facts.get("year")))
    entries.sort(key=lambda entry: (entry[0], entry[2] if isinstance(entry[2], int) else -1, entry[1]))
    sizes = Counter(name for name, _, _ in entries)
    dated = "year" in catalog.columns
    pairs: dict[tuple[int, int], str] = {}
    for index, (name, position, year) in enumerate(entries):
        many = sizes[name] > _MANY
        for distance in range(1, min(_SAME_NAME, len(entries) - 1 - index) + 1):
            other, other_position, other_year = entries[index + distance]
            if (name != other and distance > _WINDOW) or (many and name == other and distance > 1):
                break
            apart = isinstance(year, int) and isinstance(other_year, int) and abs(year - other_year) > 1
            if apart or (
                name != other and (not ratio(name, other, score_cutoff=_CLOSE) or _numbers(name) != _numbers(other))
            ):
                continue
            reason = "the same name" if name == other else "almost the same name"
            if dated:
                years = "the same year" if year == other_year else "neighbouring years"
                reason += f", {'a year is missing' if year is None or other_year is None else years}"
            pairs[min(position, other_position), max(position, other_position)] = reason
    return [NearDuplicate(catalog.items[a].id, catalog.items[b].id, pairs[a, b]) for a, b in sorted(pairs)]


def same_titles(catalog: Catalog) -> list[list[str]]:
    """Groups of item ids with one title (case, accents and punctuation aside) and one year, if they have any."""
    groups: dict[tuple[str, Any], list[str]] = defaultdict(list)
    for item in catalog:
        groups[normalise_title(item.title), item.facts.get("year")].append(item.id)
    return [ids for ids in groups.values() if len(ids) > 1]


def check_buildable(catalog: Catalog) -> None:
    """DataError for a catalogue in which there is nothing to choose: one item, or items that nothing tells apart."""
    first = catalog.items[0]
    if len(catalog) == 1:
        raise DataError(
            f"The catalogue holds one item, {first.title[:60]!r}: there is nothing to choose from.",
            hint="Bring at least two.",
        )
    if all(item.title == first.title and item.facts == first.facts for item in catalog):
        raise DataError(
            f"All {len(catalog):,} items have the title {first.title[:60]!r} and the same facts: nothing tells them "
            "apart.",
            hint="Add a column in which they differ, or keep one of them.",
        )


def _numbers(name: str) -> list[str]:
    """What tells one part of a series from the next: digits, and a Roman numeral at the end."""
    return re.findall(r"\d+", name) + re.findall(r"(?:i{1,3}|iv|vi{0,3}|ix|x)$", name)
