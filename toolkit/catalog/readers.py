"""Catalogue files: CSV, JSON Lines, Parquet and product feeds in, gcrs' own JSON Lines out.

Every file has `id` and `title`; every other column is a fact. Lists are JSON lists, Parquet lists, or CSV cells
written `a|b|c`. Knows nothing of any public data set; those readers live in `gcrs.catalogs`.
"""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from itertools import repeat
from pathlib import Path
from typing import IO, Any

from gcrs.toolkit.catalog.columns import COLUMN_TYPES, MAX_CELL, Place, shown, type_of_values
from gcrs.toolkit.catalog.csv_table import csv_cells, type_cells
from gcrs.toolkit.catalog.feed_names import ENOUGH, Feed, recognise
from gcrs.toolkit.catalog.feed_xml import xml_columns
from gcrs.toolkit.catalog.feeds import FeedColumns, FeedReport
from gcrs.toolkit.catalog.item import Catalog, ColumnType, Fact
from gcrs.toolkit.catalog.parquet_table import parquet_columns
from gcrs.toolkit.catalog.table import Table, catalog_of
from gcrs.toolkit.catalog.text import plain_text
from gcrs.toolkit.errors import DataError
from gcrs.toolkit.files import atomic_write

Progress = Callable[[int, int, str], None]

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".xml", ".parquet")
MAX_LINE = 16 * MAX_CELL  # bytes of one line: a file without line ends must not fill the memory
_HEADER = {"gcrs": "items", "version": 1}


def read_items(
    path: Path | str,
    on_feed: Callable[[FeedReport], None] | None = None,
    *,
    fixed: Mapping[str, ColumnType] | None = None,
) -> Catalog:
    """The catalogue in a .csv, .tsv, .jsonl, .ndjson, .xml or .parquet file (all but Parquet also as .gz).

    Columns get one type each: string, integer, number, boolean, date (ISO) or list. In CSV a column is a list when
    its header ends in `[]`, or when some cell holds a `|` and every `|` in the column stands between two characters
    that are not blanks; a header `name:type` fixes the type. An empty cell, null or an empty list is a missing value.
    A product feed, recognised by its columns, is read as `feeds` says; `on_feed` hears what became of it.
    `fixed` are the columns of a catalogue that the items shall join: its types hold, whatever the file says, and any
    other column is an error. Raises DataError (exit 3), with file, line, column, found and expected, for all else.
    """
    path = Path(path)
    suffix, stream = _open(path)
    with stream:
        try:
            return catalog_of(_table(path, suffix, stream, on_feed or (lambda report: None), fixed), fixed)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path} is a broken or truncated gzip file: {error}.", hint="Fetch it again.") from error
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _table(
    path: Path,
    suffix: str,
    stream: IO[bytes],
    on_feed: Callable[[FeedReport], None],
    fixed: Mapping[str, ColumnType] | None,
) -> Table:
    if suffix in (".jsonl", ".ndjson"):
        table, columns = _json_columns(path, _lines(path, stream), fixed)
        if columns and (feed := recognise(columns)):
            _read_feed(table, feed, columns, on_feed)
        return table
    cells = None
    if suffix == ".parquet":
        rows, columns = parquet_columns(path, stream)
    elif suffix == ".xml":
        rows, columns = xml_columns(path, stream)
    else:
        cells = csv_cells(str(path), _lines(path, stream), "\t" if suffix == ".tsv" else None)
        rows, columns = cells.rows, cells.columns
    table = Table(str(path), "row" if suffix == ".parquet" else "line", rows, [], [], {})
    enough = 0 if suffix == ".xml" else ENOUGH  # what else would be sold in XML with a price
    if feed := recognise(columns, enough=enough):
        _read_feed(table, feed, columns, on_feed)
    elif suffix == ".xml":
        raise DataError(
            f"{path} has items of {', '.join(columns)[:200]}, expected a product feed with id, title and price.",
            hint="Other XML must become CSV or JSON Lines.",
        )
    else:
        table.facts = type_cells(str(path), cells, fixed) if cells else _typed(table, columns, fixed)
        table.ids, table.titles = columns["id"], columns["title"]
    return table


def _typed(
    table: Table, columns: dict[str, list[Any]], fixed: Mapping[str, ColumnType] | None
) -> dict[str, tuple[ColumnType, list[Fact | None]]]:
    facts = {}
    for name in [name for name in columns if name not in ("id", "title")]:
        place = Place(table.file, name, table.row_word)
        facts[name] = type_of_values(columns.pop(name), table.rows, place, (fixed or {}).get(name))
    return facts


def _read_feed(table: Table, feed: Feed, columns: dict[str, list[Any]], on_feed: Callable[[FeedReport], None]) -> None:
    """Fill the table from a feed's columns as written, which are used up."""
    reader = FeedColumns(feed, table.file, table.row_word, table.rows)
    table.ids, table.titles = columns.pop(feed.id_column), [_first(v) for v in columns.pop(feed.title_column)]
    table.ids = [_first(value) for value in table.ids]
    for name in list(columns):
        reader.add(name, columns.pop(name))
    table.facts, report = reader.finish()
    on_feed(report)


def _first(value: Any) -> Any:
    """A feed's id or title: the first where it has several, HTML entities read."""
    value = value[0] if isinstance(value, list) and value else value
    return plain_text(value) if isinstance(value, str) else value


def write_items(catalog: Catalog, path: Path | str) -> None:
    """Write a catalogue as JSON Lines: a header line with the columns' types, then one item a line.

    `read_items` gives the same catalogue back. Staged and renamed: a kill leaves the old file.
    """
    with atomic_write(Path(path)) as handle:
        handle.write(json.dumps({**_HEADER, "columns": catalog.columns}, ensure_ascii=False) + "\n")
        for item in catalog:
            entry: dict[str, Any] = {"id": item.id, "title": item.title, "facts": dict(item.facts)}
            if item.aliases:
                entry["aliases"] = list(item.aliases)
            if item.names:
                entry["names"] = list(item.names)
            handle.write(json.dumps(entry, ensure_ascii=False) + "\n")


def _open(path: Path) -> tuple[str, IO[bytes]]:
    """The file's format by its suffix, and its bytes, unpacked if they are gzip."""
    if path.is_dir():
        raise DataError(f"{path} is a directory, not a catalogue file.", hint=f"Give one {_suffixes()} file.")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes[-1:] == [".gz"]
    suffix = (suffixes[:-1] if packed else suffixes)[-1:]
    if not suffix or suffix[0] not in SUFFIXES or (packed and suffix[0] == ".parquet"):
        raise DataError(
            f"{path} has the suffix {''.join(path.suffixes[-2:]) or '(none)'}, expected {_suffixes()}.",
            hint="A .json file of one list must become one object a line (.jsonl)." if suffix == [".json"] else None,
        )
    try:
        with open(path, "rb") as probe:
            head = probe.read(4)
        if not head:
            raise DataError(f"{path} is empty, expected a header and at least one item.")
        signs = {b"PAR1": "Parquet", b"PK\x03\x04": "zip"}
        found = "gzip" if head[:2] == b"\x1f\x8b" else signs.get(head, "text")
        expected = "gzip" if packed else "Parquet" if suffix[0] == ".parquet" else "text"
        if found != expected:
            raise DataError(f"{path} holds {found}, expected {expected}.", hint="Rename or convert it.")
        return suffix[0], gzip.open(path) if packed else open(path, "rb")  # type: ignore[return-value]
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _suffixes() -> str:
    return f"{', '.join(SUFFIXES[:-1])} (or these with .gz) or {SUFFIXES[-1]}"


def _lines(path: Path, stream: IO[bytes]) -> Iterator[tuple[int, str]]:
    """Numbered lines as text, byte order mark and line end taken off, blank lines included."""
    for number in range(1, sys.maxsize):
        raw = stream.readline(MAX_LINE + 1)
        if not raw:
            return
        if len(raw) > MAX_LINE:
            raise DataError(f"{path}, line {number}: longer than {MAX_LINE:,} bytes, the limit for one line.")
        if number == 1:
            if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise DataError(f"{path} is UTF-16 text, expected UTF-8.", hint="Save it as UTF-8.")
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        if b"\x00" in raw:
            raise DataError(f"{path}, line {number}: found a NUL byte, expected text.", hint="Is it a binary file?")
        try:
            yield number, raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path}, line {number}: found the byte 0x{raw[error.start]:02x} at position {error.start + 1}, "
                f"expected UTF-8 text.",
                hint="Save the file as UTF-8.",
            ) from None


def _json_columns(
    path: Path, lines: Iterator[tuple[int, str]], fixed: Mapping[str, ColumnType] | None = None
) -> tuple[Table, dict[str, list[Any]]]:
    """JSON Lines: one object a line; with gcrs' own header, facts lie under "facts" and types are fixed by it.

    A product feed's columns, recognised in its first line, are handed over as written beside a table without facts;
    the second value is empty for everything else.
    """
    table = Table(str(path), "line", [], [], [], {})
    declared: dict[str, ColumnType] | None = None
    feed: Feed | None = None
    values: dict[str, list[Any]] = {}
    for number, line in lines:
        if not line.strip():
            continue
        entry = _json_object(path, number, line)
        if "gcrs" in entry and not table.rows and declared is None:
            declared = _declared(path, number, entry)
            values = {column: [] for column in declared}
            continue
        if not table.rows and declared is None:
            feed = recognise(entry)
        for name in (feed.id_column, feed.title_column) if feed else ("id", "title"):
            if name not in entry:
                raise DataError(f"{path}, line {number}: found no {name!r}, expected one in every line.")
        facts: Any = entry
        if declared is not None:
            facts = entry.get("facts", {})
            if not isinstance(facts, dict) or not facts.keys() <= declared.keys():
                raise Place(str(path), "facts").error(number, shown(facts), f"an object of {', '.join(declared)}")
            table.aliases.append(_texts(path, number, "aliases", entry.get("aliases", [])))
            table.names.append(_texts(path, number, "names", entry.get("names", [])))
        if not feed:
            table.ids.append(entry["id"])
            table.titles.append(entry["title"])
        for column, value in facts.items():
            if facts is entry and not feed and column in ("id", "title"):
                continue
            if column not in values:
                values[column] = []
            stored = values[column]
            stored.extend(repeat(None, len(table.rows) - len(stored)))
            stored.append(sys.intern(value) if type(value) is str and len(value) < 64 else value)
        table.rows.append(number)
    for column, stored in values.items():
        stored.extend(repeat(None, len(table.rows) - len(stored)))
        if feed:
            continue
        kind = (fixed or {}).get(column) or (declared or {}).get(column)
        table.facts[column] = type_of_values(stored, table.rows, Place(str(path), column), kind)
        stored.clear()
    return table, values if feed else {}


def _json_object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        what = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deep"
        hint = "Is the file truncated?" if not line.endswith("\n") else None
        raise DataError(f"{path}, line {number}: not valid JSON ({what}), expected one object.", hint=hint) from None
    except ValueError as error:  # an integer of thousands of digits
        raise DataError(f"{path}, line {number}: not valid JSON ({error}).") from None
    if not isinstance(entry, dict):
        raise DataError(f"{path}, line {number}: found {shown(entry)}, expected one JSON object a line.")
    return entry


def _declared(path: Path, number: int, header: dict[str, Any]) -> dict[str, ColumnType]:
    columns = header.get("columns")
    if {**_HEADER, "columns": columns} != header:
        raise DataError(
            f"{path}, line {number}: found the header {shown(header)}, expected gcrs items of version 1.",
            hint="Was it written by a newer gcrs?",
        )
    if not isinstance(columns, dict) or not set(map(str, columns.values())) <= set(COLUMN_TYPES):
        raise DataError(f"{path}, line {number}: found {shown(columns)}, expected the type of each column.")
    return columns


def _texts(path: Path, number: int, name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise Place(str(path), name).error(number, shown(value), "a list of texts")
    return tuple(value)
