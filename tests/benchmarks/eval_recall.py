"""Recall of a bundle on a file of dialogues, beside popularity and the copier, on the same cases.

    python tests/benchmarks/eval_recall.py --bundle movies --dialogues valid.jsonl --train train.jsonl --workers 2

Protocol: forced mode (the reply is opened with <REC>), one case an item of an assistant turn, consecutive messages of
one speaker merged, gold items outside the catalogue a miss. `all` counts repeats; `new` leaves out gold items that the
dialogue has named before, and excludes named items from every row's candidates. Intervals: 95 % percentile bootstrap
over dialogues, 2,000 draws, seed 0. Popularity counts mentions in --train (default: the bundle's own counts).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

KS = (1, 5, 10, 20, 50)
ROWS = ("model", "popularity", "copier")
Ranks = dict[tuple[str, str], list[int]]


def read_canonical(path: Path, catalog: Any) -> list[Any]:
    """Dialogues with the catalogue's own ids; ids outside it get a `?` in front, so that they match nothing."""
    from gcrs.toolkit.dialogue.turns import read_dialogues

    def rename(item: str) -> str:
        return str(catalog.canonical(item)) if item in catalog else f"?{item}"

    return [dialogue.map_items(rename) for dialogue in read_dialogues(path)]


def rank_part(args: argparse.Namespace, part: int) -> tuple[Ranks, dict[str, list[str]], int, str]:
    """(ranks by protocol and row, dialogue id of each case, replies, the bundle's hash) of every n-th dialogue."""
    import torch

    from gcrs.toolkit.dialogue.encode import encode_prompt
    from gcrs.toolkit.eval.baselines import copier_ranking, mention_counts, popularity_ranking
    from gcrs.toolkit.eval.cases import contexts
    from gcrs.toolkit.eval.metrics import rank_of
    from gcrs.toolkit.model.bundle import Bundle, load_engine

    torch.set_num_threads(args.threads)
    bundle = Bundle.load(args.bundle)
    catalog = bundle.catalog
    dialogues = read_canonical(args.dialogues, catalog)[: args.limit][part :: args.workers]
    counts = mention_counts(read_canonical(args.train, catalog)) if args.train else bundle.popularity
    counts = {item: n for item, n in counts.items() if item in catalog}
    engine = load_engine(bundle)
    ranks: Ranks = {(protocol, name): [] for protocol in ("all", "new") for name in ROWS}
    groups: dict[str, list[str]] = {"all": [], "new": []}
    began = time.monotonic()
    every = list(contexts(dialogues))
    for n, context in enumerate(every, 1):
        known = context.dialogue.map_items(lambda item: None if item.startswith("?") else item)
        seen = copier_ranking(known)
        named = frozenset(seen)
        prompt = [*encode_prompt(known, bundle.tokens, bundle.book), bundle.tokens.rec]
        wanted = min(len(catalog), 50 + len(seen))
        model = [scored.item_id for scored in engine.targets(prompt, k=wanted, beams=max(args.beams, wanted))]
        table: dict[str, tuple[list[str], ...]] = {
            "all": (model[:50], popularity_ranking(counts, 50), seen),
            "new": ([item for item in model if item not in named][:50], popularity_ranking(counts, 50, named), []),
        }
        for protocol, rankings in table.items():
            for gold in context.gold:
                if protocol == "new" and gold in context.repeats:
                    continue
                groups[protocol].append(context.dialogue.id)
                for name, ranking in zip(ROWS, rankings, strict=True):
                    ranks[protocol, name].append(rank_of(gold, ranking))
        if n % 100 == 0:
            spent = (time.monotonic() - began) / n
            print(f"part {part}: {n} of {len(every)} replies, {spent:.2f} s each", file=sys.stderr, flush=True)
    return ranks, groups, len(every), bundle.hash


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="movies")
    parser.add_argument("--dialogues", type=Path, required=True)
    parser.add_argument("--train", type=Path, help="dialogues that popularity is counted on")
    parser.add_argument("--limit", type=int, help="first N dialogues only")
    parser.add_argument("--beams", type=int, default=60)
    parser.add_argument("--workers", type=int, default=1, help="processes, each with --threads threads")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the table here")
    args = parser.parse_args()
    began = time.monotonic()
    if args.workers == 1:
        parts = [rank_part(args, 0)]
    else:
        with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
            parts = pool.starmap(rank_part, [(args, part) for part in range(args.workers)])

    from gcrs.toolkit.eval.metrics import recall
    from gcrs.toolkit.files import sha256_file

    replies = sum(part[2] for part in parts)
    out: dict[str, Any] = {
        "bundle": parts[0][3],
        "data": {args.dialogues.name: sha256_file(args.dialogues)},
        "mode": "forced",
        "replies": replies,
        "seconds": round(time.monotonic() - began, 1),
        "tables": [],
    }
    for protocol in ("all", "new"):
        groups = [dialogue for part in parts for dialogue in part[1][protocol]]
        print(f"\nprotocol {protocol}: n = {len(groups)} cases, {len(set(groups))} dialogues, {replies} replies")
        print("row        " + "".join(f"{f'R@{k}':>22}" for k in KS))
        for name in ROWS:
            ranks = [rank for part in parts for rank in part[0][protocol, name]]
            found = {k: recall(ranks, k, groups) for k in KS}
            cells = "".join(f"{100 * e.value:8.2f} [{100 * e.lo:5.2f}, {100 * e.hi:5.2f}]" for e in found.values())
            print(f"{name:<11}{cells}")
            row = {f"recall@{k}": {"value": e.value, "lo": e.lo, "hi": e.hi} for k, e in found.items()}
            out["tables"].append({"protocol": protocol, "name": name, "n": len(groups), **row})
    if args.json:
        args.json.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
