"""Writing systems: what a word is where no blanks stand between words, and how much of a name its length tells.

Scripts without capitals have no "title case", and of most languages we have no list of everyday words: there the
length of a run of characters is what speaks for it being a title. Knows nothing of titles, catalogues or models.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import Literal

Script = Literal["cased", "han", "katakana", "hangul", "hiragana", "unspaced", "caseless", "none"]

MARKS = "".join(c for c in map(chr, range(0x300, 0x3100)) if unicodedata.category(c) in ("Mn", "Mc"))
"""Combining marks of the living scripts: accents, vowel signs, voicing marks."""
VOICED = "\u3099\u309a"
"""Japanese voicing marks: they make another letter, so they are no accents."""

_HAN = "\u3005-\u3007\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_KATAKANA = "\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
_UNSPACED = "\u3041-\u309f\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # hiragana, Thai, Lao, Burmese, Khmer
_OTHER = rf"[^\W_{_HAN}{_KATAKANA}{_UNSPACED}][{MARKS}]*"
WORD = re.compile(
    rf"(?:[{_KATAKANA}][{MARKS}]*)+|(?=[^\W_])[{_HAN}{_UNSPACED}][{MARKS}]*|(?:{_OTHER})+(?:['’`´](?:{_OTHER})+)*|&"
)
"""A word: between blanks, a run of katakana, or one character of a script that puts no blanks between words."""

_PARTICLES = (  # longest first
    *("입니다", "이랑", "하고", "에서", "보다", "처럼", "같은", "이나", "으로", "부터", "까지", "이요", "이야"),
    *("을", "를", "이", "가", "은", "는", "의", "도", "만", "와", "과", "랑", "에", "나", "로", "요", "야"),
)
_RANGES: tuple[tuple[int, int, Script, str], ...] = (
    (0x0590, 0x05FF, "caseless", "Hebrew"),
    (0x0600, 0x08FF, "caseless", "Arabic"),
    (0x0900, 0x0DFF, "caseless", "Indic"),
    (0x0E00, 0x0EFF, "unspaced", "Thai"),
    (0x1000, 0x109F, "unspaced", "Burmese"),
    (0x1100, 0x11FF, "hangul", "Hangul"),
    (0x1780, 0x17FF, "unspaced", "Khmer"),
    (0x3005, 0x3007, "han", "Han"),
    (0x3041, 0x309F, "hiragana", "kana"),
    (0x30A0, 0x30FF, "katakana", "kana"),
    (0x3130, 0x318F, "hangul", "Hangul"),
    (0x31F0, 0x31FF, "katakana", "kana"),
    (0x3400, 0x9FFF, "han", "Han"),
    (0xAC00, 0xD7FF, "hangul", "Hangul"),
    (0xF900, 0xFAFF, "han", "Han"),
    (0xFB1D, 0xFDFF, "caseless", "Arabic"),
    (0xFF66, 0xFF9F, "katakana", "kana"),
    (0x20000, 0x3FFFF, "han", "Han"),
)
_CASED = {"LATIN": "Latin", "CYRILLIC": "Cyrillic", "GREEK": "Greek", "ARMENIAN": "Armenian", "GEORGIAN": "Georgian"}
_NAMES_OF_KIND = {"han": 3, "katakana": 4, "hangul": 3, "hiragana": 6, "unspaced": 5, "caseless": 5}


def script_of(character: str) -> Script:
    """What kind of script a letter is of; "none" for digits and marks."""
    code = ord(character)
    if code < 0x0590:
        return "cased" if character.isalpha() else "none"
    for first, last, kind, _ in _RANGES:
        if first <= code <= last:
            return kind
    return "cased" if character.isalpha() else "none"


def enough_for_a_name(text: str) -> bool | None:
    """Whether a run of characters without capitals is so long that it hardly stands in a sentence by chance.

    None where capitals or everyday words tell more: for scripts that have them.
    """
    kinds = {script_of(character) for character in text} - {"none"}
    if not kinds or "cased" in kinds:
        return None
    size = sum(character.isalpha() for character in unicodedata.normalize("NFC", text))
    return size >= min(_NAMES_OF_KIND[kind] for kind in kinds)


def particles(word: str) -> list[str]:
    """The Korean particles that a word may end in, longest first: 을 of 기생충을."""
    if not word or script_of(word[-1]) != "hangul":
        return []
    return [particle for particle in _PARTICLES if word.endswith(particle) and len(word) > len(particle)]


def script_shares(text: str) -> Counter[str]:
    """Letters by the name of their script: {"Latin": 12, "Cyrillic": 40}."""
    counts: Counter[str] = Counter()
    if text.isascii():
        counts["Latin"] = sum(map(str.isalpha, text))
        return counts
    for character, n in Counter(text).items():
        if character.isalpha():
            counts[_script_name(character)] += n
    return counts


def _script_name(character: str) -> str:
    code = ord(character)
    for first, last, _, name in _RANGES if code >= 0x0590 else ():
        if first <= code <= last:
            return name
    return _CASED.get(unicodedata.name(character, "").split(" ", 1)[0], "other")
