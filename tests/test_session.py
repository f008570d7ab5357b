"""ChatSession: what a conversation remembers, excludes, undoes, explains and saves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gcrs.programs.lm import local_lm
from gcrs.programs.recommender import Recommender
from gcrs.programs.session import MORE, ChatSession, Said
from gcrs.toolkit.catalog.allow_list import read_allow_list
from gcrs.toolkit.dialogue.linker import Linker
from gcrs.toolkit.errors import DataError, DeadEnd, UnknownItem, UsageError
from gcrs.toolkit.model.engine import Sampling
from toys import toy_catalog, toy_engine

LIKES = "I loved The Matrix and Inception, what should I watch tonight?"


@pytest.fixture(scope="module")
def parts() -> tuple[Recommender, Linker]:
    engine, catalog = toy_engine(), toy_catalog()
    linker = Linker(catalog)
    return Recommender(catalog, engine.book, engine.tokens, local_lm(engine, "toy"), linker=linker), linker


def new(parts: tuple[Recommender, Linker], **options: Any) -> ChatSession:
    settings_ = {"bundle_hash": "toy", "seed": 7, "sampling": Sampling(max_tokens=8), **options}
    return ChatSession(*parts, **settings_)


def said(answer: Said | None) -> Said:
    assert answer is not None
    return answer


def legal(session: ChatSession, **options: Any) -> set[str]:
    mask = session.allowed(**options)
    return {item for item, ok in zip(session.recommender.parts.book, mask, strict=True) if ok}


def test_titles_in_my_words_are_linked_and_not_recommended_back(parts: Any) -> None:
    session = new(parts)
    answer = said(session.say(LIKES, intent="recommend"))
    assert answer.links == (("The Matrix", "m03"), ("Inception", "m04"))
    assert session.dialogue.turns[0].text == "I loved <item:m03> and <item:m04>, what should I watch tonight?"
    assert {one.item_id for one in answer.reply.ranking}.isdisjoint({"m03", "m04"})
    assert answer.cards == ((1, answer.reply.targets[0].item_id),) and session.given == (answer.cards[0][1],)


def test_more_never_repeats_and_says_when_nothing_is_left(parts: Any) -> None:
    session = new(parts)
    for n in range(12):
        said(session.more())
        assert len(session.given) == n + 1
    steps = session.steps
    with pytest.raises(DeadEnd, match="Nothing is left"):
        session.more()
    assert session.steps == steps
    assert said(session.say("And now?")).reply.intent.intent == "chat"


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(["more", "like 1", "dislike m08", "seen m10", "I saw Fargo", "Alien? Heat?", "undo"]),
        max_size=5,
    )
)
def test_what_was_mentioned_given_or_judged_is_never_recommended_unasked(parts: Any, script: list[str]) -> None:
    session = new(parts)
    for line in script:
        known = {*session.given, *session.mentioned, *session.feedback}
        try:
            if line == "undo":
                session.undo()
            elif line.startswith(("like", "dislike", "seen")):
                word, name = line.split()
                session.mark(session.find(name), {"like": "liked", "dislike": "disliked"}.get(word, "seen"))  # type: ignore[arg-type]
            else:
                answer = said(session.more() if line == "more" else session.say(line, intent="recommend"))
                known |= set(session.exchanges[-1].user.mentions)
                assert known.isdisjoint(one.item_id for one in answer.reply.ranking)
        except UsageError:
            continue


def test_asking_for_an_item_again_lifts_its_ban_for_that_reply(parts: Any) -> None:
    session = new(parts)
    said(session.say("I saw Fargo and Heat", intent="chat"))
    assert {"m08", "m09"}.isdisjoint(legal(session))
    session.mark("m09", "disliked")
    answer = said(session.say("Should I watch Fargo or Heat again?", intent="recommend"))
    ranked = {one.item_id for one in answer.reply.ranking}
    assert "m08" in ranked and "m09" not in ranked
    assert "m08" not in legal(session)


def test_rules_and_exclusions_hold_for_the_whole_session(parts: Any) -> None:
    session = new(parts, where=["year>=1996", "genre=comedy"], exclude=["m11"])
    assert legal(session) == {"m05", "m07"}
    assert legal(session, again=["m11", "m01"]) == {"m05", "m07"}
    with pytest.raises(DataError, match="no column"):
        new(parts, where=["colour=red"])
    with pytest.raises(UnknownItem):
        new(parts, exclude=["m99"])


def test_allow_lists_and_missing_values_are_part_of_the_session(parts: Any, tmp_path: Path) -> None:
    stock, file = tmp_path / "stock.txt", tmp_path / "chat.json"
    stock.write_text("m05\nm07\nm11\nm01\nm98\n")
    allow = read_allow_list(stock)
    session = new(parts, where=["not genre=drama"], exclude=["m11"], allow=allow, or_unknown=True)
    assert legal(session) == {"m05", "m07", "m01"} and session.rules.spelled[-1] == "only the ids in stock.txt"
    assert "does not satisfy not genre=drama, missing values admitted, only" in "\n".join(session.why("m08"))
    session.save(file)
    other = new(parts)
    other.load(file)
    assert other.rules == session.rules and legal(other) == legal(session)
    stock.write_text("m07")  # what is in stock changes, the session goes on with today's
    other.load(file)
    assert legal(other) == {"m07"}
    other.load(file, where=["year<2000"], allow=allow)
    assert legal(other) == {"m05", "m07", "m01"}
    stock.unlink()
    with pytest.raises(DataError, match=r"stock\.txt does not exist"):
        other.load(file)
    with pytest.raises(DeadEnd, match=r"no item satisfies 'genre=sci'\. genre holds sci-fi"):
        new(parts, where=["genre=sci"])
    with pytest.raises(DeadEnd, match=r"no item satisfies 'genre=drama' and satisfies 'year>1990'\. Relax"):
        new(parts, where=["genre=drama", "year>1990"])
    stock.write_text("m05\nm07")
    with pytest.raises(
        DeadEnd, match=r"satisfies 'genre=drama' and is listed in stock\.txt and is not excluded\. Relax"
    ):
        new(parts, where=["genre=drama"], exclude=["m01"], allow=read_allow_list(stock))
    stock.write_text("[1, 2]")
    with pytest.raises(DataError, match=r"None of the 2 ids in .*stock.txt is in the catalogue. The first is '1'"):
        new(parts, allow=read_allow_list(stock))


def test_a_like_is_told_to_the_model_with_the_next_message(parts: Any) -> None:
    session = new(parts)
    session.mark("m05", "liked")
    session.mark("m12", "disliked")
    said(session.say("More like that"))
    user = session.dialogue.turns[0]
    assert user.text == "I like <item:m05>. I do not like <item:m12>. More like that"
    assert user.feedback == {"m05": "liked", "m12": "disliked"}
    said(session.say("Go on"))
    assert session.dialogue.turns[2].text == "Go on"


def test_undo_takes_back_one_step_at_a_time(parts: Any) -> None:
    session = new(parts)
    first = said(session.say("Hello there")).reply.text
    session.mark("m01", "liked")
    session.undo()
    assert session.feedback == {}
    session.undo()
    assert len(session.dialogue) == 0
    with pytest.raises(UsageError, match="nothing to undo"):
        session.undo()
    assert said(session.say("Hello there")).reply.text == first


def test_unlinking_answers_the_message_anew(parts: Any) -> None:
    session = new(parts)
    said(session.say(LIKES, intent="recommend"))
    again = said(session.unlink(1, on_piece=lambda piece: None))
    assert again.links == (("Inception", "m04"),)
    assert session.dialogue.turns[0].text == "I loved The Matrix and <item:m04>, what should I watch tonight?"
    assert len(session.exchanges) == 1 and again.reply.intent.intent == "recommend"
    said(session.say("The Matrix it is"))
    assert session.dialogue.turns[2].mentions == ()
    with pytest.raises(UsageError, match=r"there is none \(d\)"):
        session.unlink(4)


def test_unlinking_that_fails_changes_nothing(parts: Any) -> None:
    session = new(parts)
    said(session.say(LIKES))
    steps = session.steps
    assert session.unlink(1, stop=lambda: True) is None or session.steps != steps
    session.steps, session.blocked = steps, frozenset()

    def broken(piece: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.unlink(1, on_piece=broken)
    assert session.steps == steps and not session.blocked


def test_a_reply_that_is_stopped_before_a_word_was_never_asked_for(parts: Any) -> None:
    session = new(parts)
    answer = session.say("Hello", stop=lambda: True)
    assert (answer is None) == (len(session.steps) == 0)


def test_items_are_found_by_card_id_or_title(parts: Any) -> None:
    session = new(parts)
    said(session.more())
    assert session.find("1") == session.given[0]
    assert session.find("m11") == "m11"
    assert session.find("amélie") == session.find("Amelie") == session.find("Amélie (2001)") == "m11"
    assert session.find("") == session.given[0], "the one item of the last reply"
    for name in ("2", "99", "A Film Nobody Made"):
        with pytest.raises(UsageError):
            session.find(name)
    with pytest.raises(UsageError, match="by its card number"):
        new(parts).find("")
    with pytest.raises(UsageError, match="There is no card 1: no card has been given yet"):
        new(parts).find("1")
    with pytest.raises(UsageError, match="'12'"):
        session.find('"12"')  # quotes make it a title; there is none like it here


def test_what_was_allowed_and_what_was_left_out_add_up(parts: Any) -> None:
    session = new(parts)
    said(session.say(LIKES, intent="recommend"))
    session.mark("m08", "seen")
    said(session.more())
    session.mark("m10", "disliked")
    for item in session.given:
        told = "\n".join(session.why(item))
        numbers = re.search(r"of (\d+) allowed of 12 items.*; (\d+) left out because", told, re.DOTALL)
        assert numbers is not None and int(numbers[1]) + int(numbers[2]) == 12


def test_why_tells_numbers_shared_facts_and_rules(parts: Any) -> None:
    session = new(parts, where=["year>=1980"])
    with pytest.raises(UsageError, match="Nothing was recommended"):
        session.why()
    said(session.say(LIKES, intent="recommend"))
    told = "\n".join(session.why())
    label = session.catalog[session.given[0]].label
    assert f"{label} came 1st of 8 allowed of 12 items" in told and "year>=1980" in told
    assert "by itself the model would have made one with" in told
    assert "does not satisfy year>=1980" in "\n".join(session.why("m01"))
    assert "was mentioned before" in "\n".join(session.why("m03"))
    session.mark("m08", "seen")
    shared = "\n".join(session.why("m02"))
    assert "It shares with Inception (2010), which you mentioned: genre: action, sci-fi" in shared


def test_a_saved_session_goes_on_the_same(parts: Any, tmp_path: Path) -> None:
    session = new(parts, where=["year>=1980"], exclude=["m12"], seed=11)
    said(session.say(LIKES))
    session.mark("m05", "liked")
    said(session.more())
    said(session.say("I saw Heat. Something else?"))
    session.unlink(1)
    file = tmp_path / "chat.json"
    session.save(file)
    other = new(parts)
    other.load(file)
    assert (other.steps, other.where, other.exclude, other.seed, other.blocked) == (
        session.steps,
        session.where,
        session.exclude,
        session.seed,
        session.blocked,
    )
    assert said(session.say("Go on")).reply.text == said(other.say("Go on")).reply.text
    assert session.why() == other.why()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bundle": "another"}, "was held with the bundle another"),
        ({"version": 2}, "version 2, expected 1"),
        ({"steps": "none"}, "broken session|expected"),
        ({"steps": [{"mark": "loved", "item": "m01"}]}, "expected liked"),
        ({"steps": [{"mark": "liked", "item": "m99"}]}, "not in this catalogue"),
        ({"steps": [{"words": "hi"}]}, "broken session"),
        ({"seed": None}, "broken session"),
        ({"allow": 7}, "broken session"),
        ({"allow": "/no/such/file"}, "/no/such/file does not exist"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(parts: Any, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    session, file = new(parts), tmp_path / "chat.json"
    session.save(file)
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(DataError, match=message) as caught:
        session.load(file)
    assert caught.value.exit_code == 3 and session.steps == ()


def test_no_file_and_no_json_are_refused(parts: Any, tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"version": 1, "bun')
    (tmp_path / "list.json").write_text("[]")
    for name in ("missing.json", "cut.json", "list.json"):
        with pytest.raises(DataError):
            new(parts).load(tmp_path / name)


@pytest.mark.parametrize(
    "text",
    [
        "<|im_end|><BOI><a_1><b_0><c_0><EOI>",
        "<item:m03> <item:m99>",
        "\x1b[31mred\x07\x00 control",
        "🎬🍿 فيلم مضحك من فضلك",
        "\u202eevil\u202c \ud800 half a pair",
        "x" * 5000,
    ],
)
def test_strange_text_gets_a_normal_reply(parts: Any, text: str) -> None:
    session = new(parts)
    answer = said(session.say(text))
    assert answer.reply.text.strip() and answer.links == ()
    assert session.dialogue.turns[0].mentions == ()


def test_a_hundred_thousand_characters_get_a_reply_that_says_what_was_cut(parts: Any) -> None:
    answer = said(new(parts).say("film! " * 16_000 + "I love The Matrix."))
    assert answer.reply.text.strip() and "cut from" in answer.reply.dropped


def test_blank_messages_are_refused(parts: Any) -> None:
    with pytest.raises(UsageError):
        new(parts).say(" \n\t ")


def test_reset_keeps_the_rules(parts: Any) -> None:
    session = new(parts, where=["year>=1980"])
    said(session.say(MORE))
    session.reset()
    assert session.steps == () and session.where == ("year>=1980",)


def test_a_given_target_is_rendered_even_if_it_was_mentioned(parts: Any) -> None:
    session = new(parts, exclude=["m01"])
    said(session.say("I saw Fargo"))
    answer = said(session.say("Tell me about it", targets=["m08"]))
    assert answer.cards[0][1] == "m08" and session.exchanges[-1].decision.given == ("m08",)
    assert "was given as the target" in "\n".join(session.why("m08"))
    with pytest.raises(UsageError, match="rules in force"):
        session.say("And this one?", targets=["m01"])
