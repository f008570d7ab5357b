"""Adapters: LoRA on all linear layers plus the rows of new tokens, in PEFT's own file format.

Trains through PEFT; loads for inference by adding the low-rank products to the base's weights, because importing PEFT
costs more than the rest of a start-up. Knows nothing of catalogues or dialogues.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gcrs.toolkit.errors import DataError
from gcrs.toolkit.model.fused import fuse

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

PREFIX = "base_model.model."
ROWS_SUFFIX = "token_adapter.trainable_tokens_delta"


@dataclass(frozen=True)
class AdapterShape:
    """Rank, scale and dropout of a LoRA adapter."""

    rank: int = 32
    alpha: int = 64
    dropout: float = 0.0


def linear_names(model: PreTrainedModel) -> list[str]:
    """Full names of the linear layers inside the decoder blocks (the output head is not one of them)."""
    head = model.get_output_embeddings()
    return [name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear) and part is not head]


def unwrapped(model: Any) -> Any:
    """The transformers model itself, whether PEFT has wrapped it or not."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def row_modules(model: Any) -> dict[str, Any]:
    """The modules whose rows stand for tokens, by full name: the embedding and, where it is not tied, the head."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    parts = [embedding] if head is None or head.weight is embedding.weight else [embedding, head]
    names = {id(part): name for name, part in model.named_modules()}
    return {names[id(part)]: part for part in parts}


def _indices(modules: list[str], new_ids: range) -> list[int] | dict[str, list[int]]:
    """PEFT's trainable_token_indices: a list means the embedding, and the head when it is tied to it."""
    ids = list(new_ids)
    return ids if len(modules) == 1 else {name.rsplit(".", 1)[-1]: ids for name in modules}


def attach(model: PreTrainedModel, new_ids: range, shape: AdapterShape, seed: int) -> PeftModel:
    """Wrap a model for training: LoRA matrices and new rows in fp32, everything else frozen.

    An untied head trains rows of its own.
    """
    from gcrs.toolkit.model.quiet import quiet_bitsandbytes

    quiet_bitsandbytes()
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    targets = sorted({name.rsplit(".", 1)[-1] for name in linear_names(model)})
    config = LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,
        lora_dropout=shape.dropout,
        target_modules=targets,
        trainable_token_indices=_indices(list(row_modules(model)), new_ids),
        task_type="CAUSAL_LM",
    )
    peft_model = get_peft_model(model, config)
    for parameter in peft_model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    fuse(peft_model)
    return peft_model  # type: ignore[return-value]


def adapter_state(peft_model: PeftModel) -> dict[str, torch.Tensor]:
    """The adapter's tensors under PEFT's file names; embeddings other than the new rows are not among them."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(peft_model, save_embedding_layers=False)
    return {name: value.detach().contiguous() for name, value in state.items()}


def adapter_config(
    shape: AdapterShape, targets: list[str], new_ids: range, base: str, tensors: Mapping[str, torch.Tensor]
) -> dict[str, object]:
    """What PEFT needs to load the adapter of these tensors, as its adapter_config.json."""
    rows = {_rows_of(name): value for name, value in tensors.items() if name.endswith(ROWS_SUFFIX)}
    modules = sorted(rows)
    if rows:
        new_ids = _trained_ids(next(iter(rows.values())), new_ids)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": shape.rank,
        "lora_alpha": shape.alpha,
        "lora_dropout": shape.dropout,
        "target_modules": targets,
        "trainable_token_indices": _indices(modules or ["embed_tokens"], new_ids),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }


def _trained_ids(rows: torch.Tensor, new_ids: range) -> range:
    """The tokens that trained rows stand for: the new ones, or (an ablation) every token up to the last new one."""
    return new_ids if len(rows) != new_ids.stop else range(new_ids.stop)


def _rows_of(name: str) -> str:
    """The module that a tensor of token rows belongs to."""
    return name.removeprefix(PREFIX).removesuffix(f".{ROWS_SUFFIX}")


def extract_low_rank(
    before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], shape: AdapterShape
) -> dict[str, torch.Tensor]:
    """The best rank-r approximation (truncated SVD) of each linear layer's change, as LoRA tensors.

    Keys of both arguments are layer names with 2-d weights [out, in]. Source: Eckart & Young (1936).
    """
    out: dict[str, torch.Tensor] = {}
    scale = shape.alpha / shape.rank
    for name, old in before.items():
        change = after[name].float() - old.float()
        rank = min(shape.rank, *change.shape)
        u, s, v = torch.linalg.svd(change, full_matrices=False)
        root = s[:rank].sqrt()
        a = torch.zeros(shape.rank, change.shape[1])
        b = torch.zeros(change.shape[0], shape.rank)
        a[:rank] = root[:, None] * v[:rank] / scale
        b[:, :rank] = u[:, :rank] * root
        out[f"{PREFIX}{name}.lora_A.weight"] = a.contiguous()
        out[f"{PREFIX}{name}.lora_B.weight"] = b.contiguous()
    return out


def apply_adapter(model: Any, state: dict[str, torch.Tensor], scale: float, new_ids: range) -> None:
    """Add an adapter to a plain model's weights in place, in fp32, keeping the weights' dtype.

    The model's embedding must already have its new rows. Raises DataError when a tensor has no place or a wrong shape.
    """
    with torch.no_grad():
        rows = {_rows_of(name): value for name, value in state.items() if name.endswith(ROWS_SUFFIX)}
        wanted = row_modules(model)
        ids = {name: _trained_ids(value, new_ids) for name, value in rows.items()}
        shapes = {name: (len(ids.get(name, new_ids)), part.weight.shape[1]) for name, part in wanted.items()}
        if {name: tuple(value.shape) for name, value in rows.items()} != shapes:
            found = {name: tuple(value.shape) for name, value in rows.items()}
            raise DataError(f"The adapter has token rows {found}, this base model needs {shapes}.")
        for name, part in wanted.items():
            part.weight[ids[name].start : ids[name].stop] = rows[name].to(part.weight.dtype)
    add_products(model, state, scale)


def add_products(model: Any, state: dict[str, torch.Tensor], scale: float) -> None:
    """Add an adapter's low-rank products to a plain model's weights in place; DataError when one does not fit."""
    modules = dict(model.named_modules())
    with torch.no_grad():
        for name, a in state.items():
            if not name.endswith(".lora_A.weight"):
                continue
            layer = name[len(PREFIX) : -len(".lora_A.weight")]
            b = state.get(f"{PREFIX}{layer}.lora_B.weight")
            module = modules.get(layer)
            if b is None or module is None or (b.shape[0], a.shape[1]) != tuple(module.weight.shape):  # type: ignore[arg-type]
                raise DataError(f"The adapter's layer {layer} does not fit this base model.")
            weight = module.weight  # type: ignore[assignment]
            weight.copy_((weight.float() + scale * (b.float() @ a.float())).to(weight.dtype))


def read_adapter(directory: Path) -> tuple[dict[str, torch.Tensor], float]:
    """(tensors, scale) of adapter_model.safetensors + adapter_config.json. DataError when broken."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
        state = load_file(directory / "adapter_model.safetensors")
        return state, float(config["lora_alpha"]) / float(config["r"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"The adapter in {directory} cannot be read: {error}.") from error
