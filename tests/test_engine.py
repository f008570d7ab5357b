"""The engine's contract: scores, filters, beams, prefix re-use, streaming; on a random two-layer model."""

from __future__ import annotations

import math
import threading
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcrs.toolkit.dialogue.encode import encode_prompt
from gcrs.toolkit.errors import DataError, DeadEnd, GcrsError, UnknownItem, UsageError
from gcrs.toolkit.ids.codebook import Codebook
from gcrs.toolkit.model.cache import PrefixCache
from gcrs.toolkit.model.engine import Engine, Sampling, Scored
from toys import toy_book, toy_dialogues, toy_engine, toy_model, toy_tokens

BOOK, TOKENS = toy_book(), toy_tokens()
ITEMS = list(BOOK.ids)
HEADERS = [encode_prompt(dialogue[:1], TOKENS, BOOK) for dialogue in toy_dialogues()]
PROMPTS = [[*header, TOKENS.rec] for header in HEADERS]
RESPONSES = [[*prompt, *TOKENS.span(BOOK.semantic_id("m05")), TOKENS.resp] for prompt in PROMPTS]
TOLERANCE = 2e-5  # of a log-probability in float32


@cache
def engine(seed: int = 0) -> Engine:
    torch.set_num_threads(1)
    return toy_engine(seed=seed)


def item_ids(ranking: list[Scored]) -> list[str]:
    return [one.item_id for one in ranking]


def plain_score(item: str, prompt: list[int], book: Codebook = BOOK, *, seed: int = 0) -> float:
    """log P(item), from one plain forward of prompt and span: softmax over the catalogue's children at each level."""
    sid = book.semantic_id(item)
    span = TOKENS.span(sid)
    with torch.no_grad():
        logits = toy_model(TOKENS, seed=seed)(torch.tensor([[*prompt, *span]])).logits[0, len(prompt) :].double()
    total = 0.0
    for level, code in enumerate(sid):
        siblings = sorted({other[level] for other in book.ids.values() if other[:level] == sid[:level]})
        row = logits[level, [TOKENS.level_range(level)[c] for c in siblings]]
        total += float(torch.log_softmax(row, dim=0)[siblings.index(code)])
    return total


# ---- scores


@pytest.mark.parametrize("prompt", PROMPTS)
def test_every_score_is_what_a_plain_forward_of_that_item_gives(prompt: list[int]) -> None:
    scores = engine().score_all(prompt)
    assert scores.dtype == np.float32
    assert scores == pytest.approx([plain_score(item, prompt) for item in ITEMS], abs=TOLERANCE)
    assert np.exp(scores.astype(float)).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_beam_as_wide_as_the_catalogue_gives_the_exhaustive_ranking(prompt: list[int], seed: int) -> None:
    ranking = engine(seed).targets(prompt, k=len(ITEMS))
    scores = engine(seed).score_all(prompt)
    assert item_ids(ranking) == [ITEMS[n] for n in sorted(range(len(ITEMS)), key=lambda n: (-scores[n], ITEMS[n]))]
    assert [one.score for one in ranking] == pytest.approx(sorted(scores, reverse=True), abs=TOLERANCE)
    assert all(one.semantic_id == BOOK.semantic_id(one.item_id) for one in ranking)


def test_a_second_target_is_scored_after_the_first() -> None:
    prompt = [*PROMPTS[0], *TOKENS.span(BOOK.semantic_id("m05"))]
    best = engine().targets(prompt, k=1)[0]
    assert best.score == pytest.approx(plain_score(best.item_id, prompt), abs=TOLERANCE)


def test_equal_scores_stand_in_the_order_of_item_ids() -> None:
    model = toy_model(TOKENS)
    with torch.no_grad():
        model.get_input_embeddings().weight[TOKENS.level_range(0)[0] :] = 0  # every code is as likely as its siblings
    book = Codebook((4, 3, 5), {f"z{9 - code}": (1, 2, code) for code in range(5)})
    flat = Engine(model, TOKENS, book)
    for k in (1, 2, 5):
        ranking = flat.targets(PROMPTS[0], k=k, beams=3)
        assert [one.score for one in ranking] == pytest.approx([math.log(1 / 5)] * k)
        assert item_ids(ranking) == sorted(book.ids)[:k]


def test_one_item_alone_is_certain() -> None:
    book = Codebook((4, 3, 5), {"only": (2, 1, 3)})
    assert Engine(toy_model(TOKENS), TOKENS, book).targets(PROMPTS[0], k=5) == [Scored("only", (2, 1, 3), 0.0)]


# ---- filters

FILTERS = st.lists(st.booleans(), min_size=len(ITEMS), max_size=len(ITEMS)).map(np.array)


@settings(max_examples=40, deadline=None)
@given(FILTERS, st.integers(1, 14), st.integers(1, 14), st.sampled_from(PROMPTS))
def test_k_distinct_allowed_items_come_whenever_k_are_allowed(
    allowed: np.ndarray, k: int, beams: int, prompt: list[int]
) -> None:
    if not allowed.any():
        with pytest.raises(DeadEnd, match="leaves no item"):
            engine().targets(prompt, k=k, beams=beams, allowed=allowed)
        return
    ranking = engine().targets(prompt, k=k, beams=beams, allowed=allowed)
    names = item_ids(ranking)
    assert len(names) == len(set(names)) == min(k, int(allowed.sum()))
    assert all(allowed[ITEMS.index(name)] for name in names)
    scores = engine().score_all(prompt)
    assert [one.score for one in ranking] == pytest.approx([scores[ITEMS.index(name)] for name in names], abs=TOLERANCE)
    assert [one.score for one in ranking] == sorted((one.score for one in ranking), reverse=True)


@settings(max_examples=25, deadline=None)
@given(FILTERS.filter(lambda allowed: bool(allowed.any())), st.sampled_from(PROMPTS))
def test_the_ranking_under_a_filter_is_the_unfiltered_one_restricted(allowed: np.ndarray, prompt: list[int]) -> None:
    whole = item_ids(engine().targets(prompt, k=len(ITEMS)))
    kept = [name for name in whole if allowed[ITEMS.index(name)]]
    assert item_ids(engine().targets(prompt, k=len(ITEMS), allowed=allowed)) == kept
    scores, filtered = engine().score_all(prompt), engine().score_all(prompt, allowed)
    assert np.isneginf(filtered[~allowed]).all()
    assert filtered[allowed] == pytest.approx(scores[allowed], abs=TOLERANCE)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 30))
def test_any_catalogue_any_beam(seed: int, n: int, beams: int) -> None:
    rng = np.random.default_rng(seed)
    picked = rng.choice(4 * 3 * 5, size=n, replace=False)
    sids = {f"i{row}": (int(row) // 15, int(row) // 5 % 3, int(row) % 5) for row in picked}
    own = Engine(toy_model(TOKENS, seed=1), TOKENS, Codebook((4, 3, 5), sids))
    allowed = rng.random(n) < 0.5
    allowed[rng.integers(n)] = True
    ranking = own.targets(PROMPTS[1], k=beams, allowed=allowed)
    assert len(set(item_ids(ranking))) == min(beams, int(allowed.sum()))
    exact = own.score_all(PROMPTS[1], allowed)
    if beams >= n:
        assert item_ids(ranking) == [
            one
            for one in sorted(sids, key=lambda one: (-exact[list(sids).index(one)], one))
            if allowed[list(sids).index(one)]
        ]
    some = ranking[0].item_id
    plain = plain_score(some, PROMPTS[1], own.book, seed=1)
    assert exact[list(sids).index(some)] == pytest.approx(plain, abs=TOLERANCE)


@settings(max_examples=25, deadline=None)
@given(FILTERS.filter(lambda allowed: bool(allowed.any())), st.integers(1, 12), st.permutations(ITEMS))
def test_ties_stand_by_item_id_under_any_filter(allowed: np.ndarray, k: int, names: list[str]) -> None:
    """A model without an opinion: items are as likely as the tree splits, whatever their ids are called."""
    flat = Engine(indifferent_model(), TOKENS, Codebook(BOOK.codes, dict(zip(names, BOOK.ids.values(), strict=True))))
    ranking = flat.targets(PROMPTS[0], k=k, beams=len(ITEMS), allowed=allowed)
    exact = dict(zip(names, flat.score_all(PROMPTS[0]).tolist(), strict=True))
    kept = [name for name, ok in zip(names, allowed, strict=True) if ok]
    assert item_ids(ranking) == sorted(kept, key=lambda name: (-round(exact[name], 5), name))[:k]


@cache
def indifferent_model() -> Any:
    model = toy_model(TOKENS)
    with torch.no_grad():
        model.get_input_embeddings().weight[TOKENS.level_range(0)[0] :] = 0  # every code is as likely as its siblings
    return model


@pytest.mark.parametrize("k", [200, 1000])
def test_a_thousand_items_are_the_exhaustive_ranking(k: int) -> None:
    rng = np.random.default_rng(0)
    tokens = toy_tokens((8, 16, 16))
    picked = rng.choice(8 * 16 * 16, size=1200, replace=False)
    sids = {f"i{row}": (int(row) // 256, int(row) // 16 % 16, int(row) % 16) for row in picked}
    own = Engine(toy_model(tokens, seed=3), tokens, Codebook(tokens.codes, sids))
    allowed = rng.random(1200) < 0.9
    prompt = [*encode_prompt(toy_dialogues()[1][:1], tokens, own.book), tokens.rec]
    ranking = own.targets(prompt, k=k, beams=1200, allowed=allowed)
    exact = own.score_all(prompt, allowed)
    assert len(set(item_ids(ranking))) == k
    assert [one.score for one in ranking] == pytest.approx(np.sort(exact)[::-1][:k], abs=TOLERANCE)
    rows = {name: row for row, name in enumerate(sids)}
    assert all(one.score == pytest.approx(exact[rows[one.item_id]], abs=TOLERANCE) for one in ranking)
    cut = own.targets(prompt, k=k, allowed=allowed)  # beams = k: a smaller beam, still k distinct allowed items
    assert len(set(item_ids(cut))) == k and all(allowed[rows[one.item_id]] for one in cut)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(PROMPTS), st.integers(1, 40), FILTERS), min_size=1, max_size=5),
    st.integers(1, 12),
)
def test_a_batch_is_its_prompts_one_by_one(batch: list[tuple[list[int], int, np.ndarray]], k: int) -> None:
    prompts = [prompt[:cut] for prompt, cut, _ in batch]
    filters = [allowed if allowed.any() else None for _, _, allowed in batch]
    together = engine().targets_batch(prompts, k=k, allowed=filters)
    for prompt, allowed, found in zip(prompts, filters, together, strict=True):
        alone = toy_engine().targets(prompt, k=k, allowed=allowed)
        assert item_ids(found) == item_ids(alone)
        assert [one.score for one in found] == pytest.approx([one.score for one in alone], abs=TOLERANCE)
    assert engine().targets_batch([], k=k) == []
    with pytest.raises(UsageError, match="1 filters for 2 prompts"):
        engine().targets_batch(PROMPTS[:2], k=k, allowed=[None])


def test_a_batch_forwards_what_its_prompts_share_once() -> None:
    own = toy_engine(cache_bytes=0)  # without the pool, which would remember both dialogues
    prompts = [[*PROMPTS[0][:20], 7], PROMPTS[1][:15], PROMPTS[0][:25], PROMPTS[1][:18], PROMPTS[0][:20]]
    own.targets_batch(prompts, k=1)
    shared = own.stats.targets.forwarded
    one_by_one = toy_engine(cache_bytes=0)
    for prompt in prompts:
        one_by_one.targets(prompt, k=1)
    assert shared < one_by_one.stats.targets.forwarded


# ---- prefix re-use


def test_each_step_forwards_only_what_is_new() -> None:
    own = toy_engine()
    own.intent(HEADERS[0])
    assert own.stats.intent.forwarded == len(HEADERS[0])
    best = own.targets(PROMPTS[0], k=1)[0]
    assert own.stats.targets.reused == len(HEADERS[0])
    assert own.stats.targets.forwarded == 2  # <REC> and the <BOI> that must follow
    prompt = [*PROMPTS[0], *TOKENS.span(best.semantic_id), TOKENS.resp]
    reply = [
        token for piece in own.respond(prompt, licensed=[], sampling=Sampling(seed=1)) for token in piece.token_ids
    ]
    assert own.stats.respond.reused >= len(PROMPTS[0]) + 2  # <BOI> and at least the first code are held already
    assert own.stats.respond.forwarded <= len(prompt) - own.stats.respond.reused + len(reply) - 1
    own.intent([*prompt, *reply, *TOKENS.newline, *HEADERS[1]])
    assert own.stats.intent.reused >= len(prompt) + len(reply) - 2  # all but the last words


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 10**6)), min_size=1, max_size=6))
def test_no_history_of_calls_changes_a_result(calls: list[tuple[int, int, int]]) -> None:
    used = engine(2)
    for at, what, seed in calls:
        cut = PROMPTS[at][: 1 + seed % len(PROMPTS[at])]
        if what == 0:
            used.intent(cut)
        elif what == 1:
            used.targets(cut, k=1 + seed % 12)
        elif what == 2:
            used.score_all(cut)
        else:
            next(used.respond(RESPONSES[at], licensed=ITEMS[:3], sampling=Sampling(seed=seed, max_tokens=12)))
    for prompt, scores in zip(PROMPTS, fresh_scores(), strict=True):
        assert used.score_all(prompt) == pytest.approx(scores, abs=TOLERANCE)
        assert used.targets(prompt, k=1)[0].item_id == ITEMS[int(scores.argmax())]


@cache
def fresh_scores() -> list[np.ndarray]:
    return [toy_engine(seed=2).score_all(prompt) for prompt in PROMPTS]


def test_incremental_logits_equal_fresh_ones() -> None:
    model, columns = toy_model(TOKENS), np.arange(TOKENS.size)
    used, text = PrefixCache(model), PROMPTS[1]
    for end in (5, 6, 20, 12, len(text), 30, 31):
        ids = text[: min(end, len(text))]
        fresh = PrefixCache(model)
        assert torch.allclose(
            used.logits(used.extend(ids), columns), fresh.logits(fresh.extend(ids), columns), atol=1e-4
        )


def test_a_forward_that_is_cut_short_leaves_the_engine_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    own = toy_engine(seed=2)
    layer = own.model.model.model.layers[1]
    forward = layer.forward
    calls = iter(range(100))

    def interrupted(*args: object, **kwargs: object) -> object:
        if next(calls) in (1, 3):  # in the middle of a prompt, in the middle of a beam
            raise KeyboardInterrupt
        return forward(*args, **kwargs)

    monkeypatch.setattr(layer, "forward", interrupted)
    own.intent(HEADERS[0])
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            own.targets(PROMPTS[0], k=5)
    assert own.score_all(PROMPTS[0]) == pytest.approx(fresh_scores()[0], abs=TOLERANCE)


def test_threads_share_an_engine() -> None:
    own = toy_engine(seed=2)
    expected = [[one for one in reply(own, at, seed=at)] for at in range(3)]
    results: dict[int, list[object]] = {}
    workers = [
        threading.Thread(target=lambda at=at: results.update({at: reply(own, at, seed=at)}))  # type: ignore[misc]
        for at in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [results[at] for at in range(3)] == expected


def reply(own: Engine, at: int, seed: int) -> list[object]:
    ranking = item_ids(own.targets(PROMPTS[at], k=3))
    return [ranking, *own.respond(RESPONSES[at], licensed=ranking, sampling=Sampling(seed=seed, max_tokens=15))]


# ---- intent


def test_intent_is_free_or_vetoed_and_its_probabilities_are_those_before_the_veto() -> None:
    free = engine().intent(HEADERS[0])
    with torch.no_grad():
        logits = toy_model(TOKENS)(torch.tensor([HEADERS[0]])).logits[0, -1, [TOKENS.rec, TOKENS.chat]]
    recommend, chat = torch.softmax(logits.double(), dim=0).tolist()
    assert free.probabilities == pytest.approx({"recommend": recommend, "chat": chat}, abs=1e-5)
    assert free.intent == ("recommend" if recommend >= chat else "chat")
    for only in ("recommend", "chat"):
        vetoed = engine().intent(HEADERS[0], allow=frozenset({only}))  # type: ignore[arg-type]
        assert vetoed.intent == only
        assert vetoed.probabilities == pytest.approx(free.probabilities, abs=1e-6)


# ---- errors


def test_bad_input_is_refused_in_a_sentence() -> None:
    with pytest.raises(DataError, match="prompt is empty"):
        engine().intent([])
    with pytest.raises(DataError, match="rows 0 to"):
        engine().intent([1, TOKENS.size])
    with pytest.raises(UsageError, match="allowed intents"):
        engine().intent(HEADERS[0], allow=frozenset())
    with pytest.raises(UsageError, match="k is 0"):
        engine().targets(PROMPTS[0], k=0)
    with pytest.raises(DataError, match="filter"):
        engine().targets(PROMPTS[0], k=1, allowed=np.ones(3, dtype=bool))
    with pytest.raises(DeadEnd):
        Engine(toy_model(TOKENS), TOKENS, Codebook((4, 3, 5), {})).targets(PROMPTS[0], k=1)
    with pytest.raises(UnknownItem):
        list(engine().respond(RESPONSES[0], licensed=["nobody"], sampling=Sampling()))
    with pytest.raises(DataError, match="codebook"):
        Engine(toy_model(TOKENS), TOKENS, Codebook((4, 3), {}))
    with pytest.raises(DataError, match="output rows"):
        Engine(toy_model(toy_tokens((4, 3, 6))), TOKENS, BOOK)
    short = Engine(toy_model(TOKENS, max_position_embeddings=32), TOKENS, BOOK)
    for call in (short.intent, lambda p: short.targets(p, k=1), lambda p: list(short.respond(p, licensed=[]))):
        with pytest.raises(DataError, match=r"reads 32"):
            call(PROMPTS[0])


def test_a_model_whose_output_is_not_a_number_is_refused() -> None:
    model = toy_model(TOKENS)
    with torch.no_grad():
        model.model.norm.weight[:] = math.nan
    with pytest.raises(GcrsError, match="not a number"):
        Engine(model, TOKENS, BOOK).targets(PROMPTS[0], k=3)
    with pytest.raises(GcrsError, match="not a number"):
        next(Engine(model, TOKENS, BOOK).respond(RESPONSES[0], licensed=[]))
