"""Recall of a bundle on a file of dialogues, beside popularity and the copier, on the same cases.

    python tests/benchmarks/eval_recall.py --bundle movies --dialogues valid.jsonl --train train.jsonl

Protocol: forced mode (the reply is opened with <REC>), one case an item of an assistant turn, consecutive messages of
one speaker merged, gold items outside the catalogue a miss. `all` counts repeats; `new` leaves out gold items that the
dialogue has named before, and excludes named items from every row's candidates. Intervals: 95 % percentile bootstrap
over dialogues, 2,000 draws, seed 0. Popularity counts mentions in --train (default: the bundle's own counts).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

KS = (1, 5, 10, 20, 50)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="movies")
    parser.add_argument("--dialogues", type=Path, required=True)
    parser.add_argument("--train", type=Path, help="dialogues that popularity is counted on")
    parser.add_argument("--limit", type=int, help="first N dialogues only")
    parser.add_argument("--beams", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the table here")
    args = parser.parse_args()

    import torch

    from gcrs.toolkit.dialogue.encode import encode_prompt
    from gcrs.toolkit.dialogue.turns import read_dialogues
    from gcrs.toolkit.eval.baselines import copier_ranking, mention_counts, popularity_ranking
    from gcrs.toolkit.eval.cases import contexts
    from gcrs.toolkit.eval.metrics import rank_of, recall
    from gcrs.toolkit.files import sha256_file
    from gcrs.toolkit.model.bundle import Bundle, load_engine

    torch.set_num_threads(args.threads)
    bundle = Bundle.load(args.bundle)
    catalog = bundle.catalog

    def canonical(path: Path) -> list:  # type: ignore[type-arg]
        def rename(item: str) -> str:
            return catalog.canonical(item) if item in catalog else f"?{item}"

        return [dialogue.map_items(rename) for dialogue in read_dialogues(path)]

    dialogues = canonical(args.dialogues)[: args.limit]
    counts = mention_counts(canonical(args.train)) if args.train else bundle.popularity
    counts = {item: n for item, n in counts.items() if item in catalog}
    engine = load_engine(bundle)
    ranks: dict[tuple[str, str], list[int]] = {
        (p, r): [] for p in ("all", "new") for r in ("model", "popularity", "copier")
    }
    groups: dict[str, list[str]] = {"all": [], "new": []}
    began, prompts = time.monotonic(), 0
    every = list(contexts(dialogues))
    for n, context in enumerate(every):
        known = context.dialogue.map_items(lambda item: None if item.startswith("?") else item)
        seen = copier_ranking(known)
        prompt = [*encode_prompt(known, bundle.tokens, bundle.book), bundle.tokens.rec]
        wanted = min(len(catalog), 50 + len(seen))
        model = [scored.item_id for scored in engine.targets(prompt, k=wanted, beams=max(args.beams, wanted))]
        prompts += 1
        named = frozenset(seen)
        table = {
            "all": {"model": model[:50], "popularity": popularity_ranking(counts, 50), "copier": seen},
            "new": {
                "model": [item for item in model if item not in named][:50],
                "popularity": popularity_ranking(counts, 50, named),
                "copier": [],
            },
        }
        for protocol, rows in table.items():
            for gold in context.gold:
                if protocol == "new" and gold in context.repeats:
                    continue
                groups[protocol].append(context.dialogue.id)
                for name, ranking in rows.items():
                    ranks[protocol, name].append(rank_of(gold, ranking))
        if n % 100 == 99:
            spent = time.monotonic() - began
            print(f"{n + 1}/{len(every)} replies, {spent / (n + 1):.2f} s each", file=sys.stderr, flush=True)
    out = {
        "bundle": bundle.hash,
        "data": {args.dialogues.name: sha256_file(args.dialogues)},
        "mode": "forced",
        "dialogues": len(dialogues),
        "replies": prompts,
        "seconds": round(time.monotonic() - began, 1),
        "tables": [],
    }
    for protocol in ("all", "new"):
        cases = len(groups[protocol])
        print(f"\nprotocol {protocol}: n = {cases} cases in {len(dialogues)} dialogues")
        print("row        " + "".join(f"{f'R@{k}':>22}" for k in KS))
        for name in ("model", "popularity", "copier"):
            found = {k: recall(ranks[protocol, name], k, groups[protocol]) for k in KS}
            cells = "".join(f"{100 * e.value:8.2f} [{100 * e.lo:5.2f}, {100 * e.hi:5.2f}]" for e in found.values())
            print(f"{name:<11}{cells}")
            row = {f"recall@{k}": {"value": e.value, "lo": e.lo, "hi": e.hi} for k, e in found.items()}
            out["tables"].append({"protocol": protocol, "name": name, "n": cases, **row})  # type: ignore[attr-defined]
    if args.json:
        args.json.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
