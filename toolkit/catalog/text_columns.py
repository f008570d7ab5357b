"""Which columns the text encoder reads: what says what an item is, not what it costs today or where its picture lies.

Decided by a column's name, type and values, for whatever catalogue; `--text-column` decides otherwise. Knows nothing
of encoders.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gcrs.toolkit.catalog.item import Catalog, ColumnType, Fact
from gcrs.toolkit.errors import UsageError

LONG = 80  # characters on average from which a column is running text: it comes last, so that it pushes nothing out
SAME = "the same for all"
_SEEN = 500  # values that are looked at for their form
_FEW = 20  # values below which being all different says nothing


def _set(spaced: str) -> frozenset[str]:
    return frozenset(spaced.split())


_CODES = _set("id ids gtin mpn isbn sku ean upc asin barcode uuid guid")
_MONEY = _set("price prices msrp rrp currency discount")
_STOCK = _set("stock instock availability inventory quantity")
_DATED = _set(
    """expiration expires expired expiry valid until availability available updated modified created effective added
    listed timestamp refreshed"""
)
_COUNTS = re.compile(r"(num_.*|.*_counts?|votes?|popularity(_score)?|rank|return_rate)")
_TERMS = re.compile(
    r"(shipping|tax|seller|store|returns?|refund|enable|is_eligible|is_ads|pickup|custom_label|ads|excluded_destination"
    r"|included_destination|merchant|promotion|delivery_estimate|external)(_.*)?"
    r"|accepts_(returns|exchanges)|target_countries|identifier_exists|(min|max)_handling_time|multipack|geo_.*"
    r"|listing_has_variations|warning"
)
_LINK = re.compile(r"(https?:)?//|www\.", re.IGNORECASE)
_CODE = re.compile(r"(?=.*\d)[\w.:/#-]+")


@dataclass(frozen=True)
class TextColumns:
    """The columns that the encoder reads, in order, and why each other one is left out."""

    columns: list[str]
    left_out: dict[str, str]

    @property
    def grouped(self) -> str:
        """What is left out, by reason: "link, image_link (links); price (prices)"."""
        reasons: dict[str, list[str]] = {}
        for column, why in self.left_out.items():
            reasons.setdefault(why, []).append(column)
        return "; ".join(f"{', '.join(columns)} ({why})" for why, columns in reasons.items())

    def lines(self) -> list[str]:
        """What was chosen, for a terminal; nothing to say where all columns are read."""
        if not self.left_out:
            return []
        read = ", ".join(["title", *self.columns])
        return [f"The encoder reads {read}.", f"It does not read {self.grouped}. --text-column NAME decides otherwise."]


def text_columns(catalog: Catalog, asked: Sequence[str] | None = None) -> TextColumns:
    """The columns that the encoder reads: those asked for, else chosen ones; UsageError for one that is not there."""
    for column in asked or ():
        if column not in catalog.columns:
            known = ", ".join(catalog.columns) or "none but id and title"
            if column == "title":
                raise UsageError("The title is always read.", hint=f"Name the columns to read behind it: {known}.")
            raise UsageError(f"The catalogue has no column {column!r}.", hint=f"Its columns: {known}.")
    return choose_text_columns(catalog) if asked is None else TextColumns(list(asked), {})


def choose_text_columns(catalog: Catalog) -> TextColumns:
    """All columns but links, codes, prices, stock, dates of an offer, counts, a shop's terms, and columns
    that are empty or the same for every item; running text comes last, else the catalogue's order stays.
    """
    short: list[str] = []
    running: list[str] = []
    left_out: dict[str, str] = {}
    for column, kind in catalog.columns.items():
        values = [item.facts[column] for item in catalog if column in item.facts]
        if why := reason_to_leave_out(column, kind, values, len(catalog)):
            left_out[column] = why
        else:
            (running if average_length(values) > LONG else short).append(column)
    return TextColumns([*short, *running], left_out)


def reason_to_leave_out(column: str, kind: ColumnType, values: Sequence[Fact], items: int) -> str | None:
    """Why a column says nothing of what an item is, None when it may; `values` are those that are not missing."""
    name = "_".join(name_words(column))
    words = set(name.split("_"))
    if not values:
        return "empty"
    seen = list(_texts(values[:_SEEN]))
    if seen and sum(_LINK.match(text) is not None for text in seen) > len(seen) / 2:
        return "links"
    if words & _CODES or _is_code(kind, values):
        return "codes"
    if kind == "date" and words & _DATED:
        return "dates of an offer"
    if words & _MONEY and (kind in ("integer", "number") or "currency" in words or _mostly_digits(seen)):
        return "prices"
    if words & _STOCK and kind != "list":
        return "stock"
    if _COUNTS.fullmatch(name) and kind in ("integer", "number"):
        return "counts"
    if _TERMS.fullmatch(name):
        return "terms of the shop"
    if name == "google_product_category" and kind == "string":
        return "codes"
    if items > 1 and len(values) == items and is_constant(values):
        return SAME
    return None


def name_words(column: str) -> list[str]:
    """The words of a column's name: `itemGroupId` and `item group-id` are item, group, id."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", column)
    return re.split(r"[\W_]+", spaced.casefold().strip("_ "))


def is_constant(values: Sequence[Fact]) -> bool:
    """Whether all values are equal."""
    return all(value == values[0] for value in values)


def average_length(values: Sequence[Fact]) -> float:
    """Characters of a value on average; 0 for what is no text."""
    sizes = [len(value) for value in values[:_SEEN] if isinstance(value, str)]
    return sum(sizes) / len(sizes) if sizes else 0.0


def _is_code(kind: ColumnType, values: Sequence[Fact]) -> bool:
    """Whether a column holds codes: words with digits and without blanks, no two items the same."""
    if kind != "string" or len(values) < _FEW:
        return False
    seen = values[:_SEEN]
    if sum(_CODE.fullmatch(str(value)) is not None for value in seen) <= 0.9 * len(seen):
        return False
    return len(set(map(str, values))) == len(values)


def _mostly_digits(texts: Sequence[str]) -> bool:
    """Whether most texts hold a digit: "79.99 USD", not "cheap"."""
    return sum(any(character.isdigit() for character in text) for text in texts) > len(texts) / 2


def _texts(values: Sequence[Fact]) -> Iterator[str]:
    for value in values:
        for entry in value if isinstance(value, list) else (value,):
            if isinstance(entry, str):
                yield entry
