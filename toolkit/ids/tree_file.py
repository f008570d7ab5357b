"""A prefix tree as one file that processes map into memory and share, tied to the catalogue it was made of.

The file is safetensors with the tree's arrays; its metadata holds a version, the catalogue's hash and a hash of the
arrays. Filters are not kept: they belong to a moment. Knows nothing of where catalogues or caches lie.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gcrs.toolkit.errors import DataError
from gcrs.toolkit.files import atomic_write
from gcrs.toolkit.ids.tree import PrefixTree

VERSION = 1
ARRAYS = ("level_start", "first", "code", "rows")
_TYPES = {"I64": np.int64, "I32": np.int32, "U16": np.uint16}
_AGAIN = "It is a cache: delete it and build the tree again."


def save_tree(tree: PrefixTree, path: Path, *, catalog: str) -> None:
    """Write the tree, whole or not at all; `catalog` is the hash of the catalogue that its rows number.

    Raises DataError for a filtered tree, GcrsError when the disk refuses.
    """
    from safetensors.numpy import save

    if tree.alive is not None:
        raise DataError("A filtered tree is not saved: its filter belongs to this moment.", hint="Save tree.full.")
    arrays = {name: np.ascontiguousarray(getattr(tree, name)) for name in ARRAYS}
    metadata = {
        "format": "gcrs prefix tree",
        "version": str(VERSION),
        "catalog": catalog,
        "code_counts": json.dumps(tree.code_counts),
        "sha256": _digest(arrays, json.dumps(tree.code_counts)),
    }
    with atomic_write(Path(path), "wb") as handle:
        handle.write(save(arrays, metadata=metadata))


def load_tree(path: Path, *, catalog: str) -> PrefixTree:
    """The tree in the file, its arrays read-only views of the mapped file.

    Raises DataError for a file that is missing, cut short, altered, of another version or of another catalogue.
    """
    path = Path(path)
    header, start = _header(path)
    metadata = header.pop("__metadata__", None) or {}
    if metadata.get("format") != "gcrs prefix tree":
        raise DataError(f"{path} is no prefix tree of gcrs.", hint=_AGAIN)
    if metadata.get("version") != str(VERSION):
        raise DataError(f"{path} is a tree of version {metadata.get('version')}, expected {VERSION}.", hint=_AGAIN)
    if metadata.get("catalog") != catalog:
        raise DataError(
            f"{path} belongs to the catalogue {str(metadata.get('catalog'))[:12]}, this one is {catalog[:12]}.",
            hint=_AGAIN,
        )
    arrays = {name: _view(path, header, name, start) for name in ARRAYS}
    if _digest(arrays, str(metadata.get("code_counts"))) != metadata.get("sha256"):
        raise DataError(f"{path} is broken: its arrays are not those that were written.", hint=_AGAIN)
    return PrefixTree(code_counts=tuple(json.loads(metadata["code_counts"])), **arrays)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The file's header and where its data begins; safetensors itself checks both against the file's size."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            pass
        with open(path, "rb") as handle:
            size = int.from_bytes(handle.read(8), "little")
            return json.loads(handle.read(size)), 8 + size
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"{path} is broken or cut short: {error}.", hint=_AGAIN) from error


def _view(path: Path, header: Mapping[str, Any], name: str, start: int) -> np.ndarray:
    entry = header.get(name)
    if entry is None or entry["dtype"] not in _TYPES or len(entry["shape"]) != 1:
        raise DataError(f"{path} is broken: it has no array {name!r} of one dimension.", hint=_AGAIN)
    if entry["shape"] == [0]:
        return np.zeros(0, dtype=_TYPES[entry["dtype"]])  # nothing cannot be mapped
    offset = start + entry["data_offsets"][0]
    return np.memmap(path, _TYPES[entry["dtype"]], mode="r", offset=offset, shape=tuple(entry["shape"])).view(
        np.ndarray
    )


def _digest(arrays: Mapping[str, np.ndarray], code_counts: str) -> str:
    """A hash of the code counts and of the arrays' names, types and contents."""
    digest = hashlib.sha256(f"{code_counts}\n".encode())
    for name in ARRAYS:
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}\n".encode())
        digest.update(arrays[name].view(np.uint8).data)
    return digest.hexdigest()
