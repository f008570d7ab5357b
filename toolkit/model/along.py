"""What one pass over a whole dialogue tells besides rankings: intents where prompts end, and what its tokens cost.

Reads hidden states that a PrefixCache gave; a prompt's last one is where its decision is made. Knows nothing of search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gcrs.toolkit.model.grammar import Grammar, IntentGrammar
from gcrs.toolkit.model.tokens import TokenSpace

if TYPE_CHECKING:
    from gcrs.toolkit.model.cache import PrefixCache

AT_ONCE = 64  # rows of the whole vocabulary's logits: 13 MB in float32 for the default base


def recommend_chances(
    cache: PrefixCache,
    hidden: torch.Tensor,
    ends: Sequence[int],
    tokens: TokenSpace,
    processor: Callable[[Grammar], Any],
) -> np.ndarray:
    """P(recommend) float64 [ends] behind prompts of these lengths; `hidden` [ids, width] are all ids' states."""
    grammar = IntentGrammar(tokens, frozenset({"recommend", "chat"}))
    generated = np.zeros((len(ends), 0), dtype=np.int64)
    columns = grammar.columns(generated)
    logits = cache.logits(hidden[_places(ends)], columns)
    scores = processor(grammar)(torch.from_numpy(generated), logits)
    chances: np.ndarray = scores.double().exp()[:, list(columns).index(tokens.rec)].cpu().numpy()
    return chances


def losses(cache: PrefixCache, hidden: torch.Tensor, ids: Sequence[int], positions: Sequence[int]) -> np.ndarray:
    """-log P, in nats over the whole vocabulary, of the ids at these positions; float64 [positions]."""
    out = np.zeros(len(positions))
    for start in range(0, len(positions), AT_ONCE):
        part = positions[start : start + AT_ONCE]
        logits = cache.logits(hidden[_places(part)], np.arange(cache.rows))
        said = torch.tensor([ids[position] for position in part], device=logits.device)
        chosen = torch.log_softmax(logits, dim=-1).gather(1, said[:, None])[:, 0]
        out[start : start + len(part)] = -chosen.double().cpu().numpy()
    return out


def roots(hidden: torch.Tensor, ends: Sequence[int]) -> tuple[torch.Tensor, np.ndarray]:
    """Where beams begin behind prompts of these lengths: hidden states [ends, width], and the lengths int64."""
    return hidden[_places(ends)], np.asarray(ends, dtype=np.int64)


def _places(ends: Sequence[int]) -> torch.Tensor:
    return torch.tensor(list(ends), dtype=torch.long) - 1
