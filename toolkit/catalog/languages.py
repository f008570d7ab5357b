"""Which language and scripts a catalogue is written in, roughly: by letters, and by the commonest function words.

Good enough to say that an English encoder will not understand it; no more. Knows nothing of encoders.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from gcrs.toolkit.scripts import script_shares

_WORDS = {
    "English": "the and of with for from this that you your is are it its by an",
    "German": "der die das und mit für von ist ein eine den dem des nicht auch sich auf",
    "French": "le les des et une pour dans avec est du sur qui au aux ce cette",
    "Spanish": "el los las y una para con del por que es su al como más",
    "Italian": "il gli di e una per con del della che è nel sono dei delle",
    "Portuguese": "o os um uma para com do da que em não dos das mais ao",
    "Dutch": "de het een en van met voor is op te zijn aan dat niet bij",
    "Polish": "i w z na do jest się nie dla oraz że od po przez",
    "Swedish": "och det en ett med för av är på till som den inte från",
    "Turkish": "ve bir bu ile için olan de da çok daha gibi olarak",
    "Vietnamese": "và của cho với là một các những được trong không có",
    "Indonesian": "dan yang untuk dengan dari ini di ke pada adalah dalam",
}
_SETS = {language: frozenset(words.split()) for language, words in _WORDS.items()}
_ENOUGH = 0.04  # share of all words that are a language's function words


def scripts_of(texts: Iterable[str]) -> dict[str, float]:
    """Share of the letters by script, commonest first; {} without letters."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts += script_shares(text)
    total = sum(counts.values())
    return {script: n / total for script, n in counts.most_common()} if total else {}


def language_of(texts: Iterable[str]) -> str | None:
    """The language in Latin letters whose function words are commonest; None when none of them is common enough."""
    hits: Counter[str] = Counter()
    total = 0
    for text in texts:
        for word in re.findall(r"[^\W\d_]+", text.casefold()):
            total += 1
            for language, words in _SETS.items():
                hits[language] += word in words
    if not hits:
        return None
    language, n = max(hits.items(), key=lambda pair: pair[1])
    return language if n >= 5 and n >= _ENOUGH * total else None
