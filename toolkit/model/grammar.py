"""Grammars: which token ids may come next, given the ids generated so far.

Three, one for each output type of the program: Intent, a target's SemanticId, the response. A grammar keeps no state
between calls: it reads where it is from the generated ids, so beams may be reordered and threads may share it. Knows
nothing of logits or tensors.

`columns` are the token ids in question at a step (the only rows of the output head that need computing); `legal`
says which of them may follow; `normaliser` which of them a score is normalised over: a filter is in `legal` alone;
`untaught` which of those the model was never taught to write there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np

from gcrs.toolkit.dialogue.turns import Intent
from gcrs.toolkit.errors import DeadEnd, UsageError
from gcrs.toolkit.ids.codebook import SemanticId
from gcrs.toolkit.ids.tree import PrefixTree
from gcrs.toolkit.model.tokens import TokenSpace

UNFORCED = -1
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # all but newline and tab
_WORDED = re.compile(r"[^\W_]")
MOST_NAMED = 2  # spans of one item in one reply: a small model may otherwise name it until its tokens are used up


class Grammar(Protocol):
    """What a processor asks of a grammar; `generated` is int64 [b, n], the ids since the prompt, all rows alike."""

    length: int | None  # ids of a complete output, None when it ends by itself

    def columns(self, generated: np.ndarray) -> np.ndarray:
        """Token ids that may matter at this step, int64 [c]."""
        ...

    def legal(self, generated: np.ndarray) -> np.ndarray:
        """Which columns may follow each row, bool [b, c]; DeadEnd when a row has none."""
        ...

    def normaliser(self, generated: np.ndarray) -> np.ndarray | None:
        """Which columns each row's scores are normalised over, bool [b, c]; None = logits stay as they are."""
        ...

    def untaught(self, generated: np.ndarray) -> np.ndarray | None:
        """Which columns of the normaliser lead to what joined after the training alone, bool [b, c]; None = none."""
        ...

    def forced(self, generated: np.ndarray) -> np.ndarray:
        """The one token that can follow each row with probability 1, else -1; int64 [b]."""
        ...


class IntentGrammar:
    """`<REC>` or `<CHAT>`, less what is vetoed."""

    length: int | None = 1

    def __init__(self, tokens: TokenSpace, allow: frozenset[Intent]) -> None:
        if not allow or not allow <= {"recommend", "chat"}:
            raise UsageError(f"The allowed intents are {sorted(allow)}, expected 'recommend', 'chat' or both.")
        self._columns = np.array([tokens.rec, tokens.chat])
        self._legal = np.array([["recommend" in allow, "chat" in allow]])

    def columns(self, generated: np.ndarray) -> np.ndarray:
        return self._columns

    def legal(self, generated: np.ndarray) -> np.ndarray:
        return np.repeat(self._legal, len(generated), axis=0)

    def normaliser(self, generated: np.ndarray) -> np.ndarray:
        return np.ones((len(generated), 2), dtype=bool)

    def untaught(self, generated: np.ndarray) -> None:
        return None

    def forced(self, generated: np.ndarray) -> np.ndarray:
        return np.full(len(generated), UNFORCED)  # a veto does not make the other intent certain


class TargetGrammar:
    """`<BOI>`, the codes of one allowed item, `<EOI>`; each level normalised over the FULL catalogue's children.

    `taught` is the same tree with the items alone that the model was trained with; None where those are all.
    """

    def __init__(self, tokens: TokenSpace, tree: PrefixTree, taught: PrefixTree | None = None) -> None:
        self.length: int | None = tree.levels + 2
        self._tree, self._taught = tree, taught
        self._starts = np.array([tokens.level_range(level).start for level in range(tree.levels)], dtype=np.int64)
        self._boi, self._eoi = np.array([tokens.boi]), np.array([tokens.eoi])
        self._levels = [np.array(tokens.level_range(level)) for level in range(tree.levels)]

    def _level(self, generated: np.ndarray) -> int:
        return generated.shape[1] - 1

    def _states(self, generated: np.ndarray) -> np.ndarray:
        codes = generated[:, 1:] - self._starts[: generated.shape[1] - 1]
        return self._tree.walk_batch(codes)

    def columns(self, generated: np.ndarray) -> np.ndarray:
        level = self._level(generated)
        return self._boi if level < 0 else self._eoi if level == self._tree.levels else self._levels[level]

    def legal(self, generated: np.ndarray) -> np.ndarray:
        if not 0 <= self._level(generated) < self._tree.levels:
            return np.ones((len(generated), 1), dtype=bool)
        return self._tree.allowed_mask(self._states(generated))

    def normaliser(self, generated: np.ndarray) -> np.ndarray:
        if not 0 <= self._level(generated) < self._tree.levels:
            return np.ones((len(generated), 1), dtype=bool)
        return self._tree.allowed_mask(self._states(generated), full=True)

    def untaught(self, generated: np.ndarray) -> np.ndarray | None:
        if self._taught is None or not 0 <= self._level(generated) < self._tree.levels:
            return None
        states = self._states(generated)
        found = self._taught.allowed_mask(states, full=True)
        known = self._taught.lives(states)
        if known.any():
            found[known] &= ~self._taught.allowed_mask(states[known])
        return found

    def forced(self, generated: np.ndarray) -> np.ndarray:
        level = self._level(generated)
        if not 0 <= level < self._tree.levels:
            return np.repeat(self.columns(generated), len(generated))
        offsets, codes, _ = self._tree.children_batch(self._states(generated), full=True)
        single = np.diff(offsets) == 1
        return np.where(single, codes[offsets[:-1]] + self._starts[level], UNFORCED)


@dataclass(frozen=True)
class Words:
    """Which base tokens a reply may contain; bool arrays over all rows of the extended embedding."""

    text: np.ndarray  # may stand in a reply
    opening: np.ndarray  # of those, may be its first token: not whitespace alone
    visible: np.ndarray  # of those, show something by themselves
    worded: np.ndarray  # of those, hold a letter or digit


@lru_cache(maxsize=2)
def words_of(tokens: TokenSpace) -> Words:
    """The base's tokens sorted by what they show. No special or added tokens, no control characters."""
    tokenizer = tokens.text_tokenizer
    known = tokens.base_rows  # rows without a token show nothing
    shown = tokenizer.decode_batch([[token] for token in range(known)], skip_special_tokens=False)
    text, opening, visible, worded = np.zeros((4, tokens.size), dtype=bool)
    text[:known] = [_CONTROL.search(word) is None for word in shown]
    text[list(tokenizer.get_added_tokens_decoder())] = False
    text[list(tokens.forbidden_in_text)] = False
    opening[:known] = [word != "" and not word.isspace() for word in shown]
    visible[:known] = [bool(word.strip().strip("\ufffd")) and not word.endswith("\ufffd") for word in shown]
    worded[:known] = [_WORDED.search(word) is not None for word in shown]
    return Words(text, text & opening, text & visible, text & worded)


class ResponseGrammar:
    """Words, spans of licensed items, then `<|im_end|>`.

    The reply shows something before it may end: a visible character or an item. Between two spans stands something
    visible, between two of the same item a word, and no item is named more than `MOST_NAMED` times. A span begins
    only where it can be completed within `max_tokens`; at `max_tokens` the end is forced. Reads one row.
    """

    def __init__(self, tokens: TokenSpace, words: Words, licensed: Sequence[SemanticId], max_tokens: int) -> None:
        self.length: int | None = None
        self._tokens, self._words, self._max = tokens, words, max_tokens
        self._licensed = tuple(dict.fromkeys(licensed))
        self._all = np.arange(tokens.size)
        self._levels = [np.array(tokens.level_range(level)) for level in range(len(tokens.codes))]
        self._eoi = np.array([tokens.eoi])

    def _span(self, ids: list[int]) -> list[int] | None:
        """The code tokens of the span that is open at the end of `ids`; None outside a span."""
        for back in range(1, min(len(ids), len(self._levels) + 1) + 1):
            if ids[-back] == self._tokens.eoi:
                return None
            if ids[-back] == self._tokens.boi:
                return ids[len(ids) - back + 1 :]
        return None

    def _barred(self, ids: list[int]) -> SemanticId | None:
        """The item that may not be named next: the last one, while no word came after it."""
        for at in range(len(ids) - 1, -1, -1):
            if ids[at] == self._tokens.eoi:
                return self._tokens.sid_of(ids[at - len(self._levels) : at])
            if self._words.worded[ids[at]]:
                return None
        return None

    def _nameable(self, ids: list[int]) -> list[SemanticId]:
        ends = [at for at, token in enumerate(ids) if token == self._tokens.eoi]
        if ends and not self._words.visible[ids[ends[-1] + 1 :]].any():
            return []
        named = Counter(self._tokens.sid_of(ids[at - len(self._levels) : at]) for at in ends)
        barred = self._barred(ids)
        return [sid for sid in self._licensed if sid != barred and named[sid] < MOST_NAMED]

    def columns(self, generated: np.ndarray) -> np.ndarray:
        span = self._span(generated[0].tolist())
        if span is None:
            return self._all
        return self._eoi if len(span) == len(self._levels) else self._levels[len(span)]

    def legal(self, generated: np.ndarray) -> np.ndarray:
        ids = generated[0].tolist()
        span = self._span(ids)
        if span is None:
            return self._outside(ids)[None]
        if len(span) == len(self._levels):
            return np.ones((1, 1), dtype=bool)
        prefix = tuple(int(token - level[0]) for token, level in zip(span, self._levels, strict=False))
        nameable = self._nameable(ids[: len(ids) - len(span) - 1])
        codes = [sid[len(prefix)] for sid in nameable if sid[: len(prefix)] == prefix]
        if not codes:
            raise DeadEnd(f"No licensed item's semantic ID begins with the codes {prefix}.")
        legal = np.zeros((1, len(self._levels[len(prefix)])), dtype=bool)
        legal[0, codes] = True
        return legal

    def _outside(self, ids: list[int]) -> np.ndarray:
        left = self._max - len(ids)
        shows = self._shows(ids)
        if left <= 0:
            legal = np.zeros(len(self._all), dtype=bool)
        elif shows:
            legal = self._words.text.copy()
        else:
            legal = (self._words.visible if left == 1 else self._words.text if ids else self._words.opening).copy()
        legal[self._tokens.end] = shows or left <= 0
        legal[self._tokens.boi] = left >= len(self._levels) + 2 and bool(self._nameable(ids))
        return legal

    def _shows(self, ids: list[int]) -> bool:
        return self._tokens.eoi in ids or bool(self._tokens.decode_text(ids).replace("\ufffd", "").strip())

    def normaliser(self, generated: np.ndarray) -> None:
        return None

    def untaught(self, generated: np.ndarray) -> None:
        return None

    def forced(self, generated: np.ndarray) -> np.ndarray:
        ids = generated[0].tolist()
        if self._span(ids) is None and len(ids) < self._max:
            return np.array([UNFORCED])  # words are never the only choice
        legal = self.legal(generated)[0]
        return np.array([int(self.columns(generated)[legal.argmax()]) if legal.sum() == 1 else UNFORCED])
