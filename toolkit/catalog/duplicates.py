"""When two titles are one: the normal form that films are merged by, and the pairs close enough to look at.

Knows nothing of files; merging itself is the reader's decision, near-duplicates are only ever listed.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from gcrs.toolkit.catalog.item import Catalog

_WINDOW = 8  # neighbours in sorted order that each title is compared with: linear in the number of items
_SAME_NAME = 100  # the same, for titles of one name
_CLOSE = 92.0  # rapidfuzz ratio, 0..100
_ARTICLES = ("the", "a", "an")


@dataclass(frozen=True)
class NearDuplicate:
    """Two items that may be one: their ids (in catalogue order) and what makes them look alike."""

    first: str
    second: str
    reason: str


def title_words(title: str) -> list[str]:
    """The title's words without case, accents and punctuation; `&` reads as "and"."""
    folded = unicodedata.normalize("NFKD", title.replace("&", " and ")).casefold()
    plain = "".join(c for c in folded if not unicodedata.combining(c))
    return re.sub(r"[^\w]|_", " ", re.sub(r"['’`´.]", "", plain)).split()


def normalise_title(title: str) -> str:
    """The form in which equal names are one name: `title_words` written together ("Spider-Man" is "Spider Man").

    A title of punctuation alone is its own normal form.
    """
    return "".join(title_words(title)) or title.strip().casefold()


def near_duplicates(catalog: Catalog) -> list[NearDuplicate]:
    """Pairs of items with (almost) the same name whose years do not tell them apart, in catalogue order.

    "Almost" is: equal but for a leading article, or a similarity of at least 92 of 100 with the same numbers in
    both. Years tell apart when both are known and more than one year from each other.
    """
    from rapidfuzz.fuzz import ratio

    entries = []
    for position, item in enumerate(catalog):
        words = title_words(item.title)
        bare = words[1:] if len(words) > 1 and words[0] in _ARTICLES else words
        entries.append(("".join(bare) or normalise_title(item.title), position, item.facts.get("year")))
    entries.sort(key=lambda entry: entry[:2])
    pairs: dict[tuple[int, int], str] = {}
    for index, (name, position, year) in enumerate(entries):
        for distance, (other, other_position, other_year) in enumerate(entries[index + 1 : index + 1 + _SAME_NAME]):
            if name != other and distance >= _WINDOW:
                break
            apart = isinstance(year, int) and isinstance(other_year, int) and abs(year - other_year) > 1
            if apart or (
                name != other and (not ratio(name, other, score_cutoff=_CLOSE) or _numbers(name) != _numbers(other))
            ):
                continue
            reason = "the same name" if name == other else "almost the same name"
            years = "the same year" if year == other_year else "neighbouring years"
            missing = year is None or other_year is None
            pairs[min(position, other_position), max(position, other_position)] = (
                f"{reason}, {'a year is missing' if missing else years}"
            )
    return [NearDuplicate(catalog.items[a].id, catalog.items[b].id, pairs[a, b]) for a, b in sorted(pairs)]


def _numbers(name: str) -> list[str]:
    """What tells one part of a series from the next: digits, and a Roman numeral at the end."""
    return re.findall(r"\d+", name) + re.findall(r"(?:i{1,3}|iv|vi{0,3}|ix|x)$", name)
