"""From a bundle's name to a recommender that can talk, with the store of facts opening beside it.

Knows nothing of flags or terminals.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcrs.programs.facts_process import FactsProcess

if TYPE_CHECKING:
    from gcrs.programs.recommender import Recommender
    from gcrs.toolkit.catalog.allow_list import AllowList
    from gcrs.toolkit.dialogue.linker import Linker
    from gcrs.toolkit.live import LiveCatalog
    from gcrs.toolkit.model.bundle import Bundle

Progress = Callable[[int, int, str], None]


class Clock:
    """Seconds between laps, by name, from `start` (of time.perf_counter) on."""

    def __init__(self, start: float | None = None) -> None:
        self.last = time.perf_counter() if start is None else start
        self.seconds: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """Book the time since the last lap under `name`."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Start-up makes millions of objects that stay: looking through them again and again costs 15 % of the imports."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.freeze()
            gc.enable()


@dataclass
class Talker:
    """A loaded bundle with its live catalogue, ready to reply; `seconds` says what its start took.

    `unlisted` are ids of the allow-list that the catalogue does not have.
    """

    bundle: Bundle
    live: LiveCatalog
    recommender: Recommender
    linker: Linker
    facts: FactsProcess
    seconds: dict[str, float] = field(default_factory=dict)
    unlisted: tuple[str, ...] = ()

    def follow(self) -> tuple[Recommender, Linker]:
        """Program and linker over the catalogue as it stands now; new ones when another process has changed it.

        Raises DataError for a journal that can no longer be read.
        """
        from gcrs.toolkit.dialogue.linker import Linker

        if self.live.follow():
            edition = self.live.edition
            joined = len(edition.catalog) != len(self.linker.catalog)
            self.linker = Linker(edition.catalog, self.bundle.popularity) if joined else self.linker
            self.recommender = self.recommender.over(edition, self.linker)
        return self.recommender, self.linker


def load_talker(
    name: str,
    *,
    where: Sequence[str] = (),
    exclude: Sequence[str] = (),
    allow: AllowList | None = None,
    or_unknown: bool = False,
    device: str = "cpu",
    chroma_url: str | None = None,
    progress: Progress | None = None,
    started: float | None = None,
    api_base: str | None = None,
    api_key: str | None = None,
) -> Talker:
    """Load the bundle with this directory or name; its model, its linker, its facts.

    With `api_base` no weights are loaded: a vLLM server at that address decodes (`toolkit/model/remote.py`).

    Rules and exclusions are checked before anything slow: see `Rules.admitted` for what is raised. Also raises
    DataError for a broken bundle and MissingModelError for missing weights.
    """
    clock = Clock(started)
    tell = progress or (lambda done, total, what: None)
    tell(0, 0, f"loading {Path(name).name}")
    with no_garbage_collection():
        from gcrs.programs.rules import Rules
        from gcrs.toolkit.live import LiveCatalog
        from gcrs.toolkit.model.bundle import Bundle, load_engine

        bundle = Bundle.load(name)
        live = LiveCatalog.of(bundle)
        rules = Rules(tuple(where), tuple(exclude), allow, or_unknown)
        rules.admitted(live.edition.columns)
        unlisted = rules.unknown(live.edition.columns)
        facts = FactsProcess(bundle.directory, list(bundle.catalog.columns), chroma_url)
        clock.lap("bundle")
        from gcrs.programs.recommender import Recommender
        from gcrs.toolkit.dialogue.linker import Linker

        clock.lap("imports")
        tell(0, 0, "loading the model")
        engine: Any
        if api_base is None:
            engine = load_engine(bundle, device=device, progress=progress)
        else:
            from gcrs.toolkit.model.remote import RemoteEngine, Server

            engine = RemoteEngine(Server.at(api_base, api_key), bundle.tokens, bundle.book)
        clock.lap("model")
        linker = Linker(live.edition.catalog, bundle.popularity)
        recommender = Recommender.of(bundle, engine, linker=linker, edition=live.edition)
        clock.lap("program")
    return Talker(bundle, live, recommender, linker, facts, clock.seconds, unlisted)
