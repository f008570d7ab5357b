"""What about a catalogue's items will hurt a recommender: each finding one sentence of the effect and one of the cure.

Knows nothing of columns' values (`column_findings`), of semantic IDs or of any model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gcrs.toolkit.catalog.duplicates import NearDuplicate, check_buildable, same_titles
from gcrs.toolkit.catalog.item import Catalog
from gcrs.toolkit.catalog.text import TAG, item_text
from gcrs.toolkit.errors import DataError

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

LONG_TITLE = 12  # words beyond which nobody types a title in full
FEW_ITEMS = 10
SHOWN = 10  # ids that a finding names


@dataclass(frozen=True)
class Finding:
    """One thing to know: `message` says what it does to the recommender, `hint` what to do about it.

    `code` is its stable name, `count` how many items (or values) it is about, `items` the first of their ids.
    """

    severity: Severity
    code: str
    message: str
    hint: str
    count: int = 0
    items: tuple[str, ...] = ()
    column: str | None = None

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return {**vars(self), "items": list(self.items)}


def some(count: int, noun: str, verb: str = "") -> str:
    """ "1 item has", "3 items have": a count with its noun and, if given, its verb in the plural."""
    singular = {"have": "has", "are": "is", "read": "reads", "share": "shares", "hold": "holds"}.get(verb, verb)
    words = f"{count:,} {noun if count == 1 else noun + 's'}"
    return f"{words} {singular if count == 1 else verb}".rstrip()


def item_findings(catalog: Catalog, text_columns: Sequence[str], close: Sequence[NearDuplicate]) -> Iterator[Finding]:
    """Findings about the items, of which the encoder reads `text_columns` and `close` are the near-duplicates.

    Linear in the number of items.
    """
    ids = [item.id for item in catalog]
    try:
        check_buildable(catalog)
    except DataError as error:
        yield Finding("error", "nothing-to-choose", error.message, error.hint or "", len(ids), tuple(ids[:SHOWN]))
        return
    if len(ids) < FEW_ITEMS:
        yield Finding(
            "note", "few-items", f"{len(ids)} items: every request is answered from the same few.",
            "Bring more; with so few, --where does most of the work.", len(ids),
        )  # fmt: skip
    alike = [group for group in _groups(catalog, text_columns) if len(group) > 1]
    if alike:
        n = sum(map(len, alike))
        yield Finding(
            "warning", "read-alike",
            f"{n:,} items in {some(len(alike), 'group')} have the same title and the same text: which of a group is "
            "recommended is chance.",
            "Keep one of each, or add a column that tells them apart.", n, tuple(alike[0][:SHOWN]),
        )  # fmt: skip
    if same := same_titles(catalog):
        n = sum(map(len, same))
        yield Finding(
            "warning" if n > len(ids) / 10 else "note", "same-title",
            f"{some(n, 'item', 'share')} a title with another: a person who types it is not understood until something "
            "else tells them apart.",
            "Say in the title what differs, or add a year column.", n, tuple(same[0][:SHOWN]),
        )  # fmt: skip
    bare = [item.id for item in catalog if not any(column in item.facts for column in text_columns)]
    if bare:
        yield Finding(
            "warning" if len(bare) > len(ids) / 5 else "note", "without-text",
            f"{some(len(bare), 'item', 'have')} a title alone: what is like them is guessed from its words, and nobody "
            "finds them by a wish.",
            "Add a category, a description or another column that says what they are.", len(bare), tuple(bare[:SHOWN]),
        )  # fmt: skip
    yield from _titles(catalog, close)
    yield from _ids(ids)


def _titles(catalog: Catalog, close: Sequence[NearDuplicate]) -> Iterator[Finding]:
    long = [item.id for item in catalog if len(item.title.split()) > LONG_TITLE or len(item.title) > 150]
    if long:
        yield Finding(
            "warning" if len(long) > len(catalog) / 5 else "note", "long-title",
            f"{some(len(long), 'title', 'have')} more than {LONG_TITLE} words or 150 characters: replies carry it "
            "whole, and a person who types a part of it is not understood.",
            "Keep in the title what people say, and put the rest into columns.", len(long), tuple(long[:SHOWN]),
        )  # fmt: skip
    marked = [item.id for item in catalog if TAG.search(item.title)]
    if marked:
        yield Finding(
            "warning", "html-in-title", f"{some(len(marked), 'title', 'hold')} HTML, which replies show as it is.",
            "Take the tags out.", len(marked), tuple(marked[:SHOWN]),
        )  # fmt: skip
    if close:
        yield Finding(
            "note", "near-duplicates",
            f"{some(len(close), 'pair')} of items have (almost) the same name: a film or product that "
            "is there twice is recommended twice.",
            "Look at the list above, and keep one of each that is one.", len(close), (close[0].first, close[0].second),
        )  # fmt: skip


def _ids(ids: Sequence[str]) -> Iterator[Finding]:
    if len(ids) >= FEW_ITEMS and (
        ids == [str(n) for n in range(len(ids))] or ids == [str(n + 1) for n in range(len(ids))]
    ):
        yield Finding(
            "note", "row-numbers",
            "The ids count the rows: in the next export they may mean other items, and dialogues, sessions and bundles "
            "refer to items by id.",
            "Use ids that stay with the item.", len(ids), tuple(ids[:3]),
        )  # fmt: skip


def _groups(catalog: Catalog, text_columns: Sequence[str]) -> list[list[str]]:
    """Ids of items by the text that the encoder reads; by its hash, so that a million texts need not be kept."""
    groups: dict[int, list[str]] = defaultdict(list)
    for item in catalog:
        groups[hash(item_text(item, text_columns))].append(item.id)
    return list(groups.values())
