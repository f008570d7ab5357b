"""The HTTP application: every face on one desk, behind the doors.

Knows nothing of sockets, signals or flags.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Route

from gcrs import __version__
from gcrs.programs.serving.desk import Desk
from gcrs.programs.serving.doors import Doors
from gcrs.programs.serving.faces import openai_functions
from gcrs.programs.serving.mcp_server import mcp_server
from gcrs.programs.serving.metrics import Counted, Metrics
from gcrs.programs.serving.openai_chat import openai_routes
from gcrs.programs.serving.problems import ErrorReply, Problem, of_error, of_validation
from gcrs.programs.serving.rest import session_routes, tool_routes
from gcrs.programs.serving.sessions import Sessions
from gcrs.programs.serving.streams import ClientGone
from gcrs.programs.session import ChatSession
from gcrs.toolkit.errors import GcrsError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from gcrs.programs.serving.config import ServeConfig
    from gcrs.programs.serving.tools import Toolbox

PAGE_POLICY = "default-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; frame-ancestors 'none'"
CODES = {400: "bad_request", 403: "forbidden", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}


class Health(BaseModel):
    """That the server answers, and how busy it is."""

    status: str
    version: str
    bundle: str
    catalog_version: int
    running: int
    waiting: int
    sessions: int


def make_app(toolbox: Toolbox, config: ServeConfig) -> tuple[ASGIApp, Desk]:
    """The application, and the desk to close before the server goes."""
    desk = Desk(running=config.running, waiting=config.waiting, seconds=config.timeout)

    def chat(where: Sequence[str], exclude: Sequence[str], seed: int | None) -> ChatSession:
        recommender, linker = toolbox.newest()
        rules = toolbox.merged(recommender, where, exclude)
        return ChatSession(
            recommender,
            linker,
            bundle_hash=toolbox.talker.bundle.hash,
            where=rules.where,
            exclude=rules.exclude,
            allow=rules.allow,
            or_unknown=rules.or_unknown,
            seed=secrets.randbits(31) if seed is None else seed,
            newest=toolbox.newest,
        )

    sessions = Sessions(chat, most=config.sessions, directory=config.session_dir)
    metrics = Metrics(desk, sessions, toolbox)

    async def call(name: str, arguments: Any) -> BaseModel:
        job = desk.job()
        return await desk.run(job, lambda: toolbox.call(name, arguments, stop=job.stopped))

    mcp = _mcp_manager(call, config.max_body)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with mcp.run():
            yield

    app = FastAPI(
        title="gcrs",
        version=__version__,
        summary="A conversational recommender over one catalogue.",
        lifespan=lifespan,
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
    )
    app.include_router(tool_routes(toolbox, desk, metrics))
    app.include_router(session_routes(toolbox, sessions, desk, metrics))
    app.include_router(openai_routes(toolbox, desk, metrics))
    page = resources.files("gcrs.programs.serving").joinpath("page.html").read_text(encoding="utf-8")

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def chat_page() -> HTMLResponse:
        headers = {
            "content-security-policy": PAGE_POLICY,
            "x-content-type-options": "nosniff",
            "cache-control": "no-cache",
        }
        return HTMLResponse(page, headers=headers)

    @app.get("/health", tags=["server"])
    async def health() -> Health:
        """Whether the server answers; needs no token."""
        return Health(
            status="stopping" if desk.closing else "ok",
            version=__version__,
            bundle=toolbox.talker.bundle.hash,
            catalog_version=toolbox.talker.recommender.parts.edition.version,
            running=desk.running,
            waiting=desk.waiting,
            sessions=len(sessions),
        )

    @app.get("/metrics", tags=["server"], response_class=Response, responses={401: {"model": ErrorReply}})
    async def prometheus() -> Response:
        """Counts for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/functions", tags=["tools"], responses={401: {"model": ErrorReply}})
    async def functions() -> list[dict[str, Any]]:
        """The tools as strict OpenAI functions."""
        return openai_functions()

    app.router.routes.append(_mcp_route(mcp))
    _handle_errors(app)
    doors = Doors(
        app,
        loopback=config.loopback,
        token=config.token,
        most_bytes=config.max_body,
    )
    return Counted(doors, metrics), desk


def _mcp_manager(call: Any, most_bytes: int) -> Any:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    server = mcp_server(call)
    return StreamableHTTPSessionManager(server, json_response=True, stateless=True, max_request_body_size=most_bytes)


def _mcp_route(manager: Any) -> Route:
    """`POST /mcp`: without sessions there is no stream to GET and nothing to DELETE."""

    class Posts:
        """The manager, for one method."""

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["method"] != "POST":
                raise HTTPException(405, "Method Not Allowed", {"allow": "POST"})
            await manager.handle_request(scope, receive, send)

    return Route("/mcp", endpoint=Posts())


def _handle_errors(app: FastAPI) -> None:
    """Every failure leaves as a problem; a fault of ours says only that it is one."""

    async def problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return _reply(request, error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _reply(request, of_validation(error.errors(), skip=1))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = CODES.get(error.status_code, "bad_request")
        remedy = "GET /openapi.json lists the routes." if error.status_code in (404, 405) else "Send one JSON object."
        reply = _reply(request, Problem(code, f"{error.detail}.", remedy=remedy))
        reply.headers.update(error.headers or {})
        return reply

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, GcrsError)
        return _reply(request, of_error(error))

    async def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=499)

    async def fault(request: Request, error: Exception) -> Response:
        return _reply(request, Problem("internal", "The server made a fault.", remedy="Its log says more."))

    app.add_exception_handler(Problem, problem)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(GcrsError, ours)
    app.add_exception_handler(ClientGone, gone)
    app.add_exception_handler(Exception, fault)


def _reply(request: Request, problem: Problem) -> Response:
    body = problem.as_json()
    if request.url.path.startswith("/v1/"):  # what OpenAI's clients look for
        body["error"] |= {"type": problem.body.code, "param": problem.body.field}
    headers = {} if problem.retry_after is None else {"retry-after": str(problem.retry_after)}
    if problem.status < 429:  # what was asked for is at fault; OpenAI's clients would send a 409 twice more
        headers["x-should-retry"] = "false"
    return Response(json.dumps(body), problem.status, headers, "application/json")
