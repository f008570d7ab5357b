"""Catalogue files: CSV, JSON Lines and Parquet in, gcrs' own JSON Lines out.

Every file has `id` and `title`; every other column is a fact. Lists are JSON lists, Parquet lists, or CSV cells
written `a|b|c`. Knows nothing of any public data set; those readers live in `gcrs.catalogs`.
"""

from __future__ import annotations

import difflib
import gzip
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import IO, Any

from gcrs.toolkit.catalog.columns import COLUMN_TYPES, MAX_CELL, Place, shown, type_of_values
from gcrs.toolkit.catalog.csv_table import csv_columns
from gcrs.toolkit.catalog.item import Catalog, ColumnType, Fact, Item
from gcrs.toolkit.catalog.parquet_table import parquet_columns
from gcrs.toolkit.errors import DataError
from gcrs.toolkit.files import atomic_write

Progress = Callable[[int, int, str], None]

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
MAX_LINE = 16 * MAX_CELL  # bytes of one line: a file without line ends must not fill the memory
_ID = re.compile(r"[^<>\s]{1,200}")  # what `<item:ID>` in a turn's text can hold
_HEADER = {"gcrs": "items", "version": 1}


@dataclass
class Table:
    """What a format's reader hands over: rows as columns, with the line (or row) that each came from."""

    file: str
    row_word: str
    rows: list[int]
    ids: list[Any]
    titles: list[Any]
    facts: dict[str, tuple[ColumnType, list[Fact | None]]]
    aliases: list[tuple[str, ...]] = field(default_factory=list)
    names: list[tuple[str, ...]] = field(default_factory=list)


def read_items(path: Path | str, fixed: Mapping[str, ColumnType] | None = None) -> Catalog:
    """The catalogue in a .csv, .tsv, .jsonl, .ndjson or .parquet file (all but Parquet also as .gz).

    Columns get one type each: string, integer, number, boolean, date (ISO) or list. In CSV a column is a list when
    its header ends in `[]`, or when some cell holds a `|` and every `|` in the column stands between two characters
    that are not blanks; a header `name:type` fixes the type. An empty cell, null or an empty list is a missing value.
    `fixed` are the columns of a catalogue that the items shall join: its types hold, whatever the file says, and any
    other column is an error. Raises DataError (exit 3), with file, line, column, found and expected, for all else.
    """
    path = Path(path)
    suffix, stream = _open(path)
    with stream:
        try:
            if suffix == ".parquet":
                rows, columns, facts = parquet_columns(path, stream, fixed)
                return _catalog(Table(str(path), "row", rows, columns["id"], columns["title"], facts), fixed)
            lines = _lines(path, stream)
            if suffix in (".jsonl", ".ndjson"):
                return _catalog(_json_columns(path, lines, fixed), fixed)
            rows, columns, facts = csv_columns(str(path), lines, "\t" if suffix == ".tsv" else None, fixed)
            return _catalog(Table(str(path), "line", rows, columns["id"], columns["title"], facts), fixed)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path} is a broken or truncated gzip file: {error}.", hint="Fetch it again.") from error
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


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


def _json_columns(path: Path, lines: Iterator[tuple[int, str]], fixed: Mapping[str, ColumnType] | None = None) -> Table:
    """JSON Lines: one object a line; with gcrs' own header, facts lie under "facts" and types are fixed by it."""
    table = Table(str(path), "line", [], [], [], {})
    declared: dict[str, ColumnType] | None = None
    values: dict[str, list[Any]] = {}
    for number, line in lines:
        if not line.strip():
            continue
        entry = _json_object(path, number, line)
        if "gcrs" in entry and not table.rows and declared is None:
            declared = _declared(path, number, entry)
            values = {column: [] for column in declared}
            continue
        for name in ("id", "title"):
            if name not in entry:
                raise DataError(f"{path}, line {number}: found no {name!r}, expected one in every line.")
        facts: Any = entry
        if declared is not None:
            facts = entry.get("facts", {})
            if not isinstance(facts, dict) or not facts.keys() <= declared.keys():
                raise Place(str(path), "facts").error(number, shown(facts), f"an object of {', '.join(declared)}")
            table.aliases.append(_texts(path, number, "aliases", entry.get("aliases", [])))
            table.names.append(_texts(path, number, "names", entry.get("names", [])))
        table.ids.append(entry["id"])
        table.titles.append(entry["title"])
        for column, value in facts.items():
            if facts is entry and column in ("id", "title"):
                continue
            if column not in values:
                values[column] = []
            stored = values[column]
            stored.extend(repeat(None, len(table.rows) - len(stored)))
            stored.append(sys.intern(value) if type(value) is str and len(value) < 64 else value)
        table.rows.append(number)
    for column, stored in values.items():
        stored.extend(repeat(None, len(table.rows) - len(stored)))
        kind = (fixed or {}).get(column) or (declared or {}).get(column)
        table.facts[column] = type_of_values(stored, table.rows, Place(str(path), column), kind)
        stored.clear()
    return table


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


def _catalog(table: Table, fixed: Mapping[str, ColumnType] | None = None) -> Catalog:
    """Check columns, ids and titles, and turn columns into items."""
    if not table.rows:
        raise DataError(f"{table.file} holds no items.")
    for column in [] if fixed is None else table.facts:
        if column not in (fixed or {}):
            near = difflib.get_close_matches(column.casefold(), fixed or {}, n=3, cutoff=0.5)
            known = f"Nearest: {', '.join(near)}." if near else f"Its columns: {', '.join(fixed or {}) or 'none'}."
            raise DataError(f"{table.file} has a column {shown(column)} that the catalogue does not have.",
                            hint=f"{known} Rename or leave it out.")  # fmt: skip
    seen: dict[str, int] = {}
    ids = [_id(value, row, table, seen) for value, row in zip(table.ids, table.rows, strict=True)]
    titles = [_title(value, row, table) for value, row in zip(table.titles, table.rows, strict=True)]
    facts: list[dict[str, Fact]] = [{} for _ in ids]
    for column, (_, values) in table.facts.items():
        if column != column.strip() or not column or any(ord(c) < 32 for c in column):
            raise DataError(f"{table.file}: found a column named {shown(column)}, expected a plain name.")
        _check_sizes(values, Place(table.file, column, table.row_word), table.rows)
        for row, value in zip(facts, values, strict=True):
            if value is not None:
                row[column] = value
    none: Sequence[tuple[str, ...]] = [()] * len(ids)
    for line, aliases in zip(table.rows, table.aliases, strict=False):
        for alias in aliases:
            _id(alias, line, table, seen)
    items = [Item(*parts) for parts in zip(ids, titles, facts, table.aliases or none, table.names or none, strict=True)]
    return Catalog(items, {column: kind for column, (kind, _) in table.facts.items()})


def _check_sizes(values: Sequence[Fact | None], place: Place, rows: Sequence[int]) -> None:
    for value, row in zip(values, rows, strict=True):
        if isinstance(value, str):
            size = len(value)
        elif isinstance(value, list):
            size = sum(map(len, value))
        else:
            continue
        if size > MAX_CELL:
            raise place.error(row, f"a cell of {size:,} characters", f"at most {MAX_CELL:,}")


def _id(value: Any, row: int, table: Table, seen: dict[str, int]) -> str:
    place = Place(table.file, "id", table.row_word)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise place.error(row, "nothing" if value is None else shown(value), "a text or an integer")
    item_id = str(value).strip()
    if not _ID.fullmatch(item_id) or not item_id.isprintable():
        raise place.error(row, shown(item_id), "an id of 1 to 200 characters without blanks, < and >")
    if item_id in seen:
        raise place.error(
            row, f"the id {shown(item_id)} a second time", f"unique ids (first in {table.row_word} {seen[item_id]})"
        )
    seen[item_id] = row
    return item_id


def _title(value: Any, row: int, table: Table) -> str:
    place = Place(table.file, "title", table.row_word)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # "1917" and "300" arrive as integers
    if not isinstance(value, str):
        raise place.error(row, "nothing" if value is None else shown(value), "a text")
    if len(value) > 1000:
        raise place.error(row, f"a title of {len(value):,} characters", "at most 1,000")
    if not value.isprintable():
        value = "".join(c if c.isprintable() else " " for c in value)
    title = " ".join(value.split())
    if not title:
        raise place.error(row, "an empty title", "a text")
    return title
