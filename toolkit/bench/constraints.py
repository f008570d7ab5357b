"""The same constraint by other means: Outlines' regular expression over all IDs, and llguidance.

The baseline of each is the time until its first mask; ours is the ID tree, built and asked for as many masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from gcrs.toolkit.bench.measure import Row, Sample, sample, seconds
from gcrs.toolkit.bench.simulated import codes_of
from gcrs.toolkit.ids.tree import PrefixTree

if TYPE_CHECKING:
    from gcrs.toolkit.bench.workbench import Workbench
    from gcrs.toolkit.model.tokens import TokenSpace

LEVELS, CODES = 4, 256


def _space(bench: Workbench) -> TokenSpace:
    """The bundle's words with 4 x 256 codes, whatever codes the bundle has."""
    from gcrs.toolkit.model.tokens import TokenSpace

    return TokenSpace(bench.bundle.tokens.base_json, bench.bundle.tokens.base_rows, (CODES,) * LEVELS)


def _pattern(ids: np.ndarray) -> str:
    """All IDs as one flat alternation, which compiles faster than a nested one."""
    letters = "abcdefghijkl"
    return "|".join("".join(f"<{letters[at]}_{code}>" for at, code in enumerate(row)) for row in ids.tolist())


def _ours(ids: np.ndarray, repeats: int) -> Sample:
    """The tree built, and a mask after each prefix of the first ID."""

    def run() -> None:
        tree = PrefixTree.build(ids, (CODES,) * LEVELS)
        for depth in range(LEVELS):
            tree.allowed_mask(tree.walk_batch(ids[:1, :depth]))

    return sample(run, repeats)


def outlines(bench: Workbench) -> list[Row]:
    """Outlines' index of the regular expression, over the whole vocabulary and over the ID tokens alone."""
    from outlines_core import Index, Vocabulary

    space = _space(bench)
    new = {token: [space.base_rows + at] for at, token in enumerate(space.new_tokens)}
    everything: dict[str, list[int]] = {}
    words = space.text_tokenizer.decode_batch([[at] for at in range(space.base_rows)], skip_special_tokens=False)
    for at, word in enumerate(words):
        if word and at != space.end:
            everything.setdefault(word, []).append(at)
    vocabularies = {"outlines-words": everything | new, "outlines-ids": new}
    sizes: dict[str, tuple[int, ...]] = bench.pick({"outlines-words": (1_000,), "outlines-ids": (1_000, 6_000, 20_000)},
                       {"outlines-words": (50,), "outlines-ids": (1_000,)})  # fmt: skip
    rows = []
    for name, known in vocabularies.items():
        vocabulary = Vocabulary(space.end, {token: at for token, at in known.items() if space.end not in at})
        took = {}
        for n in sizes[name]:
            ids = codes_of(n, LEVELS, CODES)
            took[n] = Sample.of([seconds(partial(Index, _pattern(ids), vocabulary))])
        largest = sizes[name][-1]
        ours = _ours(codes_of(largest, LEVELS, CODES), bench.pick(5, 2))
        details: dict[str, Any] = {f"{n:,} items": one.median for n, one in took.items()}
        kind = "the whole vocabulary" if name == "outlines-words" else "the ID tokens alone"
        ratio = Sample.of([ours.median / took[largest].median])
        rows.append(
            Row(
                name,
                f"ID tree of {largest:,} items ready to mask",
                "ratio",
                ratio,
                ours=ours,
                theirs=took[largest],
                baseline=f"Outlines' regular expression over {kind}",
                details=details,
            )
        )
    return rows


def llguidance(bench: Workbench) -> list[Row]:
    """llguidance's matcher of the same expression, asked for the masks along one ID; it compiles as it goes."""
    n = bench.pick(6_000, 200)
    what = f"ID tree of {n:,} items ready to mask"
    if find_spec("llguidance") is None:
        return [Row("llguidance", what, "ratio", skipped="llguidance is not installed: pip install llguidance")]
    from llguidance import LLMatcher, LLTokenizer
    from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

    space, ids = _space(bench), codes_of(n, LEVELS, CODES)
    tokenizer = LLTokenizer(_marked(space), eos_token=space.end)
    path = [space.level_range(level).start + int(code) for level, code in enumerate(ids[0])]
    bitmask = allocate_token_bitmask(1, tokenizer.vocab_size)

    def masks(path: Sequence[int] = path) -> None:
        matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(_lark(ids, space)))
        for token in path:
            fill_next_token_bitmask(matcher, bitmask, 0)
            matcher.consume_token(token)
        if matcher.is_error() or (len(path) == LEVELS and not matcher.is_accepting()):
            raise RuntimeError(f"llguidance refused the path of an ID: {matcher.get_error()}")

    masks(path[:1])
    first = np.flatnonzero(np.unpackbits(bitmask.view(np.uint8), bitorder="little")) - space.level_range(0).start
    same = first.tolist() == np.unique(ids[:, 0]).tolist()
    ours, theirs = _ours(ids, bench.pick(5, 2)), sample(masks, bench.pick(3, 1), warm=0)
    ratio = Sample.of([ours.median / theirs.median])
    details = {"vocabulary": int(tokenizer.vocab_size), "same": same}
    baseline = "llguidance's matcher over the ID tokens and words"
    return [Row("llguidance", what, "ratio", ratio, ours=ours, theirs=theirs, baseline=baseline, details=details)]


def _marked(space: TokenSpace) -> str:
    """The extended tokenizer's JSON with our tokens as special ones: llguidance names only those by themselves."""
    import json

    raw = json.loads(space.extended_json())
    for token in raw["added_tokens"]:
        token["special"] = token["special"] or token["id"] >= space.base_rows
    return json.dumps(raw)


def _lark(ids: np.ndarray, space: TokenSpace) -> str:
    """All IDs as alternatives of special tokens."""
    letters = "abcdefghijkl"
    rows = (" ".join(f"<{letters[at]}_{code}>" for at, code in enumerate(row)) for row in ids.tolist())
    return "start: " + "\n     | ".join(rows)
