"""Choosing one token from masked logits, and turning a stream of tokens into whole characters.

Knows nothing of grammars, items or models: a row of logits in, a token id out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gcrs.toolkit.errors import UsageError

NUCLEUS_TRY = 256  # the nucleus is nearly always inside the best 256 tokens; else all are sorted
LONGEST_CHARACTER = 4  # bytes of a UTF-8 character, so tokens that one can span


@dataclass(frozen=True)
class Sampling:
    """How a reply is drawn: softmax temperature (0 = greedy), nucleus, repetition penalty, length and seed.

    `max_tokens` bounds the ids before the closing mark. Without a seed, every reply is drawn afresh.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    repetition_penalty: float = 1.1
    max_tokens: int = 80
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise UsageError(f"temperature is {self.temperature}, expected 0 (greedy) or more.")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p is {self.top_p}, expected more than 0 and at most 1.")
        if not self.repetition_penalty > 0:
            raise UsageError(f"repetition_penalty is {self.repetition_penalty}, expected more than 0 (1 = none).")
        if self.max_tokens < 1:
            raise UsageError(f"max_tokens is {self.max_tokens}, expected 1 or more.")


class Sampler:
    """Draws tokens by one `Sampling`; the same seed and the same logits give the same tokens."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._rng = np.random.default_rng(sampling.seed)

    def pick(self, logits: torch.Tensor, repeated: Sequence[int] = ()) -> int:
        """The index drawn from `logits` (float32 [columns], -inf = illegal); `repeated` columns are penalised.

        The penalty divides positive logits and multiplies negative ones (Keskar et al. 2019, CTRL, section 4.1).
        """
        penalty = self.sampling.repetition_penalty
        if penalty != 1 and len(repeated):
            columns = torch.as_tensor(list(repeated), device=logits.device)
            seen = logits[columns]
            logits = logits.clone()
            logits[columns] = torch.where(seen > 0, seen / penalty, seen * penalty)
        if self.sampling.temperature == 0:
            return int(logits.argmax())
        probabilities = torch.softmax(logits.float() / self.sampling.temperature, dim=-1)
        order, best = self._nucleus(probabilities)
        edges = np.cumsum(best)
        return int(order[np.searchsorted(edges, self._rng.random() * edges[-1], side="right").clip(max=len(best) - 1)])

    def _nucleus(self, probabilities: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The fewest most probable columns that hold `top_p` of the mass, and their probabilities, best first."""
        top_p = self.sampling.top_p
        for width in (min(NUCLEUS_TRY, len(probabilities)), len(probabilities)):
            values, order = torch.topk(probabilities, width)
            best = values.double().cpu().numpy()
            count = int(np.searchsorted(np.cumsum(best), top_p)) + 1
            if count <= width and top_p < 1:
                break
        count = max(1, min(count, int((best > 0).sum())))
        return order[:count].cpu().numpy(), best[:count]


class TextStream:
    """Text tokens in, whole characters out: a token that ends inside a UTF-8 character is held until it is complete.

    Bytes that turn out to be no character at all are left out of the text.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._last: list[int] = []  # tokens of the last text given out: some decoders strip a leading space
        self.held: list[int] = []

    def push(self, token: int) -> tuple[str, tuple[int, ...]]:
        """The text that became whole with this token and its ids; ("", ()) while a character is incomplete."""
        self.held.append(token)
        before = self._decode(self._last)
        text = self._decode([*self._last, *self.held])[len(before) :]
        if text.endswith("\ufffd") and len(self.held) < LONGEST_CHARACTER:
            return "", ()
        ids: tuple[int, ...]
        if text.endswith("\ufffd"):  # no character begins with the oldest token; one may with those behind it
            text = self._decode([*self._last, self.held[0]])[len(before) :]
            ids, self._last, self.held = (self.held[0],), [], self.held[1:]
        else:
            ids, self._last, self.held = tuple(self.held), self.held, []
        return text.replace("\ufffd", ""), ids

    def drop(self) -> None:
        """Forget what is held: the text ends, or an item begins, inside a character."""
        self.held = []
