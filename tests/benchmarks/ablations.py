"""Ablations at an equal budget of tokens: each variant trained from the base and scored on the same cases.

    python tests/benchmarks/ablations.py --catalog movies --dialogues train.jsonl --valid valid.jsonl \
        --tokens 100000 --limit 250 --work ablations [--only full,item-only] [--seeds 0,1] [--items films.jsonl]

Every variant is `gcrs finetune` with its settings below and the same batch, rates and seed, then `gcrs eval` under the
protocols all and new (forced mode; a reply that names no item is a miss). `gcrs eval --compare` gives the paired
difference to `full` of the same seed. Variants of the semantic IDs build a catalogue of their own from --items, the
dialogues' co-mentions in it as in `movies`. Everything lies in --work; a run that was stopped goes on with the same
command.
Prints a table in Markdown, and with several seeds each variant less `full` over all of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("intent, target, response", {}),
    "item-only": ("loss on intent and target alone", {"text_weight": 0, "mention_weight": 0}),
    "intent-response": ("no target step", {"decisions": "intent"}),
    "response-only": ("no intent, no target step", {"decisions": "none"}),
    "excerpts-first": ("full, half of the tokens on excerpts first", {"item_share": 0.5}),
    "id-rate": ("full, new rows at the adapter's rate", {"id_lr": 0.001}),
    "embeddings": ("full, every token's row trained, at the adapter's rate", {"embeddings": "all", "id_lr": 0.001}),
    "id-random": ("full, new rows start from noise", {"id_init": "random"}),
    "instance": ("full, the paper's instance a target", {"layout": "instance"}),
    "no-past": ("the same, decisions of earlier replies hidden", {"layout": "instance", "past_decisions": False}),
    "titles": ("full, titles before the person's items", {"titles": True}),
    "text-ids": ("full, IDs from the items' text alone", {}),
    "ids-3x256": ("full, three levels of 256 codes", {}),
    "ids-2x512": ("full, two levels of 512 codes", {}),
}
BUILDS: dict[str, dict[str, Any]] = {  # flags of `gcrs catalog build` of the variants that have IDs of their own
    "text-ids": {"--collaborative": 0, "--levels": 4, "--codes": 64},
    "ids-3x256": {"--levels": 3, "--codes": 256},
    "ids-2x512": {"--levels": 2, "--codes": 512},
}
COMMON = {"item_share": 0, "made": 0, "text_weight": 0.3, "batch_tokens": 1024, "warmup": 10, "lr": 0.001}
RUN = [sys.executable, "-c", "import sys; from gcrs.cli import main; sys.exit(main())"]


def gcrs(*arguments: object) -> None:
    """One command line in a process of its own; the script ends where it fails."""
    command = [str(one) for one in arguments]
    print("$ gcrs " + " ".join(command), file=sys.stderr, flush=True)
    subprocess.run([*RUN, *command], check=True, stdout=sys.stderr)


def carry_out(args: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """The evaluation's report of a variant; trained and scored where that has not been done yet."""
    out = args.work / f"{name}-{seed}"
    scored = args.work / f"{name}-{seed}.eval"
    if not (out / "gcrs.json").is_file():
        settings = COMMON | {"threads": args.threads} | VARIANTS[name][1] | {"tokens": args.tokens}
        flags = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
        data = ["--catalog", catalog_of(args, name), "--from", "none", *dialogue_flags(args)]
        begun = Path(f"{out}.run")
        resume = ["--resume"] if begun.is_dir() and any(begun.iterdir()) else []
        gcrs("finetune", *data, "--seed", seed, "--out", out, *flags, *resume)
    if not (scored / "report.json").is_file():
        against = args.work / f"full-{seed}.eval"
        compare = ["--compare", against] if name != "full" and (against / "report.json").is_file() else []
        few = ["--limit", args.limit, "--replies", 0, "--workers", args.workers]
        gcrs("eval", "--bundle", out, "--dialogues", args.valid, "--baselines", "popularity,copier", *few, *compare,
             "--report", scored)  # fmt: skip
    report: dict[str, Any] = json.loads((scored / "report.json").read_text(encoding="utf-8"))
    return report


def dialogue_flags(args: argparse.Namespace) -> list[str]:
    """The flags that name the training dialogues."""
    return [part for dialogues in args.dialogues for part in ("--dialogues", dialogues)]


def catalog_of(args: argparse.Namespace, name: str) -> Path | str:
    """The catalogue that a variant learns: the one asked for, or one built for it."""
    if name not in BUILDS:
        return str(args.catalog)
    if args.items is None:
        raise SystemExit(f"{name} needs --items: the file that the catalogue is built from.")
    out: Path = args.work / f"catalog-{name}"
    if not out.is_dir():
        flags = [part for flag, value in BUILDS[name].items() for part in (flag, value)]
        gcrs("catalog", "build", args.items, "--out", out, *dialogue_flags(args), *flags)
    return out


def percent(found: dict[str, Any]) -> str:
    """Value and interval in percent."""
    return f"{100 * found['value']:.1f} [{100 * found['lo']:.1f}, {100 * found['hi']:.1f}]"


def main() -> None:
    """Carry out what is asked and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalog", default="movies")
    parser.add_argument("--dialogues", action="append", required=True)
    parser.add_argument("--valid", required=True)
    parser.add_argument("--items")
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--limit", type=int, default=250)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default=",".join(VARIANTS))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    print("| variant | seed | all: R@1 | R@10 | new: R@1 | R@10 | bits per byte | to full: R@10 all |\n|" + "---|" * 8)
    for seed in map(int, args.seeds.split(",")):
        for name in args.only.split(","):
            report = carry_out(args, name, seed)
            cells = []
            for protocol in ("all", "new"):
                row = report["protocols"][protocol]["forced"][0]
                cells += [percent(row["recall@1"]), percent(row["recall@10"])]
            cells.append(f"{report['likelihood']['words']['bits_per_byte']:.3f}")
            compared = report["compare"]["protocols"]["all"] if "compare" in report else []
            ours = [percent(row["recall@10"]["difference"]) for row in compared if row["name"] == "model"]
            cells.append("".join(ours))
            print(f"| {VARIANTS[name][0]} (`{name}`) | {seed} | " + " | ".join(cells) + " |", flush=True)
    if "," in args.seeds:
        across(args)


def across(args: argparse.Namespace) -> None:
    """Each variant less `full`, over all seeds."""
    from gcrs.toolkit.eval.training_seeds import compare_seeds

    seeds = args.seeds.split(",")
    shown = [(protocol, metric) for protocol in ("all", "new") for metric in ("recall@1", "recall@10", "recall@50")]
    heads = " | ".join(f"{protocol}: R@{metric.partition('@')[2]}" for protocol, metric in shown)
    print(f"\n| less `full`, seeds {args.seeds} | {heads} |\n|" + "---|" * (1 + len(shown)))
    for name in args.only.split(","):
        if name == "full":
            continue
        runs, others = ([args.work / f"{one}-{seed}.eval" for seed in seeds] for one in (name, "full"))
        found = compare_seeds(runs, others)
        cells = []
        for protocol, metric in shown:
            gap = found[protocol][metric]
            each = ", ".join(f"{100 * one:+.1f}" for one in gap.by_seed)
            cells.append(f"{100 * gap.value:+.1f} [{100 * gap.lo:+.1f}, {100 * gap.hi:+.1f}] ({each})")
        print(f"| `{name}` | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
