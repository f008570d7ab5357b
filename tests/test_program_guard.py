"""The leak guard: what it releases, when, and what it never shows."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gcrs.programs.guard import LeakGuard, ends_sentence, licensed_items
from gcrs.toolkit.dialogue.linker import Linker
from gcrs.toolkit.dialogue.turns import Dialogue, Turn
from gcrs.toolkit.model.engine import Piece
from toys import toy_book, toy_catalog

LINKER = Linker(toy_catalog())


def pieces(text: str) -> list[Piece]:
    """The text as a model streams it, word by word, each with the space before it."""
    return [Piece("text", word, None, (n,)) for n, word in enumerate(re.findall(r"\s?\S+|\s", text))]


def run(text: str, licensed: tuple[str, ...] = (), *, drop: bool = True) -> tuple[str, LeakGuard]:
    guard = LeakGuard(LINKER, licensed, drop=drop)
    shown = [one for piece in pieces(text) for one in guard.feed(piece)] + guard.finish()
    assert "".join(piece.text for piece in shown) == guard.text
    assert guard.ids == [i for piece in shown for i in piece.token_ids]
    return guard.text, guard


def test_a_sentence_with_an_unlicensed_title_is_left_out() -> None:
    text, guard = run("Good choice! You should see The Matrix. It is fun.")
    assert text == "Good choice! It is fun." and guard.leaks == 1 and not guard.stopped


def test_without_dropping_the_reply_stops_before_the_title() -> None:
    text, guard = run("Good choice! You should see The Matrix. It is fun.", drop=False)
    assert text == "Good choice!" and guard.stopped and guard.leaks == 1


def test_licensed_titles_may_be_written() -> None:
    text, guard = run("You should see The Matrix. It is fun.", ("m03",))
    assert text == "You should see The Matrix. It is fun." and guard.leaks == 0


def test_item_spans_pass_and_stay_whole() -> None:
    guard = LeakGuard(LINKER, ("m01",), drop=True)
    shown = guard.feed(Piece("text", "Try ", None, (1,))) + guard.feed(Piece("item", "<item:m01>", "m01", (2, 3)))
    assert shown == []  # nothing before the sentence ends
    shown = guard.feed(Piece("text", "!", None, (4,))) + guard.feed(Piece("text", " Or not", None, (5,)))
    assert "".join(piece.text for piece in shown) == "Try <item:m01>!"


@pytest.mark.parametrize("text", ["See it.", "Really?!", "Yes…", 'He said "no."', "One\n"])
def test_sentences_end(text: str) -> None:
    assert ends_sentence(text)


@pytest.mark.parametrize("text", ["Mr.", "starring J.", "Vol.", "and", ""])
def test_and_do_not_end(text: str) -> None:
    assert not ends_sentence(text)


def test_a_title_that_more_text_makes_plain_is_held_back_before_it_comes() -> None:
    said = "great The Matrix The Matrix. great."  # its first sentence alone reads as if it were shouted
    assert not LINKER.link("great The Matrix The Matrix.").links and LINKER.link(said).links
    text, guard = run(said)
    assert text == " great." and guard.leaks == 2


words = st.sampled_from(["great", "The Matrix", "Galaxy Quest", "Fargo", "you", "see", "watch", "and", "loved"])
sentences = st.lists(st.tuples(st.lists(words, min_size=1, max_size=5), st.sampled_from(".!?")), max_size=5)


@settings(deadline=None, max_examples=400)
@example(said=[(["great", "The Matrix", "The Matrix"], "."), (["great"], ".")], licensed=set(), drop=True)
@given(sentences, st.sets(st.sampled_from(["m03", "m05", "m08"])), st.booleans())
def test_no_unlicensed_title_is_ever_shown(said: list[tuple[list[str], str]], licensed: set[str], drop: bool) -> None:
    text = " ".join(" ".join(sentence) + end for sentence, end in said)
    shown, _ = run(text, tuple(licensed), drop=drop)
    assert {link.item for link in LINKER.link(shown, tuple(licensed)).links} <= licensed


SPOKEN = Dialogue(
    "1",
    (
        Turn("user", "I loved <item:m01> and <item:m04>"),
        Turn("assistant", "Then <item:m09>, or <item:m06>!"),
        Turn("user", "Seen it, and <item:m08> too"),
    ),
)


def test_rules_limit_what_a_reply_may_name() -> None:
    book = toy_book()
    admitted = np.array([item not in ("m01", "m09", "m08") for item in book])
    everything = ["m05", "m01", "m04", "m09", "m06", "m08"]
    assert licensed_items(SPOKEN, "recommend", ("m05",), None, book) == everything
    assert licensed_items(SPOKEN, "recommend", ("m05",), np.ones(12, dtype=bool), book) == everything
    assert licensed_items(SPOKEN, "recommend", ("m05",), admitted, book) == ["m05", "m04", "m06"]
    chatting = licensed_items(SPOKEN, "chat", (), admitted, book)
    assert chatting == ["m01", "m04", "m06", "m08"], "what the person named may be spoken of, our own m09 no more"


def test_a_barred_title_in_prose_is_a_leak() -> None:
    admitted = np.array([item != "m01" for item in toy_book()])
    licensed = tuple(licensed_items(SPOKEN, "recommend", ("m05",), admitted, toy_book()))
    text, guard = run("Like Alien, it is great! Watch Galaxy Quest. Inception is fine.", licensed)
    assert text == " Watch Galaxy Quest. Inception is fine." and guard.leaks == 1
