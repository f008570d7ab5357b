"""Catalogues and dialogues that are made up, so that the bench needs nothing but a bundle.

IDs are skewed as trained ones are; dialogues have about ReDial's turns (12), tokens (320) and items (one in two turns,
several in two of five replies with any). The same seed gives the same. Knows nothing of models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gcrs.toolkit.dialogue.turns import Dialogue, Role, Turn

if TYPE_CHECKING:
    from gcrs.toolkit.ids.codebook import Codebook
    from gcrs.toolkit.model.tokens import TokenSpace

TURNS, WORDS_A_TURN = 12, 14
NAMING = {"user": 0.25, "assistant": 0.4}  # share of the turns that name items
HOW_MANY = (0.63, 0.28, 0.09)  # of those: one, two, three
_SAID = (
    "i really liked that one it was so funny and the acting is great have you seen anything else like this before we "
    "could watch something with my kids tonight but not too scary they love a good story with some action in it what "
    "do you think about older ones from the nineties my friend told me to try it last week thanks for your help"
)
WORDS = _SAID.split()


def codes_of(n: int, levels: int, codes: int, seed: int = 0, *, skewed: bool = True) -> np.ndarray:
    """n distinct IDs as int32 [n, levels], in random order: skewed like trained ones, or as even as can be."""
    rng = np.random.default_rng(seed)
    share = 1 / (np.arange(codes) + 10.0)
    keys = np.zeros(0, dtype=np.int64)
    while len(keys) < n:
        size = (2 * (n - len(keys)) + 64, levels)
        drawn = rng.choice(codes, size, p=share / share.sum()) if skewed else rng.integers(0, codes, size)
        keys = np.unique(np.concatenate([keys, drawn @ codes ** np.arange(levels)[::-1]]))
    keys = rng.permutation(keys)[:n]
    return (keys[:, None] // codes ** np.arange(levels)[::-1] % codes).astype(np.int32)


def dialogue(book: Codebook, seed: int, turns: int = TURNS) -> Dialogue:
    """Seeker and recommender in turn, the seeker first."""
    rng = np.random.default_rng([seed, 7])
    items = list(book.ids)
    out = []
    for n in range(turns):
        words = [WORDS[at] for at in rng.integers(len(WORDS), size=max(2, rng.poisson(WORDS_A_TURN)))]
        role: Role = "assistant" if n % 2 else "user"
        named = 1 + int(rng.choice(3, p=HOW_MANY)) if rng.random() < NAMING[role] else 0
        for _ in range(named):
            words.insert(int(rng.integers(len(words) + 1)), f"<item:{items[rng.integers(len(items))]}>")
        out.append(Turn(role, " ".join(words)))
    return Dialogue(f"made-{seed}", tuple(out))


def opened(book: Codebook, tokens: TokenSpace, length: int, seed: int = 0) -> Dialogue:
    """A dialogue whose prompt has `length` tokens or as few more as words allow; the seeker spoke last."""
    from gcrs.toolkit.dialogue.encode import encode_prompt

    rng = np.random.default_rng([seed, 8])
    turns: list[Turn] = []
    while True:
        more = dialogue(book, int(rng.integers(2**31)), 2).turns
        whole = Dialogue("made", (*turns, more[0]))
        if len(encode_prompt(whole, tokens, book)) >= length:
            break
        turns += more
    words = more[0].text.split(" ")
    for count in range(1, len(words) + 1):  # tokens grow with the words: the first that reaches the length
        cut = Dialogue("made", (*turns, Turn("user", " ".join(words[:count]))))
        if len(encode_prompt(cut, tokens, book)) >= length:
            return cut
    return whole
