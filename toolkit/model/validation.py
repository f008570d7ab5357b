"""Validation while a run goes on: what a few replies would have been, under the grammar that serving uses.

One pass: each token of a dialogue is forwarded once, for the intent, the ranking and the words of all its replies.
Knows nothing of training; the final evaluation is elsewhere (toolkit/eval).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from gcrs.toolkit.dialogue.turns import Dialogue
    from gcrs.toolkit.ids.codebook import Codebook
    from gcrs.toolkit.model.tokens import TokenSpace

RANKED = 50  # items a reply


@dataclass
class Validation:
    """What was found, reply by reply; `groups` and so on name the dialogue of each case by its number."""

    ranks: list[int] = field(default_factory=list)  # of each gold item; 0: not among the first 50
    groups: list[int] = field(default_factory=list)
    intents: list[bool] = field(default_factory=list)  # of each reply: whether the intent, decided freely, is right
    intent_groups: list[int] = field(default_factory=list)
    bits: list[float] = field(default_factory=list)  # of each reply's words and its end, decisions given
    bytes: list[int] = field(default_factory=list)  # of each reply's words in UTF-8
    byte_groups: list[int] = field(default_factory=list)

    def metrics(self) -> dict[str, float]:
        """recall@10 (first: by it the best checkpoint is chosen), @1, @50, intent accuracy, bits per byte of the words.

        What had no case is left out.
        """
        out = {f"recall@{k}": sum(0 < r <= k for r in self.ranks) / max(1, len(self.ranks)) for k in (10, 1, 50)}
        if self.intents:
            out["intent_accuracy"] = sum(self.intents) / len(self.intents)
        if total := sum(self.bytes):
            out["bits_per_byte"] = sum(self.bits) / total
        return {name: round(value, 4) for name, value in out.items()}

    def to_json(self) -> dict[str, list[Any]]:
        """Plain lists by name."""
        return {name: list(values) for name, values in vars(self).items()}


def validate(
    model: PreTrainedModel,
    tokens: TokenSpace,
    book: Codebook,
    dialogues: Sequence[Dialogue],
    limit: int,
    stop: Callable[[], bool] | None = None,
) -> Validation | None:
    """The first `limit` replies with items ranked (forced mode, repeats counted); intent and words of all up to them.

    Intent and words are scored with the decisions of the data before them. `stop` is asked before each dialogue; None
    when it says so.
    """
    from gcrs.toolkit.dialogue.budget import BUDGET
    from gcrs.toolkit.eval.metrics import rank_of
    from gcrs.toolkit.eval.one_pass import score_dialogue
    from gcrs.toolkit.model.engine import Engine

    engine = Engine(model, tokens, book, cache_bytes=0)
    found = Validation()
    left = limit
    for group, dialogue in enumerate(dialogues):
        if stop is not None and stop():
            return None
        items = [n for n, turn in enumerate(dialogue.turns) if turn.role == "assistant" and turn.mentions][:left]
        if left <= len(items):
            dialogue = dialogue[: items[-1] + 1]
        left -= len(items)
        wanted = dict.fromkeys(items, min(RANKED, len(book)))
        for one in score_dialogue(engine, dialogue, wanted, budget=BUDGET, beams=RANKED):
            turn = dialogue.turns[one.turn]
            found.intents.append((one.recommend >= 0.5) == (turn.decided_intent == "recommend"))
            found.intent_groups.append(group)
            if one.turn in wanted:
                found.ranks += [rank_of(item, one.ranking) for item in turn.mentions]
                found.groups += [group] * len(turn.mentions)
            if one.size:
                found.bits.append(one.words.nats / math.log(2))
                found.bytes.append(one.size)
                found.byte_groups.append(group)
        if left <= 0:
            break
    engine.close()
    return found
