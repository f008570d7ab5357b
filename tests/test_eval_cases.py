"""Cases, protocols, original ids, the split's checks, and one pass over a dialogue against a pass a reply."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gcrs.toolkit.catalog.item import Catalog, Item
from gcrs.toolkit.dialogue.encode import Kind, encode, encode_prompt
from gcrs.toolkit.dialogue.turns import Dialogue, Turn, write_dialogues
from gcrs.toolkit.errors import DataError
from gcrs.toolkit.eval.cases import candidates, cases, contexts, spread_out, under
from gcrs.toolkit.eval.one_pass import score_dialogue
from gcrs.toolkit.eval.rows import Ground
from gcrs.toolkit.eval.split import check_unseen, fingerprint, overlap, read_split
from toys import toy_dialogues, toy_engine

TALK = Dialogue(
    "d",
    (
        Turn("user", "I like <item:a>"),
        Turn("assistant", "<item:b> then, or <item:a> again"),
        Turn("user", "no"),
        Turn("assistant", "bye, or <item:z>"),
    ),
)


def catalog() -> Catalog:
    """a (also called a2), b and c."""
    return Catalog([Item("a", "A", aliases=("a2",)), Item("b", "B"), Item("c", "C")])


def test_protocols_by_hand() -> None:
    found = cases(list(contexts([TALK.map_items(lambda i: i if i != "z" else "?z")])))
    assert [(c.context, c.gold, c.repeat, c.known) for c in found] == [
        (0, "b", False, True),
        (0, "a", True, True),
        (1, "?z", False, False),
    ]
    assert under("all", found, {}) == [0, 1, 2]
    assert under("new", found, {}) == [0, 2]
    assert under("cold", found, {"a": 3}) == [0] and under("cold", found, {"b": 1}) == []
    assert candidates("all", ["a", "b"], {"a"}) == ["a", "b"] and candidates("new", ["a", "b"], {"a"}) == ["b"]
    assert spread_out(["a", "b"], {"a": ["a2", "a"]}) == ["a2", "a", "b"]


def test_the_same_replies_by_canonical_items_and_by_original_ids(tmp_path: Path) -> None:
    talk = Dialogue("1", (Turn("user", "<item:a>?"), Turn("assistant", "<item:a2> or <item:a> or <item:b>")))
    write_dialogues([talk], tmp_path / "d.jsonl")
    split = read_split(tmp_path / "d.jsonl", catalog())
    ground = Ground(split, {"a": 1}, {"a": ["a", "a2"]})
    ranking = [["a", "c", "b"]]
    assert [case.gold for case in split.cases] == ["a", "b"] and ground.ranks(ranking)["all"] == [1, 3]
    assert ground.ranks(ranking)["new"] == [2] and ground.ranks(ranking)["cold"] == [2]
    assert [case.gold for case in split.source_cases] == ["a2", "a", "b"]
    assert ground.source_ranks(ranking) == {"all": [2, 1, 4], "new": [1, 3]}  # a was named: a2 is new, and first
    assert ground.ranks(ranking, frozenset({0}))["all"] == [0, 0] and ground.ranks([None])["all"] == [None, None]


def test_items_outside_the_catalogue_are_misses_or_left_out(tmp_path: Path) -> None:
    write_dialogues([TALK], tmp_path / "d.jsonl")
    split = read_split(tmp_path / "d.jsonl", catalog())
    assert split.unknown == {"z": 1} and len(split.cases) == 3
    assert split.read[0].turns[3].text == "bye, or it"
    assert Ground(split, {}, {}).ranks([["b"], ["a"]])["all"] == [1, 0, 0]
    assert len(read_split(tmp_path / "d.jsonl", catalog(), skip_unknown=True).cases) == 2


def test_a_split_without_cases_or_that_was_trained_on_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    write_dialogues([Dialogue("1", (Turn("user", "hi"), Turn("assistant", "hello")))], path)
    with pytest.raises(DataError, match="no reply to score in 1 dialogues"):
        read_split(path, catalog())
    write_dialogues([TALK, Dialogue("e", TALK.turns[:2])], path)
    split = read_split(path, catalog())
    found = overlap(split, {"data": {"t.jsonl": "0" * 64}}, [], [Dialogue("other", TALK.turns[:1])])
    check_unseen(split, found)
    assert not found and found.to_json() == {"file": None, "file_of_bundle": False, "dialogues": 0}
    for key in ("data", "data_before"):  # what it was trained on, and what it was started from
        with pytest.raises(DataError, match="is training data of this bundle"):
            check_unseen(split, overlap(split, {key: {"t.jsonl": split.sha256}}, [], []))
    with pytest.raises(DataError, match=r"1 of the 2 dialogues .* such as 'd'"):
        check_unseen(split, overlap(split, {}, [], [Dialogue("other", TALK.turns)]))
    assert overlap(split, {}, [], []).dialogues is None  # nothing to compare with
    assert fingerprint(TALK) == fingerprint(Dialogue("x", TALK.turns)) != fingerprint(TALK[:2])


def test_equal_ids_are_told_apart_and_the_cases_have_a_name(tmp_path: Path) -> None:
    write_dialogues([TALK, TALK], tmp_path / "d.jsonl")
    split = read_split(tmp_path / "d.jsonl", catalog())
    assert [dialogue.id for dialogue in split.named] == ["0:d", "1:d"]
    assert split.cases_hash("abc") == split.cases_hash("cba") != split.cases_hash("ab")
    less = read_split(tmp_path / "d.jsonl", catalog(), limit=1)
    assert less.cases_hash("abc") != split.cases_hash("abc")


def test_one_pass_over_a_dialogue_is_a_pass_a_reply() -> None:
    """The single pass agrees with intent, targets and log-likelihoods computed reply by reply, beams cut or not."""
    import torch

    engine = toy_engine()
    turns = tuple(turn for dialogue in toy_dialogues() for turn in dialogue.turns)
    stated = Turn("assistant", "Only chatting about <item:m02>.", intent="chat")  # no <REC> in the sequence
    talk = Dialogue("t", (*turns, Turn("user", "ok"), stated))
    for beams in (12, 3):
        wanted = {n: beams for n, turn in enumerate(talk.turns) if turn.role == "assistant" and turn.mentions}
        for score in score_dialogue(engine, talk, wanted, budget=4096, beams=beams):
            prompt = encode_prompt(talk[: score.turn], engine.tokens, engine.book)
            assert score.recommend == pytest.approx(engine.intent(prompt).probabilities["recommend"], abs=1e-5)
            if score.turn in wanted:
                best = engine.targets([*prompt, engine.tokens.rec], k=beams, beams=beams)
                assert list(score.ranking) == [one.item_id for one in best]
                assert score.scores == pytest.approx([one.score for one in best], abs=1e-4)
            encoded = encode(talk[: score.turn + 1], engine.tokens, engine.book)
            ids = torch.tensor(encoded.ids[None].astype(np.int64))
            with torch.no_grad():
                logp = torch.log_softmax(engine.model.model(input_ids=ids).logits[0].float(), dim=-1)
            at = [n for n in range(len(prompt), len(encoded.ids)) if encoded.kinds[n] == Kind.TEXT]
            assert score.words.tokens == len(at)
            assert score.words.nats == pytest.approx(-sum(float(logp[n - 1, ids[0, n]]) for n in at), abs=1e-3)


def test_what_comes_later_changes_nothing() -> None:
    engine = toy_engine()
    first, second, third = toy_dialogues()
    (one, *_) = score_dialogue(engine, Dialogue("x", first.turns + second.turns), {1: 12}, budget=4096)
    (two, *_) = score_dialogue(engine, Dialogue("x", first.turns + third.turns), {1: 12}, budget=4096)
    assert one.ranking == two.ranking and one.recommend == pytest.approx(two.recommend, abs=1e-6)


def test_a_long_dialogue_is_read_as_the_product_reads_it() -> None:
    engine = toy_engine()
    talk = Dialogue("x", (Turn("user", "words " * 30 + "<item:m01>"), Turn("assistant", "Then <item:m05>!")) * 2)
    scores = score_dialogue(engine, talk, {1: 5, 3: 5}, budget=300)
    assert [(score.turn, score.fitted, len(score.ranking)) for score in scores] == [(1, False, 5), (3, True, 5)]


def test_equal_calls_give_equal_numbers_whatever_was_read_before() -> None:
    engine = toy_engine()
    first, second, _ = toy_dialogues()
    alone = score_dialogue(engine, second, {3: 12}, budget=4096)
    score_dialogue(engine, first, {1: 12}, budget=4096)
    assert json.dumps(alone, default=vars) == json.dumps(
        score_dialogue(engine, second, {3: 12}, budget=4096), default=vars
    )
