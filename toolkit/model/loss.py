"""The loss of a training step: weighted next-token cross-entropy over supervised positions.

Knows nothing of batches, optimisers or devices.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from gcrs.toolkit.model.adapter import unwrapped
from gcrs.toolkit.model.causal_attention import use_causal_attention
from gcrs.toolkit.model.fused import head_loss


class SupervisedLoss(nn.Module):
    """Weighted next-token cross-entropy, the output head applied to supervised positions alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        use_causal_attention(unwrapped(model))

    def forward(self, ids: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean loss, cross-entropy by supervised token fp32 [supervised]); `ids` and `weights` are [batch, length]."""
        causal = unwrapped(self.model)
        hidden = causal.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        chosen = weights[:, 1:] > 0
        head, states, wanted = causal.get_output_embeddings(), hidden[:, :-1][chosen], ids[:, 1:][chosen]
        weight = weights[:, 1:][chosen]
        weight = weight / weight.sum().clamp_min(1e-6)
        found = head_loss(head, states, wanted, weight)
        if found is not None:
            return found
        losses = nn.functional.cross_entropy(head(states).float(), wanted, reduction="none")
        return (losses * weight).sum(), losses.detach()
