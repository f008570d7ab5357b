"""What about a catalogue's columns will hurt a recommender: emptiness, one value, HTML, prices as text, stock, dates.

Knows nothing of titles (`findings`), of semantic IDs or of any model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from gcrs.toolkit.catalog.feed_values import money
from gcrs.toolkit.catalog.findings import SHOWN, Finding, some
from gcrs.toolkit.catalog.item import Catalog, ColumnType, Fact
from gcrs.toolkit.catalog.text import MAX_VALUE, TAG
from gcrs.toolkit.catalog.text_columns import SAME, TextColumns, average_length, name_words

MOSTLY_EMPTY = 0.1
_GROUPS = frozenset({"item_group_id", "group_id"})
_COUNTED = frozenset({"stock", "in_stock", "quantity", "inventory", "stock_level", "inventory_level"})
_ENDS = frozenset({"expiration", "expires", "expired", "expiry", "until", "end"})
_SEEN = 5_000  # values that are looked at where a share is enough
_FEW = 20

Row = tuple[str, Fact]


def column_findings(catalog: Catalog, text: TextColumns, today: str) -> Iterator[Finding]:
    """Findings about the columns; `today` is an ISO date. Linear in the number of values."""
    for column, kind in catalog.columns.items():
        rows = [(item.id, item.facts[column]) for item in catalog if column in item.facts]
        yield from _form(column, kind, rows, len(catalog), text)
        yield from _now(column, kind, rows, len(catalog), today)
    others = {column: why for column, why in text.left_out.items() if why not in (SAME, "empty")}
    if others:
        yield Finding(
            "note", "not-read",
            f"The encoder does not read {TextColumns([], others).grouped}: what is alike is found without them.",
            "--text-column NAME decides otherwise.", len(others),
        )  # fmt: skip


def _form(column: str, kind: ColumnType, rows: Sequence[Row], items: int, text: TextColumns) -> Iterator[Finding]:
    values = [value for _, value in rows]
    if len(rows) < MOSTLY_EMPTY * items:
        yield Finding(
            "note", "mostly-empty",
            f"{column!r} is filled in {len(rows):,} of {items:,} items: a rule on it leaves all others out.",
            "Fill it or leave it out.", len(rows), column=column,
        )  # fmt: skip
    elif text.left_out.get(column) == SAME:
        yield Finding(
            "note", "one-value", f"{column!r} is the same for all items: it tells none from another.",
            "Leave it out.", items, column=column,
        )  # fmt: skip
    if column not in text.columns:
        if kind == "string" and _is_price(column, values):
            yield Finding(
                "warning", "price-as-text",
                f"{column!r} holds prices as text: a rule such as {column}<50 compares letters.",
                "Write plain numbers, with the currency in a column of its own.", len(rows), column=column,
            )  # fmt: skip
        return
    if kind == "string" and len(values) >= _FEW and average_length(values) <= 40:
        distinct = len({str(value).casefold() for value in values})
        if distinct > 0.95 * len(values):
            yield Finding(
                "note", "all-different",
                f"{column!r} has another short text for nearly every item: nobody will ask with it, and it blurs what "
                "is alike.",
                "Leave it to the cards: name the columns to read with --text-column.", distinct, column=column,
            )  # fmt: skip
    texts = [(item, value) for item, value in rows if isinstance(value, str)]
    marked = [item for item, value in texts if TAG.search(value)]
    if marked:
        yield Finding(
            "note", "html", f"{column!r} holds HTML in {some(len(marked), 'item')}: the encoder reads the words alone, "
            "cards show the tags.",
            "Take the tags out.", len(marked), tuple(marked[:SHOWN]), column,
        )  # fmt: skip
    long = [item for item, value in texts if len(value) > 1.2 * MAX_VALUE]
    if len(long) > items / 10:
        yield Finding(
            "note", "cut",
            f"{column!r} is longer than {MAX_VALUE} characters in {some(len(long), 'item')}: the encoder reads the "
            "beginning.",
            "Say in the first two sentences what the item is.", len(long), tuple(long[:SHOWN]), column,
        )  # fmt: skip


def _now(column: str, kind: ColumnType, rows: Sequence[Row], items: int, today: str) -> Iterator[Finding]:
    """What is so today: stock, expired dates, currencies, variants."""
    name = "_".join(name_words(column))
    flag = name == "in_stock" and kind == "boolean"
    if flag or (name in _COUNTED and kind in ("integer", "number")):
        gone = [item for item, value in rows if not value]
        if gone:
            rule = f"--where {column}=true" if flag else f"--where '{column}>0'"
            yield Finding(
                "warning" if len(gone) > items / 2 else "note", "out-of-stock",
                f"{some(len(gone), 'item', 'are')} not in stock and would be recommended all the same.",
                f"Ask with {rule}, or take them out of the file.",
                len(gone), tuple(gone[:SHOWN]), column,
            )  # fmt: skip
    elif kind == "date" and set(name.split("_")) & _ENDS:
        past = [item for item, value in rows if str(value)[:10] < today]
        if past and not name.startswith("sale_price"):
            yield Finding(
                "warning" if len(past) > items / 10 else "note", "expired",
                f"{column!r} is over for {some(len(past), 'item')}, which would be recommended all the same.",
                f"Ask with --where '{column}>={today}' (an item without the date is then left out), or remove them.",
                len(past), tuple(past[:SHOWN]), column,
            )  # fmt: skip
    elif name == "currency":
        counts = Counter(str(value) for _, value in rows)
        if len(counts) > 1:
            listed = ", ".join(f"{code} {n:,}" for code, n in counts.most_common(6))
            yield Finding(
                "warning", "several-currencies",
                f"Prices are in several currencies ({listed}): a rule on price compares the numbers as they are.",
                f"Add --where {column}={counts.most_common(1)[0][0]}, or build one catalogue a currency.",
                len(rows), column=column,
            )  # fmt: skip
    elif name in _GROUPS:
        sizes = Counter(str(value) for _, value in rows)
        variants = [item for item, value in rows if sizes[str(value)] > 1]
        groups = sum(n > 1 for n in sizes.values())
        if variants:
            yield Finding(
                "warning" if len(variants) > items / 2 else "note", "variants",
                f"{some(len(variants), 'item', 'are')} variants of {some(groups, 'product')}: a list of "
                "recommendations repeats a product in its sizes and colours.",
                "Keep one row of each group.", len(variants), tuple(variants[:SHOWN]), column,
            )  # fmt: skip


def _is_price(column: str, values: Sequence[Fact]) -> bool:
    if not {"price", "prices", "cost"} & set(name_words(column)):
        return False
    seen = values[:_SEEN]
    return bool(seen) and sum(money(value) is not None for value in seen) > len(seen) / 2
