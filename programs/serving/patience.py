"""How long a connection may take to say what it wants: uvicorn's HTTP protocol with a bound on a request's head.

The body has its own bound (doors.py). Knows nothing of routes.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol


def patient(seconds: float) -> type[asyncio.Protocol]:
    """The protocol that closes a connection whose request has no whole head after so many seconds."""
    base: Any = AutoHTTPProtocol

    class Patient(base):  # type: ignore[misc]
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._watch(over=True)
            super().connection_lost(exc)

        def _watch(self, *, over: bool = False) -> None:
            """Begin to count when a head is awaited, stop when it is there."""
            awaited = not over and (self.cycle is None or self.cycle.response_complete)
            if awaited and self._late is None:
                self._late = self.loop.call_later(seconds, self.transport.close)
            elif not awaited and self._late is not None:
                self._late.cancel()
                self._late = None

    return Patient
