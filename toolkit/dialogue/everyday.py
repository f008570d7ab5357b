"""How everyday a run of words is, and so how much must speak for it before it is read as a title.

The words' uses are a frequency list in `everyday_words.txt` (its header says how it was made), loaded on first use.
Knows nothing of catalogues, or of the sentence around the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from gcrs.toolkit.dialogue.normalise import ARTICLES, Word

VERY_COMMON = 20  # uses in the list's corpus from which one word alone is hardly ever a title
EVERYDAY_PHRASE = 15  # … from which a phrase of two words, each so common, is an everyday one
SPOKEN_OF = 5  # mentions, on the list's scale, from which a title is known to be spoken of at all
LIST_MENTIONS = 50_000  # film mentions in the list's corpus: the scale on which mentions and uses compare


class Rarity(IntEnum):
    """How much evidence a title needs, most first."""

    COMMON = 0  # one very common word, a bare number, or at most two characters: "It", "Up", "Her", "300"
    PHRASE = 1  # several words, each an everyday one: "Anything Else"
    SELDOM = 2  # one rare word that hardly anybody means as a title: "Santa"
    CUED = 3  # a phrase of everyday words that many mean as a title: "Get Out"
    WORD = 4  # one word that is not very common: "Frozen"
    NAME = 5  # everything else


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


def is_everyday(word: str, often: int = 3) -> bool:
    """Whether people use this (bare) word every day, as no name, at least so `often`."""
    use = uses().get(word, _UNUSED)
    return use.everyday and use.lower >= often


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
        if mentions < SPOKEN_OF:
            return Rarity.SELDOM
        often_a_title = mentions >= 5 * (use.lower + use.capital + 1)
        return Rarity.NAME if use.lower < 3 and often_a_title else Rarity.WORD
    rarest = min(VERY_COMMON if word.bare.isdigit() else table.get(word.bare, _UNUSED).lower for word in run)
    common = rarest / 4 ** (len(run) - 2)  # each further word makes a chance meeting of them less likely
    if mentions is not None and mentions < SPOKEN_OF and all(is_everyday(word.bare) for word in run):
        return Rarity.PHRASE if common >= EVERYDAY_PHRASE else Rarity.CUED
    if common < EVERYDAY_PHRASE / 3 or (mentions is None and common < EVERYDAY_PHRASE):
        return Rarity.NAME
    if mentions is None or mentions >= common:
        return Rarity.CUED if common >= 4 * EVERYDAY_PHRASE or mentions is None else Rarity.NAME
    return Rarity.PHRASE if common >= EVERYDAY_PHRASE else Rarity.CUED
