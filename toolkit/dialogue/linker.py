"""The mention linker: which items of the catalogue a message names, and where.

Exact titles first (whatever their case, spaces, punctuation, numerals or leading article), then misspelt ones. A title
that is an everyday word or phrase needs evidence (`evidence.py`), equal names need a year, the dialogue or counts to
tell them apart; what stays open is shown, not guessed. Knows nothing of the model, of tokens or of any data set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gcrs.toolkit.catalog.item import Catalog
from gcrs.toolkit.dialogue.everyday import SPOKEN_OF, Rarity, is_everyday, rarity
from gcrs.toolkit.dialogue.evidence import Evidence, Sentence, sufficient
from gcrs.toolkit.dialogue.fuzzy import NearKeys
from gcrs.toolkit.dialogue.linked import Ambiguous, How, Link, Linked, write_links
from gcrs.toolkit.dialogue.normalise import ARTICLES, NUMBERED, Word, neutralise, words
from gcrs.toolkit.dialogue.titles import Titles
from gcrs.toolkit.dialogue.turns import MENTION
from gcrs.toolkit.scripts import enough_for_a_name

__all__ = ["Ambiguous", "Link", "Linked", "Linker"]

MAX_WORDS = 40  # words (or characters, in Chinese) of a title that are looked at; none that people type is longer
ROUNDS = 4  # times that a text is looked at again because something new was linked in it
FUZZY_WORDS = 6  # words of a misspelt title
FUZZY_TRIES = 200  # unknown words of one text that the fuzzy pass looks at, so that its time is bounded
DOMINANCE = 3.0  # of two equal names, the one mentioned this many times as often as the next is meant

_YEAR_BEHIND = re.compile(
    r"\s*(?P<open>[(\[])\s*(?P<year>(?:18|19|20)\d\d)\s*[)\]]|,?\s+(?:from\s+)?(?P<bare>(?:18|19|20)\d\d)\b"
)


@dataclass
class _Found:
    """words[first:last] spell these items; `end` is where the mention ends, a year behind it included."""

    first: int
    last: int
    start: int
    end: int
    key: str
    items: tuple[str, ...]
    how: How
    rarity: Rarity
    evidence: Evidence
    reads_on: bool  # it is rather part of a longer name, a count, or plain speech
    other: bool  # a number or a year says that a film is meant which the catalogue does not hold


class Linker:
    """Finds mentions of a catalogue's items. Built once per catalogue; `link` may run in several threads.

    `mentions` counts how often each item (id or alias) is spoken of: the last resort between equal names.
    """

    def __init__(self, catalog: Catalog, mentions: Mapping[str, int] | None = None) -> None:
        self._titles = Titles(catalog, mentions)
        self._near: NearKeys | None = None

    @property
    def catalog(self) -> Catalog:
        """The catalogue whose items are linked."""
        return self._titles.catalog

    def link(self, text: str, dialogue_items: Sequence[str] = (), *, keep_spans: bool = False) -> Linked:
        """The text with its mentions as `<item:ID>`.

        `dialogue_items` (ids or aliases) are the items spoken of so far. A typed `<item:…>` is data: neutralised,
        unless `keep_spans` says that the text is a Turn's own, whose spans then stay and are not linked again. Time is
        linear in the text's length.
        """
        known = {self.catalog.canonical(i) for i in dialogue_items if i in self.catalog}
        source = text if keep_spans else neutralise(text)
        spans = [(m.start(), m.end(), m.group(1)) for m in MENTION.finditer(source)]
        known |= {self.catalog.canonical(item) for _, _, item in spans if item in self.catalog}
        links: list[Link] = []
        for _ in range(ROUNDS):  # what is linked may tell what stands beside it: linking again then adds nothing
            taken = sorted([*((a, b) for a, b, _ in spans), *((link.start, link.end) for link in links)])
            found, ambiguous = self._link_between(source, taken, known | {link.item for link in links})
            links = sorted([*links, *found], key=lambda link: link.start)
            if not found:
                break
        return Linked(write_links(source, links), source, tuple(links), tuple(ambiguous))

    def _link_between(
        self, source: str, taken: Sequence[tuple[int, int]], known: set[str]
    ) -> tuple[list[Link], list[Ambiguous]]:
        """Links in the pieces of the source that no span takes."""
        links: list[Link] = []
        ambiguous: list[Ambiguous] = []
        last = 0
        for start, end in [*taken, (len(source), len(source))]:
            piece = source[last:start]
            sentence = Sentence(piece, words(piece), opens=last == 0, closes=start == len(source))
            for found in self._find(sentence, known):
                place = (found.start + last, found.end + last)
                item, how = self._resolve(found, known)
                if item is None:
                    ambiguous.append(Ambiguous(*place, source[slice(*place)], found.items))
                else:
                    links.append(Link(*place, item, source[slice(*place)], how))
            last = end
        return links, ambiguous

    def _find(self, sentence: Sentence, known: set[str]) -> list[_Found]:
        taken = bytearray(len(sentence.parts))
        chosen = _choose(sentence, list(self._exact(sentence, known)), taken)
        return sorted([*chosen, *self._fuzzy(sentence, taken, known)], key=lambda found: found.start)

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
                items = self._titles.index.get(key)
                own = 0
                for ending, typed in sentence.endings(last - 1) if items is None else ():  # "Inception's ending"
                    if key.endswith(ending) and (items := self._titles.index.get(key.removesuffix(ending))):
                        own = typed
                        break
                if items and last - first > 1 and parts[first].bare in ARTICLES:  # "the Alien movies"
                    items = list(dict.fromkeys([*items, *self._titles.index.get(key[len(forms[first]) :], ())]))
                if items and forms[first] and forms[last - 1]:
                    yield self._found(sentence, first, last, items, known, own=own)
                if not self._titles.may_go_on(key):
                    break

    def _found(
        self,
        sentence: Sentence,
        first: int,
        last: int,
        items: Sequence[str],
        known: set[str],
        *,
        own: int = 0,
        how: How = "exact",
    ) -> _Found:
        """A run of words with its evidence, its items narrowed down by a year that stands beside it.

        `own` characters at its end (a possessive 's, a particle) are not part of the title.
        """
        titles, run = self._titles, sentence.parts[first:last]
        start, end = run[0].start, run[-1].end - own
        long_enough = enough_for_a_name(sentence.text[start:end])
        evidence = sentence.look(first, last)
        evidence.known = any(item in known for item in items)
        other = sentence.number_goes_on(last)
        before = sentence.parts[first - 1].bare if first else ""
        if (behind := _YEAR_BEHIND.match(sentence.text, end)) is not None:
            if of_year := titles.of_year(items, int(behind.group("year") or behind.group("bare"))):
                items, evidence.year, end, other = of_year, True, behind.end(), False
            elif behind.group("open"):  # "(1990)" says plainly that another film is meant
                evidence.year, other = True, True
        elif len(before) == 4 and before.isdigit() and (of_year := titles.of_year(items, int(before))):
            items, evidence.year = of_year, True  # "the 1990 It"
        elif (new := sentence.age(first)) is not None:
            of_age = titles.of_age(items, new)
            items, other = of_age or items, other or not of_age
        stop = last
        while stop < len(sentence.parts) and sentence.parts[stop].start < end:
            stop += 1
        key = sentence.key(first, last)
        rare = rarity(run, titles.mentions(items)) if long_enough is None else _by_length(long_enough, end - start)
        apart = len(run) > 1 and is_everyday(key)  # "t ime"
        across = sentence.crosses(first, last) and not titles.broken(items)
        if apart or across:
            rare = Rarity.COMMON
        elif key in titles.pieces:
            rare = min(rare, Rarity.CUED)
        if evidence.year or evidence.quoted:
            reads_on = False
        elif titles.is_a_person(key, items):
            reads_on = True
        elif len(run) == 1:
            in_a_name = titles.in_a_name(sentence.parts[max(first - 1, 0) : last + 1])
            reads_on = in_a_name or sentence.bare_number(first, last) or sentence.name_goes_on(first, last)
            # "Comedy" is not yet The Comedy
            reads_on = reads_on or (rare == Rarity.COMMON and not any(titles.is_whole(item, key) for item in items))
        else:
            reads_on = sentence.name_goes_on(first, last) or (not evidence.cue and sentence.reads_on(first, last))
        return _Found(first, stop, start, end, key, tuple(items), how, rare, evidence, reads_on, other)

    def _resolve(self, found: _Found, known: set[str]) -> tuple[str | None, How]:
        """Which of the items is meant and what decided it; None when nothing does."""
        if found.other:
            return None, found.how
        if len(found.items) == 1:
            return found.items[0], "year" if found.evidence.year and found.how == "exact" else found.how
        spoken_of = [item for item in found.items if item in known]
        if len(spoken_of) == 1:
            return spoken_of[0], "dialogue"
        weights = {item: self._titles.weight(item, found.key) for item in spoken_of or found.items}
        ranked = sorted(weights, key=lambda item: -weights[item])
        enough = DOMINANCE * max(weights[ranked[1]], 1)
        return (ranked[0], "count") if weights[ranked[0]] >= enough else (None, found.how)

    def _fuzzy(self, sentence: Sentence, taken: bytearray, known: set[str]) -> list[_Found]:
        """Misspelt titles among the words that no exact title took, around words that nobody uses every day."""
        if self._near is None:
            self._near = NearKeys(self._titles.index)
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
                if parts[first].bare in ARTICLES or len(key) > self._titles.longest + 3:
                    continue
                near, slips = self._near.search(key, last - first)
                if not near or not slips:
                    continue
                items = [item for other in near for item in self._titles.index[other]]
                items = [item for item in dict.fromkeys(items) if self._holds_everyday(item, parts[first:last])]
                spoken_of = self._titles.mentions(items)  # a slip of a title that hardly anybody names is no slip of it
                if not items or (spoken_of is not None and spoken_of < SPOKEN_OF):
                    continue
                found = self._found(sentence, first, last, items, known, how="fuzzy")
                closeness = len(key) - 4 * slips
                if _fuzzy_enough(found, last - first) and (best is None or closeness > best[0]):
                    best = (closeness, found)
            if best is not None:
                found = best[1]
                taken[found.first : found.last] = b"\1" * (found.last - found.first)
                out.append(found)
        return out

    def _holds_everyday(self, item_id: str, run: Sequence[Word]) -> bool:
        """Whether the everyday words of a misspelt title stand in the item's title: slips are in the others."""
        title = {word.form for name in self._titles.names(item_id) for word in words(name)}
        forms = [word.form for word in run]
        last = forms[-1]
        plural = ({last + "s", last.removesuffix("s"), re.sub("ies$", "y", last)} - {last}) & title
        return not plural and all(
            w.form in title or w.bare in ARTICLES for w in run if is_everyday(w.bare) or len(w.bare) < 4
        )


def _by_length(long_enough: bool, size: int) -> Rarity:
    """The rarity of a run without capitals, of which nobody counted how everyday it is."""
    return Rarity.NAME if long_enough else Rarity.WORD if size > 2 else Rarity.COMMON


def _fuzzy_enough(found: _Found, size: int) -> bool:
    """A misspelt title needs a sign of being one: a single word always, several words unless they are long."""
    evidence = found.evidence
    if size > 1:
        return found.end - found.start >= 12 or evidence != Evidence(known=evidence.known)
    likely = found.rarity == Rarity.NAME or len(found.key) >= 9
    sign = evidence.year or evidence.quoted or evidence.cue or (likely and (evidence.cased or evidence.after))
    return not found.reads_on and sign


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
        beside = (frozenset(begins), frozenset(ends))  # of the rounds before: later ones may yet cover a neighbour
        for found in pending:
            found.evidence.listed = sentence.listed(found.first, found.last, *beside)
            if found.rarity == Rarity.COMMON and found.evidence.after and not found.evidence.cue:
                found.evidence.listed = False  # "I loved Civil War, It was good"
            if found.reads_on or not sufficient(found.rarity, found.evidence):
                waiting.append(found)
            else:
                take(found)
        if (begins, ends) == beside:
            break
        pending = waiting
    return chosen
