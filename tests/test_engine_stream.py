"""Streamed replies: what may appear in them, sampling, whole characters, stopping."""

from __future__ import annotations

import itertools
from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcrs.toolkit.dialogue.encode import encode_prompt
from gcrs.toolkit.errors import UsageError
from gcrs.toolkit.model.engine import Engine, Piece, Sampling
from gcrs.toolkit.model.grammar import MOST_NAMED, ResponseGrammar, words_of
from gcrs.toolkit.model.processor import MaskProcessor
from gcrs.toolkit.model.sampling import Sampler, TextStream
from toys import toy_book, toy_dialogues, toy_engine, toy_model, toy_tokens

BOOK, TOKENS = toy_book(), toy_tokens()
ITEMS = list(BOOK.ids)
PROMPT = [*encode_prompt(toy_dialogues()[0][:1], TOKENS, BOOK), TOKENS.chat, TOKENS.resp]


@cache
def talkative() -> Engine:
    """An engine whose model likes to name items: its head has a bias on `<BOI>` and on the end."""
    torch.set_num_threads(1)
    model = toy_model(TOKENS, tie_word_embeddings=False)
    head = torch.nn.Linear(model.config.hidden_size, TOKENS.size)
    with torch.no_grad():
        head.weight.copy_(model.get_output_embeddings().weight)
        head.bias.zero_()
        head.bias[TOKENS.boi], head.bias[TOKENS.end] = 6.0, 3.0
    model.set_output_embeddings(head)
    return Engine(model, TOKENS, BOOK)


def ids_of(pieces: list[Piece]) -> list[int]:
    return [token for piece in pieces for token in piece.token_ids]


SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.7, 1.5]),
    top_p=st.sampled_from([0.5, 0.9, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.1]),
    max_tokens=st.integers(1, 40),
    seed=st.integers(0, 10**6),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(ITEMS), max_size=4), SAMPLINGS)
def test_a_reply_holds_words_and_licensed_items_alone(licensed: list[str], sampling: Sampling) -> None:
    pieces = list(talkative().respond(PROMPT, licensed=licensed, sampling=sampling))
    ids, text = ids_of(pieces), "".join(piece.text for piece in pieces)
    assert ids[-1] == TOKENS.end and ids.count(TOKENS.end) == 1
    assert len(ids) <= sampling.max_tokens + 1
    assert text.strip(), "the reply shows nothing"
    assert "\ufffd" not in text and not any(ord(c) < 32 and c not in "\n\t" for c in text)
    runs: list[list[int]] = [[]]  # text ids between two items: a character cannot reach across one
    last: str | None = None
    between = True
    for piece in pieces[:-1]:
        if piece.kind == "item":
            assert piece.item_id in licensed and piece.text == f"<item:{piece.item_id}>"
            assert piece.item_id != last, "named twice in a row"
            assert list(piece.token_ids) == TOKENS.span(BOOK.semantic_id(piece.item_id))
            assert between, "two items without anything visible between them"
            last, between = piece.item_id, False
            runs.append([])
        else:
            assert TOKENS.forbidden_in_text.isdisjoint(piece.token_ids)
            last = None if any(c.isalnum() for c in piece.text) else last
            between = between or bool(piece.text.strip())
            runs[-1] += piece.token_ids
    named = Counter(piece.item_id for piece in pieces if piece.kind == "item")
    assert max(named.values(), default=0) <= MOST_NAMED
    rebuilt = "".join(TOKENS.decode_text(run).replace("\ufffd", "") for run in runs)
    assert rebuilt == "".join(p.text for p in pieces if p.kind == "text")


@settings(max_examples=8, deadline=None)
@given(SAMPLINGS)
def test_the_same_seed_gives_the_same_reply(sampling: Sampling) -> None:
    first = list(talkative().respond(PROMPT, licensed=ITEMS[:3], sampling=sampling))
    talkative().targets([*PROMPT[:-2], TOKENS.rec], k=3)
    assert list(talkative().respond(PROMPT, licensed=ITEMS[:3], sampling=sampling)) == first


def test_items_are_named_when_licensed_and_never_otherwise() -> None:
    def named(licensed: list[str]) -> set[str | None]:
        replies = [
            list(talkative().respond(PROMPT, licensed=licensed, sampling=Sampling(1.0, 1.0, 1.0, 40, seed)))
            for seed in range(5)
        ]
        return {piece.item_id for reply in replies for piece in reply if piece.kind == "item"}

    assert named([]) == set()
    assert named(["m07"]) == {"m07"}
    assert named(["m01", "m02", "m11"]) == {"m01", "m02", "m11"}


def test_greedy_replies_are_those_of_transformers_under_the_same_processor() -> None:
    model = toy_model(TOKENS)
    own = Engine(model, TOKENS, BOOK)
    grammar = ResponseGrammar(TOKENS, words_of(TOKENS), [BOOK.semantic_id(item) for item in ITEMS[:4]], 25)
    sampler = Sampler(Sampling(temperature=0, repetition_penalty=1))
    ours = list(own.model.generate_stream(PROMPT, MaskProcessor(grammar), sampler=sampler))
    out = model.generate(
        torch.tensor([PROMPT]),
        logits_processor=[MaskProcessor(grammar, start=len(PROMPT))],
        do_sample=False,
        max_new_tokens=26,
        eos_token_id=TOKENS.end,
    )
    assert ours == out[0, len(PROMPT) :].tolist()


def test_stop_ends_the_reply_and_the_engine_goes_on() -> None:
    own = toy_engine()
    countdown = itertools.count()
    pieces = list(own.respond(PROMPT, licensed=ITEMS, sampling=Sampling(seed=1), stop=lambda: next(countdown) == 5))
    assert ids_of(pieces)[-1] == TOKENS.end and len(ids_of(pieces)) <= 6
    stream = own.respond(PROMPT, licensed=ITEMS, sampling=Sampling(seed=1))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    whole = list(own.respond(PROMPT, licensed=ITEMS, sampling=Sampling(seed=1)))
    assert whole == list(toy_engine().respond(PROMPT, licensed=ITEMS, sampling=Sampling(seed=1)))
    assert [one.item_id for one in own.targets([*PROMPT[:-2], TOKENS.rec], k=3)] == [
        one.item_id for one in toy_engine().targets([*PROMPT[:-2], TOKENS.rec], k=3)
    ]


def test_the_reply_ends_where_the_models_context_does() -> None:
    own = Engine(toy_model(TOKENS, max_position_embeddings=len(PROMPT) + 6), TOKENS, BOOK)
    ids = ids_of(list(own.respond(PROMPT, licensed=[], sampling=Sampling(seed=3, max_tokens=80))))
    assert len(PROMPT) + len(ids) <= len(PROMPT) + 6 and ids[-1] == TOKENS.end


# ---- whole characters


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\ufffd"), max_size=12))
def test_text_streams_in_whole_characters(text: str) -> None:
    stream, out = TextStream(TOKENS.decode_text), []
    for token in TOKENS.encode_text(text):
        piece, ids = stream.push(token)
        assert bool(piece) == bool(ids) and "\ufffd" not in piece
        out.append(piece)
    assert "".join(out) == text and stream.held == []


@given(st.lists(st.integers(0x20, 0xFF).filter(lambda byte: byte != 0x7F), max_size=20))
def test_bytes_that_are_no_character_are_left_out_and_hold_nothing_up(raw: list[int]) -> None:
    from tokenizers import pre_tokenizers

    vocabulary = TOKENS.text_tokenizer.get_vocab()
    symbols = {byte: vocabulary[symbol] for byte, symbol in byte_symbols().items()}
    assert len(symbols) == len(pre_tokenizers.ByteLevel.alphabet())
    stream = TextStream(TOKENS.decode_text)
    out = "".join(stream.push(symbols[byte])[0] for byte in raw)
    assert len(stream.held) < 4 and "\ufffd" not in out
    assert [c for c in out if c.isascii()] == [chr(byte) for byte in raw if byte < 0x80][: sum(map(str.isascii, out))]


def byte_symbols() -> dict[int, str]:
    """The symbol of each byte in a byte-level vocabulary (GPT-2's table: printable bytes stand for themselves)."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in own]
    return {byte: chr(byte) for byte in own} | {byte: chr(256 + n) for n, byte in enumerate(rest)}


def test_a_decoder_that_strips_the_first_space_loses_none_inside() -> None:
    words = {1: " I", 2: " liked", 3: " it", 4: "."}
    stream = TextStream(lambda ids: "".join(words[i] for i in ids).removeprefix(" "))
    assert "".join(stream.push(i)[0] for i in (1, 2, 3, 4)) == "I liked it."


# ---- sampling

LOGITS = torch.tensor([2.0, 1.0, 0.0, -torch.inf, -1.0])


def drawn(sampling: Sampling, n: int = 2000, repeated: tuple[int, ...] = ()) -> np.ndarray:
    sampler = Sampler(sampling)
    return np.bincount([sampler.pick(LOGITS, repeated) for _ in range(n)], minlength=5) / n


def test_temperature_one_draws_the_softmax() -> None:
    expected = torch.softmax(LOGITS, dim=0).numpy()
    assert drawn(Sampling(1.0, 1.0, 1.0, seed=0)) == pytest.approx(expected, abs=0.04)
    assert drawn(Sampling(1.0, 1.0, 1.0, seed=0))[3] == 0


def test_the_nucleus_is_the_fewest_tokens_that_hold_top_p() -> None:
    # softmax: .644 .237 .087 0 .032, so 0.8 needs two and 0.6 one
    assert (drawn(Sampling(1.0, 0.8, 1.0, seed=0), 500) > 0).tolist() == [True, True, False, False, False]
    assert (drawn(Sampling(1.0, 0.6, 1.0, seed=0), 500) > 0).tolist() == [True, False, False, False, False]
    wide = torch.zeros(1000)
    assert len({Sampler(Sampling(1.0, 1.0, 1.0, seed=n)).pick(wide) for n in range(600)}) > 400


def test_greedy_and_the_repetition_penalty() -> None:
    assert drawn(Sampling(temperature=0, repetition_penalty=1), 3)[0] == 1
    assert drawn(Sampling(temperature=0, repetition_penalty=4), 3, repeated=(0,))[1] == 1


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1}, {"temperature": float("nan")}, {"top_p": 0}, {"repetition_penalty": 0}, {"max_tokens": 0}],
)
def test_sampling_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Sampling(**wrong)  # type: ignore[arg-type]
