"""The mention linker: which items of the catalogue a message names, and where.

Exact titles first (whatever their case, spaces, punctuation, numerals or leading article), then misspelt ones. A title
that is an everyday word or phrase needs evidence (`evidence.py`), equal names need a year, the dialogue or counts to
tell them apart; what stays open is shown, not guessed. Knows nothing of the model, of tokens or of any data set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from gcrs.toolkit.catalog.item import Catalog, Item
from gcrs.toolkit.dialogue.evidence import VERY_COMMON, Evidence, Rarity, Sentence, is_everyday, rarity, sufficient
from gcrs.toolkit.dialogue.fuzzy import NearKeys
from gcrs.toolkit.dialogue.normalise import (
    ARTICLES,
    NUMBERED,
    Word,
    fold,
    key_of,
    neutralise,
    split_year,
    title_key,
    words,
)
from gcrs.toolkit.dialogue.turns import MENTION

How = Literal["exact", "year", "dialogue", "count", "fuzzy"]

MAX_WORDS = 16  # words of a title that are looked at; no title that people type in full is longer
FUZZY_WORDS = 6  # words of a misspelt title
FUZZY_TRIES = 200  # unknown words of one text that the fuzzy pass looks at, so that its time is bounded
DOMINANCE = 3.0  # of two equal names, the one mentioned this many times as often as the next is meant

_LAST_NUMERALS = {
    "v": "5",
    "x": "10",
}  # a Roman five or ten only where it ends a title: "Rocky V", not "V for Vendetta"
_YEAR_BEHIND = re.compile(r"(?P<open>\s*[(\[]\s*|,?\s+(?:from\s+)?)(?P<year>(?:18|19|20)\d\d)\b(?(open)\s*[)\]]?)")


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
        return Linked(_write(self.source, kept), self.source, kept, self.ambiguous)


def _write(source: str, links: Sequence[Link]) -> str:
    out, last = [], 0
    for link in links:
        out += [source[last : link.start], f"<item:{link.item}>"]
        last = link.end
    return "".join(out) + source[last:]


@dataclass
class _Found:
    """words[first:last] spell these items; `end` is where the mention ends, a year behind it included."""

    first: int
    last: int
    start: int
    end: int
    items: tuple[str, ...]
    how: How
    rarity: Rarity
    evidence: Evidence
    name_goes_on: bool  # it is rather part of a person's or a longer name
    other: bool  # a number or a year says that a film is meant which the catalogue does not hold


class Linker:
    """Finds mentions of a catalogue's items. Built once per catalogue; `link` may run in several threads.

    `mentions` counts how often each item (id or alias) is spoken of: the last resort between equal names.
    """

    def __init__(self, catalog: Catalog, mentions: Mapping[str, int] | None = None) -> None:
        self.catalog = catalog
        self._counts: dict[str, int] = {}
        for source_id, count in (mentions or {}).items():
            if source_id in catalog:
                item_id = catalog.canonical(source_id)
                self._counts[item_id] = self._counts.get(item_id, 0) + count
        self._scale = 50_000 / max(sum(self._counts.values()), 1)  # to the everyday list's
        self._years: dict[str, int] = {}
        self._names: set[tuple[str, str]] = set()
        self._name_keys: set[str] = set()
        self._index: dict[str, list[str]] = {}
        self._pieces: dict[str, list[str]] = {}
        for item in catalog:
            self._add(item)
        for key, items in self._pieces.items():
            if len(items) == 1:
                self._index.setdefault(key, items)
        self._learn_names()
        self._longest = max(map(len, self._index), default=0)
        self._starts = {key[:n] for key in self._index for n in (3, 6, 9)}
        self._near: NearKeys | None = None

    def _add(self, item: Item) -> None:
        year = item.facts.get("year")
        for title in (item.title, *item.names):
            name, own_year = split_year(title)
            year = own_year if year is None else year
            parts = words(name)
            keys = {title_key(name), key_of(parts)}  # with its article too: the longer match wins
            if len(parts) > 1 and parts[-1].bare in _LAST_NUMERALS:
                keys.add(title_key(name[: parts[-1].start] + _LAST_NUMERALS[parts[-1].bare]))
            for key in keys - {""}:
                self._enter(self._index, key, item.id)
            if (colon := name.find(": ")) > 0:
                for piece in (name[:colon], name[colon + 2 :]):
                    if len(piece) > 4 and not all(is_everyday(word.bare) for word in words(piece)):
                        self._enter(self._pieces, title_key(piece), item.id)
        if isinstance(year, int) or (isinstance(year, str) and year.isdigit()):
            self._years[item.id] = int(year)

    def _learn_names(self) -> None:
        """Names in the facts (people, companies) that hold a title, as neighbouring words, or are one, as keys."""
        facts = (value for item in self.catalog for value in item.facts.values() if isinstance(value, list))
        for name in {name for value in facts for name in value}:
            pieces = fold(name).split()
            if len(pieces) > 1 and "".join(pieces) in self._index:
                self._name_keys.add("".join(pieces))
            self._names.update(pair for pair in pairwise(pieces) if pair[0] in self._index or pair[1] in self._index)

    def _is_a_person(self, sentence: Sentence, first: int, last: int, items: Sequence[str]) -> bool:
        """Whether words[first:last] are a name of the facts, and no film that is often spoken of."""
        return sentence.key(first, last) in self._name_keys and (self._mentions(items) or 0) < VERY_COMMON

    def _broken(self, items: Sequence[str]) -> bool:
        """Whether a title has a comma or a sentence's end inside: "What's Up, Doc?"."""
        return any(
            c in title for i in items for title in (self.catalog[i].title, *self.catalog[i].names) for c in ",!?.;"
        )

    def _in_a_name(self, sentence: Sentence, first: int, last: int) -> bool:
        """Whether words[first:last] are part of a name that the catalogue's facts hold."""
        bare = [word.bare for word in sentence.parts[max(first - 1, 0) : last + 1]]
        return any(pair in self._names for pair in pairwise(bare))

    def _mentions(self, items: Sequence[str]) -> int | None:
        if not self._counts:
            return None
        return round(self._scale * sum(self._counts.get(item, 0) for item in items))

    @staticmethod
    def _enter(index: dict[str, list[str]], key: str, item_id: str) -> None:
        items = index.setdefault(key, [])
        if item_id not in items:
            items.append(item_id)

    def link(self, text: str, dialogue_items: Sequence[str] = (), *, keep_spans: bool = False) -> Linked:
        """The text with its mentions as `<item:ID>`.

        `dialogue_items` (ids or aliases) are the items spoken of so far. A typed `<item:…>` is data: neutralised,
        unless `keep_spans` says that the text is a Turn's own, whose spans then stay and are not linked again. Time is
        linear in the text's length.
        """
        known = {self.catalog.canonical(i) for i in dialogue_items if i in self.catalog}
        if not keep_spans:
            source = neutralise(text)
            links, ambiguous = self._link_piece(source, 0, known)
            return Linked(_write(source, links), source, tuple(links), tuple(ambiguous))
        spans = list(MENTION.finditer(text))
        known |= {self.catalog.canonical(m.group(1)) for m in spans if m.group(1) in self.catalog}
        all_links: list[Link] = []
        all_ambiguous: list[Ambiguous] = []
        last = 0
        for start, end in [*((m.start(), m.end()) for m in spans), (len(text), len(text))]:
            links, ambiguous = self._link_piece(text[last:start], last, known)
            all_links += links
            all_ambiguous += ambiguous
            last = end
        return Linked(_write(text, all_links), text, tuple(all_links), tuple(all_ambiguous))

    def _link_piece(self, text: str, offset: int, known: set[str]) -> tuple[list[Link], list[Ambiguous]]:
        sentence = Sentence(text, words(text))
        taken = bytearray(len(sentence.parts))
        chosen = _choose(sentence, list(self._exact(sentence, known)), taken)
        chosen += self._fuzzy(sentence, taken, known)
        links, ambiguous = [], []
        for found in sorted(chosen, key=lambda f: f.start):
            place = (found.start + offset, found.end + offset)
            surface = text[found.start : found.end]
            item, how = self._resolve(found, known)
            if item is None:
                ambiguous.append(Ambiguous(*place, surface, found.items))
            else:
                links.append(Link(*place, item, surface, how))
        return links, ambiguous

    def _exact(self, sentence: Sentence, known: set[str]) -> Iterator[_Found]:
        """Every run of words that spells a title, overlaps included."""
        parts = sentence.parts
        forms = [
            "" if word.form in NUMBERED and n + 1 < len(parts) and parts[n + 1].form.isdigit() else word.form
            for n, word in enumerate(parts)
        ]
        for first in range(len(parts)):
            key = ""
            for last in range(first + 1, min(first + MAX_WORDS, len(parts)) + 1):
                key += forms[last - 1]
                items = self._index.get(key)
                if items is None and sentence.possessive(last - 1):  # "Inception's ending"
                    items = self._index.get(key[:-1])
                if items and forms[first] and forms[last - 1]:
                    yield self._found(sentence, first, last, items, known)
                if len(key) > self._longest or any(key[:n] not in self._starts for n in (3, 6, 9) if len(key) >= n):
                    break

    def _found(
        self, sentence: Sentence, first: int, last: int, items: Sequence[str], known: set[str], slips: int = 0
    ) -> _Found:
        """A run of words with its evidence, its items narrowed down by a year that stands beside it."""
        start, end = sentence.parts[first].start, sentence.parts[last - 1].end
        if sentence.possessive(last - 1) and not slips and self._index.get(sentence.key(first, last)) is None:
            end -= 2
        evidence = sentence.look(first, last)
        evidence.known = any(item in known for item in items)
        open_number = sentence.number_goes_on(last)
        behind = _YEAR_BEHIND.match(sentence.text, end)
        before = sentence.parts[first - 1].bare if first else ""
        if behind is not None:
            year = int(behind.group("year"))
            of_year = self._of_year(items, year)
            if of_year:
                items, evidence.year, end = of_year, True, behind.end()
            elif behind.group("open").strip():  # "(1990)" says plainly that another film is meant
                evidence.year, open_number = True, True
            open_number = open_number and not of_year
        elif len(before) == 4 and before.isdigit() and (of_year := self._of_year(items, int(before))):
            items, evidence.year = of_year, True  # "the 1990 It"
        stop = last
        while stop < len(sentence.parts) and sentence.parts[stop].start < end:
            stop += 1
        rare = rarity(sentence.parts[first:last], self._mentions(items))
        if self._is_a_person(sentence, first, last, items) or (
            sentence.crosses(first, last) and not self._broken(items)
        ):
            rare = Rarity.COMMON
        single = last - first == 1 and not (evidence.year or evidence.quoted)
        goes_on = single and (
            sentence.name_goes_on(first, last)
            or self._in_a_name(sentence, first, last)
            or sentence.bare_number(first, last)
        )
        how: How = "fuzzy" if slips else "exact"
        return _Found(first, stop, start, end, tuple(items), how, rare, evidence, goes_on, open_number)

    def _of_year(self, items: Sequence[str], year: int) -> list[str]:
        """The items of this year, else of a year beside it (festival and release dates differ)."""
        exact = [item for item in items if self._years.get(item) == year]
        return exact or [item for item in items if abs(self._years.get(item, 0) - year) == 1]

    def _resolve(self, found: _Found, known: set[str]) -> tuple[str | None, How]:
        """Which of the items is meant and what decided it; None when nothing does."""
        if found.other:
            return None, "exact"
        if len(found.items) == 1:
            return found.items[0], "year" if found.evidence.year and found.how == "exact" else found.how
        spoken_of = [item for item in found.items if item in known]
        if len(spoken_of) == 1:
            return spoken_of[0], "dialogue"
        ranked = sorted(spoken_of or found.items, key=lambda item: -self._counts.get(item, 0))
        first, second = (self._counts.get(item, 0) for item in ranked[:2])
        return (ranked[0], "count") if first >= DOMINANCE * max(second, 1) else (None, "exact")

    def _fuzzy(self, sentence: Sentence, taken: bytearray, known: set[str]) -> list[_Found]:
        """Misspelt titles among the words that no exact title took, around words that nobody uses every day."""
        if self._near is None:
            self._near = NearKeys(self._index)
        parts = sentence.parts
        out: list[_Found] = []
        tries = 0
        for n, word in enumerate(parts):
            if taken[n] or len(word.bare) < 4 or word.bare.isdigit() or is_everyday(word.bare):
                continue
            tries += 1
            if tries > FUZZY_TRIES:
                break
            best: tuple[float, _Found] | None = None
            for first, last in sentence.runs_around(n, taken, FUZZY_WORDS):
                key = sentence.key(first, last)
                if len(key) > self._longest + 3:
                    continue
                near, slips = self._near.search(key)
                if not near or not slips:
                    continue
                items = [item for other in near for item in self._index[other]]
                items = [item for item in dict.fromkeys(items) if self._holds_everyday(item, parts[first:last])]
                if not items:
                    continue
                found = self._found(sentence, first, last, items, known, slips)
                closeness = len(key) - 4 * slips
                size = last - first - (parts[first].bare in ARTICLES)
                if _fuzzy_enough(found, size) and (best is None or closeness > best[0]):
                    best = (closeness, found)
            if best is not None:
                found = best[1]
                taken[found.first : found.last] = b"\1" * (found.last - found.first)
                out.append(found)
        return out

    def _holds_everyday(self, item_id: str, run: Sequence[Word]) -> bool:
        """Whether the everyday words of a misspelt title stand in the item's title: slips are in the others."""
        item = self.catalog[item_id]
        title = {word.form for name in (item.title, *item.names) for word in words(name)}
        forms = [word.form for word in run]
        plural = {forms[-1] + "s", forms[-1].removesuffix("s")} & title
        return not plural and all(
            w.form in title or w.bare in ARTICLES for w in run if is_everyday(w.bare) or len(w.bare) < 4
        )


def _fuzzy_enough(found: _Found, size: int) -> bool:
    """A misspelt title needs a sign of being one: a single word always, several words unless they are long."""
    evidence = found.evidence
    if size > 1:
        return found.end - found.start >= 12 or evidence != Evidence(known=evidence.known)
    popular = found.rarity == Rarity.NAME
    return not found.name_goes_on and (evidence.year or evidence.quoted or evidence.cue or (evidence.cased and popular))


def _choose(sentence: Sentence, candidates: list[_Found], taken: bytearray) -> list[_Found]:
    """The candidates with enough evidence, longest first, none overlapping; then those listed beside a chosen one."""
    chosen: list[_Found] = []
    begins: set[int] = set()
    ends: set[int] = set()

    def take(found: _Found) -> bool:
        if any(taken[found.first : found.last]):
            return False
        taken[found.first : found.last] = b"\1" * (found.last - found.first)
        chosen.append(found)
        begins.add(found.first)
        ends.add(found.last)
        return True

    pending = sorted(candidates, key=lambda f: (f.start - f.end, f.start))
    for _ in range(3):
        waiting = []
        beside = (
            frozenset(begins),
            frozenset(ends),
        )  # of the rounds before: a neighbour may yet be part of a longer one
        for found in pending:
            found.evidence.listed = sentence.listed(found.first, found.last, *beside)
            if found.name_goes_on or not sufficient(found.rarity, found.evidence):
                waiting.append(found)
            else:
                take(found)
        if (begins, ends) == beside:
            break
        pending = waiting
    return chosen
