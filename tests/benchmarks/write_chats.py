"""Unedited chats of a bundle as Markdown: scripts drawn by seed, replies as they came.

python tests/benchmarks/write_chats.py --bundle movies > chats.md
python tests/benchmarks/write_chats.py --bundle games-bundle --scripts tests/data/board_games_chats.json --chats 5
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent / "data" / "chats.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="movies")
    parser.add_argument("--scripts", type=Path, default=SCRIPTS, help="lists of the person's messages, as JSON")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chats", type=int, default=10)
    args = parser.parse_args()

    import numpy as np

    from gcrs.programs.loading import load_talker
    from gcrs.programs.render import shown_text
    from gcrs.programs.session import ChatSession

    talker = load_talker(args.bundle)
    catalog = talker.bundle.catalog
    scripts = json.loads(args.scripts.read_text(encoding="utf-8"))
    chosen = np.random.default_rng(args.seed).choice(len(scripts), size=args.chats, replace=False)
    for number, script in enumerate(chosen, 1):
        session = ChatSession(
            talker.recommender, talker.linker, bundle_hash=talker.bundle.hash, seed=args.seed + int(script)
        )
        print(f"\n### Chat {number} (script {int(script)}, seed {args.seed + int(script)})\n")
        for message in scripts[int(script)]:
            said = session.say(message)
            assert said is not None
            links = ", ".join(f"“{words}” = {catalog[item].label}" for words, item in said.links)
            intent = said.reply.intent
            chosen_items = ", ".join(catalog[one.item_id].label for one in said.reply.targets)
            share = intent.probabilities["recommend"]
            print(f"**You:** {message}  ")
            shown = " ".join(shown_text(said.reply.text, catalog).split())
            print(f"**gcrs:** {shown}  ")
            print(f"*{intent.intent}, P(recommend) {share:.2f}" + (f"; item: {chosen_items}" if chosen_items else "")
                  + (f"; linked: {links}" if links else "") + "*\n")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
