"""An item's facts as the words that a person asks with: "a cooperative game for 4 players by Matt Leacock".

Works for whatever columns a catalogue has: what a column is (a category, a name, a year, a measure, a yes or no, free
text) is read off its values. The words are our own. Knows nothing of tokens, semantic IDs or the model.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gcrs.toolkit.catalog.item import Catalog, Fact, Item

Role = Literal["category", "name", "year", "number", "flag", "text"]


def _set(spaced: str) -> frozenset[str]:
    return frozenset(spaced.split())


BY = _set(
    """author authors designer designers director directors artist artists brand maker makers manufacturer publisher
    publishers developer developers writer writers creator creators composer composers producer vendor seller chef
    company companies studio studios label band winery brewery"""
)
WITH = _set("cast actors starring stars star actor performers ingredients features characters materials")
NAMELESS = _set("id url link gtin isbn mpn sku ean upc barcode")
NUMBER_FORMS = (  # (part of the column's name, how people say it); {v} is the value
    ("player", ("for {v} players", "that works with {v} players", "{v} players")),
    ("people", ("for {v} people", "{v} people")),
    ("minute", ("that takes about {v} minutes", "of around {v} minutes", "{v} minutes")),
    ("duration", ("that takes about {v} minutes", "of around {v} minutes")),
    ("age", ("for ages {v} and up", "for a {v} year old")),
    ("price", ("for about {v}", "around {v}", "under {more}")),
    ("rating", ("rated {v}", "with a rating of about {v}")),
    ("page", ("of about {v} pages", "with {v} pages")),
)
MAX_WORDS = 8  # words of a value that is still a name or a category, not free text


@dataclass(frozen=True)
class Wish:
    """One fact as words: `before` stands in front of the noun ("cooperative"), else behind it ("by Matt Leacock")."""

    column: str
    words: str
    before: bool


def column_words(column: str) -> str:
    """A column's name as words: `min_players` -> "min players"."""
    return " ".join(re.sub(r"([a-z])([A-Z])", r"\1 \2", column).replace("_", " ").replace("-", " ").split()).lower()


class FactWords:
    """The wishes that an item of this catalogue would fulfil.

    `columns` are those that may be asked about (default: all); `noun` is what one item is called, "" for none.
    """

    def __init__(self, catalog: Catalog, columns: Sequence[str] | None = None, noun: str = "") -> None:
        self.catalog = catalog
        self.noun = " ".join(noun.split())
        named = list(catalog.columns) or list(dict.fromkeys(c for item in catalog for c in item.facts))
        self.columns = [c for c in named if columns is None or c in columns]
        self.roles: dict[str, Role] = {}
        for column in self.columns:
            if (role := _role(column, [item.facts[column] for item in catalog if column in item.facts])) is not None:
                self.roles[column] = role

    @property
    def nouns(self) -> str:
        """The noun's plural, "" for none."""
        return plural(self.noun)

    def wishes(self, item: Item, rng: np.random.Generator, most: int = 3) -> list[Wish]:
        """At most `most` facts of the item as wishes, of different columns, drawn at random; [] for none."""
        at_hand = [c for c in self.columns if c in item.facts and self.roles.get(c) not in (None, "text")]
        out: list[Wish] = []
        for n in rng.permutation(len(at_hand)):
            if len(out) == most:
                break
            wish = self._wish(at_hand[n], item.facts[at_hand[n]], rng)
            if wish is not None:
                out.append(wish)
        return out

    def phrase(self, wishes: Sequence[Wish]) -> str:
        """The wishes around the noun: "a cooperative card game for 4 players"; without a noun "something …"."""
        before = ", ".join(w.words for w in wishes if w.before)
        behind = " ".join(w.words for w in wishes if not w.before)
        if not self.noun:
            return " ".join(part for part in ("something", before, behind) if part)
        head = f"{before} {self.noun}".strip()
        return f"{article(head)} {head} {behind}".strip()

    def keywords(self, wishes: Sequence[Wish]) -> str:
        """The wishes as one types them into a search box: "cooperative, 4 players"."""
        return ", ".join(re.sub(r"^(for|that takes|of|that works with|from|with|by) ", "", w.words) for w in wishes)

    def told(self, item: Item, rng: np.random.Generator, most: int = 3) -> str:
        """Up to `most` facts as a reply states them: "designers: Matt Leacock; year: 2008"; "" for none."""
        at_hand = [c for c in self.columns if c in item.facts and self.roles.get(c) not in (None, "text")]
        chosen = sorted(rng.permutation(len(at_hand))[:most])
        return "; ".join(f"{column_words(at_hand[n])}: {_plain(item.facts[at_hand[n]])}" for n in chosen)

    def _wish(self, column: str, value: Fact, rng: np.random.Generator) -> Wish | None:
        role, words = self.roles[column], column_words(column)
        if role == "flag":
            return Wish(column, f"that is {words}" if rng.random() < 0.5 else words, False) if value is True else None
        if role == "year":
            year = int(str(value)[:4])
            decade = f"the {year // 10 * 10}s"
            forms = (f"from {year}", f"of {year}", f"from {decade}", f"from {decade}")
            return Wish(column, _pick(forms, rng), False)
        if role == "number":
            return Wish(column, _number(words, float(value), rng), False)  # type: ignore[arg-type]
        if isinstance(value, list):
            if not value:
                return None
            value = _pick(value, rng)
        said = str(value)
        parts = set(words.split())
        if role == "category":
            if parts & BY:
                return Wish(column, f"by {said}", False)
            return Wish(column, said if said.isupper() else said[:1].lower() + said[1:], True)
        joint = "by" if parts & BY else "with" if parts & WITH else _pick(("with", f"with {words}", words), rng)
        return Wish(column, f"{joint} {said}", False)


def plural(noun: str) -> str:
    """A noun's plural by the plain rules of English."""
    if not noun:
        return ""
    if re.search(r"[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    return noun + ("es" if re.search(r"(s|x|z|ch|sh)$", noun) else "s")


def article(words: str) -> str:
    """ "a" or "an", by the first letter."""
    return "an" if words[:1].lower() in "aeiou" else "a"


def _role(column: str, values: Sequence[Fact]) -> Role | None:
    """What a column is, None for one that nobody asks with: identifiers, links, all values equal."""
    if not values:
        return None
    if all(isinstance(v, bool) for v in values):
        return "flag"
    words = column_words(column)
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        years = all(float(v).is_integer() and 1000 <= float(v) <= 2200 for v in values)  # type: ignore[arg-type]
        dated = any(part in words for part in ("year", "released", "date", "published", "vintage"))
        return "year" if years and dated else "number"
    entries = [str(e) for v in values for e in (v if isinstance(v, list) else [v]) if str(e).strip()]
    if not entries:
        return None
    if all(re.match(r"(1\d|20)\d\d-\d\d", e) for e in entries):
        return "year"
    if any("://" in e for e in entries[:50]) or NAMELESS & set(words.split()):
        return None
    if np.mean([len(e.split()) for e in entries[:2000]]) > MAX_WORDS:
        return "text"
    counts = Counter(entries)
    shared = sum(n for n in counts.values() if n > 1) / len(entries)
    lower = np.mean([e[:1].islower() for e in entries[:2000]])
    if {*words.split()} & (BY | WITH):
        return "name"
    return "category" if shared >= 0.5 or lower >= 0.5 else "name"


def _number(words: str, value: float, rng: np.random.Generator) -> str:
    shown, more = f"{value:g}", f"{_round_up(value):g}"
    for part, forms in NUMBER_FORMS:
        if part in words:
            return _pick(forms, rng).format(v=shown, more=more)
    return _pick((f"with {words} {shown}", f"with a {words} of about {shown}", f"{words} {shown}"), rng)


def _round_up(value: float) -> float:
    """The next round number above: 17 -> 20, 230 -> 250."""
    if value <= 0:
        return 1.0
    step = 10.0 ** np.floor(np.log10(value))
    return float(np.ceil(value / (step / 2)) * (step / 2)) or step


def _plain(value: Fact) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value[:3]))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return str(options[int(rng.integers(len(options)))])
