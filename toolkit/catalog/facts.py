"""The store of items' facts: a Chroma collection that is a cache of the catalogue, filled and repaired by itself.

Each catalogue has its own collection, named by a hash of its content, so a collection is never stale; a half-filled
or broken one is filled again. Chroma holds metadata only (one-dimensional dummy vectors, no embedding function).
Knows nothing of filters: Chroma's own admit missing values and cannot order texts (see `filters`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from gcrs.toolkit.catalog.item import Catalog, Fact, Item
from gcrs.toolkit.errors import GcrsError, UsageError
from gcrs.toolkit.files import cache_dir

if TYPE_CHECKING:
    from chromadb.api import ClientAPI
    from chromadb.api.models.Collection import Collection

Progress = Callable[[int, int, str], None]
Answer = TypeVar("Answer")

_FORMAT = 1  # of the metadata: raise it when `_metadata` changes
_COMPLETE = "gcrs_items"  # in the collection's metadata, written last: how many items it was filled with
_TITLE = "title"
_ESCAPE = "_:"
_BATCH = 2000  # ids in one request: below Chroma's limit for writing and SQLite's for reading


class FactStore:
    """Facts by item id, from Chroma: embedded in `directory` by default, or on the server at `url`.

    Nothing is opened before the first `get` or `prepare`. Use one store in one process; after a fork, make another.
    """

    def __init__(
        self,
        catalog: Catalog,
        directory: Path | None = None,
        url: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        if directory is not None and url is not None:
            raise UsageError("Facts are kept either in a directory or on a Chroma server, not both.")
        self.catalog = catalog
        self.name = f"gcrs-{catalog_hash(catalog)[:32]}"
        self._folder = None if url else (directory or cache_dir() / "facts") / self.name
        self._url = url
        self._progress = progress
        self._client: ClientAPI | None = None
        self._collection: Collection | None = None

    def prepare(self) -> None:
        """Open the collection and fill it if it is not complete. Raises GcrsError when Chroma cannot be had."""
        self._repairing(lambda collection: None)

    def get(self, ids: Iterable[str]) -> dict[str, dict[str, Fact]]:
        """Each asked id with its item's facts, in the order asked, each id once.

        An alias gives its item's facts under the id that was asked for; an id that is not in the catalogue is left
        out. Raises GcrsError when Chroma cannot be had.
        """
        asked = {item_id: self.catalog.canonical(item_id) for item_id in ids if item_id in self.catalog}
        wanted = list(dict.fromkeys(asked.values()))

        def read(collection: Collection) -> dict[str, dict[str, Fact]]:
            found: dict[str, dict[str, Fact]] = {}
            for start in range(0, len(wanted), _BATCH):
                answer = collection.get(ids=wanted[start : start + _BATCH], include=["metadatas"])
                for item_id, metadata in zip(answer["ids"], answer["metadatas"] or [], strict=True):
                    found[item_id] = _facts(metadata or {})
            if missing := set(wanted) - found.keys():
                raise _BrokenStore(f"{len(missing)} of {len(wanted)} items are gone from it")
            return found

        found = self._repairing(read) if wanted else {}
        order = {column: position for position, column in enumerate(self.catalog.columns)}

        def ordered(facts: dict[str, Fact]) -> dict[str, Fact]:  # Chroma gives keys in any order
            return dict(sorted(facts.items(), key=lambda fact: (order.get(fact[0], len(order)), fact[0])))

        return {item_id: ordered(found[canonical]) for item_id, canonical in asked.items()}

    def close(self) -> None:
        """Let go of Chroma; the next `get` opens it again."""
        client, self._client, self._collection = self._client, None, None
        if client is not None:
            client.close()  # type: ignore[attr-defined]

    def _repairing(self, use: Callable[[Collection], Answer]) -> Answer:
        """`use` on the filled collection; when Chroma fails, once more on one that is built from nothing."""
        try:
            return use(self._open())
        except Exception as error:  # Chroma raises ValueError, its own errors, sqlite's and httpx's for a broken store
            if isinstance(error, GcrsError) and not isinstance(error, _BrokenStore):
                raise
            first = error
        try:
            self._discard()
            return use(self._open())
        except Exception as error:
            if isinstance(error, GcrsError) and not isinstance(error, _BrokenStore):
                raise
            place = self._url or self._folder
            reason = (str(error) or str(first) or type(error).__name__).splitlines()[0].rstrip(".?")
            raise GcrsError(
                f"The Chroma store of facts at {place} cannot be used: {reason}.",
                hint="Is the server running? Start one: chroma run --path DIR"
                if self._url
                else "Choose another place.",
            ) from error

    def _open(self) -> Collection:
        if self._collection is None:
            self._client = self._connect()
            collection = self._client.get_or_create_collection(self.name, embedding_function=None)
            if not self._is_complete(collection):
                self._fill(self._client, collection)
            self._collection = collection
        return self._collection

    def _connect(self) -> ClientAPI:
        import chromadb
        from chromadb.config import Settings

        settings = Settings(anonymized_telemetry=False)
        if self._url is None:
            assert self._folder is not None
            self._folder.mkdir(parents=True, exist_ok=True)
            return chromadb.PersistentClient(str(self._folder), settings=settings)
        parts = urlsplit(self._url)
        try:
            port = parts.port or (443 if parts.scheme == "https" else 8000)
        except ValueError:
            port = None
        if parts.scheme not in ("http", "https") or not parts.hostname or port is None or parts.path.strip("/"):
            raise UsageError(f"{self._url!r} is no address of a Chroma server.", hint="Write http://127.0.0.1:8000")
        return chromadb.HttpClient(parts.hostname, port, ssl=parts.scheme == "https", settings=settings)

    def _is_complete(self, collection: Collection) -> bool:
        total = len(self.catalog)
        return (collection.metadata or {}).get(_COMPLETE) == total and collection.count() == total

    def _fill(self, client: ClientAPI, collection: Collection) -> None:
        """Write every item and then the mark that says so; what a killed run has written is written over."""
        items: Sequence[Item] = self.catalog.items
        size = min(_BATCH, client.get_max_batch_size())
        for start in range(0, len(items), size):
            batch = items[start : start + size]
            vectors: Any = [[0.0]] * len(batch)
            metadatas: Any = [_metadata(item) for item in batch]
            collection.upsert(ids=[item.id for item in batch], embeddings=vectors, metadatas=metadatas)
            if self._progress:
                self._progress(min(start + size, len(items)), len(items), "filling the store of facts")
        collection.modify(metadata={_COMPLETE: len(items)})

    def _discard(self) -> None:
        """Remove what is there: this catalogue's own folder, or its collection on the server."""
        client = self._client
        try:
            if self._url and client is not None:
                client.delete_collection(self.name)
            self.close()
        except Exception:  # it is broken, which is why it goes
            self._client = self._collection = None
        if self._folder is not None:
            from chromadb.api.shared_system_client import SharedSystemClient

            # Chroma keeps what it half opened, by path, for the whole process, and would hand it out again.
            SharedSystemClient.clear_system_cache()
            if self._folder.is_dir():
                shutil.rmtree(self._folder)
            else:
                self._folder.unlink(missing_ok=True)


class _BrokenStore(GcrsError):
    """The collection does not hold what it says it does."""


def catalog_hash(catalog: Catalog) -> str:
    """Hex SHA-256 of ids, titles, facts and column types; aliases and names do not change what the store holds."""
    digest = hashlib.sha256(json.dumps([_FORMAT, catalog.columns], sort_keys=True).encode())
    for item in catalog:
        digest.update(json.dumps([item.id, item.title, dict(item.facts)], sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _metadata(item: Item) -> dict[str, Any]:
    """What Chroma keeps of an item. The title keeps it from being empty, which Chroma refuses, as it does an empty list
    and a key that starts with `#`, `$` or (silently) `chroma:`.
    """
    escaped = {_key(column): value for column, value in item.facts.items() if value is not None and value != []}
    return {_TITLE: item.title, **escaped}


def _key(column: str) -> str:
    reserved = column == _TITLE or column.startswith(("#", "$", "chroma:", _ESCAPE))
    return f"{_ESCAPE}{column}" if reserved else column


def _facts(metadata: Mapping[str, Any]) -> dict[str, Fact]:
    return {key.removeprefix(_ESCAPE): value for key, value in metadata.items() if key != _TITLE}
