"""Training checkpoints that are whole or absent: staged, fsynced, renamed, verified by SHA-256.

Knows nothing of what the tensors mean. No pickle.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from gcrs.toolkit.errors import DataError
from gcrs.toolkit.files import atomic_directory, sha256_file

NAME = re.compile(r"step-(\d{8})$")


def save_checkpoint(
    root: Path, step: int, tensors: dict[str, torch.Tensor], state: dict[str, Any], keep: int = 2
) -> Path:
    """Write `root/step-XXXXXXXX`, then drop all but the newest `keep`. Returns the new directory."""
    from safetensors.torch import save_file

    target = root / f"step-{step:08d}"
    with atomic_directory(target) as staged:
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, staged / "tensors.safetensors"
        )
        manifest = {"step": step, "sha256": sha256_file(staged / "tensors.safetensors"), "state": state}
        (staged / "checkpoint.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    _load(target)
    for _, old in _all(root)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    for litter in root.glob(".step-*"):
        shutil.rmtree(litter, ignore_errors=True)
    return target


def _all(root: Path) -> list[tuple[int, Path]]:
    found = [(int(match.group(1)), path) for path in root.glob("step-*") if (match := NAME.search(path.name))]
    return sorted(found, reverse=True)


def _load(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    from safetensors.torch import load_file

    manifest = json.loads((path / "checkpoint.json").read_text(encoding="utf-8"))
    if sha256_file(path / "tensors.safetensors") != manifest["sha256"]:
        raise DataError(f"Checkpoint {path} is broken: its tensors do not have the hash that it states.")
    return load_file(path / "tensors.safetensors"), manifest["state"]


def latest_checkpoint(root: Path) -> tuple[int, dict[str, torch.Tensor], dict[str, Any]] | None:
    """(step, tensors, state) of the newest checkpoint that verifies, None when there is none.

    A broken checkpoint (a kill, a full disk) is passed over for the one before it.
    """
    for step, path in _all(root):
        try:
            tensors, state = _load(path)
        except (OSError, ValueError, KeyError, DataError):
            continue
        return step, tensors, state
    return None
