"""The context budget: which part of a long dialogue the model still sees, and a sentence that says what it does not.

The newest turns stay as they are. What fell out survives as one summary turn of the items that were spoken of, likes
and rules. Turns leave in steps of a quarter of the budget, not one by one, so that most turns of a long chat still
extend the last prompt. Knows nothing of models or sessions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gcrs.toolkit.dialogue.encode import encode
from gcrs.toolkit.dialogue.turns import Dialogue, Feedback, Turn
from gcrs.toolkit.ids.codebook import Codebook
from gcrs.toolkit.model.tokens import TokenSpace

Segment = tuple[Literal["text", "item"], str]

BUDGET = 1024  # tokens of a prompt: in a chat, in validation and in evaluation
GAP = " … "
SLACK = 16  # tokens: what cutting and re-encoding text may add
_SAID: dict[Feedback, str] = {"liked": "I liked", "disliked": "I did not like", "seen": "I have seen"}


@dataclass(frozen=True)
class Fitted:
    """A dialogue that fits, and what was left out of it in words ("" when nothing was)."""

    dialogue: Dialogue
    dropped: str


def fit(dialogue: Dialogue, tokens: TokenSpace, book: Codebook, limit: int, *, rules: Sequence[str] = ()) -> Fitted:
    """The dialogue as it is when its prompt has at most `limit` tokens, else its newest turns behind a summary.

    A quarter of the budget is kept for the summary; a newest turn that alone is too long keeps its beginning and its
    end. `rules` are the filters in force, as the person wrote them.
    """
    head = len(tokens.header("assistant"))
    ends = encode(dialogue, tokens, book).turn_ends
    if not ends or ends[-1] + head <= limit:
        return Fitted(dialogue, "")
    quarter = limit // 4
    room = limit - quarter - head
    steps = -(-(ends[-1] - room) // quarter)
    begins = (0, *ends[:-1])
    start = next((n for n, begin in enumerate(begins) if begin >= steps * quarter), len(ends) - 1)
    kept = list(dialogue.turns[start:])
    said = []
    if start:
        said.append(f"{start} older {'turn' if start == 1 else 'turns'} left the context")
    gone = [item for turn in dialogue.turns[:start] for item in (*turn.mentions, *turn.decided_targets)]
    length = ends[-1] - begins[start]
    if length > room:
        whole, kept = kept[0], [_cut(kept[0], tokens, book, room)]
        gone += [item for item in whole.mentions if item not in kept[0].mentions]
        said.append(f"the last message was cut from {length} to about {room} tokens")
    summary, count = _summary(dialogue.turns[:start], gone, rules, tokens, book, quarter)
    if count:
        said.append(f"{count} of the items that were spoken of stay in a summary")
    turns = ((summary,) if summary else ()) + tuple(kept)
    return Fitted(Dialogue(dialogue.id, turns), f"{'; '.join(said)} (budget: {limit} tokens).")


def _summary(
    lost: Sequence[Turn], gone: Iterable[str], rules: Sequence[str], tokens: TokenSpace, book: Codebook, room: int
) -> tuple[Turn | None, int]:
    """One user turn of at most `room` tokens about what is gone, newest items first to stay; and how many stayed."""
    feedback: dict[str, Feedback] = {}
    for turn in lost:
        feedback.update(turn.feedback)
    newest = list(dict.fromkeys(reversed(list(gone))))
    for count in range(min(len(newest), room // (book.levels + 3)), -1, -1):
        items = list(reversed(newest[:count]))
        text = _words(items, feedback, rules)
        if not text:
            return None, 0
        turn = Turn("user", text)
        if encode(Dialogue("", (turn,)), tokens, book).turn_ends[-1] <= room:
            return turn, count
    return None, 0


def _words(items: Sequence[str], feedback: dict[str, Feedback], rules: Sequence[str]) -> str:
    def spans(chosen: list[str]) -> str:
        return ", ".join(f"<item:{item}>" for item in chosen)

    out = []
    if plain := [item for item in items if item not in feedback]:
        out.append(f"Earlier we talked about {spans(plain)}.")
    for value, words in _SAID.items():
        if chosen := [item for item in items if feedback.get(item) == value]:
            out.append(f"{words} {spans(chosen)}.")
    if rules:
        out.append(f"I only want: {', '.join(rules)}.")
    return " ".join(out)


def _cut(turn: Turn, tokens: TokenSpace, book: Codebook, room: int) -> Turn:
    """The turn's beginning and end, together about `room` tokens; its targets stay."""
    frame = replace(turn, text="")
    room -= encode(Dialogue("", (frame,)), tokens, book).turn_ends[-1] + SLACK
    segments = turn.segments()
    first = _take(segments, tokens, book, room // 3, False)
    last = _take(segments, tokens, book, room - room // 3, True)
    return replace(turn, text=f"{first}{GAP}{last}")


def _take(segments: Sequence[Segment], tokens: TokenSpace, book: Codebook, room: int, from_end: bool) -> str:
    out: list[str] = []
    for what, value in reversed(segments) if from_end else segments:
        if what == "item":
            room -= book.levels + 2
            if room < 0:
                break
            out.append(f"<item:{value}>")
            continue
        ids = tokens.encode_text(value)
        if len(ids) <= room:
            room -= len(ids)
            out.append(value)
            continue
        ids = (ids[-room:] if from_end else ids[:room]) if room > 0 else []
        out.append(tokens.decode_text(ids).strip("�"))  # a character cut in two
        break
    return "".join(reversed(out) if from_end else out)
