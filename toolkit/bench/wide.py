"""One wide beam behind one long prompt, in a process of its own: writes its peak memory to stdout as JSON.

python -m gcrs.toolkit.bench.wide BUNDLE K TOKENS
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main(name: str, k: int, length: int) -> int:
    """Rank the k best items behind `length` tokens."""
    from gcrs.toolkit.bench.simulated import opened
    from gcrs.toolkit.dialogue.encode import encode_prompt
    from gcrs.toolkit.model.bundle import Bundle, load_engine
    from gcrs.toolkit.model.machine import peak_memory  # not getrusage's, which a child has from its parent

    bundle = Bundle.load(name)
    engine = load_engine(bundle, dtype="fp32")
    context = opened(bundle.book, bundle.tokens, length - 1)
    prompt = [*encode_prompt(context, bundle.tokens, bundle.book), bundle.tokens.rec]
    engine.targets(prompt[:16], k=2)  # the weights are mapped: read them all before they are counted
    engine.close()
    model: Any = engine.model.model
    before, began = peak_memory(), time.perf_counter()
    ranked = engine.targets(prompt, k=k, beams=k)
    out = {
        "ranked": len(ranked),
        "seconds": time.perf_counter() - began,
        "weights": sum(part.nbytes for part in model.parameters()),
        "before": before,
        "peak": peak_memory(),
        "cache": engine.pool.nbytes,
    }
    json.dump(out, sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
