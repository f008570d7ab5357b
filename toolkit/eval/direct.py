"""Ablations whose replies declare no target: the item is where the written reply comes to its first one.

The words are the most probable ones (greedy), as long as the person would read them; where they end without an item
there is no recommendation. Knows nothing of dialogues or metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gcrs.toolkit.model.sampling import Sampling

if TYPE_CHECKING:
    from gcrs.toolkit.model.engine import Engine, Scored

MOST_WORDS = 60  # tokens before the first item; ReDial's replies have 14 words on average


def words_before_item(engine: Engine, prompt: Sequence[int]) -> list[int] | None:
    """The ids of a greedy reply up to its first item; None when it ends without one."""
    greedy = Sampling(temperature=0, repetition_penalty=1, max_tokens=MOST_WORDS + engine.book.levels + 2)
    words: list[int] = []
    for piece in engine.respond(prompt, licensed=list(engine.book), sampling=greedy):
        if piece.kind == "item":
            return words
        words += piece.token_ids
    return None


def direct_targets(engine: Engine, prompt: Sequence[int], k: int, beams: int) -> list[Scored]:
    """The `k` best items at the reply's first item, best first; none when it names none."""
    words = words_before_item(engine, prompt)
    return [] if words is None else engine.targets([*prompt, *words], k=k, beams=beams)
