"""Changes to a live catalogue: items join under the frozen quantizer, are retired, are restored.

A newcomer gets its greedy codes, or where these are taken the free ID that the collision rule finds
(`gcrs.toolkit.ids.collisions`); the choice is made inside the journal's transaction, against all that any process has
added, so no ID is given twice and none is changed. Knows nothing of the model, of files of items or of who asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gcrs.toolkit.catalog.item import Item
from gcrs.toolkit.catalog.journal import Change
from gcrs.toolkit.catalog.nearest import nearest_item
from gcrs.toolkit.errors import DataError, UnknownItem
from gcrs.toolkit.ids.codebook import SemanticId
from gcrs.toolkit.live import Edition, LiveCatalog

if TYPE_CHECKING:
    import numpy as np

    from gcrs.toolkit.ids.quantizer import Quantizer
    from gcrs.toolkit.prepared import PreparedCatalog

Progress = Callable[[int, int, str], None]

NEAR = 3  # neighbours that are told of an item that joined


@dataclass(frozen=True)
class Joined:
    """An item that joined, and how it came to its semantic ID.

    `wanted` are its greedy codes, `owner` the item that held them already (None: it got what it wanted). The distances
    are Euclidean, in the quantizer's latent space, from the item's point to the point of the ID that it wanted and of
    the one that it got. `near` are the offered items that share the longest beginning with it, nearest first, each with
    the number of codes it shares.
    """

    item: Item
    semantic_id: SemanticId
    wanted: SemanticId
    owner: str | None
    wanted_distance: float
    distance: float
    near: tuple[tuple[str, int], ...]

    @property
    def moved(self) -> int:
        """How many of the last codes differ from what it wanted; 0 without a collision."""
        return len(self.wanted) - _shared(self.wanted, self.semantic_id)


@dataclass(frozen=True)
class Addition:
    """What one `add_items` did, the version that it made, and the seconds of encoding and of the rest."""

    joined: tuple[Joined, ...]
    version: int
    seconds: dict[str, float]


def add_items(
    live: LiveCatalog, prepared: PreparedCatalog, items: Sequence[Item], progress: Progress | None = None
) -> Addition:
    """Let items join: all of them, as one change, or none.

    The encoder must be the one that the catalogue was built with. Raises DataError for ids or aliases that are in the
    catalogue (also as retired), for facts that do not fit its columns, for another encoder, and when no ID is free.
    """
    begin = time.perf_counter()
    fixed = [_in_order(item, live.edition) for item in items]
    live.follow()
    _check_new(fixed, live.edition)
    vectors = prepared.vectors_of(fixed, progress)
    encoded = time.perf_counter()
    joined, version = join_vectors(live, prepared.quantizer, fixed, vectors, progress)
    return Addition(joined, version, {"encode": encoded - begin, "join": time.perf_counter() - encoded})


def join_vectors(
    live: LiveCatalog,
    quantizer: Quantizer,
    items: Sequence[Item],
    vectors: np.ndarray,
    progress: Progress | None = None,
) -> tuple[tuple[Joined, ...], int]:
    """`add_items` for items whose vectors (float [n, width]) are at hand; also gives the new version."""
    from gcrs.toolkit.ids.build import assign_many

    if not items:
        return (), live.edition.version
    before = live.edition
    new: list[Change] = []

    def decide(changes: list[Change]) -> list[Change]:
        nonlocal before, new
        before = live.bundled.after(changes)
        _check_new(items, before)
        given = assign_many(quantizer, vectors, before.book.ids.values())
        new = [Change("add", item.id, item, sid) for item, sid in zip(items, given, strict=True)]
        before.after(new)  # raises for what could not be read again
        return new

    version = live.journal.commit(decide).version
    live.follow()
    return tuple(_told(quantizer, vectors, before, before.after(new), new, progress)), version


def retire_items(live: LiveCatalog, item_ids: Sequence[str]) -> tuple[str, ...]:
    """Take items (ids or aliases) out of what may be recommended, all or none; gives their canonical ids.

    They keep their semantic IDs and stay known by title. UnknownItem, or DataError for one that is retired already.
    """
    return _mark(live, item_ids, retire=True)


def restore_items(live: LiveCatalog, item_ids: Sequence[str]) -> tuple[str, ...]:
    """Let retired items be recommended again, all or none. UnknownItem, or DataError for one that is not retired."""
    return _mark(live, item_ids, retire=False)


def _mark(live: LiveCatalog, item_ids: Sequence[str], *, retire: bool) -> tuple[str, ...]:
    live.follow()
    found = _markable(live.edition, item_ids, retire)  # before a journal is made for nothing

    def decide(before: list[Change]) -> list[Change]:
        nonlocal found
        found = _markable(live.bundled.after(before), item_ids, retire)
        return [Change("retire" if retire else "restore", item_id) for item_id in found]

    live.journal.commit(decide)
    live.follow()
    return found


def _markable(edition: Edition, item_ids: Sequence[str], retire: bool) -> tuple[str, ...]:
    """The canonical ids, each once."""
    found: dict[str, None] = {}
    for item_id in item_ids:
        if item_id not in edition.catalog:
            raise UnknownItem(item_id, hint=f"Nothing was changed. {nearest_item(edition.catalog, item_id)}")
        canonical = edition.catalog.canonical(item_id)
        if (canonical in edition.retired) == retire:
            how = "retired already" if retire else "not retired"
            raise DataError(f"Item {item_id!r} is {how}.", hint="Nothing was changed.")
        found[canonical] = None
    return tuple(found)


def _in_order(item: Item, edition: Edition) -> Item:
    """The item with its facts in the order of the catalogue's columns; DataError for a column that it lacks."""
    from gcrs.toolkit.catalog.columns import conform

    facts = conform(item.facts.items(), edition.catalog.columns, f"Item {item.id!r}")
    return replace(item, facts={column: facts[column] for column in edition.catalog.columns if column in facts})


def _check_new(items: Sequence[Item], edition: Edition) -> None:
    """DataError when one of the ids or aliases is taken."""
    edition.check_free([source for item in items for source in (item.id, *item.aliases)])


def _told(
    quantizer: Quantizer,
    vectors: np.ndarray,
    before: Edition,
    after: Edition,
    new: Sequence[Change],
    progress: Progress | None,
) -> list[Joined]:
    """The report on each newcomer; `owner` is who held the wanted ID when it came, newcomers before it included."""
    import numpy as np

    from gcrs.toolkit.ids.quantizer import codeword_sum, residual_codes

    points = quantizer.latent(vectors)
    codes, ids = after.book.array(), list(after.book)
    offered = np.ones(len(ids), dtype=bool) if after.offered is None else after.offered
    out = []
    for n, change in enumerate(new):
        row = len(before.book) + n
        assert change.item is not None and change.semantic_id is not None
        greedy = residual_codes(points[n : n + 1], quantizer.codebooks)  # alone, as it was given its ID
        wanted = tuple(greedy[0].tolist())

        def distances(some: np.ndarray, point: np.ndarray = points[n]) -> np.ndarray:
            return np.linalg.norm(codeword_sum(some, quantizer.codebooks) - point, axis=1)

        akin = np.flatnonzero((codes[:, 0] == codes[row, 0]) & offered)
        akin = akin[akin != row]
        shared = np.cumprod(codes[akin] == codes[row], axis=1).sum(axis=1)
        order = np.lexsort((distances(codes[akin]), -shared))[:NEAR]
        out.append(
            Joined(
                change.item,
                change.semantic_id,
                wanted,
                after.book.item_id(wanted) if wanted != change.semantic_id else None,
                float(distances(greedy)[0]),
                float(distances(codes[row : row + 1])[0]),
                tuple((ids[akin[one]], int(shared[one])) for one in order),
            )
        )
        if progress is not None:
            progress(n + 1, len(new), "joined; looking up what is near")
    return out


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))
