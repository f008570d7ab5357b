"""Parts of a JSON Lines file by place, and a job's finished parts in a directory: what a killed job need not do again.

A job's directory lies beside its result: job.json says which job it is, `00000.jsonl` is the answer to part 0 and is
there whole or not at all. Knows nothing of what is done with a part, or where.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gcrs.toolkit.errors import DataError
from gcrs.toolkit.files import atomic_write, read_json

JOB = "job.json"


@dataclass(frozen=True)
class Part:
    """Rows of a file: bytes `begin` to `end`, which start with line `line` (from 1) and hold `rows` rows."""

    number: int
    line: int
    begin: int
    end: int
    rows: int


def split_lines(path: Path, rows: int) -> list[Part]:
    """The file in parts of so many lines, blank ones not counted; DataError for one that cannot be read or is empty."""
    parts: list[Part] = []
    first = line = 1
    begin = end = held = 0
    try:
        with open(path, "rb") as handle:
            for raw in handle:
                line, end = line + 1, end + len(raw)
                held += bool(raw.strip())
                if held == rows:
                    parts.append(Part(len(parts), first, begin, end, held))
                    first, begin, held = line, end, 0
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    if held:
        parts.append(Part(len(parts), first, begin, end, held))
    with open(path, "rb") as handle:
        if handle.read(2) == b"\x1f\x8b":
            raise DataError(f"{path} is compressed.", hint="Unpack it first: gunzip -k FILE")
    if not parts:
        raise DataError(f"{path} has no rows.", hint="Expected one JSON object a line.")
    return parts


def read_lines(path: Path, part: Part) -> Iterator[tuple[int, str]]:
    """Number and text of each line of the part that is not blank. DataError where it is no UTF-8."""
    with open(path, "rb") as handle:
        handle.seek(part.begin)
        for number, raw in enumerate(handle.read(part.end - part.begin).split(b"\n"), part.line):
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(f"{path}, line {number}: not UTF-8 (byte {error.object[error.start]:#04x}).") from error
            if text.strip():
                yield number, text


class PartsDirectory:
    """Where the answers to a job's parts lie until all are there: `OUT.parts` for a result `OUT`."""

    def __init__(self, out: Path) -> None:
        self.out = Path(out).absolute()
        self.path = self.out.with_name(f"{self.out.name}.parts")

    def open(self, job: Mapping[str, Any]) -> None:
        """Begin, or go on with the same job; DataError when another job's parts lie there."""
        there = self.path / JOB
        if there.exists():
            begun = read_json(there)
            differs = sorted(key for key in {**begun, **job} if begun.get(key) != job.get(key))
            if differs:
                raise DataError(
                    f"{self.path} holds the parts of another job: {', '.join(differs)} differ.",
                    hint=f"Go on with what began it, or begin anew: rm -r {self.path}",
                )
            return
        with atomic_write(there) as handle:
            json.dump(job, handle, indent=1, ensure_ascii=False)

    def leave(self) -> None:
        """Take the directory away when no answer is kept in it."""
        if self.path.is_dir() and not any(self.path.glob("[0-9]*.jsonl")):
            shutil.rmtree(self.path, ignore_errors=True)

    def file(self, number: int) -> Path:
        """Where the answer to this part is written."""
        return self.path / f"{number:05d}.jsonl"

    def missing(self, parts: Sequence[Part]) -> list[Part]:
        """The parts without an answer."""
        return [part for part in parts if not self.file(part.number).exists()]

    def join(self, parts: Sequence[Part]) -> None:
        """Write all answers, in order, as one file in the place of the result; then the directory goes."""
        with atomic_write(self.out, "wb") as handle:
            for part in parts:
                with open(self.file(part.number), "rb") as answers:
                    shutil.copyfileobj(answers, handle)
        shutil.rmtree(self.path, ignore_errors=True)
