"""Ablations whose replies declare no target: the item is where the written reply comes to its first one.

The words are the most probable ones (greedy), as long as the person would read them; where they end without an item
there is no recommendation. Knows nothing of dialogues or metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import outlines

from gcrs.toolkit.model.grammar import ResponseGrammar, words_of
from gcrs.toolkit.model.processor import MaskProcessor
from gcrs.toolkit.model.sampling import Sampler, Sampling

if TYPE_CHECKING:
    from gcrs.toolkit.model.engine import Engine, Scored

MOST_WORDS = 60  # tokens before the first item; ReDial's replies have 14 words on average


def words_before_item(engine: Engine, prompt: Sequence[int]) -> list[int] | None:
    """The ids of a greedy reply up to its first item; None when it ends without one."""
    levels = engine.book.levels
    sids = [engine.book.semantic_id(item) for item in engine.book]
    grammar = ResponseGrammar(engine.tokens, words_of(engine.tokens), sids, MOST_WORDS + levels + 2)
    generator = outlines.Generator(engine.model, processor=MaskProcessor(grammar))
    sampler = Sampler(Sampling(temperature=0, repetition_penalty=1))
    words: list[int] = []
    stream: Any = generator.stream(list(prompt), sampler=sampler)
    for token in stream:
        if token == engine.tokens.boi:
            return words
        if token == engine.tokens.end or len(words) == MOST_WORDS:
            return None
        words.append(int(token))
    return None


def direct_targets(engine: Engine, prompt: Sequence[int], k: int, beams: int) -> list[Scored]:
    """The `k` best items at the reply's first item, best first; none when it names none."""
    words = words_before_item(engine, prompt)
    return [] if words is None else engine.targets([*prompt, *words], k=k, beams=beams)
