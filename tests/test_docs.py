"""The commands of the pages, run: each page of PAGES from top to bottom in an empty directory, each with exit code 0.

The convention of a page:

- in a ```console block, a line that begins with `$ ` is a command (a `\\` at its end goes on in the next line); what
  follows is its output, as it was when the page was written, and is not compared;
- a block under `<!-- file: NAME -->` is written to that file, for the commands behind it;
- `docs/examples` lies there as in a checkout; a command that must fail ends in `|| echo …`;
- what cannot run here stands in a block without a language, or under `<!-- not run: REASON -->`.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("docs/chat.md", "docs/tool.md", "docs/catalogue.md", "docs/finetune.md", "docs/live.md", "docs/scale.md")
NOTE = re.compile(r"<!-- (file|not run): (.+?) -->")
RUNS = ("console", "python")
PLAIN = ("", "json", "yaml", "csv", "text")


@dataclass(frozen=True)
class Block:
    """One fenced block: where it opens, its language, the comment above it, its lines."""

    line: int
    language: str
    note: tuple[str, str] | None
    lines: tuple[str, ...]

    @property
    def commands(self) -> list[str]:
        """The commands of a console block that is run."""
        found: list[str] = []
        going_on = False
        for line in self.lines:
            if going_on or line.startswith("$ "):
                found = [*found[:-1], f"{found[-1]}\n{line}"] if going_on else [*found, line.removeprefix("$ ")]
                going_on = line.endswith("\\")
        return found


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    lines = text.splitlines()
    start: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        above = NOTE.fullmatch(next((one for one in reversed(lines[:start]) if one.strip()), ""))
        note = (above[1], above[2]) if above else None
        yield Block(start + 1, lines[start].removeprefix("```").strip(), note, tuple(lines[start + 1 : number]))
        start = None
    assert start is None, f"the block of line {start} is not closed"


def is_run(block: Block) -> bool:
    return block.language in RUNS and not (block.note and block.note[0] == "not run")


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """An environment in which `gcrs` and `python` are those of this test run."""
    folder = tmp_path / "bin"
    folder.mkdir()
    python = f'exec {shlex.quote(sys.executable)} "$@"\n'
    gcrs = f"exec {shlex.quote(sys.executable)} -c 'from gcrs.cli import run; run()' \"$@\"\n"
    for name, line in (("python", python), ("gcrs", gcrs)):
        (folder / name).write_text(f"#!/bin/sh\n{line}", encoding="utf-8")
        (folder / name).chmod(0o755)
    data = tmp_path / "data"  # live changes of these pages, not of who runs the tests
    return {
        **os.environ,
        "GCRS_DATA": str(data),
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "120",
    }


@pytest.mark.parametrize("page", PAGES)
def test_a_page_keeps_to_the_convention(page: str) -> None:
    found = list(blocks((ROOT / page).read_text(encoding="utf-8")))
    assert any(block.commands for block in found if is_run(block)), f"{page} runs nothing"
    for block in found:
        where = f"{page}, line {block.line}"
        assert block.language in (*RUNS, *PLAIN), f"{where}: no block is a {block.language}"
        if block.language == "console":
            assert block.commands and block.lines[0].startswith("$ "), f"{where}: begins with no command"
        if block.language == "python":
            assert block.note, f"{where}: say which file it is, or why it is not run"
        if block.language in PLAIN:
            assert not any(line.startswith("$ ") for line in block.lines), f"{where}: a command outside of console"


@pytest.mark.real
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES)
def test_a_pages_commands_run(
    page: str, base_weights: Path, movies_bundle: Path, shell: dict[str, str], tmp_path: Path
) -> None:
    place = tmp_path / "place"
    (place / "docs").mkdir(parents=True)
    (place / "docs" / "examples").symlink_to(ROOT / "docs" / "examples")
    for block in blocks((ROOT / page).read_text(encoding="utf-8")):
        if block.note is not None and block.note[0] == "file":
            assert Path(block.note[1]).name == block.note[1]
            (place / block.note[1]).write_text("\n".join(block.lines) + "\n", encoding="utf-8")
        for command in block.commands if is_run(block) else ():
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-c", command],
                cwd=place, env=shell, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            )  # fmt: skip
            told = f"{page}, block of line {block.line}: exit code {done.returncode} of\n{command}\n{done.stderr}"
            assert done.returncode == 0, told
