"""What the server counts, in Prometheus' text format. Knows nothing of what the numbers mean to anybody."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from gcrs.programs.lm import is_local

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from gcrs.programs.serving.desk import Desk
    from gcrs.programs.serving.sessions import Sessions
    from gcrs.programs.serving.tools import Toolbox

SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counters and gauges of one server; `text` renders them."""

    def __init__(self, desk: Desk, sessions: Sessions, toolbox: Toolbox) -> None:
        disable_created_metrics()  # a second series for each counter, which nobody reads
        self.registry = registry = CollectorRegistry()
        labels = ("route", "status")
        self.requests = Counter("gcrs_requests", "Requests by route and status.", labels, registry=registry)
        self.seconds = Histogram(
            "gcrs_request_seconds",
            "From a request's arrival to its last byte.",
            ("route",),
            buckets=SECONDS,
            registry=registry,
        )
        self.replies = Counter("gcrs_replies", "Replies by intent.", ("intent",), registry=registry)
        self.withheld = Counter("gcrs_titles_withheld", "Titles taken out of replies.", registry=registry)
        gauges = {
            "gcrs_running": ("Requests at work.", lambda: desk.running),
            "gcrs_waiting": ("Requests that wait.", lambda: desk.waiting),
            "gcrs_sessions": ("Sessions in memory.", lambda: len(sessions)),
            "gcrs_sessions_evicted": ("Sessions forgotten for newer ones.", lambda: sessions.evicted),
            "gcrs_catalog_version": (
                "Live changes in force.",
                lambda: toolbox.talker.recommender.parts.edition.version,
            ),
        }
        lm = toolbox.talker.recommender.intent.lm
        if is_local(lm):
            engine = lm.engine.engine
            gauges |= {
                "gcrs_tokens_forwarded": ("Tokens that the model has read.", lambda: engine.stats.forwarded),
            }
            if hasattr(engine, "pool"):  # elsewhere it is that server's to tell
                gauges["gcrs_prefix_bytes"] = ("Memory of kept conversations.", lambda: engine.pool.nbytes)
        for name, (told, value) in gauges.items():
            Gauge(name, told, registry=registry).set_function(partial(_read, value))

    def count(self, intent: str, withheld: int) -> None:
        """A reply was given."""
        self.replies.labels(intent).inc()
        self.withheld.inc(withheld)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)


def _read(value: Callable[[], float]) -> float:
    """A number that decoding threads may be changing at this moment; after some tries, no number."""
    for _ in range(5):
        with suppress(RuntimeError):
            return float(value())
    return math.nan


class Counted:
    """ASGI middleware that counts requests and times them by the route that answered."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 499  # nobody was there to take an answer

        async def counting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, counting)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - began)
