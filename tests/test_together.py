"""Replies that are written at the same time are read in common forwards, and nobody notices but the clock."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
import torch

from gcrs.toolkit.dialogue.encode import encode_prompt
from gcrs.toolkit.dialogue.turns import Dialogue, Turn
from gcrs.toolkit.errors import DataError
from gcrs.toolkit.model.cache import JOINED, PrefixCache
from gcrs.toolkit.model.engine import Engine, Sampling
from gcrs.toolkit.model.step_stats import StepStats
from gcrs.toolkit.model.together import Together
from toys import toy_book, toy_engine, toy_model, toy_tokens

BOOK, TOKENS = toy_book(), toy_tokens()
OPENINGS = (
    "Hello!",
    "I loved <item:m01> and <item:m05>, what else is there?",
    "Something to laugh about?",
    "No, older.",
)
ALL = np.arange(TOKENS.size)


def prompt(opening: str) -> list[int]:
    return [*encode_prompt(Dialogue("d", (Turn("user", opening),)), TOKENS, BOOK), TOKENS.chat, TOKENS.resp]


def fresh_cache(**options: Any) -> PrefixCache:
    return PrefixCache(toy_model(TOKENS, seed=2), **options)


def reply(engine: Engine, opening: str, seed: int) -> tuple[int, ...]:
    pieces = engine.respond(prompt(opening), licensed=["m05"], sampling=Sampling(seed=seed, max_tokens=24))
    return tuple(token for piece in pieces for token in piece.token_ids)


def side_by_side(work: list[Any]) -> None:
    threads = [threading.Thread(target=one) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


@pytest.mark.parametrize("limit", [0, 2**30])
def test_prompts_read_together_are_read_as_each_alone(limit: int) -> None:
    rng = np.random.default_rng(0)
    joint, prompts = fresh_cache(limit=limit), [prompt(opening) for opening in OPENINGS]
    for one in prompts:
        joint.extend(one)
    for _ in range(12):
        more = [rng.integers(0, TOKENS.base_rows, rng.integers(1, JOINED + 4)).tolist() for _ in prompts]
        prompts = [[*ids, *new] for ids, new in zip(prompts, more, strict=True)]
        found = joint.extend_each(prompts)
        for ids, hidden in zip(prompts, found, strict=True):
            assert torch.allclose(hidden, fresh_cache().extend(ids), atol=1e-4)
            assert torch.equal(joint.extend(ids), hidden) or limit == 0, "held, not read again"
    assert joint.forwarded <= sum(map(len, prompts)) or limit == 0, "each id once"


def test_the_same_prompt_twice_and_prompts_of_one_beginning() -> None:
    joint = fresh_cache()
    one = prompt(OPENINGS[1])
    joint.extend(one)
    asked = [[*one, 5], [*one, 5], [*one, 6, 7], one, prompt(OPENINGS[2])]
    for ids, hidden in zip(asked, joint.extend_each(asked), strict=True):
        assert torch.allclose(hidden, fresh_cache().extend(ids), atol=1e-4)


def test_a_failure_forgets_what_it_may_have_broken_and_no_more() -> None:
    joint = fresh_cache()
    for opening in OPENINGS[:3]:
        joint.extend(prompt(opening))
    wrong = [*prompt(OPENINGS[0]), TOKENS.size]
    with pytest.raises(DataError, match="the model has rows"):
        joint.extend_each([[*prompt(OPENINGS[1]), 3], wrong])
    assert joint.common(prompt(OPENINGS[2])) == len(prompt(OPENINGS[2]))
    again = [[*prompt(opening), 3] for opening in OPENINGS[:3]]
    for ids, hidden in zip(again, joint.extend_each(again), strict=True):
        assert torch.allclose(hidden, fresh_cache().extend(ids), atol=1e-4)


def test_replies_side_by_side_are_what_each_would_be_alone() -> None:
    alone = [reply(toy_engine(seed=2), opening, seed) for seed, opening in enumerate(OPENINGS)]
    engine = toy_engine(seed=2)
    said: dict[int, tuple[int, ...]] = {}
    side_by_side([lambda n=n: said.update({n: reply(engine, OPENINGS[n], n)}) for n in range(len(OPENINGS))])
    assert [said[n] for n in range(len(OPENINGS))] == alone
    stats = engine.stats.respond
    assert stats.joined > 0 and stats.shared >= 2 * stats.joined, "some forwards read for several"
    assert stats.calls == len(OPENINGS) and stats.forwarded == engine._cache.forwarded


def test_one_wrong_prompt_fails_alone() -> None:
    cache = fresh_cache()
    together = Together(cache, threading.RLock(), StepStats())
    asked = {"short": prompt(OPENINGS[0]), "long": [3] * (cache.context + 1), "other": prompt(OPENINGS[1])}
    found: dict[str, Any] = {}
    gate = threading.Barrier(len(asked))

    def ask(name: str) -> None:
        with together.reply() as number:
            gate.wait()
            try:
                found[name] = together.logits(number, asked[name], ALL)
            except DataError as error:
                found[name] = error

    side_by_side([lambda name=name: ask(name) for name in asked])
    assert isinstance(found["long"], DataError)
    for name in ("short", "other"):
        plain = fresh_cache()
        assert torch.allclose(found[name], plain.logits(plain.extend(asked[name]), ALL), atol=1e-4)


def test_who_stops_asking_is_not_waited_for_and_who_leaves_is_forgotten() -> None:
    engine = toy_engine(seed=2)
    paused = engine.respond(prompt(OPENINGS[0]), licensed=[], sampling=Sampling(seed=1, max_tokens=24))
    next(paused)
    time.sleep(0.6)
    began = time.monotonic()
    reply(engine, OPENINGS[1], 2)
    spent = time.monotonic() - began
    assert engine.stats.respond.joined == 0
    paused.close()
    assert engine._together._asked == {}
    began = time.monotonic()
    reply(engine, OPENINGS[1], 2)
    assert spent < 20 * (time.monotonic() - began) + 1, "a reader that has gone away costs nothing"
