"""CSV text as typed columns.

Knows nothing of ids, titles or items beyond that both columns must be there.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gcrs.toolkit.catalog.columns import COLUMN_TYPES, MAX_CELL, Place, split_list, type_of_text
from gcrs.toolkit.catalog.feed_names import recognise
from gcrs.toolkit.catalog.item import ColumnType, Fact
from gcrs.toolkit.errors import DataError

_TYPED = re.compile(rf"(.+?)\s*(?:(\[\])|:({'|'.join(COLUMN_TYPES)}))")
_CHUNK = 10_000  # rows that are turned into columns at a time
_MANY = 50_000  # distinct cells after which a column is no longer searched for equal ones
_LOOSE_BAR = re.compile(r"(^|\s)\||\|(\s|$)")


@dataclass(frozen=True)
class Cells:
    """A CSV file as read: the line each row starts in, the cells by column, and the types that the header fixes."""

    rows: list[int]
    columns: dict[str, list[str]]
    declared: dict[str, ColumnType]


def csv_cells(file: str, lines: Iterator[tuple[int, str]], delimiter: str | None = None) -> Cells:
    """The cells of every column; `id` and `title` are so named whatever their case, a product feed's as written.

    `delimiter` is by default the first of comma, semicolon and tab with which the header has an id and a title.
    Raises DataError.
    """
    counter = _Counter(lines)
    _, first = next(lines, (1, ""))
    delimiters = [delimiter] if delimiter else [",", ";", "\t"]
    headers = [_cells(file, 1, first, mark) for mark in delimiters]
    chosen = next((i for i, cells in enumerate(headers) if {"id", "title"} <= {c.casefold() for c in cells}), None)
    if chosen is None:
        chosen = next((i for i, cells in enumerate(headers) if recognise(cells)), None)
    if chosen is None:
        missing = [name for name in ("id", "title") if name not in {c.casefold() for c in headers[0]}]
        found = ", ".join(cell or "(empty)" for cell in headers[0])[:200]
        raise DataError(
            f"{file}, line 1: found the columns {found or '(none)'}, expected also {' and '.join(missing)}.",
            hint="The first line must name the columns, id and title among them.",
        )
    names, declared = _header(file, headers[chosen])
    loose = delimiters[chosen] == "\t" and recognise(names) is not None  # Google's own: "one","two" in a cell
    rows, columns = _read(file, counter, delimiters[chosen], names, strict=not loose)
    return Cells(rows, columns, declared)


def type_cells(
    file: str, cells: Cells, fixed: Mapping[str, ColumnType] | None = None
) -> dict[str, tuple[ColumnType, list[Fact | None]]]:
    """Every column but `id` and `title` with its type and values, taken out of `cells`. Raises DataError.

    A type in `fixed` holds, whatever the header says.
    """
    facts: dict[str, tuple[ColumnType, list[Fact | None]]] = {}
    for name in [name for name in cells.columns if name not in ("id", "title")]:
        written = cells.columns.pop(name)
        kind = (fixed or {}).get(name) or cells.declared.get(name)
        lists = written_lists(written) if kind in (None, "list") else None
        if kind == "list" and lists is None:
            lists = [split_list(cell) for cell in written]
        if lists is not None:
            facts[name] = "list", [entries or None for entries in lists]
        else:
            facts[name] = type_of_text(written, cells.rows, Place(file, name), kind)
    return facts


class _Counter:
    """Lines for csv.reader that remembers the number of the last one it gave out (its own count starts elsewhere)."""

    def __init__(self, lines: Iterator[tuple[int, str]]) -> None:
        self.lines = lines
        self.number = 1

    def __iter__(self) -> _Counter:
        return self

    def __next__(self) -> str:
        self.number, text = next(self.lines)
        return text


def _cells(file: str, number: int, line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, strict=True), [])]
    except csv.Error as error:
        raise DataError(f"{file}, line {number}: not valid CSV ({error}).") from None


def _header(file: str, cells: list[str]) -> tuple[list[str], dict[str, ColumnType]]:
    """Column names, and the types that `name[]` and `name:type` fix."""
    names: list[str] = []
    declared: dict[str, ColumnType] = {}
    for position, cell in enumerate(cells, start=1):
        name = cell.casefold() if cell.casefold() in ("id", "title") else cell
        if match := _TYPED.fullmatch(name):
            name = match[1]
            declared[name] = "list" if match[2] else match[3]  # type: ignore[assignment]
        if not name:
            raise DataError(f"{file}, line 1: found no name for column {position}, expected one for every column.")
        if name in names:
            raise DataError(f"{file}, line 1: found the column {name!r} twice, expected each once.")
        names.append(name)
    return names, declared


def _read(
    file: str, counter: _Counter, delimiter: str, names: list[str], *, strict: bool
) -> tuple[list[int], dict[str, list[str]]]:
    rows: list[int] = []
    columns: dict[str, list[str]] = {name: [] for name in names}
    same: list[dict[str, str]] = [{} for _ in names]  # equal cells of a column are one object in memory
    pending: list[list[str]] = []

    def flush() -> None:
        for name, known, cells in zip(names, same, zip(*pending, strict=True), strict=False):
            stripped = map(str.strip, cells)
            columns[name].extend(stripped if len(known) > _MANY else (known.setdefault(c, c) for c in stripped))
        pending.clear()

    limit = csv.field_size_limit(MAX_CELL)
    last = counter.number
    try:
        for cells in csv.reader(counter, delimiter=delimiter, strict=strict):
            started, last = last + 1, counter.number
            if not cells or (len(cells) == 1 and not cells[0].strip()):
                continue
            if len(cells) != len(names):
                raise DataError(
                    f"{file}, line {started}: found {len(cells)} cells, expected {len(names)}.",
                    hint="Quote a cell that holds the delimiter or a line end.",
                )
            pending.append(cells)
            rows.append(started)
            if len(pending) == _CHUNK:
                flush()
        flush()
    except csv.Error as error:
        if "field larger" in str(error):
            raise DataError(f"{file}, line {last + 1}: found a cell of more than {MAX_CELL:,} characters.") from None
        raise DataError(
            f"{file}, line {last + 1}: not valid CSV ({error}).", hint="Is a quote open, or the file truncated?"
        ) from None
    finally:
        csv.field_size_limit(limit)
    return rows, columns


def written_lists(cells: list[str]) -> list[list[str]] | None:
    """The column as lists, when it is written as lists throughout: JSON lists, or bars between words; else None."""
    filled = [cell for cell in cells if cell]
    if filled and all(cell[0] == "[" and cell[-1] == "]" for cell in filled):
        try:
            parsed = [json.loads(cell) if cell else [] for cell in cells]
        except ValueError:
            return None
        if all(isinstance(entry, (str, int, float)) for entries in parsed for entry in entries):
            return [list(dict.fromkeys(str(entry).strip() for entry in entries)) for entries in parsed]
        return None
    barred = [cell for cell in filled if "|" in cell]
    if barred and not any(_LOOSE_BAR.search(cell) for cell in barred):
        return [split_list(cell) for cell in cells]
    return None
