"""Doors: what a request must pass before any route sees it. Host and origin, token, size, time to send it.

Pure ASGI, so that a route still hears when its client leaves. Knows nothing of routes but which one is open to all.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gcrs.programs.serving.problems import Problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN = ("/health",)
SEND_SECONDS = 30.0  # a client that takes nothing of its reply for so long has vanished
BODY_SECONDS = 20.0


def is_loopback(host: str) -> bool:
    """Whether an address or name means this machine alone."""
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Doors:
    """Checks around an ASGI application.

    `loopback`: the server listens on this machine alone, so a Host that is another name means that a page of somebody
    else's has had its name point here (DNS rebinding): refused. An Origin must be the server's own. `token`, where
    given, is asked for by every route but health, as `Authorization: Bearer`, or as the password of a browser.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        loopback: bool,
        token: str | None,
        most_bytes: int,
    ) -> None:
        self.app = app
        self.loopback = loopback
        self.token = token
        self.most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        sender = _patient(send)
        try:
            self._check_place(headers)
            if scope["path"] not in OPEN:
                self._check_token(headers)
            receive = await self._body(scope, receive, headers)
        except Problem as problem:
            await _refuse(sender, problem, headers)
            return
        await self.app(scope, receive, sender)

    def _check_place(self, headers: dict[str, str]) -> None:
        host = headers.get("host", "")
        if self.loopback and not is_loopback(_name_of(host)):
            text = f"The Host header is {host[:80]!r}, and this server answers for this machine alone."
            raise Problem("forbidden", text, field="Host", value=host, remedy="Use 127.0.0.1 or localhost.")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.casefold() != host.casefold():
            text = "A page of another origin may not call this server."
            raise Problem(
                "forbidden", text, field="Origin", value=origin, remedy="Call it from its own page or no page."
            )

    def _check_token(self, headers: dict[str, str]) -> None:
        if self.token is None:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode("utf-8", "replace").partition(":")[2]
            except binascii.Error:
                given = ""
        elif kind.lower() != "bearer":
            given = ""
        if not hmac.compare_digest(given.strip().encode(), self.token.encode()):
            text = "The token is missing." if not kind else "The token is wrong."
            raise Problem("unauthorized", text, field="Authorization", remedy="Send: Authorization: Bearer TOKEN")

    async def _body(self, scope: Scope, receive: Receive, headers: dict[str, str]) -> Receive:
        """The request's body, read whole before the route begins, and a `receive` that gives it again."""
        told = headers.get("content-length", "0")
        if told.isdigit() and int(told) > self.most_bytes:
            raise self._too_large(told)
        if (
            scope["method"] in ("GET", "HEAD", "DELETE", "OPTIONS")
            and told == "0"
            and "transfer-encoding" not in headers
        ):
            return receive
        parts: list[bytes] = []
        size = 0
        more = True
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return receive
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    more = message.get("more_body", False)
                    if size > self.most_bytes:
                        raise self._too_large(str(size))
        except TimeoutError:
            raise Problem(
                "timeout", f"The request was not sent within {BODY_SECONDS:g} seconds.", remedy="Send it again."
            ) from None
        whole: list[Message] = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]

        async def again() -> Message:
            return whole.pop() if whole else await receive()

        return again

    def _too_large(self, size: str) -> Problem:
        return Problem(
            "too_large",
            f"The body has {size} bytes or more, and {self.most_bytes} are allowed.",
            field="Content-Length",
            value=size,
            remedy="Send less, or start the server with a larger --max-body.",
        )


def _name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _patient(send: Send) -> Send:
    """A `send` that waits for a slow client only so long; then the connection counts as lost."""

    async def sending(message: Message) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await send(message)
        except TimeoutError:
            raise OSError("the client takes nothing of its reply") from None

    return sending


async def _refuse(send: Send, problem: Problem, headers: dict[str, str]) -> None:
    import json

    body = json.dumps(problem.as_json()).encode()
    out: list[tuple[bytes, bytes]] = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if problem.body.code == "unauthorized":
        browser = "text/html" in headers.get("accept", "")
        out.append((b"www-authenticate", b'Basic realm="gcrs", charset="UTF-8"' if browser else b'Bearer realm="gcrs"'))
    if problem.body.code in ("too_large", "timeout"):
        out.append((b"connection", b"close"))
    start: dict[str, Any] = {"type": "http.response.start", "status": problem.status, "headers": out}
    await send(start)
    await send({"type": "http.response.body", "body": body})
