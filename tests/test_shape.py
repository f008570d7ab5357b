"""Ablations of the sequence: what a reply declares, what its past shows. Trained, scored, never talking."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_finetune import config, parts  # noqa: F401  (a fixture)

from gcrs.programs.evaluate import evaluate
from gcrs.toolkit.dialogue.encode import encode, encode_prompt
from gcrs.toolkit.dialogue.shape import PRODUCT, SequenceShape
from gcrs.toolkit.dialogue.turns import Dialogue, Turn, write_dialogues
from gcrs.toolkit.errors import DataError, UsageError
from gcrs.toolkit.eval.config import EvalConfig
from gcrs.toolkit.eval.direct import words_before_item
from gcrs.toolkit.eval.one_pass import score_dialogue
from gcrs.toolkit.ids.codebook import Codebook
from gcrs.toolkit.model.bundle import Bundle, load_engine
from gcrs.toolkit.model.engine import Engine
from gcrs.toolkit.model.finetune import finetune
from gcrs.toolkit.model.finetune_config import FinetuneConfig
from toys import toy_book, toy_dialogues, toy_model, toy_tokens

BOOK = toy_book()
SHAPES = [SequenceShape("none"), SequenceShape("intent"), SequenceShape("all", past_decisions=False)]
TITLED = SequenceShape(titles=True)


def test_what_each_shape_shows() -> None:
    tokens = toy_tokens()
    whole = toy_dialogues()[1]  # chats, then recommends
    full, none, intent, recent = (
        encode(whole, replace(tokens, shape=shape), BOOK).ids.tolist() for shape in (PRODUCT, *SHAPES)
    )
    decided = {tokens.rec, tokens.chat, tokens.resp}
    assert not decided & set(none) and none.count(tokens.boi) == 2, "two items in words, no target"
    assert intent.count(tokens.resp) == 2 and intent.count(tokens.boi) == 2
    assert [token for token in intent if token not in decided] == none
    assert full.count(tokens.resp) == 2 and full.count(tokens.boi) == 3
    assert recent.count(tokens.resp) == 1 and recent.count(tokens.chat) == 0 and recent.count(tokens.boi) == 3
    assert recent[-20:] == full[-20:], "the last reply shows its own"
    alone = replace(tokens, shape=SHAPES[2])
    assert (
        encode(whole[:3], alone, BOOK).ids.tolist()
        == encode(whole[:3], replace(tokens, shape=SHAPES[0]), BOOK).ids.tolist()
    )


def test_titles_stand_before_the_items_of_the_person_alone() -> None:
    tokens, titles = toy_tokens(), {item: f"Film {item}" for item in BOOK}
    titled = replace(BOOK, titles=titles)
    for whole in toy_dialogues():
        found = encode(whole, tokens, titled)
        spelled = [
            replace(turn, text=re.sub(r"<item:(.+?)>", lambda m: f"{titles[m[1]]} {m[0]}", turn.text))
            if turn.role == "user"
            else turn
            for turn in whole.turns
        ]
        same = encode(Dialogue(whole.id, tuple(spelled)), tokens, BOOK)
        assert found.ids.tolist() == same.ids.tolist() and found.kinds.tolist() == same.kinds.tolist()
        assert encode(whole[:1], tokens, titled).ids.tolist() == found.ids[: found.turn_ends[0]].tolist()
        assert len(found.ids) > len(encode(whole, tokens, BOOK).ids), "somebody mentions something"


WRONG = [
    {},
    {"decisions": "some", "past_decisions": True},
    [],
    {"decisions": "all"},
    {"decisions": "all", "past_decisions": True, "titles": "yes"},
    {"decisions": "all", "past_decisions": True, "more": 1},
]


@pytest.mark.parametrize("raw", WRONG)
def test_a_manifest_with_another_shape_is_refused(raw: Any) -> None:
    with pytest.raises(DataError, match="sequence shape"):
        SequenceShape.from_json(raw)


@pytest.mark.parametrize("shape", [*SHAPES, TITLED])
def test_a_shape_reads_back(shape: SequenceShape) -> None:
    assert SequenceShape.from_json(shape.to_json()) == shape
    before_titles = {"decisions": "intent", "past_decisions": True}
    assert SequenceShape.from_json(before_titles) == SequenceShape("intent")
    assert SequenceShape.from_json(None) == PRODUCT


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decisions": "none", "item_share": 0.4}, "whole dialogues alone"),
        ({"decisions": "intent", "item_share": 0.0, "made": 5}, "whole dialogues alone"),
        ({"past_decisions": False}, "needs layout: instance"),
        ({"decisions": "some"}, "decisions"),
    ],
)
def test_settings_that_do_not_go_together(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FinetuneConfig(catalog=Path("c"), out=Path("o"), dialogues=(Path("d"),), **changes)


@pytest.mark.parametrize("shape", SHAPES[:2])
def test_the_item_is_where_the_reply_comes_to_one(shape: SequenceShape) -> None:
    tokens = replace(toy_tokens(), shape=shape)
    engine = Engine(toy_model(tokens, seed=3), tokens, BOOK)
    whole = toy_dialogues()[0]
    (score,) = score_dialogue(engine, whole, {1: 5}, budget=500)
    header = [*encode(whole[:1], tokens, BOOK).ids.tolist(), *tokens.header("assistant")]
    prompt = [*header, *([tokens.rec, tokens.resp] if shape.decisions == "intent" else [])]
    words = words_before_item(engine, prompt)
    expected = () if words is None else tuple(one.item_id for one in engine.targets([*prompt, *words], k=5, beams=60))
    assert score.ranking == expected
    if shape.decisions == "none":
        assert score.recommend == float(words is not None)
    again = score_dialogue(engine, whole, {1: 5}, budget=500)
    assert again == [score]


@pytest.mark.parametrize("shape", SHAPES)
def test_an_ablation_is_trained_and_scored_but_does_not_talk(
    parts: dict[str, Any],  # noqa: F811
    tmp_path: Path,
    shape: SequenceShape,
) -> None:
    from gcrs.programs.recommender import Recommender

    way = {"item_share": 0.0, "made": 0, "layout": "dialogue" if shape.past_decisions else "instance"}
    out = tmp_path / "ablation"
    finetune(config(parts, out, steps=2, decisions=shape.decisions, past_decisions=shape.past_decisions, **way))
    bundle = Bundle.load(out)
    assert bundle.tokens.shape == shape and bundle.manifest["shape"] == shape.to_json()
    with pytest.raises(DataError, match="it cannot talk"):
        Recommender.of(bundle, load_engine(bundle))
    valid = [
        Dialogue(f"v{n}", (replace(told.turns[0], text=f"So. {told.turns[0].text}"), *told.turns[1:]))
        for n, told in enumerate(toy_dialogues())
    ]
    write_dialogues(valid, tmp_path / "valid.jsonl")
    asked = EvalConfig(dialogues=tmp_path / "valid.jsonl", bundle=str(out), baselines=("popularity",), workers=1)
    found = evaluate(asked)
    assert found.report["n"] == 4 and not found.report["written"]
    assert ("intent" in found.report) == (shape.decisions != "none")


@pytest.mark.timeout(300)
def test_a_bundle_with_titles_talks_and_knows_those_of_newcomers(
    parts: dict[str, Any],  # noqa: F811
    tmp_path: Path,
) -> None:
    from gcrs.programs.recommender import Recommender
    from gcrs.toolkit.catalog.item import Item
    from gcrs.toolkit.catalog.journal import Change
    from gcrs.toolkit.live import LiveCatalog
    from gcrs.toolkit.model.tokens import TokenSpace

    out = tmp_path / "titled"
    finetune(config(parts, out, steps=2, titles=True))
    bundle = Bundle.load(out)
    assert bundle.manifest["shape"]["titles"] and bundle.book.titles == bundle.catalog.titles()
    assert not bundle.prepared.book.titles, "the catalogue's own file knows nothing of them"

    def shown(tokens: TokenSpace, book: Codebook, item: str) -> bool:
        asked = Dialogue("d", (Turn("user", f"I liked <item:{item}>"),))
        name = tokens.encode_text(f"I liked {book.titles[item]} ")
        return encode_prompt(asked, tokens, book)[len(tokens.header("user")) :][: len(name)] == name

    assert shown(bundle.tokens, bundle.book, "m03")
    newcomer = Change("add", "n1", Item("n1", "Brand New", {}), free_id(bundle.book))
    edition = LiveCatalog.of(bundle).edition.after([newcomer])
    assert edition.book.titles["n1"] == "Brand New" and shown(bundle.tokens, edition.book, "n1")
    recommender = Recommender.of(bundle, load_engine(bundle), edition=edition)
    told = recommender.reply(Dialogue("d", (Turn("user", "I liked <item:m03>"),)), intent="recommend", k=3)
    assert len(told.ranking) == 3 and told.turn.text
    warned = list[str]()
    further = config(parts, tmp_path / "further", steps=2, warm_start=str(out))
    finetune(further, warn=warned.append)
    assert len(warned) == 1 and "titles=true goes on as it was" in warned[0]


def free_id(book: Codebook) -> tuple[int, ...]:
    """A semantic ID that no item has."""
    return next(sid for sid in itertools.product(*map(range, book.codes)) if sid not in set(book.ids.values()))
