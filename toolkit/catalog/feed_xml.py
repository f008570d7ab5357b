"""The items of an XML product feed (RSS 2.0, RSS 1.0 or Atom, with or without Google's `g:` names) as columns.

Read with expat, piece by piece: no entity is expanded, nothing outside the file is opened. Knows nothing of what the
columns mean.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any
from xml.parsers import expat

from gcrs.toolkit.catalog.columns import MAX_CELL
from gcrs.toolkit.errors import DataError

_ITEMS = frozenset({"item", "entry", "product"})
_SAME = {"summary": "description", "content": "description", "encoded": "description"}
_GOOGLE = "http://base.google.com/ns/1.0"
_PIECE = 1 << 20
_DEEPEST = 50


def xml_columns(path: Path, stream: IO[bytes]) -> tuple[list[int], dict[str, list[Any]]]:
    """The line each item begins in, and its elements by name: a text, or a list where one stands repeatedly or holds
    others (an object each).

    Of an element in and out of Google's namespace, Google's counts. Raises DataError, with the line, for what is no
    well-formed XML, declares entities or has no items.
    """
    reader = _Reader(path)
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.EntityDeclHandler = reader.entity
    parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
    reader.line = lambda: parser.CurrentLineNumber
    try:
        while piece := stream.read(_PIECE):
            parser.Parse(piece, False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise DataError(
            f"{path}, line {error.lineno}: not well-formed XML ({expat.ErrorString(error.code)}).",
            hint="Is the file truncated?",
        ) from None
    if not reader.rows:
        raise DataError(f"{path} holds no items, expected <item> or <entry> elements.", hint="Is it a product feed?")
    for column in reader.columns.values():
        column.extend([None] * (len(reader.rows) - len(column)))
    return reader.rows, reader.columns


class _Reader:
    """Collects items while expat calls; `line` is set to what tells the current line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[int] = []
        self.columns: dict[str, list[Any]] = {}
        self.line = lambda: 0
        self._open: list[str] = []  # names of the open elements, from the item on
        self._item: dict[str, list[tuple[bool, Any]]] = {}
        self._parts: dict[str, str] = {}  # elements inside an element: g:shipping holds g:country and g:price
        self._words: list[str] = []
        self._size = 0
        self._link = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        local = name.rsplit(" ", 1)[-1]
        if not self._open and local not in _ITEMS:
            return
        if len(self._open) >= _DEEPEST:
            raise DataError(f"{self.path}, line {self.line()}: elements are nested more than {_DEEPEST} deep.")
        if not self._open:
            self.rows.append(self.line())
            self._item = {}
        elif len(self._open) == 1:
            self._parts, self._link = {}, ""
            if local == "link" and attributes.get("rel", "alternate") == "alternate":
                self._link = attributes.get("href", "")  # Atom's
        self._open.append(name)
        if len(self._open) <= 2 or local not in ("b", "i", "p", "br", "div", "span"):
            self._words, self._size = [], 0

    def text(self, words: str) -> None:
        if len(self._open) < 2:
            return
        self._size += len(words)
        if self._size > MAX_CELL:
            raise DataError(f"{self.path}, line {self.line()}: found a text of more than {MAX_CELL:,} characters.")
        self._words.append(words)

    def end(self, name: str) -> None:
        if not self._open:
            return
        namespace, _, local = name.rpartition(" ")
        self._open.pop()
        words = " ".join("".join(self._words).split())
        if len(self._open) >= 2:
            if words:
                self._parts[local] = words
            self._words = []
        elif len(self._open) == 1:
            value: Any = self._parts or words or self._link
            if value:
                self._item.setdefault(_SAME.get(local, local), []).append((namespace == _GOOGLE, value))
            self._words = []
        else:
            self._close()

    def entity(self, name: str, *_: Any) -> None:
        raise DataError(
            f"{self.path}, line {self.line()}: declares the entity {name!r}, which is refused.",
            hint="Write the feed without a document type.",
        )

    def _close(self) -> None:
        """The item that ends here becomes a row."""
        n = len(self.rows) - 1
        for name, found in self._item.items():
            own = [value for google, value in found if google]
            values = own or [value for _, value in found]
            column = self.columns.setdefault(name, [])
            column.extend([None] * (n - len(column)))
            column.append(values[0] if len(values) == 1 and isinstance(values[0], str) else values)
