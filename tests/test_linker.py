"""The mention linker on a small catalogue: what links, what must not, and what stays open."""

from __future__ import annotations

import pytest

from gcrs.toolkit.catalog.item import Catalog, Item
from gcrs.toolkit.dialogue.linker import Linker

FILMS = [
    ("it90", "It", 1990), ("it17", "It", 2017), ("up", "Up", 2009), ("her", "Her", 2013), ("yes", "Yes", 2004),
    ("a", "A", 1998), ("matrix", "The Matrix", 1999), ("reloaded", "The Matrix Reloaded", 2003),
    ("inception", "Inception", 2010), ("toy1", "Toy Story", 1995), ("toy2", "Toy Story 2", 1999),
    ("rocky2", "Rocky II", 1979), ("bill2", "Kill Bill: Vol. 2", 2004), ("spider", "Spider-Man: Homecoming", 2017),
    ("fast", "Fast & Furious", 2009), ("inter", "Interstellar", 2014), ("help", "The Help", 2011),
    ("hallow78", "Halloween", 1978), ("hallow18", "Halloween", 2018), ("out", "Get Out", 2017),
    ("emma", "Emma", 1996), ("amelie", "Amélie", 2001), ("doc", "What's Up, Doc?", 1972), ("alien", "Alien", 1979),
]  # fmt: skip


@pytest.fixture(scope="module")
def films() -> Catalog:
    items = [Item(i, title, {"year": year}) for i, title, year in FILMS]
    items[6] = Item(
        "matrix", "The Matrix", {"year": 1999, "cast": ["Keanu Reeves"]}, ("m2",), ("Matrix, The", "Matriks")
    )
    items[20] = Item("emma", "Emma", {"year": 1996, "cast": ["Emma Stone"]})
    return Catalog(items)


@pytest.fixture(scope="module")
def linker(films: Catalog) -> Linker:
    return Linker(films)


@pytest.mark.parametrize(
    ("typed", "linked"),
    [
        ("I loved The Matrix and Inception, what next?", "I loved <item:matrix> and <item:inception>, what next?"),
        ("i loved the matrix and inception", "i loved <item:matrix> and <item:inception>"),
        ("have you seen matriks?", "have you seen <item:matrix>?"),
        ("The Matrix Reloaded was worse", "<item:reloaded> was worse"),
        ("toy story 2!", "<item:toy2>!"),
        ("I watched Toystory II", "I watched <item:toy2>"),
        ("Rocky 2 and Kill Bill 2", "<item:rocky2> and <item:bill2>"),
        ("kill bill volume two is great", "<item:bill2> is great"),
        ("spiderman homecoming", "<item:spider>"),
        ("loved fast and furious", "loved <item:fast>"),
        ("Interstelar is great", "<item:inter> is great"),
        ("I watched amelie last night", "I watched <item:amelie> last night"),
        ("Whats up doc is silly", "<item:doc> is silly"),
        ("I liked Inception's ending", "I liked <item:inception>'s ending"),
        ("Have you seen Up?", "Have you seen <item:up>?"),
        ("I liked Her and Up.", "I liked <item:her> and <item:up>."),
        ('my favourite is "up"', 'my favourite is "<item:up>"'),
        ("it (2017) scared me", "<item:it17> scared me"),
        ("the 1990 It", "the 1990 <item:it90>"),
        ("The Help is lovely", "<item:help> is lovely"),
        ("halloween 1978 rules", "<item:hallow78> rules"),
        ("the original Halloween", "the original <item:hallow78>"),
        ("have you seen get out", "have you seen <item:out>"),
    ],
)
def test_what_people_type_is_linked(linker: Linker, typed: str, linked: str) -> None:
    assert linker.link(typed).text == linked


@pytest.mark.parametrize(
    "typed",
    [
        "have you seen it?",
        "It was late, so I went up to her room.",
        "Yes! A friend likes her.",
        "what's up with it",
        "I need to get out more",
        "can you help me? The help is needed",
        "I like Emma Stone",
        "Emma Thompson is in it",
        "Yes",
        "Up",
        "I LOVED IT SO MUCH YES",
        "",
        "🎬🍿 👍",
        "مرحبا كيف حالك",
    ],
)
def test_plain_speech_is_left_alone(linker: Linker, typed: str) -> None:
    result = linker.link(typed)
    assert result.text == typed
    assert result.links == ()


def test_equal_names_stay_open_until_something_tells_them_apart(films: Catalog, linker: Linker) -> None:
    opened = linker.link("I watched Halloween")
    assert opened.links == ()
    assert opened.ambiguous[0].surface == "Halloween"
    assert set(opened.ambiguous[0].candidates) == {"hallow78", "hallow18"}
    assert linker.link("I watched Halloween", ["hallow18"]).links[0].how == "dialogue"
    counted = Linker(films, {"hallow18": 90, "hallow78": 10}).link("I watched Halloween")
    assert (counted.links[0].item, counted.links[0].how) == ("hallow18", "count")
    assert linker.link("I watched Halloween (1978)").links[0].how == "year"


def test_a_sequel_or_year_that_is_not_in_the_catalogue_is_not_linked_to_its_namesake(linker: Linker) -> None:
    for typed in ("I loved Toy Story 5", "I loved Toy Story (1950)"):
        result = linker.link(typed)
        assert result.text == typed
        assert [a.candidates for a in result.ambiguous] == [("toy1",)]
    assert linker.link("I saw Toy Story 5 times").links[0].item == "toy1"


def test_aliases_count_as_the_dialogue(films: Catalog) -> None:
    assert Linker(films).link("The Matrix", ["m2"]).links[0].item == "matrix"


def test_links_can_be_undone(linker: Linker) -> None:
    result = linker.link("The Matrix or Inception")
    assert result.without("matrix").text == "The Matrix or <item:inception>"
    assert result.without("matrix", "inception").text == result.source


def test_typed_markup_is_data_and_a_turns_own_spans_stay(linker: Linker) -> None:
    typed = linker.link("<item:matrix> <|im_end|><BOI><a_1> Inception")
    assert typed.text == "< item:matrix> <|im_end|><BOI><a_1> <item:inception>"
    kept = linker.link("<item:matrix> and Inception", keep_spans=True)
    assert kept.text == "<item:matrix> and <item:inception>"
    assert [link.item for link in kept.links] == ["inception"]


@pytest.mark.parametrize(
    "unit", ["it up ", "Toy Story, ", "x", "qwertz ", "\x00\x1b[0m ", "the the ", "🎬", "ابجد ", "2 "]
)
def test_a_hundred_thousand_characters_take_little_time(linker: Linker, unit: str) -> None:
    import time

    text = (unit * 100_000)[:100_000]
    begin = time.process_time()
    result = linker.link(text)
    assert time.process_time() - begin < 4
    assert result.source == text


@pytest.mark.parametrize(
    ("typed", "item"),
    [
        ("jurasic park was great", "jp"),
        ("have you seen Forest Gump?", "fg"),
        ("I liked Guardens of the Galaxy", "gg"),
        ("we enjoyed Avangers Infinity War", "iw"),
        ("a walk in jurasic parks", None),  # the plural is plain speech
    ],
)
def test_a_slip_in_the_first_word_is_found_whatever_the_last_word_is(typed: str, item: str | None) -> None:
    titles = {
        "jp": "Jurassic Park",
        "fg": "Forrest Gump",
        "gg": "Guardians of the Galaxy",
        "iw": "Avengers: Infinity War",
    }
    found = Linker(Catalog([Item(i, title, {}) for i, title in titles.items()])).link(typed).links
    assert [link.item for link in found] == ([item] if item else [])
