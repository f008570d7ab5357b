"""An item as one line of text, the form that the encoder reads: `title: … | year: … | genres: a, b | …`.

The form is the paper's (its item encoder reads a film's title and facts so); it works for whatever columns a
catalogue has. Knows nothing of encoders.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from gcrs.toolkit.catalog.item import Catalog, Fact, Item

MAX_VALUE = 300  # characters of one column: a pasted description must not push the others out of the encoder's window
MAX_TEXT = 2000  # characters in all; the encoder cuts at 256 tokens anyway
TAG = re.compile(r"</?[A-Za-z][^<>]{0,500}>|<!--[^<>]{0,500}-->")
_ENTITY = re.compile(r"&(#\d{1,7}|#x[0-9a-fA-F]{1,6}|[A-Za-z]{2,31});")


def plain_text(text: str) -> str:
    """One line without HTML tags, entities read as their characters; text without HTML only loses double blanks."""
    if "<" in text or "&" in text:
        for _ in range(2):  # what an export has escaped twice: &amp;lt;p&amp;gt;
            text = html.unescape(text) if _ENTITY.search(text) else text
            text = TAG.sub(" ", text)
    return " ".join(text.split())


def item_text(item: Item, columns: Sequence[str] | None = None) -> str:
    """The item's title and then each fact as `column: value`, lists joined by ", ", long values cut at a word.

    `columns` chooses and orders the facts; by default all of them, in the item's order. Missing and empty values
    leave no trace, and neither does a column called id, title or url.
    """
    parts = [f"title: {_cut(item.title)}"]
    for column in item.facts if columns is None else columns:
        value = item.facts.get(column)
        if column.casefold() in ("id", "title", "url") or value is None:
            continue
        if words := _cut(_plain(value)):
            parts.append(f"{column}: {words}")
    return " | ".join(parts)[:MAX_TEXT]


def item_texts(catalog: Catalog, columns: Sequence[str] | None = None) -> list[str]:
    """`item_text` of every item, in catalogue order."""
    order = list(catalog.columns) if columns is None and catalog.columns else columns
    return [item_text(item, order) for item in catalog]


def _plain(value: Fact) -> str:
    if isinstance(value, list):
        return ", ".join(entry for entry in map(str, value) if entry)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cut(text: str) -> str:
    """One line of at most MAX_VALUE characters without HTML; the item's own bars are no separators."""
    line = plain_text(text).replace(" | ", " / ")
    if len(line) <= MAX_VALUE:
        return line
    head = line[:MAX_VALUE]
    return f"{head[: head.rfind(' ')] if ' ' in head else head}…"
