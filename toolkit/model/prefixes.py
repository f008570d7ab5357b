"""Prefixes that a model has read, kept with their keys and values under a bound of memory, for many conversations.

A prompt goes on from the prefix that shares its longest beginning. Where that prefix would lose more than a few ids it
is forked: the shared keys and values are copied (measured: 100 times cheaper than reading the ids again,
docs/bench.md) and both stay. What was not used for longest goes first. Knows nothing of models, grammars or threads:
its owner holds a lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from gcrs.toolkit.errors import UsageError

ROOM = 64  # a cache layer's buffer has room for a multiple of so many entries
SHORT_TAIL = 16  # ids that are dropped rather than forked: about a target and the word after it


def _room(length: int) -> int:
    """Entries that a buffer for `length` of them has: an eighth more, so that a reply seldom outgrows it."""
    return -(-(length + length // 8) // ROOM) * ROOM


class GrowingLayer(DynamicLayer):
    """A cache layer that appends in place: DynamicLayer copies all that it holds for each token."""

    _held: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append along the third axis and return all keys and values, as views of the buffer."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        old = self.get_seq_length()
        total = old + key_states.shape[-2]
        if self._held is None or total > self._held[0].shape[-2]:
            grown = tuple(
                new.new_empty((*new.shape[:-2], _room(total), new.shape[-1])) for new in (key_states, value_states)
            )
            if self.keys is not None and self.values is not None and old:
                grown[0][..., :old, :], grown[1][..., :old, :] = self.keys, self.values
            self._held = grown[0], grown[1]
        keys, values = self._held
        keys[..., old:total, :], values[..., old:total, :] = key_states, value_states
        self.keys, self.values = keys[..., :total, :], values[..., :total, :]
        return self.keys, self.values

    def pick(self, base: int, places: torch.Tensor) -> None:
        """Keep the first `base` entries, then those at `places`; forget the others."""
        if self.keys is None or self.values is None:
            return
        chosen = self.keys[..., places, :], self.values[..., places, :]
        self.keys, self.values = (held[..., : base + len(places), :] for held in (self.keys, self.values))
        self.keys[..., base:, :], self.values[..., base:, :] = chosen

    def copy(self, length: int) -> GrowingLayer:
        """A layer of its own with the first `length` entries."""
        twin = GrowingLayer()
        if self.keys is not None and self.values is not None:
            twin.update(self.keys[..., :length, :], self.values[..., :length, :])
        return twin

    @property
    def wasteful(self) -> bool:
        """Whether the buffer is larger than a new one for its entries would be: wide beams leave one behind."""
        return self._held is not None and self._held[0].shape[-2] > _room(self.get_seq_length())

    @property
    def nbytes(self) -> int:
        """Memory of the buffers, unused room included."""
        return 0 if self._held is None else sum(held.nbytes for held in self._held)


class JoinedLayer(GrowingLayer):
    """One layer of several prefixes for a common forward: row n appends to the n-th prefix's own layer.

    Row n has `counts[n]` new entries, the others of its row are padding and are dropped.
    """

    def __init__(self, rows: Sequence[GrowingLayer], counts: Sequence[int]) -> None:
        super().__init__()
        self._rows, self._counts = rows, counts

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All keys and values of each row, zeros behind them up to the longest row: [rows, heads, longest, width]."""
        held = [
            layer.update(key_states[n : n + 1, :, :count], value_states[n : n + 1, :, :count])
            for n, (layer, count) in enumerate(zip(self._rows, self._counts, strict=True))
        ]
        longest = max(keys.shape[-2] for keys, _ in held)
        out = tuple(
            new.new_zeros((len(held), new.shape[1], longest, new.shape[-1])) for new in (key_states, value_states)
        )
        for n, both in enumerate(held):
            for side, part in zip(out, both, strict=True):
                side[n, :, : part.shape[-2]] = part[0]
        return out[0], out[1]

    def get_seq_length(self) -> int:
        """Entries of the longest row."""
        return max(layer.get_seq_length() for layer in self._rows)


class Prefix:
    """Ids that were read, with their keys and values, and the tree that grows from them at the moment."""

    def __init__(self, ids: Sequence[int] = (), layers: Sequence[GrowingLayer] = ()) -> None:
        self.ids = list(ids)
        self.past = Cache(layer_class_to_replicate=GrowingLayer)
        self.past.layers += layers
        self.last: torch.Tensor | None = None  # hidden state of the last id [1, width]
        self.branched = 0  # entries behind the ids that are nodes of a tree
        self.used = 0  # when: the pool's clock

    def common(self, ids: list[int]) -> int:
        """How many of the first `ids` are held."""
        shorter = min(len(self.ids), len(ids))
        if self.ids[:shorter] == ids[:shorter]:
            return shorter
        return next(n for n in range(shorter) if self.ids[n] != ids[n])

    def beyond(self, ids: list[int], length: int) -> bool:
        """Whether more than `length` of the first `ids` may be held: one comparison."""
        return len(self.ids) > length and len(ids) > length and self.ids[length] == ids[length]

    def fork(self, length: int) -> Prefix:
        """The first `length` ids as a prefix of its own; their keys and values are copied."""
        with torch.inference_mode():
            return Prefix(self.ids[:length], [layer.copy(length) for layer in self._layers])

    def shrink(self) -> None:
        """Give back the room that a tree or ids since dropped needed."""
        with torch.inference_mode():
            layers = [layer.copy(layer.get_seq_length()) if layer.wasteful else layer for layer in self._layers]
        self.past.layers[:] = layers

    @property
    def nbytes(self) -> int:
        """Memory of all keys and values, in bytes."""
        return sum(layer.nbytes for layer in self._layers)

    @staticmethod
    def joined(prefixes: Sequence[Prefix], counts: Sequence[int]) -> Cache:
        """What a forward reads and writes that appends `counts[n]` ids to the n-th of these prefixes; none is empty."""
        past = Cache(layer_class_to_replicate=GrowingLayer)
        past.layers += [JoinedLayer(rows, counts) for rows in zip(*(one._layers for one in prefixes), strict=True)]
        return past

    @property
    def _layers(self) -> list[GrowingLayer]:
        return [layer for layer in self.past.layers if isinstance(layer, GrowingLayer)]


@dataclass
class PoolStats:
    """What the pool has done so far. Counts only grow; prompts that go on from the prefix in use are not counted."""

    hits: int = 0  # another prefix was taken up again, whole or but for a short tail
    forks: int = 0  # the shared beginning of another one was copied
    misses: int = 0  # nothing in common with any: begun anew
    reused: int = 0  # ids that hits and forks did not read again
    evictions: int = 0


class PrefixPool:
    """Prefixes of at most `limit` bytes of keys and values in all, one of them in use (`now`).

    The one in use always stays: alone, it may be larger than the limit. The limit holds after `select` and `settle`;
    in between, a forward adds what it reads.
    """

    def __init__(self, limit: int) -> None:
        if limit < 0:
            raise UsageError(f"The cache's limit is {limit} bytes, expected 0 (one prefix alone) or more.")
        self.limit = limit
        self.stats = PoolStats()
        self.now = Prefix()
        self._parked: dict[Prefix, int] = {}  # all but the one in use, with their bytes
        self._clock = 0

    def __len__(self) -> int:
        """Prefixes held, the one in use included unless it is empty."""
        return len(self._parked) + bool(self.now.ids)

    @property
    def nbytes(self) -> int:
        """Memory of all keys and values held, in bytes."""
        return sum(self._parked.values()) + self.now.nbytes

    def clear(self) -> None:
        """Forget everything."""
        self._parked = {}
        self.now = Prefix()

    def drop(self) -> None:
        """Forget the prefix in use."""
        self.now = Prefix()

    def forget(self, prefixes: Sequence[Prefix]) -> None:
        """Forget these, wherever they are."""
        for prefix in prefixes:
            self._parked.pop(prefix, None)
        if any(prefix is self.now for prefix in prefixes):
            self.drop()

    def grown(self) -> None:
        """Count the bytes of what is not in use anew: a common forward has made it longer."""
        self._parked = {prefix: prefix.nbytes for prefix in self._parked}
        self.settle()

    def common(self, ids: list[int]) -> int:
        """How many of the first `ids` some prefix holds."""
        return self._best(ids)[1]

    def select(self, ids: list[int]) -> int:
        """Put in use what serves the prompt `ids` best; returns how many of its first ids that shares.

        The one in use must hold ids alone, no tree.
        """
        self._clock += 1
        self._parked.pop(self.now, None)  # there only after an interrupt in the middle of this
        best, shared = self._best(ids)
        short = len(best.ids) - shared <= SHORT_TAIL
        if best is not self.now or not short:
            self._put_aside()
            if shared == 0:
                self.now = Prefix()
                self.stats.misses += 1
            elif short:
                self.now = best
                self._parked.pop(best, None)
                self.stats.hits += 1
            else:
                best.used = self._clock
                self.now = best.fork(shared)
                self.stats.forks += 1
            self.stats.reused += shared
        elif not self.now.ids:
            self.stats.misses += 1
        self.now.used = self._clock
        self.settle()
        return shared

    def settle(self) -> None:
        """Evict what was not used for longest until the limit holds."""
        if not self._parked:
            return
        over = self.nbytes - self.limit
        for prefix in sorted(self._parked, key=lambda one: one.used):
            if over <= 0:
                return
            over -= self._parked.pop(prefix)
            self.stats.evictions += 1

    def _put_aside(self) -> None:
        if self.now.ids:
            self.now.shrink()
            self._parked[self.now] = self.now.nbytes

    def _best(self, ids: list[int]) -> tuple[Prefix, int]:
        """The prefix with the longest beginning in common and its length; among equals one that loses nothing."""
        best, shared = self.now, self.now.common(ids)
        for prefix in self._parked:
            if prefix.beyond(ids, shared):
                best, shared = prefix, prefix.common(ids)
            elif len(prefix.ids) == shared < len(best.ids) and prefix.ids == ids[:shared]:
                best = prefix
        return best, shared
