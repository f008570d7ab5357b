"""The processor is the only source of masks, keeps no state, and works inside transformers' own generate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import outlines
import pytest
import torch
from outlines.processors import OutlinesLogitsProcessor
from outlines.processors.tensor_adapters.torch import TorchTensorAdapter

from gcrs.toolkit.dialogue.encode import encode_prompt
from gcrs.toolkit.errors import DeadEnd, GcrsError
from gcrs.toolkit.ids.tree import PrefixTree
from gcrs.toolkit.model.engine import Engine, Sampling
from gcrs.toolkit.model.grammar import IntentGrammar, TargetGrammar, words_of
from gcrs.toolkit.model.processor import MaskProcessor
from toys import toy_book, toy_dialogues, toy_engine, toy_model, toy_tokens

BOOK, TOKENS = toy_book(), toy_tokens()
TREE = PrefixTree.build(BOOK.array(), BOOK.codes)
HEADER = encode_prompt(toy_dialogues()[0][:1], TOKENS, BOOK)
PROMPT = [*HEADER, TOKENS.rec]
ALLOWED = np.arange(len(BOOK)) % 4 == 1


class Unmasked(MaskProcessor):
    """Computes the same columns and masks none of them."""

    def process_logits(self, input_ids: Any, logits: Any) -> Any:
        return logits

    def forced(self, input_ids: Any) -> np.ndarray:
        return np.full(len(input_ids), -1)


class Nothing(OutlinesLogitsProcessor):
    """Knows no grammar at all."""

    def __init__(self, grammar: object) -> None:
        self.tensor_adapter = TorchTensorAdapter()  # type: ignore[abstract]

    def process_logits(self, input_ids: Any, logits: Any) -> Any:
        return logits


def legal_intent(engine: Engine) -> bool:
    return engine.intent(HEADER, allow=frozenset({"recommend"})).intent == "recommend"


def legal_targets(engine: Engine) -> bool:
    allowed = {item for item, keep in zip(BOOK.ids, ALLOWED, strict=True) if keep}
    return {one.item_id for one in engine.targets(PROMPT, k=len(allowed), allowed=ALLOWED)} == allowed


def legal_response(engine: Engine) -> bool:
    sampling = Sampling(1.5, 1.0, 1.0, max_tokens=60, seed=1)
    pieces = list(engine.respond([*PROMPT, TOKENS.resp], licensed=["m03"], sampling=sampling))
    words = [token for piece in pieces[:-1] if piece.kind == "text" for token in piece.token_ids]
    return bool(words_of(TOKENS).text[words].all())


@pytest.mark.parametrize("check", [legal_intent, legal_targets, legal_response])
@pytest.mark.parametrize("processor", [Unmasked, Nothing])
def test_without_the_processor_illegal_ids_appear(check: Callable[[Engine], bool], processor: Any) -> None:
    assert check(toy_engine())
    illegal = 0
    for seed in range(3):
        try:
            illegal += not check(toy_engine(seed=seed, processor=processor))
        except GcrsError:
            illegal += 1  # an id that is no item's, or no intent: caught after the fact
    assert illegal > 0


@pytest.mark.parametrize("allowed", [None, ALLOWED])
@pytest.mark.parametrize("seed", range(3))
def test_beams_are_those_of_transformers_generate_under_the_same_processor(
    allowed: np.ndarray | None, seed: int
) -> None:
    model = toy_model(TOKENS, seed=seed)
    tree = TREE if allowed is None else TREE.subset(allowed)
    k = 6 if allowed is None else int(ALLOWED.sum())
    out = model.generate(
        torch.tensor([PROMPT]),
        logits_processor=[MaskProcessor(TargetGrammar(TOKENS, tree), start=len(PROMPT))],
        num_beams=k,
        num_return_sequences=k,
        do_sample=False,
        length_penalty=0.0,
        max_new_tokens=TREE.levels + 2,
        eos_token_id=None,
        return_dict_in_generate=True,
        output_scores=True,
    )
    theirs = [BOOK.item_id(TOKENS.sid_of(row[len(PROMPT) + 1 : -1])) for row in out.sequences.tolist()]
    ours = Engine(model, TOKENS, BOOK).targets(PROMPT, k=k, beams=k, allowed=allowed)
    wide = Engine(model, TOKENS, BOOK).targets(PROMPT, k=len(BOOK), allowed=allowed)
    scores = {one.item_id: one.score for one in wide}
    assert out.sequences_scores.tolist() == pytest.approx([scores[item] for item in theirs], abs=1e-4)
    if k < 10:  # our beam is at least 10 wide and so may find better items, never worse
        assert sum(one.score for one in ours) >= out.sequences_scores.sum().item() - 1e-4


def test_a_slice_and_the_whole_vocabulary_are_masked_alike() -> None:
    processor = MaskProcessor(TargetGrammar(TOKENS, TREE.subset(ALLOWED)))
    span = TOKENS.span(BOOK.semantic_id("m02"))
    dense = torch.randn(1, TOKENS.size)
    for n in range(len(span)):
        ids = torch.tensor([span[:n]], dtype=torch.long)
        columns = torch.from_numpy(processor.columns(ids))
        whole, part = processor(ids, dense), processor(ids, dense[:, columns])
        assert torch.equal(whole[:, columns], part) and part.isfinite().any()
        outside = torch.ones(TOKENS.size, dtype=torch.bool)
        outside[columns] = False
        assert whole[0, outside].isneginf().all()


def test_rows_may_be_reordered_between_steps() -> None:
    processor = MaskProcessor(TargetGrammar(TOKENS, TREE))
    rows = [TOKENS.span(sid)[:3] for sid in BOOK.ids.values()]
    logits = torch.randn(len(rows), TOKENS.codes[2])
    straight = processor(torch.tensor(rows), logits)
    back = processor(torch.tensor(rows[::-1]), logits.flip(0)).flip(0)
    assert torch.equal(straight, back)


def test_a_filter_removes_and_never_renormalises() -> None:
    ids, logits = torch.tensor([[TOKENS.boi]]), torch.randn(1, TOKENS.codes[0])
    full = MaskProcessor(TargetGrammar(TOKENS, TREE))(ids, logits)
    some = MaskProcessor(TargetGrammar(TOKENS, TREE.subset(ALLOWED)))(ids, logits)
    kept = some.isfinite()
    assert torch.equal(some[kept], full[kept]) and full.exp().sum() == pytest.approx(1, abs=1e-6)
    assert full[0, 2].isneginf(), "code 2 of the first level leads to no item"


def test_a_walk_off_the_tree_fails_closed() -> None:
    processor = MaskProcessor(TargetGrammar(TOKENS, TREE))
    with pytest.raises(DeadEnd):
        processor(torch.tensor([[TOKENS.boi, TOKENS.level_range(0)[2]]]), torch.randn(1, TOKENS.codes[1]))
    with pytest.raises(GcrsError, match="columns"):
        processor(torch.tensor([[TOKENS.boi]]), torch.randn(1, 7))


def test_outlines_generator_runs_our_model_on_ids() -> None:
    engine = toy_engine()
    processor = MaskProcessor(IntentGrammar(TOKENS, frozenset({"chat"})))
    found = outlines.Generator(engine.model, processor=processor)(HEADER, length=1, beams=1)  # type: ignore[arg-type]
    assert found.ids.tolist() == [[TOKENS.chat]]  # type: ignore[union-attr]
    with pytest.raises(GcrsError, match="processor"):
        engine.model.generate(HEADER, None, length=1, beams=1)
