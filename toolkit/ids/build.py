"""From item vectors to a codebook: fit, code, resolve collisions, report; and the files that keep the result.

Knows nothing of text, encoders or tokens: vectors and item ids in, semantic IDs out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gcrs.toolkit.errors import DataError, UsageError
from gcrs.toolkit.files import atomic_write, read_json
from gcrs.toolkit.ids.codebook import Codebook, SemanticId
from gcrs.toolkit.ids.collisions import FreeIds, resolve_collisions
from gcrs.toolkit.ids.health import Health, measure_health
from gcrs.toolkit.ids.quantizer import (
    Kind,
    Progress,
    Quantizer,
    QuantizerConfig,
    check_vectors,
    fit_quantizer,
    residual_codes,
)

ITEMS_FOR_LEVELS = (16, 100, 1_000)  # up to so many items one, two, three levels are enough; four beyond
SLACK = (2, 10, 100, 1_000)  # IDs wanted for each item, by number of levels


def default_shape(n_items: int) -> tuple[int, int]:
    """(levels, codes) for a catalogue of so many items.

    Levels grow with the catalogue: each costs a decoding step, and pays only when the level before has clusters to
    split. Codes are the smallest power of two, 8 to 256, that gives 2, 10, 100 or 1,000 IDs an item at one to four
    levels: room for greedy codes to differ and for new items. From about 1,050 to 16,700 items that is the paper's
    4 x 64, at a million 4 x 256; beyond four million a fifth level joins. Raises DataError without items.
    """
    if n_items < 1:
        raise DataError("The catalogue has no items.")
    levels = 1 + sum(n_items > limit for limit in ITEMS_FOR_LEVELS)
    wanted = n_items * SLACK[levels - 1]
    codes = 8
    while codes**levels < wanted and codes < 256:
        codes *= 2
    while codes**levels < wanted:
        levels += 1
    return levels, codes


def build_codebook(
    vectors: np.ndarray,
    item_ids: Sequence[str],
    *,
    quantizer: Kind = "rqkmeans",
    levels: int | None = None,
    codes: int | None = None,
    seed: int = 0,
    config: QuantizerConfig | None = None,
    items_without_text: Sequence[str] = (),
    duplicate_titles: Sequence[Sequence[str]] = (),
    progress: Progress | None = None,
) -> tuple[Quantizer, Codebook, Health]:
    """Fit a quantizer on item vectors (float [n, d], row i is `item_ids[i]`) and give every item an ID of its own.

    `levels` and `codes` default to `default_shape(n)`; `config` holds the finer settings. The same input, seed and
    thread count give the same IDs. Raises DataError for bad vectors or repeated ids, UsageError for settings out of
    range or with fewer IDs than items.
    """
    vectors = check_vectors(vectors)
    if len(item_ids) != len(vectors):
        raise DataError(f"There are {len(vectors):,} vectors for {len(item_ids):,} items.")
    if len(set(item_ids)) != len(item_ids):
        raise DataError("An item id appears twice.", hint="Make ids unique.")
    shape = default_shape(len(vectors))
    levels, codes = shape[0] if levels is None else levels, shape[1] if codes is None else codes
    config = replace(config or QuantizerConfig(), levels=levels, codes=codes)
    if config.codes**config.levels < len(vectors):
        raise UsageError(
            f"{config.levels} levels of {config.codes} codes make {config.codes**config.levels:,} semantic IDs for "
            f"{len(vectors):,} items.",
            hint="Use more levels or codes.",
        )
    begin = time.perf_counter()
    fitted = fit_quantizer(quantizer, vectors, config, seed=seed, progress=progress)
    latent = fitted.latent(vectors)
    raw = residual_codes(latent, fitted.codebooks)
    final = resolve_collisions(raw, latent, fitted.codebooks, progress=progress)
    seconds = time.perf_counter() - begin
    book = Codebook(fitted.code_counts, dict(zip(item_ids, map(tuple, final.tolist()), strict=True)))
    health = measure_health(
        fitted,
        vectors,
        raw,
        final,
        seconds=seconds,
        items_without_text=items_without_text,
        duplicate_titles=duplicate_titles,
    )
    return fitted, book, health


def assign(quantizer: Quantizer, vector: np.ndarray, used_ids: Iterable[SemanticId]) -> SemanticId:
    """The ID of a NEW item under a frozen quantizer: its greedy codes, or the nearest free ID as collisions find it.

    `vector` is float [d]; `used_ids` are all IDs that may not be given again, retired items' included. Raises
    DataError when no ID is free or the vector does not fit.
    """
    return assign_many(quantizer, np.asarray(vector)[None], used_ids)[0]


def assign_many(quantizer: Quantizer, vectors: np.ndarray, used_ids: Iterable[SemanticId]) -> list[SemanticId]:
    """`assign` for several new items (float [m, d]), one after the other, each ID then counting as used."""
    levels = len(quantizer.code_counts)
    used = np.array(list(used_ids), dtype=np.int64)
    free = FreeIds(used.reshape(len(used), -1) if len(used) else np.zeros((0, levels), int), quantizer.codebooks)
    assigned = []
    for point in quantizer.latent(vectors):
        semantic_id = free.nearest_free(point)
        free.take(semantic_id)
        assigned.append(semantic_id)
    return assigned


def save_codebook(book: Codebook, path: Path) -> None:
    """Write semantic_ids.json: `{"levels": L, "codes": [K, …], "ids": {item id: [code, …]}}`, an item a line."""
    rows = ",\n".join(f"  {json.dumps(item_id)}: {json.dumps(list(sid))}" for item_id, sid in book.ids.items())
    with atomic_write(Path(path)) as handle:
        handle.write(f'{{"levels": {book.levels}, "codes": {json.dumps(list(book.codes))}, "ids": {{\n{rows}\n}}}}\n')


def load_codebook(path: Path, quantizer: Quantizer | None = None, item_ids: Iterable[str] | None = None) -> Codebook:
    """Read semantic_ids.json; DataError when it is truncated or malformed.

    With `quantizer` or `item_ids`, DataError also when the file belongs to another quantizer or another catalogue.
    """
    path = Path(path)
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("ids"), dict):
        raise DataError(f'{path} has no semantic IDs, expected {{"levels": …, "codes": […], "ids": {{…}}}}.')
    levels, codes, ids = content.get("levels"), content.get("codes"), content["ids"]
    if not _whole_numbers(codes) or not codes or levels != len(codes):
        raise DataError(f"{path} says {levels!r} levels and codes {codes!r}, expected one number of codes a level.")
    for item_id, sid in ids.items():
        if not _whole_numbers(sid):
            raise DataError(f"{path} gives item {item_id!r} the semantic ID {sid!r}, expected a list of whole numbers.")
    book = Codebook(tuple(codes), {item_id: tuple(sid) for item_id, sid in ids.items()})
    if quantizer is not None and book.codes != tuple(quantizer.code_counts):
        raise DataError(
            f"{path} has codes {book.codes}, the quantizer beside it {tuple(quantizer.code_counts)}: they are from two "
            "bundles.",
            hint="Copy or build the bundle again.",
        )
    if item_ids is not None and (odd := set(item_ids) ^ set(ids)):
        raise DataError(
            f"{path} and the catalogue differ in {len(odd):,} items, {min(odd)!r} for one.",
            hint="Copy or build the bundle again.",
        )
    return book


def _whole_numbers(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(code, int) and not isinstance(code, bool) for code in value)
