"""Causal attention for training in bf16 on a CPU: plain matrix products a block of queries at a time.

torch's fused attention does not use a CPU's bf16 instructions in its backward pass: over the short sequences of
dialogues it takes 1.3 to 6 times as long as these products (docs/bench.md). Scores are computed again in the backward
pass, so that nothing of the size length x length is kept. Knows nothing of models beside the interface that
transformers calls.
"""

from __future__ import annotations

from typing import Any

import torch

NAME = "gcrs_causal"
BLOCK = 256  # queries at once: their scores stay near the caches


class _CausalAttention(torch.autograd.Function):
    """softmax(scale q k^T) v, each query over the keys up to its own place.

    `q` is [batch, groups, heads a group, length, dim], `k` and `v` [batch, groups, length, dim].
    """

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        for start, stop in _blocks(q.shape[3]):
            chances = _chances(q, k, start, stop, scale).to(v.dtype)
            out[:, :, :, start:stop] = (chances.flatten(2, 3) @ v[:, :, :stop]).view(*chances.shape[:-1], v.shape[-1])
        ctx.save_for_backward(q, k, v)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        q, k, v = ctx.saved_tensors
        of_q = torch.empty_like(q, memory_format=torch.contiguous_format)
        of_k, of_v = torch.zeros_like(k), torch.zeros_like(v)
        for start, stop in reversed(_blocks(q.shape[3])):
            chances = _chances(q, k, start, stop, ctx.scale)
            given = grad[:, :, :, start:stop].flatten(2, 3)
            keys, values = k[:, :, :stop], v[:, :, :stop]
            flat = chances.to(v.dtype).flatten(2, 3)
            of_v[:, :, :stop] += flat.transpose(-1, -2) @ given
            through = (given @ values.transpose(-1, -2)).float().view(chances.shape)
            scores = torch._softmax_backward_data(through, chances, -1, torch.float32)  # type: ignore[attr-defined]
            scores = scores.mul_(ctx.scale).to(q.dtype).flatten(2, 3)
            of_q[:, :, :, start:stop] = (scores @ keys).view(*chances.shape[:-1], k.shape[-1])
            of_k[:, :, :stop] += scores.transpose(-1, -2) @ q[:, :, :, start:stop].flatten(2, 3)
        return of_q, of_k, of_v, None


def _blocks(length: int) -> list[tuple[int, int]]:
    return [(start, min(length, start + BLOCK)) for start in range(0, length, BLOCK)]


def _chances(q: torch.Tensor, k: torch.Tensor, start: int, stop: int, scale: float) -> torch.Tensor:
    """Attention of the queries start..stop over the keys ..stop, fp32 [batch, groups, heads a group, queries, keys]."""
    asked = q[:, :, :, start:stop]
    scores = (asked.flatten(2, 3) @ k[:, :, :stop].transpose(-1, -2)).float().mul_(scale)
    scores = scores.view(*asked.shape[:-1], stop)
    later = torch.ones(stop - start, stop, dtype=torch.bool, device=q.device).triu_(start + 1)
    return torch.softmax(scores.masked_fill_(later, float("-inf")), dim=-1)


def causal_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    """Attention of `q` [batch, heads, length, dim] over `k` and `v` [batch, groups, length, dim], shaped as `q`."""
    groups = k.shape[1]
    split = q.view(q.shape[0], groups, q.shape[1] // groups, *q.shape[2:])
    return _CausalAttention.apply(split, k, v, scale).flatten(1, 2)  # type: ignore[no-any-return, no-untyped-call]


def _forward(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None,
    scaling: float | None = None, dropout: float = 0.0, **more: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """What transformers calls; what is not plain causal attention in bf16 on a CPU goes to torch's own."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    halves = query.dtype == key.dtype == value.dtype == torch.bfloat16 and query.device.type == "cpu"
    causal = getattr(module, "is_causal", True) and more.get("is_causal") in (None, True)
    if attention_mask is not None or dropout or query.shape[2] != key.shape[2] or not (halves and causal):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **more)  # type: ignore[no-any-return]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return causal_attention(query, key, value, scale).transpose(1, 2), None


def use_causal_attention(model: Any) -> None:
    """Let a transformers model that uses torch's attention use this one; masks are made as for torch's."""
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

    if getattr(model.config, "_attn_implementation", None) != "sdpa":
        return
    AttentionInterface.register(NAME, _forward)
    AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    model.set_attn_implementation(NAME)
