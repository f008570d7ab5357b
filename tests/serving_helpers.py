"""Server processes for tests: `gcrs serve` over a bundle, or the toy parts at a given pace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

TESTS = Path(__file__).resolve().parent
CLI = [sys.executable, "-c", "from gcrs.cli import run; run()"]
PATIENCE = 120.0


@dataclass
class Served:
    """A server that answers: its address and its process."""

    url: str
    process: subprocess.Popen[str] | None

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, json={} if body is None else body, timeout=60, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=60, **options)

    def terminate(self) -> int:
        """Ask it to stop; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@contextmanager
def serving(command: Sequence[str], env: dict[str, str] | None = None) -> Iterator[Served]:
    """Run a server that says its address on stdout or stderr; it is stopped at the end."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(env or {})},
        cwd=TESTS,
    )
    said: list[str] = []
    found = threading.Event()
    address: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if not address and "http://" in line:
                address.append("http://" + line.split("http://")[1].split()[0])
                found.set()
        found.set()

    threading.Thread(target=read, daemon=True).start()
    try:
        assert found.wait(PATIENCE) and address, f"the server did not start: {''.join(said)[-2000:]}"
        yield Served(address[0], process)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def serving_toys(pause: float = 0.0, env: dict[str, str] | None = None, **config: Any) -> Any:
    """A process over the toy parts, each token of a reply taking `pause` milliseconds."""
    told = json.dumps({"port": 0, **config})
    return serving([sys.executable, str(TESTS / "serve_child.py"), str(pause), told], env)


@contextmanager
def serving_here(pause: float = 0.0, **options: Any) -> Iterator[Served]:
    """The same in a thread of this process, which has loaded all that a server loads: for the many small variants."""
    import asyncio

    import uvicorn

    from gcrs.programs.serving.app import make_app
    from gcrs.programs.serving.config import ServeConfig
    from gcrs.programs.serving.run import listen
    from gcrs.programs.serving.tools import Toolbox
    from serve_child import SlowEngine, toy_talker
    from toys import toy_engine

    config = ServeConfig(**{"port": 0, **options})
    engine = toy_engine()
    engine.__class__ = SlowEngine
    engine.pause = pause / 1000
    app, desk = make_app(Toolbox(toy_talker(engine)), config)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=5))
    sock = listen(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([sock])))
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield Served(f"http://127.0.0.1:{sock.getsockname()[1]}", None)
    finally:
        desk.close()
        server.should_exit = True
        thread.join()


def wait_for(condition: Any, seconds: float = 20.0) -> None:
    """Until it holds; AssertionError when it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


def events(response: httpx.Response) -> Iterator[tuple[str, Any]]:
    """Server-sent events as (name, data); data that is no JSON stays text."""
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            text = line.removeprefix("data: ")
            yield name, text if text == "[DONE]" else json.loads(text)
            name = ""
