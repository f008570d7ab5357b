"""A message said in a served session: what runs in the desk's thread, and the answer it comes to.

Knows nothing of HTTP or of the queue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gcrs.programs.render import Running, clean, shown_text
from gcrs.programs.serving import session_schema as schema
from gcrs.programs.serving.problems import Problem, of_error
from gcrs.toolkit.errors import DeadEnd, GcrsError, UsageError

if TYPE_CHECKING:
    from gcrs.programs.serving.desk import Job
    from gcrs.programs.serving.sessions import Held, Sessions
    from gcrs.programs.serving.tools import Toolbox
    from gcrs.programs.session import Said
    from gcrs.toolkit.model.engine import Piece


def say(toolbox: Toolbox, sessions: Sessions, held: Held, message: schema.Message, job: Job) -> schema.Answer:
    """Say it and keep what came of it.

    Streamed, what was shown until a stop stays in the conversation, as in a chat; otherwise a message that nobody got
    an answer to was never said.
    """
    chat, before = held.chat, held.chat.steps
    running = Running(lambda: chat.catalog)

    def on_piece(piece: Piece) -> None:
        if not job.abandoned and (text := running.add(piece)):
            job.say({"kind": piece.kind, "text": text, "item": piece.item_id})

    try:
        told = chat.say(
            message.text,
            intent=message.intent,
            on_piece=on_piece if message.stream else None,
            stop=job.stopped,
        )
    except GcrsError as error:
        raise _problem(error, message) from None
    if told is None or not job.settle(anyway=message.stream and bool(running.text)):
        chat.steps = before
        raise job.too_late
    sessions.save(held)
    return _answer(toolbox, held, told, message)


def _problem(error: GcrsError, message: schema.Message) -> Problem:
    if isinstance(error, DeadEnd):
        return Problem("nothing_allowed", error.message, remedy="Begin a session with fewer rules.")
    if isinstance(error, UsageError):
        return of_error(error, field="text", value=message.text)
    return of_error(error)


def _answer(toolbox: Toolbox, held: Held, told: Said, message: schema.Message) -> schema.Answer:
    reply, chat = told.reply, held.chat
    facts = toolbox.facts([one.item_id for one in reply.ranking])
    return schema.Answer(
        session=held.name,
        number=len(chat.exchanges),
        intent=reply.intent.intent,
        forced=reply.forced,
        probabilities=schema.Probabilities(**reply.intent.probabilities),
        reply=shown_text(reply.text, chat.catalog).strip(),
        recommended=[one.item_id for one in reply.targets],
        items=toolbox.ranked(chat.recommender, reply.ranking, facts),
        links=toolbox.links(told.links),
        unclear=toolbox.unclear(told.ambiguous),
        withheld=reply.leaks,
        dropped=reply.dropped,
        stopped=reply.stopped,
        nothing_left=reply.forced and reply.intent.intent == "chat" and message.intent != "chat",
        seconds={step: round(value, 4) for step, value in reply.seconds.items()},
    )


def state_of(held: Held) -> schema.State:
    """A session as it stands; what is being answered at the moment is not part of it yet."""
    chat = held.chat
    turns: list[Any] = []
    for exchange in chat.exchanges:
        turns.append(schema.Spoken(role="user", content=clean(exchange.words)))
        turns.append(schema.Spoken(role="assistant", content=shown_text(exchange.assistant.text, chat.catalog).strip()))
    return schema.State(
        session=held.name,
        began=held.began,
        where=list(chat.where),
        exclude=list(chat.exclude),
        seed=chat.seed,
        turns=turns,
        given=list(chat.given),
        feedback=chat.feedback,
        bundle=chat.bundle_hash,
        catalog_version=chat.recommender.parts.edition.version,
    )
