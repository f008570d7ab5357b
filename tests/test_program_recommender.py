"""The program: free, forced, vetoed and given decisions; filters; leaks; and the same program under other models."""

from __future__ import annotations

from typing import Any

import dspy
import numpy as np
import pytest
from dspy.utils.dummies import DummyLM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gcrs.programs.lm import local_lm
from gcrs.programs.recommender import NOTHING_SAID, Recommender
from gcrs.toolkit.catalog.item import Catalog, Item
from gcrs.toolkit.dialogue.linker import Linker
from gcrs.toolkit.dialogue.turns import Dialogue, Turn
from gcrs.toolkit.errors import DeadEnd, UnknownItem, UsageError
from gcrs.toolkit.ids.codebook import spell
from gcrs.toolkit.model.engine import Engine, Piece, Sampling
from toys import toy_book, toy_catalog, toy_dialogues, toy_engine

SHORT = Sampling(seed=5, max_tokens=10)
ASKED = toy_dialogues()[0][:1]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return toy_engine()


@pytest.fixture(scope="module")
def program(engine: Engine) -> Recommender:
    catalog = toy_catalog()
    return Recommender(catalog, engine.book, engine.tokens, local_lm(engine, "toy"), linker=Linker(catalog))


def mask(*items: str) -> np.ndarray:
    return np.array([item in items for item in toy_book()])


def test_a_forced_recommendation_ranks_k_items_and_answers(program: Recommender) -> None:
    reply = program.reply(ASKED, intent="recommend", k=5, sampling=SHORT)
    assert reply.forced and reply.intent.intent == "recommend" and sum(reply.intent.probabilities.values()) == 1
    assert len({one.item_id for one in reply.ranking}) == 5 and reply.targets == reply.ranking[:1]
    assert reply.text.strip() and reply.turn == Turn("assistant", reply.text, "recommend", (reply.targets[0].item_id,))
    assert set(reply.seconds) == {"intent", "target", "response", "total"}


def test_a_vetoed_recommendation_chats(program: Recommender) -> None:
    reply = program.reply(ASKED, intent="chat", sampling=SHORT)
    assert reply.forced and reply.targets == () and reply.turn.targets == () and reply.text.strip()


def test_a_free_intent_is_the_more_probable_one(program: Recommender) -> None:
    reply = program.reply(ASKED, sampling=SHORT)
    chances = reply.intent.probabilities
    assert not reply.forced and reply.intent.intent == max(chances, key=lambda one: chances[one])


def test_given_targets_are_rendered_not_predicted(program: Recommender) -> None:
    reply = program.reply(ASKED, targets=["m09", "m11"], sampling=SHORT)
    assert [one.item_id for one in reply.targets] == ["m09", "m11"] and reply.ranking == ()
    assert reply.intent.intent == "recommend" and "target" not in reply.seconds


def test_several_targets_differ_and_the_first_leads_the_ranking(program: Recommender) -> None:
    reply = program.reply(ASKED, intent="recommend", n_targets=3, sampling=SHORT, respond=False)
    assert len({one.item_id for one in reply.targets}) == 3 and reply.targets[0] == reply.ranking[0]
    few = program.reply(ASKED, intent="recommend", n_targets=3, allowed=mask("m02", "m08"), respond=False)
    assert {one.item_id for one in few.targets} == {"m02", "m08"} and few.text == ""


def test_the_same_seed_says_the_same(program: Recommender) -> None:
    one, two = (program.reply(ASKED, sampling=SHORT) for _ in range(2))
    other = program.reply(ASKED, sampling=Sampling(seed=6, max_tokens=10))
    assert one.text == two.text != other.text


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sets(st.sampled_from(list(toy_book())), min_size=1), st.integers(1, 12))
def test_nothing_outside_the_filter_is_recommended(program: Recommender, items: set[str], k: int) -> None:
    allowed = mask(*items)
    reply = program.reply(ASKED, intent="recommend", k=k, allowed=allowed, respond=False)
    assert {one.item_id for one in reply.ranking} <= items and len(reply.ranking) == min(k, len(items))


def test_when_nothing_is_allowed_a_free_reply_chats_and_a_forced_one_refuses(program: Recommender) -> None:
    assert program.reply(ASKED, allowed=mask(), sampling=SHORT).intent.intent == "chat"
    with pytest.raises(DeadEnd):
        program.reply(ASKED, intent="recommend", allowed=mask())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"intent": "maybe"}, UsageError),
        ({"intent": "chat", "targets": ["m01"]}, UsageError),
        ({"targets": ["m99"]}, UnknownItem),
        ({"targets": ["m01"], "allowed": mask("m02")}, UsageError),
        ({"k": 0}, UsageError),
        ({"n_targets": 11}, UsageError),
    ],
)
def test_options_that_cannot_be_met_are_refused(program: Recommender, options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        program.reply(ASKED, **options)


def test_pieces_are_what_the_reply_says(program: Recommender) -> None:
    heard: list[Piece] = []
    reply = program.reply(ASKED, sampling=SHORT, on_piece=heard.append)
    assert "".join(piece.text for piece in heard) == reply.text


def test_stop_ends_the_reply_and_says_so(program: Recommender) -> None:
    heard: list[Piece] = []
    reply = program.reply(ASKED, sampling=SHORT, on_piece=heard.append, stop=lambda: True)
    assert reply.stopped and len(reply.text) < 10


def test_a_long_dialogue_is_fitted_and_says_what_was_dropped(program: Recommender) -> None:
    long = Dialogue("d", (Turn("user", "word " * 20_000), *ASKED.turns))
    assert "left the context" in program.reply(long, respond=False).dropped


def leaking(engine: Engine) -> tuple[Sampling, str, Recommender]:
    """A program whose catalogue holds, as a title, what the model is about to write with this sampling."""
    plain = Recommender(toy_catalog(), engine.book, engine.tokens, local_lm(engine, "toy"))
    for seed in range(60):
        sampling = Sampling(seed=seed, max_tokens=10)
        text = plain.reply(ASKED, intent="chat", sampling=sampling).text
        catalog = Catalog([*toy_catalog(), Item("leak", text.strip())])
        linker = Linker(catalog)
        if found := linker.link(text).links:
            lm = local_lm(engine, "toy")
            return sampling, found[0].surface, Recommender(catalog, engine.book, engine.tokens, lm, linker=linker)
    raise AssertionError("the toy model writes nothing that could be a title")


def test_a_title_that_nothing_licenses_is_written_anew_and_never_shown(engine: Engine) -> None:
    sampling, title, program = leaking(engine)
    heard: list[Piece] = []
    reply = program.reply(ASKED, intent="chat", sampling=sampling, on_piece=heard.append)
    assert reply.leaks == 1 and reply.text.strip() and title not in reply.text
    assert "".join(piece.text for piece in heard) == reply.text


@pytest.mark.parametrize("seed", range(12))
def test_a_reply_that_recommends_names_nothing_that_the_rules_bar(program: Recommender, seed: int) -> None:
    loose = Sampling(3.0, 1.0, 1.0, 60, seed)
    dialogue = Dialogue("1", (Turn("user", "I loved <item:m01> and <item:m08>"),))
    rules = ~mask("m01", "m03")
    reply = program.reply(dialogue, intent="recommend", allowed=rules & ~mask("m08"), admitted=rules, sampling=loose)
    prose = program.parts.linker.link(reply.text).links  # type: ignore[union-attr]
    named = {*reply.turn.mentions, *(link.item for link in prose)}
    assert named <= {reply.targets[0].item_id, "m08"}
    chatting = program.reply(dialogue, intent="chat", allowed=rules, admitted=rules, sampling=loose)
    assert chatting.turn.targets == () and set(chatting.turn.mentions) <= {"m01", "m08"}


# The same program under a model that knows no semantic IDs


def zero_shot(*answers: dict[str, Any]) -> Recommender:
    catalog = toy_catalog()
    engine_free = toy_engine()
    lm = DummyLM(list(answers))
    return Recommender(catalog, toy_book(), engine_free.tokens, lm, linker=Linker(catalog))


@pytest.mark.parametrize("named", ["Galaxy Quest (1999)", "galaxy quest", "m05", spell(toy_book().semantic_id("m05"))])
def test_another_model_may_name_an_item_in_any_way(named: str) -> None:
    program = zero_shot({"intent": "recommend"}, {"target": named}, {"response": "Galaxy Quest is great fun!"})
    reply = program.reply(ASKED)
    assert [one.item_id for one in reply.targets] == ["m05"] and reply.intent.probabilities["recommend"] == 1
    assert reply.text == "<item:m05> is great fun!" and reply.leaks == 0


def test_another_models_unknown_or_forbidden_item_is_refused() -> None:
    with pytest.raises(DeadEnd, match="not in the catalogue"):
        zero_shot({"intent": "recommend"}, {"target": "Some Film Nobody Made"}).reply(ASKED)
    with pytest.raises(DeadEnd, match="rules in force"):
        zero_shot({"intent": "recommend"}, {"target": "Fargo"}).reply(ASKED, allowed=mask("m01"))


def test_another_models_prose_leaks_no_title_and_types_no_span() -> None:
    said = "Hello there! You should watch Fargo and <item:m08>. What do you like?"
    program = zero_shot({"intent": "chat"}, {"response": said}, {"response": said})
    heard: list[Piece] = []
    reply = program.reply(ASKED, on_piece=heard.append)
    assert reply.leaks >= 1 and reply.turn.mentions == () and "Fargo" not in reply.text and "Hello" in reply.text
    assert "".join(piece.text for piece in heard) == reply.text


def test_a_reply_is_never_empty() -> None:
    leak = {"response": "You should watch Fargo."}
    assert zero_shot({"intent": "chat"}, leak, leak).reply(ASKED).text == NOTHING_SAID
    reply = zero_shot({"intent": "recommend"}, {"target": "Heat (1995)"}, leak, leak).reply(ASKED)
    assert reply.text == "You could try <item:m09>."


def test_another_model_sees_titles_and_what_is_already_chosen() -> None:
    program = zero_shot({"target": "Fargo"}, {"target": "Airplane!"})
    lm = program.target.lm
    reply = program.reply(ASKED, intent="recommend", n_targets=2, respond=False)
    assert [one.item_id for one in reply.targets] == ["m08", "m06"]
    prompts = [entry["messages"][-1]["content"] for entry in lm.history]
    assert "Alien (1979)" in prompts[0] and "<item:" not in prompts[0] and "Fargo (1996)" in prompts[1]


def test_the_context_decides_when_the_program_has_no_model_of_its_own() -> None:
    catalog = toy_catalog()
    program = Recommender(catalog, toy_book(), toy_engine().tokens, linker=Linker(catalog))
    with dspy.context(lm=DummyLM([{"intent": "chat"}, {"response": "Hi!"}])):
        assert program.reply(ASKED).text == "Hi!"
