"""Top-50 recommendation against transformers' beam search, and evaluation against one prefill a case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gcrs.toolkit.bench.limits import forwarding, recorded, tokens
from gcrs.toolkit.bench.measure import Row, pairs
from gcrs.toolkit.bench.simulated import dialogue, opened

if TYPE_CHECKING:
    from gcrs.toolkit.bench.workbench import Workbench
    from gcrs.toolkit.model.engine import Engine

PROMPT, BEAMS = 300, 50
DIALOGUES, KEPT = 4, 60  # of the evaluation: dialogues, and beams as `gcrs eval` keeps them


def beams_by_generate(engine: Engine, prompt: list[int], k: int) -> list[str]:
    """The k best items by `generate(num_beams=k)`: its own generation config, renormalised by the same processor."""
    import torch

    from gcrs.toolkit.model.grammar import TargetGrammar
    from gcrs.toolkit.model.processor import MaskProcessor

    model: Any = engine.model.model
    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),  # else every id equal to the pad token is hidden
        logits_processor=[MaskProcessor(TargetGrammar(engine.tokens, engine.tree), start=len(prompt))],
        num_beams=k,
        num_return_sequences=k,
        do_sample=False,
        length_penalty=0.0,
        max_new_tokens=engine.tree.levels + 2,
        eos_token_id=None,
        pad_token_id=engine.tokens.end,
    )
    spans = [row[len(prompt) + 1 : -1] for row in out.tolist()]
    return [engine.book.item_id(engine.tokens.sid_of(span)) for span in spans]


def top(bench: Workbench) -> list[Row]:
    """The 50 best items, fp32, from an empty cache."""
    from gcrs.toolkit.dialogue.encode import encode_prompt

    engine = bench.engine("fp32")
    space, book = engine.tokens, engine.book
    k = min(bench.pick(BEAMS, BEAMS), len(book))
    context = opened(book, space, bench.pick(PROMPT, PROMPT // 6))
    prompt = [*encode_prompt(context, space, book), space.rec]
    mine: list[str] = []
    theirs: list[str] = []

    def ours() -> None:
        engine.close()
        mine[:] = [one.item_id for one in engine.targets(prompt, k=k, beams=k)]

    with recorded(engine.model.model) as forwards:
        ours()
    ratio, own, other = pairs(
        ours, lambda: theirs.__setitem__(slice(None), beams_by_generate(engine, prompt, k)), bench.pick(3, 1)
    )
    limit = forwarding(bench.rates("fp32"), engine.model.model, forwards)
    same = mine == theirs
    details = {"prompt": len(prompt), "beams": k, "same": same, "forwarded": tokens(forwards)}
    what = f"top-{k} recommendation, fp32, same ranking"
    baseline = f"generate(num_beams={k})"
    return [Row("top-50", what, "ratio", ratio, 0.15, "lower", baseline, own, other, limit, details)]


def evaluation(bench: Workbench) -> list[Row]:
    """Every recommending reply of made-up dialogues ranked in one pass a dialogue, as `gcrs eval` does it.

    The baseline is the same engine, emptied before each reply.
    """
    from gcrs.toolkit.dialogue.encode import encode, encode_prompt
    from gcrs.toolkit.eval.cases import contexts

    engine = bench.engine()
    space, book = engine.tokens, engine.book
    talks = [dialogue(book, seed) for seed in range(bench.pick(DIALOGUES, 1))]
    prompts = [[[*encode_prompt(case.dialogue, space, book), space.rec] for case in contexts([talk])] for talk in talks]
    cases = [prompt for some in prompts for prompt in some]
    kept = min(KEPT, len(book))
    k = min(BEAMS, kept)

    def along() -> list[list[str]]:
        out = []
        for talk, some in zip(talks, prompts, strict=True):
            places = [len(prompt) + 1 for prompt in some]  # behind <BOI>
            ids = encode(talk, space, book).ids[: max(places)].tolist()
            found = engine.along(ids, targets=places, beams=[kept] * len(places)).targets
            out += [[one.item_id for one in ranking[:k]] for ranking in found]
        return out

    def anew() -> list[list[str]]:
        out = []
        for prompt in cases:
            engine.close()
            out.append([one.item_id for one in engine.targets(prompt, k=k, beams=kept)])
        return out

    with recorded(engine.model.model) as forwards:
        mine = along()
    with recorded(engine.model.model) as others:
        theirs = anew()
    ratio, own, other = pairs(along, anew, bench.pick(3, 1))
    agreeing = sum(len(set(a) & set(b)) for a, b in zip(mine, theirs, strict=True)) / sum(map(len, theirs))
    details = {"cases": len(cases), "dialogues": len(talks), "beams": kept, "items that agree": agreeing,
               "forwarded": tokens(forwards), "forwarded by the baseline": tokens(others)}  # fmt: skip
    limit = forwarding(bench.rates(), engine.model.model, forwards)
    what = f"evaluation of {len(cases)} replies in {len(talks)} dialogues"
    baseline = "one prefill a case, the same beams"
    return [Row("evaluation", what, "ratio", ratio, 0.7, "lower", baseline, own, other, limit, details)]
