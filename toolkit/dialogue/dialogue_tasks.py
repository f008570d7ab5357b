"""Training tasks over dialogues that people held: whole, their items alone or shuffled, mentions, history, plain chat.

Each is an index into dialogues that lie in memory anyway; an example is cut out when it is asked for. Knows nothing of
tokens, weights or budgets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from gcrs.toolkit.dialogue.corpus import Layout
from gcrs.toolkit.dialogue.encode import Kind
from gcrs.toolkit.dialogue.tasks import REPLY, SmallTalk, Source
from gcrs.toolkit.dialogue.turns import Dialogue, Turn

HISTORY = 10  # most items of a history without words
BASKET_GIVEN = 3  # most items that a basket begins with


class _OfDialogues:
    """What the tasks below share: dialogues by number."""

    name: ClassVar[str] = ""
    layout: Layout = "dialogue"
    supervises: frozenset[Kind] = REPLY

    def __init__(self, dialogues: Sequence[Dialogue]) -> None:
        self.dialogues = dialogues

    @property
    def num_examples(self) -> int:
        return len(self.dialogues)

    def get_example(self, n: int) -> Dialogue:
        return self.dialogues[n]


class WholeDialogues(_OfDialogues):
    """The paper's recipe: everything after `Assistant:` of every reply. `layout` "instance" is its one target each."""

    name = "dialogue"

    def __init__(self, dialogues: Sequence[Dialogue], layout: Layout = "dialogue") -> None:
        super().__init__(dialogues)
        self.layout = layout


class Excerpts(_OfDialogues):
    """The lines with items and the targets of replies without their words: a third of the tokens a target."""

    name = "excerpts"
    layout = "items"
    supervises = frozenset({Kind.TARGET})  # here every reply recommends: the intent is for whole dialogues to teach

    def __init__(self, dialogues: Sequence[Dialogue]) -> None:
        super().__init__([d for d in dialogues if any(t.mentions or t.decided_targets for t in d.turns)])


class OwnMentions(_OfDialogues):
    """Which items the person names, given what was said before: taste, not recommending."""

    name = "own-mentions"
    layout = "items"
    supervises = frozenset({Kind.USER_ITEM})

    def __init__(self, dialogues: Sequence[Dialogue]) -> None:
        super().__init__([d for d in dialogues if any(t.role == "user" and t.mentions for t in d.turns)])


class HistoryToId(_OfDialogues):
    """The items named so far, without a word -> the ID of the next reply's item."""

    name = "history-to-id"
    layout = "items"

    def __init__(self, dialogues: Sequence[Dialogue]) -> None:
        super().__init__(dialogues)
        self._at = [
            (n, m)
            for n, dialogue in enumerate(dialogues)
            for m, turn in enumerate(dialogue.turns)
            if turn.role == "assistant" and turn.decided_targets and any(t.mentions for t in dialogue.turns[:m])
        ]

    @property
    def num_examples(self) -> int:
        return len(self._at)

    def get_example(self, n: int) -> Dialogue:
        row, at = self._at[n]
        dialogue = self.dialogues[row]
        named = list(dict.fromkeys(item for turn in dialogue.turns[:at] for item in turn.mentions))[-HISTORY:]
        asked = " ".join(f"<item:{item}>" for item in named)
        targets = dialogue.turns[at].decided_targets
        return Dialogue(f"{self.name}-{n}", (Turn("user", asked), Turn("assistant", "", "recommend", targets)))


class Baskets(_OfDialogues):
    """A dialogue's items in ever new orders, without a word: what goes with what, whoever named it first.

    What was disliked stays out. One to three items are given, then each second one is to be found. Example n is the
    dialogue n modulo their number, in an order drawn from n.
    """

    name = "baskets"
    layout = "items"
    supervises = frozenset({Kind.TARGET})  # that somebody who names items always wants one is no lesson

    def __init__(self, dialogues: Sequence[Dialogue], source: Source, orders: int = 100) -> None:
        super().__init__(dialogues)
        self.source, self.orders = source, orders
        self._baskets = [basket for dialogue in dialogues if len(basket := _basket(dialogue)) > 1]

    @property
    def num_examples(self) -> int:
        return len(self._baskets) * self.orders

    def get_example(self, n: int) -> Dialogue:
        basket, rng = self._baskets[n % len(self._baskets)], self.source.rng(self.name, n)
        order = [basket[int(at)] for at in rng.permutation(len(basket))]
        given = int(rng.integers(1, min(BASKET_GIVEN, len(order) - 1) + 1))
        turns = [Turn("user", " ".join(f"<item:{item}>" for item in order[:given]))]
        for m, item in enumerate(order[given:]):
            mention = Turn("user", f"<item:{item}>")
            turns.append(mention if m % 2 else Turn("assistant", "", "recommend", (item,)))
        return Dialogue(f"{self.name}-{n}", tuple(turns if turns[-1].role == "assistant" else turns[:-1]))


def _basket(dialogue: Dialogue) -> list[str]:
    """The different items of a dialogue that nobody disliked, in order of appearance."""
    named: dict[str, None] = {}
    disliked: set[str] = set()
    for turn in dialogue.turns:
        named |= dict.fromkeys((*turn.mentions, *turn.decided_targets))
        disliked |= {item for item, said in turn.feedback.items() if said == "disliked"}
    return [item for item in named if item not in disliked]


class PlainChat(_OfDialogues):
    """Talk without items, against forgetting how to talk: of a file of such talk, else cut from the dialogues.

    A cut example is the beginning of a dialogue up to its last reply before any item is named. Where nobody talked,
    the small talk that comes with gcrs stands in.
    """

    name = "chat"

    def __init__(self, talk: Sequence[Dialogue], dialogues: Sequence[Dialogue], source: Source, endless: int) -> None:
        super().__init__(talk or [cut for dialogue in dialogues if (cut := _before_items(dialogue))])
        self._spare = None if self.dialogues else SmallTalk(source, endless)

    @property
    def num_examples(self) -> int:
        return self._spare.num_examples if self._spare else len(self.dialogues)

    def get_example(self, n: int) -> Dialogue:
        return self._spare.get_example(n) if self._spare else self.dialogues[n]


def _before_items(dialogue: Dialogue) -> Dialogue | None:
    """The turns before the first item, up to the last reply among them; None without one."""
    end = 0
    for n, turn in enumerate(dialogue.turns):
        if turn.mentions or turn.decided_targets:
            break
        end = n + 1 if turn.role == "assistant" and turn.text.strip() else end
    return dialogue[:end] if end else None
