"""The store of facts in a process of its own, so that opening Chroma and loading the model do not wait for each other.

`FactsProcess` is the near end; `python -m gcrs.programs.facts_process DIR [URL]` is the far one: it opens the store
over DIR's items, then answers one JSON line of ids with one JSON line of facts. It ignores Ctrl-C (that is for the
reply) and ends with its standard input. Knows nothing of models or dialogues.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from gcrs.toolkit.catalog.item import Fact
from gcrs.toolkit.errors import DataError, GcrsError, MissingModelError, UsageError

KINDS = {kind.__name__: kind for kind in (GcrsError, UsageError, DataError, MissingModelError)}


class FactsProcess:
    """Facts of the items in `directory` (a bundle or prepared catalogue), from a store that opens meanwhile.

    A bundle's live items are among them, also those that join while it runs.
    """

    def __init__(self, directory: Path, columns: Sequence[str], url: str | None = None) -> None:
        self._columns = list(columns)
        command = [sys.executable, "-m", "gcrs.programs.facts_process", str(directory), *([url] if url else [])]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)

    def get(self, ids: Sequence[str]) -> dict[str, dict[str, Fact]]:
        """Each item's facts, columns in the catalogue's order. Raises what the store raised."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            _send(self._process.stdin, list(ids))
            line = self._process.stdout.readline()
        except (BrokenPipeError, ValueError):
            line = ""
        if not line:
            raise GcrsError("The process that keeps the items' facts has ended.", hint="Start again; see: gcrs doctor")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise KINDS.get(answer["kind"], GcrsError)(answer["error"])
        found = answer["facts"]
        return {item: {name: facts[name] for name in self._columns if name in facts} for item, facts in found.items()}

    def close(self) -> None:
        """Let the process end by itself; a second call does nothing."""
        assert self._process.stdin is not None
        self._process.stdin.close()


def _send(pipe: IO[str], value: Any) -> None:
    """One JSON line, at once."""
    pipe.write(json.dumps(value) + "\n")
    pipe.flush()


def _serve(directory: Path, url: str | None) -> None:
    from gcrs.toolkit.catalog.live_facts import LiveFacts
    from gcrs.toolkit.model.bundle import bundle_hash

    failure: GcrsError | None = None
    store: LiveFacts | None = None
    try:
        store = LiveFacts(directory, bundle_hash(directory), url)
        store.prepare()
    except GcrsError as error:
        failure = error
    for line in sys.stdin:
        answer: dict[str, Any]
        try:
            if failure is not None or store is None:
                raise failure or GcrsError("The store of facts did not open.")
            answer = {"facts": store.get(json.loads(line))}
        except GcrsError as error:
            answer = {"error": str(error), "kind": type(error).__name__}
        _send(sys.stdout, answer)
    if store is not None:
        store.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _serve(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
