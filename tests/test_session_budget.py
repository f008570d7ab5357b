"""The context budget: what stays, what is summed up, what is said about it."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from gcrs.toolkit.dialogue.budget import fit
from gcrs.toolkit.dialogue.encode import encode, encode_prompt
from gcrs.toolkit.dialogue.turns import Dialogue, Turn
from toys import toy_book, toy_tokens

TOKENS, BOOK = toy_tokens(), toy_book()
LIMIT = 400


def chat(n: int, words: int = 6) -> Dialogue:
    items = list(BOOK)
    turns = []
    for i in range(n):
        item = items[i % len(items)]
        mine = Turn("user", f"{'so ' * words}<item:{item}>", feedback={item: "liked"} if i % 2 else {})
        turns += [mine, Turn("assistant", "Yes.", "chat", ())]
    return Dialogue("d", tuple(turns))


def test_what_fits_stays_as_it_is() -> None:
    short = chat(2)
    assert fit(short, TOKENS, BOOK, LIMIT).dialogue is short and fit(short, TOKENS, BOOK, LIMIT).dropped == ""


def test_the_newest_turns_stay_behind_a_summary_of_items_likes_and_rules() -> None:
    long = chat(12)
    fitted = fit(long, TOKENS, BOOK, LIMIT, rules=("year>=2000",))
    summary, *rest = fitted.dialogue.turns
    assert tuple(rest) == long.turns[-len(rest) :] and len(rest) >= 2
    assert "I liked" in summary.text and "I only want: year>=2000." in summary.text
    assert summary.mentions and "older turns left the context" in fitted.dropped and "summary" in fitted.dropped


def test_one_huge_turn_keeps_its_beginning_and_end() -> None:
    text = "START <item:m01> " + "x" * 100_000 + " <item:m02> END"
    fitted = fit(Dialogue("d", (Turn("user", text),)), TOKENS, BOOK, LIMIT)
    (turn,) = fitted.dialogue.turns
    assert turn.text.startswith("START <item:m01> x") and turn.text.endswith("x <item:m02> END")
    assert "cut from" in fitted.dropped


def test_turns_leave_in_steps_so_that_prompts_keep_their_prefix() -> None:
    prompts = [encode_prompt(fit(chat(n), TOKENS, BOOK, 1000).dialogue, TOKENS, BOOK) for n in range(24, 64)]
    head = len(TOKENS.header("assistant"))
    kept = sum(b[: len(a) - head] == a[:-head] for a, b in itertools.pairwise(prompts))
    assert kept >= len(prompts) // 2


text = st.lists(st.one_of(st.text(max_size=60), st.sampled_from([f"<item:{i}>" for i in BOOK])), min_size=1, max_size=8)
turns = st.lists(st.tuples(st.sampled_from(["user", "assistant"]), text), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(turns, st.sampled_from([200, 400, 700]))
def test_the_prompt_always_fits(said: list[tuple[str, list[str]]], limit: int) -> None:
    dialogue = Dialogue("d", tuple(Turn(role, "".join(parts)) for role, parts in said))  # type: ignore[arg-type]
    fitted = fit(dialogue, TOKENS, BOOK, limit)
    assert len(encode_prompt(fitted.dialogue, TOKENS, BOOK)) <= limit
    whole = len(encode(dialogue, TOKENS, BOOK).ids)
    assert bool(fitted.dropped) == (whole + len(TOKENS.header("assistant")) > limit)
