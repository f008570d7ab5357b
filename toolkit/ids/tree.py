"""PrefixTree: which codes may follow a prefix of a semantic ID, for a million items as fast as for three.

The nodes stand in breadth-first order, siblings by code, so a node's children are one run of consecutive states and
the whole tree is three flat arrays (compressed sparse rows). A filter is one boolean a node over the same arrays: it
removes paths, and the full catalogue's children stay at hand, because scores are normalised over those.

Knows nothing of token ids, item ids, logits or the model: a state is an integer, a leaf stands for a row of `codes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gcrs.toolkit.errors import DataError, DeadEnd
from gcrs.toolkit.ids.keys import id_keys

ROOT = 0


@dataclass(frozen=True, eq=False)
class PrefixTree:
    """The prefix tree of a catalogue's semantic IDs, possibly filtered. Immutable; safe to share between threads.

    States of depth l are `level_start[l] .. level_start[l + 1] - 1`; the root (depth 0) is state 0, depth L holds the
    leaves. Children of the inner state s are the states `first[s] .. first[s + 1] - 1`. `alive` is None when nothing
    is filtered. Methods that take `full=True` ignore the filter.
    """

    code_counts: tuple[int, ...]
    level_start: np.ndarray  # int64 [L + 2]
    first: np.ndarray  # int32 [inner states + 1]
    code: np.ndarray  # uint16 or int32 [states]: the code that leads into a state
    rows: np.ndarray  # int32 [n]: row of `codes` behind each leaf, leaves in order
    alive: np.ndarray | None = None  # bool [states]

    @classmethod
    def build(cls, codes: np.ndarray, code_counts: Sequence[int]) -> PrefixTree:
        """The tree over the rows of `codes` (int [n, L]); leaf i stands for one row, see `leaf_row`.

        Raises DataError on equal rows, codes out of range or a wrong shape. No rows is legal: decoding then raises
        DeadEnd.
        """
        keys = id_keys(codes, code_counts)
        order = np.argsort(keys)
        small = max(code_counts) <= 2**16
        by_id = np.asarray(codes)[order].astype(np.uint16 if small else np.int32)
        return cls.of_sorted(by_id, order.astype(np.int32), tuple(int(count) for count in code_counts))

    @classmethod
    def of_sorted(cls, by_id: np.ndarray, rows: np.ndarray, code_counts: tuple[int, ...]) -> PrefixTree:
        """The tree of IDs that are sorted and in range already (uint16 or int32 [n, L]); `rows` int32 [n] are theirs.

        Raises DataError on equal IDs.
        """
        n, levels = by_id.shape
        starts_new = np.zeros(n, dtype=bool)  # does this row, in ID order, open a new node of the current depth?
        starts_new[:1] = True
        opened = np.zeros(1, dtype=np.int64)  # row that opens each node of the depth above
        level_start, first, code = [0, 1], [], [np.zeros(1, dtype=by_id.dtype)]
        for level in range(levels):
            column = by_id[:, level]
            starts_new[1:] |= column[1:] != column[:-1]
            rank = np.cumsum(starts_new, dtype=np.int32)
            rank += level_start[-1] - 1
            first.append(rank[opened] if n else np.ones(1 if level == 0 else 0, dtype=np.int32))
            opened = np.flatnonzero(starts_new)
            code.append(column[opened])
            level_start.append(level_start[-1] + len(opened))
        if len(opened) < n:
            twin = int(np.flatnonzero(~starts_new)[0])
            a, b = sorted((int(rows[twin - 1]), int(rows[twin])))
            raise DataError(
                f"Rows {a} and {b} have the same codes {by_id[twin].tolist()}: semantic IDs must be unique."
            )
        first.append(np.array([level_start[-1]], dtype=np.int32))
        return cls(
            code_counts=code_counts,
            level_start=np.array(level_start, dtype=np.int64),
            first=np.concatenate(first),
            code=np.concatenate(code),
            rows=rows,
        )

    @property
    def levels(self) -> int:
        """Codes in a semantic ID."""
        return len(self.code_counts)

    def __len__(self) -> int:
        """Items in the full catalogue, filtered out or not."""
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, in bytes."""
        arrays = (self.level_start, self.first, self.code, self.rows, self.alive)
        return sum(array.nbytes for array in arrays if array is not None)

    @property
    def full(self) -> PrefixTree:
        """The same tree (same states, same arrays) without its filter."""
        return self if self.alive is None else replace(self, alive=None)

    def subset(self, allowed: np.ndarray) -> PrefixTree:
        """The tree with only the rows where `allowed` (bool [n]) holds, and that this tree still allows.

        States and row numbers stay the same, arrays are shared. Allowing nothing is legal: decoding raises DeadEnd.
        """
        allowed = np.asarray(allowed)
        if allowed.shape != self.rows.shape or allowed.dtype != np.bool_:
            raise DataError(f"The filter is {allowed.dtype} {allowed.shape}, expected booleans [{len(self.rows)}].")
        alive = np.zeros(int(self.level_start[-1]), dtype=bool)
        leaves = self.level_start[self.levels]
        alive[leaves:] = allowed[self.rows]
        if self.alive is not None:
            alive[leaves:] &= self.alive[leaves:]
        if len(self.rows):
            for level in reversed(range(self.levels)):
                begin, end = self.level_start[level : level + 2]
                below = int(self.level_start[level + 2])
                runs = self.first[begin:end] - end  # where each node's children begin, within the level below
                alive[begin:end] = np.logical_or.reduceat(alive[end:below], runs)
        return replace(self, alive=alive)

    def allowed_rows(self) -> np.ndarray:
        """bool [n]: the rows that can be decoded."""
        allowed = np.ones(len(self.rows), dtype=bool)
        if self.alive is not None:
            allowed[self.rows] = self.alive[self.level_start[self.levels] :]
        return allowed

    def level(self, state: int) -> int:
        """Depth of a state: 0 for the root, L for a leaf."""
        return int(self._depths(np.array([state]))[0])

    def is_leaf(self, state: int) -> bool:
        """Whether the state stands for a whole semantic ID."""
        return self.level(state) == self.levels

    def children(self, state: int, *, full: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Codes that may follow, ascending, and the states they lead to: int64 [m], int64 [m].

        Both are empty for a leaf. Raises DeadEnd when an inner state has no child left.
        """
        _, codes, states = self.children_batch(np.array([state]), full=full)
        return codes, states

    def children_batch(self, states: np.ndarray, *, full: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Children of many states at once: offsets int64 [b + 1], codes int64 [m], child states int64 [m].

        Children of `states[i]` are the entries `offsets[i] : offsets[i + 1]`, ascending by code; a leaf has none.
        Raises DeadEnd when any inner state has no child left.
        """
        states = np.asarray(states, dtype=np.int64)
        parent, child = self._living(states, full)
        offsets = np.searchsorted(parent, np.arange(len(states) + 1))
        return offsets, self.code[child].astype(np.int64), child

    def allowed_mask(self, states: np.ndarray, *, full: bool = False) -> np.ndarray:
        """bool [b, K]: which of the K codes of the next level may follow each state; the states share one depth.

        With `full=True`, the full catalogue's children: what scores are normalised over. Raises DeadEnd when a state
        has no child left or is a leaf.
        """
        states = np.asarray(states, dtype=np.int64)
        depths = self._depths(states)
        depth = int(depths[0]) if len(depths) else 0
        if (depths != depth).any() or depth == self.levels:
            raise DeadEnd(f"States of depths {sorted(set(depths.tolist()))} have no next level in common.")
        parent, child = self._living(states, full)
        width = self.code_counts[depth]
        mask = np.zeros(len(states) * width, dtype=bool)
        mask[parent * width + self.code[child]] = True
        return mask.reshape(-1, width)

    def lives(self, states: np.ndarray) -> np.ndarray:
        """bool [b]: whether an allowed item is below each state, or at it."""
        self._check(np.asarray(states, dtype=np.int64))
        return np.ones(len(states), dtype=bool) if self.alive is None else self.alive[states]

    def step_batch(self, states: np.ndarray, codes: np.ndarray, *, full: bool = False) -> np.ndarray:
        """The states (int64 [b]) after one more code each; DeadEnd when one of them does not exist or is filtered."""
        states, codes = np.asarray(states, dtype=np.int64), np.asarray(codes, dtype=np.int64)
        parent, child = self._expand(states)
        hit = self.code[child] == codes[parent]
        if self.alive is not None and not full:
            hit &= self.alive[child]
        if np.count_nonzero(hit) != len(states):  # codes of siblings differ, so each state has at most one hit
            lost = int(np.setdiff1d(np.arange(len(states)), parent[hit])[0])
            raise DeadEnd(f"No item's semantic ID continues {self.path(int(states[lost]))} with code {codes[lost]}.")
        return child[hit]

    def walk_batch(self, prefixes: np.ndarray, *, full: bool = False) -> np.ndarray:
        """The states (int64 [b]) that prefixes of equal length (int [b, l]) lead to; DeadEnd as in `step_batch`."""
        prefixes = np.asarray(prefixes, dtype=np.int64)
        states = np.full(len(prefixes), ROOT, dtype=np.int64)
        for column in prefixes.T:
            states = self.step_batch(states, column, full=full)
        return states

    def walk(self, prefix: Sequence[int], *, full: bool = False) -> int:
        """The state after the codes of `prefix`; DeadEnd when no allowed item begins so."""
        return int(self.walk_batch(np.asarray(prefix, dtype=np.int64).reshape(1, -1), full=full)[0])

    def contains(self, codes: np.ndarray, *, full: bool = False) -> np.ndarray:
        """Which rows of `codes` (int [b, L]) are the ID of an allowed item, bool [b]; any whole number may be asked."""
        codes = np.asarray(codes)
        if codes.ndim != 2 or codes.shape[1] != self.levels or not np.issubdtype(codes.dtype, np.integer):
            raise DataError(f"The codes are {codes.dtype} of shape {codes.shape}, expected [b, {self.levels}].")
        inside = np.arange(len(codes))
        states = np.zeros(len(codes), dtype=np.int64)
        for column in codes.T:
            parent, child = self._expand(states)
            hit = self.code[child] == column[inside][parent]
            if self.alive is not None and not full:
                hit &= self.alive[child]
            inside, states = inside[parent[hit]], child[hit]
        found = np.zeros(len(codes), dtype=bool)
        found[inside] = True
        return found

    def __contains__(self, semantic_id: object) -> bool:
        """Whether a sequence of codes is the whole ID of an allowed item."""
        codes = np.asarray(semantic_id)
        if codes.shape != (self.levels,) or not np.issubdtype(codes.dtype, np.integer):
            return False
        return bool(self.contains(codes[None])[0])

    def leaf_row(self, state: int) -> int:
        """The row of `codes` behind a leaf; DeadEnd for an inner state."""
        return int(self.leaf_rows(np.array([state]))[0])

    def leaf_rows(self, states: np.ndarray) -> np.ndarray:
        """The rows of `codes` (int64 [b]) behind leaves; DeadEnd when one is an inner state."""
        states = np.asarray(states, dtype=np.int64)
        if (self._depths(states) != self.levels).any():
            raise DeadEnd("A semantic ID is not complete: the state is not a leaf.")
        return self.rows[states - self.level_start[self.levels]].astype(np.int64)

    def path(self, state: int) -> tuple[int, ...]:
        """The codes from the root to a state; slower than the rest, for messages and tests."""
        codes: list[int] = []
        for _ in range(self.level(state)):
            codes.append(int(self.code[state]))
            state = int(np.searchsorted(self.first, state, side="right")) - 1
        return tuple(reversed(codes))

    def _expand(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every child in the full tree: index into `states` int64 [m], child state int64 [m]."""
        self._check(states)
        inner = states < self.level_start[self.levels]
        if inner.all():
            begin, end = self.first[states].astype(np.int64), self.first[states + 1].astype(np.int64)
        else:
            safe = np.where(inner, states, 0)
            begin = self.first[safe].astype(np.int64)
            end = np.where(inner, self.first[safe + 1], begin)
        counts = end - begin
        before = np.cumsum(counts) - counts  # children listed ahead of each state's own
        parent = np.repeat(np.arange(len(states)), counts)
        child = np.arange(len(parent)) + np.repeat(begin - before, counts)
        return parent, child

    def _living(self, states: np.ndarray, full: bool) -> tuple[np.ndarray, np.ndarray]:
        """`_expand` less what the filter removes; DeadEnd when nothing is left of an inner state's children."""
        parent, child = self._expand(states)
        inner = states < self.level_start[self.levels]
        if self.alive is None or full:
            stuck = inner & (len(self.rows) == 0)  # every node is the beginning of an ID
        else:
            stuck = inner & ~self.alive[states]  # a node lives as long as a child does
            kept = self.alive[child]
            parent, child = parent[kept], child[kept]
        if stuck.any():
            raise self._dead_end(int(states[stuck][0]))
        return parent, child

    def _check(self, states: np.ndarray) -> None:
        if len(states) and (states.min() < 0 or states.max() >= self.level_start[-1]):
            raise DeadEnd(f"State {int(states.min())} or {int(states.max())} is not in the ID tree.")

    def _depths(self, states: np.ndarray) -> np.ndarray:
        self._check(states)
        return np.searchsorted(self.level_start, states, side="right") - 1

    def _dead_end(self, state: int) -> DeadEnd:
        if state == ROOT:
            return DeadEnd(
                "No item is allowed: the catalogue is empty or the rules leave nothing.", hint="Relax a rule."
            )
        return DeadEnd(f"No allowed item's semantic ID begins with the codes {self.path(state)}.")
