"""GGUF files: one file with weights and tokenizer -> a Hugging Face directory in the cache, dequantised to fp32 once.

Knows nothing of what the model is used for.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gcrs.toolkit.errors import DataError
from gcrs.toolkit.files import atomic_directory, cache_dir
from gcrs.toolkit.model.tokens import with_beginning

Progress = Callable[[int, int, str], None]
BEGINS = (
    "llama-bpe",
    "llama3",
    "llama-v3",
    "tekken",
)  # byte-level tokenizers that llama.cpp gives a beginning by itself


def converted(gguf: Path, sha256: str, progress: Progress | None) -> Path:
    """The cached fp32 safetensors directory of a GGUF with these bytes, made on first use.

    Raises DataError when transformers cannot read it.
    """
    target = cache_dir() / "bases" / sha256
    if (target / "model.safetensors").is_file() and (target / "tokenizer.json").is_file():
        return target
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from gcrs.toolkit.model.quiet import quiet_transformers

    if progress:
        progress(0, 1, "converting the base model (once)")
    try:
        with tempfile.TemporaryDirectory(prefix="gcrs-gguf-") as alone, quiet_transformers():
            Path(alone, "model.gguf").symlink_to(gguf.absolute())  # files beside it must not take part
            model: Any = AutoModelForCausalLM.from_pretrained(alone, gguf_file="model.gguf", dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(alone, gguf_file="model.gguf")
            spelling = _tokenizer_json(gguf, json.loads(tokenizer.backend_tokenizer.to_str()), model.config.vocab_size)
    except Exception as error:  # the readers of GGUF raise whatever the bytes make them raise
        raise DataError(f"Base model {gguf} cannot be read as GGUF: {type(error).__name__}: {error}.") from error
    config = model.config
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    tied = head.data_ptr() == embedding.data_ptr()
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.name_or_path = ""
    from safetensors.torch import save_file

    with atomic_directory(target) as staged:
        state = {key: value.contiguous() for key, value in model.state_dict().items()
                 if not (tied and key == "lm_head.weight")}  # fmt: skip
        save_file(state, staged / "model.safetensors", metadata={"format": "pt"})
        config.save_pretrained(staged)
        (staged / "tokenizer.json").write_text(spelling, encoding="utf-8")
    if progress:
        progress(1, 1, "converting the base model (once)")
    return target


def _tokenizer_json(gguf: Path, raw: dict[str, Any], rows: int) -> str:
    """The tokenizer as the file means it: no token that transformers made up, and the beginning that it asks for."""
    from gguf import GGUFReader

    fields = GGUFReader(gguf).fields

    def said(key: str) -> Any:
        field = fields.get(f"tokenizer.ggml.{key}")
        return None if field is None else field.contents()

    raw["added_tokens"] = [token for token in raw.get("added_tokens") or [] if token["id"] < rows]
    begins, first = said("add_bos_token"), said("bos_token_id")
    if begins is None:
        begins = said("model") == "llama" or said("pre") in BEGINS
    if begins and first is not None:
        raw = with_beginning(raw, int(first))
    return json.dumps(raw, ensure_ascii=False)
