"""Rules and batches against their targets: run `python tests/benchmarks/bench_rules.py [--bundle movies]`.

CPU seconds of one process (the machine may be busy): reading an allow-list of a million ids, a filter of several rules
over 7,000 and 1,000,000 items, and a batch of prompts of different lengths read one after the other (what
`Engine.targets_batch` does) and as one padded forward.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gcrs.toolkit.catalog.allow_list import read_allow_list
from gcrs.toolkit.catalog.filters import Columns, parse_where
from gcrs.toolkit.catalog.item import Catalog, Fact, Item
from gcrs.toolkit.ids.tree import PrefixTree

RULES = "year>=1990 and not (genres=g1 or genres=g2) or title contains 'm 7'"


def cpu(run: Callable[[], Any], repeats: int = 3) -> float:
    """Fewest CPU seconds that `run` took."""
    took = []
    for _ in range(repeats):
        begin = time.process_time()
        run()
        took.append(time.process_time() - begin)
    return min(took)


def items(n: int) -> Catalog:
    """n items with a year, two genres and a title."""

    def facts(row: int) -> dict[str, Fact]:
        return {"year": 1950 + row % 70, "genres": [f"g{row % 9}", f"g{row % 11}"]}

    return Catalog(
        [Item(str(row), f"Film {row}", facts(row)) for row in range(n)], {"year": "integer", "genres": "list"}
    )


def rules(n: int) -> None:
    """A filter from rules, exclusions and an allow-list to the filtered tree."""
    columns, rule = Columns(items(n)), parse_where(RULES)
    codes = np.stack([np.arange(n) // 65536, np.arange(n) // 256 % 256, np.arange(n) % 256], axis=1)
    tree = PrefixTree.build(codes, (256, 256, 256))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "stock.json")
        file.write_text(json.dumps([str(row) for row in range(0, n, 1)]), encoding="utf-8")
        first = cpu(lambda: columns.allowed([rule]), 1)
        print(f"{n:>9,} items: columns at first use {first:.3f} s")
        print(f"          rules to filtered tree {cpu(lambda: tree.subset(columns.allowed([rule], ['5']))):.4f} s")
        print(f"          allow-list of {n:,} ids read {cpu(lambda: read_allow_list(file)):.3f} s, ", end="")
        ids = read_allow_list(file).ids
        print(f"as a filter {cpu(lambda: columns.allowed(allow=ids)):.3f} s")


def batches(bundle: str) -> None:
    """Eight prompts of 60 to 400 ids, read one by one and as one padded batch."""
    import torch

    from gcrs.toolkit.model.bundle import Bundle, load_engine
    from gcrs.toolkit.model.cache import PrefixCache

    engine = load_engine(Bundle.load(bundle))
    rng = np.random.default_rng(0)
    lengths = rng.integers(60, 400, size=8).tolist()
    prompts = [rng.integers(10, 40_000, size=length).tolist() for length in lengths]
    model: Any = engine.model.model
    padded = torch.zeros(8, max(lengths), dtype=torch.long)
    mask = torch.zeros_like(padded)
    for row, prompt in enumerate(prompts):
        padded[row, -len(prompt) :], mask[row, -len(prompt) :] = torch.tensor(prompt), 1

    def one_by_one() -> None:
        for prompt in prompts:
            PrefixCache(model).extend(prompt)  # a cache kept between runs would hold them all

    def together() -> None:
        with torch.inference_mode():
            model.get_decoder()(input_ids=padded, attention_mask=mask, use_cache=True)

    print(f"8 prompts of {min(lengths)} to {max(lengths)} ids: one by one {cpu(one_by_one):.2f} s, ", end="")
    print(f"one padded forward {cpu(together):.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="*", default=[7_000, 1_000_000])
    parser.add_argument("--bundle")
    asked = parser.parse_args()
    for n in asked.items:
        rules(n)
    if asked.bundle:
        batches(asked.bundle)


if __name__ == "__main__":
    main()
