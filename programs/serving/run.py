"""Starting and stopping: the HTTP server until a signal, or MCP over standard input and output until it ends.

Knows nothing of routes and nothing of flags.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gcrs.programs.serving.config import ServeConfig
from gcrs.toolkit.errors import GcrsError, UsageError

if TYPE_CHECKING:
    from gcrs.programs.serving.tools import Toolbox

BEHIND = 5.0  # seconds beyond the time for an answer before a stop is no longer graceful


def require() -> None:
    """UsageError when a package of the extra `serve` is missing; loads none of them."""
    from importlib.util import find_spec

    missing = [name for name in ("mcp", "fastapi", "uvicorn", "prometheus_client") if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"gcrs serve needs the package {missing[0].replace('_', '-')}, which is not installed.",
            hint="Install it: pip install 'gcrs[serve]'",
        )


def listen(config: ServeConfig) -> socket.socket:
    """The listening socket, taken before anything slow. UsageError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((config.host, config.port))
        sock.listen(512)
    except OSError as error:
        sock.close()
        raise UsageError(
            f"{config.host} port {config.port} cannot be listened on: {error.strerror or error}.",
            hint="Choose another: --port N (0: any free one).",
        ) from error
    return sock


def serve_http(toolbox: Toolbox, config: ServeConfig, sock: socket.socket, ready: Callable[[str], None]) -> int:
    """Serve until SIGTERM (0) or SIGINT (130); `ready` gets the address once requests are answered."""
    import uvicorn

    from gcrs.programs.serving.app import make_app
    from gcrs.programs.serving.doors import BODY_SECONDS
    from gcrs.programs.serving.patience import patient

    app, desk = make_app(toolbox, config)
    logging.getLogger("mcp").setLevel(logging.ERROR)
    name = f"[{config.host}]" if ":" in config.host else config.host
    address = f"http://{name}:{sock.getsockname()[1]}"
    caught: list[int] = []

    class Server(uvicorn.Server):
        """uvicorn's server, except that a signal is an orderly end and not raised again."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self.stop, number)
            yield

        def stop(self, number: int) -> None:
            """Finish what runs, take nothing new; a second signal ends at once."""
            self.force_exit = bool(caught)
            caught.append(number)
            self.should_exit = True
            desk.closing = True

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready(address)

    settings = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=int(config.timeout + BEHIND),
        ws="none",
        http=patient(BODY_SECONDS),
        lifespan="on",
    )
    server = Server(settings)
    try:
        asyncio.run(server.serve([sock]))
    finally:
        desk.close()
        toolbox.talker.facts.close()
    if not server.started:
        raise GcrsError("The server did not start.", hint="Its log says why.")
    return 130 if caught[:1] == [signal.SIGINT] else 0


def serve_mcp(toolbox: Toolbox, config: ServeConfig) -> int:
    """Answer MCP over standard input and output until the input ends."""
    from gcrs.programs.serving.desk import Desk
    from gcrs.programs.serving.mcp_server import serve_stdio

    logging.getLogger("mcp").setLevel(logging.ERROR)

    async def serving() -> None:
        desk = Desk(running=config.running, waiting=config.waiting, seconds=config.timeout)

        async def call(name: str, arguments: Any) -> Any:
            job = desk.job()
            return await desk.run(job, lambda: toolbox.call(name, arguments, stop=job.stopped))

        try:
            await serve_stdio(call)
        finally:
            desk.close()

    try:
        asyncio.run(serving())
    finally:
        toolbox.talker.facts.close()
    return 0
