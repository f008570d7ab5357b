"""One reply to one message or to a dialogue from elsewhere: what `gcrs recommend` asks of the program.

Knows nothing of sessions that go on, of files or of how a reply is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gcrs.programs.recommender import Choice, Recommender
from gcrs.programs.reply import Reply
from gcrs.programs.rules import Rules
from gcrs.programs.session import ChatSession
from gcrs.toolkit.catalog.allow_list import AllowList
from gcrs.toolkit.dialogue.linker import Linker
from gcrs.toolkit.dialogue.turns import Dialogue
from gcrs.toolkit.errors import DataError, DeadEnd
from gcrs.toolkit.model.engine import Sampling

if TYPE_CHECKING:
    import numpy as np

    from gcrs.toolkit.dialogue.linked import Linked


@dataclass(frozen=True)
class Request:
    """What is asked for besides the words: rules and exclusions as in a chat, `k` items, an intent, a seed."""

    k: int = 10
    intent: Choice = "recommend"
    where: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    seed: int = 0
    allow: AllowList | None = None
    or_unknown: bool = False


def reply_to_text(recommender: Recommender, linker: Linker, bundle_hash: str, text: str, request: Request) -> Reply:
    """The reply to one message, as a chat's first. Raises what `ChatSession` and its `say` raise."""
    session = ChatSession(
        recommender,
        linker,
        bundle_hash=bundle_hash,
        where=request.where,
        exclude=request.exclude,
        allow=request.allow,
        or_unknown=request.or_unknown,
        seed=request.seed,
        k=request.k,
    )
    said = session.say(text, intent=request.intent)
    assert said is not None  # nobody stops it
    return said.reply


@dataclass(frozen=True)
class Asked:
    """A dialogue from elsewhere as the program takes it: its items linked, and what may be recommended next.

    `allowed` and `admitted` are bool [items in the codebook's order]: by rules and by what was said, and by the rules
    alone. `outside` are ids in the dialogue that the catalogue does not have, `linked` what was found in the person's
    words.
    """

    dialogue: Dialogue
    rules: Rules
    allowed: np.ndarray
    admitted: np.ndarray
    outside: tuple[str, ...]
    linked: tuple[Linked, ...] = ()


def ask(recommender: Recommender, linker: Linker, dialogue: Dialogue, rules: Rules) -> Asked:
    """Read a dialogue from elsewhere.

    Items stand in it as `<item:ID>`; titles in its words are linked as well, and what the catalogue does not have is
    read as the word "it". Items mentioned, recommended or disliked in it are not recommended again. Raises DataError
    for a dialogue without turns, UsageError for rules, UnknownItem for exclusions, DeadEnd when these leave nothing.
    """
    if not dialogue.turns:
        raise DataError("The dialogue has no turns.", hint="Give at least one turn of the user.")
    catalog = recommender.parts.catalog
    outside: dict[str, None] = {}

    def rename(item_id: str) -> str | None:
        if item_id in catalog:
            return catalog.canonical(item_id)
        outside[item_id] = None
        return None

    named: list[str] = []
    turns, found = [], []
    for turn in dialogue.map_items(rename).turns:
        linked = linker.link(turn.text, named, keep_spans=True)
        turns.append(replace(turn, text=linked.text))
        named.extend(turns[-1].mentions)
        if turn.role == "user":
            found.append(linked)
    banned = {item for turn in turns for item in (*turn.mentions, *turn.decided_targets, *turn.feedback)}
    edition = recommender.parts.edition
    admitted = rules.offered(edition)
    allowed = admitted & edition.columns.allowed(exclude=banned)[edition.rows]
    return Asked(Dialogue(dialogue.id, tuple(turns)), rules, allowed, admitted, tuple(outside), tuple(found))


def reply_to(recommender: Recommender, asked: Asked, intent: Choice, **options: Any) -> Reply:
    """The assistant's next turn; `options` are those of `Recommender.reply`. DeadEnd when nothing is left."""
    if intent == "recommend" and not asked.allowed.any():
        raise DeadEnd(
            "Nothing is left to recommend: the dialogue names all that the rules admit.", hint="Relax a rule."
        )
    return recommender.reply(
        asked.dialogue,
        intent=intent,
        allowed=asked.allowed,
        admitted=asked.admitted,
        rules=asked.rules.where,
        **options,
    )


def reply_to_dialogue(
    recommender: Recommender, linker: Linker, dialogue: Dialogue, request: Request
) -> tuple[Reply, tuple[str, ...]]:
    """The assistant's next turn in a dialogue, and the ids in it that the catalogue does not have.

    Raises what `ask` and `reply_to` raise.
    """
    rules = Rules(request.where, request.exclude, request.allow, request.or_unknown)
    asked = ask(recommender, linker, dialogue, rules)
    reply = reply_to(recommender, asked, request.intent, k=request.k, sampling=Sampling(seed=request.seed))
    return reply, asked.outside
