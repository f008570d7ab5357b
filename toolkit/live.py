"""LiveCatalog: a bundle's catalogue as it stands now, its journal of live changes joined in.

An Edition is the whole catalogue after so many changes and never changes itself; `follow` exchanges it when any process
has changed the journal. Items are only ever appended and never leave, so rows, semantic IDs and sessions of an older
edition stay right: a retired item keeps its row and its ID and is marked. Knows nothing of vectors or of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from gcrs.toolkit.catalog.columns import conform
from gcrs.toolkit.catalog.item import Catalog, Item
from gcrs.toolkit.catalog.journal import Change, Head, Journal
from gcrs.toolkit.errors import DataError
from gcrs.toolkit.ids.codebook import Codebook

if TYPE_CHECKING:
    import numpy as np

    from gcrs.toolkit.catalog.filters import Columns
    from gcrs.toolkit.model.bundle import Bundle
    from gcrs.toolkit.prepared import PreparedCatalog


@dataclass(frozen=True, eq=False)
class Edition:
    """The catalogue at one version: the bundle's items, then those that joined; `retired` are ids of both kinds.

    Rows of `book` and of `catalog` agree. `version` counts the changes, 0 is the bundle as it was made.
    """

    catalog: Catalog
    book: Codebook
    retired: frozenset[str] = frozenset()
    version: int = 0

    @cached_property
    def offered(self) -> np.ndarray | None:
        """bool [items in the codebook's order]: what may be recommended; None where nothing is retired."""
        import numpy as np

        if not self.retired:
            return None
        return np.array([item not in self.retired for item in self.book], dtype=bool)

    @cached_property
    def columns(self) -> Columns:
        """The catalogue's filter columns, shared by all that ask this edition."""
        from gcrs.toolkit.catalog.filters import Columns

        return Columns(self.catalog)

    @cached_property
    def rows(self) -> np.ndarray:
        """int64 [items in the codebook's order]: their places in the catalogue."""
        return self.columns.rows(list(self.book))

    def check_free(self, source_ids: Sequence[str]) -> None:
        """DataError when one of these ids or aliases is in the catalogue, retired or not."""
        for source_id in source_ids:
            if source_id not in self.catalog:
                continue
            if self.catalog.canonical(source_id) in self.retired:
                raise DataError(
                    f"Item {source_id!r} is in the catalogue, retired.",
                    hint=f"Nothing was changed. Bring it back: gcrs catalog restore {source_id}",
                )
            raise DataError(
                f"Item {source_id!r} is in the catalogue already, and what it holds stays as it is.",
                hint="Nothing was changed. Leave it out, or give the new item another id.",
            )

    def after(self, changes: Sequence[Change]) -> Edition:
        """The edition that these changes make of this one. DataError for a change that it does not admit."""
        if not changes:
            return self
        joined, ids, retired = list[Item](), dict(self.book.ids), set(self.retired)
        for change in changes:
            if change.kind == "add":
                if change.item is None or change.semantic_id is None:
                    raise DataError(f"Item {change.item_id!r} joined without its facts or without a semantic ID.")
                conform(change.item.facts.items(), self.catalog.columns, f"Item {change.item_id!r}")
                joined.append(change.item)
                ids[change.item_id] = change.semantic_id
            elif change.item_id not in ids or (change.kind == "retire") == (change.item_id in retired):
                raise DataError(f"Item {change.item_id!r} cannot be the one to {change.kind}.")
            else:
                (retired.add if change.kind == "retire" else retired.discard)(change.item_id)
        catalog, book = self.catalog, self.book
        if joined:  # both refuse what is there twice
            catalog = Catalog([*catalog, *joined], catalog.columns)
            book = Codebook(book.codes, ids, book.titles and catalog.titles())
        return Edition(catalog, book, frozenset(retired), changes[-1].version or self.version)


class LiveCatalog:
    """The newest edition of a bundle's catalogue, and its journal.

    Not for several threads at once; an `edition` that was taken from it is. Raises DataError for a journal that is
    broken, that is another bundle's or that does not fit the bundle's items.
    """

    def __init__(self, bundle_hash: str, catalog: Catalog, book: Codebook, directory: Path | None = None) -> None:
        self.journal = Journal(bundle_hash, directory)
        self.bundled = self.edition = Edition(catalog, book)
        self._head = Head()
        self._changes: list[Change] = []
        self.follow()

    @classmethod
    def of(cls, bundle: Bundle) -> LiveCatalog:
        """The live catalogue of a loaded bundle."""
        return cls(bundle.hash, bundle.catalog, bundle.book)

    @classmethod
    def at(cls, directory: Path, prepared: PreparedCatalog) -> LiveCatalog | None:
        """The live catalogue of the bundle in a directory, given its catalogue; None where it is no bundle."""
        from gcrs.toolkit.model.bundle import bundle_hash

        found = bundle_hash(directory)
        return None if found is None else cls(found, prepared.catalog, prepared.book)

    @property
    def added(self) -> int:
        """How many items have joined since the bundle was made."""
        return len(self.edition.catalog) - len(self.bundled.catalog)

    def changed(self) -> bool:
        """Whether the journal holds a change that `edition` lacks; reads one row."""
        return self.journal.head() != self._head

    def follow(self) -> bool:
        """Take over what was changed since the last look; whether something was.

        DataError also when what was there before is gone: a journal only grows while somebody follows it.
        """
        if not self.changed():
            return False
        head, changes = self.journal.read()
        if changes[: len(self._changes)] != self._changes:
            raise DataError(
                f"The journal {self.journal.path} was replaced while it was in use.", hint="Start this process again."
            )
        self.edition = self._joined(changes)
        self._head, self._changes = head, changes
        return True

    def _joined(self, changes: Sequence[Change]) -> Edition:
        try:
            return self.bundled.after(changes)
        except DataError as error:
            raise DataError(
                f"The journal {self.journal.path} does not fit its bundle: {error.message}",
                hint="Put a backup in its place, or move it away to lose the changes in it.",
            ) from error
