"""Progress of long work as lines of text, where there is no terminal for bars. Knows nothing of the work."""

from __future__ import annotations

import time
from collections.abc import Callable

EVERY = 30.0  # seconds between two lines


class ProgressLines:
    """A `progress(done, total, what)` that says nothing of quick work and one line every 30 seconds of slow work.

    The time left is judged by the present stage alone, without what comes between its parts and has a total of 0, such
    as a validation.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._told = self._began = clock()
        self._first = self._done = self._total = 0
        self._paused: float | None = None

    def __call__(self, done: int, total: int, what: str) -> None:
        now = self._clock()
        if total == 0:
            self._paused = now if self._paused is None else self._paused
        else:
            if total != self._total or done < self._done:  # another stage has begun
                self._began, self._first, self._total = now, done, total
            elif self._paused is not None:
                self._began += now - self._paused
            self._done, self._paused = done, None
        if now - self._told >= EVERY:
            self._told = now
            self._say(self._line(done, total, what, now - self._began))

    def _line(self, done: int, total: int, what: str, seconds: float) -> str:
        if total == 0:
            return what
        gone = done - self._first
        left = f", {seconds * (total - done) / gone / 60:.1f} min left" if gone > 0 else ""
        return f"{what}: {100 * done / total:.0f} %{left}"
