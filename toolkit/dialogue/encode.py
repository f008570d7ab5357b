"""encode(): a dialogue as token ids and labels; the only place where the sequence's shape is computed.

    <|im_start|>assistant\n <REC> <BOI><a_17>…<EOI> [<BOI>…<EOI> …] <RESP> text … <BOI>…<EOI> … <|im_end|>\n

Used by training, evaluation, chat and serving alike. `encode(d[:n])` is a prefix of `encode(d)` (not in the ablation
that drops past decisions, `shape.py`). Knows nothing of weights, losses or decoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from gcrs.toolkit.dialogue.shape import Decisions
from gcrs.toolkit.dialogue.turns import Dialogue, Turn
from gcrs.toolkit.ids.codebook import Codebook
from gcrs.toolkit.model.tokens import TokenSpace

if TYPE_CHECKING:
    from numpy.random import Generator

IGNORE = -100


class Kind(IntEnum):
    """What a token is, so that a trainer can weigh its loss."""

    CONTEXT = 0  # never supervised: user words, role marks, turn ends of the user
    INTENT = 1  # <REC> or <CHAT>
    TARGET = 2  # a target block's codes, and what comes after a block: another <BOI>, or <RESP>
    TEXT = 3  # the response's words and its closing <|im_end|>
    MENTION = 4  # item spans inside the response
    USER_ITEM = 5  # codes of items that the person mentions


@dataclass(frozen=True)
class Encoded:
    """One sequence: `ids` int32 [n], `kinds` uint8 [n], and the length after each turn."""

    ids: np.ndarray
    kinds: np.ndarray
    turn_ends: tuple[int, ...]

    def labels(
        self, supervised: frozenset[Kind] = frozenset({Kind.INTENT, Kind.TARGET, Kind.TEXT, Kind.MENTION})
    ) -> np.ndarray:
        """Ids where the token's kind is supervised, else -100; int32 [n], unshifted."""
        keep = np.isin(self.kinds, [int(kind) for kind in supervised])
        return np.where(keep, self.ids, IGNORE).astype(np.int32)


class _Writer:
    def __init__(self) -> None:
        self.ids: list[int] = []
        self.kinds: list[int] = []

    def add(self, ids: list[int] | tuple[int, ...], kind: Kind) -> None:
        self.ids.extend(ids)
        self.kinds.extend([int(kind)] * len(ids))


def _words(writer: _Writer, turn: Turn, tokens: TokenSpace, book: Codebook, word: Kind, code: Kind) -> None:
    said = ""
    for what, value in turn.segments():
        if what == "text":
            said += value
            continue
        if turn.role == "user" and value in book.titles:
            said += f"{book.titles[value]} "
        writer.add(tokens.encode_text(said), word)
        said = ""
        span = tokens.span(book.semantic_id(value))
        writer.add(span[:1], word)
        writer.add(span[1:-1], code)
        writer.add(span[-1:], Kind.CONTEXT if word == Kind.CONTEXT else code)
    writer.add(tokens.encode_text(said), word)


def _turn(
    writer: _Writer, turn: Turn, tokens: TokenSpace, book: Codebook, rng: Generator | None, shown: Decisions
) -> None:
    writer.add(tokens.header(turn.role), Kind.CONTEXT)
    if turn.role == "user":
        _words(writer, turn, tokens, book, Kind.CONTEXT, Kind.USER_ITEM)
        writer.add(tokens.close, Kind.CONTEXT)
        return
    targets = list(turn.decided_targets) if turn.decided_intent == "recommend" and shown == "all" else []
    if rng is not None and len(targets) > 1:
        targets = [targets[n] for n in rng.permutation(len(targets))]
    if shown != "none":
        writer.add([tokens.rec if turn.decided_intent == "recommend" else tokens.chat], Kind.INTENT)
        for target in targets:
            writer.add(tokens.span(book.semantic_id(target)), Kind.TARGET)
        writer.add([tokens.resp], Kind.TARGET if targets else Kind.CONTEXT)
    _words(writer, turn, tokens, book, Kind.TEXT, Kind.MENTION)
    writer.add([tokens.end], Kind.TEXT)
    writer.add(tokens.newline, Kind.CONTEXT)


def encode(dialogue: Dialogue, tokens: TokenSpace, book: Codebook, *, rng: Generator | None = None) -> Encoded:
    """Token ids of a dialogue and the kind of each.

    Items must be canonical ids of the codebook (UnknownItem otherwise); its `titles` stand before those that the person
    mentions. With `rng`, the targets of a reply come in a fresh random order, so that the first block learns
    P(item | context); without it, in the order given.
    """
    writer = _Writer()
    writer.add(tokens.bos, Kind.CONTEXT)
    ends: list[int] = []
    for n, turn in enumerate(dialogue.turns):
        _turn(writer, turn, tokens, book, rng, tokens.shape.at(n + 1 == len(dialogue)))
        ends.append(len(writer.ids))
    return Encoded(np.asarray(writer.ids, dtype=np.int32), np.asarray(writer.kinds, dtype=np.uint8), tuple(ends))


def encode_prompt(dialogue: Dialogue, tokens: TokenSpace, book: Codebook) -> list[int]:
    """Token ids up to where the assistant's next decision starts: `encode(dialogue)` and an opened reply."""
    return [*encode(dialogue, tokens, book).ids.tolist(), *tokens.header("assistant")]
