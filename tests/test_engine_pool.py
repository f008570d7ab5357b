"""Many conversations on one engine: nothing that was kept changes a result, the bound holds, an interrupt costs one."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcrs.toolkit.dialogue.encode import encode_prompt
from gcrs.toolkit.dialogue.turns import Dialogue, Turn
from gcrs.toolkit.errors import UsageError
from gcrs.toolkit.model.engine import Engine, Piece, Sampling
from gcrs.toolkit.model.prefixes import SHORT_TAIL, PrefixPool
from toys import toy_book, toy_engine, toy_model, toy_tokens

BOOK, TOKENS = toy_book(), toy_tokens()
TOLERANCE = 2e-5  # of a log-probability in float32
ONE = 2 * 2 * 2 * 8 * 4 * 64  # bytes of a short prefix: layers, keys and values, heads, width, float32, room
OPENINGS = ("Hello!", "Hello! I want something funny.", "I loved <item:m01> and <item:m05>, what else is there?")
MORE = ("Older, please.", "No. Like <item:m08>?", "And something to laugh about, for the whole family?")


def session_prompts(opening: int, answers: tuple[int, ...]) -> list[list[int]]:
    """The prompts of one conversation, turn after turn."""
    turns: list[Turn] = [Turn("user", OPENINGS[opening])]
    prompts = [encode_prompt(Dialogue("s", tuple(turns)), TOKENS, BOOK)]
    for answer in answers:
        turns += [Turn("assistant", f"Try <item:m0{1 + answer}>."), Turn("user", MORE[answer])]
        prompts.append(encode_prompt(Dialogue("s", tuple(turns)), TOKENS, BOOK))
    return prompts


@cache
def fresh(header: tuple[int, ...]) -> tuple[float, tuple[float, ...], tuple[int, ...]]:
    """What an engine that has read nothing else says: P(recommend), every item's score, a greedy reply's ids."""
    return answers(toy_engine(seed=2), list(header))


def answers(engine: Engine, header: list[int]) -> tuple[float, tuple[float, ...], tuple[int, ...]]:
    intent = engine.intent(header).probabilities["recommend"]
    prompt = [*header, TOKENS.rec]
    best = engine.targets(prompt, k=3)[0]
    scores = tuple(engine.score_all(prompt).tolist())
    reply = engine.respond(
        [*prompt, *TOKENS.span(best.semantic_id), TOKENS.resp],
        licensed=[best.item_id],
        sampling=Sampling(temperature=0, max_tokens=6),
    )
    return intent, scores, tuple(token for piece in reply for token in piece.token_ids)


def check(engine: Engine, header: list[int]) -> None:
    intent, scores, reply = answers(engine, header)
    expected = fresh(tuple(header))
    assert intent == pytest.approx(expected[0], abs=TOLERANCE)
    assert scores == pytest.approx(expected[1], abs=TOLERANCE)
    assert reply == expected[2]


def holds(engine: Engine) -> bool:
    return engine.pool.nbytes <= engine.pool.limit or len(engine.pool) <= 1


SESSIONS = st.lists(
    st.tuples(st.integers(0, 2), st.lists(st.integers(0, 2), max_size=2).map(tuple)), min_size=2, max_size=4
)


@settings(max_examples=8, deadline=None)
@given(SESSIONS, st.sampled_from([0, 4 * ONE, 8 * ONE, 2**30]), st.randoms(use_true_random=False))
def test_no_interleaving_of_sessions_changes_a_result(
    sessions: list[tuple[int, tuple[int, ...]]], limit: int, random: Any
) -> None:
    torch.set_num_threads(1)
    engine = toy_engine(seed=2, cache_bytes=limit)
    left = [session_prompts(*session) for session in sessions]
    while left := [prompts for prompts in left if prompts]:
        check(engine, random.choice(left).pop(0))
        assert holds(engine)


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=4),
    st.sampled_from([0, 6 * ONE, 2**30]),
    st.sampled_from([KeyboardInterrupt, RuntimeError]),
    st.integers(0, 60),
)
def test_an_interrupt_anywhere_leaves_every_session_right(
    turns: list[tuple[int, int]], limit: int, error: type[BaseException], at: int
) -> None:
    engine = toy_engine(seed=2, cache_bytes=limit)
    layer, calls = engine.model.model.model.layers[1], iter(range(10**6))
    forward = layer.forward

    def interrupted(*args: object, **kwargs: object) -> object:
        if next(calls) == at:
            raise error
        return forward(*args, **kwargs)

    layer.forward = interrupted
    for opening, answer in turns:
        for header in session_prompts(opening, (answer,)):
            try:
                check(engine, header)
            except error:
                assert holds(engine)
                check(engine, header)
    assert holds(engine)


@pytest.mark.parametrize("what", ["fork", "shrink", "settle", "_put_aside"])
def test_an_interrupt_between_two_prefixes_loses_neither(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = toy_engine(seed=2)
    first, second = session_prompts(1, (0, 1)), session_prompts(2, (0,))
    check(engine, first[1])
    check(engine, second[0])
    owner = engine.pool if hasattr(engine.pool, what) else engine.pool.now
    with monkeypatch.context() as patch:
        patch.setattr(type(owner), what, interrupt)
        for header in (first[2], session_prompts(1, (2,))[1]):
            try:
                engine.intent(header)
            except KeyboardInterrupt:
                assert holds(engine)
    for header in (*first, *second, session_prompts(1, (2,))[1]):
        check(engine, header)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_interleaved_sessions_are_each_read_once() -> None:
    sessions = [session_prompts(n % 3, (n % 2, n // 3)) for n in range(6)]
    kept, single = toy_engine(seed=2), toy_engine(seed=2, cache_bytes=0)
    for turn in range(3):
        for prompts in sessions:
            for engine in (kept, single):
                engine.intent(prompts[turn])
    last = sum(len(prompts[-1]) for prompts in sessions)
    assert kept.stats.intent.forwarded < last  # what sessions have in common is read once for all
    assert single.stats.intent.forwarded > 2 * kept.stats.intent.forwarded
    stats = kept.pool.stats
    assert stats.evictions == 0 and stats.hits >= 6 and stats.misses == 1
    assert len(single.pool) == 1 and single.pool.stats.evictions > 10


def test_what_was_not_used_for_longest_goes_first() -> None:
    engine = toy_engine(seed=2, cache_bytes=2 * ONE)
    prompts = [[n, *range(40)] for n in (3, 4, 5)]
    for prompt in (prompts[0], prompts[1], prompts[0], prompts[2]):
        engine.intent(prompt)
    pool = engine.pool
    assert [pool.common(prompt) for prompt in prompts] == [41, 0, 41]
    assert (pool.stats.misses, pool.stats.hits, pool.stats.evictions) == (3, 1, 1)
    assert pool.nbytes == 2 * ONE


def test_a_short_tail_is_dropped_and_a_long_one_is_forked() -> None:
    engine = toy_engine(seed=2)
    prompt = list(range(3, 120))
    engine.intent(prompt)
    engine.intent([*prompt[:-SHORT_TAIL], 1])
    assert len(engine.pool) == 1 and engine.pool.common(prompt) == len(prompt) - SHORT_TAIL
    engine.intent([*prompt[:20], 1])
    assert len(engine.pool) == 2 and engine.pool.stats.forks == 1 and engine.pool.stats.reused == 20
    assert engine.stats.intent.forwarded == len(prompt) + 2


def test_a_wide_beam_leaves_no_room_behind() -> None:
    from gcrs.toolkit.ids.codebook import Codebook

    tokens = toy_tokens((8, 40, 2))
    ids = {f"i{n}": (n // 80, n // 2 % 40, n % 2) for n in range(640)}
    engine = Engine(toy_model(tokens), tokens, Codebook((8, 40, 2), ids))
    engine.targets([*range(3, 30), tokens.rec], k=400)  # longer than what a new prompt would simply overwrite
    assert engine.pool.nbytes > ONE
    engine.intent([9, *range(50)])
    assert engine.pool.nbytes == 2 * ONE


def test_replies_streamed_side_by_side_keep_their_prefixes() -> None:
    engine = toy_engine(seed=2)
    prompts = [[*session_prompts(n, ())[0], TOKENS.chat, TOKENS.resp] for n in range(3)]
    alone = []
    for prompt in prompts:
        pieces = toy_engine(seed=2).respond(prompt, licensed=[], sampling=Sampling(seed=1, max_tokens=20))
        alone.append(list(pieces))
    streams = [engine.respond(prompt, licensed=[], sampling=Sampling(seed=1, max_tokens=20)) for prompt in prompts]
    beside: list[list[Piece]] = [[] for _ in streams]
    turns = list(zip(streams, beside, strict=True))
    while turns:
        stream, pieces = turns.pop(0)
        if piece := next(stream, None):
            pieces.append(piece)
            turns.append((stream, pieces))
    assert beside == alone
    written = sum(len(piece.token_ids) for pieces in alone for piece in pieces)
    assert engine.stats.respond.forwarded <= sum(map(len, prompts)) + written


def test_sessions_in_threads_are_right_under_any_bound() -> None:
    engine = toy_engine(seed=2, cache_bytes=2 * ONE)
    sessions = [session_prompts(n, (n, 2 - n)) for n in range(3)]
    results: dict[int, list[Any]] = {}

    def talk(n: int) -> None:
        results[n] = [answers(engine, header) for header in sessions[n]]

    workers = [threading.Thread(target=talk, args=(n,)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for n, prompts in enumerate(sessions):
        for header, (intent, scores, reply) in zip(prompts, results[n], strict=True):
            expected = fresh(tuple(header))
            assert (intent, reply) == (pytest.approx(expected[0], abs=TOLERANCE), expected[2])
            assert scores == pytest.approx(expected[1], abs=TOLERANCE)
    assert holds(engine)


def test_close_frees_everything_and_a_negative_bound_is_refused() -> None:
    engine = toy_engine(seed=2)
    for prompts in (session_prompts(0, (1,)), session_prompts(2, ())):
        check(engine, prompts[-1])
    assert len(engine.pool) > 1
    engine.close()
    assert (len(engine.pool), engine.pool.nbytes) == (0, 0)
    check(engine, session_prompts(0, ())[0])
    with pytest.raises(UsageError, match="limit is -1"):
        PrefixPool(-1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here: CPU and GPU cannot be compared")
@pytest.mark.parametrize("header", [session_prompts(n, (n,))[1] for n in range(3)])
def test_the_gpus_results_are_the_cpus_up_to_numerics(header: list[int]) -> None:
    here = toy_engine(seed=2)
    there = Engine(toy_model(TOKENS, seed=2).to("cuda"), TOKENS, BOOK)
    prompt = [*header, TOKENS.rec]
    for _ in range(2):  # the second time from the cache
        probabilities = here.intent(header).probabilities
        assert there.intent(header).probabilities == pytest.approx(probabilities, abs=1e-4)
        scores = here.score_all(prompt)
        assert there.score_all(prompt) == pytest.approx(scores, abs=1e-3)
        found = there.targets(prompt, k=5, beams=len(BOOK))
        assert [one.score for one in found] == pytest.approx(np.sort(scores)[::-1][:5], abs=1e-3)
    greedy = Sampling(temperature=0, max_tokens=6)
    texts = []
    for engine in (here, there):
        pieces = engine.respond([*prompt[:-1], TOKENS.chat, TOKENS.resp], licensed=[], sampling=greedy)
        texts.append("".join(piece.text for piece in pieces))
    assert texts[0] == texts[1]
