"""One reply to one message or to a dialogue from elsewhere: what `gcrs recommend` asks of the program.

Knows nothing of sessions that go on, of files or of how a reply is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gcrs.programs.recommender import Choice, Recommender
from gcrs.programs.reply import Reply
from gcrs.programs.rules import Rules
from gcrs.programs.session import ChatSession
from gcrs.toolkit.catalog.allow_list import AllowList
from gcrs.toolkit.dialogue.linker import Linker
from gcrs.toolkit.dialogue.turns import Dialogue
from gcrs.toolkit.errors import DataError, DeadEnd
from gcrs.toolkit.model.engine import Sampling


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


def reply_to_dialogue(
    recommender: Recommender, linker: Linker, dialogue: Dialogue, request: Request
) -> tuple[Reply, tuple[str, ...]]:
    """The assistant's next turn in a dialogue, and the ids in it that the catalogue does not have.

    Items stand in it as `<item:ID>`; titles in its words are linked as well, and what the catalogue does not have is
    read as the word "it". Items mentioned, recommended or disliked in it are not recommended again. Raises DataError
    for a dialogue without turns, UsageError for rules, UnknownItem for exclusions, DeadEnd when nothing is left.
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

    linked: list[str] = []
    turns = []
    for turn in dialogue.map_items(rename).turns:
        turns.append(replace(turn, text=linker.link(turn.text, linked, keep_spans=True).text))
        linked.extend(turns[-1].mentions)
    banned = {item for turn in turns for item in (*turn.mentions, *turn.decided_targets, *turn.feedback)}
    edition = recommender.parts.edition
    admitted = Rules(request.where, request.exclude, request.allow, request.or_unknown).offered(edition)
    allowed = admitted & edition.columns.allowed(exclude=banned)[edition.rows]
    if request.intent == "recommend" and not allowed.any():
        raise DeadEnd(
            "Nothing is left to recommend: the dialogue names all that the rules admit.", hint="Relax a rule."
        )
    reply = recommender.reply(
        Dialogue(dialogue.id, tuple(turns)),
        intent=request.intent,
        k=request.k,
        allowed=allowed,
        admitted=admitted,
        sampling=Sampling(seed=request.seed),
        rules=request.where,
    )
    return reply, tuple(outside)
