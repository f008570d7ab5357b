"""Rules such as `year>=2000` or `genre!=horror`, answered from typed columns in memory.

A missing value satisfies no rule, negations included; `=` on a list means contains; texts compare case-folded.
Knows nothing of trees or of the grammar: the answer is a mask over the catalogue's items.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from gcrs.toolkit.catalog.columns import parse_date
from gcrs.toolkit.catalog.item import Catalog, ColumnType, Fact
from gcrs.toolkit.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "~"]

_WHERE = re.compile(r"\s*([^=<>!~]+?)\s*(==|!=|<=|>=|=|<|>|~)\s*(.*?)\s*", re.DOTALL)
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_PARTIAL_DATE = re.compile(r"\d{4}(-\d\d)?")
_ORDER = ("<", "<=", ">", ">=")


@dataclass(frozen=True)
class Predicate:
    """One rule: a column (as typed, perhaps its singular), an operator and the value as typed."""

    column: str
    operator: Operator
    value: str

    def __str__(self) -> str:
        return f"{self.column}{self.operator}{self.value}"


def parse_where(text: str) -> Predicate:
    """The rule written as `column OP value`, OP one of = != < <= > >= ~ (contains); quotes around the value may stay.

    Raises UsageError when it is no such rule. Whether the column exists is known to `Columns` only.
    """
    match = _WHERE.fullmatch(text)
    if match is None:
        raise UsageError(
            f"{text!r} is no rule: expected a column, one of {' '.join(get_args(Operator))}, and a value.",
            hint="For example: --where 'year>=2000' --where genre=comedy",
        )
    column, operator, value = match.groups()
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
        value = value[1:-1]
    if not value.strip():
        raise UsageError(f"{text!r} has no value behind {operator!r}.", hint=f"For example: {column}{operator}2000")
    return Predicate(column, "=" if operator == "==" else operator, value)  # type: ignore[arg-type]


class Columns:
    """The catalogue's columns as arrays, each built at its first use and kept; `id` and `title` are columns too.

    n items need about 9 bytes for each number and 8 for each text or list entry, beside the distinct texts.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.types: dict[str, ColumnType] = {"id": "string", "title": "string", **catalog.columns}
        self._position = {item.id: position for position, item in enumerate(catalog)}
        self._numbers: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._texts: dict[str, _Texts] = {}

    def allowed(self, predicates: Iterable[Predicate] = (), exclude: Collection[str] = ()) -> np.ndarray:
        """Bool [n], in catalogue order: which items satisfy every predicate and are not excluded.

        Exclusions may be ids or aliases and act on the item they mean. Raises DataError for a column the catalogue
        does not have, a value of the wrong type or an operator that the type does not have, and UnknownItem.
        """
        import numpy as np

        mask = np.ones(len(self.catalog), dtype=bool)
        for predicate in predicates:
            mask &= self._satisfying(predicate)
        for item_id in exclude:
            mask[self._position[self.catalog.canonical(item_id)]] = False
        return mask

    def resolve(self, name: str) -> str:
        """The column that `name` means: exactly, or but for case, or as its singular or plural (genre, genres).

        Raises DataError naming the nearest columns.
        """
        if name in self.types:
            return name
        folded = {column.casefold(): column for column in reversed(self.types)}
        for form in _forms(name.casefold()):
            if form in folded:
                return folded[form]
        near = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.5)
        columns = ", ".join(folded[column] for column in near) if near else ", ".join(self.types)
        raise DataError(
            f"The catalogue has no column {name!r}.", hint=f"{'Nearest' if near else 'Its columns'}: {columns}."
        )

    def _satisfying(self, predicate: Predicate) -> np.ndarray:
        column = self.resolve(predicate.column)
        kind, operator = self.types[column], predicate.operator
        if kind in ("integer", "number", "boolean"):
            if operator == "~" or (kind == "boolean" and operator in _ORDER):
                raise _wrong_operator(predicate, column, kind)
            values, known = self._number_column(column)
            wanted = _boolean(predicate, column) if kind == "boolean" else _number(predicate, column, kind)
            return _compare(values, operator, wanted) & known
        if (kind == "list" and operator in _ORDER) or (kind == "date" and operator == "~"):
            raise _wrong_operator(predicate, column, kind)
        texts = self._text_column(column)
        if kind == "date":
            day = _date(predicate, column).casefold()
            hits = [_compare(entry[: len(day)], operator, day) for entry in texts.distinct]
            return texts.any_of(hits)
        value = " ".join(predicate.value.casefold().split())
        if operator == "~":
            return texts.any_of([value in entry for entry in texts.distinct])
        if operator in ("=", "!="):
            contains = texts.equal(value)
            return contains if operator == "=" else texts.known & ~contains
        return texts.any_of([_compare(entry, operator, value) for entry in texts.distinct])

    def _values(self, name: str) -> list[Any]:
        if name in ("id", "title"):
            return [getattr(item, name) for item in self.catalog]
        return [item.facts.get(name) for item in self.catalog]

    def _number_column(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Values (0 where missing) and bool [n] of where there is one."""
        import numpy as np

        if name not in self._numbers:
            values = self._values(name)
            dtype = np.float64 if self.types[name] == "number" else np.int64
            known = np.array([value is not None for value in values], dtype=bool)
            self._numbers[name] = np.array([value or 0 for value in values], dtype=dtype), known
        return self._numbers[name]

    def _text_column(self, name: str) -> _Texts:
        if name not in self._texts:
            self._texts[name] = _Texts(self._values(name))
        return self._texts[name]


class _Texts:
    """A column of texts or of lists of texts: distinct case-folded entries, and which rows hold which."""

    def __init__(self, values: list[Fact | None]) -> None:
        import numpy as np

        codes: dict[str, int] = {}
        spelled: dict[str, int] = {}  # as written -> code: case-folding each distinct spelling once
        rows: list[int] = []
        entries: list[int] = []
        for row, value in enumerate(values):
            if value is None:
                continue
            for text in value if isinstance(value, list) else (value,):
                code = spelled.get(text)  # type: ignore[arg-type]
                if code is None:
                    folded = " ".join(str(text).casefold().split())
                    code = spelled[str(text)] = codes.setdefault(folded, len(codes))
                rows.append(row)
                entries.append(code)
        self.n = len(values)
        self.distinct = list(codes)
        self._codes = codes
        self._rows = np.array(rows, dtype=np.int32)
        self._entries = np.array(entries, dtype=np.int32)
        self.known = np.zeros(self.n, dtype=bool)
        self.known[self._rows] = True

    def equal(self, folded: str) -> np.ndarray:
        """Bool [n]: rows that hold this very entry."""
        import numpy as np

        mask = np.zeros(self.n, dtype=bool)
        code = self._codes.get(folded)
        if code is not None:
            mask[self._rows[self._entries == code]] = True
        return mask

    def any_of(self, hits: list[bool]) -> np.ndarray:
        """Bool [n]: rows that hold at least one entry marked in `hits` (by distinct entry)."""
        import numpy as np

        mask = np.zeros(self.n, dtype=bool)
        mask[self._rows[np.array(hits, dtype=bool)[self._entries]]] = True
        return mask


def _compare(left: Any, operator: Operator, right: Any) -> Any:
    match operator:
        case "=":
            return left == right
        case "!=":
            return left != right
        case "<":
            return left < right
        case "<=":
            return left <= right
        case ">":
            return left > right
        case ">=":
            return left >= right
    raise AssertionError(operator)


def _forms(name: str) -> list[str]:
    forms = [name, f"{name}s", f"{name}es"]
    if name.endswith("y"):
        forms.append(f"{name[:-1]}ies")
    if name.endswith("ies"):
        forms.append(f"{name[:-3]}y")
    if name.endswith("es"):
        forms.append(name[:-2])
    if name.endswith("s"):
        forms.append(name[:-1])
    return forms


def _wrong_operator(predicate: Predicate, column: str, kind: ColumnType) -> DataError:
    fitting = {"boolean": "= !=", "list": "= != ~", "date": "= != < <= > >="}.get(kind, "= != < <= > >=")
    article = "an" if kind == "integer" else "a"
    return DataError(
        f"{column!r} is {article} {kind} column, for which {str(predicate)!r} means nothing.",
        hint=f"It takes {fitting}.",
    )


def _wrong_value(predicate: Predicate, column: str, expected: str) -> DataError:
    return DataError(
        f"{str(predicate)!r} compares the column {column!r} with {predicate.value!r}, expected {expected}."
    )


def _boolean(predicate: Predicate, column: str) -> int:
    try:
        return int(_BOOLEANS[predicate.value.strip().casefold()])
    except KeyError:
        raise _wrong_value(predicate, column, "true or false") from None


def _number(predicate: Predicate, column: str, kind: ColumnType) -> float | int:
    """The number in the rule; whole numbers stay integers, so that large ones compare exactly."""
    text = predicate.value.strip()
    try:
        value: float | int = int(text) if re.fullmatch(r"[+-]?\d{1,18}", text) else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _wrong_value(predicate, column, "a number" if kind == "number" else "an integer")
    return value


def _date(predicate: Predicate, column: str) -> str:
    """A year, a month or a date (2024, 2024-05, 2024-05-31); what a shorter one leaves out is not compared."""
    text = predicate.value.strip()
    if _PARTIAL_DATE.fullmatch(text):
        return text
    moment = parse_date(text)
    if moment is None:
        raise _wrong_value(predicate, column, "a date such as 2024-05-31, 2024-05 or 2024")
    return moment
