"""Replies of a bundle: are they there, do they differ, and does a plain request get a recommendation?

    python tests/benchmarks/eval_replies.py --bundle movies --dialogues valid.jsonl

100 contexts drawn with seed 0 from the replies of --dialogues (the turns before each), intent free, reply seed = the
context's number; a reply repeats another when their shown texts are equal, case and spaces aside. Then the requests of
tests/data/requests.txt, each as the first message of a chat, intent free. Prints every number with its n.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

REQUESTS = Path(__file__).resolve().parent.parent / "data" / "requests.txt"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="movies")
    parser.add_argument("--dialogues", type=Path, help="left out: the requests alone")
    parser.add_argument("--contexts", type=int, default=100)
    parser.add_argument("--show", action="store_true", help="print every reply")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    import numpy as np

    from gcrs.programs.loading import load_talker
    from gcrs.programs.one_reply import Request, reply_to_dialogue, reply_to_text
    from gcrs.programs.render import shown_text
    from gcrs.toolkit.dialogue.turns import read_dialogues

    talker = load_talker(args.bundle)
    catalog, out = talker.bundle.catalog, {}
    if args.dialogues:
        spots = [
            (dialogue, n)
            for dialogue in read_dialogues(args.dialogues)
            for n, turn in enumerate(dialogue.turns)
            if turn.role == "assistant" and n > 0
        ]
        chosen = sorted(np.random.default_rng(0).choice(len(spots), size=min(args.contexts, len(spots)), replace=False))
        texts, recommends, leaks = [], 0, 0
        for number, spot in enumerate(chosen):
            dialogue, n = spots[int(spot)]
            request = Request(k=1, intent="free", seed=number)
            reply, _ = reply_to_dialogue(talker.recommender, talker.linker, dialogue[:n], request)
            texts.append(shown_text(reply.text, catalog))
            recommends += reply.intent.intent == "recommend"
            leaks += reply.leaks
            if args.show:
                print(f"[{dialogue.id}:{n}] {texts[-1]}", file=sys.stderr, flush=True)
        counts = Counter(" ".join(text.casefold().split()) for text in texts)
        repeats = sum(count - 1 for count in counts.values())
        out["replies"] = {
            "n": len(texts),
            "non_empty": sum(bool(text.strip()) for text in texts),
            "repeat_another": repeats,
            "recommend": recommends,
            "titles_withheld": leaks,
            "mean_words": round(sum(len(text.split()) for text in texts) / max(1, len(texts)), 1),
        }
        print(f"replies to {len(texts)} contexts: {out['replies']}")
    lines = [line for line in REQUESTS.read_text(encoding="utf-8").splitlines() if line.strip()]
    hits, probabilities = 0, []
    for number, line in enumerate(lines):
        request = Request(k=1, intent="free", seed=number)
        reply = reply_to_text(talker.recommender, talker.linker, talker.bundle.hash, line, request)
        hits += reply.intent.intent == "recommend" and len(reply.targets) > 0
        probabilities.append(round(reply.intent.probabilities["recommend"], 2))
        if args.show:
            shown = shown_text(reply.text, catalog)
            print(f"{probabilities[-1]:.2f} {line} -> {shown}", file=sys.stderr, flush=True)
    out["requests"] = {"n": len(lines), "recommended": hits, "lowest_probability": min(probabilities)}
    print(f"plain requests answered with a recommendation: {hits} of {len(lines)}")
    if args.json:
        args.json.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
