"""Sessions: a bounded number of ChatSessions by unguessable ids, the least recently used one leaving first.

With a directory each is saved after every change and comes back from there when it is asked for again, also after a
restart. Messages of one session are answered one after the other, in the order in which they came. Knows nothing of
HTTP.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from gcrs.programs.serving.problems import Problem
from gcrs.programs.session import ChatSession
from gcrs.toolkit.errors import DataError

MOST_BEHIND = 8  # messages of one session that may wait for each other
_ID = re.compile(r"[A-Za-z0-9_-]{22}")

Make = Callable[[Sequence[str], Sequence[str], "int | None"], ChatSession]


class Held:
    """A session in memory, when it began, and the order of those who use it."""

    def __init__(self, name: str, chat: ChatSession) -> None:
        self.name = name
        self.chat = chat
        self.began = time.time()
        self.users = 0
        self.turn = asyncio.Lock()  # fair: waiters go in the order in which they came


class Sessions:
    """At most `most` sessions in memory; `make` gives a new ChatSession for rules, exclusions and a seed."""

    def __init__(self, make: Make, *, most: int, directory: Path | None = None) -> None:
        self._make = make
        self.most = most
        self.directory = directory
        self.evicted = 0
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._loading = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._held)

    async def create(self, where: Sequence[str], exclude: Sequence[str], seed: int | None) -> Held:
        """A new session. Problem `busy` when every one is in use; what `make` raises for rules."""
        held = Held(secrets.token_urlsafe(16), await asyncio.to_thread(self._make, where, exclude, seed))
        self._add(held)
        await asyncio.to_thread(self.save, held)
        return held

    async def find(self, name: str) -> Held:
        """The session, to be read; Problem when there is none."""
        if (held := self._held.get(name)) is not None:
            return held
        if not _ID.fullmatch(name) or self.directory is None:
            raise _unknown(name)
        async with self._loading:
            if name not in self._held:
                self._add(Held(name, await asyncio.to_thread(self._load, name)))
            return self._held[name]

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[Held]:
        """The session, for one user at a time. Problem: unknown (404), or too many behind each other (429)."""
        held = await self.find(name)
        if held.users > MOST_BEHIND:
            raise Problem(
                "too_many_requests",
                f"{held.users} messages of this session are being answered already.",
                remedy="Wait for their replies.",
                retry_after=1,
            )
        held.users += 1
        self._held.move_to_end(name)
        try:
            async with held.turn:
                if self._held.get(name) is not held:
                    raise _unknown(name)
                yield held
        finally:
            held.users -= 1

    async def delete(self, name: str) -> None:
        """Forget a session and its file; Problem when there is none."""
        await self.find(name)
        self._held.pop(name, None)
        if self.directory is not None:
            self._file(name).unlink(missing_ok=True)

    def save(self, held: Held) -> None:
        """Write the session's file, where files are kept and the session was not deleted meanwhile."""
        if self.directory is not None and self._held.get(held.name) is held:
            held.chat.save(self._file(held.name))

    def _file(self, name: str) -> Path:
        assert self.directory is not None
        return self.directory / f"{name}.json"

    def _load(self, name: str) -> ChatSession:
        """A session from its file, under the rules of today and those that it was begun with."""
        file = self._file(name)
        if not file.is_file():
            raise _unknown(name)
        chat = self._make((), (), None)
        mine = chat.rules
        try:
            saved = chat.load(file, exclude=mine.exclude, allow=mine.allow, or_unknown=mine.or_unknown)
            if more := [rule for rule in saved.where if rule not in mine.where]:
                chat.load(file, where=[*mine.where, *more], exclude=mine.exclude, allow=mine.allow)
        except DataError as error:
            raise Problem("unknown_session", error.message, field="session", value=name, remedy=error.hint) from None
        return chat

    def _add(self, held: Held) -> None:
        while len(self._held) >= self.most:
            idle = next((name for name, one in self._held.items() if not one.users), None)
            if idle is None:
                text = f"All {self.most} sessions are in use."
                raise Problem("busy", text, remedy="Ask again in 5 seconds.", retry_after=5)
            del self._held[idle]
            self.evicted += 1
        self._held[held.name] = held


def _unknown(name: str) -> Problem:
    return Problem(
        "unknown_session",
        "There is no such session.",
        field="session",
        value=name,
        remedy="Create one: POST /sessions. The least recently used ones are forgotten first.",
    )
