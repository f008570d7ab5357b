"""LeakGuard: holds a reply back until no title in it is one that the reply may not name.

Titles are rendered from item spans; a title that the model spells out in words is legal only when its item is a target
or already part of the dialogue. Text is released sentence by sentence, so that an unlicensed title is never shown, not
even for a moment. Knows nothing of models, prompts or how a reply is shown.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from gcrs.toolkit.dialogue.linker import Linker
from gcrs.toolkit.dialogue.turns import Dialogue, Intent

if TYPE_CHECKING:
    import numpy as np

    from gcrs.toolkit.model.engine import Piece

_ENDS = re.compile(r"""[.!?…。！？]+["'”’)\]]*\s*$""")
_MORE = "\nand this is what the next sentence of it could be like"  # words that name nothing
_ABBREVIATION = re.compile(r"\b(?:mr|mrs|ms|dr|st|vs|jr|sr|vol|pt|no|[a-z])\.$", re.IGNORECASE)


def ends_sentence(text: str) -> bool:
    """Whether a sentence ends at the end of `text` (initials and the likes of "Mr." do not end one)."""
    return text.endswith("\n") or bool(_ENDS.search(text) and not _ABBREVIATION.search(text.rstrip()))


def licensed_items(
    dialogue: Dialogue, intent: Intent, targets: Sequence[str], admitted: np.ndarray | None, book: Iterable[str]
) -> list[str]:
    """The items that a reply may name: its targets, and those of the dialogue that the rules admit.

    `admitted` is bool [items] in the order of `book`; None admits all. What the rules bar may still be spoken of where
    nothing is recommended: a reply that chats may name such an item when the person did. A reply that recommends names
    it neither as an item nor by its title.
    """
    mentioned = [item for turn in dialogue.turns for item in (*turn.mentions, *turn.decided_targets)]
    if admitted is not None and not admitted.all():
        wanted = set(mentioned)
        kept = {item for item, ok in zip(book, admitted, strict=True) if ok and item in wanted}
        if intent == "chat":
            kept |= {item for turn in dialogue.turns if turn.role == "user" for item in turn.mentions}
        mentioned = [item for item in mentioned if item in kept]
    return list(dict.fromkeys([*targets, *mentioned]))


class LeakGuard:
    """Feed it a reply's pieces in order; it gives back those that may be shown.

    `licensed` are the items that may be named, `shown` what was released of this same reply before (a second attempt).
    With `drop` a sentence that leaks is left out and the reply goes on; without, everything from it on is withheld and
    `stopped` is True. `leaks` counts the titles withheld. Without a linker everything passes.
    """

    def __init__(self, linker: Linker | None, licensed: Collection[str], *, drop: bool, shown: str = "") -> None:
        self.linker = linker
        self.licensed = tuple(licensed)
        self.drop = drop
        self.text = shown
        self.ids: list[int] = []
        self.leaks = 0
        self.stopped = False
        self._pending: list[Piece] = []
        self._tail = ""

    def feed(self, piece: Piece) -> list[Piece]:
        """Take one piece; return the pieces that are now safe, oldest first."""
        if self.stopped:
            return []
        released: list[Piece] = []
        if piece.kind == "text" and piece.text[:1].isspace() and ends_sentence(self._tail):
            released = self._judge()
        if self.stopped:
            return released
        self._pending.append(piece)
        self._tail += piece.text
        if piece.kind == "text" and piece.text[-1:].isspace() and ends_sentence(self._tail):
            released += self._judge()
        return released

    def finish(self) -> list[Piece]:
        """The reply has ended: what is left and safe."""
        return [] if self.stopped else self._judge()

    def _judge(self) -> list[Piece]:
        pending, tail = self._pending, self._tail
        self._pending, self._tail = [], ""
        if found := self._unlicensed(tail):
            self.leaks += found
            self.stopped = not self.drop
            return []
        self.text += tail
        self.ids += [i for piece in pending for i in piece.token_ids]
        return pending

    def _unlicensed(self, tail: str) -> int:
        """Titles that `tail` brings in and that name no licensed item.

        What was released so far is the linker's context and held none. A title in it may read as one only now that
        more text stands behind it (a line that was all capitals, say): then it is the tail that may not come. For the
        same reason the tail is read with more text behind it, too, before it is shown.
        """
        if self.linker is None or not tail.strip():
            return 0
        return max(self._count(self.linker, self.text + tail + more) for more in ("", _MORE))

    def _count(self, linker: Linker, text: str) -> int:
        linked = linker.link(text, self.licensed, keep_spans=True)
        found = sum(link.item not in self.licensed for link in linked.links)
        return found + sum(not set(name.candidates) & set(self.licensed) for name in linked.ambiguous)
