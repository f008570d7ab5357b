"""Cases: which decision of which reply is scored, and under which protocol; shared by every row of a table.

One case is one item of one assistant turn. Protocol `all` counts every item of every reply; `new` leaves out items that
the dialogue has named before (repeats) and takes what is named from the candidates of every row; `cold` is `new`, of
the items that no training dialogue mentions. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gcrs.toolkit.dialogue.turns import Dialogue

Protocol = Literal["all", "new", "cold"]
Mode = Literal["forced", "free"]
PROTOCOLS: dict[Protocol, str] = {
    "all": "every item of every assistant turn, repeats counted (as UniCRS and the paper)",
    "new": "items that the dialogue has not named before; named items are no candidates of any row (He et al. 2023)",
    "cold": "as new, and the item is one of the catalogue's that no training dialogue mentions",
}
MODES: dict[Mode, str] = {
    "forced": "the reply is opened with <REC>",
    "free": "the model decides; where it chats, the case is a miss",
}
UNIT = "one case an item of an assistant turn"
TURNS = "consecutive messages of one speaker merged"
OUTSIDE = "?"  # stands before the id of an item that the catalogue does not have, so that it matches nothing


@dataclass(frozen=True)
class Context:
    """One reply to predict: the turns before it, its items (each once) and which of them are repeats."""

    dialogue: Dialogue
    gold: tuple[str, ...]
    repeats: frozenset[str]
    named: tuple[str, ...] = ()

    @property
    def turn(self) -> int:
        """Which turn of its dialogue the reply is, from 0."""
        return len(self.dialogue)


@dataclass(frozen=True)
class Case:
    """One scored item: where it stands (the place of its context in the list), what it is, whether it is a repeat."""

    context: int
    gold: str
    repeat: bool

    @property
    def known(self) -> bool:
        """Whether the catalogue has the item."""
        return not self.gold.startswith(OUTSIDE)


def contexts(dialogues: Iterable[Dialogue]) -> Iterator[Context]:
    """Every assistant turn that names items, in order."""
    for dialogue in dialogues:
        seen: dict[str, None] = {}
        for n, turn in enumerate(dialogue.turns):
            gold = turn.mentions
            if turn.role == "assistant" and gold:
                yield Context(dialogue[:n], gold, frozenset(seen.keys() & set(gold)), tuple(seen))
            seen.update(dict.fromkeys(gold))


def cases(every: Sequence[Context], *, skip_unknown: bool = False) -> list[Case]:
    """The cases of protocol `all`, in order; `skip_unknown` leaves out items that the catalogue does not have."""
    found = [Case(n, gold, gold in one.repeats) for n, one in enumerate(every) for gold in one.gold]
    return [case for case in found if case.known or not skip_unknown]


def under(protocol: Protocol, every: Sequence[Case], trained: Collection[str] | Mapping[str, int]) -> list[int]:
    """Places of the cases that count under a protocol; `trained` holds the items that training dialogues mention."""
    if protocol == "all":
        return list(range(len(every)))
    new = [n for n, case in enumerate(every) if not case.repeat]
    return new if protocol == "new" else [n for n in new if every[n].known and every[n].gold not in trained]


def candidates(protocol: Protocol, ranking: Sequence[str], named: Collection[str]) -> list[str]:
    """A row's ranking under a protocol: without what the dialogue has named, unless repeats count."""
    return list(ranking) if protocol == "all" else [item for item in ranking if item not in named]


def spread_out(ranking: Iterable[str], ids: Mapping[str, Sequence[str]]) -> list[str]:
    """A ranking of canonical items as one of original ids: an item takes a place for each id that was merged into it.

    `ids` are the original ids of items that have several, in the order in which they take their places.
    """
    return [one for item in ranking for one in ids.get(item, (item,))]
