"""A base's config.json without its weights: what a forecast needs before anything large is fetched.

Knows nothing of what is forecast.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gcrs.toolkit.errors import MissingModelError
from gcrs.toolkit.files import cache_dir, sha256_file
from gcrs.toolkit.model.base import check_hub_id, text_settings
from gcrs.toolkit.model.quiet import quiet_hub
from gcrs.toolkit.weights import PINNED, offline

KNOWN: dict[str, dict[str, Any]] = {  # pinned bytes never change, so neither do their sizes
    "smollm2-135m-instruct": {
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
    }
}


def base_config(name: str, *, fetch: bool = False) -> dict[str, Any]:
    """The language model's part of the base's config.json, from this machine; `fetch` takes a hub id's from the hub.

    Fetches that one small file and no weights. MissingModelError says what is needed when it is not at hand.
    """
    if name in KNOWN:
        return KNOWN[name]
    directory = Path(name)
    if name in PINNED or name.endswith(".gguf"):
        file = PINNED[name].location if name in PINNED else directory
        if file.is_file():
            directory = cache_dir() / "bases" / sha256_file(file)
    elif not directory.is_dir():
        check_hub_id(name)
        directory = _of_hub(name, fetch and not offline())
    if not (directory / "config.json").is_file():
        raise MissingModelError(
            f"The config.json of the base {name} is not at hand, so nothing can be forecast.",
            hint="A GGUF file has one once it has been converted: gcrs finetune does that."
            if name.endswith(".gguf")
            else "Put that one small file into a directory and pass it: --base DIR",
        )
    return text_settings(directory)


def is_here(name: str) -> bool:
    """Whether the base's weights are on this machine, by a look at its files alone."""
    if name in PINNED:
        return PINNED[name].location.is_file()
    if name.endswith(".gguf") and ":" not in name:
        return Path(name).is_file()
    directory = Path(name) if Path(name).is_dir() else _of_hub(name, False)
    return any(directory.glob("*.safetensors"))


def _of_hub(name: str, fetch: bool) -> Path:
    """The directory of a hub id's config.json in the hub's own cache; one that is not there when it has none."""
    try:
        from huggingface_hub import hf_hub_download

        with quiet_hub():
            return Path(hf_hub_download(name.split(":")[0], "config.json", local_files_only=not fetch)).parent
    except Exception:  # the client raises its own, httpx's and the OS's errors: any of them is "not had"
        return Path(name)
