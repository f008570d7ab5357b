"""What the serving tests run as a process: the HTTP server over the toy parts, without a bundle. Not a test itself.

Arguments: milliseconds that each token of a reply takes, then a ServeConfig as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gcrs.programs.lm import local_lm
from gcrs.programs.recommender import Recommender
from gcrs.programs.serving.config import ServeConfig
from gcrs.programs.serving.run import listen, serve_http
from gcrs.programs.serving.tools import Toolbox
from gcrs.toolkit.dialogue.linker import Linker
from gcrs.toolkit.model.engine import Engine, Piece
from toys import toy_catalog, toy_engine


class SlowEngine(Engine):
    """The toy engine at the pace of a slow machine; the lock is free while it waits, as between real tokens."""

    pause = 0.0

    def respond(self, *args: Any, **options: Any) -> Iterator[Piece]:
        for piece in super().respond(*args, **options):
            time.sleep(self.pause)
            yield piece


def toy_talker(engine: Engine) -> Any:
    """What `load_talker` gives, over the toy parts."""
    catalog = toy_catalog()
    linker = Linker(catalog)
    program = Recommender(catalog, engine.book, engine.tokens, local_lm(engine, "toy"), linker=linker)
    facts = {item.id: dict(item.facts) for item in catalog}
    return SimpleNamespace(
        bundle=SimpleNamespace(hash="toy", tokens=engine.tokens),
        recommender=program,
        follow=lambda: (program, linker),
        facts=SimpleNamespace(get=lambda ids: {one: facts[one] for one in ids}, close=lambda: None),
    )


def main() -> int:
    SlowEngine.pause = float(sys.argv[1]) / 1000
    told = json.loads(sys.argv[2])
    if told.get("session_dir"):
        told["session_dir"] = Path(told["session_dir"])
    config = ServeConfig(**told)
    engine = toy_engine()
    engine.__class__ = SlowEngine
    return serve_http(Toolbox(toy_talker(engine)), config, listen(config), lambda address: print(address, flush=True))


if __name__ == "__main__":
    sys.exit(main())
