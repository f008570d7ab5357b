"""Health: what a person should know about a catalogue's semantic IDs before training on them.

Knows nothing of how vectors or codes were found; the caller passes in what only the catalogue can tell (items
without text, duplicate titles).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gcrs.toolkit.files import atomic_write
from gcrs.toolkit.ids.kmeans import CHUNK
from gcrs.toolkit.ids.quantizer import Quantizer

NEAR_IDENTICAL = 0.999  # cosine
GROUP_LIMIT = 2_000


@dataclass(frozen=True)
class Health:
    """Report on `items` semantic IDs. "Raw" is before, "final" after collision resolution.

    Lists by level hold one entry a level, coarse to fine.
    """

    quantizer: str
    """rqvae or rqkmeans."""
    items: int
    """Items in the catalogue."""
    code_counts: tuple[int, ...]
    """Codewords at each level."""
    shared_raw: tuple[int, ...]
    """By level: items whose codes up to this level are also another item's. The last entry counts full collisions."""
    shared_final: tuple[int, ...]
    """The same after resolution; the last entry is 0."""
    largest_group: int
    """Most items that shared one raw ID."""
    changed_at: tuple[int, ...]
    """By level: items whose ID resolution changed, counted at the coarsest level that changed."""
    usage: tuple[tuple[int, ...], ...]
    """By level: how many items have each code in the end."""
    codes_used: tuple[int, ...]
    """By level: codes that at least one item has in the end."""
    perplexity: tuple[float, ...]
    """By level: exp of the entropy of the codes in the end; equals the number of codes when all are equally used."""
    error_raw: float
    """Mean squared distance between vectors and their reconstruction, over the mean squared length of vectors."""
    error_final: float
    """The same for the final IDs."""
    near_identical: int
    """Items with the raw ID of another item whose vector has cosine >= 0.999 with theirs (a lower bound)."""
    seconds: float
    """Time to fit, code and resolve."""
    items_without_text: tuple[str, ...] = ()
    """Ids of items with nothing to encode but their title, as the catalogue reports them."""
    duplicate_titles: tuple[tuple[str, ...], ...] = ()
    """Groups of item ids with the same title, as the catalogue reports them."""

    @property
    def collided(self) -> int:
        """Items that shared their whole raw ID with another item."""
        return self.shared_raw[-1]

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return {**asdict(self), "collided": self.collided}

    def lines(self) -> list[str]:
        """The report for a terminal, at most 100 columns."""
        levels = len(self.code_counts)
        lines = [
            f"{self.items:,} items, {levels} level{'s' * (levels > 1)}, {self.quantizer} in {self.seconds:.1f} s",
            "level  codes used  perplexity  share a prefix: raw  final   changed here",
        ]
        for level in range(levels):
            used = f"{self.codes_used[level]}/{self.code_counts[level]}"
            lines.append(
                f"{chr(ord('a') + level):>5}  {used:>10}  {self.perplexity[level]:>10.1f}"
                f"  {self.shared_raw[level]:>19,}  {self.shared_final[level]:>5,}  {self.changed_at[level]:>13,}"
            )
        lines += [
            f"collisions: {self.collided:,} items ({_share(self.collided, self.items)}) shared an ID, at most "
            f"{self.largest_group} the same; {sum(self.changed_at):,} moved, {self.shared_final[-1]:,} left",
            f"reconstruction error: {self.error_raw:.3f} raw, {self.error_final:.3f} final (0 is perfect)",
            f"near-identical vectors: {self.near_identical:,} items",
            f"items with a title alone: {_some(self.items_without_text)}",
            f"duplicate titles: {_some([_joined(group) for group in self.duplicate_titles])}",
        ]
        return lines

    def plot(self, path: Path) -> None:
        """Write a PNG: how often each code is used, level by level, and the shared prefixes before and after."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        levels = len(self.code_counts)
        columns = min(levels + 1, 3)
        rows = -(-(levels + 1) // columns)
        figure = Figure(figsize=(4.2 * columns, 2.9 * rows + 0.5), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for level, usage in enumerate(self.usage):
            axis, ordered = axes[level], sorted(usage, reverse=True)
            axis.bar(range(len(ordered)), ordered, width=1.0, color="#4477aa")
            axis.axhline(self.items / len(ordered), color="#bb5566", linewidth=1, label="all codes equal")
            axis.set_title(
                f"level {chr(ord('a') + level)}: {self.codes_used[level]}/{len(ordered)} codes used, "
                f"perplexity {self.perplexity[level]:.0f}",
                fontsize=10,
            )
            axis.set_xlabel("code, most used first", fontsize=9)
            axis.set_ylabel("items", fontsize=9)
            axis.set_xlim(-0.5, len(ordered) - 0.5)
        axes[0].legend(fontsize=8, frameon=False)
        axis, place = axes[levels], np.arange(levels)
        for offset, values, label, colour in (
            (-0.2, self.shared_raw, "raw", "#ddaa33"),
            (0.2, self.shared_final, "final", "#4477aa"),
        ):
            bars = axis.bar(place + offset, values, width=0.4, label=label, color=colour)
            axis.bar_label(bars, labels=[f"{value:,}" for value in values], fontsize=7)
        axis.set_xticks(place, ["a" + ("-" + chr(ord("a") + level)) * (level > 0) for level in range(levels)])
        axis.set_ylim(0, max(1, self.items) * 1.15)
        axis.set_title("items that share a prefix with another", fontsize=10)
        axis.set_ylabel("items", fontsize=9)
        axis.legend(fontsize=8, frameon=False)
        for spare in axes[levels + 1 :]:
            spare.set_visible(False)
        figure.suptitle(
            f"{self.items:,} items, {self.quantizer}: {self.collided:,} collided, reconstruction error "
            f"{self.error_final:.3f}",
            fontsize=11,
        )
        with atomic_write(Path(path), "wb") as handle:
            canvas.print_png(handle)


def shared_prefixes(codes: np.ndarray) -> tuple[int, ...]:
    """By level: rows of `codes` (int [n, levels]) whose first level + 1 codes another row has too."""
    shared = []
    group = np.zeros(len(codes), dtype=np.int64)
    for column in codes.T:
        pair = group * (int(column.max(initial=0)) + 1) + column
        _, group, size = np.unique(pair, return_inverse=True, return_counts=True)
        shared.append(int((size[group] > 1).sum()))
    return tuple(shared)


def code_perplexity(usage: Sequence[int] | np.ndarray) -> float:
    """exp of the entropy of the shares in `usage`: 1 when one code has every item, K when K codes share equally."""
    counts = np.asarray(usage, dtype=np.float64)
    share = counts[counts > 0] / counts.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def reconstruction_error(
    vectors: np.ndarray, codes: np.ndarray, reconstruct: Callable[[np.ndarray], np.ndarray]
) -> float:
    """Mean squared distance between vectors [n, d] and what their codes [n, levels] stand for, over the vectors' mean
    squared length: 0 is perfect, 1 as bad as zeros."""
    distance = length = 0.0
    for begin in range(0, len(vectors), CHUNK):
        part = vectors[begin : begin + CHUNK].astype(np.float64)
        distance += float(np.square(part - reconstruct(codes[begin : begin + CHUNK])).sum())
        length += float(np.square(part).sum())
    return distance / length if length else 0.0


def near_identical(vectors: np.ndarray, raw: np.ndarray) -> int:
    """Items with cosine >= 0.999 to an item of the same raw ID; a group's first 2,000 items stand for all of it.

    Vectors that equal each other always share their raw ID; near ones across a border between codewords are missed.
    """
    _, group, size = np.unique(raw, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(group, kind="stable")
    ends = np.cumsum(size)
    found = 0
    for label in np.flatnonzero(size > 1):
        rows = order[ends[label] - size[label] : ends[label]][:GROUP_LIMIT]
        unit = vectors[rows].astype(np.float64)
        length = np.linalg.norm(unit, axis=1, keepdims=True)
        unit /= np.maximum(length, 1e-12)
        cosine = unit @ unit.T
        np.fill_diagonal(cosine, -1)
        found += int((cosine.max(axis=1) >= NEAR_IDENTICAL).sum())
    return found


def measure_health(
    quantizer: Quantizer,
    vectors: np.ndarray,
    raw: np.ndarray,
    final: np.ndarray,
    *,
    seconds: float,
    items_without_text: Sequence[str] = (),
    duplicate_titles: Sequence[Sequence[str]] = (),
) -> Health:
    """The report on vectors [n, d] and their codes before and after resolution [n, levels]."""
    code_counts = quantizer.code_counts
    usage = [np.bincount(final[:, level], minlength=count) for level, count in enumerate(code_counts)]
    differs = raw != final
    moved = differs.any(axis=1)
    coarsest = differs.argmax(axis=1)[moved]
    return Health(
        quantizer=quantizer.kind,
        items=len(vectors),
        code_counts=tuple(code_counts),
        shared_raw=shared_prefixes(raw),
        shared_final=shared_prefixes(final),
        largest_group=int(np.unique(raw, axis=0, return_counts=True)[1].max()),
        changed_at=tuple(np.bincount(coarsest, minlength=len(code_counts)).tolist()),
        usage=tuple(tuple(counts.tolist()) for counts in usage),
        codes_used=tuple(int((counts > 0).sum()) for counts in usage),
        perplexity=tuple(code_perplexity(counts) for counts in usage),
        error_raw=reconstruction_error(vectors, raw, quantizer.reconstruct),
        error_final=reconstruction_error(vectors, final, quantizer.reconstruct),
        near_identical=near_identical(vectors, raw),
        seconds=seconds,
        items_without_text=tuple(items_without_text),
        duplicate_titles=tuple(tuple(group) for group in duplicate_titles),
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"


def _joined(group: Sequence[str], most: int = 4) -> str:
    """Ids that are one title: `a=b=c`, of many the first few."""
    return "=".join(group[:most]) + (f"=… {len(group):,}" if len(group) > most else "")


def _some(names: Sequence[str], most: int = 5) -> str:
    """The count, and the first few names."""
    if not names:
        return "none"
    return f"{len(names):,} ({', '.join(names[:most])}{', …' if len(names) > most else ''})"
