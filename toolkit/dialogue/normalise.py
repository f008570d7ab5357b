"""Small text functions that dialogues and linking share: titles and years as people and data sets spell them.

Knows nothing of catalogues or of any one data set.
"""

from __future__ import annotations

import html
import re
import unicodedata
from urllib.parse import unquote

_SPELLED = re.compile(r"<(?=item:)")
_SPACES = re.compile(r"\s+")
_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}")
_YEAR_AT_END = re.compile(r"\s*\((?:[^()]*\b)?((?:18|19|20)\d\d)(?:\b[^()]*)?\)\s*$")


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
    """Case-folded, accents removed."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()
