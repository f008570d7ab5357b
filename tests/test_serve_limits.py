"""What the server refuses and survives: tokens, hosts, sizes, queues, deadlines, clients that vanish, signals."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gcrs.programs.serving.config import ServeConfig
from gcrs.toolkit.errors import UsageError
from serving_helpers import CLI, Served, events, serving_here, serving_toys, wait_for

TOKEN = "a-token-of-some-length"
LONG = 5  # a seed whose first reply to "Hello" has more than 40 tokens
BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def guarded() -> Iterator[Served]:
    """A server with a token, small limits and sessions for two."""
    with serving_here(token=TOKEN, max_body=2000, sessions=2) as server:
        yield server


@pytest.fixture(scope="module")
def slow() -> Iterator[Served]:
    """One request at a time and one behind it; a reply takes about a second and a half, three are allowed."""
    with serving_here(20, running=1, waiting=1, timeout=3.0) as server:
        yield server


def busy(server: Served) -> dict[str, Any]:
    told: dict[str, Any] = server.get("/health").json()
    return told


def problem(reply: httpx.Response) -> dict[str, Any]:
    told: dict[str, Any] = reply.json()["error"]
    assert set(told) >= {"code", "message", "field", "value", "remedy"} and "Traceback" not in reply.text
    return told


def test_every_route_but_health_asks_for_the_token(guarded: Served) -> None:
    assert guarded.get("/health").status_code == 200
    for method, path in (
        ("GET", "/"), ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/v1/models"), ("GET", "/nowhere"),
        ("POST", "/tools/recommend"), ("POST", "/sessions"), ("POST", "/mcp"), ("POST", "/v1/chat/completions"),
    ):  # fmt: skip
        reply = httpx.request(method, guarded.url + path)
        assert reply.status_code == 401 and problem(reply)["code"] == "unauthorized", path
        assert reply.headers["www-authenticate"].startswith("Bearer")
    for wrong in ("Bearer nope", f"Bearer {TOKEN}x", TOKEN, "Basic !!", "Bearer", "Bearer \xff"):
        headers = {"authorization": wrong.encode("latin-1")}
        assert guarded.get("/metrics", headers=headers).status_code == 401, wrong
    assert guarded.get("/metrics", headers=BEARER).status_code == 200
    asked = guarded.get("/", headers={"accept": "text/html"})
    assert asked.status_code == 401 and asked.headers["www-authenticate"].startswith("Basic")  # a browser can ask
    basic = base64.b64encode(f"me:{TOKEN}".encode()).decode()
    assert guarded.get("/", headers={"authorization": f"Basic {basic}"}).status_code == 200


def test_another_host_or_origin_is_refused(guarded: Served) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "", "localhost.evil:80"):
        assert guarded.get("/health", headers={"host": host}).status_code in (400, 403), host
    for origin in ("http://evil.example", "null", "https://localhost:1"):
        reply = guarded.post("/tools/search_catalog", headers={**BEARER, "origin": origin})
        assert reply.status_code == 403 and problem(reply)["field"] == "Origin"
    mine = guarded.url
    assert guarded.post("/tools/search_catalog", headers={**BEARER, "origin": mine}).status_code == 200
    port = mine.rsplit(":", 1)[1]
    assert guarded.get("/health", headers={"host": f"localhost:{port}"}).status_code == 200


def test_a_body_that_is_too_large_is_refused_however_it_is_sent(guarded: Served) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(10):
            yield b"x" * 1000

    for content in (b"x" * 3000, chunks()):
        reply = httpx.post(guarded.url + "/tools/recommend", content=content, headers=BEARER)
        assert reply.status_code == 413 and problem(reply)["code"] == "too_large"
    assert guarded.get("/health").status_code == 200


def test_wrong_arguments_name_field_value_and_remedy(guarded: Served) -> None:
    for path, body, status, field in (
        ("/tools/recommend", {}, 422, "dialogue"),
        ("/tools/recommend", {"dialogue": 5}, 422, "dialogue"),
        ("/tools/recommend", {"dialogue": [{"role": "system", "content": "x"}]}, 422, "dialogue[0].role"),
        ("/tools/recommend", {"dialogue": "x", "k": 0}, 422, "k"),
        ("/tools/recommend", {"dialogue": "x", "where": ["colour=red"]}, 422, "where[0]"),
        ("/tools/recommend", {"dialogue": "x", "where": ["year>1990", "year>>1"]}, 422, "where[1]"),
        ("/tools/recommend", {"dialogue": "x", "where": ["year>3000"]}, 409, "where"),
        ("/tools/recommend", {"dialogue": "x", "exclude": ["m01", "m99"]}, 422, "exclude[1]"),
        ("/tools/recommend", {"dialogue": "x", "colour": "red"}, 422, "colour"),
        ("/tools/search_catalog", {"where": ["year>3000"]}, 409, "where"),
        ("/tools/search_catalog", {"limit": 1000}, 422, "limit"),
        ("/tools/lookup_item", {"id": "m99"}, 404, "id"),
        ("/tools/explain", {"dialogue": "x", "item": "A Film Nobody Made"}, 404, "item"),
        ("/sessions", {"where": ["colour=red"]}, 422, "where[0]"),
        ("/sessions", {"seed": -1}, 422, "seed"),
        ("/sessions/nope/messages", {"text": "hi"}, 404, "session"),
        ("/v1/chat/completions", {"messages": []}, 422, "messages"),
        ("/v1/chat/completions", {"messages": [{"role": "assistant", "content": "x"}]}, 422, "messages"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "gcrs": {"k": 0}}, 422, "gcrs.k"),
    ):
        reply = guarded.post(path, body, headers=BEARER)
        told = problem(reply)
        assert (reply.status_code, told["field"]) == (status, field), (path, body, told)
        assert told["message"].endswith((".", "?")) and told["remedy"]
    for content in (
        b"{",
        b"[]",
        b"\xff",
        b'{"dialogue": "\\ud800"}',
        b'{"\\ud800": 1}',
        b"[" * 900,
        b'{"k": NaN}',
        b"",
    ):
        headers = {**BEARER, "content-type": "application/json"}
        reply = httpx.post(guarded.url + "/tools/recommend", content=content, headers=headers)
        assert reply.status_code in (400, 422) and problem(reply)["remedy"], content
    for body, remedy in (
        ({"dialogue": "x", "k": 0}, "Pass 1 or more."),
        ({"dialogue": "x", "k": 2.5}, "Pass a whole number."),
        ({"dialogue": "x", "intent": "sing"}, "Pass one of 'free', 'recommend' or 'chat'."),
        ({"dialogue": "x", "where": "year>2000"}, "Pass a list, also of one: [...]."),
        ({"dialogue": "x", "exclude": [5]}, "Pass it as text, in quotes."),
    ):
        told = problem(guarded.post("/tools/recommend", body, headers=BEARER))
        assert told["remedy"] == remedy, told
    found = problem(guarded.post("/tools/lookup_item", {"id": 5}, headers=BEARER))
    assert found["message"] == "Input should be a valid string, found a number."
    plain = httpx.post(guarded.url + "/tools/recommend", content=b'{"dialogue": "x"}', headers=BEARER)
    assert plain.status_code == 400 and "content-type: application/json" in problem(plain)["remedy"]
    begun = httpx.post(guarded.url + "/sessions", headers=BEARER)
    assert begun.status_code == 201, "all of its fields are optional"
    assert problem(guarded.get("/nowhere", headers=BEARER))["code"] == "not_found"
    assert guarded.get("/tools/recommend", headers=BEARER).status_code == 405


def test_a_session_whose_rules_leave_nothing_is_not_begun(guarded: Served) -> None:
    reply = guarded.post("/sessions", {"where": ["year>3000"]}, headers=BEARER)
    assert reply.status_code == 409 and problem(reply)["code"] == "nothing_allowed"


def test_an_evicted_session_is_said_to_be_unknown(guarded: Served) -> None:
    names = [guarded.post("/sessions", headers=BEARER).json()["session"] for _ in range(3)]
    gone = guarded.get(f"/sessions/{names[0]}", headers=BEARER)
    assert gone.status_code == 404 and "forgotten" in problem(gone)["remedy"]
    assert guarded.get(f"/sessions/{names[2]}", headers=BEARER).status_code == 200


def test_the_queue_is_bounded_and_what_waits_too_long_is_told_so(slow: Served) -> None:
    body = {"dialogue": "Hello", "intent": "chat"}
    replies: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: replies.append(slow.post("/tools/recommend", body))) for _ in range(2)]
    for thread in threads:
        thread.start()
        wait_for(lambda: busy(slow)["running"] == 1)
    wait_for(lambda: busy(slow)["waiting"] == 1)
    full = slow.post("/tools/recommend", body)
    assert full.status_code == 503 and problem(full)["code"] == "busy" and int(full.headers["retry-after"]) >= 1
    for thread in threads:
        thread.join()
    codes = sorted(reply.status_code for reply in replies)
    assert set(codes) <= {200, 504}, codes  # on a slow machine both may run out of time: neither is left unanswered
    assert busy(slow)["running"] == 0 and busy(slow)["waiting"] == 0


def test_a_late_answer_was_never_said() -> None:
    with serving_here(100, timeout=1.0) as server:
        session = server.post("/sessions", {"seed": LONG}).json()["session"]
        late = server.post(f"/sessions/{session}/messages", {"text": "Hello", "intent": "chat"})
        assert late.status_code == 504 and problem(late)["code"] == "timeout"
        assert server.get(f"/sessions/{session}").json()["turns"] == []
        body = {"text": "Hello", "intent": "chat", "stream": True}
        with httpx.stream("POST", f"{server.url}/sessions/{session}/messages", json=body, timeout=60) as reply:
            told = list(events(reply))
        assert told[-1][0] == "done" and told[-1][1]["stopped"]  # what was shown stays
        assert len(server.get(f"/sessions/{session}").json()["turns"]) == 2


def test_a_client_that_leaves_cancels_its_reply(slow: Served) -> None:
    session = slow.post("/sessions", {"seed": LONG}).json()["session"]
    for stream in (True, False):
        body = {"text": "Hello", "intent": "chat", "stream": stream}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{slow.url}/sessions/{session}/messages", json=body, timeout=0.4)
        began = time.monotonic()
        wait_for(lambda: busy(slow)["running"] == 0, 5)
        assert time.monotonic() - began < 1.0  # the whole reply would take longer
    assert slow.get(f"/sessions/{session}").json()["turns"] == []  # nothing of it was shown to anybody


def test_a_client_that_does_not_read_holds_nobody_up() -> None:
    with serving_here(2, running=1) as server:
        host, port = server.url.removeprefix("http://").split(":")
        text = json.dumps({"messages": [{"role": "user", "content": "hi"}], "stream": True}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        with socket.create_connection((host, int(port))) as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            deaf.sendall(f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text)
            wait_for(lambda: busy(server)["running"] == 1)
            answered = server.post("/tools/recommend", {"dialogue": "Hello", "intent": "chat"})
            assert answered.status_code == 200 and busy(server)["running"] == 0


def test_messages_of_one_session_keep_their_order_and_too_many_are_refused() -> None:
    with serving_here(1, timeout=60) as server:
        session = server.post("/sessions").json()["session"]
        replies: list[httpx.Response] = []
        answered: list[tuple[int, int]] = []

        def say(n: int) -> None:
            reply = server.post(f"/sessions/{session}/messages", {"text": f"Message {n}", "intent": "chat"})
            replies.append(reply)
            if reply.status_code == 200:
                answered.append((n, reply.json()["number"]))

        threads = [threading.Thread(target=say, args=(n,)) for n in range(14)]
        for thread in threads:
            thread.start()
            time.sleep(0.01)
        for thread in threads:
            thread.join()
        refused = [reply for reply in replies if reply.status_code == 429]
        kept = [reply.json()["number"] for reply in replies if reply.status_code == 200]
        assert sorted(kept) == list(range(1, len(kept) + 1)) and len(kept) + len(refused) == 14
        assert all(reply.headers["retry-after"] for reply in refused)
        turns = server.get(f"/sessions/{session}").json()["turns"]
        numbers = {int(turn["content"].split()[1]): place for place, turn in enumerate(turns[::2], 1)}
        assert len(numbers) == len(kept) == len(turns) // 2  # each said once, each in its own place
        assert all(numbers[said] == number for said, number in answered)


def test_a_signal_finishes_what_runs_and_ends_with_zero() -> None:
    with serving_toys(20) as server:
        replies: list[Any] = []

        def say() -> None:
            body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
            with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=60) as reply:
                replies.extend(data for _, data in events(reply))

        thread = threading.Thread(target=say)
        thread.start()
        wait_for(lambda: len(replies) > 2)
        assert server.terminate() == 0
        thread.join()
        assert replies[-1] == "[DONE]" and replies[-2]["choices"][0]["finish_reason"] == "stop"
        with pytest.raises(httpx.ConnectError):
            server.get("/health")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"host": "0.0.0.0"}, "a token is needed"),
        ({"host": "::"}, "a token is needed"),
        ({"host": "example.org"}, "a token is needed"),
        ({"token": "short"}, "expected 16 or more"),
        ({"token": "with a blank in the middle"}, "ASCII"),
        ({"port": 70000}, "at most 65535"),
        ({"running": 0}, "--running is 0"),
        ({"max_body": 10}, "--max-body is 10"),
    ],
)
def test_what_contradicts_itself_is_refused_before_anything_is_loaded(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        ServeConfig(**options)


def test_the_verb_refuses_with_exit_code_two() -> None:
    def serve(*flags: str) -> tuple[int, str]:
        env = {name: value for name, value in os.environ.items() if name != "GCRS_TOKEN"}
        done = subprocess.run([*CLI, "serve", *flags], capture_output=True, text=True, env=env, check=False)
        assert done.stdout == ""
        return done.returncode, done.stderr

    assert serve() == (2, "gcrs: error: Say how to serve: either --http or --mcp. Pass --http or --mcp.\n")
    assert serve("--mcp", "--port", "1")[0] == 2, "a flag that would do nothing is refused"
    assert serve("--http", "--host", "0.0.0.0")[0] == 2
    without = (
        "import importlib.util as u; real = u.find_spec; u.find_spec = lambda n, *a: n != 'fastapi' and real(n) or None"
    )
    run = f"{without}; import sys; from gcrs.cli import main; sys.exit(main(['serve', '--http']))"
    done = subprocess.run([CLI[0], "-c", run], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "needs the package fastapi" in done.stderr and "gcrs[serve]" in done.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, told = serve("--http", "--port", str(taken.getsockname()[1]))
    assert code == 2 and "cannot be listened on" in told


def test_a_head_that_never_ends_closes_its_connection_and_no_other() -> None:
    import asyncio

    import uvicorn

    from gcrs.programs.serving.patience import patient

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(1.0)  # an answer may take longer than a head
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def ask(port: int, *parts: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for part in parts:
            writer.write(part)
            await writer.drain()
        found = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return found

    async def whole() -> None:
        quick: Any = {"lifespan": "off", "timeout_keep_alive": 1, "http": patient(0.5)}
        settings = uvicorn.Config(app, port=0, log_level="error", **quick)
        server = uvicorn.Server(settings)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        request = b"GET / HTTP/1.1\r\nhost: here\r\n"
        began = asyncio.get_running_loop().time()
        half, none, good, again = await asyncio.gather(
            ask(port, b"GET /hea"),
            ask(port),
            ask(port, request + b"connection: close\r\n\r\n"),
            ask(port, request + b"\r\n", request),  # a whole request, then half of one
        )
        assert half == none == b""
        assert good.endswith(b"ok") and again.count(b"200 OK") == 1
        assert asyncio.get_running_loop().time() - began < 5
        server.should_exit = True
        await serving

    asyncio.run(whole())
