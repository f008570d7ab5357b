"""Facts that a reply states of the item it names, held against the catalogue.

A claim is a year, or a value of one of the catalogue's lists (a genre, a person, a company), in a sentence that names
one item. It is wrong when the catalogue has that kind of fact of the item and this is none of them: a list of the
catalogue may be incomplete, so for people it is "not in the catalogue", for years it is a contradiction. Knows nothing
of models.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gcrs.toolkit.dialogue.turns import MENTION

if TYPE_CHECKING:
    from gcrs.toolkit.catalog.item import Catalog

YEAR = "year"
LONGEST = 5  # words of a value
SHORTEST = 4  # characters of one
_YEAR = re.compile(r"\b(?:18|19|20)\d\d\b")
_WORD = re.compile(r"[\w'’.&-]*\w|<item:[^<>\s]+>")
_SENTENCE = re.compile(r"(?<=[.!?…\n])\s+|\n")


@dataclass(frozen=True)
class Claim:
    """`said` of an item; `kind` is the column that it would be a fact of; `holds` whether the catalogue says so."""

    item: str
    kind: str
    said: str
    holds: bool


class Claims:
    """Finds claims in replies over one catalogue, whose list columns are its vocabulary."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._lists = [name for name, kind in catalog.columns.items() if kind == "list"]
        self._columns: defaultdict[str, list[str]] = defaultdict(list)
        for item in catalog:
            for column in self._lists:
                values = item.facts.get(column)
                for value in values if isinstance(values, list) else ():
                    if len(value) >= SHORTEST and column not in self._columns[value]:
                        self._columns[value].append(column)

    def of(self, text: str) -> list[Claim]:
        """The claims of a turn's text, in order."""
        out: list[Claim] = []
        for sentence in _SENTENCE.split(text):
            named = list(dict.fromkeys(MENTION.findall(sentence)))
            if len(named) == 1 and named[0] in self._catalog:
                out += self._years(named[0], sentence)
                out += self._values(named[0], sentence)
        return out

    def _years(self, item: str, sentence: str) -> Iterator[Claim]:
        year = self._catalog[item].facts.get(YEAR)
        if isinstance(year, int):
            for said in _YEAR.findall(MENTION.sub(" ", sentence)):
                yield Claim(item, YEAR, said, int(said) == year)

    def _values(self, item: str, sentence: str) -> Iterator[Claim]:
        """Longest values first; one written without capitals in the catalogue may have them in the reply."""
        words = _WORD.findall(sentence)
        facts: Mapping[str, object] = self._catalog[item].facts
        at = 0
        while at < len(words):
            for length in range(min(LONGEST, len(words) - at), 0, -1):
                said = " ".join(words[at : at + length])
                value = said if said in self._columns else said.lower()
                if (columns := self._columns.get(value)) and any(facts.get(column) for column in columns):
                    held = [facts.get(column) for column in self._lists]
                    yield Claim(item, columns[0], value, any(value in one for one in held if isinstance(one, list)))
                    at += length - 1
                    break
            at += 1


def count_claims(claims: list[Claim]) -> dict[str, dict[str, int]]:
    """How many claims there are of each kind and how many the catalogue does not bear out; kinds by name."""
    out: dict[str, dict[str, int]] = {}
    for claim in sorted(claims, key=lambda one: one.kind):
        one = out.setdefault(claim.kind, {"stated": 0, "wrong": 0})
        one["stated"] += 1
        one["wrong"] += not claim.holds
    return out
