"""Desk: the queue in front of the model. Some requests run at once, some wait, the rest is refused.

Work runs in threads and never waits for a client: what it has to say goes into an unbounded queue of the event loop,
and how fast that is read is the reader's affair. When who waits for a job is cancelled (its client went away) or its
time is over, the job's stop signal is raised, which the model asks for at every token. Knows nothing of HTTP, of
sessions or of what the work is.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from gcrs.programs.serving.problems import Problem

T = TypeVar("T")


class Job:
    """One piece of work with a deadline: `say` hands something out on the way, `stopped` says to end early."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds
        self._loop = loop
        self._said: asyncio.Queue[tuple[bool, Any]] = asyncio.Queue()
        self._stop = False
        self._settled: bool | None = None
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Nobody wants the result any more."""
        self._stop = True

    @property
    def abandoned(self) -> bool:
        """Whether nobody listens any more."""
        return self._stop

    def stopped(self) -> bool:
        """Whether to end early: nobody waits for the result, or its time is over."""
        return self._settled is None and (self._stop or time.monotonic() > self.deadline)

    def settle(self, *, anyway: bool = False) -> bool:
        """Whether the result counts, decided once: later stops and deadlines change nothing. From the working thread.

        `anyway` lets it count although it was stopped: what was streamed so far has been seen.
        """
        with self._lock:
            if self._settled is None:
                self._settled = anyway or not self.stopped()
            return self._settled

    def say(self, value: Any) -> None:
        """Hand something to whoever reads `heard`; returns at once. From the working thread."""
        with suppress(RuntimeError):  # the loop has ended: nobody reads
            self._loop.call_soon_threadsafe(self._said.put_nowait, (True, value))

    def end(self) -> None:
        """Nothing more is said. From the event loop."""
        self._said.put_nowait((False, None))

    async def heard(self) -> AsyncIterator[Any]:
        """What is said, as it comes, until the work has ended."""
        while True:
            more, value = await self._said.get()
            if not more:
                return
            yield value

    @property
    def too_late(self) -> Problem:
        """What to tell when its time is over."""
        text = f"The answer took longer than {self.seconds:g} seconds."
        return Problem("timeout", text, remedy="Ask for less, or again later.")


class Desk:
    """At most `running` pieces of work at once, at most `waiting` behind them, `seconds` for each, its wait included.

    Problem `busy` (503, come back later) when the queue is full, `timeout` (504) when the
    time is over.
    """

    def __init__(self, *, running: int, waiting: int, seconds: float) -> None:
        self.most_running = running
        self.most_waiting = waiting
        self.seconds = seconds
        self.waiting = 0
        self.running = 0
        self.closing = False
        self._free = asyncio.Semaphore(running)
        self._threads = ThreadPoolExecutor(running, thread_name_prefix="gcrs-desk")

    def job(self) -> Job:
        """A job whose time begins now."""
        return Job(asyncio.get_running_loop(), self.seconds)

    async def run(self, job: Job, work: Callable[[], T]) -> T:
        """Do the work in a thread, first come first served; raises what it raises. Cancelled: the job is stopped."""
        try:
            await self._enter(job)

            def settled() -> T:
                result = work()
                if not job.settle():
                    raise job.too_late
                return result

            doing = asyncio.get_running_loop().run_in_executor(self._threads, settled)
            doing.add_done_callback(self._leave)  # when the thread is free again, whoever waits or does not
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            job.stop()
            raise

    async def _enter(self, job: Job) -> None:
        """Wait for a place to work."""
        if self.closing:
            raise Problem("unavailable", "The server is stopping.", remedy="Ask again later.", retry_after=5)
        if self._free.locked() and self.waiting >= self.most_waiting:
            text = f"{self.waiting} requests are waiting, and no more may."
            wait = max(1, round(self.seconds / 10))
            raise Problem("busy", text, remedy=f"Ask again in {wait} seconds.", retry_after=wait)
        self.waiting += 1
        try:
            async with asyncio.timeout(max(0.0, job.deadline - time.monotonic())):
                await self._free.acquire()
        except TimeoutError:
            raise job.too_late from None
        finally:
            self.waiting -= 1
        self.running += 1

    def _leave(self, done: asyncio.Future[Any]) -> None:
        self.running -= 1
        self._free.release()
        if not done.cancelled():
            done.exception()  # seen: nobody may be left to take it

    def close(self) -> None:
        """Refuse new work; what runs is finished."""
        self.closing = True
        self._threads.shutdown(wait=False)
