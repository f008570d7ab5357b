"""Turn, Dialogue and their JSON Lines format.

Item mentions stand in a turn's text as `<item:ID>`. Knows nothing of tokens or of semantic IDs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gcrs.toolkit.errors import DataError, UsageError
from gcrs.toolkit.files import atomic_write

Role = Literal["user", "assistant"]
Intent = Literal["recommend", "chat"]
Feedback = Literal["liked", "disliked", "seen"]

MENTION = re.compile(r"<item:([^<>\s]+)>")


@dataclass(frozen=True)
class Turn:
    """What one side said, with item mentions as `<item:ID>` spans.

    `intent` and `targets` are the stated decisions of an assistant turn, None where the data does not state them;
    `feedback` is what the person said of items.
    """

    role: Role
    text: str
    intent: Intent | None = None
    targets: tuple[str, ...] | None = None
    feedback: dict[str, Feedback] = field(default_factory=dict)

    @property
    def mentions(self) -> tuple[str, ...]:
        """Ids of the items mentioned, in order, each once."""
        return tuple(dict.fromkeys(MENTION.findall(self.text)))

    def segments(self) -> list[tuple[Literal["text", "item"], str]]:
        """The text cut at its mentions: ("text", words) and ("item", id) in order, empty texts left out."""
        out: list[tuple[Literal["text", "item"], str]] = []
        last = 0
        for match in MENTION.finditer(self.text):
            if match.start() > last:
                out.append(("text", self.text[last : match.start()]))
            out.append(("item", match.group(1)))
            last = match.end()
        if last < len(self.text):
            out.append(("text", self.text[last:]))
        return out

    @property
    def decided_intent(self) -> Intent:
        """The stated intent, else recommend exactly when there are targets."""
        return self.intent or ("recommend" if self.decided_targets else "chat")

    @property
    def decided_targets(self) -> tuple[str, ...]:
        """The stated targets, else the items that the turn mentions; none for a stated chat."""
        if self.targets is not None:
            return self.targets
        return () if self.intent == "chat" else self.mentions


@dataclass(frozen=True)
class Dialogue:
    """Turns in order. `dialogue[:n]` is the dialogue of the first n turns."""

    id: str
    turns: tuple[Turn, ...]

    def __len__(self) -> int:
        return len(self.turns)

    def __getitem__(self, key: slice) -> Dialogue:
        return Dialogue(self.id, self.turns[key])

    def map_items(self, rename: Callable[[str], str | None]) -> Dialogue:
        """The same dialogue with every item id renamed; an id renamed to None becomes plain text `it`."""

        def one(turn: Turn) -> Turn:
            def sub(match: re.Match[str]) -> str:
                new = rename(match.group(1))
                return "it" if new is None else f"<item:{new}>"

            targets = turn.targets
            if targets is not None:
                targets = tuple(dict.fromkeys(new for t in targets if (new := rename(t)) is not None))
            feedback = {new: value for old, value in turn.feedback.items() if (new := rename(old)) is not None}
            return Turn(turn.role, MENTION.sub(sub, turn.text), turn.intent, targets, feedback)

        return Dialogue(self.id, tuple(one(turn) for turn in self.turns))


def _parse_turn(raw: Any, where: str) -> Turn:
    if not isinstance(raw, dict):
        raise DataError(f"{where}: a turn is {type(raw).__name__}, expected an object with role and text.")
    if raw.get("role") not in ("user", "assistant"):
        raise DataError(f"{where}: role is {raw.get('role')!r}, expected 'user' or 'assistant'.")
    if not isinstance(raw.get("text"), str):
        hint = "Its words belong under 'text', not 'content'." if "content" in raw else None
        raise DataError(f"{where}: text is {type(raw.get('text')).__name__}, expected a string.", hint=hint)
    if (intent := raw.get("intent")) not in (None, "recommend", "chat"):
        raise DataError(f"{where}: intent is {intent!r}, expected 'recommend' or 'chat'.")
    targets = raw.get("targets")
    if targets is not None and not (isinstance(targets, list) and all(isinstance(t, str) for t in targets)):
        raise DataError(f"{where}: targets is {targets!r}, expected a list of item ids.")
    feedback = raw.get("feedback") or {}
    if not isinstance(feedback, dict) or any(v not in ("liked", "disliked", "seen") for v in feedback.values()):
        raise DataError(f"{where}: feedback is {feedback!r}, expected item ids mapped to liked, disliked or seen.")
    return Turn(raw["role"], raw["text"], intent, None if targets is None else tuple(targets), dict(feedback))


def check_message(text: str) -> None:
    """UsageError for a message without a word."""
    if not text.strip():
        raise UsageError("There is no message.", hint="Say what you like, or what you are looking for.")


def parse_dialogue(raw: Any, where: str) -> Dialogue:
    """A dialogue from parsed JSON. DataError says where and what was expected."""
    if not isinstance(raw, dict) or not isinstance(raw.get("turns"), list):
        raise DataError(f'{where}: expected an object {{"id": …, "turns": […]}}.')
    turns = tuple(_parse_turn(turn, f"{where}, turn {n}") for n, turn in enumerate(raw["turns"], 1))
    return Dialogue(str(raw.get("id", "")), turns)


def parse_line(line: str, where: str) -> Dialogue:
    """A dialogue from a line of JSON Lines. DataError says where and what was expected."""
    try:
        raw = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: not valid JSON ({error.msg}, column {error.colno}).",
            hint="Each line must be one whole dialogue; a cut last line means a truncated file.",
        ) from error
    except RecursionError as error:
        raise DataError(f"{where}: not valid JSON (nested too deep).") from error
    return parse_dialogue(raw, where)


def to_json(dialogue: Dialogue) -> dict[str, Any]:
    """The JSON object of a dialogue, optional fields left out when empty."""
    turns = []
    for turn in dialogue.turns:
        raw: dict[str, Any] = {"role": turn.role, "text": turn.text}
        if turn.intent is not None:
            raw["intent"] = turn.intent
        if turn.targets is not None:
            raw["targets"] = list(turn.targets)
        if turn.feedback:
            raw["feedback"] = turn.feedback
        turns.append(raw)
    return {"id": dialogue.id, "turns": turns}


def read_dialogues(path: Path) -> Iterator[Dialogue]:
    """Dialogues of a JSON Lines file, one by one. DataError names file, line, what was found and expected."""
    path = Path(path)
    count = 0
    try:
        with open(path, encoding="utf-8") as handle:
            for number, line in enumerate(handle, 1):
                if not line.strip():
                    continue
                dialogue = parse_line(line, f"{path}, line {number}")
                count += 1
                yield dialogue
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist.", hint="Write it with: gcrs data prepare redial PATH --out FILE"
        ) from None
    except IsADirectoryError:
        raise DataError(f"{path} is a directory, expected a JSON Lines file of dialogues.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: byte {error.object[error.start]:#04x} near line {count + 1}.") from error
    if count == 0:
        raise DataError(f"{path} has no dialogues.", hint="Expected one JSON object a line.")


def write_dialogues(dialogues: Iterable[Dialogue], path: Path) -> int:
    """Write JSON Lines, staged and renamed. Returns how many dialogues were written."""
    count = 0
    with atomic_write(Path(path)) as handle:
        for dialogue in dialogues:
            handle.write(json.dumps(to_json(dialogue), ensure_ascii=False) + "\n")
            count += 1
    return count
