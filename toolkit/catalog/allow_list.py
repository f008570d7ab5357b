"""AllowList: a file of the item ids that may be recommended, such as what is in stock; a million take about a second.

Knows nothing of catalogues: which of the ids exist is known to `filters.Columns`.
"""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from gcrs.toolkit.errors import DataError


@dataclass(frozen=True)
class AllowList:
    """The ids in a file, in order and without repeats, and where the file lies."""

    path: Path
    ids: tuple[str, ...] = field(repr=False)


def read_allow_list(path: Path) -> AllowList:
    """Read one id a line, or one JSON list of ids (texts or whole numbers); `.gz` is unpacked, blank lines are skipped.

    Raises DataError for a file that is missing, not UTF-8, cut short, of another shape or without an id.
    """
    path = Path(path).absolute()
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: byte {error.start}.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    ids = dict.fromkeys(_json_ids(text, path) if text.lstrip()[:1] == "[" else map(str.strip, text.splitlines()))
    ids.pop("", None)
    if not ids:
        raise DataError(f"{path} holds no item id.", hint="Expected one id a line, or a JSON list of ids.")
    return AllowList(path, tuple(ids))


def _json_ids(text: str, path: Path) -> list[str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} begins like a JSON list but is none: {error}.") from error
    for place, one in enumerate(found, 1):
        if isinstance(one, bool) or not isinstance(one, (str, int)):
            raise DataError(
                f"{path}, entry {place}: found {type(one).__name__}, expected an id as text or whole number."
            )
    return [str(one).strip() for one in found]
