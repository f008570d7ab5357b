"""Files that are either the old one or the new one, never half of one; hashes; gcrs' cache and data directories.

Knows nothing of what is inside a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any

from gcrs.toolkit.errors import DataError, GcrsError


def fsync_path(path: Path) -> None:
    """Flush a file's or a directory's entry to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary sibling for writing; on success fsync it and rename it onto `path`, on failure remove it.

    Raises GcrsError (exit 1) when the disk refuses; the old file, if there was one, is untouched.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise GcrsError(
            f"Cannot write {path}: {error.strerror}.", hint="Choose another place or free the disk."
        ) from error
    staged = Path(name)
    try:
        text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
        with os.fdopen(fd, mode, **text) as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.chmod(staged, 0o644)
        os.replace(staged, path)
        fsync_path(path.parent)
    except OSError as error:
        staged.unlink(missing_ok=True)
        raise GcrsError(f"Cannot write {path}: {error.strerror or error}.", hint="Nothing was changed.") from error
    except BaseException:
        staged.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Fill a staging sibling; on success fsync all of it and put it in place of `path` by renaming.

    A kill at any moment leaves either the old directory, the new one, or (between the two renames) the old one
    under `.<name>.old`, which the next call or `recover_directory` puts back.
    """
    path = Path(path).absolute()
    old = path.with_name(f".{path.name}.old")
    recover_directory(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        os.chmod(staged, 0o755)
    except OSError as error:
        raise GcrsError(
            f"Cannot write {path}: {error.strerror}.", hint="Choose another place or free the disk."
        ) from error
    try:
        yield staged
        for entry in [*staged.rglob("*"), staged]:
            if entry.is_file():
                os.chmod(entry, 0o644)  # some writers make private files
            fsync_path(entry)
        if path.exists():
            os.rename(path, old)
        os.rename(staged, path)
        fsync_path(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(staged, ignore_errors=True)
        recover_directory(path)
        raise GcrsError(f"Cannot write {path}: {error.strerror or error}.", hint="Nothing was changed.") from error
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        recover_directory(path)
        raise


def strangers(directory: Path, *patterns: str) -> list[str]:
    """Names in a directory, in order, that match none of these patterns; hidden ones and directories count as well."""
    return sorted(one.name for one in Path(directory).iterdir() if not any(fnmatchcase(one.name, p) for p in patterns))


def recover_directory(path: Path) -> None:
    """Undo a replacement that was killed between its two renames."""
    path = Path(path).absolute()
    old = path.with_name(f".{path.name}.old")
    if old.exists():
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(old, path)


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in chunks."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def read_json(path: Path) -> Any:
    """Parse a JSON file; DataError names the file, the line and what was found."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}.") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not valid JSON: {error.msg} at line {error.lineno}.") from error


def write_json(value: Any, path: Path) -> None:
    """Write a file of a staged directory, where nothing is replaced; the same value always gives the same bytes."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def cache_dir() -> Path:
    """Where rebuildable things live (weights, encoded texts, Chroma): $GCRS_CACHE, else XDG's cache directory."""
    if explicit := os.environ.get("GCRS_CACHE"):
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gcrs"


def data_dir() -> Path:
    """Where what cannot be made anew lives (journals of live changes): $GCRS_DATA, else XDG's data directory."""
    if explicit := os.environ.get("GCRS_DATA"):
        return Path(explicit)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "gcrs"
