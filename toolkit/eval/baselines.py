"""The two rows that every table needs: what is popular, and what was just said.

Knows nothing of the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from gcrs.toolkit.dialogue.turns import Dialogue


def mention_counts(dialogues: Iterable[Dialogue], *, assistant_only: bool = False) -> dict[str, int]:
    """How many dialogues' turns mention each item, most mentioned first, ties by id."""
    counts: Counter[str] = Counter()
    for dialogue in dialogues:
        for turn in dialogue.turns:
            if turn.role == "assistant" or not assistant_only:
                counts.update(turn.mentions)
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def popularity_ranking(counts: dict[str, int], k: int, exclude: frozenset[str] = frozenset()) -> list[str]:
    """The k most mentioned items that are not excluded."""
    out: list[str] = []
    for item in counts:
        if item not in exclude:
            out.append(item)
            if len(out) == k:
                break
    return out


def copier_ranking(context: Dialogue) -> list[str]:
    """The dialogue's own items, last mentioned first."""
    out: dict[str, None] = {}
    for turn in reversed(context.turns):
        for item in reversed(turn.mentions):
            out.setdefault(item)
    return list(out)
