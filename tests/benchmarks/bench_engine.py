"""Top-k recommendation against transformers' beam search: run `python tests/benchmarks/bench_engine.py`.

The real base model in float32 with random rows for the new tokens, 6,600 items with skewed codes (as trained ones
are), one random prompt. The baseline is `generate(num_beams=K)` with the same processor, its own generation config,
length penalty 0. Ratios are from one machine and few runs: say what else it was doing when you quote them.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from typing import Any

import numpy as np
import torch

from gcrs.toolkit.ids.codebook import Codebook
from gcrs.toolkit.model.base import find_base, load_model
from gcrs.toolkit.model.engine import Engine, Sampling
from gcrs.toolkit.model.grammar import TargetGrammar
from gcrs.toolkit.model.processor import MaskProcessor
from gcrs.toolkit.model.tokens import TokenSpace

ITEMS, CODES = 6600, (256, 256, 256, 256)


def skewed_book(seed: int = 0) -> Codebook:
    """Distinct IDs whose first codes are uneven: about what a trained quantizer gives."""
    rng = np.random.default_rng(seed)
    share = 1 / (np.arange(256) + 10)
    rows = np.unique(rng.choice(256, size=(ITEMS * 2, 4), p=share / share.sum()), axis=0)
    picked = rng.permutation(rows)[:ITEMS]
    return Codebook(CODES, {f"m{n}": tuple(row) for n, row in enumerate(picked.tolist())})


def build(dtype: torch.dtype) -> Engine:
    """The base model with random new rows, of the size of its own."""
    base, book = find_base(), skewed_book()
    tokens = TokenSpace(base.tokenizer_json, base.rows, CODES)
    model: Any = load_model(base, dtype, rows=tokens.size)
    with torch.no_grad():
        rows = model.get_input_embeddings().weight
        spread = float(rows[: base.rows].float().std())
        rows[base.rows :] = torch.randn(rows[base.rows :].shape, generator=torch.Generator().manual_seed(0)) * spread
    return Engine(model, tokens, book)


def prompt_of(engine: Engine, length: int) -> list[int]:
    """Random words, then an opened reply that recommends."""
    rng, tokens = np.random.default_rng(1), engine.tokens
    tail = [*tokens.close, *tokens.header("assistant"), tokens.rec]
    return [*tokens.header("user"), *rng.integers(100, 40_000, length - len(tail) - 3).tolist(), *tail]


def top(engine: Engine, prompt: list[int], k: int, repeats: int) -> tuple[float, list[str]]:
    """Fewest seconds from an empty cache to the k best items, and the items."""
    seconds = []
    for _ in range(repeats):
        engine.close()
        begin = time.perf_counter()
        found = engine.targets(prompt, k=k, beams=k)
        seconds.append(time.perf_counter() - begin)
    return min(seconds), [one.item_id for one in found]


def baseline(engine: Engine, prompt: list[int], k: int) -> tuple[float, list[str]]:
    """The same by transformers."""
    begin = time.perf_counter()
    model: Any = engine.model.model
    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),  # else it hides every id equal to the pad token
        logits_processor=[MaskProcessor(TargetGrammar(engine.tokens, engine.tree), start=len(prompt))],
        num_beams=k,
        num_return_sequences=k,
        do_sample=False,
        length_penalty=0.0,
        max_new_tokens=engine.tree.levels + 2,
        eos_token_id=None,
        pad_token_id=engine.tokens.end,
    )
    seconds = time.perf_counter() - begin
    spans = [row[len(prompt) + 1 : -1] for row in out.tolist()]
    return seconds, [engine.book.item_id(engine.tokens.sid_of(span)) for span in spans]


def main(argv: list[str]) -> int:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompt", type=int, default=300, help="ids of the prompt")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--baseline", type=int, nargs="*", default=[50], help="beams to run transformers with")
    parser.add_argument("--memory", action="store_true", help="also k = 1,000 on 768 ids")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    engine = build(torch.float32)
    prompt = prompt_of(engine, options.prompt)
    engine.targets(prompt[:20], k=2)  # warm
    out: dict[str, Any] = {
        "prompt": len(prompt),
        "items": len(engine.book),
        "threads": options.threads,
        "dtype": "float32",
    }
    for k in sorted({10, 50, *options.baseline}):
        ours, items = top(engine, prompt, k, options.repeats)
        branched = engine.stats.targets.branched
        engine.targets(prompt, k=k, beams=k)
        row: dict[str, Any] = {"seconds": round(ours, 3), "nodes": engine.stats.targets.branched - branched}
        if k in options.baseline:
            theirs, expected = baseline(engine, prompt, k)
            row |= {"generate_seconds": round(theirs, 3), "ratio": round(ours / theirs, 4), "same": items == expected}
        out[f"top_{k}"] = row
    engine.close()
    turn = engine.stats.targets.forwarded, engine.stats.respond.forwarded
    engine.intent(prompt[:-1])
    best = engine.targets(prompt, k=1, beams=1)[0]
    reply = [*prompt, *engine.tokens.span(best.semantic_id), engine.tokens.resp]
    begin = time.perf_counter()
    pieces = list(engine.respond(reply, licensed=[best.item_id], sampling=Sampling(seed=0, max_tokens=30)))
    count = sum(len(piece.token_ids) for piece in pieces)
    out["reply"] = {"tokens": count, "seconds": round(time.perf_counter() - begin, 3)}
    forwarded = engine.stats.targets.forwarded - turn[0], engine.stats.respond.forwarded - turn[1]
    out["turn"] = {"prompt": len(reply), "forwarded": len(prompt) - 1 + sum(forwarded), "reply": count}
    if options.memory:
        long = prompt_of(engine, 768)
        seconds, _ = top(engine, long, 1000, 1)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        out["k_1000"] = {"prompt": 768, "seconds": round(seconds, 2), "peak_process_gb": round(peak, 2)}
    print(json.dumps(out, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
