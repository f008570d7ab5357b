"""Where the rows of new tokens start: ID tokens from the words of the items in their cluster, matched in norm.

Default initialisations leave codes indistinguishable, and a short training then collapses them (design.md). Knows
nothing of training.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gcrs.toolkit.ids.codebook import Codebook
from gcrs.toolkit.model.tokens import TokenSpace

CONTROL_WORDS = {
    "<REC>": "recommend",
    "<CHAT>": "chat",
    "<RESP>": "reply",
    "<BOI>": "title",
    "<EOI>": ".",
    "<|im_start|>": "\n",
    "<|im_end|>": "\n",
}


def initial_rows(
    embedding: torch.Tensor,
    tokens: TokenSpace,
    book: Codebook,
    texts: Sequence[str],
    *,
    seed: int = 0,
    noise: float = 0.1,
    words: bool = True,
) -> torch.Tensor:
    """fp32 [new tokens, dim] for the rows from `tokens.base_rows` on.

    A code's row is the mean embedding of the words of its items (`texts`, in the order of `book.ids`), less the mean
    over all items, scaled to the median norm of the base's rows; codes that no item uses get noise of that norm.
    `embedding` is the base's [rows, dim]. Without `words` every new row is noise of that norm (an ablation).
    """
    base = embedding[: tokens.base_rows].float()
    generator = torch.Generator().manual_seed(seed)
    norm = base.norm(dim=1).median()
    items = torch.stack([base[tokens.encode_text(text) or [0]].mean(dim=0) for text in texts])
    center = items.mean(dim=0)
    codes = torch.from_numpy(book.array().astype(np.int64))
    out = torch.empty(len(tokens.new_ids), base.shape[1])

    def matched(vector: torch.Tensor) -> torch.Tensor:
        return vector / vector.norm().clamp_min(1e-6) * norm

    for n, token in enumerate(tokens.new_tokens):
        spelled = CONTROL_WORDS.get(token)
        jitter = matched(torch.randn(base.shape[1], generator=generator))
        if spelled is not None:
            near = matched(base[tokens.encode_text(spelled)].mean(dim=0))
            out[n] = matched(near + noise * jitter) if words else jitter
    for level, count in enumerate(tokens.codes):
        start = tokens.level_range(level).start - tokens.base_rows
        for code in range(count):
            mine = items[codes[:, level] == code]
            jitter = matched(torch.randn(base.shape[1], generator=generator))
            if len(mine) and words:
                out[start + code] = matched(matched(mine.mean(dim=0) - center) + noise * jitter)
            else:
                out[start + code] = jitter
    return out
