"""ReDial's official files (Li et al., NeurIPS 2018) as gcrs dialogues, with a count of what was read, merged, dropped.

The seeker (initiator) becomes the user, the recommender (respondent) the assistant; messages that one side sends in a
row become one turn, joined by a newline. Knows nothing of films beyond the ids and titles that the files hold.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gcrs.catalogs.archive import Member, choose_split, open_members
from gcrs.toolkit.catalog.item import Catalog, Item
from gcrs.toolkit.dialogue.normalise import clean_title, neutralise, split_year
from gcrs.toolkit.dialogue.turns import Dialogue, Feedback, Role, Turn
from gcrs.toolkit.errors import DataError

MENTION_MARK = re.compile(r"@(\d+)")
JOIN = "\n"

Report = dict[str, int | str]


def read_redial(path: Path, split: str | None = None) -> Iterator[dict[str, Any]]:
    """The raw dialogues of the official zip, a directory, or one .jsonl or .jsonl.gz, checked for shape only."""
    members = open_members(Path(path), (".jsonl",))
    for member in choose_split(members, split)[0]:
        for where, raw in member.json_lines():
            _check(raw, where)
            yield raw


def _check(raw: Any, where: str) -> None:
    if not isinstance(raw, dict) or not isinstance(raw.get("messages"), list):
        raise DataError(f"{where}: expected a ReDial dialogue, an object with a list of messages.")
    for key in ("initiatorWorkerId", "conversationId"):
        if key not in raw:
            raise DataError(f"{where}: the dialogue has no {key}, expected the official ReDial format.")
    for message in raw["messages"]:
        if not isinstance(message, dict) or "text" not in message or "senderWorkerId" not in message:
            raise DataError(f"{where}: a message has no text or no senderWorkerId.")


def read_titles(path: Path) -> dict[str, tuple[str, int]]:
    """id -> (title, number of mentions) from movies_with_mentions.csv inside `path` or beside it; {} without one."""
    path = Path(path)
    try:
        members = open_members(path, (".csv",))
    except DataError:
        try:
            members = open_members(path.parent, (".csv",)) if path.is_file() else []
        except DataError:
            members = []
    titles: dict[str, tuple[str, int]] = {}
    for member in members:
        if member.stem == "movies_with_mentions":
            titles.update(_title_rows(member))
    return titles


def _title_rows(member: Member) -> Iterator[tuple[str, tuple[str, int]]]:
    for row in csv.reader(member.lines()):
        if len(row) >= 2 and row[0].strip().isdigit():
            count = row[2].strip() if len(row) > 2 else ""
            yield row[0].strip(), (clean_title(row[1]), int(count) if count.isdigit() else 0)


def redial_items(path: Path, split: str | None = None) -> list[Item]:
    """Every film that the dialogues mention and whose title is known, as an uncurated catalogue, in order of id."""
    titles = {item: title for item, (title, _) in read_titles(path).items()}
    found: dict[str, str] = {}
    for raw in read_redial(path, split):
        known = {**titles, **_mapping_titles(raw)}
        for message in raw["messages"]:
            found.update((m, known[m]) for m in MENTION_MARK.findall(str(message["text"] or "")) if m in known)
    items = []
    for item_id, title in sorted(found.items(), key=lambda pair: int(pair[0])):
        name, year = split_year(title)
        items.append(Item(item_id, name, {} if year is None else {"year": year}))
    return items


def _mapping_titles(raw: Mapping[str, Any]) -> dict[str, str]:
    mapping = raw.get("movieMentions")
    if not isinstance(mapping, dict):  # `[]` in some dialogues
        return {}
    return {str(k): title for k, v in mapping.items() if isinstance(v, str) and (title := clean_title(v))}


def prepare_redial(
    path: Path, catalog: Catalog | None, split: str | None = None, *, keep_unknown: bool = False
) -> tuple[list[Dialogue], Report]:
    """Dialogues of ReDial's files and a report of what was read, merged and dropped, and why.

    With a catalogue, ids become its canonical ids and a film that it lacks becomes plain text (its title), or stays an
    item with `keep_unknown`; without one, every id with a known title stays. An id with no title anywhere stays as it
    was typed (`@12345`). Feedback stands on the turn that first mentions the film: the seeker's own answer, and the
    recommender's where the seeker gave none. Of several splits, `train` is read unless `split` names
    another (`all` for every one). DataError: a path, archive or line that cannot be read.
    """
    members = open_members(Path(path), (".jsonl",))
    _, left_out = choose_split(members, split)
    titles = {item: title for item, (title, _) in read_titles(path).items()}
    counts: Counter[str] = Counter()
    dialogues = []
    for raw in read_redial(path, split):
        counts["dialogues read"] += 1
        dialogue = _dialogue(raw, titles, catalog, counts, keep_unknown)
        if dialogue.turns:
            dialogues.append(dialogue)
        else:
            counts["dialogues dropped: no message with text"] += 1
    if not counts["dialogues read"]:
        raise DataError(f"{path} has no dialogues.", hint="Expected one JSON object a line.")
    counts["dialogues written"] = len(dialogues)
    counts["turns written"] = sum(len(d) for d in dialogues)
    report: Report = {key: counts[key] for key in sorted(counts)}
    if left_out:
        report["splits left out"] = ", ".join(left_out)
    return dialogues, report


def _dialogue(
    raw: dict[str, Any], titles: Mapping[str, str], catalog: Catalog | None, counts: Counter[str], keep_unknown: bool
) -> Dialogue:
    known = {**titles, **_mapping_titles(raw)}
    turns: list[tuple[Role, str]] = []
    for message in raw["messages"]:
        counts["messages read"] += 1
        text = message["text"] if isinstance(message["text"], str) else ""
        if not text.strip():
            counts["messages dropped: empty"] += 1
            continue
        role = _role(message["senderWorkerId"], raw, counts)
        marked = _mark(text.strip(), known, catalog, counts, keep_unknown)
        if turns and turns[-1][0] == role:
            counts["messages merged into the turn before"] += 1
            turns[-1] = (role, turns[-1][1] + JOIN + marked)
        else:
            turns.append((role, marked))
    if turns:
        counts[f"dialogues whose first speaker is the {'seeker' if turns[0][0] == 'user' else 'recommender'}"] += 1
    plain = [Turn(role, text) for role, text in turns]
    return Dialogue(str(raw["conversationId"]), _with_feedback(plain, _feedback(raw, catalog, counts), counts))


def _role(sender: Any, raw: Mapping[str, Any], counts: Counter[str]) -> Role:
    if sender == raw["initiatorWorkerId"]:
        return "user"
    if sender != raw.get("respondentWorkerId"):
        counts["messages of a third sender, taken as the recommender's"] += 1
    return "assistant"


def _mark(
    text: str, known: Mapping[str, str], catalog: Catalog | None, counts: Counter[str], keep_unknown: bool
) -> str:
    """`@123` as `<item:123>`, or as plain text. Text between two mentions is neutralised as one piece."""
    out, plain, last = [], "", 0
    for match in MENTION_MARK.finditer(text):
        plain += text[last : match.start()]
        last = match.end()
        item = match.group(1)
        canonical = _canonical(item, known, catalog)
        if canonical is not None:
            counts["mentions linked"] += 1
            if canonical != item:
                counts["mentions linked through an alias"] += 1
        elif item in known and keep_unknown:
            counts["mentions kept as items: film not in the catalogue"] += 1
            canonical = item
        if canonical is not None:
            out.append(neutralise(plain) + f"<item:{canonical}>")
            plain = ""
        elif item in known:
            counts["mentions made plain text: film not in the catalogue"] += 1
            plain += split_year(known[item])[0]
        else:
            counts["mentions made plain text: id has no title"] += 1
            plain += match.group()
    return "".join(out) + neutralise(plain + text[last:])


def _canonical(item: str, known: Mapping[str, str], catalog: Catalog | None) -> str | None:
    if catalog is None:
        return item if item in known else None
    return catalog.canonical(item) if item in catalog else None


def _answer(entry: Any) -> Feedback | None:
    """What a questionnaire entry says; None for "did not say" and not seen."""
    if not isinstance(entry, dict):
        return None
    liked, seen = str(entry.get("liked")), str(entry.get("seen"))
    if liked in ("0", "1"):
        return "liked" if liked == "1" else "disliked"
    return "seen" if seen == "1" else None


def _form(raw: Any) -> dict[str, Any]:
    return {str(k): v for k, v in raw.items()} if isinstance(raw, dict) else {}  # `[]` in some dialogues


def _feedback(raw: Mapping[str, Any], catalog: Catalog | None, counts: Counter[str]) -> dict[str, Feedback]:
    """Canonical id -> feedback. An entry of the seeker stands even where it says nothing: it is the person's own."""
    own, other = _form(raw.get("initiatorQuestions")), _form(raw.get("respondentQuestions"))
    counts["questionnaires of the seeker missing"] += not own
    counts["questionnaires of the recommender missing"] += not other
    feedback: dict[str, Feedback] = {}
    for item in dict.fromkeys([*own, *other]):
        if item in own and item in other:
            counts["questionnaire entries in both"] += 1
            counts["questionnaire entries in both that disagree: the seeker's taken"] += own[item] != other[item]
        value = _answer(own.get(item, other.get(item)))
        canonical = item if catalog is None else catalog.canonical(item) if item in catalog else None
        if value is not None and canonical is not None:
            feedback.setdefault(canonical, value)
    return feedback


def _with_feedback(turns: list[Turn], feedback: Mapping[str, Feedback], counts: Counter[str]) -> tuple[Turn, ...]:
    left = dict(feedback)
    out = []
    for turn in turns:
        here = {item: left.pop(item) for item in turn.mentions if item in left}
        counts["feedback entries kept"] += len(here)
        out.append(Turn(turn.role, turn.text, feedback=here))
    counts["feedback entries dropped: film not mentioned in the text"] += len(left)
    return tuple(out)
