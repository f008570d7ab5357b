"""Cases: which decision of which reply is scored, shared by every row of a table.

Protocol `all` counts every item of every reply; `new` leaves out items that the dialogue has named before (repeats).
Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from gcrs.toolkit.dialogue.turns import Dialogue

Protocol = Literal["all", "new"]


@dataclass(frozen=True)
class Context:
    """One reply to predict: the turns before it, its items (each once) and which of them are repeats."""

    dialogue: Dialogue
    gold: tuple[str, ...]
    repeats: frozenset[str]


def contexts(dialogues: Iterable[Dialogue]) -> Iterator[Context]:
    """Every assistant turn that names items, in order."""
    for dialogue in dialogues:
        seen: set[str] = set()
        for n, turn in enumerate(dialogue.turns):
            gold = turn.mentions
            if turn.role == "assistant" and gold:
                yield Context(dialogue[:n], gold, frozenset(seen.intersection(gold)))
            seen.update(gold)
