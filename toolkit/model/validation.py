"""Validation while a run goes on: what a few replies would have been, under the grammar that serving uses.

One pass: each token of a dialogue is forwarded once, for the intent, the ranking and the words of all its replies.
Knows nothing of training; the final evaluation is elsewhere (toolkit/eval).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from gcrs.toolkit.dialogue.turns import Dialogue
    from gcrs.toolkit.ids.codebook import Codebook
    from gcrs.toolkit.model.tokens import TokenSpace

CONTEXT = 1024  # tokens of a prompt; the oldest go first
METRICS = ("recall@10", "recall@1", "recall@50", "intent_accuracy", "bits_per_byte")


@dataclass
class Validation:
    """What was found, reply by reply; `groups` and so on name the dialogue of each case by its number."""

    ranks: list[int] = field(default_factory=list)  # of each gold item; 0: not among the first 50
    groups: list[int] = field(default_factory=list)
    intents: list[bool] = field(
        default_factory=list
    )  # of each reply: whether the freely decided intent is the true one
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
    model: PreTrainedModel, tokens: TokenSpace, book: Codebook, dialogues: Sequence[Dialogue], limit: int
) -> Validation:
    """The first `limit` replies with items ranked (forced mode, repeats counted); intent and words of all up to them.

    Intent and words are scored with the decisions of the data before them.
    """
    from gcrs.toolkit.dialogue.encode import encode, encode_prompt
    from gcrs.toolkit.eval.metrics import rank_of
    from gcrs.toolkit.model.engine import Engine

    engine = Engine(model, tokens, book, cache_bytes=0)  # the replies of one dialogue follow one another
    found = Validation()
    ranked = 0
    for group, dialogue in enumerate(dialogues):
        for n, turn in enumerate(dialogue.turns):
            if ranked >= limit:
                break
            if turn.role != "assistant":
                continue
            opened = encode_prompt(dialogue[:n], tokens, book)
            prompt = opened[-CONTEXT:]
            found.intents.append(engine.intent(prompt).intent == turn.decided_intent)
            found.intent_groups.append(group)
            if gold := turn.mentions:
                ranked += 1
                ranking = [scored.item_id for scored in engine.targets([*opened, tokens.rec][-CONTEXT:], k=50)]
                found.ranks += [rank_of(item, ranking) for item in gold]
                found.groups += [group] * len(gold)
            if size := sum(len(value.encode()) for what, value in turn.segments() if what == "text"):
                said = encode(dialogue[: n + 1], tokens, book)
                bits = _bits(engine, said.ids.tolist(), said.kinds.tolist(), len(opened))
                found.bits.append(bits)
                found.bytes.append(size)
                found.byte_groups.append(group)
        if ranked >= limit:
            break
    engine.close()
    return found


def _bits(engine: Any, ids: list[int], kinds: list[int], start: int) -> float:
    """Bits of the words among ids[start:], each given all before it."""
    from gcrs.toolkit.dialogue.encode import Kind

    cut = max(0, len(ids) - CONTEXT)
    words = [n for n in range(start, len(ids)) if kinds[n] == Kind.TEXT]
    logs = engine.log_probabilities(ids[cut:], [n - cut for n in words if n > cut])
    return float(-logs.sum() / 0.6931471805599453)
