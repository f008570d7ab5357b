"""How sure a run of words must be, and is, to be a title: everyday words need a cue, a rare name needs none.

The everyday words are a frequency list in `everyday_words.txt` (its header says how it was made), loaded on first use.
Knows nothing of catalogues or items.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from gcrs.toolkit.dialogue.normalise import ARTICLES, NUMBERED, Word, key_of

VERY_COMMON = 20  # uses in the list's corpus from which one word alone is hardly ever a title
EVERYDAY_PHRASE = 15  # … from which a phrase of two words, each so common, is an everyday one


def _set(spaced: str) -> frozenset[str]:
    return frozenset(spaced.split())


# Words behind which a title is likely ("have you seen …"), alone or in pairs.
CUES = _set("""seen see saw watch watched watching rewatch rewatched loved love loves liked like enjoy enjoyed recommend
    recommended suggest suggested try prefer called titled named rent rented hated hate finished favorite favourite
    movie movies film films flick title remember sequel adore checkout""")
CUE_PAIRS = _set("""how_about what_about heard_of check_out such_as favorite_is favourite_is favorites_are think_of
    thinking_of fan_of its_called ones_are one_is version_of tried_out one_was was_called""")
# Words that may stand between a cue and its title ("seen the new movie Joker").
FILLERS = _set("""the a an that this new newer old older original first recent latest classic animated whole movie
    movies film films also really both either even maybe""")
# Words that may lead a sentence that is otherwise a title ("Maybe even The Lego Movie").
LEADS = _set("""and or but maybe perhaps also even yes yeah oh ok okay well then so there is theres its like no another
    hmm what how about or the a an""")
# "My favorite horror movie is …", "another good one is …".
_IS = frozenset({"is", "was", "are", "were", "be"})
_SUBJECTS = _set("favorite favourite favorites one ones movie movies film films suggestion recommendation another")
AFTER = _set("movie movies film films trailer series franchise starring is was with has looks sounds")
SMALL = _set("a an the of and or in on to for at by with from is it be v vs as le la de el du der die das but not my")
_SENTENCE_END = re.compile(r"[.!?\n…]")
_BREAK = re.compile(r"[,;!?\n…]|\.\s")
_LIST = re.compile(r"^[\s,;/&+]*$")
_AND = frozenset({"and", "or"})
_COUNTED = _set("times years year hours days stars weeks months of out more or to movies films minutes")
_OPEN, _CLOSE = "\"“”'‘’«‹*_", "\"“”'‘’»›*_"


class Rarity(IntEnum):
    """How much evidence a title needs, most first."""

    COMMON = 0  # one very common word, a bare number, or at most two characters: "It", "Up", "Her", "300"
    PHRASE = 1  # several words, each an everyday one: "Anything Else"
    CUED = 2  # such a phrase that many mean as a title: "Get Out"
    WORD = 3  # one word that is not very common: "Frozen"
    NAME = 4  # everything else


@dataclass
class Evidence:
    """What speaks for a run of words being a title."""

    year: bool = False
    quoted: bool = False
    cased: bool = False  # capitals where a sentence would have none
    cue: bool = False  # "have you seen …"
    after: bool = False  # "… was good"
    listed: bool = False  # beside another title: "Alien, Heat and Up"
    alone: bool = False  # the whole sentence or line
    known: bool = False  # the dialogue spoke of it
    article: bool = False  # a leading article with a capital: "The Help is great"


def sufficient(rarity: Rarity, found: Evidence) -> bool:
    """Whether the evidence found is enough for a title of this rarity."""
    if rarity == Rarity.NAME or found.year or found.quoted:
        return True
    if rarity == Rarity.COMMON:
        return found.cased and (found.cue or found.listed or (found.article and (found.after or found.alone)))
    if rarity == Rarity.PHRASE:
        return found.cased
    if rarity == Rarity.CUED:
        return found.cased or found.cue or found.listed
    return found.cased or found.cue or found.after or found.listed or found.alone or found.known


class Use(NamedTuple):
    """How often a word was seen in lower case, and with a capital inside a sentence."""

    lower: int
    capital: int

    @property
    def everyday(self) -> bool:
        return self.lower >= 3 and self.lower >= 1.5 * self.capital


_UNUSED = Use(0, 0)


@lru_cache(maxsize=1)
def uses() -> dict[str, Use]:
    """Word -> its uses in the everyday list."""
    table = {}
    for line in Path(__file__).with_name("everyday_words.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            word, lower, capital = line.split()
            table[word] = Use(int(lower), int(capital))
    return table


def is_everyday(word: str) -> bool:
    """Whether people use this (bare) word every day, as no name."""
    return uses().get(word, _UNUSED).everyday


def rarity(run: Sequence[Word], mentions: int | None = None) -> Rarity:
    """How much evidence a run of words needs to be a title; a leading article does not count.

    `mentions` says how often the title is spoken of, on the scale of the everyday list (about 50,000 mentions in all):
    what is said more often as a title than as a word needs less. None where nobody counted.
    """
    if len(run) > 1 and run[0].bare in ARTICLES:
        run = run[1:]
    table = uses()
    if sum(len(word.bare) for word in run) <= 2:
        return Rarity.COMMON
    if len(run) == 1:
        use = table.get(run[0].bare, _UNUSED)
        if run[0].bare.isdigit() or use.lower >= VERY_COMMON:
            return Rarity.COMMON
        if mentions is None:
            return Rarity.WORD
        if mentions < use.lower + use.capital:  # rather the word, or a person of that name
            return Rarity.COMMON
        often_a_title = mentions >= 5 * (use.lower + use.capital + 1) * (1 if use.lower < 5 else 4)
        return Rarity.NAME if use.lower < 8 and often_a_title else Rarity.WORD
    rarest = min(VERY_COMMON if word.bare.isdigit() else table.get(word.bare, _UNUSED).lower for word in run)
    common = rarest / 4 ** (len(run) - 2)  # each further word makes a chance meeting of them less likely
    if common < EVERYDAY_PHRASE / 3 or (mentions is None and common < EVERYDAY_PHRASE):
        return Rarity.NAME
    if mentions is None or mentions >= common:
        return Rarity.CUED if common >= 4 * EVERYDAY_PHRASE or mentions is None else Rarity.NAME
    return Rarity.PHRASE if common >= EVERYDAY_PHRASE else Rarity.CUED


class Sentence:
    """The words of one text with what surrounds them, for `look`."""

    def __init__(self, text: str, parts: Sequence[Word]) -> None:
        self.text = text
        self.parts = parts
        capitals = sum(text[word.start].isupper() for word in parts)
        letters = sum(text[word.start].isalpha() for word in parts)
        self._shout = letters >= 5 and capitals >= 0.8 * letters

    def gap(self, n: int) -> str:
        """The text between word n - 1 and word n; a sentence's end before the first and behind the last."""
        if n <= 0 or n >= len(self.parts):
            return "\n"
        return self.text[self.parts[n - 1].end : self.parts[n].start]

    def begins(self, n: int) -> bool:
        """Whether word n begins a sentence or line."""
        return _SENTENCE_END.search(self.gap(n)) is not None

    def capital(self, n: int) -> bool:
        """Whether word n is there and starts with a capital."""
        return 0 <= n < len(self.parts) and self.text[self.parts[n].start].isupper()

    def look(self, first: int, last: int) -> Evidence:
        """The evidence around words[first:last], neighbours in a list and the dialogue left to the caller."""
        run = self.parts[first:last]
        return Evidence(
            quoted=self._quoted(run[0].start, run[-1].end),
            cased=self._cased(first, last),
            cue=self._cue(first),
            after=last < len(self.parts) and not self.begins(last) and self.parts[last].bare in AFTER,
            alone=self._leads(first) and self.begins(last),
            article=last - first > 1 and run[0].bare in ARTICLES and self.capital(first),
        )

    def _leads(self, first: int) -> bool:
        n = first
        while not self.begins(n) and self.parts[n - 1].bare in LEADS:
            n -= 1
        return self.begins(n)

    def _quoted(self, start: int, end: int) -> bool:
        before = self.text[start - 1] if start else ""
        behind = self.text[end : end + 2].lstrip(".,!?")[:1]
        return bool(before) and before in _OPEN and bool(behind) and behind in _CLOSE

    def _cased(self, first: int, last: int) -> bool:
        if self._shout:
            return False
        heavy = [n for n in range(first, last) if self.parts[n].bare not in SMALL] or [last - 1]
        if not all(self.capital(n) or self.parts[n].bare.isdigit() for n in heavy):
            return False
        # A capital that begins a sentence says nothing; a second one inside the run does.
        return any(not self.begins(n) for n in heavy)

    def _cue(self, first: int) -> bool:
        n = first - 1
        if self.begins(first) and ":" not in self.gap(first):
            return False
        while n > 0 and self.parts[n].bare in FILLERS and self.parts[n].bare not in CUES and not self.begins(n):
            n -= 1
        if n < 0:
            return False
        word = self.parts[n].bare
        pair = f"{self.parts[n - 1].bare}_{word}" if n and not self.begins(n) else ""
        if word in _IS:
            return any(self.parts[k].bare in _SUBJECTS and not self._ends(k, n) for k in range(max(0, n - 5), n))
        return word in CUES or pair in CUE_PAIRS

    def _ends(self, first: int, last: int) -> bool:
        return any(self.begins(n) for n in range(first + 1, last + 1))

    def bare_number(self, first: int, last: int) -> bool:
        """Whether words[first:last] is a number or an article that more likely counts or leads what follows."""
        word = self.parts[first]
        if last - first > 1 or not (word.bare.isdigit() or word.bare in ARTICLES):
            return False
        goes_on = last < len(self.parts) and _BREAK.search(self.gap(last)) is None
        return (
            word.bare in ARTICLES or goes_on or self.parts[first - 1].bare not in CUES or self.gap(first).strip() != ""
        )

    def name_goes_on(self, first: int, last: int) -> bool:
        """Whether a one-word title is rather part of a longer name: "Emma" in "Emma Thompson", "Rick Dalton"."""

        def part_of_name(n: int, gap: int) -> bool:
            return self.capital(n) and self.gap(gap).strip(" ") == "" and not is_everyday(self.parts[n].bare)

        return self.capital(first) and (part_of_name(last, last) or part_of_name(first - 1, first))

    def listed(self, first: int, last: int, begins: Container[int], ends: Container[int]) -> bool:
        """Whether words[first:last] stand beside a chosen title, only commas and one "and" or "or" between them.

        `begins` and `ends` hold where the chosen titles begin and end.
        """
        left = first - 1 if first and self.parts[first - 1].bare in _AND else first
        right = last + 1 if last < len(self.parts) and self.parts[last].bare in _AND else last
        before = left in ends and all(_LIST.match(self.gap(n)) for n in range(left, first + 1))
        behind = right in begins and all(_LIST.match(self.gap(n)) for n in range(last, right + 1))
        beside = left < first or "," in self.gap(first) or "/" in self.gap(first) or "&" in self.gap(first)
        besides = right > last or "," in self.gap(last) or "/" in self.gap(last) or "&" in self.gap(last)
        return (before and beside) or (behind and besides)

    def possessive(self, n: int) -> bool:
        """Whether word n ends in 's."""
        word = self.parts[n]
        return word.end - word.start > 2 and self.text[word.end - 1] in "sS" and self.text[word.end - 2] in "'’`´"

    def key(self, first: int, last: int) -> str:
        """The title key of words[first:last]."""
        return key_of(self.parts[first:last])

    def number_goes_on(self, last: int) -> bool:
        """Whether a sequel's number stands right behind: "Alien 7", but not "I saw Alien 7 times"."""
        if last >= len(self.parts) or self.gap(last).strip(" ") or not self.gap(last):
            return False
        word = self.parts[last]
        if word.bare in NUMBERED and last + 1 < len(self.parts):
            last, word = last + 1, self.parts[last + 1]
        if not word.form.isdigit() or len(word.form) > 2 or word.form == "1" or word.bare == "two":
            return False
        return last + 1 >= len(self.parts) or self.parts[last + 1].bare not in _COUNTED

    def crosses(self, first: int, last: int) -> bool:
        """Whether words[first:last] run over a sentence's end or a comma."""
        return any(_BREAK.search(self.gap(n)) for n in range(first + 1, last))

    def runs_around(self, n: int, taken: Sequence[int], longest: int) -> Iterator[tuple[int, int]]:
        """(first, last) of each run of untaken words within one sentence that holds word n, `longest` words at most."""
        low = n
        while low > 0 and n - low < longest - 1 and not taken[low - 1] and not self.crosses(low - 1, low + 1):
            low -= 1
        for first in range(low, n + 1):
            for last in range(n + 1, min(first + longest, len(self.parts)) + 1):
                if taken[last - 1] or (last - 1 > n and self.crosses(last - 2, last)):
                    break
                yield first, last
