"""What a person probably meant by a name that does not exist: for messages.

Knows nothing of columns or rules.
"""

from __future__ import annotations

from collections.abc import Iterable

from gcrs.toolkit.catalog.item import Catalog

MOST = 3
LEAST_ALIKE = 50.0  # of 100


def nearest(wanted: str, names: Iterable[str], *, most: int = MOST) -> list[str]:
    """The names most like `wanted`, best first; none when nothing is alike. A million names take about a second."""
    from rapidfuzz import fuzz, process

    found = process.extract(wanted, list(names), scorer=fuzz.ratio, limit=most, score_cutoff=LEAST_ALIKE)
    return [name for name, _, _ in found]


def nearest_item(catalog: Catalog, wanted: str) -> str:
    """One sentence that names the item that has this title, else those with an id or title most like it."""
    folded = wanted.casefold()
    titled = [item for item in catalog if folded in (item.title.casefold(), item.label.casefold())]
    if titled:
        return f"That is a title: its id is {' or '.join(item.id for item in titled[:MOST])}."
    near = [f"{name} ({catalog[name].label})" for name in nearest(wanted, (item.id for item in catalog))]
    if not near:
        labels = {item.label.casefold(): item for item in catalog}
        near = [f"{labels[label].id} ({labels[label].label})" for label in nearest(folded, labels)]
    return f"Nearest: {', '.join(near)}." if near else "See: gcrs catalog show"
