"""Which mentions moved an item's score: each is left out in turn and the item scored again.

A mention that is left out reads as the word "it", so the sentence around it stays. What remains of log P is the model's
own answer, not a guess about it. Knows nothing of sessions or of how it is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gcrs.programs.lm import is_local
from gcrs.toolkit.dialogue.turns import Dialogue

if TYPE_CHECKING:
    from gcrs.programs.recommender import Recommender

MOST = 8  # mentions that are left out, newest first: each costs a pass over the dialogue from there on


@dataclass(frozen=True)
class Moved:
    """A mentioned item, and the log P of the explained one without it; `change` is what the mention added."""

    item: str
    without: float
    change: float


def score_of(recommender: Recommender, context: Dialogue, item: str, rules: Sequence[str] = ()) -> float | None:
    """log P(item | context, recommend), over the full catalogue; None where another LM answers, or it is retired."""
    import numpy as np

    parts = recommender.parts
    if not is_local(recommender.intent.lm) or item in parts.edition.retired:
        return None
    only = np.fromiter((one == item for one in parts.book), dtype=bool, count=len(parts.book))
    reply = recommender.reply(context, intent="recommend", k=1, allowed=only, respond=False, rules=rules)
    return reply.ranking[0].score


def influence(
    recommender: Recommender,
    context: Dialogue,
    item: str,
    rules: Sequence[str] = (),
    stop: Callable[[], bool] | None = None,
) -> tuple[float | None, tuple[Moved, ...]]:
    """The item's log P after `context`, and what each mention in it did to that, the largest change first.

    `stop` is asked before each mention, and ends it early.
    """
    score = score_of(recommender, context, item, rules)
    if score is None:
        return None, ()
    spoken = list(dict.fromkeys(other for turn in reversed(context.turns) for other in reversed(turn.mentions)))
    moved = []
    for other in spoken[:MOST]:
        if stop is not None and stop():
            break
        left = context.map_items(lambda one, other=other: None if one == other else one)  # type: ignore[misc]
        without = score_of(recommender, left, item, rules)
        if without is not None:
            moved.append(Moved(other, without, score - without))
    return score, tuple(sorted(moved, key=lambda one: -abs(one.change)))
