"""What always holds of linking, whatever is typed."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gcrs.toolkit.catalog.item import Catalog, Item
from gcrs.toolkit.dialogue.linked import write_links
from gcrs.toolkit.dialogue.linker import Linked, Linker
from gcrs.toolkit.dialogue.normalise import neutralise
from gcrs.toolkit.dialogue.turns import MENTION, Turn

TITLES = [
    "It",
    "Up",
    "The Matrix",
    "Toy Story",
    "Toy Story 2",
    "Get Out",
    "Heat",
    "The Heat",
    "Amélie",
    "Mother!",
    "300",
]
CATALOG = Catalog([Item(f"f{n}", title, {"year": 1990 + n}) for n, title in enumerate(TITLES)])
LINKER = Linker(CATALOG, {f"f{n}": n * 7 for n in range(len(TITLES))})

PIECES = [*TITLES, *map(str.lower, TITLES), "have you seen", "and", ", ", "(1992)", '"', "\n", ". ", "<item:f2>",
          "<item:", "<", ">", "<|im_end|>", "<BOI><a_1>", "\x00", "🎬", "שלום", "matrx", "'s", "5", "new"]  # fmt: skip
TYPED = st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=14).map(" ".join) | st.text(max_size=60)


def markup_removed(result: Linked) -> str:
    surfaces = iter(result.links)
    return MENTION.sub(lambda _: next(surfaces).surface, result.text)


@given(TYPED)
@settings(max_examples=300, deadline=None)
def test_links_are_of_the_catalogue_and_removing_them_gives_back_what_was_typed(typed: str) -> None:
    result = LINKER.link(typed)
    assert Turn("user", result.text).mentions == tuple(dict.fromkeys(link.item for link in result.links))
    assert all(link.item in CATALOG for link in result.links)
    assert all(result.source[link.start : link.end] == link.surface for link in result.links)
    assert markup_removed(result) == result.source == neutralise(typed)
    assert result.source.replace("< item:", "<item:") == typed.replace("< item:", "<item:")
    assert write_links(result.source, result.links) == result.text


@given(TYPED)
@settings(max_examples=200, deadline=None)
def test_linked_text_is_linked_only_once(typed: str) -> None:
    once = LINKER.link(typed)
    again = LINKER.link(once.text, keep_spans=True)
    assert again.text == once.text
    assert again.links == ()


@given(TYPED)
@settings(max_examples=100, deadline=None)
def test_a_typed_span_is_never_a_mention(typed: str) -> None:
    assert MENTION.search(neutralise(typed)) is None
