"""Where a bundle is pushed to and pulled from: a directory, or a repository of the Hugging Face hub.

A name is never guessed: what could be both is refused. Knows nothing of what is done with a remote.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from gcrs.toolkit.errors import UsageError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
FORMS = "Write ./DIR or file:///DIR for a directory, OWNER/NAME or hf:OWNER/NAME for the hub."


@dataclass(frozen=True)
class Put:
    """What a push changed: whether anything, and the commit that the remote then has (None: it keeps none)."""

    changed: bool
    revision: str | None = None


class Remote(Protocol):
    """One place that can hold one bundle."""

    name: str
    short: str

    def manifest(self, scratch: Path) -> dict[str, Any]:
        """The manifest of the bundle that lies there. DataError when none does, MissingModelError when out of reach."""

    def take(self, part: str, target: Path) -> None:
        """Copy one part of that bundle to a file."""

    def revision(self) -> str | None:
        """The commit that `manifest` and `take` read."""

    def put(self, staged: Path, manifest: dict[str, Any], message: str) -> Put:
        """Make the remote hold the bundle in `staged`, whole or not at all; DataError if something else lies there."""


def parse_remote(text: str, *, revision: str | None = None, private: bool = False) -> Remote:
    """The remote that a text names; UsageError when it names none, or could name two."""
    from gcrs.toolkit.hub.directory import DirectoryRemote
    from gcrs.toolkit.hub.repository import HubRemote

    if text.startswith("hf:") and _HUB_ID.fullmatch(text.removeprefix("hf:")):
        return HubRemote(text.removeprefix("hf:"), revision, private)
    directory = _directory(text)
    if directory is None:
        owner = Path(text.split("/")[0])
        if not _HUB_ID.fullmatch(text):
            raise UsageError(f"{text[:200]!r} names no remote.", hint=FORMS)
        if owner.exists():
            raise UsageError(f"{text!r} may be a directory here or a repository of the hub.", hint=FORMS)
        return HubRemote(text, revision, private)
    if revision is not None or private:
        what = "--revision" if revision is not None else "--private"
        raise UsageError(f"{what} is for the hub, {text} is a directory.", hint=f"Leave out {what}.")
    return DirectoryRemote(directory, text)


def _directory(text: str) -> Path | None:
    """The directory that a text can only mean; None when it is none of these forms."""
    if text.lower().startswith("file:"):
        url = urlsplit(text)
        if url.netloc not in ("", "localhost") or not url.path:
            raise UsageError(f"{text[:200]!r} is no directory of this machine.", hint="Expected file:///DIR")
        return Path(unquote(url.path))
    if text in (".", "..", "~") or text.startswith(("./", "../", "~/")) or Path(text).is_absolute():
        return Path(text).expanduser()
    return None
