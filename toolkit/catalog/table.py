"""What the readers of catalogue files have in common: rows as columns, and the checks that make them a catalogue.

Knows nothing of file formats.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gcrs.toolkit.catalog.columns import MAX_CELL, Place, shown
from gcrs.toolkit.catalog.item import Catalog, ColumnType, Fact, Item
from gcrs.toolkit.catalog.nearest import nearest
from gcrs.toolkit.errors import DataError

_ID = re.compile(r"[^<>\s]{1,200}")  # what `<item:ID>` in a turn's text can hold


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


def catalog_of(table: Table, fixed: Mapping[str, ColumnType] | None = None) -> Catalog:
    """Check columns, ids and titles, and turn columns into items; `fixed` are the only columns there may be.

    Raises DataError.
    """
    if not table.rows:
        raise DataError(f"{table.file} holds no items.")
    for column in [] if fixed is None else table.facts:
        if column not in (fixed or {}):
            near = nearest(column.casefold(), fixed or {})
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
