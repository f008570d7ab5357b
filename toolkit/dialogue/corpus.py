"""Corpus: encoded dialogues as flat arrays, so that a trainer needs no text, no catalogue and no tokenizer.

Knows nothing of weights or optimisers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from gcrs.toolkit.dialogue.encode import Encoded, Kind, encode
from gcrs.toolkit.dialogue.turns import MENTION, Dialogue, Turn
from gcrs.toolkit.errors import DataError
from gcrs.toolkit.ids.codebook import Codebook
from gcrs.toolkit.model.tokens import TokenSpace

Layout = Literal["dialogue", "instance", "items"]


@dataclass(frozen=True)
class Corpus:
    """Sequences end to end: `ids` int32 [tokens], `kinds` uint8 [tokens], `offsets` int64 [sequences + 1]."""

    ids: np.ndarray
    kinds: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens in each sequence, int64 [sequences]."""
        return np.diff(self.offsets)

    def __getitem__(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """(ids, kinds) of sequence n."""
        begin, end = self.offsets[n], self.offsets[n + 1]
        return self.ids[begin:end], self.kinds[begin:end]

    @classmethod
    def of(cls, sequences: Sequence[tuple[np.ndarray, np.ndarray]]) -> Corpus:
        """Join (ids, kinds) pairs."""
        offsets = np.concatenate([[0], np.cumsum([len(ids) for ids, _ in sequences])]).astype(np.int64)
        empty_ids, empty_kinds = np.zeros(0, np.int32), np.zeros(0, np.uint8)
        return cls(
            np.concatenate([empty_ids, *(ids for ids, _ in sequences)]).astype(np.int32),
            np.concatenate([empty_kinds, *(kinds for _, kinds in sequences)]).astype(np.uint8),
            offsets,
        )

    @classmethod
    def join(cls, parts: Sequence[Corpus]) -> Corpus:
        """The sequences of several corpora, one after the other."""
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.kinds for part in parts]),
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        )


def item_excerpt(dialogue: Dialogue) -> Dialogue:
    """The lines with items alone, assistant turns reduced to their targets: a cheap curriculum for the ID tokens."""
    turns: list[Turn] = []
    for turn in dialogue.turns:
        if turn.role == "assistant":
            if turn.decided_targets:
                turns.append(replace(turn, text="", intent="recommend", targets=turn.decided_targets))
            continue
        lines = [line for line in turn.text.split("\n") if MENTION.search(line)]
        if lines or not turns:
            turns.append(replace(turn, text="\n".join(lines) or turn.text))
    return Dialogue(dialogue.id, tuple(turns))


def _instances(dialogue: Dialogue) -> Iterable[Dialogue]:
    """The paper's layout: one instance a target (or a chat reply), loss on the last turn alone."""
    for n, turn in enumerate(dialogue.turns):
        if turn.role != "assistant":
            continue
        for target in turn.decided_targets or (None,):
            last = turn if target is None else replace(turn, intent="recommend", targets=(target,))
            yield Dialogue(dialogue.id, (*dialogue.turns[:n], last))


def _clip(encoded: Encoded, max_length: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The sequence cut after the last whole turn that fits; None when not even the first does."""
    if len(encoded.ids) <= max_length:
        return encoded.ids, encoded.kinds
    fitting = [end for end in encoded.turn_ends if end <= max_length]
    return (encoded.ids[: fitting[-1]], encoded.kinds[: fitting[-1]]) if fitting else None


def sequences(
    dialogue: Dialogue, tokens: TokenSpace, book: Codebook, *, layout: Layout, max_length: int, counts: dict[str, int]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(ids, kinds) of what one dialogue teaches, see `build_corpus`; adds to the counts `cut` and `dropped`."""
    out: list[tuple[np.ndarray, np.ndarray]] = []
    if layout == "instance":
        for instance in _instances(dialogue):
            encoded = encode(instance, tokens, book)
            while len(encoded.ids) > max_length and len(instance) > 1:
                instance = instance[1:]
                encoded = encode(instance, tokens, book)
            if len(encoded.ids) > max_length:
                counts["dropped"] += 1
                continue
            kinds = encoded.kinds.copy()
            kinds[: encoded.turn_ends[-2] if len(instance) > 1 else 0] = Kind.CONTEXT
            out.append((encoded.ids, kinds))
        return out
    encoded = encode(item_excerpt(dialogue) if layout == "items" else dialogue, tokens, book)
    clipped = _clip(encoded, max_length)
    if clipped is None or not (clipped[1] != Kind.CONTEXT).any():
        counts["dropped"] += 1
        return out
    counts["cut"] += len(clipped[0]) < len(encoded.ids)
    ids, kinds = clipped
    if layout == "items":
        kinds = np.where(kinds == Kind.TEXT, Kind.CONTEXT, kinds).astype(np.uint8)
    return [(ids, kinds)]


def build_corpus(
    dialogues: Iterable[Dialogue],
    tokens: TokenSpace,
    book: Codebook,
    *,
    layout: Layout = "dialogue",
    max_length: int = 768,
) -> tuple[Corpus, dict[str, int]]:
    """Encode dialogues for training; returns the corpus and counts of what was cut or dropped.

    `dialogue`: whole dialogues, loss on every assistant turn. `instance`: the paper's one instance a target, oldest
    turns dropped to fit. `items`: excerpts of the turns with items, response words not supervised.
    Raises UnknownItem when a dialogue names an item without a semantic ID, DataError when nothing is left.
    """
    out: list[tuple[np.ndarray, np.ndarray]] = []
    counts = {"dialogues": 0, "sequences": 0, "tokens": 0, "cut": 0, "dropped": 0}
    for dialogue in dialogues:
        counts["dialogues"] += 1
        out.extend(sequences(dialogue, tokens, book, layout=layout, max_length=max_length, counts=counts))
    if not out:
        raise DataError("No dialogue has anything to learn from.", hint="Assistant turns with text are needed.")
    corpus = Corpus.of(out)
    counts["sequences"], counts["tokens"] = len(corpus), len(corpus.ids)
    return corpus, counts


def shuffle_targets(
    ids: np.ndarray, kinds: np.ndarray, tokens_rec: int, span: int, rng: np.random.Generator
) -> np.ndarray:
    """The same sequence with the target blocks of each reply in a fresh random order.

    `span` is the length of a block, `<BOI>` and `<EOI>` included. Block n of a reply starts at the token after `<REC>`.
    """
    out = ids
    for start in np.flatnonzero((ids == tokens_rec) & (kinds == Kind.INTENT)) + 1:
        end = start
        while end + span < len(ids) and (kinds[end : end + span] == Kind.TARGET).all():
            end += span
        blocks = (end - start) // span
        if blocks > 1:
            out = out.copy() if out is ids else out
            out[start:end] = ids[start:end].reshape(blocks, span)[rng.permutation(blocks)].reshape(-1)
    return out
