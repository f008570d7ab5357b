"""The typed output: its automaton and the compiled expression accept the same; ours survives what stock does not."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from outlines.backends.outlines_core import OutlinesCoreLogitsProcessor

from gcrs.toolkit.dialogue.encode import encode_prompt
from gcrs.toolkit.errors import DeadEnd, UsageError
from gcrs.toolkit.ids.tree import PrefixTree
from gcrs.toolkit.model.grammar import TargetGrammar
from gcrs.toolkit.model.semantic_id_type import MOST_SPELLED, SemanticIdType
from gcrs.toolkit.model.tokens import TokenSpace
from toys import toy_book, toy_dialogues, toy_engine, toy_tokenizer_json, toy_tokens

BOOK, TOKENS = toy_book(), toy_tokens()
TYPE = SemanticIdType(TOKENS, PrefixTree.build(BOOK.array(), BOOK.codes))
SPANS = [TOKENS.span(sid) for sid in BOOK.ids.values()]
PROMPTS = [[*encode_prompt(one[:1], TOKENS, BOOK), TOKENS.rec] for one in toy_dialogues()]


def accepted_by_tree(kind: SemanticIdType) -> set[tuple[int, ...]]:
    """Every output of the grammar, found by following all that it calls legal."""
    grammar = TargetGrammar(kind.tokens, kind.tree)
    paths = [[]]  # type: list[list[int]]
    for _ in range(kind.tree.levels + 2):
        ids = np.array(paths, dtype=np.int64).reshape(len(paths), -1)
        columns, legal = grammar.columns(ids), grammar.legal(ids)
        paths = [[*paths[row], int(columns[column])] for row, column in zip(*np.nonzero(legal), strict=True)]
    return {tuple(path) for path in paths}


def accepted_by_index(kind: SemanticIdType) -> set[tuple[int, ...]]:
    """Every token sequence that the compiled expression takes from its first state to a final one."""
    index = kind.index()
    found, open_ = set(), [((), index.get_initial_state())]  # type: ignore[var-annotated]
    while open_:
        path, state = open_.pop()
        if index.is_final_state(state):
            found.add(path)
        for token in index.get_allowed_tokens(state) or ():
            if token != kind.tokens.end:
                open_.append(((*path, token), index.get_next_state(state, token)))
    return found


@st.composite
def types(draw: st.DrawFn) -> tuple[SemanticIdType, set[tuple[int, ...]]]:
    """A type over a random filtered catalogue, and its outputs by hand."""
    counts = tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=4)))
    ids = draw(st.lists(st.tuples(*(st.integers(0, k - 1) for k in counts)), unique=True, min_size=1, max_size=30))
    allowed = np.array(draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids))))
    allowed[draw(st.integers(0, len(ids) - 1))] = True
    tokens = TokenSpace(toy_tokenizer_json(), TOKENS.base_rows, counts)
    tree = PrefixTree.build(np.array(ids), counts).subset(allowed)
    return SemanticIdType(tokens, tree), {tuple(tokens.span(sid)) for sid, ok in zip(ids, allowed, strict=True) if ok}


@given(types())
@settings(max_examples=60, deadline=None)
def test_tree_and_expression_accept_exactly_the_allowed_items(
    case: tuple[SemanticIdType, set[tuple[int, ...]]],
) -> None:
    kind, expected = case
    assert accepted_by_tree(kind) == expected
    assert accepted_by_index(kind) == expected


def test_an_expression_is_for_small_catalogues() -> None:
    many = np.stack(np.unravel_index(np.arange(MOST_SPELLED + 1), (200, 200)), axis=1)
    with pytest.raises(UsageError, match="expected at most 20,000"):
        SemanticIdType(TOKENS, PrefixTree.build(many, (200, 200))).regex()
    with pytest.raises(DeadEnd, match="No item is allowed"):
        SemanticIdType(TOKENS, TYPE.tree.subset(np.zeros(len(BOOK), dtype=bool))).regex()


# ---- beams, batches, threads, re-use


def states(kind: SemanticIdType, processor: Any, order: list[list[int]]) -> list[list[list[int]]]:
    """What a processor allows for two rows at each step while `order` says which row goes on at which place."""
    rows: list[list[int]] = [SPANS[0][:0], SPANS[-1][:0]]
    wanted = [SPANS[0], SPANS[-1]]
    seen = []
    for n, places in enumerate(order):
        rows, wanted = [rows[p] for p in places], [wanted[p] for p in places]
        ids = torch.tensor(rows, dtype=torch.long).reshape(2, n)
        scores = processor(ids, torch.zeros(2, kind.tokens.size))
        seen.append([torch.nonzero(row > -torch.inf).flatten().tolist() for row in scores])
        assert all(span[n] in legal for span, legal in zip(wanted, seen[-1], strict=True)), "the right token is barred"
        rows = [[*row, span[n]] for row, span in zip(rows, wanted, strict=True)]
    return seen


STRAIGHT = [[0, 1]] * 5
SWAPPED = [[0, 1], [0, 1], [1, 0], [0, 1], [1, 0]]  # as beams change places


def test_ours_follows_beams_that_change_places_and_the_stock_processor_does_not() -> None:
    def stock() -> OutlinesCoreLogitsProcessor:
        return OutlinesCoreLogitsProcessor(TYPE.index(), "torch")

    assert states(TYPE, TYPE.processor(), STRAIGHT) == states(TYPE, stock(), STRAIGHT)
    ours = states(TYPE, TYPE.processor(), SWAPPED)
    assert ours[2] == states(TYPE, TYPE.processor(), STRAIGHT)[2][::-1]
    with pytest.raises((ValueError, AssertionError)):  # it refuses the token, or bars the right one
        states(TYPE, stock(), SWAPPED)


def test_a_processor_is_used_again_where_the_stock_one_must_be_reset() -> None:
    ours, stock = TYPE.processor(), OutlinesCoreLogitsProcessor(TYPE.index(), "torch")
    assert (
        states(TYPE, ours, STRAIGHT)
        == states(TYPE, ours, STRAIGHT)
        == states(TYPE, ours, STRAIGHT[:3]) + states(TYPE, ours, STRAIGHT)[3:]
    )
    states(TYPE, stock, STRAIGHT)
    with pytest.raises((ValueError, AssertionError, IndexError)):
        states(TYPE, stock, STRAIGHT)


def test_batches_of_any_size_share_a_processor() -> None:
    ours = TYPE.processor()
    logits = torch.randn(len(SPANS), TOKENS.size)
    for length in range(5):
        ids = torch.tensor([span[:length] for span in SPANS], dtype=torch.long).reshape(len(SPANS), length)
        whole = ours(ids, logits)
        for rows in ([3], [7, 7, 1], [11, 0, 5, 2]):
            assert torch.equal(ours(ids[rows], logits[rows]), whole[rows])


def test_threads_share_a_processor_and_a_generator_is_used_again() -> None:
    ours, logits = TYPE.processor(), torch.randn(len(SPANS), TOKENS.size)
    ids = [torch.tensor([span[:n] for span in SPANS], dtype=torch.long).reshape(len(SPANS), n) for n in range(5)]
    expected, wrong = [ours(one, logits) for one in ids], []

    def work(seed: int) -> None:
        for n in np.random.default_rng(seed).integers(5, size=40):
            if not torch.equal(ours(ids[n], logits), expected[n]):
                wrong.append(n)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []
    engine = toy_engine()
    generator = TYPE.generator(engine.model)
    for prompt in [*PROMPTS, *PROMPTS[::-1]]:
        found = generator(prompt, length=5, beams=12)
        again = [TOKENS.sid_of(ids[1:-1]) for ids in found.ids.tolist()]
        assert again[0] == engine.targets(prompt, k=1)[0].semantic_id and sorted(again) == sorted(BOOK.ids.values())
