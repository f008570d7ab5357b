"""The type of each fact column: inferred once from all its values, then fixed.

Knows nothing of file formats: a reader hands over, column by column, the values and where each stood.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from gcrs.toolkit.catalog.item import ColumnType, Fact
from gcrs.toolkit.errors import DataError

COLUMN_TYPES: tuple[ColumnType, ...] = ("string", "integer", "number", "boolean", "date", "list")
MAX_CELL = 1_000_000  # characters of one cell

_INTEGER = re.compile(r"[+-]?(0|[1-9]\d{0,17})")  # 007 is a code, not a number; 64 bits hold 18 digits
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?")
_WORDS = {"true": True, "false": False}


class Place(NamedTuple):
    """Where a column stands, for error messages: the file, the column, and what a row is called there."""

    file: str
    column: str
    row_word: str = "line"

    def error(self, row: int, found: str, expected: str, hint: str | None = None) -> DataError:
        """One sentence: file, line, column, found, expected."""
        where = f"{self.file}, {self.row_word} {row}, column {self.column!r}"
        return DataError(f"{where}: found {found}, expected {expected}.", hint=hint)


def shown(value: Any) -> str:
    """A value as an error message shows it, cut to 40 characters."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def parse_date(text: str) -> str | None:
    """An ISO date, or date and time, in one spelling (UTC where a zone is given); None when it is none."""
    if not _DATE.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if len(text) == 10:
        return text
    if moment.tzinfo is None:
        return moment.isoformat()
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def _parse_integer(text: str) -> int | None:
    return int(text) if _INTEGER.fullmatch(text) else None


def _parse_number(text: str) -> float | None:
    if not _NUMBER.fullmatch(text) or (len(text) > 1 and text[0] == "0" and text[1].isdigit()):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def _parse_boolean(text: str) -> bool | None:
    return _WORDS.get(text.casefold())


_PARSERS: tuple[tuple[ColumnType, Callable[[str], Fact | None]], ...] = (
    ("integer", _parse_integer),
    ("number", _parse_number),
    ("boolean", _parse_boolean),
    ("date", parse_date),
)


def type_of_text(
    cells: Sequence[str], rows: Sequence[int], place: Place, declared: ColumnType | None = None
) -> tuple[ColumnType, list[Fact | None]]:
    """The type of a column of written cells, and its values; an empty cell is a missing value (None).

    All non-empty cells decide together: integer, number, boolean (true/false), ISO date; else string. A column of
    which most cells, but not all, are of one such type is mixed: DataError at the first cell that is not. `declared`
    fixes the type beforehand. Lists are the reader's business.
    """
    filled = [index for index, cell in enumerate(cells) if cell]
    if declared == "string" or not filled:
        return declared or "string", [cell or None for cell in cells]
    not_integers: list[int] = []
    for kind, parse in _PARSERS:
        if declared not in (None, kind):
            continue
        values = [parse(cell) if cell else None for cell in cells]
        failed = [index for index in filled if values[index] is None]
        if not failed:
            return kind, values
        if kind == "integer" and declared is None:
            not_integers = failed
            continue  # numbers take integers in
        if declared or 2 * len(failed) < len(filled):
            whole = kind == "number" and failed == not_integers
            raise place.error(
                rows[failed[0]],
                shown(cells[failed[0]]),
                _article("integer" if whole else kind),
                None if declared else f"Leave the cell empty or name the column '{place.column}:string'.",
            )
    return "string", [cell or None for cell in cells]


def type_of_values(
    values: Sequence[Any], rows: Sequence[int], place: Place, declared: ColumnType | None = None
) -> tuple[ColumnType, list[Fact | None]]:
    """The type of a column of typed values (JSON, Parquet), and its values; null, "", [] and NaN are missing (None).

    Integers beside fractions are numbers; whole fractions in a column with gaps are integers (that is how pandas
    writes them); texts that are all ISO dates are dates. Any other mixture is a DataError at the first value that is
    not of the commonest type. List entries become texts.
    """
    kinds: list[ColumnType | None] = [_kind(value, row, place) for value, row in zip(values, rows, strict=True)]
    counts = Counter(kind for kind in kinds if kind)
    if set(counts) == {"integer", "number"}:
        counts = Counter({"number": 1})
    if set(counts) == {"number"} and (declared == "integer" or (not declared and None in kinds)):
        known = [value for value, kind in zip(values, kinds, strict=True) if kind]
        if all(value == int(value) and abs(value) < 2**53 for value in known):
            values = [int(value) if kind else None for value, kind in zip(values, kinds, strict=True)]
            kinds = ["integer" if kind else None for kind in kinds]
            counts = Counter(kind for kind in kinds if kind)
    expected = declared or (counts.most_common(1)[0][0] if counts else "string")
    allowed = {"number": {"number", "integer"}, "date": {"string"}}.get(expected, {expected})
    for kind, value, row in zip(kinds, values, rows, strict=True):
        if kind and kind not in allowed:
            raise place.error(row, f"the {kind} {shown(value)}", _article(expected))
    if expected == "list":
        return expected, [_entries(value, row, place) for value, row in zip(values, rows, strict=True)]
    if expected == "number":
        return expected, [float(value) if kind else None for kind, value in zip(kinds, values, strict=True)]
    plain: list[Fact | None] = [value if kind else None for kind, value in zip(kinds, values, strict=True)]
    if expected in ("string", "date") and declared != "string":
        dates = [parse_date(value) if isinstance(value, str) else None for value in plain]
        wrong = [index for index, value in enumerate(plain) if value is not None and dates[index] is None]
        if declared == "date" and wrong:
            raise place.error(rows[wrong[0]], shown(plain[wrong[0]]), _article("date"))
        if not wrong and counts:
            return "date", list(dates)
    return expected, plain


def split_list(cell: str) -> list[str]:
    """The entries of a written list: `a|b|c`, blanks and repeats left out."""
    return list(dict.fromkeys(entry.strip() for entry in cell.split("|") if entry.strip()))


def _kind(value: Any, row: int, place: Place) -> ColumnType | None:
    if value is None or value == "" or value == []:
        return None
    if isinstance(value, str):
        return "string" if value.strip() else None
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise place.error(row, f"the integer {shown(value)}", "one of at most 64 bits", "Write it as a text.")
        return "integer"
    if isinstance(value, float):
        if math.isinf(value):
            raise place.error(row, "an infinite number", "a finite one")
        return None if math.isnan(value) else "number"
    if isinstance(value, list):
        return "list"
    raise place.error(row, f"a nested object ({type(value).__name__})", "a text, number, boolean, date or list")


def _entries(value: Any, row: int, place: Place) -> Fact | None:
    if not value:
        return None
    entries: dict[str, None] = {}
    for entry in value:
        if isinstance(entry, (dict, list)):
            raise place.error(row, "a list with a list or an object in it", "a list of texts")
        if entry is not None and (text := str(entry).strip()):
            entries.setdefault(text)
    return list(entries) or None


def _article(kind: str) -> str:
    return {
        "integer": "an integer",
        "number": "a number",
        "boolean": "true or false",
        "date": "an ISO date (2024-05-31)",
        "string": "a text",
        "list": "a list",
    }[kind]


def conform(facts: Iterable[tuple[str, Any]], columns: dict[str, ColumnType], place_of: str) -> dict[str, Fact]:
    """New facts brought to the fixed types of a catalogue's columns; a missing value leaves no key.

    `place_of` names the item in errors. Raises DataError for a column the catalogue does not have or a value of
    another type.
    """
    fixed: dict[str, Fact] = {}
    for column, value in facts:
        if column not in columns:
            raise DataError(
                f"{place_of} has a column {column!r} that the catalogue does not have.",
                hint=f"Its columns are {', '.join(columns) or 'none'}; rebuild the catalogue to add one.",
            )
        _, (kept,) = type_of_values([value], [1], Place(place_of, column, "item"), columns[column])
        if kept is not None:
            fixed[column] = kept
    return fixed
