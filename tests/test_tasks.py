"""Dialogues made from a catalogue: facts as words, items that go together, skeletons, tasks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gcrs.toolkit.catalog.item import Catalog, Item
from gcrs.toolkit.dialogue.fact_words import FactWords, plural
from gcrs.toolkit.dialogue.related import Related
from gcrs.toolkit.dialogue.request_words import FACTS_ASKED, FACTS_HELD_OUT
from gcrs.toolkit.dialogue.skeletons import read_skeletons, shipped_skeletons
from gcrs.toolkit.dialogue.tasks import (
    FactsToItem,
    IdToItem,
    ItemToId,
    MentionsToId,
    SmallTalk,
    Source,
    Transferred,
)
from gcrs.toolkit.errors import DataError

TASKS = (FactsToItem, MentionsToId, Transferred, ItemToId, IdToItem, SmallTalk)


def games(count: int = 24) -> Catalog:
    """Invented games: half are card games for two, half co-operative ones for four; each has a designer of its own."""
    items = []
    for n in range(count):
        kind = n % 2
        facts = {
            "categories": [["card", "bluffing"], ["co-operative", "exploration"]][kind],
            "players": [2, 4][kind],
            "year": 1990 + n,
            "designers": [f"Ada Number{n}", "Ben Shared"] if n < 4 else [f"Ada Number{n}"],
            "in_stock": n % 3 == 0,
            "blurb": "A long text about this game that nobody would ever ask with in so many words.",
            "url": f"https://example.org/{n}",
        }
        items.append(Item(f"g{n}", f"Game {n}", facts))
    return Catalog(
        items,
        {"categories": "list", "players": "integer", "year": "integer", "designers": "list", "in_stock": "boolean",
         "blurb": "string", "url": "string"},
    )  # fmt: skip


def source(catalog: Catalog, noun: str = "board game", **options: object) -> Source:
    vectors = np.random.default_rng(0).normal(size=(len(catalog), 8))
    related = Related(catalog, vectors, np.zeros(len(catalog), int), list(catalog.columns))
    facts = FactWords(catalog, noun=noun)
    return Source(catalog, facts, related, {i.id: f"title: {i.title}" for i in catalog}, **options)  # type: ignore[arg-type]


def test_what_a_column_is_is_read_off_its_values() -> None:
    roles = FactWords(games()).roles
    assert roles == {
        "categories": "category",
        "players": "number",
        "year": "year",
        "designers": "name",
        "in_stock": "flag",
        "blurb": "text",
    }, "a link is no fact that one asks with"


def test_wishes_read_as_people_speak() -> None:
    catalog = games()
    facts = FactWords(catalog, noun="board game")
    rng = np.random.default_rng(1)
    seen = {facts.phrase(facts.wishes(catalog["g1"], rng, 4)) for _ in range(300)}
    assert all(phrase.startswith(("a ", "an ")) and "board game" in phrase for phrase in seen)
    assert any("a co-operative board game" in phrase for phrase in seen)
    assert any("by Ada Number1" in phrase for phrase in seen) and any("from the 1990s" in phrase for phrase in seen)
    assert any("for 4 players" in phrase for phrase in seen)
    assert not any("long text" in phrase or "https" in phrase or "in stock" in phrase for phrase in seen)
    assert FactWords(catalog).phrase([]) == "something"
    assert [plural(noun) for noun in ("board game", "dish", "berry", "toy", "")] == [
        "board games",
        "dishes",
        "berries",
        "toys",
        "",
    ]


def test_related_items_share_rare_facts() -> None:
    catalog = games()
    related = Related(catalog, np.ones((len(catalog), 3)), np.zeros(len(catalog), int), ["categories", "designers"])
    near = related.nearest("g0")
    assert near[0] == "g2", "the shared designer is rarer than the shared category"
    assert set(near[1:3]) == {"g1", "g3"}, "then those that share the designer alone"
    assert all(int(other[1:]) % 2 == 0 for other in near[3:]) and "g0" not in near
    assert related.far("g0", np.random.default_rng(0)) not in {"g0", *near}


def test_related_looks_within_a_cluster_where_there_are_many() -> None:
    items = [Item(f"i{n}", f"T{n}") for n in range(2_400)]
    vectors = np.random.default_rng(0).normal(size=(2_400, 4))
    clusters = np.arange(2_400) % 8
    related = Related(Catalog(items), vectors, clusters, [])
    assert all(int(other[1:]) % 8 == 5 for other in related.nearest("i5"))


def test_shipped_skeletons_name_no_domain_and_fill_completely() -> None:
    skeletons = shipped_skeletons()
    assert len(skeletons) >= 40
    words = " ".join(said for skeleton in skeletons for _, said in skeleton.turns).lower()
    assert not any(word in words.split() for word in ("movie", "film", "watch", "actor", "book", "game"))
    items = {slot: f"item-{slot}" for slot in "abdxy"}
    filler = {slot: "words" for slot in ("want", "want2", "f", "f2", "one", "good", "kind")}
    for skeleton in skeletons:
        dialogue = skeleton.fill("s", items, filler)
        assert [turn.role for turn in dialogue.turns] == ["user", "assistant"] * (len(dialogue) // 2)
        assert not any("{" in turn.text for turn in dialogue.turns)
        for turn in dialogue.turns:
            assert turn.role == "user" or set(turn.decided_targets) <= {"item-x", "item-y"}
    assert any(turn.decided_targets for s in skeletons for turn in s.fill("s", items, filler).turns)


@pytest.mark.parametrize(
    ("text", "message"),
    [("U: hi\nX: ho\n", "line 2"), ("U: {nonsense}\n", "unknown slot 'nonsense'"), ("# nothing\n", "no skeletons")],
)
def test_broken_skeletons_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_skeletons(path)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_a_pure_function_of_its_number(task: type) -> None:
    catalog = games()
    one, other = task(source(catalog, seed=3), 60), task(source(catalog, seed=3), 60)
    examples = [one.get_example(n) for n in range(60)]
    assert [other.get_example(n) for n in reversed(range(60))] == examples[::-1]
    assert [task(source(catalog, seed=4), 60).get_example(n) for n in range(60)] != examples
    for dialogue in examples:
        assert [turn.role for turn in dialogue.turns[:2]] == ["user", "assistant"]
        for turn in dialogue.turns:
            assert "{" not in turn.text and all(item in catalog for item in (*turn.mentions, *turn.decided_targets))


def test_facts_to_item_asks_with_the_facts_of_its_target_and_holds_words_out() -> None:
    catalog = games()
    made = [FactsToItem(source(catalog), 200).get_example(n) for n in range(200)]
    held = [FactsToItem(source(catalog), 200, held_out=True).get_example(n) for n in range(200)]
    for dialogue in made:
        asked, target = dialogue.turns[0].text, dialogue.turns[1].decided_targets[0]
        if "co-operative" in asked or "4 players" in asked:
            assert int(target[1:]) % 2 == 1
    assert not set(FACTS_ASKED) & set(FACTS_HELD_OUT)
    assert not {d.turns[0].text for d in made} & {d.turns[0].text for d in held}
    assert len({d.turns[1].decided_targets for d in made}) == len(catalog), "every item is asked for"


def test_popularity_and_baskets_shape_what_is_drawn() -> None:
    catalog = games()
    popular = source(catalog, popularity={"g7": 5_000})
    targets = Counter(MentionsToId(popular, 400).get_example(n).turns[1].decided_targets[0] for n in range(400))
    assert targets.most_common(1)[0][0] == "g7"
    paired = source(catalog, baskets=[["g0", "g1"]] * 3)
    liked = Counter(paired.like("g0", np.random.default_rng(n)) for n in range(200))
    assert liked["g1"] > 70, "half of the time what people mention together"


def test_a_catalogue_without_facts_or_of_one_item_still_teaches() -> None:
    bare = Catalog([Item("a", "One <item:x> thing"), Item("b", "Other")])
    for task in TASKS:
        for n in range(20):
            dialogue = task(source(bare, noun=""), 20).get_example(n)
            assert all(item in bare for turn in dialogue.turns for item in turn.mentions), "a title is data"
    single = Catalog([Item("only", "Only")])
    assert FactsToItem(source(single), 3).get_example(0).turns[1].decided_targets == ("only",)
    assert Transferred(source(single), 3).get_example(0).turns


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=12), min_size=1, max_size=4), st.integers(), st.floats(allow_nan=False), st.booleans())
def test_any_fact_makes_words(entries: list[str], number: int, real: float, flag: bool) -> None:
    facts = {"kinds": entries, "n_things": number, "price": real, "fresh": flag, "year": number % 3000}
    catalog = Catalog([Item("a", "A", facts), Item("b", "B", facts)])
    words = FactWords(catalog, noun="thing")
    for seed in range(5):
        wishes = words.wishes(catalog["a"], np.random.default_rng(seed))
        assert words.phrase(wishes) and isinstance(words.keywords(wishes), str)
        assert isinstance(words.told(catalog["a"], np.random.default_rng(seed)), str)
