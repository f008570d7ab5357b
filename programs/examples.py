"""Dialogues as DSPy examples and back: one example a reply, with the dialogue before it as the input.

Knows nothing of models or of files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gcrs.programs.lm import PREFIX as _PREFIX  # noqa: F401  (first: it settles DSPy's environment)

import dspy  # isort: skip

from gcrs.toolkit.dialogue.turns import Dialogue, Turn


def dialogue_examples(dialogues: Iterable[Dialogue], *, items_only: bool = False) -> list[dspy.Example]:
    """`dialogue` (the input), `intent`, `targets` and `response` of every reply; `items_only`: of those with items."""
    out = []
    for dialogue in dialogues:
        for n, turn in enumerate(dialogue.turns):
            if turn.role == "assistant" and n and (turn.decided_targets or not items_only):
                example = dspy.Example(
                    dialogue=dialogue[:n],
                    intent=turn.decided_intent,
                    targets=list(turn.decided_targets),
                    response=turn.text,
                )
                out.append(example.with_inputs("dialogue"))
    return out


def dialogues_of(examples: Sequence[Any]) -> list[Dialogue]:
    """The dialogues that examples hold, by id: of examples of one dialogue the longest, as it contains the others.

    An example without `response` is a whole dialogue.
    """
    longest: dict[str, Dialogue] = {}
    others: list[Dialogue] = []
    for example in examples:
        held: Dialogue = example.dialogue
        said = example.get("response")
        turns = held.turns
        if said is not None:
            targets = tuple(example.get("targets") or ()) or None
            turns = (*turns, Turn("assistant", said, example.get("intent"), targets))
        whole = Dialogue(held.id, tuple(turns))
        kept = longest.get(held.id)
        if not held.id:
            others.append(whole)
        elif kept is None or len(whole) > len(kept):
            longest[held.id] = whole
    return [*(longest[name] for name in sorted(longest)), *others]


def hit(example: Any, prediction: Any, trace: Any = None) -> float:
    """A DSPy metric: whether an item that was recommended is among the reply's k best."""
    ranking = [scored.item_id for scored in prediction.reply.ranking]
    return float(any(target in ranking for target in example.targets))
