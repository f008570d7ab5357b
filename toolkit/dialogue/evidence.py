"""What in a sentence speaks for a run of words being a title, and how much of it each rarity needs.

Knows nothing of catalogues or items.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from gcrs.toolkit.dialogue.everyday import Rarity, is_everyday
from gcrs.toolkit.dialogue.normalise import ARTICLES, NUMBERED, Word, fold, key_of
from gcrs.toolkit.scripts import particles

FUNCTION = 300  # uses of an everyday word from which a capital on it says nothing
NEAR = 5  # words around a title that are looked at


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
AFTER = _set("movie movies film films trailer series franchise starring is was has looks sounds")
SMALL = _set("a an the of and or in on to for at by with from is it be v vs as le la de el du der die das but not my")
_NEW = frozenset({"new", "newest", "newer", "latest"})
_OLD = frozenset({"original", "old", "older", "oldest", "classic"})
_WITHIN = frozenset({"of", "to", "the", "a"})
_OBJECTS = _set("the an his her their my your our me you him them us of to this that these those")
_SENTENCE_END = re.compile(r"[.!?\n…。！？؟۔।]")
_BREAK = re.compile(r"[,;!?\n…、，；。！？،؛؟۔।]|\.\s")
_LIST = re.compile(r"^[\s,;/&+、，،]*$")
_AND = frozenset({"and", "or"})
_COUNTED = _set("times years year hours days stars weeks months of out more or to movies films minutes")
_OPEN, _CLOSE = "\"“”„'‘’‚«‹»*_「『《〈【", "\"“”'‘’»›«*_」』》〉】"


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
    if rarity == Rarity.SELDOM:
        return found.cue or found.listed or found.alone
    if rarity == Rarity.CUED:
        return found.cased or found.cue or found.listed
    return found.cased or found.cue or found.after or found.listed or found.alone or found.known


class Sentence:
    """The words of one text with what surrounds them, for `look`.

    `opens` and `closes` say whether the text begins and ends where what was said does, and not beside a mention.
    """

    def __init__(self, text: str, parts: Sequence[Word], *, opens: bool = True, closes: bool = True) -> None:
        self.text = text
        self.parts = parts
        self._edges = ("\n" if opens else "\0", "\n" if closes else "\0")
        capitals = sum(text[word.start].isupper() for word in parts)
        letters = sum(text[word.start].isalpha() for word in parts)
        self._shout = letters >= 5 and capitals >= 0.8 * letters

    def gap(self, n: int) -> str:
        """The text between word n - 1 and word n; a sentence's end before the first and behind the last."""
        if n <= 0:
            return self._edges[0] if n == 0 else "\n"
        if n >= len(self.parts):
            return self._edges[1]
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
        while n > 0 and not self.begins(n) and self.parts[n - 1].bare in LEADS and first - n < NEAR:
            n -= 1
        return self.begins(n)

    def _quoted(self, start: int, end: int) -> bool:
        before = self.text[start - 1] if start else ""
        behind = self.text[end : end + 2].lstrip(".,!?。")[:1]
        return bool(before) and before in _OPEN and bool(behind) and behind in _CLOSE

    def _cased(self, first: int, last: int) -> bool:
        if self._shout:
            return False
        heavy = [n for n in range(first, last) if self.parts[n].bare not in SMALL] or [last - 1]
        if not all(self.capital(n) or self.parts[n].bare.isdigit() for n in heavy):
            return False
        if first and self._upper(first - 1) and all(self._upper(n) for n in range(first, last)):
            return False  # "my twins LOVE IT"
        # A capital that begins a sentence says nothing; a second one inside the run does.
        return any(not self.begins(n) for n in heavy)

    def _upper(self, n: int) -> bool:
        word = self.text[self.parts[n].start : self.parts[n].end]
        return len(word) > 1 and word.isupper()

    def _cue(self, first: int) -> bool:
        n = first - 1
        if _BREAK.search(self.gap(first)):
            return False
        while (
            n > 0
            and self.parts[n].bare in FILLERS
            and self.parts[n].bare not in CUES
            and not self.begins(n)
            and first - n < NEAR
        ):
            n -= 1
        if n < 0:
            return False
        word = self.parts[n].bare
        pair = f"{self.parts[n - 1].bare}_{word}" if n and not self.begins(n) else ""
        if word in _IS:
            return any(self.parts[k].bare in _SUBJECTS and not self._ends(k, n) for k in range(max(0, n - NEAR), n))
        return word in CUES or pair in CUE_PAIRS

    def _ends(self, first: int, last: int) -> bool:
        return any(self.begins(n) for n in range(first + 1, last + 1))

    def reads_on(self, first: int, last: int) -> bool:
        """Whether an uncapitalised phrase of everyday words runs on as plain speech: "it follows the …"."""
        if last >= len(self.parts) or self.gap(last).strip() or self.parts[last].bare not in _OBJECTS:
            return False
        plain = not all(self.capital(n) for n in range(first, last))
        return plain and all(is_everyday(word.bare) for word in self.parts[first:last])

    def bare_number(self, first: int, last: int) -> bool:
        """Whether words[first:last] is a number or an article that more likely counts or leads what follows."""
        word = self.parts[first]
        if last - first > 1 or not (word.bare.isdigit() or word.bare in ARTICLES):
            return False
        after_cue = first > 0 and self.parts[first - 1].bare in CUES and not self.gap(first).strip()
        ends = last >= len(self.parts) or _BREAK.search(self.gap(last)) is not None
        return word.bare in ARTICLES or not (after_cue and ends)

    def name_goes_on(self, first: int, last: int) -> bool:
        """Whether a capitalised title is rather part of a longer name: "Emma Thompson", "Bird Box", "Alien: Isolation".

        A long title may have a name before or behind it; a colon and "of", "for" with a capital behind always lead on.
        """
        if self._shout or not any(self.capital(n) for n in range(first, last)):
            return False
        if last < len(self.parts) and self.gap(last).strip(" ") == ":" and self.capital(last):
            return True
        if last < len(self.parts) - 1 and self.parts[last].bare == "&" and self.capital(last + 1):
            return True
        before = first
        while last - first <= 2 and before > 1 and self.parts[before - 1].bare in _WITHIN and self._joined(before):
            before -= 1
        if before < first and self._joined(before) and self._name_like(before - 1):
            return True  # "Birds of Prey", "Welcome to the Jungle"
        behind = last
        while (
            behind < len(self.parts) - 1
            and self.parts[behind].bare in ("of", "for", "in", "the")
            and self._joined(behind)
        ):
            behind += 1
        if behind > last and self.parts[last].bare != "the" and self.capital(behind) and self._joined(behind):
            return True
        return (last - first <= 2 and self._name_like(last) and self._joined(last)) or (
            last - first <= 3 and self._name_like(first - 1) and self._joined(first)
        )

    def _joined(self, n: int) -> bool:
        return self.gap(n).strip(" ") == ""

    def _name_like(self, n: int) -> bool:
        """Whether word n has a capital that its place does not explain: no sentence begins, no word like "it"."""
        if not self.capital(n) or self.possessive(n):
            return False
        word = self.parts[n].bare
        return word not in FILLERS and not (is_everyday(word, FUNCTION) or (self.begins(n) and is_everyday(word)))

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

    def endings(self, n: int) -> list[tuple[str, int]]:
        """What word n may end in that is no part of a title, comparable and as typed: 's, or a Korean particle."""
        if self.possessive(n):
            return [("s", 2)]
        typed = self.text[self.parts[n].start : self.parts[n].end]
        return [] if typed.isascii() else [(fold(particle), len(particle)) for particle in particles(typed)]

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
        if not word.form[0].isdigit() or len(word.form) > 2 or word.form == "1" or word.bare == "two":
            return False
        return last + 1 >= len(self.parts) or self.parts[last + 1].bare not in _COUNTED

    def age(self, first: int) -> bool | None:
        """True for "the new …" and False for "the original …" before word `first`; None for neither."""
        n = first - 1
        if n < 0 or self.begins(first):
            return None
        return True if self.parts[n].bare in _NEW else False if self.parts[n].bare in _OLD else None

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
