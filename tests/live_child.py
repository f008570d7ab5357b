"""What the live tests run in processes of their own: adding to a journal until somebody kills it. Not a test itself.

Arguments: the journal's directory, a name for the items, and what to do: `loop` adds one item after another and prints
each once it is on the disk; `hold` stops inside the transaction, when the ID is chosen; `half` after the first of two
rows is written. The last two print "inside" and wait.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import gcrs.toolkit.catalog.journal as journal
import gcrs.toolkit.ids.build as build
from gcrs.toolkit.catalog.item import Item
from gcrs.toolkit.changes import join_vectors
from gcrs.toolkit.live import LiveCatalog
from live_toys import HASH, WIDE, Nearest, live_toy
from toys import CODES


def stopping(function: Callable[..., Any], at: int) -> Callable[..., Any]:
    """The function, but its call number `at` says that it is there and never comes back."""
    calls = 0

    def stopped(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            print("inside", flush=True)
            time.sleep(600)
        return function(*arguments)

    return stopped


def main() -> None:
    directory, name, what = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    live: LiveCatalog = live_toy(directory, HASH, WIDE if what == "loop" else CODES)
    vector = np.zeros((2, 2))  # everybody wants the same ID
    if what == "hold":
        build.assign_many = stopping(build.assign_many, 1)
    if what == "half":
        journal._written = stopping(journal._written, 2)
    if what != "loop":
        join_vectors(live, Nearest(), [Item(f"{name}-{n}", "Twin") for n in range(2)], vector)
        return
    quantizer = Nearest(WIDE)
    print("ready", flush=True)
    for n in range(10_000):
        join_vectors(live, quantizer, [Item(f"{name}-{n}", f"Film {n}")], vector[:1])
        print(n, flush=True)


if __name__ == "__main__":
    main()
