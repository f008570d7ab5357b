"""export: a bundle and its base as one plain Hugging Face directory, which other engines load without gcrs.

Adapter and base are merged; the tokenizer is the extended one; the bundle itself travels along under `gcrs/`, so that
`--bundle OUT/gcrs` still works. Without our grammar such a model may write IDs that no item has: who decodes it
elsewhere has to constrain it with `gcrs/semantic_ids.json`. Knows nothing of decoding.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrs.toolkit.errors import DataError
from gcrs.toolkit.files import atomic_directory, read_json, strangers

if TYPE_CHECKING:
    import torch

    from gcrs.toolkit.model.bundle import Bundle
    from gcrs.toolkit.model.tokens import TokenSpace

COPIED = "gcrs"  # the folder of the bundle's own files, and what marks a directory as ours
MANIFEST = "gcrs.json"
SHARD = "5GB"
WRITTEN = (COPIED, "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
           "model*.safetensors", "model.safetensors.index.json")  # fmt: skip
# Our turns, as encode() writes them; a message's content may hold tokens such as <REC> and semantic IDs.
CHAT_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
Progress = Callable[[int, int, str], None]


def export(
    bundle: Bundle, out: Path, dtype: torch.dtype, *, shard: str = SHARD, progress: Progress | None = None
) -> dict[str, Any]:
    """Write the merged model, whole or not at all; returns {"out", "bundle", "base", "dtype", "parameters", "bytes"}.

    Weights larger than `shard` are split, with an index. Raises DataError when `out` holds something that is no export
    of gcrs, MissingModelError when the base is not here.
    """
    from gcrs.toolkit.model.bundle import merge
    from gcrs.toolkit.model.quiet import quiet_transformers

    _check_replaceable(out)
    model: Any = merge(bundle, dtype, progress)
    tokens = bundle.tokens
    ends = {"eos_token_id": tokens.end, "pad_token_id": tokens.end, "bos_token_id": next(iter(tokens.bos), None)}
    model.config.update(ends)
    model.generation_config = type(model.generation_config)(**ends, do_sample=False)
    with quiet_transformers(), atomic_directory(out) as staged:
        model.save_pretrained(staged, safe_serialization=True, max_shard_size=shard)
        (staged / "tokenizer.json").write_text(tokens.extended_json(), encoding="utf-8")
        (staged / "tokenizer_config.json").write_text(json.dumps(_tokenizer_config(tokens, model), indent=1) + "\n")
        shutil.copytree(bundle.directory, staged / COPIED)
        size = sum(path.stat().st_size for path in staged.iterdir() if path.is_file())
    return {
        "out": str(out),
        "bundle": bundle.hash,
        "base": bundle.manifest["base"]["name"],
        "dtype": str(dtype).removeprefix("torch."),
        "parameters": model.num_parameters(),
        "bytes": size,
    }


def _check_replaceable(out: Path) -> None:
    ours = (out / COPIED / MANIFEST).is_file() and (out / "config.json").is_file()
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not ours):
        raise DataError(f"{out} exists and is no export of gcrs.", hint="Choose another --out.")
    if ours:  # it will be replaced whole
        parts = read_json(out / COPIED / MANIFEST).get("parts", {})
        inside = [f"{COPIED}/{name}" for name in strangers(out / COPIED, MANIFEST, *parts)]
        if others := [*strangers(out, *WRITTEN), *inside]:
            raise DataError(
                f"{out} holds {others[0]!r}, which is no part of an export.", hint="Move it, or choose another --out."
            )


def _tokenizer_config(tokens: TokenSpace, model: Any) -> dict[str, Any]:
    spelled = tokens.text_tokenizer.id_to_token
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": getattr(model.config, "max_position_embeddings", None) or 2048,
        "bos_token": spelled(tokens.bos[0]) if tokens.bos else None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "chat_template": CHAT_TEMPLATE,
    }
