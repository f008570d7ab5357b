"""Bundle: one directory with everything that a recommender needs but the base weights, tied together by hashes.

Hugging Face layout: adapter + tokenizer, beside the prepared catalogue (items, semantic IDs, quantizer), the resolved
config and a model card; `gcrs.json` names every part's SHA-256 and the base's. No pickle, no remote code. Knows nothing
of training or of decoding.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrs.toolkit.dialogue.shape import PRODUCT, SequenceShape
from gcrs.toolkit.errors import DataError, GcrsError, MissingModelError
from gcrs.toolkit.files import (
    atomic_directory,
    cache_dir,
    read_json,
    recover_directory,
    sha256_file,
    sha256_json,
    write_json,
)
from gcrs.toolkit.model.manifest import FORMAT, MANIFEST, check_parts, read_manifest, write_manifest
from gcrs.toolkit.model.tokens import ROLE_MARKS, TokenSpace

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from gcrs.toolkit.catalog.item import Catalog
    from gcrs.toolkit.ids.codebook import Codebook
    from gcrs.toolkit.model.adapter import AdapterShape
    from gcrs.toolkit.model.base import Base
    from gcrs.toolkit.model.engine import Engine
    from gcrs.toolkit.prepared import PreparedCatalog

MERGED_VERSION = 1
MERGED_KEPT = 3
Progress = Callable[[int, int, str], None]


def write_bundle(
    directory: Path,
    prepared: PreparedCatalog,
    tokens: TokenSpace,
    base: Base,
    tensors: dict[str, torch.Tensor],
    shape: AdapterShape,
    targets: list[str],
    training: dict[str, Any],
    popularity: dict[str, int],
    metrics: Path | None = None,
) -> str:
    """Write a bundle, whole or not at all; returns its hash. `metrics` is the run's log, copied beside the adapter."""
    import torch
    from safetensors.torch import save_file

    from gcrs.toolkit.model.adapter import adapter_config
    from gcrs.toolkit.model.base import base_embedding, embedding_hash
    from gcrs.toolkit.model.card import model_card

    embedding = base_embedding(base)
    pinned = None if embedding is None else embedding_hash(embedding, base.rows)
    with atomic_directory(directory) as staged, torch.no_grad():
        prepared.save_parts(staged)
        save_file(tensors, staged / "adapter_model.safetensors", metadata={"format": "pt"})
        write_json(adapter_config(shape, targets, tokens.new_ids, base.name, tensors), staged / "adapter_config.json")
        (staged / "tokenizer.json").write_text(tokens.extended_json(), encoding="utf-8")
        spelling = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        write_json(spelling | {"eos_token": ROLE_MARKS[1]}, staged / "tokenizer_config.json")
        write_json(training, staged / "training.json")
        if metrics is not None and metrics.is_file():
            (staged / "metrics.jsonl").write_bytes(metrics.read_bytes())
        write_json(popularity, staged / "mentions.json")
        (staged / "README.md").write_text(model_card(prepared, training["config"]["base"], training), encoding="utf-8")
        parts = {path.name: sha256_file(path) for path in sorted(staged.iterdir()) if path.is_file()}
        manifest = {
            "format": FORMAT,
            "base": {"name": base.name, "sha256": base.sha256, "rows": base.rows, "embedding": pinned},
            "codes": list(tokens.codes),
            "items": len(prepared.catalog),
            "catalog": prepared.hash,
            "parts": parts,
        }
        if tokens.shape != PRODUCT:
            manifest["shape"] = tokens.shape.to_json()
        write_manifest(manifest, staged)
    return sha256_json(manifest)


def shipped_root() -> Path:
    """The directory of the bundles that came with gcrs."""
    import gcrs

    return Path(gcrs.__file__).resolve().parent / "catalogs"


def pulled_root() -> Path:
    """The directory of the bundles that were pulled, each under its name."""
    return cache_dir() / "bundles"


def shipped_bundles() -> dict[str, Path]:
    """Bundles by name: those that came with gcrs, and those that were pulled into the cache."""
    for old in pulled_root().glob(".*.old"):  # a pull that was killed between its two renames
        recover_directory(old.with_name(old.name[1:].removesuffix(".old")))
    found: dict[str, Path] = {}
    for root in (shipped_root(), pulled_root()):
        for manifest in sorted(root.glob(f"[!.]*/{MANIFEST}")):
            found.setdefault(manifest.parent.name, manifest.parent)
    return found


def bundle_hash(directory: Path) -> str | None:
    """The hash of the bundle in a directory, its parts not looked at; None where there is no bundle."""
    manifest = Path(directory) / MANIFEST
    return sha256_json(read_json(manifest)) if manifest.is_file() else None


@dataclass(frozen=True)
class Bundle:
    """A loaded, verified bundle. `hash` names exactly these bytes."""

    directory: Path
    manifest: dict[str, Any]
    prepared: PreparedCatalog

    @property
    def catalog(self) -> Catalog:
        return self.prepared.catalog

    @cached_property
    def book(self) -> Codebook:
        return self.prepared.shown(self.shape).book

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the manifest, which holds every part's hash."""
        return sha256_json(self.manifest)

    @cached_property
    def shape(self) -> SequenceShape:
        """The shape of the sequences that it was trained on."""
        return SequenceShape.from_json(self.manifest.get("shape"))

    @cached_property
    def tokens(self) -> TokenSpace:
        """The token space, its base tokenizer cut out of the extended one."""
        raw = json.loads((self.directory / "tokenizer.json").read_text(encoding="utf-8"))
        rows = int(self.manifest["base"]["rows"])
        raw["added_tokens"] = [token for token in raw["added_tokens"] if token["id"] < rows]
        return TokenSpace(json.dumps(raw), rows, tuple(self.manifest["codes"]), self.shape)

    @cached_property
    def popularity(self) -> dict[str, int]:
        """Mentions of each item in the training dialogues, most first."""
        counts: dict[str, int] = read_json(self.directory / "mentions.json")
        return counts

    @cached_property
    def training(self) -> dict[str, Any]:
        """The record of its training (training.json); empty where there is none."""
        record = self.directory / "training.json"
        found: dict[str, Any] = read_json(record) if record.is_file() else {}
        return found

    @classmethod
    def load(cls, path_or_name: str | Path) -> Bundle:
        """Read and verify a bundle by directory or by shipped name.

        DataError (exit 3) names the part that is missing, broken or does not fit.
        """
        from gcrs.toolkit.prepared import PreparedCatalog

        directory = Path(path_or_name)
        if not directory.exists():
            recover_directory(directory)
        if not directory.is_dir():
            named = shipped_bundles()
            if str(path_or_name) not in named:
                known = ", ".join(named) or "none"
                raise DataError(
                    f"Bundle {str(path_or_name)!r} is no directory and no shipped bundle.",
                    hint=f"Shipped: {known}. Make one with: gcrs finetune",
                )
            directory = named[str(path_or_name)]
        if not (directory / MANIFEST).is_file():
            raise DataError(f"{directory} has no {MANIFEST}: it is no bundle.", hint="Make one with: gcrs finetune")
        manifest = read_manifest(directory / MANIFEST)
        check_parts(directory, manifest["parts"])
        prepared = PreparedCatalog.load(directory)
        items, codes = int(manifest["items"]), [int(code) for code in manifest["codes"]]
        if len(prepared.catalog) != items or list(prepared.book.codes) != codes:
            raise DataError(f"Bundle {directory}: items and semantic IDs do not fit {MANIFEST}.")
        return cls(directory, manifest, prepared)


def _base_of(bundle: Bundle, progress: Progress | None) -> Base:
    from gcrs.toolkit.model.base import find_base

    pinned = bundle.manifest["base"]
    base = find_base(pinned["name"], progress)
    if base.sha256 != pinned["sha256"]:
        raise MissingModelError(
            f"Base model {pinned['name']} here has SHA-256 {base.sha256[:12]}…, the bundle was trained on "
            f"{pinned['sha256'][:12]}….",
            hint="Use the base that the bundle names.",
        )
    return base


def _mapped(directory: Path, dtype: torch.dtype, rows: int) -> PreTrainedModel | None:
    """The merged model in a cache directory; None when it is not there or is not whole."""
    if not (directory / "config.json").is_file():
        return None
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    try:  # what from_pretrained does for a file that it wrote itself, without compiling its renaming rules (0.2 s)
        with no_init_weights():
            model: Any = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(directory), dtype=dtype)
        found = model.load_state_dict(load_file(directory / "model.safetensors"), strict=False, assign=True)
    except (OSError, ValueError, RuntimeError, SafetensorError):
        return None
    model.tie_weights()
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    tied = head.data_ptr() == embedding.data_ptr()
    whole = not found.unexpected_keys and (
        not found.missing_keys or (found.missing_keys == ["lm_head.weight"] and tied)
    )
    return model.eval() if whole and embedding.shape[0] == rows else None


def _forget_old(directory: Path, keep: int) -> None:
    """Remove all but the newest merged models: each is as large as the base."""
    import shutil

    known = sorted(directory.glob("[!.]*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in known[keep:]:
        shutil.rmtree(path, ignore_errors=True)


def merge(bundle: Bundle, dtype: torch.dtype, progress: Progress | None = None) -> PreTrainedModel:
    """The base with the adapter added, in `dtype`, made anew.

    Raises MissingModelError (exit 4) when the base is not here or is another one, DataError on a broken adapter.
    """
    import torch

    from gcrs.toolkit.model.adapter import apply_adapter, read_adapter
    from gcrs.toolkit.model.base import embedding_hash, load_model, text_settings

    base = _base_of(bundle, progress)
    if progress:
        progress(0, 1, "merging the adapter (once)")
    settings = text_settings(base.directory)
    halves = "bfloat16" in (settings.get("dtype"), settings.get("torch_dtype")) and dtype == torch.bfloat16
    merged: Any = load_model(base, dtype if halves else torch.float32, rows=bundle.tokens.size)
    pinned = bundle.manifest["base"].get("embedding")
    if pinned and embedding_hash(merged.get_input_embeddings().weight, base.rows) != pinned:
        raise MissingModelError(f"Base model {base.name}: its embedding is not the one that the bundle was trained on.")
    state, scale = read_adapter(bundle.directory)
    apply_adapter(merged, state, scale, bundle.tokens.new_ids)
    merged = merged.to(dtype)
    merged.config.vocab_size = bundle.tokens.size
    return merged  # type: ignore[no-any-return]


def load_merged(bundle: Bundle, dtype: torch.dtype, progress: Progress | None = None) -> PreTrainedModel:
    """The base with the adapter added, in `dtype`; built once, then mapped from the cache.

    Raises what `merge` raises.
    """
    from gcrs.toolkit.model.quiet import quiet_transformers

    short = str(dtype).removeprefix("torch.")
    parts, rows = bundle.manifest["parts"], bundle.tokens.size
    adapter = [parts["adapter_model.safetensors"], parts["adapter_config.json"]]
    key = sha256_json([MERGED_VERSION, bundle.manifest["base"], *adapter, bundle.manifest["codes"], short])
    target = cache_dir() / "merged" / key[:32]
    if (model := _mapped(target, dtype, rows)) is not None:
        return model
    merged: Any = merge(bundle, dtype, progress)
    with quiet_transformers(), atomic_directory(target) as staged:
        merged.save_pretrained(staged, safe_serialization=True, max_shard_size="100GB")
    _forget_old(target.parent, MERGED_KEPT)
    if progress:
        progress(1, 1, "merging the adapter (once)")
    model = _mapped(target, dtype, rows)  # read back: `.to(dtype)` also rounds buffers that loading keeps in fp32
    if model is None:
        raise GcrsError(f"The merged model in {target} cannot be read back.", hint="Free the disk and try again.")
    return model


def load_engine(
    bundle: Bundle,
    *,
    device: str = "cpu",
    dtype: str = "auto",
    cache_bytes: int | None = None,
    progress: Progress | None = None,
) -> Engine:
    """A ready engine over a bundle. `dtype` is auto (bf16 where the device is fast at it), bf16 or fp32.

    `cache_bytes` bounds the keys and values kept between calls; None: the engine's default. UsageError for a device
    that is not here.
    """
    import torch

    from gcrs.toolkit.model.cache import LIMIT
    from gcrs.toolkit.model.device import check_device, pick_dtype
    from gcrs.toolkit.model.engine import Engine

    check_device(device)
    chosen = {"bf16": torch.bfloat16, "fp32": torch.float32}.get(dtype) or pick_dtype(device)
    model = load_merged(bundle, chosen, progress).to(device)  # type: ignore[arg-type]
    return Engine(model, bundle.tokens, bundle.book, cache_bytes=LIMIT if cache_bytes is None else cache_bytes)
