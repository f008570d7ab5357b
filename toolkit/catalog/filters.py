"""Rules such as `year>=2000` or `not genre=horror`, answered from typed columns in memory.

A missing value satisfies no comparison, `!=` included, and no `not` of one: a comparison with it is neither true nor
false, and `and`, `or` and `not` join these three as in Kleene's strong logic. `=` on a list means contains; texts
compare case-folded. Knows nothing of trees or of the grammar: the answer is a mask over the catalogue's items.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

from gcrs.toolkit.catalog.columns import parse_date
from gcrs.toolkit.catalog.item import Catalog, ColumnType
from gcrs.toolkit.catalog.nearest import nearest, nearest_item
from gcrs.toolkit.catalog.rules import Conjunction, Disjunction, Negation, Operator, Predicate, Rule, parse_where
from gcrs.toolkit.catalog.text_column import TextColumn
from gcrs.toolkit.errors import DataError, UnknownItem

if TYPE_CHECKING:
    import numpy as np

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_PARTIAL_DATE = re.compile(r"\d{4}(-\d\d)?")
_ORDER = ("<", "<=", ">", ">=")


class Columns:
    """The catalogue's columns as arrays, each built at its first use and kept; `id` and `title` are columns too.

    n items need about 9 bytes for each number and 8 for each text or list entry, beside the distinct texts.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.types: dict[str, ColumnType] = {"id": "string", "title": "string", **catalog.columns}
        self._position = {name: row for row, item in enumerate(catalog) for name in (item.id, *item.aliases)}
        self._numbers: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._texts: dict[str, TextColumn] = {}

    def allowed(
        self,
        rules: Iterable[Rule] = (),
        exclude: Iterable[str] = (),
        *,
        allow: Collection[str] | None = None,
        or_unknown: bool = False,
    ) -> np.ndarray:
        """Bool [n], in catalogue order: which items satisfy every rule, are not excluded, and stand in `allow`.

        Exclusions and `allow` may be ids or aliases and act on the item they mean; what `allow` names beside the
        catalogue is passed over. With `or_unknown` an item also satisfies a rule that is undecided because a value is
        missing. Raises DataError for a column the catalogue does not have, a value of the wrong type or an operator
        that the type does not have, and UnknownItem for an exclusion.
        """
        import numpy as np

        mask = np.ones(len(self.catalog), dtype=bool)
        for rule in rules:
            yes, no = self._judge(rule)
            mask &= ~no if or_unknown else yes
        if allow is not None:
            listed = np.zeros(len(self.catalog), dtype=bool)
            rows = self.rows(allow)
            listed[rows[rows >= 0]] = True
            mask &= listed
        for item_id in exclude:
            if item_id not in self._position:
                raise UnknownItem(item_id, hint=nearest_item(self.catalog, item_id))
            mask[self._position[item_id]] = False
        return mask

    def rows(self, ids: Collection[str]) -> np.ndarray:
        """The items' places in the catalogue by id or alias, int64 [ids]; -1 for what is not in it."""
        import numpy as np

        return np.fromiter(map(self._position.get, ids, repeat(-1)), dtype=np.int64, count=len(ids))

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
        near = nearest(name.casefold(), folded)
        columns = ", ".join(folded[column] for column in near) if near else ", ".join(self.types)
        raise DataError(
            f"The catalogue has no column {name!r}.", hint=f"{'Nearest' if near else 'Its columns'}: {columns}."
        )

    def values_near(self, predicate: Predicate) -> str:
        """What the predicate's column does hold, nearest first: for the message when nothing satisfies it."""
        column = self.resolve(predicate.column)
        if self.types[column] == "boolean":
            return "true and false"
        if self.types[column] in ("integer", "number"):
            values, known = self._number_column(column)
            held: Sequence[Any] = values[known].tolist()
        else:
            held = self._text_column(column).distinct
            if self.types[column] != "date" and (near := nearest(" ".join(predicate.value.casefold().split()), held)):
                more = len(held) - len(near)
                return ", ".join(near) + (f" and {more:,} other value{'s' if more > 1 else ''}" if more else "")
        return f"{min(held)} to {max(held)}" if held else "no value at all"

    def _judge(self, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
        """Bool [n] twice: for which items the rule is true, and for which it is false; a missing value is neither."""
        import numpy as np

        match rule:
            case Predicate():
                yes = self._satisfying(rule)
                return yes, self._known(self.resolve(rule.column)) & ~yes
            case Negation():
                yes, no = self._judge(rule.rule)
                return no, yes
            case Conjunction():
                every = [self._judge(one) for one in rule.rules]
                return np.logical_and.reduce([y for y, _ in every]), np.logical_or.reduce([n for _, n in every])
            case Disjunction():
                some = [self._judge(one) for one in rule.rules]
                return np.logical_or.reduce([y for y, _ in some]), np.logical_and.reduce([n for _, n in some])

    def _known(self, column: str) -> np.ndarray:
        if self.types[column] in ("integer", "number", "boolean"):
            return self._number_column(column)[1]
        return self._text_column(column).known

    def _satisfying(self, predicate: Predicate) -> np.ndarray:
        column = self.resolve(predicate.column)
        kind, operator = self.types[column], predicate.operator
        if kind in ("integer", "number", "boolean"):
            if operator == "~" or (kind == "boolean" and operator in _ORDER):
                raise _wrong_operator(predicate, column, kind)
            values, known = self._number_column(column)
            try:
                wanted = _boolean(predicate, column) if kind == "boolean" else _number(predicate, column, kind)
            except DataError as error:
                raise DataError(error.message, hint=f"It holds {self.values_near(predicate)}.") from None
            return _compare(values, operator, wanted) & known
        if (kind == "list" and operator in _ORDER) or (kind == "date" and operator == "~"):
            raise _wrong_operator(predicate, column, kind)
        texts = self._text_column(column)
        if kind == "date":
            try:
                day = _date(predicate, column).casefold()
            except DataError as error:
                raise DataError(error.message, hint=f"It holds {self.values_near(predicate)}.") from None
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

    def _text_column(self, name: str) -> TextColumn:
        if name not in self._texts:
            self._texts[name] = TextColumn(self._values(name))
        return self._texts[name]


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


__all__ = ["Columns", "Predicate", "Rule", "parse_where"]
