"""What follows the live catalogue: engine, program, session, chat, facts; a retired item is known and never given."""

from __future__ import annotations

import io
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from gcrs.programs.chat import run_chat
from gcrs.programs.facts_process import FactsProcess
from gcrs.programs.lm import local_lm
from gcrs.programs.loading import Talker
from gcrs.programs.one_reply import Request, reply_to_dialogue
from gcrs.programs.recommender import Recommender
from gcrs.programs.session import ChatSession, Followed
from gcrs.toolkit.catalog.item import Item
from gcrs.toolkit.catalog.live_facts import LiveFacts
from gcrs.toolkit.catalog.readers import write_items
from gcrs.toolkit.changes import join_vectors, restore_items, retire_items
from gcrs.toolkit.dialogue.encode import encode_prompt
from gcrs.toolkit.dialogue.linker import Linker
from gcrs.toolkit.dialogue.turns import Dialogue, Turn
from gcrs.toolkit.errors import DataError, DeadEnd, UsageError
from gcrs.toolkit.files import cache_dir
from gcrs.toolkit.ids.codebook import Codebook
from gcrs.toolkit.live import LiveCatalog
from gcrs.toolkit.model.bundle import MANIFEST, bundle_hash
from gcrs.toolkit.model.engine import Sampling
from gcrs.toolkit.model.processor import MaskProcessor
from live_toys import Nearest, live_toy
from toys import toy_catalog, toy_dialogues, toy_engine, toy_model, toy_tokens

SOLARIS = Item("n01", "Solaris", {"year": 1972, "genre": ["drama", "sci-fi"]}, (), ("Solyaris",))
STALKER = Item("n02", "Stalker", {"year": 1979, "genre": ["sci-fi"]})
ASKED = Dialogue("", (Turn("user", "Anything?"),))


def add(live: LiveCatalog, *items: Item) -> None:
    join_vectors(live, Nearest(), items, np.zeros((len(items), 2)))


def talker(directory: Path) -> Talker:
    """The toy parts as `load_talker` ties them together."""
    live, engine = live_toy(directory), toy_engine()
    edition = live.edition
    linker = Linker(edition.catalog)
    program = Recommender(toy_catalog(), engine.book, engine.tokens, local_lm(engine, "toy"), linker=linker)
    bundle: Any = SimpleNamespace(popularity={})
    facts: Any = None
    return Talker(bundle, live, program.over(edition, linker) if edition.version else program, linker, facts)


def session(of: Talker, **options: Any) -> ChatSession:
    settings: dict[str, Any] = {"bundle_hash": "toy", "seed": 7, "sampling": Sampling(max_tokens=6), **options}
    return ChatSession(of.recommender, of.linker, newest=of.follow, **settings)


def given(of: ChatSession, times: int) -> set[str]:
    for _ in range(times):
        assert of.more() is not None
    return set(of.given)


# ---- the engine


def naive_scores(prompt: list[int], book: Codebook, taught: set[str]) -> list[float]:
    """log P of every item, from one plain forward a prefix; a child of newcomers alone has its siblings' mean."""
    tokens, model = toy_tokens(), toy_model(toy_tokens())
    out = []
    for sid in book.ids.values():
        total = 0.0
        for level, code in enumerate(sid):
            same = {other: item for item, other in book.ids.items() if other[:level] == sid[:level]}
            children = sorted({other[level] for other in same})
            known = {other[level] for other, item in same.items() if item in taught}
            ids = [*prompt, tokens.boi, *(tokens.level_range(n).start + c for n, c in enumerate(sid[:level]))]
            with torch.inference_mode():
                logits = model(torch.tensor([ids])).logits[0, -1].double()
            weight = {c: math.exp(logits[tokens.level_range(level).start + c]) for c in children}
            if known:
                mean = sum(weight[c] for c in known) / len(known)
                weight |= {c: mean for c in children if c not in known}
            total += math.log(weight[code] / sum(weight.values()))
        out.append(total)
    return out


def test_an_item_that_joined_is_as_likely_as_the_mean_of_those_beside_it(tmp_path: Path) -> None:
    live = live_toy(tmp_path)
    before = set(live.edition.book)
    add(live, SOLARIS, STALKER)
    engine, tokens = toy_engine(), toy_tokens()
    over = engine.over(live.edition.book)
    for dialogue in toy_dialogues():
        prompt = [*encode_prompt(dialogue[:1], tokens, live.edition.book), tokens.rec]
        scores = over.score_all(prompt)
        np.testing.assert_allclose(scores, naive_scores(prompt, live.edition.book, before), atol=1e-4)
        assert np.isfinite(scores).all() and abs(float(np.exp(scores.astype(np.float64)).sum()) - 1) < 1e-4
        ranked = [one.item_id for one in over.targets(prompt, k=14, beams=14)]
        assert len(ranked) == 14 and {"n01", "n02"} < set(ranked)
        assert len(engine.score_all(prompt)) == 12  # the engine that it came from goes on over its own book
    assert over.stats is engine.stats and over.model is engine.model


def test_what_the_model_says_of_codes_that_it_was_never_taught_does_not_matter(tmp_path: Path) -> None:
    live = live_toy(tmp_path)
    before = {sid[:n] for sid in live.edition.book.ids.values() for n in (1, 2, 3)}
    add(live, SOLARIS, STALKER)
    tokens = toy_tokens()
    sid = live.edition.book.semantic_id("n01")
    level = next(n for n in range(len(sid)) if sid[: n + 1] not in before)
    grammar = toy_engine().over(live.edition.book)._target_grammar(None)
    ids = torch.tensor([[tokens.boi, *(tokens.level_range(n).start + code for n, code in enumerate(sid[:level]))]])
    logits = torch.randn(1, tokens.codes[level])
    shifted = logits.clone()
    shifted[0, sid[level]] -= 30.0
    assert torch.equal(MaskProcessor(grammar)(ids, logits), MaskProcessor(grammar)(ids, shifted))


def test_a_retired_item_is_removed_and_no_score_changes(tmp_path: Path) -> None:
    live = live_toy(tmp_path)
    retire_items(live, ["m01", "m06", "m07", "m08", "m09"])
    engine, tokens = toy_engine(), toy_tokens()
    over = engine.over(live.edition.book, live.edition.offered)
    prompt = [*encode_prompt(ASKED, tokens, live.edition.book), tokens.rec]
    before, after = engine.score_all(prompt), over.score_all(prompt)
    gone = np.array([item in live.edition.retired for item in live.edition.book])
    assert (after[gone] == -np.inf).all()
    np.testing.assert_allclose(after[~gone], before[~gone], atol=2e-5)
    assert not {one.item_id for one in over.targets(prompt, k=12)} & live.edition.retired
    everything = np.ones(12, dtype=bool)  # a caller's own filter cannot bring one back
    assert not {one.item_id for one in over.targets(prompt, k=12, allowed=everything)} & live.edition.retired
    retire_items(live, [item for item in live.edition.book if item not in live.edition.retired])
    with pytest.raises(DeadEnd, match="No item is allowed"):
        engine.over(live.edition.book, live.edition.offered).targets(prompt, k=1)


def test_another_codebook_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="The engine spells codes"):
        toy_engine().over(live_toy(tmp_path, counts=(4, 3, 6)).edition.book)


# ---- the program


def test_retired_items_are_no_targets_by_any_way(tmp_path: Path) -> None:
    here = talker(tmp_path)
    retire_items(live_toy(tmp_path), ["m05", "m06"])
    program, linker = here.follow()
    ranking = program.reply(ASKED, intent="recommend", k=12, respond=False).ranking
    assert len(ranking) == 10 and not {"m05", "m06"} & {one.item_id for one in ranking}
    with pytest.raises(UsageError, match="'m05' is given as the target but is retired"):
        program.reply(ASKED, targets=["m05"])
    reply, _ = reply_to_dialogue(program, linker, ASKED, Request(k=12))
    assert len(reply.ranking) == 10
    with pytest.raises(DeadEnd, match="Nothing is left"):
        reply_to_dialogue(program, linker, ASKED, Request(where=("title=Airplane!",)))
    allowed = np.array([item == "m05" for item in program.parts.book])
    assert program.reply(ASKED, allowed=allowed).intent.intent == "chat"  # nothing is left: the honest veto


def test_an_older_program_goes_on_over_its_own_edition(tmp_path: Path) -> None:
    here = talker(tmp_path)
    before = here.recommender
    add(live_toy(tmp_path), SOLARIS)
    after, linker = here.follow()
    assert after is here.recommender is not before and here.follow() == (after, linker)
    for program, items in ((before, 12), (after, 13)):
        assert len(program.reply(ASKED, intent="recommend", k=20, respond=False).ranking) == items
    assert after.intent.lm.model == "gcrs/toy+1" and before.intent.lm.model == "gcrs/toy"


# ---- sessions and chats


def test_a_session_sees_additions_and_retirements_at_its_next_message(tmp_path: Path) -> None:
    held = session(talker(tmp_path))
    elsewhere = live_toy(tmp_path)
    assert held.say("I like Solyaris") is not None and held.mentioned == ()
    add(elsewhere, SOLARIS)
    first = held.exchanges
    assert held.say("I like Solyaris!") is not None
    assert held.mentioned == ("n01",) and held.exchanges[:1] == first
    retire_items(elsewhere, ["m01", "m02"])
    left = 13 - 2 - len({*held.given, *held.mentioned})
    assert not given(held, left) & {"m01", "m02"}
    with pytest.raises(DeadEnd, match="Nothing is left"):
        held.more()
    restore_items(elsewhere, ["m02"])
    assert "m02" in given(held, 1)


def test_rules_exclusions_and_marks_hold_across_changes(tmp_path: Path) -> None:
    held = session(talker(tmp_path), where=("genre=sci-fi",), exclude=("m03",))
    held.mark("m01", "disliked")
    add(live_toy(tmp_path), SOLARIS, Item("n03", "Ran", {"genre": ["drama"]}))
    assert held.follow() == Followed(added=("n01", "n03"))
    assert held.permits("n01") and not held.permits("n03") and not held.permits("m03")
    retire_items(live_toy(tmp_path), ["n01", "m04"])
    assert held.follow() == Followed(retired=("m04", "n01")) and held.follow() == Followed()
    assert given(held, 2) == {"m02", "m05"}  # of m01 … m05 and n01: what is neither ruled out nor retired
    assert held.where == ("genre=sci-fi",) and held.exclude == ("m03",)


def test_a_retired_item_is_still_understood_and_the_chat_says_so(tmp_path: Path) -> None:
    held = session(talker(tmp_path))
    elsewhere = live_toy(tmp_path)
    lines = iter(["Hello", "I want to see Heat again", "/why m09", "/more", None])
    out, notes = io.StringIO(), io.StringIO()

    def read() -> str | None:
        line = next(lines)
        if line and line.startswith("I want"):
            retire_items(elsewhere, ["m09"])
        if line == "/more":
            add(elsewhere, SOLARIS, STALKER)
            restore_items(elsewhere, ["m09"])
        return line

    code = run_chat(held, Console(file=out, width=80), read, interactive=False, notes=Console(file=notes, width=80))
    assert code == 0 and held.mentioned[0] == "m09" and held.given.count("m09") == 0
    assert "Heat (1995) is retired: the catalogue no longer offers it." in out.getvalue()
    told = notes.getvalue()
    assert "No longer recommended in the catalogue: Heat (1995)." in told
    assert "(a) Heat = Heat (1995)" in told and "Retired from this catalogue, so not recommended: Heat (1995)." in told
    assert "New in the catalogue: Solaris (1972), Stalker (1979)." in told and "Back in the catalogue: Heat" in told


def test_why_says_that_a_given_item_has_been_retired_since(tmp_path: Path) -> None:
    held = session(talker(tmp_path))
    (item,) = given(held, 1)
    retire_items(live_toy(tmp_path), [item])
    held.follow()
    assert any("has been retired since" in line for line in held.why())


def test_a_session_of_before_a_change_loads_after_it(tmp_path: Path) -> None:
    held = session(talker(tmp_path / "journals"), exclude=("m02",))
    held.say("I like Alien, what else?", intent="recommend")
    held.save(tmp_path / "talk.json")
    elsewhere = live_toy(tmp_path / "journals")
    add(elsewhere, SOLARIS)
    retire_items(elsewhere, [*held.given, "m01", "m02"])
    again = session(talker(tmp_path / "journals"))
    again.load(tmp_path / "talk.json")
    assert again.steps == held.steps and again.exclude == ("m02",)
    more = again.more()
    assert more is not None and more.reply.targets[0].item_id not in again.retired
    again.say("And Solaris?")
    again.save(tmp_path / "talk.json")
    alone = session(talker(tmp_path / "none"))
    with pytest.raises(DataError, match="speaks of the item 'n01', which is not in this catalogue"):
        alone.load(tmp_path / "talk.json")


def test_a_journal_that_breaks_stops_recommending_not_the_chat(tmp_path: Path) -> None:
    held = session(talker(tmp_path))
    elsewhere = live_toy(tmp_path)
    retire_items(elsewhere, ["m01"])
    lines = iter(["/more", "/more", None])
    notes = io.StringIO()

    def read() -> str | None:
        line = next(lines)
        if line == "/more" and held.given:
            elsewhere.journal.path.write_bytes(b"")
        return line

    sink = Console(file=io.StringIO())
    code = run_chat(held, sink, read, interactive=False, notes=Console(file=notes, width=400))
    assert code == 3 and len(held.given) == 1 and "it is no journal of gcrs" in notes.getvalue()


# ---- facts


def as_bundle(directory: Path) -> LiveCatalog:
    """The toy items in a directory that passes for a bundle, and its live catalogue."""
    from toys import toy_book

    directory.mkdir(exist_ok=True)
    write_items(toy_catalog(), directory / "items.jsonl")
    (directory / MANIFEST).write_text('{"format": 1}', encoding="utf-8")
    found = bundle_hash(directory)
    assert found is not None
    return LiveCatalog(found, toy_catalog(), toy_book())


def test_facts_of_items_that_join_while_the_store_is_open(tmp_path: Path) -> None:
    live = as_bundle(tmp_path / "bundle")
    store = LiveFacts(tmp_path / "bundle", live.journal.bundle_hash)
    store.prepare()
    assert list(store.get(["n01", "m01"])) == ["m01"]
    for n in range(5):
        add(live, Item(f"n{n}", "New", {"year": 2000 + n}))
        assert store.get([f"n{n}", "m01", "n0"]) == {
            f"n{n}": {"year": 2000 + n},
            "m01": dict(toy_catalog()["m01"].facts),
            "n0": {"year": 2000},
        }
    retire_items(live, ["n0"])
    assert store.get(["n0"]) == {"n0": {"year": 2000}}
    store.close()
    folders = list((cache_dir() / "facts" / f"live-{live.journal.bundle_hash[:32]}").iterdir())
    assert len(folders) == 3  # the older ones are gone


def test_the_process_of_facts_follows_too(tmp_path: Path) -> None:
    live = as_bundle(tmp_path / "other")
    facts = FactsProcess(tmp_path / "other", list(toy_catalog().columns))
    assert facts.get(["m01", "n01"]) == {"m01": dict(toy_catalog()["m01"].facts)}
    add(live, SOLARIS)
    assert facts.get(["n01"]) == {"n01": dict(SOLARIS.facts)}
    live.journal.path.write_bytes(b"")
    with pytest.raises(DataError, match="it is no journal of gcrs"):
        facts.get(["n01"])
    facts.close()
    live.journal.path.unlink()
