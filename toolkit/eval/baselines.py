"""The rows that every table needs and that have no text model: what is popular, what was just said, what goes together.

Knows nothing of the model.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from gcrs.toolkit.dialogue.turns import Dialogue


def mention_counts(dialogues: Iterable[Dialogue], *, assistant_only: bool = False) -> dict[str, int]:
    """How many dialogues' turns mention each item, most mentioned first, ties by id."""
    counts: Counter[str] = Counter()
    for dialogue in dialogues:
        for turn in dialogue.turns:
            if turn.role == "assistant" or not assistant_only:
                counts.update(turn.mentions)
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def popularity_ranking(
    counts: Mapping[str, int], k: int, exclude: frozenset[str] | set[str] = frozenset()
) -> list[str]:
    """The k most mentioned items that are not excluded."""
    return list(islice((item for item in counts if item not in exclude), k))


def copier_ranking(context: Dialogue) -> list[str]:
    """The dialogue's own items, last mentioned first."""
    out: dict[str, None] = {}
    for turn in reversed(context.turns):
        for item in reversed(turn.mentions):
            out.setdefault(item)
    return list(out)


SHRINK = 10  # dialogues: a quotient over few of them says little


class CoMentions:
    """Which items training dialogues mention together.

    An item's score is the sum over the dialogue's items i of n(i, item) / (n(i) + 10), counted over training dialogues:
    P(item | i), less for an i that was seldom mentioned. Equal scores, and what was never mentioned together with any,
    in the order of popularity. Of the cosine, the plain quotient and damped ones this was the best on ReDial's
    validation split.
    """

    def __init__(self, dialogues: Iterable[Dialogue]) -> None:
        held = list(dialogues)
        self.counts = mention_counts(held)
        self._order = {item: n for n, item in enumerate(self.counts)}
        self._alone: Counter[str] = Counter()
        self._together: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for dialogue in held:
            basket = sorted({item for turn in dialogue.turns for item in turn.mentions})
            self._alone.update(basket)
            for item in basket:
                self._together[item].update(other for other in basket if other != item)

    def ranking(self, named: Sequence[str], k: int) -> list[str]:
        """The k best items for a dialogue that has named these."""
        scores: defaultdict[str, float] = defaultdict(float)
        for item in named:
            for other, count in self._together.get(item, {}).items():
                scores[other] += count / (self._alone[item] + SHRINK)
        best = sorted(scores, key=lambda item: (-scores[item], self._order[item]))[:k]
        return best + popularity_ranking(self.counts, k - len(best), set(best))
