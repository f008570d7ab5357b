"""`gcrs catalog check`: everything that will hurt, before training does, worst first.

Joins what the items, their columns, the encoder and the semantic IDs tell. Knows nothing of language models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from gcrs.toolkit.catalog.column_findings import column_findings
from gcrs.toolkit.catalog.duplicates import NearDuplicate, near_duplicates
from gcrs.toolkit.catalog.encoder_names import MINILM, family_of
from gcrs.toolkit.catalog.findings import SEVERITIES, SHOWN, Finding, item_findings, some
from gcrs.toolkit.catalog.item import Catalog
from gcrs.toolkit.catalog.languages import language_of, scripts_of
from gcrs.toolkit.catalog.text import item_text
from gcrs.toolkit.catalog.text_columns import TextColumns, text_columns
from gcrs.toolkit.prepared import PreparedCatalog

SAMPLE = 5_000  # items whose text is looked at for its language
FOREIGN = 0.1  # share of letters of other scripts from which an English encoder is the wrong one
MULTILINGUAL = "multilingual-e5-base"
CHARACTERS_A_TOKEN = 4.0  # of English; other languages take more tokens


def check_catalog(
    catalog: Catalog,
    prepared: PreparedCatalog | None = None,
    *,
    close: Sequence[NearDuplicate] | None = None,
    today: str | None = None,
) -> list[Finding]:
    """All findings, errors first. Without a prepared catalogue the encoder is taken to be the default one.

    `close` are the near-duplicates where the caller has them; `today` is an ISO date, by default the real one.
    """
    today = today or datetime.now(UTC).date().isoformat()
    text = text_columns(catalog)
    encoder: Mapping[str, Any] = {"name": MINILM}
    if prepared is not None:
        stored = prepared.settings["text"]
        text = TextColumns(list(stored["columns"]), dict(stored.get("left_out", {})))
        encoder = prepared.settings["encoder"]
    found = [*item_findings(catalog, text.columns, near_duplicates(catalog) if close is None else close)]
    if not any(finding.severity == "error" for finding in found):
        found += column_findings(catalog, text, today)
        found += encoder_findings(catalog, text.columns, encoder)
        found += id_findings(prepared) if prepared is not None else []
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def encoder_findings(catalog: Catalog, columns: list[str], encoder: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether the encoder understands the language, and reads to the end."""
    name = str(encoder["name"])
    family = family_of(name)
    step = max(1, len(catalog) // SAMPLE)
    items = catalog.items[::step]
    texts = [item_text(item, columns) for item in items]
    words = [f"{item.title} {' '.join(str(item.facts.get(column, '')) for column in columns)}" for item in items]
    if family is not None and family.english:
        scripts = scripts_of(words)
        other = {script: share for script, share in scripts.items() if script != "Latin"}
        cure = f"Build with --encoder {MULTILINGUAL}."
        if sum(other.values()) > FOREIGN:
            listed = ", ".join(f"{100 * share:.0f} % {script}" for script, share in other.items() if share >= 0.01)
            yield Finding(
                "warning", "script",
                f"The letters are {listed}, which the encoder {name} (English) hardly understands: what is alike is "
                "not found.",
                cure, len(catalog),
            )  # fmt: skip
        elif (language := language_of(words)) not in (None, "English"):
            yield Finding(
                "warning", "language",
                f"The items seem to be in {language}, of which the encoder {name} (English) knows few words: what is "
                "alike is found by names and loanwords.",
                cure, len(catalog),
            )  # fmt: skip
    tokens = int(encoder.get("max_tokens") or (family.max_tokens if family else 256))
    long = [item.id for item, text in zip(items, texts, strict=True) if len(text) > tokens * CHARACTERS_A_TOKEN]
    if len(long) > len(items) / 20:
        share = f"{100 * len(long) / len(items):.0f} %"
        yield Finding(
            "note", "long-text",
            f"About {share} of the items have more text than the {tokens} tokens that the encoder reads.",
            "Name the columns that matter, in their order, with --text-column.", len(long) * step, tuple(long[:SHOWN]),
        )  # fmt: skip


def id_findings(prepared: PreparedCatalog) -> Iterator[Finding]:
    """What the semantic IDs suffer from."""
    health, book = prepared.health, prepared.book
    items = len(prepared.catalog)
    collided, near = int(health.get("collided", 0)), int(health.get("near_identical", 0))
    if collided > items / 5:
        yield Finding(
            "warning", "collisions",
            f"{some(collided, 'item')} ({100 * collided / items:.0f} %) shared a semantic ID before they were moved "
            "apart: what those IDs say of them is partly arbitrary.",
            "Build with more --codes or --levels, or give the items more text.", collided,
        )  # fmt: skip
    if near > items / 10:
        yield Finding(
            "warning", "near-identical", f"{some(near, 'item', 'have')} nearly the vector of another: the model cannot "
            "tell them apart by their IDs.",
            "Let the encoder read a column in which they differ: --text-column NAME.", near,
        )  # fmt: skip
    if book.levels > 1 and items < book.codes[0]:
        yield Finding(
            "warning", "sparse-codes",
            f"The first level has {book.codes[0]} codes for {items} items: hardly two share one, so nothing is learnt "
            "of one item from another.",
            "Build again without --levels and --codes.", items,
        )  # fmt: skip
