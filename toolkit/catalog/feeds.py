"""A product feed's columns as facts: prices as numbers beside their currency, stock, category paths as lists, dates.

What cannot be read is left missing, counted and said, so that no rule is satisfied by it. Knows nothing of file
formats: a reader hands over the columns as written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gcrs.toolkit.catalog import feed_values
from gcrs.toolkit.catalog.columns import Place, shown, type_of_text, type_of_values
from gcrs.toolkit.catalog.csv_table import written_lists
from gcrs.toolkit.catalog.feed_names import KINDS, PRIVATE, Feed
from gcrs.toolkit.catalog.item import ColumnType, Fact
from gcrs.toolkit.errors import DataError

Column = tuple[ColumnType, list[Fact | None]]

_PARSERS: dict[str, tuple[ColumnType, Callable[[Any], Fact | None]]] = {
    "text": ("string", feed_values.text),
    "code": ("string", feed_values.text),
    "link": ("string", feed_values.text),
    "links": ("list", feed_values.written_list),
    "list": ("list", feed_values.written_list),
    "path": ("list", feed_values.path),
    "date": ("date", feed_values.date),
    "integer": ("integer", feed_values.integer),
    "number": ("number", feed_values.number),
    "flag": ("boolean", feed_values.flag),
}


@dataclass(frozen=True)
class FeedReport:
    """What a feed was recognised as, what each of its columns became ([] for left out), and what deserves a look."""

    file: str
    kind: str
    words: str
    became: dict[str, list[str]]
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The report for a terminal."""
        lines = [f"{self.file} is read as {self.words}:"]
        as_text = [
            column for column, facts in self.became.items() if len(facts) == 1 and facts[0].endswith(" (string)")
        ]
        if as_text:
            lines.append(f"  as text: {', '.join(as_text)}")
        lines += [
            f"  {column} -> {', '.join(facts)}"
            for column, facts in self.became.items()
            if facts and column not in (*as_text, *facts)
        ]
        return lines + [f"  {note}" for note in self.notes]

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {"kind": self.kind, "columns": self.became, "notes": self.notes}


class FeedColumns:
    """Takes the columns of a feed one by one; `finish` gives the facts with their types and the report."""

    def __init__(self, feed: Feed, file: str, row_word: str, rows: Sequence[int]) -> None:
        self._feed, self._file, self._row_word, self._rows = feed, file, row_word, rows
        self._facts: dict[str, Column] = {}
        self._became: dict[str, list[str]] = {feed.id_column: ["id"], feed.title_column: ["title"]}
        self._notes: list[str] = []
        self._currencies: dict[str, list[str | None]] = {}

    def add(self, column: str, values: Sequence[Any]) -> None:
        """Read one column, its values as written: None, "" and [] are missing."""
        attribute = self._feed.attributes.get(column, column)
        if attribute in self._facts or attribute in ("id", "title"):
            raise DataError(f"{self._file} has the column {attribute!r} twice.", hint="Rename or remove one.")
        kind = KINDS.get(attribute)
        if attribute in PRIVATE or all(value is None or value == "" or value == [] for value in values):
            why = "not for the people who talk with it" if attribute in PRIVATE else "empty"
            self._became[column] = []
            self._notes.append(f"{column} is left out: {why}.")
        elif kind == "money":
            self._money(column, attribute, values)
        elif kind == "stock":
            states = self._each(column, values, feed_values.stock_state)
            self._put(column, attribute, "string", states)
            stock: list[Fact | None] = [s if s is None else feed_values.is_in_stock(str(s)) for s in states]
            self._put(column, "in_stock", "boolean", stock)
        elif kind == "span":
            ends = self._each(column, values, feed_values.span)
            for n, end in enumerate(("start", "end")):
                self._put(column, f"{attribute}_{end}", "date", [pair and pair[n] for pair in ends])
        elif kind == "path" and all(str(value).isdigit() for value in values if value):
            self._put(column, attribute, "string", self._each(column, values, feed_values.text))
        elif kind in _PARSERS:
            column_type, parse = _PARSERS[kind]
            self._put(column, attribute, column_type, self._each(column, values, parse))
        else:
            self._put(column, attribute, *self._unknown(column, values))

    def finish(self) -> tuple[dict[str, Column], FeedReport]:
        """All facts by column, and the report."""
        if self._currencies:
            self._add_currency()
        feed = self._feed
        return self._facts, FeedReport(self._file, feed.kind, feed.words, self._became, self._notes)

    def _put(self, column: str, name: str, kind: ColumnType, values: list[Any]) -> None:
        if name in self._facts:  # a feed that has an in_stock or a start date of its own keeps it
            return
        self._facts[name] = kind, values
        self._became.setdefault(column, []).append(f"{name} ({kind})")

    def _each(self, column: str, values: Sequence[Any], parse: Callable[[Any], Any]) -> list[Any]:
        """Every value read; the ones that could not be are None, and a note counts them."""
        out: list[Any] = []
        failed: list[int] = []
        known: dict[str, Any] = {}  # equal texts are read once
        for n, value in enumerate(values):
            if value is None or value == "" or value == []:
                out.append(None)
                continue
            if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
                value = value[0]
            if isinstance(value, str) and len(value) < 64:
                read = known[value] if value in known else known.setdefault(value, parse(value))
            else:
                read = parse(value)
            out.append(read)
            if read is None:
                failed.append(n)
        if failed:
            first = failed[0]
            self._notes.append(
                f"{column}: {len(failed):,} of {len(values):,} could not be read and count as missing, "
                f"the first {shown(values[first])} in {self._row_word} {self._rows[first]}."
            )
        return out

    def _money(self, column: str, attribute: str, values: Sequence[Any]) -> None:
        pairs = self._each(column, values, feed_values.money)
        self._put(column, attribute, "number", [pair and pair[0] for pair in pairs])
        self._currencies[attribute] = [pair and pair[1] for pair in pairs]
        if len(self._currencies) == 1:
            self._became[column].append("currency (string)")

    def _add_currency(self) -> None:
        """One currency an item: of its price, else of its sale price; a sale price in another one is missing."""
        n = len(self._rows)
        own: list[Any] = self._facts.pop("currency", ("string", [None] * n))[1]
        price = self._currencies.get("price", [None] * n)
        sale = self._currencies.get("sale_price", [None] * n)
        final = [first or second or third for first, second, third in zip(price, sale, own, strict=True)]
        odd = [k for k, (code, other) in enumerate(zip(final, sale, strict=True)) if other and other != code]
        for k in odd:
            self._facts["sale_price"][1][k] = None
        if odd:
            self._notes.append(f"sale_price: {len(odd):,} are in another currency than the price and are missing.")
        counts = Counter(code for code in final if code)
        if not counts:
            for facts in self._became.values():
                facts[:] = [fact for fact in facts if fact != "currency (string)"]
            return
        ordered: dict[str, Column] = {}
        for name, typed in self._facts.items():
            ordered[name] = typed
            if name == next(iter(self._currencies)):  # beside the price on a card
                ordered["currency"] = "string", list(final)
        self._facts = ordered
        if len(counts) > 1:
            mixed = ", ".join(f"{code} {count:,}" for code, count in counts.most_common(6))
            self._notes.append(
                f"Prices are in several currencies ({mixed}): a rule on price compares the numbers as they are, so add "
                f"one such as --where currency={counts.most_common(1)[0][0]}."
            )

    def _unknown(self, column: str, values: Sequence[Any]) -> Column:
        """A column that no feed specification names: typed like any catalogue's, or text where it is mixed."""
        place = Place(self._file, column, self._row_word)
        if any(isinstance(value, list | dict) for value in values):
            return "list", self._each(column, values, feed_values.written_list)
        try:
            if all(value is None or isinstance(value, str) for value in values):
                cells = [value or "" for value in values]
                if (lists := written_lists(cells)) is not None:
                    return "list", [entries or None for entries in lists]
                return type_of_text(cells, self._rows, place)
            return type_of_values(values, self._rows, place)
        except DataError:
            return "string", self._each(column, values, feed_values.text)
