"""Journal: what has changed in a catalogue since its bundle was made, in one SQLite file a bundle.

Bundles are immutable; items that joined, were retired or restored stand here, one transaction a change, every change
with a digest of itself and of the one before. A kill at any moment leaves all of a change or nothing of it; a file that
is broken, edited or of another bundle is refused, never read in part. Knows nothing of vectors, trees or the model, and
of a semantic ID only that it is a list of whole numbers.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from gcrs.toolkit.catalog.item import Item
from gcrs.toolkit.errors import DataError, GcrsError
from gcrs.toolkit.files import data_dir, fsync_path, sha256_json

Kind = Literal["add", "retire", "restore"]

APPLICATION = 0x67637273  # "gcrs" in the file's header
FORMAT = 1
WAIT = 30.0  # seconds that a change waits for another process's

_SCHEMA = f"""
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {FORMAT};
BEGIN;
CREATE TABLE bundle (hash TEXT NOT NULL);
CREATE TABLE changes (
    number INTEGER PRIMARY KEY,
    version INTEGER NOT NULL,
    kind TEXT NOT NULL,
    item TEXT NOT NULL,
    semantic_id TEXT,
    content TEXT,
    made TEXT NOT NULL,
    digest TEXT NOT NULL
);
"""
_BROKEN = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR)  # the last: tables are not ours


@dataclass(frozen=True)
class Change:
    """One item that joined (`item` and `semantic_id` are given), or was retired or restored."""

    kind: Kind
    item_id: str
    item: Item | None = None
    semantic_id: tuple[int, ...] | None = None
    version: int = 0


@dataclass(frozen=True)
class Head:
    """Where a journal stands: the version (0 without changes) and the newest change's digest, which names the whole."""

    version: int = 0
    digest: str = ""


class Journal:
    """The journal of one bundle, `<data directory>/journals/<bundle hash>.sqlite`; made by the first change.

    Holds no connection between calls, so one object serves all threads. Methods raise DataError (exit 3) for a file
    that is broken, edited, of another bundle or of another version, GcrsError (exit 1) when the disk refuses.
    """

    def __init__(self, bundle_hash: str, directory: Path | None = None) -> None:
        self.bundle_hash = bundle_hash
        self.path = (directory or data_dir() / "journals") / f"{bundle_hash}.sqlite"

    def head(self) -> Head:
        """Where it stands: one row is read, about 0.2 ms; without a file nothing is."""
        if not self.path.exists():
            return Head()
        with self._opened() as connection:
            return _head(connection)

    def read(self) -> tuple[Head, list[Change]]:
        """All changes in order, each checked."""
        if not self.path.exists():
            return Head(), []
        with self._opened() as connection:
            return self._checked(connection)

    def commit(self, decide: Callable[[list[Change]], Sequence[Change]]) -> Head:
        """Write, as one transaction and one version, what `decide` makes of all changes so far.

        No other process can change the journal between its reading and the writing. Nothing is written when `decide`
        raises or returns nothing. On return the change is on the disk.
        """
        self._make()
        with self._opened() as connection:
            connection.execute("BEGIN IMMEDIATE")
            head, before = self._checked(connection)
            made = datetime.now(UTC).isoformat(timespec="seconds")
            version, digest = head.version + 1, head.digest
            new = decide(before)
            for number, change in enumerate(new, len(before) + 1):
                row = (number, version, *_written(change), made)
                digest = _digest(self.bundle_hash, digest, row)
                connection.execute("INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, digest))
            connection.execute("COMMIT")
            return Head(version, digest) if new else head

    def _make(self) -> None:
        """Put an empty journal in place, whole: a file of no bytes is then always a broken one."""
        if self.path.exists():
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".new-", suffix=".sqlite", dir=self.path.parent)
            os.close(handle)
        except OSError as error:
            raise self._refused(error.strerror or str(error)) from error
        staged = Path(name)
        try:
            with _errors(self), _connection(staged) as connection:
                connection.executescript(_SCHEMA)
                connection.execute("INSERT INTO bundle VALUES (?)", (self.bundle_hash,))
                connection.execute("COMMIT")
            try:
                os.link(staged, self.path)  # fails where another process was faster, whose journal then stands
            except FileExistsError:
                pass
            except OSError:  # a file system without links
                if not self.path.exists():
                    os.replace(staged, self.path)
            fsync_path(self.path.parent)
        except OSError as error:
            raise self._refused(error.strerror or str(error)) from error
        finally:
            staged.unlink(missing_ok=True)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """A connection to a journal that is one, of this version and this bundle."""
        with _errors(self), _connection(self.path) as connection:
            found = connection.execute("PRAGMA application_id").fetchone()[0]
            if found != APPLICATION:
                raise self._broken("it is no journal of gcrs")
            if (version := connection.execute("PRAGMA user_version").fetchone()[0]) != FORMAT:
                raise DataError(f"{self.path} is a journal of version {version}, expected {FORMAT}.",
                                hint="Update gcrs.")  # fmt: skip
            owner = connection.execute("SELECT hash FROM bundle").fetchall()
            if owner != [(self.bundle_hash,)]:
                raise self._broken(f"it belongs to the bundle {str(owner[0][0])[:12] if owner else 'of no name'}, not "
                                   f"to {self.bundle_hash[:12]}")  # fmt: skip
            yield connection

    def _checked(self, connection: sqlite3.Connection) -> tuple[Head, list[Change]]:
        """Head and changes, every row held against its digest."""
        if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise self._broken("SQLite finds its pages damaged")
        changes: list[Change] = []
        version, digest = 0, ""
        for *row, found in connection.execute("SELECT * FROM changes ORDER BY number"):
            digest = _digest(self.bundle_hash, digest, tuple(row))
            number = len(changes) + 1
            if found != digest or row[0] != number or not version <= row[1] <= version + 1:
                raise self._broken(f"change {number} is not what was written")
            version = row[1]
            try:
                changes.append(_read(*row[1:6]))
            except (KeyError, TypeError, ValueError) as error:
                raise self._broken(f"change {number} cannot be read ({type(error).__name__})") from error
        return Head(version, digest), changes

    def _broken(self, why: str) -> DataError:
        return DataError(
            f"The catalogue's journal {self.path} cannot be used: {why}.",
            hint="Put a backup in its place, or move it away to lose the changes in it.",
        )

    def _refused(self, why: str) -> GcrsError:
        return GcrsError(f"The journal {self.path} cannot be used: {why.rstrip('.')}.", hint="Nothing was changed.")


def _head(connection: sqlite3.Connection) -> Head:
    row = connection.execute("SELECT version, digest FROM changes ORDER BY number DESC LIMIT 1").fetchone()
    return Head(*row) if row else Head()


def _digest(bundle_hash: str, before: str, row: tuple[Any, ...]) -> str:
    return sha256_json([bundle_hash, before, *row])


def _written(change: Change) -> tuple[str, str, str | None, str | None]:
    """The columns kind, item, semantic_id and content."""
    if change.item is None:
        return change.kind, change.item_id, None, None
    item = change.item
    content = {"title": item.title, "facts": dict(item.facts), "aliases": item.aliases, "names": item.names}
    return change.kind, item.id, json.dumps(change.semantic_id), json.dumps(content)


def _read(version: int, kind: Any, item_id: str, semantic_id: str | None, content: str | None) -> Change:
    """The change in a row; KeyError, TypeError or ValueError when it is none."""
    if kind in ("retire", "restore"):
        return Change(kind, item_id, version=version)
    if kind != "add" or semantic_id is None or content is None:
        raise ValueError(kind)
    told = json.loads(content)
    item = Item(item_id, told["title"], told["facts"], tuple(told["aliases"]), tuple(told["names"]))
    return Change("add", item_id, item, tuple(int(code) for code in json.loads(semantic_id)), version)


@contextmanager
def _connection(path: Path) -> Iterator[sqlite3.Connection]:
    """Read and write, never made anew; transactions are the caller's, what is not committed is taken back."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=WAIT, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = FULL")  # with the rollback journal that SQLite has by default
        yield connection
    finally:
        connection.close()


@contextmanager
def _errors(journal: Journal) -> Iterator[None]:
    """SQLite's errors as ours: a broken file, or a system that refuses."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code == sqlite3.SQLITE_BUSY:
            raise GcrsError(
                f"Another process has been changing this catalogue for {WAIT:.0f} s ({journal.path}).",
                hint="Nothing was changed; try again.",
            ) from error
        if code in _BROKEN:
            raise journal._broken(str(error)) from error
        raise journal._refused(str(error)) from error
