"""Wikidata's genre labels as the words that people type: "comedy film" is "comedy", "film based on a novel" is none.

Knows nothing of films. The rules, in order: labels that say how a work came to be rather than what it is like are
dropped; the medium is cut off ("film", "television series", "anime and manga"); a few labels are renamed; and a
compound also counts as its parts, so that `genre=comedy` finds a romantic comedy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_NOT_A_GENRE = re.compile(
    r"\b(based on|adaptation|novel|novels|soundtrack|score|music|rock|metal|grunge|pop|video clip|video game|comic book"
    r"|literature|remake|mockbuster|stage and screen|play|live action|xiaoshuo|fan film|social guidance)\b"
    r"|^(fiction|flashback|speculative fiction|short|fictional crossover|romantism|mysticism|biblical genre|epic"
    r"|huis clos|b movie|z movie|phantasmagoria|fantastique)( film)?$",
    re.IGNORECASE,
)
_MEDIUM = re.compile(
    r"\s*\b(films?|cinema|(television|tv) (series|film|drama|program|comedy)|tv series|(?<!science )fiction"
    r"|genre|film genre|with LGBT character\(s\)|in (Italy|Spain|France|Germany))$",
    re.IGNORECASE,
)
_RENAMED = {
    "animated": ["animation"],
    "computer-animated": ["animation"],
    "traditionally animated": ["animation"],
    "stop-motion animated": ["stop motion", "animation"],
    "live-action/animated": ["animation"],
    "adult animation": ["animation"],
    "animated sitcom": ["animation", "sitcom"],
    "american television sitcom": ["sitcom", "comedy"],
    "sitcom": ["sitcom", "comedy"],
    "biographical": ["biography"],
    "children's": ["children"],
    "cinematic fairy tale": ["fairy tale"],
    "historical fiction drama": ["historical drama"],
    "love triangle romance": ["romance"],
    "television documentary": ["documentary"],
    "television western": ["western"],
    "autobiography": ["biography"],
    "comedic": ["comedy"],
    "television comedy": ["comedy"],
    "comedy of error": ["comedy"],
    "coming-of-age": ["coming of age"],
    "dystopia": ["dystopian"],
    "american football": ["american football", "sports"],
    "association football": ["football", "sports"],
    "athletics": ["sports"],
    "boxing": ["boxing", "sports"],
    "ice hockey": ["ice hockey", "sports"],
    "sport": ["sports"],
    "independent": ["indie"],
    "lgbt-related": ["lgbt"],
    "lgbti+ related": ["lgbt"],
    "lesbian-related": ["lgbt"],
    "transgender": ["lgbt"],
    "intersex": ["lgbt"],
    "animated film with lgbt character(s)": ["animation", "lgbt"],
    "neo-western": ["neo-western", "western"],
    "satirical": ["satire"],
    "peplum": ["sword and sandal"],
    "apocalyptic and post-apocalyptic": ["post-apocalyptic"],
    "crime-comedy": ["crime comedy"],
    "action-adventure": ["action", "adventure"],
    "police procedural": ["police"],
    "time-travel": ["time travel"],
    "dating game show": ["reality television"],
}
_PARTS = {
    "action": "action",
    "adventure": "adventure",
    "anime": "anime",
    "comedy": "comedy",
    "crime": "crime",
    "documentary": "documentary",
    "drama": "drama",
    "fantasy": "fantasy",
    "horror": "horror",
    "musical": "musical",
    "mystery": "mystery",
    "romance": "romance",
    "romantic": "romance",
    "science fiction": "science fiction",
    "thriller": "thriller",
    "western": "western",
}


def tidy_genres(labels: Iterable[str]) -> list[str]:
    """The genres that `labels` (Wikidata's, in English) stand for, lower case, each once, in their order."""
    tidy: dict[str, None] = {}
    for label in labels:
        for genre in _tidy(label):
            tidy.setdefault(genre)
            for word, part in _PARTS.items():
                if re.search(rf"(?<![\w-]){word}(?![\w-])", genre):
                    tidy.setdefault(part)
    return list(tidy)


def _tidy(label: str) -> list[str]:
    name = label.strip().casefold()
    if name in _RENAMED:
        return _RENAMED[name]
    if _NOT_A_GENRE.search(name):
        return []
    anime = bool(re.search(r"\banime\b", name))
    name = re.sub(r"\s*\b(anime and manga|anime)\b", "", name)
    while (shorter := _MEDIUM.sub("", name)) != name:
        name = shorter
    name = name.strip()
    renamed = _RENAMED.get(name, [name] if name else [])
    return [*renamed, "anime"] if anime else renamed
