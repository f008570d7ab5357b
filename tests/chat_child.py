"""What test_chat.py runs behind a terminal: the chat over the toy parts. Not a test itself.

Arguments: a session file or "-", then the reply's tokens and the milliseconds that each of them takes in
the first reply.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from gcrs.programs.chat import piped_lines, run_chat, terminal_lines
from gcrs.programs.lm import local_lm
from gcrs.programs.recommender import Recommender
from gcrs.programs.session import ChatSession
from gcrs.toolkit.dialogue.linker import Linker
from gcrs.toolkit.model.engine import Engine, Piece, Sampling
from toys import toy_catalog, toy_engine


class SlowEngine(Engine):
    """The toy engine, its first reply at the pace of a slow machine."""

    pause = 0.0

    def respond(self, *args: Any, **options: Any) -> Iterator[Piece]:
        for piece in super().respond(*args, **options):
            time.sleep(self.pause)
            yield piece
        SlowEngine.pause = 0.0


def main() -> int:
    file, tokens, pause = sys.argv[1:4]
    engine, catalog = toy_engine(), toy_catalog()
    engine.__class__ = SlowEngine
    SlowEngine.pause = float(pause) / 1000
    linker = Linker(catalog)
    program = Recommender(catalog, engine.book, engine.tokens, local_lm(engine, "toy"), linker=linker)
    session = ChatSession(program, linker, bundle_hash="toy", seed=3, sampling=Sampling(max_tokens=int(tokens)))
    interactive = sys.stdin.isatty()
    return run_chat(
        session,
        Console(width=100),
        terminal_lines() if interactive else piped_lines(),
        interactive=interactive,
        notes=None if interactive else Console(stderr=True, width=100),
        show_decisions="decisions" in os.environ.get("CHAT_CHILD", ""),
        session_file=None if file == "-" else Path(file),
    )


if __name__ == "__main__":
    sys.exit(main())
