"""Speed and memory of the prefix tree against the targets in docs: run `python tests/benchmarks/bench_tree.py`.

Random unique IDs, the hardest shape (almost no shared prefixes below level two). Prints the best of several runs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gcrs.toolkit.ids.tree import PrefixTree
from gcrs.toolkit.ids.tree_changes import extend, remove
from gcrs.toolkit.ids.tree_file import load_tree, save_tree


def best(run: Callable[[], object], repeats: int) -> float:
    """Fewest seconds that `run` took."""
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def random_codes(n: int, levels: int, codes: int, seed: int = 0) -> np.ndarray:
    """n distinct random IDs as int32 [n, levels], in random order."""
    rng = np.random.default_rng(seed)
    keys = np.unique(rng.integers(0, codes**levels, size=int(n * 1.2) + 16))
    keys = rng.permutation(keys)[:n]
    return np.stack([keys // codes ** (levels - 1 - level) % codes for level in range(levels)], axis=1).astype(np.int32)


def measure(n: int, levels: int, codes: int, beams: int = 50) -> dict[str, float]:
    """Seconds and megabytes of each operation at n items."""
    rng = np.random.default_rng(1)
    ids = random_codes(n, levels, codes)
    counts = (codes,) * levels
    tree = PrefixTree.build(ids, counts)
    allowed = rng.random(n) < 0.3
    filtered, shorter = tree.subset(allowed), PrefixTree.build(ids[:-1], counts)
    row: dict[str, float] = {
        "build_s": best(lambda: PrefixTree.build(ids, counts), 3),
        "mb": tree.nbytes / 1e6,
        "filter_s": best(lambda: tree.subset(allowed), 5),
        "contains_1000_ms": 1e3 * best(lambda: filtered.contains(ids[:1000]), 20),
        "extend_1_s": best(lambda: extend(shorter, ids[-1:]), 3),
        "remove_1_s": best(lambda: remove(tree, np.array([0])), 3),
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "tree")
        row["save_s"] = best(lambda: save_tree(tree, file, catalog="bench"), 2)
        row["load_s"] = best(lambda: load_tree(file, catalog="bench"), 5)
    for level in range(levels):
        begin, end = tree.level_start[level : level + 2]
        states = np.sort(rng.integers(begin, end, size=beams))
        states = states[filtered.alive[states]] if filtered.alive is not None else states
        states = np.resize(states, beams)
        row[f"children_level_{level}_ms"] = 1e3 * best(lambda s=states: filtered.children_batch(s), 50)  # type: ignore[misc]
        row[f"mask_level_{level}_ms"] = 1e3 * best(lambda s=states: filtered.allowed_mask(s), 50)  # type: ignore[misc]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="*", default=[7_000, 100_000, 1_000_000])
    for n in parser.parse_args().items:
        levels, codes = 4, 64 if n < 50_000 else 256
        row = measure(n, levels, codes)
        print(f"{n:>9,} items, {levels} x {codes}, 50 beams, 30 % allowed")
        for name, value in row.items():
            print(f"    {name:<20} {value:.4f}")


if __name__ == "__main__":
    main()
