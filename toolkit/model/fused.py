"""PEFT's layers and the head's loss with fewer passes over memory: the same functions, the same gradients.

PEFT's LoRA layer converts, scales and adds whole activations one after the other, its rows of new tokens copy the whole
embedding at every use, and a cross-entropy over a large vocabulary keeps three tensors of its size. On a CPU these take
longer than the matrix products. Knows nothing of data, optimisers or runs. Source: the chunked linear cross-entropy of
Liger-Kernel (Hsu et al., 2024); hand-derived LoRA gradients as in Unsloth.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from gcrs.toolkit.model.head_chunks import positions_at_once


def compute_dtype(x: torch.Tensor) -> torch.dtype:
    """The dtype that a linear layer multiplies `x` in: autocast's where it is on, else that of `x`."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


class _LowRankLinear(torch.autograd.Function):
    """x W^T + bias + (x A^T) (scale B)^T for a frozen W [out, in], A [r, in] and B [out, r]."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, a: torch.Tensor,
                b: torch.Tensor, scale: float) -> torch.Tensor:  # fmt: skip
        dtype = compute_dtype(x)
        flat, weight = x.reshape(-1, x.shape[-1]).to(dtype), weight.to(dtype)
        low, high = a.to(dtype), b.to(dtype) * scale
        inner = flat @ low.T
        out = nn.functional.linear(flat, weight, None if bias is None else bias.to(dtype))
        out.addmm_(inner, high.T)
        ctx.save_for_backward(flat, inner, weight, low, high)
        ctx.scale, ctx.dtypes, ctx.shape = scale, (x.dtype, a.dtype, b.dtype), x.shape
        return out.view(*x.shape[:-1], out.shape[-1])

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        flat, inner, weight, low, high = ctx.saved_tensors
        of_x, of_a, of_b = ctx.dtypes
        grad = grad.reshape(-1, grad.shape[-1]).to(weight.dtype)
        through = grad @ high
        out = None
        if ctx.needs_input_grad[0]:
            out = (grad @ weight).addmm_(through, low).to(of_x).view(ctx.shape)
        of_low = (through.T @ flat).to(of_a)
        of_high = (grad.T @ inner).to(of_b) * ctx.scale
        return out, None, None, of_low, of_high, None


def _low_rank_forward(layer: Any, x: torch.Tensor) -> torch.Tensor:
    base, a, b = layer.base_layer, layer.lora_A["default"].weight, layer.lora_B["default"].weight
    return _LowRankLinear.apply(x, base.weight, base.bias, a, b, layer.scaling["default"])  # type: ignore[no-any-return, no-untyped-call]


def _rows_forward(layer: Any, ids: torch.Tensor) -> torch.Tensor:
    """The embedding with its trained rows put where the ids ask for them, rather than into a copy of the table."""
    out, rows = layer.base_layer(ids), layer.trainable_tokens_delta["default"]
    first = layer.token_indices["default"][0]
    where = (ids >= first) & (ids < first + len(rows))
    return out.index_put((where,), rows[ids[where] - first].to(out.dtype))  # type: ignore[no-any-return]


def fuse(model: Any) -> int:
    """Replace what can be replaced in a PEFT model; returns how many layers. Others go on as PEFT has them."""
    from peft.tuners.lora import Linear as LoraLinear

    done = 0
    for layer in model.modules():
        if type(layer) is LoraLinear and _plain(layer):
            layer.forward = partial(_low_rank_forward, layer)  # type: ignore[method-assign]
            done += 1
        elif _has_rows(layer) and type(layer.base_layer) is nn.Embedding:
            layer.forward = partial(_rows_forward, layer)
            done += 1
    return done


def _plain(layer: Any) -> bool:
    """Whether a LoRA layer is A, B and a scale over an ordinary linear layer, without dropout."""
    one = list(layer.lora_A) == ["default"] and not layer.lora_variant and not layer.merged
    return one and type(layer.base_layer) is nn.Linear and isinstance(layer.lora_dropout["default"], nn.Identity)


def _has_rows(layer: Any) -> bool:
    """Whether a layer is PEFT's rows of new tokens that follow one another, of one adapter."""
    indices = getattr(layer, "token_indices", None)
    if not isinstance(indices, dict) or list(indices) != ["default"]:
        return False
    found = indices["default"]
    return list(found) == list(range(found[0], found[0] + len(found)))


class _HeadLoss(torch.autograd.Function):
    """The weighted sum of a linear head's cross-entropies, and each; logits and gradients a chunk at a time."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, table: torch.Tensor, rows: torch.Tensor, first: int,
                wanted: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        dtype = compute_dtype(hidden)
        last = first + len(rows)
        table.data[first:last] = rows.to(table.dtype)  # nothing reads these rows of the frozen table but this
        flat, weight = hidden.to(dtype), table.to(dtype)
        size = positions_at_once(len(table), cuda=hidden.is_cuda)
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        of_hidden = torch.empty_like(flat)
        of_rows = torch.zeros(rows.shape, dtype=torch.float32, device=rows.device)
        for start in range(0, len(hidden), size):
            part = slice(start, start + size)
            logits = (flat[part] @ weight.T).float()
            chances = torch.log_softmax(logits, dim=-1)
            asked = wanted[part, None]
            losses[part] = -chances.gather(1, asked)[:, 0]
            grad = chances.exp_()
            grad.scatter_add_(1, asked, torch.full_like(asked, -1, dtype=grad.dtype))
            small = (grad * weights[part, None]).to(dtype)
            torch.mm(small, weight, out=of_hidden[part])
            of_rows += (small[:, first:last].T @ flat[part]).float()
        ctx.save_for_backward(of_hidden, of_rows)
        ctx.dtypes = hidden.dtype, rows.dtype
        ctx.mark_non_differentiable(losses)
        return (losses * weights).sum(), losses

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        of_hidden, of_rows = ctx.saved_tensors
        of_x, of_r = ctx.dtypes
        return (of_hidden * grad).to(of_x), None, (of_rows * grad).to(of_r), None, None, None


def chunked_loss(
    hidden: torch.Tensor,
    table: torch.Tensor,
    rows: torch.Tensor,
    first: int,
    wanted: torch.Tensor,
    weights: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(weighted sum, cross-entropy by position fp32 [n]) of hidden states [n, width] under a frozen head.

    `table` is the head [tokens, width], `rows` what is trained in place of its rows from `first` on (its own are
    overwritten), `wanted` and `weights` are [n].
    """
    return _HeadLoss.apply(hidden, table, rows, first, wanted, weights)  # type: ignore[no-any-return, no-untyped-call]


def head_loss(
    head: Any, hidden: torch.Tensor, wanted: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """`chunked_loss` of a model's head; None where that is not PEFT's rows over a frozen linear layer without bias."""
    layer = getattr(head, "token_adapter", None)
    if layer is None or not _has_rows(layer):
        return None
    base = layer.base_layer
    if type(base) is not nn.Linear or base.bias is not None or base.weight.requires_grad:
        return None
    rows, first = layer.trainable_tokens_delta["default"], layer.token_indices["default"][0]
    return chunked_loss(hidden, base.weight, rows, first, wanted, weights)
