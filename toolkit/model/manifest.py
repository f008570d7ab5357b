"""The manifest of a bundle, `gcrs.json`: which parts make it up, and which of them may travel.

Knows nothing of what is inside the parts.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gcrs.toolkit.errors import DataError
from gcrs.toolkit.files import read_json, sha256_file, write_json

FORMAT = 1
MANIFEST = "gcrs.json"
REQUIRED = ("adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "mentions.json")
AGAIN = "Fetch or build the bundle again."
# What a bundle may hold: text, JSON, safetensors, a picture. No format in which loading a file runs code.
PLAIN = {".json", ".jsonl", ".md", ".png", ".safetensors", ".txt"}
MOST_BYTES = 1_000_000  # of a manifest
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def read_manifest(path: Path) -> dict[str, Any]:
    """A manifest with all its fields; DataError names what it lacks or garbles."""
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise DataError(f"{path} has format {found!r}, expected {FORMAT}.", hint="Update gcrs.")
    try:
        parts, base = dict(manifest["parts"]), manifest["base"]
        [int(code) for code in manifest["codes"]], int(manifest["items"])
        int(base["rows"]), str(base["name"]), str(base["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} lacks or garbles {error}.") from error
    for required in REQUIRED:
        if required not in parts:
            raise DataError(f"{path} does not name {required}.")
    return manifest


def check_parts(directory: Path, parts: dict[str, str]) -> None:
    """DataError names the part that is missing, broken or from another bundle."""
    for name, expected in parts.items():
        part = directory / name
        if Path(name).name != name or not part.is_file():
            raise DataError(f"Bundle {directory}: part {name} is missing.", hint=AGAIN)
        if sha256_file(part) != expected:
            raise DataError(
                f"Bundle {directory}: part {name} is broken or from another bundle (its SHA-256 differs).", hint=AGAIN
            )


def check_shareable(manifest: dict[str, Any], where: str) -> None:
    """DataError when a manifest names a part that must not travel: a path, a hidden file, anything that can run."""
    for name, digest in manifest["parts"].items():
        plain = Path(name).suffix.lower() in PLAIN and name.lower() != MANIFEST
        if not _NAME.fullmatch(name) or not plain or not _SHA256.fullmatch(str(digest)):
            raise DataError(
                f"The bundle at {where} names the part {name[:80]!r}, which no bundle holds.",
                hint="Parts are text, JSON, safetensors or PNG, directly in the directory. Nothing was taken.",
            )


def write_manifest(manifest: dict[str, Any], directory: Path) -> None:
    """Write `gcrs.json` into an existing directory; the same value always gives the same bytes."""
    write_json(manifest, directory / MANIFEST)
