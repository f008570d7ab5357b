"""Recall of items that were added after training, against a model that was trained with them.

    python tests/benchmarks/eval_added.py --tokens 60000 --work added

For each seed: a tenth of the catalogue is split off; one model is trained on the rest and the tenth is added live
(`gcrs catalog add`), another is trained on everything, with the same budget. Both then answer the same requests, made
from the facts of one item in words that training never uses, the item being the only gold. `added` are requests for
split-off items, `old` as many for items that both models were trained with. Forced mode, exhaustive candidates: all
items. Beside the models: `encoder` (the items whose text is nearest to the request by the catalogue's own encoder),
`popularity` (what the made training dialogues of the second model recommend most) and `chance`. Intervals: 95 %
percentile bootstrap over items, 2,000 draws, seed 0.

Everything lies in --work, journals included; a run that was stopped goes on where it was with the same command.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
KS = (1, 10, 50)
DEPTH = 50


def gcrs(*arguments: str | Path) -> None:
    """One command line in a process of its own; the script ends where it fails."""
    command = [sys.executable, "-c", "import sys; from gcrs.cli import main; sys.exit(main())", *map(str, arguments)]
    print("$ gcrs " + " ".join(map(str, arguments)), file=sys.stderr, flush=True)
    subprocess.run(command, check=True, stdout=sys.stderr)


def split(args: argparse.Namespace, folder: Path, seed: int) -> tuple[Any, Any, Any]:
    """The whole catalogue, what stays, what is split off; written as items files once."""
    import numpy as np

    from gcrs.toolkit.catalog.item import Catalog
    from gcrs.toolkit.catalog.readers import read_items, write_items

    whole = read_items(args.catalog)
    order = np.random.default_rng(seed).permutation(len(whole))
    gone = {whole.items[n].id for n in order[: round(args.share * len(whole))]}
    rest = Catalog([item for item in whole if item.id not in gone], whole.columns)
    held = Catalog([item for item in whole if item.id in gone], whole.columns)
    for name, part in (("all", whole), ("rest", rest), ("held", held)):
        write_items(part, folder / f"{name}.jsonl")
    return whole, rest, held


def train(args: argparse.Namespace, folder: Path, name: str, seed: int) -> Path:
    """The bundle over `name`.jsonl, built and trained where it is not there yet."""
    prepared, out = folder / name, folder / f"bundle-{name}"
    if not prepared.is_dir():
        gcrs("catalog", "build", folder / f"{name}.jsonl", "--out", prepared, "--seed", str(seed))
    if not (out / "gcrs.json").is_file():
        begun = Path(f"{out}.run")
        resume = ["--resume"] if begun.is_dir() and any(begun.iterdir()) else []
        budget = ["--set", f"tokens={args.tokens}"] if args.tokens else ["--max-minutes", f"{args.minutes:g}"]
        flags = ["--noun", args.noun, *budget, "--seed", str(seed), *resume]
        more = [part for one in args.set for part in ("--set", one)]
        gcrs("finetune", "--catalog", prepared, "--out", out, *flags, *more)
    return out


def requests(whole: Any, part: Any, count: int, noun: str, seed: int) -> list[Any]:
    """Requests for items of `part` in held-out words, their facts told as the whole catalogue tells them."""
    from gcrs.toolkit.dialogue.fact_words import FactWords
    from gcrs.toolkit.dialogue.tasks import FactsToItem, Source

    nobody: Any = None  # requests by facts look at no neighbours
    source = Source(part, FactWords(whole, noun=noun), nobody, {}, seed=seed)
    task = FactsToItem(source, count, held_out=True)
    return [task.get_example(n) for n in range(count)]


def model_rankings(bundle_dir: Path, asked: list[Any]) -> list[list[str]]:
    """The first items of a bundle for each request, live items among them."""
    import torch

    from gcrs.toolkit.dialogue.encode import encode_prompt
    from gcrs.toolkit.live import LiveCatalog
    from gcrs.toolkit.model.bundle import Bundle, load_engine

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    bundle = Bundle.load(bundle_dir)
    edition = LiveCatalog.of(bundle).edition
    engine = load_engine(bundle).over(edition.book, edition.offered)
    out, began = [], time.monotonic()
    for n, dialogue in enumerate(asked, 1):
        prompt = [*encode_prompt(dialogue[:1], bundle.tokens, edition.book), bundle.tokens.rec]
        out.append([one.item_id for one in engine.targets(prompt, k=DEPTH, beams=len(edition.book))])
        if n % 20 == 0:
            each = (time.monotonic() - began) / n
            print(f"{bundle_dir.name}: {n} of {len(asked)}, {each:.2f} s each", file=sys.stderr, flush=True)
    return out


def encoder_rankings(prepared_dir: Path, asked: list[Any]) -> list[list[str]]:
    """The items whose text is nearest to the request."""
    import numpy as np

    from gcrs.toolkit.catalog.encoders import encode_like
    from gcrs.toolkit.prepared import PreparedCatalog

    prepared = PreparedCatalog.load(prepared_dir)
    ids, record = [item.id for item in prepared.catalog], prepared.settings["encoder"]
    items = encode_like([prepared.words(item) for item in ids], record)
    texts = encode_like([dialogue.turns[0].text for dialogue in asked], record)
    return [[ids[n] for n in row[:DEPTH]] for row in np.argsort(-texts @ items.T, axis=1, kind="stable")]


def popular(prepared_dir: Path, noun: str, seed: int) -> list[str]:
    """What the dialogues that the second model was taught recommend most."""
    from gcrs.toolkit.model.training_data import LEAST_MADE, MADE_PER_ITEM, catalogue_source, made_dialogues
    from gcrs.toolkit.prepared import PreparedCatalog

    prepared = PreparedCatalog.load(prepared_dir)
    made = made_dialogues(
        catalogue_source(prepared, [], noun, seed), max(LEAST_MADE, MADE_PER_ITEM * len(prepared.catalog))
    )
    counts = Counter(item for dialogue in made for turn in dialogue.turns for item in turn.decided_targets)
    return [item for item, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:DEPTH]]


def measure(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Ranks of the gold item by requests and row, and the item of each case; kept in the seed's folder."""
    from gcrs.toolkit.eval.metrics import rank_of
    from gcrs.toolkit.live import LiveCatalog
    from gcrs.toolkit.model.bundle import Bundle

    folder = args.work / f"seed-{seed}"
    kept = folder / f"ranks-{args.requests}.json"
    if kept.is_file():
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return found
    folder.mkdir(parents=True, exist_ok=True)
    whole, rest, held = split(args, folder, seed)
    without, complete = train(args, folder, "rest", seed), train(args, folder, "all", seed)
    if not LiveCatalog.of(Bundle.load(without)).added:
        gcrs("catalog", "add", folder / "held.jsonl", "--bundle", without)
    out: dict[str, Any] = {"items": len(whole), "added": len(held), "cases": {}}
    for what, part in (("added", held), ("old", rest)):
        asked = requests(whole, part, args.requests * len(held), args.noun, seed)
        gold = [dialogue.turns[1].decided_targets[0] for dialogue in asked]
        top = popular(folder / "all", args.noun, seed)
        rows = {
            "added live": model_rankings(without, asked),
            "trained with them": model_rankings(complete, asked),
            "encoder": encoder_rankings(folder / "all", asked),
            "popularity": [top] * len(asked),
        }
        ranks = {
            name: [rank_of(item, ranking) for item, ranking in zip(gold, rankings, strict=True)]
            for name, rankings in rows.items()
        }
        out["cases"][what] = {"gold": [f"{seed}:{item}" for item in gold], "ranks": ranks}
    kept.write_text(json.dumps(out) + "\n", encoding="utf-8")
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalog", type=Path, default=ROOT / "docs" / "examples" / "board_games.csv")
    parser.add_argument("--noun", default="board game")
    parser.add_argument("--work", type=Path, required=True, help="directory of everything that is made")
    parser.add_argument("--minutes", type=float, default=60, help="training budget of each model")
    parser.add_argument("--tokens", type=int, help="the same in tokens, which shared cores do not cut short")
    parser.add_argument("--share", type=float, default=0.1, help="share of the items that is split off")
    parser.add_argument("--requests", type=int, default=10, help="requests for each split-off item")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of finetune")
    parser.add_argument("--json", type=Path, help="write the table here")
    args = parser.parse_args()
    args.work = args.work.absolute()
    os.environ["GCRS_DATA"] = str(args.work / "data")  # the journals of this run alone

    from gcrs.toolkit.eval.metrics import recall

    runs = [measure(args, seed) for seed in args.seeds]
    out: dict[str, Any] = {
        "catalog": args.catalog.name, "minutes": None if args.tokens else args.minutes, "tokens": args.tokens,
        "seeds": args.seeds, "items": runs[0]["items"], "added": runs[0]["added"], "tables": [],
    }  # fmt: skip
    for what in ("added", "old"):
        gold = [item for run in runs for item in run["cases"][what]["gold"]]
        print(f"\nrequests for {what} items: n = {len(gold)} cases, {len(set(gold))} items, {len(runs)} seeds")
        print("row                " + "".join(f"{f'R@{k}':>24}" for k in KS))
        for name in runs[0]["cases"][what]["ranks"]:
            ranks = [rank for run in runs for rank in run["cases"][what]["ranks"][name]]
            found = {k: recall(ranks, k, gold) for k in KS}
            cells = "".join(f"{100 * e.value:9.2f} [{100 * e.lo:6.2f}, {100 * e.hi:6.2f}]" for e in found.values())
            print(f"{name:<19}{cells}")
            row = {f"recall@{k}": {"value": e.value, "lo": e.lo, "hi": e.hi} for k, e in found.items()}
            out["tables"].append({"requests": what, "name": name, "n": len(gold), **row})
        print(f"{'chance':<19}" + "".join(f"{100 * k / runs[0]['items']:9.2f}{'':17}" for k in KS))
    if args.json:
        args.json.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
