"""A chat session on disk: one JSON object, versioned, tied to the bundle that it was held with.

Knows nothing of models; what it reads it checks, because the file may be anyone's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrs.toolkit.dialogue.turns import Dialogue, Feedback, Intent, Turn, parse_dialogue, to_json
from gcrs.toolkit.errors import DataError
from gcrs.toolkit.files import atomic_write, read_json

if TYPE_CHECKING:
    from gcrs.programs.recommender import Choice
    from gcrs.programs.reply import Reply
    from gcrs.toolkit.catalog.item import Catalog

VERSION = 1


@dataclass(frozen=True)
class Decision:
    """What a reply rests on, kept so that it can be explained later; scores are log-probabilities.

    `asked` is the intent that was asked for, `given` the targets that were, `allowed` how many items could have been
    recommended, `again` the items whose ban the message lifted.
    """

    intent: Intent
    probabilities: Mapping[str, float]
    asked: Choice
    forced: bool
    given: tuple[str, ...]
    ranking: tuple[tuple[str, float], ...]
    allowed: int
    again: tuple[str, ...]
    leaks: int
    dropped: str

    @classmethod
    def of(cls, reply: Reply, allowed: int, again: tuple[str, ...], asked: Choice, given: tuple[str, ...]) -> Decision:
        """The decision behind a reply."""
        ranking = tuple((one.item_id, one.score) for one in reply.ranking)
        probabilities = {str(one): value for one, value in reply.intent.probabilities.items()}
        return cls(reply.intent.intent, probabilities, asked, reply.forced, given, ranking, allowed, again, reply.leaks,
                   reply.dropped)  # fmt: skip


@dataclass(frozen=True)
class Exchange:
    """My words as typed, what was linked in them (surface, item), the two turns, and the decision between them."""

    words: str
    links: tuple[tuple[str, str], ...]
    user: Turn
    assistant: Turn
    decision: Decision


@dataclass(frozen=True)
class Mark:
    """What I said of an item by command."""

    item: str
    value: Feedback


Step = Exchange | Mark


@dataclass(frozen=True)
class Saved:
    """The contents of a session file."""

    bundle: str
    seed: int
    where: tuple[str, ...]
    exclude: tuple[str, ...]
    steps: tuple[Step, ...]
    blocked: frozenset[tuple[str, str]]
    allow: Path | None = None
    or_unknown: bool = False


def write_session(saved: Saved, path: Path) -> None:
    """Write the file, whole or not at all; GcrsError when the disk refuses."""
    steps: list[dict[str, Any]] = []
    for step in saved.steps:
        if isinstance(step, Mark):
            steps.append({"mark": step.value, "item": step.item})
        else:
            turns = to_json(Dialogue("", (step.user, step.assistant)))["turns"]
            steps.append({"words": step.words, "links": step.links, "turns": turns, "decision": asdict(step.decision)})
    raw = {
        "version": VERSION,
        "bundle": saved.bundle,
        "seed": saved.seed,
        "where": saved.where,
        "exclude": saved.exclude,
        "allow": None if saved.allow is None else str(saved.allow),
        "or_unknown": saved.or_unknown,
        "blocked": sorted(saved.blocked),
        "steps": steps,
    }
    with atomic_write(Path(path)) as handle:
        json.dump(raw, handle, ensure_ascii=False, indent=1)
        handle.write("\n")


def read_session(path: Path, bundle: str, catalog: Catalog) -> Saved:
    """Read and check a session file. DataError says what was found and what was expected."""
    raw = read_json(Path(path))
    if not isinstance(raw, dict) or "version" not in raw:
        raise DataError(f"{path} is no gcrs session.", hint="Sessions are written by /save or by chat --session.")
    if raw["version"] != VERSION:
        raise DataError(f"{path} is a session of version {raw['version']!r}, expected {VERSION}.", hint="Update gcrs.")
    if raw.get("bundle") != bundle:
        raise DataError(
            f"{path} was held with the bundle {str(raw.get('bundle'))[:12]}, this one is {bundle[:12]}.",
            hint="Pass that bundle with --bundle, or start a new session file.",
        )
    try:
        steps = tuple(_step(step, f"{path}, step {n}") for n, step in enumerate(raw["steps"], 1))
        where, exclude = _texts(raw["where"]), _texts(raw["exclude"])
        blocked = frozenset((str(surface), str(item)) for surface, item in raw["blocked"])
        seed = int(raw["seed"])
        allow = None if raw.get("allow") is None else Path(raw["allow"])
        or_unknown = bool(raw.get("or_unknown", False))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is a broken session: {type(error).__name__} at {error}.") from error
    for item in _items(steps):
        if item not in catalog:
            raise DataError(f"{path} speaks of the item {item!r}, which is not in this catalogue.")
    return Saved(bundle, seed, where, exclude, steps, blocked, allow, or_unknown)


def _step(raw: dict[str, Any], where: str) -> Step:
    if "mark" in raw:
        if raw["mark"] not in ("liked", "disliked", "seen"):
            raise DataError(f"{where}: the mark is {raw['mark']!r}, expected liked, disliked or seen.")
        return Mark(str(raw["item"]), raw["mark"])
    turns = parse_dialogue({"turns": raw["turns"]}, where).turns
    if [turn.role for turn in turns] != ["user", "assistant"]:
        raise DataError(f"{where}: expected one user turn and one assistant turn.")
    links = tuple((str(surface), str(item)) for surface, item in raw["links"])
    told = raw["decision"]
    if told["intent"] not in ("recommend", "chat") or told["asked"] not in ("free", "recommend", "chat"):
        raise DataError(f"{where}: the intent is {told['intent']!r}, expected recommend or chat.")
    decision = Decision(
        intent=told["intent"],
        probabilities={str(key): float(value) for key, value in told["probabilities"].items()},
        asked=told["asked"],
        forced=bool(told["forced"]),
        given=_texts(told["given"]),
        ranking=tuple((str(item), float(score)) for item, score in told["ranking"]),
        allowed=int(told["allowed"]),
        again=_texts(told["again"]),
        leaks=int(told["leaks"]),
        dropped=str(told["dropped"]),
    )
    return Exchange(str(raw["words"]), links, turns[0], turns[1], decision)


def _texts(raw: Any) -> tuple[str, ...]:
    if not isinstance(raw, list):
        raise TypeError(f"{raw!r} is no list")
    return tuple(str(value) for value in raw)


def _items(steps: tuple[Step, ...]) -> set[str]:
    found: set[str] = set()
    for step in steps:
        if isinstance(step, Mark):
            found.add(step.item)
        else:
            found.update(
                item for turn in (step.user, step.assistant) for item in (*turn.mentions, *turn.decided_targets)
            )
            found.update(item for item, _ in step.decision.ranking)
    return found
