"""Base models: bytes on disk -> a transformers causal LM and its tokenizer as JSON.

The default base is a pinned GGUF, dequantised once into a safetensors directory in the cache, as any other GGUF is. All
other bases are Hugging Face directories or hub ids with safetensors weights. Knows nothing of semantic IDs, adapters or
bundles.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrs.toolkit.errors import DataError, MissingModelError
from gcrs.toolkit.files import read_json, sha256_file, sha256_json
from gcrs.toolkit.model.quiet import quiet_hub
from gcrs.toolkit.model.tokens import with_beginning
from gcrs.toolkit.weights import HUB_ID, offline

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
        """The base's tokenizer in the tokenizers library's JSON, with the beginning that its config asks for."""
        path = self.directory / "tokenizer.json"
        settings = path.with_name("tokenizer_config.json")
        asked: dict[str, Any] = read_json(settings) if settings.is_file() else {}
        if asked.get("add_bos_token") is not True or not asked.get("bos_token"):
            return path.read_text(encoding="utf-8")
        raw, first = read_json(path), asked["bos_token"]
        first = first["content"] if isinstance(first, dict) else first
        try:
            known = raw["model"]["vocab"] | {token["content"]: token["id"] for token in raw["added_tokens"]}
            return json.dumps(with_beginning(raw, known[first]), ensure_ascii=False)
        except (KeyError, TypeError) as error:
            raise DataError(f"{path} does not fit {settings.name}: {first!r} begins every text there.") from error

    @property
    def rows(self) -> int:
        """Rows of the base's embedding."""
        return int(text_settings(self.directory)["vocab_size"])


def text_settings(directory: Path) -> dict[str, Any]:
    """The language model's part of a config.json: all of it, or `text_config` where images are read as well.

    Raises DataError when it is no config of a language model, or one of quantised weights.
    """
    path = directory / "config.json"
    config = read_json(path)
    text = config.get("text_config", config) if isinstance(config, dict) else None
    if not isinstance(text, dict) or not isinstance(text.get("vocab_size"), int) or "model_type" not in text:
        raise DataError(f"{path} describes no language model: it needs model_type and vocab_size.")
    if kind := (config.get("quantization_config") or text.get("quantization_config") or {}).get("quant_method"):
        raise DataError(
            f"{path}: the weights are quantised ({kind}), which cannot be merged with an adapter.",
            hint="Take the model's bf16 weights; `quantize: 4bit` quantises them for training.",
        )
    return text


def find_base(name: str = DEFAULT_BASE, progress: Progress | None = None) -> Base:
    """Locate a base by pinned name, directory, GGUF file, hub id or `HUB_ID:FILE.gguf`, fetching or converting it.

    Raises MissingModelError (exit 4) when a part is not here and cannot be fetched, or its bytes are not the pinned
    ones; DataError (exit 3) when what is here is no causal language model.
    """
    from gcrs.toolkit.model.gguf_file import converted
    from gcrs.toolkit.weights import PINNED, fetch

    if name in PINNED:
        gguf = fetch(name, progress)
        sha256 = PINNED[name].files[0].sha256
        return Base(name, converted(gguf, sha256, progress), sha256)
    if name.endswith(".gguf"):
        gguf = Path(name)
        if not gguf.is_file():
            if ":" not in name:
                raise MissingModelError(f"Base model {name}: there is no such file.")
            gguf = _gguf_from_hub(*name.split(":", 1))
        sha256 = sha256_file(gguf)
        return Base(name, converted(gguf, sha256, progress), sha256)
    directory = Path(name)
    if not directory.is_dir():
        directory = _from_hub(name)
    if not (directory / "config.json").is_file():
        raise MissingModelError(
            f"Base model {name}: {directory} has no config.json.",
            hint="Expected a Hugging Face directory with config.json, tokenizer.json and *.safetensors.",
        )
    text_settings(directory)
    if not (directory / "tokenizer.json").is_file():
        other = [part for part in ("tokenizer.model", "tekken.json", "vocab.json") if (directory / part).is_file()]
        found = f"no tokenizer.json, only {other[0]}" if other else "no tokenizer (tokenizer.json)"
        raise MissingModelError(
            f"Base model {name}: {directory} has {found}.",
            hint="Convert it, with the package sentencepiece: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
            if other
            else "Take tokenizer.json from where the weights came from.",
        )
    return Base(name, directory, sha256_json([sha256_file(path) for path in weight_files(directory)]))


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a model: those that its index names, or all. Raises MissingModelError."""
    index = directory / "model.safetensors.index.json"
    whole = directory / "model.safetensors"
    if index.is_file():
        try:
            files = [directory / Path(part).name for part in sorted(set(read_json(index)["weight_map"].values()))]
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{index} has no weight_map.") from error
    else:
        files = [whole] if whole.is_file() else sorted(directory.glob("*.safetensors"))
    if missing := [path.name for path in files if not path.is_file()]:
        raise MissingModelError(f"Base model in {directory}: {missing[0]} is missing ({len(missing)} of {len(files)}).")
    if not files:
        raise MissingModelError(
            f"Base model in {directory}: there are no .safetensors weights.", hint="Pickled weights are not loaded."
        )
    return files


def base_embedding(base: Base) -> torch.Tensor | None:
    """The embedding as it lies in the base's files, [rows, width]; None when its name is not a known one."""
    from safetensors import safe_open

    for path in weight_files(base.directory):
        with safe_open(path, "pt") as handle:
            name = next((key for key in handle.keys() if key.endswith("embed_tokens.weight")), None)  # noqa: SIM118
            if name is not None:
                out: torch.Tensor = handle.get_tensor(name)
                return out
    return None


def embedding_hash(weight: torch.Tensor, rows: int) -> str:
    """Hex SHA-256 of the base's embedding rows as fp32 bytes: the words mean what they meant in training."""
    import hashlib

    import torch

    digest = hashlib.sha256()
    for part in weight[:rows].detach().split(4096):  # 131,072 rows of 4,096 are 2 GB as fp32
        digest.update(part.to(torch.float32).contiguous().numpy())
    return digest.hexdigest()


def check_hub_id(name: str) -> None:
    """MissingModelError with the nearest pinned name for what cannot be a hub id."""
    if not HUB_ID.fullmatch(name):
        near = difflib.get_close_matches(name, (DEFAULT_BASE,), 1, 0.4)
        raise MissingModelError(
            f"Base model {name!r} is no directory here, no pinned name and no hub id (owner/name).",
            hint=f"Did you mean {near[0]}?" if near else f"Pinned: {DEFAULT_BASE}.",
        )


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    check_hub_id(name)

    wanted: dict[str, Any] = {"allow_patterns": ["*.json", "*.safetensors"], "ignore_patterns": ["consolidated*"]}
    try:
        with quiet_hub():
            return Path(snapshot_download(name, **wanted, local_files_only=offline()))
    except Exception as error:  # the client raises its own, httpx's and the OS's errors: any of them is "not had"
        raise MissingModelError(
            f"Base model {name!r} is no directory here, no pinned name, and the hub gave: {type(error).__name__}.",
            hint="Put its config.json, tokenizer.json and *.safetensors into a directory and pass that: --base DIR",
        ) from error


def _gguf_from_hub(repository: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        with quiet_hub():
            return Path(hf_hub_download(repository, file, local_files_only=offline()))
    except Exception as error:
        raise MissingModelError(
            f"Base model {repository}:{file} is not here, and the hub gave: {type(error).__name__}.",
            hint="Fetch the file and pass its path: --base FILE.gguf",
        ) from error


def load_model(
    base: Base, dtype: torch.dtype, rows: int | None = None, quantize: str = "none", device: str = "cpu"
) -> PreTrainedModel:
    """The base as a transformers causal LM in `dtype`, in eval mode, its embedding resized to `rows` (zeros added).

    `quantize` "4bit" keeps its linear layers in 4 bits on `device`, for training alone: see quantize.py.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from gcrs.toolkit.model.quiet import quiet_transformers

    options = _text_model(base)
    if quantize == "4bit":
        from gcrs.toolkit.model.quantize import four_bit

        options |= four_bit(device)
    with quiet_transformers():
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                base.directory,
                dtype=dtype,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise DataError(f"Base model {base.name} cannot be loaded: {error}.") from error
        model, found = loaded
        if missing := sorted(found["missing_keys"]):  # transformers would fill them with random numbers
            raise DataError(f"Base model {base.name}: its files lack {missing[0]} ({len(missing)} tensors in all).")
        if "key_mapping" in options:
            model._weight_conversions = []  # else saving would give the tensors their old names again
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


def _text_model(base: Base) -> dict[str, Any]:
    """What makes from_pretrained read the language model alone out of one that reads images as well (Ministral 3)."""
    if "text_config" not in read_json(base.directory / "config.json"):
        return {}
    from safetensors import safe_open
    from transformers import AutoConfig

    try:
        whole: Any = AutoConfig.from_pretrained(base.directory, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"Base model {base.name} cannot be loaded: {error}.") from error
    text = whole.get_text_config()
    names: set[str] = set()
    for path in weight_files(base.directory):
        with safe_open(path, "pt") as handle:
            names |= set(handle.keys())
    apart = any(name.endswith("lm_head.weight") for name in names)
    text.tie_word_embeddings = not apart or (text.tie_word_embeddings and whole.tie_word_embeddings)
    renamed = {r"^language_model\.lm_head\.": "lm_head.", r"^(model\.)?language_model\.(model\.)?": "model."}
    return {"config": text, "key_mapping": renamed}
