"""Metrics of replies as text: BLEU, how many different n-grams, how much is copied from the training replies.

Pure functions over strings in which an item span is one token. Knows nothing of models or catalogues.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from gcrs.toolkit.dialogue.turns import MENTION
from gcrs.toolkit.errors import GcrsError

SPAN = "<movie>"
_TOKENS = re.compile(r"<movie>|\w+|[^\w\s]")
_ONE_TOKEN = "itemspan"  # BLEU's tokenizer would cut the angle brackets off


def masked(text: str) -> str:
    """A turn's text with one `<movie>` in place of each item span."""
    return MENTION.sub(SPAN, text)


def tokens_of(text: str) -> list[str]:
    """Lower-case words, marks and `<movie>` tokens of a masked text."""
    return _TOKENS.findall(text.lower())


def bleu(said: Sequence[str], gold: Sequence[str]) -> dict[str, Any]:
    """Corpus BLEU of masked replies in lower case against one gold reply each, 0..100, with SacreBLEU's signature.

    GcrsError without the package sacrebleu.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ModuleNotFoundError as error:
        raise GcrsError("BLEU needs the package sacrebleu.", hint="pip install 'gcrs[eval]'") from error
    metric = BLEU(lowercase=True)
    ours, theirs = ([" ".join(text.replace(SPAN, _ONE_TOKEN).split()) for text in texts] for texts in (said, gold))
    score = metric.corpus_score(ours, [theirs])
    return {"value": float(score.score), "signature": str(metric.get_signature())}


def distinct(replies: Iterable[Sequence[str]], n: int) -> tuple[float, float]:
    """Different n-grams of all replies: over the number of n-grams (Li et al. 2016), and over the number of replies.

    The second is what papers on conversational recommendation print; it may be more than 1.
    """
    held = [tuple(tokens) for tokens in replies]
    grams = [tokens[at : at + n] for tokens in held for at in range(len(tokens) - n + 1)]
    different = len(set(grams))
    return different / len(grams) if grams else 0.0, different / len(held) if held else 0.0


def longest_copies(replies: Sequence[Sequence[str]], training: Sequence[Sequence[str]]) -> list[int]:
    """The length of the longest run of tokens of each reply that stands in one training text, word for word.

    Lengths grow one by one: a run of n tokens can only be there where its first n - 1 are.
    """
    longest = [0] * len(replies)
    ours = [(r, at) for r, reply in enumerate(replies) for at in range(len(reply))]
    theirs = [(t, at) for t, text in enumerate(training) for at in range(len(text))]
    n = 1
    while ours and theirs:
        wanted = {tuple(replies[r][at : at + n]) for r, at in ours if at + n <= len(replies[r])}
        theirs = [
            (t, at) for t, at in theirs if at + n <= len(training[t]) and tuple(training[t][at : at + n]) in wanted
        ]
        found = {tuple(training[t][at : at + n]) for t, at in theirs}
        ours = [(r, at) for r, at in ours if at + n <= len(replies[r]) and tuple(replies[r][at : at + n]) in found]
        for r, _ in ours:
            longest[r] = n
        n += 1
    return longest
