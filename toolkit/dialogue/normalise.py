"""Titles, years and words as people and data sets spell them, brought to one form that can be compared.

Knows nothing of catalogues or of any one data set.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote

from gcrs.toolkit.scripts import VOICED, WORD

_SPELLED = re.compile(r"<(?=item:)")
_SPACES = re.compile(r"\s+")
_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}")
_YEAR_AT_END = re.compile(r"\s*\([^()]*\b((?:18|19|20)\d\d)\b[^()]*\)\s*$")
_WORD = re.compile(r"[^\W_]+(?:['’`´][^\W_]+)*|&")
_APOSTROPHES = re.compile(r"['’`´]")

_STROKES = str.maketrans({"ı": "i", "ł": "l", "ø": "o", "đ": "d", "æ": "ae", "œ": "oe"})  # typed without, like accents

ARTICLES = frozenset({"the", "a", "an"})
# Words that say only that a number follows ("Kill Bill: Vol. 2", "Rocky Part II", "Chapter Two").
NUMBERED = frozenset({"part", "vol", "volume", "chapter", "pt"})
_SAME = {
    **{"one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8"},
    **{"nine": "9", "ten": "10", "eleven": "11", "twelve": "12", "thirteen": "13"},
    **{"ii": "2", "iii": "3", "iv": "4", "vi": "6", "vii": "7", "viii": "8", "ix": "9", "xi": "11", "xii": "12"},
    **{"&": "and", "vs": "v", "versus": "v", "doctor": "dr", "mister": "mr", "saint": "st"},
}


def neutralise(text: str) -> str:
    """The text with every typed `<item:` spelled `< item:`, so that what a person types is never read as a mention."""
    return _SPELLED.sub("< ", text)


def clean_title(title: str) -> str:
    """A title without HTML entities, percent escapes (`%3F`) or doubled spaces."""
    title = html.unescape(html.unescape(title))
    if _PERCENT.search(title):
        title = unquote(title, errors="replace")
    return _SPACES.sub(" ", title).strip()


def split_year(title: str) -> tuple[str, int | None]:
    """("Knives Out", 2019) of "Knives Out (2019)" or "Knives Out (2019 film)"; the year is None when there is none."""
    match = _YEAR_AT_END.search(title)
    if match is None or match.start() == 0:
        return title.strip(), None
    return title[: match.start()].strip(), int(match.group(1))


def fold(text: str) -> str:
    """Case-folded, accents and strokes removed; Japanese voicing marks stay."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text)
    plain = "".join(c for c in decomposed if not unicodedata.combining(c) or c in VOICED)
    return plain.casefold().translate(_STROKES)


class Word(NamedTuple):
    """One word of a text: its comparable form, its bare case-folded form, and where it stands."""

    form: str
    bare: str
    start: int
    end: int


def words(text: str) -> list[Word]:
    """The words of a text in order; apostrophes dropped, `&`, number words and Roman numerals brought to one form.

    Where no blanks stand between words (Chinese, Japanese, Thai) each character is a word, and so is a run of katakana.
    """
    out = []
    for match in (_WORD if text.isascii() else WORD).finditer(text):
        bare = _APOSTROPHES.sub("", fold(match.group()))
        out.append(Word(_SAME.get(bare, bare), bare, match.start(), match.end()))
    return out


def key_of(parts: Sequence[Word]) -> str:
    """What two spellings of one title share: its words without spaces, and without "part" before a number."""
    last = len(parts) - 1
    return "".join(
        word.form
        for n, word in enumerate(parts)
        if not (n < last and word.form in NUMBERED and parts[n + 1].form.isdigit())
    )


def title_key(title: str) -> str:
    """`key_of` a whole title without its leading article, or its trailing one as in "Matrix, The"."""
    parts = words(title)
    if len(parts) > 1 and parts[0].form in ARTICLES:
        parts = parts[1:]
    elif len(parts) > 1 and parts[-1].form in ARTICLES and "," in title[parts[-2].end : parts[-1].start]:
        parts = parts[:-1]
    return key_of(parts)
