"""Steps drawn from several sources by their shares of the tokens: a stream that ends nowhere and can be resumed.

A deficit sampler: every token drawn credits each source with its share and costs the source it came from; the source
with the most credit is next. So each source's tokens stay within a few sequences of its share at any time, in every
single step, whatever the sequences' lengths. A step is drawn when it is asked for, never more; its sequences are
forwarded in parts of like length, so that little is padded. Knows nothing of dialogues, catalogues or models: it sees
token ids and kinds.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from gcrs.toolkit.dialogue.corpus import Corpus
from gcrs.toolkit.errors import DataError

MOST_SHUFFLED = 5_000_000  # a source with more examples is read in order: a permutation would be the largest thing here
WASTE = 0.2  # share of a part's tokens that may be padding before another part is begun
SAMPLE = 16  # steps that a forecast looks at

Encoded = tuple[np.ndarray, np.ndarray]


class EncodedTask(Protocol):
    """Numbered examples as sequences: `get(n)` is a pure function."""

    @property
    def num_examples(self) -> int:
        """How many before they repeat."""

    def get(self, n: int) -> list[Encoded]:
        """(ids int32, kinds uint8) of example n; several where it makes several sequences, [] where nothing is left."""


@dataclass
class Drawn:
    """How far one source has been read."""

    next: int = 0  # examples read, over all epochs
    tokens: int = 0
    sequences: int = 0
    credit: float = 0.0
    over: int = 0  # tokens drawn although the source had reached its cap: all had


class Deficits:
    """Which source is next. State is plain numbers: `drawn` by name."""

    def __init__(
        self, sources: Mapping[str, EncodedTask], shares: Mapping[str, float], repeats: Mapping[str, float], seed: int
    ) -> None:
        self.sources, self.shares, self.repeats, self.seed = dict(sources), dict(shares), dict(repeats), seed
        self.drawn = {name: Drawn() for name in self.sources}
        self._order = lru_cache(maxsize=2 * len(self.sources))(self._permutation)

    def open(self, name: str) -> bool:
        """Whether the source has not reached its cap."""
        return self.drawn[name].next < self.repeats[name] * self.sources[name].num_examples

    def next(self) -> list[Encoded]:
        """The sequences of the next example."""
        open_ = [name for name in self.sources if self.open(name)]
        beyond = not open_
        names = open_ or list(self.sources)
        name = max(names, key=lambda one: (self.drawn[one].credit, self.shares[one]))
        found = self._example(name)
        size = sum(len(ids) for ids, _ in found)
        whole = sum(self.shares[one] for one in names)
        for one in names:
            self.drawn[one].credit += size * self.shares[one] / whole
        mine = self.drawn[name]
        mine.credit -= size
        mine.tokens += size
        mine.sequences += len(found)
        mine.over += size if beyond else 0
        return found

    def _example(self, name: str) -> list[Encoded]:
        """The source's next example that has anything to learn from."""
        source, drawn = self.sources[name], self.drawn[name]
        for _ in range(min(source.num_examples, MOST_SHUFFLED)):
            epoch, place = divmod(drawn.next, source.num_examples)
            drawn.next += 1
            order = self._order(name, epoch)
            if found := source.get(int(order[place]) if order is not None else place):
                return found
        raise DataError(
            f"The task {name!r} has nothing to learn from: none of its examples fits.", hint="Raise max_length?"
        )

    def _permutation(self, name: str, epoch: int) -> np.ndarray | None:
        count = self.sources[name].num_examples
        if count > MOST_SHUFFLED:
            return None
        return np.random.default_rng([self.seed, 3, zlib.crc32(name.encode()), epoch]).permutation(count)

    def state(self) -> dict[str, Any]:
        return {name: asdict(drawn) for name, drawn in self.drawn.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.drawn = {name: Drawn(**state[name]) for name in self.sources}


class MixtureStream:
    """Steps of about `batch_tokens` tokens (the last example may pass it), or of so many `sequences`.

    `at` gives one step after the other; `state` and `restore` let a run go on after any of them.
    """

    def __init__(
        self,
        sources: Mapping[str, EncodedTask],
        shares: Mapping[str, float],
        repeats: Mapping[str, float],
        *,
        batch_tokens: int,
        seed: int,
        sequences: int | None = None,
    ) -> None:
        self.deficits = Deficits(sources, shares, repeats, seed)
        self.batch_tokens, self.seed, self.sequences = batch_tokens, seed, sequences
        self._held: list[Encoded] = []
        self._step = 0

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence of the step at hand."""
        return np.asarray([len(ids) for ids, _ in self._held], dtype=np.int64)

    def sequence(self, row: int) -> Encoded:
        """(ids, kinds) of a sequence of the step at hand."""
        return self._held[row]

    def at(self, step: int) -> tuple[int, np.ndarray]:
        """(step, its rows, shortest first). Steps must be asked for in order."""
        if step != self._step:
            raise ValueError(f"the stream is at step {self._step}, asked for {step}")
        self._held = self._draw()
        self._step += 1
        return step, np.argsort(self.lengths, kind="stable")

    def _draw(self) -> list[Encoded]:
        held: list[Encoded] = []
        size = 0
        while size < self.batch_tokens if self.sequences is None else len(held) < self.sequences:
            found = self.deficits.next()
            held += found
            size += sum(len(ids) for ids, _ in found)
        return held

    def parts(self, rows: np.ndarray, most_tokens: int | None) -> list[np.ndarray]:
        """`rows` (shortest first) in runs of like length, each of at most `most_tokens` padded tokens."""
        lengths, most = self.lengths, most_tokens or max(self.batch_tokens, 1)
        out, start, real = [], 0, 0
        for n in range(1, len(rows) + 1):
            real += int(lengths[rows[n - 1]])
            if n < len(rows):
                longest, count = int(lengths[rows[n]]), n + 1 - start
                padded = longest * count
                if padded <= most and 1 - (real + longest) / padded <= WASTE:
                    continue
            out.append(rows[start:n])
            start, real = n, 0
        return out

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: plain numbers."""
        return {"step": self._step, "drawn": deepcopy(self.deficits.state())}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.deficits.restore(state["drawn"])
        self._step = state["step"]

    def sample(self) -> Corpus:
        """What the first steps hold, as a corpus, for forecasts; the stream stays where it is."""
        first = MixtureStream(
            self.deficits.sources, self.deficits.shares, self.deficits.repeats,
            batch_tokens=self.batch_tokens, seed=self.seed, sequences=self.sequences,
        )  # fmt: skip
        return Corpus.of([one for _ in range(SAMPLE) for one in first._draw()])

    def counts(self) -> dict[str, dict[str, float]]:
        """By task: tokens and sequences drawn so far, how often its examples were seen, tokens beyond its cap."""
        out: dict[str, dict[str, float]] = {}
        total = sum(drawn.tokens for drawn in self.deficits.drawn.values())
        for name, drawn in self.deficits.drawn.items():
            seen = drawn.next / self.deficits.sources[name].num_examples
            out[name] = {
                "share": round(self.deficits.shares[name], 4), "drawn": round(drawn.tokens / max(1, total), 4),
                "tokens": drawn.tokens, "sequences": drawn.sequences, "repeats": round(seen, 3),
            } | ({"beyond its cap": drawn.over} if drawn.over else {})  # fmt: skip
        return out
