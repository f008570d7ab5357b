"""Plain requests: does a bundle answer them with a recommendation?

    python tests/benchmarks/eval_requests.py --bundle movies

The requests of tests/data/requests.txt, each as the first message of a chat, intent free, reply seed = the line's
number. They have no gold reply, so `gcrs eval` cannot score them. Prints every number with its n.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

REQUESTS = Path(__file__).resolve().parent.parent / "data" / "requests.txt"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="movies")
    parser.add_argument("--show", action="store_true", help="print every reply")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    from gcrs.programs.loading import load_talker
    from gcrs.programs.one_reply import Request, reply_to_text
    from gcrs.programs.render import shown_text

    talker = load_talker(args.bundle)
    lines = [line for line in REQUESTS.read_text(encoding="utf-8").splitlines() if line.strip()]
    hits, probabilities = 0, []
    for number, line in enumerate(lines):
        request = Request(k=1, intent="free", seed=number)
        reply = reply_to_text(talker.recommender, talker.linker, talker.bundle.hash, line, request)
        hits += reply.intent.intent == "recommend" and len(reply.targets) > 0
        probabilities.append(round(reply.intent.probabilities["recommend"], 2))
        if args.show:
            shown = shown_text(reply.text, talker.bundle.catalog)
            print(f"{probabilities[-1]:.2f} {line} -> {shown}", file=sys.stderr, flush=True)
    print(f"plain requests answered with a recommendation: {hits} of {len(lines)}")
    if args.json:
        out = {"requests": {"n": len(lines), "recommended": hits, "lowest_probability": min(probabilities)}}
        args.json.write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
