"""LiveFacts: the facts of a bundle's items and of those that joined later, each part in a Chroma store of its own.

The bundle's store is filled once; what has joined is a small second store, made anew when the journal grows. Knows
nothing of semantic IDs: that an item is retired changes no fact.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from gcrs.toolkit.catalog.facts import FactStore
from gcrs.toolkit.catalog.item import Catalog, Fact
from gcrs.toolkit.catalog.journal import Head, Journal
from gcrs.toolkit.catalog.readers import read_items
from gcrs.toolkit.files import cache_dir

KEPT = 3  # stores of earlier joined items that other processes may still read


class LiveFacts:
    """Facts by item id for the items in `directory`, embedded or on the Chroma server at `url`.

    `bundle_hash` says whose journal is followed; None where it is no bundle. Each `get` looks whether the journal has
    grown. Raises what `FactStore` and `Journal` raise.
    """

    def __init__(self, directory: Path, bundle_hash: str | None, url: str | None = None) -> None:
        self._url = url
        self._bundled = FactStore(read_items(directory / "items.jsonl"), url=url)
        self._journal = None if bundle_hash is None else Journal(bundle_hash)
        self._head = Head()
        self._joined: FactStore | None = None

    def prepare(self) -> None:
        """Open and fill what is not there."""
        self._bundled.prepare()
        self._follow()

    def get(self, ids: Iterable[str]) -> dict[str, dict[str, Fact]]:
        """As `FactStore.get`, over all items."""
        self._follow()
        asked = list(ids)
        found = self._bundled.get(asked)
        if self._joined is not None:
            found |= self._joined.get(asked)
        return {item_id: found[item_id] for item_id in asked if item_id in found}

    def close(self) -> None:
        """Let go of Chroma."""
        for store in (self._bundled, self._joined):
            if store is not None:
                store.close()

    def _follow(self) -> None:
        if self._journal is None or self._journal.head() == self._head:
            return
        head, changes = self._journal.read()
        items = [change.item for change in changes if change.item is not None]
        if items and (self._joined is None or len(items) != len(self._joined.catalog)):
            folder = None if self._url else cache_dir() / "facts" / f"live-{self._journal.bundle_hash[:32]}"
            store = FactStore(Catalog(items, self._bundled.catalog.columns), folder, self._url)
            store.prepare()
            before, self._joined = self._joined, store
            if before is not None:
                before.close()
            if folder is not None:
                _forget_old(folder, store.name)
        self._head = head


def _forget_old(folder: Path, name: str) -> None:
    """Remove all but the newest stores beside the one of this name."""
    others = [path for path in folder.glob("gcrs-*") if path.name != name]
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT - 1 :]:
        shutil.rmtree(path, ignore_errors=True)
