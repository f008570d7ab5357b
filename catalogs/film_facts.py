"""Companion files of facts about films: one JSON object of records, of which what Wikidata gives (CC0) is taken.

Knows nothing of the films of any one data set.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gcrs.catalogs.redial_genres import tidy_genres
from gcrs.toolkit.catalog.item import ColumnType, Fact
from gcrs.toolkit.errors import DataError

COLUMNS: dict[str, ColumnType] = {
    "year": "integer",
    "genres": "list",
    "directors": "list",
    "cast": "list",
    "companies": "list",
}


def read_text(path: Path) -> str:
    """A text file, gzip or not; DataError when it cannot be read."""
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}.") from error


def read_facts(path: Path) -> dict[str, Any]:
    """The records of a file of facts, by the data set's own name of the film; DataError for another shape."""
    try:
        records = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not valid JSON: {error.msg} at line {error.lineno}.") from error
    if not isinstance(records, dict) or not all(isinstance(record, dict) for record in records.values()):
        raise DataError(f"{path} must be one JSON object with a record for each movie id.")
    return records


def strings(value: Any) -> list[str]:
    """The texts in a list, each once, without doubled spaces; nothing of what is no list."""
    if not isinstance(value, list):
        return []
    return list(dict.fromkeys(" ".join(entry.split()) for entry in value if isinstance(entry, str) and entry.strip()))


def wikidata_facts(record: Mapping[str, Any]) -> dict[str, Fact]:
    """Genres as people type them, directors, cast and companies, those that are there."""
    people = {column: strings(record.get(column)) for column in ("directors", "cast", "companies")}
    found: dict[str, Fact] = {"genres": tidy_genres(strings(record.get("genres"))), **people}
    return {column: value for column, value in found.items() if value}
