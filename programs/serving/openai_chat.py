"""An OpenAI-compatible face: `/v1/chat/completions`, streamed or not, and `/v1/models`.

A conversation comes in as messages, the reply goes out as one; what OpenAI's format has no place for stands beside it
under `gcrs`. What cannot be done is refused, not ignored. Knows nothing of sessions: the messages are the conversation.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gcrs.programs.render import Running
from gcrs.programs.serving import schema
from gcrs.programs.serving.problems import ErrorReply, Problem, of_error, of_pydantic
from gcrs.programs.serving.rest import errors
from gcrs.programs.serving.streams import event, streamed, while_there
from gcrs.toolkit.errors import GcrsError
from gcrs.toolkit.model.engine import Sampling

if TYPE_CHECKING:
    from gcrs.programs.serving.desk import Desk, Job
    from gcrs.programs.serving.metrics import Metrics
    from gcrs.programs.serving.tools import Toolbox
    from gcrs.toolkit.model.engine import Piece

MODEL = "gcrs"
MOST_TOKENS = 512


class TextPart(BaseModel):
    """A part of a message's content."""

    type: Literal["text"]
    text: schema.Text


class ChatMessage(BaseModel):
    """One message; system and developer messages are not read, and the answer says so."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant"]
    content: schema.Text | list[TextPart]

    @property
    def text(self) -> str:
        """The words."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class Options(schema.Arguments):
    """What the format has no place for."""

    k: int = Field(default=10, ge=1, le=schema.MOST_ITEMS)
    where: schema.Where = Field(default_factory=list, json_schema_extra={"default": []})
    exclude: schema.Exclude = Field(default_factory=list, json_schema_extra={"default": []})
    intent: Literal["free", "recommend", "chat"] = "free"


class StreamOptions(BaseModel):
    """Whether the last chunk says how many tokens there were."""

    include_usage: bool = False


class Completion(schema.Arguments):
    """A request as OpenAI's clients send it; unknown fields are named in the answer and otherwise ignored."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(MODEL, max_length=200)
    messages: list[ChatMessage] = Field(min_length=1, max_length=schema.MOST_TURNS)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    max_completion_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=0, lt=2**63)
    n: int = 1
    gcrs: Options = Field(default_factory=lambda: Options(), json_schema_extra={"default": {}})


def openai_routes(toolbox: Toolbox, desk: Desk, metrics: Metrics) -> APIRouter:
    """The two routes."""
    router = APIRouter(tags=["openai"], prefix="/v1")

    def card() -> dict[str, Any]:
        return {
            "id": MODEL,
            "object": "model",
            "created": 0,
            "owned_by": "gcrs",
            "bundle": toolbox.talker.bundle.hash,
            "catalog_version": toolbox.talker.recommender.parts.edition.version,
        }

    @router.get("/models", responses={401: {"model": ErrorReply}})
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [card()]}

    @router.get("/models/{model}", responses=errors(404))
    async def model(model: str) -> dict[str, Any]:
        """That model."""
        _check_model(model)
        return card()

    @router.post("/chat/completions", responses=errors(404, 409))
    async def chat_completions(request: Request, given: Completion) -> Any:
        """The reply to a conversation; `gcrs` in the request takes k, where, exclude and intent."""
        _check(given)
        job = desk.job()
        head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": MODEL}
        told: dict[str, Any] = {}

        async def work() -> schema.Recommended:
            result = await desk.run(job, lambda: _complete(toolbox, given, job, told))
            metrics.count(result.intent, result.withheld)
            return result

        if not given.stream:
            result = await while_there(request, work())
            message = {"role": "assistant", "content": result.reply.strip(), "refusal": None}
            choice = {"index": 0, "message": message, "finish_reason": told["finish"], "logprobs": None}
            body = {**head, "object": "chat.completion", "choices": [choice], "usage": told["usage"]}
            return {**body, "gcrs": _beside(result, given)}

        def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> str:
            choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
            return event({**head, "object": "chat.completion.chunk", "choices": [choice], **more})

        def ended(result: schema.Recommended) -> str:
            out = chunk({}, told["finish"], gcrs=_beside(result, given))
            if given.stream_options is not None and given.stream_options.include_usage:
                out += event({**head, "object": "chat.completion.chunk", "choices": [], "usage": told["usage"]})
            return out + event("[DONE]")

        begun: list[str] = []

        def said(text: str) -> str:
            role = {} if begun else {"role": "assistant"}
            begun.append(text)
            return chunk({**role, "content": text})

        return await streamed(
            request,
            job,
            work(),
            said=said,
            ended=ended,
            failed=lambda problem: event(problem.as_json()) + event("[DONE]"),
        )

    return router


def _check_model(name: str) -> None:
    if name != MODEL:
        text = f"There is no model {name[:60]!r}."
        raise Problem("unknown_model", text, field="model", value=name, remedy=f"The model is called {MODEL!r}.")


def _check(given: Completion) -> None:
    """Refuse what would change the answer and cannot be done."""
    _check_model(given.model)
    if given.n != 1:
        raise Problem("invalid_argument", "One reply is given.", field="n", value=given.n, remedy="Leave n at 1.")
    extra = given.model_extra or {}
    for name in ("tools", "functions", "stop", "logit_bias", "audio"):
        if extra.get(name):
            text, remedy = f"{name} is not supported.", "Leave it out."
            raise Problem("invalid_argument", text, field=name, value=extra[name], remedy=remedy)
    wanted = extra.get("response_format")
    if isinstance(wanted, dict) and wanted.get("type", "text") != "text":
        text, remedy = "Only text is written.", "POST /tools/recommend answers in JSON."
        raise Problem("invalid_argument", text, field="response_format", value=wanted, remedy=remedy)


def _turns(messages: Sequence[ChatMessage]) -> list[schema.Turn]:
    spoken = [one for one in messages if one.role in ("user", "assistant") and one.text.strip()]
    if not any(one.role == "user" for one in spoken):
        text = "There is no message of the user."
        raise Problem("invalid_argument", text, field="messages", remedy="Give at least one with role user.")
    try:
        return [schema.Turn.model_validate({"role": one.role, "content": one.text}) for one in spoken]
    except ValidationError as error:
        raise of_pydantic(error) from None


def _complete(toolbox: Toolbox, given: Completion, job: Job, told: dict[str, Any]) -> schema.Recommended:
    """The reply; in the desk's thread. `told` gets the counts of tokens, and why it ended."""
    asked = schema.Recommend(dialogue=_turns(given.messages), **given.gcrs.model_dump())
    running = Running(lambda: toolbox.talker.recommender.parts.catalog)
    written = 0

    def on_piece(piece: Piece) -> None:
        nonlocal written
        written += len(piece.token_ids)
        if (text := running.add(piece)) and given.stream:
            job.say(text)

    wanted = given.max_completion_tokens or given.max_tokens
    named = {"temperature": given.temperature, "top_p": given.top_p, "seed": given.seed}
    if wanted is not None:
        named["max_tokens"] = wanted
    named = {"seed": secrets.randbits(31)} | {name: value for name, value in named.items() if value is not None}
    try:
        result = toolbox.recommend(asked, stop=job.stopped, sampling=Sampling(**named), on_piece=on_piece)  # type: ignore[arg-type]
    except GcrsError as error:
        raise of_error(error) from None
    tokens = toolbox.talker.bundle.tokens
    read = sum(len(tokens.encode_text(turn.content)) for turn in asked.dialogue if not isinstance(turn, str))
    told["finish"] = "length" if wanted is not None and written > wanted else "stop"  # its end counts as a token
    told["usage"] = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return result


def _beside(result: schema.Recommended, given: Completion) -> dict[str, Any]:
    """The decisions, the items, and what of the request was not used."""
    unread = [f"messages[{n}]" for n, one in enumerate(given.messages) if one.role in ("system", "developer")]
    return {**result.model_dump(mode="json", exclude={"reply"}), "ignored": [*unread, *sorted(given.model_extra or {})]}
