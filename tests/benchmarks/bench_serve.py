"""Load on `gcrs serve --http`: `python tests/benchmarks/bench_serve.py [--bundle movies] [--sessions 50]`.

Starts the server, holds that many sessions side by side, each saying its messages one after the other (every second
one streamed), lets some clients vanish in the middle of a reply, and then compares what each session remembers with
what was said in it. Prints seconds for a reply (p50, p99), replies a minute, errors and messages lost. `--url` loads a
server that runs already.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

WORDS = (
    "I loved The Matrix, what now?",
    "Something funnier, please",
    "And one that is older",
    "Hello, how are you?",
    "A romance for a rainy evening",
)


@dataclass
class Load:
    """What was measured: seconds of each reply and of each first piece, errors by code, and what was lost."""

    seconds: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    vanished: int = 0
    wall: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The numbers that are told."""
        replies = len(self.seconds)
        return {
            "replies": replies,
            "p50": percentile(self.seconds, 0.5),
            "p99": percentile(self.seconds, 0.99),
            "first_p50": percentile(self.first, 0.5),
            "replies_a_minute": round(60 * replies / self.wall, 1) if self.wall else 0.0,
            "errors": self.errors,
            "lost": self.lost,
            "vanished": self.vanished,
            "wall": round(self.wall, 1),
        }


def percentile(values: list[float], share: float) -> float:
    """The value below which a share of them lies (nearest rank); 0 of none."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3) if ordered else 0.0


async def hold(client: httpx.AsyncClient, number: int, messages: int, load: Load) -> None:
    """One session: say its messages, then see that it remembers exactly them, in order."""
    session = (await client.post("/sessions", json={"seed": number})).json()["session"]
    path, said = f"/sessions/{session}/messages", []
    for n in range(messages):
        text = f"{WORDS[(number + n) % len(WORDS)]} ({number}.{n})"
        body = {"text": text, "stream": n % 2 == 1}
        began = time.perf_counter()
        async with client.stream("POST", path, json=body) as reply:
            whole = ""
            async for part in reply.aiter_text():
                if not whole:
                    load.first.append(time.perf_counter() - began)
                whole += part
        if reply.status_code == 200 and "event: error" not in whole:
            load.seconds.append(time.perf_counter() - began)
            said.append(text)
        else:
            code = str(reply.status_code)
            load.errors[code] = load.errors.get(code, 0) + 1
    turns = (await client.get(f"/sessions/{session}")).json()["turns"]
    kept = [turn["content"] for turn in turns[::2]]
    load.lost += len(said) - sum(one in kept for one in said) + (kept != said)
    await client.delete(f"/sessions/{session}")


async def vanish(client: httpx.AsyncClient, load: Load) -> None:
    """A client that leaves before its reply has come."""
    with suppress(httpx.TimeoutException):
        body = {"messages": [{"role": "user", "content": "Tell me a long story"}], "stream": True}
        await client.post("/v1/chat/completions", json=body, timeout=0.5)
    load.vanished += 1


async def measure(url: str, sessions: int, messages: int, vanishing: int) -> Load:
    """Hold the sessions side by side."""
    load = Load()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits, trust_env=False) as client:
        began = time.perf_counter()
        leaving = [vanish(client, load) for _ in range(vanishing)]
        await asyncio.gather(*(hold(client, n, messages, load) for n in range(sessions)), *leaving)
        load.wall = time.perf_counter() - began
    return load


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="movies")
    parser.add_argument("--url")
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--messages", type=int, default=3)
    parser.add_argument("--vanishing", type=int, default=5)
    parser.add_argument("--running", type=int, default=4)
    given = parser.parse_args()
    from serving_helpers import CLI, Served, serving

    flags = ["--port", "0", "--timeout", "600", "--waiting", "1000", "--running", str(given.running)]
    command = [*CLI, "serve", "--http", "--bundle", given.bundle, *flags]
    with nullcontext(Served(given.url, None)) if given.url else serving(command) as server:
        load = asyncio.run(measure(server.url, given.sessions, given.messages, given.vanishing))
        metrics = httpx.get(f"{server.url}/metrics").text
    forwarded = [line.split()[1] for line in metrics.splitlines() if line.startswith("gcrs_tokens_forwarded ")]
    told = {"sessions": given.sessions, "messages": given.messages, "running": given.running, **load.as_json()}
    print(json.dumps(told | {"tokens_forwarded": float(forwarded[0]) if forwarded else None}))
    return int(bool(load.errors or load.lost))


if __name__ == "__main__":
    sys.exit(main())
