"""Validation while a run goes on: recall over a few replies, under the grammar that serving uses.

Knows nothing of training; the final evaluation is elsewhere (toolkit/eval).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from gcrs.toolkit.dialogue.turns import Dialogue
    from gcrs.toolkit.ids.codebook import Codebook
    from gcrs.toolkit.model.tokens import TokenSpace


def validation_metrics(
    model: PreTrainedModel, tokens: TokenSpace, book: Codebook, dialogues: Sequence[Dialogue], limit: int
) -> dict[str, float]:
    """recall@10, @1, @50 over the first `limit` replies with items: forced mode, repeats counted."""
    from gcrs.toolkit.dialogue.encode import encode_prompt
    from gcrs.toolkit.eval.cases import contexts
    from gcrs.toolkit.eval.metrics import rank_of
    from gcrs.toolkit.model.engine import Engine

    engine = Engine(model, tokens, book, cache_bytes=0)  # the replies of one dialogue follow one another
    ranks: list[int] = []
    for n, context in enumerate(contexts(dialogues)):
        if n >= limit:
            break
        prompt = [*encode_prompt(context.dialogue, tokens, book), tokens.rec][-1024:]
        ranking = [scored.item_id for scored in engine.targets(prompt, k=50)]
        ranks.extend(rank_of(gold, ranking) for gold in context.gold)
    engine.close()
    return {f"recall@{k}": round(sum(0 < r <= k for r in ranks) / max(1, len(ranks)), 4) for k in (10, 1, 50)}
