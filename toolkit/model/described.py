"""What is said of a bundle after its training: an evaluation's scores, its licence, its attribution.

They become parts of the bundle and lines of its card, in a copy: bundles are immutable, so the copy has another hash.
Knows nothing of how scores come about.
"""

from __future__ import annotations

import math
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrs.toolkit.errors import DataError
from gcrs.toolkit.files import atomic_directory, read_json, sha256_file, sha256_json, write_json
from gcrs.toolkit.model.card import model_card
from gcrs.toolkit.model.manifest import AGAIN, MANIFEST, write_manifest

if TYPE_CHECKING:
    from gcrs.toolkit.model.bundle import Bundle

EVALUATION = "evaluation.json"
CARD_PROTOCOLS = ("all", "new")
KEPT = ("bundle", "data", "mode", "replies", "tables")  # not the seconds: they are no property of the bundle


def describe(
    bundle: Bundle,
    out: Path,
    *,
    scores: Path | None = None,
    licence: str | None = None,
    attribution: str | None = None,
) -> str:
    """Write a copy of a bundle with what is given and a new card, whole or not at all; returns the copy's hash.

    `scores` is the JSON file of an evaluation of this bundle (`gcrs eval --json`, or its report.json); what is left
    out stays as it was. `out` may be the bundle's own directory. The same input gives the same bytes. Raises DataError
    for a file that holds no scores, or those of another bundle.
    """
    evaluation = read_scores(scores, bundle) if scores else held_scores(bundle)
    with atomic_directory(out) as staged:
        copy_parts(bundle, staged)
        training = dict(bundle.training)
        stated = {"licence": licence, "attribution": attribution}
        if given := {name: text for name, text in stated.items() if text is not None}:
            training["config"] = {**training.get("config", {}), **given}
            write_json(training, staged / "training.json")
        if evaluation:
            write_json(evaluation, staged / EVALUATION)
        base = training.get("config", {}).get("base", bundle.manifest["base"]["name"])
        card = model_card(bundle.prepared, base, training, evaluation)
        (staged / "README.md").write_text(card, encoding="utf-8")
        parts = {path.name: sha256_file(path) for path in sorted(staged.iterdir()) if path.name != MANIFEST}
        manifest = {**bundle.manifest, "parts": parts}
        write_manifest(manifest, staged)
    return sha256_json(manifest)


def copy_parts(bundle: Bundle, target: Path) -> None:
    """Copy a bundle's own parts and its manifest into an existing directory, and nothing else that lies beside them.

    DataError for a part that is a symbolic link, or whose bytes are no longer those of the manifest.
    """
    for name, expected in bundle.manifest["parts"].items():
        copy_plain(bundle.directory / name, target / name)
        if sha256_file(target / name) != expected:
            raise DataError(f"Bundle {bundle.directory}: part {name} changed while it was read.", hint=AGAIN)
    write_manifest(bundle.manifest, target)


def copy_plain(source: Path, target: Path) -> None:
    """Copy the bytes of a regular file; DataError for a symbolic link, a pipe, a device, or nothing at all."""
    try:
        fd = os.open(source, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        why = "is a symbolic link" if source.is_symlink() else f"cannot be read: {error.strerror}"
        raise DataError(f"{source} {why}.", hint="A bundle's parts are plain files. Nothing was copied.") from error
    with os.fdopen(fd, "rb") as reader:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise DataError(f"{source} is no plain file.", hint="A bundle's parts are plain files.")
        with open(target, "wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)


def held_scores(bundle: Bundle) -> dict[str, Any] | None:
    """The evaluation that a bundle carries, None when it carries none; DataError when it is garbled."""
    if EVALUATION not in bundle.manifest["parts"]:
        return None
    return _checked(read_json(bundle.directory / EVALUATION), bundle.directory / EVALUATION)


def read_scores(path: Path, bundle: Bundle) -> dict[str, Any]:
    """An evaluation's scores from its JSON file; DataError when they are not those of this bundle."""
    found = _checked(_tables(read_json(path)), path)
    held = held_scores(bundle)
    own = {bundle.hash, held["bundle"] if held else bundle.hash}  # an evaluated copy has the weights of its original
    if found["bundle"] not in own:
        raise DataError(
            f"{path} holds scores of the bundle {found['bundle'][:12]}…, this one is {bundle.hash[:12]}….",
            hint="Evaluate this bundle: gcrs eval --bundle DIR --dialogues FILE --report DIR",
        )
    return found


def _tables(value: Any) -> Any:
    """An evaluation's report as a bundle keeps it: forced mode, the rows over all cases, recall alone."""
    if not isinstance(value, dict) or not isinstance(value.get("protocols"), dict):
        return value
    tables = [
        {"protocol": protocol, "name": row["name"], "n": row["n"]}
        | {key: found for key, found in row.items() if key.startswith("recall@")}
        for protocol, held in value["protocols"].items()
        for row in held["forced"]
        if protocol in CARD_PROTOCOLS and row["n"] == held["n"] and row["n"]
    ]
    data = dict(list(value["data"].items())[:1])  # the evaluated file; training files follow
    return {"bundle": value["bundle"], "data": data, "mode": "forced", "replies": value["replies"], "tables": tables}


def _checked(value: Any, path: Path) -> dict[str, Any]:
    """The scores without what does not belong to them; DataError for anything that is not of their shape."""
    try:
        out = {key: value[key] for key in KEPT}
        whole = isinstance(out["bundle"], str) and isinstance(out["mode"], str) and isinstance(out["replies"], int)
        whole &= all(isinstance(name, str) and isinstance(sha, str) for name, sha in out["data"].items())
        for table in out["tables"]:
            whole &= all(isinstance(table[key], str) for key in ("protocol", "name")) and isinstance(table["n"], int)
            recalls = [found for key, found in table.items() if key.startswith("recall@")]
            numbers = [float(found[key]) for found in recalls for key in ("value", "lo", "hi")]
            whole &= bool(numbers) and all(math.isfinite(number) and 0 <= number <= 1 for number in numbers)
        if not whole or not out["tables"]:
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path} holds no scores of an evaluation.",
            hint="Expected the report.json of: gcrs eval … --report DIR",
        ) from error
    return out
