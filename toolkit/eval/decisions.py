"""How good the intent step and the target step are by themselves, and what gold replies cost the model.

Pure functions. Knows nothing of models or files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gcrs.toolkit.eval.metrics import share


def intent_scores(said: Sequence[bool], gold: Sequence[bool], groups: Sequence[str], *, seed: int) -> dict[str, Any]:
    """Accuracy over all assistant turns; precision and recall of "recommend"; each with its interval and n.

    `said` is whether the model recommends, `gold` whether the reply does, `groups` the turns' dialogues.
    """
    ours, true = np.asarray(said, dtype=bool), np.asarray(gold, dtype=bool)

    def among(of: np.ndarray, values: np.ndarray) -> dict[str, Any]:
        kept = np.flatnonzero(of).tolist()
        return share(values[kept], [groups[n] for n in kept], seed=seed)

    return {
        "accuracy": among(np.ones(len(ours), dtype=bool), ours == true),
        "precision": among(ours, true),
        "recall": among(true, ours),
    }


def perplexity(nats: float, tokens: int) -> float | None:
    """exp(nats / tokens); None without tokens."""
    return math.exp(nats / tokens) if tokens else None


def bits_per_byte(nats: float, size: int) -> float | None:
    """nats / ln 2 / bytes: what a text costs whatever the tokenizer; None without bytes."""
    return nats / math.log(2) / size if size else None
