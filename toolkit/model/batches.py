"""Which sequences make up which step: a pure function of (lengths, seed, step), so that a resumed run is the same run.

Knows nothing of models; sequences of like length share a batch, so that little is padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from gcrs.toolkit.dialogue.corpus import Corpus


class BatchPlan:
    """Bucketed batches of at most `batch_tokens` padded tokens (always at least one sequence).

    With `sequences` a batch is so many sequences drawn at random instead, whatever their lengths, shortest first; the
    last batch of an epoch is what is left.
    """

    def __init__(
        self, lengths: Sequence[int] | np.ndarray, batch_tokens: int, seed: int, sequences: int | None = None
    ) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_tokens = batch_tokens
        self.sequences = sequences
        self.seed = seed
        self._epoch = lru_cache(maxsize=2)(self._plan)

    def _plan(self, epoch: int) -> list[np.ndarray]:
        rng = np.random.default_rng([self.seed, 1, epoch])
        order = rng.permutation(len(self.lengths))
        batches: list[np.ndarray] = []
        if self.sequences is not None:
            for start in range(0, len(order), self.sequences):
                batch = order[start : start + self.sequences]
                batches.append(batch[np.argsort(self.lengths[batch], kind="stable")])
            return batches
        for chunk in np.array_split(order, max(1, len(order) // 512)):
            ordered = chunk[np.argsort(self.lengths[chunk], kind="stable")]
            batches.extend(pieces(ordered, self.lengths, self.batch_tokens))
        return [batches[n] for n in rng.permutation(len(batches))]

    def at(self, step: int) -> tuple[int, np.ndarray]:
        """(epoch, indices of the sequences) of step `step`, counted from 0."""
        epoch = 0
        while step >= len(batches := self._epoch(epoch)):
            step -= len(batches)
            epoch += 1
        return epoch, batches[step]

    @property
    def first_epoch(self) -> list[np.ndarray]:
        """The batches of the first epoch, each as indices of sequences."""
        return self._epoch(0)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in the first epoch (later ones differ by a few)."""
        return len(self.first_epoch)


class PlannedFeed:
    """The batches of a plan over a corpus: what a trainer reads where everything lies in memory."""

    def __init__(self, corpus: Corpus, plan: BatchPlan) -> None:
        self.corpus, self.plan = corpus, plan
        self.lengths = plan.lengths

    def at(self, step: int) -> tuple[int, np.ndarray]:
        """(epoch, rows of the corpus) of step `step`."""
        return self.plan.at(step)

    def sequence(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """(ids, kinds) of a row."""
        return self.corpus[row]

    def parts(self, rows: np.ndarray, most_tokens: int | None) -> list[np.ndarray]:
        """`rows` in runs of at most `most_tokens` padded tokens."""
        return pieces(rows, self.lengths, most_tokens)

    def state(self) -> None:
        """Nothing: a plan is a function of the step."""

    def restore(self, state: object) -> None:
        """Nothing to do."""


def pieces(ordered: np.ndarray, lengths: np.ndarray, most_tokens: int | None) -> list[np.ndarray]:
    """Runs of `ordered` (sequences, shortest first) of at most `most_tokens` padded tokens, or all of it for None."""
    if most_tokens is None:
        return [ordered]
    out, start = [], 0
    for n in range(1, len(ordered) + 1):
        if n == len(ordered) or lengths[ordered[n]] * (n + 1 - start) > most_tokens:
            out.append(ordered[start:n])
            start = n
    return out


def pad_right(rows: Sequence[np.ndarray], fill: int) -> np.ndarray:
    """int64 [rows, longest], padded on the right: under a causal mask no real token ever sees the padding."""
    out = np.full((len(rows), max(len(row) for row in rows)), fill, dtype=np.int64)
    for n, row in enumerate(rows):
        out[n, : len(row)] = row
    return out
