"""Single values of product feeds: prices with currencies, availability, category paths, dates, written lists.

Each function returns None for what it cannot read; counting and saying so is the caller's business. Knows nothing of
columns or files.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable
from typing import Any

from gcrs.toolkit.catalog.columns import parse_date
from gcrs.toolkit.catalog.text import plain_text

_SYMBOLS = {"€": "EUR", "£": "GBP", "₹": "INR", "₽": "RUB", "₩": "KRW", "₺": "TRY", "₴": "UAH", "₫": "VND", "zł": "PLN"}
_SIGN = r"[A-Za-z]{3}|[$€£¥₹₽₩₺₴₫]|zł"  # `$` and `¥` stay as they are: several currencies are written so
_MONEY = re.compile(rf"(?:(?P<before>{_SIGN})\s*)?(?P<number>\d[\d.,'’\s]*)(?:\s*(?P<after>{_SIGN}))?")
_THOUSANDS = re.compile(r"\d{1,3}([.,])\d{3}(\1\d{3})*")
_IN_STOCK = frozenset({"in_stock", "instock", "available", "limited_availability", "in_store_only", "online_only"})
_SAME_STATE = {"instock": "in_stock", "outofstock": "out_of_stock", "pre_order": "preorder", "back_order": "backorder"}
_YES, _NO = frozenset({"true", "yes", "1", "y"}), frozenset({"false", "no", "0", "n"})


def money(value: Any) -> tuple[float, str | None] | None:
    """(79.99, "USD") of "79.99 USD", "USD 79.99", "79,99 €", 79.99 or {"amount": 79.99, "currency": "USD"}."""
    if isinstance(value, dict):
        amount = money(value.get("amount", value.get("value")))
        code = value.get("currency") or value.get("currency_code")
        return amount and (amount[0], str(code).upper() if code else amount[1])
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return (float(value), None) if math.isfinite(value) and value >= 0 else None
    match = _MONEY.fullmatch(str(value).strip())
    if match is None or (match["before"] and match["after"]):
        return None
    number = _decimal(match["number"])
    sign = match["before"] or match["after"]
    return None if number is None else (number, _SYMBOLS.get(sign, sign.upper()) if sign else None)


def _decimal(written: str) -> float | None:
    """A number with a decimal point or comma and any separator of thousands."""
    digits = re.sub(r"[\s'’]", "", written).rstrip(".,")
    last = max(digits.rfind("."), digits.rfind(","))
    marks = {mark for mark in digits if mark in ".,"}
    repeated = len(marks) == 1 and digits.count(digits[last]) > 1
    if last >= 0 and (repeated or (digits[last] == "," and len(marks) == 1 and _THOUSANDS.fullmatch(digits))):
        digits = digits.replace(digits[last], "")
    elif last >= 0:
        digits = re.sub(r"[.,]", "", digits[:last]) + "." + digits[last + 1 :]
    return float(digits) if re.fullmatch(r"\d+(\.\d+)?", digits) else None


def stock_state(value: Any) -> str | None:
    """`in_stock`, `out_of_stock`, `preorder` or `backorder`, whatever the spelling; other words as they are."""
    word = str(value).strip().rstrip("/").rsplit("/", 1)[-1]
    word = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", word)  # https://schema.org/InStock
    word = re.sub(r"[\s\-]+", "_", word.casefold())
    return _SAME_STATE.get(word, word) or None


def is_in_stock(state: str) -> bool:
    """Whether an item of this availability can be had now; what can only be ordered ahead cannot."""
    return state in _IN_STOCK


def path(value: Any) -> list[str] | None:
    """The steps of a category path "Home > Kitchen > Pans", of several paths one after the other, each step once."""
    parts = (part.strip() for entry in _entries(value) for part in plain_text(entry).split(">"))
    return list(dict.fromkeys(part for part in parts if part)) or None


def date(value: Any) -> str | None:
    """An ISO date or time as our columns hold it; a year alone or another spelling is none."""
    text = re.sub(r"\s*(UTC|GMT)$", "Z", str(value).strip())
    return parse_date(text)


def span(value: Any) -> tuple[str | None, str | None] | None:
    """Both ends of "2026-03-01T00:00Z/2026-03-15T23:59Z", or with " / " between them."""
    ends = [date(end) for end in re.split(r"\s*/\s*", str(value).strip())]
    return (ends[0], ends[1]) if len(ends) == 2 and any(ends) else None


def number(value: Any) -> float | None:
    """A number, a percent sign behind it left out."""
    try:
        found = float(str(value).strip().rstrip("%").replace(",", "."))
    except ValueError:
        return None
    return found if math.isfinite(found) and not isinstance(value, bool) else None


def integer(value: Any) -> int | None:
    """A whole number."""
    found = number(value)
    return int(found) if found is not None and found == int(found) and abs(found) < 2**53 else None


def flag(value: Any) -> bool | None:
    """True or false, as `true`, `yes`, `1` and their opposites."""
    word = str(value).strip().casefold()
    return True if word in _YES else False if word in _NO else None


def written_list(value: Any, delimiters: str = ",") -> list[str] | None:
    """The entries of a JSON list, or of a written one: `a,b` with quotes around an entry that holds a comma."""
    if isinstance(value, str):
        mark = next((mark for mark in ("|", *delimiters) if mark in value), None)
        value = next(csv.reader([value], delimiter=mark, skipinitialspace=True), []) if mark else [value]
    entries = (plain_text(entry) for entry in _entries(value))
    return list(dict.fromkeys(entry for entry in entries if entry)) or None


def text(value: Any) -> str | None:
    """One line of words, HTML tags and entities read as what they stand for."""
    return plain_text(", ".join(_entries(value))) or None


def _entries(value: Any) -> Iterable[str]:
    """A value's entries as texts; an object is `name: value` for each of its entries."""
    if isinstance(value, dict):
        return [f"{key}: {', '.join(_entries(entry))}" for key, entry in value.items() if entry not in (None, "", [])]
    if isinstance(value, list):
        return [", ".join(_entries(entry)) if isinstance(entry, dict) else str(entry) for entry in value]
    return [str(value)]
