"""Replies as they come over HTTP: server-sent events, and what happens when the client leaves.

Knows nothing of what the events hold.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.responses import StreamingResponse

from gcrs.programs.serving.problems import Problem

if TYPE_CHECKING:
    from starlette.requests import Request

    from gcrs.programs.serving.desk import Job

T = TypeVar("T")
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class ClientGone(Exception):
    """Nobody is left to take the answer."""


async def while_there(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result; the work is cancelled, and ClientGone raised, when the client leaves before."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    doing, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise ClientGone
        return doing.result()
    finally:
        leaving.cancel()
        doing.cancel()


def event(data: Any, name: str | None = None) -> str:
    """One server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)}\n\n"


async def streamed(
    request: Request,
    job: Job,
    work: Coroutine[Any, Any, Any],
    *,
    said: Callable[[Any], str],
    ended: Callable[[Any], str],
    failed: Callable[[Problem], str],
) -> StreamingResponse:
    """A response that sends what the job says as it comes, then how its `work` ended.

    A Problem before the first word is raised, so that it gets its HTTP status; a later one is an event.
    """

    async def whole() -> Any:
        try:
            return await work
        finally:
            job.end()

    doing = asyncio.ensure_future(whole())
    heard = job.heard()
    try:
        first = await while_there(request, _first(heard, doing))
    except BaseException:
        doing.cancel()
        raise

    async def events() -> AsyncIterator[str]:
        try:
            if first is not _NOTHING:
                yield said(first)
                async for value in heard:
                    yield said(value)
            yield ended(await doing)
        except Problem as problem:
            yield failed(problem)
        finally:
            doing.cancel()

    return StreamingResponse(events(), media_type="text/event-stream", headers=HEADERS)


_NOTHING = object()


async def _first(heard: AsyncIterator[Any], doing: asyncio.Future[Any]) -> Any:
    """The first thing said; the work's exception when it ends without a word, `_NOTHING` when it just ends."""
    with suppress(StopAsyncIteration):
        return await anext(heard)
    await doing
    return _NOTHING
