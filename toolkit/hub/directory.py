"""A directory as a remote: it holds the files that a hub's repository would, and nothing else.

Knows nothing of networks; the directory may lie on a shared disk.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gcrs.toolkit.errors import DataError, GcrsError
from gcrs.toolkit.files import atomic_directory, recover_directory
from gcrs.toolkit.hub.remote import Put
from gcrs.toolkit.model.described import copy_plain
from gcrs.toolkit.model.manifest import MANIFEST, check_parts, read_manifest


class DirectoryRemote:
    """One bundle in one directory; `name` is what messages call it."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path.absolute()
        self.name = name
        self.short = self.path.name

    def manifest(self, scratch: Path) -> dict[str, Any]:
        """The manifest that lies there; DataError when the directory is not there or is no bundle."""
        place = self._place()
        if not place.is_dir():
            raise DataError(f"{self.name} does not exist.", hint="Put a bundle there: gcrs push BUNDLE DIR")
        if not (place / MANIFEST).exists():
            raise DataError(f"{self.name} has no {MANIFEST}: it is no bundle.", hint="Give a bundle's own directory.")
        copy_plain(place / MANIFEST, scratch / MANIFEST)
        return read_manifest(scratch / MANIFEST)

    def take(self, part: str, target: Path) -> None:
        """Copy one part; DataError when it is missing or no plain file."""
        copy_plain(self._place() / part, target)

    def revision(self) -> str | None:
        """None: a directory keeps no history."""
        return None

    def put(self, staged: Path, manifest: dict[str, Any], message: str) -> Put:
        """Replace what lies there. DataError when that is anything but a bundle and its parts."""
        recover_directory(self.path)
        held = check_replaceable(self.path)
        if held == manifest and _whole(self.path, manifest):
            return Put(changed=False)
        with atomic_directory(self.path) as target:
            for name in (*manifest["parts"], MANIFEST):
                copy_plain(staged / name, target / name)
            check_parts(target, manifest["parts"])
        return Put(changed=True)

    def _place(self) -> Path:
        """The directory; between the two renames of a push that was killed, the one that it was about to replace."""
        old = self.path.with_name(f".{self.path.name}.old")
        return old if not self.path.exists() and old.is_dir() else self.path


def check_replaceable(directory: Path) -> dict[str, Any] | None:
    """The manifest of the bundle in a directory that may be written to; None when there is nothing yet.

    DataError when the directory holds anything that is no part of a bundle: replacing it would lose that.
    """
    if not directory.exists() and not directory.is_symlink():
        return None
    if directory.is_symlink() or not directory.is_dir():
        raise DataError(f"{directory} is no directory.", hint="Name one, or a place where nothing is yet.")
    found = {path.name for path in directory.iterdir()}
    if not found:
        return None
    if MANIFEST not in found:
        raise DataError(f"{directory} holds something that is no bundle.", hint="Name an empty or a new directory.")
    manifest = read_manifest(directory / MANIFEST)
    if strays := sorted(found - {*manifest["parts"], MANIFEST}):
        raise DataError(
            f"{directory} also holds {', '.join(strays[:3])}, which is no part of its bundle.",
            hint="Move it away, or name another directory.",
        )
    return manifest


def _whole(directory: Path, manifest: dict[str, Any]) -> bool:
    try:
        check_parts(directory, manifest["parts"])
    except GcrsError:
        return False
    return True
