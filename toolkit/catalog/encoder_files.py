"""Where an encoder's files are: a short name, a hub id or a directory -> a folder, its hash and its recipe.

Hub files go through the hub client's own cache; the default base model is the converted one of the cache. Only
safetensors are taken, and no code. Knows nothing of texts or vectors.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from gcrs.toolkit.catalog.encoder_names import HUB_IDS, MINILM
from gcrs.toolkit.catalog.encoder_recipe import NORMALISE, Recipe, read_recipe
from gcrs.toolkit.errors import DataError, MissingModelError
from gcrs.toolkit.files import read_json, sha256_file
from gcrs.toolkit.weights import HUB_ID, PINNED, fetch

Progress = Callable[[int, int, str], None]

_MINILM_PINNED = "minilm-l6-v2"
_HUB_FILES = ["*.json", "*.safetensors"]
_NOT_FROM_HUB = ["onnx/*", "openvino/*", "original/*", "checkpoint*"]


@dataclass(frozen=True)
class Encoder:
    """A text encoder on this disk: the name it was asked by, its folder, the hash of its weights, its recipe."""

    name: str
    folder: Path
    sha256: str
    recipe: Recipe

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return self.recipe.width

    def record(self) -> dict[str, Any]:
        """What a catalogue's settings say of it."""
        return {"name": self.name, "sha256": self.sha256, **self.recipe.record()}


def find_encoder(name: str = MINILM, progress: Progress | None = None) -> Encoder:
    """Locate an encoder by short name, directory, hub id or a pinned base model's name, fetching it when needed.

    Raises MissingModelError (exit 4) when it is not here and cannot be fetched, DataError when the files are no
    encoder that gcrs reads.
    """
    if name == MINILM:
        pinned = PINNED[_MINILM_PINNED]
        folder = fetch(pinned.name, progress)
        sha256 = hashlib.sha256("".join(file.sha256 for file in pinned.files).encode()).hexdigest()
        recipe = Recipe(("mean",), "", 256, 384, source="the all-MiniLM-L6 family")
        return Encoder(name, folder, sha256, recipe)
    if name in PINNED and name != _MINILM_PINNED:
        from gcrs.toolkit.model.base import find_base

        base = find_base(name, progress)
        return Encoder(name, base.directory, base.sha256, read_recipe(base.directory, name))
    folder = Path(name)
    if folder.is_dir():
        if missing := _missing(folder):
            raise DataError(f"{folder} is not an encoder: {missing}.")
    else:
        folder = _from_hub(_hub_id(name), progress)
    recipe = read_recipe(folder, name)
    return Encoder(name, folder, _fingerprint(folder, recipe), recipe)


def layer_weights(folder: Path) -> Path:
    """The safetensors of a linear layer's folder; DataError when it is missing or pickled."""
    weights = folder / "model.safetensors"
    if not weights.is_file():
        pickled = (folder / "pytorch_model.bin").is_file()
        raise DataError(
            f"{folder} has no model.safetensors{', only pickled weights, which are not loaded' if pickled else ''}.",
            hint="If you trust the file, load it with sentence-transformers and save it again." if pickled else None,
        )
    return weights


def _fingerprint(folder: Path, recipe: Recipe) -> str:
    """A hash of all weights, the transformer's config and the tokenizer."""
    inner = folder / recipe.transformer
    files = [inner / "config.json", inner / "tokenizer.json", *sorted(inner.glob("*.safetensors"))]
    for layer in recipe.layers:
        if layer != NORMALISE:
            files += [folder / layer / "config.json", layer_weights(folder / layer)]
    return hashlib.sha256("".join(map(sha256_file, files)).encode()).hexdigest()


def _missing(folder: Path) -> str | None:
    """What a folder lacks to be an encoder, in words; None when nothing is missing."""
    inner = folder
    wanted = ["config.json", "tokenizer.json"]
    if (folder / "modules.json").is_file():
        modules = read_json(folder / "modules.json")
        for one in modules if isinstance(modules, list) else []:
            kind, path = (str(one.get(key, "")) for key in ("type", "path")) if isinstance(one, dict) else ("", "")
            if kind.endswith(".Transformer"):
                inner = folder / path
            elif kind.endswith((".Pooling", ".Dense")) and not (folder / path / "config.json").is_file():
                return f"modules.json names {path}/config.json, which is not there"
    shards = {"model.safetensors"}
    if (index := inner / "model.safetensors.index.json").is_file():
        shards = set(read_json(index).get("weight_map", {}).values())
    elif any(inner.glob("*.safetensors")):
        shards = set()
    lacking = [part for part in [*wanted, *sorted(shards)] if not (inner / part).is_file()]
    if not lacking:
        return None
    return f"{', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not in {inner}"


def _hub_id(name: str) -> str:
    """The hub id that a name stands for; MissingModelError when it is none."""
    if name in HUB_IDS:
        return HUB_IDS[name]
    if HUB_ID.fullmatch(name):
        return name
    known = [MINILM, *HUB_IDS, *(pinned for pinned in PINNED if pinned != _MINILM_PINNED)]
    near = get_close_matches(name, known, 1)
    raise MissingModelError(
        f"The encoder {name!r} is neither a known name, a directory nor a hub id (owner/name).",
        hint=f"Did you mean {near[0]}?" if near else f"Known names: {', '.join(known)}.",
    )


def _from_hub(repo: str, progress: Progress | None) -> Path:
    """The folder of a hub repository: from the hub's cache when all of it is there, else fetched."""
    from huggingface_hub import snapshot_download
    from tqdm import tqdm

    class Silent(tqdm):  # type: ignore[type-arg]  # the client's own bars would print
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})

    def take(local: bool) -> Path:
        got = snapshot_download(
            repo, allow_patterns=_HUB_FILES, ignore_patterns=_NOT_FROM_HUB, local_files_only=local, tqdm_class=Silent
        )
        return Path(got)

    tried = []
    try:
        folder = take(local=True)
        if (missing := _missing(folder)) is None:
            return folder
        tried.append(f"the hub's cache: {missing}")
    except Exception as error:  # the client raises its own errors and the OS's: any of them is "not had"
        tried.append(f"the hub's cache: {type(error).__name__}")
    if os.environ.get("GCRS_OFFLINE", "") not in ("", "0"):
        tried.append("GCRS_OFFLINE is set: no download was tried")
    else:
        if progress:
            progress(0, 1, f"fetching {repo} from the Hugging Face hub")
        try:
            folder = take(local=False)
            if (missing := _missing(folder)) is None:
                return folder
            tried.append(f"the Hugging Face hub: {missing}")
        except Exception as error:  # as above, and httpx's
            tried.append(f"the Hugging Face hub: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}")
    raise MissingModelError(
        f"The encoder {repo!r} is no directory here and could not be had ({'. '.join(tried)}).",
        hint=f"To put it there by hand, take the .json and .safetensors files of huggingface.co/{repo}, folders "
        f"included (on another machine: hf download {repo} --local-dir DIR), and pass: --encoder DIR",
    )
