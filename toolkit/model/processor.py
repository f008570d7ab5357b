"""MaskProcessor: the one Outlines logits processor; every mask of every decoding comes from here.

It applies a grammar to logits: -inf on what is illegal, and log-probabilities over the grammar's normaliser where it
has one. A code that the model was never taught to write at a place counts there as much as the mean of those that it
was: its own logit says no more than that nobody wrote it. It keeps no state, so beams may be reordered between calls.
Knows nothing of the model or of search.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from outlines.processors import OutlinesLogitsProcessor
from outlines.processors.tensor_adapters.torch import TorchTensorAdapter

from gcrs.toolkit.errors import GcrsError
from gcrs.toolkit.model.grammar import UNFORCED, Grammar


class MaskProcessor(OutlinesLogitsProcessor):
    """Masks logits by a grammar.

    `input_ids` are int64 [b, start + n]: the first `start` ids are the prompt and are not read (our engine hands in
    generated ids only; transformers' `generate` puts the prompt in front). Logits are float [b, c], one column for
    each of `columns(input_ids)`, or [b, vocabulary]; the result is float32 of the same shape.
    """

    def __init__(self, grammar: Grammar, *, start: int = 0) -> None:
        # not super().__init__("torch"): all that it adds is to loosen torch.compile's errors for the whole process
        self.tensor_adapter = TorchTensorAdapter()  # type: ignore[abstract]
        self.grammar = grammar
        self.start = start

    def reset(self) -> None:
        """Nothing to reset: the place in the grammar is read from the ids at each step."""

    def _generated(self, input_ids: Any) -> np.ndarray:
        ids = input_ids.cpu().numpy() if isinstance(input_ids, torch.Tensor) else np.asarray(input_ids)
        return ids[:, self.start :]

    def columns(self, input_ids: Any) -> np.ndarray:
        """Token ids whose logits matter next, int64 [c], ascending."""
        return self.grammar.columns(self._generated(input_ids))

    def forced(self, input_ids: Any) -> np.ndarray:
        """The token that must follow each row and costs nothing, else -1; int64 [b]."""
        return self.grammar.forced(self._generated(input_ids))

    def process_logits(self, input_ids: Any, logits: Any) -> Any:
        """Scores of the same shape: -inf where illegal, log-probabilities where the grammar normalises."""
        generated = self._generated(input_ids)
        columns = self.grammar.columns(generated)
        legal = torch.from_numpy(self.grammar.legal(generated)).to(logits.device)
        normaliser = self.grammar.normaliser(generated)
        width = logits.shape[1]
        dense = width != len(columns)
        if dense and width <= int(columns.max()):
            raise GcrsError(f"Logits have {width} columns, expected {len(columns)} or the whole vocabulary.")
        at = torch.from_numpy(columns).to(logits.device)
        scores = (logits[:, at] if dense else logits).float()
        if normaliser is not None:
            inside = torch.from_numpy(normaliser).to(logits.device)
            if (untaught := self.grammar.untaught(generated)) is not None:
                scores = _shared(scores, inside, torch.from_numpy(untaught).to(logits.device))
            scores = torch.log_softmax(scores.masked_fill(~inside, -torch.inf), dim=-1)
        scores = scores.masked_fill(~legal, -torch.inf)
        if not dense:
            return scores
        full = torch.full_like(logits, -torch.inf, dtype=torch.float32)
        full[:, at] = scores
        return full


def _shared(scores: torch.Tensor, inside: torch.Tensor, untaught: torch.Tensor) -> torch.Tensor:
    """Logits [b, c] with those `untaught` at the mean probability of the others inside; as they are without others."""
    taught = inside & ~untaught
    count = taught.sum(dim=-1, keepdim=True)
    mean = torch.logsumexp(scores.masked_fill(~taught, -torch.inf), dim=-1, keepdim=True) - count.clamp(min=1).log()
    return torch.where(untaught & (count > 0), mean, scores)


__all__ = ["UNFORCED", "MaskProcessor"]
