"""Base models: bytes on disk -> a transformers causal LM and its tokenizer as JSON.

The default base is a pinned GGUF, dequantised once into a safetensors directory in the cache. Any other base is a
Hugging Face directory or hub id with safetensors weights. Knows nothing of semantic IDs, adapters or bundles.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrs.toolkit.errors import DataError, MissingModelError
from gcrs.toolkit.files import atomic_directory, cache_dir, sha256_file

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

DEFAULT_BASE = "smollm2-135m-instruct"
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Base:
    """A base model on this disk: a Hugging Face directory, the name it was asked by, and its weights' SHA-256."""

    name: str
    directory: Path
    sha256: str

    @property
    def tokenizer_json(self) -> str:
        """The base's tokenizer in the tokenizers library's JSON."""
        return (self.directory / "tokenizer.json").read_text(encoding="utf-8")

    @property
    def rows(self) -> int:
        """Rows of the base's embedding."""
        config = json.loads((self.directory / "config.json").read_text(encoding="utf-8"))
        return int(config["vocab_size"])


def find_base(name: str = DEFAULT_BASE, progress: Progress | None = None) -> Base:
    """Locate a base by pinned name, directory or hub id, fetching or converting it when needed.

    Raises MissingModelError (exit 4) when it is not here and cannot be fetched, or its bytes are not the pinned ones.
    """
    from gcrs.toolkit.weights import PINNED, fetch

    if name in PINNED:
        gguf = fetch(name, progress)
        sha256 = PINNED[name].files[0].sha256
        return Base(name, _converted(gguf, sha256, progress), sha256)
    directory = Path(name)
    if not directory.is_dir():
        directory = _from_hub(name)
    for part in ("config.json", "tokenizer.json"):
        if not (directory / part).is_file():
            raise MissingModelError(
                f"Base model {name}: {directory} has no {part}.",
                hint="Expected a Hugging Face directory with config.json, tokenizer.json and *.safetensors.",
            )
    weights = sorted(directory.glob("*.safetensors"))
    if not weights:
        raise MissingModelError(
            f"Base model {name}: {directory} has no .safetensors weights.", hint="Pickled weights are not loaded."
        )
    from gcrs.toolkit.files import sha256_json

    return Base(name, directory, sha256_json([sha256_file(path) for path in weights]))


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:
        raise MissingModelError(
            f"Base model {name!r} is no directory here, no pinned name, and the hub gave: {type(error).__name__}.",
            hint="Put its config.json, tokenizer.json and *.safetensors into a directory and pass that: --base DIR",
        ) from error


def _converted(gguf: Path, sha256: str, progress: Progress | None) -> Path:
    """The cached fp32 safetensors directory of a GGUF, made on first use."""
    target = cache_dir() / "bases" / sha256
    if (target / "model.safetensors").is_file() and (target / "tokenizer.json").is_file():
        return target
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from gcrs.toolkit.model.quiet import quiet_transformers

    if progress:
        progress(0, 1, "converting the base model (once)")
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.name_or_path = ""
    from safetensors.torch import save_file

    with atomic_directory(target) as staged:
        state = {key: value.contiguous() for key, value in model.state_dict().items() if key != "lm_head.weight"}
        save_file(state, staged / "model.safetensors", metadata={"format": "pt"})
        config.save_pretrained(staged)
        (staged / "tokenizer.json").write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
    if progress:
        progress(1, 1, "converting the base model (once)")
    return target


def load_model(base: Base, dtype: torch.dtype, rows: int | None = None) -> PreTrainedModel:
    """The base as a transformers causal LM in `dtype`, in eval mode, its embedding resized to `rows` (zeros added)."""
    import torch
    from transformers import AutoModelForCausalLM

    from gcrs.toolkit.model.quiet import quiet_transformers

    with quiet_transformers():
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(
                base.directory, dtype=dtype, trust_remote_code=False, use_safetensors=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(f"Base model {base.name} cannot be loaded: {error}.") from error
        if rows is not None:
            old = model.get_input_embeddings().weight.shape[0]
            model.resize_token_embeddings(rows, mean_resizing=False)
            with torch.no_grad():
                model.get_input_embeddings().weight[old:] = 0
                head = model.get_output_embeddings()
                if head is not None:
                    head.weight[old:] = 0
    model.generation_config = type(model.generation_config)()  # an instruct model's sampling settings leak into beams
    return model.eval()  # type: ignore[no-any-return]
