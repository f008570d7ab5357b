"""Replies that are written at the same time, their next tokens read in one forward.

A forward of one token waits for the weights to come from memory; of several replies' tokens it waits once. Each reply
runs in a thread of its own and asks here for the logits behind its ids; who comes first waits a moment for the others
and then reads for all. Knows nothing of grammars, sampling or what is said.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from gcrs.toolkit.model.cache import PrefixCache
from gcrs.toolkit.model.step_stats import StepStats

PATIENCE = 0.02  # seconds that the first waits for the others: less than a token takes
AWAY = 0.5  # seconds after which a reply that has not asked again is not waited for
MOST = 32  # replies read at once: their keys and values are laid side by side for it


@dataclass
class _Ask:
    """One reply's wish: logits [1, c] for these columns behind all of its ids."""

    ids: list[int]
    columns: np.ndarray
    logits: torch.Tensor | None = None
    error: BaseException | None = None

    @property
    def done(self) -> bool:
        return self.logits is not None or self.error is not None


class Together:
    """Reads for all replies that ask at about the same time; `lock` is the cache's owner's, `stats` counts."""

    def __init__(self, cache: PrefixCache, lock: threading.RLock, stats: StepStats) -> None:
        self._cache, self._stats = cache, stats
        self._changed = threading.Condition(lock)
        self._waiting: list[_Ask] = []
        self._asked: dict[int, float] = {}  # when each reply that is being written asked last, by a number of its own
        self._numbers = 0

    @contextmanager
    def reply(self) -> Iterator[int]:
        """The time in which one reply is written; gives the number that it asks by."""
        with self._changed:
            self._numbers += 1
            number = self._numbers
        try:
            yield number
        finally:
            with self._changed:
                self._asked.pop(number, None)
                self._changed.notify_all()

    def logits(self, number: int, ids: Sequence[int], columns: np.ndarray) -> torch.Tensor:
        """Logits float32 [1, c] of `columns` behind `ids`, all of the context. Raises what the cache raises."""
        ask = _Ask(list(ids), columns)
        with self._changed:
            self._asked[number] = time.monotonic()
            self._waiting.append(ask)
            self._changed.notify_all()
            until = time.monotonic() + PATIENCE
            try:
                while not ask.done:
                    left = until - time.monotonic()
                    if left <= 0 or len(self._waiting) >= min(MOST, self._writing()):
                        self._serve()
                    else:
                        self._changed.wait(left)
            except BaseException:  # an interrupt: nobody shall read for who has gone
                self._waiting = [one for one in self._waiting if one is not ask]
                raise
        if ask.error is not None:
            raise ask.error
        assert ask.logits is not None
        return ask.logits

    def _writing(self) -> int:
        """How many replies will ask again at any moment."""
        now = time.monotonic()
        return sum(now - last < AWAY for last in self._asked.values())

    def _serve(self) -> None:
        """Read for those who wait; the lock is held."""
        asks, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        before = self._cache.forwarded
        try:
            if len(asks) > 1:
                self._joint(asks)
            for ask in asks:
                if not ask.done:
                    self._alone(ask)
        except BaseException:
            self._waiting = [*(ask for ask in asks if not ask.done), *self._waiting]
            raise
        finally:
            self._stats.forwarded += self._cache.forwarded - before
            self._changed.notify_all()

    def _joint(self, asks: list[_Ask]) -> None:
        """One forward for all; what it cannot do is left for each alone."""
        try:
            hidden = self._cache.extend_each([ask.ids for ask in asks])
        except Exception:  # such as one prompt that is too long: each will hear of its own
            return
        self._stats.joined += 1
        self._stats.shared += len(asks)
        whole = [n for n, ask in enumerate(asks) if len(ask.columns) == self._cache.rows]
        if whole:
            rows = self._cache.logits(torch.cat([hidden[n] for n in whole]), asks[whole[0]].columns)
            for n, row in zip(whole, rows, strict=True):
                asks[n].logits = row[None]
        for n, ask in enumerate(asks):
            if ask.logits is None:
                ask.logits = self._cache.logits(hidden[n], ask.columns)

    def _alone(self, ask: _Ask) -> None:
        try:
            ask.logits = self._cache.logits(self._cache.extend(ask.ids), ask.columns)
        except Exception as error:
            ask.error = error
