"""The REST routes: the tools, generated from their schema, and sessions.

Knows nothing of tokens, limits or how a reply comes about.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Request, Response

from gcrs.programs.serving import session_schema as schema
from gcrs.programs.serving.declared import TOOLS, Tool
from gcrs.programs.serving.problems import ErrorReply, Problem, of_error
from gcrs.programs.serving.schema import Recommended
from gcrs.programs.serving.streams import event, streamed, while_there
from gcrs.programs.serving.talking import say, state_of
from gcrs.toolkit.errors import GcrsError

if TYPE_CHECKING:
    from gcrs.programs.serving.desk import Desk
    from gcrs.programs.serving.metrics import Metrics
    from gcrs.programs.serving.sessions import Sessions
    from gcrs.programs.serving.tools import Toolbox

TOLD = {
    400: "No JSON object.", 401: "No token, or a wrong one.", 403: "Another host or origin.", 404: "Not there.",
    405: "Another method.", 409: "Nothing is left to recommend.", 413: "Too large.", 422: "A wrong argument.",
    429: "Too many at once.", 500: "A fault of the server.", 503: "Busy: come back later.", 504: "It took too long.",
}  # fmt: skip
Responses = dict[int | str, dict[str, Any]]
Name = Annotated[str, Path(max_length=200, description="The session's id.")]


def errors(*statuses: int) -> Responses:
    """The error replies of a route, for OpenAPI."""
    usual = (400, 401, 403, 413, 422, 500, 503, 504)
    return {status: {"model": ErrorReply, "description": TOLD[status]} for status in sorted({*usual, *statuses})}


def tool_routes(toolbox: Toolbox, desk: Desk, metrics: Metrics) -> APIRouter:
    """`POST /tools/NAME` for each tool."""
    router = APIRouter(tags=["tools"])

    def endpoint(tool: Tool) -> Any:
        async def answer(request: Request, given: Any) -> Any:
            job = desk.job()
            work = desk.run(job, lambda: toolbox.run(tool.name, given, stop=job.stopped))
            result = await while_there(request, work)
            if isinstance(result, Recommended):
                metrics.count(result.intent, result.withheld)
            return result

        answer.__annotations__ = {"request": Request, "given": Annotated[tool.arguments, Body()]}
        return answer

    for tool in TOOLS.values():
        router.add_api_route(
            f"/tools/{tool.name}",
            endpoint(tool),
            methods=["POST"],
            response_model=tool.result,
            responses=errors(404, 409),
            summary=tool.title,
            description=tool.description,
            operation_id=tool.name,
        )
    return router


def session_routes(toolbox: Toolbox, sessions: Sessions, desk: Desk, metrics: Metrics) -> APIRouter:
    """Create, say (streamed or not), state, feedback, why, delete."""
    router = APIRouter(tags=["sessions"], prefix="/sessions")

    @router.post("", status_code=201, response_model=schema.State, responses=errors(409))
    async def create_session(given: schema.NewSession | None = None) -> Any:
        """Begin a session."""
        given = given or schema.NewSession(seed=None)
        try:
            return state_of(await sessions.create(given.where, given.exclude, given.seed))
        except GcrsError as error:
            raise of_error(error, field="where", value=", ".join(given.where)) from None

    @router.get("/{session}", response_model=schema.State, responses=errors(404))
    async def session_state(session: Name) -> Any:
        """What was said so far, and what holds."""
        return state_of(await sessions.find(session))

    @router.delete("/{session}", status_code=204, responses=errors(404))
    async def delete_session(session: Name) -> Response:
        """Forget a session."""
        await sessions.delete(session)
        return Response(status_code=204)

    @router.post(
        "/{session}/messages",
        response_model=schema.Answer,
        responses=errors(404, 409, 429) | {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
    )
    async def say_in_session(request: Request, session: Name, given: schema.Message) -> Any:
        """Say something; the reply at once, or as server-sent events with `stream`."""

        job = desk.job()

        async def in_turn() -> schema.Answer:
            async with sessions.use(session) as held:
                answer = await desk.run(job, lambda: say(toolbox, sessions, held, given, job))
                metrics.count(answer.intent, answer.withheld)
                return answer

        if not given.stream:
            return await while_there(request, in_turn())
        return await streamed(
            request,
            job,
            in_turn(),
            said=lambda piece: event(piece, "piece"),
            ended=lambda answer: event(answer.model_dump_json(), "done"),
            failed=lambda problem: event(problem.as_json(), "error"),
        )

    @router.post("/{session}/feedback", response_model=schema.State, responses=errors(404, 429))
    async def give_feedback(session: Name, given: schema.Mark) -> Any:
        """Like, dislike or have seen an item."""
        async with sessions.use(session) as held:
            if given.item not in held.chat.catalog:
                text = f"No item has the id {given.item[:60]!r}."
                raise Problem("unknown_item", text, field="item", value=given.item, remedy="Use an id of `items`.")
            held.chat.mark(given.item, given.value)
            await asyncio.to_thread(sessions.save, held)
            return state_of(held)

    @router.get("/{session}/why", response_model=schema.Reasons, responses=errors(404, 429))
    async def why_in_session(
        request: Request,
        session: Name,
        item: Annotated[str | None, Query(max_length=200, description="An id or title; default: the last one.")] = None,
    ) -> Any:
        """What the last recommendation, or this item, rests on."""

        async def in_turn() -> Any:
            async with sessions.use(session) as held:
                chat, job = held.chat, desk.job()
                return await desk.run(job, lambda: chat.why(chat.find(item) if item else None))

        try:
            return schema.Reasons(lines=list(await while_there(request, in_turn())))
        except GcrsError as error:
            raise of_error(error, field="item", value=item) from None

    return router
