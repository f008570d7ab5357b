"""push and pull: a verified bundle to a remote and back, whole or not at all.

Only the parts that a manifest names travel, and only formats in which loading runs no code. Knows nothing of what a
remote is made of.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gcrs.toolkit.errors import DataError, UsageError
from gcrs.toolkit.files import atomic_directory, read_json, recover_directory, sha256_json
from gcrs.toolkit.hub.directory import check_replaceable
from gcrs.toolkit.hub.remote import parse_remote
from gcrs.toolkit.model.bundle import Bundle, pulled_root, shipped_root
from gcrs.toolkit.model.described import copy_parts, describe
from gcrs.toolkit.model.manifest import MANIFEST, check_shareable, write_manifest

Progress = Callable[[int, int, str], None]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


def push(
    bundle: str | Path,
    remote: str,
    *,
    scores: Path | None = None,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Verify a bundle and put it on a remote; returns {"remote", "bundle", "base", "files", "bytes", "changed", …}.

    `scores` goes into the copy that travels (`describe`). Raises DataError for a broken bundle or a remote that holds
    something else, UsageError for a remote that is none, MissingModelError for a hub that cannot be reached.
    """
    place = parse_remote(remote, revision=revision, private=private)
    loaded = Bundle.load(bundle)
    check_shareable(loaded.manifest, str(loaded.directory))
    with tempfile.TemporaryDirectory(prefix="gcrs-push-") as scratch:
        staged = Path(scratch, "bundle")
        if scores is not None:
            describe(loaded, staged, scores=scores)
        else:
            staged.mkdir()
            copy_parts(loaded, staged)
        manifest = Bundle.load(staged).manifest
        if progress:
            progress(0, 0, f"pushing to {place.name}")
        done = place.put(staged, manifest, message or f"gcrs bundle {sha256_json(manifest)[:12]}")
        files = [staged / name for name in (*manifest["parts"], MANIFEST)]
        size = sum(file.stat().st_size for file in files)
    return {
        "remote": place.name,
        "bundle": sha256_json(manifest),
        "base": manifest["base"]["name"],
        "files": len(files),
        "bytes": size,
        "changed": done.changed,
        "revision": done.revision,
    }


def pull(
    remote: str,
    *,
    name: str | None = None,
    out: Path | None = None,
    revision: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fetch a bundle, verify the staged copy, put it in place; returns {"remote", "name", "out", "bundle", …}.

    It lies in the cache under `name` (default: the remote's own), where `Bundle.load(name)` finds it, or in `out`.
    Raises UsageError for a name that is taken, DataError for anything that is no whole bundle, MissingModelError for a
    hub that cannot be reached. Whatever lay there before stays unless the new one is whole.
    """
    place = parse_remote(remote, revision=revision)
    if out is not None and name is not None:
        raise UsageError("--name is for the cache, --out for a place of your own.", hint="Pass one of the two.")
    called = None if out is not None else _free_name(name or place.short, asked=name is not None)
    target = pulled_root() / called if called else Path(out or "").absolute()
    recover_directory(target)
    held = _held(target, ours=called is not None)
    with tempfile.TemporaryDirectory(prefix="gcrs-pull-") as scratch, _called(place.name, Path(scratch)):
        manifest = place.manifest(Path(scratch))
    check_shareable(manifest, place.name)
    changed = held != manifest
    if changed:
        with atomic_directory(target) as staged:
            for number, part in enumerate(manifest["parts"]):
                if progress:
                    progress(number, len(manifest["parts"]), f"pulling {part}")
                place.take(part, staged / part)
            write_manifest(manifest, staged)
            with _called(place.name, staged):
                _check_runs_nothing(staged)
                Bundle.load(staged)
    return {
        "remote": place.name,
        "name": called,
        "out": str(target),
        "bundle": sha256_json(manifest),
        "base": manifest["base"]["name"],
        "items": manifest["items"],
        "changed": changed,
        "revision": place.revision(),
    }


@contextmanager
def _called(name: str, folder: Path) -> Iterator[None]:
    """Say of a file of the moment where it came from."""
    try:
        yield
    except DataError as error:
        if str(folder) not in error.message:
            raise
        said = error.message.replace(str(folder), name)
        raise DataError(said, hint="Nothing was kept. Its owner has to push it again.") from error


def _free_name(name: str, *, asked: bool) -> str:
    """A name under which a bundle may lie in the cache; UsageError for one that is no name, or that ships with gcrs."""
    if not _NAME.fullmatch(name):
        what = "--name" if asked else "The remote's name"
        raise UsageError(f"{what} is {name[:80]!r}, expected letters, digits, '.', '_' and '-'.", hint="Pass --name.")
    shipped = sorted(path.parent.name for path in shipped_root().glob(f"*/{MANIFEST}"))
    if name.lower() in (one.lower() for one in shipped):
        raise UsageError(f"The name {name!r} belongs to a bundle that comes with gcrs.", hint="Pass another --name.")
    return name


def _held(target: Path, *, ours: bool) -> dict[str, Any] | None:
    """The manifest of the whole bundle in a place that may be written to; None when it has to be fetched anew.

    DataError when a place of the caller's holds anything but a bundle; in the cache such a thing is replaced.
    """
    try:
        held = check_replaceable(target)
    except DataError:
        if ours:
            return None
        raise
    try:
        return Bundle.load(target).manifest if held else None
    except DataError:
        return None


def _check_runs_nothing(staged: Path) -> None:
    """DataError for a config that asks its loader to import code of the bundle."""
    for path in sorted(staged.glob("*config.json")):
        value = read_json(path)
        if isinstance(value, dict) and value.get("auto_map"):
            raise DataError(f"Part {path.name} asks for code of its own (auto_map), which is never run.")
