"""Open what a data set's official download turns out to be: a zip, a directory, or one plain or gzipped file.

Gives names and lines of text; knows nothing of what the lines mean.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from gcrs.toolkit.catalog.item import Item
from gcrs.toolkit.errors import DataError
from gcrs.toolkit.files import atomic_write


@dataclass(frozen=True)
class Member:
    """One text file of a download. `stem` is its name without folders and without any of `.gz .jsonl .tsv .csv`."""

    name: str
    where: str
    open_bytes: Callable[[], IO[bytes]]

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).name.removesuffix(".gz").rsplit(".", 1)[0]

    @property
    def kind(self) -> str:
        """The suffix that says the format, in lower case and without `.gz`: `.jsonl`, `.tsv`, `.csv`, …"""
        return PurePosixPath(self.name.lower().removesuffix(".gz")).suffix

    def lines(self) -> Iterator[str]:
        """Lines of UTF-8 text without their end. DataError on a cut or damaged file or on another encoding."""
        number = 0
        try:
            with self.open_bytes() as raw, _gunzip(raw, self.name) as data:
                for line in io.TextIOWrapper(data, encoding="utf-8-sig", newline="\n"):  # type: ignore[arg-type]
                    number += 1
                    yield line.rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError(f"{self.where} is not UTF-8 text near line {number + 1}: {error.reason}.") from error
        except (EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile) as error:
            raise DataError(
                f"{self.where} is cut off or damaged after line {number}: {error}.", hint="Download it again."
            ) from error
        except (OSError, RuntimeError, NotImplementedError) as error:  # the last two: zips with passwords, odd methods
            raise DataError(f"{self.where} cannot be read: {error}.") from error

    def json_lines(self) -> Iterator[tuple[str, Any]]:
        """(place, parsed value) of each non-blank line; DataError names the line that is not JSON."""
        for number, line in enumerate(self.lines(), 1):
            if not line.strip():
                continue
            try:
                yield f"{self.where}, line {number}", json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise DataError(
                    f"{self.where}, line {number}: not valid JSON ({getattr(error, 'msg', error)}).",
                    hint="A cut last line means a truncated file: download it again.",
                ) from error


def _gunzip(raw: IO[bytes], name: str) -> IO[bytes]:
    return gzip.GzipFile(fileobj=raw) if name.lower().endswith(".gz") else raw  # type: ignore[return-value]


def open_members(path: Path, kinds: Sequence[str]) -> list[Member]:
    """The files with one of these suffixes (`.gz` behind them allowed) in a zip, a directory or `path` itself.

    Sorted by name; folders, hidden files and `__MACOSX` left out. DataError when the path is missing, broken or empty.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist.", hint=f"Expected a zip, a directory or a {' or '.join(kinds)} file.")
    verb = "holds"
    if path.is_dir():
        found = [
            _file(entry, entry.relative_to(path).as_posix()) for entry in sorted(path.rglob("*")) if entry.is_file()
        ]
    elif zipfile.is_zipfile(path):
        found = _zipped(path)
    elif path.suffix.lower() == ".zip":
        raise DataError(f"{path} is not a readable zip file.", hint="It may be cut off: download it again.")
    else:
        verb, found = "is", [_file(path, path.name)]
    members = [m for m in found if m.kind in kinds and not _hidden(m.name)]
    if not members:
        raise DataError(f"{path} {verb} no {' or '.join(kinds)} file.", hint="Point at the official download.")
    return members


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def _file(path: Path, name: str) -> Member:
    return Member(name, str(path), lambda: open(path, "rb"))


def _zipped(path: Path) -> list[Member]:
    def opener(name: str) -> Callable[[], IO[bytes]]:
        # The zip handle may close while its member is still read: zipfile counts the open members itself.
        return lambda: zipfile.ZipFile(path).open(name)

    try:
        with zipfile.ZipFile(path) as bundle:
            names = sorted(name for name in bundle.namelist() if not name.endswith("/"))
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} is not a readable zip file: {error}.", hint="Download it again.") from error
    return [Member(name, f"{path}:{name}", opener(name)) for name in names]


def choose_split(members: Sequence[Member], split: str | None) -> tuple[list[Member], list[str]]:
    """The members of one split, and the names of the splits left out.

    A split is a file's stem without `_data`, `_dbpedia`: `train`, `valid`, `test`, … Without `split`, a single split is
    taken as it is and `train` where there are several, so that a test split never lands in training data unasked; `all`
    takes every file. DataError when the split is not there.
    """
    names = {member.name: split_name(member) for member in members}
    there = sorted(set(names.values()))
    wanted = split or (there[0] if len(there) == 1 else "train")
    if wanted == "all":
        return list(members), []
    chosen = [member for member in members if names[member.name] == wanted]
    if not chosen:
        raise DataError(
            f"There is no split {wanted!r}, only {', '.join(there)}.", hint=f"Choose one of them: {there[0]}"
        )
    return chosen, [name for name in there if name != wanted]


def split_name(member: Member) -> str:
    """`train` of `train_data.jsonl.gz`, `valid` of `valid_data_dbpedia.jsonl`, `dev` of `dev.tsv`."""
    return member.stem.removesuffix("_dbpedia").removesuffix("_data").lower()


def write_items(items: Iterable[Item], path: Path) -> int:
    """Write items as a catalogue in JSON Lines (`id`, `title`, facts), for a user who has none. Returns how many."""
    count = 0
    with atomic_write(Path(path)) as handle:
        for item in items:
            handle.write(json.dumps({"id": item.id, "title": item.title, **item.facts}, ensure_ascii=False) + "\n")
            count += 1
    return count
