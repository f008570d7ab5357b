"""Skeletons: dialogues without items or domain, filled with items of any catalogue that go together.

The shipped ones are in `skeletons.txt` (its header names the slots). Knows nothing of tokens or of how items are found
to go together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gcrs.toolkit.dialogue.turns import Dialogue, Role, Turn
from gcrs.toolkit.errors import DataError

SLOT = re.compile(r"\{(\w+)\}")
ITEMS = ("a", "b", "d", "x", "y")
WORDS = ("want", "want2", "f", "f2", "one", "good", "kind")
SHIPPED = Path(__file__).with_name("skeletons.txt")


@dataclass(frozen=True)
class Skeleton:
    """Turns (role, words with slots) in order."""

    turns: tuple[tuple[Role, str], ...]

    @property
    def slots(self) -> frozenset[str]:
        """Names of the slots that must be filled."""
        return frozenset(name for _, words in self.turns for name in SLOT.findall(words))

    def fill(self, name: str, items: Mapping[str, str], words: Mapping[str, str]) -> Dialogue:
        """The dialogue with item ids and words in its slots; assistant turns with {x} or {y} recommend those."""

        def put(match: re.Match[str]) -> str:
            slot = match.group(1)
            return f"<item:{items[slot]}>" if slot in items else words[slot]

        turns = []
        given: set[str] = set()
        for role, said in self.turns:
            named = [slot for slot in SLOT.findall(said) if slot in ITEMS]
            text = SLOT.sub(put, said)
            text = text[:1].upper() + text[1:] if said[:1] == "{" and role == "assistant" else text
            if role == "user":
                turns.append(Turn("user", text))
            else:
                fresh = [slot for slot in dict.fromkeys(named) if slot in ("x", "y") and slot not in given]
                given.update(fresh)
                targets = tuple(items[slot] for slot in fresh)
                turns.append(Turn("assistant", text, "recommend" if targets else "chat", targets or None))
        return Dialogue(name, tuple(turns))


def read_skeletons(path: Path = SHIPPED) -> tuple[Skeleton, ...]:
    """Skeletons of a text file. DataError names the line with what was found and expected."""
    done: list[Skeleton] = []
    turns: list[tuple[Role, str]] = []
    for number, raw in enumerate([*Path(path).read_text(encoding="utf-8").splitlines(), ""], 1):
        line = raw.strip()
        if line.startswith("#"):
            continue
        if not line:
            if turns:
                done.append(Skeleton(tuple(turns)))
            turns = []
            continue
        role: Role | None = "user" if line.startswith("U: ") else "assistant" if line.startswith("A: ") else None
        if role is None:
            raise DataError(f"{path}, line {number}: {line[:40]!r}, expected a line that begins with 'U: ' or 'A: '.")
        if unknown := sorted(set(SLOT.findall(line)) - {*ITEMS, *WORDS}):
            raise DataError(f"{path}, line {number}: unknown slot {unknown[0]!r}, expected one of {ITEMS + WORDS}.")
        turns.append((role, line[3:]))
    if not done:
        raise DataError(f"{path} has no skeletons.", hint="Expected lines 'U: …' and 'A: …'.")
    return tuple(done)


@cache
def shipped_skeletons() -> tuple[Skeleton, ...]:
    """The skeletons that come with gcrs."""
    return read_skeletons()
